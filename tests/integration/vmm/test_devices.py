#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The monitor's devices on this host's KVM: a guest that drives each for real (guest/), one that attacks all of them, and the
unikernel's control channel. Figures are printed, not judged.

Usage: test_devices.py VMM STATIC-VMM GUEST IMAGE INJECT [PART OF A TEST'S NAME]
Exit 77: needs root, /dev/kvm, /dev/net/tun and network namespaces.
"""
import atexit
import hashlib
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
from harness import need_root_and, run_tests, skip

VMM, STATIC, GUEST, IMAGE, INJECT = map(os.path.abspath, sys.argv[1:6])
NETNS = f"vmd{os.getpid()}"
HOST4, GUEST4 = "198.18.253.1", "198.18.253.2"
WORK = tempfile.mkdtemp(prefix="vmm-devices-")
atexit.register(shutil.rmtree, WORK)  # also when it skips
started = []


def set_up():
    need_root_and("/dev/kvm", "/dev/net/tun")
    if subprocess.run(["ip", "netns", "add", NETNS], capture_output=True).returncode:
        skip("cannot make a network namespace")
    for words in (["link", "set", "lo", "up"], ["tuntap", "add", "t0", "mode", "tap", "vnet_hdr"],
                  ["addr", "add", HOST4 + "/24", "dev", "t0"], ["link", "set", "t0", "up"],
                  ["neigh", "add", GUEST4, "lladdr", "02:00:00:00:00:01", "dev", "t0"]):
        subprocess.run(["ip", "-n", NETNS, *words], check=True)


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    subprocess.run(["ip", "netns", "del", NETNS], check=False)


class Machine:
    """A monitor whose guest's output is gathered in a file."""

    def __init__(self, what, *options, image=GUEST, memory="16MiB", tap=False, **more):
        self.log = tempfile.NamedTemporaryFile(dir=WORK, mode="w+b")
        inside = ["ip", "netns", "exec", NETNS] if tap else []
        words = [*inside, VMM, "--kernel", image, "--memory", memory, "--append", what, *options]
        self.process = subprocess.Popen(words + (["--tap", "t0"] if tap else []), stdout=self.log,
                                        stderr=subprocess.STDOUT, stdin=more.pop("stdin", subprocess.DEVNULL), **more)
        started.append(self.process)
        self.pid = self.process.pid

    def text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_for(self, pattern, seconds=15):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text())):
            assert self.process.poll() is None, f"the monitor ended: {self.process.returncode}\n{self.text()}"
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.text()}"
            time.sleep(0.01)
        return found

    def end(self, wanted=0, seconds=60):
        status = self.process.wait(seconds)
        assert status == wanted, (status, self.text()[-3000:])
        return self.text()

    def rss(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def make_disk(name="disk", size=4 << 20):
    path = os.path.join(WORK, name)
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


# ---- each device, driven for real ----

def test_block():
    disk = make_disk()
    before = digest(disk)
    text = Machine("block many=500", "--disk", disk + ",private").end()
    for line in ("capacity 8192", "serial 0 coracle-0", "write 0", "flush 0", "again 0 ours", "neighbour 0 unchanged", "beyond 1"):
        assert line in text, (line, text)
    assert digest(disk) == before, "a private disk's file was written"
    text = Machine("block", "--disk", disk + ",readonly").end()
    assert "write 1" in text and "again 0 not ours" in text and digest(disk) == before, text
    text = Machine("block", "--disk", disk).end()
    assert "write 0" in text and "again 0 ours" in text, text
    with open(disk, "rb") as f:
        f.seek(16 * 512)
        assert f.read(4096) == bytes(i * 7 & 255 for i in range(4096)), "what was written is not in the file"
    assert digest(disk) != before


def test_console():
    reader, writer = os.pipe()
    m = Machine("console", "--input", str(reader), pass_fds=[reader])
    os.close(reader)
    for word in (b"hello", b"again", b"q"):
        os.write(writer, word)
        m.wait_for("got " + word.decode())
    m.end()
    os.close(writer)


def test_entropy():
    text = Machine("entropy", "--rng").end()
    seen = re.findall(r"entropy (\d+) (\w+)", text)
    assert len(seen) == 2 and seen[0][1] != seen[1][1] and all(n == "256" for n, _ in seen), text


def test_balloon_gives_memory_back():
    m = Machine("balloon touch=128 pause=700", "--balloon=32MiB", memory="256MiB")
    m.wait_for("touched")
    full = m.rss()
    m.wait_for("inflated 8192")
    inflated = m.rss()
    m.wait_for("reported 16384")
    reported = m.rss()
    m.end()
    print(f"resident: {full >> 10} MiB with 128 touched, {inflated >> 10} with 32 inflated, {reported >> 10} with 64 reported")
    assert full > 128 << 10 and full - inflated > 31 << 10 and inflated - reported > 63 << 10, (full, inflated, reported)


class Vsock:
    """A program's side of the monitor's vsock socket."""

    def __init__(self, path, line):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(path)
        self.sock.sendall(line)

    def line(self):
        text = b""
        while not text.endswith(b"\n"):
            byte = self.sock.recv(1)
            if not byte:
                return text
            text += byte
        return text

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            assert part, f"the end after {len(data)} of {size} bytes"
            data += part
        return bytes(data)


def test_vsock():
    path = os.path.join(WORK, "vsock")
    m = Machine("vsock", "--vsock", path, "--cid", "77")
    m.wait_for("cid 77")
    echoes = [Vsock(path, b"CONNECT %d\n" % port) for port in range(1, 9)]
    for e in echoes:
        assert e.line().startswith(b"OK 1073741"), "no answer"
    for i, e in enumerate(echoes):
        e.sock.sendall(b"stream %d" % i)
    for i, e in enumerate(echoes):
        assert e.exactly(8) == b"stream %d" % i
    for e in echoes[1:]:
        e.sock.close()
    block = os.urandom(4 << 20)  # far beyond every buffer on the way: credit both ways
    begun = time.monotonic()
    sender = threading.Thread(target=echoes[0].sock.sendall, args=[block])
    sender.start()
    assert echoes[0].exactly(len(block)) == block, "bytes changed on the way"
    sender.join()
    print(f"4 MiB there and back in {(time.monotonic() - begun) * 1000:.0f} ms")
    echoes[0].sock.close()
    Vsock(path, b"CONNECT 99\n").line()
    m.end()
    assert "cid 3" in Machine("vsock", "--vsock", path).wait_for("cid 3").group()  # the path is taken over


def test_guest_connects_out():
    path = os.path.join(WORK, "vsock-out")
    m = Machine("vsock hello=1", "--vsock", path)
    m.wait_for("cid 3")
    waiter = Vsock(path, b"ACCEPT 2000\n")
    assert waiter.line() == b"OK 4000\n"
    assert waiter.exactly(10) == b"hello host"
    assert waiter.sock.recv(1) == b"", "the guest ended it"
    Vsock(path, b"CONNECT 99\n").line()
    m.end()


# ---- a guest that attacks ----

def everything():
    disk = make_disk("hostile-disk", 1 << 20)
    path = os.path.join(WORK, "hostile-vsock")
    return disk, ["--disk", disk + ",readonly", "--virtio-console", "--rng", "--vsock", path, "--balloon"]


def attack(name, more="", tap=True, seconds=90):
    disk, options = everything()
    before = digest(disk)
    m = Machine(f"{name} {more}", *options, tap=tap)
    text = m.end(seconds=seconds)
    assert f"{name} done" in text and "FAILED" not in text, text
    assert digest(disk) == before, "a read-only disk was written"
    lines = [line for line in text.splitlines() if "broke the protocol" in line]
    assert len(lines) <= 8 * 6, f"{len(lines)} lines in the log: the guest can fill it"
    return text


def test_hostile_12_descriptors():
    attack("hostile_12")


def test_hostile_13_indices():
    attack("hostile_13")


def test_hostile_14_addresses():
    attack("hostile_14")


def test_hostile_15_lengths():
    attack("hostile_15")


def test_hostile_16_vsock_headers():
    attack("hostile_16")


def test_hostile_18_registers_and_ports():
    """Rings at random places: the devices may write over the guest itself, which then ends with a reason."""
    ends = []
    for _ in range(4):
        disk, options = everything()
        before = digest(disk)
        m = Machine("hostile_18", *options, tap=True)
        status = m.process.wait(60)
        text = m.text()
        assert status == 0 and "hostile_18 done" in text or status == 126 and "error coracle-vmm" in text, (status, text[-3000:])
        assert digest(disk) == before, "a read-only disk was written"
        ends.append(status)
    print("ends:", *ends)


def test_hostile_storm_of_notifications():
    print(re.search(r"\d+ notifications", attack("storm")).group())


def test_hostile_rings_moved_in_use():
    attack("rings")


FLOOD = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        for _ in range(200):
            s.sendto(b"x" * 1000, (sys.argv[1], 9))
    except OSError:
        pass
"""


def test_hostile_17_receive_ring_full():
    m = Machine("hostile_17 pause=700", tap=True)
    m.wait_for("full")
    flood = subprocess.Popen(["ip", "netns", "exec", NETNS, sys.executable, "-c", FLOOD, GUEST4, "6"])
    started.append(flood)
    text = m.end(seconds=20)
    flood.kill()
    flood.wait()
    assert "early 64 late 2000" in text, text


# ---- the sandbox, from inside a monitor with a running guest ----

FORBIDDEN = {"read-only open": 2, "openat": 257, "connect": 42, "socket": 41, "execve": 59, "execveat": 322, "ptrace": 101,
             "clone": 56, "clone3": 435, "fork": 57, "kill": 62, "mmap": 9, "mprotect": 10, "process_vm_readv": 310,
             "prctl": 157, "seccomp": 317, "bpf": 321, "io_uring_setup": 425, "mount": 165, "setuid": 105, "getpid of x32":
             0x40000000 | 39, "no such number": 999}


def sandboxed():
    m = Machine("-- iperf -s", "--rng", "--vsock", os.path.join(WORK, f"v{time.monotonic_ns()}"), "--balloon", "--disk",
                make_disk("sandboxed-disk", 4096) + ",private", image=IMAGE)
    m.wait_for("listening")
    time.sleep(0.1)  # asleep: in a system call, each thread
    return m


def own_threads(pid):
    """Without KVM's own kernel thread, which counts among them."""
    tids = []
    for tid in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="utf-8") as f:
            if f.read().startswith("coracle"):
                tids.append(tid)
    return tids


def inject(tid, number, *how):
    return subprocess.run([INJECT, str(tid), str(number), *how], capture_output=True, text=True, timeout=10)


def sanitized():
    with open(VMM, "rb") as f:
        return b"__asan_init" in f.read()


def test_what_the_sandbox_forbids():
    if sanitized():
        print("a sanitizer needs some of it: not tried")
        return
    m = sandboxed()
    threads = len(own_threads(m.pid))
    m.process.kill()
    m.process.wait()
    tried = 0
    for thread in range(threads):
        for name, number in FORBIDDEN.items():
            m = sandboxed()
            tid = own_threads(m.pid)[thread]
            r = inject(tid, number)
            assert r.returncode == 0, (name, r)
            assert m.process.wait(5) == -signal.SIGSYS, (name, m.process.returncode)
            tried += 1
        m = sandboxed()
        tid = own_threads(m.pid)[thread]
        inject(tid, 20, "i386")
        assert m.process.wait(5) in (-signal.SIGSYS, -signal.SIGSEGV), m.process.returncode
        m = sandboxed()
        tid = own_threads(m.pid)[thread]
        r = inject(tid, 39)  # getpid is allowed: the tool can succeed
        assert r.stdout == f"{m.pid}\n", r
        m.process.kill()
        m.process.wait()
    print(f"{tried} attempts from {threads} threads")


def test_what_a_monitor_holds():
    m = sandboxed()
    kinds = {}
    for fd in os.listdir(f"/proc/{m.pid}/fd"):
        if int(fd) > 2:
            kind = re.sub(r"[:\d\[\]]", "", os.readlink(f"/proc/{m.pid}/fd/{fd}").replace(WORK, ""))
            kinds[kind] = kinds.get(kind, 0) + 1
    assert set(kinds) == {"anon_inodekvm-vm", "anon_inodekvm-vcpu", "anon_inodeeventpoll", "anon_inodeeventfd", "socket",
                          "/sandboxed-disk", "/memfdcoracle-disk (deleted)"}, kinds
    print(kinds)
    m.process.kill()
    m.process.wait()


# ---- the unikernel's own drivers ----

AGENT = b"CONNECT 1024\n"


def agent(path):
    """A stream to the guest's agent, which begins some milliseconds after the program."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        v = Vsock(path, AGENT)
        if v.line().startswith(b"OK"):
            return v
    raise AssertionError("no agent")


def test_agent_ready_and_poweroff():
    path = os.path.join(WORK, "agent")
    m = Machine("-- iperf -s", "--vsock", path, image=IMAGE)
    m.wait_for("listening")
    v = agent(path)
    assert v.line() == b"hello 1\n" and v.line() == b"ready\n"
    for words in (b"identity 1 generation=0\n", b"power\n", b"poweroffs\n", b" poweroff\n", b"x" * 100000, b"\npowerof", b"\n" * 3000):
        v.sock.sendall(words)
    assert Vsock(path, AGENT).line() == b"", "a second stream at a time"
    assert m.process.poll() is None, "it took another line for a request to end"
    assert Vsock(path, b"CONNECT 22\n").line() == b"", "a port nobody listens on"
    v.sock.close()
    v = agent(path)
    v.sock.sendall(b"power")
    time.sleep(0.05)
    v.sock.sendall(b"off\n")
    m.end(143)


def test_a_signal_lets_iperf_report():
    if not shutil.which("iperf"):
        print("without Debian's iperf: not tried")
        return
    for extra in ([], ["--virtio-console"]):
        m = Machine(f"ip4={GUEST4}/24 -- iperf -s", "--vsock", os.path.join(WORK, "report"), *extra, image=IMAGE, tap=True)
        m.wait_for("listening")
        client = subprocess.Popen(["ip", "netns", "exec", NETNS, "iperf", "-c", GUEST4, "-t", "20"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(client)
        m.wait_for("connected with")
        time.sleep(0.7)
        m.process.send_signal(signal.SIGTERM)
        text = m.end(143)
        client.kill()
        client.wait()
        assert re.search(r"\d+\.\d+- ?\d+\.\d+ sec .*bits/sec", text), text


def test_a_guest_without_an_ear_is_ended():
    m = Machine("balloon touch=4 pause=20000", "--balloon", "--vsock", os.path.join(WORK, "deaf"))
    m.wait_for("touched")
    begun = time.monotonic()
    m.process.send_signal(signal.SIGTERM)  # its vsock driver never began: it cannot even refuse
    time.sleep(0.3)
    m.process.send_signal(signal.SIGTERM)
    m.end(143)
    assert time.monotonic() - begun < 5
    m = Machine("vsock", "--vsock", os.path.join(WORK, "refuses"))
    m.wait_for("cid")
    m.process.kill()
    m.process.wait()


def test_virtio_console_of_the_unikernel():
    m = Machine("-- iperf --help", "--virtio-console", image=IMAGE)
    assert "Addresses are numeric" in m.end()


def test_other_monitors_devices():
    """QEMU's devices under the same drivers: what works there is virtio, not a habit of ours."""
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        print("without QEMU: not tried")
        return
    disk = make_disk("qemu-disk")

    def run(image, what, *options, cpu="qemu64"):
        r = subprocess.run([qemu, "-accel", "tcg", "-cpu", cpu, "-m", "64", "-M", "microvm", "-nodefaults", "-no-user-config",
                            "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0x604,iosize=4", "-kernel",
                            image, "-append", what, *options], capture_output=True, text=True, timeout=120,
                           stdin=subprocess.DEVNULL)
        return r.stdout

    help_ = "-- iperf --help"
    console = ["-device", "virtio-serial-device", "-chardev", "stdio,id=c,signal=off", "-device", "virtconsole,chardev=c"]
    assert "Addresses are numeric" in run(IMAGE, help_, *console)
    assert "no entropy" in run(IMAGE, help_, "-serial", "stdio")  # a processor without RDRAND
    text = run(IMAGE, help_, "-serial", "stdio", "-device", "virtio-rng-device")
    assert "no entropy" not in text and "Addresses are numeric" in text, text
    text = run(GUEST, "block", "-serial", "stdio", "-drive", f"file={disk},if=none,id=d,format=raw", "-device",
               "virtio-blk-device,drive=d")
    assert "again 0 ours" in text and "neighbour 0 unchanged" in text, text


# ---- requests of the launcher ----

def supervised(image, parameters, flags, **more):
    m = monitor.Monitor(STATIC, os.path.join(WORK, f"s{time.monotonic_ns()}"))
    started.append(m.process)
    assert m.prepare(memory=64 << 20).type == monitor.DONE
    reply = m.load(image, parameters, monitor.LOGS | flags, **more)
    assert reply.type == monitor.DONE, reply
    return m


def wait_log(m, word):
    end = time.monotonic() + 10
    while word not in m.log():
        assert time.monotonic() < end, (word, m.log())
        time.sleep(0.01)


def test_launcher_requests():
    m = supervised(GUEST, b"balloon touch=32", monitor.HAS_BALLOON)
    wait_log(m, "touched")
    monitor_reply = m.control(monitor.MEMORY, struct.pack("=Q", 8 << 20))
    assert monitor_reply.type == monitor.DONE, monitor_reply
    m.process.wait(20)
    assert "inflated 2048" in m.log(), m.log()

    m = supervised(GUEST, b"console", monitor.HAS_CONSOLE)
    reply = m.control(monitor.CONSOLE)
    assert reply.type == monitor.DONE and len(reply.fds) == 1, reply
    os.write(reply.fds[0], b"typed\n")
    wait_log(m, "got typed")
    os.write(reply.fds[0], b"q\n")
    os.close(reply.fds[0])
    assert m.process.wait(10) == 0

    m = supervised(IMAGE, b"-- iperf -s", monitor.HAS_VSOCK | monitor.WAIT, cid=5)
    for _ in range(50):
        reply = m.control(monitor.VSOCK, struct.pack("=II", 1024, 0))
        assert reply.type == monitor.DONE and len(reply.fds) == 1, reply
        with socket.socket(fileno=reply.fds[0]) as stream:
            stream.setblocking(True)
            stream.settimeout(5)
            answer = stream.recv(8)
        if answer:
            break
    assert answer == b"hello 1\n", answer
    reply = m.control(monitor.VSOCK, struct.pack("=II", 4, 0))
    with socket.socket(fileno=reply.fds[0]) as stream:
        stream.setblocking(True)
        stream.settimeout(5)
        assert stream.recv(8) == b"", "nobody listens there"
    assert m.control(monitor.POWER).type == monitor.DONE
    assert m.process.wait(10) == 143

    disk = make_disk("supervised")
    before = digest(disk)
    fd = os.open(disk, os.O_RDONLY)
    m = supervised(GUEST, b"block", 0, disks=[(0, 0, 1)], taps=[fd])
    os.close(fd)
    m.process.wait(10)
    assert "again 0 ours" in m.log() and digest(disk) == before, m.log()


def greeting(m):
    """What the guest's agent says first over a stream of the launcher's; b"" when it refuses."""
    reply = m.control(monitor.VSOCK, struct.pack("=II", 1024, 0))
    assert reply.type == monitor.DONE and len(reply.fds) == 1, reply
    stream = socket.socket(fileno=reply.fds[0])
    stream.setblocking(True)
    stream.settimeout(10)
    return stream, stream.recv(8)


def test_devices_in_a_snapshot():
    """Devices go on in a restored guest; streams of before are gone, a console in use and a new address stay usable."""
    flags = monitor.HAS_VSOCK | monitor.HAS_RANDOM | monitor.HAS_BALLOON | monitor.HAS_CONSOLE | monitor.WAIT
    disk = make_disk("snapshot-disk")
    more = {"disks": [(1, 0, 0)], "taps": [os.open(disk, os.O_RDONLY)]}
    m = supervised(IMAGE, b"-- iperf -s", flags, cid=5, **more)
    time.sleep(0.1)
    old, words = greeting(m)
    assert words == b"hello 1\n"
    file = os.open(os.path.join(WORK, "snapshot"), os.O_RDWR | os.O_CREAT)
    assert m.control(monitor.SNAPSHOT, fds=[file]).type == monitor.DONE
    old.close()
    for cid in (6, 7):
        r = monitor.Monitor(STATIC, os.path.join(WORK, f"s{time.monotonic_ns()}"))
        started.append(r.process)
        assert r.prepare(memory=64 << 20).type == monitor.DONE
        reply = r.load(file, b"-- iperf -s", monitor.LOGS | monitor.RESTORE | flags, cid=cid, **more)
        assert reply.type == monitor.DONE, reply
        stream, words = greeting(r)
        assert words == b"hello 1\n", words
        stream.sendall(b"poweroff\n")
        assert r.process.wait(10) == 143
        stream.close()
    os.close(file)
    stream, words = greeting(m)
    assert words == b"hello 1\n", "the guest that was saved goes on too"
    m.process.kill()
    m.process.wait()


def main():
    set_up()
    try:
        return 1 if run_tests(globals(), started, wanted=lambda name: len(sys.argv) <= 6 or sys.argv[6] in name) else 0
    finally:
        tear_down()


if __name__ == "__main__":
    sys.exit(main())
