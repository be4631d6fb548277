/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks for KVM, its flavour, taps and QEMU. KVM is tried by `coracle-vmm --probe`, which makes a machine and runs a
 * few instructions in it: a device file or a processor flag says little about what works. Its answer is one line of
 * JSON of our own, of which the few words needed are looked for. One thread, joined by the first who asks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/host.h"

enum { PROBE_TIMEOUT_MS = 5000, OUTPUT_MAX = 2048 };

struct host {
    pthread_t thread;
    pthread_mutex_t lock;
    bool running;
    struct host_facts facts; /* only the fields of this file */
};

/* Reads until the end or the time is over. */
static void read_all(int fd, char *text, size_t size)
{
    size_t used = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (used == size - 1 || poll(&p, 1, PROBE_TIMEOUT_MS) <= 0)
            break;
        ssize_t n = read(fd, text + used, size - 1 - used);
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    text[used] = '\0';
}

/* Runs a program of the host's and returns what it printed; 0 when it ended well. */
static int run(char *const argv[], char *text, size_t size)
{
    posix_spawn_file_actions_t actions;
    auto_fd int out = -1, in = -1;
    int ends[2], status = 0, r;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    out = ends[0];
    in = ends[1];
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, in, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, (char *[]){(char *)"PATH=/usr/bin:/bin", NULL});
    posix_spawn_file_actions_destroy(&actions);
    if (r)
        return -r;
    in = close_fd(in);
    read_all(out, text, size);
    kill(pid, SIGKILL); /* it has ended, unless it hangs */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return text[0] ? 0 : -EIO;
}

/* Copies the string value of "key" in one flat JSON object; "" when it is not there. */
static void string_of(const char *json, const char *key, char *ret, size_t size)
{
    char pattern[32];
    const char *at;
    size_t n = 0;

    snprintf(pattern, sizeof(pattern), "\"%s\"", key);
    at = strstr(json, pattern);
    at = at ? strchr(at + strlen(pattern), ':') : NULL;
    at = at ? at + 1 + strspn(at + 1, " ") : NULL;
    if (at && *at == '"')
        for (at++; at[n] && at[n] != '"' && n < size - 1; n++)
            ret[n] = at[n];
    ret[n] = '\0';
}

static bool true_of(const char *json, const char *key)
{
    char pattern[32];
    const char *at;

    snprintf(pattern, sizeof(pattern), "\"%s\"", key);
    at = strstr(json, pattern);
    at = at ? strchr(at + strlen(pattern), ':') : NULL;
    return at && strncmp(at + 1 + strspn(at + 1, " "), "true", 4) == 0;
}

static void look_at_kvm(const struct launcher *l, struct host_facts *f)
{
    char path[4096], text[OUTPUT_MAX] = "", ring0[16];
    int r;

    if (l->options.no_kvm) {
        snprintf(f->kvm_why_not, sizeof(f->kvm_why_not), "host.conf says kvm = no");
        return;
    }
    if (access("/dev/kvm", F_OK) < 0) {
        snprintf(f->kvm_why_not, sizeof(f->kvm_why_not), "there is no /dev/kvm");
        return;
    }
    snprintf(path, sizeof(path), "%s/coracle-vmm", l->options.libexec_dir);
    r = run((char *[]){path, (char *)"--probe", NULL}, text, sizeof(text));
    if (r < 0) {
        snprintf(f->kvm_why_not, sizeof(f->kvm_why_not), "coracle-vmm cannot try KVM: %s", strerror(-r));
        return;
    }
    f->kvm_present = true_of(text, "kvm");
    string_of(text, "flavour", f->kvm_flavour, sizeof(f->kvm_flavour));
    string_of(text, "why_not", f->kvm_why_not, sizeof(f->kvm_why_not));
    string_of(text, "ring0", ring0, sizeof(ring0));
    f->kvm_linux = f->kvm_present && strcmp(ring0, "native") == 0;
}

/* "QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7+deb12u12)" */
static void look_at_qemu(struct host_facts *f)
{
    char text[OUTPUT_MAX] = "";

    if (run((char *[]){(char *)"qemu-system-x86_64", (char *)"--version", NULL}, text, sizeof(text)) < 0 ||
        sscanf(text, "QEMU emulator version %31[0-9.]", f->qemu) != 1)
        f->qemu[0] = '\0';
}

static void *look(void *context)
{
    struct launcher *l = context;
    struct host_facts *f = &l->host->facts;

    f->tun = access("/dev/net/tun", F_OK) == 0;
    f->vhost_net = access("/dev/vhost-net", F_OK) == 0;
    look_at_kvm(l, f);
    look_at_qemu(f);
    log_line(LOG_LEVEL_INFO, NULL, "KVM: %s%s, Linux guests on it: %s; QEMU: %s", f->kvm_present ? "" : "no, ",
             f->kvm_present ? f->kvm_flavour : f->kvm_why_not, f->kvm_linux ? "yes" : "no",
             f->qemu[0] ? f->qemu : "not installed");
    return NULL;
}

void host_begin(struct launcher *l)
{
    struct host *h = calloc(1, sizeof(*h));

    l->host = h;
    if (!h)
        return;
    pthread_mutex_init(&h->lock, NULL);
    h->running = pthread_create(&h->thread, NULL, look, l) == 0;
}

static void settle(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    if (h->running)
        pthread_join(h->thread, NULL);
    h->running = false;
    pthread_mutex_unlock(&h->lock);
}

void host_facts_fill(struct launcher *l, struct host_facts *ret)
{
    const struct host_facts *f;

    if (!l->host)
        return;
    settle(l->host);
    f = &l->host->facts;
    ret->kvm_present = f->kvm_present;
    ret->kvm_linux = f->kvm_linux;
    ret->vhost_net = f->vhost_net;
    ret->tun = f->tun;
    memcpy(ret->kvm_flavour, f->kvm_flavour, sizeof(ret->kvm_flavour));
    memcpy(ret->kvm_why_not, f->kvm_why_not, sizeof(ret->kvm_why_not));
    memcpy(ret->qemu, f->qemu, sizeof(ret->qemu));
}

void host_end(struct launcher *l)
{
    if (!l->host)
        return;
    settle(l->host);
    free(l->host);
    l->host = NULL;
}
