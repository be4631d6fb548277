/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's core under load, made to be killed: test_crash.c starts it, kills it with SIGKILL, and checks the store.
 *
 * Every request is written to standard output before it is made ("?C name", "?D name", "?L name value") and again when
 * it was acknowledged ("C", "D", "L"). What was written stays in the pipe when this process is killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/core.h"

#include <systemd/sd-event.h>

struct pending {
    char line[96];
};

static struct core *core;
static unsigned number, in_flight;
static unsigned seed;

static void say(const char *mark, const char *line)
{
    char text[128];
    int n = snprintf(text, sizeof(text), "%s%s\n", mark, line);

    if (write(STDOUT_FILENO, text, (size_t)n) != n)
        exit(2);
}

static void on_committed(void *context, const struct error *err)
{
    struct pending *p = context;

    say(err ? "!" : "", p->line);
    free(p);
    in_flight--;
}

static void acknowledge(const char *line)
{
    struct pending *p = malloc(sizeof(*p));

    snprintf(p->line, sizeof(p->line), "%s", line);
    in_flight++;
    if (core_commit_then(core, on_committed, p, NULL) < 0)
        exit(3);
}

static void create(void)
{
    char line[96], descriptor[256];
    struct instance *instance;
    struct operation *op;

    snprintf(line, sizeof(line), "C n%u-%u", seed, ++number);
    snprintf(descriptor, sizeof(descriptor), "{\"name\":\"%s\",\"technology\":\"fake\",\"labels\":{\"v\":\"0\"}}",
             line + 2);
    json_t *json = json_loads(descriptor, 0, NULL);
    say("?", line);
    if (core_create(core, json, rand() % 2, NULL, &instance, &op, NULL) == 0)
        acknowledge(line);
    else
        say("!", line);
    json_decref(json);
}

static struct instance *pick(char *name)
{
    snprintf(name, 64, "n%u-%u", seed, number ? 1 + (unsigned)rand() % number : 0);
    return core_instance_find(core, name, NULL);
}

static void delete (void)
{
    char line[96] = "D ";
    struct instance *instance = pick(line + 2);
    struct operation *op;

    if (!instance)
        return;
    say("?", line);
    if (core_terminate(core, instance, true, NULL, &op, NULL) == 0)
        acknowledge(line);
    else
        say("!", line);
}

static void label(void)
{
    char name[64], line[96], body[96];
    struct instance *instance = pick(name);
    static unsigned value;
    struct operation *op;

    if (!instance)
        return;
    snprintf(line, sizeof(line), "L %s %u", name, ++value);
    snprintf(body, sizeof(body), "{\"labels\":{\"v\":\"%u\"}}", value);
    json_t *json = json_loads(body, 0, NULL);
    say("?", line);
    if (core_update(core, instance, json, NULL, &op, NULL) == 0)
        acknowledge(line);
    else
        say("!", line);
    json_decref(json);
}

int main(int argc, char **argv)
{
    char run[128], state[128];
    struct core_options options = {.run_dir = run, .state_dir = state};
    struct error *err = NULL;
    sd_event *loop;

    if (argc != 3)
        return 64;
    snprintf(run, sizeof(run), "%s/run", argv[1]);
    snprintf(state, sizeof(state), "%s/state", argv[1]);
    seed = (unsigned)atoi(argv[2]);
    srand(seed);
    if (sd_event_new(&loop) < 0 || core_open(loop, &options, &core, &err) < 0) {
        fprintf(stderr, "core_open: %s\n", err ? err->message : "?");
        return 1;
    }
    say("", "ready");
    for (;;) {
        for (int burst = rand() % 5; burst >= 0 && in_flight < 32; burst--) {
            int what = rand() % 10;
            if (what < 6)
                create();
            else if (what < 8)
                delete ();
            else
                label();
        }
        sd_event_run(loop, 500);
    }
}
