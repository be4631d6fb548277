/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet on a monitor's or the launcher's socket: what the check lets through has strings that end and descriptors
 * where the layout says. First byte: how many descriptors came with it; the rest is the packet.
 */
#include <stdlib.h>
#include <string.h>

#include "monitor/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_load(const struct monitor_load *l, unsigned fds)
{
    struct monitor_load_fds at;

    monitor_load_layout(l, &at);
    if (at.count != fds || at.count > MONITOR_FD_MAX || at.exit != 0 || at.listen != 1)
        abort();
    for (unsigned i = 0; i < l->nic_count; i++)
        if (at.nics[i] >= 0 && (unsigned)at.nics[i] + monitor_nic_fds(&l->nics[i]) > at.count)
            abort();
    for (unsigned i = 0; i < l->disk_count; i++)
        if (at.disks[i] < 0 || (unsigned)at.disks[i] >= at.count)
            abort();
    if (strlen(monitor_parameters(l)) + 1 != l->parameters_size || strlen(l->name) >= sizeof(l->name) ||
        strlen(l->id) >= sizeof(l->id))
        abort();
}

static void check_identity(const struct monitor_identity *i, unsigned fds)
{
    if (strlen(monitor_identity_parameters(i)) + 1 != i->parameters_size || strlen(i->name) >= sizeof(i->name) ||
        strlen(i->id) >= sizeof(i->id) || i->nic_count > MONITOR_NIC_MAX || i->log_current > 1 ||
        fds != (i->flags & MONITOR_IDENTITY_FILES ? 4 : 0))
        abort();
}

static void check_exec(const struct monitor_exec *e, unsigned fds)
{
    const char *at = (const char *)(e + 1), *end = at + e->strings_size;

    for (uint32_t i = 0; i < e->argc + e->envc + 2; i++)
        at += strlen(at) + 1;
    if (at != end || fds != (e->terminal ? 1 : 3))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error *err = NULL;
    unsigned fds = 0;

    if (size < 1)
        return 0;
    uint8_t *copy = malloc(size); /* of its exact size: a byte read behind it is seen */
    if (!copy)
        abort();
    memcpy(copy, data + 1, size - 1);
    const struct monitor_header *h = (const void *)copy;
    int r = monitor_check(copy, size - 1, data[0] % (MONITOR_FD_MAX + 1), &fds, &err);
    if ((r < 0) != (err != NULL) || fds > data[0] % (MONITOR_FD_MAX + 1))
        abort();
    if (r == 0 && h->type == MONITOR_LOAD)
        check_load((const void *)copy, fds);
    if (r == 0 && h->type == MONITOR_IDENTITY)
        check_identity((const void *)copy, fds);
    if (r == 0 && h->type == MONITOR_EXEC)
        check_exec((const void *)copy, fds);
    if (r == 0 && h->type == MONITOR_FAILED) {
        const struct monitor_reply *reply = (const void *)copy;
        if (strlen(reply->detail) >= sizeof(reply->detail) || strlen(reply->hint) >= sizeof(reply->hint))
            abort();
    }
    error_free(err);
    free(copy);
    return 0;
}
