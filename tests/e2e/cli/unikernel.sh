#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A virtual machine as a user has it: the same descriptor and commands as a container's, another technology.
# With "emulated" as its argument the host's KVM is kept out of it and QEMU's emulation runs the same image.
source "${0%/*}/../lib.sh"
[ "$(id -u)" = 0 ] || skip "instances of technology unikernel.kvm need root"
IMAGE=$CORACLE_BUILD/images/unikernel/coracle-iperf-unikernel.oci.tar
[ -r "$IMAGE" ] || skip "the unikernel was not built (the source of lwIP could not be had)"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
command -v iperf >/dev/null || skip "iperf is not installed (apt install iperf)"
echo "kvm = $([ "${1:-}" = emulated ] && echo no || echo yes)" >"$WORK/host.conf"
platform_up --with-launcher --launcher-config "$WORK/host.conf"
ACCELERATOR=$(coracle doctor --json | python3 -c '
import json, sys
for c in json.load(sys.stdin)["checks"]:
    if c["check"] == "unikernel.kvm" and c["result"] == "ok":
        print(c["detail"].split("accelerator ")[1].split()[0])')
[ -n "$ACCELERATOR" ] || skip "unikernel.kvm cannot run here: $(coracle doctor | grep -A1 unikernel.kvm | tr '\n' ' ')"
echo "accelerator: $ACCELERATOR"
in_fabric() { nsenter --net="$RUN/fabric" "$@"; }

case_is "one name, two kinds of guest"
run coracle image import "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar" coracle/iperf
expect_status 0
run coracle run --on unikernel.kvm coracle/iperf
expect_status 2
expect_err "coracle build"
run coracle image import "$IMAGE" coracle/iperf
expect_status 0
run coracle images
expect_out_like 'coracle/iperf[^ ]* +unikernel'
expect_out_like 'coracle/iperf[^ ]* +process'

case_is "run: the descriptor of a container, another technology"
run coracle run --name vm --on unikernel.kvm -m 24m --cpus 1 coracle/iperf
expect_status 0
expect_out_is "vm"
expect_err "vm started in"
run coracle run --name box coracle/iperf
expect_status 0
run coracle inspect --json vm
expect_json "j['technology'] == 'unikernel.kvm' and j['state'] == 'STARTED' and j['accelerator'] == '$ACCELERATOR'"
expect_json "'exec' not in j['verbs'] and 'pause' in j['verbs'] and 'logs' in j['verbs']"
ADDRESS=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["networks"][0]["ipv4"])' <<<"$OUT")
ADDRESS6=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["networks"][0]["ipv6"])' <<<"$OUT")
run coracle inspect --steps vm
expect_out "launcher taps"
expect_out "launcher load"

case_is "it answers: ping over both families, iperf both ways, beside a container on the same network"
run in_fabric ping -c 3 -i 0.2 -W 2 "$ADDRESS"
expect_status 0
run in_fabric ping -6 -c 3 -i 0.2 -W 2 "$ADDRESS6"
expect_status 0
run in_fabric timeout 20 iperf -c "$ADDRESS" -t 1 -r
expect_status 0
expect_out_like '([0-9.]+) [GM]bits/sec'
for i in {1..50}; do coracle logs vm | grep -q 'bits/sec' && break; sleep 0.1; done
run coracle logs vm
expect_out "Server listening on TCP port 5001"
expect_out "bits/sec"
BOX=$(coracle inspect --json box | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
run nsenter --net="/proc/$BOX/ns/net" ping -c 2 -i 0.2 -W 2 "$ADDRESS"
expect_status 0

case_is "figures, and what a machine has not"
run coracle top --once --json
run coracle exec vm ls
[ "$STATUS" -ne 0 ]; OUT=$? expect_out_is 0
expect_err "UNSUPPORTED_BY_TECHNOLOGY"
run coracle run --on unikernel.kvm -e A=b coracle/iperf
expect_status 2
expect_err "env"
run coracle run --on unikernel.kvm -m 1m coracle/iperf
expect_status 64
expect_err "at least 4 MiB"

case_is "pause holds it, resume lets it go on"
run coracle pause vm
expect_status 0
run in_fabric ping -c 2 -i 0.2 -W 1 "$ADDRESS"
expect_status 1
run coracle resume vm
expect_status 0
run in_fabric ping -c 3 -i 0.2 -W 2 "$ADDRESS"
expect_status 0

case_is "limits live"
run coracle update --cpus 0.5 vm
expect_status 0
run coracle update -m 64m vm # its memory is what it began with
expect_status 2
expect_err "not started with room"
run in_fabric ping -c 2 -i 0.2 -W 2 "$ADDRESS"
expect_status 0

case_is "from the warm pool, and from a snapshot: each guest is somebody of its own"
wait_for_pool() { # FIELD
    for i in {1..100}; do
        [ "$(curl -s --unix-socket "$RUN/api.sock" http://x/v1/host |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["pool"][sys.argv[1]])' "$1")" -gt 0 ] && return
        sleep 0.1
    done
}
address_of() { coracle inspect --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["networks"][0]["ipv4"])'; }
wait_for_pool ready
quota() { # NAME: what its cgroup allows it of each 100 ms; nothing, max or -1: all
    local group
    group=$(sed -n 's|.*/||p' "/proc/$(coracle inspect --json "$1" | jq .pid)/cgroup" | sort -u | grep . | head -1)
    find /sys/fs/cgroup -path "*/$group/cpu.cfs_quota_us" -exec cat {} + -o -path "*/$group/cpu.max" -exec cut -d " " -f 1 {} +
}
run coracle run --name warm --on unikernel.kvm -m 24m --start-mode pool coracle/iperf
expect_status 0
expect_err "(warm pool)"
run quota warm # the bounds of vm, for whose sake it was made, are not its own
expect_out_like '^(max|-1|)$'
run in_fabric ping -c 2 -i 0.2 -W 2 "$(address_of warm)"
expect_status 0
if [ "$ACCELERATOR" != tcg ]; then
    wait_for_pool snapshots
    for name in one two; do
        run coracle run --name $name --on unikernel.kvm -m 24m --start-mode snapshot coracle/iperf
        expect_status 0
        expect_err "(snapshot)"
    done
    for name in one two; do
        run in_fabric ping -c 2 -i 0.2 -W 2 "$(address_of $name)"
        expect_status 0
        run in_fabric timeout 20 iperf -c "$(address_of $name)" -t 0.5
        expect_status 0
        expect_out_like '([0-9.]+) [GM]bits/sec'
    done
fi
run coracle rm -f warm one two

case_is "several networks: it answers on each"
for network in a b; do
    run coracle network create $network
    expect_status 0
done
address_on() { coracle inspect --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["networks"][int(sys.argv[1])][sys.argv[2]])' "$2" "$3"; }
answers_on_both() { # INSTANCE
    for i in 0 1; do
        run in_fabric ping -c 2 -i 0.2 -W 2 "$(address_on "$1" $i ipv4)"
        expect_status 0
        run in_fabric ping -6 -c 2 -i 0.2 -W 2 "$(address_on "$1" $i ipv6)"
        expect_status 0
        run in_fabric timeout 20 iperf -c "$(address_on "$1" $i ipv4)" -t 0.5
        expect_status 0
        expect_out_like '([0-9.]+) [GM]bits/sec'
    done
}
run coracle run --name two --on unikernel.kvm -m 24m --start-mode cold --network a --network b coracle/iperf
expect_status 0
answers_on_both two
run coracle rm -f two
expect_status 0
if [ "$ACCELERATOR" != tcg ]; then
    run coracle run --name two --on unikernel.kvm -m 24m --network b --network a coracle/iperf
    expect_status 0
    answers_on_both two
    run coracle snapshot create two both
    expect_status 0
    run coracle snapshot restore --name twin both
    expect_status 0
    answers_on_both twin
    answers_on_both two
    run coracle rm -f two twin
    run coracle snapshot rm both
    expect_status 0
fi
if [ "$ACCELERATOR" != tcg ]; then # as many as an instance may have; its monitor then has no room for a vsock device
    for network in c d e f g h; do
        run coracle network create $network
        expect_status 0
    done
    run coracle run --name eight --on unikernel.kvm -m 24m $(printf -- '--network %s ' a b c d e f g h) coracle/iperf
    expect_status 0
    for i in {0..7}; do
        run in_fabric ping -c 1 -W 2 "$(address_on eight $i ipv4)"
        expect_status 0
    done
    run coracle stop eight
    expect_status 0
    run coracle rm eight
    expect_status 0
    for network in c d e f g h; do
        run coracle network rm $network
        expect_status 0
    done
fi
for network in a b; do
    run coracle network rm $network
    expect_status 0
done

case_is "snapshots that are kept"
run coracle snapshot create vm kept
expect_status 0
run coracle snapshot ls --json
expect_json 'len(j["items"]) == 1 and j["items"][0]["name"] == "kept" and j["items"][0]["size_bytes"] > 0'
run coracle snapshot create vm kept
expect_status 4
expect_err "NAME_TAKEN"
run coracle snapshot create box
expect_status 2
expect_err "UNSUPPORTED_BY_TECHNOLOGY"
run in_fabric ping -c 2 -i 0.2 -W 2 "$ADDRESS" # it went on
expect_status 0
run coracle snapshot restore --name twin kept
if [ "$ACCELERATOR" = tcg ]; then
    expect_status 2
    expect_err "identity"
else
    expect_status 0
    expect_err "(snapshot)"
    run in_fabric ping -c 2 -i 0.2 -W 2 "$(address_of twin)"
    expect_status 0
    run in_fabric timeout 20 iperf -c "$(address_of twin)" -t 0.5
    expect_out_like '([0-9.]+) [GM]bits/sec'
    run coracle restart twin # from its image
    expect_status 0
    run in_fabric ping -c 2 -i 0.2 -W 2 "$(address_of twin)"
    expect_status 0
    run coracle rm -f twin
fi
run coracle snapshot rm kept
expect_status 0
run coracle snapshot restore kept
expect_status 3
expect_err "SNAPSHOT_NOT_FOUND"
run sh -c "ls '$STATE/snapshots'"
expect_out_is ""

case_is "the daemon and the launcher are killed: the guest does not notice, and is found again"
PID=$(coracle inspect --json vm | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
in_fabric ping -i 0.05 -c 60 -W 1 "$ADDRESS" >"$WORK/ping" 2>&1 &
PINGER=$!
kill -9 "$(cat "$RUN/coracled.pid")" "$(cat "$RUN/coracle-launcher.pid")"
sleep 0.3
coracle up --run-dir "$RUN" --state-dir "$STATE" --user "$(id -un)" --cgroup "$CGROUP" \
    --launcher-config "$WORK/host.conf" >"$WORK/up2" 2>&1
wait $PINGER
run cat "$WORK/ping"
expect_out "60 received"
run coracle inspect --json vm
expect_json "j['pid'] == $PID and j['state'] == 'STARTED'"
run in_fabric ping -c 2 -i 0.2 -W 2 "$ADDRESS"
expect_status 0

case_is "kill -9 of the monitor is an end like any other; start begins anew"
kill_monitor() {
    kill -9 "$(coracle inspect --json vm | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')"
    for i in {1..50}; do [ "$(coracle inspect --field state vm)" != STARTED ] && break; sleep 0.1; done
}
kill_monitor # nobody was its parent any more
run coracle inspect --json vm
expect_json "j['state'] == 'STOPPED' and j['exit']['status'] is None"
run coracle start vm
expect_status 0
run in_fabric ping -c 3 -i 0.2 -W 2 "$ADDRESS"
expect_status 0
kill_monitor
run coracle inspect --json vm
expect_json "j['state'] == 'STOPPED' and j['exit']['signal'] == 'SIGKILL'"
run coracle start vm
expect_status 0

case_is "stop, and remove: nothing is left"
run coracle stop vm
expect_status 0
run coracle inspect --json vm
expect_json "j['state'] == 'STOPPED'"
# its program was asked and ended by itself: 128 + SIGTERM is what it says then
[ "$ACCELERATOR" = tcg ] || expect_json "j['exit']['status'] == 143"
run coracle rm vm
expect_status 0
run coracle rm -f box
expect_status 0
run sh -c "ls -I 'spare-*' '$RUN/instances'"
expect_out_is ""
finish
