# SPDX-License-Identifier: Apache-2.0
# What the parts of build-tinyx and build-standardvm share: messages, the cache, progress. Sourced, never run.

die() {
    printf '%s: %s\n' "$program" "$1" >&2
    [ $# -lt 2 ] || printf '%s: try: %s\n' "$program" "$2" >&2
    exit 1
}

# Something of this machine or of Debian's archive is missing: another exit status (EX_UNAVAILABLE), tests skip by it.
unavailable() {
    (die "$@") || exit 69
}

say() {
    [ "$quiet" = 1 ] || printf '%s: %s\n' "$program" "$1" >&2
}

# need PROGRAM PACKAGE ...: pairs; all that is missing is named at once.
need() {
    missing=
    while [ $# -gt 0 ]; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing="$missing $2"
        shift 2
    done
    [ -z "$missing" ] || unavailable "programs are missing" "apt install$(printf '%s\n' $missing | sort -u | tr '\n' ' ' | sed 's/^/ /; s/ $//')"
}

# Where downloads and builds are kept; the same place as debian-source's.
default_cache() {
    if [ -n "${XDG_CACHE_HOME:-}" ]; then
        echo "$XDG_CACHE_HOME/coracle"
    elif [ "$(id -u)" = 0 ]; then
        echo /var/cache/coracle
    else
        echo "${HOME:?}/.cache/coracle"
    fi
}

sha_of() {
    cat "$@" | sha256sum | cut -c 1-16
}

size_of() {
    wc -c <"$1" | tr -d ' '
}

# kb BYTES: "1234.5 kB"
kb() {
    awk -v b="$1" 'BEGIN { printf "%.1f kB", b / 1000 }'
}

# counted LABEL EXPECTED LOG COMMAND ...: runs it with its output in LOG; says how far it is by the lines of the log, once
# a line is worth it on a terminal, else every half minute.
counted() {
    label=$1 expected=$2 log=$3
    shift 3
    "$@" >"$log" 2>&1 </dev/null &
    child=$! waited=0
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        waited=$((waited + 1))
        percent=$(($(wc -l <"$log") * 100 / expected))
        [ "$percent" -lt 100 ] || percent=99
        if [ -t 2 ] && [ "$quiet" = 0 ]; then
            printf '\r%s: %s %d%% ' "$program" "$label" "$percent" >&2
        elif [ $((waited % 30)) = 0 ]; then
            say "$label $percent%"
        fi
    done
    status=0
    wait "$child" || status=$?
    child=
    [ ! -t 2 ] || [ "$quiet" = 1 ] || printf '\r\033[K' >&2
    [ "$status" = 0 ] || {
        tail -n 15 "$log" >&2
        die "$label failed" "read the lines above; the whole log is $log"
    }
}

# One of several builds of the same thing at a time; the others then find it done.
locked() {
    lock=$1
    shift
    exec 9>"$lock"
    flock 9
    "$@"
    exec 9>&-
}
