# SPDX-License-Identifier: Apache-2.0
"""A registry on the loopback interface, and the pull test against it. Usage: test_pull.py TEST_PROGRAM UNPACKER"""
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from archives import *
from unpacker import SKIP, require_root


class Registry(http.server.BaseHTTPRequestHandler):
    """The pulling half of the OCI distribution specification."""
    protocol_version = "HTTP/1.1"
    layout = Oci()
    manifest = layout.image([tar([entry("app", b"x", mode=0o755)])])

    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if "slow" in parts:
            time.sleep(60)
        if parts == ["v2"]:
            return self.answer(200, b"{}", "application/json")
        if parts[1:3] == ["good", "app"] and parts[3] in ("manifests", "blobs"):
            digest = self.manifest["digest"] if parts[4] == "1" else parts[4]
            data = self.layout.blobs.get(digest[7:])
            if data is not None:
                kind = self.manifest["mediaType"] if parts[3] == "manifests" else "application/octet-stream"
                return self.answer(200, data, kind)
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return self.answer(404, json.dumps(error).encode(), "application/json")

    do_HEAD = do_GET

    def answer(self, status, data, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def main():
    require_root()
    if not shutil.which("skopeo"):
        print("skipped: skopeo is not installed")
        sys.exit(SKIP)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = "127.0.0.1:%d" % server.server_port
    with tempfile.TemporaryDirectory() as work:
        os.makedirs(work + "/.config/containers")
        configuration = work + "/.config/containers/registries.conf"
        with open(configuration, "w") as f:
            f.write('[[registry]]\nlocation = "%s"\ninsecure = true\n' % address)
        environment = dict(os.environ, HOME=work, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
        sys.exit(subprocess.run([sys.argv[1], sys.argv[2], address], env=environment).returncode)


main()
