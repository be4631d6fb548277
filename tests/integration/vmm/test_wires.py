#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
What the network device may be connected to: a tap with several queues, a vhost-user back end that goes away and (where
the host has it) the kernel's vhost-net. Each with ping and Debian's iperf both ways, in a network namespace of its own.

Usage: test_wires.py VMM STATIC-VMM IMAGE BACKEND   (BACKEND: the program vhost_user_backend)
Exit 77: needs root, /dev/kvm, /dev/net/tun, network namespaces and Debian's iperf.
"""
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

import monitor
from harness import need_root_and, run, run_tests, skip
from monitor import DONE, FAILED, LOGS, NET, NET_VHOST_USER, PAUSE, RESUME, SNAPSHOT, STATUS, WAIT

VMM, STATIC, IMAGE, BACKEND = map(os.path.abspath, sys.argv[1:5])
NETNS = f"wire{os.getpid()}"
WORK = tempfile.mkdtemp(prefix="wires-test-")
HOST4, GUEST4 = "198.18.250.1", "198.18.250.2"
started = []


def inside(*words):
    return ["ip", "netns", "exec", NETNS, *words]


def set_up():
    need_root_and("/dev/kvm", "/dev/net/tun")
    if not shutil.which("iperf") or not shutil.which("ping"):
        skip("iperf or ping is not installed")
    if run(["ip", "netns", "add", NETNS]).returncode:
        skip("cannot make a network namespace")


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    run(["ip", "netns", "del", NETNS])
    shutil.rmtree(WORK)


def make_tap(*kind):
    run(["ip", "-n", NETNS, "link", "del", "t0"])
    for words in (["tuntap", "add", "t0", "mode", "tap", "vnet_hdr", *kind], ["addr", "add", HOST4 + "/24", "dev", "t0"],
                  ["link", "set", "t0", "up"]):
        subprocess.run(["ip", "-n", NETNS, *words], check=True)


def start(words, ready):
    log = tempfile.NamedTemporaryFile(dir=WORK, mode="w+b", delete=False)
    process = subprocess.Popen(inside(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    process.text = lambda: open(log.name, encoding="utf-8", errors="replace").read()
    started.append(process)
    end = time.monotonic() + 20
    while not re.search(ready, process.text()):
        assert process.poll() is None, f"{words[0]} ended: {process.returncode}\n{process.text()}"
        assert time.monotonic() < end, f"no {ready!r} in:\n{process.text()}"
        time.sleep(0.01)
    return process


def guest(*wire):
    return start([VMM, "--kernel", IMAGE, "--memory", "16MiB", *wire, "--append", f"ip4={GUEST4}/24 -- iperf -s"],
                 "erver listening")


def stop(process):
    process.terminate()
    process.wait(10)


def ping(count=20):
    return run(inside("ping", "-c", str(count), "-i", "0.02", "-W", "2", "-q", GUEST4)).stdout


def traffic(name):
    text = ping()
    assert " 0% packet loss" in text, text
    print(name, text.strip().splitlines()[-1])
    for way in ([], ["-R"]):
        r = run(inside("iperf", "-f", "k", "-c", GUEST4, "-t", "1", *way))
        rates = re.findall(r"([\d.]+) Kbits/sec", r.stdout)
        assert r.returncode == 0 and rates and float(rates[-1]) > 10000, (way, r.stdout, r.stderr)
        print(name, *way, f"{float(rates[-1]) / 1e6:.2f} Gbit/s")


def test_tap_of_several_queues():
    make_tap("multi_queue")
    g = guest("--tap", "t0", "--queues", "4")  # a unikernel uses one pair: the others are detached, no flow goes there
    traffic("multi-queue")
    stop(g)
    r = run(inside(VMM, "--kernel", IMAGE, "--tap", "t0"))
    assert r.returncode == 125 and "multi_queue" not in r.stderr.split("try:")[0], r.stderr  # one queue of such a tap


def test_vhost_user():
    make_tap()
    path = os.path.join(WORK, "socket")
    back_end = start([BACKEND, path, "t0"], "listening")
    g = guest("--vhost-user", path)
    traffic("vhost-user")
    maps = open(f"/proc/{back_end.pid}/maps", encoding="utf-8").read()
    assert "memfd:coracle-guest" in maps, maps
    tasks = os.listdir(f"/proc/{g.pid}/task")

    def ticks():
        return sum(int(x) for t in tasks for x in
                   open(f"/proc/{g.pid}/task/{t}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()[11:13])
    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 10, f"{ticks() - before} of 200 ticks while idle"
    back_end.kill()
    back_end.wait()
    assert "100% packet loss" in ping(3)
    assert g.poll() is None and "link is down" in g.text(), g.text()
    stop(g)


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)
    return s


def settled(pid):
    """Descriptors of a process that has noticed that our connections to it are closed."""
    time.sleep(0.3)
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_new_back_end_takes_over():
    make_tap()
    path = os.path.join(WORK, "switch")
    back_end = start([BACKEND, path, "t0"], "listening")
    m = monitor.Monitor(STATIC, os.path.join(WORK, "m"))
    started.append(m.process)
    parameters = f"ip4={GUEST4}/24 -- iperf -s".encode()
    nic = (b"\2\0\0\0\0\2", NET_VHOST_USER, 1)
    assert m.prepare(flags=1).type == DONE
    with connect(path) as s:
        r = m.load(IMAGE, parameters, LOGS | WAIT, nics=[nic], taps=[s.fileno()])
    assert r.type == DONE, (r, m.log())
    before = m.control(STATUS)
    traffic("supervised vhost-user")
    after = m.control(STATUS)
    print(f"exits: {after.exits - before.exits}, of them for data {after.exits_data - before.exits_data}")
    assert after.exits_data == before.exits_data, (before, after)
    with open(os.path.join(WORK, "snapshot"), "wb") as f:
        r = m.control(SNAPSHOT, fds=[f.fileno()])
    assert r.type == FAILED and "vhost-user" in r.detail, r
    descriptors = settled(m.pid)
    for again in range(3):
        back_end.kill()
        back_end.wait()
        assert "100% packet loss" in ping(2)
        back_end = start([BACKEND, path, "t0"], "listening")
        with connect(path) as s:
            for number, why in ((1, "no network device"), (2**32 - 1, "no network device")):
                r = m.control(NET, struct.pack("=II", number, 0), [s.fileno()])
                assert r.type == FAILED and why in r.detail, r
            m.control(PAUSE)
            assert m.control(NET, struct.pack("=II", 0, 0), [s.fileno()]).type == FAILED
            m.control(RESUME)
            r = m.control(NET, struct.pack("=II", 0, 0), [s.fileno()])
            assert r.type == DONE, (r, m.log())
        traffic(f"back end {again + 2}")
        assert settled(m.pid) == descriptors
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x" * 100)
    r = m.control(NET, struct.pack("=II", 0, 0), [ours.fileno()])
    assert r.type == FAILED, r
    assert m.end(signal.SIGTERM) == signal.SIGTERM


def test_vhost_user_that_is_not_there():
    r = run(inside(VMM, "--kernel", IMAGE, "--vhost-user", os.path.join(WORK, "nobody")))
    assert r.returncode == 125 and "nobody" in r.stderr, r.stderr


def test_vhost_net():
    make_tap()
    if not os.path.exists("/dev/vhost-net"):
        r = run(inside(VMM, "--kernel", IMAGE, "--tap", "t0", "--vhost"))
        assert r.returncode == 125 and "modprobe vhost_net" in r.stderr, r.stderr
        print("vhost-net: not on this host; the test bed with SVM runs this part")
        return
    g = guest("--tap", "t0", "--vhost")
    traffic("vhost-net")
    stop(g)
    make_tap("multi_queue")
    g = guest("--tap", "t0", "--vhost", "--queues", "2")
    traffic("vhost-net, two pairs")
    stop(g)


def main():
    set_up()
    try:
        return 1 if run_tests(globals(), started) else 0
    finally:
        tear_down()


if __name__ == "__main__":
    sys.exit(main())
