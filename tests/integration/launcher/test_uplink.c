/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out, in namespaces of the test's own: "host" (the launcher's) and "outside", joined by ext0 and ext1. An
 * instance on an uplink network reaches outside under the host's address, a published port is reached from outside and
 * from the host, and none of it happens for a network without uplink or after the release.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netlink/netlink.h"
#include "tests/integration/launcher/bed.h"

static const char host_text[] = "198.19.0.1", outside_text[] = "198.19.0.2";
static const char host_text6[] = "fd00:c0:99::1", outside_text6[] = "fd00:c0:99::2";
static struct bed bed;
static int outside_netns = -1, host_netns = -1;

static struct netlink_address parse(int family, const char *text)
{
    struct netlink_address a = {.family = (uint8_t)family};

    inet_pton(family, text, &a.v6);
    return a;
}

static void raise_with_address(int fd, uint32_t index, const char *address, const char *address6)
{
    struct netlink_address a = parse(AF_INET, address), six = parse(AF_INET6, address6);
    struct netlink_batch batch;
    struct error *err = NULL;

    netlink_begin(&batch);
    netlink_up(&batch, 1, NULL);
    netlink_up(&batch, index, NULL);
    netlink_address(&batch, index, &a, 24);
    netlink_address(&batch, index, &six, 64);
    if (netlink_commit(fd, &batch, &err) < 0)
        bed_die("addresses: %s", err->message);
}

static void make_namespaces(void)
{
    struct netlink_batch batch;
    auto_fd int host = -1, outside = -1;
    uint32_t index;

    BED_CHECK(unshare(CLONE_NEWNET) == 0);
    outside_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    BED_CHECK(unshare(CLONE_NEWNET) == 0);
    host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    BED_CHECK(netlink_open(-1, &host, NULL) == 0 && netlink_open(outside_netns, &outside, NULL) == 0);
    netlink_begin(&batch);
    netlink_veth(
        &batch,
        &(struct netlink_veth){
            .name = "ext0", .index = 100, .peer_name = "ext1", .peer_index = 100, .peer_netns_fd = outside_netns});
    BED_CHECK(netlink_commit(host, &batch, NULL) == 0 && netlink_find(outside, "ext1", &index, NULL) == 0);
    raise_with_address(host, 100, host_text, host_text6);
    raise_with_address(outside, index, outside_text, outside_text6);
}

static void enter(int netns)
{
    BED_CHECK(setns(netns, CLONE_NEWNET) == 0);
}

/* Accepts one connection outside and answers; its peer's address in text. Runs in a child, which prints it to fd. */
static pid_t serve_outside(int to)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(7)}, peer; /* both families */
    socklen_t size = sizeof(peer);
    char text[INET6_ADDRSTRLEN] = "";
    enter(outside_netns);
    int one = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)); /* the one before has just ended */
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0 || write(to, ".", 1) != 1)
        _exit(1);
    int c = accept(fd, (struct sockaddr *)&peer, &size);
    inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof(text));
    if (c < 0 || write(c, "!", 1) != 1 || write(to, text, strlen(text)) < 0)
        _exit(1);
    _exit(0);
}

/* Addresses of the test's networks: out is 198.18.1.0/24 and fd00:c0:1::/64, inside the same with 2. */
static void place(struct plan_nic *nic, unsigned n, const char *network)
{
    bool out = strcmp(network, "out") == 0;

    snprintf(nic->link, sizeof(nic->link), "%s", network);
    nic->prefix4 = 24;
    nic->ipv4.s_addr = htonl((out ? 0xc6120100 : 0xc6120200) + n);
    nic->gateway4.s_addr = htonl(out ? 0xc6120101 : 0xc6120201);
    inet_pton(AF_INET6, out ? "fd00:c0:1::1" : "fd00:c0:2::1", &nic->gateway6);
    nic->ipv6 = nic->gateway6;
    nic->ipv6.s6_addr[14] = 1;
    nic->ipv6.s6_addr[15] = (uint8_t)n;
}

static int run_dial(unsigned n, const char *network, const char *to)
{
    struct launch_plan plan;
    struct message_exited e;

    bed_plan(&bed, &plan, n, "dial", to);
    place(&plan.nics[0], n, network);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    BED_CHECK(bed_wait_exited(&bed, plan.id, 10000, &e));
    BED_CHECK(bed_release(&bed, n));
    plan_clear(&plan);
    return e.wait_status;
}

static void test_masquerade(const char *to, const char *seen)
{
    char text[INET6_ADDRSTRLEN + 1] = "";
    int said[2];
    pid_t server;

    BED_CHECK(pipe2(said, O_CLOEXEC) == 0);
    server = serve_outside(said[1]);
    close(said[1]);
    BED_CHECK(read(said[0], text, 1) == 1);     /* it listens */
    BED_CHECK(run_dial(10, "inside", to) != 0); /* a network without uplink */
    BED_CHECK(run_dial(10, "out", to) == 0);
    BED_CHECK(waitpid(server, NULL, 0) == server);
    memset(text, 0, sizeof(text));
    BED_CHECK(read(said[0], text, sizeof(text) - 1) > 0);
    if (strcmp(text, seen) != 0)
        bed_die("outside saw %s, not the host", text);
    close(said[0]);
}

static bool knock_on(int from_netns, int port, const char *address)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 1};
    char byte = 0;

    enter(from_netns);
    auto_fd int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enter(host_netns);
    inet_pton(AF_INET6, address, &a.sin6_addr);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && read(fd, &byte, 1) == 1 && byte == '!';
}

/* Over both families, or over neither. */
static bool knock_host(int from_netns, int port)
{
    bool four = knock_on(from_netns, port, "::ffff:198.19.0.1"), six = knock_on(from_netns, port, host_text6);

    if (four != six)
        printf("only IPv%c reaches port %d\n", four ? '4' : '6', port);
    return four || six;
}

/* The application needs a moment until it listens. */
static bool reach_host(int from_netns, int port)
{
    for (int i = 0; i < 200; i++) {
        if (knock_on(from_netns, port, "::ffff:198.19.0.1") && knock_on(from_netns, port, host_text6))
            return true;
        usleep(10000);
    }
    return false;
}

static void publishing_plan(struct launch_plan *plan, unsigned n, const char *network)
{
    bed_plan(&bed, plan, n, "serve", "7");
    place(&plan->nics[0], n, network);
    plan->port_count = 1;
    plan->ports[0] = (struct spec_port){8080, 7, IPPROTO_TCP};
}

static void test_publish(void)
{
    struct launch_plan plan;

    publishing_plan(&plan, 20, "inside");
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "UNSUPPORTED_BY_TECHNOLOGY") == 0);
    plan_clear(&plan);
    BED_CHECK(!knock_host(outside_netns, 8080));
    publishing_plan(&plan, 20, "out");
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    plan_clear(&plan);
    BED_CHECK(reach_host(outside_netns, 8080));
    BED_CHECK(reach_host(host_netns, 8080));
    publishing_plan(&plan, 21, "out");
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "ADDRESS_TAKEN") == 0);
    plan_clear(&plan);
    bed_kill(&bed, SIGKILL);
    BED_CHECK(reach_host(outside_netns, 8080)); /* it does not need the launcher */
    bed_launch(&bed);
    BED_CHECK(reach_host(outside_netns, 8080));
    publishing_plan(&plan, 21, "out"); /* and the next launcher knows it */
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "ADDRESS_TAKEN") == 0);
    plan_clear(&plan);
    BED_CHECK(bed_release(&bed, 20));
    BED_CHECK(!knock_host(outside_netns, 8080));
}

static void add_link(const char *name, const char *gateway, const char *gateway6, bool uplink)
{
    struct link link = {.prefix4 = 24, .prefix6 = 64, .uplink = uplink};

    snprintf(link.name, sizeof(link.name), "%s", name);
    inet_pton(AF_INET, gateway, &link.gateway4);
    inet_pton(AF_INET6, gateway6, &link.gateway6);
    const char *code = bed_refusal(&bed, MESSAGE_LINK_ADD, &link);
    if (*code)
        bed_die("network %s: %s", name, code);
}

int main(void)
{
    struct remains left;

    bed_need_root();
    if (access("/usr/sbin/nft", X_OK) < 0) {
        fputs("skipped: nft is not installed\n", stderr);
        return 77;
    }
    make_namespaces();
    bed_open(&bed, "uplink = ext0\npublish = 198.19.0.1\npublish6 = fd00:c0:99::1\npool_depth = 1\n");
    bed_launch(&bed);
    add_link("out", "198.18.1.1", "fd00:c0:1::1", true);
    add_link("inside", "198.18.2.1", "fd00:c0:2::1", false);
    test_masquerade(outside_text, "::ffff:198.19.0.1");
    test_masquerade(outside_text6, host_text6);
    test_publish();
    BED_CHECK(system("! nft list ruleset | grep -q dnat") == 0);
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
