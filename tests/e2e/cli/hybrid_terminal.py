#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A shell in the instance "into" on a terminal: its size, also when it changes, and Ctrl-C. Used by hybrid.sh."""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 120  # seconds; the guest is emulated and the machine may be busy


def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def wait_for(fd, text, seen):
    end = time.monotonic() + PATIENCE
    while text not in seen:
        if time.monotonic() > end or not select.select([fd], [], [], PATIENCE)[0]:
            sys.exit("no %r in %r" % (text, seen))
        seen += os.read(fd, 4096)
    return seen


child, terminal = pty.fork()
if child == 0:
    size(0, 37, 101)
    os.execvp("coracle", ["coracle", "exec", "-it", "into", "sh"])
seen = wait_for(terminal, b"# ", b"")
# the answer is told from the echo of the question: it has no quotes
ask = b"until [ \"$(stty size)\" = '%s' ]; do sleep 0.1; done; stty size; echo don''e%d\n"
os.write(terminal, ask % (b"37 101", 1))
seen = wait_for(terminal, b"done1", seen)
size(terminal, 40, 120)
os.kill(child, signal.SIGWINCH)
os.write(terminal, ask % (b"40 120", 2))
seen = wait_for(terminal, b"done2", seen)
os.write(terminal, b"trap 'echo inter''rupted' INT; echo go''ing; sleep 1000\n")
seen = wait_for(terminal, b"going", seen)
time.sleep(1)
os.write(terminal, b"\x03")
seen = wait_for(terminal, b"interrupted", seen)
os.write(terminal, b"exit 9\n")
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(seen.decode(errors="replace"))
sys.exit(0 if status == 9 else "exit status %d" % status)
