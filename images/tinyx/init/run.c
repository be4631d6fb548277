/* SPDX-License-Identifier: Apache-2.0 */
/* The application and the ssh server: how they are started, and what becomes of them. */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DROPBEAR  "/sbin/dropbear"
#define HOST_KEYS "/etc/dropbear"

static pid_t ssh_pid; /* 0: none */

static void clean_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

static bool become(const struct config *config)
{
    if (chdir(config->directory ? config->directory : "/") < 0)
        return false;
    if (!config->has_user)
        return true;
    return setgroups(0, NULL) == 0 && setgid(config->gid) == 0 && setuid(config->uid) == 0;
}

/* In the child. What cannot be done comes back through the pipe, which a successful exec closes. */
static void __attribute__((noreturn)) run_application(const struct config *config, int report)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), reason;

    setsid();
    clean_signals();
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    for (unsigned i = 0; i < config->env_count; i++)
        putenv((char *)(uintptr_t)config->env[i]);
    if (become(config))
        execvp(config->arguments[0], (char *const *)(uintptr_t)config->arguments);
    reason = errno;
    (void)!write(report, &reason, sizeof(reason));
    _exit(127);
}

int application_start(const struct config *config, pid_t *ret_pid)
{
    int report[2], reason = 0;
    pid_t pid;

    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        run_application(config, report[1]);
    close(report[1]);
    if (pid > 0 && read(report[0], &reason, sizeof(reason)) == (ssize_t)sizeof(reason))
        waitpid(pid, NULL, 0);
    close(report[0]);
    if (pid < 0)
        return -EAGAIN;
    if (reason)
        return -reason;
    *ret_pid = pid;
    return 0;
}

/* Is /proc/NAME a process of the ssh server: the listener or a session, each of which has a session id of its own? */
static bool is_ssh(const char *name)
{
    char path[288], exe[sizeof(DROPBEAR)];

    if (*name < '0' || *name > '9')
        return false;
    snprintf(path, sizeof(path), "/proc/%s/exe", name);
    return readlink(path, exe, sizeof(exe)) == (ssize_t)strlen(DROPBEAR) &&
           memcmp(exe, DROPBEAR, strlen(DROPBEAR)) == 0;
}

/* Sessions too: who restores a snapshot must not find an open door, nor its keys. Their shells see a hang-up. */
static void ssh_stop(void)
{
    DIR *processes = ssh_pid ? opendir("/proc") : NULL;
    struct dirent *entry;

    while (processes && (entry = readdir(processes))) {
        if (is_ssh(entry->d_name))
            kill(atoi(entry->d_name), SIGKILL);
    }
    if (processes)
        closedir(processes);
    ssh_pid = 0;
}

static void forget_host_keys(void)
{
    unlink(HOST_KEYS "/dropbear_ed25519_host_key");
    unlink(HOST_KEYS "/dropbear_rsa_host_key");
    unlink(HOST_KEYS "/dropbear_ecdsa_host_key");
}

int run_program(char *const *arguments)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        clean_signals();
        execvp(arguments[0], arguments);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A distribution's own server: new host keys when there are none or when they are another guest's too, and told so. */
static void ssh_renew(bool restored)
{
    static char *const forget[] = {"sh", "-c", "rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub", NULL};
    /* one kind, the one that takes no time to make */
    static char *const make[] = {"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key",
                                 NULL};
    static char *const restart[] = {"systemctl", "--no-block", "restart", "ssh.service", NULL};

    if (restored)
        run_program(forget);
    else if (access("/etc/ssh/ssh_host_ed25519_key", F_OK) == 0)
        return;
    if (run_program(make) != 0)
        say("no ssh host keys could be made");
    if (restored)
        run_program(restart);
}

/* Host keys are made by the server when the first client comes: the boot waits for none, a guest nobody visits has
 * none. */
void ssh_restart(const struct config *config)
{
    static char *const arguments[] = {"dropbear", "-F", "-R", "-P", "/run/dropbear.pid", NULL};
    static bool again;
    pid_t pid;

    if (guest_is_service) {
        ssh_renew(again);
        again = true;
        return;
    }
    ssh_stop();
    forget_host_keys();
    if (config->key_count == 0)
        return;
    if (access(DROPBEAR, X_OK) < 0) {
        say("an ssh key is given, but this image has no ssh server");
        return;
    }
    mkdir(HOST_KEYS, 0700);
    pid = fork();
    if (pid == 0) {
        setsid();
        clean_signals();
        execv(DROPBEAR, arguments);
        _exit(127);
    }
    if (pid > 0)
        ssh_pid = pid;
}

void ssh_reaped(pid_t pid)
{
    if (pid != ssh_pid)
        return;
    say("the ssh server ended");
    ssh_pid = 0;
}
