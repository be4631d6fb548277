#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Our iperf against Debian's, over a veth pair between two network namespaces of its own: TCP and UDP, both directions,
both roles, IPv4 and IPv6; both sides' byte counts must agree. Then peers that mean no good, ten thousand connections,
memory and start. Throughput is compared and printed, not judged.

Usage: test_iperf.py OURS [STATIC]   (STATIC: the shipped binary; its memory and start are judged)
Exit 77: needs root, network namespaces and Debian's iperf.
"""
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

NAMES = [f"nft{os.getpid()}a", f"nft{os.getpid()}b"]
V4 = ["198.18.251.1", "198.18.251.2"]
V6 = ["fdc0:ac1e::1", "fdc0:ac1e::2"]
REAL = shutil.which("iperf")
PORT = 5001


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def inside(n, *words):
    return ["ip", "netns", "exec", NAMES[n], *words]


def set_up():
    if os.geteuid() != 0:
        skip("not root")
    version = REAL and subprocess.run([REAL, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    if not version or "version 2.1" not in version:
        skip("iperf 2.1 is not installed")
    if subprocess.run(["ip", "netns", "add", NAMES[0]], capture_output=True).returncode:
        skip("cannot make a network namespace")
    sh("ip", "netns", "add", NAMES[1])
    sh("ip", "-n", NAMES[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", NAMES[1])
    for n in (0, 1):
        sh("ip", "-n", NAMES[n], "addr", "add", V4[n] + "/24", "dev", "eth0")
        sh("ip", "-n", NAMES[n], "addr", "add", V6[n] + "/64", "dev", "eth0", "nodad")
        sh("ip", "-n", NAMES[n], "link", "set", "lo", "up")
        sh("ip", "-n", NAMES[n], "link", "set", "eth0", "up")


def tear_down():
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Server:
    """A server in the second namespace, ready when it is entered; its output is in .lines after it was left."""

    def __init__(self, *words, udp=False):
        self.words, self.udp = words, udp

    def listening(self):
        what = "-ulnH" if self.udp else "-tlnH"
        return f":{PORT} " in sh(*inside(1, "ss", what))

    def __enter__(self):
        self.process = subprocess.Popen(inside(1, *self.words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 10
        while not self.listening():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"{self.words} does not listen")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        time.sleep(0.3)
        self.process.send_signal(signal.SIGINT if self.words[0] == REAL else signal.SIGTERM)
        try:
            out, _ = self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        self.lines = out.splitlines()
        if "Sanitizer" in out or "runtime error" in out:
            raise AssertionError(out)


def run_client(*words, limit=30):
    r = subprocess.run(inside(0, *words), capture_output=True, text=True, timeout=limit)
    if r.returncode or "Sanitizer" in r.stderr or "runtime error" in r.stderr:
        raise AssertionError(f"{words}: status {r.returncode}: {r.stdout} {r.stderr}")
    return r.stdout.splitlines()


def ours(lines):
    """What our side reports at the end of each flow: {direction: [bytes], ...}, and all of it."""
    ends = [json.loads(line) for line in lines if line.startswith("{")]
    ends = [e for e in ends if e["event"] == "end"]
    for e in ends:
        assert e["error"] is None, e
    return sorted(e["bytes"] for e in ends if e["direction"] == "rx"), \
        sorted(e["bytes"] for e in ends if e["direction"] == "tx"), ends


def real(lines):
    """Bytes of each flow and sums of Debian's -y C lines, sums (id -1) left out."""
    rows = [line.split(",") for line in lines if line.count(",") >= 8]
    return sorted(int(r[7]) for r in rows if r[5] != "-1"), rows


def contains(have, want, what):
    have = list(have)
    for w in want:
        assert w in have, f"{what}: {want} expected in {have}"
        have.remove(w)


def real_client(binary, to, flag, mode, limit):
    """Debian's client against our server. On a loaded host its --full-duplex was seen once not to end (in 200 runs; why is
    not known): that mode, and no other, gets a second chance."""
    for chance in (True, False):
        try:
            with Server(binary, "-s", "--json") as server:
                return run_client(REAL, "-c", to, *flag, *mode, *limit, "-y", "C"), server
        except subprocess.TimeoutExpired:
            if not chance or "--full-duplex" not in mode:
                raise
            print("note: Debian's --full-duplex client did not end; trying once more")


def tcp_case(binary, family, mode, limit):
    """Both roles. Every count the one side reports, the other must report too."""
    to = (V6 if family == 6 else V4)[1]
    flag = ["-V"] if family == 6 else []
    lines, server = real_client(binary, to, flag, mode, limit)
    rx, tx, _ = ours(server.lines)
    theirs, _ = real(lines)
    assert rx or tx, server.lines
    contains(theirs, rx + tx, f"real client {mode} {limit}")
    with Server(REAL, "-s", *flag, "-y", "C") as server:
        lines = run_client(binary, "-c", to, *mode, *limit, "--json")
    rx, tx, ends = ours(lines)
    assert rx or tx, lines
    theirs, _ = real(server.lines)
    contains(theirs, rx + tx, f"our client {mode} {limit}")
    if limit[0] == "-n":
        assert set(rx + tx) == {int(limit[1])}, (rx, tx)
    count = 4 if "-P" in mode else 1
    both = 2 if set(mode) & {"-r", "-d", "--full-duplex"} else 1
    assert len(rx + tx) == count * both, (mode, rx, tx)
    assert all(e["end_s"] < 5 for e in ends), ends


def test_tcp(binary):
    modes = [[], ["-R"], ["-r"], ["-d"], ["-P", "4"], ["-P", "4", "-R"], ["--full-duplex"]]
    for family in (4, 6):
        for mode in modes:
            for limit in (["-n", "3000001"], ["-t", "0.5"]):
                if limit[0] == "-n" and "--full-duplex" in mode:
                    continue  # Debian's client does not end its receiving side by amount
                tcp_case(binary, family, mode, limit)
    print("TCP: both roles, -R -r -d -P --full-duplex, -n and -t, IPv4 and IPv6: counts agree")


def test_udp(binary):
    modes = [[], ["-R"], ["-r"], ["-d"], ["-P", "4"]]
    for family in (4, 6):
        to = (V6 if family == 6 else V4)[1]
        flag = ["-V"] if family == 6 else []
        for mode in modes:
            options = ["-u", "-t", "0.5", "-b", "4m", *mode]
            with Server(binary, "-s", "-u", "--json", udp=True) as server:
                run_client(REAL, "-c", to, *flag, *options)
            _, _, ends = ours(server.lines)
            received = [e for e in ends if e["direction"] == "rx"]
            assert len(received) == (0 if "-R" in mode else 4 if "-P" in mode else 1), (mode, ends)
            for e in received:
                assert e["lost"] == 0 and e["datagrams"] > 100, e
            with Server(REAL, "-s", "-u", *flag, udp=True):
                lines = run_client(binary, "-c", to, *options, "--json")
            everything = [json.loads(line) for line in lines if line.startswith("{")]
            for e in [e for e in everything if e["event"] == "end" and e["direction"] == "rx"]:
                assert e["lost"] == 0 and e["datagrams"] > 100, e
            sent = {e["id"]: e for e in everything if e["event"] == "end" and e["direction"] == "tx"}
            reports = {e["id"]: e for e in everything if e["event"] == "server_report"}
            if "-R" not in mode:
                assert sent.keys() == reports.keys() and sent, everything
            for i, report in reports.items():
                # With -P Debian's server itself loses a few at the start, from its own client too (measured: 18 of 32
                # flows, up to 4 each, on a busy machine; our server none of either). So only there loss is allowed,
                # up to one in twenty, and what is missing must be exactly what was reported lost.
                missing = sent[i]["bytes"] - report["bytes"]
                assert report["datagrams"] == sent[i]["datagrams"], (report, sent[i])
                assert report["lost"] <= (sent[i]["datagrams"] // 20 if "-P" in mode else 0), (report, sent[i])
                assert missing == report["lost"] * (1470 if family == 4 else 1450), (report, sent[i])
    # The final report our server gives must be the one Debian's client prints.
    with Server(binary, "-s", "-u", "--json", udp=True) as server:
        text = "\n".join(run_client(REAL, "-c", V4[1], "-u", "-t", "0.5", "-b", "1m"))
    _, _, ends = ours(server.lines)
    assert "Server Report" in text and f"0/{ends[0]['datagrams']} (0%)" in text, text
    assert "did not receive ack" not in text, text
    print("UDP: both roles, -R -r -d -P, IPv4 and IPv6: no loss, counts and reports agree")


def test_udp_loss(binary):
    """A link that drops every tenth datagram: what ours says is lost is what is missing."""
    sh("ip", "netns", "exec", NAMES[1], "nft",
       "add table inet t; add chain inet t i { type filter hook input priority 0; };"
       "add rule inet t i udp dport 5001 numgen inc mod 10 0 counter drop")
    try:
        with Server(binary, "-s", "-u", "--json", udp=True) as server:
            run_client(REAL, "-c", V4[1], "-u", "-t", "0.5", "-b", "8m")
        _, _, ends = ours(server.lines)
        dropped = json.loads(sh("ip", "netns", "exec", NAMES[1], "nft", "-j", "list", "ruleset"))
        dropped = [x["counter"]["packets"] for r in dropped["nftables"] if "rule" in r for x in r["rule"]["expr"] if "counter" in x]
        total, lost = ends[0]["datagrams"], ends[0]["lost"]
        # The last datagram may be dropped and repeated: one less is missing than was dropped.
        assert dropped[0] - 2 <= lost <= dropped[0] and total > 300, (dropped, ends)
    finally:
        sh("ip", "netns", "exec", NAMES[1], "nft", "flush ruleset")
    print(f"UDP loss: {lost} of {total} lost, {dropped[0]} dropped by the link")


HEADER = struct.pack(">15I", 0x40010078, 1, PORT, 0, 0, 0xffffff9c, 0, 0, 0, 0x20001, 0x80003, 0, 0, 0, 0)


def peer_main(what, count):
    """Runs in the first namespace: the peers that mean no good."""
    to = (V4[1], PORT)
    if what == "sequential":
        for i in range(count):
            with socket.create_connection(to, timeout=5) as s:
                s.sendall(HEADER + bytes(i % 100))
                s.shutdown(socket.SHUT_WR)
                ack = b""
                while chunk := s.recv(100):
                    ack += chunk
                assert len(ack) == 28, ack
    elif what == "hold":
        held = []
        for i in range(count):
            s = socket.create_connection(to, timeout=5)
            if i % 3 == 1:
                s.sendall(HEADER[:30])
            held.append(s)
        print("held", flush=True)
        sys.stdin.readline()
    elif what == "malformed":
        for i in range(count):
            with socket.create_connection(to, timeout=5) as s:
                bad = [b"\x40\x01\x00\x02", b"\xff" * 255, b"\x40\x01\x01\xfe" + os.urandom(251), os.urandom(64),
                       struct.pack(">6I", 0x80000001, 1, 0, 0xffffffff, 0xffffffff, 0x7fffffff)][i % 5]
                try:
                    s.sendall(bad)
                    if i % 2:  # reset instead of an end
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for i in range(count):
            u.sendto(os.urandom(i % 200), to)


def run_peer(what, count, limit=120):
    subprocess.run(inside(0, sys.executable, __file__, "--peer", what, str(count)), check=True, timeout=limit)


def child_of(process):
    """`ip netns exec` becomes the program: the same process."""
    return process.pid


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def private_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def test_many(binary):
    with Server(binary, "-s", "--json") as server:
        pid = child_of(server.process)
        drain = subprocess.Popen(["cat"], stdin=server.process.stdout, stdout=subprocess.DEVNULL)
        run_peer("sequential", 200)
        fds, memory = len(os.listdir(f"/proc/{pid}/fd")), resident(pid)
        began = time.monotonic()
        run_peer("sequential", 10000)
        took = time.monotonic() - began
        time.sleep(0.2)
        assert len(os.listdir(f"/proc/{pid}/fd")) == fds, os.listdir(f"/proc/{pid}/fd")
        grown = resident(pid) - memory
        sanitized = b"asan" in open(f"/proc/{pid}/maps", "rb").read()
        assert sanitized or grown <= 16, f"{grown} KiB more after 10000 connections"
        drain.kill()
        drain.wait()
    print(f"10,000 connections one after the other: {took:.1f} s, {grown} KiB more resident")


def test_hostile(binary):
    with Server(binary, "-s", "--json") as server:
        pid = child_of(server.process)
        drain = subprocess.Popen(["cat"], stdin=server.process.stdout, stdout=subprocess.DEVNULL)
        run_peer("malformed", 500)
        hold = subprocess.Popen(inside(0, sys.executable, __file__, "--peer", "hold", "600"), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
        assert hold.stdout.readline() == "held\n"
        # With 600 silent connections open, a good peer is served.
        theirs, _ = real(run_client(REAL, "-c", V4[1], "-n", "1000000", "-y", "C"))
        assert theirs == [1000000], theirs
        assert len(os.listdir(f"/proc/{pid}/fd")) < 300
        time.sleep(6)  # those that have not said a whole header are thrown out by then
        assert len(os.listdir(f"/proc/{pid}/fd")) < 12, os.listdir(f"/proc/{pid}/fd")
        hold.stdin.close()
        hold.wait()
        drain.kill()
        drain.wait()
        assert server.process.poll() is None
    print("hostile peers: malformed headers, 600 silent connections: served on, all thrown out after 5 s")


def test_mistakes(binary):
    r = subprocess.run(inside(0, binary, "-c", V4[1], "-t", "1"), capture_output=True, text=True)
    assert r.returncode == 1 and "connection refused" in r.stderr, r
    r = subprocess.run(inside(0, binary, "-c", V4[1], "-u", "-t", "5"), capture_output=True, text=True, timeout=5)
    assert r.returncode == 1 and "connection refused" in r.stderr, r
    with Server(binary, "-s"):
        r = subprocess.run(inside(1, binary, "-s"), capture_output=True, text=True)
        assert r.returncode == 1 and "port is in use" in r.stderr, r
    print("mistakes: nobody there, port taken: said")


def responder(binary):
    link = os.path.join(os.path.dirname(os.path.abspath(binary)), "responder")
    made = not os.path.exists(link)
    if made:
        os.symlink(os.path.abspath(binary), link)
    script = f"""
import socket, threading
def tcp(port, send, want):
    s = socket.create_connection(("{V4[1]}", port), timeout=5)
    s.sendall(send)
    got = b""
    while len(got) < want:
        d = s.recv(65536)
        if not d: break
        got += d
    return s, got
s, got = tcp(7, b"hello", 5)
assert got == b"hello", got
big = bytes(range(256)) * 4000
def feed():
    s.sendall(big); s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=feed); t.start()
import time; time.sleep(0.3)
got = b""
while d := s.recv(65536): got += d
t.join()
assert got == big, (len(got), len(big))
s, got = tcp(80, b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET /2 HTTP/1.1\\r\\n\\r\\n", 134)
assert got.count(b"HTTP/1.1 200 OK") == 2 and got.endswith(b"ok\\n"), got
s, got = tcp(80, b"GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n", 10000)
assert got.count(b"HTTP/1.1 200 OK") == 1, got
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(b"ping", ("{V4[1]}", 7)); assert u.recv(100) == b"ping"
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 19)); u.settimeout(0.3)
u.sendto(b"loop", ("{V4[1]}", 7))
try: u.recv(100); raise SystemExit("answered a well-known port")
except TimeoutError: pass
held = [socket.create_connection(("{V4[1]}", 80), timeout=5) for _ in range(200)]
s, got = tcp(80, b"GET / HTTP/1.1\\r\\n\\r\\n", 60)
assert b"200 OK" in got
"""
    server = subprocess.Popen(inside(1, link), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout.readline().startswith("responder: echo on port 7")
        subprocess.run(inside(0, sys.executable, "-c", script), check=True, timeout=30)
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait()
        if made:
            os.unlink(link)
    print("responder: TCP echo of 1 MB, UDP echo, HTTP with and without keep-alive, 200 silent connections")


def gigabits(server, client, reverse, family):
    """As the side under test sees it. Debian's client and ours print the same columns."""
    to = (V6 if family == 6 else V4)[1]
    flag = ["-V"] if family == 6 else []
    with Server(server, "-s", *(flag if server == REAL else [])):
        lines = run_client(client, "-c", to, *flag, "-t", "1", "-y", "C", *(["-R"] if reverse else []))
    return float(lines[-1].split(",")[8]) / 1e9


def test_throughput(binary):
    print("throughput, Gbit/s, median of 3 interleaved runs of 1 s, 128 KiB writes (printed, not judged)")
    for family in (4, 6):
        for name, reverse in (("Rx", False), ("Tx", True)):
            runs = {"debian": [], "ours": []}
            for _ in range(3):
                runs["debian"].append(gigabits(REAL, REAL, reverse, family))
                runs["ours"].append(gigabits(binary, REAL, reverse, family))
            d, o = statistics.median(runs["debian"]), statistics.median(runs["ours"])
            print(f"  IPv{family} {name} of the server: Debian {d:.2f}, ours {o:.2f}, ratio {o / d:.2f}")


def test_footprint(binary):
    with Server(binary, "-s") as server:
        pid = child_of(server.process)
        time.sleep(0.2)
        kb = private_kb(pid)
        with open(f"/proc/{pid}/smaps_rollup") as f:
            print("idle server:", kb, "KiB private;", " ".join(f.read().split("\n")[1].split()))
        assert kb <= 100, f"{kb} KiB of private memory when idle"


def main():
    if sys.argv[1] == "--peer":
        peer_main(sys.argv[2], int(sys.argv[3]))
        return
    binary, static = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    set_up()
    try:
        test_tcp(binary)
        test_udp(binary)
        test_udp_loss(binary)
        test_mistakes(binary)
        responder(binary)
        test_many(static or binary)
        test_hostile(binary)
        if static:
            test_footprint(static)
            test_throughput(static)
    finally:
        tear_down()


main()
