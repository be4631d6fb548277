/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox of coracle-unpack from inside: a child confines itself and then tries what a taken-over reader would.
 * Descriptor 3 is a directory outside (as if one had been forgotten), 4 the directory it may use.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unpack/confine.h"

static char top[] = "/tmp/coracle-confine-XXXXXX";

static int try_open(int fd, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags, .mode = flags & O_CREAT ? 0600 : 0};

    return syscall(SYS_openat2, fd, path, &how, sizeof(how)) < 0 ? errno : 0;
}

static int inside_works(void)
{
    return try_open(4, "file", O_CREAT | O_RDWR);
}
static int read_beneath_a_forgotten_descriptor(void)
{
    return try_open(3, "passwd", O_RDONLY);
}
static int write_beneath_a_forgotten_descriptor(void)
{
    return try_open(3, "coracle-must-not-exist", O_CREAT | O_WRONLY);
}
static int absolute_path(void)
{
    return try_open(AT_FDCWD, "/etc/passwd", O_RDONLY);
}
static int climb_out(void)
{
    return try_open(4, "../../../../etc/passwd", O_RDONLY);
}
static int plain_open(void)
{
    return syscall(SYS_openat, 4, "file", O_CREAT | O_RDWR, 0600) < 0 ? errno : 0;
}
static int make_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
}
static int run_program(void)
{
    char *none[] = {NULL};

    return execve("/bin/true", none, none) < 0 ? errno : 0;
}
static int make_process(void)
{
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0 ? errno : 0;
}
static int map_executable(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}
static int kill_others(void)
{
    return kill(getppid(), 0) < 0 ? errno : 0;
}
static int chroot_again(void)
{
    return chroot(".") < 0 ? errno : 0;
}
static int make_device(void)
{
    return mknodat(4, "null", S_IFCHR | 0600, 0x103) < 0 ? errno : 0;
}
static int higher_descriptor(void)
{
    return fcntl(10, F_GETFD) < 0 ? errno : 0;
}

/* Exit status of the child: what attempt() returned; 200 + signal when it was killed; 199 when confine() failed. */
static int confined(int (*attempt)(void))
{
    pid_t pid = fork();
    int status, outside, inside;

    if (pid == 0) {
        outside = open("/etc", O_RDONLY | O_DIRECTORY);
        inside = open(top, O_RDONLY | O_DIRECTORY);
        outside = fcntl(outside, F_DUPFD, 20);
        inside = fcntl(inside, F_DUPFD, 20);
        dup2(outside, 3);
        dup2(inside, 4);
        dup2(outside, 5);
        dup2(outside, 10);
        if (confine(4, 5, NULL) < 0)
            _exit(199);
        _exit(attempt());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

static void only_its_directory(void **state)
{
    (void)state;
    assert_int_equal(confined(inside_works), 0);
    assert_int_equal(confined(absolute_path), ENOENT); /* its root is the directory */
    assert_int_equal(confined(climb_out), ENOENT);
    assert_int_equal(confined(plain_open), EACCES);
    assert_int_equal(confined(higher_descriptor), EBADF);
    assert_int_equal(confined(make_device), EPERM);
}

static void landlock_holds_for_forgotten_descriptors(void **state)
{
    (void)state;
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 2) {
        print_message("this kernel has no Landlock (2): not tested\n");
        skip();
    }
    assert_int_equal(confined(read_beneath_a_forgotten_descriptor), EACCES);
    assert_int_equal(confined(write_beneath_a_forgotten_descriptor), EACCES);
}

static void other_calls_end_it(void **state)
{
    static int (*const attempts[])(void) = {make_socket,    run_program, make_process,
                                            map_executable, kill_others, chroot_again};

    (void)state;
    for (size_t i = 0; i < sizeof(attempts) / sizeof(*attempts); i++)
        if (confined(attempts[i]) != 200 + SIGSYS)
            fail_msg("attempt %zu: %d", i, confined(attempts[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_its_directory),
        cmocka_unit_test(landlock_holds_for_forgotten_descriptors),
        cmocka_unit_test(other_calls_end_it),
    };
    char command[128];
    int failed;

    if (geteuid() != 0) {
        puts("skipped: the stages that need a capability need root");
        return 77;
    }
    if (!mkdtemp(top))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof(command), "rm -rf '%s'", top);
    return system(command) != 0 ? 1 : failed;
}
