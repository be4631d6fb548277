#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# coracle build: functions that are shipped and sources of one's own, for a container and for a unikernel, from the build
# tree and as installed; the same bytes twice; what is missing or wrong, in words. What was built is run where it can be.
source "${0%/*}/../lib.sh"
command -v musl-gcc >/dev/null || skip "musl-gcc is not installed (apt install musl-tools)"
command -v jq >/dev/null || skip "jq is not installed"
UNIKERNEL=$CORACLE_BUILD/nf/platform/unikernel/libplatform.a
VMM=$CORACLE_BUILD/src/vmm/coracle-vmm

# unpack ARCHIVE: its layer below $WORK/root, its configuration in $WORK/config.json
unpack()
{
    rm -rf "$WORK/layout" "$WORK/root"
    mkdir "$WORK/layout" "$WORK/root"
    tar -xf "$1" -C "$WORK/layout"
    local blobs=$WORK/layout/blobs/sha256 manifest
    manifest=$blobs/$(jq -r '.manifests[0].digest[7:]' "$WORK/layout/index.json")
    cp "$blobs/$(jq -r '.config.digest[7:]' "$manifest")" "$WORK/config.json"
    tar -xzf "$blobs/$(jq -r '.layers[0].digest[7:]' "$manifest")" -C "$WORK/root"
}

mkdir -p "$WORK/mine" "$WORK/elsewhere" "$WORK/empty"
cat >"$WORK/mine/main.c" <<'C'
#include "nf/platform/platform.h"
const char *word(void);
int nf_main(int argc, char **argv)
{
    nf_print(NF_OUTPUT, "%s %s\n", word(), argc > 1 ? argv[1] : "");
    return 3;
}
C
printf 'const char *word(void);\nconst char *word(void) { return "made of two files"; }\n' >"$WORK/mine/word.c"
cp "$WORK"/mine/*.c "$WORK/elsewhere"
cd "$WORK"

case_is "a function that is shipped, for a container"
run coracle build responder --for container -o "$WORK/r.tar"
expect_status 0
expect_out_like 'r.tar: coracle/responder:latest for container, [0-9]+ bytes'
unpack "$WORK/r.tar"
run "$WORK/root/responder" --help
expect_err "Usage: responder"
run strings "$WORK/root/responder"
expect_no_out "iperf" # one function is in it, not all

case_is "sources of one's own, for a container"
run coracle build mine --for container -r team/mine:1 -c "two words" -o "$WORK/a.tar"
expect_status 0
unpack "$WORK/a.tar"
run "$WORK/root/mine" x
expect_status 3
expect_out_is "made of two files x"
run jq -c '[.config.Entrypoint, .config.Cmd]' "$WORK/config.json"
expect_out_is '[["/mine"],["two words"]]'

case_is "two builds, elsewhere and later, give the same bytes"
sleep 1
run sh -c "cd elsewhere && umask 077 && TZ=Asia/Tokyo coracle build main.c word.c --for container -r team/mine:1 -c 'two words' -o ../b.tar"
mkdir -p "$WORK/other/mine"
cp -p "$WORK"/elsewhere/*.c "$WORK/other/mine"
run sh -c "cd other && umask 077 && TZ=Asia/Tokyo coracle build mine --for container -r team/mine:1 -c 'two words' -o ../b.tar"
run cmp "$WORK/a.tar" "$WORK/b.tar"
expect_status 0

if [ -r "$UNIKERNEL" ]; then
    case_is "the same sources, for a unikernel"
    run coracle build mine --for unikernel.kvm -r team/mine:1 -o "$WORK/u.tar" --memory 8MiB --parameters "ip4=dhcp"
    expect_status 0
    unpack "$WORK/u.tar"
    run jq -r '.config.Labels | to_entries | sort_by(.key) | map(.key + "=" + .value) | join(" ")' "$WORK/config.json"
    expect_out_is "org.coracle.boot=unikernel org.coracle.guest=unikernel org.coracle.memory=8388608 org.coracle.parameters=ip4=dhcp"
    if [ -w /dev/kvm ] && [ "$(id -u)" = 0 ]; then
        run "$VMM" --kernel "$WORK/root/boot/kernel" --append "-- mine guest"
        expect_status 3
        expect_out "made of two files guest"
    fi
    (cd other && coracle build mine --for unikernel.kvm -r team/mine:1 -o "$WORK/v.tar" --memory 8MiB --parameters "ip4=dhcp" >/dev/null)
    run cmp "$WORK/u.tar" "$WORK/v.tar"
    expect_status 0

    case_is "what the parts weigh and why they are there"
    run coracle build responder --for unikernel.kvm -o "$WORK/r.tar" --explain
    expect_out_like 'lwip:tcp_in +[0-9]+.* lwip:tcp \(tcp_input_pcb\)'
    expect_out_like 'platform:tcp +[0-9]+.* 1-responder \(nf_tcp_listen\)'
    expect_no_out "iperf"
    unpack "$WORK/r.tar"
    # the sums are the kernel's own
    run sh -c "size -A '$WORK/root/boot/kernel' | awk '\$1 == \".text\" {print \$2}'"
    KERNEL_TEXT=$OUT
    run coracle build responder --for unikernel.kvm -o "$WORK/r.tar" --explain
    TEXT=$(awk '$1 == "all" {print $2}' <<<"$OUT")
    [ "$TEXT" -le "$KERNEL_TEXT" ] && [ "$TEXT" -gt $((KERNEL_TEXT * 95 / 100)) ] || _fail "text $TEXT of $KERNEL_TEXT"

    case_is "an element: the same file in both, and no network stack in the unikernel"
    run coracle build forward --for container -o "$WORK/f.tar"
    expect_status 0
    unpack "$WORK/f.tar"
    run "$WORK/root/forward" --ports nosuch,none 1.2.3.0/24=0@02:00:00:00:00:01
    expect_err 'interface "nosuch"'
    run coracle build forward --for unikernel.kvm -o "$WORK/f.tar" --explain
    expect_status 0
    expect_out_like 'elements:forward +[0-9]+.* 1-forward \(nfv_forward\)'
    expect_no_out "lwip:"
    cat >"$WORK/mirror.c" <<'C'
#include "nfv/element.h"
static int init(void *s, const struct nfv_port *p, int c, char *const *v, const char **e) { (void)s; (void)p; (void)c; (void)v; (void)e; return 0; }
static void process(void *s, struct nfv_packet *p, unsigned n) { ++*(uint64_t *)s; for (unsigned i = 0; i < n; i++) p[i].out = p[i].in; }
static const uint64_t *counters(const void *s) { return s; }
static const char *const names[] = {"batches"};
const struct nfv_element nfv_element = {NFV_ELEMENT_VERSION, 1, "mirror", "", 8, init, process, 1, 0, names, counters};
C
    run coracle build mirror.c --for unikernel.kvm -o "$WORK/f.tar" --explain
    expect_status 0
    expect_no_out "elements:forward"

    case_is "what a unikernel does not have"
    printf '#include <stdio.h>\nint nf_main(int c, char **v);\nint nf_main(int c, char **v) { (void)v; return printf("%%d", c); }\n' >"$WORK/libc.c"
    run coracle build libc.c --for unikernel.kvm -o "$WORK/no.tar"
    expect_status 1
    expect_err "there is no C library"
    [ ! -e "$WORK/no.tar" ] || _fail "left a file"
fi

case_is "what cannot be built"
run coracle build iperf
expect_status 64
expect_err "--for"
run coracle build iperf --for sideways
expect_status 64
expect_err "what can be built for: container"
run coracle build iperf --for ../evil
expect_status 64
run coracle build nosuch --for container
expect_status 1
expect_err "shipped are:"
run coracle build "$WORK/empty" --for container
expect_status 1
expect_err "no C source"
run coracle build iperf responder --for container
expect_status 1
expect_err "built alone"
printf 'int x;\n' >"$WORK/none.c"
run coracle build none.c --for container
expect_status 1
expect_err "nf_main()"
printf 'int nf_main(\n' >"$WORK/broken.c"
run coracle build broken.c --for container
expect_status 1
expect_err "does not compile"

case_is "a compiler that is missing is named with its package"
mkdir "$WORK/path"
for tool in sh sed dirname readlink basename mktemp rm tr; do ln -s "$(command -v $tool)" "$WORK/path/$tool"; done
run env PATH="$WORK/path" "$CLI_DIR/coracle" build mine --for container
expect_status 1
expect_err "apt install musl-tools"

case_is "installed"
run env DESTDIR="$WORK/installed" meson install -C "$CORACLE_BUILD" --no-rebuild --quiet
if [ "$STATUS" = 0 ]; then
    BIN=$(find "$WORK/installed" -path '*/bin/coracle')
    run "$BIN" build mine --for container -r team/mine:1 -c "two words" -o "$WORK/i.tar"
    expect_status 0
    run cmp "$WORK/a.tar" "$WORK/i.tar"
    expect_status 0
    # what is wrong with the words behind the options, said by the program that makes the image: it was reached
    run "$BIN" build iperf nosuch --for tinyx -o "$WORK/no.tar"
    expect_status 1
    expect_err '"nosuch" cannot be added to "iperf"'
    run "$BIN" build nosuch --for standardvm -o "$WORK/no.tar"
    expect_status 1
    expect_err 'there is no application "nosuch"'
    if [ -r "$UNIKERNEL" ]; then
        run "$BIN" build mine --for unikernel.kvm -r team/mine:1 --memory 8MiB --parameters "ip4=dhcp" -o "$WORK/i.tar"
        expect_status 0
        run cmp "$WORK/u.tar" "$WORK/i.tar"
        expect_status 0
    fi
fi

finish
