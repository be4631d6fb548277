# SPDX-License-Identifier: Apache-2.0
"""Archives that other programs wrote: skopeo, umoci, GNU tar, mmdebstrap. Usage: test_interop.py PROGRAM skopeo|debian"""
import os
import shutil
import subprocess
import sys
import time
import unittest

from archives import *
from unpacker import SKIP, Unpacker, require_root, snapshot

PROGRAM = None
SMALL = [directory("usr"), directory("usr/bin"), entry("usr/bin/tool", b"#!/bin/sh\n", mode=0o755), hardlink("usr/bin/other", "usr/bin/tool")]
UPPER = [directory("usr"), directory("usr/bin"), entry("usr/bin/.wh.other", b""), entry("usr/more", b"2")]


class Skopeo(unittest.TestCase):
    def setUp(self):
        self.unpacker = Unpacker(PROGRAM)
        self.addCleanup(self.unpacker.close)

    def copy(self, source, destination, *options):
        done = subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *options, source, destination],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_every_conversion_gives_the_same_layers(self):
        top = self.unpacker.top
        expected = [sha(tar(SMALL)), sha(tar(UPPER))]
        with open(top + "/ours-oci.tar", "wb") as f:
            f.write(oci([tar(SMALL), tar(UPPER)], config={"Cmd": ["/usr/bin/tool"]}))
        with open(top + "/ours-docker.tar", "wb") as f:
            f.write(docker_save([tar(SMALL), tar(UPPER)], config={"Cmd": ["/usr/bin/tool"]}))
        self.copy("oci-archive:%s/ours-oci.tar" % top, "docker-archive:%s/docker.tar:a/b:1" % top)
        self.copy("docker-archive:%s/ours-docker.tar" % top, "oci-archive:%s/oci.tar:a/b:1" % top)
        self.copy("oci-archive:%s/ours-oci.tar" % top, "oci-archive:%s/zstd.tar:x" % top, "--dest-compress-format", "zstd", "--dest-compress")
        self.copy("docker-archive:%s/ours-docker.tar" % top, "oci:%s/layout:x" % top)
        subprocess.run(["tar", "-C", top + "/layout", "-cf", top + "/layout.tar", "."], check=True)
        trees = []
        for name in ("ours-oci", "ours-docker", "docker", "oci", "zstd", "layout"):
            result = self.unpacker.run("%s/%s.tar" % (top, name))
            self.assertEqual(result.status, 0, (name, result.answer))
            self.assertEqual(result.answer["layers"], expected, name)
            self.assertEqual(result.answer["config"]["command"], ["/usr/bin/tool"], name)
            trees.append(snapshot(result.directory))
        for tree in trees[1:]:
            self.assertEqual(tree, trees[0])

    def test_the_digest_is_the_one_skopeo_tells(self):
        path = self.unpacker.top + "/a.tar"
        with open(path, "wb") as f:
            f.write(oci([tar(SMALL)]))
        told = subprocess.run(["skopeo", "inspect", "--format", "{{.Digest}}", "oci-archive:" + path],
                              stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        self.assertEqual("sha256:" + self.unpacker.run(path).answer["digest"], told)


class Debian(unittest.TestCase):
    """A real base system: tens of thousands of files, owners, set-user-id programs, links, a merged /usr."""

    def test_minbase(self):
        unpacker = Unpacker(PROGRAM)
        self.addCleanup(unpacker.close)
        path = unpacker.top + "/base.tar"
        made = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "bookworm", path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode != 0:
            print("skipped: mmdebstrap cannot reach a Debian mirror: " + made.stdout[-300:])
            sys.exit(SKIP)
        result = unpacker.run(path)
        self.assertEqual(result.status, 0, result.answer)
        top = os.path.join(result.directory, result.answer["layers"][0])
        reference = unpacker.top + "/reference"
        os.mkdir(reference)
        began = time.monotonic()
        subprocess.run(["tar", "--numeric-owner", "-xpf", path, "-C", reference], check=True)
        tar_seconds = time.monotonic() - began
        ours, theirs = snapshot(top), snapshot(reference)
        differing = {p for p in set(ours) | set(theirs) if not self.same(p, ours.get(p), theirs.get(p))}
        self.assertEqual(differing, set())
        for how in ("gzip", "xz") + (("zstd",) if can_zstd() else ()):
            subprocess.run([how, "-k", "-1", "-q", path], check=True)
            suffix = {"gzip": ".gz", "xz": ".xz", "zstd": ".zst"}[how]
            packed = unpacker.run(path + suffix)
            self.assertEqual(packed.answer.get("layers"), result.answer["layers"], packed.answer)
            print("%-5s %6.2f s  %5d kB resident" % (how, packed.seconds, packed.rusage.ru_maxrss))
        print("plain %6.2f s  %5d kB resident (GNU tar %.2f s); %d files, %d MB" % (
            result.seconds, result.rusage.ru_maxrss, tar_seconds, result.answer["files"], result.answer["unpacked_bytes"] >> 20))

    def same(self, path, ours, theirs):
        from unpacker import BASE
        if theirs and int(theirs[0], 8) & 0o170000 in (0o020000, 0o060000):
            return ours is None # device nodes are dropped
        return ours is not None and theirs is not None and ours == (theirs[0], theirs[1] + BASE, theirs[2] + BASE, theirs[3])


if __name__ == "__main__":
    require_root()
    PROGRAM, kind = os.path.abspath(sys.argv.pop(1)), sys.argv.pop(1)
    needed = {"skopeo": "skopeo", "debian": "mmdebstrap"}[kind]
    if not shutil.which(needed):
        print("skipped: %s is not installed" % needed)
        sys.exit(SKIP)
    unittest.main(argv=sys.argv[:1] + [kind.capitalize()])
