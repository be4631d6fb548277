/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer (erofs.h). Two walks over the tree in the same order: the first gives every inode and every block its
 * place, the second writes. Nothing is kept but the block that is being filled.
 */
#include "pack/erofs.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    BLOCK = 4096,
    BLOCK_BITS = 12,
    SUPER_AT = 1024,
    INODE_UNIT = 32, /* a node's number is its place in these */
    INODE_EXTENDED = 1,
    LAYOUT_PLAIN = 0 << 1,
    LAYOUT_INLINE = 2 << 1,
    XATTR_HEADER = 12,
    XATTR_USER = 1,
    XATTR_SECURITY = 6,
    INLINE_NEXT_MAX = 2048, /* a longer last part is not worth the rest of a block */
    COPY_BYTES = 64 * 1024,
};
#define MAGIC         0xe0f5e1e2u
#define BLOCKS_ENOUGH (UINT64_C(1) << 40) /* more than any image has: the format counts them in 32 bits */

/* On disk, little-endian. */
struct super {
    uint32_t magic, checksum, feature_compat;
    uint8_t block_bits, slots;
    uint16_t root;
    uint64_t inodes, build_time;
    uint32_t build_time_ns, blocks, meta_block, xattr_block;
    uint8_t uuid[16], volume[16];
    uint32_t feature_incompat;
    uint16_t compression, extra_devices, device_slots;
    uint8_t reserved[38];
};

struct inode {
    uint16_t format, xattr_count, mode, reserved;
    uint64_t size;
    uint32_t block, number, uid, gid;
    uint64_t mtime;
    uint32_t mtime_ns, links;
    uint8_t reserved2[16];
};

struct name { /* a directory's entry; names follow behind all of a block's */
    uint64_t node;
    uint16_t offset;
    uint8_t type, reserved;
} __attribute__((packed));

static_assert(sizeof(struct super) == 128 && sizeof(struct inode) == 64 && sizeof(struct name) == 12, "on disk");

struct writer {
    int file;
    uint64_t at;       /* of the next byte of metadata */
    char block[BLOCK]; /* the block it is in */
    char copy[COPY_BYTES];
    struct error **err;
};

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- directories: what a block of names holds ---- */

/* The names of a directory in their order: its children with "." and ".." where they belong among them. */
struct names {
    const struct node *directory;
    size_t next;
    unsigned dots; /* how many of them were given */
};

static const char *const dots[] = {".", ".."};

static const char *names_next(struct names *n, const struct node **ret)
{
    const struct node *d = n->directory, *child = n->next < d->child_count ? d->children[n->next] : NULL;

    if (n->dots < 2 && (!child || strcmp(dots[n->dots], child->name) < 0)) {
        *ret = n->dots ? d->parent : d;
        return dots[n->dots++];
    }
    if (!child)
        return NULL;
    n->next++;
    *ret = child->same ? child->same : child;
    return child->name;
}

/* How many names fit into the next block, and the bytes they take; 0: there are no more. Advances n. */
static unsigned names_in_block(struct names *n, size_t *ret_bytes)
{
    unsigned count = 0;
    size_t bytes = 0;

    for (;;) {
        struct names before = *n;
        const struct node *node;
        const char *name = names_next(n, &node);

        if (!name || bytes + sizeof(struct name) + strlen(name) > BLOCK) {
            *n = before;
            break;
        }
        bytes += sizeof(struct name) + strlen(name);
        count++;
    }
    *ret_bytes = bytes;
    return count;
}

static uint64_t directory_size(const struct node *d)
{
    struct names n = {.directory = d};
    uint64_t blocks = 0;
    size_t bytes, last = 0;

    while (names_in_block(&n, &bytes)) {
        blocks++;
        last = bytes;
    }
    return (blocks - 1) * BLOCK + last; /* "." is always there */
}

/* ---- places ---- */

static size_t attribute_bytes(const struct attribute *a)
{
    const char *dot = strchr(a->name, '.');

    return round_up(4 + strlen(dot + 1) + a->size, 4);
}

static uint64_t content_size(const struct node *n)
{
    if (S_ISDIR(n->info.st_mode))
        return directory_size(n);
    if (S_ISLNK(n->info.st_mode))
        return strlen(n->target);
    return S_ISREG(n->info.st_mode) ? (uint64_t)n->info.st_size : 0;
}

struct places {
    uint64_t at, block;
    uint32_t inodes;
};

/* An inode crosses no block, nor does the last part of a content behind it. */
static void place(struct places *p, struct node *n)
{
    uint64_t bytes = sizeof(struct inode), tail, in_block;

    n->size = content_size(n);
    for (size_t i = 0; i < n->attribute_count; i++)
        n->attribute_bytes += (uint32_t)attribute_bytes(&n->attributes[i]);
    if (n->attribute_bytes)
        n->attribute_bytes += XATTR_HEADER;
    bytes += n->attribute_bytes;
    tail = n->size % BLOCK;
    in_block = p->at % BLOCK;
    if (in_block + sizeof(struct inode) > BLOCK ||
        (tail && in_block + bytes + tail > BLOCK && bytes + tail <= INLINE_NEXT_MAX))
        p->at = round_up(p->at, BLOCK);
    n->at = p->at;
    n->inlined = tail && n->at % BLOCK + bytes + tail <= BLOCK;
    n->number = ++p->inodes;
    n->block = p->block;
    p->block += n->size / BLOCK + (tail && !n->inlined);
    if (p->block > BLOCKS_ENOUGH) /* too many are refused: the sum must not begin again at 0 before */
        p->block = BLOCKS_ENOUGH;
    p->at = round_up(n->at + bytes + (n->inlined ? tail : 0), INODE_UNIT);
}

static void place_tree(struct places *p, struct node *n)
{
    if (!n->same)
        place(p, n);
    for (size_t i = 0; i < n->child_count; i++)
        place_tree(p, n->children[i]);
}

/* Content comes behind the metadata, whose size is known now. */
static void move_blocks(struct node *n, uint64_t by)
{
    n->block += by;
    for (size_t i = 0; i < n->child_count; i++)
        move_blocks(n->children[i], by);
}

/* ---- writing ---- */

static int write_at(struct writer *w, const void *bytes, size_t size, uint64_t at)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(w->file, (const char *)bytes + done, size - done, (off_t)(at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(w->err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED",
                                   "packing: writing the file system");
        done += (size_t)n;
    }
    return 0;
}

/* Metadata goes forward only. */
static int append(struct writer *w, const void *bytes, size_t size)
{
    while (size) {
        size_t in_block = w->at % BLOCK, part = size < BLOCK - in_block ? size : BLOCK - in_block;

        memcpy(w->block + in_block, bytes, part);
        bytes = (const char *)bytes + part;
        size -= part;
        w->at += part;
        if (w->at % BLOCK == 0) {
            int r = write_at(w, w->block, BLOCK, w->at - BLOCK);
            if (r < 0)
                return r;
            memset(w->block, 0, BLOCK);
        }
    }
    return 0;
}

static int advance(struct writer *w, uint64_t to)
{
    static const char zeros[BLOCK];
    int r = 0;

    while (r == 0 && w->at < to)
        r = append(w, zeros, to - w->at < BLOCK ? (size_t)(to - w->at) : BLOCK);
    return r;
}

static int write_inode(struct writer *w, const struct node *n)
{
    const uint32_t count = n->attribute_bytes ? (n->attribute_bytes - XATTR_HEADER) / 4 + 1 : 0;
    struct inode i = {.format = htole16(INODE_EXTENDED | (n->inlined ? LAYOUT_INLINE : LAYOUT_PLAIN)),
                      .xattr_count = htole16((uint16_t)count),
                      .mode = htole16((uint16_t)n->info.st_mode),
                      .size = htole64(n->size),
                      .block = htole32((uint32_t)n->block),
                      .number = htole32(n->number),
                      .uid = htole32(n->info.st_uid),
                      .gid = htole32(n->info.st_gid),
                      .mtime = htole64((uint64_t)n->info.st_mtim.tv_sec),
                      .mtime_ns = htole32((uint32_t)n->info.st_mtim.tv_nsec),
                      .links = htole32(n->links)};

    return append(w, &i, sizeof(i));
}

static int write_attributes(struct writer *w, const struct node *n)
{
    static const char header[XATTR_HEADER];
    int r = n->attribute_bytes ? append(w, header, sizeof(header)) : 0;

    for (size_t i = 0; i < n->attribute_count && r == 0; i++) {
        const struct attribute *a = &n->attributes[i];
        const char *name = strchr(a->name, '.') + 1;
        const uint8_t length = (uint8_t)strlen(name), index = a->name[0] == 'u' ? XATTR_USER : XATTR_SECURITY;
        const uint8_t entry[4] = {length, index, (uint8_t)a->size, (uint8_t)(a->size >> 8)};

        r = append(w, entry, sizeof(entry));
        if (r == 0)
            r = append(w, name, length);
        if (r == 0)
            r = append(w, a->value, a->size);
        if (r == 0)
            r = advance(w, round_up(w->at, 4));
    }
    return r;
}

static uint8_t file_type(mode_t mode)
{
    return S_ISREG(mode) ? 1 : S_ISDIR(mode) ? 2 : S_ISFIFO(mode) ? 5 : 7;
}

/* One block of names, from n on. Returns its bytes; 0: there are no more. */
static size_t fill_names(struct names *n, char block[BLOCK])
{
    struct names counted = *n;
    size_t bytes;
    const unsigned count = names_in_block(&counted, &bytes);
    size_t offset = count * sizeof(struct name);

    memset(block, 0, BLOCK);
    for (unsigned i = 0; i < count; i++) {
        const struct node *node;
        const char *name = names_next(n, &node);
        struct name entry = {.node = htole64(node->at / INODE_UNIT),
                             .offset = htole16((uint16_t)offset),
                             .type = file_type(node->info.st_mode)};

        memcpy(block + i * sizeof(entry), &entry, sizeof(entry));
        memcpy(block + offset, name, strlen(name));
        offset += strlen(name);
    }
    return count ? bytes : 0;
}

/* part, the size bytes of content from offset on, goes where it belongs; of a last part that is a block of its own the
 * rest stays zero. */
static int write_content(struct writer *w, const struct node *n, uint64_t offset, const void *part, size_t size)
{
    const uint64_t whole = n->inlined ? n->size / BLOCK * BLOCK : n->size;
    size_t outside = offset >= whole ? 0 : whole - offset < size ? (size_t)(whole - offset) : size;
    int r = outside ? write_at(w, part, outside, n->block * BLOCK + offset) : 0;

    return r == 0 && outside < size ? append(w, (const char *)part + outside, size - outside) : r;
}

static int write_names(struct writer *w, const struct node *n)
{
    struct names names = {.directory = n};
    char block[BLOCK];
    size_t bytes;
    int r = 0;

    for (uint64_t offset = 0; r == 0 && (bytes = fill_names(&names, block)); offset += BLOCK)
        r = write_content(w, n, offset, block, offset + BLOCK < n->size ? BLOCK : bytes);
    return r;
}

/* Whole blocks of zeros stay holes of the image, which begins as one: what a sparse file does not cost the store, its
 * image does not cost either. */

/* The block from offset on that may hold something: below end, or end. */
static uint64_t skip_hole(int fd, uint64_t offset, uint64_t end)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? end : offset; /* nothing behind it; or the file system does not tell */
    return (uint64_t)data < end ? (uint64_t)data / BLOCK * BLOCK : end;
}

static bool is_zero_block(const char *bytes, size_t size)
{
    return size >= BLOCK && bytes[0] == 0 && memcmp(bytes, bytes + 1, BLOCK - 1) == 0;
}

/* How many bytes, from a block's begin on, are not a block of zeros. */
static size_t until_zero_block(const char *bytes, size_t size)
{
    size_t n = 0;

    while (n < size && !is_zero_block(bytes + n, size - n))
        n += size - n < BLOCK ? size - n : BLOCK;
    return n;
}

static int write_part(struct writer *w, const struct node *n, uint64_t offset, const char *part, size_t size)
{
    int r = 0;

    for (size_t done = 0; r == 0 && done < size;) {
        size_t run = until_zero_block(part + done, size - done);
        if (run)
            r = write_content(w, n, offset + done, part + done, run);
        done += run ? run : BLOCK;
    }
    return r;
}

static int write_file(struct writer *w, const struct node *n, int directory)
{
    const uint64_t whole = n->size / BLOCK * BLOCK; /* the rest of the last block is always written */
    auto_fd int fd = tree_open(directory, n->name, false);

    if (fd < 0)
        return error_set_errno(w->err, -fd, "STORE_FAILED", "packing: cannot open \"%s\"", n->name);
    for (uint64_t offset = 0; offset < n->size;) {
        if (offset < whole && (offset = skip_hole(fd, offset, whole)) == n->size)
            break;
        size_t wanted = n->size - offset < COPY_BYTES ? (size_t)(n->size - offset) : COPY_BYTES;
        ssize_t got = pread(fd, w->copy, wanted, (off_t)offset);
        int r;

        if (got < 0 || (size_t)got < wanted)
            return error_set_errno(w->err, got < 0 ? errno : EIO, "STORE_FAILED", "packing: reading \"%s\"", n->name);
        r = write_part(w, n, offset, w->copy, (size_t)got);
        if (r < 0)
            return r;
        offset += (uint64_t)got;
    }
    return 0;
}

static int write_node(struct writer *w, const struct node *n, int directory)
{
    int r = advance(w, n->at);

    if (r == 0)
        r = write_inode(w, n);
    if (r == 0)
        r = write_attributes(w, n);
    if (r < 0)
        return r;
    if (S_ISDIR(n->info.st_mode))
        return write_names(w, n);
    if (S_ISLNK(n->info.st_mode))
        return write_content(w, n, 0, n->target, (size_t)n->size);
    return S_ISREG(n->info.st_mode) ? write_file(w, n, directory) : 0;
}

/* directory: where n's name is; own: n itself when it is a directory, borrowed. */
static int write_tree(struct writer *w, const struct node *n, int directory, int own)
{
    int r = n->same ? 0 : write_node(w, n, directory);

    for (size_t i = 0; i < n->child_count && r == 0; i++) {
        const struct node *child = n->children[i];
        auto_fd int fd = S_ISDIR(child->info.st_mode) ? tree_open(own, child->name, true) : -1;

        if (S_ISDIR(child->info.st_mode) && fd < 0)
            return error_set_errno(w->err, -fd, "STORE_FAILED", "packing: cannot open \"%s\"", child->name);
        r = write_tree(w, child, own, fd);
    }
    return r;
}

static int write_super(struct writer *w, const struct node *root, const struct places *p, uint64_t blocks)
{
    struct super s = {.magic = htole32(MAGIC),
                      .block_bits = BLOCK_BITS,
                      .root = htole16((uint16_t)(root->at / INODE_UNIT)),
                      .inodes = htole64(p->inodes),
                      .blocks = htole32((uint32_t)blocks)};
    int r = advance(w, SUPER_AT);

    return r < 0 ? r : append(w, &s, sizeof(s));
}

static int check_attributes(const struct node *n, struct error **err)
{
    int r = 0;

    if (n->attribute_bytes / 4 > UINT16_MAX - 8)
        return error_set(err, E2BIG, "IMAGE_TOO_LARGE", "packing: the attributes of \"%s\" are too large", n->name);
    for (size_t i = 0; i < n->child_count && r == 0; i++)
        r = check_attributes(n->children[i], err);
    return r;
}

int erofs_write(struct node *root, int root_fd, int file, uint64_t bytes_max, struct error **err)
{
    struct places p = {.at = SUPER_AT + sizeof(struct super)};
    auto_free struct writer *w = calloc(1, sizeof(*w));
    uint64_t meta, blocks;
    int r;

    if (!w)
        return error_set(err, ENOMEM, "NO_MEMORY", "packing: out of memory");
    place_tree(&p, root);
    r = check_attributes(root, err);
    if (r < 0)
        return r;
    meta = round_up(p.at, BLOCK) / BLOCK;
    blocks = meta + p.block;
    if (blocks > UINT32_MAX || blocks * BLOCK > bytes_max)
        return error_set(err, E2BIG, "IMAGE_TOO_LARGE", "packing: %llu bytes, at most %llu are taken",
                         (unsigned long long)blocks * BLOCK, (unsigned long long)bytes_max);
    move_blocks(root, meta);
    *w = (struct writer){.file = file, .err = err};
    if (ftruncate(file, (off_t)(blocks * BLOCK)) < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "STORE_FAILED", "packing: the file");
    r = write_super(w, root, &p, blocks);
    if (r == 0)
        r = write_tree(w, root, -1, root_fd);
    return r < 0 ? r : advance(w, meta * BLOCK);
}
