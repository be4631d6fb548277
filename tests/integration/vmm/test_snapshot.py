#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Snapshots of a unikernel: guests restored from one file have lives of their own, share its memory, and a file that is
none is refused. Usage: test_snapshot.py VMM IMAGE. Exit 77: needs root, /dev/kvm, /dev/net/tun, network namespaces,
Debian's iperf.
"""
import fcntl
import json
import os
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
from harness import need_root_and, skip
from monitor import DONE, FAILED, LOGS, Monitor, NET_NONE, NET_TAP, PAUSE, RESTORE, SNAPSHOT, STATUS, WAIT

VMM, IMAGE = map(os.path.abspath, sys.argv[1:3])
WORK = tempfile.mkdtemp(prefix="snapshot-")
NETNS = f"snap{os.getpid()}"
MEMORY = 16 << 20
OFFSET = 65536
monitors = []
taps = {}


def run(*words, seconds=30):
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds)


def set_up():
    need_root_and("/dev/kvm", "/dev/net/tun")
    if not shutil.which("iperf"):
        skip("iperf is not installed")
    if run("ip", "netns", "add", NETNS).returncode:
        skip("cannot make a network namespace")
    with open(f"/run/netns/{NETNS}", encoding="utf-8") as f:  # this process moves in: its taps are made there
        import ctypes
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000):
            skip("cannot enter a network namespace")
    for i in (1, 2):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", f"s{i}".encode(), 0x5002))  # TUNSETIFF: tap, vnet_hdr
        fcntl.ioctl(fd, 0x400454d8, struct.pack("i", 12))  # TUNSETVNETHDRSZ
        taps[i] = fd
        for words in (["addr", "add", f"198.18.{240 + i}.1/24", "dev", f"s{i}"], ["link", "set", f"s{i}", "up"],
                      ["addr", "add", f"fdc0:{i}::1/64", "dev", f"s{i}", "nodad"]):
            subprocess.run(["ip", *words], check=True)


def start(memory=MEMORY):
    monitors.append(Monitor(VMM, os.path.join(WORK, str(len(monitors)))))
    r = monitors[-1].prepare(memory=memory)
    assert r.type == DONE, r
    return monitors[-1]


def mac(i):
    return bytes([2, 0, 0, 0, 240, i])


def parameters(i):
    return f"ip4=198.18.{240 + i}.2/24 gw4=198.18.{240 + i}.1 ip6=fdc0:{i}::2/64 -- iperf -s".encode()


def template():
    """A guest that never had a network, and its snapshot in a memfd."""
    m = start()
    r = m.load(IMAGE, b"-- iperf -s", LOGS | WAIT, nics=[(mac(9), NET_NONE, 1)])
    assert r.type == DONE, (r, m.log())
    file = os.memfd_create("snapshot")
    r = m.control(SNAPSHOT, fds=[file])
    assert r.type == DONE, r
    return m, file


def restored(i, file, **more):
    m = start(**more)
    r = m.load(file, parameters(i), LOGS | WAIT | RESTORE, nics=[(mac(i), NET_TAP, 1)], taps=[taps[i]])
    return m, r


def answers(i, last=2):
    """As many answers as questions, however late: with -W alone ping waits for two round trips only."""
    for address in (f"198.18.{240 + i}.{last}", f"fdc0:{i}::{last}"):
        r = run("ping", "-c", "3", "-i", "0.2", "-w", "10", address)
        assert r.returncode == 0, r.stdout
    r = run("ip", "neigh", "show", f"198.18.{240 + i}.{last}")
    assert mac(i).hex(":") in r.stdout, r.stdout


def guest_memory(m):
    """Host address of the guest's memory, which lies in several mappings side by side."""
    with open(f"/proc/{m.pid}/maps", encoding="utf-8") as f, open(f"/proc/{m.pid}/mem", "rb") as memory:
        for line in f:
            low = int(line.split("-")[0], 16)
            try:
                memory.seek(low + 0x1000)
                if memory.read(8) == b"Coracle1":  # struct boot_info
                    return low
            except (OSError, OverflowError, ValueError):
                pass
    raise AssertionError("no guest memory")


def peek(m, address, size):
    with open(f"/proc/{m.pid}/mem", "rb") as f:
        f.seek(guest_memory(m) + address)
        return f.read(size)


def ram_of(m):
    """smaps of the guest's memory, KiB."""
    low, found, sizes = guest_memory(m), False, {}
    with open(f"/proc/{m.pid}/smaps", encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                found = int(words[0].split("-")[0], 16) == low
            elif found and words[0].endswith(":") and words[1].isdigit():
                sizes[words[0][:-1]] = int(words[1])
    return sizes


def test_two_lives():
    first, file = template()
    a, ra = restored(1, file)
    b, rb = restored(2, file)
    assert ra.type == DONE and rb.type == DONE, (ra, rb, a.log(), b.log())
    answers(1)
    answers(2)
    # struct boot_info: seed at 72, first facts' configuration (the MAC address) at 104 + 8 * 16 + 16
    seeds = {peek(m, 0x1000 + 72, 32) for m in (first, a, b)}
    assert len(seeds) == 3 and bytes(32) not in seeds
    assert [peek(m, 0x1000 + 104 + 128 + 16, 6) for m in (first, a, b)] == [mac(9), mac(1), mac(2)]
    assert [m.control(STATUS).generation for m in (first, a, b)] == [0, 1, 1]
    for i in (1, 2):
        r = run("iperf", "-c", f"198.18.{240 + i}.2", "-t", "1", "-f", "m")
        assert "bits/sec" in r.stdout and "failed" not in r.stderr, (r.stdout, r.stderr)
    assert first.process.poll() is None and first.control(STATUS).paused == 0
    for m in (first, a, b):
        assert m.end(signal.SIGTERM) == signal.SIGTERM
    os.close(file)


def test_sequence_numbers_differ():
    """Two guests of one snapshot, asked the same: RFC 6528's secret is each one's own."""
    _, file = template()
    points = []
    for i in (1, 1, 1):
        m, r = restored(i, file)
        assert r.type == DONE, r
        seen = []
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
            raw.bind(("s1", 0))
            raw.settimeout(5)
            with socket.socket() as s:
                s.bind(("", 33333))
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.settimeout(5)
                s.connect(("198.18.241.2", 5001))
                while not seen:
                    frame = raw.recv(2048)
                    if len(frame) > 54 and frame[23] == 6 and frame[47] & 0x12 == 0x12 and frame[26:30] == bytes((198, 18, 241, 2)):
                        seen.append(struct.unpack(">I", frame[38:42])[0])
        points += seen
        m.end(signal.SIGKILL)
    gaps = [abs(x - y) for n, x in enumerate(points) for y in points[:n]]
    assert min(gaps) > 1 << 16, points
    os.close(file)


def test_memory_is_shared():
    _, file = template()
    guests = []
    for _ in range(8):
        m = start()
        r = m.load(file, b"-- iperf -s", WAIT | RESTORE | LOGS, nics=[(mac(1), NET_NONE, 1)])
        assert r.type == DONE, r
        guests.append(m)
    sizes = [ram_of(m) for m in guests]
    own = max(s["Private_Dirty"] for s in sizes)
    print("    guest memory of one of eight, KiB:", sizes[0])
    assert own <= 160, sizes
    for m in guests:
        m.end(signal.SIGKILL)
    os.close(file)


def test_200_restores_in_a_row():
    _, file = template()
    took = []
    for n in range(200):
        m, r = restored(1, file)
        assert r.type == DONE, (n, r)
        took.append((r.times[3] - r.times[0]) / 1000)
        if n % 50 == 0:
            answers(1)
        m.end(signal.SIGKILL)
        shutil.rmtree(m.folder)
        monitors.remove(m)
    took.sort()
    print(f"    LOAD until entry: min {took[0]:.0f} median {took[100]:.0f} us")
    os.close(file)


def test_a_snapshot_of_a_restored_guest_under_traffic():
    _, file = template()
    m, r = restored(1, file)
    assert r.type == DONE
    flow = subprocess.Popen(["iperf", "-c", "198.18.241.2", "-t", "2", "-f", "m"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    files = [os.memfd_create("again") for _ in range(3)]
    for f in files:
        assert m.control(SNAPSHOT, fds=[f]).type == DONE
    out, _ = flow.communicate(timeout=30)
    assert "bits/sec" in out and flow.returncode == 0, out
    answers(1)
    m.end(signal.SIGTERM)
    for f in files:  # taken in the middle of it all: it goes on as another guest
        m, r = restored(2, f)
        assert r.type == DONE and m.control(STATUS).generation == 2, r
        answers(2)
        m.end(signal.SIGTERM)
    for f in (*files, file):
        os.close(f)


def test_paused_stays_paused():
    m, file = template()
    assert m.control(PAUSE).type == DONE
    again = os.memfd_create("again")
    assert m.control(SNAPSHOT, fds=[again]).type == DONE and m.control(STATUS).paused == 1
    assert os.pread(again, 8, 0) == b"CoraSnap"
    r = m.control(SNAPSHOT, fds=[os.open("/dev/full", os.O_RDWR)])
    assert r.type == FAILED and r.stage == "snapshot", r
    r, w = os.pipe()
    answer = m.control(SNAPSHOT, fds=[w])
    assert answer.type == FAILED and answer.stage == "snapshot", answer
    assert m.control(STATUS).paused == 1
    m.end(signal.SIGTERM)
    for fd in (r, w, file, again):
        os.close(fd)


def test_several_interfaces():
    """eth0 and eth1 of a guest become those of another, in either order, and those of a guest that was restored."""
    first = start()
    r = first.load(IMAGE, b"-- iperf -s", LOGS | WAIT, nics=[(mac(9), NET_NONE, 1), (mac(8), NET_NONE, 1)])
    assert r.type == DONE, (r, first.log())
    m = first
    for order, last in (((1, 2), 2), ((2, 1), 2), ((2, 1), 3)):
        file = os.memfd_create("several")
        assert m.control(SNAPSHOT, fds=[file]).type == DONE
        m.end(signal.SIGTERM)
        words = [f"eth{n}.{key}={value}" for n, i in enumerate(order) for key, value in
                 (("ip4", f"198.18.{240 + i}.{last}/24"), ("gw4", f"198.18.{240 + i}.1"), ("ip6", f"fdc0:{i}::{last}/64"))]
        m = start()
        r = m.load(file, (" ".join(words) + " eth2.ip4=198.18.1.1/24 -- iperf -s").encode(), LOGS | WAIT | RESTORE,
                   nics=[(mac(i), NET_TAP, 1) for i in order], taps=[taps[i] for i in order])
        assert r.type == DONE, (r, m.log())
        os.close(file)
        assert "eth2 is configured, but there is no such device" in m.log(), m.log()
        for i in order:
            answers(i, last)
        for target in (f"198.18.{240 + order[1]}.{last}", f"198.18.{240 + order[0]}.{last}"):
            r = run("iperf", "-c", target, "-t", "0.5")
            assert r.returncode == 0 and "bits/sec" in r.stdout, (order, r, m.log())
    for i in (1, 2):  # of the one before
        for former in (f"198.18.{240 + i}.2", f"fdc0:{i}::2"):
            assert run("ping", "-c", "1", "-W", "1", former).returncode, former
    m.end(signal.SIGTERM)


# ---- a guest that waits to be told who it is ----

def parked(taps_too=(1,), image=IMAGE, flags=LOGS | monitor.PARK):
    m = start()
    r = m.load(image, b"-- iperf -s", flags, nics=[(mac(9), NET_TAP, 1) for _ in taps_too], taps=[taps[i] for i in taps_too])
    assert r.type == DONE, (r, m.log())
    return m


def become(m, i):
    """As the platform does it: the guest is told the gateway's address, so that it has nothing to ask or to announce."""
    gateway = run("ip", "-o", "link", "show", f"s{i}").stdout.split("link/ether ")[1].split()[0]
    monitor.send(m.setup, monitor.identity(f"gwmac={gateway} ".encode() + parameters(i), [mac(i)]))


def sent_by_guest(i):
    return json.loads(run("ip", "-s", "-j", "link", "show", f"s{i}").stdout)[0]["stats64"]["rx"]["packets"]


def test_parked_guest_becomes_somebody():
    """Booted or restored: silent and out of reach until then; what was sent to it meanwhile is answered afterwards."""
    first, file = template()
    first.end(signal.SIGTERM)
    for image, flags in ((IMAGE, 0), (file, RESTORE)):
        sent = sent_by_guest(1)
        m = parked(image=image, flags=LOGS | monitor.PARK | flags)
        before = m.control(STATUS)
        run("ip", "neigh", "replace", "198.18.241.2", "lladdr", mac(1).hex(":"), "dev", "s1")
        assert run("ping", "-c", "1", "-W", "1", "198.18.241.2").returncode, "nobody is there"
        ping = subprocess.Popen(["ping", "-c", "1", "-W", "5", "198.18.241.2"], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        assert sent_by_guest(1) == sent, "what it rehearsed leaves it nowhere"
        become(m, 1)
        assert ping.wait(30) == 0, "what was sent to it before is answered"
        run("ip", "neigh", "del", "198.18.241.2", "dev", "s1")
        answers(1)
        s = m.control(STATUS)
        assert s.ready and s.generation == before.generation + 1, (before.generation, s)
        r = run("iperf", "-c", "198.18.241.2", "-t", "0.3")
        assert r.returncode == 0 and "bits/sec" in r.stdout, r
        m.setup.close()  # from now on the launcher may go
        answers(1)
        assert m.end(signal.SIGTERM) == signal.SIGTERM


def test_parked_guest_gets_other_files():
    m = parked()
    other = os.path.join(WORK, "other")
    os.makedirs(other)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.path.join(other, "monitor.sock"))
    listener.listen(4)
    fds = [os.open(os.path.join(other, name), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for name in ("exit", "log.0", "log.1")]
    os.write(fds[2], b"of an earlier run\n")
    monitor.send(m.setup, monitor.identity(parameters(1), [mac(1)], flags=1, log=(1, 18)),
                 [fds[0], listener.fileno(), fds[1], fds[2]])
    listener.close()
    answers(1)
    before = m.folder
    m.folder = other
    assert m.control(STATUS).ready
    assert run("iperf", "-c", "198.18.241.2", "-t", "0.3").returncode == 0
    assert m.end(signal.SIGTERM) == signal.SIGTERM
    with open(os.path.join(other, "log.1"), encoding="utf-8") as f:
        text = f.read()
    assert text.startswith("of an earlier run\n") and "bits/sec" in text, text
    m.folder = before
    assert "Server listening" in m.log() and "bits/sec" not in m.log() and m.exit_record() == "", m.log()
    for fd in fds:
        os.close(fd)


def test_parked_guest_is_refused_and_ended():
    for data, stage, word in ((monitor.identity(parameters(1), [mac(1), mac(2)]), "device", "2 network devices"),
                              (monitor.identity(parameters(1)), "device", "0 network devices"),
                              (monitor.identity(parameters(1), [bytes([3, 0, 0, 0, 0, 1])]), "protocol", "network device"),
                              (monitor.identity(parameters(1), [mac(1)], flags=1), "protocol", "descriptors"),
                              (monitor.identity(parameters(1), [mac(1)], flags=2), "protocol", "flag"),
                              (monitor.identity(parameters(1), [mac(1)], nics=9), "protocol", "number"),
                              (monitor.identity(parameters(1), [mac(1)], log=(2, 0)), "protocol", "number"),
                              (monitor.identity(parameters(1), [mac(1)], size=3), "protocol", "length"),
                              (monitor.identity(b"a\0b", [mac(1)]), "protocol", "one string"),
                              (monitor.identity(parameters(1), [mac(1)], name=b"x" * 64), "protocol", "name"),
                              (monitor.load(b"-- iperf -s"), "protocol", "descriptors"),
                              (monitor.message(STATUS), "protocol", "IDENTITY was expected")):
        m = parked()
        r = m.ask(data)
        assert r.type == FAILED and r.stage == stage and word in r.detail, (r, word)
        assert m.process.wait(10) == 1
    m = parked()
    m.setup.close()
    assert m.process.wait(10) == 1, "it does not outlive its launcher"
    for sig in (signal.SIGTERM, signal.SIGINT):
        assert parked().end(sig) == sig
    m = start()
    r = m.load(IMAGE, b"-- iperf --help", LOGS | monitor.PARK)
    assert r.type == FAILED and r.stage == "guest" and "before it was ready" in r.detail, r
    m = start()
    r = m.ask(monitor.identity(parameters(1), [mac(1)]))
    assert r.type == FAILED and "LOAD was expected" in r.detail, r


# ---- files that are no snapshots ----

def fnv(header):
    value = 0xcbf29ce484222325
    for byte in header:
        value = (value ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return value


def forged(good, change, checksum=True, size=None):
    """A copy of a snapshot with change(header) applied, its checksum made right again."""
    whole = bytearray(os.pread(good, OFFSET + MEMORY, 0))
    header_bytes, = struct.unpack_from("<I", whole, 12)
    change(whole)
    if checksum:
        whole[16:24] = bytes(8)
        whole[16:24] = struct.pack("<Q", fnv(whole[:header_bytes]))
    file = os.memfd_create("forged")
    os.write(file, whole)
    os.ftruncate(file, len(whole) if size is None else size)
    return file


def poke(offset, data):
    def change(whole):
        whole[offset:offset + len(data)] = data
    return change


def field(name, file):
    """Offset of a field behind the fixed part: memory_bytes ... device states (src/vmm/snapshot.h)."""
    header_bytes, = struct.unpack("<I", os.pread(file, 4, 12))
    at = 56 + 12 + 4 + 24
    offsets = {"memory": at, "free_start": at + 8, "vcpus": at + 16, "devices": at + 20, "regs": at + 24}
    offsets["fpu"] = offsets["regs"] + 144
    offsets["states"] = offsets["fpu"] + 416
    offsets["state_bytes"] = (header_bytes - offsets["states"]) // 8
    return offsets[name]


def test_refused_files():
    _, good = template()
    s = field("states", good)
    queue = s + 40  # first queue: descriptors, available, used, size, next_available, ...
    cases = [
        (poke(0, b"X"), True, None, "no snapshot"),
        (poke(8, b"\x63"), True, None, "another version"),
        (poke(12, b"\0\0"), False, None, "another version"),
        (poke(2000, b"\xff\xff\xff"), False, None, "damaged"),
        (poke(24, b"9.9.9"), True, None, "another release"),
        (poke(56, b"Other"), True, None, "another kind of processor"),
        (poke(56 + 16, b"\xaa\xaa"), True, None, "another kind of processor"),
        (poke(0, b""), False, OFFSET + MEMORY - 4096, "cut off"),
        (poke(0, b""), False, OFFSET, "cut off"),
        (poke(0, b""), False, 5000, "no snapshot"),
        (poke(0, b""), False, 0, "no snapshot"),
        (poke(field("memory", good), struct.pack("<Q", 1 << 62)), True, None, "cut off"),
        (poke(field("memory", good), struct.pack("<Q", 8 << 20)), True, None, "of memory"),
        (poke(field("memory", good), struct.pack("<Q", 4095)), True, None, "cut off"),
        (poke(field("free_start", good), struct.pack("<Q", 1 << 40)), True, None, "no sense"),
        (poke(field("vcpus", good), b"\2"), True, None, "no sense"),
        (poke(field("devices", good), b"\xff"), True, None, "no sense"),
        (poke(field("devices", good), b"\2"), True, None, "devices"),
        (poke(s, b"\2"), True, None, "device of type 2"),
        (poke(s + 4, b"\7"), True, None, "queues"),
        (poke(s + 8, b"\xff" * 8), True, None, "makes no sense"),
        (poke(queue, struct.pack("<QQQ", MEMORY, MEMORY, MEMORY)), True, None, "makes no sense"),
        (poke(queue, struct.pack("<Q", 2**64 - 16)), True, None, "makes no sense"),
        (poke(queue + 24, struct.pack("<H", 3)), True, None, "makes no sense"),
        (poke(field("regs", good), b"\xff" * 144), True, None, None),  # a guest that faults at once
        (poke(field("fpu", good), b"\xff" * 416), True, None, None),
    ]
    for n, (change, checksum, size, word) in enumerate(cases):
        file = forged(good, change, checksum, size)
        m, r = restored(1, file)
        if word:
            assert r.type == FAILED and word in r.detail, (n, r)
            assert r.stage == "snapshot", (n, r)
            assert m.process.wait(10) == 1, n
        else:
            assert r.type == DONE or r.stage in ("snapshot", "guest"), (n, r)
            m.end(signal.SIGKILL)
        os.close(file)
    for what in ("/dev/zero", IMAGE, WORK):
        m = start()
        file = os.open(what, os.O_RDONLY)
        r = m.load(file, parameters(1), LOGS | RESTORE, nics=[(mac(1), NET_TAP, 1)], taps=[taps[1]])
        assert r.type == FAILED and r.stage == "snapshot" and r.hint, r
        os.close(file)
    m, r = restored(1, good, memory=32 << 20)
    assert r.type == FAILED and "16384 KiB" in r.detail, r
    m = start()
    r = m.load(good, parameters(1), LOGS | RESTORE)
    assert r.type == FAILED and "1 devices" in r.detail, r
    os.close(good)


def test_killed_in_the_middle_of_a_snapshot():
    for i in range(10):
        m = start()
        assert m.load(IMAGE, b"-- iperf -s", LOGS | WAIT, nics=[(mac(9), NET_NONE, 1)]).type == DONE
        file = os.memfd_create("snapshot")
        with m.connect() as s:
            monitor.send(s, monitor.message(SNAPSHOT), [file])
            timer = threading.Timer(i / 4000, m.process.kill)
            timer.start()
            try:
                r = monitor.receive(s)
            except ConnectionResetError:
                r = None
            timer.join()
        m.process.wait(10)
        if r is None:  # what is there is a snapshot, or it says that it is none
            other, answer = restored(1, file)
            assert answer.type == DONE or answer.stage == "snapshot", answer
            other.end(signal.SIGKILL)
        os.close(file)


def main():
    set_up()
    wanted = sys.argv[3:]
    failed = 0
    try:
        for name, test in list(globals().items()):
            if not name.startswith("test_") or (wanted and name not in wanted):
                continue
            begun = time.monotonic()
            try:
                test()
                print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError, AttributeError, struct.error) as e:
                failed += 1
                print(f"FAILED {name}: {type(e).__name__}: {e}", flush=True)
            for m in monitors:
                if m.process.poll() is None:
                    m.process.kill()
                    m.process.wait()
            monitors.clear()
    finally:
        run("ip", "netns", "del", NETNS)
        shutil.rmtree(WORK)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
