/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/netlink in network namespaces of its own: what a batch makes is there, carries traffic at once, and a failure is
 * named; and the fabric's sweep takes away a host end that belongs to nobody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netlink/netlink.h"
#include "tests/integration/launcher/bed.h"

static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0xa}, mac_b[6] = {2, 0, 0, 0, 0, 0xb};

static struct netlink_address address(int family, const char *text)
{
    struct netlink_address a = {.family = (uint8_t)family};

    BED_CHECK(inet_pton(family, text, &a.v6) == 1);
    return a;
}

static int new_namespace(void)
{
    BED_CHECK(unshare(CLONE_NEWNET) == 0);
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void commit(int fd, struct netlink_batch *batch)
{
    struct error *err = NULL;

    if (netlink_commit(fd, batch, &err) < 0)
        bed_die("batch: %s", err->message);
}

/* A UDP datagram from the caller's namespace to the other end; the counters show that it arrived. */
static void check_traffic(int inside, const char *to)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9)};
    auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct netlink_stats before, after;

    inet_pton(AF_INET, to, &a.sin_addr);
    BED_CHECK(netlink_stats(inside, 64, &before, NULL) == 0);
    for (int i = 0; i < 10; i++) {
        BED_CHECK(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) == 1 || errno == ECONNREFUSED);
        usleep(10000);
    }
    BED_CHECK(netlink_stats(inside, 64, &after, NULL) == 0 && after.rx_packets >= before.rx_packets + 5);
}

/* The port's forwarding entry is one that does not age, and there is none for the port's own address. */
static void check_entry_stays(void)
{
    FILE *f = popen("bridge fdb show dev v0.0", "r");
    char line[200];
    unsigned found = 0;

    BED_CHECK(f);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "33:33", 5) == 0 || strncmp(line, "01:00", 5) == 0)
            continue;
        printf("entry: %s", line);
        BED_CHECK(strncmp(line, "02:00:00:00:00:0b ", 18) == 0 && strstr(line, "extern_learn"));
        found++;
    }
    pclose(f);
    BED_CHECK(found == 1);
}

static void test_batch(void)
{
    struct netlink_address gw = address(AF_INET, "198.18.0.1"), in = address(AF_INET, "198.18.0.2");
    struct netlink_address in6 = address(AF_INET6, "fd00:1::2"), gw6 = address(AF_INET6, "fd00:1::1");
    auto_fd int netns = new_namespace(), home = new_namespace(), outside = -1, inside = -1;
    struct netlink_batch batch;
    uint32_t index;

    BED_CHECK(home >= 0 && netlink_open(-1, &outside, NULL) == 0 && netlink_open(netns, &inside, NULL) == 0);
    netlink_begin(&batch);
    netlink_bridge(&batch, "br", 10, mac_a, 1400);
    netlink_up(&batch, 10, NULL);
    netlink_address(&batch, 10, &gw, 24);
    netlink_veth(&batch, &(struct netlink_veth){.name = "v0.0",
                                                .index = 70000,
                                                .mac = mac_a,
                                                .master = 10,
                                                .up = true,
                                                .peer_name = "eth0",
                                                .peer_index = 64,
                                                .peer_mac = mac_b,
                                                .peer_netns_fd = netns,
                                                .mtu = 1400});
    netlink_port_static(&batch, 70000);
    netlink_fdb(&batch, 70000, mac_b);
    netlink_neighbour(&batch, 10, &in, mac_b);
    commit(outside, &batch);
    check_entry_stays();
    netlink_begin(&batch);
    netlink_up(&batch, 64, NULL);
    netlink_address(&batch, 64, &in, 24);
    netlink_address(&batch, 64, &in6, 64);
    netlink_neighbour(&batch, 64, &gw, mac_a);
    netlink_neighbour(&batch, 64, &gw6, mac_a);
    netlink_default_route(&batch, 64, &gw);
    netlink_default_route(&batch, 64, &gw6);
    commit(inside, &batch);
    BED_CHECK(netlink_find(inside, "eth0", &index, NULL) == 0 && index == 64);
    BED_CHECK(netlink_find(outside, "eth0", &index, NULL) == -ENODEV); /* born over there, never here */
    check_traffic(inside, "198.18.0.2");
}

/* The third of four fails: it is named, the others were carried out. */
static void test_failure_is_named(void)
{
    struct netlink_address a = address(AF_INET, "198.18.7.7");
    auto_error struct error *err = NULL;
    auto_fd int netns = new_namespace(), fd = -1;
    struct netlink_batch batch;
    uint32_t index;

    BED_CHECK(netns >= 0 && netlink_open(-1, &fd, NULL) == 0);
    netlink_begin(&batch);
    netlink_bridge(&batch, "one", 10, mac_a, 0);
    netlink_up(&batch, 10, NULL);
    netlink_address(&batch, 999, &a, 24);
    netlink_bridge(&batch, "two", 11, mac_b, 0);
    BED_CHECK(netlink_commit(fd, &batch, &err) == -ENODEV);
    if (!strstr(err->message, "adding address 198.18.7.7/24 to interface 999"))
        bed_die("the failure is called: %s", err->message);
    BED_CHECK(netlink_find(fd, "two", &index, NULL) == 0 && index == 11);
    netlink_begin(&batch);
    for (int i = 0; i <= NETLINK_BATCH_MAX; i++)
        netlink_up(&batch, 10, NULL);
    BED_CHECK(netlink_commit(fd, &batch, NULL) == -E2BIG);
}

static void test_stray_host_end(void)
{
    auto_fd int fabric = -1, fd = -1;
    struct netlink_batch batch;
    static struct bed bed;
    struct remains left;
    char path[128];

    bed_open(&bed, "pool_depth = 0\n");
    bed_launch(&bed);
    bed_link(&bed);
    bed_start(&bed, 1, "serve", "7", NULL);
    snprintf(path, sizeof(path), "%s/fabric", bed.run);
    fabric = open(path, O_RDONLY | O_CLOEXEC);
    BED_CHECK(netlink_open(fabric, &fd, NULL) == 0);
    netlink_begin(&batch); /* its peer lives on in the fabric, so nothing dies that would take it along */
    netlink_veth(
        &batch,
        &(struct netlink_veth){
            .name = "v16399.0", .index = 300000, .peer_name = "stray", .peer_index = 0, .peer_netns_fd = fabric});
    commit(fd, &batch);
    bed_count(&bed, &left);
    BED_CHECK(left.veths == 2);
    bed_kill(&bed, SIGKILL);
    bed_launch(&bed);
    bed_count(&bed, &left);
    BED_CHECK(left.veths == 1 && bed_knock(&bed, 1, 7, false, 5000) >= 0);
    BED_CHECK(bed_release(&bed, 1));
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
}

int main(void)
{
    bed_need_root();
    test_batch();
    test_failure_is_named();
    test_stray_host_end();
    puts("ok");
    return 0;
}
