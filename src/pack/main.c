/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-pack: makes the file system image (fd 4, an empty file) of a directory tree (fd 3): an image's root for a
 * guest that has its own kernel. What was wrong it says on fd 5: "CODE message".
 *
 * The files are a stranger's, though nothing of them is parsed: the launcher starts it as it starts coracle-unpack, in
 * a user namespace that maps the image range, and it gives up everything but reading there. One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "pack/erofs.h"

enum { ROOT_FD = 3, FILE_FD = 4, RESULT_FD = 5, USAGE_STATUS = 64 };

static int failed(struct error **err, const char *what)
{
    return error_set_errno(err, errno, "INTERNAL", "sandbox of coracle-pack: %s", what);
}

static int keep_capabilities(struct error **err)
{
    const uint32_t keep = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data) < 0)
        return failed(err, "capget");
    data[0].effective = data[0].permitted &= keep;
    data[1].effective = data[1].permitted = 0;
    data[0].inheritable = data[1].inheritable = 0;
    return syscall(SYS_capset, &header, data) < 0 ? failed(err, "capset") : 0;
}

/* clang-format off */
static const int allowed[] = {
    SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(close),
    SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(getdents64), SCMP_SYS(readlinkat),
    SCMP_SYS(flistxattr), SCMP_SYS(fgetxattr), SCMP_SYS(ftruncate), SCMP_SYS(fcntl),
    SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(getpid),
    SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(sysinfo), /* qsort() */
};
#if defined(__SANITIZE_ADDRESS__)
static const int allowed_sanitized[] = {
    SCMP_SYS(sigaltstack), SCMP_SYS(gettid), SCMP_SYS(sched_yield), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(prctl), SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(readlink), SCMP_SYS(sched_getaffinity),
};
#else
static const int allowed_sanitized[] = { SCMP_SYS(read) }; /* none: it is in the list */
#endif
/* clang-format on */

static int keep_calls(struct error **err)
{
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = c ? 0 : -ENOMEM;

    for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed) && r == 0; i++)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; i < sizeof(allowed_sanitized) / sizeof(int) && r == 0 && sizeof(allowed_sanitized) > 4; i++)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed_sanitized[i], 0);
    if (r == 0)
        r = seccomp_load(c);
    seccomp_release(c);
    errno = -r;
    return r < 0 ? failed(err, "seccomp") : 0;
}

static int confine(struct error **err)
{
    int r;

    if (syscall(SYS_close_range, (unsigned)RESULT_FD + 1, ~0u, 0) < 0)
        return failed(err, "close_range");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return failed(err, "prctl");
    if (fchdir(ROOT_FD) < 0)
        return failed(err, "fchdir");
    if (chroot(".") < 0 && errno != EPERM) /* nothing here names a path from "/" anyway */
        return failed(err, "chroot");
    r = keep_capabilities(err);
    return r == 0 ? keep_calls(err) : r;
}

static int pack(uint64_t bytes_max, uint64_t files_max, struct error **err)
{
    struct node *root = NULL;
    int r = confine(err);

    if (r == 0)
        r = tree_read(ROOT_FD, files_max, &root, err);
    if (r == 0)
        r = erofs_write(root, ROOT_FD, FILE_FD, bytes_max, err);
    tree_free(root);
    return r;
}

static void tell(const struct error *err)
{
    char text[700], line[800];

    error_text(err, text, sizeof(text));
    snprintf(line, sizeof(line), "%s %s", err->code, text);
    (void)!write(RESULT_FD, line, strlen(line));
}

int main(int argc, char **argv)
{
    auto_error struct error *err = NULL;
    char *end[2] = {NULL, NULL};
    const uint64_t bytes_max = argc == 3 ? strtoull(argv[1], &end[0], 10) : 0;
    const uint64_t files_max = argc == 3 ? strtoull(argv[2], &end[1], 10) : 0;

    if (!bytes_max || !files_max || *end[0] || *end[1] || fcntl(ROOT_FD, F_GETFD) < 0 || fcntl(FILE_FD, F_GETFD) < 0 ||
        fcntl(RESULT_FD, F_GETFD) < 0) {
        fprintf(stderr, "usage: coracle-pack BYTES-MAX FILES-MAX 3< DIRECTORY 4<> FILE 5> RESULT\n"
                        "       (started by coracle-launcher)\n");
        return USAGE_STATUS;
    }
    if (pack(bytes_max, files_max, &err) == 0)
        _exit(0); /* nothing of stdio to flush; no exit handler should meet the filter */
    tell(err);
    _exit(1);
}
