#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The element `forward` between two namespaces: the same element in a Linux process (AF_PACKET on two veths) and in a
unikernel (two taps, this host's KVM). Pings and iperf go through it, IPv4 and IPv6, super-segments with them; bad packets
are dropped and counted by their reason, and every packet is in exactly one count.

Usage: test_forward.py linux PROGRAM | unikernel VMM IMAGE
Exit 77: needs root, network namespaces, ping and Debian's iperf; for the unikernel /dev/kvm and /dev/net/tun.
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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../vmm"))
from monitor import DONE, LOGS, NET_TAP, WAIT, Monitor

KIND, PROGRAM = sys.argv[1], os.path.abspath(sys.argv[2])
NAME = f"fw{os.getpid()}"
A, B, M = NAME + "a", NAME + "b", NAME + "m"
WORK = tempfile.mkdtemp(prefix="forward-test-")
PORT_MAC = ["02:00:00:00:0e:00", "02:00:00:00:0e:01"]
HOST_MAC = ["02:00:00:00:0e:0a", "02:00:00:00:0e:0b"]
NET4, NET6 = ["198.18.240", "198.18.241"], ["fdc0:ac30", "fdc0:ac31"]
ROUTES = [f"{NET4[i]}.0/24={i}@{HOST_MAC[i]}" for i in (0, 1)] + [f"{NET6[i]}::/64={i}@{HOST_MAC[i]}" for i in (0, 1)] + \
    [f"198.18.0.0/16=0@{HOST_MAC[0]}", f"198.18.242.7/32=1@{HOST_MAC[1]}"]
COUNTERS = ("received", "bytes", "forwarded", "truncated", "other-host", "not-ip", "malformed", "checksum", "source-route",
            "martian", "ttl", "no-route", "too-big", "unsent")
started = []


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def run(words, seconds=60, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds, **more)


def ip(netns, *words):
    subprocess.run(["ip", "-n", netns, *words], check=True)


def inside(netns, *words):
    return ["ip", "netns", "exec", netns, *words]


def enter(netns, make):
    """Runs make() in a namespace, on a thread of its own."""
    result = []

    def body():
        with open(f"/run/netns/{netns}", encoding="utf-8") as f:
            if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        result.append(make())
    t = threading.Thread(target=body)
    t.start()
    t.join()
    return result[0]


def mac_bytes(text):
    return bytes(int(x, 16) for x in text.split(":"))


def set_up():
    if os.geteuid() != 0:
        skip("not root")
    if KIND == "unikernel":
        for device in ("/dev/kvm", "/dev/net/tun"):
            try:
                os.close(os.open(device, os.O_RDWR))
            except OSError as e:
                skip(f"{device}: {e.strerror}")
    if not shutil.which("ping") or not shutil.which("iperf"):
        skip("ping or iperf is not installed")
    for netns in (A, B, M):
        if run(["ip", "netns", "add", netns]).returncode:
            skip("cannot make a network namespace")
        ip(netns, "link", "set", "lo", "up")
    for i, netns in enumerate((A, B)):
        subprocess.run(inside(netns, "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"), check=True)
        if KIND == "linux":
            ip(netns, "link", "add", "e0", "type", "veth", "peer", "name", f"m{i}", "netns", M)
            # no addresses: the kernel's own stack there has nothing to say
            subprocess.run(inside(M, "sysctl", "-qw", f"net.ipv6.conf.m{i}.disable_ipv6=1"), check=True)
            ip(M, "link", "set", f"m{i}", "address", PORT_MAC[i], "up")
        else:
            ip(netns, "tuntap", "add", "e0", "mode", "tap", "vnet_hdr")
        ip(netns, "link", "set", "e0", "address", HOST_MAC[i])
        ip(netns, "addr", "add", f"{NET4[i]}.2/24", "dev", "e0")
        ip(netns, "link", "set", "e0", "up")
        ip(netns, "addr", "add", f"{NET6[i]}::2/64", "dev", "e0", "nodad")
        for gateway, everything in ((f"{NET4[i]}.1", "0.0.0.0/0"), (f"{NET6[i]}::1", "::/0")):
            ip(netns, "neigh", "replace", gateway, "lladdr", PORT_MAC[i], "dev", "e0", "nud", "permanent")
            ip(netns, "route", "add", everything, "via", gateway)


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    for netns in (A, B, M):
        run(["ip", "netns", "del", netns])
    shutil.rmtree(WORK)


def open_tap():
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"e0", 0x5002))  # TUNSETIFF: tap, no packet information, vnet_hdr
    fcntl.ioctl(fd, 0x400454d8, struct.pack("i", 12))  # TUNSETVNETHDRSZ
    return fd


class Forwarder:
    """The element, in a process or in a unikernel, and what it has counted."""

    def __init__(self, *arguments):
        if KIND == "linux":
            self.file = open(os.path.join(WORK, "log"), "w+", encoding="utf-8")
            self.process = subprocess.Popen(inside(M, PROGRAM, "--report", "1", "--ports", "m0,m1", *arguments),
                                            stdin=subprocess.DEVNULL, stdout=self.file, stderr=subprocess.STDOUT)
        else:
            self.monitor = Monitor(PROGRAM, os.path.join(WORK, "vm"))
            self.process = self.monitor.process
            assert self.monitor.prepare(nics=2).type == DONE
            taps = [enter(netns, open_tap) for netns in (A, B)]
            words = "-- forward --report 1 " + " ".join(arguments)
            r = self.monitor.load(sys.argv[3], words.encode(), LOGS | WAIT, taps=taps,
                                  nics=[(mac_bytes(m), NET_TAP, 1) for m in PORT_MAC])
            assert r.type == DONE, (r, self.monitor.log())
            for fd in taps:
                os.close(fd)
        started.append(self.process)
        end = time.monotonic() + 10
        while "between 2 ports" not in self.log():
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.01)

    def log(self):
        if KIND != "linux":
            return self.monitor.log()
        self.file.seek(0)
        return self.file.read()

    def counters(self):
        """As they were last reported; quiet for two reports, so that nothing is missing."""
        before, since = None, time.monotonic()
        while True:
            lines = re.findall(r"forward: (received .*)", self.log())
            now = lines[-1] if lines else ""
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > 2.3:
                break
            time.sleep(0.1)
        words = now.split()
        return {name: int(words[words.index(name) + 1]) if name in words else 0 for name in COUNTERS}

    def since(self, before):
        """What was counted since; without the multicasts with which the hosts' kernels look for routers and listeners now
        and then: those are the only frames of theirs that are addressed to nobody here."""
        after = self.counters()
        d = {name: after[name] - before[name] for name in COUNTERS}
        d["received"] -= d.pop("other-host")
        return {name: n for name, n in d.items() if n}


def check_sum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip4(to=NET4[1] + ".2", ttl=64, options=b"", payload=b"x" * 40, version=4, header=None, length=None, checksum=None,
        source=NET4[0] + ".2"):
    words = (20 + len(options)) // 4 if header is None else header
    whole = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH4s4s", version << 4 | words, 0, whole, 1, 0, ttl, 253, 0, socket.inet_aton(source),
                       socket.inet_aton(to)) + options
    value = check_sum(head) if checksum is None else checksum
    return b"\x08\x00" + head[:10] + struct.pack("!H", value) + head[12:] + payload


def ip6(to=NET6[1] + "::2", hops=64, payload=b"x" * 40, version=6, length=None, source=NET6[0] + "::2"):
    return b"\x86\xdd" + struct.pack("!IHBB16s16s", version << 28, len(payload) if length is None else length, 253, hops,
                                     socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, to)) + payload


BAD = [  # (reason, bytes behind the addresses of the Ethernet header)
    ("ttl", ip4(ttl=1)), ("ttl", ip4(ttl=0)), ("ttl", ip6(hops=1)), ("ttl", ip6(hops=0)),
    ("checksum", ip4(checksum=0x1234)), ("malformed", ip4(version=5)), ("malformed", ip4(header=4)),
    ("malformed", ip4(length=19)), ("malformed", ip6(version=4)),
    ("truncated", ip4(length=4000)), ("truncated", b"\x08\x00" + ip4()[2:20]), ("truncated", b"\x08\x00"),
    ("truncated", ip4(header=15, payload=b"", length=60)), ("malformed", ip4(header=15, payload=b"")), ("truncated", ip6(length=4000)), ("truncated", ip6()[:30]),
    ("source-route", ip4(options=b"\x83\x07\x04\x01\x02\x03\x04\x00")), ("source-route", ip4(options=b"\x01\x89\x03\x04")),
    ("malformed", ip4(options=b"\x07\x00\x00\x00")), ("malformed", ip4(options=b"\x01\x01\x01\x44")),
    ("malformed", ip4(options=b"\x07\x09\x04\x00")),
    ("martian", ip4(to="127.0.0.1")), ("martian", ip4(to="224.0.0.1")), ("martian", ip4(to="255.255.255.255")),
    ("martian", ip4(source="0.0.0.0")), ("martian", ip6(to="ff02::1")), ("martian", ip6(to="fe80::1")), ("martian", ip6(to="::1")),
    ("martian", ip6(source="::")), ("no-route", ip4(to="203.0.113.1")), ("no-route", ip6(to="2001:db8::1")),
    ("not-ip", b"\x08\x06" + bytes(28)), ("not-ip", b"\x81\x00\x00\x05" + ip4()),
]


def sender():
    s = enter(A, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    s.bind(("e0", 0))
    return s


def receiver():
    s = enter(B, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    s.bind(("e0", 3))
    s.settimeout(2)
    return s


def receive(s, protocol=253):
    """The next frame with our protocol number."""
    while True:
        frame, where = s.recvfrom(65536)
        at = 23 if frame[12:14] == b"\x08\x00" else 20
        if where[2] != socket.PACKET_OUTGOING and len(frame) > at and frame[at] == protocol:
            return frame


ETHERNET = mac_bytes(PORT_MAC[0]) + mac_bytes(HOST_MAC[0])


def ping(family, target, count, size="56"):
    r = run(inside(A, "ping", family, "-c", str(count), "-i", "0.01", "-s", size, target))
    received = re.search(r"(\d+) received", r.stdout)
    assert received and int(received.group(1)) >= count / 4, r.stdout + r.stderr


def test_ping(f):
    before = f.counters()
    for family, target in (("-4", NET4[1] + ".2"), ("-6", NET6[1] + "::2")):
        for size in ("8", "1400"):
            ping(family, target, 20, size)
    d = f.since(before)  # ping does not wait for late answers; the counters know them
    assert d["forwarded"] == 160 and d["received"] == 160, d
    r = run(inside(A, "ping", "-c", "1", "-t", "1", NET4[1] + ".2"))
    assert r.returncode == 1
    after = f.since(before)
    assert (after["received"], after["forwarded"], after["ttl"]) == (161, 160, 1), after


def test_headers_are_right(f):
    """What leaves: addresses of the link, TTL one less, a checksum that is right for every value there is, all else untouched."""
    out, seen = sender(), receiver()
    for make in (ip4(), ip4(options=b"\x07\x07\x04\0\0\0\0\0"), ip4(options=b"\x01\x01\x01\x00"), ip6(),
                 ip4(to="198.18.242.7"), ip4(payload=b"y" * 1480)):
        out.send(ETHERNET + make)
        frame = receive(seen)
        expected = bytearray(mac_bytes(HOST_MAC[1]) + mac_bytes(PORT_MAC[1]) + make)
        if make[:2] == b"\x08\x00":
            expected[22] -= 1
            words = (expected[14] & 15) * 4
            expected[24:26] = b"\0\0"
            expected[24:26] = struct.pack("!H", check_sum(bytes(expected[14:14 + words])))
        else:
            expected[21] -= 1
        assert frame == bytes(expected), (frame.hex(), bytes(expected).hex())
    for number in range(2000):  # RFC 1624: every carry
        make = bytearray(ip4(ttl=2 + number % 250))
        make[6:8] = struct.pack("!H", number * 31 % 65536)  # identification moves the checksum about
        make[12:14] = b"\0\0"
        make[12:14] = struct.pack("!H", check_sum(bytes(make[2:22])))
        out.send(ETHERNET + bytes(make))
        assert check_sum(receive(seen)[14:34]) == 0, number
    out.close()
    seen.close()


def test_bad_packets(f):
    before, out = f.counters(), sender()
    expected = {}
    for reason, rest in BAD:
        out.send(ETHERNET + rest)
        expected[reason] = expected.get(reason, 0) + 1
    for _ in range(50):
        out.send(mac_bytes("02:00:00:00:0e:77") + ETHERNET[6:] + ip4())
    out.close()
    d = f.since(before)
    assert 50 <= f.counters()["other-host"] - before["other-host"] < 60
    d.pop("bytes")
    assert d.pop("received") == len(BAD), d
    assert d == expected, (d, expected)
    ping("-4", NET4[1] + ".2", 10)  # it goes on


def test_iperf(f):
    before = f.counters()
    for netns, other, family in ((A, NET4[1] + ".2", []), (A, NET6[1] + "::2", ["-V"])):
        server = subprocess.Popen(inside(B, "iperf", "-s", *family), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(server)
        time.sleep(0.5)
        for more in ([], ["-r"] if not family else []):
            r = run(inside(netns, "iperf", "-c", other, "-t", "2", "-f", "g", *family, *more))
            rates = re.findall(r"([0-9.]+) Gbits/sec", r.stdout)
            assert r.returncode == 0 and rates, r.stdout + r.stderr
            print(f"{KIND}: iperf through the element, {other}{' and back' if more else ''}: {', '.join(rates)} Gb/s")
            if more:
                break
        server.kill()
        server.wait()
        started.remove(server)
    d = f.since(before)
    assert d["forwarded"] + sum(d.get(n, 0) for n in COUNTERS[3:-1]) == d["received"], d
    assert d["forwarded"] == d["received"], d
    size = d["bytes"] / d["received"]
    print(f"{KIND}: {d['received']} packets of {size:.0f} bytes, {d.get('unsent', 0)} unsent")
    assert size > 3000, "super-segments do not pass whole"


def test_flood_and_recovery(f):
    """More than it can take at once: what is lost is counted or never came in, and it goes on."""
    out, before = sender(), f.counters()
    for _ in range(20000):
        try:
            out.send(ETHERNET + ip4())
        except OSError:
            pass
    out.close()
    d = f.since(before)
    assert d["forwarded"] == d["received"] > 1000, d
    before = f.counters()
    ping("-4", NET4[1] + ".2", 20)
    assert f.since(before)["forwarded"] == 40


def test_wrong_arguments():
    """Said with the argument and what is wrong with it, status 2."""
    for words, why in (([], "is missing"), (["1.2.3/24=0@02:00:00:00:00:01"], "is no address"),
                       (["1.2.3.0/33=0@02:00:00:00:00:01"], "prefix length"), (["1.2.3.4/24=0@02:00:00:00:00:01"], "beyond"),
                       (["1.2.3.0/24=2@02:00:00:00:00:01"], "no port"), (["1.2.3.0/24=1"], "MAC"),
                       (["1.2.3.0/24=1@02:00:00:00:00"], "MAC"), (["1.2.3.0/24=1@02:00:00:00:00:01x"], "behind"),
                       (["fd00::1::/64=1@02:00:00:00:00:01"], "is no address"), (["fd00:/64=1@02:00:00:00:00:01"], "is no address"),
                       (["1:2:3:4:5:6:7:8:9/64=1@02:00:00:00:00:01"], ""), (["--report", "x"], "Usage"),
                       (["::/0=0@02:00:00:00:00:01"] * 251, "too many")):
        if KIND == "linux":
            r = run(inside(M, PROGRAM, "--ports", "m0,m1", *words))
            assert r.returncode == 2 and why in r.stderr, (words, r)
    if KIND == "linux":
        r = run(inside(M, PROGRAM, "--ports", "m0,nosuch", ROUTES[0]))
        assert r.returncode == 1 and "nosuch" in r.stderr, r


if __name__ == "__main__":
    try:
        set_up()
        test_wrong_arguments()
        forwarder = Forwarder(*ROUTES)
        for name, test in list(globals().items()):
            if name.startswith("test_") and name != "test_wrong_arguments":
                test(forwarder)
                print("ok", KIND, name)
        assert forwarder.process.poll() is None, forwarder.log()
    finally:
        tear_down()
