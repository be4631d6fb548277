# SPDX-License-Identifier: Apache-2.0
"""exec -it and run -it of a real container on a pseudo terminal; called by container.sh."""
import os
import sys
import time

from terminal import Terminal, check, is_raw, result

t = Terminal("exec", "-it", "box", "sh")
check("a shell greets", t.until("#"), t)
time.sleep(0.5)  # the shell drops what was typed before it has asked the terminal for its cursor
check("the terminal is raw", is_raw(t), t)
t.type(b"stty size\r")
check("the size is the user's", t.until("30 100"), t)
t.resize(41, 121)
time.sleep(0.3)
t.type(b"stty size\r")
check("a new size arrives", t.until("41 121"), t)
t.type(b"sleep 100\r")
time.sleep(0.3)
t.type(b"\x03")
t.type(b"echo interrupt=$?\r")
check("Ctrl-C goes inside", t.until("interrupt=130"), t)
t.type(b"exit 5\r")
t.end()
check("the status comes out, the terminal is restored", t.status == 5 and t.before == t.after, t)

t = Terminal("run", "-it", "--rm", "--name", "shell", "tools")
check("run -it shows the prompt", t.until("#"), t)
time.sleep(0.5)  # the shell drops what was typed before it has asked the terminal for its cursor
t.type(b"echo $((6*7))\r")
check("run -it answers", t.until("42"), t)
t.type(b"exit 8\r")
t.end()
check("run -it ends with the status", t.status == 8 and t.before == t.after, t)
check("--rm removed it", os.system("coracle inspect shell >/dev/null 2>&1") >> 8 == 3, t)

result()
