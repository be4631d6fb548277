# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the element's fuzz target. Usage: make_seeds.py FOLDER"""
import socket
import struct
import sys


def check_sum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip4(to="198.18.1.2", ttl=64, options=b"", payload=b"x" * 20):
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 1, 0, ttl, 17, 0,
                       socket.inet_aton("10.0.0.1"), socket.inet_aton(to)) + options
    return head[:10] + struct.pack("!H", check_sum(head)) + head[12:] + payload


def ip6(to="fd00::2", hops=64, payload=b"x" * 20):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), 17, hops, socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
                       socket.inet_pton(socket.AF_INET6, to)) + payload


def frame(ether_type, rest, port=0, flags=0):
    data = bytes([2, 0, 0, 0, 0, 1 + port]) + b"\2\0\0\0\0\x0a" + struct.pack("!H", ether_type) + rest
    return struct.pack("!BH", flags | port, len(data)) + data


seeds = {
    "ip4": frame(0x800, ip4()), "ip6": frame(0x86dd, ip6(), 1), "options": frame(0x800, ip4(options=b"\x07\x07\x04\0\0\0\0\0")),
    "source-route": frame(0x800, ip4(options=b"\x83\x03\x04\0")), "ttl": frame(0x800, ip4(ttl=1)) + frame(0x86dd, ip6(hops=1)),
    "segment": frame(0x800, ip4(payload=b"y" * 900), flags=12), "arp": frame(0x806, bytes(28)),
    "several": frame(0x800, ip4("198.18.1.200")) + frame(0x86dd, ip6("2001:db8::9")) + frame(0x800, ip4("8.8.8.8"), 1),
}
for name, data in seeds.items():
    open(f"{sys.argv[1]}/{name}", "wb").write(b"\0" + data)
for name, words in {"routes": "198.18.1.0/24=1@02:00:00:00:00:01 ::/0=0@02:0:0:0:0:1", "six": "fd00:1::2:0/112=0@02:00:00:00:00:01",
                    "wrong": "1.2.3.4/24=0@02:00:00:00:00:01", "full": "1:2:3:4:5:6:7:8/128=1@ff:ff:ff:ff:ff:ff"}.items():
    open(f"{sys.argv[1]}/{name}", "wb").write(b"\1" + words.encode())
