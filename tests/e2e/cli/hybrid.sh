#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Containers in guests of their own (container.tinyx.kvm), as a user has them: the images of technology container, run in
# a Tinyx guest each. The first run on a machine builds the guest's kernel (minutes); it is kept in build-tinyx's cache.
source "${0%/*}/../lib.sh"
[ "$(id -u)" = 0 ] || skip "instances in QEMU need root"
command -v qemu-system-x86_64 >/dev/null || skip "qemu-system-x86_64 is not installed"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
BUSYBOX=$(command -v busybox) || skip "busybox is not installed (apt install busybox-static)"
ldd "$BUSYBOX" >/dev/null 2>&1 && skip "busybox is not linked statically (apt install busybox-static)"
"${0%/*}/../../../images/tinyx/build-tinyx" -o "$WORK/carrier.tar" -- carrier >"$WORK/built" 2>&1
case $? in
0) ;;
69) skip "the guest cannot be built here: $(tail -n 1 "$WORK/built")" ;;
*) cat "$WORK/built"; echo "FAILED: the guest was not built"; exit 1 ;;
esac
platform_up --with-launcher
# A guest is emulated, on a machine that may be slow and busy: everything is waited for.
wait_log() { for i in {1..1200}; do coracle logs "$1" 2>/dev/null | grep -q -- "$2" && return; sleep 0.1; done; }
wait_state() { for i in {1..1200}; do [ "$(coracle inspect --field state "$1")" = "$2" ] && return; sleep 0.1; done; }

# Two layers; the second takes away and replaces what the first brought.
python3 - "$BUSYBOX" "$WORK" "${0%/*}/../../integration/images" <<'EOT' || exit 1
import sys
busybox, work, helpers = sys.argv[1:]
sys.path.insert(0, helpers)
from archives import directory, entry, oci, symlink, tar
tools = "sh stty ls cat echo sleep true env id hostname kill dd head wc test grep".split()
first = [directory(d + "/") for d in ("bin", "dev", "proc", "sys", "etc", "tmp", "srv", "opaque")]
first += [entry("bin/busybox", open(busybox, "rb").read(), mode=0o755)]
first += [symlink("bin/" + t, "busybox") for t in tools]
first += [entry("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n"), entry("etc/group", b"app:x:1001:\n"),
          entry("gone", b"x"), entry("opaque/below", b"x"), entry("srv/file", b"first")]
second = [entry(".wh.gone", b""), entry("opaque/.wh..wh..opq", b""), entry("opaque/above", b"y"), entry("srv/file", b"second")]
config = {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true"], "Env": ["FROM=image"], "WorkingDir": "/srv", "StopSignal": "SIGUSR1"}
open(work + "/tools.tar", "wb").write(oci([tar(first), tar(second)], config=config))
bent = [e for e in first if e[0].name.rstrip("/") != "proc"] + [symlink("proc", "/tmp")]
open(work + "/bent.tar", "wb").write(oci([tar(bent)], config=config))
open(work + "/other.tar", "wb").write(oci([tar(first)], config=config, architecture="s390x"))
EOT

case_is "without its guest's image the technology says what is missing"
run coracle doctor --json
expect_json "any(c['check'] == 'container.tinyx.kvm' and c['result'] == 'warn' and 'coracle/carrier' in c['detail'] and 'coracle build carrier' in c['try'] for c in j['checks'])" 
run coracle image import "$WORK/tools.tar" tools
expect_status 0
run coracle run --on container.tinyx.kvm tools
expect_status 2
expect_err "TECHNOLOGY_UNAVAILABLE"
expect_err "coracle build carrier --for tinyx.kvm"
run coracle image import "$WORK/carrier.tar" coracle/carrier
expect_status 0
run coracle doctor --json
expect_json "any(c['check'] == 'container.tinyx.kvm' and c['result'] == 'ok' for c in j['checks'])"

case_is "an image for another machine, and what a guest is not for, are refused"
run coracle image import "$WORK/other.tar" other
expect_status 2
expect_err "s390x"
run coracle run --on container.tinyx.kvm -it tools sh
expect_status 2
expect_err "UNSUPPORTED_BY_TECHNOLOGY"
run coracle run --on tinyx.kvm tools
expect_status 2
expect_err "IMAGE_WRONG_GUEST"

case_is "the container is what its image and descriptor say, in a kernel of its own"
run coracle run --name whole --on container.tinyx.kvm -m 24m --pids 30 -e GREETING="hello  world" tools \
    'echo "greeting $GREETING, $FROM, $(hostname)"; echo bad >&2
     ls /gone /opaque/below 2>&1 | grep -c "No such"; ls /opaque; cat file; echo " in $PWD"
     echo mark >/tmp/mark && cat /tmp/mark
     grep -c 198.18 /etc/hosts; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; cat /proc/1/uid_map
     echo "kernel $(cat /proc/sys/kernel/osrelease)"; dd if=/dev/zero of=/tmp/big bs=1M count=20 2>&1 | grep -c "No space"
     exit 7'
expect_status 0
wait_state whole STOPPED
run coracle logs whole
expect_out "greeting hello  world, image, whole"
expect_err "bad"
expect_no_out "reboot"
expect_out_like $'\n2\nabove\nsecond in /srv\nmark\n1\n'
expect_out "Seccomp:	2"
expect_no_out "kernel $(uname -r)"
INSIDE=$(grep CapEff <<<"$OUT")
run coracle inspect --json whole
expect_json "j['technology'] == 'container.tinyx.kvm' and j['exit']['status'] == 7 and j['accelerator'] in ('tcg', 'kvm')"
run coracle run --name plain --on container tools 'grep CapEff /proc/self/status'
wait_log plain CapEff
run coracle logs plain
expect_out "$INSIDE"
run coracle rm -f whole plain

case_is "one file system for all starts of an image"
run sh -c "ls $STATE/images/packed | wc -l"
expect_out_is 1
run sh -c "cat $STATE/images/packed/*/layers | wc -l"
expect_out_is 2

case_is "it answers on its network, stands still, goes on, and ends by its own signal"
run coracle run --name life --on container.tinyx.kvm --restart on-failure:2 tools \
    'trap "echo asked; exit 0" USR1; echo up; while true; do sleep 0.1; done'
expect_status 0
wait_log life "^up"
ADDRESS=$(coracle inspect --json life | python3 -c 'import json, sys; print(json.load(sys.stdin)["networks"][0]["ipv4"].split("/")[0])')
run nsenter --net="$RUN/fabric" ping -c 1 -W 30 "$ADDRESS"
expect_status 0
run coracle pause life
expect_status 0
run nsenter --net="$RUN/fabric" ping -c 1 -W 1 "$ADDRESS"
expect_status 1
run coracle resume life
expect_status 0
run nsenter --net="$RUN/fabric" ping -c 1 -W 30 "$ADDRESS"
expect_status 0
run coracle stop -t 60 life
expect_status 0
run coracle logs life
expect_out "asked"
run coracle start life
expect_status 0
for i in {1..1200}; do [ "$(coracle logs life | grep -c ^up)" = 2 ] && break; sleep 0.1; done
run coracle logs life
expect_out_like $'asked(.|\n)*up'
run coracle rm -f life
expect_status 0

case_is "commands in the container: output, errors, input, status, user, what cannot be executed"
run coracle run --name into --on container.tinyx.kvm --stop-signal TERM -e FROM=user tools \
    'trap "echo hup" HUP; echo up; while true; do sleep 0.1; done'
expect_status 0
run coracle exec into sh -c 'echo "out $(id -u) $FROM $(cat /srv/file)"; echo bad >&2; exit 5' # waits for the guest by itself
expect_status 5
expect_out_is "out 0  second"
expect_err_is "bad"
run coracle exec -u app -w /tmp into sh -c 'id -u; echo $PWD'
expect_out_is $'1000\n/tmp'
run sh -c 'echo "through and back" | coracle exec -i into cat'
expect_out_is "through and back"
run sh -c 'head -c 1000000 /dev/zero | coracle exec -i into wc -c' # many windows
expect_out_is 1000000
run sh -c 'coracle exec into dd if=/dev/zero bs=64k count=16 | wc -c'
expect_out_is 1048576
run coracle exec into /nowhere
expect_status 1
expect_err "/nowhere"
run coracle exec -u nobody-here into true
expect_status 1
expect_err "nobody-here"
run coracle exec into sh -c 'kill -9 $$'
expect_status 137

case_is "a reader who stands still holds up nobody else"
sleep 1000 < <(exec coracle exec into dd if=/dev/zero bs=64k count=64 2>/dev/null) &
STALLED=$!
sleep 1
run coracle exec into echo alive
expect_out_is alive
kill $STALLED
run coracle exec into echo "alive again"
expect_out_is "alive again"

case_is "a terminal in the guest has the size of the user's"
run python3 "${0%/*}/hybrid_terminal.py"
expect_status 0
expect_out "37 101"
expect_out "40 120"
expect_out "interrupted"

case_is "signals reach the application, and a killed launcher loses neither"
run coracle kill -s HUP into
expect_status 0
wait_log into "^hup"
run coracle logs into
expect_out "hup"
kill -9 "$(cat "$RUN/coracled.pid")" "$(cat "$RUN/coracle-launcher.pid")"
sleep 0.3
platform_up --with-launcher
for i in {1..100}; do coracle exec into true 2>/dev/null && break; sleep 0.1; done
run coracle exec into echo adopted
expect_out_is adopted
run coracle pause into
run coracle exec into true
expect_status 4
run coracle resume into
run coracle stop -t 1 into
expect_status 0
run coracle rm into
expect_status 0

case_is "what cannot run: the log says why, as technology container would, and the status tells of whom"
run coracle image import "$WORK/bent.tar" bent
run coracle run --name bent --on container.tinyx.kvm bent true
run coracle run --name absent --on container.tinyx.kvm --restart on-failure:1 --entrypoint /nowhere tools
expect_status 0
for i in {1..600}; do
    run coracle inspect --json absent
    python3 -c 'import json, sys; j = json.load(sys.stdin); sys.exit(not (j["restarts"] == 1 and j["pid"] is None and j["operation"] is None))' \
        <<<"$OUT" && break
    sleep 0.2
done
wait_state bent STOPPED
run coracle inspect --json absent
expect_json "j['exit']['status'] == 127 and j['restarts'] == 1"
run coracle logs absent
expect_out "/nowhere"
run coracle inspect --json bent
expect_json "j['exit']['status'] == 125"
run coracle logs bent
expect_out "/proc is a symbolic link"
expect_out "try:"
run coracle rm -f absent bent
run coracle image rm bent
expect_status 0

case_is "the guest's image stays while it is used; the packed root goes with its image"
run coracle create --name kept --on container.tinyx.kvm tools
expect_status 0
run coracle image rm coracle/carrier
expect_status 4
expect_err "IMAGE_IN_USE"
run coracle rm kept
expect_status 0
run coracle image rm tools
expect_status 0
for i in {1..100}; do [ -z "$(ls "$STATE/images/packed")" ] && break; sleep 0.1; done
run ls -A "$STATE/images/packed"
expect_out_is ""

case_is "nothing is left"
for i in {1..100}; do pgrep -f "[g]uest=(whole|life|into|absent|bent)" >/dev/null || break; sleep 0.1; done
run pgrep -f "[g]uest=(whole|life|into|absent|bent)"
expect_status 1
run sh -c "ls $RUN/instances | grep -v ^spare-"
expect_out_is ""
finish
