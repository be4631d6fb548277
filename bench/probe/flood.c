/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYN flood and reply clock of the instantiation probe. One thread sends and reads; the caller makes the create call
 * meanwhile. Process: coracle-bench, as root or with CAP_NET_RAW and CAP_SYS_ADMIN.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "bench/probe/flood.h"
#include "bench/probe/netns.h"
#include "bench/stats.h"

enum {
    SOURCE_PORT = 40000,
    INTERVALS_MAX = 20000, /* 0.8 s of flood: enough for every percentile stated */
    QUIET_TIMEOUT_MS = 3000,
    REPLY_BYTES = 128,
};

struct frame {
    struct ether_header ether;
    struct iphdr ip;
    struct tcphdr tcp;
} __attribute__((packed));

struct flood {
    struct target target;
    int fd;
    pthread_t thread;
    struct frame frames[2]; /* [0] closed port, [1] application's port */
    struct sockaddr_ll to;
    unsigned quiet_ms;
    atomic_bool quit, quiet;         /* quiet: nothing has answered for quiet_ms */
    atomic_llong rst_ns, syn_ack_ns; /* 0: not yet */
    atomic_llong last_reply_mono, not_before_ns;
    uint64_t sent;
    double *intervals; /* us */
    size_t interval_count;
    int64_t clock_offset; /* realtime - monotonic at start */
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

int64_t monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static uint32_t add16(uint32_t sum, const void *data, size_t n)
{
    const uint8_t *p = data;

    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    return sum;
}

/* RFC 1071 */
static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void set_sequence(struct frame *f, uint32_t sequence)
{
    uint32_t sum;

    f->tcp.seq = htonl(sequence);
    f->tcp.check = 0;
    sum = add16(0, &f->ip.saddr, 8) + IPPROTO_TCP + sizeof(f->tcp);
    f->tcp.check = fold(add16(sum, &f->tcp, sizeof(f->tcp)));
}

static void build_frame(struct frame *f, const struct target *t, const uint8_t source_mac[6], uint16_t port)
{
    *f = (struct frame){.ether.ether_type = htons(ETHERTYPE_IP)};
    memcpy(f->ether.ether_dhost, t->mac, 6);
    memcpy(f->ether.ether_shost, source_mac, 6);
    f->ip = (struct iphdr){.version = 4,
                           .ihl = 5,
                           .ttl = 64,
                           .protocol = IPPROTO_TCP,
                           .tot_len = htons(sizeof(f->ip) + sizeof(f->tcp)),
                           .frag_off = htons(IP_DF),
                           .saddr = t->source.s_addr,
                           .daddr = t->address.s_addr};
    f->ip.check = fold(add16(0, &f->ip, sizeof(f->ip)));
    f->tcp =
        (struct tcphdr){.source = htons(SOURCE_PORT), .dest = htons(port), .doff = 5, .syn = 1, .window = htons(64240)};
    set_sequence(f, 1);
}

/* Only TCP segments from the target's address reach this socket; everything else on the bridge stays out of its queue.
 */
static int filter_replies(int fd, struct in_addr from)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 5),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 9),  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 14 + 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(from.s_addr), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, REPLY_BYTES),      BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static int open_socket(struct flood *f, struct error **err)
{
    struct netns_device device;
    auto_fd int fd = -1;
    int on = 1, r = netns_device_of(f->target.netns, f->target.source, &device, err);

    if (r < 0)
        return r;
    /* Protocol 0 receives nothing yet: the filter must stand before the first packet is queued. */
    r = netns_socket(f->target.netns, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0, &fd, err);
    if (r < 0)
        return r;
    f->to = (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = device.index};
    if (filter_replies(fd, f->target.address) < 0 || setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&f->to, sizeof(f->to)) < 0)
        return error_set_errno(err, errno, "INTERNAL", "packet socket on %s", device.name);
    build_frame(&f->frames[0], &f->target, device.mac, FLOOD_CLOSED_PORT);
    build_frame(&f->frames[1], &f->target, device.mac, f->target.port);
    f->fd = take_fd(&fd);
    return 0;
}

static int64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof(t));
            return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    }
    return 0;
}

static void note_first(atomic_llong *place, int64_t stamp)
{
    long long none = 0;

    atomic_compare_exchange_strong(place, &none, (long long)stamp);
}

static void read_reply(struct flood *f, const uint8_t *bytes, size_t n, int64_t stamp)
{
    struct frame reply;
    uint16_t port;

    if (n < sizeof(reply) || stamp == 0 || stamp < atomic_load(&f->not_before_ns))
        return;
    memcpy(&reply, bytes, sizeof(reply));
    port = ntohs(reply.tcp.source);
    if (reply.ip.ihl != 5 || reply.ip.daddr != f->target.source.s_addr || ntohs(reply.tcp.dest) != SOURCE_PORT)
        return;
    atomic_store(&f->last_reply_mono, monotonic_ns());
    if (reply.tcp.rst && port == FLOOD_CLOSED_PORT)
        note_first(&f->rst_ns, stamp);
    else if (reply.tcp.syn && reply.tcp.ack && port == f->target.port)
        note_first(&f->syn_ack_ns, stamp);
}

static void drain(struct flood *f)
{
    uint8_t bytes[REPLY_BYTES];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(struct timespec)) + 64];
    } control;

    for (;;) {
        struct iovec iov = {bytes, sizeof(bytes)};
        struct msghdr m = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(f->fd, &m, 0);

        if (n < 0)
            return;
        read_reply(f, bytes, (size_t)n, stamp_of(&m));
    }
}

/* Both ports in one system call; a port that has answered is left alone, so that the instance can get on with its work.
 */
static void send_round(struct flood *f)
{
    struct iovec iov[2];
    struct mmsghdr m[2] = {0};
    bool done[2] = {f->quiet && f->rst_ns, f->quiet && f->syn_ack_ns};
    unsigned count = 0;

    for (int i = 0; i < 2; i++) {
        if (done[i])
            continue;
        set_sequence(&f->frames[i], (uint32_t)f->sent + 1);
        iov[count] = (struct iovec){&f->frames[i], sizeof(f->frames[i])};
        m[count].msg_hdr =
            (struct msghdr){.msg_name = &f->to, .msg_namelen = sizeof(f->to), .msg_iov = &iov[count], .msg_iovlen = 1};
        count++;
    }
    if (count)
        f->sent += (uint64_t)(sendmmsg(f->fd, m, count, 0) > 0 ? count : 0);
}

/*
 * Sleeps end on time, and that is all: with a real-time priority the flood kept its pace better, but on a small host it
 * starved what it measures. A process that woke up on the flood's processor stayed there for tens of milliseconds. The
 * intervals in the report say what the pace came to.
 */
static void sleep_precisely(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL);
}

static void judge_quiet(struct flood *f, int64_t now)
{
    if (f->quiet || now - atomic_load(&f->last_reply_mono) < (int64_t)f->quiet_ms * 1000000)
        return;
    atomic_store(&f->rst_ns, 0);
    atomic_store(&f->syn_ack_ns, 0);
    atomic_store(&f->quiet, true);
}

/*
 * When the next round is due. Where a round is dear (a bridge that copies unknown frames to hundreds of ports) the
 * flood sleeps at least as long as it worked: it would otherwise take a processor away from what it measures. The
 * interval in the report shows it.
 */
static int64_t pace(const struct flood *f, int64_t due, int64_t begun, int64_t done)
{
    int64_t next = due + (f->target.emulated ? FLOOD_EMULATED_PERIOD_NS : FLOOD_PERIOD_NS),
            fair = done + (done - begun);

    return next > fair ? next : fair;
}

static void *flood_main(void *argument)
{
    struct flood *f = argument;
    int64_t next = monotonic_ns(), last = 0;

    sleep_precisely();
    while (!atomic_load(&f->quit)) {
        int64_t now = monotonic_ns();

        if (last && f->interval_count < INTERVALS_MAX)
            f->intervals[f->interval_count++] = (double)(now - last) / 1000;
        last = now;
        send_round(f);
        drain(f);
        judge_quiet(f, now);
        next = pace(f, next, now, monotonic_ns());
        struct timespec until = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    return NULL;
}

static void flood_free(struct flood *f)
{
    close_fd(f->fd);
    free(f->intervals);
    free(f);
}

void flood_cancel(struct flood *flood)
{
    if (!flood)
        return;
    atomic_store(&flood->quit, true);
    pthread_join(flood->thread, NULL);
    flood_free(flood);
}

static void sleep_us(long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&t, NULL);
}

int flood_start(const struct target *target, unsigned quiet_ms, struct flood **ret_flood, struct error **err)
{
    struct flood *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the flood");
    *f = (struct flood){.target = *target, .fd = -1, .quiet_ms = quiet_ms};
    f->intervals = calloc(INTERVALS_MAX, sizeof(double));
    r = f->intervals ? open_socket(f, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory for the flood");
    if (r == 0) {
        f->clock_offset = realtime_ns() - monotonic_ns();
        f->last_reply_mono = monotonic_ns();
        f->quiet = quiet_ms == 0;
        r = -pthread_create(&f->thread, NULL, flood_main, f);
        if (r < 0)
            error_set_errno(err, -r, "INTERNAL", "no thread for the flood");
    }
    if (r < 0) {
        flood_free(f);
        return r;
    }
    for (int64_t since = monotonic_ns(); !atomic_load(&f->quiet); sleep_us(200)) {
        if (monotonic_ns() - since > (int64_t)QUIET_TIMEOUT_MS * 1000000) {
            flood_cancel(f);
            return error_set(err, EBUSY, "ADDRESS_TAKEN", "something answers at the address before the create call");
        }
    }
    *ret_flood = f;
    return 0;
}

int64_t flood_rearm(struct flood *flood)
{
    int64_t now = realtime_ns();

    atomic_store(&flood->not_before_ns, now);
    atomic_store(&flood->rst_ns, 0);
    atomic_store(&flood->syn_ack_ns, 0);
    return now;
}

static void fill_result(struct flood *f, struct flood_result *ret)
{
    struct summary s;

    *ret = (struct flood_result){.has_rst = f->rst_ns != 0,
                                 .has_syn_ack = f->syn_ack_ns != 0,
                                 .rst_ns = f->rst_ns,
                                 .syn_ack_ns = f->syn_ack_ns,
                                 .sent = f->sent};
    ret->clock_step_ns = realtime_ns() - monotonic_ns() - f->clock_offset;
    if (stats_summarize(f->intervals, f->interval_count, &s) == 0 && s.n) {
        ret->interval_median_us = s.median;
        ret->interval_p99_us = s.p99;
        ret->interval_max_us = s.max;
    }
}

void flood_finish(struct flood *flood, bool want_syn_ack, unsigned timeout_ms, struct flood_result *ret_result)
{
    int64_t until = monotonic_ns() + (int64_t)timeout_ms * 1000000;

    while (monotonic_ns() < until &&
           !(atomic_load(&flood->rst_ns) && (!want_syn_ack || atomic_load(&flood->syn_ack_ns))))
        sleep_us(100);
    atomic_store(&flood->quit, true);
    pthread_join(flood->thread, NULL);
    drain(flood);
    fill_result(flood, ret_result);
    flood_free(flood);
}
