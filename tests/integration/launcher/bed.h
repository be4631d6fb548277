/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bed for tests of coracle-launcher: its own run and state directory, cgroup parent and image store with one tiny
 * image, a connection that speaks proto, and counters of everything that could be left behind. Needs root.
 */
#ifndef CORACLE_TESTS_LAUNCHER_BED_H
#define CORACLE_TESTS_LAUNCHER_BED_H

#include <sys/types.h>

#include "proto/proto.h"

enum { BED_EVENTS_MAX = 256 };

struct bed {
    char dir[64], run[96], state[96], libexec[96], cgroup[48], config[96];
    char layer[DIGEST_HEX_SIZE];
    pid_t launcher;
    int fd;
    uint32_t request;
    struct proto_message events[BED_EVENTS_MAX]; /* came without being asked for */
    size_t event_count;
};

/* What belongs to a bed on the host; all 0 when nothing is left. */
struct remains {
    unsigned processes, cgroups, mounts, veths, instance_folders, log_folders, scratch;
};

/* Skips the test program (exit 77) when it cannot run here. */
void bed_need_root(void);

/* config: text of host.conf, NULL for an empty one. Any failure ends the test program with words. */
void bed_open(struct bed *b, const char *config);
void bed_run_size(struct bed *b,
                  const char *size); /* another, smaller tmpfs over the run directory; before bed_launch() */
void bed_close(struct bed *b);       /* ends the launcher, checks nothing, removes everything */

void bed_launch(struct bed *b); /* starts the launcher and connects */
void bed_connect(struct bed *b);
void bed_kill(struct bed *b, int signal); /* the launcher only; waits for its end; closes the connection */

/* Sends without waiting; returns the request number. */
uint32_t bed_send(struct bed *b, enum message_type type, const void *message, const int *fds, size_t fd_count);
/* Waits for the answer to a request; events are kept aside. false: the connection ended. */
bool bed_receive(struct bed *b, uint32_t request, struct proto_message *ret);
/* Sends and waits; the type of the answer. ret may be NULL. */
enum message_type bed_ask(struct bed *b, enum message_type type, const void *message, struct proto_message *ret);
/* As bed_ask(), for FAILED: the code ("" when it did not fail). Valid until the next call. */
const char *bed_refusal(struct bed *b, enum message_type type, const void *message);
/* Waits up to timeout_ms for an EXITED of that instance. */
bool bed_wait_exited(struct bed *b, const char *id, int timeout_ms, struct message_exited *ret);

void bed_link(struct bed *b); /* LINK_ADD "default": 198.18.0.1/15, fd00:c0:ffee::1/64 */

/* A plan for instance number n: app ARG VALUE. Free with plan_clear(). */
void bed_plan(struct bed *b, struct launch_plan *plan, unsigned n, const char *arg, const char *value);
/* Starts number n; FAILED ends the test program with the error's words. */
void bed_start(struct bed *b, unsigned n, const char *arg, const char *value, struct message_started *ret);
void bed_id(unsigned n, char id[INSTANCE_ID_SIZE]);
bool bed_release(struct bed *b, unsigned n);
unsigned bed_release_all(struct bed *b); /* what LIST shows; returns how many there were */
unsigned bed_list(struct bed *b, struct message_instance *list, unsigned max);

/* Connects from the fabric to port of instance n. The microseconds it took, -1 when not within timeout_ms. */
long bed_knock(struct bed *b, unsigned n, int port, bool v6, int timeout_ms);

void bed_count(struct bed *b, struct remains *ret);
/* Waits up to timeout_ms until nothing is left (interfaces die some time after their namespace). */
bool bed_clean(struct bed *b, int timeout_ms, struct remains *ret);
void remains_print(const struct remains *r);

/* Resident KiB of the launcher. */
long bed_rss(const struct bed *b);

_Noreturn void bed_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define BED_CHECK(condition)                                                                                           \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            bed_die("%s:%d: %s: not so: %s", __FILE__, __LINE__, __func__, #condition);                                \
    } while (0)

#endif
