#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of coracle-qemu's fuzz targets: make_seeds.py CORPUS-IMAGE CORPUS-SNAPSHOT CORPUS-QMP. Run by hand."""
import os
import struct
import sys

NOTE = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100000)


def elf32(note=NOTE, machine=3, **over):
    phnum = over.get("phnum", 2)
    head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0x100000, over.get("phoff", 52),
                                                         0, 0, 52, 32, phnum, 0, 0, 0)
    load = struct.pack("<IIIIIIII", 1, over.get("offset", 0), 0x100000, over.get("address", 0x100000), 160,
                       over.get("memory", 160), 7, 4096)
    notes = struct.pack("<IIIIIIII", 4, 116, 0, 0, len(note), len(note), 4, 4)
    return (head + load + notes + note).ljust(160, b"\0")


def bz(sectors=1, size=16, version=0x20f):
    b = bytearray((sectors + 1) * 512 + 256)
    b[0x1f1] = sectors
    b[0x1f4:0x1f8] = struct.pack("<I", size)
    b[0x1fe:0x200] = b"\x55\xaa"
    b[0x202:0x206] = b"HdrS"
    b[0x206:0x208] = struct.pack("<H", version)
    return bytes(b)


MB = struct.pack("<III", 0x1badb002, 0, -0x1badb002 & 0xffffffff)
QCOW = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 0, 0, 16, 1 << 20, 0, 1, 192, 64, 1, 0, 0, 0, 0, 0, 4, 104)
PVH, LINUX, MULTI = b"\x41", b"\x42", b"\x44"
IMAGE = {
    "pvh": PVH + elf32(), "pvh-note-huge": PVH + elf32(note=struct.pack("<III", 0xfffffff0, 0xfffffff0, 18) + b"Xen\0"),
    "pvh-arm": PVH + elf32(machine=183), "pvh-table-outside": PVH + elf32(phoff=0xfffffff0),
    "pvh-segment-outside": PVH + elf32(offset=150), "pvh-memory": PVH + elf32(address=0xfffff000, memory=0xffffffff),
    "pvh-many": PVH + elf32(phnum=0xffff), "linux": LINUX + bz(), "linux-truncated": LINUX + bz(size=0xffffffff),
    "linux-old": LINUX + bz(version=0x100), "multiboot": MULTI + b"\0" * 64 + MB, "multiboot-end": MULTI + MB[:11],
    "qcow2": PVH + QCOW.ljust(512, b"\0"), "qcow2-backing": PVH + QCOW[:8] + struct.pack(">QI", 512, 4) + QCOW[20:],
    "boot-sector": PVH + b"\0" * 510 + b"\x55\xaa", "empty": b"\x01", "arm64": LINUX + b"\0" * 56 + b"ARM\x64" + b"\0" * 8,
}


def snapshot(ram=(0, 32 << 20), state=(32 << 20, 4096), disks=0, overlays=((0, 0),) * 4, magic=b"CoraQemu", nics=1):
    page = magic + struct.pack("=IIQIIIIII", 1, 0, 32 << 20, 1, 2, 0, 0, nics, disks) + bytes(8) + bytes(4) + bytes(4)
    page += bytes(32) + b"7.2.22 x".ljust(96, b"\0") + b"microvm".ljust(32, b"\0") + b"max".ljust(32, b"\0")
    page += struct.pack("=QQQQQ", *ram, *state, 0) + b"".join(struct.pack("=QQ", *o) for o in overlays) + bytes(8)
    return struct.pack("=Q", (32 << 20) + 16384) + b"\x01" + page


SNAPSHOT = {
    "good": snapshot(), "ram-within-state": snapshot(ram=(0, 0), state=(0, 8192)), "bad-magic": snapshot(magic=b"notone!!"),
    "state-outside": snapshot(state=(32 << 20, 1 << 60)), "state-wraps": snapshot(state=(2**64 - 4096, 8192)),
    "ram-short": snapshot(ram=(0, 4096)), "disks": snapshot(disks=1, overlays=((32 << 20, 4096),) + ((0, 0),) * 3),
    "disk-too-many": snapshot(disks=9), "disk-of-none": snapshot(overlays=((0, 4096),) * 4), "nics": snapshot(nics=99),
    "short": snapshot()[:100],
}


def packets(*lines, step=200):
    data, out = "".join(line + "\r\n" for line in lines).encode(), b""
    for i in range(0, len(data), step):
        part = data[i:i + step]
        out += bytes([len(part) - 1]) + part
    return out


GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": []}}'
QMP = {
    "good": packets(GREETING, '{"return": {}, "id": 1}', '{"return": {"status": "running"}, "id": 2}'),
    "cut": packets(GREETING, '{"return": {}, "id": 1}', '{"return": {"status": "running"}, "id": 2}', step=3),
    "error": packets(GREETING, '{"return": {}, "id": 1}', '{"id": 2, "error": {"class": "GenericError", "desc": "no"}}'),
    "error-without-id": packets(GREETING, '{"error": {"class": "GenericError", "desc": "no"}}'),
    "events": packets(GREETING, '{"event": "STOP", "data": {}}', '{"event": "X", "data": 3}', '{"return": {}, "id": 1}'),
    "wrong-id": packets(GREETING, '{"return": {}, "id": 9}', '{"return": {}, "id": "a"}', '{"return": {}, "id": -1}'),
    "twice": packets(GREETING, '{"return": {}, "id": 1}', '{"return": {}, "id": 1}', '{"return": 1, "id": 2}'),
    "no-json": packets("hello", GREETING), "array": packets("[1]"), "same-key": packets('{"event": "A", "event": "B"}'),
    "greeting-odd": packets('{"QMP": {"version": {"qemu": 7, "package": ""}}}'), "deep": packets("[" * 3000),
    "long": packets('{"return": "' + "x" * 66000 + '", "id": 1}'),
}

for folder, seeds in zip(sys.argv[1:], (IMAGE, SNAPSHOT, QMP)):
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
