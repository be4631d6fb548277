/* SPDX-License-Identifier: Apache-2.0 */
/* The image store's two tables: what an image is, and the names it has. Written from inside the core's commit. */
#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/strv.h"
#include "daemon/images_internal.h"

/* The tables image and image_name are the store's (store/store.c: migrations): names are unique per variant. */

/* What a write needs, copied: the record may have changed by the time of the commit. */
struct row {
    char digest[IMAGE_DIGEST_TEXT_SIZE];
    uint64_t created_ns;
    char *result; /* NULL: the image itself is not written */
    char **names;
    const char *variant;
    char *name; /* removal: the name */
    struct gone gone[VARIANT_COUNT];
    size_t gone_count;
    core_done done;
    void *context;
};

static void row_free(struct row *row)
{
    free(row->result);
    free(row->name);
    strv_free(row->names);
    free(row);
}

static void row_done(void *context, const struct error *err)
{
    struct row *row = context;

    row->done(row->context, err);
    row_free(row);
}

/* Runs one statement with one to three texts; number is bound as the second value when there is one. */
static int run(struct sqlite3 *db, const char *sql, const char *first, const uint64_t *number, const char *second,
               const char *third)
{
    sqlite3_stmt *s = NULL;
    int at = 1, r = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

    if (r == SQLITE_OK)
        r = sqlite3_bind_text(s, at++, first, -1, SQLITE_STATIC);
    if (r == SQLITE_OK && number)
        r = sqlite3_bind_int64(s, at++, (sqlite3_int64)*number);
    if (r == SQLITE_OK && second)
        r = sqlite3_bind_text(s, at++, second, -1, SQLITE_STATIC);
    if (r == SQLITE_OK && third)
        r = sqlite3_bind_text(s, at++, third, -1, SQLITE_STATIC);
    if (r == SQLITE_OK)
        r = sqlite3_step(s);
    sqlite3_finalize(s);
    return r == SQLITE_DONE ? SQLITE_OK : r;
}

static int write_put(struct sqlite3 *db, void *context)
{
    const struct row *row = context;
    int r = run(db, "INSERT OR REPLACE INTO image VALUES (?, ?, ?)", row->digest, &row->created_ns, row->result, NULL);

    for (char **name = row->names; r == SQLITE_OK && name && *name; name++)
        r = run(db, "INSERT OR REPLACE INTO image_name VALUES (?, ?, ?)", *name, NULL, row->variant, row->digest);
    return r;
}

static int remove_one(struct sqlite3 *db, const struct gone *gone, const char *name)
{
    int r;

    if (!gone->whole)
        return run(db, "DELETE FROM image_name WHERE reference = ? AND guest = ?", name, NULL,
                   variant_name(gone->variant), NULL);
    r = run(db, "DELETE FROM image_name WHERE digest = ?", gone->digest, NULL, NULL, NULL);
    return r == SQLITE_OK ? run(db, "DELETE FROM image WHERE digest = ?", gone->digest, NULL, NULL, NULL) : r;
}

static int write_remove(struct sqlite3 *db, void *context)
{
    const struct row *row = context;
    int r = SQLITE_OK;

    for (size_t i = 0; r == SQLITE_OK && i < row->gone_count; i++)
        r = remove_one(db, &row->gone[i], row->name);
    return r;
}

static int hand_over(struct images *images, struct row *row, int (*write)(struct sqlite3 *, void *), struct error **err)
{
    int r = core_write(images->core, write, row_done, row, err);

    if (r < 0)
        row_free(row);
    return r;
}

int images_table_put(struct images *images, const struct record *record, core_done done, void *context,
                     struct error **err)
{
    struct row *row = calloc(1, sizeof(*row));

    if (row) {
        memcpy(row->digest, record->digest, sizeof(row->digest));
        row->created_ns = record->created_ns;
        row->variant = variant_name(record->config.variant);
        row->result = json_dumps(record->result, JSON_COMPACT);
        row->names = strv_copy(record->names);
        row->done = done;
        row->context = context;
    }
    if (!row || !row->result || !row->names) {
        if (row)
            row_free(row);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to record an image");
    }
    return hand_over(images, row, write_put, err);
}

int images_table_remove(struct images *images, const struct gone *gone, size_t count, const char *name, core_done done,
                        void *context, struct error **err)
{
    struct row *row = calloc(1, sizeof(*row));

    if (row) {
        memcpy(row->gone, gone, count * sizeof(*gone));
        row->gone_count = count;
        row->name = name ? strdup(name) : NULL;
        row->done = done;
        row->context = context;
    }
    if (!row || (name && !row->name)) {
        free(row);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to remove an image");
    }
    return hand_over(images, row, write_remove, err);
}

static int failed(struct images *images, struct error **err)
{
    return error_set(err, EIO, "STORE_FAILED", "the table of images: %s", sqlite3_errmsg(core_database(images->core)));
}

static int load_image(struct images *images, sqlite3_stmt *s, struct error **err)
{
    const char *digest = (const char *)sqlite3_column_text(s, 0), *text = (const char *)sqlite3_column_text(s, 2);
    json_t *result = text ? json_loads(text, 0, NULL) : NULL;
    struct record *record = NULL;
    int r = record_parse(result, &record, err);

    json_decref(result);
    if (r < 0)
        return error_wrap(err, "STORE_FAILED", "the record of image %.20s cannot be read", digest ? digest : "");
    record->created_ns = (uint64_t)sqlite3_column_int64(s, 1);
    return images_insert(images, record, err);
}

static int load_name(struct images *images, sqlite3_stmt *s, struct error **err)
{
    const char *reference = (const char *)sqlite3_column_text(s, 0), *digest = (const char *)sqlite3_column_text(s, 1);
    struct record *record = digest ? images_find_digest(images, digest) : NULL;

    return record && reference ? images_name(images, record, reference, err) : 0;
}

static int load(struct images *images, const char *sql, int (*one)(struct images *, sqlite3_stmt *, struct error **),
                struct error **err)
{
    sqlite3_stmt *s = NULL;
    int x,
        r = sqlite3_prepare_v2(core_database(images->core), sql, -1, &s, NULL) == SQLITE_OK ? 0 : failed(images, err);

    while (r == 0 && (x = sqlite3_step(s)) != SQLITE_DONE)
        r = x == SQLITE_ROW ? one(images, s, err) : failed(images, err);
    sqlite3_finalize(s);
    return r;
}

int images_table_open(struct images *images, struct error **err)
{
    int r = load(images, "SELECT digest, created_ns, result FROM image ORDER BY created_ns", load_image, err);

    return r == 0 ? load(images, "SELECT reference, digest FROM image_name ORDER BY rowid", load_name, err) : r;
}
