#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The bench against a real launcher and daemon of its own: every metric gives a figure for the container technology, the
# JSON has the fields scripts rely on, nothing is left running. Needs root, iproute2 and iperf: else skips (77).
# Arguments: coracle-bench coracled coracle-launcher coracle-init coracle-unpack image-archive
set -eu
# Meson names the programs relative to the build folder; links to them must not be.
bench=$1 daemon=$2 launcher=$3 init=$(realpath "$4") unpack=$(realpath "$5") archive=$6
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 77; }
for tool in ip iperf; do command -v $tool >/dev/null || { echo "skipped: needs $tool"; exit 77; }; done
unshare -n true 2>/dev/null || { echo "skipped: no network namespaces here"; exit 77; }

work=$(mktemp -d /tmp/bench-test.XXXXXX)
chmod 755 "$work"
launcher_pid= daemon_pid=
finish() {
    status=$?
    [ -z "$daemon_pid" ] || { kill "$daemon_pid" 2>/dev/null || :; wait "$daemon_pid" 2>/dev/null || :; }
    [ -z "$launcher_pid" ] || { kill "$launcher_pid" 2>/dev/null || :; wait "$launcher_pid" 2>/dev/null || :; }
    [ $status = 0 ] || tail -n 5 "$work"/*.log
    umount -l "$work/run/fabric" 2>/dev/null || :
    # From the inside out; what still holds a process stays and is seen.
    find /sys/fs/cgroup -depth -type d -path "*/bench-test-$$*" -exec rmdir {} + 2>/dev/null || :
    rm -rf "$work"
    exit $status
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }

mkdir -m 755 "$work/libexec"
ln -s "$init" "$unpack" "$work/libexec/"
"$launcher" --run-dir "$work/run" --state-dir "$work/state" --cgroup "bench-test-$$" --user root \
    --libexec-dir "$work/libexec" >"$work/launcher.log" 2>&1 &
launcher_pid=$!
for i in $(seq 100); do [ -S "$work/run/launcher.sock" ] && break; sleep 0.1; done
"$daemon" --run-dir "$work/run" --state-dir "$work/state" --user root >"$work/daemon.log" 2>&1 &
daemon_pid=$!
for i in $(seq 100); do [ -S "$work/run/api.sock" ] && break; sleep 0.1; done
sleep 0.5

CORACLE_HOST=unix://$work/run/api.sock "$bench" --technology container --runs 2 --warmup 1 --seconds 0.3 \
    --memory-instances 4 --quick --archive "$archive" --format csv --output "$work/r.csv" --report "$work/r.html" \
    >"$work/bench.log" 2>&1 || fail "the bench ended with $?"
cat "$work/r.csv"
for cell in instantiation,cold/rst,ms instantiation,cold/syn_ack,ms instantiation,pool/rst,ms instantiation,pool/syn_ack,ms \
    throughput_tx,tcp,Gbit/s throughput_rx,tcp,Gbit/s rtt,average,ms image_size,shipped,MB memory,host,MB \
    create_rate,pipelined,1/s; do
    grep -q "^container,none,$cell,2,0,[-0-9]" "$work/r.csv" || fail "no figure for $cell"
done
grep -q "^instrument,none,instrument,onset,ms,2,0," "$work/r.csv" || fail "no baseline of the instrument"
[ "$(grep -c '"kind":"host"' "$work/r.csv.samples.jsonl")" = 1 ] || fail "no fingerprint beside the raw samples"
grep -q '"warmup":true' "$work/r.csv.samples.jsonl" || fail "warm-up runs are not among the raw samples"
grep -q '</html>' "$work/r.html" || fail "the page is not whole"
left=$(ls -I 'spare-*' "$work/run/instances") # a warm shell is no instance
[ -z "$left" ] || fail "instances were left: $left"

# Beside others: they are there, and each takes a connection.
CORACLE_HOST=unix://$work/run/api.sock "$bench" --technology container --metric instantiation --runs 2 --warmup 0 \
    --scale 3 --format csv --output "$work/s.csv" >"$work/bench.log" 2>&1 || fail "the bench beside instances ended with $?"
grep -q "3 of 3 instances of container take a connection" "$work/bench.log" || fail "nobody saw the instances answer"
grep -q "^container,none,instantiation,cold/rst@3,ms,2,0,[-0-9]" "$work/s.csv" || fail "no figure beside instances"

# A daemon that is not there, and a metric that does not exist, are said as such.
"$bench" --run-dir "$work/nowhere" --metric rtt >/dev/null 2>"$work/err.log" && fail "measured without a daemon"
grep -q "no daemon at" "$work/err.log" || fail "no word about the missing daemon"
"$bench" --metric speed >/dev/null 2>&1 && fail "took a metric that is none" || [ $? = 64 ] || fail "wrong exit status"
echo "1 passed, 0 failed"
