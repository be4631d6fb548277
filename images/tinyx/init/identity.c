/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this guest is: what must differ between two guests of one image, and between a snapshot and each guest restored
 * from it. Entropy comes first, so that everything made from it after a restore is new.
 */
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { USER_ID = 1000, HARDWARE_BYTES = 32 };

static void note(int *status, int result, const char *what)
{
    if (result >= 0)
        return;
    say("%s: %s", what, strerror(-result));
    if (*status == 0)
        *status = result;
}

/* Replaces path whole, with mode and owner. */
static int write_file(const char *path, mode_t mode, uid_t owner, const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    int status = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, size) != (ssize_t)size || fchmod(fd, mode) < 0 || fchown(fd, owner, owner) < 0)
        status = errno ? -errno : -EIO;
    close(fd);
    return status;
}

static void credit(int random, const uint8_t *bytes, size_t size)
{
    struct {
        struct rand_pool_info info;
        uint8_t bytes[CONFIG_SEED_MAX];
    } pool;

    pool.info.entropy_count = (int)size * 8;
    pool.info.buf_size = (int)size;
    memcpy(pool.bytes, bytes, size);
    ioctl(random, RNDADDENTROPY, &pool);
    explicit_bzero(&pool, sizeof(pool));
}

/* From the platform's seed and from the virtio entropy device, whichever there is; then the generator is made anew. */
static void apply_entropy(const struct config *config)
{
    int random = open("/dev/random", O_WRONLY | O_CLOEXEC);
    int hardware = open("/dev/hwrng", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uint8_t bytes[HARDWARE_BYTES];
    ssize_t n;

    if (random >= 0) {
        if (config->seed_size)
            credit(random, config->seed, config->seed_size);
        if (hardware >= 0 && (n = read(hardware, bytes, sizeof(bytes))) > 0)
            credit(random, bytes, (size_t)n);
        ioctl(random, RNDRESEEDCRNG);
        close(random);
    }
    if (hardware >= 0)
        close(hardware);
}

static int apply_clock(const struct config *config)
{
    struct timespec now = {(time_t)(config->time_ns / 1000000000), (long)(config->time_ns % 1000000000)};

    return config->time_ns && clock_settime(CLOCK_REALTIME, &now) < 0 ? -errno : 0;
}

static int apply_hostname(const struct config *config)
{
    const char *name = *config->hostname ? config->hostname : "tinyx";
    char hosts[256];
    int n, status;

    if (sethostname(name, strlen(name)) < 0)
        return -errno;
    n = snprintf(hosts, sizeof(hosts), "%s\n", name);
    status = write_file("/etc/hostname", 0644, 0, hosts, (size_t)n);
    n = snprintf(hosts, sizeof(hosts), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n", name);
    return status ?: write_file("/etc/hosts", 0644, 0, hosts, (size_t)n);
}

static int apply_machine_id(const struct config *config)
{
    unsigned char bytes[16];
    char text[34];

    if (*config->machine_id) {
        snprintf(text, sizeof(text), "%s\n", config->machine_id);
    } else {
        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
            return -EIO;
        for (size_t i = 0; i < sizeof(bytes); i++)
            snprintf(text + 2 * i, 3, "%02x", bytes[i]);
        text[32] = '\n';
    }
    return write_file("/etc/machine-id", 0444, 0, text, 33);
}

static int apply_resolver(const struct config *config)
{
    char text[CONFIG_DNS_MAX * (INET6_ADDRSTRLEN + 16)] = "", address[INET6_ADDRSTRLEN];
    size_t used = 0;

    for (unsigned i = 0; i < config->dns_count; i++) {
        inet_ntop(config->dns[i].family == 4 ? AF_INET : AF_INET6, config->dns[i].ip, address, sizeof(address));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "nameserver %s\n", address);
    }
    return write_file("/etc/resolv.conf", 0644, 0, text, used);
}

static int apply_users(const char *user, bool root)
{
    char text[256];
    int n, status;

    n = snprintf(text, sizeof(text), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    if (!root)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s:x:%d:%d::/home/%s:/bin/sh\n", user, USER_ID, USER_ID,
                      user);
    status = write_file("/etc/passwd", 0644, 0, text, (size_t)n);
    n = snprintf(text, sizeof(text), "root:x:0:\nnogroup:x:65534:\n");
    if (!root)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s:x:%d:\n", user, USER_ID);
    return status ?: write_file("/etc/group", 0644, 0, text, (size_t)n);
}

static int make_directory(const char *path, uid_t owner)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    return chown(path, owner, owner) < 0 ? -errno : 0;
}

/* The file is made anew from config alone: a restored guest must not let in who could enter the snapshot. */
static int apply_keys(const struct config *config, const char *user, bool root)
{
    uid_t owner = root ? 0 : USER_ID;
    char home[64], path[96], *text;
    size_t size = 1, used = 0;
    int status;

    unlink("/root/.ssh/authorized_keys");
    snprintf(home, sizeof(home), root ? "/root" : "/home/%s", user);
    mkdir("/home", 0755);
    status = make_directory(home, owner);
    snprintf(path, sizeof(path), "%s/.ssh", home);
    status = status ?: make_directory(path, owner);
    for (unsigned i = 0; i < config->key_count; i++)
        size += strlen(config->keys[i]) + 1;
    text = malloc(size);
    if (status || !text) {
        free(text);
        return status ?: -ENOMEM;
    }
    for (unsigned i = 0; i < config->key_count; i++)
        used += (size_t)sprintf(text + used, "%s\n", config->keys[i]);
    snprintf(path, sizeof(path), "%s/.ssh/authorized_keys", home);
    status = write_file(path, 0600, owner, text, used);
    free(text);
    return status;
}

int identity_apply(const struct config *config)
{
    /* a distribution's users are its own: keys are root's there */
    const char *user = *config->ssh_user && !guest_is_service ? config->ssh_user : "root";
    bool root = strcmp(user, "root") == 0;
    int status = 0;

    apply_entropy(config);
    note(&status, apply_clock(config), "the clock cannot be set");
    note(&status, apply_hostname(config), "host name");
    note(&status, apply_machine_id(config), "machine id");
    note(&status, apply_resolver(config), "/etc/resolv.conf");
    if (!guest_is_service)
        note(&status, apply_users(user, root), "users");
    note(&status, apply_keys(config, user, root), "ssh keys");
    return status;
}
