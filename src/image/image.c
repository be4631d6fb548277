/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds out what an archive is and reads its layers in order. See image.h; each kind of archive has one function here:
 * read_oci(), read_docker(), read_rootfs(). A compressed OCI or docker archive is first written, decompressed and
 * bounded, to a scratch file of the sink, because its blobs are read in another order than they come.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/cleanup.h"
#include "image/documents.h"
#include "image/layer.h"
#include "image/members.h"

enum { DOCUMENT_MAX = 256, INDEX_DEPTH_MAX = 4 };

struct import {
    struct image_budget budget;
    const struct image_sink_ops *ops;
    void *sink;
    struct members members;
    struct image image;
    char machine[32];             /* GOARCH's name for this machine */
    struct descriptor found;      /* the manifest of this machine, digest "" until one is found */
    char others[IMAGE_TEXT_SIZE]; /* platforms that were passed over */
};

const char *image_format_name(enum image_format format)
{
    static const char *const names[] = {[IMAGE_OCI] = "oci", [IMAGE_DOCKER] = "docker", [IMAGE_ROOTFS] = "rootfs"};

    return names[format];
}

void image_clear(struct image *image)
{
    image_run_clear(&image->run);
}

/* The names of the OCI specification are Go's; the kernel has its own. */
static void set_machine(char *ret, size_t size)
{
    static const char *const names[][2] = {{"x86_64", "amd64"},   {"aarch64", "arm64"},   {"armv7l", "arm"},
                                           {"i686", "386"},       {"ppc64le", "ppc64le"}, {"s390x", "s390x"},
                                           {"riscv64", "riscv64"}};
    struct utsname u;

    uname(&u);
    snprintf(ret, size, "%.31s", u.machine);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(u.machine, names[i][0]) == 0)
            snprintf(ret, size, "%s", names[i][1]);
}

static int malformed(struct error **err, const char *why)
{
    error_set(err, EINVAL, "IMAGE_MALFORMED", "%s", why);
    error_hint(err, "export the image again: skopeo copy ... oci-archive:FILE, or docker save NAME > FILE");
    return -EINVAL;
}

static int wrong_architecture(const struct import *in, struct error **err)
{
    char shown[IMAGE_PRINTABLE_SIZE];

    error_set(err, EINVAL, "IMAGE_WRONG_ARCHITECTURE", "the image is for %s, this machine is linux/%s",
              image_printable(in->others, shown), in->machine);
    error_hint(err, "get the image for linux/%s (docker pull --platform, skopeo copy --override-arch)", in->machine);
    return -EINVAL;
}

static bool is_this_machine(const struct import *in, const char *os, const char *architecture)
{
    return (!*os || strcmp(os, "linux") == 0) && (!*architecture || strcmp(architecture, in->machine) == 0);
}

static void note_other(struct import *in, const char *os, const char *architecture)
{
    size_t used = strlen(in->others);

    snprintf(in->others + used, sizeof(in->others) - used, "%s%s/%s", used ? ", " : "", *os ? os : "linux",
             architecture);
}

/* ---- layers ---- */

static int mismatch(struct error **err, const char *what, const char *expected, const char *found)
{
    error_set(err, EBADMSG, "IMAGE_DIGEST_MISMATCH", "%s: sha256:%.12s... was promised, the content is sha256:%.12s...",
              what, expected, found);
    error_hint(err, "the archive was damaged or tampered with on its way; fetch it again");
    return -EBADMSG;
}

static bool have_layer(const struct image *image, const char *diff_id)
{
    for (size_t i = 0; i < image->layer_count; i++)
        if (strcmp(image->layers[i], diff_id) == 0)
            return true;
    return false;
}

/* A layer that comes again higher up counts there: it hides and shows the same as both together would. */
static int add_layer(struct image *image, const char *diff_id, struct error **err)
{
    size_t at = 0;

    while (at < image->layer_count && strcmp(image->layers[at], diff_id) != 0)
        at++;
    if (at < image->layer_count) {
        memmove(image->layers[at], image->layers[at + 1], (image->layer_count - at - 1) * sizeof(image->layers[0]));
        image->layer_count--;
    }
    if (image->layer_count == IMAGE_LAYER_MAX) {
        error_set(err, E2BIG, "IMAGE_TOO_LARGE", "the image has more than %d layers", IMAGE_LAYER_MAX);
        error_hint(err, "squash it: docker build --squash, or export a container's root file system");
        return -E2BIG;
    }
    memcpy(image->layers[image->layer_count++], diff_id, IMAGE_DIGEST_SIZE);
    return 0;
}

/* Reads one layer from blob (compressed or not, its tap set when its digest matters). expected: diff id or NULL. */
static int import_layer(struct import *in, struct stream *blob, const char *expected, struct error **err)
{
    bool again = expected && have_layer(&in->image, expected);
    const struct image_sink_ops *ops = again ? NULL : in->ops;
    auto_stream struct stream *tar = NULL;
    char found[IMAGE_DIGEST_SIZE];
    struct digest *tap = NULL;
    int r = digest_new(&tap, err);

    if (r == 0)
        r = stream_decompress(blob, &in->budget, &tar, NULL, err);
    if (r == 0) {
        tar->tap = tap;
        if (ops)
            r = ops->layer_begin(in->sink, in->image.layer_count == 0, err);
    }
    if (r == 0)
        r = layer_read(tar, &in->budget, &in->image.boot, ops, in->sink, err);
    if (r == 0) {
        digest_hex(tap, found);
        if (expected && strcmp(expected, found) != 0)
            r = mismatch(err, "an uncompressed layer", expected, found);
    }
    digest_free(tap);
    if (r == 0 && ops)
        r = ops->layer_end(in->sink, found, err);
    return r == 0 ? add_layer(&in->image, found, err) : r;
}

static int import_blob(struct import *in, const struct descriptor *d, const char *diff_id, struct error **err)
{
    char name[sizeof("blobs/sha256/") + IMAGE_DIGEST_SIZE], found[IMAGE_DIGEST_SIZE];
    auto_stream struct stream *blob = NULL;
    auto_error struct error *why = NULL;
    struct digest *tap = NULL;
    int r;

    snprintf(name, sizeof(name), "blobs/sha256/%s", d->digest);
    r = members_open(&in->members, name, &blob, NULL, err);
    if (r == 0)
        r = digest_new(&tap, err);
    if (r < 0)
        return r;
    blob->tap = tap;
    r = import_layer(in, blob, diff_id, &why);
    /* A damaged blob breaks the decompressor first; what the user should read is that its digest is wrong. */
    if (r == 0 || (why && strcmp(why->code, "IMAGE_MALFORMED") == 0)) {
        int drained = stream_drain(blob, NULL);

        digest_hex(tap, found);
        if (drained == 0 && (strcmp(found, d->digest) != 0 || blob->count != d->size)) {
            digest_free(tap);
            return mismatch(err, "a layer", d->digest, found);
        }
        r = r == 0 && drained < 0 ? malformed(&why, "the archive is cut short") : r;
    }
    digest_free(tap);
    if (r < 0 && err && !*err)
        *err = take_ptr(why);
    return r;
}

/* ---- OCI ---- */

static int load_document(struct import *in, const char *name, char **ret, size_t *ret_size, struct error **err)
{
    if (++in->budget.documents > DOCUMENT_MAX)
        return malformed(err, "the archive makes the reader look at more than 256 documents");
    return members_load(&in->members, name, DOCUMENT_BYTES_MAX, ret, ret_size, err);
}

/* A JSON blob, its digest and size checked. */
static int load_blob(struct import *in, const struct descriptor *d, char **ret, size_t *ret_size, struct error **err)
{
    char name[sizeof("blobs/sha256/") + IMAGE_DIGEST_SIZE], found[IMAGE_DIGEST_SIZE];
    auto_free char *text = NULL;
    size_t size;
    int r;

    snprintf(name, sizeof(name), "blobs/sha256/%s", d->digest);
    r = load_document(in, name, &text, &size, err);
    if (r == 0)
        r = digest_of(text, size, found, err);
    if (r < 0)
        return r;
    if (strcmp(found, d->digest) != 0 || size != d->size)
        return mismatch(err, "a document of the image", d->digest, found);
    *ret = take_ptr(text);
    *ret_size = size;
    return 0;
}

static int pick_manifest(struct import *in, const struct image_index *index, unsigned int depth, struct error **err);

static int pick_nested(struct import *in, const struct descriptor *d, unsigned int depth, struct error **err)
{
    struct image_index index = {0};
    auto_free char *text = NULL;
    size_t size;
    int r;

    if (depth + 1 > INDEX_DEPTH_MAX)
        return malformed(err, "indexes are nested more than four deep");
    r = load_blob(in, d, &text, &size, err);
    if (r == 0)
        r = index_parse("an index", text, size, &index, err);
    if (r == 0)
        r = pick_manifest(in, &index, depth + 1, err);
    index_clear(&index);
    return r;
}

static bool is_index(const struct descriptor *d)
{
    return strstr(d->media_type, "image.index") || strstr(d->media_type, "manifest.list");
}

/* Finds the one manifest for this machine; a second one that differs is refused rather than guessed at. */
static int pick_manifest(struct import *in, const struct image_index *index, unsigned int depth, struct error **err)
{
    int r;

    for (size_t i = 0; i < index->count; i++) {
        const struct descriptor *d = &index->entries[i];

        if (!is_this_machine(in, d->os, d->architecture)) {
            if (strcmp(d->architecture, "unknown") != 0) /* build attestations travel so */
                note_other(in, d->os, d->architecture);
        } else if (is_index(d)) {
            r = pick_nested(in, d, depth, err);
            if (r < 0)
                return r;
            if (in->found.digest[0] && d->name[0])
                memcpy(in->image.name, d->name, sizeof(d->name));
        } else if (d->media_type[0] && !strstr(d->media_type, "manifest")) {
            continue;
        } else if (in->found.digest[0] && strcmp(in->found.digest, d->digest) != 0) {
            return malformed(err, "the archive holds several images for this machine; export one of them alone");
        } else {
            in->found = *d;
            if (d->name[0])
                memcpy(in->image.name, d->name, sizeof(d->name));
        }
    }
    return 0;
}

static int import_manifest(struct import *in, const struct manifest *m, struct error **err)
{
    auto_free struct configuration *c = calloc(1, sizeof(*c));
    auto_free char *text = NULL;
    size_t size;
    int r = c ? load_blob(in, &m->config, &text, &size, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory");

    if (r == 0)
        r = configuration_parse("the image configuration", text, size, c, err);
    if (r < 0)
        return r;
    in->image.run = c->run;
    if (!is_this_machine(in, c->os, c->architecture)) {
        note_other(in, c->os, c->architecture);
        return wrong_architecture(in, err);
    }
    if (c->diff_id_count != m->layer_count)
        return malformed(err, "manifest and configuration do not list the same number of layers");
    for (size_t i = 0; i < m->layer_count && r == 0; i++)
        r = import_blob(in, &m->layers[i], c->diff_ids[i], err);
    return r;
}

static int read_oci(struct import *in, struct error **err)
{
    auto_free struct manifest *m = calloc(1, sizeof(*m));
    struct image_index index = {0};
    auto_free char *text = NULL;
    size_t size;
    int r = m ? load_document(in, "index.json", &text, &size, err) : error_set(err, ENOMEM, "NO_MEMORY", "no memory");

    in->image.format = IMAGE_OCI;
    if (r == 0)
        r = index_parse("index.json", text, size, &index, err);
    if (r == 0)
        r = pick_manifest(in, &index, 0, err);
    index_clear(&index);
    if (r < 0)
        return r;
    if (!in->found.digest[0])
        return in->others[0] ? wrong_architecture(in, err) : malformed(err, "index.json lists no image");
    free(take_ptr(text));
    r = load_blob(in, &in->found, &text, &size, err);
    if (r == 0)
        r = manifest_parse("the manifest", text, size, m, err);
    if (r < 0)
        return r;
    memcpy(in->image.digest, in->found.digest, sizeof(in->found.digest));
    return import_manifest(in, m, err);
}

/* ---- docker save ---- */

/* docker names the configuration by its own digest: "HEX.json" or "blobs/sha256/HEX". */
static int check_config_name(const char *name, const char *found, struct error **err)
{
    const char *leaf = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    char named[IMAGE_DIGEST_SIZE];

    if (strncmp(leaf, "sha256:", 7) == 0)
        leaf += 7;
    snprintf(named, sizeof(named), "%s", leaf);
    if (digest_is_hex(named) && strcmp(named, found) != 0)
        return mismatch(err, "the image configuration", named, found);
    return 0;
}

static int import_docker(struct import *in, const struct docker_manifest *m, struct configuration *c,
                         struct error **err)
{
    auto_free char *text = NULL;
    size_t size;
    int r = load_document(in, m->config, &text, &size, err);

    if (r == 0)
        r = digest_of(text, size, in->image.digest, err);
    if (r == 0)
        r = check_config_name(m->config, in->image.digest, err);
    if (r == 0)
        r = configuration_parse("the image configuration", text, size, c, err);
    if (r < 0)
        return r;
    in->image.run = c->run;
    memcpy(in->image.name, m->name, sizeof(m->name));
    if (!is_this_machine(in, c->os, c->architecture)) {
        note_other(in, c->os, c->architecture);
        return wrong_architecture(in, err);
    }
    if (c->diff_id_count != m->layer_count)
        return malformed(err, "manifest.json and configuration do not list the same number of layers");
    for (size_t i = 0; i < m->layer_count && r == 0; i++) {
        auto_stream struct stream *blob = NULL;

        r = members_open(&in->members, m->layers[i], &blob, NULL, err);
        if (r == 0)
            r = import_layer(in, blob, c->diff_ids[i], err);
    }
    return r;
}

static int read_docker(struct import *in, struct error **err)
{
    auto_free struct docker_manifest *m = calloc(1, sizeof(*m));
    auto_free struct configuration *c = calloc(1, sizeof(*c));
    auto_free char *text = NULL;
    size_t size;
    int r = m && c ? load_document(in, "manifest.json", &text, &size, err)
                   : error_set(err, ENOMEM, "NO_MEMORY", "no memory");

    in->image.format = IMAGE_DOCKER;
    if (r == 0)
        r = docker_manifest_parse("manifest.json", text, size, m, err);
    if (r == 0)
        r = import_docker(in, m, c, err);
    if (m)
        docker_manifest_clear(m);
    return r;
}

/* ---- a plain root file system ---- */

static int read_rootfs(struct import *in, int fd, struct error **err)
{
    auto_stream struct stream *spool = NULL;
    int r = stream_of_fd(fd, 0, &spool, err);

    in->image.format = IMAGE_ROOTFS;
    if (r == 0)
        r = import_layer(in, spool, NULL, err);
    if (r < 0)
        return r;
    if (in->budget.files == 0)
        return malformed(err, "the archive is empty");
    memcpy(in->image.digest, in->image.layers[0], IMAGE_DIGEST_SIZE);
    return 0;
}

/* ---- finding out what it is ---- */

static int write_all(int fd, const char *bytes, size_t size, struct error **err)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, errno == ENOSPC || errno == EDQUOT ? "NO_SPACE" : "STORE_FAILED",
                                   "cannot write the decompressed archive");
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Decompresses the archive into a scratch file and makes the table of contents of that. */
static int rescan(struct import *in, int fd, int *ret_scratch, struct error **err)
{
    auto_stream struct stream *spool = NULL, *tar = NULL, *again = NULL;
    auto_fd int scratch = in->ops->scratch(in->sink, err);
    const void *block;
    ssize_t n;
    int r = scratch < 0 ? scratch : stream_of_fd(fd, 0, &spool, err);

    if (r == 0)
        r = stream_decompress(spool, &in->budget, &tar, NULL, err);
    if (r < 0)
        return r;
    while ((n = stream_read(tar, &block, err)) > 0) {
        r = write_all(scratch, block, (size_t)n, err);
        if (r < 0)
            return r;
    }
    if (n < 0)
        return (int)n;
    in->budget.stream_bytes = 0; /* the layers inside are what counts */
    members_clear(&in->members);
    r = stream_of_fd(scratch, 0, &again, err);
    if (r == 0)
        r = members_scan(again, scratch, &in->members, err);
    if (r == 0)
        *ret_scratch = take_fd(&scratch);
    return r;
}

static int scan(struct import *in, int fd, bool *ret_compressed, struct error **err)
{
    auto_stream struct stream *spool = NULL, *tar = NULL, *plain = NULL;
    int r = stream_of_fd(fd, 0, &spool, err);

    if (r == 0)
        r = stream_decompress(spool, &in->budget, &tar, ret_compressed, err);
    if (r == 0 && *ret_compressed)
        return members_scan(tar, fd, &in->members, err);
    if (r == 0)
        r = stream_of_fd(fd, 0, &plain, err);
    return r == 0 ? members_scan(plain, fd, &in->members, err) : r;
}

static int read_archive(struct import *in, int fd, struct error **err)
{
    auto_fd int scratch = -1;
    bool compressed = false, oci, docker;
    int r = scan(in, fd, &compressed, err);

    in->budget.stream_bytes = 0;
    if (r < 0)
        return r;
    oci = !in->members.rootfs && members_find(&in->members, "oci-layout") && members_find(&in->members, "index.json");
    docker = !in->members.rootfs && !oci && members_find(&in->members, "manifest.json");
    if ((oci || docker) && compressed)
        r = rescan(in, fd, &scratch, err);
    if (r < 0)
        return r;
    return oci ? read_oci(in, err) : docker ? read_docker(in, err) : read_rootfs(in, fd, err);
}

int image_read(int fd, const struct image_limits *limits, const struct image_sink_ops *ops, void *sink,
               struct image *ret, struct error **err)
{
    auto_free struct import *in = calloc(1, sizeof(*in));
    struct timespec now;
    struct stat st;
    int r;

    if (!in)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory to read the image");
    clock_gettime(CLOCK_MONOTONIC, &now);
    in->budget.bytes_max = limits->bytes_max;
    in->budget.files_max = limits->files_max;
    in->budget.deadline_ns = ((uint64_t)now.tv_sec + limits->seconds_max) * 1000000000u + (uint64_t)now.tv_nsec;
    in->ops = ops;
    in->sink = sink;
    in->members.fd = -1;
    set_machine(in->machine, sizeof(in->machine));
    r = fstat(fd, &st) < 0 ? error_set_errno(err, errno, "INTERNAL", "no archive") : read_archive(in, fd, err);
    if (r == 0)
        r = image_boot_check(&in->image.boot, &in->image.run.guest, in->image.layer_count, err);
    members_clear(&in->members);
    if (r < 0) {
        image_clear(&in->image);
        return r;
    }
    in->image.shipped_bytes = (uint64_t)st.st_size;
    in->image.unpacked_bytes = in->budget.file_bytes;
    in->image.files = in->budget.files;
    *ret = in->image;
    return 0;
}
