/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rtnetlink socket: opened in a given namespace, a batch sent at once, its acknowledgements read, dumps and single
 * answers parsed. Called by every user of netlink.h on the launcher's threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "netlink/batch.h"
#include "netlink/netlink.h"

enum { RECEIVE_BYTES = 32768, ANSWER_TIMEOUT_S = 10 };

static atomic_uint next_sequence = 1;

uint32_t netlink_sequences(unsigned count)
{
    return atomic_fetch_add(&next_sequence, count);
}

static int make_socket(int protocol, struct error **err)
{
    auto_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    int one = 1;

    if (fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "opening a netlink socket");
    /* Short acknowledgements, with the kernel's own words; both are comforts, so failing is no error. */
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return take_fd(&fd);
}

static int open_inside(int netns_fd, int protocol, int *ret_fd, struct error **err)
{
    auto_fd int home = -1;
    int fd, saved;

    if (netns_fd >= 0) {
        home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (home < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
            return error_set_errno(err, errno, "START_FAILED", "entering a network namespace");
    }
    fd = make_socket(protocol, err);
    saved = errno;
    if (home >= 0 && setns(home, CLONE_NEWNET) < 0) {
        /* A thread in the wrong namespace would build the next instance's network inside this one's. */
        saved = errno;
        close_fd(fd);
        return error_set_errno(err, saved, "INTERNAL", "leaving a network namespace");
    }
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int netlink_open(int netns_fd, int *ret_fd, struct error **err)
{
    return open_inside(netns_fd, NETLINK_ROUTE, ret_fd, err);
}

int netlink_open_netfilter(int netns_fd, int *ret_fd, struct error **err)
{
    return open_inside(netns_fd, NETLINK_NETFILTER, ret_fd, err);
}

int netlink_set_mac(int fd, const char *name, const uint8_t mac[6], struct error **err)
{
    struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};

    strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
    memcpy(request.ifr_hwaddr.sa_data, mac, 6);
    return ioctl(fd, SIOCSIFHWADDR, &request) < 0
               ? error_set_errno(err, errno, "START_FAILED", "network: the hardware address of %s", name)
               : 0;
}

/* The kernel's own explanation of a failure, "" when it gave none. */
static const char *extended_words(const struct nlmsghdr *h)
{
    const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    size_t skip = sizeof(*e);

    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
        return "";
    if (!(h->nlmsg_flags & NLM_F_CAPPED))
        skip += mnl_nlmsg_get_payload_len(&(struct nlmsghdr){.nlmsg_len = e->msg.nlmsg_len});
    mnl_attr_for_each(a, h, skip) if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG) return mnl_attr_get_str(a);
    return "";
}

/* Keeps the first failure. Returns whether this is the answer to the last request: every failure comes before it. */
static bool take_answer(const struct netlink_batch *batch, const struct nlmsghdr *h, int *first_failure,
                        struct error **err)
{
    uint32_t which = h->nlmsg_seq - batch->first_sequence;
    const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
    const char *words;
    char text[160];

    if (h->nlmsg_type != NLMSG_ERROR || which >= batch->count)
        return false;
    if (e->error < 0 && *first_failure == 0) {
        words = extended_words(h);
        *first_failure = e->error;
        error_set_errno(err, -e->error, e->error == -ENOMEM || e->error == -ENOBUFS ? "NO_MEMORY" : "START_FAILED",
                        "network: %s%s%s%s", netlink_describe(batch, which, text, sizeof(text)), *words ? " (" : "",
                        words, *words ? ")" : "");
    }
    return which == batch->count - 1;
}

static int read_answers(int fd, const struct netlink_batch *batch, struct error **err)
{
    _Alignas(8) uint8_t answer[8192];
    bool answered = false;
    int failure = 0;

    while (!answered) {
        ssize_t n = recv(fd, answer, sizeof(answer), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno == EAGAIN ? ETIMEDOUT : errno, "START_FAILED",
                                   "the kernel did not answer %u network requests", batch->count);
        int left = (int)n;
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
            answered |= take_answer(batch, h, &failure, err);
    }
    return failure;
}

int netlink_commit(int fd, struct netlink_batch *batch, struct error **err)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

    if (batch->overflow)
        return error_set(err, E2BIG, "INTERNAL", "too many network requests for one batch (%u)", batch->count);
    if (batch->count == 0)
        return 0;
    netlink_number(batch);
    if (sendto(fd, batch->data, batch->used, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return error_set_errno(err, errno, "START_FAILED", "sending %u network requests", batch->count);
    return read_answers(fd, batch, err);
}

/* Sends one question and hands every answer message to each() until the end. */
static int ask(int fd, struct nlmsghdr *h, bool dump, int (*each)(const struct nlmsghdr *, void *), void *context,
               const char *what, struct error **err)
{
    auto_free uint8_t *answer = malloc(RECEIVE_BYTES);
    uint32_t sequence = netlink_sequences(1);

    if (!answer)
        return error_set(err, ENOMEM, "NO_MEMORY", "%s: out of memory", what);
    h->nlmsg_seq = sequence;
    if (send(fd, h, h->nlmsg_len, 0) < 0)
        return error_set_errno(err, errno, "INTERNAL", "%s: asking the kernel", what);
    for (;;) {
        ssize_t n = recv(fd, answer, RECEIVE_BYTES, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "INTERNAL", "%s: no answer from the kernel", what);
        int left = (int)n;
        for (struct nlmsghdr *m = (struct nlmsghdr *)answer; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
            if (m->nlmsg_seq != sequence)
                continue;
            if (m->nlmsg_type == NLMSG_DONE)
                return 0;
            if (m->nlmsg_type == NLMSG_ERROR) {
                int e = -((const struct nlmsgerr *)mnl_nlmsg_get_payload(m))->error;
                return e ? error_set_errno(err, e, "INTERNAL", "%s", what) : 0;
            }
            each(m, context);
            if (!dump)
                return 0;
        }
    }
}

static struct nlmsghdr *link_question(uint8_t *buffer, uint16_t flags, uint32_t index)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
    struct ifinfomsg *i;

    h->nlmsg_type = RTM_GETLINK;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    i = mnl_nlmsg_put_extra_header(h, sizeof(*i));
    i->ifi_family = AF_UNSPEC;
    i->ifi_index = (int)index;
    return h;
}

static int keep_index(const struct nlmsghdr *h, void *context)
{
    const struct ifinfomsg *i = mnl_nlmsg_get_payload(h);

    *(uint32_t *)context = (uint32_t)i->ifi_index;
    return 0;
}

int netlink_find(int fd, const char *name, uint32_t *ret_index, struct error **err)
{
    _Alignas(8) uint8_t buffer[256];
    struct nlmsghdr *h = link_question(buffer, 0, 0);
    uint32_t index = 0;
    char what[64];
    int r;

    snprintf(what, sizeof(what), "looking for interface %.15s", name);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    r = ask(fd, h, false, keep_index, &index, what, err);
    if (r < 0)
        return r;
    *ret_index = index;
    return 0;
}

static int keep_stats(const struct nlmsghdr *h, void *context)
{
    struct netlink_stats *s = context;
    struct rtnl_link_stats64 k;
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
    {
        if (mnl_attr_get_type(a) != IFLA_STATS64 ||
            mnl_attr_get_payload_len(a) < offsetof(struct rtnl_link_stats64, multicast))
            continue;
        memset(&k, 0, sizeof(k));
        memcpy(&k, mnl_attr_get_payload(a),
               mnl_attr_get_payload_len(a) < sizeof(k) ? mnl_attr_get_payload_len(a) : sizeof(k));
        *s = (struct netlink_stats){k.rx_packets, k.rx_bytes, k.rx_dropped, k.tx_packets, k.tx_bytes, k.tx_dropped};
    }
    return 0;
}

int netlink_stats(int fd, uint32_t index, struct netlink_stats *ret_stats, struct error **err)
{
    _Alignas(8) uint8_t buffer[256];
    struct netlink_stats s = {0};
    char what[64];
    int r;

    snprintf(what, sizeof(what), "counters of interface %u", index);
    r = ask(fd, link_question(buffer, 0, index), false, keep_stats, &s, what, err);
    if (r < 0)
        return r;
    *ret_stats = s;
    return 0;
}

struct listing {
    netlink_each each;
    void *context;
};

static int list_one(const struct nlmsghdr *h, void *context)
{
    const struct ifinfomsg *i = mnl_nlmsg_get_payload(h);
    const char *name = "", *kind = "";
    struct listing *l = context;
    const struct nlattr *a, *n;

    mnl_attr_for_each(a, h, sizeof(*i))
    {
        if (mnl_attr_get_type(a) == IFLA_IFNAME)
            name = mnl_attr_get_str(a);
        if (mnl_attr_get_type(a) != IFLA_LINKINFO)
            continue;
        mnl_attr_for_each_nested(n, a) if (mnl_attr_get_type(n) == IFLA_INFO_KIND) kind = mnl_attr_get_str(n);
    }
    l->each(l->context, (uint32_t)i->ifi_index, name, kind);
    return 0;
}

int netlink_list(int fd, netlink_each each, void *context, struct error **err)
{
    _Alignas(8) uint8_t buffer[256];
    struct listing l = {each, context};

    return ask(fd, link_question(buffer, NLM_F_DUMP, 0), true, list_one, &l, "listing interfaces", err);
}
