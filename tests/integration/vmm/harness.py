# SPDX-License-Identifier: Apache-2.0
"""What the tests of the monitor share: skipping, devices that must be there, one test after the other."""
import os
import subprocess
import sys
import time


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def run(words, seconds=30, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds, **more)


def need_root_and(*devices):
    if os.geteuid() != 0:
        skip("not root")
    for device in devices:
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as e:
            skip(f"{device}: {e.strerror}")


def run_tests(tests, started, wanted=lambda name: True):
    """Runs each test_* of tests (a module's globals) and returns how many failed; after one did, ends what it started."""
    failed = 0
    for name, test in list(tests.items()):
        if not name.startswith("test_") or not wanted(name):
            continue
        begun = time.monotonic()
        try:
            test()
            print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
        except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError) as e:
            failed += 1
            print(f"FAILED {name}: line {e.__traceback__.tb_next.tb_lineno}: {type(e).__name__}: {e}", flush=True)
            for process in started:
                process.kill()
                process.wait()
    return failed
