/* SPDX-License-Identifier: Apache-2.0 */
/* systemd's side played by the test: a passed socket is served, READY, WATCHDOG and STOPPING are said, privileges are
 * narrowed to the list, and instances inherit default signals and no descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/integration/launcher/bed.h"

static struct bed bed;

static int bind_at(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", path);
    BED_CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    return fd;
}

static void exec_launcher(int listener, const char *notify)
{
    const char *program = getenv("CORACLE_LAUNCHER");
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("NOTIFY_SOCKET", notify, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
    if (listener == 3)
        fcntl(3, F_SETFD, 0);
    else
        dup2(listener, 3);
    execl(program, program, "--run-dir", bed.run, "--state-dir", bed.state, "--cgroup", bed.cgroup, "--user", "root",
          "--libexec-dir", bed.libexec, "--config", bed.config, "--log-level", "warning", (char *)NULL);
    _exit(127);
}

static bool hear(int fd, const char *word, unsigned times)
{
    struct timeval limit = {.tv_sec = 10};
    char text[128];
    ssize_t n;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    while (times && (n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
        text[n] = '\0';
        times -= strcmp(text, word) == 0;
    }
    return times == 0;
}

static unsigned long long status_field(pid_t pid, const char *name, int base)
{
    char path[64], line[256];

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    auto_file FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0)
            return strtoull(line + strlen(name), NULL, base);
    bed_die("no %s in %s", name, path);
}

static void test_privileges(void)
{
    unsigned long long never = 1ull << CAP_SYS_MODULE | 1ull << CAP_SYS_RAWIO | 1ull << CAP_SYS_BOOT |
                               1ull << CAP_SYS_TIME | 1ull << CAP_NET_RAW | 1ull << CAP_MKNOD | 1ull << CAP_SYSLOG |
                               1ull << CAP_LINUX_IMMUTABLE;
    static const char *const sets[] = {"CapEff:", "CapPrm:", "CapBnd:", "CapInh:"};

    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        BED_CHECK((status_field(bed.launcher, sets[i], 16) & never) == 0);
    BED_CHECK(status_field(bed.launcher, "NoNewPrivs:", 10) == 1);
    BED_CHECK(status_field(bed.launcher, "Seccomp:", 10) == 2);
}

static void test_inheritance(void)
{
    struct message_started s;

    bed_start(&bed, 1, "sleep", NULL, &s);
    /* the application is the init's only child; its mask and ignored signals are a fresh program's */
    char command[128];
    int child = 0;
    snprintf(command, sizeof(command), "cat /proc/%d/task/*/children", s.pid);
    FILE *p = popen(command, "re");
    BED_CHECK(p && fscanf(p, "%d", &child) == 1 && pclose(p) == 0);
    BED_CHECK(status_field(child, "SigBlk:", 16) == 0 && status_field(child, "SigIgn:", 16) == 0);
    snprintf(command, sizeof(command), "ls /proc/%d/fd | wc -l", child);
    int fds = 0;
    p = popen(command, "re");
    BED_CHECK(p && fscanf(p, "%d", &fds) == 1 && pclose(p) == 0 && fds == 3);
    BED_CHECK(bed_release(&bed, 1));
}

int main(void)
{
    char notify[128], socket_path[128];
    struct remains left;

    bed_need_root();
    bed_open(&bed, "pool_depth = 0\n");
    snprintf(notify, sizeof(notify), "%s/notify", bed.dir);
    snprintf(socket_path, sizeof(socket_path), "%s/launcher.sock", bed.run);
    auto_fd int heard = bind_at(notify, SOCK_DGRAM), listener = bind_at(socket_path, SOCK_SEQPACKET);
    BED_CHECK(listen(listener, 4) == 0);
    bed.launcher = fork();
    if (bed.launcher == 0)
        exec_launcher(listener, notify);
    listener = close_fd(listener);
    BED_CHECK(hear(heard, "READY=1", 1));
    BED_CHECK(hear(heard, "WATCHDOG=1", 3));
    bed_connect(&bed);
    bed_link(&bed);
    test_privileges();
    test_inheritance();
    kill(bed.launcher, SIGTERM);
    BED_CHECK(hear(heard, "STOPPING=1", 1));
    bed_kill(&bed, SIGTERM);
    BED_CHECK(bed_clean(&bed, 10000, &left));
    bed_close(&bed);
    puts("ok");
    return 0;
}
