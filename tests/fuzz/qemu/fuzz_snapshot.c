/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last page of a snapshot's file. Bytes 0-7: the file's size; then the page, whose checksum is made right when byte
 * 8 says so, for the fuzzer cannot. What is accepted lies within the file and fits itself.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_sum(uint8_t *page, size_t size)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    if (size < sizeof(struct snapshot))
        return;
    for (size_t i = 0; i < offsetof(struct snapshot, sum); i++)
        sum = (sum ^ page[i]) * UINT64_C(0x100000001b3);
    memcpy(page + offsetof(struct snapshot, sum), &sum, sizeof(sum));
}

static void check_part(const struct snapshot_part *p, uint64_t bytes)
{
    if (p->offset > bytes || p->size > bytes - p->offset)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t page[SNAPSHOT_PAGE];
    struct snapshot s, again;
    struct error *err = NULL;
    uint64_t bytes;

    if (size < 9)
        return 0;
    memcpy(&bytes, data, sizeof(bytes));
    size_t n = size - 9 < sizeof(page) ? size - 9 : sizeof(page);
    memcpy(page, data + 9, n);
    if (data[8] & 1)
        make_sum(page, n);
    if (snapshot_parse(page, n, bytes, &s, &err) < 0) {
        if (!err)
            abort();
        error_free(err);
        return 0;
    }
    check_part(&s.ram, bytes);
    check_part(&s.state, bytes);
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        check_part(&s.overlays[i], bytes);
    again = s;
    if (snapshot_match(&s, &again, &err) < 0)
        abort(); /* it fits itself */
    again.vcpus++;
    if (snapshot_match(&s, &again, &err) == 0 || !err)
        abort();
    error_free(err);
    return 0;
}
