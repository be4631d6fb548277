/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Empties a directory tree of an image from within the image's own user namespace. Runs in the confined child of a
 * process with threads: plain system calls only. Everything goes by directory descriptors that were opened without
 * following links, so nothing outside can be reached; a tree deeper than DEPTH_MAX is brought up piece by piece.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher/confined.h"

enum { DEPTH_MAX = 32, ENTRIES_BYTES = 2048 };

struct entry { /* linux_dirent64 of getdents64(2) */
    uint64_t ino;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

struct emptying {
    int top;
    unsigned moved; /* directories brought up to the top, for their names */
};

static int empty(struct emptying *e, int dir, int depth);

/* snprintf is not for a forked child. */
static void moved_name(unsigned number, char name[32])
{
    static const char prefix[] = ".coracle-up-";
    size_t n = sizeof(prefix) - 1;

    for (size_t i = 0; i < n; i++)
        name[i] = prefix[i];
    for (int shift = 28; shift >= 0; shift -= 4)
        name[n++] = "0123456789abcdef"[number >> shift & 15];
    name[n] = '\0';
}

static int remove_directory(struct emptying *e, int dir, const char *name, int depth)
{
    char up[32];
    int fd, r;

    if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
        return 0;
    if (depth >= DEPTH_MAX) {
        moved_name(e->moved++, up);
        return renameat(dir, name, e->top, up) < 0 ? -errno : 0;
    }
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = empty(e, fd, depth + 1);
    close(fd);
    if (r == 0 && unlinkat(dir, name, AT_REMOVEDIR) < 0)
        r = -errno;
    return r;
}

static int remove_one(struct emptying *e, int dir, const char *name, int depth)
{
    if (name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0')))
        return 0;
    if (unlinkat(dir, name, 0) == 0)
        return 1;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int r = remove_directory(e, dir, name, depth);
    return r < 0 ? r : 1;
}

/* Reads from the start until a whole pass removed nothing: names may move while they are read. */
static int empty(struct emptying *e, int dir, int depth)
{
    _Alignas(struct entry) char bytes[ENTRIES_BYTES];
    bool removed;

    do {
        long n;
        removed = false;
        if (lseek(dir, 0, SEEK_SET) < 0)
            return -errno;
        while ((n = syscall(SYS_getdents64, dir, bytes, sizeof(bytes))) > 0) {
            for (long at = 0; at < n;) {
                const struct entry *d = (const struct entry *)(bytes + at);
                int r = remove_one(e, dir, d->name, depth);
                if (r < 0)
                    return r;
                removed |= r > 0;
                at += d->length;
            }
        }
        if (n < 0)
            return -errno;
    } while (removed);
    return 0;
}

int confined_empty_directory(int dirfd)
{
    struct emptying e = {.top = dirfd};

    return empty(&e, dirfd, 0) == 0 ? 0 : 1;
}
