# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the image fuzz targets. Usage: make_seeds.py TOP (the folder tests/fuzz)"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../integration/images"))
from archives import *

top = sys.argv[1]


def put(corpus, name, data):
    folder = os.path.join(top, "corpus-" + corpus)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


o = Oci()
small = tar([directory("d"), entry("d/f", b"x")])
manifest = o.image([small], config={"Entrypoint": ["/x"], "Cmd": ["a"], "Env": ["A=b"], "User": "1:2", "WorkingDir": "/w",
                                    "StopSignal": "SIGRTMIN+3", "Labels": {"k": "v"}, "ExposedPorts": {"1/tcp": {}}})
index = o.index([dict(manifest, platform={"os": "linux", "architecture": "amd64"}, annotations={"org.opencontainers.image.ref.name": "a:1"})])
put("image-documents", "index", b"\0" + json.dumps(index).encode())
put("image-documents", "manifest", b"\1" + o.blobs[manifest["digest"][7:]])
put("image-documents", "docker", b"\2" + json.dumps([{"Config": "a.json", "RepoTags": ["a:1"], "Layers": ["b/layer.tar"]}]).encode())
put("image-documents", "config", b"\3" + o.blobs[json.loads(o.blobs[manifest["digest"][7:]])["config"]["digest"][7:]])
put("image-documents", "deep", b"\0" + b"[" * 40)
put("image-documents", "duplicate", b"\0" + b'{"a":1,"a":1}')

for i, text in enumerate(["nginx", "host:5000/a/b:tag", "a/b:1@sha256:" + "0" * 64, "localhost/a__b", "../x", "a/.wh.b", ".wh..wh..opq", "a//b/./c"]):
    put("image-reference", "%d" % i, text.encode())

put("image-archive", "oci", o.archive([manifest]))
put("image-archive", "oci.gz", compress(o.archive([manifest]), "gzip"))
put("image-archive", "docker", docker_save([small], links=True))
put("image-archive", "rootfs", tar([directory("d", mode=0o755), entry("d/f", b"data", pax={"SCHILY.xattr.user.a": "b"}), symlink("l", "d"),
                                    hardlink("h", "d/f"), entry("p", kind=tarfile.FIFOTYPE), entry("l/x", b""), entry(".wh.y", b""), entry("d/.wh..wh..opq", b"")]))
put("image-archive", "rootfs.xz", compress(small, "xz"))
put("image-archive", "gnu", tar([entry("n" * 120 + "/f", b"x"), symlink("s", "t" * 120)], tarfile.GNU_FORMAT))
put("image-archive", "escape", tar([directory("a"), symlink("a/e", "../.."), entry("a/e/x", b"x")]))
sparse, _ = entry("GNUSparseFile.0/s")
sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "4096"}
body = b"1\n512\n1\n".ljust(512, b"\0") + b"x"
sparse.size = len(body)
put("image-archive", "sparse", tar([(sparse, body)]))

# machines: labels in every form, archives that keep their promise and that do not, bare kernels
boot = tar([directory("boot"), entry("boot/kernel", b"\x7fELF"), entry("boot/initrd", b"i"), entry("boot/disk.qcow2", b"QFI\xfb")])
labels = {"org.coracle.guest": "unikernel", "org.coracle.boot": "pvh", "org.coracle.parameters": "a=b -- c", "org.coracle.memory": "4194304"}
for name, layers, said in [("machine", [boot], labels), ("machine-bare", [small], labels), ("machine-two", [boot, small], labels),
                           ("machine-odd", [boot], {"org.coracle.guest": "disk", "org.coracle.boot": "linux"})]:
    o = Oci()
    manifest = o.image(layers, config={"Entrypoint": ["/iperf"], "Labels": said})
    put("image-archive", name, o.archive([manifest]))
    put("image-documents", name, b"\3" + o.blobs[json.loads(o.blobs[manifest["digest"][7:]])["config"]["digest"][7:]])
import struct
note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x100000)
elf64 = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
put("image-guest-file", "pvh64", elf64 + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note)
put("image-guest-file", "coracle", elf64 + struct.pack("<IIQQQQQQ", 1, 5, 120, 0, 0, 8, 8, 4) + b"Coracle1")
elf32 = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x100000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
put("image-guest-file", "pvh32", elf32 + struct.pack("<IIIIIIII", 4, 84, 0, 0, len(note), len(note), 4, 4) + note)
put("image-guest-file", "multiboot", bytes(64) + struct.pack("<III", 0x1badb002, 3, (-0x1badb002 - 3) & 0xffffffff))
put("image-guest-file", "bzimage", bytes(0x202) + b"HdrS" + bytes(64))
put("image-guest-file", "qcow2", b"QFI\xfb" + bytes(100))
put("image-guest-file", "disk", bytes(510) + b"\x55\xaa")
put("image-guest-file", "tar", small)
