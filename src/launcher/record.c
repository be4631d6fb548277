/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instances/ID/record: what a launcher started again needs to adopt an instance or to clean up after it. Text, one
 * "key value..." a line, written whole and renamed. Written before anything of the instance exists on the host
 * (state starting), again when it runs, again when it ended. Workers write, recover.c reads.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "launcher/files.h"
#include "launcher/instance.h"

enum { RECORD_VERSION = 1, RECORD_BYTES_MAX = 16384 };

static const char *const state_words[] = {
    [INSTANCE_NONE] = "none",
    [INSTANCE_STARTING] = "starting",
    [INSTANCE_RUNNING] = "running",
    [INSTANCE_ENDED] = "ended",
};

int record_write(struct launcher *l, const struct instance *i, int dirfd, struct error **err)
{
    char a4[INET_ADDRSTRLEN], a6[INET6_ADDRSTRLEN];
    auto_buffer struct buffer text = {0};

    buffer_printf(&text, "record %d\nid %s\nname %s\nstate %s\n", RECORD_VERSION, i->id, i->name,
                  state_words[i->state]);
    if (i->has_uid)
        buffer_printf(&text, "uid %u %d\n", i->uid_slot, i->writable);
    if (i->has_number)
        buffer_printf(&text, "number %u\n", i->ports.number);
    for (uint32_t n = 0; i->has_number && n < i->ports.count; n++) {
        inet_ntop(AF_INET, &i->ports.list[n].ipv4, a4, sizeof(a4));
        inet_ntop(AF_INET6, &i->ports.list[n].ipv6, a6, sizeof(a6));
        const uint8_t *m = i->ports.list[n].mac;
        buffer_printf(&text, "port %s %s %s %02x:%02x:%02x:%02x:%02x:%02x\n", i->ports.list[n].link, a4, a6, m[0], m[1],
                      m[2], m[3], m[4], m[5]);
    }
    for (size_t n = 0; n < i->published_count; n++)
        buffer_printf(&text, "publish %u %u %u\n", i->published[n].host_port, i->published[n].port,
                      i->published[n].protocol);
    if (i->record.tag[0])
        buffer_printf(&text, "%s %s %d %" PRIu64 " %u\n", i->record.machine ? "machine" : "container", i->record.tag,
                      i->record.pid, i->record.start_time, i->record.uid_base);
    if (i->carrier)
        buffer_text(&text, "carrier yes\n");
    if (i->state == INSTANCE_ENDED)
        buffer_printf(&text, "exit %d %d %d %" PRIu64 "\n", i->exit.status_known, i->exit.wait_status, i->exit.oom,
                      i->exit.exited_at_ns);
    buffer_text(&text, "end\n");
    if (text.failed)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a record");
    return file_replace(dirfd, "record", text.data, text.length, err);
}

static bool take_state(struct instance *i, const char *word)
{
    for (size_t s = INSTANCE_STARTING; s <= INSTANCE_ENDED; s++) {
        if (strcmp(word, state_words[s]) == 0) {
            i->state = (enum instance_state)s;
            return true;
        }
    }
    return false;
}

static bool take_port(struct instance *i, const char *value)
{
    char a4[INET_ADDRSTRLEN], a6[INET6_ADDRSTRLEN];
    struct fabric_port *p = &i->ports.list[i->ports.count];

    uint8_t *m = p->mac;
    int parts = i->ports.count >= NETWORK_PER_INSTANCE_MAX
                    ? 0
                    : sscanf(value, "%63s %15s %45s %hhx:%hhx:%hhx:%hhx:%hhx:%hhx", p->link, a4, a6, &m[0], &m[1],
                             &m[2], &m[3], &m[4], &m[5]);

    if (parts != 9 && parts != 3) /* the first version had no hardware address */
        return false;
    i->ports.count++;
    return inet_pton(AF_INET, a4, &p->ipv4) == 1 && inet_pton(AF_INET6, a6, &p->ipv6) == 1;
}

static bool take_publish(struct instance *i, const char *value)
{
    unsigned host_port, port, protocol;

    if (i->published_count >= PORT_PER_INSTANCE_MAX || sscanf(value, "%u %u %u", &host_port, &port, &protocol) != 3 ||
        host_port > 65535 || port > 65535)
        return false;
    i->published[i->published_count++] =
        (struct spec_port){.host_port = (uint16_t)host_port, .port = (uint16_t)port, .protocol = (uint8_t)protocol};
    return true;
}

static bool take_exit(struct instance *i, const char *value)
{
    int known, oom;

    if (sscanf(value, "%d %d %d %" SCNu64, &known, &i->exit.wait_status, &oom, &i->exit.exited_at_ns) != 4)
        return false;
    i->exit.status_known = known;
    i->exit.oom = oom;
    return true;
}

static bool take_line(struct instance *i, const char *key, const char *value)
{
    int writable, version;

    if (strcmp(key, "record") == 0)
        return sscanf(value, "%d", &version) == 1 && version == RECORD_VERSION;
    if (strcmp(key, "id") == 0)
        return strlen(value) == INSTANCE_ID_SIZE - 1 && instance_id_valid(value) && strcpy(i->id, value);
    if (strcmp(key, "name") == 0)
        return strlen(value) < NAME_SIZE && strcpy(i->name, value);
    if (strcmp(key, "state") == 0)
        return take_state(i, value);
    if (strcmp(key, "uid") == 0) {
        i->has_uid = sscanf(value, "%u %d", &i->uid_slot, &writable) == 2;
        i->writable = i->has_uid && writable;
        return i->has_uid;
    }
    if (strcmp(key, "number") == 0)
        return (i->has_number = sscanf(value, "%u", &i->ports.number) == 1);
    if (strcmp(key, "port") == 0)
        return take_port(i, value);
    if (strcmp(key, "publish") == 0)
        return take_publish(i, value);
    if (strcmp(key, "machine") == 0)
        i->record.machine = true;
    if (strcmp(key, "container") == 0 || strcmp(key, "machine") == 0)
        return sscanf(value, "%63s %d %" SCNu64 " %u", i->record.tag, &i->record.pid, &i->record.start_time,
                      &i->record.uid_base) == 4;
    if (strcmp(key, "carrier") == 0)
        return (i->carrier = strcmp(value, "yes") == 0);
    return strcmp(key, "exit") == 0 && take_exit(i, value);
}

int record_read(int dirfd, struct instance *ret)
{
    auto_error struct error *ignored = NULL;
    auto_free char *text = NULL;
    struct instance i = {0};
    char *rest, *line;
    int r;

    r = file_read(dirfd, "record", RECORD_BYTES_MAX, &text, &ignored);
    if (r < 0 || !text)
        return r < 0 ? -EINVAL : -ENOENT;
    rest = text;
    while ((line = strsep(&rest, "\n")) && strcmp(line, "end") != 0) {
        char *value = strchr(line, ' ');
        if (!value)
            return -EINVAL;
        *value++ = '\0';
        if (!take_line(&i, line, value))
            return -EINVAL;
    }
    if (!line || !i.id[0] || i.state == INSTANCE_NONE || (i.state == INSTANCE_RUNNING && !i.has_uid))
        return -EINVAL;
    /* only what the record holds: the caller's links and queues stay */
    memcpy(ret->id, i.id, sizeof(i.id));
    memcpy(ret->name, i.name, sizeof(i.name));
    ret->state = i.state;
    ret->record = i.record;
    ret->uid_slot = i.uid_slot;
    ret->has_uid = i.has_uid;
    ret->has_number = i.has_number;
    ret->writable = i.writable;
    ret->carrier = i.carrier;
    ret->ports = i.ports;
    memcpy(ret->published, i.published, sizeof(i.published));
    ret->published_count = i.published_count;
    ret->exit = i.exit;
    return 0;
}
