#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the devices' fuzz targets (fuzz_device.h) below tests/fuzz: make_device_seeds.py FOLDER. By hand."""
import os
import struct
import sys

DATA, RINGS = 0x80000, 0x10000
NEXT, WRITE, INDIRECT = 1, 2, 4


def step(kind, b=0, where=0, value=0):
    return struct.pack("<BBHI", kind, b, where, value)


def write(register, value):
    return step(0, 4, register, value)


def poke(address, data):
    data = data.ljust((len(data) + 3) // 4 * 4, b"\0")
    return b"".join(step(3, (address + i) & 12, (address + i) >> 4, *struct.unpack_from("<I", data, i))
                    for i in range(0, len(data), 4))


def descriptor(q, at, address, length, flags=0, following=0):
    return poke(RINGS + q * 0x4000 + at * 16, struct.pack("<QIHH", address, length, flags, following))


def offer(q, at, offset, length, flags=0, following=0):
    """One descriptor at DATA + offset, and available: the last step of a chain."""
    return step(5, q, at | flags << 8 | following << 11, offset | length << 16)


RUN = step(7)


def outside(value):
    return step(6, 0, 0, value)


def block(kind, sector, data_flags, length, extra=b""):
    return poke(DATA, struct.pack("<IIQ", kind, 0, sector) + extra) + \
        descriptor(0, 1, DATA + 0x100, length, data_flags | NEXT, 2) + descriptor(0, 2, DATA + 0x8000, 1, WRITE) + \
        offer(0, 0, 0, 16, NEXT, 1) + RUN


def packet(op, length, guest=9, host=1 << 30, kind=1, cid=3, data=b"", said=None, buffer=4096, forwarded=0):
    h = struct.pack("<QQIIIHHIII", cid, 2, guest, host, length if said is None else said, kind, op, 3, buffer, forwarded)
    return poke(DATA, h + data) + offer(1, 0, 0, 44 + length) + RUN


def receive(at, length=1024):
    return offer(0, at, 0x1000 + at * 0x400, length, WRITE)


CONNECT = outside(0 | 9 << 16)
STREAM = receive(1) + CONNECT + packet(2, 0)
SEEDS = {
    "block": {
        "read": b"\0" + block(0, 3, WRITE, 512), "write-read": b"\2" + block(1, 3, 0, 1024) + block(0, 2, WRITE, 2048),
        "readonly": b"\4" + block(1, 0, 0, 512), "id": b"\0" + block(8, 0, WRITE, 20),
        "discard": b"\0" + poke(DATA + 0x100, struct.pack("<QII", 4, 8, 0)) + block(11, 0, 0, 16),
        "zero": b"\0" + poke(DATA + 0x100, struct.pack("<QII", 4, 8, 1)) + block(13, 0, 0, 16),
        "beyond": b"\0" + block(0, 2**64 - 1, WRITE, 512), "odd": b"\0" + block(1, 0, 0, 511),
        "no-status": b"\0" + offer(0, 0, 0, 16) + RUN, "flush": b"\0" + block(4, 0, WRITE, 1)},
    "console": {
        "out": b"\0" + poke(DATA, b"hello") + offer(1, 0, 0, 5) + RUN, "in": b"\0" + outside(3) + offer(0, 0, 0, 64, WRITE) + RUN,
        "in-twice": b"\0" + offer(0, 0, 0, 1, WRITE) + RUN + outside(4) + RUN, "readable": b"\0" + outside(3) + offer(0, 0, 0, 9) + RUN,
        "reset": b"\0" + offer(0, 0, 0, 9, WRITE) + write(0x70, 0) + outside(2) + RUN},
    "entropy": {
        "some": b"\0" + offer(0, 0, 0, 32, WRITE) + RUN, "much": b"\2" + offer(0, 0, 0, 4096, WRITE) + RUN,
        "readable": b"\0" + offer(0, 0, 0, 32) + RUN, "indirect": b"\2" + poke(DATA, struct.pack("<QIHH", DATA + 64, 32, WRITE, 0)) + offer(0, 0, 0, 16, INDIRECT) + RUN},
    "balloon": {
        "inflate": b"\2" + poke(DATA, struct.pack("<4I", 0x90, 0x91, 0x92, 0x95)) + offer(0, 0, 0, 16) + RUN,
        "outside": b"\2" + poke(DATA, struct.pack("<I", 256)) + offer(0, 0, 0, 4) + RUN,
        "rings": b"\2" + poke(DATA, struct.pack("<3I", 0x10, 0x11, 0x12)) + offer(0, 0, 0, 12) + RUN + RUN,
        "report": b"\2" + offer(4, 0, 0x2000, 0x3001, WRITE) + RUN, "report-3": b"\2" + offer(3, 0, 0x2001, 0x3000, WRITE) + RUN,
        "statistics": b"\2" + poke(DATA, struct.pack("<HQHQ", 4, 1 << 20, 5, 1 << 21)) + offer(2, 0, 0, 20) + RUN + outside(8) + offer(2, 1, 0, 20) + RUN,
        "actual": b"\2" + outside(65536) + step(1, 4, 0x104, 16)},
    "vsock": {
        "stream": b"\2" + STREAM + packet(5, 5, data=b"hello") + receive(2) + outside(4 << 8 | 9 << 16) + receive(3) + RUN,
        "refused": b"\2" + receive(1) + CONNECT + packet(3, 0), "mismatch": b"\2" + STREAM + packet(5, 5, said=4096) + receive(2) + RUN,
        "gone": b"\2" + STREAM + outside(2 << 8) + receive(2) + receive(3) + RUN + packet(3, 0),
        "half": b"\2" + STREAM + outside(3 << 8 | 1 << 16) + receive(2) + RUN + packet(4, 0) + receive(3) + RUN,
        "no-credit": b"\2" + receive(1) + CONNECT + packet(2, 0, buffer=0) + outside(4 << 8 | 99 << 16) + receive(2) + receive(3) + RUN + packet(6, 0, buffer=50),
        "credit-asked": b"\2" + STREAM + packet(7, 0) + receive(2) + RUN, "request": b"\2" + packet(1, 0, host=22) + receive(1) + RUN,
        "short": b"\2" + offer(1, 0, 0, 43) + RUN, "small-buffer": b"\2" + receive(1, 43) + CONNECT + RUN,
        "reset": b"\2" + STREAM + write(0x70, 0) + RUN, "beyond": b"\2" + STREAM + b"".join(packet(5, 20000) for _ in range(6)) + receive(2) + RUN},
    "packet": {
        "good": b"\x2c\0" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 4, 1, 5, 0, 0, 0) + b"data",
        "cut": b"\x05\x11" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 4, 1, 5, 0, 0, 0) + b"data",
        "mismatch": b"\x2c\0" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 5, 1, 5, 0, 0, 0) + b"data",
        "huge": b"\0\0" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 2**32 - 1, 1, 5, 0, 0, 0), "short": b"\x01\x01" + bytes(43),
        "reset": b"\0\0" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 0, 1, 3, 0, 0, 0),
        "data-on-credit": b"\0\0" + struct.pack("<QQIIIHHIII", 3, 2, 1, 2, 4, 1, 6, 0, 0, 0) + b"data"},
}

for target, seeds in SEEDS.items():
    folder = os.path.join(sys.argv[1], "corpus-vmm-" + target)
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
