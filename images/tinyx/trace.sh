# SPDX-License-Identifier: Apache-2.0
# What an application needs: from a program to its interpreter, libraries, modules and files, each with the reason.
# Sourced by build-tinyx. A file goes into $root (the initramfs) and a line "PATH <tab> REASON" into $why.
#
# Packages are unpacked below $stage, never installed, and no script of theirs runs. Found are: what the dynamic linker
# will load (PT_INTERP, DT_NEEDED, by RUNPATH and the linker's folders); shared objects whose names stand in a program
# that can dlopen(); files whose whole path stands in it; with --trace, what the program opened when it was run. What
# stands in a program and is a folder, or is in no package, is told and not included: a guess would bring half of Debian.

debian_arch=$(dpkg --print-architecture 2>/dev/null || echo amd64)
multiarch=$(gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)
library_folders="/lib/$multiarch /usr/lib/$multiarch /lib /usr/lib /lib64 /usr/lib64"

# ---- packages ----

# The package and all it depends on; of alternatives those that exist.
closure_of() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" 2>/dev/null |
        grep '^[a-z0-9]' | grep -v ':' | sort -u
}

# fetch_package NAME: its file in the cache. Each is fetched once a version.
fetch_package() {
    version=$(apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
    [ -n "$version" ] || return 1
    file=$cache/debs/$1_$(echo "$version" | tr : _)_$debian_arch.deb
    if [ ! -f "$file" ]; then
        mkdir -p "$cache/debs"
        fetch=$(mktemp -d "$cache/debs/.fetch-XXXXXX")
        (cd "$fetch" && apt-get -qq -o APT::Sandbox::User=root download "$1") >"$work_dir/download.log" 2>&1 &&
            mv "$fetch"/*.deb "$file" || {
            rm -rf "$fetch"
            return 1
        }
        rm -rf "$fetch"
    fi
    echo "$1 $version" >>"$work_dir/versions"
    echo "$file"
}

# unpack_packages NAME ...: below $stage, with what they depend on.
unpack_packages() {
    for package in "$@"; do
        apt-cache show "$package" >/dev/null 2>&1 ||
            die "apt knows no package \"$package\"" "apt-get update; apt-cache search $package"
    done
    say "finding what $* depend$([ $# -gt 1 ] || echo s) on"
    for package in $(closure_of "$@"); do
        case $package in
        debconf | debconf-2.0 | gcc-*-base | dpkg | perl-base | tar | install-info | init-system-helpers) continue ;; # of installing
        esac
        file=$(fetch_package "$package") || {
            case " $* " in
            *" $package "*) unavailable "the package $package cannot be had: $(tail -n 1 "$work_dir/download.log" 2>/dev/null)" "apt-get update" ;;
            esac
            continue # one of several alternatives
        }
        dpkg-deb --fsys-tarfile "$file" | tar -xf - -C "$stage" --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
            --exclude=./usr/share/info --exclude=./usr/share/lintian || die "cannot unpack $file"
    done
    # As on an installed Debian 12: one name where packages still use two.
    for folder in bin sbin lib lib64; do
        [ -d "$stage/$folder" ] && [ ! -h "$stage/$folder" ] || continue
        mkdir -p "$stage/usr/$folder"
        cp -a "$stage/$folder/." "$stage/usr/$folder/"
        rm -rf "${stage:?}/$folder"
        ln -s "usr/$folder" "$stage/$folder"
    done
}

# Programs of a package: what it puts where programs are.
programs_of() {
    dpkg-deb --fsys-tarfile "$(fetch_package "$1")" | tar -tf - | sed -n 's#^\./\(\(usr/\)\{0,1\}s\{0,1\}bin/[^/]*[^/]\)$#/\1#p'
}

# ---- files ----

# take FROM-ROOT PATH REASON: once; what it needs in turn.
take() {
    case $2 in
    */../* | */..) return 0 ;;
    esac
    [ ! -e "$root$2" ] || return 0
    source=$(chroot_path "$1" "$2") || return 0
    mkdir -p "$root$(dirname "$2")"
    cp "$source" "$root$2"
    if [ -x "$source" ]; then chmod 0755 "$root$2"; else chmod 0644 "$root$2"; fi
    printf '%s\t%s\n' "$2" "$3" >>"$why"
    take_needs "$1" "$2" "$source"
}

# The file behind a path below a root, as a process in it would find it; fails when there is no plain file.
chroot_path() {
    path=$2
    for hop in 1 2 3 4 5 6 7 8; do
        [ -h "$1$path" ] || break
        target=$(readlink "$1$path")
        case $target in
        /*) path=$target ;;
        *) path=$(dirname "$path")/$target ;;
        esac
    done
    [ -f "$1$path" ] && echo "$1$path"
}

# note TEXT: told once at the end.
note() {
    grep -qxF "$1" "$work_dir/notes" 2>/dev/null || echo "$1" >>"$work_dir/notes"
}

# Arguments of recursion stand in "$@": a shell function has no variables of its own.
take_needs() {
    case $(head -c 4 "$3" | tr -d '\000') in
    "$(printf '\177ELF')") take_elf "$@" ;;
    '#!'*) take_script "$@" ;;
    esac
}

take_script() {
    interpreter=$(head -n 1 "$3" | sed 's/^#! *//; s/ .*//')
    case $interpreter in
    /bin/sh | /bin/ash) ;; # BusyBox is it
    *)
        chroot_path "$1" "$interpreter" >/dev/null || note "$2 is a script for $interpreter, which no package here has"
        take "$1" "$interpreter" "interpreter of $2"
        ;;
    esac
}

# find_library ROOT NAME PROGRAM FOLDERS: path of a library; the program's own folders first.
find_library() {
    for folder in $4 $library_folders; do
        folder=$(echo "$folder" | sed "s#\\\$ORIGIN#$(dirname "$3")#; s#\\\${ORIGIN}#$(dirname "$3")#")
        folder=$(realpath -ms "$folder")
        chroot_path "$1" "$folder/$2" >/dev/null && echo "$folder/$2" && return 0
    done
    return 1
}

take_elf() {
    readelf -Wld "$3" >"$work_dir/elf" 2>/dev/null || return 0
    interpreter=$(sed -n 's/.*\[Requesting program interpreter: \(.*\)\]/\1/p' "$work_dir/elf")
    needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work_dir/elf" | tr '\n' ' ')
    folders=$(sed -n 's/.*(R\(UN\)\{0,1\}PATH).*\[\(.*\)\]/\2/p' "$work_dir/elf" | tr ':\n' '  ')
    names=$(names_in "$1" "$2" "$3" "$folders" "$needed")
    # The lists are computed before the recursion overwrites them: they are this call's positional arguments now.
    set -- "$1" "$2" "$interpreter" "$folders" "$needed" "$names"
    [ -z "$3" ] || take "$1" "$3" "dynamic linker of $2"
    for library in $5; do
        path=$(find_library "$1" "$library" "$2" "$4") || die "$2 needs $library, which is in no package here" "name its package with --package"
        take "$1" "$path" "library of $2"
    done
    for name in $6; do
        take "$1" "${name#*:}" "$(reason_of "${name%%:*}") $2"
    done
}

reason_of() {
    case $1 in
    module) echo "module, by its name in" ;;
    *) echo "file, by its path in" ;;
    esac
}

# names_in ROOT PATH FILE FOLDERS NEEDED: "module:PATH" and "file:PATH" for what the text in an ELF file points to. Not
# for the C library's own: its names are of all that glibc could ever do.
names_in() {
    case $2 in
    */libc.so.6 | */ld-linux* | */libstdc++.so.6 | */libm.so.6 | */libresolv.so.2) return 0 ;;
    esac
    if readelf -W --dyn-syms "$3" 2>/dev/null | grep -q ' UND dlopen\(@\| \|$\)'; then
        strings -n 6 "$3" | grep -xE 'lib[A-Za-z0-9_+.-]+\.so(\.[0-9]+)*' | sort -u | while read -r library; do
            case " $5 " in
            *" $library "*) continue ;;
            esac
            if path=$(find_library "$1" "$library" "$2" "$4"); then
                echo "module:$path"
            else
                note "$2 may open $library (dlopen), which is in no package here"
            fi
        done
    fi
    strings -n 6 "$3" | grep -xE '/(etc|lib|usr|opt|var/lib)/[A-Za-z0-9_+./@-]+' | sort -u | while read -r path; do
        if chroot_path "$1" "$path" >/dev/null; then
            [ "$1" = / ] || echo "file:$path"
        elif [ -d "$1$path" ] && [ "$1" != / ] && [ -n "$(ls "$1$path")" ]; then
            note "$2 names the folder $path: not included (--file FILE=$path/NAME, or --trace COMMAND)"
        fi
    done
}

# ---- running it ----

# trace_command COMMAND: runs it below $stage, with a network of its own, and takes what it opened of the packages.
trace_command() {
    need strace strace unshare util-linux chroot coreutils
    [ "$(id -u)" = 0 ] || die "--trace needs root (it runs the command in a root file system of its own)"
    say "running: $1"
    mkdir -p "$stage/dev" "$stage/proc" "$stage/tmp"
    [ -e "$stage/bin/sh" ] || { mkdir -p "$stage/usr/bin"; cp "$busybox_file" "$stage/bin/sh"; }
    timeout 20 strace -f -q -e trace=open,openat,execve -o "$work_dir/strace" \
        unshare --net --mount --pid --fork --ipc --uts chroot "$stage" /bin/sh -c "$1" >"$work_dir/trace.log" 2>&1 </dev/null || true
    sed -n '/chroot/,$p' "$work_dir/strace" | sed -n 's/^[0-9]* *\(open\|execve\)[a-z]*(\(AT_FDCWD, \)\{0,1\}"\(\/[^"]*\)".*= [0-9].*/\3/p' |
        sort -u >"$work_dir/opened"
    while read -r path; do
        case $path in
        /proc/* | /dev/* | /sys/* | /tmp/* | /bin/sh) continue ;;
        esac
        take "$stage" "$path" "opened by: $1"
    done <"$work_dir/opened"
}
