#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The unit files as systemd reads them: they verify, and the daemon's exposure score stays below the gate.
usage: units.py BUILD"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

# Debian 12 has cockpit at 7.2, libvirtd and podman at 9.6, Prometheus at 4.0 (systemd-analyze security --offline).
GATE = {"coracled.service": 2.0}


def main():
    if not shutil.which("systemd-analyze"):
        print("skipped: needs systemd-analyze (package systemd)")
        sys.exit(77)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("coracled.service", "coracle-launcher.service"):
            with open(os.path.join(sys.argv[1], "packaging", unit), encoding="utf-8") as f:
                text = f.read()
            # verify looks for the program; the test's build is not installed
            text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M)
            with open(os.path.join(folder, unit), "w", encoding="utf-8") as f:
                f.write(text)
        units = [os.path.join(folder, u) for u in ("coracled.service", "coracle-launcher.service")]
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
        words = [l for l in verified.stderr.splitlines() if "coracle" in l]
        print("verify:", "clean" if not words else "\n".join(words))
        failed += bool(words)
        for unit, gate in GATE.items():
            out = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", os.path.join(folder, unit)],
                                 capture_output=True, text=True, check=False).stdout
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", out)
            score = float(found.group(1)) if found else 10.0
            print(f"{unit}: exposure {score} (gate {gate})")
            failed += score > gate
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
