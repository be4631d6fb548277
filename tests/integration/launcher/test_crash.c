/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of the launcher: running instances do not notice and are found again, what ended meanwhile is reported, and
 * what was half-made is gone after the next start. Argument: number of random kills (default 50), and a seed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/integration/launcher/bed.h"

enum { IN_FLIGHT = 12, FIRST_RANDOM = 100 };

static struct bed bed;

static const struct message_instance *find(const struct message_instance *list, unsigned count, unsigned n)
{
    char id[INSTANCE_ID_SIZE];

    bed_id(n, id);
    for (unsigned i = 0; i < count; i++)
        if (strcmp(list[i].id, id) == 0)
            return &list[i];
    return NULL;
}

static void test_adoption(void)
{
    const struct message_instance *i;
    struct message_instance list[8];
    struct message_started first;
    struct message_signal stop = {.signal = SIGKILL};
    struct message_exited e;
    unsigned count;

    bed_start(&bed, 1, "serve", "7", &first);
    bed_start(&bed, 2, "sleep", NULL, NULL);
    bed_start(&bed, 3, "exit", "5", NULL);
    bed_id(3, stop.id);
    BED_CHECK(bed_wait_exited(&bed, stop.id, 5000, &e));
    count = bed_list(&bed, list, 8);
    i = find(list, count, 2);
    BED_CHECK(count == 3 && i && i->running);
    bed_kill(&bed, SIGKILL);
    BED_CHECK(bed_knock(&bed, 1, 7, false, 5000) >= 0); /* nobody noticed */
    kill(i->pid, SIGKILL);                              /* number 2 ends while nobody looks */
    bed_launch(&bed);
    bed_link(&bed);
    for (int tries = 0; tries < 500; tries++) { /* its death takes a moment, on a busy machine longer than a start */
        count = bed_list(&bed, list, 8);
        i = find(list, count, 2);
        if (i && !i->running)
            break;
        usleep(10000);
    }
    BED_CHECK(count == 3);
    i = find(list, count, 1);
    BED_CHECK(i && i->running && i->pid == first.pid && i->uid_base == first.uid_base);
    i = find(list, count, 2);
    BED_CHECK(i && !i->running && !i->status_known);
    i = find(list, count, 3);
    BED_CHECK(i && !i->running && i->status_known && WEXITSTATUS(i->wait_status) == 5);
    BED_CHECK(bed_knock(&bed, 1, 7, false, 5000) >= 0);

    bed_start(&bed, 3, "sleep", NULL, NULL); /* an adopted ended one starts again */
    bed_id(1, stop.id);                      /* and an adopted running one's end is seen */
    BED_CHECK(bed_ask(&bed, MESSAGE_SIGNAL, &stop, NULL) == MESSAGE_DONE);
    BED_CHECK(bed_wait_exited(&bed, stop.id, 5000, &e) && WTERMSIG(e.wait_status) == SIGKILL);
    BED_CHECK(bed_release_all(&bed) == 3);
}

static void test_end_seen_by_the_next_launcher(void)
{
    struct message_instance list[4];
    struct launch_plan plan;

    bed_plan(&bed, &plan, 5, "cat", NULL);
    plan.process.open_stdin = true;
    struct message_id id;
    struct proto_message m;
    memcpy(id.id, plan.id, sizeof(id.id));
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    BED_CHECK(bed_ask(&bed, MESSAGE_CONSOLE, &id, &m) == MESSAGE_CONSOLE_REPLY);
    bed_kill(&bed, SIGKILL);
    proto_message_end(&m); /* end of file: the application leaves by itself, with status 0 */
    usleep(200000);
    bed_launch(&bed);
    BED_CHECK(bed_list(&bed, list, 4) == 1 && !list[0].running && list[0].status_known && list[0].wait_status == 0);
    BED_CHECK(bed_release_all(&bed) == 1);
    plan_clear(&plan);
}

/* One round: starts and releases under way, a kill at a random moment, and everything accounted for afterwards. */
static void kill_once(unsigned round)
{
    static struct message_instance list[64];
    struct timespec moment = {.tv_nsec = rand() % 40000000};
    unsigned count;

    for (unsigned n = 0; n < IN_FLIGHT; n++) {
        struct launch_plan plan;
        struct message_id id;
        bed_plan(&bed, &plan, FIRST_RANDOM + n, rand() % 3 ? "sleep" : "exit", "0");
        plan.root.read_only = rand() % 2;
        plan.root.writable_bytes = plan.root.read_only ? 0 : 1 << 20;
        bed_send(&bed, MESSAGE_START, &plan, NULL, 0);
        memcpy(id.id, plan.id, sizeof(id.id));
        if (rand() % 2)
            bed_send(&bed, MESSAGE_RELEASE, &id, NULL, 0);
        plan_clear(&plan);
    }
    nanosleep(&moment, NULL);
    bed_kill(&bed, SIGKILL);
    bed_launch(&bed);
    bed_link(&bed);
    count = bed_list(&bed, list, 64);
    BED_CHECK(count <= IN_FLIGHT);
    for (unsigned i = 0; i < count; i++) /* what is said to run does run */
        BED_CHECK(!list[i].running || kill(list[i].pid, 0) == 0);
    for (unsigned n = 0; n < 2; n++) { /* and everything can be used at once: numbers and names are free */
        bed_start(&bed, 50 + n, "serve", "7", NULL);
        BED_CHECK(bed_knock(&bed, 50 + n, 7, false, 2000) >= 0);
    }
    bed_release_all(&bed);
}

/* The pool holds shells at all times: with the launcher dead nothing may keep them. */
static void test_random_kills(unsigned rounds)
{
    struct remains left;

    for (unsigned round = 0; round < rounds; round++)
        kill_once(round);
    bed_kill(&bed, SIGKILL);
    bed_launch(&bed);
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    printf("%u random kills, nothing left\n", rounds);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 50;
    unsigned seed = argc > 2 ? (unsigned)atoi(argv[2]) : (unsigned)time(NULL);

    bed_need_root();
    printf("seed %u\n", seed);
    fflush(stdout);
    srand(seed);
    bed_open(&bed, "pool_depth = 3\n");
    bed_launch(&bed);
    bed_link(&bed);
    test_adoption();
    test_end_seen_by_the_next_launcher();
    test_random_kills(rounds);
    bed_close(&bed);
    puts("ok");
    return 0;
}
