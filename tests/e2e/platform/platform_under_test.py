# SPDX-License-Identifier: Apache-2.0
"""A private Coracle platform for a test: starts launcher and daemon from a build tree, talks REST to them, kills them,
and counts everything they could leave behind on the host. Used by the tests of this folder; needs root."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SKIP = 77


def skip(why):
    print("skipped: " + why)
    sys.exit(SKIP)


class Problem(Exception):
    """An answer with an error status: .status, .code, .detail, .hint."""

    def __init__(self, status, body):
        self.status, self.body = status, body
        self.code = body.get("code")
        self.detail = body.get("detail")
        self.hint = body.get("hint")
        super().__init__(f"{status} {self.code}: {self.detail}")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Platform:
    def __init__(self, build, name, launcher=True, host_conf="", state_dir=None):
        if launcher and os.geteuid() != 0:
            skip("needs root to make namespaces")
        self.build = os.path.abspath(build)
        self.top = tempfile.mkdtemp(prefix=f"coracle-{name}-")
        os.chmod(self.top, 0o755)
        self.run = os.path.join(self.top, "run")
        self.state = state_dir or os.path.join(self.top, "state")
        self.cgroup = "coracle-" + os.path.basename(self.top).split("-", 1)[1]
        self.with_launcher = launcher
        self.launcher = self.daemon = None
        self.conf = os.path.join(self.top, "host.conf")
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(host_conf)
        for folder in (self.run, self.state):
            os.makedirs(folder, exist_ok=True)
        self.log = open(os.path.join(self.top, "log"), "ab")

    # -- processes

    def program(self, *parts):
        return os.path.join(self.build, *parts)

    def start_launcher(self):
        self.launcher = subprocess.Popen(
            [self.program("src/launcher/coracle-launcher"), "--run-dir", self.run, "--state-dir", self.state,
             "--cgroup", self.cgroup, "--config", self.conf, "--user", "root",
             "--libexec-dir", libexec_dir(self.build, self.top)],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def start_daemon(self, *options):
        self.daemon = subprocess.Popen(
            [self.program("src/daemon/coracled"), "--run-dir", self.run, "--state-dir", self.state,
             "--user", "root", *options],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def start(self):
        if self.with_launcher:
            self.start_launcher()
        self.start_daemon()
        self.wait_ready()
        return self

    def wait_ready(self, seconds=30):
        deadline = time.monotonic() + seconds
        last = None
        while time.monotonic() < deadline:
            try:
                health = self.get("/v1/health")
                if health["launcher"] or not self.with_launcher:
                    return
                last = health
            except (OSError, http.client.HTTPException) as error:
                last = error
            for process in (self.launcher, self.daemon):
                if process and process.poll() is not None:
                    raise RuntimeError(f"{process.args[0]} ended with {process.returncode}:\n{self.tail()}")
            time.sleep(0.01)
        raise RuntimeError(f"not ready after {seconds} s: {last}\n{self.tail()}")

    def kill(self, which, number=signal.SIGKILL):
        process = getattr(self, which)
        process.send_signal(number)
        process.wait()

    def tail(self, lines=40):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    def close(self):
        """Removes every instance, stops both processes, removes the folder. Says what could not be removed."""
        try:
            if self.daemon and self.daemon.poll() is None:
                for instance in self.instances():
                    self.remove(instance["id"])
        finally:
            for process in (self.daemon, self.launcher):
                if process and process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
            if self.with_launcher:
                for mount in ("fabric", "instances"):  # the latter only where the launcher had to be killed
                    subprocess.run(["umount", os.path.join(self.run, mount)], stderr=subprocess.DEVNULL, check=False)
            self.log.close()
            for base in cgroup_roots():
                remove_cgroups(os.path.join(base, self.cgroup))
            shutil.rmtree(self.top, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.tail(60))
        self.close()

    # -- REST

    def request(self, method, path, body=None, content_type="application/json", timeout=30):
        connection = UnixConnection(os.path.join(self.run, "api.sock"), timeout)
        try:
            headers = {}
            if body is not None:
                headers["Content-Type"] = content_type
                if not isinstance(body, (bytes, str)) and not hasattr(body, "read"):
                    body = json.dumps(body)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        parsed = json.loads(data) if data and "json" in (answer.headers.get("Content-Type") or "") else data
        if answer.status >= 400:
            raise Problem(answer.status, parsed if isinstance(parsed, dict) else {"detail": repr(parsed)})
        return parsed

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    def wait_operation(self, operation, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen = self.get(f"/v1/operations/{operation['id']}?wait_ms=2000")
            if seen["operationState"] in ("COMPLETED", "FAILED", "FAILED_TEMP", "ROLLED_BACK"):
                return seen
        raise RuntimeError(f"operation {operation['id']} has not ended after {seconds} s: {seen}")

    def create(self, spec, wait=True):
        made = self.post("/v1/instances", spec)
        if wait:
            ended = self.wait_operation(made["operation"])
            if ended["operationState"] != "COMPLETED":
                raise Problem(422, ended["error"] or {"detail": str(ended)})
        return made["instance"]

    def remove(self, instance, wait=True):
        operation = self.delete(f"/v1/instances/{instance}?force=true")
        return self.wait_operation(operation) if wait else operation

    def instances(self):
        return self.get("/v1/instances")["items"]

    def instance(self, which):
        return self.get(f"/v1/instances/{which}")

    def import_image(self, path, name):
        with open(path, "rb") as f:
            return self.request("POST", "/v1/images?name=" + name.replace("/", "%2F"), f.read(), "application/x-tar")

    def import_iperf(self):
        return self.import_image(self.program("images/container/coracle-iperf.oci.tar"), "coracle/iperf:latest")

    def import_unikernel(self):
        """Whether unikernel.kvm runs here natively; its image is then the other variant of coracle/iperf."""
        path = os.path.join(self.build, "images/unikernel/coracle-iperf-unikernel.oci.tar")
        host = self.get("/v1/host")
        able = [t for t in host["technologies"] if t["name"] == "unikernel.kvm" and t["accelerator"].startswith("kvm")]
        if not os.path.exists(path) or not able:
            return False
        self.import_image(path, "coracle/iperf:latest")
        return True

    def in_fabric(self, *command, **kw):
        return subprocess.run(["nsenter", "--net=" + os.path.join(self.run, "fabric"), *command], **kw)

    # -- what is on the host because of this platform

    def footprint(self):
        """Counts by kind. Two equal footprints with no instance between them: nothing leaked."""
        count = {"mounts": 0, "cgroups": 0, "processes": 0, "netns": 0, "links": 0, "run files": 0, "logs": 0,
                 "spool": 0, "image tmp": 0, "launcher fds": 0, "daemon fds": 0}
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            count["mounts"] = sum(self.run + "/" in line for line in f)
        for base in cgroup_roots():
            for _, folders, _ in os.walk(os.path.join(base, self.cgroup)):
                count["cgroups"] += len(folders)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
                    count["processes"] += f"/{self.cgroup}" in f.read()
            except OSError:
                continue
        # A namespace lives through its processes (counted), its mounts (counted), or descriptors of the launcher.
        if self.launcher and self.launcher.poll() is None:
            held = self.descriptors("launcher")
            count["netns"] = held.get("net", 0) + held.get(os.path.join(self.run, "fabric"), 0)
        links = self.in_fabric("ip", "-br", "link", capture_output=True, text=True, check=False).stdout
        count["links"] = len(links.splitlines())
        for key, folder in (("run files", os.path.join(self.run, "instances")), ("logs", os.path.join(self.state, "logs")),
                            ("spool", os.path.join(self.state, "spool")),
                            ("image tmp", os.path.join(self.state, "images", "tmp"))):
            count[key] = len(os.listdir(folder)) if os.path.isdir(folder) else 0
        for key, process in (("launcher fds", self.launcher), ("daemon fds", self.daemon)):
            if process and process.poll() is None:
                count[key] = len(os.listdir(f"/proc/{process.pid}/fd"))
        return count

    def steady_footprint(self, seconds=10):
        """The footprint once the kernel has finished taking apart what was just removed."""
        deadline, before = time.monotonic() + seconds, None
        while True:
            now = self.footprint()
            if now == before or time.monotonic() > deadline:
                return now
            before = now
            time.sleep(0.5)

    def descriptors(self, which):
        """What a process holds open, counted by kind."""
        folder, count = f"/proc/{getattr(self, which).pid}/fd", {}
        for fd in os.listdir(folder):
            try:
                kind = os.readlink(os.path.join(folder, fd)).split(":[")[0]
            except OSError:
                continue
            count[kind] = count.get(kind, 0) + 1
        return count

    def settle(self, wanted, seconds=20, ignore=("launcher fds", "daemon fds")):
        """Waits until the footprint is the wanted one; returns the differences that stayed."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.footprint()
            rest = {k: (wanted[k], now[k]) for k in wanted if k not in ignore and now[k] != wanted[k]}
            if not rest or time.monotonic() > deadline:
                return rest
            time.sleep(0.1)


def libexec_dir(build, folder):
    """The folder of helper programs as an installation has it, made of links into a build tree."""
    path = os.path.join(folder, "libexec")
    if os.path.isdir(path):
        return path
    os.makedirs(path)
    for program in ("src/runtime/init/coracle-init", "src/unpack/coracle-unpack", "src/vmm/static/coracle-vmm",
                    "src/qemu/coracle-qemu"):
        target = os.path.join(os.path.abspath(build), program)
        if os.path.exists(target):
            os.symlink(target, os.path.join(path, os.path.basename(program)))
    return path


def cgroup_roots():
    roots = []
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            before, after = line.split(" - ", 1)
            if after.split()[0] in ("cgroup", "cgroup2"):
                roots.append(before.split()[4])
    return roots


def remove_cgroups(top):
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass


class Checks:
    """Named checks: prints each, remembers failures; exit() ends the test."""

    def __init__(self):
        self.failed = 0
        self.passed = 0

    def that(self, name, good, detail=""):
        print(f"{'ok' if good else 'FAILED'}: {name}{'' if good or not detail else ': ' + str(detail)}", flush=True)
        if good:
            self.passed += 1
        else:
            self.failed += 1
        return good

    def refused(self, name, code, call):
        try:
            got = call()
        except Problem as problem:
            good = problem.code == code and bool(problem.detail)
            return self.that(f"{name} -> {code}", good, f"got {problem} (hint: {problem.hint})")
        return self.that(f"{name} -> {code}", False, f"was accepted: {str(got)[:200]}")

    def exit(self):
        print(f"{self.passed} checks passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)
