#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""coracle-pack: what the kernel reads from its image is the tree it was made of, the same tree gives the same bytes, and
its errors say what is wrong. Usage: test_pack.py PROGRAM [unittest's arguments]"""
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1)


def pack(tree, image, bytes_max=1 << 30, files_max=100000):
    """Exit status and what it said. Started as the launcher does it: descriptors 3, 4 and 5; one that fails a test
    shall not fill the disk."""
    script = 'ulimit -f 4194304; exec "$1" "$2" "$3" 3<"$4" 4<>"$5" 5>"$4.said"'
    open(image, "wb").close()
    done = subprocess.run(["bash", "-c", script, "bash", PROGRAM, str(bytes_max), str(files_max), tree, image], timeout=300)
    with open(tree + ".said") as said:
        return done.returncode, said.read()


def make_tree(top):
    random.seed(4)
    sizes = [0, 1, 100, 1500, 3900, 4000, 4095, 4096, 4097, 5000, 8192, 70000, 12345]
    for i in range(200):
        folder = os.path.join(top, "d%d" % (i % 7))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "file-%s%d" % ("x" * (i % 60), i)), "wb") as f:
            f.write(os.urandom(sizes[i % len(sizes)]))
    for name, blocks in (("zeros-between", b"a0b00"), ("zeros", b"000"), ("zeros-first", b"0" * 40 + b"a")):
        for tail in (b"", b"\0" * 100, b"t" * 100, b"\0" * 4000):
            with open(os.path.join(top, "%s-%d%r" % (name, len(tail), tail[:1])), "wb") as f:
                f.write(b"".join((b"\0" if c == ord("0") else bytes([c])) * 4096 for c in blocks) + tail)
    os.makedirs(os.path.join(top, "big"))
    for i in range(1500):  # names of many blocks
        with open(os.path.join(top, "big", "%04d-%s" % (i, "y" * (i % 200))), "w") as f:
            f.write(str(i))
    one = os.path.join(top, "d0", sorted(os.listdir(os.path.join(top, "d0")))[0])
    os.link(one, os.path.join(top, "hard"))
    os.chmod(one, 0o4755)
    os.symlink("/etc/passwd", os.path.join(top, "absolute"))
    os.symlink("z" * 4000, os.path.join(top, "long"))
    os.mkfifo(os.path.join(top, "fifo"))
    for name in ("empty", "!before-dot", "-dash", "\xff\xfe", "a" * 255):
        os.makedirs(os.path.join(top, name))
    os.makedirs(os.path.join(top, *["deep"] * 60))
    os.chmod(os.path.join(top, "d1"), 0o1770)
    if os.geteuid() == 0:
        os.chown(os.path.join(top, "d2"), 1000, 65534)
    try:
        for name in ("user.small", "user.odd1", "user.b"):  # of sizes that are no multiples of four
            os.setxattr(one, name, b"nine byte")
        os.setxattr(os.path.join(top, "d3"), "user.large", b"w" * 3000)
        os.setxattr(os.path.join(top, "d4"), "user.empty", b"")
        os.setxattr(os.path.join(top, "d4"), "user.overlay.opaque", b"y")  # the store's own mark
    except OSError:
        pass  # this file system keeps none


def facts(path):
    s = os.lstat(path)
    folder = stat.S_ISDIR(s.st_mode)
    attributes = {}
    if not stat.S_ISLNK(s.st_mode):
        attributes = {k: os.getxattr(path, k) for k in os.listxattr(path) if not k.startswith("user.overlay.")}
    return (s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, 0 if folder else s.st_size, 0 if folder else s.st_nlink,
            os.readlink(path) if stat.S_ISLNK(s.st_mode) else None, attributes)


class Pack(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="coracle-pack-")
        self.tree, self.image = os.path.join(self.work, "tree"), os.path.join(self.work, "image")
        os.mkdir(self.tree)
        self.mounted = False

    def tearDown(self):
        if self.mounted:
            subprocess.run(["umount", os.path.join(self.work, "mount")], check=True)
        shutil.rmtree(self.work)

    def mount(self):
        point = os.path.join(self.work, "mount")
        os.mkdir(point)
        done = subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", self.image, point], capture_output=True, text=True)
        if done.returncode:
            with open("/proc/filesystems") as f:
                known = "erofs" in f.read()
            self.assertFalse(known and os.path.exists("/dev/loop-control") and os.geteuid() == 0 and
                             "superblock" in done.stderr, done.stderr)
            self.skipTest("erofs cannot be mounted here: " + done.stderr.strip())
        self.mounted = True
        return point

    def test_kernel_reads_the_tree(self):
        make_tree(self.tree)
        self.assertEqual(pack(self.tree, self.image), (0, ""))
        point, seen = self.mount(), 0
        for top, folders, files in os.walk(self.tree):
            below = os.path.relpath(top, self.tree)
            self.assertEqual(sorted(os.listdir(top)), sorted(os.listdir(os.path.join(point, below))))
            for name in folders + files + ["."]:
                a, b = os.path.join(top, name), os.path.join(point, below, name)
                self.assertEqual(facts(a), facts(b), a)
                seen += 1
                if os.path.isfile(a) and not os.path.islink(a):
                    with open(a, "rb") as x, open(b, "rb") as y:
                        self.assertEqual(x.read(), y.read(), a)
        self.assertGreater(seen, 1800)

    def test_same_tree_same_bytes(self):
        make_tree(self.tree)
        other = os.path.join(self.work, "other")
        self.assertEqual(pack(self.tree, self.image)[0], 0)
        self.assertEqual(pack(self.tree, other)[0], 0)
        with open(self.image, "rb") as a, open(other, "rb") as b:
            first = a.read()
            self.assertEqual(first, b.read())
        self.assertEqual(first[1024:1028], bytes.fromhex("e2e1f5e0"))

    def test_a_sparse_file_and_a_directory_of_one_block(self):
        with open(os.path.join(self.tree, "sparse"), "wb") as f:
            f.truncate(5 << 20)
            f.seek(3 << 20)
            f.write(b"middle")
        self.assertEqual(pack(self.tree, self.image)[0], 0)
        with open(os.path.join(self.mount(), "sparse"), "rb") as f:
            content = f.read()
        self.assertEqual((len(content), content[3 << 20:(3 << 20) + 6], content.count(b"\0")),
                         (5 << 20, b"middle", (5 << 20) - 6))

    def test_bounds_are_said(self):
        make_tree(self.tree)
        status, said = pack(self.tree, self.image, files_max=100)
        self.assertEqual((status, said.split()[0]), (1, "IMAGE_TOO_LARGE"))
        self.assertIn("more than 100 files", said)
        status, said = pack(self.tree, self.image, bytes_max=1 << 16)
        self.assertEqual((status, said.split()[0]), (1, "IMAGE_TOO_LARGE"))
        self.assertIn("at most 65536", said)

    def test_holes_cost_nothing(self):
        """An image of a few bytes must not fill the host's disk: what is zero stays a hole."""
        with open(os.path.join(self.tree, "sparse"), "wb") as f:
            f.truncate(256 << 20)
            f.seek(100 << 20)
            f.write(b"middle")
        self.assertEqual(pack(self.tree, self.image), (0, ""))
        made = os.stat(self.image)
        self.assertGreater(made.st_size, 256 << 20)
        self.assertLess(made.st_blocks * 512, 1 << 20)

    @unittest.skipUnless(os.geteuid() == 0, "a file system with large files needs root")
    def test_sizes_that_add_up_to_nothing(self):
        """8,192 files of 2^51 blocks are 2^64 of them: a sum that began again at 0 would be let through."""
        point = os.path.join(self.work, "mount")
        os.mkdir(point)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", point], check=True)
        self.mounted = True
        for i in range(8192):
            with open(os.path.join(point, str(i)), "wb") as f:
                f.truncate((1 << 63) - 4096)
        for i in range(8):  # what the others lack of it
            with open(os.path.join(point, "rest%d" % i), "wb") as f:
                f.truncate(1024 << 12)
        status, said = pack(point, self.image)
        self.assertEqual((status, said.split()[0]), (1, "IMAGE_TOO_LARGE"))

    def test_too_deep(self):
        top = os.open(self.tree, os.O_RDONLY)
        at = os.dup(top)
        for _ in range(520):
            os.mkdir("d", dir_fd=at)
            below = os.open("d", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(at)
        os.close(top)
        status, said = pack(self.tree, self.image)
        self.assertEqual((status, said.split()[0]), (1, "IMAGE_TOO_LARGE"))
        subprocess.run(["rm", "-rf", os.path.join(self.tree, "d")], check=True)

    @unittest.skipUnless(os.geteuid() == 0, "devices need root")
    def test_whiteouts_are_left_out(self):
        os.mknod(os.path.join(self.tree, "gone"), stat.S_IFCHR | 0o600, os.makedev(0, 0))
        with open(os.path.join(self.tree, "here"), "w") as f:
            f.write("x")
        self.assertEqual(pack(self.tree, self.image)[0], 0)
        self.assertEqual(os.listdir(self.mount()), ["here"])

    def test_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("a small tmpfs needs root")
        make_tree(self.tree)
        small = os.path.join(self.work, "mount")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
        self.mounted = True
        status, said = pack(self.tree, os.path.join(small, "image"))
        self.assertEqual((status, said.split()[0]), (1, "NO_SPACE"))

    def test_by_hand(self):
        done = subprocess.run([PROGRAM], capture_output=True, text=True)
        self.assertEqual(done.returncode, 64)
        self.assertIn("coracle-launcher", done.stderr)


if __name__ == "__main__":
    unittest.main()
