/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every unikernel has words of its own for its addresses. The image's author writes them once, with places; each
 * instance's values go there. A number behind a name is the interface: {ip4} is {ip4.0}.
 */
#include "drivers/qemu/parameters.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"

struct filling {
    char *const *argv;
    const char *hostname;
    const struct plan_nic *nics;
    size_t nic_count;
    bool has_arguments;
    struct buffer out;
};

static bool add_v4(struct buffer *out, struct in_addr address)
{
    char text[INET_ADDRSTRLEN];

    if (!address.s_addr)
        return false;
    buffer_text(out, inet_ntop(AF_INET, &address, text, sizeof(text)));
    return true;
}

static bool add_v6(struct buffer *out, const struct in6_addr *address)
{
    char text[INET6_ADDRSTRLEN];

    if (IN6_IS_ADDR_UNSPECIFIED(address))
        return false;
    buffer_text(out, inet_ntop(AF_INET6, address, text, sizeof(text)));
    return true;
}

static bool add_of_nic(struct buffer *out, const char *name, const struct plan_nic *nic)
{
    const uint8_t *mac = nic->mac;

    if (strcmp(name, "ip4") == 0)
        return nic->prefix4 && add_v4(out, nic->ipv4);
    if (strcmp(name, "gw4") == 0)
        return add_v4(out, nic->gateway4);
    if (strcmp(name, "mask4") == 0)
        return nic->prefix4 && add_v4(out, (struct in_addr){htonl(~UINT32_C(0) << (32 - nic->prefix4))});
    if (strcmp(name, "ip6") == 0)
        return nic->prefix6 && add_v6(out, &nic->ipv6);
    if (strcmp(name, "gw6") == 0)
        return add_v6(out, &nic->gateway6);
    if (strcmp(name, "prefix4") == 0 && nic->prefix4)
        return buffer_u64(out, nic->prefix4), true;
    if (strcmp(name, "prefix6") == 0 && nic->prefix6)
        return buffer_u64(out, nic->prefix6), true;
    if (strcmp(name, "mac") == 0)
        return buffer_printf(out, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]),
               true;
    return false;
}

static void add_arguments(struct filling *f)
{
    for (char *const *word = f->argv; word && *word; word++)
        buffer_printf(&f->out, "%s%s", word == f->argv ? "" : " ", *word);
    f->has_arguments = true;
}

static bool add_place(struct filling *f, char *name)
{
    char *dot = strchr(name, '.');
    size_t nic = 0;

    if (strcmp(name, "args") == 0)
        return add_arguments(f), true;
    if (strcmp(name, "hostname") == 0)
        return buffer_text(&f->out, f->hostname), true;
    if (dot && (!isdigit((unsigned char)dot[1]) || dot[2]))
        return false;
    if (dot) {
        nic = (size_t)(dot[1] - '0');
        *dot = '\0';
    }
    return nic < f->nic_count && add_of_nic(&f->out, name, &f->nics[nic]);
}

static int fill_line(struct filling *f, const char *line, struct error **err)
{
    char name[16];

    while (*line) {
        const char *end = *line == '{' && islower((unsigned char)line[1]) ? strchr(line, '}') : NULL;
        size_t size = end ? (size_t)(end - line) - 1 : 0;
        if (!end || size == 0 || size >= sizeof(name) ||
            strspn(line + 1, "abcdefghijklmnopqrstuvwxyz.0123456789") != size) {
            buffer_char(&f->out, *line++); /* braces of the guest's own language */
            continue;
        }
        memcpy(name, line + 1, size);
        name[size] = '\0';
        if (!add_place(f, name)) {
            error_set(err, EINVAL, "INVALID_VALUE",
                      "the image's parameters: {%.*s} is not known, or this instance's network has none", (int)size,
                      line + 1);
            error_hint(
                err,
                "known are ip4, prefix4, mask4, gw4, ip6, prefix6, gw6, mac (with .N: of interface N), hostname, args");
            return -EINVAL;
        }
        line = end + 1;
    }
    return 0;
}

int parameters_fill(const char *line, char *const *argv, const char *hostname, const struct plan_nic *nics,
                    size_t nic_count, char **ret, struct error **err)
{
    struct filling f = {.argv = argv, .hostname = hostname, .nics = nics, .nic_count = nic_count};
    int r = fill_line(&f, line ? line : "", err);

    if (r == 0 && !f.has_arguments && argv && *argv) {
        if (f.out.length)
            buffer_char(&f.out, ' ');
        add_arguments(&f);
    }
    if (r == 0 && !f.out.data)
        buffer_reserve(&f.out, 1);
    if (r == 0 && f.out.failed)
        r = error_set(err, ENOMEM, "NO_MEMORY", "boot parameters: out of memory");
    if (r < 0) {
        buffer_clear(&f.out);
        return r;
    }
    if (!f.out.length)
        f.out.data[0] = '\0';
    *ret = f.out.data;
    return 0;
}
