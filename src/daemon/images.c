/* SPDX-License-Identifier: Apache-2.0 */
/* The records of the image store: finding, listing, naming, removing. See images.h and images_internal.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/strv.h"
#include "base/suggest.h"
#include "daemon/images_internal.h"

struct removal {
    struct removal *next;
    struct images *images;
    struct record *record; /* owned when the whole image goes, else borrowed by digest below */
    char digest[IMAGE_DIGEST_TEXT_SIZE];
    char *name;     /* NULL: the whole image */
    core_done done; /* NULL: forgotten */
    void *context;
};

/* ---- the list ---- */

struct record *images_find_digest(struct images *images, const char *digest)
{
    for (size_t i = 0; i < images->count; i++)
        if (strcmp(images->list[i]->digest, digest) == 0)
            return images->list[i];
    return NULL;
}

int images_insert(struct images *images, struct record *owned, struct error **err)
{
    if (images->count == images->room) {
        size_t room = images->room ? images->room * 2 : 16;
        struct record **list = reallocarray(images->list, room, sizeof(*list));

        if (!list) {
            record_free(owned);
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for an image record");
        }
        images->list = list;
        images->room = room;
    }
    images->list[images->count++] = owned;
    return 0;
}

void images_take_out(struct images *images, struct record *record)
{
    size_t i = 0;

    while (i < images->count && images->list[i] != record)
        i++;
    if (i == images->count)
        return;
    memmove(&images->list[i], &images->list[i + 1], (images->count - i - 1) * sizeof(*images->list));
    images->count--;
}

bool images_layer_used(const struct images *images, const char *layer)
{
    for (size_t i = 0; i < images->count; i++)
        for (size_t j = 0; j < images->list[i]->config.layer_count; j++)
            if (strcmp(images->list[i]->config.layers[j], layer) == 0)
                return true;
    return false;
}

static bool has_name(const struct record *record, const char *name)
{
    for (char **n = record->names; *n; n++)
        if (strcmp(*n, name) == 0)
            return true;
    return false;
}

void images_unname(struct record *record, const char *name)
{
    char **n = record->names;

    while (*n && strcmp(*n, name) != 0)
        n++;
    if (!*n)
        return;
    free(*n);
    for (; *n; n++)
        n[0] = n[1];
}

int images_name(struct images *images, struct record *record, const char *name, struct error **err)
{
    size_t count = strv_count(record->names);
    char **names, *copy;

    if (has_name(record, name))
        return 0;
    names = reallocarray(record->names, count + 2, sizeof(*names));
    if (names)
        record->names = names;
    copy = names ? strdup(name) : NULL;
    if (!copy)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the name of an image");
    for (size_t i = 0; i < images->count; i++)
        images_unname(images->list[i], name);
    names[count] = copy;
    names[count + 1] = NULL;
    return 0;
}

/* ---- finding ---- */

static struct record *find_name(struct images *images, const char *name, const char **ret_name)
{
    for (size_t i = 0; i < images->count; i++)
        for (char **n = images->list[i]->names; *n; n++)
            if (strcmp(*n, name) == 0) {
                *ret_name = *n;
                return images->list[i];
            }
    return NULL;
}

/* "nginx" also finds what docker and podman would have meant, and stored under the full name. */
static struct record *find_short(struct images *images, const char *name, const char **ret_name)
{
    static const char *const prefixes[] = {"", "docker.io/library/", "docker.io/", "localhost/"};
    char full[IMAGE_REF_SIZE + 32];
    struct record *found = NULL;

    for (size_t i = 0; !found && i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        snprintf(full, sizeof(full), "%s%s", prefixes[i], name);
        found = find_name(images, full, ret_name);
    }
    return found;
}

static int not_found(struct images *images, const char *ref, struct error **err)
{
    const char *best = NULL;

    error_set(err, ENOENT, "IMAGE_NOT_FOUND", "no image \"%.255s\"", ref);
    for (size_t i = 0; i < images->count; i++)
        for (char **n = images->list[i]->names; *n; n++)
            suggest_offer(ref, *n, &best);
    if (best)
        error_hint(err, "did you mean %s?", best);
    else
        error_hint(err,
                   "import one (coracle image import FILE) or pull it (coracle pull NAME); coracle images lists them");
    return -ENOENT;
}

static int find_prefix(struct images *images, const char *ref, const char *digits, struct record **ret,
                       struct error **err)
{
    struct record *found = NULL;

    for (size_t i = 0; i < images->count; i++) {
        if (strncmp(images->list[i]->digest + 7, digits, strlen(digits)) != 0)
            continue;
        if (found) {
            error_set(err, EEXIST, "AMBIGUOUS_NAME", "\"%.255s\" is the beginning of more than one image's digest",
                      ref);
            error_hint(err, "give more digits");
            return -EEXIST;
        }
        found = images->list[i];
    }
    if (!found)
        return not_found(images, ref, err);
    *ret = found;
    return 0;
}

int images_find(struct images *images, const char *ref, struct record **ret, const char **ret_name, struct error **err)
{
    const char *digits = image_digest_prefix(ref), *name = NULL;
    struct record *found = find_name(images, ref, &name); /* as pulled, with its digest */
    struct image_reference parsed;

    if (!found && image_reference_parse(ref, &parsed, NULL) == 0) {
        found = find_short(images, parsed.name, &name);
        if (parsed.digest[0] && (!found || strcmp(found->digest, parsed.digest) != 0)) {
            found = images_find_digest(images, parsed.digest);
            name = NULL;
        }
    }
    if (!found && digits)
        return *ret_name = NULL, find_prefix(images, ref, digits, ret, err);
    if (!found)
        return not_found(images, ref, err);
    *ret = found;
    *ret_name = name;
    return 0;
}

static int ops_find(void *context, const char *reference, struct image_view *ret, struct error **err)
{
    struct record *record;
    const char *name;
    int r = images_find(context, reference, &record, &name, err);

    if (r < 0)
        return r;
    *ret = (struct image_view){.reference = name               ? name
                                            : record->names[0] ? record->names[0]
                                                               : record->digest,
                               .digest = record->digest,
                               .config = &record->config};
    return 0;
}

/* ---- showing ---- */

void images_render_list(struct images *images, struct buffer *out)
{
    bool first = true;

    buffer_text(out, "{\"items\":[");
    for (size_t i = images->count; i-- > 0;) {
        const struct record *record = images->list[i];

        for (char **n = record->names; *n || n == record->names; n++) {
            if (!first)
                buffer_char(out, ',');
            first = false;
            record_render(record, *n, out);
            if (!*n)
                break;
        }
    }
    buffer_text(out, "]}");
}

int images_render(struct images *images, const char *ref, struct buffer *out, struct error **err)
{
    struct record *record;
    const char *name;
    int r = images_find(images, ref, &record, &name, err);

    if (r == 0)
        record_render(record, name, out);
    return r;
}

/* ---- removing ---- */

static void removal_free(struct removal *x)
{
    struct removal **link = x->images ? &x->images->removals : NULL;

    while (link && *link && *link != x)
        link = &(*link)->next;
    if (link && *link)
        *link = x->next;
    record_free(x->record);
    free(x->name);
    free(x);
}

static void put_back(struct removal *x)
{
    struct record *record = x->record ? x->record : images_find_digest(x->images, x->digest);

    if (x->record)
        images_insert(x->images, take_ptr(x->record), NULL);
    else if (record && x->name)
        images_name(x->images, record, x->name, NULL);
}

static void removal_committed(void *context, const struct error *err)
{
    struct removal *x = context;
    auto_buffer struct buffer detail = {0};

    if (!x->images) { /* the store was closed; the orphan search of the next start removes the layers */
        removal_free(x);
        return;
    }
    if (err) {
        put_back(x);
    } else {
        for (size_t i = 0; x->record && i < x->record->config.layer_count; i++)
            jobs_add(x->images, JOB_REMOVE_LAYER, NULL, x->record->config.layers[i]);
        buffer_text(&detail, "{\"reference\":");
        buffer_json(&detail, x->name ? x->name : x->digest);
        buffer_printf(&detail, ",\"digest\":\"%s\"}", x->digest);
        core_event_add(x->images->core, "image.removed", NULL, NULL, NULL, detail.data);
    }
    if (x->done)
        x->done(x->context, err);
    removal_free(x);
}

static int check_unused(struct images *images, const struct record *record, struct error **err)
{
    const char *user = NULL;
    size_t users = core_image_users(images->core, record->digest, &user);

    if (users == 0)
        return 0;
    error_set(err, EBUSY, "IMAGE_IN_USE", "image %s is used by %zu instance%s, among them \"%s\"",
              record->names[0] ? record->names[0] : record->digest, users, users > 1 ? "s" : "", user ? user : "");
    error_hint(err, "remove the instances first: coracle ps --filter image=%s",
               record->names[0] ? record->names[0] : record->digest);
    return -EBUSY;
}

int images_remove(struct images *images, const char *ref, core_done done, void *context, struct error **err)
{
    struct removal *x;
    struct record *record;
    const char *name;
    bool whole;
    int r = images_find(images, ref, &record, &name, err);

    if (r < 0)
        return r;
    whole = !name || strv_count(record->names) < 2;
    if (whole && (r = check_unused(images, record, err)) < 0)
        return r;
    x = calloc(1, sizeof(*x));
    if (!x || (name && !(x->name = strdup(name)))) {
        free(x);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to remove an image");
    }
    x->images = images;
    x->done = done;
    x->context = context;
    memcpy(x->digest, record->digest, sizeof(x->digest));
    r = images_table_remove(images, record->digest, whole ? NULL : name, removal_committed, x, err);
    if (r < 0) {
        free(x->name);
        free(x);
        return r;
    }
    x->next = images->removals;
    images->removals = x;
    if (whole) {
        images_take_out(images, record);
        x->record = record;
    } else {
        images_unname(record, x->name);
    }
    return 0;
}

void images_forget(struct images *images, void *context)
{
    for (struct removal *x = images->removals; x; x = x->next)
        if (x->context == context)
            x->done = NULL;
    import_forget(images, context);
}

/* ---- opening ---- */

static void empty_directory(int parent, const char *name, unsigned int depth)
{
    auto_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    auto_dir DIR *dir = fd >= 0 ? fdopendir(dup(fd)) : NULL;
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(fd, e->d_name, 0) == 0)
            continue;
        if (depth < 16)
            empty_directory(fd, e->d_name, depth + 1);
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
}

static int open_spool(struct images *images, struct error **err)
{
    const char *state = core_get_options(images->core)->state_dir;

    if (asprintf(&images->spool, "%s/spool", state) < 0)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to open the image store");
    if (mkdir(images->spool, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "STORE_FAILED", "cannot make %s", images->spool);
    empty_directory(AT_FDCWD, images->spool, 0);
    return 0;
}

int images_open(struct core *core, struct images **ret, struct error **err)
{
    static const struct image_ops ops = {.find = ops_find};
    struct images *images = calloc(1, sizeof(*images));
    int r;

    if (!images)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to open the image store");
    images->core = core;
    images->jobs_end = &images->jobs;
    r = open_spool(images, err);
    if (r == 0)
        r = images_table_open(images, err);
    if (r == 0)
        r = jobs_open(images, err);
    if (r < 0) {
        images_close(images);
        return r;
    }
    core_set_images(core, &ops, images);
    jobs_find_orphans(images);
    *ret = images;
    return 0;
}

void images_close(struct images *images)
{
    if (!images)
        return;
    for (struct removal *x = images->removals, *next; x; x = next) {
        next = x->next;
        x->images = NULL;
        x->next = NULL;
    }
    core_set_images(images->core, NULL, NULL);
    pulls_close(images);
    imports_close(images);
    jobs_close(images);
    for (size_t i = 0; i < images->count; i++)
        record_free(images->list[i]);
    free(images->list);
    free(images->spool);
    free(images);
}
