/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UNPACK and LAYER_REMOVE. The launcher makes a directory for the image's owner range, starts coracle-unpack confined
 * to it, and afterwards moves what is named like a layer into the store; it reads no byte of an image. Each runs on a
 * thread of its own, since it may take minutes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/confined.h"
#include "launcher/files.h"
#include "launcher/packed.h"
#include "launcher/pool.h"
#include "launcher/templates.h"

enum {
    CONFINED_MAX = 4, /* threads at one time */
    CONFINED_STACK = 256 * 1024,
    UNPACK_TIMEOUT_S = 1800,
    REMOVE_TIMEOUT_S = 600,
    SCRATCH_NAME_SIZE = 96,
};

struct task {
    struct launcher *l;
    struct job answer; /* connection and request to answer; owns the message */
    int (*run)(struct task *task, struct error **err);
};

static bool is_layer_name(const char *name)
{
    return strlen(name) == DIGEST_HEX_SIZE - 1 && strspn(name, "0123456789abcdef") == DIGEST_HEX_SIZE - 1;
}

/* Empties and removes images/tmp/NAME. Its owner is the image range, so a child of that range does it. */
static int drop_scratch(struct launcher *l, const char *name, struct error **err)
{
    auto_fd int dir = openat(l->tmp_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct confined c = {.what = "remove",
                         .program_fd = -1,
                         .run = confined_empty_directory,
                         .fds = {-1, dir, -1},
                         .timeout_s = REMOVE_TIMEOUT_S};
    int r;

    if (dir < 0 && errno == ENOENT)
        return 0;
    if (dir < 0)
        return unlinkat(l->tmp_fd, name, 0) == 0 ? 0 : error_set_errno(err, errno, "INTERNAL", "removing %s", name);
    r = confined_run(l, &c, err);
    if (r < 0)
        return error_wrap(err, "INTERNAL", "removing images/tmp/%s", name);
    if (unlinkat(l->tmp_fd, name, AT_REMOVEDIR) < 0)
        return error_set_errno(err, errno, "INTERNAL", "removing images/tmp/%s", name);
    return 0;
}

static int make_scratch(struct launcher *l, char name[SCRATCH_NAME_SIZE], int *ret_fd, struct error **err)
{
    static atomic_uint number;
    auto_fd int fd = -1;
    int r;

    snprintf(name, SCRATCH_NAME_SIZE, "unpack-%d-%u", (int)getpid(), atomic_fetch_add(&number, 1));
    r = directory_open(l->tmp_fd, name, 0700, &fd, err);
    if (r < 0)
        return r;
    if (fchown(fd, IMAGE_UID_FIRST, IMAGE_UID_FIRST) < 0)
        return error_set_errno(err, errno, "INTERNAL", "giving images/tmp/%s to the image range", name);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Moves the layers into the store; one that is there already stays as it is. Whatever else lies there is refused. */
static int adopt_layers(struct launcher *l, int scratch, struct error **err)
{
    auto_dir DIR *d = fdopendir(fcntl(scratch, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;
    struct stat st;

    if (!d)
        return error_set_errno(err, errno, "INTERNAL", "reading unpacked layers");
    if (syncfs(scratch) < 0) /* the daemon will write down that they exist */
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "INTERNAL", "syncing unpacked layers");
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (!is_layer_name(e->d_name) || fstatat(scratch, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISDIR(st.st_mode))
            return error_set(err, EINVAL, "IMAGE_MALFORMED", "unpacking made something that is no layer: %.64s",
                             e->d_name);
        if (renameat2(scratch, e->d_name, l->layers_fd, e->d_name, RENAME_NOREPLACE) < 0 && errno != EEXIST)
            return error_set_errno(err, errno, "INTERNAL", "moving layer %s into the store", e->d_name);
    }
    return 0;
}

static int unpack(struct task *t, struct error **err)
{
    const struct message_unpack *m = t->answer.message.body;
    char name[SCRATCH_NAME_SIZE], program[4096], bytes[24], files[24];
    char *argv[] = {program, "--bytes-max", bytes, "--files-max", files, NULL};
    auto_error struct error *later = NULL;
    auto_fd int scratch = -1, program_fd = -1;
    int r;

    snprintf(program, sizeof(program), "%s/coracle-unpack", t->l->options.libexec_dir);
    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)m->bytes_max);
    snprintf(files, sizeof(files), "%llu", (unsigned long long)m->files_max);
    program_fd = open(program, O_RDONLY | O_CLOEXEC);
    if (program_fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "opening %s", program);
    r = make_scratch(t->l, name, &scratch, err);
    if (r < 0)
        return r;
    struct confined c = {.what = "unpack",
                         .program_fd = program_fd,
                         .argv = argv,
                         .fds = {t->answer.message.fds[0], scratch, t->answer.message.fds[1]},
                         .timeout_s = UNPACK_TIMEOUT_S};
    r = confined_run(t->l, &c, err);
    if (r == 0)
        r = adopt_layers(t->l, scratch, err);
    if (drop_scratch(t->l, name, &later) < 0)
        log_error(NULL, later, "unpacking %s left something behind", m->archive_name);
    log_line(LOG_LEVEL_INFO, NULL, "unpacked %s: %s", m->archive_name, r == 0 ? "done" : "failed");
    return r;
}

static int remove_layer(struct task *t, struct error **err)
{
    const struct message_layer_remove *m = t->answer.message.body;
    char name[SCRATCH_NAME_SIZE];

    if (!is_layer_name(m->digest))
        return error_set(err, EINVAL, "INVALID_VALUE", "a layer is not named by a SHA-256");
    pool_drop(t->l, m->digest, NULL);
    template_drop(t->l, m->digest);
    packed_drop(t->l, m->digest);
    snprintf(name, sizeof(name), "remove-%s", m->digest);
    /* first out of the store at once, then away */
    if (renameat2(t->l->layers_fd, m->digest, t->l->tmp_fd, name, RENAME_NOREPLACE) < 0) {
        if (errno == ENOENT)
            return 0;
        return error_set_errno(err, errno, "INTERNAL", "taking layer %s out of the store", m->digest);
    }
    return drop_scratch(t->l, name, err);
}

static void end_task(struct task *t)
{
    proto_message_end(&t->answer.message);
    atomic_fetch_sub(&t->l->confined, 1);
    free(t);
}

static void *run_task(void *context)
{
    auto_error struct error *err = NULL;
    struct task *t = context;

    if (t->run(t, &err) < 0)
        reply_error(t->l, &t->answer, err);
    else
        reply(t->l, &t->answer, MESSAGE_DONE, NULL, NULL, 0);
    end_task(t);
    return NULL;
}

static int start_task(struct task *t, struct error **err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int e;

    if (atomic_load(&t->l->confined) > CONFINED_MAX)
        return error_set(err, EAGAIN, "TOO_MANY_REQUESTS", "%d unpackings and removals run already", CONFINED_MAX);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, CONFINED_STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    e = pthread_create(&thread, &attributes, run_task, t);
    pthread_attr_destroy(&attributes);
    return e ? error_set_errno(err, e, "NO_MEMORY", "starting a thread") : 0;
}

static void begin(struct launcher *l, struct proto_message *message, uint64_t connection,
                  int (*run)(struct task *, struct error **))
{
    struct job answer = {.connection = connection, .message = {.request = message->request}};
    struct task *t = calloc(1, sizeof(*t));
    auto_error struct error *err = NULL;

    if (!t) {
        error_set(&err, ENOMEM, "NO_MEMORY", "no memory for a request");
        reply_error(l, &answer, err);
        return;
    }
    *t = (struct task){.l = l, .run = run};
    t->answer.connection = connection;
    t->answer.message = *message;
    *message = (struct proto_message){0};
    atomic_fetch_add(&l->confined, 1);
    if (start_task(t, &err) < 0) {
        reply_error(l, &t->answer, err);
        end_task(t);
    }
}

void layers_unpack(struct launcher *l, struct proto_message *message, uint64_t connection)
{
    begin(l, message, connection, unpack);
}

void layers_remove(struct launcher *l, struct proto_message *message, uint64_t connection)
{
    begin(l, message, connection, remove_layer);
}

int layers_sweep(struct launcher *l, struct error **err)
{
    auto_dir DIR *d = fdopendir(fcntl(l->tmp_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;
    int r = 0;

    if (!d)
        return error_set_errno(err, errno, "INTERNAL", "reading images/tmp");
    rewinddir(d);
    while (r == 0 && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = drop_scratch(l, e->d_name, err);
    return r;
}
