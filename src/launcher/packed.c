/* SPDX-License-Identifier: Apache-2.0 */
/*
 * images/packed (packed.h). What is there is complete: it was made beside, is on the disk, and came by a rename. Of
 * starts that want the same at once one makes it and the others wait: each would take the image's size on the disk.
 */
#include "launcher/packed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/confined.h"
#include "launcher/files.h"

enum {
    PACK_TIMEOUT_S = 900,
    NAME_BYTES = DIGEST_HEX_SIZE + 20,
    LAYERS_BYTES_MAX = LAYER_MAX * DIGEST_HEX_SIZE + 1,
    RESULT_MAX = 800,
};
#define BYTES_MAX "68719476736" /* 64 GiB, and this many files: what one image may be */
#define FILES_MAX "2000000"

/* One layer a line, uppermost first. */
static void list_layers(const struct plan_root *root, char ret[LAYERS_BYTES_MAX])
{
    *ret = '\0';
    for (size_t i = 0; i < root->layer_count; i++)
        sprintf(ret + i * DIGEST_HEX_SIZE, "%s\n", root->layers[i]);
}

/* Of one layer its name; of several the uppermost's and a hash of all. That two lists might share a hash does no harm:
 * the list itself is compared. */
static void make_key(const struct plan_root *root, const char *layers, char ret[NAME_BYTES])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (const char *c = layers; *c; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    if (root->layer_count == 1)
        snprintf(ret, NAME_BYTES, "%.64s", root->layers[0]);
    else
        snprintf(ret, NAME_BYTES, "%.64s-%016llx", root->layers[0], (unsigned long long)hash);
}

static bool made_of(int directory, const char *layers)
{
    auto_free char *found = NULL;

    return file_read(directory, "layers", LAYERS_BYTES_MAX, &found, NULL) == 0 && found && strcmp(found, layers) == 0;
}

static int find(struct launcher *l, const char *key, const char *layers)
{
    auto_fd int directory = openat(l->packed_fd, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (directory < 0 || !made_of(directory, layers))
        return -ENOENT;
    int fd = openat(directory, "root", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void remove_one(struct launcher *l, const char *name)
{
    auto_fd int directory = openat(l->packed_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (directory < 0)
        return;
    unlinkat(directory, "layers", 0); /* first: without it nobody finds the other */
    unlinkat(directory, "layers.tmp", 0);
    unlinkat(directory, "root", 0);
    if (unlinkat(l->packed_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        log_line(LOG_LEVEL_WARNING, NULL, "images/packed/%s cannot be removed: %s", name, strerror(errno));
}

/* ---- making ---- */

/* "CODE message" of coracle-pack, whose code must be one of these. */
static int say_why(int result_fd, int errnum, struct error **err)
{
    static const char *const codes[] = {"IMAGE_TOO_LARGE", "NO_SPACE", "NO_MEMORY", "STORE_FAILED"};
    char text[RESULT_MAX];
    ssize_t n = pread(result_fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = '?';
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        size_t length = strlen(codes[i]);
        if (strncmp(text, codes[i], length) != 0 || text[length] != ' ')
            continue;
        error_set(err, errnum, codes[i], "the image's root: %s", text + length + 1);
        if (strcmp(codes[i], "NO_SPACE") == 0)
            error_hint(err, "make room where the state directory is: coracle image prune, or remove files");
        return -errnum;
    }
    return error_set(err, errnum, "START_FAILED", "the image's root could not be packed%s%s", *text ? ": " : "", text);
}

static int run_pack(struct launcher *l, int tree, int file, struct error **err)
{
    char program[4096];
    char *argv[] = {program, (char *)BYTES_MAX, (char *)FILES_MAX, NULL};
    auto_error struct error *ended = NULL;
    auto_fd int result = memfd_create("coracle-pack", MFD_CLOEXEC);
    auto_fd int program_fd = -1;

    snprintf(program, sizeof(program), "%s/coracle-pack", l->options.libexec_dir);
    program_fd = open(program, O_RDONLY | O_CLOEXEC);
    if (program_fd < 0 || result < 0) {
        error_set_errno(err, errno, "INTERNAL", "opening %s", program);
        error_hint(err, "install all of coracle (meson install)");
        return -EIO;
    }
    struct confined c = {.what = "pack",
                         .program_fd = program_fd,
                         .argv = argv,
                         .fds = {tree, file, result},
                         .timeout_s = PACK_TIMEOUT_S};
    worker_waits(true);
    int r = confined_run(l, &c, &ended);
    worker_waits(false);
    if (r == -EINVAL) /* it ended and may have said why */
        return say_why(result, EINVAL, err);
    if (r < 0 && err)
        *err = take_ptr(ended);
    return r;
}

static int fill(struct launcher *l, const struct plan_root *root, const char *layers, int directory, struct error **err)
{
    auto_fd int file = openat(directory, "root", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    auto_fd int tree = -1;
    int r;

    if (file < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "INTERNAL", "images/packed");
    r = runtime_merge(l->runtime, root, &tree, err);
    if (r == 0)
        r = run_pack(l, tree, file, err);
    if (r == 0 && fdatasync(file) < 0)
        r = error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "INTERNAL", "writing images/packed");
    return r < 0 ? r : file_replace(directory, "layers", layers, strlen(layers), err);
}

/* As another start may have done meanwhile. */
static int publish(struct launcher *l, const char *name, const char *key, const char *layers, struct error **err)
{
    if (renameat2(l->packed_fd, name, l->packed_fd, key, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EEXIST)
        return error_set_errno(err, errno, "INTERNAL", "images/packed/%s", key);
    auto_fd int there = find(l, key, layers);
    if (there >= 0) {
        remove_one(l, name);
        return 0;
    }
    remove_one(l, key); /* of other layers, or half removed */
    if (renameat2(l->packed_fd, name, l->packed_fd, key, RENAME_NOREPLACE) < 0)
        return error_set_errno(err, errno, "INTERNAL", "images/packed/%s", key);
    return 0;
}

static int make(struct launcher *l, const struct plan_root *root, const char *key, const char *layers,
                struct error **err)
{
    static atomic_uint number;
    auto_fd int directory = -1;
    char name[NAME_BYTES];
    int r;

    snprintf(name, sizeof(name), ".new-%d-%u", (int)getpid(), atomic_fetch_add(&number, 1));
    r = directory_open(l->packed_fd, name, 0700, &directory, err);
    if (r == 0)
        r = fill(l, root, layers, directory, err);
    if (r == 0)
        r = publish(l, name, key, layers, err);
    if (r < 0)
        remove_one(l, name);
    return r;
}

/* Who is making what, for the time of the call. */
struct making {
    struct making *next;
    const char *key;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
    struct making *first;
} makers = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL};

static bool is_made(const char *key)
{
    const struct making *m = makers.first;

    while (m && strcmp(m->key, key) != 0)
        m = m->next;
    return m != NULL;
}

/* Returns when nobody else makes that; it may be there then. */
static void making_begin(struct making *own, const char *key)
{
    bool waits;

    pthread_mutex_lock(&makers.lock);
    waits = is_made(key);
    pthread_mutex_unlock(&makers.lock);
    if (waits)
        worker_waits(true);
    pthread_mutex_lock(&makers.lock);
    while (is_made(key))
        pthread_cond_wait(&makers.done, &makers.lock);
    *own = (struct making){makers.first, key};
    makers.first = own;
    pthread_mutex_unlock(&makers.lock);
    if (waits)
        worker_waits(false);
}

static void making_end(const struct making *own)
{
    struct making **place = &makers.first;

    pthread_mutex_lock(&makers.lock);
    while (*place != own)
        place = &(*place)->next;
    *place = own->next;
    pthread_cond_broadcast(&makers.done);
    pthread_mutex_unlock(&makers.lock);
}

static int find_or_make(struct launcher *l, const struct plan_root *root, const char *key, const char *layers,
                        int *ret_fd, struct error **err)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        int r, fd = find(l, key, layers);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (attempt == 0 && (r = make(l, root, key, layers, err)) < 0)
            return r;
    }
    return error_set(err, ENOENT, "INTERNAL", "images/packed/%s went as soon as it was made", key);
}

int packed_open(struct launcher *l, const struct plan_root *root, int *ret_fd, struct error **err)
{
    char layers[LAYERS_BYTES_MAX], key[NAME_BYTES];
    struct making own;
    int r, fd;

    list_layers(root, layers);
    make_key(root, layers, key);
    fd = find(l, key, layers);
    if (fd >= 0) {
        *ret_fd = fd;
        return 0;
    }
    making_begin(&own, key);
    r = find_or_make(l, root, key, layers, ret_fd, err);
    making_end(&own);
    return r;
}

/* ---- removing ---- */

static void for_each(struct launcher *l, bool (*goes)(int directory, const char *name, const char *digest),
                     const char *digest)
{
    auto_dir DIR *d = fdopendir(fcntl(l->packed_fd, F_DUPFD_CLOEXEC, 0));
    const struct dirent *e;

    if (!d)
        return;
    rewinddir(d);
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        auto_fd int directory = openat(l->packed_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (directory >= 0 && goes(directory, e->d_name, digest))
            remove_one(l, e->d_name);
    }
}

static bool has_layer(int directory, const char *name, const char *digest)
{
    auto_free char *layers = NULL;

    (void)name;
    return file_read(directory, "layers", LAYERS_BYTES_MAX, &layers, NULL) == 0 && layers && strstr(layers, digest);
}

void packed_drop(struct launcher *l, const char *digest)
{
    for_each(l, has_layer, digest);
}

static bool is_unfinished(int directory, const char *name, const char *digest)
{
    (void)digest;
    return name[0] == '.' || faccessat(directory, "layers", F_OK, 0) < 0;
}

void packed_sweep(struct launcher *l)
{
    for_each(l, is_unfinished, NULL);
}
