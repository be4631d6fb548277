#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Linux guests as a user has them, tinyx.kvm or standardvm.kvm (the argument): from the warm pool, from a snapshot, with
# processors and memory added as they run; what is parked when the launcher is killed. The first run on a machine builds a
# kernel or installs Debian (minutes). TINYX, STANDARDVM: an image that exists, in place of one built here.
source "${0%/*}/../lib.sh"
KIND=$1
[ "$(id -u)" = 0 ] || skip "instances in QEMU need root"
command -v qemu-system-x86_64 >/dev/null || skip "qemu-system-x86_64 is not installed"
command -v iperf >/dev/null || skip "iperf is not installed (apt install iperf)"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
name=${KIND^^}
IMAGE=${!name:-}
if [ -z "$IMAGE" ]; then
    IMAGE=$WORK/image.tar
    "${0%/*}/../../../images/$KIND/build-$KIND" -o "$IMAGE" -r guest:latest -- iperf >"$WORK/built" 2>&1
    case $? in
    0) ;;
    69) skip "the guest cannot be built here: $(tail -n 1 "$WORK/built")" ;;
    *) cat "$WORK/built"; echo "FAILED: the guest was not built"; exit 1 ;;
    esac
fi
echo "pool_depth = 2" >"$WORK/host.conf"
platform_up --with-launcher --launcher-config "$WORK/host.conf"

# A guest is emulated, on a machine that may be slow and busy: everything is waited for.
in_fabric() { nsenter --net="$RUN/fabric" "$@"; }
field() { coracle inspect --json "$1" | jq -r "$2"; }
address_of() { field "$1" '.networks[0].ipv4'; }
answers() {
    local address i
    address=$(address_of "$1")
    [ "$address" ] || return
    for i in {1..300}; do in_fabric ping -c 1 -W 1 "$address" >/dev/null && return; done
    return 1
}
pool() { curl -s --unix-socket "$RUN/api.sock" http://x/v1/host | jq ".pool.$1"; }
wait_for_pool() { for i in {1..3000}; do [ "$(pool "$1")" -ge "$2" ] && return; sleep 0.1; done; return 1; }
qemu_of() { cat "/proc/$(field "$1" .pid)/task/"*/children; }
parked() { # monitors of the pool; those that became an instance's keep the name of their cgroup
    local running
    running=" $(for i in $(coracle ps -q); do field "$i" .pid; done | tr '\n' ' ') "
    find /sys/fs/cgroup -path "*/$CGROUP/pool-*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
        while read -r pid; do
            [ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" = "coracle-qemu --supervised " ] && [[ $running != *" $pid "* ]] && echo "$pid"
        done
}
taps() { in_fabric ip -o link show type tun | wc -l; }
launch() { # NAME MODE WORDS...: a guest that answers
    run coracle run --name "$1" --on "$KIND.kvm" --start-mode "$2" "${@:3}" guest
    expect_status 0
    run answers "$1"
    expect_status 0
}

run coracle image import "$IMAGE" guest
expect_status 0

case_is "a first guest, made for it"
launch cold cold
run coracle inspect --json cold
expect_json "j['started_from'] == 'cold'"
run wait_for_pool ready 2
expect_status 0

case_is "from the warm pool, which is filled again"
launch warm pool
run coracle inspect --json warm
expect_json "j['started_from'] == 'pool' and j['warm']"
run wait_for_pool ready 2
expect_status 0
run coracle rm -f warm
expect_status 0

case_is "a parked QEMU that was killed is no shell to start from"
for pid in $(parked); do kill -9 $(cat "/proc/$pid/task/"*/children); done
launch warm auto
run wait_for_pool ready 2
expect_status 0
launch again pool
run coracle rm -f warm again
expect_status 0

case_is "from a snapshot: two guests of one memory, each somebody of its own"
run wait_for_pool snapshots 1
expect_status 0
for guest in one two; do
    launch $guest snapshot
    run coracle inspect --json $guest
    expect_json "j['started_from'] == 'snapshot'"
done
run test "$(address_of one)" != "$(address_of two)"
expect_status 0
for guest in one two; do
    run in_fabric timeout 60 iperf -c "$(address_of $guest)" -t 0.5
    expect_out_like '([0-9.]+) [KMG]bits/sec'
done

if [ "$KIND" = tinyx ]; then
    case_is "code that was translated for the start is given back"
    code_of() { # KiB of the buffer that QEMU translates into
        awk '/^[0-9a-f]+-/ { inside = $2 == "rwxp" } inside && /^Rss:/ { sum += $2 } END { print sum + 0 }' "/proc/$(qemu_of "$1" | tr -d ' ')/smaps"
    }
    [ "$(field one .accelerator)" = tcg ] && for i in {1..600}; do [ "$(code_of one)" -lt 3000 ] && break; sleep 0.1; done
    run test "$(code_of one)" -lt 3000
    expect_status 0
    run answers one
    expect_status 0

    case_is "a microvm has no slots: said before the start, and of one that runs"
    run coracle run --on tinyx.kvm --cpus-max 2 guest
    expect_status 2
    expect_err "resources.cpus_max: a machine of tinyx.kvm has no slots"
    run coracle update -m 256m one
    expect_status 2
    expect_err "was not started with room"
    run coracle update --cpus 0.9 one
    expect_status 0
else
    case_is "processors and memory are added as it runs, and used"
    run coracle run --name grows --on "$KIND.kvm" -m 512m --cpus 1 --cpus-max 2 --memory-max 1GiB --entrypoint /bin/sh guest \
        -c 'while sleep 1; do echo "it has $(nproc) processors, $(($(sed -n "s/MemTotal: *\([0-9]*\).*/\1/p" /proc/meminfo) / 1000)) MB"; done'
    expect_status 0
    wait_log() { for i in {1..1800}; do coracle logs grows | grep -qE "$1" && return; sleep 0.1; done; return 1; }
    run wait_log 'it has 1 processors, [45].. MB'
    expect_status 0
    run coracle update --cpus 2 --memory 768m grows
    expect_status 0
    run coracle inspect --json grows
    expect_json "j['resources']['cpus'] == 2 and j['resources']['memory'] == 768 << 20"
    run wait_log 'it has 2 processors, 6.. MB'
    expect_status 0
    run answers grows
    expect_status 0

    case_is "what cannot be done is refused, and the guest goes on"
    run coracle update --cpus 1 grows
    expect_status 2
    expect_err "processors are not taken from a running machine"
    run coracle update -m 512m grows
    expect_status 2
    expect_err "memory is not taken from a running machine"
    run coracle update -m 800m grows
    expect_status 64
    expect_err "steps of 128 MiB"
    run coracle update -m 2g grows
    expect_status 64
    expect_err "resources.memory_max: less than resources.memory"
    run coracle snapshot create grows kept
    expect_status 2
    expect_err "as it ran"
    run answers grows
    expect_status 0
    run coracle rm -f grows
    expect_status 0
fi

case_is "the launcher is killed: what was parked ends, what runs goes on, the next one fills its own"
run wait_for_pool ready 2
expect_status 0
run parked
expect_out_like '[0-9]+'
PARKED=$OUT
kill -9 "$(cat "$RUN/coracle-launcher.pid")" "$(cat "$RUN/coracled.pid")"
sleep 0.3
for i in {1..100}; do
    left=0
    for pid in $PARKED; do [ "$(tr -d '\0' 2>/dev/null <"/proc/$pid/cmdline")" ] && left=$pid; done 2>/dev/null
    [ $left = 0 ] && break
    sleep 0.1
done
run echo "$left $(cat "/proc/$left/cmdline" "/proc/$left/cgroup" 2>/dev/null | tr '\0' ' ')"
expect_out_is "0 "
coracle up --run-dir "$RUN" --state-dir "$STATE" --user "$(id -un)" --cgroup "$CGROUP" \
    --launcher-config "$WORK/host.conf" >"$WORK/up2" 2>&1
run answers one
expect_status 0
run coracle rm -f cold one two
expect_status 0
run coracle inspect one
expect_status 3
launch last auto
run wait_for_pool ready 2
expect_status 0
run taps
expect_out_is 3 # its own, and those of two shells
run coracle rm -f last
expect_status 0
run sh -c "ls -I 'spare-*' -I 'template-*' '$RUN/instances'"
expect_out_is ""
finish
