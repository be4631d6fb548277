# SPDX-License-Identifier: Apache-2.0
"""Runs coracle on a pseudo terminal and looks at what it does to it; imported by terminal_*.py."""
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

failures = 0
assertions = 0


class Terminal:
    """A command whose standard streams are a terminal of 100 columns."""

    def __init__(self, *words, env=None, rows=30, columns=100):
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(["coracle", *words], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        env={**os.environ, **(env or {})}, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.output += os.read(self.master, 65536)
        return bool(ready)

    def until(self, words, seconds=10):
        end = time.monotonic() + seconds
        while words.encode() not in self.output and time.monotonic() < end:
            self.read(0.05)
        return words.encode() in self.output

    def type(self, data):
        os.write(self.master, data)

    def end(self, seconds=10):
        limit = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < limit:
            self.read(0.05)
        if self.process.poll() is None:
            self.process.kill()
        while self.read(0.05):
            pass
        self.text = self.output.decode(errors="replace").replace("\r\n", "\n")
        self.status = self.process.wait()
        self.after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        return self


def check(what, condition, terminal):
    global failures, assertions
    assertions += 1
    if not condition:
        failures += 1
        print(f"FAILED: {what}\n  status {terminal.process.returncode}\n  {terminal.output!r}")


def is_raw(terminal):
    return not termios.tcgetattr(terminal.slave)[3] & termios.ICANON


def result():
    print(f"{assertions} assertions, {failures} failed")
    sys.exit(failures != 0)
