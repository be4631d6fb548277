# SPDX-License-Identifier: Apache-2.0
"""coracle-unpack with good and hostile archives. Usage: test_unpack.py PROGRAM [unittest's arguments]"""
import json
import os
import stat
import struct
import sys
import tarfile
import tempfile
import time
import unittest

from archives import *
from unpacker import BASE, Unpacker, require_root, snapshot

PROGRAM = None


class Case(unittest.TestCase):
    def setUp(self):
        self.unpacker = Unpacker(PROGRAM)
        self.addCleanup(self.unpacker.close)

    def good(self, archive, options=(), **more):
        result = self.unpacker.run(archive, options, **more)
        self.assertEqual(result.status, 0, result.answer)
        for hexa in result.answer["layers"]:
            self.assertTrue(os.path.isdir(os.path.join(result.directory, hexa)))
        self.assertEqual(sorted(os.listdir(result.directory)), sorted(result.answer["layers"]))
        return result

    def layer(self, result, i=0):
        return os.path.join(result.directory, result.answer["layers"][i])

    def refused(self, archive, code, words=None, options=(), **more):
        outside = snapshot_outside(self.unpacker.top)
        result = self.unpacker.run(archive, options, **more)
        self.assertTrue(os.WIFEXITED(result.status), "killed by signal %d" % (result.status & 127))
        self.assertEqual(os.WEXITSTATUS(result.status), 1)
        self.assertEqual(result.code, code, result.answer)
        if words:
            self.assertIn(words, result.message)
        self.assertEqual([n for n in os.listdir(result.directory) if len(n) == 64 and code == "IMAGE_DIGEST_MISMATCH"], [])
        self.assertEqual(outside, snapshot_outside(self.unpacker.top))
        return result


def content(path):
    with open(path) as f:
        return f.read()


def snapshot_outside(top):
    """Everything near the directories being filled, but not what belongs in them."""
    return {p for p in snapshot(top) if not p.startswith(("out", "archive"))}


SMALL = [directory("usr"), directory("usr/bin"), entry("usr/bin/tool", b"#!/bin/sh\n", mode=0o755)]


class Formats(Case):
    CONFIG = {"Entrypoint": ["/usr/bin/tool"], "Cmd": ["-s"], "Env": ["PATH=/usr/bin", "A=b"], "User": "1000:1000",
              "WorkingDir": "/srv", "StopSignal": "SIGRTMIN+3", "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}}

    def test_oci_two_layers_all_compressions(self):
        compressions = ["none", "gzip", "xz"] + (["zstd"] if can_zstd() else [])
        upper = tar([directory("usr"), entry("usr/more", b"2")])
        for how in compressions:
            result = self.good(oci([tar(SMALL), upper], config=self.CONFIG, compression=(how, "gzip")))
            answer = result.answer
            self.assertEqual(answer["format"], "oci")
            self.assertEqual(answer["layers"], [sha(tar(SMALL)), sha(upper)])
            self.assertEqual(answer["config"], {
                "entrypoint": ["/usr/bin/tool"], "command": ["-s"], "env": ["PATH=/usr/bin", "A=b"],
                "user": "1000:1000", "workdir": "/srv", "stop_signal": 37, "labels": {"k": "v"},
                "exposed_ports": ["80/tcp"]})
            with open(self.layer(result, 0) + "/usr/bin/tool") as f:
                self.assertEqual(f.read(), "#!/bin/sh\n")
            with open(self.layer(result, 1) + "/usr/more") as f:
                self.assertEqual(f.read(), "2")

    def test_oci_blobs_first_and_foreign_platforms_and_nested_index(self):
        o = Oci()
        mine = o.image([tar(SMALL)])
        other = o.image([tar([entry("wrong", b"")])], architecture="pdp11")
        attestation = dict(other, platform={"os": "unknown", "architecture": "unknown"})
        mine["platform"] = {"os": "linux", "architecture": machine()}
        other["platform"] = {"os": "linux", "architecture": "pdp11"}
        nested = o.nest([other, attestation, mine], annotations={"org.opencontainers.image.ref.name": "docker.io/a/b:1"})
        result = self.good(o.archive([nested], blobs_first=True))
        self.assertEqual("sha256:" + result.answer["digest"], mine["digest"])
        self.assertEqual(result.answer["name"], "docker.io/a/b:1")
        self.assertEqual(result.answer["layers"], [sha(tar(SMALL))])

    def test_oci_compressed_as_a_whole(self):
        archive = oci([tar(SMALL)])
        for how in ["gzip", "xz"] + (["zstd"] if can_zstd() else []):
            self.assertEqual(self.good(compress(archive, how)).answer["format"], "oci")

    def test_oci_same_layer_twice_counts_where_it_is_uppermost(self):
        a, b = tar([entry("a", b"1")]), tar([entry("b", b"2")])
        self.assertEqual(self.good(oci([a, b, a])).answer["layers"], [sha(b), sha(a)])

    KERNEL = [directory("boot"), entry("boot/kernel", b"\x7fELF")]

    def test_machine(self):
        labels = {"org.coracle.guest": "unikernel", "org.coracle.parameters": "quiet", "org.coracle.memory": "4194304"}
        config = {"Entrypoint": ["iperf"], "Cmd": ["-s"], "Labels": labels}
        answer = self.good(oci([tar(self.KERNEL)], config=config)).answer
        self.assertEqual(answer["config"], {
            "entrypoint": ["iperf"], "command": ["-s"], "labels": labels, "guest": "unikernel", "boot": "unikernel",
            "parameters": "quiet", "memory": 4194304})
        more = self.KERNEL + [entry("boot/initrd", b"i"), entry("boot/disk.qcow2", b"QFI")]
        answer = self.good(oci([tar(more)], config={"Labels": {"org.coracle.guest": "linux", "org.coracle.boot": "pvh"}})).answer
        self.assertEqual(answer["config"]["boot"], "pvh")
        self.assertEqual((answer["config"]["initrd"], answer["config"]["disk"]), (True, "disk.qcow2"))

    def test_machine_without_what_it_boots(self):
        machine = {"Labels": {"org.coracle.guest": "unikernel"}}
        self.refused(oci([tar(SMALL)], config=machine), "IMAGE_MALFORMED", "/boot/kernel")
        linked = [directory("boot"), entry("real", b"x"), symlink("boot/kernel", "../real")]
        self.refused(oci([tar(linked)], config=machine), "IMAGE_MALFORMED", "/boot/kernel")
        self.refused(oci([tar(self.KERNEL), tar(SMALL)], config=machine), "IMAGE_MALFORMED", "one layer")
        self.refused(oci([tar(self.KERNEL)], config={"Labels": {"org.coracle.guest": "disk"}}), "IMAGE_MALFORMED", "disk.raw")
        self.refused(oci([tar(self.KERNEL)], config={"Labels": {"org.coracle.guest": "vm"}}), "IMAGE_MALFORMED", "org.coracle.guest")
        self.refused(oci([tar(self.KERNEL)], config={"Labels": {"org.coracle.boot": "pvh"}}), "IMAGE_MALFORMED", "org.coracle.guest")

    def test_docker_save(self):
        for links in (False, True):
            layers = [tar(SMALL), tar([entry("b", b"2")])]
            archive = docker_save(layers, config=self.CONFIG, links=links)
            for how in ("none", "gzip"):
                answer = self.good(compress(archive, how)).answer
                self.assertEqual((answer["format"], answer["name"]), ("docker", "coracle/test:1"))
                self.assertEqual(answer["layers"], [sha(l) for l in layers])

    def test_docker_save_newer_form_is_oci(self):
        o = Oci()
        manifest = o.image([tar(SMALL)], compression=("none",))
        listed = [{"Config": "blobs/sha256/x", "RepoTags": None, "Layers": []}]
        result = self.good(o.archive([manifest], extra=[("manifest.json", json.dumps(listed).encode())]))
        self.assertEqual(result.answer["format"], "oci")

    def test_rootfs_all_compressions(self):
        data = tar(SMALL + [entry("etc/passwd", b"root:x:0:0::/:/bin/sh\n")])
        for how in ["none", "gzip", "xz"] + (["zstd"] if can_zstd() else []):
            answer = self.good(compress(data, how)).answer
            self.assertEqual((answer["format"], answer["digest"], answer["layers"]), ("rootfs", sha(data), [sha(data)]))

    def test_rootfs_of_a_single_file(self):
        answer = self.good(tar([entry("iperf", b"\x7fELF", mode=0o755)])).answer
        self.assertEqual(answer["format"], "rootfs")

    def test_rootfs_every_tar_format(self):
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            long_name = "d" * 90 + "/" + "f" * 60
            result = self.good(tar([entry(long_name, b"x"), directory("sub")], form))
            self.assertTrue(os.path.exists(os.path.join(self.layer(result), long_name)))


class Files(Case):
    def test_owner_mode_time_and_kinds(self):
        result = self.good(tar([
            directory("./", mode=0o751, uid=3, gid=4, mtime=123), directory("d", mode=0o1777, mtime=5), entry("d/s", b"s", mode=0o4755, uid=7, gid=65535),
            entry("pipe", kind=tarfile.FIFOTYPE, mode=0o620, uid=9), symlink("l", "/absolute/../x", uid=11),
            hardlink("h", "d/s"), entry("null", kind=tarfile.CHRTYPE, device=(1, 3)),
            entry("disk", kind=tarfile.BLKTYPE, device=(8, 0)), entry("zero", kind=tarfile.CHRTYPE)]))
        top = self.layer(result)
        found = snapshot(top)
        self.assertEqual(found["d"][0], oct(stat.S_IFDIR | 0o1777))
        self.assertEqual(found["d/s"], (oct(stat.S_IFREG | 0o4755), 7, 65535, 1))
        self.assertEqual(found["pipe"], (oct(stat.S_IFIFO | 0o620), 9, 0, None))
        self.assertEqual(found["l"], (oct(stat.S_IFLNK | 0o777), 11, 0, "/absolute/../x"))
        self.assertEqual(os.stat(top + "/h").st_ino, os.stat(top + "/d/s").st_ino)
        self.assertEqual(os.stat(top + "/d").st_mtime, 5)
        self.assertEqual((os.stat(top).st_mtime, os.stat(top).st_mode & 0o7777, os.stat(top).st_uid - BASE), (123, 0o751, 3))
        self.assertEqual(result.answer["dropped_devices"], 3)
        for name in ("null", "disk", "zero"):
            self.assertNotIn(name, found)
        for name in ("dev", "proc", "sys", "etc"): # mount points of the lowest layer
            self.assertEqual(found[name][0], oct(stat.S_IFDIR | 0o755))

    def test_mount_points_never_replace_what_is_there(self):
        found = snapshot(self.layer(self.good(tar([symlink("dev", "/tmp"), entry("etc", b"file")]))))
        self.assertEqual((found["dev"][3], found["etc"][3]), ("/tmp", 4))
        lower, upper = tar([entry("a", b"")]), tar([entry("b", b"")])
        result = self.good(oci([lower, upper]))
        self.assertEqual(set(snapshot(self.layer(result, 1))), {"b"})

    def test_file_capabilities_and_user_attributes(self):
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0) # VFS_CAP_REVISION_2, effective, NET_BIND_SERVICE
        pax = {"SCHILY.xattr.security.capability": capability.decode("latin-1"), "SCHILY.xattr.user.note": "hello",
               "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y"}
        result = self.good(tar([entry("ping", b"x", mode=0o755, uid=5, pax=pax), directory("d", pax=pax)]))
        top = self.layer(result)
        self.assertIn("user.note", os.listxattr(top + "/ping"))
        self.assertEqual([x for x in os.listxattr(top + "/d") if "overlay" in x], [])
        raw = os.getxattr(top + "/ping", "security.capability")
        self.assertEqual(struct.unpack("<I", raw[-4:])[0], BASE) # belongs to the image range's root, not to the host's

    def test_sparse_file(self):
        with tempfile.TemporaryDirectory() as work:
            with open(work + "/s", "wb") as f:
                f.seek(50 << 20)
                f.write(b"end")
            os.system("tar -C %s --sparse -cf %s/a.tar s" % (work, work))
            self.assertLess(os.path.getsize(work + "/a.tar"), 1 << 20)
            path = self.layer(self.good(work + "/a.tar")) + "/s"
            self.assertEqual(os.stat(path).st_size, (50 << 20) + 3)
            self.assertLess(os.stat(path).st_blocks * 512, 1 << 20)

    def test_symlinked_parent_within_the_layer_is_followed(self):
        result = self.good(tar([directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("run", "/var/run"),
                                entry("lib/x.so", b"x"), entry("run/pid", b"1"), directory("lib/sub", mode=0o700),
                                symlink("usr/up", "../lib"), entry("usr/up/y.so", b"y")]))
        top = self.layer(result)
        self.assertEqual(sorted(os.listdir(top + "/usr/lib")), ["sub", "x.so", "y.so"])
        self.assertEqual(os.listdir(top + "/var/run"), ["pid"])
        self.assertEqual(os.stat(top + "/usr/lib/sub").st_mode & 0o777, 0o700)

    def test_later_entries_replace_earlier_ones(self):
        top = self.layer(self.good(tar([entry("f", b"old"), entry("f", b"newer"), symlink("l", "f"), entry("l", b"file"),
                                        hardlink("self", "f"), hardlink("self", "self"), directory("d"), entry("d", b"file now")])))
        self.assertEqual(content(top + "/f"), "newer")
        self.assertFalse(os.path.islink(top + "/l"))
        self.assertEqual(content(top + "/self"), "newer")
        self.assertEqual(content(top + "/d"), "file now")

    def test_names_utf8_and_strange_bytes(self):
        names = ["h\u00e4\u00df/\u65e5\u672c", "tab\there", "new\nline", "-rf", "*?"]
        found = snapshot(self.layer(self.good(tar([entry(n, b"x") for n in names]))))
        for n in names:
            self.assertIn(n, found)

    def test_absolute_names_lose_their_slash(self):
        result = self.good(tar([entry("/etc/motd", b"hi"), entry("//./usr//x", b"")]))
        found = snapshot(self.layer(result))
        self.assertIn("etc/motd", found)
        self.assertIn("usr/x", found)


class Whiteouts(Case):
    def test_whiteout_and_opaque(self):
        lower = tar([directory("d"), entry("d/a", b""), entry("gone", b"")])
        upper = tar([directory("d"), entry("d/.wh..wh..opq", b""), entry("d/b", b""), entry(".wh.gone", b""), entry("missing/.wh.x", b"")])
        result = self.good(oci([lower, upper]))
        top = self.layer(result, 1)
        st = os.lstat(top + "/gone")
        self.assertTrue(stat.S_ISCHR(st.st_mode) and st.st_rdev == 0)
        self.assertEqual(os.getxattr(top + "/d", "user.overlay.opaque"), b"y")
        self.assertEqual(sorted(os.listdir(top + "/d")), ["b"])
        self.assertTrue(stat.S_ISCHR(os.lstat(top + "/missing/x").st_mode))

    def test_whiteout_beside_the_same_name(self):
        """A layer may hide a name and bring it anew, in either order; a directory then starts empty."""
        first = [entry(".wh.f", b""), entry("f", b"new"), entry(".wh.d", b""), directory("d"), entry("d/n", b""),
                 entry(".wh.i", b""), entry("i/n", b"")]
        last = [entry("f", b"new"), entry(".wh.f", b""), directory("d"), entry("d/n", b""), entry(".wh.d", b""),
                entry("i/n", b""), entry(".wh.i", b"")]
        for entries in (first, last):
            top = self.layer(self.good(oci([tar([entry("x", b"")]), tar(entries)])), 1)
            self.assertEqual(content(top + "/f"), "new")
            for name in ("d", "i"):
                self.assertEqual(os.getxattr(top + "/" + name, "user.overlay.opaque"), b"y")
                self.assertEqual(os.listdir(top + "/" + name), ["n"])

    def test_overlay_shows_what_the_layers_mean(self):
        import subprocess
        import shutil
        lower = tar([directory("d"), entry("d/a", b""), entry("gone", b""), entry("stays", b"")])
        upper = tar([directory("d"), entry("d/.wh..wh..opq", b""), entry("d/b", b""), entry(".wh.gone", b"")])
        result = self.good(oci([lower, upper]))
        point = self.unpacker.top + "/point"
        os.mkdir(point)
        done = subprocess.run(["unshare", "-m", "sh", "-c",
                               "mount -t overlay -o ro,userxattr,lowerdir=%s:%s x %s && ls %s %s/d" % (
                                   self.layer(result, 1), self.layer(result, 0), point, point, point)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            self.skipTest("no overlay here: " + done.stdout)
        self.assertNotIn("gone", done.stdout)
        self.assertIn("stays", done.stdout)
        self.assertTrue(done.stdout.rstrip().endswith("d:\nb"), done.stdout)


class Hostile10(Case):
    """Layer with "..", absolute path, symlink then file, hard link to outside."""

    def each_form(self, entries, code="IMAGE_PATH_ESCAPE", words=None):
        self.refused(tar(entries), code, words)
        self.refused(oci([tar([entry("ok", b"")]), tar(entries)]), code, words)
        self.refused(docker_save([tar(entries)]), code, words)

    def test_hostile_10_dotdot(self):
        for name in ("../escape", "a/../../escape", "/../escape", "a/..", "./../x", ".."):
            self.each_form([directory("a"), entry(name, b"x")], words=name)

    def test_hostile_10_absolute_symlink_then_file(self):
        """Followed, but inside the layer: nothing appears in the host's /tmp."""
        victim = "/tmp/coracle-escape-%d" % os.getpid()
        result = self.good(tar([symlink("evil", "/tmp"), entry("evil/" + os.path.basename(victim), b"x")]))
        self.assertFalse(os.path.exists(victim))
        self.assertTrue(os.path.exists(self.layer(result) + victim))

    def test_hostile_10_relative_symlink_then_file(self):
        for target in ("..", "../..", "../../../../../../tmp", "a/../../x", "/../x"):
            self.each_form([directory("a"), symlink("evil", target), entry("evil/x", b"x")], words="evil/x")

    def test_hostile_10_symlink_chain(self):
        self.each_form([symlink("a", "."), symlink("b", "a/a/a"), symlink("c", "b/.."), entry("c/x", b"")], words="c/x")
        self.each_form([symlink("a", "b"), symlink("b", "a"), entry("a/x", b"")], words="loop")

    def test_hostile_10_symlink_as_last_component_is_replaced_not_followed(self):
        result = self.good(tar([symlink("f", "/etc/passwd"), entry("f", b"mine"), symlink("d", "/etc"), directory("d", mode=0o700)]))
        self.assertEqual(content(self.layer(result) + "/f"), "mine")
        self.assertTrue(os.path.isdir(self.layer(result) + "/d") and not os.path.islink(self.layer(result) + "/d"))

    def test_hostile_10_hardlink_outside(self):
        for target in ("../archive1", "/etc/passwd", "etc/passwd", "../../../../etc/shadow"):
            self.each_form([hardlink("h", target)])
        self.each_form([symlink("s", "../.."), hardlink("h", "s/archive1")])
        self.each_form([symlink("s", "/etc"), hardlink("h", "s/passwd")])
        self.each_form([directory("d"), hardlink("h", "d")])
        self.each_form([hardlink("h", "/")])

    def test_hostile_10_hardlink_then_write(self):
        """A second entry of the same name makes a new file; it never writes through the link."""
        result = self.good(tar([entry("a", b"one"), hardlink("b", "a"), entry("b", b"two")]))
        self.assertEqual(content(self.layer(result) + "/a"), "one")

    def test_hostile_10_hardlink_to_a_symlink_links_the_symlink(self):
        result = self.good(tar([symlink("s", "/etc/passwd"), hardlink("h", "s"), entry("h", b"new")]))
        self.assertTrue(os.path.islink(self.layer(result) + "/s"))
        self.assertEqual(content(self.layer(result) + "/h"), "new")

    def test_hostile_10_lower_layer_symlink_is_not_followed(self):
        result = self.good(oci([tar([symlink("evil", "/etc")]), tar([entry("evil/x", b"")])]))
        self.assertEqual(set(snapshot(self.layer(result, 1))), {"evil", "evil/x"})

    def test_hostile_10_parent_is_no_directory(self):
        self.refused(tar([entry("f", b""), entry("f/x", b"")]), "IMAGE_MALFORMED", "no directory")

    def test_hostile_10_root_replaced(self):
        for root in (symlink("./", "/etc"), entry("/", kind=tarfile.FIFOTYPE), symlink(".", "..")):
            self.each_form([directory("usr/"), root])

    def test_hostile_10_docker_member_outside(self):
        for listed in ({"Config": "../../etc/passwd", "Layers": ["x"]}, {"Config": "c.json", "Layers": ["../layer.tar"]}):
            config = json.dumps({"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}).encode()
            self.refused(plain([("manifest.json", json.dumps([listed]).encode()), ("c.json", config)]), "IMAGE_PATH_ESCAPE")
        for target in ("/etc/hostname", "../../../etc/hostname", "index.json"):
            self.refused(tar([symlink("index.json", target), entry("oci-layout", b"{}"), entry("manifest.json", b"[]")]),
                         "IMAGE_MALFORMED", "manifest.json")

    def test_hostile_10_works_without_a_namespace(self):
        """Started by root without the launcher's namespaces, the same holds."""
        self.refused(tar([entry("../escape", b"x")]), "IMAGE_PATH_ESCAPE", namespace=False)
        self.refused(tar([symlink("e", "../.."), entry("e/x", b"x")]), "IMAGE_PATH_ESCAPE", namespace=False)


class Hostile11(Case):
    """White-out through a symlinked parent; decompression bomb."""

    def test_hostile_11_whiteout_behind_a_symlink(self):
        for target in ("d", "/d", "../..", "/etc"):
            self.refused(tar([directory("d"), symlink("s", target), entry("s/.wh.passwd", b"")]), "IMAGE_PATH_ESCAPE", "whiteout")
            self.refused(tar([directory("d"), symlink("s", target), entry("s/.wh..wh..opq", b"")]), "IMAGE_PATH_ESCAPE", "whiteout")
        # also when the same parent was just used by an entry that may follow it
        self.refused(tar([directory("d"), symlink("s", "d"), entry("s/x", b""), entry("s/.wh.y", b"")]), "IMAGE_PATH_ESCAPE")

    def test_hostile_11_whiteout_of_nothing_or_of_the_parent(self):
        for name, code in ((".wh.", "IMAGE_MALFORMED"), (".wh..", "IMAGE_PATH_ESCAPE"), (".wh...", "IMAGE_PATH_ESCAPE"),
                           (".wh..wh.plnk", "IMAGE_MALFORMED"), (".wh..wh..opq", "IMAGE_MALFORMED"),
                           (".wh.d/x", "IMAGE_MALFORMED"), ("d/.wh..", "IMAGE_PATH_ESCAPE"), ("d/.wh..wh.", "IMAGE_MALFORMED")):
            self.refused(tar([directory("d"), entry(name, b"")]), code)
        self.refused(tar([symlink(".wh.x", "/etc")]), "IMAGE_MALFORMED")
        self.refused(tar([directory(".wh.x")]), "IMAGE_MALFORMED")

    def test_hostile_11_hardlink_to_a_whiteout(self):
        self.refused(oci([tar([entry("x", b"")]), tar([entry(".wh.x", b""), hardlink("y", "x")])]), "IMAGE_PATH_ESCAPE")

    def bomb(self, how, size):
        """A tar of one file of zeros, compressed piece by piece so that this test stays small."""
        import subprocess
        info, _ = entry("zeros")
        info.size = size
        path = os.path.join(self.unpacker.top, "bomb")
        with open(path, "wb") as out:
            p = subprocess.Popen([how, "-c"], stdin=subprocess.PIPE, stdout=out)
            p.stdin.write(info.tobuf(tarfile.PAX_FORMAT))
            block = bytes(1 << 20)
            for _ in range(size >> 20):
                p.stdin.write(block)
            p.stdin.write(bytes(1024))
            p.stdin.close()
            self.assertEqual(p.wait(), 0)
        return path

    def test_hostile_11_bomb_by_ratio(self):
        result = self.refused(self.bomb("gzip", 400 << 20), "IMAGE_TOO_LARGE", "bomb")
        self.assertLess(result.seconds, 30)
        self.assertLess(result.rusage.ru_maxrss, 400 << 10)

    def test_hostile_11_bomb_by_size(self):
        self.refused(self.bomb("gzip", 64 << 20), "IMAGE_TOO_LARGE", options=["--bytes-max", str(32 << 20)])

    def test_hostile_11_bomb_behind_the_end_of_the_tar(self):
        """No file holds it: only the stream itself is that long."""
        data = compress(tar([entry("f", b"x")]) + bytes(64 << 20), "gzip")
        self.refused(data, "IMAGE_TOO_LARGE", options=["--bytes-max", str(32 << 20)])
        self.good(data)

    def test_hostile_11_bomb_in_an_image(self):
        with open(self.bomb("gzip", 64 << 20), "rb") as f:
            packed = f.read()
        o = Oci()
        layer = o.add(packed)
        config = o.add_json({"architecture": machine(), "os": "linux", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}, "c")
        manifest = o.add_json({"config": config, "layers": [layer]}, "application/vnd.oci.image.manifest.v1+json")
        self.refused(o.archive([manifest]), "IMAGE_TOO_LARGE", options=["--bytes-max", str(32 << 20)])
        # and the whole archive compressed once more
        self.refused(compress(o.archive([manifest], extra=[("pad", bytes(64 << 20))]), "gzip"), "IMAGE_TOO_LARGE",
                     options=["--bytes-max", str(32 << 20)])

    def test_hostile_11_bomb_by_sparse_length(self):
        info, _ = entry("huge")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
                            "GNU.sparse.realsize": str(1 << 60)}
        data = b"0\n".ljust(512, b"\0")
        info.size = len(data)
        self.refused(tar([(info, data)]), "IMAGE_TOO_LARGE")

    def test_hostile_11_bomb_by_number_of_files(self):
        self.refused(tar([entry("f%d" % i, b"") for i in range(200)]), "IMAGE_TOO_LARGE", "100", options=["--files-max", "100"])
        self.refused(tar([entry("/".join(["d%d" % i] * 40), b"") for i in range(10)]), "IMAGE_TOO_LARGE", options=["--files-max", "100"])

    def test_hostile_11_bomb_by_depth(self):
        self.refused(tar([entry("d/" * 300 + "f", b"")]), "IMAGE_MALFORMED", "deep")

    def test_hostile_11_bomb_compressed_twice(self):
        self.refused(compress(compress(tar(SMALL), "gzip"), "gzip"), "IMAGE_MALFORMED", "more than once")

    def test_hostile_11_time(self):
        self.assertLess(self.good(oci([tar(SMALL)]), options=["--seconds-max", "5"]).seconds, 5)


class Sandbox(Case):
    """What is left to the process once it looks at the archive."""

    def test_confined_while_it_reads(self):
        seen = []

        def watch(pid):
            for _ in range(2000):
                try:
                    with open("/proc/%d/status" % pid) as f:
                        status = dict(line.split(":", 1) for line in f)
                    if status["Name"].strip() == "coracle-unpack" and status["Seccomp"].strip() == "2":
                        limits = content("/proc/%d/limits" % pid)
                        seen.append((status, os.listdir("/proc/%d/fd" % pid), os.readlink("/proc/%d/root" % pid), limits))
                        return
                except (OSError, KeyError):
                    pass
                time.sleep(0.001)

        for namespace in (True, False):
            directory = os.path.join(self.unpacker.top, "out%d" % (self.unpacker.number + 1))
            self.assertEqual(self.unpacker.run(tar([entry("f", os.urandom(96 << 20))]), watch=watch, namespace=namespace).status, 0)
            status, descriptors, root, limits = seen.pop()
            allowed = sum(1 << bit for bit in (0, 1, 3, 4, 31)) # CHOWN DAC_OVERRIDE FOWNER FSETID SETFCAP
            self.assertEqual(int(status["CapEff"], 16), allowed)
            self.assertEqual(int(status["CapPrm"], 16), allowed)
            self.assertEqual(int(status["CapInh"], 16), 0)
            self.assertEqual(status["NoNewPrivs"].strip(), "1")
            self.assertEqual(root, directory)
            self.assertTrue({"3", "4", "5"} <= set(descriptors))
            self.assertEqual([d for d in descriptors if int(d) > 12], [])
            self.assertRegex(limits, r"Max core file size +0 +0")


class Broken(Case):
    def test_wrong_layer_digest(self):
        o = Oci()
        m = o.image([tar(SMALL)])
        for name in list(o.blobs):
            if o.blobs[name][:2] == b"\x1f\x8b":
                o.blobs[name] = compress(tar([entry("other", b"")]), "gzip")
        self.refused(o.archive([m]), "IMAGE_DIGEST_MISMATCH")

    def test_damaged_layer(self):
        o = Oci()
        m = o.image([tar(SMALL + [entry("big", os.urandom(100000))])])
        for name in list(o.blobs):
            if o.blobs[name][:2] == b"\x1f\x8b":
                blob = bytearray(o.blobs[name])
                blob[len(blob) // 2] ^= 1
                o.blobs[name] = bytes(blob)
        self.refused(o.archive([m]), "IMAGE_DIGEST_MISMATCH")

    def test_wrong_diff_id(self):
        self.refused(oci([tar(SMALL)], diff_ids=["sha256:" + "a" * 64]), "IMAGE_DIGEST_MISMATCH")
        self.refused(docker_save([tar(SMALL)], diff_ids=["sha256:" + "a" * 64]), "IMAGE_DIGEST_MISMATCH")

    def test_changed_manifest_and_config(self):
        for word in (b"layers", b"architecture"):
            o = Oci()
            m = o.image([tar(SMALL)])
            for name in list(o.blobs):
                if o.blobs[name][:1] == b"{" and word in o.blobs[name]:
                    o.blobs[name] = o.blobs[name] + b" "
            self.refused(o.archive([m]), "IMAGE_DIGEST_MISMATCH")
        save = docker_save([tar(SMALL)], config={"User": "1000"})
        self.refused(save.replace(b'"1000"', b'"0000"'), "IMAGE_DIGEST_MISMATCH")

    def test_wrong_size(self):
        o = Oci()
        m = o.image([tar(SMALL)])
        m["size"] += 1
        self.refused(o.archive([m]), "IMAGE_DIGEST_MISMATCH")

    def test_missing_blob(self):
        o = Oci()
        m = o.image([tar(SMALL)])
        o.blobs = {n: b for n, b in o.blobs.items() if b[:2] != b"\x1f\x8b"}
        self.refused(o.archive([m]), "IMAGE_MALFORMED", "lacks")

    def test_wrong_architecture(self):
        result = self.refused(oci([tar(SMALL)], architecture="pdp11"), "IMAGE_WRONG_ARCHITECTURE", "pdp11")
        self.assertIn(machine(), result.answer["error"]["hint"])
        self.refused(oci([tar(SMALL)], system="windows"), "IMAGE_WRONG_ARCHITECTURE", "windows")
        self.refused(docker_save([tar(SMALL)], architecture="pdp11"), "IMAGE_WRONG_ARCHITECTURE")
        o = Oci()
        m = dict(o.image([tar(SMALL)], architecture="pdp11"), platform={"os": "linux", "architecture": "pdp11"})
        self.refused(o.archive([m]), "IMAGE_WRONG_ARCHITECTURE", "pdp11")

    def test_several_images(self):
        o = Oci()
        self.refused(o.archive([o.image([tar(SMALL)]), o.image([tar([entry("x", b"")])])]), "IMAGE_MALFORMED", "several")

    def test_index_of_indexes_without_end(self):
        o = Oci()
        d = o.image([tar(SMALL)])
        for _ in range(8):
            d = o.nest([d])
        self.refused(o.archive([d]), "IMAGE_MALFORMED", "nested")
        o = Oci()
        d = o.image([tar(SMALL)])
        for _ in range(3):
            d = o.nest([d] * 200)
        self.refused(o.archive([d]), "IMAGE_MALFORMED", "256 documents")

    def test_json(self):
        layout = ("oci-layout", b"{}")
        for text in (b"", b"{", b"[" * 100 + b"]" * 100, b'{"manifests": 1}', b'{"manifests": []}', b'{"manifests": [1]}',
                     b'{"a": 1, "a": 2}', b'{"manifests": [{"digest": "sha512:x", "size": 1}]}', b"\xff\xfe", b"null",
                     b'{"manifests": [{"digest": "sha256:' + b"a" * 64 + b'", "size": -1}]}', b" " * (5 << 20)):
            self.refused(plain([layout, ("index.json", text)]), "IMAGE_MALFORMED")

    def test_config_bounds(self):
        for config in ({"Env": ["x"] * 300}, {"Cmd": ["x" * 40000]}, {"Cmd": [1]}, {"StopSignal": "SIGNOPE"},
                       {"StopSignal": "99"}, {"WorkingDir": "relative"}, {"User": "x" * 300}, {"User": "a\nb"}, {"Env": "x"}):
            self.refused(oci([tar(SMALL)], config=config), "IMAGE_MALFORMED")

    def test_owner_out_of_range(self):
        self.refused(tar([entry("f", b"", uid=65536)]), "IMAGE_MALFORMED", "65535")

    def test_cut_short(self):
        for archive in (tar([entry("f", bytes(100000))]), oci([tar([entry("f", os.urandom(50000))])]),
                        docker_save([tar([entry("f", os.urandom(50000))])]), compress(tar([entry("f", os.urandom(50000))]), "gzip")):
            for part in (2, 3):
                self.assertIn(self.unpacker.run(archive[:len(archive) // part]).code, ("IMAGE_MALFORMED", "IMAGE_DIGEST_MISMATCH"))

    def test_not_an_archive(self):
        for data in (b"", b"hello", os.urandom(4096), b"PK\x03\x04" + bytes(100), bytes(10240)):
            self.refused(data, "IMAGE_MALFORMED")

    def test_every_byte_count_of_an_archive(self):
        """Cut at many places: an answer each time, never a signal."""
        archive = oci([tar(SMALL)])
        for size in range(0, len(archive), 997):
            result = self.unpacker.run(archive[:size])
            self.assertTrue(os.WIFEXITED(result.status) and result.answer, (size, result.status))
            # without its padding it is whole all the same
            self.assertTrue(result.code or result.answer["layers"] == [sha(tar(SMALL))], result.answer)

    def test_full_disk(self):
        import subprocess
        point = self.unpacker.top + "/full"
        os.mkdir(point)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "x", point]).returncode != 0:
            self.skipTest("cannot mount a tmpfs")
        try:
            os.mkdir(point + "/out")
            os.chown(point + "/out", BASE, BASE)
            result = self.unpacker.run(tar([entry("f", bytes(4 << 20))]), fill=point + "/out")
            self.assertEqual(result.code, "NO_SPACE", result.answer)
        finally:
            subprocess.run(["umount", point], check=True)

    def test_usage(self):
        self.assertEqual(os.WEXITSTATUS(self.unpacker.run(tar(SMALL), ["--bytes-max", "-1"]).status), 64)
        self.assertEqual(os.WEXITSTATUS(self.unpacker.run(tar(SMALL), ["surplus"]).status), 64)


if __name__ == "__main__":
    require_root()
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=1)
