#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Tinyx image, from Debian's packages to a guest that serves: built (twice, byte for byte the same), booted in 24 MB
under QEMU's emulation, pinged, loaded by Debian's iperf both ways over IPv4 and IPv6, entered with a key; switched off by
its agent; two guests restored from one snapshot, each with an identity of its own.

Needs root, Debian's archive (or a cache of it), QEMU. The first run builds a kernel: minutes. Figures are printed, not
judged, except size and memory, which do not depend on the load of this machine.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

from machine import GUEST4, GUEST6, HOST4, MAC, Machine, Network, PATIENCE, iperf, mmio, run, skip, ssh, ssh_words

BUILD_TINYX, BUILD = sys.argv[1], sys.argv[2]
UNAVAILABLE = 69
MEMORY_MB = 24
SIZE_MAX, USED_MAX_KB = 3_000_000, 18 * 1024
# Emulation has no clock that Linux can trust at once; PIT and PIC are what it calibrates with.
BOARD = ["-machine", "microvm,acpi=off,pit=on,pic=on,rtc=on,usb=off,pcie=off,x-option-roms=off,auto-kernel-cmdline=off",
         "-global", "virtio-mmio.force-legacy=false", "-accel", "tcg", "-cpu", "max", "-smp", "1"]


def build(output, *words):
    result = subprocess.run([BUILD_TINYX, "iperf", "-o", output, *words], env={**os.environ, "CORACLE_BUILD": BUILD},
                            capture_output=True, text=True, check=False)
    if result.returncode == UNAVAILABLE:
        skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr
    return result.stdout


def unpack(archive, folder):
    with tarfile.open(archive) as outer:
        index = json.load(outer.extractfile("index.json"))
        manifest = json.load(outer.extractfile("blobs/sha256/" + index["manifests"][0]["digest"][7:]))
        config = json.load(outer.extractfile("blobs/sha256/" + manifest["config"]["digest"][7:]))
        with tarfile.open(fileobj=outer.extractfile("blobs/sha256/" + manifest["layers"][0]["digest"][7:])) as layer:
            layer.extractall(folder)
    return config


def boots_and_serves(network, folder, key):
    machine = start(network, folder, f"ip4={GUEST4}/24 gw4={HOST4} ip6={GUEST6}/64 hostname=first ssh.key={key} -- iperf -s")
    try:
        rst = machine.first_answer(9, PATIENCE)
        syn_ack = machine.first_answer(5001, PATIENCE)
        ready = machine.wait_console("guest-init: ready", PATIENCE)
        print(f"create to RST {rst:.3f} s, to SYN-ACK {syn_ack:.3f} s; {ready}")
        machine.wait_agent("hello 1", PATIENCE)
        machine.wait_agent("ready", PATIENCE)
        memory_of(ssh(network, f"{work}/key", "cat /proc/meminfo"), "idle")
        run(*network.words("ping", "-c", "3", "-i", "0.2", "-W", "5", GUEST4))
        run(*network.words("ping", "-6", "-c", "3", "-i", "0.2", "-W", "5", GUEST6))
        for words in (["-c", GUEST4], ["-c", GUEST4, "-R"], ["-c", GUEST6, "-V"], ["-c", GUEST6, "-V", "-R"]):
            iperf(network, *words)
        assert memory_of(ssh(network, f"{work}/key", "cat /proc/meminfo"), "after serving") <= USED_MAX_KB
        assert ssh(network, f"{work}/key", "hostname").strip() == "first"
        assert "Permission denied" in ssh_denied(network)
        machine.agent.send(b"poweroff\n")
        machine.wait_end(PATIENCE)
    finally:
        machine.close()


def start(network, folder, words, *more):
    words, _, application = words.partition(" -- ")
    line = f"console=ttyS0 loglevel=3 {mmio(2)} {words}" + (f" -- {application}" if application else "")
    return Machine(network, [*BOARD, "-m", f"{MEMORY_MB}M", "-kernel", f"{folder}/boot/kernel", "-initrd", f"{folder}/boot/initrd",
                             "-append", line, "-netdev", "tap,id=n0,ifname=t0,script=no,downscript=no,vnet_hdr=on",
                             "-device", f"virtio-net-device,bus=virtio-mmio-bus.0,netdev=n0,mac={MAC}",
                             "-object", "rng-builtin,id=r", "-device", "virtio-rng-device,bus=virtio-mmio-bus.1,rng=r", *more])


def ssh_denied(network):
    return subprocess.run(ssh_words(network, f"{work}/other", "true"), capture_output=True, text=True, timeout=60, check=False).stderr


def memory_of(text, when):
    fields = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+): +(\d+) kB", text, re.M)}
    used = MEMORY_MB * 1024 - fields["MemAvailable"]
    print(f"memory {when}: {MEMORY_MB} MB given, {fields['MemTotal']} kB after the kernel took its own, {fields['MemAvailable']} kB available, "
          f"{used} kB used")
    return used


def qmp(machine, path):
    """A QMP connection: a function that runs one command."""
    import socket

    s = socket.socket(socket.AF_UNIX)
    for _ in range(100):
        try:
            s.connect(path)
            break
        except OSError:
            time.sleep(0.05)
    file = s.makefile("rw")
    file.readline()

    def command(name, **arguments):
        file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        file.flush()
        while True:
            answer = json.loads(file.readline())
            if "return" in answer or "error" in answer:
                assert "return" in answer, answer
                return answer["return"]

    command("qmp_capabilities")
    machine.qmp = s
    return command


def take_snapshot(network, folder, key):
    path = f"{work}/snapshot"
    machine = start(network, folder, f"ip4={GUEST4}/24 hostname=template ssh.key={key} -- iperf -s", "-qmp", f"unix:{work}/qmp,server=on,wait=off")
    try:
        machine.wait_agent("ready", PATIENCE)
        identify(machine, 0, "template", GUEST4, MAC, key)
        seen = who(network)
        command = qmp(machine, f"{work}/qmp")
        command("migrate", uri=f"exec:cat > {path}")
        while command("query-migrate")["status"] not in ("completed", "failed"):
            time.sleep(0.1)
        command("quit")
        machine.wait_end(PATIENCE)
    finally:
        machine.close()
    return path, seen


def identify(machine, generation, name, address, mac, key):
    parameters = f"hostname={name} ip4={address}/24 gw4={HOST4} ssh.key={key}".encode()
    seed = os.urandom(32).hex()
    machine.agent.setblocking(True)
    machine.agent.sendall(f"identity 1 generation={generation} id=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e{generation:03x} name={name} "
                          f"time={time.time():.9f} mac0={mac} seed={seed} parameters={len(parameters)}\n".encode() + parameters + b"\n")


def who(network):
    """What must differ between guests: machine id, host name, host key, MAC, and what its random numbers are."""
    text = ssh(network, f"{work}/key", "cat /etc/machine-id; hostname; cat /sys/class/net/eth0/address; cat /proc/sys/kernel/random/uuid; date +%s")
    key = run(*network.words("ssh-keyscan", "-T", "20", "-t", "ed25519", GUEST4))
    machine_id, name, mac, random, now = text.split()
    assert abs(int(now) - time.time()) < 30, "the clock is not the present time"
    return {"machine id": machine_id, "host name": name, "MAC": mac, "random numbers": random, "host key": key.split()[-1]}


def restores_with_new_identity(network, folder, key):
    path, template = take_snapshot(network, folder, key)
    seen = [template]
    for generation, mac in ((1, "02:00:00:00:78:01"), (2, "02:00:00:00:78:02")):
        run("ip", "-n", network.name, "neigh", "replace", GUEST4, "lladdr", mac, "dev", "t0", "nud", "permanent")
        machine = start(network, folder, "hostname=template -- iperf -s", "-incoming", f"exec:cat {path}", "-qmp", f"unix:{work}/qmp{generation},server=on,wait=off")
        try:
            command = qmp(machine, f"{work}/qmp{generation}")
            while command("query-status")["status"] != "running":  # what a port gets before is lost with its old state
                time.sleep(0.02)
            identify(machine, generation, f"clone{generation}", GUEST4, mac, key)
            answered = machine.first_answer(5001, PATIENCE)
            machine.wait_agent("ready", PATIENCE)
            print(f"restored: SYN-ACK {answered:.3f} s after the start of QEMU")
            assert "restored: now" in machine.wait_console("restored: now", PATIENCE)
            seen.append(who(network))
            assert seen[-1]["MAC"] == mac and seen[-1]["host name"] == f"clone{generation}"
            machine.agent.sendall(b"poweroff\n")
            machine.wait_end(PATIENCE)
        finally:
            machine.close()
    for what in template:
        assert len({guest[what] for guest in seen}) == 3, f"{what} is the same in two guests: {seen}"
    print("three guests of one memory: machine id, name, MAC, host key and random numbers all differ")


def check_image(archive, again, config, folder):
    with open(archive, "rb") as one, open(again, "rb") as two:
        assert one.read() == two.read(), "two builds differ"
    labels = config["config"]["Labels"]
    assert labels["org.coracle.guest"] == "linux" and labels["org.coracle.boot"] == "linux", labels
    assert config["config"]["Entrypoint"] == ["/bin/iperf"] and config["config"]["Cmd"] == ["-s"], config
    size = sum(os.path.getsize(f"{folder}/boot/{name}") for name in ("kernel", "initrd"))
    print(f"kernel and initramfs: {size} bytes")
    assert size <= SIZE_MAX, size


def main():
    if os.geteuid() != 0:
        skip("needs root (network namespaces)")
    for program in ("qemu-system-x86_64", "iperf", "ssh", "ssh-keygen", "ip"):
        if not shutil.which(program):
            skip(f"{program} is not installed")
    print(build(f"{work}/one.tar", "--explain"))
    build(f"{work}/two.tar")
    config = unpack(f"{work}/one.tar", f"{work}/image")
    check_image(f"{work}/one.tar", f"{work}/two.tar", config, f"{work}/image")
    for name in ("key", "other"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{work}/{name}")
    with open(f"{work}/key.pub") as file:
        key = file.read().strip().replace(" ", "%20")
    network = Network()
    try:
        network.enter()
        boots_and_serves(network, f"{work}/image", key)
        restores_with_new_identity(network, f"{work}/image", key)
    finally:
        network.close()


work = tempfile.mkdtemp(prefix="linux-tinyx-")
try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
