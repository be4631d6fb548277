#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The standard VM: a Debian disk made by build-standardvm, booted by firmware and boot loader as q35 under QEMU's emulation,
told who it is by a metadata disk; pinged, loaded by iperf, entered with a key, switched off by its agent. And a breakdown
of its cold boot: firmware, boot loader, kernel, user space.

Slow (Debian is downloaded and installed, then booted by an emulated processor). DISK: a disk that exists, in place of one
built here.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from machine import GUEST4, HOST4, MAC, Machine, Network, PATIENCE, iperf, run, skip, ssh

BUILD_STANDARDVM, CIDATA, BUILD = sys.argv[1:4]
UNAVAILABLE = 69


def build(output):
    result = subprocess.run([BUILD_STANDARDVM, "iperf", "-o", output], env={**os.environ, "CORACLE_BUILD": BUILD},
                            capture_output=True, text=True, check=False)
    if result.returncode == UNAVAILABLE:
        skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr
    print(result.stdout)


def boot(network, disk):
    machine = Machine(network, [
        "-machine", "q35,usb=off,vmport=off,graphics=off", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256M",
        "-drive", f"file={disk},format=qcow2,if=none,id=d0,snapshot=on", "-device", "virtio-blk-pci,drive=d0,bootindex=0",
        "-drive", f"file={work}/cidata,format=raw,if=none,id=d1,readonly=on", "-device", "virtio-blk-pci,drive=d1",
        "-netdev", "tap,id=n0,ifname=t0,script=no,downscript=no,vnet_hdr=on", "-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile=",
        "-object", "rng-builtin,id=r", "-device", "virtio-rng-pci,rng=r"])
    try:
        rst = machine.first_answer(9, PATIENCE)
        syn_ack = machine.first_answer(5001, PATIENCE)
        machine.wait_agent("hello 1", PATIENCE)
        machine.wait_agent("ready", PATIENCE)
        run(*network.words("ping", "-c", "3", "-i", "0.2", "-W", "5", GUEST4))
        for words in (["-c", GUEST4], ["-c", GUEST4, "-R"]):
            iperf(network, *words)
        assert ssh(network, f"{work}/key", "hostname").strip() == "svm"
        report(network, machine.begun, rst, syn_ack)
        machine.agent.setblocking(True)
        machine.agent.sendall(b"poweroff\n")
        machine.wait_end(PATIENCE)
    finally:
        if machine.process.poll() is None:
            print(machine.console()[-3000:])
        machine.close()


def report(network, begun, rst, syn_ack):
    """The guest's clocks begin with its kernel: what was before is firmware and boot loader."""
    text = ssh(network, f"{work}/key", "cat /proc/uptime; systemctl show -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic; "
                        "systemctl show -p ExecMainStartTimestampMonotonic coracle-guest; free -k; systemd-analyze | head -3")
    print(text)
    up, now = (float(ssh(network, f"{work}/key", "cat /proc/uptime").split()[0]), time.monotonic())
    kernel = int(next(line for line in text.splitlines() if line.startswith("UserspaceTimestampMonotonic")).split("=")[1]) / 1e6
    before = now - begun - up
    print(f"create to RST {rst:.1f} s, to SYN-ACK {syn_ack:.1f} s: firmware and boot loader {before:.1f} s, kernel {kernel:.1f} s, "
          f"user space to the application {syn_ack - before - kernel:.1f} s")


def main():
    if os.geteuid() != 0:
        skip("needs root (network namespaces)")
    for program in ("qemu-system-x86_64", "iperf", "ssh", "ssh-keygen", "ip"):
        if not shutil.which(program):
            skip(f"{program} is not installed")
    disk = os.environ.get("DISK")
    if not disk:
        disk = f"{work}/disk.qcow2"
        build(disk)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{work}/key")
    run(CIDATA, "--output", f"{work}/cidata", "--ssh-key", f"{work}/key.pub", "hostname=svm", f"ip4={GUEST4}/24", f"gw4={HOST4}",
        "--", "/usr/bin/iperf", "-s")
    network = Network()
    try:
        network.enter()
        boot(network, disk)
    finally:
        network.close()


work = tempfile.mkdtemp(prefix="linux-standardvm-", dir="/var/tmp")
try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
