# SPDX-License-Identifier: Apache-2.0
# Shared by quickstart, check and the package scripts: messages, package installation, building. Sourced, never run.

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
step() { bold "==> $*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    [ $# -lt 2 ] || printf 'try: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "needs root (it installs packages and makes network namespaces)" "sudo ./${0##*/}"
}

need_debian() {
    . /etc/os-release
    [ "${ID:-}" = debian ] && [ "${VERSION_ID:-0}" -ge 12 ] ||
        printf 'note: written for Debian 12; this is %s. Going on.\n' "${PRETTY_NAME:-an unknown system}" >&2
}

# install_packages LIST...: every package named in the lists that is not installed yet, in one apt call.
install_packages() {
    wanted=$(cat "$@" | sed 's/#.*//' | tr -s ' \t\n' '\n' | sed '/^$/d' | sort -u)
    missing=
    for package in $wanted; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || { echo "all packages are installed"; return 0; }
    echo "installing:$missing"
    apt_log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } > "$apt_log" 2>&1; then
        tail -n 20 "$apt_log" >&2
        die "apt-get could not install:$missing" "read the lines above; the whole log is $apt_log"
    fi
    rm -f "$apt_log"
}

# build DIR [MESON OPTION...]: configures DIR when it is new, and builds.
build() {
    directory=$1
    shift
    if [ ! -f "$directory/build.ninja" ]; then
        meson setup "$@" "$directory" > "$directory.setup.log" 2>&1 || {
            tail -n 20 "$directory.setup.log" >&2
            die "meson could not configure $directory" "read the lines above; the whole log is $directory.setup.log"
        }
        rm -f "$directory.setup.log"
    fi
    if [ -t 1 ]; then ninja -C "$directory"; else ninja -C "$directory" --quiet; fi ||
        die "the build in $directory failed" "read the first error above"
}
