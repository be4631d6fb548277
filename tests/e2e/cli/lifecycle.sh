#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every command that changes or shows instances, networks and operations, against a daemon with the technology fake.
source "${0%/*}/../lib.sh"
platform_up

case_is "up again says that it runs"
run coracle up --no-launcher --run-dir "$RUN" --state-dir "$STATE" --user "$(id -un)"
expect_status 0
expect_out "is running already"

case_is "run prints the name on stdout, the time and warm or cold beside it"
run coracle run --on fake --name edge-fw --label tenant=a --label tier=front -m 64m --cpus 0.5 --pids 32
expect_status 0
expect_out_is "edge-fw"
[[ $ERR =~ ^edge-fw\ started\ in\ [0-9.]+\ (us|ms|s)\ \((warm\ pool|cold)\)$ ]]
OUT=$? expect_out_is 0
run coracle -q run --on fake --name quiet
expect_out_is "quiet"
expect_err_is ""
run coracle run --on fake --name as-data --json
expect_json 'j["instance"]["state"] == "STARTED" and j["operation"]["operationState"] == "COMPLETED"'

case_is "inspect: for people, as JSON, one field"
run coracle inspect edge-fw
expect_out "fake, accelerator none"
expect_out_like 'Resources +[^ ]+=.*'
run coracle inspect --json edge-fw
expect_json 'j["name"] == "edge-fw" and j["labels"] == {"tenant": "a", "tier": "front"}'
expect_json 'j["spec"]["resources"]["memory"] == "64MiB" and j["spec"]["resources"]["cpus"] == 0.5'
run coracle inspect --field labels.tenant edge-fw
expect_out_is "a"
run coracle inspect --field networks.0.ipv4 edge-fw
expect_out_like '^198\.1[89]\.'
run coracle inspect --field nothing.here edge-fw
expect_status 64
expect_err 'there is no "nothing"'
ID=$(coracle inspect --field id edge-fw)
run coracle inspect --field name "${ID:0:8}"
expect_out_is "edge-fw"

case_is "inspect --steps shows where the time went"
run coracle inspect --steps edge-fw
expect_out "INSTANTIATE of edge-fw: COMPLETED in "
expect_out_like $'\nparse +'
expect_out "█"
LC_ALL=C run env LC_ALL=C coracle inspect --steps edge-fw
expect_out "#"
expect_no_out "█"

case_is "did you mean for names; not found is 3"
run coracle inspect edge-wf
expect_status 3
expect_err "did you mean edge-fw?"
run coracle stop nothing-like-it
expect_status 3
expect_err "INSTANCE_NOT_FOUND"

case_is "a name taken is 4, an unknown technology 64, what cannot be placed 2"
run coracle run --on fake --name edge-fw
expect_status 4
expect_err "NAME_TAKEN"
run coracle run --on faek
expect_status 64
expect_err 'did you mean "fake"?'
run coracle pause as-data
run coracle exec as-data echo x
[ "$STATUS" -ne 0 ]
OUT=$? expect_out_is 0
run coracle resume as-data
expect_status 0

case_is "ps: columns, filters, search words, ids, JSON, sort"
run coracle ps
expect_out_like '^NAME +TECHNOLOGY +STATE +IMAGE +ADDRESS +PORTS +AGE +ID'
expect_out "edge-fw"
expect_no_out $'\033'
run coracle ps label:tenant=a
expect_out "edge-fw"
expect_no_out "quiet"
run coracle ps -state:started
expect_no_out "edge-fw"
run coracle ps --filter name=quiet
expect_out "quiet"
expect_no_out "edge-fw"
run coracle ps front
expect_out "edge-fw"
expect_no_out "quiet"
run coracle ps tech:container
expect_no_out "edge-fw"
run coracle ps -q label:tenant=a
expect_out_is "$ID"
run coracle ps --json --sort name
expect_json '[i["name"] for i in j["items"]] == ["as-data", "edge-fw", "quiet"]'
run coracle ps state:nonsense
expect_status 64

case_is "stop hides from ps, ps -a shows, start brings back"
run coracle stop -t 200ms edge-fw quiet
expect_status 0
expect_out_is $'edge-fw\nquiet'
run coracle ps
expect_no_out "edge-fw"
run coracle ps -a
expect_out "STOPPED"
run coracle ps state:exited -q
expect_out "$ID"
run coracle wait edge-fw
expect_status 0
expect_out_is "0"
run coracle start edge-fw
expect_status 0
expect_err "started in"
run coracle restart --json edge-fw
expect_json 'j["operation"] == "OPERATE" and j["isRestart"] is True and j["operationState"] == "COMPLETED"'

case_is "several names: errors of one do not stop the others"
run coracle stop nobody quiet as-data
expect_status 3
expect_err '"nobody"'
expect_out "as-data"

case_is "update, kill, pause"
run coracle update --memory 128m --label tier=back edge-fw
expect_status 0
run coracle inspect --field labels.tier edge-fw
expect_out_is "back"
run coracle kill -s hup edge-fw
expect_status 0
run coracle pause edge-fw
expect_status 0
run coracle inspect --field state edge-fw
expect_out_is "PAUSED"
run coracle unpause edge-fw
expect_status 0

case_is "create leaves it unstarted"
run coracle create --on fake --name later
expect_status 0
run coracle inspect --field state later
expect_out_is "NOT_INSTANTIATED"
run coracle ps
expect_no_out "later"
run coracle start --no-wait later
expect_status 0
run coracle wait later --for=started --timeout 5s
expect_status 0
expect_out_is "later"

case_is "wait gives up in time, and at once when it failed"
run coracle wait later --for=stopped --timeout 200ms
expect_status 1
expect_err "TIMEOUT"
printf 'name: broken\ntechnology: fake\nfault: {step: start}\n' >"$WORK/broken.yaml"
run coracle run -f "$WORK/broken.yaml"
expect_status 1
expect_err "START_FAILED"
run coracle wait broken --for=ready --timeout 5s
expect_status 1
expect_err "broken failed"
run coracle ps state:failed
expect_out "broken"
run coracle wait broken --for=state=FAILED --timeout 5s
expect_status 0

case_is "a descriptor, flags over it, standard input"
printf 'name: from-file\ntechnology: fake\nlabels: {a: "1", b: "2"}\n' >"$WORK/d.yaml"
run coracle run -f "$WORK/d.yaml" --name other --label b=3
expect_out_is "other"
run coracle inspect --json other
expect_json 'j["labels"] == {"a": "1", "b": "3"}'
printf 'technology: fake\ncolour: red\n' >"$WORK/bad.yaml"
run coracle run -f "$WORK/bad.yaml"
expect_status 64
expect_err "UNKNOWN_FIELD"
run coracle run --on fake -m 64MIB
expect_status 64
expect_err "INVALID_UNIT"

case_is "stats and top in a pipe; unknown is not 0"
run coracle stats edge-fw
expect_out_like 'rx_packets +not measured'
run coracle stats --json edge-fw
expect_json 'j["name"] == "edge-fw" and j["rx_packets"] is None'
run coracle top --once --interval 200ms
expect_out_like '^NAME +TECHNOLOGY +CPU +MEMORY'
expect_out_like 'edge-fw +fake +[0-9.]+% +1.0 MiB'
expect_out "not measured"
expect_no_out $'\033'
run coracle top --json
expect_json 'len(j["items"]) >= 2'

case_is "operations"
run coracle operations edge-fw
expect_out "OPERATE to STOPPED"
expect_out "(restart)"
OPERATION=$(coracle operations -q edge-fw | head -1)
run coracle operations inspect "$OPERATION"
expect_out_like "of edge-fw: COMPLETED in"
run coracle operation inspect --json "$OPERATION"
expect_json 'j["steps"]'
run coracle operation cancel "$OPERATION"
expect_status 4
printf 'name: slow\ntechnology: fake\nfault: {step: hang-start}\n' >"$WORK/slow.yaml"
run coracle run --no-wait -f "$WORK/slow.yaml"
expect_out_is "slow"
run coracle operation cancel "$(coracle operations -q slow | head -1)"
expect_status 0
run coracle wait slow --for=state=FAILED --timeout 5s
[[ $STATUS = 0 || $(coracle inspect --field state slow) = NOT_INSTANTIATED ]]
OUT=$? expect_out_is 0

case_is "networks"
run coracle network create --ipv4 198.18.200.0/24 service
expect_status 4
expect_err "overlap"
run coracle network create --ipv4 198.19.200.0/24 service
expect_status 0
run coracle network ls
expect_out "198.19.200.0/24"
run coracle networks --json
expect_json 'sorted(n["name"] for n in j["items"]) == ["default", "service"]'
run coracle run --on fake --name pinned --network service:ip=198.19.200.77
expect_status 0
run coracle inspect --field networks.0.ipv4 pinned
expect_out_is "198.19.200.77"
run coracle network rm service
expect_status 4
run coracle network inspect servcie
expect_status 3
expect_err "did you mean service?"

case_is "remove: running needs -f; several; then gone"
run coracle rm pinned
expect_status 4
expect_err "CONFLICTING_STATE"
run coracle rm -f pinned other
expect_status 0
run coracle wait pinned --for=removed --timeout 5s
expect_status 0
run coracle network rm service
expect_status 0

case_is "plan, apply, its index"
printf 'name: one\ntechnology: fake\n---\nname: edge-fw\ntechnology: fake\nhostname: changed\n' >"$WORK/p.yaml"
run coracle plan -f "$WORK/p.yaml"
expect_out "+ one"
expect_out "~ edge-fw"
expect_out "hostname: not given -> changed"
expect_out "1 to create, 0 as wanted, 1 different"
run coracle plan --json -f "$WORK/p.yaml"
INDEX=$(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["index"])' "$OUT")
coracle -q run --on fake --name one >/dev/null
run coracle apply -f "$WORK/p.yaml" --check-index "$INDEX"
expect_status 4
expect_err "PRECONDITION_FAILED"
coracle -q rm -f one >/dev/null
run coracle apply -f "$WORK/p.yaml" --check-index "$INDEX"
expect_status 4
expect_err "differ"
run coracle inspect --field state one
expect_out_is "STARTED"
printf 'name: one\ntechnology: fake\n---\n' >"$WORK/p.yaml"
run coracle apply -f "$WORK/p.yaml"
expect_status 0
expect_out "0 to create, 1 as wanted, 0 different"
expect_out "0 created, 1 as wanted, 0 different, 0 failed"
printf 'name: good\ntechnology: fake\n---\nname: bad\ntechnology: fake\nfault: {step: start}\n' >"$WORK/p.yaml"
run coracle apply --json -f "$WORK/p.yaml"
expect_status 1
expect_json 'j["applied"] is False and [i["result"] for i in j["items"]] == ["created", "START_FAILED"]'
expect_json_error 'j["code"] == "START_FAILED"'
coracle -q rm -f good bad >/dev/null

case_is "plan checks with the server, apply goes on after a bad one"
printf 'name: first\ntechnology: fake\n---\nname: wrong\ntechnology: fake\nresources: {memory: 12parsecs}\n---\ntechnology: fake\n---\nname: odd\ntechnology: fake\ncolour: red\n---\nname: gone\nimage: no/such\n---\nname: first\ntechnology: fake\n---\nname: last\ntechnology: fake\n' >"$WORK/p.yaml"
run coracle plan -f "$WORK/p.yaml"
expect_status 64
expect_out "+ first"
expect_out "! wrong"
expect_out "INVALID_UNIT"
expect_out "! descriptor number 3"
expect_out "! odd"
expect_out "UNKNOWN_FIELD"
expect_out "+ last"
expect_out "2 to create, 0 as wanted, 0 different, 5 invalid"
run coracle inspect first
expect_status 3
run coracle apply -f "$WORK/p.yaml"
expect_status 64
expect_out "2 created, 0 as wanted, 0 different, 5 failed"
run coracle inspect --field state last
expect_out_is "STARTED"
run coracle apply --json -f "$WORK/p.yaml"
expect_json '[i["result"] for i in j["items"] if "result" in i].count("UNKNOWN_FIELD") == 1 and j["applied"] is False'
coracle -q rm -f first last >/dev/null

case_is "images of an empty store"
run coracle images
expect_out_like '^REFERENCE +GUEST +DIGEST'
run coracle image inspect none/such
expect_status 3
expect_err "IMAGE_NOT_FOUND"
run coracle image rm none/such
expect_status 3

case_is "doctor with a daemon: technologies, accelerator, what is missing"
run coracle doctor
expect_status 1
expect_out "[ok]   daemon: running"
expect_out "[ok]   fake: runs here, accelerator none"
expect_out "[fail] launcher: not running"
expect_out "[warn] container: cannot run here"
run coracle doctor --json
expect_json 'j["host"]["technologies"] and j["ok"] is False'

case_is "version with a daemon"
run coracle version --json
expect_json 'j["server"]["api"] == "v1" and j["client"] == j["server"]["version"]'

case_is "completion knows the names"
run coracle __complete stop edg
expect_out "edge-fw"
run coracle __complete run --network ""
expect_out "default"
run coracle __complete run --technology f
expect_out "fake"

case_is "down leaves nothing running of this platform, --all stops first"
PID=$(cat "$RUN/coracled.pid")
run coracle down --all --run-dir "$RUN"
expect_status 0
expect_out "stopped"
# One that ended may stay visible until PID 1 waits for it.
grep -qs '^State:[[:space:]]*[A-Y]' "/proc/$PID/status"
OUT=$(($? != 0)) expect_out_is 1
run coracle ps
expect_err "DAEMON_UNAVAILABLE"

finish
