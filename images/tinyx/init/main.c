/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest-init: PID 1 of a Tinyx guest, and all of its "distribution". Mounts what programs expect, learns who it is and
 * where it is on the network, starts the one application and, when a key was given, the ssh server; reaps; ends the
 * machine with its application or when asked. No udev, no ifupdown, no runlevels.
 *
 * With --service the same for Coracle's Debian image, under systemd: network, identity, application and agent are ours,
 * the rest is systemd's (images/standardvm).
 *
 * Also called as poweroff, halt and reboot, by people and by the kernel (Xen's toolstack asks it to run
 * /sbin/poweroff).
 */
#include "guest.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 5000, POLL_MAX = 16 };

bool guest_is_service;
static struct config config;
static pid_t application;    /* 0: none, or ended */
static bool ending, stopped; /* stopped: as a service, which does not end the machine */

void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int n = snprintf(line, sizeof(line), "guest-init: ");

    va_start(arguments, format);
    vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    (void)!write(STDERR_FILENO, line, strlen(line));
}

static void mount_one(const char *type, const char *at, unsigned long flags, const char *options)
{
    mkdir(at, 0755);
    if (mount(type, at, type, flags, options) < 0 && errno != EBUSY)
        say("%s cannot be mounted: %s", at, strerror(errno));
}

static void mount_all(void)
{
    const unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;

    umask(022);
    mount_one("proc", "/proc", plain, NULL);
    mount_one("sysfs", "/sys", plain, NULL);
    mount_one("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755");
    mount_one("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666");
    mount_one("tmpfs", "/dev/shm", plain, "mode=1777");
    mount_one("tmpfs", "/run", plain, "mode=0755");
    mount_one("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    mkdir("/var", 0755);
    (void)!symlink("/run", "/var/run");
    mkdir("/etc", 0755);
    (void)!symlink("/proc/self/fd", "/dev/fd");
    (void)!symlink("/proc/self/fd/0", "/dev/stdin");
    (void)!symlink("/proc/self/fd/1", "/dev/stdout");
    (void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

/* The kernel opened no console when the initramfs has no node for one; and one it opened may be none that works. */
static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);

    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    for (int i = 0; i <= 2; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

/* What runs goes on as it was; who it is and where on the network, is new. */
static void become(struct config *new)
{
    memcpy(new->arguments, config.arguments, sizeof(new->arguments));
    new->argument_count = config.argument_count;
    config = *new;
    identity_apply(&config);
    network_apply(&config);
    ssh_restart(&config);
    say("restored: now %s", *config.hostname ? config.hostname : "a guest without a name");
}

/* The first one completes what the command line and the disk said; one of another generation replaces it. */
static void take_identity(struct config *told, char *parameters)
{
    static bool known;

    if (known && told->generation != config.generation) {
        config_parse(parameters, CONFIG_COMMAND_LINE, told, complain, NULL);
        become(told);
        return;
    }
    known = true;
    config.generation = told->generation;
    if (!*config.hostname)
        strcpy(config.hostname, told->hostname);
    if (!*config.machine_id)
        strcpy(config.machine_id, told->machine_id);
    memcpy(config.seed, told->seed, sizeof(config.seed));
    config.seed_size = told->seed_size;
    config.time_ns = told->time_ns;
    free(parameters);
    identity_apply(&config);
}

static void end_application(void)
{
    ending = true;
    if (application)
        kill(application, SIGTERM);
}

static bool on_xen(void)
{
    unsigned eax, signature[3];

    __cpuid(0x40000000, eax, signature[0], signature[1], signature[2]);
    return memcmp(signature, "XenVMMXenVMM", sizeof(signature)) == 0;
}

/* Without ACPI or Xen nothing can be switched off: a reset, which every monitor of ours takes for the end. */
static void __attribute__((noreturn)) end_machine(void)
{
    static char *const power_off[] = {"systemctl", "--no-block", "poweroff", NULL};
    bool can_power_off = access("/sys/firmware/acpi", F_OK) == 0 || on_xen();

    if (guest_is_service)
        _exit(stopped ? 0 : run_program(power_off));

    kill(-1, SIGTERM);
    kill(-1, SIGKILL);
    sync();
    reboot(can_power_off ? RB_POWER_OFF : RB_AUTOBOOT);
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}

static void application_ended(int status)
{
    char line[64];

    application = 0;
    if (WIFSIGNALED(status))
        snprintf(line, sizeof(line), "exit %d", 128 + WTERMSIG(status));
    else
        snprintf(line, sizeof(line), "exit %d", WEXITSTATUS(status));
    if (!guest_is_quiet)
        say("the application ended: %s", line);
    agent_report(line);
    ending = true;
}

static void reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == application)
            application_ended(status);
        else
            ssh_reaped(pid);
    }
}

static uint64_t boot_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Tells systemd, which holds back the ssh server until keys and addresses are there. */
static void notify_service_manager(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (!path || !*path || strlen(path) >= sizeof(address.sun_path))
        return;
    strcpy(address.sun_path, path);
    if (*path == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
    close(fd);
}

static void start(uint64_t begun)
{
    int status = config.argument_count ? application_start(&config, &application) : 0;

    if (status < 0) {
        say("%s cannot be started: %s", config.arguments[0], strerror(-status));
        agent_report(status == -ENOENT ? "exit 127" : "exit 126");
        ending = true;
        return;
    }
    agent_report("ready");
    notify_service_manager();
    if (!guest_is_quiet)
        say("ready after %llu ms, %llu of them its own", (unsigned long long)boot_ms(),
            (unsigned long long)(boot_ms() - begun));
}

/* The application has GRACE_MS to end after it was asked; the deadline runs from the first round that sees it ending.
 */
static int time_left(uint64_t *deadline)
{
    uint64_t now = boot_ms();

    if (!ending)
        return -1;
    if (!*deadline)
        *deadline = now + GRACE_MS;
    return application && now < *deadline ? (int)(*deadline - now) : 0;
}

static void serve_signals(int signals)
{
    struct signalfd_siginfo info;

    while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap();
        else
            stopped = true, end_application();
    }
}

static void __attribute__((noreturn)) serve(int signals)
{
    uint64_t deadline = 0;

    for (;;) {
        struct pollfd set[POLL_MAX] = {{signals, POLLIN, 0}};
        int count = 1 + agent_poll_set(set + 1, POLL_MAX - 1), left = time_left(&deadline);

        if (left == 0)
            end_machine();
        if (poll(set, (nfds_t)count, left) <= 0)
            continue;
        if (set[0].revents)
            serve_signals(signals);
        agent_serve(set + 1, count - 1);
    }
}

static int block_signals(void)
{
    static const int ours[] = {SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGUSR2};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        sigaddset(&set, ours[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    reboot(RB_DISABLE_CAD); /* ctrl-alt-del: SIGINT to us */
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static const struct agent_calls agent_calls = {take_identity, end_application};

static void begin_as_first_process(void)
{
    mount_all();
    open_console();
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
}

/* As poweroff, halt or reboot. */
static int ask_first_process(void)
{
    if (kill(1, SIGTERM) == 0)
        return 0;
    perror("guest-init");
    return 1;
}

int main(int argc, char **argv)
{
    uint64_t begun = boot_ms();
    int signals;

    guest_is_service = argc == 2 && strcmp(argv[1], "--service") == 0;
    if (getpid() == 1)
        begin_as_first_process();
    else if (!guest_is_service)
        return ask_first_process();
    signals = block_signals();
    sources_read(&config);
    /* interfaces that move into a container do so faster, and answer nobody before, when they were never up */
    if (!config.argument_count || strcmp(config.arguments[0], GUEST_CONTAINER) != 0)
        network_apply(&config);
    identity_apply(&config);
    agent_open(&agent_calls);
    ssh_restart(&config);
    start(begun);
    serve(signals);
}
