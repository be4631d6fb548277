/* SPDX-License-Identifier: Apache-2.0 */
/* Whole-file reads and replacements for records and tables; used by every part of the launcher that persists. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/files.h"

static int failed(struct error **err, const char *what, const char *name)
{
    int e = errno;

    return error_set_errno(err, e, e == ENOSPC || e == EDQUOT ? "NO_SPACE" : "INTERNAL", "%s %s", what, name);
}

int file_replace(int dirfd, const char *name, const void *text, size_t size, struct error **err)
{
    char temporary[80];
    auto_fd int fd = -1;
    ssize_t n;
    int r;

    snprintf(temporary, sizeof(temporary), "%s.tmp", name);
    fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return failed(err, "making", temporary);
    n = write(fd, text, size);
    if (n >= 0 && (size_t)n != size)
        errno = ENOSPC;
    if (n < 0 || (size_t)n != size || renameat(dirfd, temporary, dirfd, name) < 0) {
        r = failed(err, "writing", name);
        unlinkat(dirfd, temporary, 0);
        return r;
    }
    return 0;
}

int file_read(int dirfd, const char *name, size_t max, char **ret_text, struct error **err)
{
    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    auto_free char *text = NULL;
    struct stat st;
    ssize_t n;

    if (fd < 0 && errno == ENOENT) {
        *ret_text = NULL;
        return 0;
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        return failed(err, "opening", name);
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size > max)
        return error_set(err, EINVAL, "INTERNAL", "%s is no file of at most %zu bytes", name, max);
    text = calloc(1, (size_t)st.st_size + 1);
    if (!text)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for %s", name);
    n = read(fd, text, (size_t)st.st_size);
    if (n < 0)
        return failed(err, "reading", name);
    *ret_text = take_ptr(text);
    return 0;
}

int directory_open(int dirfd, const char *name, unsigned mode, int *ret_fd, struct error **err)
{
    auto_fd int fd = -1;
    struct stat st;

    if (mkdirat(dirfd, name, mode) < 0 && errno != EEXIST)
        return failed(err, "making directory", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return failed(err, "opening directory", name);
    if (fstat(fd, &st) < 0 || st.st_uid != geteuid())
        return error_set(err, EPERM, "START_FAILED", "directory %s belongs to another user", name);
    *ret_fd = take_fd(&fd);
    return 0;
}
