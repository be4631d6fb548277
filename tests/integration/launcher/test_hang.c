/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image whose start hangs: its program is under a lease that the test holds, so execve() of it waits. Many such
 * starts hold up nobody else's, and the threads that stood in for the waiting ones leave when it is over.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"

enum { HANGING = 40, FIRST_HANGING = 100 };

static struct bed bed;
static char hanging_layer[DIGEST_HEX_SIZE];

/* A copy of the bed's layer; returns a descriptor that holds the lease on its program. */
static int make_hanging_layer(void)
{
    char command[512], path[256];
    int fd;

    memset(hanging_layer, 'b', sizeof(hanging_layer) - 1);
    snprintf(command, sizeof(command), "cp -a %s/images/layers/%s %s/images/layers/%s", bed.state, bed.layer, bed.state,
             hanging_layer);
    BED_CHECK(system(command) == 0);
    snprintf(path, sizeof(path), "%s/images/layers/%s/app", bed.state, hanging_layer);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    BED_CHECK(fd >= 0);
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0) {
        puts("skipped: no leases on this file system");
        exit(77);
    }
    return fd;
}

static void send_start(unsigned n, const char *layer)
{
    struct launch_plan plan;

    bed_plan(&bed, &plan, n, "sleep", NULL);
    memcpy(plan.root.layers[0], layer, DIGEST_HEX_SIZE);
    bed_send(&bed, MESSAGE_START, &plan, NULL, 0);
    plan_clear(&plan);
}

static unsigned threads(void)
{
    char path[64], line[128];
    unsigned count = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", bed.launcher);
    auto_file FILE *f = fopen(path, "re");

    while (f && fgets(line, sizeof(line), f))
        sscanf(line, "Threads: %u", &count);
    return count;
}

static void test_hanging_starts_hold_up_nobody(int lease)
{
    unsigned before = threads(), after = 0;
    struct proto_message m;

    for (unsigned n = 0; n < HANGING; n++)
        send_start(FIRST_HANGING + n, hanging_layer);
    for (unsigned n = 1; n <= 5; n++) {
        uint64_t begin = monotonic_ns();
        send_start(n, bed.layer);
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && m.type == MESSAGE_STARTED); /* the first answer of all */
        BED_CHECK(m.request == bed.request);
        proto_message_end(&m);
        printf("beside %d hanging starts, one that does not hang: %.1f ms\n", HANGING,
               (double)(monotonic_ns() - begin) / 1e6);
    }
    BED_CHECK(threads() > before);
    BED_CHECK(fcntl(lease, F_SETLEASE, F_UNLCK) == 0);
    for (unsigned n = 0; n < HANGING; n++) {
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && m.type == MESSAGE_STARTED);
        proto_message_end(&m);
    }
    for (int i = 0; i < 200 && (after = threads()) > before; i++)
        usleep(10000);
    printf("%u threads before, %u after\n", before, after);
    BED_CHECK(after == before);
    BED_CHECK(bed_release_all(&bed) == HANGING + 5);
}

int main(void)
{
    bed_need_root();
    signal(SIGIO, SIG_IGN); /* tells that the lease is asked for */
    bed_open(&bed, "pool_depth = 0\n");
    bed_launch(&bed);
    bed_link(&bed);
    test_hanging_starts_hold_up_nobody(make_hanging_layer());
    bed_close(&bed);
    return 0;
}
