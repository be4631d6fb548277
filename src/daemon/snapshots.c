/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots users keep: a name for a file the launcher holds, and what is needed to start an instance from it. Daemon's
 * thread.
 *
 * A snapshot is made by an operation (CREATE_SNAPSHOT, SOL003 v3.3): the launcher writes the file, then the row is
 * committed, then the operation has ended. A file whose row was never written is nobody's: at each meeting with the
 * launcher those are removed. A row whose file is gone fails the start that wants it, which says so.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/suggest.h"
#include "daemon/internal.h"
#include "daemon/store/store.h"
#include "model/json_read.h"
#include "model/naming.h"
#include "model/spec_parse.h"
#include "model/units.h"

struct snapshot {
    struct snapshot *next;
    struct core *core;
    char id[INSTANCE_ID_SIZE]; /* names the file */
    char name[NAME_SIZE];
    char instance_name[NAME_SIZE];
    char operation[INSTANCE_ID_SIZE]; /* that makes it, "" */
    const struct technology *technology;
    char *image, *image_digest, *spec_json;
    uint64_t created_ns;
    bool ready; /* its row is on the disk, or about to be */
    bool going;
};

static void snapshot_free(struct snapshot *s)
{
    struct snapshot **link = &s->core->snapshots;

    while (*link && *link != s)
        link = &(*link)->next;
    if (*link)
        *link = s->next;
    free(s->image);
    free(s->image_digest);
    free(s->spec_json);
    free(s);
}

void snapshots_close(struct core *core)
{
    while (core->snapshots)
        snapshot_free(core->snapshots);
}

static struct snapshot *find(struct core *core, const char *name)
{
    struct snapshot *s = core->snapshots;

    while (s && strcmp(s->name, name) != 0)
        s = s->next;
    return s;
}

struct snapshot *core_snapshot_find(struct core *core, const char *name, struct error **err)
{
    struct snapshot *s = find(core, name);
    const char *nearest = NULL;

    if (s && !s->going)
        return s;
    for (s = core->snapshots; s; s = s->next)
        suggest_offer(name, s->name, &nearest);
    error_set(err, ENOENT, "SNAPSHOT_NOT_FOUND", "there is no snapshot \"%s\"", name);
    if (nearest)
        error_hint(err, "did you mean \"%s\"?", nearest);
    return NULL;
}

size_t snapshots_of_image(struct core *core, const char *digest, const char **ret_name)
{
    size_t n = 0;

    for (struct snapshot *s = core->snapshots; s; s = s->next)
        if (strcmp(s->image_digest, digest) == 0 && n++ == 0 && ret_name)
            *ret_name = s->name;
    return n;
}

/* ---- the store */

static int run_sql(struct sqlite3 *db, const char *sql, const struct snapshot *s, bool whole)
{
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (result == SQLITE_OK) {
        sqlite3_bind_text(statement, 1, s->name, -1, SQLITE_STATIC);
        if (whole) {
            sqlite3_bind_text(statement, 2, s->id, -1, SQLITE_STATIC);
            sqlite3_bind_text(statement, 3, s->instance_name, -1, SQLITE_STATIC);
            sqlite3_bind_text(statement, 4, s->technology->name, -1, SQLITE_STATIC);
            sqlite3_bind_text(statement, 5, s->image, -1, SQLITE_STATIC);
            sqlite3_bind_text(statement, 6, s->image_digest, -1, SQLITE_STATIC);
            sqlite3_bind_text(statement, 7, s->spec_json, -1, SQLITE_STATIC);
            sqlite3_bind_int64(statement, 8, (sqlite3_int64)s->created_ns);
        }
        result = sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int write_row(struct sqlite3 *db, void *context)
{
    return run_sql(db, "INSERT INTO snapshots VALUES(?1,?2,?3,?4,?5,?6,?7,?8)", context, true);
}

static int delete_row(struct sqlite3 *db, void *context)
{
    return run_sql(db, "DELETE FROM snapshots WHERE name=?1", context, false);
}

static const char *column(sqlite3_stmt *statement, int i)
{
    const char *text = (const char *)sqlite3_column_text(statement, i);

    return text ? text : "";
}

/* One row; a technology this release has not is kept out of the table, and its file with it is kept. */
static int load_row(struct core *core, sqlite3_stmt *row, struct error **err)
{
    struct snapshot *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    s->core = core;
    snprintf(s->name, sizeof(s->name), "%s", column(row, 0));
    snprintf(s->id, sizeof(s->id), "%s", column(row, 1));
    snprintf(s->instance_name, sizeof(s->instance_name), "%s", column(row, 2));
    s->technology = technology_find(column(row, 3));
    s->image = strdup(column(row, 4));
    s->image_digest = strdup(column(row, 5));
    s->spec_json = strdup(column(row, 6));
    s->created_ns = (uint64_t)sqlite3_column_int64(row, 7);
    s->ready = true;
    s->next = core->snapshots;
    core->snapshots = s;
    if (!s->image || !s->image_digest || !s->spec_json)
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    return 0;
}

int snapshots_open(struct core *core, struct error **err)
{
    sqlite3_stmt *row = NULL;
    int result = sqlite3_prepare_v2(core_database(core), "SELECT * FROM snapshots ORDER BY created_at", -1, &row, NULL);
    int r = 0;

    while (result == SQLITE_OK && r == 0 && sqlite3_step(row) == SQLITE_ROW)
        r = load_row(core, row, err);
    sqlite3_finalize(row);
    return result == SQLITE_OK ? r : store_error(core->store, result, "reading snapshots", err);
}

/* ---- files without a row */

static void on_file_removed(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                            const struct error *err)
{
    if (err && strcmp(err->code, "LAUNCHER_UNAVAILABLE") != 0)
        log_error(NULL, err, "the file of a snapshot could not be removed"); /* the next meeting tries again */
}

static void remove_file(struct core *core, const char *id)
{
    struct message_snapshot_remove m;

    snprintf(m.snapshot, sizeof(m.snapshot), "%s", id);
    core_launcher_request(core, MESSAGE_SNAPSHOT_REMOVE, &m, NULL, 0, on_file_removed, core, NULL);
}

static bool known(const struct core *core, const char *id)
{
    for (const struct snapshot *s = core->snapshots; s; s = s->next)
        if (strcmp(s->id, id) == 0)
            return true;
    return false;
}

void snapshots_sweep(struct core *core)
{
    auto_free char *path = NULL;
    const struct dirent *e;

    if (asprintf(&path, "%s/snapshots", core->state_dir) < 0) {
        path = NULL;
        return;
    }
    auto_dir DIR *d = opendir(path);
    while (d && (e = readdir(d)))
        if (strlen(e->d_name) == INSTANCE_ID_SIZE - 1 && !known(core, e->d_name))
            remove_file(core, e->d_name);
}

/* ---- create */

struct body {
    char name[NAME_SIZE];
};

static int body_name(void *target, const json_t *v, const char *path, struct error **err)
{
    const char *text;
    int r = json_read_string(v, path, &text, err);

    if (r < 0)
        return r;
    if (!units_is_name(text)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s: \"%.80s\" is not a name", path, text);
        error_hint(err, "1 to 63 of a-z 0-9 -, not beginning or ending with -");
        return -EINVAL;
    }
    snprintf(((struct body *)target)->name, NAME_SIZE, "%s", text);
    return 0;
}

static const struct json_field body_fields[] = {{"name", body_name}};

/* The user's name, or one made of the instance's. */
static int choose_name(struct core *core, const struct instance *i, const json_t *json, char ret[NAME_SIZE],
                       struct error **err)
{
    struct body body = {""};
    int r = json ? json_read_object(json, "", body_fields, 1, &body, err) : 0;

    if (r < 0)
        return r;
    for (unsigned n = 1; !body.name[0] && n; n++) {
        snprintf(body.name, sizeof(body.name), "%.50s-%u", i->name, n);
        if (find(core, body.name))
            body.name[0] = '\0';
    }
    if (find(core, body.name)) {
        error_set(err, EEXIST, "NAME_TAKEN", "name: there is a snapshot \"%s\" already", body.name);
        error_hint(err, "choose another, or remove that one: coracle snapshot rm %s", body.name);
        return -EEXIST;
    }
    memcpy(ret, body.name, NAME_SIZE);
    return 0;
}

static int check(const struct instance *i, struct error **err)
{
    if (!(i->technology->driver->verbs & VERB_SNAPSHOT)) {
        error_set(err, ENOTSUP, "UNSUPPORTED_BY_TECHNOLOGY", "technology %s has no snapshot", i->technology->name);
        error_hint(err, "GET /v1/host lists the verbs of each technology");
        return -ENOTSUP;
    }
    if (i->operation)
        return error_set(err, EBUSY, "OPERATION_IN_PROGRESS", "\"%s\" is in operation %s", i->name,
                         operation_kind_name(i->operation->kind));
    if (i->state == STATE_STARTED || i->state == STATE_PAUSED)
        return 0;
    error_set(err, EBUSY, "CONFLICTING_STATE", "\"%s\" is %s: only a running instance has a memory to keep", i->name,
              instance_state_name(i->state));
    return -EBUSY;
}

static void end_making(struct snapshot *s, const struct error *err)
{
    struct core *core = s->core;
    char operation[INSTANCE_ID_SIZE];

    memcpy(operation, s->operation, sizeof(operation));
    s->operation[0] = '\0';
    if (err)
        snapshot_free(s);
    else
        core_event_add(core, "snapshot.added", NULL, s->instance_name, operation, NULL);
    core_operation_end(core, operation, err);
}

/* The row is on the disk, or will not be. */
static void on_row_written(void *context, const struct error *err)
{
    struct snapshot *s = context;

    if (err)
        remove_file(s->core, s->id);
    end_making(s, err);
}

static void on_written(void *context, enum message_type type, const void *message, int *fds, size_t fd_count,
                       const struct error *err)
{
    struct snapshot *s = context;
    auto_error struct error *why = NULL;

    if (err) {
        end_making(s, err);
        return;
    }
    s->ready = true;
    if (core_write(s->core, write_row, on_row_written, s, &why) < 0)
        on_row_written(s, why);
}

static struct snapshot *snapshot_new(struct core *core, const struct instance *i, const char *name)
{
    struct snapshot *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->core = core;
    core_new_id(core, s->id);
    snprintf(s->name, sizeof(s->name), "%s", name);
    snprintf(s->instance_name, sizeof(s->instance_name), "%s", i->name);
    s->technology = i->technology;
    s->image = strdup(i->image);
    s->image_digest = strdup(i->image_digest ? i->image_digest : "");
    s->spec_json = strdup(i->spec_json);
    s->created_ns = realtime_ns();
    s->next = core->snapshots;
    core->snapshots = s;
    if (s->image && s->image_digest && s->spec_json)
        return s;
    snapshot_free(s);
    return NULL;
}

int core_snapshot_create(struct core *core, struct instance *i, const json_t *body, const struct core_times *times,
                         struct operation **ret, struct error **err)
{
    struct message_snapshot m;
    char name[NAME_SIZE];
    struct operation *op;
    struct snapshot *s;
    int r = check(i, err);

    if (r == 0)
        r = choose_name(core, i, body, name, err);
    if (r < 0)
        return r;
    s = snapshot_new(core, i, name);
    op = s ? core_operation_begin(core, "CREATE_SNAPSHOT", times, err) : NULL;
    if (!op) {
        if (s)
            snapshot_free(s);
        return error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
    }
    memcpy(op->instance_id, i->id, sizeof(op->instance_id));
    memcpy(op->instance_name, i->name, sizeof(op->instance_name));
    memcpy(s->operation, op->id, sizeof(s->operation));
    memcpy(m.id, i->id, sizeof(m.id));
    memcpy(m.snapshot, s->id, sizeof(m.snapshot));
    *ret = op;
    /* From here on the operation tells how it went. */
    auto_error struct error *why = NULL;
    if (core_launcher_request(core, MESSAGE_SNAPSHOT, &m, NULL, 0, on_written, s, &why) < 0)
        end_making(s, why);
    return 0;
}

/* ---- remove */

static void on_row_deleted(void *context, const struct error *err)
{
    struct snapshot *s = context;

    if (err) {
        s->going = false;
        return;
    }
    core_event_add(s->core, "snapshot.removed", NULL, s->instance_name, NULL, NULL);
    remove_file(s->core, s->id);
    snapshot_free(s);
}

int core_snapshot_remove(struct core *core, struct snapshot *s, struct error **err)
{
    int r;

    if (!s->ready)
        return error_set(err, EBUSY, "CONFLICTING_STATE", "snapshot \"%s\" is being made", s->name);
    s->going = true;
    r = core_write(core, delete_row, on_row_deleted, s, err);
    if (r < 0)
        s->going = false;
    return r;
}

/* ---- restore */

/* Addresses the first instance asked for are not its twin's. */
static void drop_addresses(json_t *descriptor)
{
    json_t *network;
    size_t i;

    json_array_foreach(json_object_get(descriptor, "networks"), i, network)
    {
        json_object_del(network, "ipv4");
        json_object_del(network, "ipv6");
    }
    json_object_del(descriptor, "ports");
}

/* A reference that means something else by now, or nothing, gives way to the digest. */
static int settle_image(struct core *core, const struct snapshot *s, json_t *descriptor, struct error **err)
{
    struct image_view image;

    if (!*s->image_digest || !core->images)
        return 0;
    if (core->images->find(core->images_context, s->image, s->technology, &image, NULL) == 0 &&
        strcmp(image.digest, s->image_digest) == 0)
        return 0;
    return json_object_set_new(descriptor, "image", json_string(s->image_digest)) == 0
               ? 0
               : error_set(err, ENOMEM, "NO_MEMORY", "out of memory");
}

int core_snapshot_restore(struct core *core, struct snapshot *s, const json_t *json, const struct core_times *times,
                          struct instance **ret, struct operation **ret_op, struct error **err)
{
    json_t *descriptor = json_loads(s->spec_json, 0, NULL);
    struct body body = {""};
    int r = json ? json_read_object(json, "", body_fields, 1, &body, err) : 0;

    if (r == 0 && !s->ready)
        r = error_set(err, EBUSY, "CONFLICTING_STATE", "snapshot \"%s\" is being made", s->name);
    if (r == 0 && (!descriptor || !s->technology))
        r = error_set(err, EINVAL, "STORE_FAILED", "what snapshot \"%s\" was made of cannot be read", s->name);
    if (r == 0) {
        json_object_del(descriptor, "name");
        if (body.name[0])
            json_object_set_new(descriptor, "name", json_string(body.name));
        drop_addresses(descriptor);
        r = settle_image(core, s, descriptor, err);
    }
    if (r == 0)
        r = core_create_from(core, descriptor, s->id, times, ret, ret_op, err);
    json_decref(descriptor);
    return r;
}

/* ---- shown */

static void render_size(const struct snapshot *s, struct buffer *out)
{
    auto_free char *path = NULL;
    struct stat st;

    if (asprintf(&path, "%s/snapshots/%s", s->core->state_dir, s->id) < 0)
        path = NULL;
    if (s->ready && path && stat(path, &st) == 0)
        buffer_printf(out, ",\"size_bytes\":%llu", (unsigned long long)st.st_blocks * 512);
    else
        buffer_text(out, ",\"size_bytes\":null");
}

void core_render_snapshot(const struct snapshot *s, struct buffer *out)
{
    buffer_text(out, "{\"name\":");
    buffer_json(out, s->name);
    buffer_text(out, ",\"id\":");
    buffer_json(out, s->id);
    buffer_text(out, ",\"state\":");
    buffer_json(out, s->ready ? "READY" : "MAKING");
    buffer_text(out, ",\"instance_name\":");
    buffer_json(out, s->instance_name);
    buffer_text(out, ",\"technology\":");
    buffer_json(out, s->technology ? s->technology->name : NULL);
    buffer_text(out, ",\"image\":");
    buffer_json(out, s->image);
    buffer_text(out, ",\"image_digest\":");
    buffer_json(out, *s->image_digest ? s->image_digest : NULL);
    render_size(s, out);
    buffer_text(out, ",\"created_at\":");
    buffer_json_time(out, s->created_ns);
    buffer_char(out, '}');
}

void core_render_snapshots(struct core *core, struct buffer *out)
{
    bool any = false;

    buffer_text(out, "{\"items\":[");
    for (struct snapshot *s = core->snapshots; s; s = s->next) {
        if (s->going)
            continue;
        if (any)
            buffer_char(out, ',');
        core_render_snapshot(s, out);
        any = true;
    }
    buffer_text(out, "]}");
}
