/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From spooled bytes to a committed record: uploads as they come in, the unpack request, its answer.
 *
 * An import ends when three things are known: what the launcher answered, that the result pipe is at its end, and
 * (when both were good) what the commit said. Then its callback comes and the next job may begin.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/strv.h"
#include "daemon/images_internal.h"
#include "model/json_read.h"

enum { RESULT_MAX = 1 << 20, FILES_MAX = 1000000 };
static const uint64_t archive_max = 8ull << 30, unpacked_max = 16ull << 30;

struct image_upload {
    struct image_upload *next;
    struct images *images;
    int spool_fd;
    uint64_t written;
    struct import_origin origin;
};

struct import {
    struct import *next;
    struct images *images; /* NULL: the store was closed */
    int spool_fd, pipe_fd;
    struct import_origin origin;
    char operation[INSTANCE_ID_SIZE];
    images_done done; /* NULL: forgotten */
    void *context;
    sd_event_source *reading;
    struct buffer text;
    bool answered, read, cancelled;
    struct error *error; /* owned: what the launcher, or the pipe, had to say */
    char digest[IMAGE_DIGEST_TEXT_SIZE];
    bool added; /* the record is new */
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void origin_clear(struct import_origin *origin)
{
    free(origin->name);
    json_decref(origin->entrypoint);
    *origin = (struct import_origin){0};
}

/* ---- uploads ---- */

static int parse_entrypoint(const char *text, json_t **ret, struct error **err)
{
    json_error_t where;
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    char **words = NULL;
    int r;

    if (!j) {
        error_set(err, EINVAL, "INVALID_VALUE", "entrypoint: not valid JSON: %s", where.text);
        error_hint(err, "write it as a JSON list: entrypoint=[\"/iperf\",\"-s\"]");
        return -EINVAL;
    }
    r = json_read_strings(j, "entrypoint", ARGUMENT_MAX, &words, err);
    strv_free(words);
    if (r < 0)
        json_decref(j);
    else
        *ret = j;
    return r;
}

static int set_name(const char *text, char **ret, struct error **err)
{
    struct image_reference reference;
    int r = image_reference_parse(text, &reference, err);

    if (r < 0)
        return r;
    if (reference.digest[0]) {
        error_set(err, EINVAL, "INVALID_VALUE", "name: a digest follows from the content and cannot be given");
        error_hint(err, "leave out what begins with \"@\"");
        return -EINVAL;
    }
    *ret = strdup(reference.name);
    return *ret ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for an upload");
}

/* An unnamed file where the file system can make one: nothing to clean up, whatever happens. */
static int open_spool_file(struct images *images, struct error **err)
{
    auto_free char *path = NULL;
    int fd = open(images->spool, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR) && asprintf(&path, "%s/upload-XXXXXX", images->spool) >= 0) {
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED",
                               "cannot make a file for the upload in %s", images->spool);
    return fd;
}

int images_upload_begin(struct images *images, const char *name, const char *entrypoint, struct image_upload **ret,
                        struct error **err)
{
    struct image_upload *u = calloc(1, sizeof(*u));
    int r = u ? 0 : error_set(err, ENOMEM, "NO_MEMORY", "no memory for an upload");

    if (r < 0)
        return r;
    u->spool_fd = -1;
    u->images = images;
    if (name)
        r = set_name(name, &u->origin.name, err);
    if (r == 0 && entrypoint)
        r = parse_entrypoint(entrypoint, &u->origin.entrypoint, err);
    if (r == 0)
        r = u->spool_fd = open_spool_file(images, err);
    if (r < 0) {
        images_upload_abort(u);
        return r;
    }
    u->next = images->uploads;
    images->uploads = u;
    *ret = u;
    return 0;
}

int images_upload_write(struct image_upload *u, const void *bytes, size_t size, struct error **err)
{
    const char *p = bytes;

    if (size > archive_max - u->written) {
        error_set(err, EFBIG, "IMAGE_TOO_LARGE", "the archive is larger than 8 GiB");
        error_hint(err, "make the image smaller");
        return -EFBIG;
    }
    while (size > 0) {
        ssize_t n = write(u->spool_fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT)) {
            error_set_errno(err, ENOSPC, "NO_SPACE", "cannot keep the uploaded archive in %s", u->images->spool);
            error_hint(err, "free space there, or remove images that are not needed (coracle images)");
            return -ENOSPC;
        }
        if (n < 0)
            return error_set_errno(err, errno, "STORE_FAILED", "cannot keep the uploaded archive in %s",
                                   u->images->spool);
        p += n;
        size -= (size_t)n;
        u->written += (uint64_t)n;
    }
    return 0;
}

void images_upload_abort(struct image_upload *u)
{
    struct image_upload **link;

    if (!u)
        return;
    for (link = &u->images->uploads; *link && *link != u;)
        link = &(*link)->next;
    if (*link)
        *link = u->next;
    close_fd(u->spool_fd);
    origin_clear(&u->origin);
    free(u);
}

int images_upload_finish(struct image_upload *u, images_done done, void *context, struct error **err)
{
    int r = import_start(u->images, take_fd(&u->spool_fd), &u->origin, done, context, NULL, err);

    images_upload_abort(u);
    return r;
}

/* ---- the end of an import ---- */

static void import_free(struct import *in)
{
    struct import **link = in->images ? &in->images->imports : NULL;

    while (link && *link && *link != in)
        link = &(*link)->next;
    if (link && *link)
        *link = in->next;
    sd_event_source_disable_unref(in->reading);
    close_fd(in->spool_fd);
    close_fd(in->pipe_fd);
    buffer_clear(&in->text);
    error_free(in->error);
    origin_clear(&in->origin);
    free(in);
}

static void finish(struct import *in, const struct error *err)
{
    struct images *images = in->images;

    if (err)
        log_error(NULL, err, "image %s was not imported", in->origin.name ? in->origin.name : "");
    if (in->done)
        in->done(in->context, err ? NULL : in->digest, in->origin.name, in->added, err);
    import_free(in);
    job_done(images);
}

/* Layers that no record counts on any more, after an import came to nothing. */
static void drop_layers(struct images *images, const struct record *record)
{
    for (size_t i = 0; i < record->config.layer_count; i++)
        if (!images_layer_used(images, record->config.layers[i]))
            jobs_add(images, JOB_REMOVE_LAYER, NULL, record->config.layers[i]);
}

static void on_committed(void *context, const struct error *err)
{
    struct import *in = context;
    struct images *images = in->images;
    struct record *record = images ? images_find_digest(images, in->digest) : NULL;
    auto_buffer struct buffer detail = {0};

    if (!images) {
        import_free(in);
        return;
    }
    if (err && in->added && record) {
        images_take_out(images, record);
        drop_layers(images, record);
        record_free(record);
    } else if (!err && in->added && record) {
        buffer_text(&detail, "{\"reference\":");
        buffer_json(&detail, in->origin.name ? in->origin.name : record->digest);
        buffer_printf(&detail, ",\"digest\":\"%s\"}", in->digest);
        core_event_add(images->core, "image.added", NULL, NULL, in->operation[0] ? in->operation : NULL, detail.data);
    }
    finish(in, err);
}

/* The archive's own name serves when the user gave none and it is a valid one. */
static void take_own_name(struct import *in, const json_t *result)
{
    const char *own = json_string_value(json_object_get(result, "name"));
    struct image_reference reference;

    /* A tag alone is what "org.opencontainers.image.ref.name" often holds; it is no name. */
    if (!in->origin.name && own && strpbrk(own, "/:") && image_reference_parse(own, &reference, NULL) == 0)
        in->origin.name = strdup(reference.name);
}

static int record_result(struct import *in, const json_t *result, struct error **err)
{
    struct images *images = in->images;
    struct record *record = NULL, *known;
    int r = record_parse(result, &record, err);

    if (r < 0)
        return r;
    if (in->origin.entrypoint)
        r = record_set_entrypoint(record, in->origin.entrypoint, err);
    if (r == 0 && in->cancelled)
        r = error_set(err, ECANCELED, "CANCELLED", "the import was cancelled");
    if (r < 0) {
        drop_layers(images, record);
        record_free(record);
        return r;
    }
    take_own_name(in, result);
    memcpy(in->digest, record->digest, sizeof(in->digest));
    known = images_find_digest(images, record->digest);
    in->added = !known;
    if (known) {
        record_free(record);
        record = known;
    } else {
        record->created_ns = clock_ns(CLOCK_REALTIME);
        r = images_insert(images, record, err);
        if (r < 0)
            return r;
    }
    if (in->origin.name)
        r = images_name(images, record, in->origin.name, err);
    if (r == 0)
        r = images_table_put(images, record, on_committed, in, err);
    if (r < 0 && in->added) {
        images_take_out(images, record);
        drop_layers(images, record);
        record_free(record);
    }
    return r;
}

static void take_result(struct import *in)
{
    auto_error struct error *err = NULL;
    json_t *result = in->text.length ? json_loadb(in->text.data, in->text.length, JSON_REJECT_DUPLICATES, NULL) : NULL;
    int r;

    if (in->error && (!result || !json_object_get(result, "error"))) {
        json_decref(result);
        finish(in, in->error);
        return;
    }
    if (!result) {
        error_set(&err, EPROTO, "IMAGE_MALFORMED", "the image reader ended without an answer");
        error_hint(&err, "the image made it fail; its log has the reason (journalctl -u coracle-launcher)");
        finish(in, err);
        return;
    }
    r = record_result(in, result, &err);
    json_decref(result);
    if (r < 0)
        finish(in, err);
}

static void check_ended(struct import *in)
{
    if (!in->answered || !in->read)
        return;
    if (!in->images)
        import_free(in);
    else
        take_result(in);
}

/* ---- the request ---- */

static void on_unpacked(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                        const struct error *err)
{
    struct import *in = context;

    (void)type;
    (void)message;
    (void)fds;
    (void)fd_count;
    in->answered = true;
    if (err) {
        error_set(&in->error, err->errnum ? err->errnum : EIO, err->code, "%s", err->message);
        if (err->hint)
            error_hint(&in->error, "%s", err->hint);
        /* A launcher that is gone may have left the reader alone with the pipe. */
        if (strcmp(err->code, "LAUNCHER_UNAVAILABLE") == 0)
            in->read = true;
    }
    check_ended(in);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct import *in = context;
    ssize_t n;

    (void)source;
    (void)events;
    if (buffer_reserve(&in->text, 65536) < 0)
        n = 0;
    else
        n = read(fd, in->text.data + in->text.length, 65536);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n > 0)
        in->text.length += (size_t)n;
    if (n > 0 && in->text.length <= RESULT_MAX)
        return 0;
    if (n > 0)
        buffer_clear(&in->text); /* no honest answer is that long */
    in->reading = sd_event_source_disable_unref(in->reading);
    in->pipe_fd = close_fd(in->pipe_fd);
    in->read = true;
    check_ended(in);
    return 0;
}

static int send_request(struct import *in, struct error **err)
{
    struct message_unpack message = {.bytes_max = unpacked_max, .files_max = FILES_MAX};
    auto_fd int write_end = -1;
    int ends[2], r;

    snprintf(message.archive_name, sizeof(message.archive_name), "%s", in->origin.name ? in->origin.name : "upload");
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "INTERNAL", "no pipe for the image reader's answer");
    in->pipe_fd = ends[0];
    write_end = ends[1];
    fcntl(in->pipe_fd, F_SETFL, O_NONBLOCK);
    r = sd_event_add_io(core_loop(in->images->core), &in->reading, in->pipe_fd, EPOLLIN, on_readable, in);
    if (r < 0)
        return error_set_errno(err, -r, "INTERNAL", "the event loop takes no source for an image");
    return core_launcher_request(in->images->core, MESSAGE_UNPACK, &message, (int[]){in->spool_fd, write_end}, 2,
                                 on_unpacked, in, err);
}

void import_run(struct import *in)
{
    auto_error struct error *err = NULL;
    int r;

    if (in->cancelled)
        r = error_set(&err, ECANCELED, "CANCELLED", "the import was cancelled");
    else
        r = send_request(in, &err);
    if (r < 0)
        finish(in, err);
}

int import_start(struct images *images, int spool_fd, struct import_origin *origin, images_done done, void *context,
                 struct import **ret, struct error **err)
{
    struct import *in = calloc(1, sizeof(*in));

    if (!in || jobs_add(images, JOB_UNPACK, in, NULL) < 0) {
        free(in);
        close_fd(spool_fd);
        origin_clear(origin);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an import");
    }
    in->images = images;
    in->spool_fd = spool_fd;
    in->pipe_fd = -1;
    in->origin = *origin;
    *origin = (struct import_origin){0};
    if (in->origin.operation)
        snprintf(in->operation, sizeof(in->operation), "%s", in->origin.operation);
    in->done = done;
    in->context = context;
    in->next = images->imports;
    images->imports = in;
    if (ret)
        *ret = in;
    return 0;
}

void import_cancel(struct import *in)
{
    in->cancelled = true;
}

void import_forget(struct images *images, void *context)
{
    for (struct import *in = images->imports; in; in = in->next)
        if (in->context == context)
            in->done = NULL;
}

void imports_close(struct images *images)
{
    struct import *running = images->running && images->running->kind == JOB_UNPACK ? images->running->import : NULL;

    while (images->uploads)
        images_upload_abort(images->uploads);
    for (struct import *in = images->imports, *next; in; in = next) {
        next = in->next;
        in->images = NULL;
        in->done = NULL;
        in->reading = sd_event_source_disable_unref(in->reading);
        in->read = true;
        /* One that waits for the launcher or for its commit is freed by that answer. */
        if (in != running)
            import_free(in);
    }
    images->imports = NULL;
}
