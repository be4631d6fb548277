#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the monitor's fuzz targets: make_seeds.py CORPUS-ELF CORPUS-QUEUE CORPUS-MMIO CORPUS-SNAPSHOT
CORPUS-BOOT CORPUS-VHOST-USER. Run by hand."""
import os
import struct
import sys


def elf(segments, note=b"", **header):
    h = dict(type=2, machine=62, entry=0x100000, phoff=64, phentsize=56, phnum=len(segments))
    h.update(header)
    out = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", h["type"], h["machine"], 1, h["entry"],
                                                          h["phoff"], 0, 0, 64, h["phentsize"], h["phnum"], 0, 0, 0)
    for kind, flags, offset, address, in_file, in_memory in segments:
        out += struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, in_file, in_memory, 4096)
    return out.ljust(512, b"\0") + note.ljust(256, b"\x90")


TEXT = (1, 5, 512, 0x100000, 256, 256)
DATA = (1, 6, 512, 0x101000, 16, 0x3000)
ELF = {
    "good": elf([TEXT, DATA]),
    "note": elf([TEXT, DATA, (4, 4, 512, 0, 20, 20)], struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100010)),
    "note-sizes": elf([TEXT, (4, 4, 512, 0, 256, 256)], struct.pack("<III4sI", 0xffffffff, 0xfffffffd, 18, b"Xen\0", 1)),
    "overlap": elf([TEXT, (1, 6, 512, 0x100080, 16, 16)]),
    "wraps": elf([(1, 5, 2**64 - 16, 0x100000, 32, 32), (1, 5, 512, 2**64 - 8, 16, 16)]),
    "table-outside": elf([TEXT], phoff=760),
    "writable-text": elf([(1, 7, 512, 0x100000, 16, 16)]),
    "short": elf([TEXT])[:63],
}


def bzimage(**fields):
    f = dict(sectors=1, flag=0xaa55, jump=0x66, magic=b"HdrS", version=0x20f, flags=1, initrd=0x7fffffff, xflags=1,
             parameters=2047, preferred=0x1000000, init=0x100000)
    f.update(fields)
    out = bytearray(0x400 + 0x300)
    out[0x1f1], out[0x201], out[0x211] = f["sectors"], f["jump"], f["flags"]
    for form, at, name in (("<H", 0x1fe, "flag"), ("<H", 0x206, "version"), ("<I", 0x22c, "initrd"), ("<H", 0x236, "xflags"),
                           ("<I", 0x238, "parameters"), ("<Q", 0x258, "preferred"), ("<I", 0x260, "init")):
        struct.pack_into(form, out, at, f[name])
    out[0x202:0x206] = f["magic"]
    return bytes(out)


def boot(image, parameters=b"console=ttyS0", vcpus=1, devices=1):
    return bytes([vcpus, devices]) + parameters + b"\0" + image


PVH = elf([TEXT, (4, 4, 512, 0, 20, 20)], struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100010))
BOOT = {
    "bzimage": boot(bzimage(), devices=0x88, vcpus=63),
    "pvh": boot(PVH, b"a=b -- init", devices=0x83),
    "pvh-low": boot(elf([(1, 5, 512, 0x1000, 256, 256), (4, 4, 512, 0, 20, 20)],
                        struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x1010))),
    "long-parameters": boot(bzimage(parameters=20), b"x" * 300),
    "huge-init": boot(bzimage(init=0xffffffff)),
    "wraps": boot(bzimage(preferred=2**64 - 4096)),
    "setup-outside": boot(bzimage(sectors=64)),
    "small-init": boot(bzimage(init=16)),
    "old": boot(bzimage(version=0x20b)),
    "jump": boot(bzimage(jump=255)),
    "initrd-nowhere": boot(bzimage(initrd=0x100), devices=0x80),
}


def queue(exponent, descriptors, available, index, extra=b"", event=0):
    table = b"".join(struct.pack("<QIHH", *d) for d in descriptors)
    ring = struct.pack("<HH", 0, index) + b"".join(struct.pack("<H", a) for a in available)
    return bytes([exponent | event]) + (table.ljust(4096, b"\0") + ring.ljust(4096, b"\0")).ljust(16384, b"\0") + extra


QUEUE = {
    "chain": queue(3, [(16384, 64, 1, 1), (16448, 128, 2, 0)], [0, 0, 0, 0], 4),
    "event": queue(3, [(16384, 64, 0, 0)], [0] * 8, 8, event=128),
    "loop": queue(3, [(16384, 64, 1, 1), (16448, 128, 1, 0)], [0], 1),
    "next-outside": queue(3, [(16384, 64, 1, 8)], [0], 1),
    "indirect": queue(3, [(16384, 32, 4, 0)], [0], 1, struct.pack("<QIHHQIHH", 0, 64, 1, 1, 64, 64, 2, 0)),
    "nested": queue(3, [(16384, 16, 4, 0)], [0], 1, struct.pack("<QIHH", 16384, 16, 4, 0)),
    "zero": queue(3, [(16384, 0, 0, 0)], [0], 1),
    "jump": queue(3, [(16384, 1, 0, 0)], [0], 4000),
    "wraps": queue(3, [(2**64 - 8, 16, 0, 0)], [0], 1),
    "beyond": queue(3, [(20476, 5, 0, 0)], [0], 1),
    "head": queue(0, [(0, 5, 0, 0)], [1], 1),
}


def write(register, value):
    return struct.pack("<BBHI", 0, 4, register, value)


def poke(address, value):
    return struct.pack("<BBHI", 4, 0, address, value)


DRIVE = write(0x70, 0) + write(0x70, 3) + write(0x24, 0) + write(0x20, 1 << 29 | 1 << 15) + write(0x24, 1) + \
    write(0x20, 1) + write(0x70, 11)
RINGS = b"".join(write(0x30, q) + write(0x38, 8) + write(0x80, 0x1000 + q * 0x4000) + write(0x90, 0x2000 + q * 0x4000) +
                 write(0xa0, 0x3000 + q * 0x4000) + write(0x44, 1) for q in (0, 1))


def offer(q, address, length, flags, index):
    base = 0x1000 + q * 0x4000
    return poke(base, address) + poke(base + 8, length) + poke(base + 12, flags) + poke(base + 0x1000, index << 16)


MOVE = struct.pack("<BBHI", 5, 0, 0, 1000)
MMIO = {
    "drive": DRIVE + RINGS + write(0x70, 15),
    "move": DRIVE + RINGS + offer(0, 0xa000, 0x600, 2, 1) + MOVE + offer(1, 0xb000, 100, 0, 1) + MOVE + MOVE,
    "short-buffers": DRIVE + RINGS + offer(0, 0xa000, 3, 2, 8) + MOVE + MOVE,
    "readable-receive": DRIVE + RINGS + offer(0, 0xa000, 0x600, 0, 1) + MOVE,
    "reset-in-between": DRIVE + RINGS + offer(0, 0xa000, 0x600, 2, 1) + write(0x70, 0) + MOVE + DRIVE + RINGS + MOVE,
    "outside": DRIVE + write(0x38, 8) + write(0x84, 0xffffffff) + write(0x44, 1) + MOVE,
    "notify": write(0x50, 0) + write(0x50, 7) + write(0x30, 99) + write(0x44, 1),
}


def state(queues, kind=1, accepted=1 << 32 | 1 << 29 | 1 << 15, status=15, own=struct.pack("<QII", 0, 1, 0), count=2, own_size=None):
    """struct device_state; queues: (descriptors, available, used, size, next_available, next_used, ready)."""
    out = struct.pack("<IIQIIIIII", kind, count, accepted, 0, 0, 0, status, 1, 0)
    for q in (list(queues) + [(0,) * 7] * 17)[:17]:
        out += struct.pack("<QQQHHHHHHHH", *q[:4], q[4], q[5], 0, 0, 0, 0, q[6])
    return out + struct.pack("<II", len(own) if own_size is None else own_size, 0) + own.ljust(256, b"\0")


def snapshot(device, memory=1 << 20, free_start=0x100000, vcpus=1, devices=1, ram=b""):
    return struct.pack("<QQII", memory, free_start, vcpus, devices) + bytes(144 + 416) + device.ljust(8 * len(state([])), b"\0") + ram


GOOD = [(0x1000, 0x2000, 0x3000, 8, 0, 0, 1), (0x5000, 0x6000, 0x7000, 8, 0, 0, 1)]
RAM = QUEUE["chain"][1:2048]
SNAPSHOT = {
    "good": snapshot(state(GOOD), ram=RAM),
    "indices": snapshot(state([(0x1000, 0x2000, 0x3000, 8, 65535, 4000, 1)] * 2), ram=RAM),
    "outside": snapshot(state([(0xff000, 0xfff00, 0x100000, 256, 0, 0, 1)] * 2)),
    "wraps": snapshot(state([(2**64 - 16, 2**64 - 2, 2**64 - 4, 8, 0, 0, 1)] * 2)),
    "size": snapshot(state([(0x1000, 0x2000, 0x3000, 3, 0, 0, 1)] * 2)),
    "not-negotiated": snapshot(state(GOOD, accepted=2**64 - 1)),
    "other-kind": snapshot(state(GOOD, kind=2)),
    "queues": snapshot(state(GOOD, count=8)),
    "own": snapshot(state(GOOD, own_size=2**32 - 1)),
    "needs-reset": snapshot(state(GOOD, status=79), ram=RAM),
    "devices": snapshot(state(GOOD), devices=9),
    "memory": snapshot(state(GOOD), memory=2**63),
    "short": snapshot(state(GOOD))[:100],
}

def answer(request, value, flags=5, size=8):
    return struct.pack("<IIIQ", request, flags, size, value)


HAS = 1 << 32 | 1 << 30 | 1 << 15
HELLO = answer(1, HAS) + answer(15, 9)
RING = b"".join(answer(r, 0) for r in (8, 10, 9, 13, 12, 18))
VHOST_USER = {
    "whole": b"\0" + HELLO + answer(3, 0) + answer(5, 0) + answer(2, 0) + RING + answer(11, 0) + RING + answer(11, 1),
    "pairs": b"\2" + HELLO + answer(17, 2) + answer(3, 0) + answer(5, 0) + answer(2, 0) + (RING + answer(11, 0)) * 4,
    "no-protocol": b"\0" + answer(1, 1 << 32) + answer(11, 0) + answer(11, 1),
    "descriptors": b"\1" + HELLO,
    "refuses": b"\0" + HELLO + answer(3, 1),
    "other-ring": b"\0" + answer(1, 1 << 32) + answer(11, 7),
    "base": b"\0" + answer(1, 1 << 32) + answer(11, 1 << 48),
    "long": b"\0" + answer(1, HAS, size=2**32 - 1),
    "short": b"\0" + answer(1, HAS)[:15],
    "version": b"\0" + answer(1, HAS, flags=6),
}

for folder, seeds in zip(sys.argv[1:], (ELF, QUEUE, MMIO, SNAPSHOT, BOOT, VHOST_USER)):
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
