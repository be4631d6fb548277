# SPDX-License-Identifier: Apache-2.0
"""Runs coracle-unpack as the launcher does: in a user namespace of its own, with descriptors 3, 4 and 5."""
import ctypes
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
import time

BASE = 1 << 29
COUNT = 65536
CLONE_NEWUSER = 0x10000000
SKIP = 77
libc = ctypes.CDLL(None, use_errno=True)


def require_root():
    if os.geteuid() != 0:
        print("skipped: mapping a range of ids into a user namespace needs root")
        sys.exit(SKIP)
    try:
        with open("/proc/sys/user/max_user_namespaces") as f:
            enabled = int(f.read()) > 0
    except OSError:
        enabled = False
    if not enabled:
        print("skipped: this kernel has no user namespaces")
        sys.exit(SKIP)


def _child(program, options, fds, namespace, ready, go):
    try:
        if namespace:
            if libc.unshare(CLONE_NEWUSER) != 0:
                os._exit(99)
            os.write(ready, b"x")
            os.read(go, 1)
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in fds]
        for target, fd in zip((3, 4, 5), high):
            os.dup2(fd, target, inheritable=True)
        os.execv(program, [program] + options)
    finally:
        os._exit(98)


def _read_all(fd):
    with open(fd, "rb") as f:
        return f.read()


class Result:
    def __init__(self, status, answer, directory, seconds, rusage):
        self.status, self.answer, self.directory = status, answer, directory
        self.seconds, self.rusage = seconds, rusage

    @property
    def code(self):
        return self.answer.get("error", {}).get("code") if self.answer else None

    @property
    def message(self):
        return self.answer["error"]["message"]


class Unpacker:
    def __init__(self, program, top=None):
        self.program = program
        self.top = tempfile.mkdtemp(prefix="coracle-images-", dir=top)
        os.chmod(self.top, 0o755)
        self.number = 0

    def close(self):
        shutil.rmtree(self.top, ignore_errors=True)

    def run(self, archive, options=(), namespace=True, fill=None, watch=None):
        """archive: bytes, or the path of a file. fill: the directory to use instead of a new one. watch: called with
        the process's id while it works."""
        self.number += 1
        spool = archive
        if isinstance(archive, bytes):
            spool = os.path.join(self.top, "archive%d" % self.number)
            with open(spool, "wb") as f:
                f.write(archive)
        directory = fill or os.path.join(self.top, "out%d" % self.number)
        if not fill:
            os.mkdir(directory, 0o700)
            os.chown(directory, BASE if namespace else 0, BASE if namespace else 0)
        afd, dfd = os.open(spool, os.O_RDONLY), os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        rfd, wfd = os.pipe()
        ready, ready_w = os.pipe()
        go_r, go = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(self.program, list(options), (afd, dfd, wfd), namespace, ready_w, go_r)
        for fd in (afd, dfd, wfd, ready_w, go_r):
            os.close(fd)
        if namespace:
            if os.read(ready, 1) == b"x":
                for kind in ("uid", "gid"):
                    with open("/proc/%d/%s_map" % (pid, kind), "w") as f:
                        f.write("0 %d %d" % (BASE, COUNT))
                os.write(go, b"x")
        text = []
        reader = threading.Thread(target=lambda: text.append(_read_all(rfd)))
        reader.start()
        if watch:
            watch(pid)
        _, status, usage = os.wait4(pid, 0)
        reader.join()
        for fd in (ready, go):
            os.close(fd)
        answer = json.loads(text[0]) if text and text[0] else None
        return Result(status, answer, directory, time.monotonic() - began, usage)


def snapshot(top):
    """What lies below a directory, for comparing: path -> (kind and mode, uid, gid, size or target)."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            extra = os.readlink(path) if stat.S_ISLNK(st.st_mode) else st.st_size if stat.S_ISREG(st.st_mode) else None
            found[os.path.relpath(path, top)] = (oct(st.st_mode), st.st_uid - BASE, st.st_gid - BASE, extra)
    return found
