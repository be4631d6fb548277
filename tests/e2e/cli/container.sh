#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line with real containers: images in their forms, exec and run on a terminal, exit codes, figures.
source "${0%/*}/../lib.sh"
[ "$(id -u)" = 0 ] || skip "instances of technology container need root"
BUSYBOX=$(command -v busybox) || skip "busybox is not installed (apt install busybox-static)"
ldd "$BUSYBOX" >/dev/null 2>&1 && skip "busybox is not linked statically (apt install busybox-static)"
platform_up --with-launcher

case_is "a plain root file system from standard input, as tar"
mkdir -p "$WORK"/rootfs/{bin,dev,proc,sys,etc,tmp}
cp "$BUSYBOX" "$WORK/rootfs/bin/busybox"
for name in sh ls cat echo stty sleep true false id env kill; do ln -s busybox "$WORK/rootfs/bin/$name"; done
tar -C "$WORK/rootfs" -czf "$WORK/tools.tar.gz" .
run sh -c "coracle image import --entrypoint /bin/sh - tools <$WORK/tools.tar.gz"
expect_status 0
expect_out "tools"
expect_err "imported"
run coracle images
expect_out_like 'tools[^ ]* +process +[0-9a-f]{12} +rootfs'
run coracle image inspect --json tools
expect_json 'j["format"] == "rootfs" and j["size_bytes"] > 0 and j["config"]["entrypoint"] == ["/bin/sh"]'

case_is "an OCI layout directory, packed on the fly"
if [ -r "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar" ]; then
    mkdir "$WORK/layout"
    tar -C "$WORK/layout" -xf "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar"
    run coracle image import "$WORK/layout" from/directory
    expect_status 0
    run coracle image import --json "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar" from/file
    expect_status 0
    run coracle image import --json "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar" from/other
    expect_json 'j["reference"].startswith("from/other")'
    DIGEST=$(coracle image inspect --field digest from/directory)
    expect_json "j['digest'] == '$DIGEST'"
    run coracle image rm from/directory from/file from/other
    expect_status 0
fi

case_is "what is no image"
head -c 4096 /dev/urandom >"$WORK/noise"
run coracle image import "$WORK/noise" noise
expect_status 1
expect_err "IMAGE_MALFORMED"
run coracle image inspect noise
expect_status 3

case_is "run: limits, address, time; inspect and steps"
run coracle run --name box -m 64m --cpus 0.5 --pids 20 -e GREETING=hello tools -c 'echo $GREETING; echo bad >&2; sleep 1000'
expect_status 0
expect_out_is "box"
expect_err "box started in"
run coracle inspect --steps box
expect_out "launcher"
run coracle ps image:tools
expect_out "box"
run coracle wait box --for=ready --timeout 5s
expect_status 0
for i in {1..50}; do coracle logs box 2>/dev/null | grep -q hello && break; sleep 0.05; done
run coracle logs box
expect_out_is "hello"
expect_err_is "bad"

case_is "exec: output, both streams, input, user, directory, environment, exit status, signals"
run coracle exec box echo there
expect_out_is "there"
run coracle exec box sh -c 'echo out; echo err >&2; exit 3'
expect_status 3
expect_out_is "out"
expect_err_is "err"
run sh -c 'head -c 300000 /dev/zero | coracle exec -i box cat | wc -c'
expect_out_is "300000"
run coracle exec -u 12:34 -w /tmp -e A=b box sh -c 'id -u; pwd; echo $A'
expect_out_is $'12\n/tmp\nb'
run coracle exec box sh -c 'kill -9 $$'
expect_status 137
run coracle exec box nosuchprogram
[ "$STATUS" -ne 0 ]
OUT=$? expect_out_is 0
run timeout -s INT 1 coracle exec box sleep 100
expect_status 124

case_is "figures are measured"
run coracle stats --json box
expect_json 'j["memory_bytes"] > 0 and j["pids"] >= 1 and j["rx_packets"] is not None'
run coracle update --memory 128MiB box
expect_status 0
run coracle inspect --json box
expect_json 'j["resources"]["memory"] in (134217728, "128MiB")'
run coracle run --on container --cpuset 4000 tools
expect_status 2
expect_err "LIMIT_NOT_ENFORCEABLE"

case_is "image in use"
run coracle image rm tools
expect_status 4
expect_err "IMAGE_IN_USE"

case_is "run --attach: all output, the status; --rm takes it away"
run coracle run --attach --rm --name once tools -c 'echo one; echo two; exit 6'
expect_status 6
expect_out_is $'one\ntwo'
run coracle inspect once
expect_status 3
run sh -c 'echo "echo from input; exit 4" | coracle run -i --rm tools'
expect_status 4
expect_out "from input"

case_is "a restart policy is seen"
run coracle run --name flaky --restart on-failure:2 tools -c 'exit 1'
for i in {1..200}; do [ "$(coracle inspect --field restarts flaky)" = 2 ] && break; sleep 0.05; done
run coracle wait flaky --timeout 20s
expect_out_is "1"
run coracle inspect --field restarts flaky
expect_out_is "2"
run coracle operations --operation HEAL flaky
expect_out_like 'HEAL.*COMPLETED'

case_is "on a terminal"
WORK=$WORK run python3 "${0%/*}/terminal_container.py"
echo "$OUT"
expect_status 0
expect_err_is ""

case_is "doctor: containers run here"
run coracle doctor
expect_out "[ok]   container: runs here, accelerator none"
expect_out "[ok]   launcher: running"

case_is "instances go on while the platform is down"
PID=$(coracle inspect --field pid box)
run coracle down --run-dir "$RUN"
expect_status 0
[ -d "/proc/$PID" ]
OUT=$? expect_out_is 0
platform_up --with-launcher
run coracle wait box --for=started --timeout 10s
expect_status 0
run coracle inspect --field pid box
expect_out_is "$PID"
run coracle exec box echo again
expect_out_is "again"

case_is "remove everything"
run coracle rm -f $(coracle ps -aq)
expect_status 0
run coracle image rm tools
expect_status 0

finish
