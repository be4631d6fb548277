#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the monitor protocol's fuzz target: make_seeds.py FOLDER. Run by hand."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../integration/vmm"))
import monitor

MAC = bytes([2, 0, 0, 0, 0, 1])
SEEDS = {
    "prepare": (1, monitor.prepare()),
    "load": (6, monitor.load(b"ip4=198.18.0.2/24 -- iperf -s", nics=[(MAC, 1, 1)])),
    "load-all": (64, monitor.load(b"x", flags=255, boot=2, nics=[(MAC, 1, 8), (MAC, 2, 2), (MAC, 3, 8), (MAC, 0, 1)],
                                  disks=[(1, 0, 0), (0, 1, 1)])),
    "load-too-many": (64, monitor.load(b"", nics=[(MAC, 2, 8)] * 8)),
    "load-size": (6, monitor.load(b"abc", size=0xffffffff)),
    "load-two-strings": (5, monitor.load(b"a\0b")),
    "identity": (0, monitor.identity(b"hostname=a ip4=198.18.0.2/24 -- iperf -s", macs=[MAC])),
    "identity-files": (4, monitor.identity(b"x", macs=[MAC] * 8, flags=1, log=(1, 4096))),
    "identity-few-files": (3, monitor.identity(b"x", macs=[MAC], flags=1)),
    "identity-nics": (0, monitor.identity(b"x", macs=[MAC], nics=0xffffffff)),
    "identity-size": (0, monitor.identity(b"abc", macs=[MAC], size=0xffffffff)),
    "identity-short": (0, monitor.message(monitor.IDENTITY, b"\0" * 32)),
    "identity-two-strings": (0, monitor.identity(b"a\0b")),
    "resize": (0, monitor.message(monitor.RESIZE, struct.pack("=QII", 1 << 30, 4, 0))),
    "snapshot": (1, monitor.message(monitor.SNAPSHOT)),
    "status": (0, monitor.message(monitor.STATUS)),
    "version": (0, monitor.message(monitor.STATUS, protocol=2)),
    "vsock": (0, monitor.message(monitor.VSOCK, struct.pack("=II", 22, 0))),
    "net": (1, monitor.message(monitor.NET, struct.pack("=II", 1, 0))),
    "exec": (3, monitor.message(monitor.EXEC, struct.pack("=IIII", 0, 2, 1, 15) + b"app\0/\0ls\0-l\0A=\0")),
    "exec-terminal": (1, monitor.message(monitor.EXEC, struct.pack("=IIII", 1, 1, 0, 6) + b"\0/\0sh\0")),
    "exec-counts": (3, monitor.message(monitor.EXEC, struct.pack("=IIII", 0, 0xffffffff, 1, 6) + b"\0/\0sh\0")),
    "signal": (0, monitor.message(monitor.SIGNAL, struct.pack("=iI", 15, 0))),
    "failed": (0, monitor.message(monitor.FAILED, struct.pack("=Ii4Q256s256s", 5, 22, 1, 2, 3, 4, b"why", b"hint"))),
    "failed-endless": (0, monitor.message(monitor.FAILED, struct.pack("=Ii4Q", 99, -1, 1, 2, 3, 4) + b"x" * 512)),
    "short": (0, b"\1\0\3"),
}
os.makedirs(sys.argv[1], exist_ok=True)
for name, (fds, data) in SEEDS.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(bytes([fds]) + data)
