#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tenant that fills its pids, memory, disk or log hurts nobody: a neighbour's round trips go on meanwhile.
Needs busybox-static for the hostile programs. usage: neighbours.py BUILD"""
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time

from platform_under_test import Checks, Platform, skip

HOSTILE = {
    "pids": ("f() { f | f & }; f; sleep 30", {"pids": 32, "memory": "64MiB"}),
    "memory": ("tail /dev/zero", {"memory": "32MiB"}),
    "disk": ("dd if=/dev/zero of=/fill bs=64k; sleep 30", {"storage": "8MiB", "memory": "64MiB"}),
    "log": ("while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", {"cpus": 0.5}),
    "processor": ("while :; do :; done", {"cpus": 0.2}),
}


def busybox_image():
    busybox = shutil.which("busybox")
    if not busybox or b"statically linked" not in subprocess.run(["file", "-L", busybox], capture_output=True, check=True).stdout:
        skip("needs Debian's busybox-static and file")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "tail", "dd", "sleep", "echo", "cat", "ps"):
            link = tarfile.TarInfo("bin/" + name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


def round_trips(platform, address, seconds=3):
    out = platform.in_fabric("ping", "-i", "0.01", "-w", str(seconds), address, capture_output=True, text=True, check=False).stdout
    sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", out).groups())
    return sent, received


def usage(path):
    return sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(path) for n in names)


def main():
    image = busybox_image()
    checks = Checks()
    with Platform(sys.argv[1], "neighbours", host_conf="pool_depth = 0\nlog_bytes = 1MiB\n") as platform:
        platform.import_iperf()
        platform.request("POST", "/v1/images?name=busybox", image, "application/x-tar")
        before = platform.footprint()
        platform.create({"name": "victim", "image": "coracle/iperf"})
        victim = platform.instance("victim")
        address = victim["networks"][0]["ipv4"]
        for kind, (script, resources) in HOSTILE.items():
            name = "hostile-" + kind
            platform.create({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script], "resources": resources})
            sent, received = round_trips(platform, address)
            checks.that(f"{kind}: the neighbour answered {received} of {sent}", sent > 50 and received >= sent - 2)
            seen = platform.instance(name)
            if kind == "memory":
                checks.that("memory: killed for memory, and it says so", seen["exit"] and seen["exit"]["oom"], seen["exit"])
            if kind == "pids":
                stats = platform.get(f"/v1/instances/{name}/stats")
                checks.that("pids: at most the limit", stats["pids"] is not None and stats["pids"] <= 33, stats["pids"])
            if kind == "log":
                written = usage(os.path.join(platform.state, "logs", seen["id"]))
                checks.that(f"log: {written} bytes kept of an endless log", 0 < written <= 1200 * 1024, written)
            if kind == "processor":
                first = platform.get(f"/v1/instances/{name}/stats")["cpu_ns"]
                time.sleep(2)
                used = (platform.get(f"/v1/instances/{name}/stats")["cpu_ns"] - first) / 2e9
                checks.that(f"processor: used {used:.2f} of a core, 0.2 allowed", 0.02 < used < 0.3, used)
            platform.remove(name)
        now = platform.instance("victim")
        checks.that("the neighbour never restarted", now["pid"] == victim["pid"] and now["restarts"] == 0, now["restarts"])
        platform.remove("victim")
        rest = platform.settle(before)
        checks.that("nothing is left", not rest, rest)
    checks.exit()


if __name__ == "__main__":
    main()
