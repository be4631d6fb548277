/* SPDX-License-Identifier: Apache-2.0 */
/* The allow list of capabilities, one row each with the reason it is there. Read by model and launcher checks. */
#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/suggest.h"
#include "model/capability.h"

static const struct {
    const char *name;
    unsigned number;
    bool by_default;
} rows[] = {
    {"CHOWN", CAP_CHOWN, true}, /* servers hand their files to the account they drop to */
    {"DAC_OVERRIDE", CAP_DAC_OVERRIDE, true},
    {"FOWNER", CAP_FOWNER, true},
    {"FSETID", CAP_FSETID, true},
    {"KILL", CAP_KILL, true},
    {"SETGID", CAP_SETGID, true}, /* dropping root itself */
    {"SETUID", CAP_SETUID, true},
    {"NET_BIND_SERVICE", CAP_NET_BIND_SERVICE, true}, /* ports below 1024 of its own namespace */
    {"SETPCAP", CAP_SETPCAP, false},
    {"NET_ADMIN", CAP_NET_ADMIN, false}, /* routers and firewalls, on their own interfaces */
    {"NET_RAW", CAP_NET_RAW, false},     /* ping, probes */
    {"IPC_LOCK", CAP_IPC_LOCK, false},
    {"SYS_CHROOT", CAP_SYS_CHROOT, false},
    {"SETFCAP", CAP_SETFCAP, false},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

uint32_t capability_default_set(void)
{
    uint32_t set = 0;

    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].by_default)
            set |= 1u << rows[i].number;
    return set;
}

uint32_t capability_allowed_set(void)
{
    uint32_t set = 0;

    for (size_t i = 0; i < ROWS; i++)
        set |= 1u << rows[i].number;
    return set;
}

int capability_parse(const char *text, const char *path, unsigned *ret, struct error **err)
{
    const char *word = strncasecmp(text, "CAP_", 4) == 0 ? text + 4 : text, *nearest = NULL;

    for (size_t i = 0; i < ROWS; i++) {
        if (strcasecmp(word, rows[i].name) == 0) {
            *ret = rows[i].number;
            return 0;
        }
        suggest_offer(word, rows[i].name, &nearest);
    }
    error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.32s\" is not a capability an instance may have", path, text);
    if (nearest)
        error_hint(err, "did you mean %s?", nearest);
    error_hint(err, "allowed beside the usual ones: NET_ADMIN NET_RAW IPC_LOCK SYS_CHROOT SETPCAP SETFCAP");
    return -EINVAL;
}

const char *capability_name(unsigned number)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].number == number)
            return rows[i].name;
    return NULL;
}
