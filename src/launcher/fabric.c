/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fabric's namespace and its virtual links. Called by the launcher: opened by the main thread before there are
 * others, links changed by the main thread, instances wired by the workers (wire.c).
 *
 * Theory: the kernel's state is the truth that survives; the table of links here is filled by the daemon's LINK_ADDs
 * after each connect, which find the bridges that are there already. A bridge's interface name is a hash of the link's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "launcher/fabric_private.h"
#include "model/naming.h"

static void raise_index(void *context, uint32_t index, const char *name, const char *kind)
{
    uint32_t *next = context;

    if (index < FABRIC_FIRST_INDEX && index >= *next)
        *next = index + 1;
}

/* Path of sysctl key in the calling thread's network namespace; a key this kernel lacks needs no setting. */
static int write_sysctl(const char *path, const char *value, struct error **err)
{
    auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        return error_set_errno(err, errno, "START_FAILED", "fabric: writing %s to %s", value, path);
    return 0;
}

/* What the fabric must not do by itself: pass frames to a firewall, route, or take addresses from a router. */
static int quiet(struct error **err)
{
    static const char *const keys[] = {
        "/proc/sys/net/bridge/bridge-nf-call-iptables",
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        "/proc/sys/net/bridge/bridge-nf-call-arptables",
        "/proc/sys/net/ipv6/conf/all/forwarding",
        "/proc/sys/net/ipv6/conf/all/accept_ra",
        "/proc/sys/net/ipv6/conf/default/accept_ra",
        "/proc/sys/net/ipv4/ip_forward",
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        int r = write_sysctl(keys[i], "0", err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Writes a sysctl of the fabric, whatever namespace the thread is in. */
static int write_in_fabric(const struct fabric *f, const char *path, const char *value, struct error **err)
{
    auto_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int r;

    if (home < 0 || setns(f->netns_fd, CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "START_FAILED", "entering the fabric");
    r = write_sysctl(path, value, err);
    if (setns(home, CLONE_NEWNET) < 0)
        abort(); /* a worker that stays in the fabric would make everything there */
    return r;
}

/* Ports of bridges have no addresses of their own. With IPv6 each would still have a multicast route, in one list that
 * is walked for each that comes and goes (0.8 ms with 2,000), and would tell its instance of groups it joins. */
static int ports_without_ipv6(const struct fabric *f, struct error **err)
{
    return write_in_fabric(f, "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", err);
}

int fabric_allow_ipv6(const struct fabric *f, const char *device, struct error **err)
{
    char path[80];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%.15s/disable_ipv6", device);
    return write_in_fabric(f, path, "0", err);
}

static bool is_namespace(int fd)
{
    struct statfs fs;

    return fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

static int make_namespace(const char *path, struct error **err)
{
    auto_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    auto_fd int file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r;

    if (home < 0 || file < 0)
        return error_set_errno(err, errno, errno == ENOSPC ? "NO_SPACE" : "START_FAILED", "making the fabric at %s",
                               path);
    if (unshare(CLONE_NEWNET) < 0)
        return error_set_errno(err, errno, "START_FAILED", "making the fabric's network namespace");
    r = quiet(err);
    if (r == 0 && mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) < 0)
        r = error_set_errno(err, errno, "START_FAILED", "mounting the fabric's namespace at %s", path);
    if (setns(home, CLONE_NEWNET) < 0)
        r = error_set_errno(err, errno, "INTERNAL", "leaving the fabric");
    return r;
}

static void close_thread_socket(void *value)
{
    close_fd((int)(intptr_t)value - 1);
}

static int restore_links(struct fabric *f, int fd, struct error **err);

static int prepare(struct fabric *f, struct error **err)
{
    struct netlink_batch batch;
    int fd, r;

    f->next_index = 2;
    r = fabric_socket(f, &fd, err);
    if (r < 0)
        return r;
    netlink_begin(&batch);
    netlink_up(&batch, 1, NULL);
    r = netlink_commit(fd, &batch, err);
    if (r == 0)
        r = netlink_list(fd, raise_index, &f->next_index, err);
    return r < 0 ? r : restore_links(f, fd, err);
}

int fabric_open(int run_fd, const char *run_dir, struct fabric **ret_fabric, struct error **err)
{
    struct fabric *f = calloc(1, sizeof(*f));
    char path[PATH_MAX];
    int r = 0;

    if (!f)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the fabric");
    snprintf(path, sizeof(path), "%s/fabric", run_dir);
    f->run_fd = run_fd;
    pthread_rwlock_init(&f->lock, NULL);
    pthread_key_create(&f->socket_key, close_thread_socket);
    f->netns_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!is_namespace(f->netns_fd)) {
        f->netns_fd = close_fd(f->netns_fd);
        r = make_namespace(path, err);
        if (r == 0)
            f->netns_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (r == 0 && !is_namespace(f->netns_fd))
            r = error_set(err, EIO, "START_FAILED", "%s is no network namespace although it was mounted", path);
    }
    if (r == 0)
        r = ports_without_ipv6(f, err);
    if (r == 0)
        r = prepare(f, err);
    if (r == 0)
        r = guard_open(f->netns_fd, &f->guard, err);
    if (r < 0) {
        fabric_close(f);
        return r;
    }
    *ret_fabric = f;
    return 0;
}

void fabric_close(struct fabric *f)
{
    if (!f)
        return;
    close_thread_socket(pthread_getspecific(f->socket_key));
    pthread_key_delete(f->socket_key);
    guard_close(f->guard);
    close_fd(f->netns_fd);
    free(f->links);
    pthread_rwlock_destroy(&f->lock);
    free(f);
}

int fabric_netns_fd(const struct fabric *f)
{
    return f->netns_fd;
}

int fabric_socket(struct fabric *f, int *ret_fd, struct error **err)
{
    int fd = (int)(intptr_t)pthread_getspecific(f->socket_key) - 1;
    int r;

    if (fd < 0) {
        r = netlink_open(f->netns_fd, &fd, err);
        if (r < 0)
            return r;
        pthread_setspecific(f->socket_key, (void *)(intptr_t)(fd + 1));
    }
    *ret_fd = fd;
    return 0;
}

struct fabric_link *fabric_find(struct fabric *f, const char *name)
{
    for (size_t i = 0; i < f->link_count; i++)
        if (strcmp(f->links[i].link.name, name) == 0)
            return &f->links[i];
    return NULL;
}

static void bridge_name(const char *link, char name[NETLINK_NAME_SIZE])
{
    snprintf(name, NETLINK_NAME_SIZE, "b%012llx", (unsigned long long)name_hash(link) & 0xffffffffffffu);
}

static int find_bridge(struct fabric *f, const char *link, int fd, uint32_t *ret_index, struct error **err)
{
    auto_error struct error *absent = NULL;
    char name[NETLINK_NAME_SIZE];
    int r;

    bridge_name(link, name);
    r = netlink_find(fd, name, ret_index, &absent);
    if (r < 0 && r != -ENODEV && err)
        *err = take_ptr(absent);
    return r;
}

/* The table a predecessor left, less the links whose bridges are gone (the fabric was made anew). */
static int restore_links(struct fabric *f, int fd, struct error **err)
{
    int r = fabric_links_load(f, err);

    for (size_t i = 0; i < f->link_count && r == 0;) {
        struct fabric_link *l = &f->links[i];
        link_mac(l->link.name, l->mac);
        r = find_bridge(f, l->link.name, fd, &l->index, err);
        if (r == -ENODEV)
            *l = f->links[--f->link_count];
        else
            i++;
        r = r == -ENODEV ? 0 : r;
    }
    return r;
}

static int make_bridge(struct fabric *f, int fd, struct fabric_link *l, struct error **err)
{
    struct netlink_address gw4 = {.family = AF_INET, .v4 = l->link.gateway4};
    struct netlink_address gw6 = {.family = AF_INET6, .v6 = l->link.gateway6};
    char name[NETLINK_NAME_SIZE];
    struct netlink_batch batch;
    int r = find_bridge(f, l->link.name, fd, &l->index, err);

    if (r < 0 && r != -ENODEV)
        return r;
    bridge_name(l->link.name, name);
    if (r == -ENODEV) {
        netlink_begin(&batch);
        l->index = f->next_index++;
        netlink_bridge(&batch, name, l->index, l->mac, l->link.mtu);
        r = netlink_commit(fd, &batch, err);
    }
    if (r == 0 && l->link.prefix6)
        r = fabric_allow_ipv6(f, name, err);
    if (r < 0)
        return error_wrap(err, "START_FAILED", "making network %s", l->link.name);
    netlink_begin(&batch);
    netlink_up(&batch, l->index, NULL);
    if (l->link.prefix4)
        netlink_address(&batch, l->index, &gw4, l->link.prefix4);
    if (l->link.prefix6)
        netlink_address(&batch, l->index, &gw6, l->link.prefix6);
    r = netlink_commit(fd, &batch, err);
    return r < 0 ? error_wrap(err, "START_FAILED", "making network %s", l->link.name) : 0;
}

static bool same_link(const struct link *a, const struct link *b)
{
    return a->gateway4.s_addr == b->gateway4.s_addr && a->prefix4 == b->prefix4 && a->prefix6 == b->prefix6 &&
           memcmp(&a->gateway6, &b->gateway6, sizeof(a->gateway6)) == 0 && a->mtu == b->mtu && a->uplink == b->uplink;
}

static int delete_bridge(struct fabric *f, const char *link, struct error **err)
{
    struct netlink_batch batch;
    uint32_t index;
    int fd, r;

    r = fabric_socket(f, &fd, err);
    if (r < 0)
        return r;
    r = find_bridge(f, link, fd, &index, err);
    if (r < 0)
        return r == -ENODEV ? 0 : r;
    netlink_begin(&batch);
    netlink_delete(&batch, index);
    return netlink_commit(fd, &batch, err);
}

/* The bridge's name is a hash of the link's, and that hash can be made to collide: whoever may name networks must not
 * join, or delete, another one's bridge. */
static bool bridge_of_another(const struct fabric *f, const char *link)
{
    char wanted[NETLINK_NAME_SIZE], taken[NETLINK_NAME_SIZE];

    bridge_name(link, wanted);
    for (size_t i = 0; i < f->link_count; i++) {
        bridge_name(f->links[i].link.name, taken);
        if (strcmp(wanted, taken) == 0 && strcmp(link, f->links[i].link.name) != 0)
            return true;
    }
    return false;
}

static int add_locked(struct fabric *f, const struct link *link, struct error **err)
{
    struct fabric_link *known = fabric_find(f, link->name), fresh = {.link = *link};
    int fd, r;

    if (known && same_link(&known->link, link))
        return 0;
    if (bridge_of_another(f, link->name))
        return error_set(err, EEXIST, "NAME_TAKEN",
                         "network %s: its bridge would be another network's; choose another name", link->name);
    if (known && known->attached)
        return error_set(err, EBUSY, "CONFLICTING_STATE", "network %s has %u instances attached and cannot change",
                         link->name, known->attached);
    r = known ? delete_bridge(f, link->name, err) : 0;
    if (r < 0)
        return r;
    if (!known) {
        struct fabric_link *more = reallocarray(f->links, f->link_count + 1, sizeof(*more));
        if (!more)
            return error_set(err, ENOMEM, "NO_MEMORY", "no memory for another network");
        f->links = more;
    }
    link_mac(link->name, fresh.mac);
    fresh.attached = known ? known->attached : 0;
    r = fabric_socket(f, &fd, err);
    if (r == 0)
        r = make_bridge(f, fd, &fresh, err);
    if (r < 0)
        return r;
    known = fabric_find(f, link->name);
    if (!known)
        known = &f->links[f->link_count++];
    *known = fresh;
    r = fabric_links_save(f, err);
    if (r < 0) {
        delete_bridge(f, link->name, NULL);
        *known = f->links[--f->link_count];
    }
    return r;
}

int fabric_link_add(struct fabric *f, const struct link *link, struct error **err)
{
    int r;

    pthread_rwlock_wrlock(&f->lock);
    r = add_locked(f, link, err);
    pthread_rwlock_unlock(&f->lock);
    return r;
}

int fabric_link_remove(struct fabric *f, const char *name, struct error **err)
{
    struct fabric_link *l;
    int r;

    pthread_rwlock_wrlock(&f->lock);
    l = fabric_find(f, name);
    if (l && l->attached)
        r = error_set(err, EBUSY, "NETWORK_IN_USE", "network %s has %u interfaces attached", name, l->attached);
    else
        r = bridge_of_another(f, name) ? 0 : delete_bridge(f, name, err);
    if (r == 0 && l) {
        *l = f->links[--f->link_count];
        r = fabric_links_save(f, err);
    }
    pthread_rwlock_unlock(&f->lock);
    return r;
}

int fabric_link_get(struct fabric *f, const char *name, struct link *ret_link)
{
    struct fabric_link *l;

    pthread_rwlock_rdlock(&f->lock);
    l = fabric_find(f, name);
    if (l)
        *ret_link = l->link;
    pthread_rwlock_unlock(&f->lock);
    return l ? 0 : -ENOENT;
}
