/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store's own data, shared by the images_*.c files only.
 *
 * Theory of operation: everything that changes images/layers on the host (unpack, remove a layer) is a job; jobs run
 * one at a time, so that a layer is never removed under an import that is about to count on it. A job starts from the
 * event loop, never from within a request. An import ends when both the launcher has answered and the result pipe was
 * read to its end; its record is acknowledged when it is committed. A layer is removed when no record names it; layers
 * that a crash left without a record are found by listing the directory at start.
 */
#ifndef CORACLE_DAEMON_IMAGES_INTERNAL_H
#define CORACLE_DAEMON_IMAGES_INTERNAL_H

#include <systemd/sd-event.h>

#include "daemon/images.h"
#include "daemon/images_reference.h"

enum { IMAGE_DIGEST_TEXT_SIZE = sizeof("sha256:") + DIGEST_HEX_SIZE };

struct record {
    char digest[IMAGE_DIGEST_TEXT_SIZE]; /* "sha256:HEX" */
    uint64_t created_ns;                 /* CLOCK_REALTIME */
    uint64_t size_bytes, unpacked_bytes;
    char format[8];
    char **names;               /* NULL-terminated, sorted by age; may be empty */
    struct image_config config; /* its strings are owned here, layers uppermost first */
    char *user, *workdir, *parameters;
    json_t *result; /* what coracle-unpack said, as it is stored */
};

enum job_kind { JOB_UNPACK, JOB_REMOVE_LAYER };

struct import;
struct job {
    struct job *next;
    struct images *images; /* NULL: the store was closed while this ran */
    enum job_kind kind;
    struct import *import;       /* JOB_UNPACK */
    char layer[DIGEST_HEX_SIZE]; /* JOB_REMOVE_LAYER */
};

struct images {
    struct core *core;
    struct record **list; /* oldest first */
    size_t count, room;
    struct job *jobs, **jobs_end; /* waiting */
    struct job *running;          /* NULL: none */
    sd_event_source *kick, *retry;
    struct image_upload *uploads; /* bodies that are still coming */
    struct import *imports;       /* every import that was handed over */
    struct removal *removals;     /* waiting for their commit */
    struct pull *pulls;
    char *spool; /* directory */
};

/* images.c: records */
struct record *images_find_digest(struct images *, const char *digest);
/* The record behind what a user wrote; *ret_name is the name it was found by, NULL when by digest. A name may stand for
 * one image of each variant: the first of `prefers`, else the first of `wanted` (bits 1 << variant) is meant.
 * IMAGE_NOT_FOUND; IMAGE_WRONG_GUEST when that name or digest stands for other variants only. */
struct wanted {
    uint32_t variants, prefers;
    const char *technology; /* for messages, NULL: none */
};
int images_find(struct images *, const char *ref, struct wanted, struct record **ret, const char **ret_name,
                struct error **err);
int images_insert(struct images *, struct record *owned, struct error **err);
void images_take_out(struct images *, struct record *);
bool images_layer_used(const struct images *, const char *layer);
/* Gives a name to a record, taking it from another one of the same variant. */
int images_name(struct images *, struct record *, const char *name, struct error **err);
void images_unname(struct record *, const char *name);

/* images_record.c: from coracle-unpack's answer to a record and to JSON */
/* IMAGE_MALFORMED when the answer is not what it should be; *err as the answer says when it reports an error. */
int record_parse(const json_t *result, struct record **ret, struct error **err);
void record_free(struct record *); /* accepts NULL */
void record_render(const struct record *, const char *name, struct buffer *out);
/* Sets the entry point of a plain root file system and the digest that follows from it. */
int record_set_entrypoint(struct record *, const json_t *entrypoint, struct error **err);

/* images_table.c: rows */
int images_table_open(struct images *, struct error **err);
int images_table_put(struct images *, const struct record *, core_done done, void *context, struct error **err);
struct gone {
    char digest[IMAGE_DIGEST_TEXT_SIZE];
    enum image_variant variant;
    bool whole; /* the image; else only the name it had */
};
/* All of them or none. */
int images_table_remove(struct images *, const struct gone *gone, size_t count, const char *name, core_done done,
                        void *context, struct error **err);

/* images_import.c */
struct import_origin {
    const char *operation; /* id of a PULL, NULL for an upload */
    char *name;            /* owned: reference to give it, NULL: the archive's own */
    json_t *entrypoint;    /* owned, NULL: none */
};
/* Takes the spool's descriptor and the origin's strings, also on failure. done comes later, exactly once. */
int import_start(struct images *, int spool_fd, struct import_origin *, images_done done, void *context,
                 struct import **ret, struct error **err);
void import_cancel(struct import *); /* its result is thrown away: CANCELLED */
void import_forget(struct images *, void *context);
void imports_close(struct images *);
/* Sends the unpack request; called by the job queue only. On failure the import goes on to its end by itself. */
void import_run(struct import *);

/* images_jobs.c */
int jobs_open(struct images *, struct error **err);
int jobs_add(struct images *, enum job_kind, struct import *, const char *layer);
/* The running one has ended: the next one may begin, at the next turn of the loop. */
void job_done(struct images *);
void jobs_close(struct images *);
/* Queues the removal of every layer directory that no record names. */
void jobs_find_orphans(struct images *);

/* images_pull.c */
void pulls_close(struct images *);

#endif
