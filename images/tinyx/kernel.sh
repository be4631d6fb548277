# SPDX-License-Identifier: Apache-2.0
# The kernel: Debian's linux-source-6.1, our configuration, built once for each configuration and source. Sourced by
# build-tinyx. Gives: kernel_dir, where kernel, config and weights lie.

linux_package=linux-source-6.1

# The newest version that apt knows; without apt's lists the newest in the cache.
linux_version() {
    version=$(apt-cache show --no-all-versions $linux_package 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
    [ -n "$version" ] || version=$(cd "$cache" 2>/dev/null && ls -d linux-[0-9]* 2>/dev/null | sort -V | tail -n 1 | sed 's/^linux-//')
    [ -n "$version" ] || unavailable "apt knows no package $linux_package, from which the kernel is built, and $cache has no source of it" \
        "apt-get update, with Debian 12's archive in the sources"
    echo "$version" | tr : _
}

# Without what this kernel cannot use: a third of the time and of the room.
unpack_linux() {
    [ -f "$linux_source/Makefile" ] && return 0
    say "fetching $linux_package $version (140 MB)"
    work=$(mktemp -d "$cache/.linux-XXXXXX")
    if [ -f /usr/src/$linux_package.tar.xz ] && [ "$(dpkg-query -W -f '${Version}' $linux_package 2>/dev/null | tr : _)" = "$version" ]; then
        archive=/usr/src/$linux_package.tar.xz
    else
        (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$linux_package" >log 2>&1) || {
            tail -n 3 "$work/log" >&2
            rm -rf "$work"
            unavailable "the package $linux_package cannot be had" "apt-get update; or apt install $linux_package where there is a network"
        }
        dpkg-deb --fsys-tarfile "$work"/*.deb | tar -xf - -C "$work" ./usr/src/$linux_package.tar.xz
        rm -f "$work"/*.deb
        archive=$work/usr/src/$linux_package.tar.xz
    fi
    say "unpacking it"
    tar -xf "$archive" -C "$work" --wildcards -X "$lib/kernel.skip" || die "cannot unpack $archive" "is the disk of $cache full?"
    mv -T "$work/$linux_package" "$linux_source"
    rm -rf "$work"
}

# The code of system calls and interrupts stands on huge pages of its own, so that page table isolation can map it alone.
# Isolation is off here: 3 MB of nothing in a guest of 24. The one thing that no option of the configuration says.
close_gap() {
    sed -i '/#define ALIGN_ENTRY_TEXT_\(BEGIN\|END\)[[:space:]]/s/\. = ALIGN(PMD_SIZE);//' "$linux_source/arch/x86/kernel/vmlinux.lds.S"
}

linux_make() {
    make -C "$linux_source" O="$kernel_work" ARCH=x86_64 CC="${CORACLE_CC:-$compiler}" KBUILD_BUILD_TIMESTAMP=@0 \
        KBUILD_BUILD_USER=coracle KBUILD_BUILD_HOST=coracle KBUILD_BUILD_VERSION=1 LOCALVERSION= "$@"
}

# Each line of the fragment must have taken effect: a name that the kernel dropped, or whose needs are not met, is an error.
check_config() {
    lost=
    while read -r line; do
        case $line in
        CONFIG_*) grep -qxF "$line" "$kernel_work/.config" || lost="$lost $line" ;;
        '# CONFIG_'*' is not set')
            name=${line#\# }
            ! grep -q "^${name%% *}=" "$kernel_work/.config" || lost="$lost ${name%% *}=n"
            ;;
        esac
    done <"$kernel_work/fragment"
    [ -z "$lost" ] || die "the kernel's configuration does not take$lost" "does it need another option that is off? Add that with --kernel-option"
}

configure_kernel() {
    cat "$linux_source/kernel/configs/tiny-base.config" "$linux_source/kernel/configs/tiny.config" \
        "$linux_source/arch/x86/configs/tiny.config" "$kernel_work/fragment" >"$kernel_work/all.config"
    linux_make -s KCONFIG_ALLCONFIG="$kernel_work/all.config" allnoconfig >"$kernel_work/log" 2>&1 || {
        tail -n 5 "$kernel_work/log" >&2
        die "the kernel cannot be configured"
    }
    check_config
}

# What each part of the kernel weighs: code and data of the objects that were linked, by folder.
weigh_kernel() {
    (cd "$kernel_work" && ar t vmlinux.a | grep '\.o$' | tr '\n' '\0' | xargs -0 size 2>/dev/null) |
        awk 'NR > 1 && $1 ~ /^[0-9]+$/ {
                 n = split($6, part, "/")
                 folder = n > 2 ? part[1] "/" part[2] : part[1]
                 bytes[folder] += $1 + $2
             }
             END { for (f in bytes) print bytes[f], f }' | sort -k 1,1nr -k 2,2
}

build_kernel() {
    [ -f "$kernel_dir/complete" ] && return 0
    kernel_work=$cache/.kernel-$kernel_key
    mkdir -p "$kernel_work"
    cp "$work_dir/fragment" "$kernel_work/fragment"
    close_gap
    configure_kernel
    say "building the kernel, on $jobs processors; once for this configuration"
    counted "kernel" 1100 "$kernel_work/log" linux_make -j "$jobs" bzImage
    mkdir -p "$kernel_work/result"
    cp "$kernel_work/arch/x86/boot/bzImage" "$kernel_work/result/kernel"
    objcopy -S -R .comment -R .note.gnu.build-id "$kernel_work/vmlinux" "$kernel_work/result/vmlinux"
    cp "$kernel_work/.config" "$kernel_work/result/config"
    weigh_kernel >"$kernel_work/result/weights"
    : >"$kernel_work/result/complete"
    rm -rf "$kernel_dir"
    mv -T "$kernel_work/result" "$kernel_dir"
    rm -rf "$kernel_work"
}

prepare_kernel() {
    need make make gcc gcc flex flex bison bison bc bc lz4 lz4 xz xz-utils perl perl-base dpkg-deb dpkg
    [ -f /usr/include/libelf.h ] || unavailable "the kernel's build needs the headers of libelf" "apt install libelf-dev"
    version=$(linux_version)
    linux_source=$cache/linux-$version
    compiler=gcc
    ! command -v ccache >/dev/null || compiler='ccache gcc'
    { cat "$lib/kernel.config"; printf '%s\n' $kernel_options | sed '/^$/d; s/^\(CONFIG_\)\{0,1\}/CONFIG_/'; } >"$work_dir/fragment"
    kernel_key=$( (grep -v '^#[^ ]\|^$' "$work_dir/fragment"; echo "$version"; gcc -dumpfullversion; cat "$lib/kernel.sh") | sha_of)
    kernel_dir=$cache/kernel-$kernel_key
    [ -f "$kernel_dir/complete" ] && return 0
    locked "$cache/.lock-linux" unpack_linux
    locked "$cache/.lock-kernel-$kernel_key" build_kernel
    rm -f "$cache/.lock-kernel-$kernel_key"
}
