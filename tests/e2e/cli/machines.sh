#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Images of machines: bare kernels and disks packed on their way, one name for several guests, what is refused and how.
source "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || skip "a launcher needs root"
platform_up --with-launcher

# make_elf FILE: the smallest ELF file with a PVH note (Xen, type 18) and one empty segment.
make_elf()
{
    python3 - "$1" <<'PY'
import struct, sys
note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x100000)
ehdr = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
phdr = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
open(sys.argv[1], "wb").write(ehdr + phdr + note)
PY
}

case_is "a bare kernel with a PVH note"
make_elf "$WORK/kernel.elf"
printf 'initrd' >"$WORK/initrd"
run coracle image import "$WORK/kernel.elf" vm/one --guest unikernel --initrd "$WORK/initrd" --parameters "a=b c" \
    --memory 8MiB --entrypoint '["/app","-s"]'
expect_status 0
expect_err "imported"
run coracle image inspect --json vm/one
expect_json 'j["guest"] == "unikernel" and j["config"]["boot"] == "pvh" and j["config"]["parameters"] == "a=b c"'
expect_json 'j["config"]["memory"] == 8388608 and j["config"]["initrd"] and j["config"]["entrypoint"] == ["/app", "-s"]'
LAYER=$(coracle image inspect --field layers vm/one | tr -d '[]" \n')
cmp "$STATE/images/layers/$LAYER/boot/kernel" "$WORK/kernel.elf" || _fail "another kernel was stored"
run coracle image inspect vm/one
expect_out_like 'boot +pvh'

case_is "the same file again is the same image"
DIGEST=$(coracle image inspect --field digest vm/one)
run coracle image import "$WORK/kernel.elf" vm/again --guest unikernel --initrd "$WORK/initrd" --parameters "a=b c" \
    --memory 8MiB --entrypoint '["/app","-s"]'
# the reference is part of the archive's index, not of the manifest
run coracle image inspect --json vm/again
expect_json "j['digest'] == '$DIGEST'"

case_is "one name, several guests"
head -c 1048576 /dev/zero >"$WORK/disk"
printf 'QFI\xfb' | dd of="$WORK/disk" conv=notrunc 2>/dev/null
run coracle image import "$WORK/disk" vm/one --guest disk
expect_status 0
printf '#!/bin/true\n' >"$WORK/file"
run sh -c "tar -C '$WORK' -c file | coracle image import - vm/one --entrypoint /file"
expect_status 0
run coracle images --json
expect_json 'sorted(i["guest"] for i in j["items"] if i["reference"] == "vm/one:latest") == ["disk", "process", "unikernel"]'
run coracle images --guest disk --json
expect_json '[i["reference"] for i in j["items"]] == ["vm/one:latest"] and j["items"][0]["config"]["disk"] == "disk.qcow2"'
run coracle images --guest=-process --guest=-disk
expect_out_like 'vm/again[^ ]* +unikernel'
run coracle images --guest odd
expect_status 64
run coracle image inspect --json --guest disk vm/one
expect_json 'j["guest"] == "disk"'

case_is "a name without the wanted variant says what there is"
run coracle run --on container vm/again
expect_status 2
expect_err "IMAGE_WRONG_GUEST"
expect_err "unikernel only"
expect_err "coracle build APP --for container"

case_is "removal of one variant, then of all"
run coracle image rm --guest disk vm/one
expect_status 0
run coracle image inspect --guest disk vm/one
expect_status 2
expect_err "IMAGE_WRONG_GUEST"
run coracle image rm vm/one vm/again
expect_status 0
run coracle images --json
expect_json 'j["items"] == []'

case_is "the unikernel that is shipped"
if [ -r "$CORACLE_BUILD/images/unikernel/coracle-iperf-unikernel.oci.tar" ]; then
    run coracle image import "$CORACLE_BUILD/images/container/coracle-iperf.oci.tar" coracle/iperf
    run coracle image import "$CORACLE_BUILD/images/unikernel/coracle-iperf-unikernel.oci.tar" coracle/iperf
    expect_status 0
    run coracle image inspect --json --guest unikernel coracle/iperf
    expect_json 'j["config"]["boot"] == "unikernel" and j["size_bytes"] < 130000'
    # the bare file is recognised by its header
    run coracle image import "$CORACLE_BUILD/nf/platform/unikernel/coracle-nf-unikernel" bare --guest unikernel
    run coracle image inspect --field config.boot bare
    expect_out_is unikernel
    run coracle run --on container --name c coracle/iperf
    expect_status 0
    coracle -q rm -f c >/dev/null
fi

case_is "what cannot be meant"
run coracle image import "$WORK/file" x --guest unikernel
expect_status 64
expect_err "--boot"
run coracle image import "$WORK/kernel.elf" x --guest process
expect_status 64
run coracle image import "$WORK/kernel.elf" x --guest disk --boot pvh
expect_status 64
expect_err "does not go with"
run coracle image import "$WORK/kernel.elf" x --boot pvh
expect_status 64
expect_err "--guest"
run coracle image import "$WORK/none" x --guest linux
expect_status 64
run coracle image import "$WORK" x --guest linux
expect_status 64
run coracle image import "$WORK/kernel.elf" x --guest unikernel --memory lots
expect_status 64
tar -C "$WORK" -cf "$WORK/a.tar" file
run coracle image import "$WORK/a.tar" x --guest unikernel
expect_status 64
expect_err "without --guest"
run coracle image import "$WORK/kernel.elf" x --guest unikernel --disk "$WORK/disk" --explain
expect_out '"org.coracle.boot": "pvh"'

finish
