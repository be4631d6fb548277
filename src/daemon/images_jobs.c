/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of what changes images/layers on the host, one at a time. The theory of operation is in images_internal.h.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/images_internal.h"

enum { RETRY_US = 1000000 };

static void kick(struct images *images)
{
    if (images->kick && images->jobs && !images->running)
        sd_event_source_set_enabled(images->kick, SD_EVENT_ONESHOT);
}

static struct job *pop(struct images *images)
{
    struct job *job = images->jobs;

    images->jobs = job->next;
    if (!images->jobs)
        images->jobs_end = &images->jobs;
    job->next = NULL;
    return job;
}

static int on_retry(sd_event_source *source, uint64_t when, void *context)
{
    struct images *images = context;

    (void)source;
    (void)when;
    images->retry = sd_event_source_unref(images->retry);
    kick(images);
    return 0;
}

/* The launcher is away: the job stays first, and is tried again. */
static void put_off(struct images *images, struct job *job)
{
    job->next = images->jobs;
    images->jobs = job;
    if (!job->next)
        images->jobs_end = &job->next;
    images->running = NULL;
    if (sd_event_add_time_relative(core_loop(images->core), &images->retry, CLOCK_MONOTONIC, RETRY_US, 0, on_retry,
                                   images) < 0)
        log_line(LOG_LEVEL_ERROR, NULL, "no timer for the removal of layers; they are removed at the next start");
}

static void on_removed(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                       const struct error *err)
{
    struct job *job = context;

    (void)type;
    (void)message;
    (void)fds;
    (void)fd_count;
    if (!job->images) {
        free(job);
        return;
    }
    if (err && strcmp(err->code, "LAUNCHER_UNAVAILABLE") == 0) {
        put_off(job->images, job);
        return;
    }
    if (err)
        log_error(NULL, err, "layer %.12s was not removed; tried again at the next start", job->layer);
    job_done(job->images);
}

static void remove_layer(struct images *images, struct job *job)
{
    auto_error struct error *err = NULL;
    struct message_layer_remove message = {0};

    if (images_layer_used(images, job->layer)) {
        job_done(images);
        return;
    }
    memcpy(message.digest, job->layer, sizeof(message.digest));
    if (core_launcher_request(images->core, MESSAGE_LAYER_REMOVE, &message, NULL, 0, on_removed, job, &err) < 0)
        put_off(images, job);
}

static int on_kick(sd_event_source *source, void *context)
{
    struct images *images = context;

    (void)source;
    if (images->running || images->retry || !images->jobs)
        return 0;
    images->running = pop(images);
    if (images->running->kind == JOB_UNPACK)
        import_run(images->running->import);
    else
        remove_layer(images, images->running);
    return 0;
}

int jobs_open(struct images *images, struct error **err)
{
    int r = sd_event_add_defer(core_loop(images->core), &images->kick, on_kick, images);

    if (r < 0)
        return error_set_errno(err, -r, "INTERNAL", "the event loop takes no source for images");
    sd_event_source_set_enabled(images->kick, SD_EVENT_OFF);
    return 0;
}

int jobs_add(struct images *images, enum job_kind kind, struct import *import, const char *layer)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job)
        return -ENOMEM;
    job->images = images;
    job->kind = kind;
    job->import = import;
    if (layer)
        memcpy(job->layer, layer, sizeof(job->layer));
    /* Somebody waits for an import: it does not wait for layers that cannot be removed now. */
    if (kind == JOB_UNPACK && images->retry) {
        job->next = images->jobs;
        images->jobs = job;
        images->retry = sd_event_source_disable_unref(images->retry);
    } else {
        *images->jobs_end = job;
    }
    for (images->jobs_end = &images->jobs; *images->jobs_end;)
        images->jobs_end = &(*images->jobs_end)->next;
    kick(images);
    return 0;
}

void job_done(struct images *images)
{
    free(images->running);
    images->running = NULL;
    kick(images);
}

void jobs_close(struct images *images)
{
    if (images->running && images->running->kind == JOB_REMOVE_LAYER)
        images->running->images = NULL; /* its answer frees it */
    else
        free(images->running);
    images->running = NULL;
    while (images->jobs)
        free(pop(images));
    images->kick = sd_event_source_disable_unref(images->kick);
    images->retry = sd_event_source_disable_unref(images->retry);
}

void jobs_find_orphans(struct images *images)
{
    auto_free char *path = NULL;
    auto_dir DIR *dir = NULL;
    struct dirent *e;

    if (asprintf(&path, "%s/images/layers", core_get_options(images->core)->state_dir) < 0)
        return;
    dir = opendir(path);
    while (dir && (e = readdir(dir)))
        if (strlen(e->d_name) == 64 && image_digest_prefix(e->d_name) && !images_layer_used(images, e->d_name))
            jobs_add(images, JOB_REMOVE_LAYER, NULL, e->d_name);
}
