/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a process of the container: the application and every exec.
 *
 * Theory of operation. clone(CLONE_VM | CLONE_VFORK): no page table is copied, the init sleeps until the child has
 * exec'd or ended, and the child reports a failure by writing `failure` in the shared memory; success is its absence.
 * The child closes every descriptor above 2 before it does anything the image can influence (working directory, search
 * of PATH, exec), so /proc/self/fd leads nowhere (CVE-2024-21626). The shared memory is not dumpable and stays so, and
 * the uid changes before exec, so no other process of the container can trace the child before it is the application.
 * setuid() and friends are raw system calls: musl's would signal threads through state the child shares.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sys.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Advances *cursor over one string; NULL when it is not terminated in time. */
static char *next_string(char **cursor, const char *end)
{
    char *text = *cursor, *zero = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;

    if (!zero)
        return NULL;
    *cursor = zero + 1;
    return text;
}

int parse_process(const struct init_process *process, char *strings, size_t available, char **vector,
                  struct child *ret_child)
{
    char *cursor = strings;
    const char *end = strings + process->strings_size;
    size_t at = 0;

    if (process->strings_size > available || !process->argc || process->argc > INIT_STRING_MAX ||
        process->argc + process->envc > INIT_STRING_MAX)
        return fail(STAGE_PROTOCOL, EBADMSG, "process");
    ret_child->user = next_string(&cursor, end);
    ret_child->cwd = ret_child->user ? next_string(&cursor, end) : NULL;
    if (!ret_child->cwd)
        return fail(STAGE_PROTOCOL, EBADMSG, "strings");
    for (uint32_t part = 0; part < 2; part++) {
        *(part ? &ret_child->env : &ret_child->argv) = vector + at;
        for (uint32_t i = 0; i < (part ? process->envc : process->argc); i++)
            if (!(vector[at++] = next_string(&cursor, end)))
                return fail(STAGE_PROTOCOL, EBADMSG, "strings");
        vector[at++] = NULL;
    }
    vector[at] = vector[at + 1] = vector[at + 2] = NULL; /* room for the defaults of add_defaults() */
    return cursor == end ? 0 : fail(STAGE_PROTOCOL, EBADMSG, "strings");
}

static const char *environment(char **env, const char *name)
{
    size_t length = strlen(name);

    for (; *env; env++)
        if (!strncmp(*env, name, length) && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

/* PATH, HOME and TERM when the image and the descriptor say nothing. parse_process() left room behind env. */
static void add_defaults(const struct child *child, const struct identity *identity, char *home, size_t size)
{
    char **end = child->env;

    while (*end)
        end++;
    if (!environment(child->env, "PATH"))
        *end++ = (char *)DEFAULT_PATH;
    if (!environment(child->env, "HOME") && strlen(identity->home) + 6 <= size) {
        strcpy(home, "HOME=");
        strcat(home, identity->home);
        *end++ = home;
    }
    if (child->terminal && !environment(child->env, "TERM"))
        *end++ = (char *)"TERM=xterm";
    *end = NULL;
}

/* /proc/self/attr/exec below the descriptor of our own procfs: never through a path the image could have mounted on. */
static int set_label(const char *label)
{
    return write_file_at(root_state.proc_fd, "thread-self/attr/exec", label, strlen(label))
               ? fail(STAGE_LABEL, errno, label)
               : 0;
}

static int set_identity(const struct identity *identity)
{
    if (syscall(SYS_setgroups, identity->group_count, identity->groups) ||
        syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid))
        return fail(STAGE_USER, errno, "group");
    return 0;
}

/* Ambient capabilities must survive the change from root; the bounding set needs CAP_SETPCAP, so it goes first. */
static int drop_privileges(const struct child *child, const struct identity *identity)
{
    enum { KEEP_CAPS = 8, CAPBSET_DROP = 24, CAP_LAST = 40 };

    for (unsigned cap = 0; cap <= CAP_LAST; cap++)
        if (child->held & ~child->capabilities & (1ull << cap))
            syscall(SYS_prctl, CAPBSET_DROP, cap, 0, 0, 0);
    if (identity->uid && syscall(SYS_prctl, KEEP_CAPS, 1, 0, 0, 0))
        return fail(STAGE_CAPABILITIES, errno, "keep");
    if (syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid))
        return fail(STAGE_USER, errno, "uid");
    return set_capabilities(child->capabilities, child->ambient & child->capabilities, identity->uid == 0);
}

static int set_stdio(const struct child *child)
{
    if (setsid() < 0)
        return fail(STAGE_TERMINAL, errno, "session");
    for (int i = 0; i < 3; i++)
        if (dup2(child->stdio[i], i) < 0)
            return fail(STAGE_PIPES, errno, NULL);
    if (child->terminal && ioctl(0, TIOCSCTTY, 0))
        return fail(STAGE_TERMINAL, errno, "controlling");
    return 0;
}

/* getcwd() tells "(unreachable)" for a directory outside the root: no way leads there, and if one did, it ends here. */
static int enter_directory(const char *cwd)
{
    char buffer[4096];
    long size;

    if (chdir(cwd))
        return fail(STAGE_CWD, errno, cwd);
    size = syscall(SYS_getcwd, buffer, sizeof(buffer));
    if (size < 0 || buffer[0] != '/')
        return fail(STAGE_CWD, EXDEV, cwd);
    return 0;
}

/* exec resets handlers (the init has one) to the default; only what is ignored or blocked would be inherited. */
static void unblock_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* As execvp(3), but without a shell for a file that has no known format. */
static int execute(const struct child *child)
{
    const char *name = child->argv[0], *path = environment(child->env, "PATH");
    int worst = ENOENT;
    char file[4096];

    if (!*name)
        return fail(STAGE_LOOKUP, ENOENT, "");
    if (strchr(name, '/')) {
        syscall(SYS_execve, name, child->argv, child->env);
        return fail(STAGE_EXECVE, errno, name);
    }
    while (path) {
        const char *colon = strchr(path, ':');
        size_t length = colon ? (size_t)(colon - path) : strlen(path);

        if (length && length + strlen(name) + 2 <= sizeof(file)) {
            memcpy(file, path, length);
            file[length] = '/';
            strcpy(file + length + 1, name);
            syscall(SYS_execve, file, child->argv, child->env);
            if (errno != ENOENT && errno != ENOTDIR) {
                worst = errno;
                if (errno != EACCES)
                    return fail(STAGE_EXECVE, errno, file);
            }
        }
        path = colon ? colon + 1 : NULL;
    }
    return worst == EACCES ? fail(STAGE_EXECVE, EACCES, name) : fail(STAGE_LOOKUP, ENOENT, name);
}

/* Runs in the child on the init's own stack frame below spawn_clone(); never returns. */
static __attribute__((noreturn, noinline)) void child_main(const struct child *child, const struct identity *identity)
{
    if (!set_stdio(child) && (!child->label || !set_label(child->label)) && !set_identity(identity)) {
        unblock_signals();
        if (!drop_privileges(child, identity)) {
            sys_close_range(3, ~0u);
            if (!enter_directory(child->cwd))
                execute(child);
        }
    }
    _exit(127);
}

/* The parent sleeps in the kernel while the child uses the same stack below this frame, as after vfork(2). clone()
 * rather than clone3(): the init lives under the container's own filter, which cannot look into clone3's arguments. */
static __attribute__((noinline)) long spawn_clone(const struct child *child, const struct identity *identity,
                                                  int *pidfd)
{
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD), "S"(0), "d"(pidfd),
                       "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    if (result == 0)
        child_main(child, identity);
    return result;
}

int spawn(const struct child *child, pid_t *ret_pid, int *ret_pidfd)
{
    struct identity identity;
    char home[160];
    int pidfd = -1;
    long pid;

    if (resolve_user(child->user, &identity))
        return -1;
    add_defaults(child, &identity, home, sizeof(home));
    /* /dev/stdout is opened anew by many programs: the pipe or terminal must belong to their user. */
    for (int i = 0; i < 3; i++) {
        struct stat st;

        if (!fstat(child->stdio[i], &st) && st.st_uid == 0 && identity.uid && (S_ISFIFO(st.st_mode) || child->terminal))
            if (fchown(child->stdio[i], identity.uid, (gid_t)-1)) {
                /* A pipe that came from outside cannot be given away; it works as inherited. */
            }
    }
    memset(&failure, 0, sizeof(failure));
    pid = spawn_clone(child, &identity, &pidfd);
    if (pid < 0)
        return fail(STAGE_SPAWN, (int)-pid, NULL);
    if (failure.stage) { /* written by the child; it is dead or dying and reaped by the main loop */
        close(pidfd);
        return -1;
    }
    *ret_pid = (pid_t)pid;
    *ret_pidfd = pidfd;
    return 0;
}

/* The slave is opened through the master: no path, so nothing of the image can stand in for it (CVE-2025-52565). */
int open_terminal(int *ret_master, int *ret_slave)
{
    int unlock = 0, slave, master = raise_fd(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));

    if (master < 0)
        return fail(STAGE_TERMINAL, errno, "ptmx");
    if (ioctl(master, TIOCSPTLCK, &unlock) || (slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
        fail(STAGE_TERMINAL, errno, "slave");
        close(master);
        return -1;
    }
    *ret_master = master;
    *ret_slave = raise_fd(slave);
    return 0;
}
