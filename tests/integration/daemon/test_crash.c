/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of the daemon's core at random moments under load (hostile-input list, line 24).
 *
 * After each kill the store is opened and compared with what the victim had written down: every acknowledged create is
 * there and every acknowledged delete is carried out, what was not acknowledged is there wholly or not at all, no
 * address is held twice. argv[1] is crash-load; CRASH_ROUNDS (default 200) says how often.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/strmap.h"
#include "harness.h"

enum fate { UNKNOWN, MAYBE_MADE, MADE, MAYBE_GONE, GONE, REFUSED };

struct record {
    char name[64];
    enum fate fate;
    unsigned label_acknowledged, label_asked; /* 0: the one it was made with */
};

enum { WINDOW_US = 60000, WINDOW_MAX_US = 1000000, ROUNDS_PER_STORE = 20, WRITES_PER_ROUND = 10, REMOVAL_MS = 60000 };

static const char *load_program;
static unsigned long acknowledged, killed_with_requests_open;
static unsigned window_us = WINDOW_US; /* how long a victim may live */

static struct record *record_of(struct strmap *records, const char *name)
{
    struct record *r = strmap_get(records, name);

    if (r)
        return r;
    r = calloc(1, sizeof(*r));
    assert_non_null(r);
    snprintf(r->name, sizeof(r->name), "%s", name);
    assert_int_equal(strmap_put(records, r->name, r), 0);
    return r;
}

static void take_line(struct strmap *records, char *line)
{
    char *words = line + (*line == '?' || *line == '!'), name[64];
    struct record *r;
    unsigned value = 0;

    if (sscanf(words + 1, " %63s %u", name, &value) < 1)
        return;
    r = record_of(records, name);
    acknowledged += words == line;
    if (*words == 'C' && words == line) /* it may have been asked to go before it was acknowledged */
        r->fate = r->fate == MAYBE_MADE ? MADE : r->fate;
    else if (*words == 'C')
        r->fate = *line == '?' ? MAYBE_MADE : REFUSED;
    else if (*words == 'D' && *line != '!')
        r->fate = *line == '?' ? MAYBE_GONE : GONE;
    else if (*words == 'L' && *line == '?')
        r->label_asked = value;
    else if (*words == 'L' && *line != '!')
        r->label_acknowledged = value;
}

static pid_t start_load(const char *dir, unsigned seed, FILE **ret)
{
    char number[16];
    int ends[2];

    snprintf(number, sizeof(number), "%u", seed);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(load_program, load_program, dir, number, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *ret = fdopen(ends[0], "r");
    return pid;
}

/* Runs the victim until it is killed; everything it said goes into records. */
static void one_round(const char *dir, unsigned seed, struct strmap *records)
{
    char line[256];
    FILE *said;
    pid_t pid = start_load(dir, seed, &said);

    assert_non_null(fgets(line, sizeof(line), said));
    assert_string_equal(line, "ready\n");
    /* the killer is a process of its own: the moment must not depend on what was read */
    pid_t killer = fork();
    if (killer == 0) {
        usleep((useconds_t)rand() % window_us);
        kill(pid, SIGKILL);
        _exit(0);
    }
    while (fgets(line, sizeof(line), said)) {
        line[strcspn(line, "\n")] = '\0';
        take_line(records, line);
    }
    fclose(said);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    waitpid(killer, NULL, 0);
}

static void check_label(struct record *r, const json_t *json)
{
    unsigned value = (unsigned)atoi(text_of(json_object_get(json, "labels"), "v"));

    /* an update that was asked for last may or may not have come through; nothing older than the acknowledged */
    assert_true(value >= r->label_acknowledged);
    assert_true(value <= r->label_asked);
    r->label_acknowledged = value;
}

static void check_record(struct bed *bed, struct record *r, struct strmap *addresses)
{
    json_t *json = bed_instance(bed, r->name);

    killed_with_requests_open += r->fate == MAYBE_MADE || r->fate == MAYBE_GONE;
    if (r->fate == MADE && !json)
        fail_msg("%s was acknowledged and is not there", r->name);
    if ((r->fate == GONE || r->fate == REFUSED) && json)
        fail_msg("%s is there though it was removed or refused", r->name);
    r->fate = json ? MADE : GONE; /* and so it must be from now on */
    if (!json)
        return;
    const json_t *nic = json_array_get(json_object_get(json, "networks"), 0);
    if (!*text_of(nic, "ipv4") || !*text_of(nic, "ipv6") || !*text_of(nic, "mac"))
        fail_msg("%s is half there", r->name);
    char *address = strdup(text_of(nic, "ipv4"));
    if (strmap_get(addresses, address))
        fail_msg("%s holds %s, and so does another", r->name, address);
    assert_int_equal(strmap_put(addresses, address, address), 0);
    check_label(r, json);
    json_decref(json);
}

static void clear_map(struct strmap *map)
{
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].key)
            free(map->slots[i].value);
    strmap_clear(map);
}

struct going {
    struct bed *bed;
    struct strmap *records;
};

static bool all_gone(void *context)
{
    struct going *going = context;

    for (size_t i = 0; i < going->records->capacity; i++) {
        struct record *r = going->records->slots[i].key ? going->records->slots[i].value : NULL;
        if (r && (r->fate == GONE || r->fate == MAYBE_GONE)) {
            struct instance *instance = core_instance_find(going->bed->core, r->name, NULL);
            if (instance && (r->fate == GONE || core_instance_operation(instance)))
                return false;
        }
    }
    return true;
}

static void check(struct bed *bed, struct strmap *records)
{
    struct strmap addresses = {0};
    struct error *err = NULL;

    if (bed_reopen(bed, &err) < 0)
        fail_msg("the store does not open after a kill: %s", err->message);
    bed_turn(bed, 20);
    if (!bed_run(bed, all_gone, &(struct going){bed, records}, REMOVAL_MS)) /* adoption carries removals on */
        fail_msg("an acknowledged removal was not carried out");
    for (size_t i = 0; i < records->capacity; i++)
        if (records->slots[i].key)
            check_record(bed, records->slots[i].value, &addresses);
    clear_map(&addresses);
    bed_shut(bed);
}

/* A slow disk acknowledges little before an early kill, which would prove nothing: the victims live longer there. */
static void adapt_window(unsigned long acknowledged_before)
{
    if (acknowledged - acknowledged_before < ROUNDS_PER_STORE * WRITES_PER_ROUND && window_us < WINDOW_MAX_US)
        window_us *= 2;
}

static void test_kill_at_random_moments(void **state)
{
    const char *text = getenv("CRASH_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 200;
    struct strmap records = {0};
    struct bed bed;

    srand(20261123);
    for (unsigned done = 0; done < rounds;) {
        unsigned long before = acknowledged;
        bed_open(&bed, NULL);
        bed_shut(&bed);
        for (unsigned k = 0; k < ROUNDS_PER_STORE && done < rounds; k++, done++) { /* a fresh store now and then */
            one_round(bed.dir, done + 1, &records);
            check(&bed, &records);
        }
        assert_int_equal(bed_reopen(&bed, NULL), 0);
        bed_close(&bed);
        clear_map(&records);
        adapt_window(before);
    }
    print_message("%u kills, %lu acknowledged writes checked, %lu requests open at a kill\n", rounds, acknowledged,
                  killed_with_requests_open);
    assert_true(acknowledged > rounds * 5);
    assert_true(killed_with_requests_open > rounds / 2); /* else the kills came at idle moments and prove little */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill_at_random_moments)};

    if (argc < 2)
        return 64;
    load_program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
