#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
coracle-vmm and the unikernel on this host's KVM: starts and ends, the sandbox, guests that mean no good, the network
functions against Debian's iperf and ping over a tap in a namespace of its own. Figures are printed, not judged.

Usage: test_vmm.py COUNT VMM IMAGE SYMBOLS TRACE   (COUNT: system calls the monitor may make, as its header says; SYMBOLS:
the image before it was stripped; TRACE: tools/trace-unikernel)
Exit 77: needs root, /dev/kvm, /dev/net/tun, network namespaces and Debian's iperf.
"""
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from harness import need_root_and, run, run_tests, skip

COUNT, VMM, IMAGE, SYMBOLS, TRACE = int(sys.argv[1]), *map(os.path.abspath, sys.argv[2:6])
NETNS = f"vmm{os.getpid()}"
HOST4, GUEST4, HOST6, GUEST6 = "198.18.252.1", "198.18.252.2", "fdc0:ac1f::1", "fdc0:ac1f::2"
NET = f"ip4={GUEST4}/24 gw4={HOST4} ip6={GUEST6}/64"
WORK = tempfile.mkdtemp(prefix="vmm-test-")
started = []


def inside(*words):
    return ["ip", "netns", "exec", NETNS, *words]


def set_up():
    need_root_and("/dev/kvm", "/dev/net/tun")
    iperf = shutil.which("iperf")
    version = iperf and subprocess.run([iperf, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True).stdout
    if not version or "version 2.1" not in version:
        skip("iperf 2.1 is not installed")
    if run(["ip", "netns", "add", NETNS]).returncode:
        skip("cannot make a network namespace")
    for words in (["link", "set", "lo", "up"], ["tuntap", "add", "t0", "mode", "tap", "vnet_hdr"],
                  ["addr", "add", HOST4 + "/24", "dev", "t0"], ["addr", "add", HOST6 + "/64", "dev", "t0", "nodad"],
                  ["link", "set", "t0", "up"]):
        subprocess.run(["ip", "-n", NETNS, *words], check=True)


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    run(["ip", "netns", "del", NETNS])
    shutil.rmtree(WORK)


class Guest:
    """A monitor on the tap, with the guest's output in a file."""

    def __init__(self, *arguments, memory="16MiB"):
        self.log = tempfile.NamedTemporaryFile(dir=WORK, mode="w+b")
        begun = time.monotonic()
        self.process = subprocess.Popen(inside(VMM, "--kernel", IMAGE, "--memory", memory, "--tap", "t0", "--mac",
                                               "02:00:00:00:fc:02", "--append", f"{NET} -- {' '.join(arguments)}"),
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        started.append(self.process)
        self.wait_for("erver listening|responder", 20)
        self.ready_ms = (time.monotonic() - begun) * 1000
        self.pid = self.process.pid  # `ip netns exec` has become the monitor

    def text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_for(self, pattern, seconds=10):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text()):
            assert self.process.poll() is None, f"the monitor ended: {self.process.returncode}\n{self.text()}"
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.text()}"
            time.sleep(0.01)

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(10)


def once(*arguments, image=IMAGE, memory="16MiB", append=None, seconds=20, **more):
    words = [VMM, "--kernel", image, "--memory", memory, "--append", append or f"-- {' '.join(arguments)}"]
    return run(words, seconds, **more)


# ---- starts and ends ----

def test_a_program_that_ends():
    r = once("iperf", "--help")
    assert r.returncode == 0 and "Addresses are numeric" in r.stdout, (r.returncode, r.stdout, r.stderr)
    r = once("iperf", "--no-such-option")
    assert 0 < r.returncode < 64, (r.returncode, r.stdout, r.stderr)


def test_wrong_options():
    for words, hint in ((["--memory", "16"], "16MiB"), (["--memory", "99999999999GiB"], "16MiB"), (["--mac", "1:2"], "mac"),
                        (["--vcpus", "0"], "1 to 64"), (["--vcpus", "65"], "1 to 64"), (["--entry", "long"], "direct or pvh"),
                        (["--mac", "03:00:00:00:00:01"], "unicast"), (["--console", "77"], "descriptor"), ([], "kernel")):
        r = run([VMM, *words])
        assert r.returncode == 64 and hint in r.stderr, (words, r.returncode, r.stderr)
    assert run([VMM, "--help"]).returncode == 0 and run([VMM, "--version"]).returncode == 0


def test_probe():
    """The flavour is told by what a guest did, and agrees with what the processor claims."""
    r = run([VMM, "--probe"])
    told = json.loads(r.stdout)
    assert r.returncode == 0 and r.stdout.count("\n") == 1 and told["kvm"] is True and "reason" not in told, (r.stdout, r.stderr)
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        hardware = set(f.read().split()) & {"vmx", "svm"}
    if told["ring0"] == "emulated":
        assert told["flavour"] == "pvm" and told["ring0_ps"] > 200000 > told["ring3_ps"], told
    else:
        assert told["flavour"] in (hardware or {"unknown"}) and told["ring0_ps"] < 200000, told
    assert told["vhost_net"] == os.path.exists("/dev/vhost-net"), told


def test_what_cannot_start():
    for words, said in ((["--kernel", "/nonexistent"], "/nonexistent"), (["--kernel", "/bin/true"], "IMAGE_MALFORMED"),
                        (["--kernel", IMAGE, "--memory", "1MiB"], "INVALID_VALUE"),
                        (["--kernel", IMAGE, "--memory", "4GiB"], "at most 3 GiB"),
                        (["--kernel", IMAGE, "--append", "x" * 4096], "boot parameters"),
                        (["--kernel", IMAGE, "--vcpus", "2"], "a unikernel has one vCPU"),
                        (["--kernel", IMAGE, "--initrd", IMAGE], "no initrd"),
                        (["--kernel", IMAGE, "--entry", "pvh", "--initrd", "/nonexistent"], "/nonexistent"),
                        (["--kernel", IMAGE, "--entry", "pvh", "--memory", "1MiB"], "boot area"),
                        (["--kernel", IMAGE, "--entry", "pvh", "--append", "x" * 4096], "command line"),
                        (["--kernel", IMAGE, "--tap", "nosuchtap"], "ip tuntap add nosuchtap")):
        r = run([VMM, *words])
        assert r.returncode == 125 and said in r.stderr, (words, r.returncode, r.stderr)
    assert run(["ip", "link", "show", "nosuchtap"]).returncode != 0, "a tap was made"


def test_console_descriptor():
    path = os.path.join(WORK, "console")
    with open(path, "wb") as f:
        r = subprocess.run([VMM, "--kernel", IMAGE, "--console", str(f.fileno()), "--append", "-- iperf --help"],
                           pass_fds=[f.fileno()], capture_output=True, text=True, timeout=20)
    with open(path, encoding="utf-8") as f:
        assert "Addresses are numeric" in f.read() and r.stdout == "" and r.returncode == 0


# ---- guests that mean no good: code in the place of the image's first instruction ----

def patched(code, entry=None):
    """The image with code at its entry, or at another address of its text."""
    with open(IMAGE, "rb") as f:
        image = bytearray(f.read())
    phoff, = struct.unpack_from("<Q", image, 32)
    offset, _, address = struct.unpack_from("<QQQ", image, phoff + 8)
    entry = entry or struct.unpack_from("<Q", image, offset + 16)[0]
    image[entry - address + offset:entry - address + offset + len(code)] = code
    path = os.path.join(WORK, "patched")
    with open(path, "wb") as f:
        f.write(image)
    return path


def load_from(address):
    return b"\x48\xb8" + struct.pack("<Q", address) + b"\x8a\x00"  # movabs rax; mov al, [rax]


def store_to(address):
    return b"\x48\xb8" + struct.pack("<Q", address) + b"\xc6\x00\x00"


HOSTILE = {
    "an instruction that is none": (b"\x0f\x0b", "invalid opcode", None),
    "a null pointer": (load_from(0), "page fault", 0),
    "memory behind the last byte": (load_from(16 << 20), "page fault", 16 << 20),
    "memory far behind": (store_to(1 << 40), "page fault", 1 << 40),
    "its own text, written": (store_to(0x100000), "page fault", 0x100000),
    "boot information, written": (store_to(0x1000), "page fault", 0x1000),
    "the GDT": (store_to(0x4000), "page fault", 0x4000),
    "page tables": (store_to(0x9000), "page fault", 0x9000),
    "code in data": (b"\xb8\x00\x30\x00\x00\xff\xe0", "page fault", 0x3000),
    "another port": (b"\x66\xba\x80\x00\xee", "general protection", None),
    "a privileged instruction": (b"\x0f\x22\xd8", "general protection", None),  # mov cr3, rax
    "an MSR read": (b"\xb9\x1b\x00\x00\x00\x0f\x32", "general protection", None),
    "an MSR written": (b"\xb9\x80\x00\x00\xc0\x0f\x30", "general protection", None),
    "PCI's configuration ports": (b"\x66\xba\xf8\x0c\xed", "general protection", None),
    "the keyboard's reset": (b"\xb0\xfe\xe6\x64", "general protection", None),
    "text that lies nowhere": (b"\xb8\xff\xff\xff\xff\x66\xba\x10\x06\xef\x0f\x0b", "invalid opcode", None),
    "text whose address is none": (b"\xb8\x00\x10\x00\x00\x66\xba\x10\x06\xef\x0f\x0b", "invalid opcode", None),
    "switching interrupts off": (b"\xfa", "general protection", None),
}


def test_hostile_guests():
    for name, (code, said, address) in HOSTILE.items():
        r = once("iperf", "--help", image=patched(code))
        assert r.returncode == 126 and said in r.stderr, (name, r.returncode, r.stdout, r.stderr)
        assert address is None or f"cr2 {address:x}\n" in r.stderr or "cr2 0\n" in r.stderr, (name, r.stderr)
        assert "trace-unikernel" in r.stderr and "registers: rax" in r.stderr and "stack:" in r.stderr, r.stderr
        assert "iperf" not in r.stdout, (name, r.stdout)


def symbol(name):
    text = run(["nm", SYMBOLS]).stdout
    return int(re.search(rf"^([0-9a-f]+) [tT] {name}$", text, re.M).group(1), 16)


def test_a_panic_is_traced():
    r = once("iperf", image=patched(b"\x0f\x0b", symbol("nf_main")))
    assert r.returncode == 126, (r.returncode, r.stderr)
    traced = run([TRACE, SYMBOLS], input=r.stderr)
    lines = traced.stdout.splitlines()
    assert traced.returncode == 0 and "nf_main at " in lines[0], (traced.stdout, traced.stderr)
    assert any("unikernel_main at main.c:" in line for line in lines[1:]), traced.stdout
    assert run([TRACE, SYMBOLS], input="nothing").returncode == 1


def test_guest_that_spins_is_stopped():
    process = subprocess.Popen([VMM, "--kernel", patched(b"\xeb\xfe")], stdout=subprocess.DEVNULL)
    started.append(process)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


# ---- on the network ----

def test_sandbox():
    guest = Guest("iperf", "-s")
    with open(f"/proc/{guest.pid}/status", encoding="utf-8") as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    for thread in os.listdir(f"/proc/{guest.pid}/task"):
        with open(f"/proc/{guest.pid}/task/{thread}/status", encoding="utf-8") as f:
            text = f.read()
        assert "Seccomp:\t2" in text and "CapEff:\t0000000000000000" in text, text
    kinds = sorted(re.sub(r"[:\d\[\]]", "", os.readlink(f"/proc/{guest.pid}/fd/{fd}"))
                   for fd in os.listdir(f"/proc/{guest.pid}/fd") if int(fd) > 2)
    assert kinds == sorted(["anon_inodekvm-vm", "anon_inodekvm-vcpu", "/dev/net/tun", "anon_inodeeventpoll"] +
                           ["anon_inodeeventfd"] * 4), kinds
    assert COUNT <= 24, f"{COUNT} system calls: each more is a decision"
    assert guest.stop() == 128 + signal.SIGTERM


def iperf(*words, seconds=30):
    r = run(inside("iperf", "-f", "k", *words), seconds)
    assert r.returncode == 0 and "failed" not in r.stderr and "WARNING" not in r.stderr, (words, r.stdout, r.stderr)
    return r.stdout


def rate(text):
    return float(re.findall(r"([\d.]+) Kbits/sec", text)[-1]) / 1e6


def test_iperf():
    guest = Guest("iperf", "-s")
    for address, family in ((GUEST4, []), (GUEST6, ["-V"])):
        r = run(inside("ping", "-c", "20", "-i", "0.01", "-q", address))
        assert " 0% packet loss" in r.stdout, r.stdout
        print(address, r.stdout.strip().splitlines()[-1])
        for way in ([], ["-R"], ["-P", "4"]):
            text = iperf("-c", address, *family, "-t", "1", *way)
            print(address, *way, f"{rate(text):.2f} Gbit/s")
            assert rate(text) > 0.01, text
        for size in ("1400", "8000"):
            for way in ([], ["-R"]):
                text = iperf("-c", address, *family, "-u", "-b", "10M", "-t", "1", "-l", size, *way)
                lost, total = map(int, re.findall(r"(\d+)/(\d+) \(", text)[-1])
                assert total * int(size) * 8 > 8e6 and lost * 20 <= total, (address, size, way, text)
    print(f"time to its first line: {guest.ready_ms:.1f} ms; load {os.getloadavg()[0]:.1f}")
    assert guest.stop() == 128 + signal.SIGTERM


def test_byte_counts_agree():
    guest = Guest("iperf", "-s")
    for way, amount in (([], "30.0 MBytes"), (["-R"], "20.0 MBytes")):
        text = iperf("-f", "m", "-c", GUEST4, "-n", amount.split(".", maxsplit=1)[0] + "M", *way)
        guest.wait_for(amount)
        assert amount in text, (text, guest.text())
    guest.stop()


CONNECTIONS = """
import socket, sys
address, many, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for r in range(rounds):
    open_ = []
    for i in range(many):
        s = socket.create_connection((address, 7), timeout=10)
        s.sendall(b"%d" % i)
        open_.append(s)
    for i, s in enumerate(open_):
        assert s.recv(64) == b"%d" % i, i
        if i % 3 == 0:
            s.shutdown(socket.SHUT_WR)
            assert s.recv(64) == b""
        elif i % 3 == 1:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7))
        s.close()
"""


def test_idle_costs_nothing_and_nothing_is_lost():
    guest = Guest("iperf", "-s")
    text = iperf("-e", "-c", GUEST4, "-n", "200M")
    again = int(re.findall(r"bits/sec\s+\d+/\d+\s+(\d+)", text)[-1])
    assert again < 500, f"{again} segments of 144,000 sent again: packets are lost between tap and guest\n{text}"
    time.sleep(0.3)

    def ticks():
        with open(f"/proc/{guest.pid}/stat", encoding="utf-8") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 10, f"{ticks() - before} of 200 ticks of processor time while idle"
    guest.stop()


def test_2000_connections():
    guest = Guest("responder", memory="8MiB")
    begun = time.monotonic()
    r = run(inside(sys.executable, "-c", CONNECTIONS, GUEST4, "100", "20"), 120)
    assert r.returncode == 0, (r.stdout, r.stderr, guest.text())
    seconds = time.monotonic() - begun
    r = run(inside(sys.executable, "-c", CONNECTIONS, GUEST6, "10", "1"), 60)
    assert r.returncode == 0, (r.stderr, guest.text())
    with open(f"/proc/{guest.pid}/status", encoding="utf-8") as f:
        rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
    print(f"2,000 connections in {seconds:.2f} s; {rss} KiB resident")
    assert rss < 12 * 1024, f"{rss} KiB: more than the guest has and the monitor needs"
    guest.stop()


def sequence_number(port):
    """The initial sequence number the guest answers a connection request of ours with."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)) as s:
        s.bind(("t0", 0))
        s.settimeout(5)
        with socket.socket() as c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT: used again
            c.bind(("", port))
            c.connect((GUEST4, 7))
        while True:
            frame = s.recv(2048)
            if frame[23] == 6 and frame[47] == 0x12 and struct.unpack(">H", frame[36:38])[0] == port:
                return struct.unpack(">I", frame[38:42])[0]


def in_namespace(function, *arguments):
    """function() in a child within the namespace; its result as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(f"/run/netns/{NETNS}", encoding="utf-8") as f:
                os.setns(f.fileno(), os.CLONE_NEWNET)
            os.write(writer, repr(function(*arguments)).encode())
        except Exception as e:  # pylint: disable=broad-except
            os.write(writer, repr(e).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as f:
        return f.read()


def test_sequence_numbers_are_not_foreseeable():
    if not hasattr(os, "setns"):
        import ctypes
        os.CLONE_NEWNET = 0x40000000
        os.setns = ctypes.CDLL(None, use_errno=True).setns
    seen = []
    for _ in range(2):
        guest = Guest("responder")
        seen.append([int(in_namespace(sequence_number, port)) for port in (20001, 20002, 20003)])
        guest.stop()
    # Two boots, three ports each: with a guessable base neighbours lie close; six far points are no accident.
    points = sorted(seen[0] + seen[1])
    gaps = [b - a for a, b in zip(points, points[1:])]
    assert len(set(points)) == 6 and sum(g > 1 << 20 for g in gaps) >= 4, seen


def test_killed_monitor_leaves_nothing():
    for _ in range(2):
        guest = Guest("iperf", "-s")
        assert guest.stop(signal.SIGKILL) == -signal.SIGKILL
        assert run(["ip", "netns", "pids", NETNS]).stdout == ""
        links = run(["ip", "-n", NETNS, "-br", "link"]).stdout.split()
        assert [w for w in links if w.startswith("t")] == ["t0"], links
    guest = Guest("iperf", "-s")  # the tap is free again
    assert " 0% packet loss" in run(inside("ping", "-c", "2", "-i", "0.1", GUEST4)).stdout
    guest.stop()


def main():
    set_up()
    try:
        return 1 if run_tests(globals(), started) else 0
    finally:
        tear_down()


if __name__ == "__main__":
    sys.exit(main())
