# SPDX-License-Identifier: Apache-2.0
"""The launcher's side of src/monitor/protocol.h for tests: one coracle-qemu on a socket pair, its files in memory."""
import array
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time

PREPARE, LOAD, STATUS, PAUSE, RESUME, SNAPSHOT, MEMORY, CONSOLE, VSOCK, POWER, DONE, FAILED, STATUS_REPLY, MIGRATE = range(1, 15)
RESIZE = 17
UNIKERNEL, PVH, LINUX, DISK, MULTIBOOT = range(1, 6)
RESTORE, INITRD, LOGS, WAIT, WITH_VSOCK, RANDOM, WITH_CONSOLE, BALLOON, INCOMING = (1 << i for i in range(9))
STAGES = "none protocol vm memory image snapshot device sandbox guest support emulator".split()
NET_NONE, TAP, VHOST, VHOST_USER = range(4)


class Refused(Exception):
    def __init__(self, stage, error, detail, hint):
        super().__init__(f"{stage}: {detail} ({hint})")
        self.stage, self.error, self.detail, self.hint = stage, error, detail, hint


def send(sock, kind, body=b"", fds=()):
    message = struct.pack("=HHI", 1, kind, 8 + len(body)) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([message], rights)


def receive(sock, seconds=60):
    sock.settimeout(seconds)
    data, rights, _, _ = sock.recvmsg(16384, socket.CMSG_SPACE(4 * 64))
    fds = array.array("i")
    for _, _, raw in rights:
        fds.frombytes(raw)
    if not data:
        raise EOFError("the monitor is gone")
    _, kind, size = struct.unpack_from("=HHI", data)
    assert size == len(data)
    if kind in (DONE, FAILED):
        stage, error = struct.unpack_from("=Ii", data, 8)
        times = struct.unpack_from("=4Q", data, 16)
        detail, hint = (data[a:a + 256].split(b"\0")[0].decode() for a in (48, 304))
        if kind == FAILED:
            raise Refused(STAGES[stage], error, detail, hint)
        return times, list(fds)
    assert kind == STATUS_REPLY
    names = "accelerator ready paused generation exits exits_data memory balloon boot_ns".split()
    return dict(zip(names, struct.unpack_from("=4I5Q", data, 8)))


class Machine:
    """Descriptors given to start() stay the caller's."""
    program = None
    running = []

    def __init__(self, memory=64 << 20, vcpus=1, boot=LINUX, flags=0, kvm=False, env=None, prepare=True, wrap=(),
                 **room):
        self.setup, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()
        # descriptor 3, as the launcher has it
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{fd}; exec "$@"', "bash", *wrap, self.program, "--supervised"], pass_fds=[fd],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        theirs.close()
        Machine.running.append(self)
        self.boot = boot
        self.dir = tempfile.mkdtemp(prefix="qemu-test-")
        self.logs = [os.open(f"{self.dir}/log.{i}", os.O_RDWR | os.O_CREAT | os.O_APPEND) for i in (0, 1)]
        self.exit = os.open(f"{self.dir}/exit", os.O_RDWR | os.O_CREAT)
        if prepare:
            self.prepare(memory, vcpus, flags, kvm, **room)

    def prepare(self, memory, vcpus=1, flags=0, kvm=False, memory_max=0, vcpus_max=0):
        fds = [os.open("/dev/kvm", os.O_RDWR)] if kvm else []
        send(self.setup, PREPARE,
             struct.pack("=Q4IQ2I", memory, vcpus, self.boot, flags, 0, memory_max, vcpus_max, 0), fds)
        for fd in fds:
            os.close(fd)
        self.prepared, _ = receive(self.setup)

    def load(self, kernel=None, initrd=None, snapshot=None, disks=(), nics=(), flags=0, parameters="", log_bytes=1 << 20,
             name="test", wait=True):
        """kernel, initrd: paths or descriptors. disks: (fd, read_only, qcow2, overlay). nics: (mac, backend, queues, fds)."""
        opened = []

        def fd_of(what):
            if isinstance(what, int):
                return what
            opened.append(os.open(what, os.O_RDONLY))
            return opened[-1]

        listen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen.bind(f"{self.dir}/s")
        listen.listen(4)
        flags |= LOGS | (INITRD if initrd else 0) | (RESTORE if snapshot is not None else 0)
        fds = [self.exit, listen.fileno(), *self.logs]
        if snapshot is not None:
            fds.append(snapshot)
        elif kernel is not None:
            fds.append(fd_of(kernel))
        if initrd:
            fds.append(fd_of(initrd))
        nic_bytes = disk_bytes = b""
        for mac, backend, queues, nic_fds in nics:
            nic_bytes += bytes.fromhex(mac.replace(":", "")) + bytes([backend, queues])
            fds += nic_fds
        for fd, read_only, qcow2, overlay in disks:
            disk_bytes += bytes([read_only, qcow2, overlay, 0, 0, 0, 0, 0])
            fds.append(fd)
        text = parameters.encode() + b"\0"
        body = struct.pack("=IIQ4I64s40s", flags, self.boot, log_bytes, 3, len(nics), len(disks), len(text), name.encode(),
                           b"6d3f2f5e-0a5b-4d9e-8a61-0d7d6b0a6a01")
        send(self.setup, LOAD, body + nic_bytes.ljust(64, b"\0") + disk_bytes.ljust(32, b"\0") + text, fds)
        listen.close()
        for fd in opened:
            os.close(fd)
        if wait:
            self.loaded, _ = receive(self.setup)

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(f"{self.dir}/s")
        return s

    def ask(self, kind, body=b"", fds=(), seconds=60):
        with self.connect() as s:
            send(s, kind, body, fds)
            answer = receive(s, seconds)
        return answer

    def status(self):
        return self.ask(STATUS)

    def console(self):
        return self.ask(CONSOLE)[1][0]

    def log(self):
        """Text of the log without its CRI prefixes."""
        lines = []
        for path in sorted((f"{self.dir}/log.{i}" for i in (0, 1)), key=os.path.getmtime):
            with open(path, "rb") as f:
                lines += [line.split(b" ", 3)[3] for line in f.read().split(b"\n") if line.count(b" ") >= 3]
        return b"\n".join(lines).decode(errors="replace")

    def wait_log(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.log():
            if time.monotonic() > end or self.process.poll() is not None and text not in self.log():
                raise AssertionError(f"no {text!r} in the log:\n{self.log()[-2000:]}")
            time.sleep(0.01)

    def below(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
            return [int(word) for word in f.read().split()]

    def qemu(self):
        """pid of the QEMU below."""
        return self.below()[0]

    @staticmethod
    def links(pid):
        try:
            return os.listdir(f"/proc/{pid}/fd")
        except OSError:
            return []

    def ended(self, seconds=30):
        """Waits for the end; the status of the exit file as wait(2) gives it, None: nothing was written."""
        self.process.wait(seconds)
        text = os.pread(self.exit, 100, 0)
        return int(text.split()[0]) if text.endswith(b"\n") else None

    def kill(self):
        """SIGKILL, as the launcher does; QEMU ends after its supervisor, here without a pid namespace."""
        below = self.below() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in below:
            for _ in range(500):
                if not os.path.exists(f"/proc/{pid}/exe") or not self.links(pid):
                    break
                time.sleep(0.01)
        self.setup.close()
        for fd in (*self.logs, self.exit):
            os.close(fd)
        for name in os.listdir(self.dir):
            os.unlink(f"{self.dir}/{name}")
        os.rmdir(self.dir)
        Machine.running.remove(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def exited(code):
    return code << 8


def signaled(number=signal.SIGTERM):
    return int(number)
