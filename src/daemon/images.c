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
    struct gone gone[VARIANT_COUNT];
    struct record *records[VARIANT_COUNT]; /* owned where the whole image goes, else NULL */
    size_t count;
    char *name;     /* NULL: found by digest */
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
        if (images->list[i]->config.variant == record->config.variant)
            images_unname(images->list[i], name);
    names[count] = copy;
    names[count + 1] = NULL;
    return 0;
}

/* ---- finding ---- */

struct found {
    struct record *record; /* NULL: none of a wanted variant */
    const char *name;      /* NULL: found by digest */
    uint32_t others;       /* variants that would have been found, had they been wanted */
};

static unsigned int rank(const struct record *record, struct wanted wanted)
{
    bool preferred = wanted.prefers & 1u << record->config.variant;

    return (preferred ? 0 : VARIANT_COUNT) + record->config.variant;
}

static void offer(struct found *f, struct record *record, const char *name, struct wanted wanted)
{
    uint32_t bit = 1u << record->config.variant;

    if (!(wanted.variants & bit)) {
        f->others |= bit;
    } else if (!f->record || rank(record, wanted) < rank(f->record, wanted)) {
        f->record = record;
        f->name = name;
    }
}

static void find_name(struct images *images, const char *name, struct wanted wanted, struct found *f)
{
    for (size_t i = 0; i < images->count; i++)
        for (char **n = images->list[i]->names; *n; n++)
            if (strcmp(*n, name) == 0)
                offer(f, images->list[i], *n, wanted);
}

/* "nginx" also finds what docker and podman would have meant, and stored under the full name. */
static void find_short(struct images *images, const char *name, struct wanted wanted, struct found *f)
{
    static const char *const prefixes[] = {"", "docker.io/library/", "docker.io/", "localhost/"};
    char full[IMAGE_REF_SIZE + 32];

    for (size_t i = 0; !f->record && i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        snprintf(full, sizeof(full), "%s%s", prefixes[i], name);
        find_name(images, full, wanted, f);
    }
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

static void list_variants(uint32_t bits, const char *between, char *ret, size_t size)
{
    size_t used = 0;

    *ret = '\0';
    for (int v = 0; v < VARIANT_COUNT; v++)
        if (bits & 1u << v)
            used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? between : "",
                                     variant_name((enum image_variant)v));
}

/* The name is known, but as something this technology (or request) cannot use. */
static int wrong_guest(const char *ref, struct wanted wanted, uint32_t others, struct error **err)
{
    char there[64], needed[64];

    list_variants(others, " and ", there, sizeof(there));
    list_variants(wanted.variants, " or ", needed, sizeof(needed));
    if (!wanted.technology) {
        error_set(err, ENOENT, "IMAGE_WRONG_GUEST", "image \"%.255s\" is here for guest %s, not for %s", ref, there,
                  needed);
        error_hint(err,
                   "coracle build makes the missing one (coracle build --help); coracle images lists what is here");
        return -ENOENT;
    }
    error_set(err, ENOENT, "IMAGE_WRONG_GUEST",
              "image \"%.255s\" is here for guest %s only; technology %s needs one for %s", ref, there,
              wanted.technology, needed);
    error_hint(err,
               "make it from the same sources (coracle build APP --for %s -o FILE) or get it, then: coracle image "
               "import FILE %.255s; coracle images lists the variants of each name",
               wanted.technology, ref);
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
    *ret = found;
    return 0;
}

/* "name@sha256:HEX": the digest decides; the name counts when the image has it. */
static void find_pinned(struct images *images, const struct image_reference *pinned, struct wanted wanted,
                        struct found *f)
{
    struct record *record = images_find_digest(images, pinned->digest);
    struct found by_name = {0};

    if (!record)
        return;
    find_short(images, pinned->name, (struct wanted){.variants = 1u << record->config.variant}, &by_name);
    offer(f, record, by_name.record == record ? by_name.name : NULL, wanted);
}

int images_find(struct images *images, const char *ref, struct wanted wanted, struct record **ret,
                const char **ret_name, struct error **err)
{
    const char *digits = image_digest_prefix(ref);
    struct image_reference parsed;
    struct record *record = NULL;
    struct found f = {0};
    int r = 0;

    find_name(images, ref, wanted, &f); /* as pulled, with its digest */
    if (!f.record && image_reference_parse(ref, &parsed, NULL) == 0) {
        if (parsed.digest[0])
            find_pinned(images, &parsed, wanted, &f);
        else
            find_short(images, parsed.name, wanted, &f);
    }
    if (!f.record && digits)
        r = find_prefix(images, ref, digits, &record, err);
    if (r < 0)
        return r;
    if (record)
        offer(&f, record, NULL, wanted);
    if (!f.record)
        return f.others ? wrong_guest(ref, wanted, f.others, err) : not_found(images, ref, err);
    *ret = f.record;
    *ret_name = f.name;
    return 0;
}

static int ops_find(void *context, const char *reference, const struct technology *technology, struct image_view *ret,
                    struct error **err)
{
    struct wanted wanted = {variants_of(technology->guest_kind), technology->prefers, technology->name};
    struct record *record;
    const char *name;
    int r = images_find(context, reference, wanted, &record, &name, err);

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

void images_render_list(struct images *images, uint32_t variants, struct buffer *out)
{
    bool first = true;

    buffer_text(out, "{\"items\":[");
    for (size_t i = images->count; i-- > 0;) {
        const struct record *record = images->list[i];

        if (!(variants & 1u << record->config.variant))
            continue;
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

int images_render_as(struct images *images, const char *digest, const char *name, struct buffer *out,
                     struct error **err)
{
    const struct record *record = images_find_digest(images, digest);

    if (!record)
        return error_set(err, ENOENT, "IMAGE_NOT_FOUND", "image %s was removed meanwhile", digest);
    record_render(record, name, out);
    return 0;
}

int images_render(struct images *images, const char *ref, uint32_t variants, struct buffer *out, struct error **err)
{
    struct record *record;
    const char *name;
    int r = images_find(images, ref, (struct wanted){.variants = variants}, &record, &name, err);

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
    for (size_t i = 0; i < x->count; i++)
        record_free(x->records[i]);
    free(x->name);
    free(x);
}

static void put_back(struct removal *x)
{
    for (size_t i = 0; i < x->count; i++) {
        struct record *named = x->records[i] ? NULL : images_find_digest(x->images, x->gone[i].digest);

        if (x->records[i])
            images_insert(x->images, take_ptr(x->records[i]), NULL);
        else if (named && x->name)
            images_name(x->images, named, x->name, NULL);
    }
}

static void one_removed(struct removal *x, size_t i)
{
    const struct record *record = x->records[i];
    auto_buffer struct buffer detail = {0};

    for (size_t j = 0; record && j < record->config.layer_count; j++)
        jobs_add(x->images, JOB_REMOVE_LAYER, NULL, record->config.layers[j]);
    buffer_text(&detail, "{\"reference\":");
    buffer_json(&detail, x->name ? x->name : x->gone[i].digest);
    buffer_printf(&detail, ",\"digest\":\"%s\",\"guest\":\"%s\"}", x->gone[i].digest, variant_name(x->gone[i].variant));
    core_event_add(x->images->core, "image.removed", NULL, NULL, NULL, detail.data);
}

static void removal_committed(void *context, const struct error *err)
{
    struct removal *x = context;

    if (!x->images) { /* the store was closed; the orphan search of the next start removes the layers */
        removal_free(x);
        return;
    }
    if (err)
        put_back(x);
    for (size_t i = 0; !err && i < x->count; i++)
        one_removed(x, i);
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

/* Every image that goes: the one found by its digest, or all wanted variants of the name. */
static size_t choose_gone(struct images *images, struct record *found, const char *name, uint32_t variants,
                          struct record *ret[VARIANT_COUNT])
{
    size_t n = 0;

    if (!name) {
        ret[n++] = found;
        return n;
    }
    for (size_t i = 0; i < images->count && n < VARIANT_COUNT; i++)
        if (has_name(images->list[i], name) && variants & 1u << images->list[i]->config.variant)
            ret[n++] = images->list[i];
    return n;
}

static int removal_fill(struct removal *x, struct record *const *records, size_t count, struct error **err)
{
    for (size_t i = 0; i < count; i++) {
        struct gone *gone = &x->gone[x->count++];
        int r;

        memcpy(gone->digest, records[i]->digest, sizeof(gone->digest));
        gone->variant = records[i]->config.variant;
        gone->whole = !x->name || strv_count(records[i]->names) < 2;
        if (gone->whole && (r = check_unused(x->images, records[i], err)) < 0)
            return r;
    }
    return 0;
}

/* The records are taken out when the database has the order to forget them; put_back() when it fails. */
static void take_out(struct removal *x, struct record *const *records)
{
    x->next = x->images->removals;
    x->images->removals = x;
    for (size_t i = 0; i < x->count; i++) {
        if (x->gone[i].whole) {
            images_take_out(x->images, records[i]);
            x->records[i] = records[i];
        } else {
            images_unname(records[i], x->name);
        }
    }
}

int images_remove(struct images *images, const char *ref, uint32_t variants, core_done done, void *context,
                  struct error **err)
{
    struct record *record, *records[VARIANT_COUNT];
    struct removal *x;
    const char *name;
    int r = images_find(images, ref, (struct wanted){.variants = variants}, &record, &name, err);

    if (r < 0)
        return r;
    x = calloc(1, sizeof(*x));
    if (!x || (name && !(x->name = strdup(name)))) {
        free(x);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to remove an image");
    }
    x->images = images;
    x->done = done;
    x->context = context;
    r = removal_fill(x, records, choose_gone(images, record, name, variants, records), err);
    if (r == 0)
        r = images_table_remove(images, x->gone, x->count, x->name, removal_committed, x, err);
    if (r < 0) {
        free(x->name);
        free(x);
        return r;
    }
    take_out(x, records);
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
