#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# exec over the real platform: launcher, container, coracle-init. Needs root and busybox (static); else skipped.
source "$(dirname "$0")/../lib.sh"
busybox=$(command -v busybox) && ldd "$busybox" >/dev/null 2>&1 && skip "busybox is not static"
[ "$busybox" ] || skip "no busybox"
platform_up --with-launcher
mkdir -p "$WORK/root/bin" && cp "$busybox" "$WORK/root/bin/busybox"
tar -C "$WORK/root" -cf "$WORK/root.tar" .
curl -sS -m 60 --fail-with-body --unix-socket "$RUN/api.sock" -H 'Content-Type: application/x-tar' --data-binary "@$WORK/root.tar" \
    'http://x/v1/images?name=busybox&entrypoint=%5B%22/bin/busybox%22,%22sleep%22,%22100000%22%5D' >"$WORK/import" || { cat "$WORK/import" "$RUN"/*.log; exit 1; }
curl -sS -m 60 --fail-with-body --unix-socket "$RUN/api.sock" -H 'Content-Type: application/json' -d '{"name":"box","image":"busybox"}' \
    http://x/v1/instances >"$WORK/create" || { cat "$WORK/create"; exit 1; }
operation=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["operation"]["id"])' "$WORK/create")
curl -sS -m 60 --unix-socket "$RUN/api.sock" "http://x/v1/operations/$operation?wait_ms=20000" >"$WORK/started"
grep -q COMPLETED "$WORK/started" || { cat "$WORK/started"; exit 1; }
timeout 100 python3 "$(dirname "$0")/relay.py" "$RUN/api.sock" box
