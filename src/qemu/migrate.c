/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running machine from one supervisor to another on this host: the base for replacing a supervisor's release under a
 * guest. Memory and private disks are files: the other side gets the files, and only the devices' state is copied,
 * while the guest stands still.
 *
 * Over the control socket: -> description with files; <- R with the way in for QEMU's state; (state); -> G: this side
 * will not go on; <- K: it runs there. Until G the guest goes on here when anything fails. After it, it never does: two
 * machines with one memory would be worse than none. The peer is another coracle-qemu, checked like a stranger.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "qemu/supervisor.h"

enum { STEP_MS = 20, PEER_MS = 30000, FILES_MAX = 1 + MONITOR_DISK_MAX };

static int lost(struct error **err, const char *what)
{
    return error_set(err, EPIPE, "SNAPSHOT_UNUSABLE", "migration: the other monitor %s", what);
}

static int send_with(int control, const void *bytes, size_t size, const int *fds, unsigned n, struct error **err)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int) * FILES_MAX)] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n) {
        m.msg_control = room;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
    }
    return sendmsg(control, &m, MSG_NOSIGNAL) == (ssize_t)size ? 0 : lost(err, "is gone");
}

/* Exactly size bytes with at most FILES_MAX descriptors, which become the caller's. */
static int receive_with(int control, void *bytes, size_t size, int fds[FILES_MAX], unsigned *ret_n, struct error **err)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int) * FILES_MAX)];
    struct iovec iov = {.iov_base = bytes, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    ssize_t got = recvmsg(control, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);

    *ret_n = 0;
    for (struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n > FILES_MAX - *ret_n)
            continue;
        memcpy(fds + *ret_n, CMSG_DATA(c), n * sizeof(int));
        *ret_n += (unsigned)n;
    }
    if (got == (ssize_t)size && !(m.msg_flags & MSG_CTRUNC))
        return 0;
    while (*ret_n)
        close_fd(fds[--*ret_n]);
    return lost(err, got <= 0 ? "is gone" : "does not keep to the protocol");
}

static int wait_readable(int fd, struct error **err)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, PEER_MS);
    while (n < 0 && errno == EINTR);
    return n > 0 ? 0 : lost(err, "does not answer");
}

static int receive_word(int control, char wanted, struct error **err)
{
    int fds[FILES_MAX];
    unsigned n;
    char word;
    int r = wait_readable(control, err);

    if (r == 0)
        r = receive_with(control, &word, 1, fds, &n, err);
    if (r < 0)
        return r;
    while (n)
        close_fd(fds[--n]);
    return word == wanted ? 0 : lost(err, "does not keep to the protocol");
}

/* ---- out ---- */

/* The consoles are read meanwhile. */
static int wait_for_peer(struct supervisor *s, int control, struct error **err)
{
    struct pollfd p = {.fd = control, .events = POLLIN};

    for (int waited = 0; waited < PEER_MS; waited += STEP_MS) {
        if (poll(&p, 1, 0) > 0)
            return 0;
        if (supervisor_turn(s, STEP_MS, false) < 0)
            return error_set(err, EPIPE, "START_FAILED", "migration: QEMU ended");
    }
    return lost(err, "does not answer");
}

static int send_description(struct supervisor *s, int control, struct error **err)
{
    struct snapshot d;
    int fds[FILES_MAX];
    unsigned n = 0;

    snapshot_describe(&s->machine, s->qmp.version, &d);
    d.generation = s->generation;
    d.moving = (s->agent_there ? MOVING_AGENT : 0) | (s->ready ? MOVING_READY : 0) | (s->paused ? MOVING_PAUSED : 0);
    if (s->ram >= 0) {
        d.moving |= MOVING_RAM;
        d.ram.size = s->machine.memory_bytes;
        fds[n++] = s->ram;
    }
    for (unsigned i = 0; i < s->machine.disk_count; i++)
        if (s->overlays[i] >= 0) {
            d.overlays[i].size = 1;
            fds[n++] = s->overlays[i];
        }
    snapshot_seal(&d);
    return send_with(control, &d, sizeof(d), fds, n, err);
}

static int hand_over(struct supervisor *s, int control, bool was_paused, struct error **err)
{
    int fds[FILES_MAX];
    unsigned n = 0;
    char word;

    s->paused = was_paused; /* as it shall be there */
    int r = send_description(s, control, err);
    s->paused = true;
    if (r == 0)
        r = wait_for_peer(s, control, err);
    if (r == 0)
        r = receive_with(control, &word, 1, fds, &n, err);
    if (r == 0 && (word != 'R' || n != 1))
        r = lost(err, "does not keep to the protocol");
    if (r == 0)
        r = save_state(s, fds[0], err);
    while (n)
        close_fd(fds[--n]);
    return r < 0 ? r : send_with(control, "G", 1, NULL, 0, err);
}

static int refuse(const struct supervisor *s, int control, struct error **err)
{
    struct stat st;

    if (fstat(control, &st) < 0 || !S_ISSOCK(st.st_mode))
        return error_set(err, EINVAL, "INTERNAL", "migration: no socket came along");
    for (unsigned i = 0; i < s->machine.disk_count; i++)
        if (s->machine.disks[i].snapshot_size)
            return error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY",
                             "disk %u: the instance comes from a snapshot in which the disk had been written", i);
    return resize_refuse(s, "migration", err);
}

int migrate_out(struct supervisor *s, int control, struct error **err)
{
    const bool was_paused = s->paused;
    int r = refuse(s, control, err);

    if (r == 0 && !was_paused)
        r = qmp_call(&s->qmp, "stop", NULL, -1, QMP_TIMEOUT_MS, NULL, err);
    if (r < 0)
        return r;
    r = hand_over(s, control, was_paused, err);
    if (r < 0) {
        if (!was_paused)
            qmp_call(&s->qmp, "cont", NULL, -1, QMP_TIMEOUT_MS, NULL, NULL);
        return r;
    }
    r = wait_for_peer(s, control, err);
    if (r == 0)
        r = receive_word(control, 'K', err);
    if (r < 0) {
        s->hung = "its machine was handed to a monitor that did not take it over";
        child_kill(&s->child);
        return r;
    }
    s->moved = true;
    return 0;
}

/* ---- in ---- */

static int check_ram(int fd, uint64_t bytes, struct error **err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size == bytes && seals >= 0 && (seals & F_SEAL_SHRINK))
        return 0;
    return lost(err, "sent memory that is none");
}

static void close_arrival(struct arrival *a)
{
    a->ram = close_fd(a->ram);
    for (unsigned i = 0; i < MONITOR_DISK_MAX; i++)
        a->overlays[i] = close_fd(a->overlays[i]);
}

/* Which descriptor is what follows from the description. */
static int sort_files(struct arrival *a, const int *fds, unsigned n, struct error **err)
{
    unsigned used = 0;

    if ((a->snapshot.moving & MOVING_RAM) && used < n)
        a->ram = fds[used++];
    for (unsigned i = 0; i < MONITOR_DISK_MAX && used < n; i++)
        if (a->snapshot.overlays[i].size)
            a->overlays[i] = fds[used++];
    if (used < n) {
        while (used < n)
            close_fd(fds[--n]);
        return lost(err, "sent files that nobody knows");
    }
    if (!(a->snapshot.moving & MOVING_RAM))
        return 0;
    return a->ram < 0 ? lost(err, "sent no memory") : check_ram(a->ram, a->snapshot.memory_bytes, err);
}

int migrate_receive(int control, struct arrival *ret, struct error **err)
{
    struct arrival a = {.ram = -1, .overlays = {-1, -1, -1, -1}};
    int fds[FILES_MAX];
    unsigned n = 0;
    int r = wait_readable(control, err);

    _Static_assert(MONITOR_DISK_MAX == 4, "the initializer above");
    if (r == 0)
        r = receive_with(control, &a.snapshot, sizeof(a.snapshot), fds, &n, err);
    if (r < 0)
        return r;
    r = sort_files(&a, fds, n, err);
    if (r == 0)
        r = snapshot_check(&a.snapshot, err);
    if (r < 0) {
        close_arrival(&a);
        return r;
    }
    *ret = a;
    return 0;
}

int migrate_offer(int control, int *ret_state, struct error **err)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, errno, "START_FAILED", "socketpair");
    int r = send_with(control, "R", 1, &ends[1], 1, err);
    close_fd(ends[1]);
    if (r < 0) {
        close_fd(ends[0]);
        return r;
    }
    *ret_state = ends[0];
    return 0;
}

int migrate_await(int control, struct error **err)
{
    return receive_word(control, 'G', err);
}

int migrate_confirm(int control, struct error **err)
{
    return send_with(control, "K", 1, NULL, 0, err);
}
