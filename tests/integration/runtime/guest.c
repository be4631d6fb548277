/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program inside the tests' containers (static, musl): friendly and hostile commands, one per name. Each prints
 * what it saw; what it must not be able to do it tries in earnest and prints "DONE" for, so that a test looks for
 * "refused".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int clock_command(char **argv)
{
    struct timespec now;

    (void)argv;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%llu\n", (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec);
    return 0;
}

static int sleep_command(char **argv)
{
    printf("sleeping\n");
    fflush(stdout);
    sleep((unsigned)atoi(argv[0]));
    return 0;
}

static int show_command(char **argv)
{
    for (; *argv; argv++) {
        char text[4096];
        int fd = open(*argv, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

        if (n < 0)
            printf("%s: %s\n", *argv, strerror(errno));
        else
            printf("%s: %.*s\n", *argv, (int)n, text);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static int exit_command(char **argv)
{
    exit(atoi(argv[0]));
}

static int kill_command(char **argv)
{
    raise(atoi(argv[0]));
    return 0;
}

static void on_term(int signal)
{
    printf("signal %d\n", signal);
    fflush(stdout);
    _exit(42);
}

static int trap_command(char **argv)
{
    (void)argv;
    signal(SIGTERM, on_term);
    signal(SIGUSR1, on_term);
    printf("ready\n");
    fflush(stdout);
    while (pause() < 0)
        ;
    return 0;
}

/* Who and where: uid, gid, groups, cwd, host name, environment, capabilities, descriptors. */
static int self_command(char **argv)
{
    extern char **environ;
    char text[4096], line[256];
    gid_t groups[64];
    int n = getgroups(64, groups);
    FILE *f = fopen("/proc/self/status", "re");
    DIR *dir = opendir("/proc/self/fd");

    (void)argv;
    printf("uid %u gid %u groups", getuid(), getgid());
    for (int i = 0; i < n; i++)
        printf(" %u", groups[i]);
    printf("\ncwd %s\n", getcwd(text, sizeof(text)) ? text : strerror(errno));
    gethostname(text, sizeof(text));
    printf("hostname %s\npid %d sid %d\n", text, getpid(), getsid(0));
    for (char **env = environ; *env; env++)
        printf("env %s\n", *env);
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10) || !strncmp(line, "Seccomp:", 8))
            printf("%s", line);
    printf("descriptors");
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(dir) && (!f || atoi(e->d_name) != fileno(f)))
            printf(" %s", e->d_name);
    printf("\n");
    return 0;
}

static const char *type_of(const char *path)
{
    struct statfs fs;

    if (statfs(path, &fs))
        return strerror(errno);
    switch ((unsigned long)fs.f_type) {
    case 0x9fa0:
        return "proc";
    case 0x62656572:
        return "sysfs";
    case 0x01021994:
        return "tmpfs";
    case 0x1cd1:
        return "devpts";
    case 0x794c7630:
        return "overlay";
    default:
        return "other";
    }
}

/* Which file systems lie where. */
static int types_command(char **argv)
{
    for (; *argv; argv++)
        printf("%s %s\n", *argv, type_of(*argv));
    return 0;
}

/* write PATH TEXT: creates when it is not there. */
static int write_command(char **argv)
{
    for (; argv[0] && argv[1]; argv += 2) {
        int fd = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
        ssize_t size = (ssize_t)strlen(argv[1]);

        if (fd < 0 || write(fd, argv[1], (size_t)size) != size)
            printf("%s: refused: %s\n", argv[0], strerror(errno));
        else
            printf("%s: DONE\n", argv[0]);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

/* Lines of a given length, then of another: for the log. */
static int lines_command(char **argv)
{
    int n = atoi(argv[0]), size = atoi(argv[1]);

    for (int i = 0; i < n; i++) {
        printf("%06d", i);
        for (int k = 6; k < size; k++)
            putchar('a' + k % 26);
        putchar('\n');
    }
    fflush(stdout);
    usleep(100000); /* two streams have no order: let the first be read */
    fprintf(stderr, "to stderr\n");
    usleep(100000);
    printf("no newline at the end");
    return 0;
}

static void report(const char *what, long result)
{
    if (result < 0)
        printf("%s: refused: %s\n", what, strerror(errno));
    else
        printf("%s: DONE\n", what);
}

static int reader(const char *path, int flags)
{
    int fd = open(path, flags);

    if (fd >= 0)
        close(fd);
    return fd;
}

/* CVE-2019-5736: the runtime's own program through /proc. */
static int overwrite_command(char **argv)
{
    char link[256];
    DIR *dir;

    (void)argv;
    report("open /proc/1/exe for writing", reader("/proc/1/exe", O_WRONLY));
    report("open /proc/1/exe for reading", reader("/proc/1/exe", O_RDONLY));
    report("open /proc/1/exe as a path", reader("/proc/1/exe", O_PATH));
    report("readlink /proc/1/exe", readlink("/proc/1/exe", link, sizeof(link)));
    report("open /proc/1/mem", reader("/proc/1/mem", O_RDWR));
    report("read /proc/1/environ", reader("/proc/1/environ", O_RDONLY));
    report("list /proc/1/fd", (dir = opendir("/proc/1/fd")) ? 0 : -1);
    report("enter /proc/1/root", chdir("/proc/1/root"));
    report("enter /proc/1/cwd", chdir("/proc/1/cwd"));
    report("ptrace 1", ptrace(PTRACE_ATTACH, 1, NULL, NULL));
    report("seize 1", ptrace(PTRACE_SEIZE, 1, NULL, NULL));
    kill(1, SIGKILL);
    kill(1, SIGTERM);
    kill(1, SIGSTOP);
    usleep(50000);
    report("still alive", 0);
    return 0;
}

/* Lies in wait for a process that comes into the container from outside and whose program could be opened. */
static int lurk_command(char **argv)
{
    unsigned long caught = 0, looked = 0;
    time_t end = time(NULL) + atoi(argv[0]);

    while (time(NULL) < end) {
        for (int pid = 1; pid < 200; pid++) {
            char path[64], link[128];
            ssize_t n;

            if (pid == getpid())
                continue;
            snprintf(path, sizeof(path), "/proc/%d/exe", pid);
            n = readlink(path, link, sizeof(link) - 1);
            link[n > 0 ? n : 0] = 0;
            looked += n > 0;
            if (n > 0 && strstr(link, "coracle-init"))
                caught++;
            if (n > 0 && strcmp(link, "/guest") && reader(path, O_WRONLY) >= 0)
                caught++;
        }
    }
    printf("looked at %lu, caught %lu\n", looked, caught);
    return 0;
}

/* New user namespaces and what they would open (CVE-2022-0492). */
static int escape_command(char **argv)
{
    static const int flags[] = {CLONE_NEWUSER, CLONE_NEWUSER | CLONE_NEWNS,
                                CLONE_NEWNS,   CLONE_NEWNET,
                                CLONE_NEWPID,  CLONE_NEWIPC,
                                CLONE_NEWUTS,  CLONE_NEWCGROUP};
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    char name[64];

    (void)argv;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        long pid;

        snprintf(name, sizeof(name), "unshare 0x%x", (unsigned)flags[i]);
        report(name, unshare(flags[i]));
        snprintf(name, sizeof(name), "clone 0x%x", (unsigned)flags[i]);
        pid = syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0)
            _exit(0);
        report(name, pid);
    }
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    if (pid == 0)
        _exit(0);
    report("clone3 with a user namespace", pid);
    report("setns", setns(reader("/proc/self/ns/user", O_RDONLY), 0));
    report("mount cgroup", mount("cgroup", "/tmp", "cgroup", 0, "memory"));
    report("mount cgroup2", mount("cgroup2", "/tmp", "cgroup2", 0, NULL));
    report("mount proc", mount("proc", "/tmp", "proc", 0, NULL));
    report("mount tmpfs", mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
    report("remount /", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    report("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    report("umount /proc/kcore", umount2("/proc/kcore", MNT_DETACH));
    report("umount /proc", umount2("/proc", MNT_DETACH));
    report("umount /", umount2("/", MNT_DETACH));
    report("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    report("open_tree", syscall(SYS_open_tree, -100, "/", 1));
    report("fsopen", syscall(SYS_fsopen, "proc", 0));
    report("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    report("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
    report("bpf", syscall(SYS_bpf, 0, 0, 0));
    report("io_uring", syscall(SYS_io_uring_setup, 1, 0));
    report("userfaultfd", syscall(SYS_userfaultfd, 0));
    report("perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    report("mknod of a disk", mknod("/dev/shm/disk", S_IFBLK | 0600, makedev(254, 0)));
    report("mknod of memory", mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)));
    /* Anybody may make an overlay whiteout; only Landlock says no. */
    report("mknod of a whiteout", mknod("/dev/shm/whiteout", S_IFCHR | 0600, makedev(0, 0)));
    close(open("/dev/shm/moved", O_WRONLY | O_CREAT, 0600));
    report("rename that leaves a whiteout",
           syscall(SYS_renameat2, AT_FDCWD, "/dev/shm/moved", AT_FDCWD, "/dev/shm/there", 4 /* RENAME_WHITEOUT */));
    report("AF_ALG socket", socket(38, SOCK_SEQPACKET, 0));
    report("AF_VSOCK socket", socket(40, SOCK_STREAM, 0));
    report("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    report("sethostname", sethostname("evil", 4));
    report("raise capabilities", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
    report("oom_score_adj -1000", write(reader("/proc/self/oom_score_adj", O_WRONLY), "-1000", 5));
    return 0;
}

static int procwrite_command(char **argv)
{
    static const char *const paths[] = {"/proc/sys/kernel/core_pattern",
                                        "/proc/sys/kernel/modprobe",
                                        "/proc/sys/vm/overcommit_memory",
                                        "/proc/sysrq-trigger",
                                        "/proc/irq/default_smp_affinity",
                                        "/sys/kernel/uevent_helper",
                                        "/sys/fs/cgroup/release_agent",
                                        "/proc/sys/net/ipv4/ip_forward",
                                        "/proc/1/attr/exec",
                                        "/proc/1/oom_score_adj",
                                        "/proc/1/comm",
                                        "/proc/bus/pci/devices",
                                        "/sys/class/net/lo/mtu"};

    (void)argv;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int fd = open(paths[i], O_WRONLY);
        long result = fd < 0 ? -1 : write(fd, "1", 1);

        report(paths[i], result);
    }
    return 0;
}

/* Everything masked must read as nothing. */
static int masked_command(char **argv)
{
    static const char *const paths[] = {"/proc/kcore",      "/proc/keys", "/proc/timer_list",  "/proc/slabinfo",
                                        "/proc/interrupts", "/proc/kmsg", "/proc/vmallocinfo", "/proc/kpageflags"};
    static const char *const directories[] = {"/proc/acpi", "/proc/scsi", "/sys/firmware", "/proc/pressure"};
    char byte;

    (void)argv;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int fd = open(paths[i], O_RDONLY | O_NONBLOCK);

        printf("%s: %s\n", paths[i], fd < 0 ? "refused" : read(fd, &byte, 1) > 0 ? "LEAKS" : "empty");
    }
    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        DIR *dir = opendir(directories[i]);
        int n = 0;

        while (dir && readdir(dir))
            n++;
        printf("%s: %s\n", directories[i], !dir ? "refused" : n > 2 ? "LEAKS" : "empty");
    }
    return 0;
}

/* Uses memory, MiB by MiB; a child does, so that the application can tell how that ended. */
static int memory_command(char **argv)
{
    long mib = atol(argv[0]);
    pid_t pid = argv[1] ? fork() : 0;
    int status = 0;

    if (pid == 0) {
        for (long i = 0; i < mib; i++) {
            char *block = malloc(1 << 20);

            if (!block)
                return 3;
            memset(block, 1, 1 << 20);
        }
        printf("used %ld MiB: DONE\n", mib);
        return 0;
    }
    waitpid(pid, &status, 0);
    printf("child: %s %d\n", WIFSIGNALED(status) ? "killed by" : "ended with",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 0;
}

static int forks_command(char **argv)
{
    int n = 0, wanted = atoi(argv[0]);

    for (; n < wanted; n++) {
        pid_t pid = fork();

        if (pid < 0)
            break;
        if (pid == 0) {
            pause();
            _exit(0);
        }
    }
    printf("forked %d: %s\n", n, strerror(errno));
    return 0;
}

/* Burns for a while, tells the CPU time it got in per cent of the wall time. */
static int burn_command(char **argv)
{
    struct timespec begin, now, cpu;
    double wall, limit = atof(argv[0]);

    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        for (volatile int i = 0; i < 100000; i++)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
        wall = (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
    } while (wall < limit);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    printf("%d\n", (int)(((double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9) / wall * 100));
    return 0;
}

static int fill_command(char **argv)
{
    static char block[1 << 20];
    int fd = open(argv[0], O_WRONLY | O_CREAT, 0644), n = 0;

    while (fd >= 0 && n < 4096 && write(fd, block, sizeof(block)) == (ssize_t)sizeof(block))
        n++;
    printf("wrote %d MiB: %s\n", n, strerror(errno));
    return 0;
}

/* A terminal: its device number, and echo of what is typed. */
static int terminal_command(char **argv)
{
    char line[128];
    struct stat st;

    (void)argv;
    fstat(0, &st);
    printf("terminal %d, device %u:%u, type %s, foreground %d\n", isatty(0) && isatty(1) && isatty(2),
           major(st.st_rdev), minor(st.st_rdev) > 100, type_of("/proc/self/fd/0"), tcgetpgrp(0) == getpgrp());
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin))
        printf("read %s", line);
    return 0;
}

static int cat_command(char **argv)
{
    char line[256];

    (void)argv;
    while (fgets(line, sizeof(line), stdin))
        fputs(line, stdout);
    printf("end of file\n");
    return 0;
}

/* For each number: the errno of that system call with arguments that are wrong for every one. */
static int syscalls_command(char **argv)
{
    char *save, *word = strtok_r(argv[0], ",", &save);

    for (; word; word = strtok_r(NULL, ",", &save)) {
        long result = syscall(atoi(word), -1, -1, -1, -1, -1, -1);

        printf("%s:%d ", word, result < 0 ? errno : 0);
    }
    printf("\n");
    return 0;
}

/* A call of another architecture. */
static int foreign_command(char **argv)
{
    long result;

    if (!strcmp(argv[0], "x32"))
        __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000L + 39) : "rcx", "r11", "memory");
    else
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
    printf("result %ld: DONE\n", result);
    return 0;
}

/* What ordinary programs do must work. */
static void *thread_main(void *argument)
{
    return argument;
}

static int ordinary_command(char **argv)
{
    pthread_t thread;
    int ends[2], fd;
    struct ifreq request = {.ifr_name = "lo"};

    (void)argv;
    report("thread", pthread_create(&thread, NULL, thread_main, NULL) ? -1 : pthread_join(thread, NULL));
    report("pipe", pipe(ends));
    report("loopback", (fd = socket(AF_INET, SOCK_DGRAM, 0)) < 0 ? -1 : ioctl(fd, SIOCGIFFLAGS, &request));
    printf("loopback up: %d\n", !!(request.ifr_flags & IFF_UP));
    report("ping socket", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    fd = socket(AF_INET, SOCK_STREAM, 0);
    report("port 80", bind(fd, (struct sockaddr *)&address, sizeof(address)));
    report("/dev/null", reader("/dev/null", O_RDWR));
    report("/dev/urandom", reader("/dev/urandom", O_RDONLY));
    report("/dev/shm", open("/dev/shm/file", O_RDWR | O_CREAT, 0600));
    report("/dev/pts", reader("/dev/ptmx", O_RDWR | O_NOCTTY));
    report("/dev/stdout", reader("/dev/stdout", O_WRONLY));
    report("/proc/meminfo", reader("/proc/meminfo", O_RDONLY));
    report("/proc/net/dev", reader("/proc/net/dev", O_RDONLY));
    report("/sys/class/net", reader("/sys/class/net/lo/address", O_RDONLY));
    report("memfd", memfd_create("x", 0));
    report("epoll", epoll_create1(0));
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    report("fork", waitpid(pid, NULL, 0));
    return 0;
}

/* Many short processes: the init must reap those that lost their parent. */
static int orphans_command(char **argv)
{
    (void)argv;
    for (int i = 0; i < 50; i++)
        if (!fork()) {
            if (!fork())
                usleep(1000);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    usleep(200000);
    int left = 0;
    DIR *dir = opendir("/proc");

    for (struct dirent *e; dir && (e = readdir(dir));)
        left += e->d_name[0] >= '0' && e->d_name[0] <= '9';
    printf("processes %d\n", left);
    return 0;
}

/* Takes all there is of what the kernel limits per user, says how much that was, and keeps it. */
static int exhaust_command(char **argv)
{
    struct mq_attributes {
        long flags, maxmsg, msgsize, curmsgs, reserved[4];
    } attributes = {.maxmsg = 10, .msgsize = 8192};
    siginfo_t info = {.si_code = SI_QUEUE};
    int watchers = 0, queues = 0, signals = 0;
    sigset_t blocked;
    char name[16];

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    while (inotify_init1(0) >= 0)
        watchers++;
    do
        snprintf(name, sizeof(name), "q%d", queues);
    while (syscall(SYS_mq_open, name, O_RDWR | O_CREAT, 0600, &attributes) >= 0 && ++queues < 500);
    while (signals < 200000 && !syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN, &info))
        signals++;
    printf("inotify %d, queues %d, signals %d.\n", watchers, queues, signals);
    fflush(stdout);
    sleep((unsigned)atoi(argv[0]));
    return 0;
}

/* Locks a file of the image, watches its directory, and says what it got and saw within the time. */
static int shared_command(char **argv)
{
    int file = open("/guest", O_RDONLY), watch = inotify_init1(IN_NONBLOCK);
    char events[4096];
    ssize_t seen = 0, n;

    inotify_add_watch(watch, "/etc", IN_OPEN | IN_ACCESS);
    inotify_add_watch(watch, "/guest", IN_OPEN | IN_ACCESS);
    printf("lock %d\n", flock(file, LOCK_EX | LOCK_NB) ? errno : 0);
    fflush(stdout);
    if (argv[1]) /* the other one: touches everything */
        for (int i = 0; i < 10; i++) {
            close(open("/etc/passwd", O_RDONLY));
            n = read(open("/guest", O_RDONLY), events, sizeof(events));
        }
    usleep((useconds_t)atoi(argv[0]) * 1000);
    while (!argv[1] && (n = read(watch, events, sizeof(events))) > 0)
        seen += n;
    printf("saw %zd\n", seen);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(char **argv);
} commands[] = {{"clock", clock_command},       {"sleep", sleep_command},         {"show", show_command},
                {"exit", exit_command},         {"kill", kill_command},           {"trap", trap_command},
                {"self", self_command},         {"types", types_command},         {"write", write_command},
                {"lines", lines_command},       {"overwrite", overwrite_command}, {"lurk", lurk_command},
                {"escape", escape_command},     {"procwrite", procwrite_command}, {"masked", masked_command},
                {"memory", memory_command},     {"forks", forks_command},         {"burn", burn_command},
                {"fill", fill_command},         {"terminal", terminal_command},   {"cat", cat_command},
                {"syscalls", syscalls_command}, {"foreign", foreign_command},     {"ordinary", ordinary_command},
                {"orphans", orphans_command},   {"exhaust", exhaust_command},     {"shared", shared_command}};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argv + 2);
    fprintf(stderr, "no such command\n");
    return 2;
}
