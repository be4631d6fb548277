/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many instances: 100 at one time (argument: another number), all reachable; then a pipelined create-and-release rate;
 * and how cold and warm starts compare. Prints figures, fails only on wrong results: a loaded machine is no error.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/integration/launcher/bed.h"

static struct bed bed;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void test_many(unsigned count)
{
    uint64_t begin = monotonic_ns();
    struct launch_plan plan;

    for (unsigned n = 0; n < count; n++) {
        bed_plan(&bed, &plan, 1 + n, "serve", "7");
        bed_send(&bed, MESSAGE_START, &plan, NULL, 0);
        plan_clear(&plan);
    }
    /* answers of different instances come in any order */
    for (unsigned n = 0; n < count; n++) {
        struct proto_message m;
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && m.type == MESSAGE_STARTED);
        proto_message_end(&m);
    }
    printf("%u instances started in %.0f ms, launcher %ld KiB\n", count, (double)(monotonic_ns() - begin) / 1e6,
           bed_rss(&bed));
    long worst[2] = {0};
    for (unsigned n = 0; n < 2 * count; n++) {
        long us = bed_knock(&bed, 1 + n / 2, 7, n % 2, 5000);
        BED_CHECK(us >= 0);
        worst[n % 2] = us > worst[n % 2] ? us : worst[n % 2];
    }
    printf("slowest connection: IPv4 %ld us, IPv6 %ld us\n", worst[0], worst[1]);
    BED_CHECK(bed_list(&bed, NULL, 0) == count);
    begin = monotonic_ns();
    BED_CHECK(bed_release_all(&bed) == count);
    printf("%u released in %.0f ms\n", count, (double)(monotonic_ns() - begin) / 1e6);
}

/* Start and release of each are sent at once; the launcher keeps their order and runs instances side by side. */
static void test_rate(unsigned count)
{
    uint64_t begin = monotonic_ns();
    struct launch_plan plan;
    unsigned answers = 0;

    for (unsigned n = 0; n < count; n++) {
        struct message_id id;
        bed_plan(&bed, &plan, 1 + n, "sleep", NULL);
        memcpy(id.id, plan.id, sizeof(id.id));
        bed_send(&bed, MESSAGE_START, &plan, NULL, 0);
        bed_send(&bed, MESSAGE_RELEASE, &id, NULL, 0);
        plan_clear(&plan);
    }
    while (answers < 2 * count) {
        struct proto_message m;
        BED_CHECK(proto_receive(bed.fd, &m, NULL) == 1 && m.type != MESSAGE_FAILED);
        answers += m.request != 0;
        proto_message_end(&m);
    }
    printf("create and release: %.0f a second\n", count / ((double)(monotonic_ns() - begin) / 1e9));
}

static void wait_pool(unsigned ready)
{
    for (int i = 0; i < 4000; i++) {
        struct proto_message m;
        BED_CHECK(bed_ask(&bed, MESSAGE_POOL, NULL, &m) == MESSAGE_POOL_REPLY);
        bool enough = ((struct message_pool_reply *)m.body)->ready >= ready;
        proto_message_end(&m);
        if (enough)
            return;
        usleep(2000);
    }
    bed_die("the pool does not fill");
}

/* From the message to the addresses, the moment an RST can come, and to STARTED. */
static void measure(enum start_mode mode, unsigned runs)
{
    double *addressed = calloc(runs, sizeof(double)), *started = calloc(runs, sizeof(double));

    for (unsigned i = 0; i < runs; i++) {
        struct launch_plan plan;
        struct proto_message m;
        if (mode == START_POOL)
            wait_pool(2);
        bed_plan(&bed, &plan, 1 + i % 8, "sleep", NULL);
        plan.start_mode = mode;
        uint64_t begin = monotonic_ns();
        BED_CHECK(bed_ask(&bed, MESSAGE_START, &plan, &m) == MESSAGE_STARTED);
        started[i] = (double)(monotonic_ns() - begin) / 1e3;
        const struct message_started *s = m.body;
        for (uint32_t n = 0; n < s->steps.count; n++)
            if (strcmp(s->steps.list[n].name, "addresses") == 0)
                addressed[i] = (double)(s->steps.list[n].start_ns + s->steps.list[n].duration_ns - begin) / 1e3;
        proto_message_end(&m);
        plan_clear(&plan);
        BED_CHECK(bed_release(&bed, 1 + i % 8));
    }
    qsort(addressed, runs, sizeof(double), by_value);
    qsort(started, runs, sizeof(double), by_value);
    printf("%s: addresses up after %.0f / %.0f us, started after %.0f / %.0f us (minimum / median of %u)\n",
           mode == START_POOL ? "warm" : "cold", addressed[0], addressed[runs / 2], started[0], started[runs / 2],
           runs);
    free(addressed);
    free(started);
}

int main(int argc, char **argv)
{
    unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 100;
    struct rlimit files = {4096, 4096};
    struct remains left;

    bed_need_root();
    setrlimit(RLIMIT_NOFILE, &files);
    bed_open(&bed, "pool_depth = 4\n");
    bed_launch(&bed);
    bed_link(&bed);
    measure(START_COLD, 40);
    measure(START_POOL, 40);
    test_many(count);
    test_rate(2 * count);
    printf("launcher %ld KiB\n", bed_rss(&bed));
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 20000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
