/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_core.h. Each request is answered from a later turn of the loop, as the real executor does. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fake_core.h"

struct call {
    struct core *core;
    executor_done done;
    void *context;
    enum message_type type;
    char layer[DIGEST_HEX_SIZE];
    char directory[4096];
    pid_t pid;
    int pidfd;
    sd_event_source *source;
    bool dies, failed;
};

struct commit {
    struct core *core;
    int (*write)(struct sqlite3 *, void *);
    core_done cleanup;
    void *context;
    sd_event_source *source;
};

struct operation {
    struct core *core;
};
static struct operation the_operation;

static void remove_tree(const char *path)
{
    auto_free char *command = NULL;

    if (asprintf(&command, "rm -rf '%s'", path) < 0 || system(command) != 0)
        abort();
}

static void answer(struct call *call, const char *code)
{
    struct error *err = NULL;

    if (code)
        error_set(&err, EIO, code, "the fake launcher says so");
    call->core->running--;
    call->done(call->context, code ? MESSAGE_FAILED : MESSAGE_DONE, NULL, NULL, 0, err);
    error_free(err);
    sd_event_source_disable_unref(call->source);
    close_fd(call->pidfd);
    free(call);
}

/* As the launcher: only names of 64 digits, an existing layer stays. */
static void move_layers(struct call *call)
{
    auto_free char *command = NULL;

    if (asprintf(&command,
                 "mkdir -p '%s/images/layers'; for d in '%s'/*; do n=${d##*/}; [ ${#n} = 64 ] || exit 1; "
                 "[ -e '%s/images/layers/'$n ] || mv $d '%s/images/layers/'; done",
                 call->core->options.state_dir, call->directory, call->core->options.state_dir,
                 call->core->options.state_dir) < 0 ||
        system(command) != 0)
        abort();
    remove_tree(call->directory);
}

static int on_unpacker_ended(sd_event_source *s, int fd, uint32_t events, void *context)
{
    struct call *call = context;
    siginfo_t end = {0};

    (void)s;
    (void)events;
    if (waitid(P_PIDFD, (id_t)fd, &end, WEXITED) < 0)
        abort();
    if (end.si_code == CLD_EXITED && end.si_status == 0) {
        move_layers(call);
        answer(call, NULL);
    } else {
        remove_tree(call->directory);
        answer(call, "LAUNCHER_REFUSED");
    }
    return 0;
}

static int on_later(sd_event_source *s, void *context)
{
    struct call *call = context;
    auto_free char *path = NULL;

    (void)s;
    if (call->dies) {
        answer(call, "LAUNCHER_UNAVAILABLE");
    } else if (call->failed) {
        answer(call, "LAUNCHER_REFUSED");
    } else {
        if (call->type == MESSAGE_LAYER_REMOVE) {
            if (asprintf(&path, "%s/images/layers/%s", call->core->options.state_dir, call->layer) < 0)
                abort();
            remove_tree(path);
        }
        answer(call, NULL);
    }
    return 0;
}

static void start_unpacker(struct call *call, const struct message_unpack *m, const int *fds)
{
    char bytes[32], files[32];
    int directory;

    snprintf(call->directory, sizeof(call->directory), "%s/images/tmp-XXXXXX", call->core->options.state_dir);
    if (!mkdtemp(call->directory))
        abort();
    directory = open(call->directory, O_RDONLY | O_DIRECTORY);
    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)m->bytes_max);
    snprintf(files, sizeof(files), "%llu", (unsigned long long)m->files_max);
    call->pid = fork();
    if (call->pid == 0) {
        int a = fcntl(fds[0], F_DUPFD, 20), b = fcntl(directory, F_DUPFD, 20), c = fcntl(fds[1], F_DUPFD, 20);

        dup2(a, 3);
        dup2(b, 4);
        dup2(c, 5);
        execl(call->core->unpacker, "coracle-unpack", "--bytes-max", bytes, "--files-max", files, NULL);
        _exit(127);
    }
    close(directory);
    call->pidfd = pidfd_open(call->pid, 0);
    sd_event_add_io(call->core->loop, &call->source, call->pidfd, EPOLLIN, on_unpacker_ended, call);
}

int core_launcher_request(struct core *core, enum message_type type, const void *message, const int *fds,
                          size_t fd_count, executor_done done, void *context, struct error **err)
{
    struct call *call;

    if (core->launcher_away)
        return error_set(err, ENOTCONN, "LAUNCHER_UNAVAILABLE", "no launcher");
    call = calloc(1, sizeof(*call));
    call->core = core;
    call->done = done;
    call->context = context;
    call->type = type;
    call->pidfd = -1;
    call->dies = core->launcher_dies;
    core->launcher_dies = false;
    if (++core->running > core->running_max)
        core->running_max = core->running;
    if (type == MESSAGE_LAYER_REMOVE) {
        core->removals++;
        memcpy(call->layer, ((const struct message_layer_remove *)message)->digest, sizeof(call->layer));
    } else {
        core->unpacks++;
        if (core->answer || call->dies) {
            call->failed = core->answer_failed;
            if (core->answer && write(fds[1], core->answer, strlen(core->answer)) < 0)
                abort();
        } else if (fd_count == 2) {
            start_unpacker(call, message, fds);
            return 0;
        }
    }
    return sd_event_add_defer(core->loop, &call->source, on_later, call) < 0 ? -ENOMEM : 0;
}

static int on_commit(sd_event_source *s, void *context)
{
    struct commit *c = context;
    struct error *err = NULL;
    int r;

    (void)s;
    sqlite3_exec(c->core->db, "BEGIN", NULL, NULL, NULL);
    r = c->write(c->core->db, c->context);
    if (r == SQLITE_OK)
        r = c->core->commit_result;
    sqlite3_exec(c->core->db, r == SQLITE_OK ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
    if (r != SQLITE_OK)
        error_set(&err, EIO, r == SQLITE_FULL ? "NO_SPACE" : "STORE_FAILED", "the fake store says so");
    c->cleanup(c->context, err);
    error_free(err);
    sd_event_source_disable_unref(c->source);
    free(c);
    return 0;
}

int core_write(struct core *core, int (*write)(struct sqlite3 *, void *context), core_done cleanup, void *context,
               struct error **err)
{
    struct commit *c = calloc(1, sizeof(*c));

    *c = (struct commit){core, write, cleanup, context, NULL};
    return sd_event_add_defer(core->loop, &c->source, on_commit, c) < 0 ? error_set(err, ENOMEM, "NO_MEMORY", "no") : 0;
}

void core_set_images(struct core *core, const struct image_ops *ops, void *context)
{
    core->ops = ops;
    core->ops_context = context;
}

size_t core_image_users(struct core *core, const char *digest, const char **ret_name)
{
    if (core->user && ret_name)
        *ret_name = core->user;
    return core->user && *digest ? 1 : 0;
}

struct sqlite3 *core_database(struct core *core)
{
    return core->db;
}

struct operation *core_operation_begin(struct core *core, const char *kind, const struct core_times *times,
                                       struct error **err)
{
    (void)kind;
    (void)times;
    (void)err;
    core->operation_ended = false;
    core->steps[0] = '\0';
    the_operation.core = core;
    return &the_operation;
}

const char *core_operation_id(const struct operation *op)
{
    (void)op;
    return "00000000-0000-4000-8000-000000000000";
}

void core_operation_step(struct operation *op, const char *name, uint64_t start_ns, uint64_t end_ns)
{
    if (end_ns < start_ns)
        abort();
    strncat(op->core->steps, name, sizeof(op->core->steps) - strlen(op->core->steps) - 2);
    strcat(op->core->steps, " ");
}

void core_operation_end(struct core *core, const char *operation_id, const struct error *err)
{
    (void)operation_id;
    core->operation_ended = true;
    core->operation_error = err ? err->code : "";
    snprintf(core->operation_message, sizeof(core->operation_message), "%s", err ? err->message : "");
}

void core_operation_on_cancel(struct operation *op, void (*cancel)(void *context), void *context)
{
    op->core->cancel = cancel;
    op->core->cancel_context = context;
}

void core_event_add(struct core *core, const char *type, const char *instance_id, const char *instance_name,
                    const char *operation_id, const char *detail_json)
{
    json_t *detail = json_loads(detail_json, 0, NULL);

    (void)instance_id;
    (void)instance_name;
    (void)operation_id;
    if (!json_is_object(detail))
        abort();
    json_decref(detail);
    strncat(core->events, type, sizeof(core->events) - strlen(core->events) - 2);
    strcat(core->events, " ");
}

struct sd_event *core_loop(struct core *core)
{
    return core->loop;
}

const struct core_options *core_get_options(struct core *core)
{
    return &core->options;
}

void fake_core_open(struct core *core, const char *state_dir, const char *unpacker)
{
    auto_free char *images = NULL;

    *core = (struct core){.unpacker = unpacker, .options = {.state_dir = state_dir}};
    if (sd_event_new(&core->loop) < 0 || store_open(state_dir, &core->store, NULL) < 0 ||
        asprintf(&images, "%s/images", state_dir) < 0)
        abort();
    core->db = store_database(core->store);
    mkdir(images, 0755);
}

void fake_core_close(struct core *core)
{
    static const bool never;

    (void)never;
    for (int i = 0; i < 20 && sd_event_run(core->loop, 10000) >= 0; i++)
        ;
    store_close(core->store);
    sd_event_unref(core->loop);
}

bool fake_core_run(struct core *core, const bool *flag)
{
    uint64_t now, end;

    sd_event_now(core->loop, CLOCK_MONOTONIC, &now);
    end = now + 20000000;
    while (!*flag && now < end) {
        sd_event_run(core->loop, 100000);
        sd_event_now(core->loop, CLOCK_MONOTONIC, &now);
    }
    return *flag;
}
