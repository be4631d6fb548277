#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
coracle-vmm --supervised as the launcher runs it: PREPARE, LOAD, control requests, logs, exit files, and every way it
may end. Usage: test_supervised.py VMM IMAGE. Exit 77: needs root, /dev/kvm, /dev/net/tun and network namespaces.
"""
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import monitor
from monitor import (CONSOLE, DONE, FAILED, LOGS, MEMORY, Monitor, NET_NONE, NET_TAP, PAUSE, POWER, RESUME, STATUS,
                     STATUS_REPLY, VSOCK, WAIT)

VMM, IMAGE = map(os.path.abspath, sys.argv[1:3])
WORK = tempfile.mkdtemp(prefix="supervised-")
monitors = []
count = 0


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def start(program=VMM):
    global count
    count += 1
    monitors.append(Monitor(program, os.path.join(WORK, str(count))))
    return monitors[-1]


def running(parameters=b"-- iperf -s", flags=LOGS | WAIT, **more):
    m = start()
    r = m.prepare()
    assert r.type == DONE, r
    r = m.load(IMAGE, parameters, flags, **more)
    assert r.type == DONE, (r, m.log())
    return m


def refused(reply, stage, word):
    assert reply.type == FAILED and reply.stage == stage and word in reply.detail, reply


# ---- life and end ----

def test_life():
    m = start()
    before = time.monotonic_ns()
    r = m.prepare()
    assert r.type == DONE and r.times[0] and before < r.times[3] < time.monotonic_ns() and sorted(r.times) == r.times, r
    r = m.load(IMAGE, b"-- iperf -s", LOGS | WAIT)
    assert r.type == DONE and sorted(r.times) == r.times and r.times[0], (r, m.log())
    m.setup.close()  # the launcher may go
    s = m.control(STATUS)
    assert s.type == STATUS_REPLY and (s.accelerator, s.ready, s.paused, s.memory) == (1, 1, 0, 16 << 20), s
    assert 0 < s.boot_ns < 10**10 and s.exits > 0, s
    m.wait_for("Server listening on TCP port 5001")
    assert "stdout F Server listening" in m.log(), m.log()
    assert m.exit_record() == ""
    assert m.end(signal.SIGTERM) == signal.SIGTERM
    status, when = m.exit_record().split()
    assert abs(int(when) - time.time_ns()) < 10**10, m.exit_record()


def test_first_run_is_the_guest_s():
    """What KVM makes with the first run is made behind the closed sandbox, and is enclosed by it: no thread without."""
    m = start()
    assert m.prepare(flags=monitor.PREPARE_LEAST).type == DONE
    r = m.load(IMAGE, b"-- iperf -s", LOGS | WAIT)
    assert r.type == DONE, (r, m.log())
    m.wait_for("Server listening on TCP port 5001")
    for thread in os.listdir(f"/proc/{m.pid}/task"):
        with open(f"/proc/{m.pid}/task/{thread}/status", encoding="utf-8") as f:
            status = f.read()
        assert "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status, status
    assert m.end(signal.SIGTERM) == signal.SIGTERM


def test_exit_status_of_the_guest():
    m = start()
    assert m.prepare().type == DONE
    assert m.load(IMAGE, b"-- iperf --help", LOGS).type == DONE
    m.process.wait(10)
    assert m.end() == 0 and "Addresses are numeric" in m.log(), m.log()
    m = start()
    assert m.prepare().type == DONE
    refused(m.load(IMAGE, b"-- iperf --no-such-option", LOGS | WAIT), "guest", "before it was ready")
    status = m.end()
    assert status and status & 255 == 0, status


def test_signals():
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert running().end(sig) == sig
    m = running()
    assert m.end(signal.SIGKILL) is None and m.process.returncode == -signal.SIGKILL


def test_panic_is_in_the_log():
    with open(IMAGE, "rb") as f:
        image = bytearray(f.read())
    phoff, = struct.unpack_from("<Q", image, 32)
    offset, _, address = struct.unpack_from("<QQQ", image, phoff + 8)
    entry, = struct.unpack_from("<Q", image, offset + 16)
    image[entry - address + offset:entry - address + offset + 2] = b"\x0f\x0b"
    path = os.path.join(WORK, "patched")
    with open(path, "wb") as f:
        f.write(image)
    m = start()
    assert m.prepare().type == DONE and m.load(path).type == DONE
    m.process.wait(10)
    assert m.end() == 126 << 8
    log = m.log()
    assert "stderr F error coracle-vmm: the guest panicked: invalid opcode" in log and "registers: rax" in log, log


def test_log_rotates_and_counts_on():
    m = start()
    assert m.prepare().type == DONE
    assert m.load(IMAGE, b"-- iperf --help", LOGS, log_bytes=2048).type == DONE
    m.end()
    sizes = [os.path.getsize(os.path.join(m.folder, n)) for n in ("log.0", "log.1")]
    assert max(sizes) <= 4096 and "numeric" in m.log(), sizes


# ---- control ----

def test_pause_and_resume():
    m = running()
    for _ in range(50):
        assert m.control(PAUSE).type == DONE and m.control(PAUSE).type == DONE
        assert m.control(STATUS).paused == 1
        assert m.control(RESUME).type == DONE and m.control(RESUME).type == DONE
        assert m.control(STATUS).paused == 0
    assert m.control(PAUSE).type == DONE
    assert m.end(signal.SIGTERM) == signal.SIGTERM, "a paused guest ends"


def test_what_a_unikernel_lacks():
    m = running()
    for kind, body, word in ((MEMORY, struct.pack("=Q", 1 << 20), "balloon"), (CONSOLE, b"", "console"),
                             (VSOCK, struct.pack("=II", 1, 0), "vsock"), (POWER, b"", "power"),
                             (monitor.DONE, bytes(40 + 512), "no request"), (monitor.STATUS_REPLY, bytes(56), "no request")):
        refused(m.control(kind, body), "support", word)
    assert m.control(STATUS).type == STATUS_REPLY
    m.end(signal.SIGTERM)


def test_connections():
    m = running()
    socks = [m.connect() for _ in range(8)]  # as many as it has
    for s in socks:
        monitor.send(s, monitor.message(STATUS))
        assert monitor.receive(s).type == STATUS_REPLY
    waiting = m.connect()
    monitor.send(waiting, monitor.message(STATUS))
    socks.pop().close()
    assert monitor.receive(waiting).type == STATUS_REPLY, "one that left makes room"
    deaf = socks[0]
    deaf.settimeout(0.05)
    try:
        for _ in range(5000):  # asks and never reads
            deaf.sendmsg([monitor.message(STATUS)])
    except (BlockingIOError, TimeoutError):
        pass
    socks[1].close()
    assert m.control(STATUS).type == STATUS_REPLY
    m.end(signal.SIGTERM)


def test_hostile_requests():
    m = running()
    for data in (b"", b"\x01", bytes(8), monitor.message(STATUS, protocol=2), monitor.message(0), monitor.message(99),
                 monitor.message(STATUS, size=7), monitor.message(STATUS, b"x"), monitor.message(MEMORY),
                 monitor.message(STATUS, size=0xffffffff), bytes(16384), os.urandom(16384), os.urandom(20000)):
        with m.connect() as s:
            monitor.send(s, data, [0, 1, 2])
            try:
                r = monitor.receive(s)
            except ConnectionResetError:
                r = None
            assert r is None or r.type == FAILED, (data[:16], r)
    before = len(os.listdir(f"/proc/{m.pid}/fd"))
    with m.connect() as s:
        for _ in range(20):  # surplus descriptors are closed
            monitor.send(s, monitor.message(STATUS), [0] * 64)
            assert monitor.receive(s).type == STATUS_REPLY
        assert len(os.listdir(f"/proc/{m.pid}/fd")) <= before + 1
    m.end(signal.SIGTERM)


# ---- what goes wrong before there is a guest ----

def test_refused_setups():
    for ask, stage, word in (
            (lambda m: m.ask(monitor.prepare()), "vm", "/dev/kvm"),
            (lambda m: m.prepare(vcpus=0), "protocol", "vCPUs"),
            (lambda m: m.prepare(memory=4096), "memory", "at least 1 MiB"),
            (lambda m: m.prepare(memory=1 << 62), "memory", "at most"),
            (lambda m: m.prepare(boot=9), "protocol", "boot"),
            (lambda m: m.ask(monitor.message(STATUS)), "protocol", "PREPARE was expected"),
            (lambda m: m.ask(monitor.message(monitor.LOAD, b"abc")), "protocol", "length"),
            (lambda m: m.ask(monitor.message(STATUS, protocol=7)), "protocol", "version 7")):
        m = start()
        refused(ask(m), stage, word)
        assert m.process.wait(10) == 1


def test_refused_loads():
    none = (bytes([2, 0, 0, 0, 0, 1]), NET_NONE, 1)
    tap = (bytes([2, 0, 0, 0, 0, 1]), NET_TAP, 1)
    empty = os.open(os.path.join(WORK, "empty"), os.O_RDWR | os.O_CREAT)
    for ask, stage, word in (
            (lambda m: m.load("/bin/true"), "image", "kernel image"),
            (lambda m: m.load(empty), "image", "empty"),
            (lambda m: m.load(os.path.abspath(__file__)), "image", "kernel image"),
            (lambda m: m.load(IMAGE, b"x" * 5000), "protocol", "length"),
            (lambda m: m.load(IMAGE, b"a\0b"), "protocol", "one string"),
            (lambda m: m.load(IMAGE, size=3000), "protocol", "length"),
            (lambda m: m.load(IMAGE, name=b"x" * 64), "protocol", "name"),
            (lambda m: m.load(IMAGE, flags=1 << 20), "protocol", "flag"),
            (lambda m: m.load(IMAGE, nics=[tap]), "protocol", "descriptors"),
            (lambda m: m.load(IMAGE, nics=[(bytes([3, 0, 0, 0, 0, 1]), NET_TAP, 1)], taps=[empty]), "protocol", "network"),
            (lambda m: m.load(IMAGE, nics=[none[:2] + (9,)]), "protocol", "network"),
            (lambda m: m.load(IMAGE, disks=[(0, 1, 0)], taps=[empty]), "support", "raw"),
            (lambda m: m.load(IMAGE, disks=[(0, 0, 0)], taps=[empty]), "device", "sector"),
            (lambda m: m.load(IMAGE, flags=LOGS | monitor.HAS_VSOCK, cid=2), "device", "CID"),
            (lambda m: m.load(IMAGE, boot=monitor.PVH), "support", "unikernel")):
        m = start()
        assert m.prepare().type == DONE
        refused(ask(m), stage, word)
        assert m.process.wait(10) == 1
    os.close(empty)


def test_a_shell_does_not_outlive_its_launcher():
    m = start()
    m.setup.close()
    assert m.process.wait(10) is not None
    m = start()
    assert m.prepare().type == DONE
    m.setup.close()
    assert m.process.wait(10) is not None


def test_killed_at_any_moment_leaves_nothing():
    """Launcher (the socket's other end) or monitor go at a random point of the start."""
    for i in range(40):
        m = start()
        kvm = os.open("/dev/kvm", os.O_RDWR)
        monitor.send(m.setup, monitor.prepare(), [kvm])
        os.close(kvm)
        time.sleep(i % 20 / 10000)
        if i % 2:
            m.process.kill()
        m.setup.close()
        m.process.wait(10)
        assert not os.path.exists(f"/proc/{m.pid}/fd/0")


def main():
    if os.geteuid() != 0:
        skip("not root")
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as e:
        skip(f"/dev/kvm: {e.strerror}")
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
            except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError, AttributeError) as e:
                failed += 1
                print(f"FAILED {name}: {type(e).__name__}: {e}", flush=True)
    finally:
        for m in monitors:
            if m.process.poll() is None:
                m.process.kill()
                m.process.wait()
        shutil.rmtree(WORK)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
