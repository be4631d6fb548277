#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Both services speak systemd's protocols: READY=1 only when they serve, WATCHDOG=1 in time, STOPPING=1 at the end,
and the daemon takes its socket from LISTEN_FDS. Plays systemd's part itself. usage: notify.py BUILD"""
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../e2e/platform"))
from platform_under_test import Checks, UnixConnection, libexec_dir  # noqa: E402


class Manager:
    """What systemd would be: a datagram socket the service reports to."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.seen = []

    def wait_for(self, word, seconds=15):
        deadline = time.monotonic() + seconds
        while word not in "\n".join(self.seen):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                self.seen.append(self.socket.recv(4096).decode())
            except socket.timeout:
                return False
        return True


def spawn(arguments, manager, listen=None):
    env = dict(os.environ, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="1000000")

    def child():
        os.environ["LISTEN_PID"] = env["LISTEN_PID"] = str(os.getpid())

    if listen is None:
        return subprocess.Popen(arguments, env=env)
    os.dup2(listen.fileno(), 3, inheritable=True)
    # The shell's exec keeps its pid, which is what LISTEN_PID must hold.
    return subprocess.Popen(["sh", "-c", 'exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api "$@"', "sh", *arguments],
                            env=env, pass_fds=(3,))


def answers(path):
    connection = UnixConnection(path, 5)
    try:
        connection.request("GET", "/v1/version")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def check_service(checks, name, arguments, folder, listen=None, served=None):
    manager = Manager(os.path.join(folder, name))
    process = spawn(arguments, manager, listen)
    try:
        checks.that(f"{name}: READY=1", manager.wait_for("READY=1"), manager.seen)
        if served:
            checks.that(f"{name}: serves once it said so", answers(served))
        manager.seen.clear()
        checks.that(f"{name}: WATCHDOG=1 within the second asked for", manager.wait_for("WATCHDOG=1", 3), manager.seen)
        process.terminate()
        checks.that(f"{name}: STOPPING=1", manager.wait_for("STOPPING=1", 5), manager.seen)
        checks.that(f"{name}: ends with 0", process.wait(10) == 0, process.returncode)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main():
    build = sys.argv[1]
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="coracle-notify-") as folder:
        run, state = os.path.join(folder, "run"), os.path.join(folder, "state")
        for name in ("run", "state", "coracled", "coracle-launcher"):
            os.makedirs(os.path.join(folder, name))
        common = ["--run-dir", run, "--state-dir", state, "--user", "root" if os.geteuid() == 0 else os.environ.get("USER", "root")]
        path = os.path.join(run, "activated.sock")
        listen = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listen.bind(path)
        listen.listen(16)
        check_service(checks, "coracled", [os.path.join(build, "src/daemon/coracled"), *common], folder, listen, path)
        if os.geteuid() == 0:
            cgroup = "coracle-notify-%d" % os.getpid()
            check_service(checks, "coracle-launcher",
                          [os.path.join(build, "src/launcher/coracle-launcher"), *common, "--cgroup", cgroup,
                           "--libexec-dir", libexec_dir(build, folder)], folder)
            subprocess.run(["umount", os.path.join(run, "fabric")], check=False)
            from platform_under_test import cgroup_roots, remove_cgroups
            for base in cgroup_roots():
                remove_cgroups(os.path.join(base, cgroup))
    checks.exit()


if __name__ == "__main__":
    main()
