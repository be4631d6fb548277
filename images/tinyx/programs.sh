# SPDX-License-Identifier: Apache-2.0
# BusyBox and dropbear, from Debian's source packages with musl, static: without a C library beside them they are a third
# of the binary packages. Sourced by build-tinyx. Built once for each source, configuration and compiler.

# Debian's musl-gcc looks for no kernel headers; the host's stand behind musl's own.
musl_flags="-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-ident \
-idirafter /usr/include -idirafter /usr/include/$(uname -m)-linux-gnu"
musl_link='-static -no-pie -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noseparate-code'

# Every option that BusyBox has and the fragment does not name is off: its allnoconfig knows no list of exceptions.
configure_busybox() {
    make -s -C "$source_dir" O="$program_work" allnoconfig
    grep -rhoE '^(//config:)?[[:space:]]*(menu)?config [A-Z0-9_]+' "$source_dir" "$program_work" --include='Config.*' --include='*.c' |
        sed 's/.* //' | sort -u >"$program_work/known"
    sed -n 's/^CONFIG_\([A-Z0-9_]*\)=.*/\1/p' "$lib/busybox.config" | sort -u >"$program_work/named"
    {
        comm -23 "$program_work/known" "$program_work/named" | sed 's/.*/# CONFIG_& is not set/'
        grep '^CONFIG_' "$lib/busybox.config"
    } >"$program_work/.config"
    yes '' | make -s -C "$source_dir" O="$program_work" oldconfig
    grep '^CONFIG_' "$lib/busybox.config" | while read -r line; do
        grep -qxF "$line" "$program_work/.config" || {
            echo "BusyBox does not take $line"
            exit 1
        }
    done
}

make_busybox() {
    configure_busybox
    KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=0 make -C "$source_dir" O="$program_work" CC=musl-gcc -j "$jobs" \
        CONFIG_EXTRA_CFLAGS="$musl_flags -ffile-prefix-map=$source_dir/=" CONFIG_EXTRA_LDFLAGS="$musl_link" busybox
}

make_dropbear() {
    cp "$lib/dropbear.h" "$program_work/localoptions.h"
    cd "$program_work"
    bash "$source_dir/configure" --host=x86_64-linux-musl CC=musl-gcc CFLAGS="$musl_flags -ffile-prefix-map=$source_dir/=" \
        LDFLAGS="$musl_link" --disable-zlib --disable-syslog --disable-lastlog --disable-utmp --disable-utmpx \
        --disable-wtmp --disable-wtmpx --disable-pututline --disable-pututxline --disable-loginfunc --disable-pam \
        --disable-shadow --disable-harden --enable-static --enable-bundled-libtom
    make PROGRAMS=dropbear -j "$jobs"
}

# In the background, because set -e does not hold in what "||" follows.
build_one() {
    [ -f "$program_dir/complete" ] && return 0
    program_work=$(mktemp -d "$cache/.program-XXXXXX")
    say "building $name"
    (set -e; "make_$name") >"$program_work/log" 2>&1 </dev/null &
    wait $! || {
        tail -n 15 "$program_work/log" >&2
        die "$name cannot be built" "read the lines above; the whole log is $program_work/log"
    }
    mkdir "$program_work/result"
    strip -o "$program_work/result/$name" -R .comment -R .note "$program_work/$name"
    : >"$program_work/result/complete"
    rm -rf "$program_dir"
    mv -T "$program_work/result" "$program_dir"
    rm -rf "$program_work"
}

# prepare_program NAME CONFIGURATION: program_file, and source_dir whose last part says the version.
prepare_program() {
    name=$1
    source_dir=$("$debian_source" "$name" "$cache" 2>"$work_dir/source.log") || {
        tail -n 3 "$work_dir/source.log" >&2
        unavailable "Debian's source of $name cannot be had" "check the network, or build once where there is one: it is then kept in $cache"
    }
    program_dir=$cache/program-$name-$( (cat "$2" "$lib/programs.sh"; basename "$source_dir"; musl_version) | sha_of)
    program_file=$program_dir/$name
    locked "$cache/.lock-$name" build_one
}

musl_version() {
    gcc -dumpfullversion
    dpkg-query -W -f '${Version}\n' musl-dev 2>/dev/null || true
}
