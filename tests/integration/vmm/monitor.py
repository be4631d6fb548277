# SPDX-License-Identifier: Apache-2.0
"""The launcher's side of src/monitor/protocol.h for tests: starts a monitor on a socket pair, sends, receives."""
import array
import os
import socket
import struct
import subprocess
import time

PROTOCOL = 1
(PREPARE, LOAD, STATUS, PAUSE, RESUME, SNAPSHOT, MEMORY, CONSOLE, VSOCK, POWER, DONE, FAILED,
 STATUS_REPLY, MIGRATE, NET, IDENTITY, RESIZE, EXEC, SIGNAL, ENDED) = range(1, 21)
UNIKERNEL, PVH, LINUX, DISK, MULTIBOOT = range(1, 6)
MEMORY_SHARED, PREPARE_LEAST = 1, 2
NET_NONE, NET_TAP, NET_VHOST, NET_VHOST_USER = range(4)
RESTORE, INITRD, LOGS, WAIT, HAS_VSOCK, HAS_RANDOM, HAS_CONSOLE, HAS_BALLOON, INCOMING, PARK = (1 << i for i in range(10))
STAGES = ("none", "protocol", "vm", "memory", "image", "snapshot", "device", "sandbox", "guest", "support", "emulator",
          "exec")


def message(kind, body=b"", protocol=PROTOCOL, size=None):
    return struct.pack("=HHI", protocol, kind, 8 + len(body) if size is None else size) + body


def prepare(memory=16 << 20, vcpus=1, boot=UNIKERNEL, flags=0, nics=1):
    return message(PREPARE, struct.pack("=QIIIIQII", memory, vcpus, boot, flags, nics, 0, 0, 0))


def load(parameters=b"", flags=LOGS, boot=UNIKERNEL, nics=(), disks=(), name=b"test", cid=0, log_bytes=1 << 20,
         size=None):
    """nics: (mac, backend, queues); disks: (read_only, format, overlay)."""
    text = parameters + b"\0"
    body = struct.pack("=IIQIIII64s40s", flags, boot, log_bytes, cid, len(nics), len(disks),
                       len(text) if size is None else size, name, b"c0ffee00-0000-4000-8000-000000000000")
    for mac, backend, queues in (list(nics) + [(bytes(6), 0, 0)] * 8)[:8]:
        body += struct.pack("=6sBB", mac, backend, queues)
    for disk in (list(disks) + [(0, 0, 0)] * 4)[:4]:
        body += struct.pack("=BBB5x", *disk)
    return message(LOAD, body + text)


def identity(parameters=b"", macs=(), flags=0, name=b"somebody", log=(0, 0), nics=None, size=None):
    """log: which is written, and its bytes."""
    text = parameters + b"\0"
    body = struct.pack("=IIQII64s40s", flags, len(macs) if nics is None else nics, log[1], log[0],
                       len(text) if size is None else size, name, b"c0ffee00-0000-4000-8000-000000000001")
    for mac in (list(macs) + [bytes(6)] * 8)[:8]:
        body += struct.pack("=6s2x", mac)
    return message(IDENTITY, body + text)


class Reply:
    def __init__(self, data, fds):
        self.fds = fds
        self.protocol, self.type, size = struct.unpack_from("=HHI", data)
        assert size == len(data), (size, len(data))
        if self.type == STATUS_REPLY:
            (self.accelerator, self.ready, self.paused, self.generation, self.exits, self.exits_data, self.memory,
             self.balloon, self.boot_ns) = struct.unpack_from("=IIIIQQQQQ", data, 8)
        else:
            stage, self.error, *self.times = struct.unpack_from("=Ii4Q", data, 8)
            self.stage = STAGES[stage]
            words = struct.calcsize("=HHIIi4Q")
            self.detail = data[words:words + 256].split(b"\0")[0].decode()
            self.hint = data[words + 256:words + 512].split(b"\0")[0].decode()

    def __repr__(self):
        return repr(self.__dict__)


def send(sock, data, fds=()):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def receive(sock, seconds=10):
    """A Reply, or None at the end."""
    sock.settimeout(seconds)
    data, control, _, _ = sock.recvmsg(16384, socket.CMSG_SPACE(256))
    fds = array.array("i")
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(value[:len(value) - len(value) % fds.itemsize])
    return Reply(data, list(fds)) if data else None


class Monitor:
    """A supervised monitor with its files in a folder of its own."""

    def __init__(self, program, folder, prefix=()):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.setup, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def move():
            os.dup2(theirs.fileno(), 3)
            os.set_inheritable(3, True)

        self.process = subprocess.Popen([*prefix, program, "--supervised"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=move,
                                        close_fds=True, pass_fds=[3] if theirs.fileno() != 3 else [3])
        theirs.close()
        self.pid = self.process.pid

    def ask(self, data, fds=(), seconds=10):
        send(self.setup, data, fds)
        return receive(self.setup, seconds)

    def prepare(self, **more):
        kvm = os.open("/dev/kvm", os.O_RDWR)
        try:
            return self.ask(prepare(**more), [kvm])
        finally:
            os.close(kvm)

    def load(self, image, parameters=b"", flags=LOGS, nics=(), taps=(), seconds=10, **more):
        """image: path or descriptor; taps: descriptors of the nics."""
        self.listen_path = os.path.join(self.folder, "monitor.sock")
        if os.path.exists(self.listen_path):
            os.unlink(self.listen_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        listener.bind(f"/proc/self/fd/{here}/monitor.sock")
        listener.listen(4)
        opened = [here]

        def own(name):
            opened.append(os.open(os.path.join(self.folder, name), os.O_RDWR | os.O_CREAT | (os.O_TRUNC if name == "exit" else os.O_APPEND), 0o600))
            return opened[-1]

        fds = [own("exit"), listener.fileno()]
        if flags & LOGS:
            fds += [own("log.0"), own("log.1")]
        if isinstance(image, str):
            image = os.open(image, os.O_RDONLY)
            opened.append(image)
        try:
            return self.ask(load(parameters, flags, nics=nics, **more), [*fds, image, *taps], seconds)
        finally:
            listener.close()
            for fd in opened:
                os.close(fd)

    def connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{here}/monitor.sock")
        finally:
            os.close(here)
        return sock

    def control(self, kind, body=b"", fds=(), seconds=10):
        with self.connect() as sock:
            send(sock, message(kind, body), fds)
            return receive(sock, seconds)

    def log(self):
        text = ""
        for name in ("log.0", "log.1"):
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as f:
                text += f.read()
        return text

    def wait_for(self, word, seconds=10):
        end = time.monotonic() + seconds
        while word not in self.log():
            assert self.process.poll() is None, (self.process.returncode, self.log())
            assert time.monotonic() < end, (word, self.log())
            time.sleep(0.005)

    def exit_record(self):
        with open(os.path.join(self.folder, "exit"), encoding="utf-8") as f:
            return f.read()

    def end(self, sig=None):
        """Wait status as the exit file has it, or None."""
        if sig:
            self.process.send_signal(sig)
        self.process.wait(10)
        self.setup.close()
        words = self.exit_record().split()
        return int(words[0]) if len(words) == 2 else None
