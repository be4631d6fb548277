#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
How the unikernel gets its addresses: static, from a DHCP server (busybox's udhcpd), from router advertisements; routes
through gateways; neighbours that the boot parameters name; several interfaces. Each in a network namespace of its own, on this host's KVM.

Usage: test_network.py VMM IMAGE
Exit 77: needs root, /dev/kvm, /dev/net/tun, network namespaces, busybox with udhcpd, ping, and Debian's iperf.
"""
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

from harness import need_root_and, run, skip

VMM, IMAGE = map(os.path.abspath, sys.argv[1:3])
NETNS = f"net{os.getpid()}"
WORK = tempfile.mkdtemp(prefix="net-test-")
HOST4, GUEST4, HOST6, GUEST6 = "198.18.251.1", "198.18.251.2", "fdc0:ac20::1", "fdc0:ac20::2"
MAC = "02:00:00:00:fb:02"
# of eth0 (as above), eth1, eth2: a tap and a network each
HOSTS4, GUESTS4 = ([f"198.18.{251 + i}.{last}" for i in range(3)] for last in (1, 2))
HOSTS6, GUESTS6 = ([f"fdc0:ac2{i}::{last}" for i in range(3)] for last in (1, 2))
FAR4, FAR6 = "198.18.200.1", "fdc0:acff::1"
started = []


def ip(*words):
    subprocess.run(["ip", "-n", NETNS, *words], check=True)


def inside(*words):
    return ["ip", "netns", "exec", NETNS, *words]


def set_up():
    need_root_and("/dev/kvm", "/dev/net/tun")
    if not shutil.which("iperf"):
        skip("iperf is not installed")
    if not shutil.which("ping") or run(["busybox", "--list"]).stdout.find("udhcpd") < 0:
        skip("ping or busybox's udhcpd is not installed")
    if run(["ip", "netns", "add", NETNS]).returncode:
        skip("cannot make a network namespace")
    ip("link", "set", "lo", "up")
    for i in range(3):
        ip("tuntap", "add", f"t{i}", "mode", "tap", "vnet_hdr")
        ip("addr", "add", HOSTS4[i] + "/24", "dev", f"t{i}")
        ip("addr", "add", HOSTS6[i] + "/64", "dev", f"t{i}", "nodad")
        ip("addr", "add", "fe80::1/64", "dev", f"t{i}", "nodad")
        ip("link", "set", f"t{i}", "up")
        # what comes from an address of another tap's network is dropped
        run(inside("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/t{i}/rp_filter"))
    # a network behind the host, for routes
    ip("link", "add", "far", "type", "veth", "peer", "name", "farther")
    ip("addr", "add", "198.18.200.1/24", "dev", "far")
    ip("addr", "add", "fdc0:acff::1/64", "dev", "far", "nodad")
    ip("link", "set", "far", "up")


def tear_down():
    for process in started:
        process.kill()
        process.wait()
    run(["ip", "netns", "del", NETNS])
    shutil.rmtree(WORK)


class Guest:
    def __init__(self, parameters, program="responder", taps=("t0",), more=()):
        self.log = tempfile.NamedTemporaryFile(dir=WORK, mode="w+b")
        self.process = subprocess.Popen(
            inside(VMM, "--kernel", IMAGE, *[word for tap in taps for word in ("--tap", tap)], "--mac", MAC, *more,
                   "--append", f"{parameters} -- {program}"),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        started.append(self.process)

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_for(self, word, seconds=5):
        end = time.monotonic() + seconds
        while word not in self.text():
            assert time.monotonic() < end, (word, self.text())
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        started.remove(self.process)
        for i in range(3):
            run(["ip", "-n", NETNS, "neigh", "flush", "dev", f"t{i}"])


def answers(address, source=None, seconds=5):
    """Whether the guest answers a ping within the time."""
    end = time.monotonic() + seconds
    words = ["ping", "-c", "1", "-W", "1", *(["-I", source] if source else []), address]
    while time.monotonic() < end:
        if run(inside(*words)).returncode == 0:
            return True
        time.sleep(0.1)
    return False


def capture(what, seconds=1.0, tap="t0"):
    """Ethernet frames of the guest that `what` is true for, sent while this waits."""
    frames = []
    s = in_namespace(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    s.bind((tap, 3))
    s.settimeout(0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            frame, where = s.recvfrom(65536)
        except socket.timeout:
            continue
        if where[2] != socket.PACKET_OUTGOING and what(frame):
            frames.append(frame)
    s.close()
    return frames


def in_namespace(make):
    """Runs make() in the namespace, on a thread of its own."""
    result = []

    def body():
        with open(f"/run/netns/{NETNS}", encoding="utf-8") as f:
            os.setns(f.fileno(), os.CLONE_NEWNET) if hasattr(os, "setns") else setns(f.fileno())
        result.append(make())
    t = threading.Thread(target=body)
    t.start()
    t.join()
    return result[0]


def setns(fd):
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


def test_static():
    with Guest(f"ip4={GUEST4}/24 gw4={HOST4} ip6={GUEST6}/64 gw6={HOST6}"):
        assert answers(GUEST4), "IPv4"
        assert answers(GUEST6), "IPv6"
        assert answers(GUEST4, "198.18.200.1"), "through the IPv4 gateway"
        assert answers(GUEST6, "fdc0:acff::1"), "through the IPv6 gateway"


def test_link_local_gateway():
    with Guest(f"ip6={GUEST6}/64 gw6=fe80::1"):
        assert answers(GUEST6, "fdc0:acff::1")


def test_named_interface():
    with Guest(f"eth0.ip4={GUEST4}/24 eth0.ip6=none"):
        assert answers(GUEST4)
        assert not answers("fe80::fcff:fe00:fb02%t0", seconds=2)
        assert not answers("fe80::ff:fe00:fb02%t0", seconds=1)


def test_no_solicitation_for_the_gateway():
    """What answers the first packet from the gateway needs neither ARP nor a neighbour solicitation."""
    host_mac = run(["ip", "-n", NETNS, "-br", "link", "show", "t0"]).stdout.split()[2]

    def asks(frame):
        announces = frame[28:32] == frame[38:42]
        return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and not announces or \
            frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 135
    for with_mac in (True, False):
        ip("neigh", "replace", GUEST4, "lladdr", MAC, "dev", "t0", "nud", "permanent")
        ip("neigh", "replace", GUEST6, "lladdr", MAC, "dev", "t0", "nud", "permanent")
        parameters = f"ip4={GUEST4}/24 gw4={HOST4} ip6={GUEST6}/64 gw6={HOST6}"
        with Guest(parameters + (f" gwmac={host_mac}" if with_mac else "")):
            frames = []
            watch = threading.Thread(target=lambda: frames.extend(capture(asks, 2)))
            watch.start()
            time.sleep(0.3)
            assert answers(GUEST4) and answers(GUEST6)
            watch.join()
            kinds = {f[12:14] for f in frames}
            assert kinds == (set() if with_mac else {b"\x08\x06", b"\x86\xdd"}), (with_mac, frames)


def dhcp_server(tap, address, router):
    config = os.path.join(WORK, "udhcpd.conf")
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"start {address}\nend {address}\ninterface {tap}\nlease_file {WORK}/leases\npidfile {WORK}/pid\n"
                f"option subnet 255.255.255.0\noption router {router}\noption lease 60\n")
    open(os.path.join(WORK, "leases"), "w").close()
    server = subprocess.Popen(inside("busybox", "udhcpd", "-f", config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started.append(server)
    return server


def end_server(server):
    server.kill()
    server.wait()
    started.remove(server)


def test_dhcp():
    server = dhcp_server("t0", "198.18.251.77", HOST4)
    begun = time.monotonic()
    with Guest("ip4=dhcp"):
        assert answers("198.18.251.77", seconds=15), "no address"
        print(f"an address by DHCP after {time.monotonic() - begun:.1f} s")
        assert answers("198.18.251.77", FAR4), "the router of the lease is not used"
    end_server(server)


def test_dhcp_on_the_second():
    server = dhcp_server("t1", "198.18.252.77", HOSTS4[1])
    with Guest(f"ip4={GUEST4}/24 eth1.ip4=dhcp", "iperf -s", ("t0", "t1")):
        assert answers("198.18.252.77", seconds=15), "no address"
        assert answers(GUEST4)
        iperf("198.18.252.77", "-B", FAR4)
    end_server(server)


def advertise(prefix, seconds):
    """A router that advertises a prefix, as radvd would."""
    s = in_namespace(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"t0")
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + \
        struct.pack("!BBBBIII16s", 3, 4, 64, 0xc0, 3600, 3600, 0, socket.inet_pton(socket.AF_INET6, prefix))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        index = in_namespace(lambda: socket.if_nametoindex("t0"))
        s.sendto(body, ("ff02::1", 0, 0, index))
        time.sleep(0.5)
    s.close()


def test_slaac():
    for parameter, expected in (("ip6=auto", True), ("", False)):
        sender = threading.Thread(target=advertise, args=("fdc0:ac20::", 5))
        with Guest(parameter):
            sender.start()
            got = answers("fdc0:ac20::ff:fe00:fb02", seconds=6 if expected else 3)
            assert got == expected, (parameter, got)
            if expected:
                assert answers("fdc0:ac20::ff:fe00:fb02", "fdc0:acff::1"), "the router that advertises is not used"
            sender.join()


def addresses(count, *more):
    """Boot parameters of eth0 ... with addresses and gateways."""
    return " ".join([f"eth{i}.ip4={GUESTS4[i]}/24 eth{i}.gw4={HOSTS4[i]} eth{i}.ip6={GUESTS6[i]}/64 eth{i}.gw6={HOSTS6[i]}"
                     for i in range(count)] + list(more))


def iperf(address, *words):
    r = run(inside("iperf", "-c", address, "-t", "0.5", *words))
    assert r.returncode == 0 and "bits/sec" in r.stdout, (address, words, r)


def mac_of(address, tap):
    return run(["ip", "-n", NETNS, "neigh", "show", address, "dev", tap]).stdout.split()[2]


def test_several_interfaces():
    taps = ("t0", "t1", "t2,mac=02:00:00:00:aa:07")
    for count in (2, 3):
        with Guest(addresses(count), "iperf -s", taps[:count]) as guest:
            for i in range(count):
                assert answers(GUESTS4[i]) and answers(GUESTS6[i]), (i, guest.text())
            iperf(GUESTS4[1])
            iperf(GUESTS6[1], "-V")
            iperf(GUESTS4[count - 1])
            assert mac_of(GUESTS4[1], "t1") == "02:00:00:00:fb:03", mac_of(GUESTS4[1], "t1")
            if count == 3:
                assert mac_of(GUESTS4[2], "t2") == "02:00:00:00:aa:07", mac_of(GUESTS4[2], "t2")
            assert "no such device" not in guest.text()


def test_eight_interfaces_in_little_memory():
    for i in range(8):
        ip("tuntap", "add", f"m{i}", "mode", "tap", "vnet_hdr")
        ip("addr", "add", f"198.18.{100 + i}.1/24", "dev", f"m{i}")
        ip("link", "set", f"m{i}", "up")
    parameters = " ".join(f"eth{i}.ip4=198.18.{100 + i}.2/24" for i in range(8))
    with Guest(parameters, "iperf -s", [f"m{i}" for i in range(8)], ("--memory", "4MiB")) as guest:
        for i in range(8):
            assert answers(f"198.18.{100 + i}.2"), (i, guest.text())
            iperf(f"198.18.{100 + i}.2")
    for i in range(8):
        ip("link", "del", f"m{i}")


def test_the_way_back():
    """Who is behind gateways is answered by the interface that was asked, whichever was before."""
    with Guest(addresses(3), "iperf -s", ("t0", "t1", "t2")) as guest:
        for i in (0, 1, 2, 1):
            assert answers(GUESTS4[i], FAR4) and answers(GUESTS6[i], FAR6), (i, guest.text())
            iperf(GUESTS4[i], "-B", FAR4)
            iperf(GUESTS6[i], "-V", "-B", FAR6)


def test_the_way_out():
    """The first interface with a gateway, which is not the first."""
    for far, gateways in ((FAR4, f"eth1.gw4={HOSTS4[1]} eth2.gw4=198.18.253.9"),
                          (FAR6, f"eth1.gw6={HOSTS6[1]} eth2.gw6=fdc0:ac22::9")):
        server = subprocess.Popen(inside("iperf", "-s", "-V"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(server)
        time.sleep(0.3)
        parameters = " ".join(f"eth{i}.ip4={GUESTS4[i]}/24 eth{i}.ip6={GUESTS6[i]}/64" for i in range(3))
        with Guest(f"{parameters} {gateways}", f"iperf -c {far} -t 0.5 {'-V' if ':' in far else ''}", ("t0", "t1", "t2")) as guest:
            guest.wait_for("bits/sec")
        end_server(server)


def test_gateways_of_the_same_link_local_address():
    with Guest(f"ip6={GUESTS6[0]}/64 gw6=fe80::1 eth1.ip6={GUESTS6[1]}/64 eth1.gw6=fe80::1", taps=("t0", "t1")):
        for i in (0, 1, 0):
            assert answers(GUESTS6[i], FAR6), i


def test_offloads_of_each():
    """Checksums and segmentation by eth1's device, none by eth0's, and the other way round."""
    for plain in (0, 1):
        with Guest(addresses(2, f"eth{plain}.net.without=7fff"), "iperf -s", ("t0", "t1")) as guest:
            for i in (0, 1):
                assert answers(GUESTS4[i]), (plain, i, guest.text())
                sizes = []
                watch = threading.Thread(target=lambda: sizes.extend(map(len, capture(
                    lambda f: f[12:14] == b"\x08\0" and f[23] == 6, 1.5, f"t{i}"))))
                watch.start()
                time.sleep(0.2)
                iperf(GUESTS4[i], "-r")
                watch.join()
                assert (max(sizes) > 1514) == (i != plain), (plain, i, max(sizes))


def test_a_quiet_interface():
    """Of which the platform makes known all by itself; beside one that asks for an address."""
    macs = [run(["ip", "-n", NETNS, "-br", "link", "show", f"t{i}"]).stdout.split()[2] for i in range(3)]
    for quiet in (1, 2):
        frames = {}

        def watch(tap):
            frames[tap] = capture(lambda f: f[6:12].hex(":").startswith("02:00:00:00:fb"), 2, tap)
        threads = [threading.Thread(target=watch, args=(f"t{i}",)) for i in range(3)]
        for t in threads:
            t.start()
        time.sleep(0.2)
        with Guest(addresses(3, f"eth{quiet}.gwmac={macs[quiet]}"), taps=("t0", "t1", "t2")):
            for t in threads:
                t.join()
        assert [bool(frames[f"t{i}"]) for i in range(3)] == [i != quiet for i in range(3)], (quiet, frames)


def test_an_interface_that_is_not_there_is_told():
    with Guest(addresses(2, "eth5.ip6=auto")) as guest:
        guest.wait_for("responder:")
        for i in range(8):
            assert (f"eth{i} is configured, but there is no such device" in guest.text()) == (i in (1, 5)), guest.text()
        assert answers(GUEST4)


def test_wrong_taps():
    for words in (["--tap", ""], ["--tap", "t0,mac=1"], ["--tap", "t0,mac=03:00:00:00:00:01"], ["--tap", "t0,x"],
                  ["--tap", "t" * 16], ["--tap", "t0"] * 9, ["--tap", "t0", "--vhost-user", "/x"]):
        r = run([VMM, "--kernel", IMAGE, *words])
        assert r.returncode == 64 and "is not valid" in r.stderr, (words, r)


def test_nonsense_is_told():
    for words in ("ip4=198.18.251.2", "ip4=198.18.251.2/33", "ip4=a/24", "ip4=198.18.251.2/24x", "ip6=fd00::2/48",
                  "ip6=zz/64", f"ip4={GUEST4}/24 gw4=none", f"gw6=1.2.3.4 ip6={GUEST6}/64",
                  f"ip4={GUEST4}/24 gw4={HOST4} gwmac=1:2:3", f"ip4={GUEST4}/24 gw4={HOST4} gwmac=zz:00:00:00:00:00"):
        with Guest(words) as guest:
            guest.wait_for("responder:")
            assert "is not understood and left out" in guest.text(), (words, guest.text())


if __name__ == "__main__":
    try:
        set_up()
        for name, test in list(globals().items()):
            if name.startswith("test_") and (len(sys.argv) < 4 or name in sys.argv[3:]):
                test()
                print("ok", name)
    finally:
        tear_down()
