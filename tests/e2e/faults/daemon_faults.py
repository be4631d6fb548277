#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Faults through the daemon's own front door, on any machine: coracled alone with the fake technology.

Every fault of the fake at every step, cancelling, and kill -9 of the daemon while eight
clients write: what was acknowledged must be there, event numbers must never come twice. usage: daemon_faults.py CORACLED"""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

KILLS = 25
failures = []


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("coracle", timeout=15)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(self.path)


class Daemon:
    def __init__(self, program):
        self.program = program
        self.dir = tempfile.mkdtemp(prefix="coracle-faults-")
        self.run, self.state = self.dir + "/run", self.dir + "/state"
        os.mkdir(self.run, 0o750)
        os.mkdir(self.state, 0o750)
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--run-dir", self.run, "--state-dir", self.state, "--user", "root", "--log-level", "error"],
            stderr=open(self.dir + "/log", "ab"))
        for _ in range(500):
            try:
                return self.call("GET", "/v1/version")
            except OSError:
                time.sleep(0.01)
        raise SystemExit("coracled did not start: " + open(self.dir + "/log").read())

    def call(self, method, path, body=None):
        connection = Connection(self.run + "/api.sock")
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.terminate()
        if self.process.wait(10) != 0:
            failures.append("coracled ended with an error")
        shutil.rmtree(self.dir)

    def wait(self, operation):
        return self.call("GET", f"/v1/operations/{operation}?wait_ms=10000")[1]


def expect(what, is_so, detail=""):
    print(("ok: " if is_so else "FAILED: ") + what + ("" if is_so else f": {detail}"))
    if not is_so:
        failures.append(what)


def fault_matrix(daemon):
    """(fault, operation's end, instance's state, code)"""
    for fault, end, state, code in [({"step": "start"}, "FAILED", "FAILED", "START_FAILED"),
                                    ({"step": "stop"}, "COMPLETED", "STARTED", None),
                                    ({"start_ms": 200}, "COMPLETED", "STARTED", None)]:
        _, made = daemon.call("POST", "/v1/instances", {"technology": "fake", "fault": fault})
        operation = daemon.wait(made["operation"]["id"])
        instance = daemon.call("GET", "/v1/instances/" + made["instance"]["id"])[1]
        expect(f"fault {fault}", operation["operationState"] == end and instance["state"] == state and
               (operation["error"] or {}).get("code") == code, (operation, instance["state"]))
        daemon.call("DELETE", f"/v1/instances/{instance['id']}?force=true")
    status, problem = daemon.call("POST", "/v1/instances", {"technology": "fake", "fault": {"step": "plan"}})
    expect("fault at plan", status == 500 and problem["code"] == "START_FAILED", problem)
    _, made = daemon.call("POST", "/v1/instances", {"technology": "fake", "name": "hung", "fault": {"step": "hang-start"}})
    status, _ = daemon.call("POST", f"/v1/operations/{made['operation']['id']}/cancel")
    operation = daemon.wait(made["operation"]["id"])
    expect("cancel of a start that hangs", status == 202 and operation["operationState"] == "ROLLED_BACK", operation)
    status, _ = daemon.call("DELETE", "/v1/instances/hung")
    expect("it can be removed", status == 202, status)


class Writer(threading.Thread):
    """Creates and removes; remembers only what the daemon acknowledged."""

    def __init__(self, daemon, number, stop):
        super().__init__()
        self.server, self.number, self.stop = daemon, number, stop
        self.there, self.gone, self.unsure = set(), set(), set()

    def one(self, n):
        name = f"w{self.number}-{n}"
        self.unsure.add(name)
        status, _ = self.server.call("POST", "/v1/instances?start=" + random.choice(["true", "false"]),
                                     {"technology": "fake", "name": name})
        self.unsure.discard(name)
        (self.there if status in (201, 202) else self.gone).add(name)
        if self.there and random.random() < 0.3:
            victim = random.choice(sorted(self.there))
            self.there.discard(victim)
            self.unsure.add(victim)
            status, _ = self.server.call("DELETE", f"/v1/instances/{victim}?force=true")
            self.unsure.discard(victim)
            (self.gone if status == 202 else self.there).add(victim)

    def run(self):
        n = int(time.time() * 1000)
        while not self.stop.is_set():
            n += 1
            try:
                self.one(n)
            except (OSError, http.client.HTTPException, ValueError):
                self.stop.wait(0.005)


def names(daemon):
    return {i["name"]: i for i in daemon.call("GET", "/v1/instances")[1]["items"]}


def kills(daemon):
    known_there, known_gone, last_seq, acknowledged = set(), set(), 0, 0
    for round_number in range(KILLS):
        stop = threading.Event()
        writers = [Writer(daemon, f"{round_number}-{k}", stop) for k in range(8)]
        for w in writers:
            w.start()
        time.sleep(random.uniform(0.05, 0.3))
        daemon.kill()
        stop.set()
        for w in writers:
            w.join()
        for w in writers:
            known_there |= w.there
            known_gone |= w.gone
            acknowledged += len(w.there) + len(w.gone)
        daemon.start()
        deadline, found = time.time() + 5, names(daemon)
        while known_gone & set(found) and time.time() < deadline:
            time.sleep(0.02)
            found = names(daemon)
        missing, ghosts = known_there - set(found), known_gone & set(found)
        addresses = [n["ipv4"] for i in found.values() for n in i["networks"]]
        if missing or ghosts or len(addresses) != len(set(addresses)):
            expect(f"kill {round_number}", False, (sorted(missing)[:5], sorted(ghosts)[:5]))
            return
        events = daemon.call("GET", "/v1/events")[1]["items"]
        seqs = [e["seq"] for e in events]
        if seqs != sorted(set(seqs)) or seqs[-1] <= last_seq:
            expect(f"events after kill {round_number} keep their order", False, (last_seq, seqs[-3:]))
            return
        last_seq = seqs[-1]
    expect(f"{KILLS} kills, {acknowledged} acknowledged writes", acknowledged > KILLS * 5, acknowledged)


def main():
    daemon = Daemon(sys.argv[1])
    daemon.start()
    fault_matrix(daemon)
    kills(daemon)
    daemon.end()
    sys.exit(1 if failures else 0)


main()
