/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A warm QEMU: this library is loaded before QEMU's own code and holds its start between the dynamic linker's work
 * (half of what a start costs: docs/decisions/0012-qemu.md) and main(), until the supervisor knows which guest it is.
 *
 * The C start code of every program calls __libc_start_main(); the one below takes its place, waits for one packet and
 * calls the real one with the words that came. Runs in QEMU's process; the supervisor is the other end of the socket.
 * Afterwards only the words are used, and the functions at the end.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qemu/preload.h"

typedef int (*program_main)(int, char **, char **);
typedef int (*start_main)(program_main main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                          void (*rtld_fini)(void), void *stack_end);

int __libc_start_main(program_main main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) __attribute__((visibility("default")));

static union {
    struct preload_packet header;
    char bytes[sizeof(struct preload_packet) + PRELOAD_BYTES_MAX];
} packet;
static char *words[PRELOAD_WORD_MAX + 2]; /* as argv and an environment behind it, both ended by NULL */
static __thread bool main_thread;

/* The kernel gave the descriptors numbers as they were free; they go where the command line says. */
static int place(const struct cmsghdr *c)
{
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    int fds[PRELOAD_FD_MAX];

    if (n > PRELOAD_FD_MAX)
        return -1;
    memcpy(fds, CMSG_DATA(c), n * sizeof(int));
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= PRELOAD_FD_BASE || dup2(fds[i], PRELOAD_FD_BASE + (int)i) < 0)
            return -1;
    }
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    return 0;
}

static int split(ssize_t size)
{
    char *at = packet.bytes + sizeof(packet.header), *end = packet.bytes + size;

    if (size < (ssize_t)sizeof(packet.header) || packet.header.words > PRELOAD_WORD_MAX ||
        packet.header.bytes != (size_t)size - sizeof(packet.header))
        return -1;
    for (uint32_t i = 0; i < packet.header.words; i++) {
        char *stop = memchr(at, '\0', (size_t)(end - at));
        if (!stop)
            return -1;
        words[i] = at;
        at = stop + 1;
    }
    return 0;
}

static int wait_for_words(void)
{
    static _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PRELOAD_FD_MAX)];
    struct iovec iov = {.iov_base = packet.bytes, .iov_len = sizeof(packet.bytes)};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

    if (write(PRELOAD_SOCKET, "w", 1) != 1)
        return -1;
    ssize_t n = recvmsg(PRELOAD_SOCKET, &header, 0);
    if (n <= 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || split(n) < 0)
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && place(c) < 0)
            return -1;
    close(PRELOAD_SOCKET);
    close(PRELOAD_SOCKET + 1); /* this library's file */
    return 0;
}

/* One behind the last string of those that follow each other from at on. */
static char *end_of(char **strings, char *at)
{
    for (; *strings && *strings == at; strings++)
        at += strlen(at) + 1;
    return at;
}

/*
 * ps(1) shows what the kernel put on the stack at execve(): the words this process was started with before it was known
 * for whom. The guest's take their place, as much as there is room for (PRELOAD_ROOM of the environment is for that).
 */
static void show_words(char **argv)
{
    extern char **environ;
    char *at = argv[0], *end = end_of(environ, end_of(argv, at));

    for (char **variable = environ; *variable; variable++)
        if (!(*variable = strdup(*variable)))
            return;
    for (char **word = words; *word && at < end - 1; word++)
        at += snprintf(at, (size_t)(end - at), word == words ? "%s" : " %s", *word);
    if (at < end)
        memset(at, 0, (size_t)(end - at));
}

int __libc_start_main(program_main main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    start_main next = (start_main)(uintptr_t)dlsym(RTLD_NEXT, "__libc_start_main");

    if (!next || wait_for_words() < 0)
        _exit(125);
    show_words(argv);
    unsetenv("LD_PRELOAD");
    unsetenv(PRELOAD_ROOM);
    main_thread = true;
    return next(main, (int)packet.header.words, words, init, fini, rtld_fini, stack_end);
}

/* ---- opening by name ---- */

/*
 * A descriptor that came with the packet stays what it is when QEMU opens it by name. The kernel would make a new one,
 * by the file's permissions: QEMU 7.2 opens the file of a guest's memory for writing even to map it privately, so every
 * restored guest would need to be able to write the snapshot that it shares with others.
 */
static int given(const char *path)
{
    static const char prefix[] = "/proc/self/fd/";
    long number;
    char *end;
    int fd;

    if (strcmp(path, "/dev/kvm") == 0) { /* the host's, which this uid may not open */
        if (!packet.header.kvm)
            return -1;
        return fcntl((int)packet.header.kvm, F_DUPFD_CLOEXEC, PRELOAD_FD_BASE);
    }
    if (strncmp(path, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    number = strtol(path + sizeof(prefix) - 1, &end, 10);
    if (*end || number < PRELOAD_FD_BASE || number >= PRELOAD_FD_BASE + PRELOAD_FD_MAX)
        return -1;
    fd = fcntl((int)number, F_DUPFD_CLOEXEC, PRELOAD_FD_BASE);
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET); /* as after an open */
    return fd;
}

int open64(const char *path, int flags, ...) __attribute__((visibility("default")));
int __open64_2(const char *path, int flags) __attribute__((visibility("default")));
FILE *fopen64(const char *path, const char *mode) __attribute__((visibility("default")));

int open64(const char *path, int flags, ...)
{
    int fd = given(path);
    mode_t mode = 0;

    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return fd >= 0 ? fd : openat(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int __open64_2(const char *path, int flags)
{
    return open64(path, flags);
}

FILE *fopen64(const char *path, const char *mode)
{
    typedef FILE *(*opener)(const char *, const char *);
    int fd = given(path);

    if (fd >= 0)
        return fdopen(fd, mode);
    opener next = (opener)(uintptr_t)dlsym(RTLD_NEXT, "fopen64");
    return next ? next(path, mode) : NULL;
}

/*
 * Connecting by name, for the same reason: QEMU 7.2 passes descriptors, as vhost-user needs, over a socket that it
 * connected to a path, not over one that it was given.
 */
int connect(int fd, const struct sockaddr *address, socklen_t size) __attribute__((visibility("default")));

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    typedef int (*connector)(int, const struct sockaddr *, socklen_t);
    char path[sizeof(struct sockaddr_un) + 1] = "";
    int own = -1;

    if (address->sa_family == AF_UNIX && size > offsetof(struct sockaddr_un, sun_path) && size < sizeof(path)) {
        memcpy(path, ((const struct sockaddr_un *)address)->sun_path, size - offsetof(struct sockaddr_un, sun_path));
        own = given(path);
    }
    if (own >= 0) {
        int r = dup3(own, fd, O_CLOEXEC) < 0 ? -1 : 0;
        close(own);
        return r;
    }
    connector next = (connector)(uintptr_t)dlsym(RTLD_NEXT, "connect");
    return next ? next(fd, address, size) : -1;
}

/* ---- memory that a guest needed once ---- */

/*
 * Under emulation a guest that has booted, or was just restored, leaves 8 MB of translated code that it runs once, and
 * QEMU keeps it until its buffer is full. When the guest idles and translates nothing new it is thrown away, in the one
 * place where QEMU itself does that (no processor runs), and the buffer's memory is given back; what is still needed is
 * translated again within milliseconds. A guest at work is left alone, and one that idles is asked again only when
 * there is twice as much as it was seen to idle with.
 *
 * By QEMU's own functions, which its executable exports for its modules; where one is missing nothing is done.
 */
enum { LOOK_NS = 500000000, CALM_NS = 2000000000, GROWN_BYTES = 64 * 1024, IDLE_PART = 5 };
enum { WORTH_BYTES = 1 << 20, NEEDED_MOST = 2 << 20 };
#define AGAIN_NS UINT64_C(30000000000)
enum { PROLOGUE_BYTES = 64 * 1024 }; /* at the buffer's front: QEMU's entry to translated code, some hundred bytes */

struct code {
    char *buffer;
    size_t buffer_bytes, seen, needed;
    uint64_t looked_ns, calm_ns, calm_cpu_ns, dropped_ns;
};
static struct code code;

int mprotect(void *at, size_t size, int protection) __attribute__((visibility("default")));
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
    __attribute__((visibility("default")));

/* Where the buffer is: the only memory that is written and executed. */
int mprotect(void *at, size_t size, int protection)
{
    typedef int (*protector)(void *, size_t, int);
    protector next = (protector)(uintptr_t)dlsym(RTLD_NEXT, "mprotect");
    int r = next ? next(at, size, protection) : -1;

    if (r == 0 && (protection & PROT_EXEC) && (protection & PROT_WRITE) && size > code.buffer_bytes) {
        code.buffer = at;
        code.buffer_bytes = size;
    }
    return r;
}

/* On a processor's thread, while all of them stand still. */
static void drop_code(void *cpu, uintptr_t unused)
{
    typedef void (*flusher)(void *);
    flusher flush = (flusher)(uintptr_t)dlsym(RTLD_DEFAULT, "tb_flush");

    if (!flush)
        return;
    flush(cpu);
    /* QEMU asked for huge pages: right while it fills them, 2 MB for the little an idle guest runs */
    madvise(code.buffer + PROLOGUE_BYTES, code.buffer_bytes - PROLOGUE_BYTES, MADV_NOHUGEPAGE);
    madvise(code.buffer + PROLOGUE_BYTES, code.buffer_bytes - PROLOGUE_BYTES, MADV_DONTNEED);
}

static void ask_to_drop(void)
{
    typedef void (*asker)(void *cpu, void (*run)(void *, uintptr_t), uintptr_t);
    asker ask = (asker)(uintptr_t)dlsym(RTLD_DEFAULT, "async_safe_run_on_cpu");
    void **cpus = dlsym(RTLD_DEFAULT, "cpus"); /* a list's head: the first one */

    if (ask && cpus && *cpus)
        ask(*cpus, drop_code, 0);
    malloc_trim(0);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t = {0};

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Since when nothing was translated and little was done. */
static void look_at_code(uint64_t now)
{
    typedef size_t (*counter)(void);
    static counter size_of_code;

    if (!size_of_code && !(size_of_code = (counter)(uintptr_t)dlsym(RTLD_DEFAULT, "tcg_code_size")))
        return;
    const size_t size = size_of_code();
    const uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    const bool busy = cpu - code.calm_cpu_ns > (now - code.calm_ns) / IDLE_PART;
    if (size > code.seen + GROWN_BYTES || size < code.seen || busy) {
        code.seen = size;
        code.calm_ns = now;
        code.calm_cpu_ns = cpu;
        return;
    }
    if (now - code.calm_ns < CALM_NS)
        return;
    if (!code.needed || size < code.needed)
        code.needed = !code.dropped_ns ? 0 : size < NEEDED_MOST ? size : NEEDED_MOST;
    if (size < WORTH_BYTES || size / 2 < code.needed || (code.dropped_ns && now - code.dropped_ns < AGAIN_NS))
        return;
    code.dropped_ns = now;
    code.needed = 0;
    ask_to_drop();
}

/* The main loop's wait: four times a second at least, for the supervisor asks for signs of life. */
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    typedef int (*waiter)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    static waiter next;

    if (!next)
        next = (waiter)(uintptr_t)dlsym(RTLD_NEXT, "ppoll");
    int r = next(fds, n, timeout, mask), e = errno;
    if (main_thread && code.buffer) {
        const uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (now - code.looked_ns > LOOK_NS) {
            code.looked_ns = now;
            look_at_code(now);
        }
    }
    errno = e;
    return r;
}

/* ---- a library that is not needed ---- */

/*
 * QEMU is linked with a disassembler, whose tables cost each process 1.4 MB and a millisecond of relocation. This
 * library carries its name (meson.build), so that the linker takes it for the one wanted; a disassembler that cannot be
 * opened is what QEMU is ready for. All functions of libcapstone 4 that programs use, for another QEMU than Debian's.
 */
#define NO_CAPSTONE(name)                                                                                              \
    size_t name(void) __attribute__((visibility("default")));                                                          \
    size_t name(void)                                                                                                  \
    {                                                                                                                  \
        return 0;                                                                                                      \
    }
NO_CAPSTONE(cs_close)
NO_CAPSTONE(cs_disasm)
NO_CAPSTONE(cs_disasm_iter)
NO_CAPSTONE(cs_errno)
NO_CAPSTONE(cs_free)
NO_CAPSTONE(cs_group_name)
NO_CAPSTONE(cs_insn_group)
NO_CAPSTONE(cs_insn_name)
NO_CAPSTONE(cs_malloc)
NO_CAPSTONE(cs_op_count)
NO_CAPSTONE(cs_op_index)
NO_CAPSTONE(cs_option)
NO_CAPSTONE(cs_reg_name)
NO_CAPSTONE(cs_reg_read)
NO_CAPSTONE(cs_reg_write)
NO_CAPSTONE(cs_regs_access)
NO_CAPSTONE(cs_strerror)
NO_CAPSTONE(cs_support)
NO_CAPSTONE(cs_version)

int cs_open(int architecture, int mode, size_t *handle) __attribute__((visibility("default")));

int cs_open(int architecture, int mode, size_t *handle)
{
    return 2; /* CS_ERR_ARCH */
}
