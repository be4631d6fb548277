#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the command line does without any daemon: help, errors, did-you-mean, exit codes, --explain, completion, manual.
source "${0%/*}/../lib.sh"

case_is "no command at all is a usage error, help is not"
run coracle
expect_status 64
run coracle --help
expect_status 0
expect_out "Usage: coracle"
run coracle --version
expect_out_like '^coracle [0-9]+\.[0-9]+\.[0-9]+$'

case_is "every command explains itself, in help and by --help"
while read -r name; do
    run coracle help $name
    expect_status 0
    expect_out "Usage: coracle $name"
    case $name in bench | pack) continue ;; esac
    run coracle $name --help
    expect_status 0
    expect_out "Usage: coracle $name"
done < <(coracle help --json | python3 -c 'import json,sys; [print(c["name"]) for c in json.load(sys.stdin)["commands"]]')

case_is "did you mean: commands, second words, options"
run coracle stpo x
expect_status 64
expect_err "did you mean coracle stop?"
run coracle image improt x
expect_status 64
expect_err "did you mean coracle image import?"
run coracle run --memroy 1 x
expect_status 64
expect_err "did you mean --memory?"
run coracle help stpo
expect_status 64
expect_err "did you mean coracle help stop?"

case_is "errors say what, code and remedy; colours only when asked for in a pipe"
run coracle ps
expect_status 1
expect_err_is "error: the daemon is not running: nobody listens on $RUN/api.sock (DAEMON_UNAVAILABLE)
try: sudo coracle up, or: systemctl start coracled; coracle doctor checks this host"
run coracle --color=always ps
expect_err $'\033[31m'
run coracle --color=sometimes ps
expect_status 64
expect_err "none of auto, never, always"

case_is "errors as JSON"
run coracle ps --json
expect_status 1
expect_out_is ""
expect_json_error 'j["code"] == "DAEMON_UNAVAILABLE" and "coracle up" in j["hint"] and j["status"] == 503'
run coracle stop --json
expect_status 64
expect_json_error 'j["code"] == "MISSING_FIELD"'

case_is "addresses of daemons"
run coracle -H http://127.0.0.1:1 ps
expect_status 64
expect_err "https://host:port"
run coracle -H unix:///nowhere/api.sock ps
expect_status 1
expect_err "/nowhere/api.sock"
run coracle -H https://127.0.0.1:1 ps
expect_status 1
expect_err "DAEMON_UNAVAILABLE"

case_is "--explain shows requests and sends none"
explain()
{
    local want=$1
    shift
    run coracle --explain "$@"
    expect_status 0
    expect_out "$want"
}
printf 'name: a\nimage: x\n' >"$WORK/a.yaml"
printf x >"$WORK/a.tar"
explain "POST /v1/instances?start=true" run --name a img word
expect_out '"args": ['
expect_out "GET /v1/operations/OPERATION?wait_ms="
explain "POST /v1/instances/INSTANCE/attach" run -it img
explain "DELETE /v1/instances/INSTANCE?force=true" run --attach --rm img
explain "POST /v1/instances?start=false" create img
explain "POST /v1/instances/a/start" start a
explain "POST /v1/instances/b/stop" stop a b
explain '"grace_ms": 500' stop -t 500ms a
explain "POST /v1/instances/a/restart" restart a
explain "POST /v1/instances/a/pause" pause a
explain "POST /v1/instances/a/resume" unpause a
explain '"memory": "128MiB"' update -m 128m a
explain "PATCH /v1/instances/a" update --label x=y a
explain '"signal": "SIGHUP"' kill -s hup a
explain "DELETE /v1/instances/a%2Fb?force=true" rm -f a/b
explain "GET /v1/instances/a" wait a --for=ready
explain "GET /v1/instances?technology=container&state=-FAILED" ps tech:container -state:failed
explain "GET /v1/instances/a" inspect a
explain "GET /v1/operations?instance=a" inspect --steps a
explain "GET /v1/instances/a/logs?follow=true&tail=5" logs -f --tail 5 a
explain "POST /v1/instances/a/exec" exec -u 1 -e A=b a ls -l
expect_out '"user": "1"'
explain "POST /v1/instances/a/attach" attach a
explain "GET /v1/stats" top
explain "GET /v1/instances/a/stats" stats a
explain "GET /v1/events?follow=true&instance=a" events -f a
explain "GET /v1/operations?instance=a&state=FAILED" operations --instance a --state FAILED
explain "GET /v1/operations/1" operations inspect 1
explain "POST /v1/operations/1/cancel" operation cancel 1
explain "GET /v1/images" images
explain "POST /v1/images?name=coracle%2Fx" image import "$WORK/a.tar" coracle/x
explain '"reference": "docker://reg/x:1"' pull reg/x:1
explain "GET /v1/images/reg%2Fx" image inspect reg/x
explain "DELETE /v1/images/reg%2Fx" rmi reg/x
explain "GET /v1/networks" networks
explain '"ipv4": "198.18.9.0/24"' network create --subnet 198.18.9.0/24 n
explain "GET /v1/networks/n" network inspect n
explain "DELETE /v1/networks/n" network rm n
explain "POST /v1/plan" plan -f "$WORK/a.yaml"
explain "POST /v1/instances?start=true" apply -f "$WORK/a.yaml"
explain "GET /v1/host" doctor
explain "GET /v1/version" version
explain "GET /v1/health" up
explain "GET /v1/instances?state=STARTED" down --all
run coracle --explain --json stop a
OUT="[${OUT//$'\n'/,}]"
expect_json '[x["method"] for x in j] == ["POST", "GET"] and j[0]["path"] == "/v1/instances/a/stop"'

case_is "values that cannot be meant"
for words in "stop -t 5x a" "run --restart on-failure:x img" "run -l novalue img" "run --rm img" "run -d --attach img" \
    "run --network a:bad=1 img" "run --cpus" "wait a --for=never" "ps --sort colour" "ps colour:red" \
    "ps --filter x" "top --interval 1ms" "top --sort x" "logs --tail x a" "logs --since yesterday a" \
    "events --filter x=y" "apply" "update a" "completion csh" "network create --mtu big n" "run" \
    "apply -f $WORK/a.yaml --check-index zz"; do
    run coracle --explain $words
    case $words in apply*check*) run coracle $words; expect_status 1; continue ;; esac
    expect_status 64
done

case_is "files that cannot be read"
run coracle run -f "$WORK/none.yaml"
expect_status 64
expect_err "none.yaml cannot be read"
run coracle image import "$WORK/none.tar"
expect_status 64
mkdir "$WORK/plain"
run coracle image import "$WORK/plain"
expect_status 1
expect_err "oci-layout"
printf 'a: [1\n' >"$WORK/bad.yaml"
run coracle run -f "$WORK/bad.yaml"
expect_status 64
expect_err "MALFORMED_BODY"

case_is "doctor without a daemon looks at the host"
run coracle doctor
expect_status 1
expect_out "[fail] daemon: the daemon is not running"
expect_out "try: sudo coracle up"
expect_out_like '\[(ok|warn|fail)\] +KVM:'
expect_out_like '\[(ok|warn|fail)\] +cgroups: version [12]'
expect_no_out $'\033'
run coracle doctor --json
expect_status 1
expect_json 'j["ok"] is False and j["host"] is None and any(c["check"] == "landlock" for c in j["checks"])'

case_is "version works without a daemon"
run coracle version
expect_status 0
expect_out "daemon  not reached"
run coracle version --json
expect_json 'j["server"] is None and j["api"] == "v1"'

case_is "down without a platform"
run coracle down --run-dir "$RUN"
expect_status 0
expect_out "is not running"

case_is "completion scripts are valid and complete commands"
for shell in bash zsh fish; do
    coracle completion $shell >"$WORK/completion.$shell"
    command -v $shell >/dev/null || continue
    run $shell -n "$WORK/completion.$shell"
    expect_status 0
    expect_err_is ""
done
complete_with_bash()
{
    bash -c 'source "$0"; COMP_WORDS=(coracle "$@"); COMP_CWORD=$#; compopt() { :; }; _coracle; printf "%s\n" "${COMPREPLY[@]}"' \
        "$WORK/completion.bash" "$@"
}
run complete_with_bash rest
expect_out_is "restart"
run complete_with_bash image p
expect_out_is "pull"
run complete_with_bash ps --so
expect_out_is "--sort"
run complete_with_bash run -f "$WORK/a."
expect_out "$WORK/a.yaml"

case_is "the manual pages are clean"
coracle help --man >"$WORK/coracle.1"
for page in "$WORK/coracle.1" "${0%/*}"/../../../docs/man/*.[58]; do
    if command -v mandoc >/dev/null; then
        run mandoc -Tlint "$page"
        expect_out_is ""
    fi
    if command -v groff >/dev/null; then
        run groff -man -ww -Tutf8 -z "$page"
        expect_err_is ""
    fi
done

case_is "bench and pack hand words and connection on to their programs"
mkdir "$WORK/bin"
cp "$(command -v coracle)" "$WORK/bin"
for program in coracle-bench pack-image; do
    printf '#!/bin/sh\necho "${0##*/} $* at $CORACLE_HOST with $CORACLE_TOKEN"; exit 7\n' >"$WORK/bin/$program"
    chmod +x "$WORK/bin/$program"
done
run "$WORK/bin/coracle" --token secret --json bench --technology container --runs 3
expect_status 7
expect_out_is "coracle-bench --technology container --runs 3 --format=json at $CORACLE_HOST with secret"
run "$WORK/bin/coracle" pack --output x.tar app
expect_out_is "pack-image --output x.tar app at $CORACLE_HOST with "
rm "$WORK/bin/pack-image"
mkdir "$WORK/bin/alone"
mv "$WORK/bin/coracle" "$WORK/bin/alone"
run "$WORK/bin/alone/coracle" pack
if [ ! -x /usr/local/libexec/coracle/pack-image ] && [ ! -x /usr/libexec/coracle/pack-image ]; then
    expect_status 64
    expect_err "pack-image is not installed"
fi

finish
