/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a launcher does first: finds the instances its predecessor started, running or ended, and removes whatever else
 * it left (half-made instances, shells of its pool, interfaces, mounts, cgroups, files). Main thread, before any
 * worker.
 *
 * Order: records are read and their instances adopted; every sweep then asks whether a thing belongs to one of them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/instance.h"
#include "launcher/packed.h"
#include "launcher/pool.h"
#include "launcher/uplink.h"

struct tally {
    unsigned running, ended, undone, cgroups, mounts, interfaces;
};

/* Opens the running container of a record, or settles how it ended while nobody looked. */
static int adopt_container(struct launcher *l, struct instance *i, int dir, struct error **err)
{
    int r;

    r = container_open(l->runtime, &i->record, dir, &i->container, err);
    if (r < 0)
        return r;
    if (container_alive(i->container)) {
        i->paused = container_paused(i->container);
        if (watch(l, container_pidfd(i->container), i->serial, 0, false) < 0)
            return error_set_errno(err, errno, "INTERNAL", "watching an adopted instance");
        return 0;
    }
    if (container_exit_read(i->container, dir, &i->exit, err) < 0)
        i->exit = (struct container_exit){.wait_status = SIGKILL};
    r = container_destroy(take_ptr(i->container), err);
    i->state = INSTANCE_ENDED;
    return r;
}

/* Takes the numbers the record names. One that another instance holds was given back, but a full /run kept the record
 * from saying so. */
static void claim(struct launcher *l, struct instance *i)
{
    if (i->has_uid && slots_claim(&l->uids, i->uid_slot) < 0)
        i->has_uid = i->writable = false;
    if (i->has_number && slots_claim(&l->numbers, i->ports.number) < 0) {
        i->has_number = false;
        memset(&i->ports, 0, sizeof(i->ports));
    }
    if (i->has_number) {
        fabric_adopt(l->fabric, &i->ports);
        fabric_reclaim(l->fabric, &i->ports);
    }
}

/* Forgets the addresses a half-made instance may have got; everything else of it is found by the sweeps. */
static void undo(struct launcher *l, const struct instance *i, struct tally *t)
{
    fabric_adopt(l->fabric, &i->ports);
    fabric_unwire(l->fabric, &i->ports);
    t->undone++;
}

static void adopt_one(struct launcher *l, const char *name, struct tally *t)
{
    auto_fd int dir = openat(l->instances_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    auto_error struct error *err = NULL;
    struct instance read = {0}, *i;
    int r;

    if (dir < 0 || !instance_id_valid(name) || strlen(name) != INSTANCE_ID_SIZE - 1)
        return;
    r = record_read(dir, &read);
    if (r == -EINVAL)
        log_line(LOG_LEVEL_ERROR, name, "its record is damaged: the instance is removed");
    if (r == 0 && (strcmp(read.id, name) != 0 || read.state == INSTANCE_STARTING)) {
        undo(l, &read, t);
        return;
    }
    i = r < 0 ? NULL : instance_find_or_add(l, name);
    if (!i)
        return;
    record_read(dir, i);
    claim(l, i);
    if (i->state == INSTANCE_RUNNING)
        r = adopt_container(l, i, dir, &err);
    if (i->state == INSTANCE_ENDED) {
        instance_release_host(l, i, i->writable);
        record_write(l, i, dir, &err);
    }
    if (r < 0 || err)
        log_error(name, err, "adopting the instance");
    t->running += i->state == INSTANCE_RUNNING;
    t->ended += i->state == INSTANCE_ENDED;
}

static bool known_id(void *context, const char *id)
{
    return instance_find(context, id) != NULL;
}

struct tag_search {
    const char *tag;
    bool found;
};

static bool compare_tag(void *context, struct instance *i)
{
    struct tag_search *s = context;

    s->found = i->state == INSTANCE_RUNNING && strcmp(i->record.tag, s->tag) == 0;
    return !s->found;
}

static bool known_tag(void *context, const char *tag)
{
    struct tag_search s = {tag, false};

    instance_each(context, compare_tag, &s);
    return s.found;
}

struct number_search {
    uint32_t number;
    bool found;
};

static bool compare_number(void *context, struct instance *i)
{
    struct number_search *s = context;

    s->found = i->has_number && i->ports.number == s->number;
    return !s->found;
}

static bool known_number(void *context, uint32_t number)
{
    struct number_search s = {number, false};

    instance_each(context, compare_number, &s);
    return s.found;
}

/* Folders of instances nobody knows. Their logs go too: they belong to starts nobody was told of. */
static void sweep_folders(struct launcher *l)
{
    auto_dir DIR *d = fdopendir(fcntl(l->instances_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;

    if (!d)
        return;
    rewinddir(d);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.' && !instance_find(l, e->d_name))
            instance_remove_files(l, e->d_name);
}

/* Log files a predecessor's pool had ready. */
static void sweep_spare_logs(struct launcher *l)
{
    auto_dir DIR *d = fdopendir(fcntl(l->logs_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;

    if (!d)
        return;
    rewinddir(d);
    while ((e = readdir(d)))
        if (strncmp(e->d_name, SPARE_PREFIX, strlen(SPARE_PREFIX)) == 0)
            logs_remove(l, e->d_name);
}

static void adopt_all(struct launcher *l, struct tally *t)
{
    auto_dir DIR *d = fdopendir(fcntl(l->instances_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;

    if (!d)
        return;
    rewinddir(d);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            adopt_one(l, e->d_name, t);
}

static bool publish_again(void *context, struct instance *i)
{
    struct launcher *l = context;
    auto_error struct error *err = NULL;

    if (l->uplink && i->published_count &&
        uplink_restore(l->uplink, i->id, &i->ports.list[0], i->published, i->published_count, &err) < 0)
        log_error(i->id, err, "publishing its ports again");
    return true;
}

int recover(struct launcher *l, struct error **err)
{
    char instances[4096];
    struct tally t = {0};
    int r;

    adopt_all(l, &t);
    r = runtime_sweep(l->runtime, known_tag, l, &t.cgroups, err);
    snprintf(instances, sizeof(instances), "%s/instances", l->options.run_dir);
    if (r == 0)
        r = runtime_sweep_mounts(instances, known_id, l, &t.mounts, err);
    if (r == 0)
        r = fabric_sweep(l->fabric, known_number, l, &t.interfaces, err);
    if (r < 0)
        return r;
    r = fabric_settle(l->fabric, err);
    if (r < 0)
        return r;
    sweep_folders(l);
    sweep_spare_logs(l);
    packed_sweep(l);
    r = layers_sweep(l, err);
    instance_each(l, publish_again, l);
    if (r == 0 && l->uplink)
        r = uplink_refresh(l->uplink, NULL, err);
    log_line(LOG_LEVEL_NOTICE, NULL,
             "found %u running and %u ended instances; removed %u half-made ones, %u cgroups, %u mounts, %u interfaces",
             t.running, t.ended, t.undone, t.cgroups, t.mounts, t.interfaces);
    return r;
}
