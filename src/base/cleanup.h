/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound ownership of memory, descriptors and streams.
 *
 * Why: every early return of a control-plane function must release what it holds. A variable marked
 * with one of these attributes owns its value; ownership moves out only through take_ptr()/take_fd().
 */
#ifndef CORACLE_BASE_CLEANUP_H
#define CORACLE_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Closes fd when it is not negative; errno survives. Returns -1, to be assigned back. */
static inline int close_fd(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return -1;
}

static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_fd(int *fd)
{
    *fd = close_fd(*fd);
}

static inline void cleanup_file(FILE **f)
{
    if (*f)
        fclose(*f);
}

static inline void cleanup_dir(DIR **d)
{
    if (*d)
        closedir(*d);
}

#define auto_free __attribute__((cleanup(cleanup_free)))
#define auto_fd __attribute__((cleanup(cleanup_fd)))
#define auto_file __attribute__((cleanup(cleanup_file)))
#define auto_dir __attribute__((cleanup(cleanup_dir)))

/* Moves ownership out of an auto_ variable: yields its value and leaves it empty. */
#define take_ptr(p)                                                                                                    \
    ({                                                                                                                 \
        __typeof__(p) *place_ = &(p);                                                                                  \
        __typeof__(p) value_ = *place_;                                                                                \
        *place_ = NULL;                                                                                                \
        value_;                                                                                                        \
    })

static inline int take_fd(int *fd)
{
    int value = *fd;
    *fd = -1;
    return value;
}

#endif
