#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seed corpus of fuzz_iperf: make_seeds.py DIRECTORY. Headers are what iperf 2.1.8 sends."""
import os
import struct
import sys


def header(flags, upper=0, amount=-100, port=5001, length=0, rate=0, udp=False):
    size = 76 if udp else 60
    return struct.pack(">IIIIIiIIHHIIIIII", flags | 0x10000 | size << 1, 1, port, length, 0, amount & 0x7fffffff if amount > 0
                       else amount, 0, 0, upper, 0, 0x20001, 0x80003, rate, 0, 0, 0)[:60]


def datagram(seq, rest):
    return struct.pack(">iIIi", seq, 1600000000, 5, -1 if seq < 0 else 0) + rest


def step(op, argument, data=b""):
    return bytes([op, argument, len(data)]) + data


OPEN, DATA, END, FAIL, DATAGRAM, WAIT, ROOM, CONNECTED = range(8)
seeds = {
    "tcp-plain": step(OPEN, 0) + step(DATA, 0, b"0123456789") + step(END, 0),
    "tcp-test": step(OPEN, 0) + step(DATA, 0, header(0x40000000)) + step(DATA, 0, bytes(100)) + step(END, 0),
    "tcp-pieces": step(OPEN, 1) + b"".join(step(DATA, 1, bytes([b])) for b in header(0x40000000)[:40]) + step(WAIT, 255),
    "tcp-reverse": step(OPEN, 2) + step(DATA, 2, header(0x44000000, 0x400, 4096)) + step(WAIT, 10) + step(END, 2),
    "tcp-reverse-stuck": step(ROOM, 3) + step(OPEN, 2) + step(DATA, 2, header(0x44000000, 0x400)) + step(WAIT, 200),
    "tcp-full-duplex": step(OPEN, 2) + step(DATA, 2, header(0x44000000, 0x800, rate=8000)) + step(WAIT, 120) + step(END, 2),
    "tcp-tradeoff": step(OPEN, 0) + step(DATA, 0, header(0xc0000000, 0, 1000)) + step(END, 0) + step(CONNECTED, 1) + step(WAIT, 5),
    "tcp-dual": step(OPEN, 0) + step(DATA, 0, header(0xc0000001, 0, 1000)) + step(CONNECTED, 1) + step(FAIL, 0),
    "tcp-old": step(OPEN, 0) + step(DATA, 0, struct.pack(">IIIIIi", 0x80000000, 1, 5001, 0, 0, 100)) + step(END, 0),
    "tcp-malformed": step(OPEN, 0) + step(DATA, 0, b"\x40\x01\x00\x02") + step(OPEN, 1) + step(DATA, 1, b"\xff" * 255),
    "udp": b"".join(step(DATAGRAM, 4, datagram(n, header(0x48000000, udp=True))) for n in (1, 2, 4, 3, -5, -5)),
    "udp-reverse": step(DATAGRAM, 4, datagram(1, header(0x6c000000, 0x400, rate=80000, udp=True))) + step(WAIT, 150),
    "udp-full-duplex": step(DATAGRAM, 5, datagram(1, header(0x6c000000, 0x808, rate=80000, udp=True))) + step(WAIT, 150)
    + step(DATAGRAM, 5, datagram(-2, bytes(60))),
    "udp-tradeoff": step(DATAGRAM, 4, datagram(1, header(0xc8000000, 0, 3000, rate=800000, udp=True)))
    + step(DATAGRAM, 4, datagram(-2, bytes(60))) + step(WAIT, 250),
    "udp-again": b"".join(step(DATAGRAM, 4, datagram(n, bytes(60))) for n in (1, -2, 1, 1, -2)),
}
for name, data in seeds.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(data)
