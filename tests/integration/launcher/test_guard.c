/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses belong to one instance: what another's plan may not name, and what another may not send, whatever
 * capabilities it was given; before and after the launcher was killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"
#include "tests/integration/launcher/forge.h"

enum { VICTIM = 2, FORGER = 3, FIRST_INSTANCE_INDEX = 65536 };

static struct bed bed;

static void refuse(const char *what, struct launch_plan *plan, const char *code)
{
    const char *got = bed_refusal(&bed, MESSAGE_START, plan);

    if (strcmp(got, code) != 0)
        bed_die("%s: expected %s, got %s", what, code, *got ? got : "success");
    plan_clear(plan);
}

static struct launch_plan fresh(void)
{
    struct launch_plan p;

    bed_plan(&bed, &p, 9, "sleep", NULL);
    return p;
}

/* A daemon that was taken over plans these. */
static void test_plans_cannot_name_anothers_address(void)
{
    struct launch_plan victim, p;

    bed_plan(&bed, &victim, VICTIM, "sleep", NULL);
    p = fresh();
    p.nics[0].ipv4 = victim.nics[0].ipv4;
    refuse("IPv4 of another", &p, "ADDRESS_TAKEN");
    p = fresh();
    p.nics[0].ipv6 = victim.nics[0].ipv6;
    refuse("IPv6 of another", &p, "ADDRESS_TAKEN");
    p = fresh();
    memcpy(p.nics[0].mac, victim.nics[0].mac, 6);
    refuse("MAC of another", &p, "ADDRESS_TAKEN");
    p = fresh();
    p.nics[0].ipv4 = p.nics[0].gateway4;
    refuse("the gateway's IPv4", &p, "LAUNCHER_REFUSED");
    p = fresh();
    p.nics[0].ipv6 = p.nics[0].gateway6;
    refuse("the gateway's IPv6", &p, "LAUNCHER_REFUSED");
    p = fresh();
    inet_pton(AF_INET, "192.0.2.1", &p.nics[0].ipv4);
    refuse("IPv4 outside", &p, "LAUNCHER_REFUSED");
    p = fresh();
    inet_pton(AF_INET, "198.19.255.255", &p.nics[0].ipv4);
    refuse("the broadcast address", &p, "LAUNCHER_REFUSED");
    p = fresh();
    p.nics[0].prefix4 = 8;
    refuse("a longer reach", &p, "LAUNCHER_REFUSED");
    p = fresh();
    inet_pton(AF_INET6, "fd00:bad::1", &p.nics[0].ipv6);
    refuse("IPv6 outside", &p, "LAUNCHER_REFUSED");
    p = fresh();
    p.nics[0].gateway4 = victim.nics[0].ipv4;
    refuse("another as gateway", &p, "LAUNCHER_REFUSED");
    p = fresh();
    p.nics[0].gateway6 = victim.nics[0].ipv6;
    refuse("another as IPv6 gateway", &p, "LAUNCHER_REFUSED");
    p = fresh();
    refuse("its own", &p, "");
    BED_CHECK(bed_release(&bed, 9));
    p = fresh(); /* given back with the instance */
    refuse("its own again", &p, "");
    BED_CHECK(bed_release(&bed, 9));
    plan_clear(&victim);
}

static int listen_in_fabric(void)
{
    auto_fd int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fabric = -1;
    char path[160];
    int fd, big = 4 << 20;

    snprintf(path, sizeof(path), "%s/fabric", bed.run);
    fabric = open(path, O_RDONLY | O_CLOEXEC);
    BED_CHECK(fabric >= 0 && setns(fabric, CLONE_NEWNET) == 0);
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    BED_CHECK(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
    BED_CHECK(setns(home, CLONE_NEWNET) == 0);
    return fd;
}

/* Counts marked frames that a port of the bridge sent on to its instance; says which of the forged did. */
static void look(int fd, unsigned *ret_honest, unsigned *ret_forged)
{
    struct pollfd p = {fd, POLLIN, 0};
    uint8_t frame[2048];

    uint32_t honest = 0, forged = 0; /* a bit for each; a frame goes to several ports */

    while (poll(&p, 1, 300) > 0) {
        struct sockaddr_ll from;
        socklen_t length = sizeof(from);
        ssize_t n = recvfrom(fd, frame, sizeof(frame), 0, (struct sockaddr *)&from, &length);
        if (n < 8 || from.sll_pkttype != PACKET_OUTGOING || from.sll_ifindex < FIRST_INSTANCE_INDEX)
            continue;
        uint32_t bit =
            1u << ((unsigned)(frame[n - 2] - '0') * 10 + (unsigned)(frame[n - 1] - '0')) % 32; /* others' frames: any */
        if (memcmp(frame + n - 8, "HONEST", 6) == 0)
            honest |= bit;
        if (memcmp(frame + n - 8, "FORGED", 6) == 0 && !(forged & bit)) {
            printf("passed: %.8s\n", frame + n - 8);
            forged |= bit;
        }
    }
    for (int i = 0; i < FORGE_HONEST; i++)
        if (!(honest & 1u << i))
            printf("did not pass: HONEST%02d\n", i);
    *ret_honest = (unsigned)__builtin_popcount(honest);
    *ret_forged = (unsigned)__builtin_popcount(forged);
}

static void test_forged_frames_do_not_pass(void)
{
    char id[INSTANCE_ID_SIZE], address4[INET_ADDRSTRLEN], address6[INET6_ADDRSTRLEN];
    auto_fd int fd = listen_in_fabric();
    struct launch_plan victim, p;
    unsigned honest, forged;
    struct message_exited e;

    bed_plan(&bed, &victim, VICTIM, "serve", "7");
    inet_ntop(AF_INET, &victim.nics[0].ipv4, address4, sizeof(address4));
    inet_ntop(AF_INET6, &victim.nics[0].ipv6, address6, sizeof(address6));
    bed_plan(&bed, &p, FORGER, "forge", address4);
    p.process.argv = reallocarray(p.process.argv, 6, sizeof(char *));
    p.process.argv[3] = strdup(address6);
    p.process.argv[4] = NULL;
    p.capabilities = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &p), "") == 0);
    bed_id(FORGER, id);
    BED_CHECK(bed_wait_exited(&bed, id, 10000, &e));
    printf("the forger ended with 0x%x\n", e.wait_status);
    BED_CHECK(e.status_known && e.wait_status == 0);
    look(fd, &honest, &forged);
    printf("%u of %d honest and %u of %d forged frames passed\n", honest, FORGE_HONEST, forged, FORGE_FORGED);
    BED_CHECK(honest == FORGE_HONEST && forged == 0);
    BED_CHECK(bed_release(&bed, FORGER));
    BED_CHECK(bed_knock(&bed, VICTIM, 7, false, 5000) >= 0);
    BED_CHECK(bed_knock(&bed, VICTIM, 7, true, 5000) >= 0);
    plan_clear(&victim);
    plan_clear(&p);
}

/* An interface of the fabric that has IPv6 sends memberships to its instance, and costs a route in a list that every
 * start goes through. Bridges have it, for the gateways' addresses. */
static void test_ports_say_nothing_themselves(void)
{
    auto_fd int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fabric = -1;
    struct if_nameindex *list;
    unsigned ports = 0, bridges = 0;
    char path[160], off = 0;

    snprintf(path, sizeof(path), "%s/fabric", bed.run);
    fabric = open(path, O_RDONLY | O_CLOEXEC);
    BED_CHECK(fabric >= 0 && setns(fabric, CLONE_NEWNET) == 0);
    list = if_nameindex();
    BED_CHECK(list);
    for (size_t i = 0; list[i].if_name; i++) {
        bool port = list[i].if_index >= FIRST_INSTANCE_INDEX;
        if (!port && list[i].if_name[0] != 'b')
            continue;
        snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", list[i].if_name);
        auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue; /* one of the pool that goes just now */
        BED_CHECK(read(fd, &off, 1) == 1);
        BED_CHECK(off == (port ? '1' : '0'));
        ports += port;
        bridges += !port;
    }
    if_freenameindex(list);
    BED_CHECK(setns(home, CLONE_NEWNET) == 0);
    BED_CHECK(ports && bridges);
}

static void test_neighbours_reach_each_other(void)
{
    struct launch_plan victim;
    char id[INSTANCE_ID_SIZE], address[INET_ADDRSTRLEN];
    struct message_exited e;

    bed_plan(&bed, &victim, VICTIM, "serve", "7");
    inet_ntop(AF_INET, &victim.nics[0].ipv4, address, sizeof(address));
    bed_start(&bed, 4, "dial", address, NULL);
    bed_id(4, id);
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e) && e.status_known && e.wait_status == 0);
    BED_CHECK(bed_release(&bed, 4));
    plan_clear(&victim);
}

int main(void)
{
    struct remains left;

    bed_need_root();
    bed_open(&bed, "pool_depth = 2\n");
    bed_launch(&bed);
    bed_link(&bed);
    bed_start(&bed, VICTIM, "serve", "7", NULL);
    for (int round = 0; round < 2; round++) {
        test_plans_cannot_name_anothers_address();
        test_forged_frames_do_not_pass();
        test_neighbours_reach_each_other();
        test_ports_say_nothing_themselves();
        if (round == 0) { /* the next launcher finds the same addresses held */
            bed_kill(&bed, SIGKILL);
            bed_launch(&bed);
            bed_link(&bed);
        }
    }
    BED_CHECK(bed_release_all(&bed) == 1);
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
