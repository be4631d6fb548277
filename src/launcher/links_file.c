/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RUN/links: the table of virtual links, so that a launcher started again knows which bridge is which before the daemon
 * has said so. One line a link; written whole and renamed at every change. Called under the fabric's lock.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "launcher/fabric_private.h"
#include "launcher/files.h"
#include "model/units.h"

enum { LINKS_BYTES_MAX = 1 << 20 };

int fabric_links_save(struct fabric *f, struct error **err)
{
    auto_buffer struct buffer text = {0};
    char gw4[INET_ADDRSTRLEN], gw6[INET6_ADDRSTRLEN];

    buffer_text(&text, "links 1\n");
    for (size_t i = 0; i < f->link_count; i++) {
        const struct link *l = &f->links[i].link;
        inet_ntop(AF_INET, &l->gateway4, gw4, sizeof(gw4));
        inet_ntop(AF_INET6, &l->gateway6, gw6, sizeof(gw6));
        buffer_printf(&text, "%s %s %u %s %u %u %d\n", l->name, gw4, l->prefix4, gw6, l->prefix6, l->mtu, l->uplink);
    }
    if (text.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the table of networks");
    return file_replace(f->run_fd, "links", text.data, text.length, err);
}

static bool parse_line(const char *line, struct link *l)
{
    char gw4[INET_ADDRSTRLEN], gw6[INET6_ADDRSTRLEN];
    unsigned prefix4, prefix6, mtu, uplink;

    memset(l, 0, sizeof(*l));
    if (sscanf(line, "%63s %15s %u %45s %u %u %u", l->name, gw4, &prefix4, gw6, &prefix6, &mtu, &uplink) != 7)
        return false;
    l->prefix4 = (uint8_t)prefix4;
    l->prefix6 = (uint8_t)prefix6;
    l->mtu = (uint16_t)mtu;
    l->uplink = uplink != 0;
    return units_is_name(l->name) && inet_pton(AF_INET, gw4, &l->gateway4) == 1 &&
           inet_pton(AF_INET6, gw6, &l->gateway6) == 1;
}

int fabric_links_load(struct fabric *f, struct error **err)
{
    auto_free char *text = NULL;
    char *rest, *line;
    struct link l;
    int r;

    r = file_read(f->run_fd, "links", LINKS_BYTES_MAX, &text, err);
    if (r < 0)
        return r;
    if (!text)
        return 0;
    rest = text;
    line = strsep(&rest, "\n");
    while (line && (line = strsep(&rest, "\n")) && *line) {
        struct fabric_link *more;
        if (!parse_line(line, &l))
            return error_set(err, EINVAL, "INTERNAL", "the table of networks is damaged: %.80s", line);
        more = reallocarray(f->links, f->link_count + 1, sizeof(*more));
        if (!more)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the table of networks");
        f->links = more;
        f->links[f->link_count++] = (struct fabric_link){.link = l};
    }
    return 0;
}
