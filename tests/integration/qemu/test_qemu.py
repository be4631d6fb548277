#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
coracle-qemu as the launcher uses it: machines of both kinds under emulation, with the small guest of guest/. What goes
wrong goes wrong on purpose: hung and killed emulators, images that are none, floods, disks that two want.

Usage: test_qemu.py PROGRAM GUEST MULTIBOOT-GUEST BOOTDISK FAKE-QEMU [TEST ...]
Exit 77: qemu-system-x86_64 is not installed.
"""
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

import machine as m
from machine import Machine, Refused, exited

Machine.program, GUEST, MULTIBOOT_GUEST, BOOT, FAKE = map(os.path.abspath, sys.argv[1:6])
MIB = 1 << 20
WORK = tempfile.mkdtemp(prefix="qemu-test-")
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def started(memory=32 * MIB, boot=m.PVH, prepare_flags=0, **load):
    g = Machine(memory=memory, boot=boot, flags=prepare_flags)
    load.setdefault("kernel", None if boot == m.DISK or "snapshot" in load else
                    MULTIBOOT_GUEST if boot == m.MULTIBOOT else GUEST)
    g.load(**load)
    if "snapshot" not in load and boot != m.DISK:
        g.wait_log("guest up")
    g.input = g.console()
    return g


def type_to(g, text):
    os.write(g.input, text.encode())


def image(name, content, size=MIB):
    path = f"{WORK}/{name}"
    with open(path, "wb") as f:
        f.write(content)
        f.truncate(size)
    return path


def refused(stage, words, boot=m.PVH, memory=32 * MIB, prepare_flags=0, **load):
    g = Machine(memory=memory, boot=boot, flags=prepare_flags)
    try:
        g.load(**load)
    except Refused as e:
        assert e.stage == stage, e
        assert words in e.detail, e
        assert g.ended() is None, "no exit record of a guest that never was"
    else:
        raise AssertionError("it was not refused")
    finally:
        g.kill()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def resident(g):
    """KiB of the supervisor; 0 under a sanitizer, which keeps what was freed."""
    with open(f"/proc/{g.process.pid}/maps", encoding="ascii") as f:
        if "libasan" in f.read():
            return 0
    with open(f"/proc/{g.process.pid}/status", encoding="ascii") as f:
        return [int(line.split()[1]) for line in f if line.startswith("VmRSS")][0]


def gone(pid, seconds=5):
    end = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.01)


# ---- a machine's life ----

@test
def microvm_boots_and_talks():
    with started(parameters="a b=c") as g:
        type_to(g, "c")
        g.wait_log("line: a b=c")
        s = g.status()
        assert s["accelerator"] == 2 and s["memory"] == 32 * MIB and not s["paused"] and not s["ready"], s
        assert g.prepared[0] <= g.prepared[1] <= g.prepared[2] <= g.prepared[3] <= g.loaded[0] <= g.loaded[3]


@test
def the_line_of_a_kernel():
    nics = [(f"02:00:00:00:00:0{i}", m.NET_NONE, 1, []) for i in (1, 2)]
    with started(parameters="mute a=1 -- app --flag -- x", nics=nics) as g:
        type_to(g, "c")
        g.wait_log("line: mute a=1 virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6 "
                   "-- app --flag -- x")
    refused("support", "a microvm has 8", kernel=GUEST, nics=nics * 4, flags=m.RANDOM)


@test
def q35_boots_multiboot_and_powers_off():
    with started(boot=m.MULTIBOOT, parameters="x=1") as g:
        type_to(g, "c")
        g.wait_log("x=1")
        type_to(g, "p")
        assert g.ended() == exited(0), g.log()


@test
def q35_boots_from_disk():
    disk = os.open(image("boot", open(BOOT, "rb").read()), os.O_RDONLY)
    with started(boot=m.DISK, disks=[(disk, 0, 0, 1)]) as g:
        g.wait_log("booted from disk")
        type_to(g, "r")
        assert g.ended() == exited(126)
        assert "reset" in g.log()
    os.close(disk)


@test
def exit_status_by_port():
    with Machine(boot=m.UNIKERNEL, memory=32 * MIB) as g:
        g.load(kernel=GUEST)
        g.wait_log("guest up")
        os.write(g.console(), b"x")
        assert g.ended() == exited(3)


@test
def exit_status_by_agent():
    with started() as g:
        type_to(g, "e")
        assert g.ended() == exited(7)


@test
def reset_is_a_failure_and_said():
    with started() as g:
        type_to(g, "r")
        assert g.ended() == exited(126)
        assert "coracle-qemu: the guest was reset" in g.log()


@test
def agent_gets_the_identity():
    with started(parameters="role=edge", nics=[("02:00:00:00:00:09", m.NET_NONE, 1, [])]) as g:
        g.wait_log("agent: role=edge")
        text = g.log()
        assert "agent: identity 1 generation=0 id=6d3f2f5e-" in text, text
        assert "mac0=02:00:00:00:00:09" in text and "parameters=9" in text and "name=test" in text, text


@test
def load_waits_for_ready():
    with Machine(memory=32 * MIB, boot=m.PVH) as g:
        g.load(kernel=GUEST, flags=m.WAIT, wait=False)
        g.wait_log("guest up")
        try:
            m.receive(g.setup, 0.3)
            raise AssertionError("DONE before the guest was ready")
        except TimeoutError:
            pass
        os.write(g.console(), b"R")
        m.receive(g.setup)
        s = g.status()
        assert s["ready"] and s["boot_ns"] > 0, s


@test
def load_waits_until_the_guest_rests():
    with Machine(memory=32 * MIB, boot=m.PVH) as g:
        g.load(kernel=GUEST, flags=m.WAIT, wait=False)
        g.wait_log("guest up")
        os.write(g.console(), b"Rs")  # ready, and spins
        try:
            m.receive(g.setup, 4)
            raise AssertionError("DONE while the guest is busy")
        except TimeoutError:
            pass
        assert g.status()["ready"]


@test
def load_wait_and_an_early_end():
    with Machine(memory=32 * MIB, boot=m.PVH) as g:
        g.load(kernel=GUEST, flags=m.WAIT, wait=False)
        g.wait_log("guest up")
        os.write(g.console(), b"r")
        try:
            m.receive(g.setup)
            raise AssertionError("DONE of a guest that ended")
        except Refused as e:
            assert e.stage == "guest", e
        assert g.ended() == exited(126)


@test
def sigterm_ends_a_guest_that_cannot_be_asked():
    with started(parameters="mute") as g:
        try:
            g.ask(m.POWER)
            raise AssertionError("asked whom?")
        except Refused as e:
            assert e.stage == "support", e
        g.process.send_signal(signal.SIGTERM)
        assert g.ended() == signal.SIGTERM


@test
def sigterm_asks_first():
    with started() as g:
        g.process.send_signal(signal.SIGTERM)
        g.wait_log("agent: poweroff")
        assert g.process.poll() is None
        type_to(g, "e")
        assert g.ended() == signal.SIGTERM
    with started() as g:
        g.process.send_signal(signal.SIGINT)
        g.wait_log("agent: poweroff")
        g.process.send_signal(signal.SIGTERM)  # once more: at once
        assert g.ended() == signal.SIGTERM


@test
def power_asks():
    with started() as g:
        g.ask(m.POWER)
        g.wait_log("agent: poweroff")


@test
def pause_and_resume():
    with started() as g:
        g.ask(m.PAUSE)
        g.ask(m.PAUSE)
        assert g.status()["paused"]
        type_to(g, "k")
        time.sleep(0.3)
        assert "count 0001" not in g.log()
        g.ask(m.RESUME)
        g.ask(m.RESUME)
        g.wait_log("count 0001")


@test
def nics_are_in_order():
    nics = [(f"02:00:00:00:00:0{i}", m.NET_NONE, 1, []) for i in (1, 2, 3)]
    with started(nics=nics) as g:
        type_to(g, "n")
        g.wait_log("nic 020000000003")
        assert re.findall("nic ([0-9a-f]{12})", g.log()) == [f"02000000000{i}" for i in (1, 2, 3)], g.log()


@test
def all_devices_together():
    disk = os.open(image("d", b"contents"), os.O_RDONLY)
    flags = m.RANDOM | m.BALLOON | m.WITH_CONSOLE
    for boot in (m.PVH, m.MULTIBOOT):
        with Machine(memory=32 * MIB, boot=boot) as g:
            g.load(kernel=MULTIBOOT_GUEST if boot == m.MULTIBOOT else GUEST, flags=flags, disks=[(disk, 1, 0, 0)], nics=[("02:00:00:00:00:01", m.NET_NONE, 2, [])])
            g.wait_log("guest up")
            s = g.status()
            assert s["balloon"] == 0, s
            g.ask(m.MEMORY, struct.pack("=Q", 8 * MIB))
            for bad in (32 * MIB, 1 << 60):
                try:
                    g.ask(m.MEMORY, struct.pack("=Q", bad))
                    raise AssertionError("balloon of all memory")
                except Refused:
                    pass
    os.close(disk)


class Switch(threading.Thread):
    """As much of a vhost-user back end as QEMU wants before a driver is there (QEMU's docs/interop/vhost-user)."""

    def __init__(self, silent=False):
        super().__init__(daemon=True)
        self.silent = silent
        self.ours, self.theirs = socket.socketpair()
        self.seen = []
        self.start()

    def run(self):
        while True:
            try:
                head = self.ours.recv(12, socket.MSG_WAITALL)
            except OSError:
                return
            if len(head) < 12:
                return
            kind, flags, size = struct.unpack("=III", head)
            if size:
                self.ours.recv(size, socket.MSG_WAITALL)
            self.seen.append(kind)
            # GET_FEATURES: VERSION_1, protocol features; GET_PROTOCOL_FEATURES: MQ; GET_QUEUE_NUM
            answer = {1: 1 << 32 | 1 << 30, 15: 1, 17: 2}.get(kind)
            if answer is not None and not self.silent:
                self.ours.sendall(struct.pack("=IIIQ", kind, flags | 4, 8, answer))


@test
def vhost_user_front_end():
    switch = Switch()
    mac = "02:00:00:00:00:05"
    with started(prepare_flags=1, nics=[(mac, m.VHOST_USER, 1, [switch.theirs.fileno()])]) as g:
        type_to(g, "n")
        g.wait_log("nic 020000000005")
        assert {1, 15, 3} <= set(switch.seen), switch.seen  # features, protocol features, owner
    switch.theirs.close()
    switch = Switch(silent=True)
    refused("emulator", "", prepare_flags=1, kernel=GUEST, nics=[(mac, m.VHOST_USER, 1, [switch.theirs.fileno()])])
    switch.theirs.close()


# ---- disks ----

@test
def disk_kinds():
    a, b = image("a", b"first..."), image("b", b"second..")
    fds = [os.open(a, os.O_RDONLY), os.open(b, os.O_RDWR)]
    with started(disks=[(fds[0], 0, 0, 1), (fds[1], 0, 0, 0)]) as g:
        type_to(g, "d")
        g.wait_log("disk 1 second..")
        assert "disk 0 first..." in g.log()
        type_to(g, "wd")
        g.wait_log("disk 0 written!")
    assert open(a, "rb").read(8) == b"first...", "a private disk's file was written"
    with started(disks=[(fds[1], 0, 0, 0)]) as g:
        type_to(g, "w")
        g.wait_log("disk written")
    assert open(b, "rb").read(8) == b"written!"
    os.close(fds.pop())  # the lock goes with the last descriptor of that open file
    ro = os.open(b, os.O_RDONLY)
    with started(disks=[(ro, 1, 0, 0)]) as g:
        type_to(g, "w")
        g.wait_log("disk not written")
    for fd in (*fds, ro):
        os.close(fd)


@test
def disk_of_two_machines():
    path = image("two", b"x")
    one, two, three, four = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY), \
        os.open(path, os.O_RDONLY)
    with started(disks=[(one, 0, 0, 0)]):
        refused("device", "another machine uses it", kernel=GUEST, disks=[(two, 0, 0, 0)])
        refused("device", "another machine uses it", kernel=GUEST, disks=[(three, 1, 0, 0)])
    os.close(one)
    with started(disks=[(three, 1, 0, 0)]), started(disks=[(four, 0, 0, 1)]):
        refused("device", "another machine uses it", kernel=GUEST, disks=[(two, 0, 0, 0)])
    # an operator's own QEMU: it does not share writing (block/file-posix.c: byte 200 + 1)
    for fd in (three, four):
        os.close(fd)
    five = os.open(path, os.O_RDWR)
    fcntl.fcntl(five, 37, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0))  # F_OFD_SETLK
    refused("device", "used by another machine", kernel=GUEST, disks=[(two, 0, 0, 0)])
    for fd in (two, five):
        os.close(fd)


@test
def disk_modes():
    fd = os.open(image("mode", b"x"), os.O_RDONLY)
    refused("image", "not open for what", kernel=GUEST, disks=[(fd, 0, 0, 0)])
    os.close(fd)


@test
def hostile_19_qcow2():
    qemu_img = shutil.which("qemu-img")
    base = image("base", b"secret")
    # as qemu-img writes it: magic, version 3, backing file at 512
    header = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 512, len(base), 16, MIB, 0, 1, 3 << 16, 1 << 16, 1, 0, 0, 0,
                         0, 0, 4, 104)
    cases = {"has a backing file": header.ljust(512, b"\0") + base.encode(),
             "keeps its data in another file": struct.pack(">IIQII", 0x514649fb, 3, 0, 0, 16) + header[24:72] +
             struct.pack(">Q", 4) + header[80:],
             "is encrypted": struct.pack(">IIQIIQI", 0x514649fb, 3, 0, 0, 16, MIB, 1) + header[36:],
             "truncated: its tables": struct.pack(">IIQIIQIIQ", 0x514649fb, 3, 0, 0, 16, MIB, 0, 1, 1 << 40) + header[48:],
             "is it raw": b"raw data"}
    for words, content in cases.items():
        fd = os.open(image("q", content), os.O_RDONLY)
        refused("image", words, kernel=GUEST, disks=[(fd, 0, 1, 1)])
        os.close(fd)
    if qemu_img:
        subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", f"{WORK}/good", "8M"], check=True)
        fd = os.open(f"{WORK}/good", os.O_RDWR)
        with started(disks=[(fd, 0, 1, 0)]) as g:
            type_to(g, "wd")
            g.wait_log("disk 0 written!")
        os.close(fd)


# ---- images ----

@test
def hostile_19_kernels():
    good = open(GUEST, "rb").read()
    arm = good[:18] + struct.pack("<H", 183) + good[20:]
    cases = [("empty", b""), ("PVH entry", b"\x7fELF".ljust(16, b"\1") + b"\0" * 4), ("no PVH entry", os.urandom(4096)),
             ("it is for aarch64", arm), ("truncated", good[:0x1100]), ("truncated", good[:60])]
    for words, content in cases:
        path = f"{WORK}/kernel"
        with open(path, "wb") as f:
            f.write(content)
        try:
            refused("image", words, kernel=path)
        except AssertionError as e:
            if "kernel:" not in str(e):
                raise
    refused("image", "does not fit", memory=MIB, kernel=GUEST)
    refused("image", "neither a bzImage", boot=m.LINUX, kernel=BOOT)
    refused("image", "neither a multiboot header", boot=m.MULTIBOOT, kernel=BOOT)
    fd = os.open("/dev/null", os.O_RDONLY)
    refused("image", "not a regular file", kernel=fd)
    os.close(fd)


@test
def hostile_19_boot_disks():
    for words, content, size in (("no boot sector", b"x", MIB), ("shorter than one sector", b"x", 100),
                                 ("it is a qcow2 image", b"QFI\xfb", MIB)):
        fd = os.open(image("nb", content, size), os.O_RDONLY)
        refused("image", words, boot=m.DISK, disks=[(fd, 0, 0, 1)])
        os.close(fd)
    refused("image", "no disk to boot from", boot=m.DISK)
    # a boot sector's mark without code behind it: the firmware gives up, the machine ends
    fd = os.open(image("mark", b"\xcd\x18".ljust(510, b"\0") + b"\x55\xaa"), os.O_RDONLY)
    with Machine(memory=32 * MIB, boot=m.DISK) as g:
        g.load(disks=[(fd, 0, 0, 1)])
        assert g.ended(60) == exited(126), g.log()
    os.close(fd)


# ---- snapshots ----

def snapshot_of(g, name="snap"):
    fd = os.open(f"{WORK}/{name}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    g.ask(m.SNAPSHOT, fds=[fd])
    os.close(fd)
    return os.open(f"{WORK}/{name}", os.O_RDONLY)


def rollup(pid):
    with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
        total, inside = {}, False
        for line in f:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                inside = line.rstrip().endswith("/shared")
            elif inside and words[0] in ("Rss:", "Pss:", "Private_Dirty:"):
                total[words[0]] = total.get(words[0], 0) + int(words[1])
    return total


@test
def snapshot_and_restore_twice():
    nics = [("02:00:00:00:00:01", m.NET_NONE, 1, [])]
    with started(nics=nics, flags=m.RANDOM) as g:
        type_to(g, "kkk")
        g.wait_log("count 0003")
        snap = snapshot_of(g)
        type_to(g, "k")
        g.wait_log("count 0004")  # it goes on as it was
        g.ask(m.PAUSE)
        os.close(snapshot_of(g, "paused"))
        assert g.status()["paused"], "a paused guest stays paused"
    nics = [("02:00:00:00:00:02", m.NET_NONE, 1, [])]
    with started(snapshot=snap, nics=nics, flags=m.RANDOM, parameters="who=b") as b, \
            started(snapshot=snap, nics=nics, flags=m.RANDOM, parameters="who=c") as c:
        for g, who in ((b, "b"), (c, "c")):
            g.wait_log(f"who={who}")  # new identity, without being asked
            assert "generation=1" in g.log() and "mac0=02:00:00:00:00:02" in g.log(), g.log()
            assert g.status()["generation"] == 1
        type_to(b, "kk")
        b.wait_log("count 0005")
        type_to(c, "k")
        c.wait_log("count 0004")  # b's memory is its own
        assert "guest up" not in b.log()
    os.close(snap)


@test
def restores_of_one_open_file_at_a_time():
    """The launcher hands the same open file to all: nobody's reading may move another's place in it."""
    with started() as g:
        type_to(g, "k")
        g.wait_log("count 0001")
        snap = snapshot_of(g, "parallel")
    machines = [Machine(memory=32 * MIB, boot=m.PVH) for _ in range(6)]
    for g in machines:
        g.load(snapshot=snap, wait=False)
    for g in machines:
        m.receive(g.setup)
    for g in machines:
        g.input = g.console()
        type_to(g, "k")
        g.wait_log("count 0002")
        g.kill()
    os.close(snap)


@test
def restored_memory_is_shared():
    with started() as g:
        type_to(g, "m")
        g.wait_log("touched")
        snap = snapshot_of(g, "shared")
    with started(snapshot=snap) as b, started(snapshot=snap) as c:
        for g in (b, c):
            type_to(g, "M")
            g.wait_log("sum 00000800")
        maps = [rollup(g.qemu()) for g in (b, c)]
        print("   memory of two restored guests, KiB:", maps)
        for r in maps:
            assert r["Rss:"] >= 8192 and r["Pss:"] < 6144 and r["Private_Dirty:"] < 1024, r
    os.close(snap)


@test
def snapshot_of_a_restored_guest():
    with started() as g:
        type_to(g, "k")
        g.wait_log("count 0001")
        first = snapshot_of(g, "first")
    with started(snapshot=first) as g:
        type_to(g, "k")
        g.wait_log("count 0002")
        second = snapshot_of(g, "second")
        type_to(g, "k")
        g.wait_log("count 0003")
    with started(snapshot=second) as g:
        type_to(g, "k")
        g.wait_log("count 0003")
        assert g.status()["generation"] == 2
        third = snapshot_of(g, "third")
    with started(snapshot=third) as g:
        type_to(g, "k")
        g.wait_log("count 0004")
    for fd in (first, second, third):
        os.close(fd)


@test
def snapshot_holds_a_private_disk():
    path = image("base", b"original")
    fd = os.open(path, os.O_RDONLY)
    with started(disks=[(fd, 0, 0, 1)]) as g:
        type_to(g, "w")
        g.wait_log("disk written")
        snap = snapshot_of(g, "disk")
    writable = os.open(f"{WORK}/disk", os.O_RDWR)  # as the launcher has those that it makes itself
    for file in (snap, writable):
        with started(snapshot=file, disks=[(fd, 0, 0, 1)]) as g:
            type_to(g, "d")
            g.wait_log("disk 0 written!")
    os.close(writable)
    with started(disks=[(fd, 0, 0, 1)]) as g:
        type_to(g, "d")
        g.wait_log("disk 0 original")
    os.close(fd)
    os.close(snap)


def resize(g, vcpus, memory):
    g.ask(m.RESIZE, struct.pack("=Q2I", memory, vcpus, 0))


def not_resized(g, vcpus, memory, words):
    try:
        resize(g, vcpus, memory)
        raise AssertionError("it was not refused")
    except Refused as e:
        assert e.stage == "support" and words in e.detail, e


@test
def processors_and_memory_are_plugged_in():
    disk = os.open(image("boot", open(BOOT, "rb").read()), os.O_RDONLY)
    step = 128 * MIB
    with Machine(boot=m.DISK, memory=step, memory_max=4 * step, vcpus_max=3) as g:
        g.load(disks=[(disk, 0, 0, 1)])
        g.wait_log("booted from disk")
        threads = len(os.listdir(f"/proc/{g.qemu()}/task"))
        resize(g, 1, step)  # as it is
        os.close(snapshot_of(g, "room"))
        resize(g, 2, step)
        resize(g, 3, 2 * step)
        resize(g, 3, 4 * step)
        assert g.status()["memory"] == 4 * step, g.status()
        assert len(os.listdir(f"/proc/{g.qemu()}/task")) >= threads + 2, "a thread for each processor"
        not_resized(g, 4, 4 * step, "room for 3 processors and 512 MiB")
        not_resized(g, 3, 5 * step, "room for 3 processors and 512 MiB")
        not_resized(g, 2, 4 * step, "not taken from a running machine")
        not_resized(g, 3, 3 * step, "not taken from a running machine")
        try:
            os.close(snapshot_of(g, "grown"))
            raise AssertionError("a snapshot that would lack what was plugged in")
        except Refused as e:
            assert e.stage == "support" and "as it ran" in e.detail, e
        assert g.status()["paused"] == 0, "it goes on"
    snap = os.open(f"{WORK}/room", os.O_RDONLY)
    refused("snapshot", "up to 3 vCPUs, 512 MiB", boot=m.DISK, memory=step, snapshot=snap, disks=[(disk, 0, 0, 1)])
    with Machine(boot=m.DISK, memory=step, memory_max=4 * step, vcpus_max=3) as g:
        g.load(snapshot=snap, disks=[(disk, 0, 0, 1)])
        resize(g, 2, 2 * step)
        assert g.status()["memory"] == 2 * step
    os.close(snap)
    os.close(disk)
    with started() as g:
        not_resized(g, 2, 32 * MIB, "room for 1 processors")
    for room in ({"vcpus_max": 2}, {"memory_max": 64 * MIB}):
        try:
            Machine(boot=m.PVH, memory=32 * MIB, **room).kill()
            raise AssertionError("a microvm with slots")
        except Refused as e:
            assert e.stage == "protocol" and "room" in e.detail, e


@test
def snapshot_with_shared_memory():
    with started(prepare_flags=1) as g:
        type_to(g, "k")
        g.wait_log("count 0001")
        snap = snapshot_of(g, "sm")
    with started(prepare_flags=1, snapshot=snap) as g:
        type_to(g, "k")
        g.wait_log("count 0002")
    os.close(snap)


@test
def snapshot_refusals():
    path = image("inplace", b"x")
    fd = os.open(path, os.O_RDWR)
    with started(disks=[(fd, 0, 0, 0)]) as g:
        try:
            os.close(snapshot_of(g, "none"))
            raise AssertionError("a snapshot beside a disk that is written in place")
        except Refused as e:
            assert e.stage == "support" and "written in place" in e.detail, e
        type_to(g, "k")
        g.wait_log("count 0001")
    os.close(fd)
    with started() as g:
        snap = snapshot_of(g, "ref")
    refused("snapshot", "memory", memory=64 * MIB, snapshot=snap)
    refused("snapshot", "machine type", boot=m.MULTIBOOT, snapshot=snap)
    refused("snapshot", "device flags", snapshot=snap, flags=m.RANDOM)
    refused("snapshot", "network devices", snapshot=snap, nics=[("02:00:00:00:00:01", 0, 1, [])])
    data = os.pread(snap, 1 << 30, 0)
    os.close(snap)

    def damaged(content):
        name = f"{WORK}/damaged"
        with open(name, "wb") as f:
            f.write(content)
        return os.open(name, os.O_RDONLY)

    version = data.rindex(b"Debian 1:7.2") if b"Debian 1:7.2" in data else -1
    for words, content in (("truncated", data[:-1]), ("truncated", b""), ("truncated", data[:-4096]),
                           ("description is damaged", data[:-4050] + b"\xff" + data[-4049:]),
                           ("state is damaged", data[:32 * MIB + 100] + b"\xff\xfe" + data[32 * MIB + 102:])):
        fd = damaged(content)
        refused("snapshot", words, snapshot=fd)
        os.close(fd)
    if version > 0:
        page = bytearray(data[-4096:])
        at = page.index(b"Debian 1:7.2")
        page[at:at + 12] = b"Debian 1:6.9"
        total = 0xcbf29ce484222325
        size = len(page.rstrip(b"\0"))
        size += -size % 8
        for byte in page[:size - 8]:
            total = (total ^ byte) * 0x100000001b3 & (1 << 64) - 1
        page[size - 8:size] = struct.pack("=Q", total)
        fd = damaged(data[:-4096] + bytes(page))
        refused("snapshot", "made with QEMU", snapshot=fd)
        os.close(fd)


@test
def snapshot_on_a_full_disk():
    full = os.open("/dev/full", os.O_RDWR)
    os.close(full)
    mount = f"{WORK}/small"
    os.mkdir(mount)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", mount]).returncode:
        print("   not tried: cannot mount a tmpfs")
        return
    try:
        with started() as g:
            type_to(g, "m")
            g.wait_log("touched")
            fd = os.open(f"{mount}/s", os.O_RDWR | os.O_CREAT)
            try:
                g.ask(m.SNAPSHOT, fds=[fd])
                raise AssertionError("4 MiB hold a machine of 8")
            except Refused as e:
                assert e.stage == "snapshot" and e.error == 28, e
            assert os.fstat(fd).st_size == 0
            os.close(fd)
            type_to(g, "k")
            g.wait_log("count 0001")
    finally:
        subprocess.run(["umount", mount], check=True)


# ---- to another supervisor ----

def moved(g, memory=32 * MIB, boot=m.PVH, **load):
    """Moves g's guest into a new machine and returns that; Refused when either side says no."""
    ours, theirs = socket.socketpair()
    to = Machine(memory=memory, boot=boot)
    try:
        load["flags"] = load.get("flags", 0) | m.INCOMING
        to.load(snapshot=theirs.fileno(), wait=False, **load)
        theirs.close()
        begun = time.monotonic()
        g.ask(m.MIGRATE, fds=[ours.fileno()])
        m.receive(to.setup)
        print(f"   moved in {(time.monotonic() - begun) * 1e3:.0f} ms")
    except Refused:
        to.kill()
        raise
    finally:
        ours.close()
    to.input = to.console()
    return to


@test
def moving_a_guest():
    fd = os.open(image("moving", b"original"), os.O_RDONLY)
    nics = [("02:00:00:00:00:01", m.NET_NONE, 1, [])]
    with started(disks=[(fd, 0, 0, 1)], nics=nics, flags=m.RANDOM) as g:
        type_to(g, "kkw")
        g.wait_log("disk written")
        qemu = g.qemu()
        with moved(g, disks=[(fd, 0, 0, 1)], nics=nics, flags=m.RANDOM) as to:
            assert g.ended() is None, "the guest has not ended"
            gone(qemu)
            type_to(to, "kd")
            to.wait_log("disk 0 written!")
            assert "count 0003" in to.log() and "guest up" not in to.log() and "identity" not in to.log(), to.log()
            to.process.send_signal(signal.SIGTERM)  # it knows that the agent is there
            to.wait_log("agent: poweroff")
            with moved(to, disks=[(fd, 0, 0, 1)], nics=nics, flags=m.RANDOM) as again:
                type_to(again, "k")
                again.wait_log("count 0004")
                type_to(again, "e")
                assert again.ended() == exited(7)
    os.close(fd)


@test
def moving_a_writable_disk():
    path = image("moving-rw", b"x")
    fds = [os.open(path, os.O_RDWR) for _ in range(2)]
    with started(disks=[(fds[0], 0, 0, 0)]) as g:
        with moved(g, disks=[(fds[1], 0, 0, 0)]) as to:
            type_to(to, "w")
            to.wait_log("disk written")
            assert open(path, "rb").read(8) == b"written!"
    for fd in fds:
        os.close(fd)


@test
def moving_restored_and_paused_guests():
    with started() as g:
        type_to(g, "k")
        g.wait_log("count 0001")
        snap = snapshot_of(g, "moving")
    with started(snapshot=snap) as g:
        with moved(g) as to:
            assert to.status()["generation"] == 1
            type_to(to, "k")
            to.wait_log("count 0002")
            to.ask(m.PAUSE)
            with moved(to) as again:
                assert again.status()["paused"]
                type_to(again, "k")
                time.sleep(0.2)
                assert "count" not in again.log()
                again.ask(m.RESUME)
                again.wait_log("count 0003")
    os.close(snap)


@test
def moving_that_fails_leaves_the_guest():
    with started() as g:
        for what in ({"flags": m.RANDOM}, {"memory": 64 * MIB}, {"boot": m.MULTIBOOT}):
            try:
                moved(g, **what)
                raise AssertionError(what)
            except Refused as e:
                assert e.stage == "snapshot", e
        for answer in (b"", b"X", b"R"):  # a peer that goes, lies, or forgets its descriptor
            ours, theirs = socket.socketpair()
            theirs.sendall(answer) if answer else theirs.close()
            try:
                g.ask(m.MIGRATE, fds=[ours.fileno()])
                raise AssertionError(answer)
            except Refused as e:
                assert e.stage == "snapshot", e
            ours.close()
            theirs.close()
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            g.ask(m.MIGRATE, fds=[null])
            raise AssertionError("migrated to /dev/null")
        except Refused:
            os.close(null)
        type_to(g, "k")
        g.wait_log("count 0001")
        assert not g.status()["paused"]


# ---- bad days ----

@test
def no_qemu_installed():
    with Machine(prepare=False, env={"CORACLE_QEMU": "/nonexistent"}) as g:
        try:
            g.prepare(32 * MIB)
            raise AssertionError("prepared without QEMU")
        except Refused as e:
            assert e.stage == "emulator" and "apt-get install qemu-system-x86" in e.hint, e
        g.process.wait(10)


@test
def not_an_emulator():
    with Machine(prepare=False, env={"CORACLE_QEMU": "/etc/passwd"}) as g:
        try:
            g.prepare(32 * MIB)
            raise AssertionError("prepared with what is no program")
        except Refused as e:
            assert e.stage == "emulator", e
    with Machine(boot=m.PVH, memory=32 * MIB, env={"CORACLE_QEMU": "/bin/false"}) as g:
        try:
            g.load(kernel=GUEST)
            raise AssertionError("loaded into /bin/false")
        except Refused as e:
            assert e.stage == "emulator" and "ended" in e.detail, e


@test
def an_emulator_that_is_no_good():
    """What comes over QMP before the guest runs: refused with a reason, in bounded time and memory."""
    cases = {"garbage": "does not speak QMP", "long": "does not speak QMP", "dies": "ended", "words": "-device x:  [31mno such",
             "silent": "does not answer"}
    for how, words in cases.items():
        with Machine(boot=m.PVH, memory=32 * MIB, env={"CORACLE_QEMU": FAKE}) as g:
            begun = time.monotonic()
            try:
                g.load(kernel=GUEST, parameters=how)
                raise AssertionError(how)
            except Refused as e:
                assert e.stage == "emulator" and words in e.detail, (how, str(e))
            assert time.monotonic() - begun < 30, how
            assert g.ended() is None


@test
def an_emulator_taken_over():
    """The guest runs and QEMU is the attacker's: floods, wrong answers, silence. The supervisor stays as it is, or ends it."""
    for how in ("events", "odd", "nul"):
        with Machine(boot=m.PVH, memory=32 * MIB, env={"CORACLE_QEMU": FAKE}) as g:
            g.load(kernel=GUEST, parameters=how, flags=m.BALLOON)
            end = time.monotonic() + 2
            while time.monotonic() < end and how == "odd":
                assert g.status()["balloon"] == 0
                time.sleep(0.05)
            if how == "nul":
                assert g.ended() == exited(126) and "does not speak QMP" in g.log()
                continue
            time.sleep(1)
            assert resident(g) < 8192
            g.process.send_signal(signal.SIGTERM)
            assert g.ended() == signal.SIGTERM
    with Machine(boot=m.PVH, memory=32 * MIB, env={"CORACLE_QEMU": FAKE}) as g:
        g.load(kernel=GUEST, parameters="late")
        assert g.ended() == exited(126) and "does not answer QMP" in g.log()


@test
def kvm_that_does_not_work():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("   not tried: no /dev/kvm")
        return
    g = Machine(memory=32 * MIB, boot=m.PVH, kvm=True)
    try:
        g.load(kernel=GUEST)
        assert g.status()["accelerator"] == 1
        print("   this KVM takes QEMU's machine")
    except Refused as e:
        print("   KVM said:", e)
        assert e.stage in ("vm", "emulator"), e
    finally:
        g.kill()


@test
def the_hosts_kvm_comes_as_a_descriptor():
    """Machines have a uid of their own, which may not open /dev/kvm."""
    if os.geteuid() != 0 or not os.access("/dev/kvm", os.R_OK | os.W_OK) or not shutil.which("setpriv"):
        print("   not tried: no /dev/kvm, or not root")
        return
    if os.stat("/dev/kvm").st_mode & 0o006:
        print("   not tried: everybody may open this /dev/kvm")
        return
    g = Machine(memory=32 * MIB, boot=m.PVH, kvm=True, wrap=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    try:
        g.load(kernel=GUEST)
    except Refused as e:  # what KVM says to QEMU is another matter
        assert "Permission denied" not in e.detail, e
    finally:
        g.kill()


@test
def qemu_killed():
    with started() as g:
        begun = time.monotonic()
        os.kill(g.qemu(), signal.SIGKILL)
        assert g.ended() == signal.SIGKILL
        print(f"   known after {(time.monotonic() - begun) * 1e3:.1f} ms")
        assert "killed by signal 9" in g.log()


@test
def qemu_hung():
    with started() as g:
        qemu = g.qemu()
        begun = time.monotonic()
        os.kill(qemu, signal.SIGSTOP)
        assert g.ended() == exited(126)
        print(f"   known after {time.monotonic() - begun:.2f} s")
        assert "does not answer QMP" in g.log()
        gone(qemu)


@test
def a_spinning_guest_is_no_hung_one():
    with started() as g:
        type_to(g, "s")
        time.sleep(2)
        assert g.status()["accelerator"] == 2


@test
def supervisor_killed():
    with started() as g, Machine(memory=32 * MIB, boot=m.PVH) as warm:
        for x in (g, warm):
            qemu = x.qemu()
            x.process.kill()
            x.process.wait()
            gone(qemu)


@test
def launcher_gone_before_load():
    with Machine(memory=32 * MIB, boot=m.PVH) as g:
        qemu = g.qemu()
        g.setup.close()
        g.process.wait(10)
        gone(qemu)
    with Machine(memory=32 * MIB, boot=m.PVH) as g:
        g.load(kernel=GUEST, flags=m.WAIT, wait=False)
        g.wait_log("guest up")
        qemu = g.qemu()
        g.setup.close()
        g.process.wait(10)
        gone(qemu)


@test
def console_flood_is_bounded():
    with started(log_bytes=64 << 10) as g:
        type_to(g, "f")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            begun = time.monotonic()
            g.status()
            assert time.monotonic() - begun < 2, "nobody answers while the guest floods"
            time.sleep(0.1)
        assert sum(os.fstat(fd).st_size for fd in g.logs) <= 64 << 10
        assert resident(g) < 8192
        fds = len(os.listdir(f"/proc/{g.process.pid}/fd"))
        for _ in range(50):
            g.status()
        assert len(os.listdir(f"/proc/{g.process.pid}/fd")) <= fds + 1


@test
def hostile_22_surplus_descriptors_and_messages():
    with started() as g:
        before = len(os.listdir(f"/proc/{g.process.pid}/fd"))
        null = os.open("/dev/null", os.O_RDONLY)
        for i in range(300):
            s = g.connect()
            try:
                if i % 3 == 0:
                    m.send(s, m.STATUS, fds=[null] * 20)
                elif i % 3 == 1:
                    s.sendall(os.urandom(i + 1))
                else:
                    m.send(s, m.LOAD, b"x", [null])
                m.receive(s, 10)
            except (Refused, EOFError, ConnectionError):
                pass
            s.close()
        os.close(null)
        g.status()
        after = len(os.listdir(f"/proc/{g.process.pid}/fd"))
        assert after <= before + 1, (before, after)


@test
def wrong_order_and_wrong_words():
    with Machine(prepare=False, boot=m.PVH) as g:
        try:
            g.load(kernel=GUEST)
            raise AssertionError("LOAD before PREPARE")
        except Refused as e:
            assert e.stage == "protocol", e
    for memory in (0, 4096, MIB + 1):
        with Machine(prepare=False, boot=m.PVH) as g:
            try:
                g.prepare(memory)
                raise AssertionError(f"{memory} bytes of memory")
            except Refused as e:
                assert e.stage in ("memory", "protocol"), e
    refused("support", "vsock", kernel=GUEST, flags=m.WITH_VSOCK)
    with started() as g:
        for kind in (m.VSOCK, m.PREPARE, m.DONE):
            try:
                g.ask(kind, struct.pack("=II", 1, 0) if kind == m.VSOCK else b"")
                raise AssertionError(kind)
            except (Refused, EOFError):
                pass


@test
def what_qemu_holds():
    """No descriptor of the supervisor's or the launcher's, no way to gain a privilege, and its seccomp filter on."""
    with started() as g:
        qemu = g.qemu()
        status = dict(line.split(":", 1) for line in open(f"/proc/{qemu}/status", encoding="ascii"))
        assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status
        links = [os.readlink(f"/proc/{qemu}/fd/{fd}") for fd in os.listdir(f"/proc/{qemu}/fd")]
        assert not [x for x in links if g.dir in x], links
        above = dict(line.split(":", 1) for line in open(f"/proc/{g.process.pid}/status", encoding="ascii"))
        assert above["NoNewPrivs"].strip() == "1" and above["Seccomp"].strip() == "2", above
        environment = open(f"/proc/{qemu}/environ", "rb").read()
        assert b"HOME" not in environment, environment


def main():
    if not os.environ.get("CORACLE_QEMU") and not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64 is not installed")
        return 77
    wanted = sys.argv[6:]
    failed = 0
    for f in TESTS:
        if wanted and f.__name__ not in wanted:
            continue
        begun = time.monotonic()
        try:
            f()
            result = "ok"
        except Exception as e:  # pylint: disable=broad-except
            import traceback
            traceback.print_exc()
            result, failed = f"FAILED: {e}", failed + 1
        for left in list(Machine.running):
            print("   its log:", left.log()[-500:])
            left.kill()
        print(f"{f.__name__}: {result} ({time.monotonic() - begun:.1f} s)", flush=True)
    shutil.rmtree(WORK)
    return 1 if failed else 0


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    sys.exit(main())
