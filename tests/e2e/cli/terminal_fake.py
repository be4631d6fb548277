# SPDX-License-Identifier: Apache-2.0
"""Colours, progress, exec, attach and top on a pseudo terminal; called by terminal.sh, which made the platform."""
import os
import re
import signal
import subprocess
import time

from terminal import Terminal, check, is_raw, result

t = Terminal("ps").end()
check("a table on a terminal is coloured", "\033[32mSTARTED" in t.text, t)
t = Terminal("ps", env={"NO_COLOR": "1"}).end()
check("NO_COLOR is obeyed", "\033" not in t.text and "STARTED" in t.text, t)
t = Terminal("--color=never", "ps").end()
check("--color=never is obeyed", "\033" not in t.text, t)
t = Terminal("ps", "--color=always", env={"NO_COLOR": "1"}).end()
check("--color=always wins over NO_COLOR", "\033[32m" in t.text, t)
t = Terminal("ps", env={"TERM": "dumb"}).end()
check("a dumb terminal gets no colours", "\033" not in t.text, t)
t = Terminal("ps", "--no-trunc", columns=60).end()
check("--no-trunc cuts nothing", re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", t.text), t)

t = Terminal("run", "--on", "fake", "--name", "tty-run").end()
check("run says one sentence on a terminal, the name not apart",
      re.fullmatch(r"(\r|\033\[K)*tty-run started in [0-9.]+ (us|ms|s) \((warm pool|cold)\)\n", t.text), t)

with open(os.environ["WORK"] + "/slow.yaml", "w") as f:
    f.write("technology: fake\nname: tty-slow\nfault: {start_ms: 900}\n")
t = Terminal("run", "-f", os.environ["WORK"] + "/slow.yaml").end()
check("long work shows its phase", "tty-slow: INSTANTIATE" in t.text, t)
check("the phase is wiped before the result", t.text.rstrip().split("\033[K")[-1].startswith("tty-slow started"), t)
t = Terminal("-q", "rm", "-f", "tty-slow").end()
check("quiet prints the name only", t.text == "tty-slow\n", t)

t = Terminal("stop", "nobody").end()
check("errors are coloured on a terminal", "\033[31merror\033[0m: " in t.text and t.status == 3, t)

t = Terminal("exec", "-it", "a", "sleep", "1500")
t.until("never", 0.7)
check("exec -t is raw while it runs", is_raw(t), t)
t.resize(40, 120)
os.kill(t.process.pid, signal.SIGWINCH)
t.end()
check("exec -t restores the terminal", t.before == t.after and t.status == 0, t)
t = Terminal("exec", "-t", "a", "exit", "9").end()
check("exec -t ends with the status", t.status == 9 and t.before == t.after, t)
t = Terminal("exec", "-it", "nobody", "true").end()
check("a refused exec leaves the terminal alone", t.status == 3 and t.before == t.after, t)

t = Terminal("attach", "with-tty")
check("attach says how to leave", t.until("Ctrl-P Ctrl-Q detaches"), t)
time.sleep(0.3)
check("attach is raw", is_raw(t), t)
t.type(b"hello\r")
check("what is typed comes back from the instance", t.until("hello"), t)
t.type(b"\x10\x11")
t.end()
check("Ctrl-P Ctrl-Q leaves and restores", t.status == 0 and t.before == t.after and "detached" in t.text, t)
check("the instance goes on", subprocess.run(["coracle", "inspect", "--field", "state", "with-tty"],
                                              capture_output=True, text=True).stdout == "STARTED\n", t)

t = Terminal("attach", "with-tty")
t.until("Ctrl-P Ctrl-Q detaches")
time.sleep(0.3)
subprocess.run(["coracle", "-q", "kill", "with-tty"], stdout=subprocess.DEVNULL)
t.end()
check("attach ends with the instance and its signal", t.status == 137 and t.before == t.after, t)

t = Terminal("top", "--interval", "200ms")
check("top takes the whole screen", t.until("\033[?1049h") and t.until("sorted by CPU"), t)
check("top shows the instances", t.until("fake") and t.until("not measured"), t)
t.type(b"m")
check("a key sorts", t.until("sorted by memory"), t)
t.type(b"q")
t.end()
check("q leaves the screen as it was", t.status == 0 and "\033[?1049l" in t.text and t.before == t.after, t)

t = Terminal("top", "--interval", "200ms")
t.until("sorted by CPU")
t.type(b"\x03")
t.end()
check("Ctrl-C restores the terminal", t.status == -signal.SIGINT and t.before == t.after and "\033[?1049l" in t.text, t)

result()
