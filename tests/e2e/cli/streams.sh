#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# logs, events, exec, attach and run --attach: what flows while a command stands.
source "${0%/*}/../lib.sh"
platform_up
coracle -q run --on fake --name a >/dev/null

# Runs a command in the background with its output in $WORK/bg; stop_background ends it by pid.
background()
{
    "$@" >"$WORK/bg" 2>&1 </dev/null &
    BACKGROUND=$!
}

stop_background()
{
    kill "$BACKGROUND" 2>/dev/null
    wait "$BACKGROUND" 2>/dev/null
}

# Waits until the background's output holds a word, at most 5 s.
expect_background()
{
    local i
    COMMAND="(background) $1"
    for i in {1..100}; do
        OUT=$(cat "$WORK/bg")
        [[ $OUT == *"$1"* ]] && break
        sleep 0.05
    done
    expect_out "$1"
}

case_is "logs: streams apart, times, JSON lines, tail"
coracle -q kill -s hup a >/dev/null
run coracle logs a
expect_out_is "fake instance started"
expect_err_is "signal 1"
run coracle logs --timestamps a
expect_out_like '^20[0-9-]+T[0-9:]+\.[0-9]{9}Z fake instance started$'
run coracle logs --json a
OUT="[${OUT//$'\n'/,}]"
expect_json '[r["stream"] for r in j] == ["stdout", "stderr"] and j[0]["text"] == "fake instance started"'
run coracle logs --tail 1 a
expect_out_is ""
expect_err_is "signal 1"
run coracle logs --stream stdout a
expect_err_is ""
run coracle logs --since 1h a
expect_out_is "fake instance started"
run coracle logs --since 2100-01-01T00:00:00Z a
expect_out_is ""
run sh -c 'coracle logs a 2>&1'
expect_out_is $'fake instance started\nsignal 1'

case_is "logs -f goes on"
background coracle logs -f a
expect_background "fake instance started"
coracle -q kill -s usr1 a >/dev/null
expect_background "signal 10"
stop_background

case_is "events: list, filter, follow, JSON lines"
run coracle events a
expect_out_like 'instance.state +a +STARTING -> STARTED'
run coracle events --filter type=operation
expect_no_out "instance.state"
expect_out "operation.ended"
run coracle events --tail 2
expect_status 0
[ "$(printf '%s\n' "$OUT" | wc -l)" = 2 ] || _fail "two lines"
run coracle events --json --since 1h
expect_json 'len(j["items"]) >= 4 and j["items"][0]["seq"] < j["items"][-1]["seq"]'
background coracle events -f --json a
sleep 0.3
coracle -q pause a >/dev/null
expect_background '"to":"PAUSED"'
coracle -q resume a >/dev/null
expect_background '"to":"STARTED"'
stop_background

case_is "exec: output, exit status, input, JSON"
run coracle exec a echo hello there
expect_status 0
expect_out_is "hello there"
run coracle exec a exit 42
expect_status 42
run coracle exec a -- echo -n --json
expect_out_is "-n --json"
run sh -c 'echo typed | coracle exec -i a cat'
expect_status 0
run coracle exec --json a echo x
expect_json 'j == {"exit": {"status": 0}, "stdout": "x\n", "stderr": ""}'
run sh -c "coracle exec -t a true </dev/null"
expect_status 64
expect_err "no terminal"
run coracle exec nobody true
expect_status 3

case_is "run --attach stays until the end, shows everything, ends with its status"
printf 'technology: fake\nname: short\nfault: {step: run, after_ms: 300, exit_status: 7}\n' >"$WORK/short.yaml"
run coracle run --attach --rm -f "$WORK/short.yaml"
expect_status 7
expect_out "fake instance started"
run coracle inspect short
expect_status 3

case_is "attach: without a terminal of its own it only looks; gone is 3"
run coracle attach nobody
expect_status 3
printf 'technology: fake\nname: look\nfault: {step: run, after_ms: 700, exit_status: 3}\n' >"$WORK/look.yaml"
coracle -q run -f "$WORK/look.yaml" >/dev/null
run timeout 5 coracle attach --no-stdin look
expect_status 3

case_is "a reader that goes away ends the command, without complaint"
run sh -c 'coracle ps -a | head -1'
expect_out_like '^NAME'
expect_err_is ""
run timeout 5 sh -c 'coracle logs -f --stream stdout a | head -1'
expect_out_is "fake instance started"
expect_status 0

case_is "the daemon dies under a follower: said, not hidden"
background coracle events -f
sleep 0.3
kill -9 "$(cat "$RUN/coracled.pid")"
wait "$BACKGROUND"
STATUS=$?
OUT=$(cat "$WORK/bg")
expect_status 1
expect_out "DAEMON_UNAVAILABLE"

finish
