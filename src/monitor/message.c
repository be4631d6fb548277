/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of protocol.h. Each side of a socket may be of another release, or taken over: every length and count is
 * checked before its use, and whatever goes wrong no descriptor of the peer stays open here. Launcher and monitors.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "monitor/message.h"

static const char *const type_names[] = {
    [MONITOR_PREPARE] = "PREPARE",
    [MONITOR_LOAD] = "LOAD",
    [MONITOR_STATUS] = "STATUS",
    [MONITOR_PAUSE] = "PAUSE",
    [MONITOR_RESUME] = "RESUME",
    [MONITOR_SNAPSHOT] = "SNAPSHOT",
    [MONITOR_MEMORY] = "MEMORY",
    [MONITOR_CONSOLE] = "CONSOLE",
    [MONITOR_VSOCK] = "VSOCK",
    [MONITOR_POWER] = "POWER",
    [MONITOR_DONE] = "DONE",
    [MONITOR_FAILED] = "FAILED",
    [MONITOR_STATUS_REPLY] = "STATUS_REPLY",
    [MONITOR_MIGRATE] = "MIGRATE",
    [MONITOR_NET] = "NET",
    [MONITOR_IDENTITY] = "IDENTITY",
    [MONITOR_RESIZE] = "RESIZE",
    [MONITOR_EXEC] = "EXEC",
    [MONITOR_SIGNAL] = "SIGNAL",
    [MONITOR_ENDED] = "ENDED",
};
_Static_assert(sizeof(type_names) / sizeof(type_names[0]) == MONITOR_TYPE_COUNT, "a name for each type");

const char *monitor_type_name(unsigned type)
{
    return type < MONITOR_TYPE_COUNT && type_names[type] ? type_names[type] : "unknown";
}

/* Of the whole message without what may follow it. */
static size_t fixed_size(unsigned type)
{
    switch (type) {
    case MONITOR_PREPARE:
        return sizeof(struct monitor_prepare);
    case MONITOR_LOAD:
        return sizeof(struct monitor_load);
    case MONITOR_IDENTITY:
        return sizeof(struct monitor_identity);
    case MONITOR_MEMORY:
        return sizeof(struct monitor_memory);
    case MONITOR_VSOCK:
        return sizeof(struct monitor_vsock);
    case MONITOR_NET:
        return sizeof(struct monitor_net);
    case MONITOR_RESIZE:
        return sizeof(struct monitor_resize);
    case MONITOR_EXEC:
        return sizeof(struct monitor_exec);
    case MONITOR_SIGNAL:
        return sizeof(struct monitor_signal);
    case MONITOR_ENDED:
        return sizeof(struct monitor_ended);
    case MONITOR_DONE:
    case MONITOR_FAILED:
        return sizeof(struct monitor_reply);
    case MONITOR_STATUS_REPLY:
        return sizeof(struct monitor_status);
    default:
        return sizeof(struct monitor_header);
    }
}

unsigned monitor_nic_fds(const struct monitor_nic *nic)
{
    switch (nic->backend) {
    case MONITOR_NET_TAP:
        return nic->queues;
    case MONITOR_NET_VHOST:
        return 2u * nic->queues;
    case MONITOR_NET_VHOST_USER:
        return 1;
    default:
        return 0;
    }
}

void monitor_load_layout(const struct monitor_load *load, struct monitor_load_fds *ret)
{
    struct monitor_load_fds l = {.exit = 0, .listen = 1, .log = -1, .kernel = -1, .initrd = -1, .count = 2};

    if (load->flags & MONITOR_LOAD_LOGS) {
        l.log = (int)l.count;
        l.count += 2;
    }
    if (load->boot != MONITOR_BOOT_DISK || (load->flags & MONITOR_LOAD_RESTORE))
        l.kernel = (int)l.count++;
    if ((load->flags & MONITOR_LOAD_INITRD) && !(load->flags & MONITOR_LOAD_RESTORE))
        l.initrd = (int)l.count++;
    for (unsigned i = 0; i < MONITOR_NIC_MAX; i++) {
        unsigned n = i < load->nic_count ? monitor_nic_fds(&load->nics[i]) : 0;
        l.nics[i] = n ? (int)l.count : -1;
        l.count += n;
    }
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        l.disks[i] = i < load->disk_count ? (int)l.count++ : -1;
    *ret = l;
}

const char *monitor_parameters(const struct monitor_load *load)
{
    return (const char *)(load + 1);
}

const char *monitor_identity_parameters(const struct monitor_identity *identity)
{
    return (const char *)(identity + 1);
}

/* ---- checks ---- */

static int wrong(struct error **err, unsigned type, const char *what)
{
    return error_set(err, EPROTO, "PROTOCOL_ERROR", "message %s: %s", monitor_type_name(type), what);
}

static bool ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static int check_prepare(const struct monitor_prepare *p, struct error **err)
{
    if (p->vcpus < 1 || p->vcpus > MONITOR_VCPU_MAX)
        return wrong(err, MONITOR_PREPARE, "number of vCPUs");
    if (p->boot < MONITOR_BOOT_UNIKERNEL || p->boot > MONITOR_BOOT_MULTIBOOT)
        return wrong(err, MONITOR_PREPARE, "kind of boot");
    if (p->flags & ~(uint32_t)(MONITOR_MEMORY_SHARED | MONITOR_PREPARE_LEAST))
        return wrong(err, MONITOR_PREPARE, "an unknown flag");
    if (p->nic_count > MONITOR_NIC_MAX)
        return wrong(err, MONITOR_PREPARE, "number of network devices");
    if ((p->vcpus_max && p->vcpus_max < p->vcpus) || p->vcpus_max > MONITOR_VCPU_MAX ||
        (p->memory_max_bytes && p->memory_max_bytes < p->memory_bytes) ||
        (p->boot != MONITOR_BOOT_DISK && (p->vcpus_max > p->vcpus || p->memory_max_bytes > p->memory_bytes)))
        return wrong(err, MONITOR_PREPARE, "room to grow");
    return 0;
}

static int check_devices(const struct monitor_load *l, struct error **err)
{
    for (unsigned i = 0; i < l->nic_count; i++)
        if (l->nics[i].backend > MONITOR_NET_VHOST_USER || l->nics[i].queues < 1 ||
            l->nics[i].queues > MONITOR_QUEUE_MAX || (l->nics[i].mac[0] & 1))
            return wrong(err, MONITOR_LOAD, "a network device");
    for (unsigned i = 0; i < l->disk_count; i++)
        if (l->disks[i].read_only > 1 || l->disks[i].format > 1 || l->disks[i].overlay > 1)
            return wrong(err, MONITOR_LOAD, "a disk");
    return 0;
}

static int check_parameters(unsigned type, const char *text, uint32_t text_size, size_t whole_size, struct error **err)
{
    if (text_size < 1 || text_size > MONITOR_PARAMETERS_MAX || whole_size != fixed_size(type) + text_size)
        return wrong(err, type, "length of the parameters");
    if (strnlen(text, text_size) != text_size - 1)
        return wrong(err, type, "parameters that are not one string");
    return 0;
}

static int check_identity(const struct monitor_identity *i, size_t size, struct error **err)
{
    if (i->flags & ~(uint32_t)MONITOR_IDENTITY_FILES)
        return wrong(err, MONITOR_IDENTITY, "an unknown flag");
    if (i->nic_count > MONITOR_NIC_MAX || i->log_current > 1)
        return wrong(err, MONITOR_IDENTITY, "number of devices or of the log");
    if (!ends(i->name, sizeof(i->name)) || !ends(i->id, sizeof(i->id)))
        return wrong(err, MONITOR_IDENTITY, "a name without end");
    for (unsigned n = 0; n < i->nic_count; n++)
        if (i->nics[n].mac[0] & 1)
            return wrong(err, MONITOR_IDENTITY, "a network device");
    return check_parameters(MONITOR_IDENTITY, monitor_identity_parameters(i), i->parameters_size, size, err);
}

static int check_load(const struct monitor_load *l, size_t size, struct error **err)
{
    if (l->flags & ~(uint32_t)(2 * MONITOR_LOAD_SESSIONS - 1) ||
        ((l->flags & MONITOR_LOAD_INCOMING) && !(l->flags & MONITOR_LOAD_RESTORE)))
        return wrong(err, MONITOR_LOAD, "an unknown flag");
    if (l->boot < MONITOR_BOOT_UNIKERNEL || l->boot > MONITOR_BOOT_MULTIBOOT)
        return wrong(err, MONITOR_LOAD, "kind of boot");
    if (l->nic_count > MONITOR_NIC_MAX || l->disk_count > MONITOR_DISK_MAX)
        return wrong(err, MONITOR_LOAD, "number of devices");
    if (!ends(l->name, sizeof(l->name)) || !ends(l->id, sizeof(l->id)))
        return wrong(err, MONITOR_LOAD, "a name without end");
    int r = check_parameters(MONITOR_LOAD, monitor_parameters(l), l->parameters_size, size, err);
    return r < 0 ? r : check_devices(l, err);
}

static int check_exec(const struct monitor_exec *e, size_t size, struct error **err)
{
    const char *strings = (const char *)(e + 1);
    size_t ends_found = 0;

    if (e->terminal > 1 || e->argc < 1 || e->argc > MONITOR_STRINGS_MAX || e->envc > MONITOR_STRINGS_MAX - e->argc ||
        e->strings_size != size - sizeof(*e))
        return wrong(err, MONITOR_EXEC, "counts");
    for (size_t i = 0; i < e->strings_size; i++)
        ends_found += strings[i] == '\0';
    if (ends_found != (size_t)e->argc + e->envc + 2 || strings[e->strings_size - 1])
        return wrong(err, MONITOR_EXEC, "strings");
    return 0;
}

static bool has_more(unsigned type)
{
    return type == MONITOR_LOAD || type == MONITOR_IDENTITY || type == MONITOR_EXEC;
}

static int check_body(const struct monitor_header *h, size_t size, struct error **err)
{
    const struct monitor_reply *reply = (const void *)h;

    switch (h->type) {
    case MONITOR_PREPARE:
        return check_prepare((const void *)h, err);
    case MONITOR_LOAD:
        return check_load((const void *)h, size, err);
    case MONITOR_IDENTITY:
        return check_identity((const void *)h, size, err);
    case MONITOR_EXEC:
        return check_exec((const void *)h, size, err);
    case MONITOR_DONE:
    case MONITOR_FAILED:
        if (reply->stage >= MONITOR_STAGE_COUNT || reply->error < 0 || !ends(reply->detail, sizeof(reply->detail)) ||
            !ends(reply->hint, sizeof(reply->hint)))
            return wrong(err, h->type, "stage, error or words");
        return 0;
    default:
        return 0;
    }
}

/* The least number of descriptors the message has, and the number it may have. */
static void wanted_fds(const struct monitor_header *h, unsigned *ret_least, unsigned *ret_most)
{
    struct monitor_load_fds l = {0};

    switch (h->type) {
    case MONITOR_PREPARE: /* /dev/kvm, or none under emulation */
    case MONITOR_DONE:    /* CONSOLE, VSOCK */
        *ret_least = 0;
        *ret_most = 1;
        return;
    case MONITOR_SNAPSHOT:
    case MONITOR_MIGRATE:
    case MONITOR_NET:
        *ret_least = *ret_most = 1;
        return;
    case MONITOR_EXEC:
        *ret_least = *ret_most = ((const struct monitor_exec *)(const void *)h)->terminal ? 1 : 3;
        return;
    case MONITOR_LOAD:
        monitor_load_layout((const void *)h, &l);
        break;
    case MONITOR_IDENTITY:
        l.count = ((const struct monitor_identity *)h)->flags & MONITOR_IDENTITY_FILES ? 4 : 0;
        break;
    default:
        break;
    }
    *ret_least = *ret_most = l.count;
}

int monitor_check(const void *bytes, size_t size, unsigned fd_count, unsigned *ret_fds, struct error **err)
{
    const struct monitor_header *h = bytes;
    unsigned least, most;

    if (size < sizeof(*h) || size > MONITOR_MESSAGE_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "a message of %zu bytes", size);
    if (h->protocol != MONITOR_PROTOCOL) {
        error_set(err, EPROTO, "PROTOCOL_ERROR", "the other side speaks version %u, this one %u", h->protocol,
                  MONITOR_PROTOCOL);
        error_hint(err, "it is of another release: stop and start the instance");
        return -EPROTO;
    }
    if (h->type < MONITOR_PREPARE || h->type >= MONITOR_TYPE_COUNT)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "message of unknown type %u", h->type);
    if (h->size != size || size < fixed_size(h->type) || (!has_more(h->type) && size != fixed_size(h->type)))
        return wrong(err, h->type, "length");
    int r = check_body(h, size, err);
    if (r < 0)
        return r;
    wanted_fds(h, &least, &most);
    if (fd_count < least || most > MONITOR_FD_MAX)
        return error_set(err, EPROTO, "PROTOCOL_ERROR", "message %s: %u descriptors, %u are wanted",
                         monitor_type_name(h->type), fd_count, least);
    *ret_fds = fd_count < most ? fd_count : most;
    return 0;
}

/* ---- sockets ---- */

static void close_from(struct monitor_message *m, unsigned first)
{
    for (unsigned i = first; i < m->fd_count; i++)
        m->fds[i] = close_fd(m->fds[i]);
    if (m->fd_count > first)
        m->fd_count = first;
}

void monitor_message_end(struct monitor_message *m)
{
    close_from(m, 0);
}

static void take_descriptors(struct msghdr *header, struct monitor_message *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(one));
            if (m->fd_count < MONITOR_FD_MAX)
                m->fds[m->fd_count++] = one;
            else
                close_fd(one);
        }
    }
}

int monitor_receive(int socket, struct monitor_message *m, struct error **err)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MONITOR_FD_MAX)];
    struct iovec iov = {.iov_base = m->bytes, .iov_len = sizeof(m->bytes)};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    unsigned fds = 0;
    ssize_t n;

    m->fd_count = 0;
    do
        n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ECONNRESET))
        return errno == EAGAIN ? -EAGAIN : 0;
    if (n < 0)
        return error_set_errno(err, errno, "PROTOCOL_ERROR", "receiving a message");
    take_descriptors(&header, m);
    if (n == 0 && m->fd_count == 0)
        return 0;
    int r = header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)
                ? error_set(err, EPROTO, "PROTOCOL_ERROR", "a message that is too large")
                : monitor_check(m->bytes, (size_t)n, m->fd_count, &fds, err);
    close_from(m, r < 0 ? 0 : fds);
    return r < 0 ? r : 1;
}

int monitor_send(int socket, struct monitor_header *message, size_t size, const int *fds, unsigned fd_count,
                 struct error **err)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MONITOR_FD_MAX)];
    struct iovec iov = {.iov_base = message, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd_count > MONITOR_FD_MAX || size > MONITOR_MESSAGE_MAX)
        return error_set(err, E2BIG, "INTERNAL", "message %s: too large", monitor_type_name(message->type));
    message->protocol = MONITOR_PROTOCOL;
    message->size = (uint32_t)size;
    if (fd_count) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        memset(control, 0, header.msg_controllen);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    do
        n = sendmsg(socket, &header, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? error_set_errno(err, errno, "PROTOCOL_ERROR", "sending message %s", monitor_type_name(message->type))
                 : 0;
}

void monitor_send_failed(int socket, enum monitor_stage stage, const struct error *why)
{
    struct monitor_reply reply = {.header.type = MONITOR_FAILED, .stage = (uint32_t)stage};

    if (why) {
        reply.error = why->errnum;
        error_text(why, reply.detail, sizeof(reply.detail));
        snprintf(reply.hint, sizeof(reply.hint), "%s", why->hint ? why->hint : "");
    }
    monitor_send(socket, &reply.header, sizeof(reply), NULL, 0, NULL);
}

void monitor_send_done(int socket, const uint64_t times[MONITOR_TIMES], int fd)
{
    struct monitor_reply reply = {.header.type = MONITOR_DONE};

    if (times)
        memcpy(reply.times, times, sizeof(reply.times));
    monitor_send(socket, &reply.header, sizeof(reply), &fd, fd >= 0 ? 1 : 0, NULL);
}
