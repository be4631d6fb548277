#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad days through the REST API: each ends in a clear error with a stable code and leaves nothing
half-made. usage: bad_days.py BUILD"""
import io
import json
import os
import subprocess
import sys
import tarfile
import time

from platform_under_test import Checks, Platform, Problem

IMAGE = "coracle/iperf"


def descriptor(**fields):
    return {"image": IMAGE, **fields}


BAD_DESCRIPTORS = [
    ("unknown field", descriptor(memroy="1MiB"), "UNKNOWN_FIELD"),
    ("unknown nested field", descriptor(resources={"memry": 5}), "UNKNOWN_FIELD"),
    ("wrong unit", descriptor(resources={"memory": "64MB "}), "INVALID_UNIT"),
    ("unit in the wrong case", descriptor(resources={"memory": "64mib"}), "INVALID_UNIT"),
    ("negative limit", descriptor(resources={"pids": -1}), "INVALID_VALUE"),
    ("negative memory", descriptor(resources={"memory": -4096}), "INVALID_VALUE"),
    ("overflowing memory", descriptor(resources={"memory": "99999999999999999999GiB"}), "INVALID_VALUE"),
    ("cpus of a word", descriptor(resources={"cpus": "many"}), "INVALID_VALUE"),
    ("name that is no label", descriptor(name="Not_A_Label"), "INVALID_VALUE"),
    ("name with a path", descriptor(name="../../etc"), "INVALID_VALUE"),
    ("technology that is none", descriptor(technology="vmware"), "UNKNOWN_TECHNOLOGY"),
    ("image that is not there", {"image": "nobody/nothing"}, "IMAGE_NOT_FOUND"),
    ("network that is not there", descriptor(networks=["nowhere"]), "NETWORK_NOT_FOUND"),
    ("address outside the network", descriptor(networks=[{"name": "default", "ipv4": "10.0.0.1"}]), "INVALID_VALUE"),
    ("processor that is not there", descriptor(resources={"cpuset": "4095"}), "LIMIT_NOT_ENFORCEABLE"),
    ("fault for a real technology", descriptor(fault={"step": "start"}), "INVALID_VALUE"),
    ("capability beyond the list", descriptor(capabilities=["SYS_ADMIN"]), "INVALID_VALUE"),
    ("port that is none", descriptor(ports=["99999:80/tcp"]), "INVALID_VALUE"),
    ("a list", [1, 2, 3], "MALFORMED_BODY"),
]


def check_descriptors(platform, checks):
    for name, body, code in BAD_DESCRIPTORS:
        checks.refused(f"descriptor: {name}", code, lambda b=body: platform.create(b))
    checks.refused("body that is not JSON", "MALFORMED_BODY",
                   lambda: platform.request("POST", "/v1/instances", b'{"image": '))
    checks.refused("unknown query parameter", "UNKNOWN_PARAMETER", lambda: platform.get("/v1/instances?colour=red"))


def check_names_and_addresses(platform, checks):
    platform.create(descriptor(name="taken", networks=[{"name": "default", "ipv4": "198.18.7.7"}]))
    checks.refused("name taken", "NAME_TAKEN", lambda: platform.create(descriptor(name="taken")))
    checks.refused("address taken", "ADDRESS_TAKEN",
                   lambda: platform.create(descriptor(networks=[{"name": "default", "ipv4": "198.18.7.7"}])))
    checks.refused("running instance removed without force", "CONFLICTING_STATE",
                   lambda: platform.delete("/v1/instances/taken"))
    checks.refused("image in use", "IMAGE_IN_USE", lambda: platform.delete("/v1/images/coracle%2Fiperf"))
    platform.post("/v1/networks", {"name": "tiny", "ipv4": "198.19.255.0/29"})
    made = []
    try:
        for i in range(8):
            made.append(platform.create(descriptor(name=f"tiny{i}", networks=["tiny"])))
        checks.that("address pool used up", False, f"{len(made)} instances in a /29")
    except Problem as problem:
        checks.that("address pool used up -> ADDRESS_POOL_EXHAUSTED", problem.code == "ADDRESS_POOL_EXHAUSTED"
                    and len(made) == 5, f"{problem} after {len(made)}")
    checks.refused("network in use", "NETWORK_IN_USE", lambda: platform.delete("/v1/networks/tiny"))
    for instance in made:
        platform.remove(instance["id"])
    platform.delete("/v1/networks/tiny")
    platform.remove("taken")


def check_bridge_collision(platform, checks):
    """A bridge is named by a hash of its network's name; these two were computed to collide with "default"."""
    platform.create(descriptor(name="resident"))
    for number, name in enumerate(("m5obhk2ub2", "mprsvlktac")):
        try:
            platform.post("/v1/networks", {"name": name, "ipv4": f"198.19.{number}.0/24"})
            platform.create(descriptor(name="intruder", networks=[name]))
            checks.that(f"colliding network {name} is refused", False)
        except Problem as problem:
            checks.that(f"colliding network {name} is refused: {problem.code}", True)
        for call in ("/v1/instances/intruder?force=true", "/v1/networks/" + name):
            try:
                platform.delete(call)
            except Problem:
                pass
            time.sleep(0.3)
    address = platform.instance("resident")["networks"][0]["ipv4"]
    ping = platform.in_fabric("ping", "-c", "1", "-W", "2", address, capture_output=True, check=False)
    checks.that("the network that was meant still works", ping.returncode == 0)
    platform.remove("resident")


def tar_with(entries):
    """entries: (name, type, content or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content or ""
                tar.addfile(info)
    return out.getvalue()


def upload(platform, data, name="bad/image"):
    return platform.request("POST", "/v1/images?name=" + name.replace("/", "%2F"), data, "application/x-tar")


def tampered_iperf(platform):
    with open(platform.program("images/container/coracle-iperf.oci.tar"), "rb") as f:
        source = tarfile.open(fileobj=io.BytesIO(f.read()))
    biggest = max((m for m in source if m.isfile()), key=lambda m: m.size).name
    entries = []
    for member in source:
        if member.isfile():
            data = source.extractfile(member).read()
            if member.name == biggest:
                data = data[:-1] + bytes([data[-1] ^ 1])
            entries.append((member.name, tarfile.REGTYPE, data))
    return tar_with(entries)


def check_images(platform, checks):
    cases = [
        ("not an archive", b"this is no archive" * 100, "IMAGE_MALFORMED"),
        ("empty", b"", "MALFORMED_BODY"),
        ("bad digest", tampered_iperf(platform), "IMAGE_DIGEST_MISMATCH"),
        ("path with ..", tar_with([("a/../../escape", tarfile.REGTYPE, b"x")]), "IMAGE_PATH_ESCAPE"),
        ("hard link to outside", tar_with([("h", tarfile.LNKTYPE, "../../../etc/passwd")]), "IMAGE_PATH_ESCAPE"),
    ]
    for name, data, code in cases:
        checks.refused(f"image: {name}", code, lambda d=data: upload(platform, d))
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w:xz", preset=1) as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 24 << 30
        try:
            tar.addfile(info, Zeros(1 << 30))
        except OSError:
            pass  # a gibibyte of the promised 24 is enough to be one
    checks.refused("image: decompression bomb", "IMAGE_TOO_LARGE", lambda: upload(platform, bomb.getvalue()))
    escape = os.path.join(os.path.dirname(platform.state), "escape")
    checks.that("no image wrote outside the store", not os.path.exists(escape))


class Zeros:
    def __init__(self, size):
        self.left = size

    def read(self, n):
        n = min(n, self.left)
        self.left -= n
        return bytes(n)


def check_failed_starts(platform, checks):
    cases = [
        ("command that is not there", descriptor(command=["/no/such/program"])),
        ("working directory that is not there", descriptor(workdir="/no/such/folder")),
        ("user the image does not know", descriptor(user="nobody-knows-me")),
    ]
    for number, (name, body) in enumerate(cases):
        body["name"] = f"failing{number}"
        checks.refused(f"start: {name}", "START_FAILED", lambda b=body: platform.create(b))
        seen = platform.instance(body["name"])
        checks.that(f"start: {name}: instance says why it FAILED", seen["state"] == "FAILED" and seen["reason"], seen["state"])
        platform.remove(body["name"])


def fill(path):
    try:
        with open(path, "wb", buffering=0) as f:
            while f.write(b"x" * 4096) == 4096:
                pass
    except OSError:
        pass  # full is what it is for


def check_full_disk(build, checks):
    if os.geteuid() != 0:
        return
    folder = "/tmp/coracle-full-disk.%d" % os.getpid()
    os.makedirs(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "coracle-test", folder], check=True)
    try:
        with Platform(build, "fulldisk", state_dir=folder) as platform:
            platform.import_iperf()
            platform.create(descriptor(name="before"))
            filler = os.path.join(folder, "filler")
            fill(filler)
            refused = 0
            for i in range(40):
                try:
                    platform.create(descriptor(name=f"full{i}"))
                except Problem as problem:
                    refused += 1
                    if problem.code not in ("NO_SPACE", "STORE_FAILED"):
                        checks.that("disk full: the error says so", False, problem)
            checks.that("disk full: creating ends in NO_SPACE, not in a hang or a lie", refused > 0, f"{refused} refused")
            checks.refused("disk full: image upload", "NO_SPACE", lambda: upload(platform, tar_with([("f", tarfile.REGTYPE, bytes(8 << 20))])))
            checks.that("disk full: running instance unharmed", platform.instance("before")["state"] == "STARTED")
            os.unlink(filler)
            platform.create(descriptor(name="after"))
            checks.that("disk full: works again once there is room", platform.instance("after")["state"] == "STARTED")
            names = {i["name"] for i in platform.instances()}
            checks.that("disk full: what was refused is not there", len([n for n in names if n.startswith("full")]) == 40 - refused, names)
    finally:
        subprocess.run(["umount", folder], check=False)
        os.rmdir(folder)


def check_no_launcher(platform, checks):
    platform.kill("launcher")
    time.sleep(0.2)
    checks.refused("launcher gone", "LAUNCHER_UNAVAILABLE", lambda: platform.create(descriptor(name="orphan")))
    checks.that("launcher gone: health says so", platform.get("/v1/health")["launcher"] is False)
    platform.start_launcher()
    platform.wait_ready()
    for item in platform.instances():
        platform.remove(item["id"])
    platform.create(descriptor(name="again"))
    checks.that("launcher back: starts work again", platform.instance("again")["state"] == "STARTED")
    platform.remove("again")


def main():
    checks = Checks()
    with Platform(sys.argv[1], "baddays", host_conf="pool_depth = 0\n") as platform:
        platform.import_iperf()
        platform.remove(platform.create(descriptor(name="first"))["id"])  # what is opened once and kept is open now
        before, users = platform.steady_footprint(), platform.descriptors("launcher").get("user", 0)
        check_descriptors(platform, checks)
        check_names_and_addresses(platform, checks)
        check_bridge_collision(platform, checks)
        check_images(platform, checks)
        check_failed_starts(platform, checks)
        rest = platform.settle(before)
        checks.that("nothing half-made is left", not rest, rest)
        after = platform.footprint()
        for kind in ("launcher fds", "daemon fds"):
            held = platform.descriptors(kind.split()[0])
            # User namespaces are a bounded cache of the runtime's (IDMAP_CACHE), not a leak.
            cached = held.get("user", 0) - users if kind == "launcher fds" else 0
            checks.that(f"no descriptor leaked: {kind}", after[kind] - cached <= before[kind] + 2, (before[kind], after[kind], held))
        check_no_launcher(platform, checks)
        rest = platform.settle(before)
        checks.that("nothing half-made is left after the launcher was lost", not rest, rest)
    check_full_disk(sys.argv[1], checks)
    checks.exit()


if __name__ == "__main__":
    main()
