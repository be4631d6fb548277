# SPDX-License-Identifier: Apache-2.0
# Sourced by the end-to-end tests (bash): a private platform, assertions that say what was expected, cleaning up by pid.
#
# Use: source lib.sh; platform_up [--with-launcher]; run coracle ps; expect_status 0; expect_out NAME; finish
# CORACLE_BUILD names the build directory. Everything made lies below $WORK and goes away with it.

set -u
: "${CORACLE_BUILD:?CORACLE_BUILD must name the build directory}"
CLI_DIR=$CORACLE_BUILD/src/cli
PATH=$CLI_DIR:$PATH
WORK=$(mktemp -d /tmp/coracle-e2e.XXXXXX)
RUN=$WORK/run STATE=$WORK/state CGROUP=coracle-e2e-$$
OUT= ERR= STATUS=0 CASE= FAILURES=0 ASSERTIONS=0
unset CORACLE_TOKEN NO_COLOR CORACLE_CERT CORACLE_KEY CORACLE_CACERT
export CORACLE_HOST=unix://$RUN/api.sock LC_ALL=C.UTF-8 TERM=xterm PYTHONDONTWRITEBYTECODE=1

# Ends the test as skipped, with the reason.
skip()
{
    echo "skipped: $*"
    exit 77
}

_cleanup()
{
    local pid name
    trap - EXIT
    coracle down --run-dir "$RUN" >/dev/null 2>&1
    for name in coracled coracle-launcher; do
        pid=$(cat "$RUN/$name.pid" 2>/dev/null) || continue
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${name:0:15}" ] && kill -9 "$pid"
    done
    # Instances are nobody's children: each is named by the init pid in its cgroup, below our own parent only.
    if [ "${WITH_LAUNCHER:-}" ]; then
        find /sys/fs/cgroup -path "*/$CGROUP/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
            xargs -r kill -9 2>/dev/null
        sleep 0.2
        awk -v d="$WORK/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | xargs -r umount -l 2>/dev/null
        find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} + 2>/dev/null
    fi
    rm -rf "$WORK"
}
trap _cleanup EXIT
trap 'exit 1' INT TERM

# Starts a platform of its own: the daemon alone (technology fake), or with a launcher (root only). Further words are
# options of coracle up.
platform_up()
{
    local options=(--no-launcher)
    [ -x "$CORACLE_BUILD/src/daemon/coracled" ] || skip "coracled is not built"
    if [ "${1:-}" = --with-launcher ]; then
        [ "$(id -u)" = 0 ] || skip "instances of technology container need root"
        options=(--cgroup "$CGROUP")
        WITH_LAUNCHER=1
        shift
    fi
    if ! coracle up --run-dir "$RUN" --state-dir "$STATE" --user "$(id -un)" "${options[@]}" "$@" >"$WORK/up" 2>&1; then
        cat "$WORK/up" "$RUN"/*.log
        echo "FAILED: the platform did not start"
        exit 1
    fi
}

# Names the case that the following assertions belong to.
case_is()
{
    CASE=$*
}

# Runs a command; its output, errors and exit status are then in OUT, ERR and STATUS.
run()
{
    COMMAND=$*
    "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
    STATUS=$?
    OUT=$(cat "$WORK/out")
    ERR=$(cat "$WORK/err")
}

_fail()
{
    FAILURES=$((FAILURES + 1))
    printf 'FAILED: %s\n  %s\n  command: %s\n  status:  %s\n  out:     %s\n  err:     %s\n' \
        "$CASE" "$1" "${COMMAND:-}" "$STATUS" "${OUT:0:1500}" "${ERR:0:1500}"
}

_check()
{
    ASSERTIONS=$((ASSERTIONS + 1))
}

expect_status()
{
    _check
    [ "$STATUS" = "$1" ] || _fail "exit status $1 was expected"
}

expect_out()
{
    _check
    [[ $OUT == *"$1"* ]] || _fail "the output should hold: $1"
}

expect_no_out()
{
    _check
    [[ $OUT != *"$1"* ]] || _fail "the output should not hold: $1"
}

expect_out_is()
{
    _check
    [ "$OUT" = "$1" ] || _fail "the output should be: $1"
}

expect_out_like()
{
    _check
    [[ $OUT =~ $1 ]] || _fail "the output should match: $1"
}

expect_err()
{
    _check
    [[ $ERR == *"$1"* ]] || _fail "the errors should hold: $1"
}

expect_err_is()
{
    _check
    [ "$ERR" = "$1" ] || _fail "the errors should be: $1"
}

# expect_json EXPRESSION: OUT parsed as JSON is j; the Python expression over it must be true.
expect_json()
{
    _check
    python3 -c 'import json, sys; j = json.loads(sys.argv[1]); sys.exit(0 if eval(sys.argv[2]) else 1)' "$OUT" "$1" \
        2>>"$WORK/err" || _fail "JSON: $1"
}

# The same of the errors' stream.
expect_json_error()
{
    local saved=$OUT
    OUT=$ERR
    expect_json "$1"
    OUT=$saved
}

# Says how it went and ends the test.
finish()
{
    if [ "$ASSERTIONS" = 0 ]; then
        echo "FAILED: nothing was asserted"
        exit 1
    fi
    echo "$ASSERTIONS assertions, $FAILURES failed"
    [ "$FAILURES" = 0 ]
    exit
}
