/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a unikernel takes to its first answer, step by step: for whoever works on the monitor (figures for users come
 * from `coracle bench`). Root; makes one tap in the network namespace it is run in.
 * bench VMM IMAGE MODE COUNT [MEMORY-MIB]   MODE: cold (exec to first RST), pool (LOAD to first RST), restore
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "monitor/monitor_client.h"

enum { STEPS = 12, SYN_EVERY_NS = 20000, TIMEOUT_MS = 5000 };

static const char *vmm, *image;
static uint64_t memory_bytes = 16 << 20;
static int packet_fd, kvm_fd, snapshot_fd = -1;
static const uint8_t guest_mac[6] = {2, 0, 0, 0, 9, 2}, template_mac[6] = {2, 0, 0, 0, 9, 9};
static uint8_t syn[54];
static const char parameters[] =
    "ip4=198.18.9.2/24 gw4=198.18.9.1 gwmac=02:00:00:00:09:01 -- iperf -s";

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, struct error *err)
{
    char text[512];

    fprintf(stderr, "%s: %s\n", what, err ? error_text(err, text, sizeof(text)) : strerror(errno));
    exit(1);
}

static int make_tap(void)
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "bench%d"};
    const int header = 12;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    auto_fd int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        die("tap", NULL);
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    at.sll_ifindex = (int)if_nametoindex(r.ifr_name);
    r.ifr_flags = IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &r) < 0)
        die("up", NULL);
    packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    if (packet_fd < 0 || bind(packet_fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        die("packet socket", NULL);
    return fd;
}

static uint16_t sum(const uint8_t *bytes, size_t size, uint32_t start)
{
    for (size_t i = 0; i < size; i += 2)
        start += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    while (start >> 16)
        start = (start & 0xffff) + (start >> 16);
    return (uint16_t)~start;
}

static void make_syn(void)
{
    const uint8_t host[6] = {2, 0, 0, 0, 9, 1};
    uint8_t *ip = syn + 14, *tcp = ip + 20;
    const uint8_t ip_header[20] = {0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 9, 1, 198, 18, 9, 2};
    const uint8_t tcp_header[20] = {0x40, 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff};

    memcpy(syn, guest_mac, 6);
    memcpy(syn + 6, host, 6);
    syn[12] = 8;
    memcpy(ip, ip_header, 20);
    memcpy(tcp, tcp_header, 20);
    uint16_t c = sum(ip, 20, 0);
    ip[10] = (uint8_t)(c >> 8), ip[11] = (uint8_t)c;
    uint32_t pseudo = 6 + 20;
    for (unsigned i = 12; i < 20; i += 2)
        pseudo += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    c = sum(tcp, 20, pseudo);
    tcp[16] = (uint8_t)(c >> 8), tcp[17] = (uint8_t)c;
}

/* Answers of the guest before. */
static void drain(void)
{
    uint8_t frame[64];

    while (recv(packet_fd, frame, sizeof(frame), 0) >= 0)
        ;
}

/* Sends SYNs to a closed port until a RST comes; when it came. */
static uint64_t wait_rst(void)
{
    uint64_t next = 0, begun = now_ns();
    uint8_t frame[2048];

    for (;;) {
        uint64_t now = now_ns();
        if (now - begun > 3000000000u)
            return 0;
        if (now >= next) {
            if (send(packet_fd, syn, sizeof(syn), 0) < 0 && errno != ENOBUFS && errno != EAGAIN)
                die("send", NULL);
            next = now + SYN_EVERY_NS;
        }
        struct sockaddr_ll from;
        socklen_t length = sizeof(from);
        ssize_t n = recvfrom(packet_fd, frame, sizeof(frame), 0, (struct sockaddr *)&from, &length);
        if (n >= 54 && from.sll_pkttype != PACKET_OUTGOING && frame[23] == 6 && (frame[47] & 4))
            return now_ns();
        if (n < 0)
            sched_yield();
    }
}

struct guest {
    pid_t pid;
    int setup, listener;
    char folder[64];
    struct monitor_reply prepared, loaded;
    uint64_t asked, spawned, prepare_answered, load_sent;
};

extern char **environ;

static void start(struct guest *g)
{
    char *const argv[] = {(char *)(uintptr_t)vmm, (char *)(uintptr_t)"--supervised", NULL};
    int ends[2];

    g->asked = now_ns();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        die("socketpair", NULL);
    int theirs = fcntl(ends[1], F_DUPFD_CLOEXEC, 100);
    g->pid = vfork();
    if (g->pid == 0) {
        dup2(theirs, 3);
        execve(vmm, argv, environ);
        _exit(127);
    }
    g->spawned = now_ns();
    close(ends[1]);
    close(theirs);
    g->setup = fcntl(ends[0], F_DUPFD_CLOEXEC, 50);
    close(ends[0]);
}

static void prepare(struct guest *g)
{
    struct monitor_prepare p = {
        .memory_bytes = memory_bytes, .vcpus = 1, .boot = MONITOR_BOOT_UNIKERNEL, .nic_count = 1};
    struct error *err = NULL;

    if (monitor_send_prepare(g->setup, &p, kvm_fd, &err) < 0 ||
        monitor_wait(g->setup, TIMEOUT_MS, &g->prepared, &err) < 0)
        die("PREPARE", err);
    g->prepare_answered = now_ns();
}

static void load(struct guest *g, int kernel, int tap, uint32_t flags)
{
    struct monitor_load l = {.flags = flags, .boot = MONITOR_BOOT_UNIKERNEL, .nic_count = 1, .name = "bench"};
    auto_fd int exit_fd = memfd_create("exit", MFD_CLOEXEC);
    struct error *err = NULL;
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    g->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "bench-%d", g->pid); /* abstract: nothing to clean up */
    if (bind(g->listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(g->listener, 4) < 0)
        die("listen", NULL);
    l.nics[0].queues = 1;
    l.nics[0].backend = tap >= 0 ? MONITOR_NET_TAP : MONITOR_NET_NONE;
    memcpy(l.nics[0].mac, tap >= 0 ? guest_mac : template_mac, 6);
    const int fds[4] = {exit_fd, g->listener, kernel, tap};
    g->load_sent = now_ns();
    if (monitor_send_load(g->setup, &l, parameters, fds, tap >= 0 ? 4 : 3, &err) < 0 ||
        monitor_wait(g->setup, TIMEOUT_MS, &g->loaded, &err) < 0)
        die("LOAD", err);
    close_fd(g->listener);
}

static void stop(struct guest *g)
{
    kill(g->pid, SIGKILL);
    waitpid(g->pid, NULL, 0);
    close(g->setup);
}

static int ask_snapshot(const struct guest *g)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int file = memfd_create("snapshot", MFD_CLOEXEC);
    auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct error *err = NULL;

    snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "bench-%d", g->pid);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        die("connect", NULL);
    if (monitor_snapshot(fd, file, TIMEOUT_MS, &err) < 0)
        die("SNAPSHOT", err);
    return file;
}

static void show_memory(pid_t pid)
{
    char path[64], line[256];

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    auto_file FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, "Rss", 3) == 0 || strncmp(line, "Pss:", 4) == 0 || strncmp(line, "Private_D", 9) == 0 ||
            strncmp(line, "Private_C", 9) == 0)
            fputs(line, stdout);
    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    auto_file FILE *s = fopen(path, "re");
    while (s && getenv("BENCH_SMAPS") && fgets(line, sizeof(line), s))
        if (strchr("0123456789abcdef", line[0]) || strncmp(line, "Private_Dirty", 13) == 0)
            fputs(line, stdout);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static const char *const names[STEPS] = {"spawn",  "to PREPARE", "memory",    "VM",      "prepared", "answer",
                                         "to LOAD", "loaded",     "sandboxed", "entered", "first RST", "in all"};
static uint64_t samples[STEPS][4096];

static void take(unsigned n, const struct guest *g, uint64_t rst, bool pooled)
{
    const uint64_t *p = g->prepared.times, *l = g->loaded.times;
    const uint64_t points[STEPS] = {g->asked, g->spawned, p[0], p[1], p[2],  p[3],
                                    g->prepare_answered, l[0], l[1], l[2], l[3], rst};

    for (unsigned i = 0; i + 1 < STEPS; i++)
        samples[i][n] = points[i + 1] - points[i];
    if (pooled)
        samples[6][n] = l[0] - g->load_sent;
    samples[STEPS - 1][n] = rst - (pooled ? g->load_sent : g->asked);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    vmm = argv[1], image = argv[2];
    bool cold = strcmp(argv[3], "cold") == 0, restore = strcmp(argv[3], "restore") == 0;
    unsigned count = (unsigned)atoi(argv[4]);
    if (argc > 5)
        memory_bytes = (uint64_t)atoi(argv[5]) << 20;
    int tap = make_tap();
    signal(SIGPIPE, SIG_IGN);
    make_syn();
    kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    auto_fd int kernel = open(image, O_RDONLY | O_CLOEXEC);
    if (restore) {
        struct guest g = {0};
        start(&g);
        prepare(&g);
        load(&g, kernel, -1, MONITOR_LOAD_WAIT);
        snapshot_fd = ask_snapshot(&g);
        stop(&g);
    }
    for (unsigned i = 0; i < count && i < 4096; i++) {
        struct guest g = {0};
        drain();
        start(&g);
        prepare(&g);
        if (!cold)
            usleep(20000); /* as in a pool */
        load(&g, restore ? snapshot_fd : kernel, tap, restore ? MONITOR_LOAD_RESTORE : 0);
        uint64_t rst = wait_rst();
        if (!rst)
            die("no RST", NULL);
        take(i, &g, rst, !cold);
        if (i + 1 == count) {
            usleep(300000);
            show_memory(g.pid);
        }
        stop(&g);
        usleep(10000);
    }
    for (unsigned i = 0; i < STEPS; i++) {
        qsort(samples[i], count, sizeof(samples[i][0]), compare);
        printf("%-12s min %7.1f median %7.1f p90 %7.1f us\n", names[i], (double)samples[i][0] / 1000,
               (double)samples[i][count / 2] / 1000, (double)samples[i][count * 9 / 10] / 1000);
    }
    return 0;
}
