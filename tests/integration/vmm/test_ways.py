#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The unikernel under whatever runs it: the same tests for each way. Run on a host with KVM, on one without, and inside a
test bed whose KVM is AMD's SVM (tests/testbed/run-svm). Figures are printed, not judged.

Usage: test_ways.py WAY VMM IMAGE [CONNECTIONS [SLOWNESS]]
  WAY          direct, pvh (coracle-vmm by either entry), microvm-kvm, microvm-tcg (QEMU)
  CONNECTIONS  how many the guest is asked to take (default 10000)
  SLOWNESS     factor for every time limit (default 1)
Exit 77: needs root, network namespaces, /dev/net/tun, Debian's iperf, /dev/kvm or QEMU as the way wants.
"""
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import monitor

WAY, VMM, IMAGE = sys.argv[1], *map(os.path.abspath, sys.argv[2:4])
CONNECTIONS, SLOWNESS = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((4, 10000), (5, 1)))
NETNS = f"ways{os.getpid()}"
HOST4, GUEST4, HOST6, GUEST6 = "198.18.251.1", "198.18.251.2", "fdc0:251::1", "fdc0:251::2"
MAC = "02:00:00:00:fb:02"
NET = f"ip4={GUEST4}/24 gw4={HOST4} ip6={GUEST6}/64"
WORK = tempfile.mkdtemp(prefix="ways-")
QEMU = ["qemu-system-x86_64", "-accel", WAY.rpartition("-")[2], "-cpu", "host" if WAY == "microvm-kvm" else "max", "-m", "32",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0x604,iosize=4"]
started = []


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def run(*words, seconds=30, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds * SLOWNESS, **more)


def set_up():
    if os.geteuid() != 0:
        skip("not root")
    for device in ["/dev/net/tun"] + (["/dev/kvm"] if WAY != "microvm-tcg" else []):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as e:
            skip(f"{device}: {e.strerror}")
    for program in ["iperf", "ping", "ip"] + ([QEMU[0]] if WAY.startswith("microvm") else []):
        if not shutil.which(program):
            skip(f"{program} is not installed")
    if run("ip", "netns", "add", NETNS).returncode:
        skip("cannot make a network namespace")
    with open(f"/run/netns/{NETNS}", encoding="utf-8") as f:  # this process and what it starts live there
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000):
            skip("cannot enter a network namespace")
    for words in (["link", "set", "lo", "up"], ["tuntap", "add", "t0", "mode", "tap", "vnet_hdr"],
                  ["addr", "add", HOST4 + "/24", "dev", "t0"], ["addr", "add", HOST6 + "/64", "dev", "t0", "nodad"],
                  ["link", "set", "t0", "up"]):
        subprocess.run(["ip", *words], check=True)


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    run("ip", "netns", "del", NETNS)
    shutil.rmtree(WORK)


def command(parameters, network=True, properties="", machine="microvm", image=IMAGE):
    if WAY in ("direct", "pvh"):
        return [VMM, "--kernel", image, "--entry", WAY, "--append", parameters] + \
            (["--tap", "t0", "--mac", MAC] if network else [])
    return QEMU + ["-M", machine, "-kernel", image, "-append", parameters] + \
        (["-netdev", "tap,id=n0,ifname=t0,script=no,downscript=no,vnet_hdr=on", "-device",
          f"virtio-net-device,netdev=n0,mac={MAC}{properties}"] if network else [])


class Guest:
    """A guest on the tap, with its output in a file."""

    def __init__(self, *arguments, parameters="", **more):
        self.log = tempfile.NamedTemporaryFile(dir=WORK, mode="w+b")
        self.process = subprocess.Popen(command(f"{NET} {parameters} -- {' '.join(arguments)}", **more),
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        started.append(self.process)
        self.wait_for("erver listening|responder", 20)
        wait_until(lambda: " 0% packet loss" in run("ping", "-c", "1", "-W", "1", GUEST4).stdout, "no answer to a first ping")

    def text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_for(self, pattern, seconds=10):
        def there():
            assert self.process.poll() is None, f"it ended: {self.process.returncode}\n{self.text()}"
            return re.search(pattern, self.text())
        wait_until(there, f"no {pattern!r} in its output", seconds)

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(10 * SLOWNESS)


def wait_until(condition, words, seconds=10):
    end = time.monotonic() + seconds * SLOWNESS
    while not condition():
        assert time.monotonic() < end, words
        time.sleep(0.02)


def ping(address, *more, count=5):
    """No loss, or none at the second attempt: while a neighbour is looked for, lwIP keeps one packet and drops the others."""
    for _ in (1, 2):
        r = run("ping", "-c", str(count), "-i", "0.2", "-q", *more, address)  # it waits one interval for the last answer
        if " 0% packet loss" in r.stdout:
            return r.stdout.strip().splitlines()[-1]
    raise AssertionError(r.stdout)


def iperf(*words, seconds=30):
    r = run("iperf", "-f", "k", *words, seconds=seconds)
    assert r.returncode == 0 and "failed" not in r.stderr, (words, r.stdout, r.stderr)
    return r.stdout


def rate(text):
    return float(re.findall(r"([\d.]+) Kbits/sec", text)[-1]) / 1e6


# ---- what every way has to do ----

def test_a_program_that_ends():
    for arguments, status in (("iperf --help", 0), ("iperf --no-such-option", 2)):
        r = run(*command("-- " + arguments, network=False))
        wanted = 2 * status + 1 if WAY.startswith("microvm") else status  # isa-debug-exit
        assert r.returncode == wanted, (r.returncode, r.stdout, r.stderr)
        assert status or "Addresses are numeric" in r.stdout, r.stdout


# ---- code in the place of the image's first instruction at CPL 3, and what stops it ----

def header_field(index):
    """Of struct boot_image (abi/boot.h), and where in the file the text segment is."""
    with open(IMAGE, "rb") as f:
        image = f.read()
    phoff, = struct.unpack_from("<Q", image, 32)
    offset, _, address = struct.unpack_from("<QQQ", image, phoff + 8)
    return struct.unpack_from("<Q", image, offset + 8 * index)[0], offset - address, image


def patched(code):
    entry, shift, image = header_field(2)
    path = os.path.join(WORK, "patched")
    with open(path, "wb") as f:
        f.write(image[:entry + shift] + code + image[entry + shift + len(code):])
    return path


def load_from(address):
    return b"\x48\xb8" + struct.pack("<Q", address) + b"\x8a\x00"  # movabs rax; mov al, [rax]


def store_to(address):
    return b"\x48\xb8" + struct.pack("<Q", address) + b"\xc6\x00\x00"


def jump_to(address):
    return b"\x48\xb8" + struct.pack("<Q", address) + b"\xff\xe0"


def test_memory_is_what_the_abi_says():
    """No null page, no writable text, no executable data or stack, a guard under the stack, tables out of reach."""
    guard = header_field(8)[0]
    stack = header_field(4)[0]
    for name, code, said, address in (
            ("null pointer", load_from(8), "page fault", 8),
            ("text, written", store_to(0x100000), "page fault", 0x100000),
            ("read-only boot information, written", store_to(0x1000), "page fault", 0x1000),
            ("GDT", store_to(0x4000), "page fault", 0x4000),
            ("page tables", load_from(0x9000), "page fault", 0x9000),
            ("code on the stack", jump_to(stack - 64), "page fault", stack - 64),
            ("code in shared data", jump_to(0x3000), "page fault", 0x3000),
            ("stack guard, written", store_to(guard), "page fault", guard),
            ("a stack that runs over", b"\x50\xeb\xfd", "page fault", guard + 4096 - 8),  # push rax, again
            ("memory behind the last byte", store_to(3 << 30), "page fault", 3 << 30),
            ("a privileged instruction", b"\x0f\x22\xd8", "general protection fault", None),  # mov cr3, rax
            ("another port", b"\x66\xba\x80\x00\xee", "general protection fault", None)):
        r = run(*command("-- iperf --help", network=False, image=patched(code)))
        output = r.stdout + r.stderr
        assert said in output and "Addresses are numeric" not in output, (name, r.returncode, output)
        assert r.returncode != 0 or WAY.startswith("microvm"), (name, r.returncode)
        # PVM does not always tell the address of a guest's fault
        assert address is None or f"cr2 {address:x}\n" in output or (WAY == "direct" and "cr2 0\n" in output), (name, output)


# ---- the network ----

def test_ping_and_iperf():
    guest = Guest("iperf", "-s")
    for address, family in ((GUEST4, []), (GUEST6, ["-V"])):
        print(address, ping(address), flush=True)
        ping(address, "-s", "6000", count=3)
        for way in ([], ["-R"]):  # by amount where a host is emulated: a second may pass there with little to show
            text = iperf("-c", address, *family, *(("-n", "200K") if SLOWNESS > 1 else ("-t", "1")), *way)
            print(address, *way, f"{rate(text):.4f} Gbit/s", flush=True)
            assert rate(text) > 0, text
    guest.stop()


def test_idle_costs_nothing():
    """Also on a KVM whose guests have a TSC of their own: a deadline in the wrong one would wake it all the time."""
    guest = Guest("iperf", "-s")
    time.sleep(1)

    def ticks():
        with open(f"/proc/{guest.process.pid}/stat", encoding="utf-8") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
    most = 15 * (2 if SLOWNESS > 1 else 1)
    for _ in range(5):  # a guest that wakes all the time does so in each window; a host's hiccup is in one
        before = ticks()
        time.sleep(3)
        used = ticks() - before
        print(f"{used} of 300 ticks of processor time while idle", flush=True)
        if used <= most:
            break
    assert used <= most, used
    guest.stop()


def connect_many(address, many, rounds):
    """Echoes on many connections at once, ended in three ways; returns how many."""
    for _ in range(rounds):
        open_ = []
        for i in range(many):
            s = socket.create_connection((address, 7), timeout=10 * SLOWNESS)
            s.sendall(b"%d" % i)
            open_.append(s)
        for i, s in enumerate(open_):
            assert s.recv(64) == b"%d" % i, i
            if i % 3 == 0:
                s.shutdown(socket.SHUT_WR)
                assert s.recv(64) == b""
            elif i % 3 == 1:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
    return many * rounds


def test_connections():
    guest = Guest("responder")
    begun = time.monotonic()
    done = connect_many(GUEST4, 100, CONNECTIONS // 100)
    print(f"{done} connections in {time.monotonic() - begun:.2f} s"
          + (" (fewer than 10,000: this host is emulated)" if done < 10000 else ""), flush=True)
    connect_many(GUEST6, 20, 1)
    guest.stop()


def dropped():
    return int(re.search(r"TX:.*\n\s+\d+\s+\d+\s+\d+\s+(\d+)", run("ip", "-s", "link", "show", "t0").stdout).group(1))


def flood(end):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((GUEST4, 9))
        while time.monotonic() < end[0]:
            for _ in range(64):
                try:
                    s.send(b"x" * 600)
                except OSError:  # a refusal of the closed port, or a full queue
                    pass


def test_hostile_17_receive_ring_exhausted():
    """A guest that stands still while a flood fills its ring and the tap behind it; then it must go on as if nothing was.
    (CVE-2020-16843: the network of a guest froze for good.)"""
    guest = Guest("responder")
    before = dropped()
    for _ in range(2):
        end = [time.monotonic() + 30 * SLOWNESS]
        thread = threading.Thread(target=flood, args=(end,))
        thread.start()
        time.sleep(0.2)
        guest.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: dropped() > before, "the flood did not fill the ring and the tap")
        finally:
            guest.process.send_signal(signal.SIGCONT)
        before = dropped()
        time.sleep(0.5)
        end[0] = 0
        thread.join()
    print("packets dropped at the tap:", before)
    wait_until(lambda: " 0% packet loss" in run("ping", "-c", "2", "-i", "0.1", "-W", "2", GUEST4).stdout, "no recovery")
    ping(GUEST4)
    ping(GUEST6)
    assert connect_many(GUEST4, 20, 1) == 20
    guest.stop()


# Feature bits of virtio-net: what the guest declines, and what QEMU's device does not offer.
CSUM, GUEST_CSUM, GUEST_TSO, HOST_TSO, MERGE = 1 << 0, 1 << 1, 3 << 7, 3 << 11, 1 << 15
OFFLOADS = {
    "no segmentation by the host": (HOST_TSO, ",host_tso4=off,host_tso6=off"),
    "no checksum by the host": (CSUM | HOST_TSO, ",csum=off"),
    "no large packets to the guest": (GUEST_TSO, ",guest_tso4=off,guest_tso6=off"),
    "no partial checksums to the guest": (GUEST_CSUM | GUEST_TSO, ",guest_csum=off"),
    "no mergeable buffers": (MERGE, ",mrg_rxbuf=off"),
    "nothing at all": (CSUM | GUEST_CSUM | GUEST_TSO | HOST_TSO | MERGE, ",csum=off,guest_csum=off,mrg_rxbuf=off"),
}


def test_offloads_that_differ():
    for name, (declined, properties) in OFFLOADS.items():
        if SLOWNESS > 1 and name not in ("no checksum by the host", "no mergeable buffers", "nothing at all"):
            continue  # a start takes seconds there; the others are tested elsewhere
        variants = [dict(parameters=f"net.without={declined:x}")]
        if WAY.startswith("microvm"):
            variants.append(dict(properties=properties))
        for variant in variants:
            guest = Guest("iperf", "-s", **variant)
            try:
                for address, family in ((GUEST4, []), (GUEST6, ["-V"]))[:1 if SLOWNESS > 1 else 2]:
                    ping(address, count=3)
                    rates = [rate(iperf("-c", address, *family, "-n", "400K", *way)) for way in ([], ["-R"])]
                    assert min(rates) > 0.0001, rates
            except AssertionError as e:
                raise AssertionError(name, variant, str(e), guest.text()) from e
            guest.stop()


def test_machines():
    """The same file on QEMU's variants: register interface old and new, interrupt controllers one and two, devices from
    the command line or probed, no timer to measure by."""
    if not WAY.startswith("microvm"):
        return
    machines = ("microvm,acpi=off,pit=off,pic=off,rtc=off", "microvm,acpi=off", "microvm,ioapic2=off")
    for machine in machines[:1 if SLOWNESS > 1 else 3]:
        QEMU.extend(["-global", "virtio-mmio.force-legacy=false"])
        for _ in range(2):
            guest = Guest("responder", machine=machine)
            ping(GUEST4, count=3)
            assert "is none" not in guest.text(), guest.text()  # what QEMU writes is understood
            guest.stop()
            QEMU[:] = QEMU[:-2] if QEMU[-2] == "-global" else QEMU


def test_kill_9():
    for _ in range(1 if SLOWNESS > 1 else 2):
        guest = Guest("iperf", "-s")
        assert guest.stop(signal.SIGKILL) == -signal.SIGKILL
        others = [pid for pid in run("ip", "netns", "pids", NETNS).stdout.split()
                  if pid != str(os.getpid()) and os.path.exists(f"/proc/{pid}")]  # the first is `ip` itself
        assert not others, others
    guest = Guest("iperf", "-s")  # the tap is free again
    ping(GUEST4, count=3)
    guest.stop()


def open_tap():
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"t0", 0x5002))  # TUNSETIFF: tap, vnet_hdr
    fcntl.ioctl(fd, 0x400454d8, struct.pack("i", 12))  # TUNSETVNETHDRSZ
    return fd


def test_snapshot_and_restore():
    if WAY != "direct":
        return  # snapshots are coracle-vmm's, of guests by its own entry
    file = os.memfd_create("snapshot")
    mac = bytes(int(x, 16) for x in MAC.split(":"))
    asked = monitor.LOGS | monitor.WAIT
    for source, flags in ((IMAGE, asked), (file, asked | monitor.RESTORE)):
        m = monitor.Monitor(VMM, os.path.join(WORK, str(flags)))
        started.append(m.process)
        assert m.prepare().type == monitor.DONE
        tap = open_tap()
        r = m.load(source, f"{NET} -- iperf -s".encode(), flags, nics=[(mac, monitor.NET_TAP, 1)], taps=[tap],
                   seconds=10 * SLOWNESS)
        os.close(tap)
        assert r.type == monitor.DONE, (r, m.log())
        ping(GUEST4)
        assert rate(iperf("-c", GUEST4, "-n", "1M")) > 0.0001
        if source == IMAGE:
            r = m.control(monitor.SNAPSHOT, fds=[file], seconds=10 * SLOWNESS)
            assert r.type == monitor.DONE, r
            ping(GUEST4, count=3)  # it goes on
        m.end(signal.SIGTERM)
    os.close(file)


def main():
    set_up()
    failed = 0
    try:
        for name, test in list(globals().items()):
            if not name.startswith("test_"):
                continue
            begun = time.monotonic()
            try:
                test()
                print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except Exception as e:  # pylint: disable=broad-except
                failed += 1
                print(f"FAILED {name}: {type(e).__name__}: {e}", flush=True)
                for process in started:
                    process.kill()
                    process.wait()
    finally:
        tear_down()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
