# SPDX-License-Identifier: Apache-2.0
"""A Linux guest under QEMU's emulation, for tests: a network namespace with a tap, the machine, its agent and console.

Used by test_tinyx.py and test_standardvm.py. Everything it makes goes away with it: namespace, processes, files.
"""
import os
import select
import socket
import subprocess
import sys
import tempfile
import time

HOST4, GUEST4, HOST6, GUEST6 = "198.18.77.1", "198.18.77.2", "fd77::1", "fd77::2"
MAC = "02:00:00:00:77:02"
PATIENCE = 300  # seconds until a test gives up on what an idle host does in a few: emulated guests, on busy hosts


def skip(reason):
    print(f"skipped: {reason}", flush=True)
    sys.exit(77)


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


class Network:
    """A namespace with one tap; the guest's neighbour entries are permanent, as the platform makes them."""

    def __init__(self):
        self.name = f"linux-test-{os.getpid()}"
        run("ip", "netns", "add", self.name)
        try:
            for words in (f"tuntap add t0 mode tap vnet_hdr", f"addr add {HOST4}/24 dev t0", f"-6 addr add {HOST6}/64 dev t0 nodad",
                          "link set t0 up", "link set lo up", f"neigh replace {GUEST4} lladdr {MAC} dev t0 nud permanent",
                          f"-6 neigh replace {GUEST6} lladdr {MAC} dev t0 nud permanent"):
                run("ip", "-n", self.name, *words.split())
        except BaseException:
            self.close()
            raise

    def words(self, *words):
        return ["ip", "netns", "exec", self.name, *words]

    def enter(self):
        """Moves this process's sockets to come into the namespace."""
        import ctypes

        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)


class Machine:
    """One QEMU. words: its options beside those for network, console and agent."""

    def __init__(self, network, words):
        self.folder = tempfile.mkdtemp(prefix="linux-machine-")
        self.console_path = f"{self.folder}/console"
        here, there = socket.socketpair()
        self.agent, self.agent_text = here, b""
        self.agent.setblocking(False)
        os.set_inheritable(there.fileno(), True)
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            network.words("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                          "-chardev", f"file,id=console,path={self.console_path}", "-serial", "chardev:console",
                          "-chardev", f"socket,id=agent,fd={there.fileno()}", "-device", "isa-serial,index=1,chardev=agent", *words),
            pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        there.close()

    def console(self):
        try:
            with open(self.console_path, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def fail(self, why):
        print(self.console()[-4000:])
        raise AssertionError(why)

    def wait_console(self, text, seconds):
        """Until text is on the console; returns the line it is in."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.console().splitlines():
                if text in line:
                    return line
            if self.process.poll() is not None:
                self.fail(f"the machine ended with {self.process.returncode} before \"{text}\"")
            time.sleep(0.02)
        self.fail(f"no \"{text}\" within {seconds} s")

    def wait_agent(self, line, seconds):
        """Until the guest's agent says line; what came before is dropped."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while b"\n" in self.agent_text:
                said, self.agent_text = self.agent_text.split(b"\n", 1)
                if said.decode(errors="replace").strip() == line:
                    return
            if select.select([self.agent], [], [], 0.2)[0]:
                self.agent_text += self.agent.recv(4096)
        self.fail(f"the agent did not say \"{line}\" within {seconds} s")

    def first_answer(self, port, seconds):
        """Time from the start of QEMU to the first RST or SYN-ACK from port, in seconds: a SYN every 10 ms."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
                s.setblocking(False)
                s.connect_ex((GUEST4, port))
                select.select([], [s], [], 0.01)
                error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error == 111:
                    return time.monotonic() - self.begun
                try:
                    s.getpeername()
                    return time.monotonic() - self.begun
                except OSError:
                    continue
        self.fail(f"port {port} answered nothing within {seconds} s")

    def wait_end(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail(f"the machine did not end within {seconds} s")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.agent.close()
        subprocess.run(["rm", "-rf", self.folder], check=False)


def iperf(network, *words):
    """Debian's client against the guest; prints the rate. By time first; where two seconds pass without a byte, on a busy
    host, by amount."""
    for amount in (("-t", "2"), ("-n", "1M"), ("-n", "1M")):
        lines = run(*network.words("iperf", *words, *amount, "-y", "C"), timeout=PATIENCE).strip().splitlines()
        bits = max((int(line.split(",")[-1]) for line in lines), default=0)
        if bits > 0:
            print(f"iperf {' '.join(words)}: {bits / 1e6:.0f} Mbit/s", flush=True)
            return
        print(f"iperf {' '.join(words + amount)}: {lines}", flush=True)
    raise AssertionError(f"iperf {' '.join(words)}: nothing")


def ssh_words(network, key, *words):
    return network.words("ssh", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
                         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                         f"root@{GUEST4}", *words)


def ssh(network, key, command):
    """The application serves before the ssh server does, and an emulated server on a busy host can miss ssh's own time
    limits: what failed before the command ran (255) is tried again."""
    end = time.monotonic() + PATIENCE
    while True:
        result = subprocess.run(ssh_words(network, key, command), capture_output=True, text=True, timeout=PATIENCE, check=False)
        if result.returncode != 255 or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert result.returncode == 0, (result.returncode, result.stderr)
    return result.stdout


def mmio(count):
    """The words by which a kernel without ACPI finds count virtio devices: microvm's places, the first bus first."""
    return " ".join(f"virtio_mmio.device=512@{0xfeb00000 + 512 * i:#x}:{5 + i}" for i in range(count))
