/* SPDX-License-Identifier: Apache-2.0 */
/* One instance's whole life by way of the launcher's messages, cold and warm, with nothing left at the end. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"

static struct bed bed;

static void print_steps(const char *title, const struct message_started *s)
{
    uint64_t begin = s->steps.count ? s->steps.list[0].start_ns : 0;

    printf("%s (us):\n", title);
    for (uint32_t i = 0; i < s->steps.count; i++)
        printf("  %-20s from %6.0f for %6.0f\n", s->steps.list[i].name,
               (double)(s->steps.list[i].start_ns - begin) / 1e3, (double)s->steps.list[i].duration_ns / 1e3);
    fflush(stdout);
}

static void read_logs(unsigned n, char *text, size_t size)
{
    struct proto_message m;
    struct message_id id;
    size_t used = 0;

    bed_id(n, id.id);
    BED_CHECK(bed_ask(&bed, MESSAGE_LOGS, &id, &m) == MESSAGE_LOGS_REPLY);
    for (int i = 0; i < 2; i++) {
        ssize_t got = read(m.fds[i], text + used, size - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    text[used] = '\0';
    proto_message_end(&m);
}

/* Whichever thread made it: the launcher's own nice value, which is ours, and no batch scheduling. */
static bool scheduled_as_others(pid_t pid)
{
    return sched_getscheduler(pid) == SCHED_OTHER &&
           getpriority(PRIO_PROCESS, (id_t)pid) == getpriority(PRIO_PROCESS, 0);
}

static void test_cold(void)
{
    struct message_started s;

    bed_start(&bed, 1, "serve", "7", &s);
    print_steps("cold", &s);
    BED_CHECK(s.origin == ORIGIN_COLD && s.pid > 1 && s.uid_base >= 1u << 30);
    BED_CHECK(scheduled_as_others(s.pid));
    BED_CHECK(bed_knock(&bed, 1, 7, false, 5000) >= 0);
    BED_CHECK(bed_knock(&bed, 1, 7, true, 5000) >= 0);
    BED_CHECK(bed_release(&bed, 1));
    BED_CHECK(bed_knock(&bed, 1, 7, false, 50) < 0);
}

static void wait_pool(unsigned ready)
{
    for (int i = 0; i < 2000; i++) {
        struct proto_message m;
        BED_CHECK(bed_ask(&bed, MESSAGE_POOL, NULL, &m) == MESSAGE_POOL_REPLY);
        bool enough = ((struct message_pool_reply *)m.body)->ready >= ready;
        proto_message_end(&m);
        if (enough)
            return;
        usleep(5000);
    }
    bed_die("the pool does not fill");
}

static void test_warm(void)
{
    struct launch_plan plan;
    struct message_started s;
    struct proto_message m;

    wait_pool(4);
    bed_start(&bed, 2, "serve", "7", &s);
    print_steps("warm", &s);
    BED_CHECK(s.origin == ORIGIN_POOL);
    BED_CHECK(scheduled_as_others(s.pid));
    BED_CHECK(bed_knock(&bed, 2, 7, false, 5000) >= 0);
    BED_CHECK(bed_knock(&bed, 2, 7, true, 5000) >= 0);
    BED_CHECK(bed_release(&bed, 2));

    bed_plan(&bed, &plan, 3, "serve", "7"); /* asked to be cold, it is cold though shells are ready */
    plan.start_mode = START_COLD;
    BED_CHECK(bed_ask(&bed, MESSAGE_START, &plan, &m) == MESSAGE_STARTED);
    BED_CHECK(((struct message_started *)m.body)->origin == ORIGIN_COLD);
    proto_message_end(&m);
    BED_CHECK(bed_release(&bed, 3));

    plan.start_mode = START_POOL; /* no shell of this kind was ever made */
    plan.root.read_only = false;
    plan.root.writable_bytes = 1 << 20;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "CONFLICTING_STATE") == 0);
    plan_clear(&plan);
}

static void test_exit_and_logs(void)
{
    struct message_exited e;
    char id[INSTANCE_ID_SIZE], text[4096];
    struct message_instance list[4];
    struct message_signal kill_it = {.signal = SIGKILL};

    bed_id(4, id);
    bed_start(&bed, 4, "exit", "3", NULL);
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e));
    BED_CHECK(e.status_known && WIFEXITED(e.wait_status) && WEXITSTATUS(e.wait_status) == 3 && e.exited_at_ns);
    BED_CHECK(bed_list(&bed, list, 4) == 1 && !list[0].running && WEXITSTATUS(list[0].wait_status) == 3);

    bed_start(&bed, 4, "say", "hello", NULL); /* an ended one starts again */
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e) && e.wait_status == 0);
    read_logs(4, text, sizeof(text));
    BED_CHECK(strstr(text, " stdout F hello\n"));

    bed_start(&bed, 4, "sleep", NULL, NULL);
    memcpy(kill_it.id, id, sizeof(id));
    BED_CHECK(bed_ask(&bed, MESSAGE_SIGNAL, &kill_it, NULL) == MESSAGE_DONE);
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e) && WIFSIGNALED(e.wait_status) && WTERMSIG(e.wait_status) == SIGKILL);
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SIGNAL, &kill_it), "CONFLICTING_STATE") == 0);
    BED_CHECK(bed_release(&bed, 4));
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_SIGNAL, &kill_it), "INSTANCE_NOT_FOUND") == 0);
}

static void start_writable(unsigned n, const char *arg)
{
    struct launch_plan plan;

    bed_plan(&bed, &plan, n, arg, NULL);
    plan.root.read_only = false;
    plan.root.writable_bytes = 4 << 20;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    plan_clear(&plan);
}

static void test_writable_layer_is_kept(void)
{
    struct message_exited e;
    char id[INSTANCE_ID_SIZE], text[4096];

    bed_id(5, id);
    for (int i = 0; i < 2; i++) {
        start_writable(5, "keep");
        BED_CHECK(bed_wait_exited(&bed, id, 5000, &e) && e.wait_status == 0);
    }
    read_logs(5, text, sizeof(text));
    BED_CHECK(strstr(text, "F fresh\n") && strstr(text, "F kept\n"));
    BED_CHECK(bed_release(&bed, 5));
    start_writable(5, "keep"); /* released, the next one of that id begins anew */
    BED_CHECK(bed_wait_exited(&bed, id, 5000, &e));
    read_logs(5, text, sizeof(text));
    BED_CHECK(!strstr(text, "F kept\n"));
    BED_CHECK(bed_release(&bed, 5));
}

static void test_pause_stats_update(void)
{
    struct message_instance list[4];
    struct message_update update = {.limits = {.memory_bytes = 64 << 20, .pids = 50}};
    struct instance_stats *s;
    struct proto_message m;
    struct message_id id;

    bed_id(6, id.id);
    bed_start(&bed, 6, "serve", "7", NULL);
    BED_CHECK(bed_knock(&bed, 6, 7, false, 5000) >= 0);
    BED_CHECK(bed_ask(&bed, MESSAGE_PAUSE, &id, NULL) == MESSAGE_DONE);
    BED_CHECK(bed_list(&bed, list, 4) == 1 && list[0].paused && list[0].running);
    BED_CHECK(bed_knock(&bed, 6, 7, false, 50) < 0); /* the kernel takes the connection, the application is silent */
    BED_CHECK(bed_ask(&bed, MESSAGE_RESUME, &id, NULL) == MESSAGE_DONE);
    BED_CHECK(bed_knock(&bed, 6, 7, false, 5000) >= 0);
    memcpy(update.id, id.id, sizeof(id.id));
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_UPDATE, &update), "") == 0);
    update.limits.cpu_milli = 1ull << 60;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_UPDATE, &update), "INVALID_VALUE") == 0);
    BED_CHECK(bed_ask(&bed, MESSAGE_STATS, &id, &m) == MESSAGE_STATS_REPLY);
    s = m.body;
    BED_CHECK(s->known & 1u << STAT_NET && s->rx_packets >= 4 && s->tx_packets >= 4);
    proto_message_end(&m);
    BED_CHECK(bed_release(&bed, 6));
}

static struct message_exec exec_of(unsigned n, char **argv)
{
    static char *env[] = {"PATH=/", NULL};
    struct message_exec e = {.process = {.argv = argv, .env = env, .cwd = "/"}};

    bed_id(n, e.id);
    return e;
}

static void wait_exec_exited(uint32_t exec, int *ret_status)
{
    for (int i = 0; i < 500; i++) {
        struct message_exited none;
        bed_wait_exited(&bed, "none", 10, &none);
        for (size_t e = 0; e < bed.event_count; e++) {
            const struct message_exec_exited *x = bed.events[e].body;
            if (bed.events[e].type != MESSAGE_EXEC_EXITED || x->exec != exec)
                continue;
            *ret_status = x->wait_status;
            return;
        }
    }
    bed_die("no EXEC_EXITED");
}

static void test_exec(void)
{
    char *argv[] = {"/app", "say", "from exec", NULL}, *missing[] = {"/nothing", NULL}, *sleeps[] = {"/app", NULL};
    struct message_exec e = exec_of(7, argv);
    struct message_exec_signal stop = {.signal = SIGTERM};
    struct proto_message m;
    int out[2], status = -1;
    char text[64] = "";

    BED_CHECK(pipe(out) == 0);
    bed_start(&bed, 7, "sleep", NULL, NULL);
    BED_CHECK(bed_receive(&bed, bed_send(&bed, MESSAGE_EXEC, &e, (int[]){out[0], out[1], out[1]}, 3), &m));
    BED_CHECK(m.type == MESSAGE_EXEC_STARTED);
    BED_CHECK(read(out[0], text, sizeof(text) - 1) > 0 && strcmp(text, "from exec\n") == 0);
    wait_exec_exited(((struct message_exec_started *)m.body)->exec, &status);
    BED_CHECK(status == 0);
    proto_message_end(&m);

    e = exec_of(7, missing);
    BED_CHECK(bed_receive(&bed, bed_send(&bed, MESSAGE_EXEC, &e, (int[]){out[0], out[1], out[1]}, 3), &m));
    BED_CHECK(m.type == MESSAGE_FAILED && strcmp(((struct error *)m.body)->code, "EXEC_FAILED") == 0);
    proto_message_end(&m);

    e = exec_of(7, sleeps);
    e.process.tty = true;
    BED_CHECK(bed_receive(&bed, bed_send(&bed, MESSAGE_EXEC, &e, NULL, 0), &m));
    BED_CHECK(m.type == MESSAGE_EXEC_STARTED && m.fd_count == 1 && isatty(m.fds[0]));
    bed_id(7, stop.id);
    stop.exec = ((struct message_exec_started *)m.body)->exec;
    BED_CHECK(bed_ask(&bed, MESSAGE_EXEC_SIGNAL, &stop, NULL) == MESSAGE_DONE);
    wait_exec_exited(stop.exec, &status);
    BED_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    proto_message_end(&m);
    close(out[0]);
    close(out[1]);
    BED_CHECK(bed_release(&bed, 7));
}

static void test_console(void)
{
    struct message_exited e;
    struct launch_plan plan;
    struct proto_message m;
    struct message_id id;
    char text[4096];

    bed_id(8, id.id);
    bed_plan(&bed, &plan, 8, "cat", NULL);
    plan.process.open_stdin = true;
    BED_CHECK(strcmp(bed_refusal(&bed, MESSAGE_START, &plan), "") == 0);
    BED_CHECK(bed_ask(&bed, MESSAGE_CONSOLE, &id, &m) == MESSAGE_CONSOLE_REPLY && m.fd_count == 1);
    BED_CHECK(write(m.fds[0], "typed\n", 6) == 6);
    proto_message_end(&m); /* closes it: end of file for the application */
    BED_CHECK(bed_wait_exited(&bed, id.id, 5000, &e) && e.wait_status == 0);
    read_logs(8, text, sizeof(text));
    BED_CHECK(strstr(text, "F typed\n"));
    BED_CHECK(bed_release(&bed, 8));
    plan_clear(&plan);
}

int main(void)
{
    struct remains left;

    bed_need_root();
    bed_open(&bed, "pool_depth = 4\n");
    bed_launch(&bed);
    bed_link(&bed);
    test_cold();
    test_warm();
    test_exit_and_logs();
    test_writable_layer_is_kept();
    test_pause_stats_update();
    test_exec();
    test_console();
    printf("resident memory of the launcher: %ld KiB\n", bed_rss(&bed));
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 5000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
