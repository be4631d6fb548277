#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of daemon, launcher, containers and machines' monitors at random moments under load.

After every kill: each acknowledged instance is there, as wanted or reported as failed with its reason; surviving
applications kept their process. At the end nothing is left on the host. usage: chaos.py BUILD [ROUNDS [SEED]]"""
import http.client
import os
import random
import signal
import sys
import threading
import time

from platform_under_test import Checks, Platform, Problem

GONE = (OSError, http.client.HTTPException, ValueError)


class Load(threading.Thread):
    """Creates and removes instances until told to stop; remembers only what was acknowledged."""

    def __init__(self, platform, number, technologies):
        super().__init__(daemon=True)
        self.platform, self.number, self.technologies = platform, number, technologies
        self.stop = False
        self.wanted, self.unsure = {}, set()
        self.made = self.refused = 0

    def run(self):
        turn = 0
        while not self.stop:
            turn += 1
            name = f"load{self.number}-{turn}"
            try:
                self.unsure.add(name)
                technology = self.technologies[turn % len(self.technologies)]
                made = self.platform.post("/v1/instances", {"name": name, "image": "coracle/iperf", "networks": ["default"],
                                                            "technology": technology}, timeout=10)
                self.wanted[name] = made["instance"]["id"]
                self.unsure.discard(name)
                self.made += 1
                if len(self.wanted) > 4:
                    victim = next(iter(self.wanted))
                    self.unsure.add(victim)
                    del self.wanted[victim]
                    self.platform.wait_operation(self.platform.delete(f"/v1/instances/{victim}?force=true", timeout=10), 10)
            except Problem:
                self.refused += 1
                time.sleep(0.01)
            except (*GONE, RuntimeError):
                time.sleep(0.02)


def settled(platform, seconds=30):
    """Waits until no instance is between two states."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        items = platform.instances()
        if not [i for i in items if i["state"] in ("STARTING", "STOPPING") or i["operation"]]:
            return items
        time.sleep(0.05)
    return platform.instances()


def one_round(platform, rng, steady, checks, number, technologies):
    load = [Load(platform, f"{number}-{i}", technologies) for i in range(2)]
    for thread in load:
        thread.start()
    time.sleep(rng.uniform(0.01, 0.25))
    what = rng.choice(["daemon", "launcher", "both", "instance"])
    if what in ("launcher", "both"):
        platform.kill("launcher")
    if what in ("daemon", "both"):
        platform.kill("daemon")
    if what == "instance":
        victim = rng.choice(steady)
        os.kill(victim["pid"], signal.SIGKILL)
    time.sleep(rng.uniform(0, 0.05))
    if what in ("launcher", "both"):
        platform.start_launcher()
    if what in ("daemon", "both"):
        platform.start_daemon()
    platform.wait_ready()
    time.sleep(rng.uniform(0, 0.1))
    for thread in load:
        thread.stop = True
    for thread in load:
        thread.join(30)
    items = {i["name"]: i for i in settled(platform)}
    good = True
    for thread in load:
        for name, ident in thread.wanted.items():
            if name not in items or items[name]["id"] != ident:
                good = checks.that(f"round {number} ({what}): acknowledged {name} is there", False, items.get(name))
    for name, item in items.items():
        as_wanted = item["state"] == "STARTED" and item["pid"] and os.path.exists(f"/proc/{item['pid']}")
        told = item["state"] in ("FAILED", "STOPPED") and (item["reason"] or item["exit"])
        if not as_wanted and not told:
            good = checks.that(f"round {number} ({what}): {name} is as wanted or says why not", False, item)
    for old in steady:
        now = items.get(old["name"])
        killed = what == "instance" and old is victim
        if not killed and (not now or now["pid"] != old["pid"] or now["restarts"] != old["restarts"]):
            good = checks.that(f"round {number} ({what}): {old['name']} noticed nothing", False, (old, now))
    for thread in load:
        for name in [*thread.wanted, *thread.unsure]:
            if name in items:
                platform.remove(name)
    if what == "instance":
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            now = platform.instance(victim["name"])
            if now["state"] == "STARTED" and now["pid"] != victim["pid"]:
                steady[steady.index(victim)] = now
                break
            time.sleep(0.05)
        else:
            good = checks.that(f"round {number}: a killed instance with restart: always is back", False, now)
    return good, what, sum(t.made for t in load), sum(t.refused for t in load)


def main():
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    rng = random.Random(seed)
    checks = Checks()
    print(f"{rounds} rounds, seed {seed}")
    platform = Platform(sys.argv[1], "chaos", host_conf="pool_depth = 2\n")
    with platform:
        platform.import_iperf()
        technologies = ["container", "unikernel.kvm"] if platform.import_unikernel() else ["container"]
        print("technologies:", *technologies)
        before = platform.footprint()
        for i in range(4):
            platform.create({"name": f"steady{i}", "image": "coracle/iperf", "technology": technologies[i % len(technologies)],
                             "restart": {"policy": "always", "backoff": "10ms"}})
        steady = [platform.instance(f"steady{i}") for i in range(4)]
        tally, made, refused, good_rounds = {}, 0, 0, 0
        for number in range(rounds):
            good, what, m, r = one_round(platform, rng, steady, checks, number, technologies)
            tally[what] = tally.get(what, 0) + 1
            made, refused, good_rounds = made + m, refused + r, good_rounds + good
            if number % 10 == 9:
                print(f"  {number + 1} rounds, {made} instances acknowledged, {refused} refused", flush=True)
        checks.that(f"{rounds} kills {tally}: every acknowledged instance as wanted or failed with a reason", good_rounds == rounds)
        for item in platform.instances():
            platform.remove(item["id"])
        # The pool is the launcher's own and stays; restart with none so that only leaks are left to count.
        platform.kill("launcher", signal.SIGTERM)
        with open(platform.conf, "w", encoding="utf-8") as f:
            f.write("pool_depth = 0\nsnapshot_count = 0\n")
        platform.start_launcher()
        platform.wait_ready()
        rest = platform.settle(before)
        checks.that("nothing is left: mounts, cgroups, processes, namespaces, links, files", not rest, rest)
    checks.exit()


if __name__ == "__main__":
    main()
