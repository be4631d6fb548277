#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Machines that QEMU runs, as a user has them: a unikernel somebody brought (here the guest of tests/integration/qemu) and a
# disk with its boot loader.
source "${0%/*}/../lib.sh"
[ "$(id -u)" = 0 ] || skip "instances in QEMU need root"
command -v qemu-system-x86_64 >/dev/null || skip "qemu-system-x86_64 is not installed"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
GUESTS=$CORACLE_BUILD/tests/integration/qemu
[ -r "$GUESTS/guest" ] || skip "the test guests were not built"
platform_up --with-launcher
wait_log() { for i in {1..200}; do coracle logs "$1" 2>/dev/null | grep -q "$2" && return; sleep 0.05; done; }

case_is "doctor has a row for each"
run coracle doctor --json
expect_json "all(any(c['check'] == t and c['result'] == 'ok' for c in j['checks']) for t in ('unikernel.osv.kvm', 'tinyx.kvm', 'standardvm.kvm'))"

case_is "a brought unikernel runs with its own words for its address"
run coracle image import "$GUESTS/guest" brought/pvh --guest unikernel
expect_status 0
run coracle image import "$GUESTS/guest-multiboot" brought/multiboot --guest unikernel
expect_status 0
run coracle run --name pvh --on unikernel.osv.kvm brought/pvh hello world
expect_status 0
wait_log pvh "agent: hello world"
run coracle logs pvh
expect_out "guest up"
expect_out "agent: hello world"
run pgrep -f "[g]uest=pvh" # ps shows whose machine it is; "nothing is left" below looks for these words
expect_status 0
run coracle inspect --json pvh
expect_json "j['technology'] == 'unikernel.osv.kvm' and j['state'] == 'STARTED' and j['accelerator'] in ('tcg', 'kvm')"
run coracle run --name multiboot --on unikernel.osv.kvm brought/multiboot
expect_status 0
wait_log multiboot "guest up"
run coracle logs multiboot
expect_out "guest up"

case_is "what cannot be told a new identity is not started from a snapshot, and that is said before"
run coracle run --name twin --on unikernel.osv.kvm --start-mode snapshot brought/pvh
expect_status 2
expect_err "unikernel.osv.kvm has no snapshot to start from"
run curl -s --unix-socket "$RUN/api.sock" http://localhost/v1/host
expect_json "all(('snapshot' in t['start_modes']) == ('restore' in t['verbs']) == (t['name'] in ('tinyx.kvm', 'standardvm.kvm')) for t in j['technologies'] if t['driver'] == 'qemu')"

case_is "pause, resume, stop: the agent is asked first, then it is killed"
run coracle pause pvh
expect_status 0
run coracle inspect --json pvh
expect_json "j['state'] == 'PAUSED'"
run coracle resume pvh
expect_status 0
run coracle stop -t 1 pvh
expect_status 0
run coracle logs pvh
expect_out "agent: poweroff"
run coracle rm -f multiboot
expect_status 0

case_is "a disk boots by its own loader, and its writes are the instance's"
truncate -s 1M "$WORK/disk"
dd if="$GUESTS/boot.img" of="$WORK/disk" conv=notrunc status=none
run coracle image import "$WORK/disk" brought/disk --guest disk
expect_status 0
run coracle run --name disk --on standardvm.kvm -m 64m brought/disk
expect_status 0
wait_log disk "booted from disk"
run coracle logs disk
expect_out "booted from disk"
run coracle run --name disk2 --on standardvm.kvm -m 64m brought/disk
expect_status 0
run coracle rm -f disk disk2
expect_status 0

case_is "nothing is left"
for i in {1..100}; do pgrep -f "[g]uest=(pvh|disk|disk2|multiboot)" >/dev/null || break; sleep 0.05; done
run pgrep -f "[g]uest=(pvh|disk|disk2|multiboot)"
expect_status 1
finish
