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
static struct bed bed;
static int outside_netns = -1, host_netns = -1;

static struct netlink_address v4(const char *text)
{
    struct netlink_address a = {.family = AF_INET};

    inet_pton(AF_INET, text, &a.v4);
    return a;
}

static void raise_with_address(int fd, uint32_t index, const char *address)
{
    struct netlink_address a = v4(address);
    struct netlink_batch batch;
    struct error *err = NULL;

    netlink_begin(&batch);
    netlink_up(&batch, 1, NULL);
    netlink_up(&batch, index, NULL);
    netlink_address(&batch, index, &a, 24);
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
    raise_with_address(host, 100, host_text);
    raise_with_address(outside, index, outside_text);
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
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7)}, peer;
    socklen_t size = sizeof(peer);
    char text[INET_ADDRSTRLEN] = "";
    enter(outside_netns);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0 || write(to, ".", 1) != 1)
        _exit(1);
    int c = accept(fd, (struct sockaddr *)&peer, &size);
    inet_ntop(AF_INET, &peer.sin_addr, text, sizeof(text));
    if (c < 0 || write(c, "!", 1) != 1 || write(to, text, strlen(text)) < 0)
        _exit(1);
    _exit(0);
}

/* The test's networks have no IPv6. */
static void without_ipv6(struct plan_nic *nic)
{
    nic->prefix6 = 0;
    nic->ipv6 = nic->gateway6 = (struct in6_addr){0};
}

static int run_dial(unsigned n, const char *network)
{
    struct launch_plan plan;
    struct message_exited e;

    bed_plan(&bed, &plan, n, "dial", outside_text);
    without_ipv6(&plan.nics[0]);
    plan.nics[0].prefix4 = 24;
    snprintf(plan.nics[0].link, sizeof(plan.nics[0].link), "%s", network);
    plan.nics[0].ipv4.s_addr = htonl((strcmp(network, "out") == 0 ? 0xc6120100 : 0xc6120200) + n);
    plan.nics[0].gateway4.s_addr = htonl(strcmp(network, "out") == 0 ? 0xc6120101 : 0xc6120201);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    BED_CHECK(bed_wait_exited(&bed, plan.id, 10000, &e));
    BED_CHECK(bed_release(&bed, n));
    plan_clear(&plan);
    return e.wait_status;
}

static void test_masquerade(void)
{
    char text[INET_ADDRSTRLEN + 1] = "";
    int said[2];
    pid_t server;

    BED_CHECK(pipe2(said, O_CLOEXEC) == 0);
    server = serve_outside(said[1]);
    BED_CHECK(read(said[0], text, 1) == 1); /* it listens */
    BED_CHECK(run_dial(10, "inside") != 0); /* a network without uplink */
    BED_CHECK(run_dial(10, "out") == 0);
    BED_CHECK(waitpid(server, NULL, 0) == server);
    memset(text, 0, sizeof(text));
    BED_CHECK(read(said[0], text, sizeof(text) - 1) > 0);
    if (strcmp(text, host_text) != 0)
        bed_die("outside saw %s, not the host", text);
    close(said[0]);
    close(said[1]);
}

static bool knock_host(int from_netns, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 1};
    char byte = 0;

    enter(from_netns);
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enter(host_netns);
    inet_pton(AF_INET, host_text, &a.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && read(fd, &byte, 1) == 1 && byte == '!';
}

/* The application needs a moment until it listens. */
static bool reach_host(int from_netns, int port)
{
    for (int i = 0; i < 200; i++) {
        if (knock_host(from_netns, port))
            return true;
        usleep(10000);
    }
    return false;
}

static void publishing_plan(struct launch_plan *plan, unsigned n, const char *network)
{
    bed_plan(&bed, plan, n, "serve", "7");
    snprintf(plan->nics[0].link, sizeof(plan->nics[0].link), "%s", network);
    without_ipv6(&plan->nics[0]);
    plan->nics[0].prefix4 = 24;
    plan->nics[0].ipv4.s_addr = htonl(0xc6120100 + n);
    plan->nics[0].gateway4.s_addr = htonl(0xc6120101);
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

static void add_link(const char *name, const char *gateway, bool uplink)
{
    struct link link = {.prefix4 = 24, .uplink = uplink};

    snprintf(link.name, sizeof(link.name), "%s", name);
    inet_pton(AF_INET, gateway, &link.gateway4);
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
    bed_open(&bed, "uplink = ext0\npublish = 198.19.0.1\npool_depth = 1\n");
    bed_launch(&bed);
    add_link("out", "198.18.1.1", true);
    add_link("inside", "198.18.2.1", false);
    test_masquerade();
    test_publish();
    BED_CHECK(system("! nft list ruleset | grep -q dnat") == 0);
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
