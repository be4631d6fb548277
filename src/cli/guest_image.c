/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs a machine's image. The layer goes by twice: once into a hash, because an OCI archive names a blob by its digest
 * before the bytes come, and once into the archive. A file that changes in between is refused by the daemon, which
 * checks the digest. The layer is not compressed: it travels over a local socket, and disks are large.
 */
#include <stddef.h>

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest_file.h"
#include "cli/guest_image.h"
#include "cli/text.h"
#include "image/digest.h"
#include "model/units.h"

#define OCI_TYPE "application/vnd.oci.image."

enum { PART_MAX = 3 };

struct part {
    const char *source; /* borrowed */
    const char *path;   /* in the layer, static */
    int fd;
    int64_t size;
};

struct guest_image {
    struct part parts[PART_MAX];
    size_t count;
    json_t *config; /* the "config" object of the configuration */
    const char *name;
};

/* ---- what it is ---- */

static int add_part(struct guest_image *g, const char *source, const char *path, struct error **err)
{
    auto_fd int fd = open(source, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "INVALID_VALUE", "%s cannot be read", source);
    if (!S_ISREG(st.st_mode)) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s is no plain file", source);
        error_hint(err, "--guest takes a kernel or a disk as a file; an image archive or layout is imported without it");
        return -EINVAL;
    }
    g->parts[g->count++] = (struct part){source, path, take_fd(&fd), st.st_size};
    return 0;
}

static const char *disk_path(int fd)
{
    return guest_file_kind(fd) == FILE_QCOW2 ? "boot/disk.qcow2" : "boot/disk.raw";
}

static int choose_boot(const struct guest_source *s, enum guest_file kind, enum image_variant variant,
                       const char **ret, struct error **err)
{
    const char *boot = s->boot ? boot_find(variant, s->boot) : guest_file_boot(kind, variant);

    if (kind == FILE_ARCHIVE) {
        error_set(err, EINVAL, "INVALID_VALUE", "%s is an archive, not a kernel or a disk", s->file);
        error_hint(err, "an image archive says itself what it is: import it without --guest");
        return -EINVAL;
    }
    if (s->boot && !boot) {
        error_set(err, EINVAL, "INVALID_VALUE", "--boot %s does not go with --guest %s", s->boot, s->guest);
        error_hint(err, "unikernel: unikernel pvh linux multiboot disk; linux: linux pvh; disk: disk");
        return -EINVAL;
    }
    if (!boot) {
        error_set(err, EINVAL, "INVALID_VALUE", "it cannot be seen from %s how it boots as a guest of kind %s", s->file,
                  s->guest);
        error_hint(err, "it has no PVH note, multiboot header, Linux setup header or boot sector; say it with --boot");
        return -EINVAL;
    }
    *ret = boot;
    return 0;
}

/* "/app" is one word; "[...]" a JSON array. */
static int parse_entrypoint(const char *text, json_t **ret, struct error **err)
{
    json_t *list = *text == '[' ? json_loads(text, 0, NULL) : json_pack("[s]", text);

    if (!list) {
        error_set(err, EINVAL, "INVALID_VALUE", "--entrypoint: \"%s\" is no JSON array of words", text);
        error_hint(err, "write --entrypoint '[\"/app\",\"-s\"]'");
        return -EINVAL;
    }
    *ret = list;
    return 0;
}

static int fill_labels(const struct guest_source *s, const char *boot, json_t *labels, struct error **err)
{
    uint64_t memory;
    int r;

    json_object_set_new(labels, "org.coracle.guest", json_string(s->guest));
    json_object_set_new(labels, "org.coracle.boot", json_string(boot));
    if (s->parameters)
        json_object_set_new(labels, "org.coracle.parameters", json_string(s->parameters));
    if (!s->memory)
        return 0;
    r = units_size(s->memory, "--memory", &memory, err);
    if (r == 0) {
        auto_free char *text = text_printf("%llu", (unsigned long long)memory);

        json_object_set_new(labels, "org.coracle.memory", json_string(text));
    }
    return r;
}

static int fill(struct guest_image *g, const struct guest_source *s, struct error **err)
{
    enum image_variant variant;
    json_t *entrypoint = NULL, *labels = json_object();
    const char *boot = NULL;
    int r = 0;

    g->name = s->name;
    g->config = json_pack("{s:o}", "Labels", labels);
    if (variant_parse(s->guest, &variant) < 0 || variant == VARIANT_PROCESS) {
        error_set(err, EINVAL, "INVALID_VALUE", "--guest: \"%s\" is no kind of machine", s->guest);
        error_hint(err, "write unikernel, linux or disk; a container's image is imported without --guest");
        return -EINVAL;
    }
    r = add_part(g, s->file, "boot/kernel", err);
    if (r == 0)
        r = choose_boot(s, guest_file_kind(g->parts[0].fd), variant, &boot, err);
    if (r == 0 && strcmp(boot, "disk") == 0)
        g->parts[0].path = disk_path(g->parts[0].fd);
    if (r == 0 && s->initrd)
        r = add_part(g, s->initrd, "boot/initrd", err);
    if (r == 0 && s->disk)
        r = add_part(g, s->disk, "boot/disk.raw", err);
    if (r == 0 && s->disk)
        g->parts[g->count - 1].path = disk_path(g->parts[g->count - 1].fd);
    if (r == 0)
        r = fill_labels(s, boot, labels, err);
    if (r == 0 && s->entrypoint)
        r = parse_entrypoint(s->entrypoint, &entrypoint, err);
    if (entrypoint)
        json_object_set_new(g->config, "Entrypoint", entrypoint);
    return r;
}

int guest_image_open(const struct guest_source *s, struct guest_image **ret, struct error **err)
{
    struct guest_image *g = text_alloc(1, sizeof(*g));
    int r = fill(g, s, err);

    if (r < 0)
        guest_image_free(g);
    else
        *ret = g;
    return r;
}

void guest_image_free(struct guest_image *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->count; i++)
        close_fd(g->parts[i].fd);
    json_decref(g->config);
    free(g);
}

/* ---- the layer ---- */

static int write_header(struct archive *out, const char *path, mode_t type, mode_t mode, int64_t size)
{
    struct archive_entry *e = archive_entry_new();
    int r;

    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, type);
    archive_entry_set_perm(e, mode);
    archive_entry_set_size(e, size);
    archive_entry_set_mtime(e, 0, 0);
    r = archive_write_header(out, e) < ARCHIVE_WARN ? -EPIPE : 0;
    archive_entry_free(e);
    return r;
}

static int write_part(struct archive *out, const struct part *p, struct error **err)
{
    static char buf[65536]; /* one writer at a time */
    int r = write_header(out, p->path, AE_IFREG, 0644, p->size);

    for (int64_t at = 0; r == 0 && at < p->size;) {
        int64_t left = p->size - at;
        ssize_t n = pread(p->fd, buf, left < (int64_t)sizeof(buf) ? (size_t)left : sizeof(buf), at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            r = error_set(err, EIO, "INVALID_VALUE", "%s became shorter while it was being read", p->source);
        else if (archive_write_data(out, buf, (size_t)n) < 0)
            r = -EPIPE;
        at += n;
    }
    return r;
}

struct layer_sink {
    struct digest *digest; /* first pass */
    struct archive *out;   /* second pass */
    int64_t size;
};

static la_ssize_t take_layer(struct archive *a, void *context, const void *bytes, size_t size)
{
    struct layer_sink *sink = context;

    (void)a;
    sink->size += (int64_t)size;
    digest_update(sink->digest, bytes, size);
    return sink->out && archive_write_data(sink->out, bytes, size) < 0 ? -1 : (la_ssize_t)size;
}

/* The same bytes each time it is called, as long as the files are the same. */
static int write_layer(const struct guest_image *g, struct layer_sink *sink, struct error **err)
{
    struct archive *a = archive_write_new();
    int r;

    archive_write_set_format_pax_restricted(a);
    archive_write_set_bytes_in_last_block(a, 1);
    r = archive_write_open(a, sink, NULL, take_layer, NULL) == ARCHIVE_OK ? 0 : -EPIPE;
    if (r == 0)
        r = write_header(a, "boot", AE_IFDIR, 0755, 0);
    for (size_t i = 0; r == 0 && i < g->count; i++)
        r = write_part(a, &g->parts[i], err);
    if (r == 0 && archive_write_close(a) != ARCHIVE_OK)
        r = -EPIPE;
    archive_write_free(a);
    return r;
}

/* ---- the archive ---- */

static const char *machine(void)
{
    static struct utsname u;

    uname(&u);
    return strcmp(u.machine, "x86_64") == 0 ? "amd64" : strcmp(u.machine, "aarch64") == 0 ? "arm64" : u.machine;
}

static json_t *configuration(const struct guest_image *g, const char *diff_id)
{
    auto_free char *id = text_printf("sha256:%s", diff_id);

    return json_pack("{s:s, s:s, s:s, s:O, s:{s:s, s:[s]}}", "created", "1970-01-01T00:00:00Z", "architecture",
                     machine(), "os", "linux", "config", g->config, "rootfs", "type", "layers", "diff_ids", id);
}

json_t *guest_image_configuration(const struct guest_image *g)
{
    json_t *j = configuration(g, "");

    json_object_del(j, "rootfs");
    return j;
}

/* Writes a document as a blob (or under name) and gives its descriptor. */
static int write_document(struct archive *out, const json_t *document, const char *name, const char *type,
                          json_t **ret, struct error **err)
{
    auto_free char *text = json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS);
    char hex[IMAGE_DIGEST_SIZE];
    int64_t size = (int64_t)strlen(text);
    int r = digest_of(text, (size_t)size, hex, err);
    auto_free char *blob = text_printf("blobs/sha256/%s", hex), *id = text_printf("sha256:%s", hex);

    if (r == 0)
        r = write_header(out, name ? name : blob, AE_IFREG, 0644, size);
    if (r == 0 && archive_write_data(out, text, (size_t)size) < 0)
        r = -EPIPE;
    if (r == 0 && ret)
        *ret = json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", id, "size", (json_int_t)size);
    return r;
}

static int write_documents(const struct guest_image *g, struct archive *out, const char *layer, int64_t size,
                           struct error **err)
{
    json_t *layout = json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), *config = configuration(g, layer);
    json_t *config_at = NULL, *manifest = NULL, *manifest_at = NULL, *index = NULL;
    auto_free char *id = text_printf("sha256:%s", layer);
    int r = write_document(out, layout, "oci-layout", "", NULL, err);

    if (r == 0)
        r = write_document(out, config, NULL, OCI_TYPE "config.v1+json", &config_at, err);
    if (r == 0) {
        manifest = json_pack("{s:i, s:s, s:o, s:[{s:s, s:s, s:I}]}", "schemaVersion", 2, "mediaType",
                             OCI_TYPE "manifest.v1+json", "config", config_at, "layers", "mediaType",
                             OCI_TYPE "layer.v1.tar", "digest", id, "size", (json_int_t)size);
        r = write_document(out, manifest, NULL, OCI_TYPE "manifest.v1+json", &manifest_at, err);
    }
    if (r == 0) {
        json_object_set_new(manifest_at, "annotations",
                            json_pack("{s:s}", "org.opencontainers.image.ref.name", g->name ? g->name : ""));
        index = json_pack("{s:i, s:[o]}", "schemaVersion", 2, "manifests", manifest_at);
        r = write_document(out, index, "index.json", "", NULL, err);
    }
    json_decref(layout);
    json_decref(config);
    json_decref(manifest);
    json_decref(index);
    return r;
}

static int write_image(void *context, struct archive *out, struct error **err)
{
    const struct guest_image *g = context;
    struct layer_sink hash = {0}, copy = {.out = out};
    auto_free char *blob = NULL;
    char hex[IMAGE_DIGEST_SIZE];
    int r = digest_prepare(err);

    if (r == 0)
        r = digest_new(&hash.digest, err);
    if (r == 0)
        r = write_layer(g, &hash, err);
    if (r == 0)
        digest_hex(hash.digest, hex);
    digest_free(hash.digest);
    if (r == 0)
        r = write_documents(g, out, hex, hash.size, err);
    if (r < 0)
        return r;
    blob = text_printf("blobs/sha256/%s", hex);
    r = write_header(out, blob, AE_IFREG, 0644, hash.size);
    return r < 0 ? r : write_layer(g, &copy, err);
}

static void release(void *context)
{
    guest_image_free(context);
}

int guest_image_stream(struct guest_image *g, struct tar_stream **ret, int *ret_fd, struct error **err)
{
    return tar_stream_start(write_image, release, g, ret, ret_fd, err);
}
