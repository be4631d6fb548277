/* SPDX-License-Identifier: Apache-2.0 */
/* Entering network namespaces for the probes, on threads made for it. */
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <arpa/inet.h>

#include "base/cleanup.h"
#include "bench/probe/netns.h"

struct visit {
    const char *path, *mount_path;
    int (*call)(void *context, struct error **err);
    void *context;
    struct error **err;
    int result;
};

static int enter(const char *path, int type, struct error **err)
{
    auto_fd int fd = -1;
    int e;

    if (!path || !*path)
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    /* A mount namespace is entered only by a thread that shares its root and working directory with no other. */
    if (fd >= 0 && (type != CLONE_NEWNS || unshare(CLONE_FS) == 0) && setns(fd, type) == 0)
        return 0;
    e = errno;
    error_set_errno(err, e, "FORBIDDEN", "namespace %s cannot be entered", path);
    if (e == EPERM || e == EACCES)
        error_hint(err, "the probe needs CAP_SYS_ADMIN and CAP_NET_RAW: run it with sudo");
    return -e;
}

static void *visit_main(void *argument)
{
    struct visit *v = argument;

    v->result = enter(v->path, CLONE_NEWNET, v->err);
    if (v->result == 0)
        v->result = enter(v->mount_path, CLONE_NEWNS, v->err);
    if (v->result == 0)
        v->result = v->call(v->context, v->err);
    return NULL;
}

int netns_run(const char *path, int (*call)(void *context, struct error **err), void *context, struct error **err)
{
    return netns_run_in(path, NULL, call, context, err);
}

int netns_run_in(const char *path, const char *mount_path, int (*call)(void *context, struct error **err),
                 void *context, struct error **err)
{
    struct visit v = {path, mount_path, call, context, err, 0};
    pthread_t thread;
    int e;

    if ((!path || !*path) && (!mount_path || !*mount_path))
        return call(context, err);
    e = pthread_create(&thread, NULL, visit_main, &v);
    if (e)
        return error_set_errno(err, e, "INTERNAL", "no thread for namespace %s", path ? path : mount_path);
    pthread_join(thread, NULL);
    return v.result;
}

struct socket_request {
    int domain, type, protocol, fd;
};

static int make_socket(void *context, struct error **err)
{
    struct socket_request *r = context;
    int e;

    r->fd = socket(r->domain, r->type | SOCK_CLOEXEC, r->protocol);
    if (r->fd >= 0)
        return 0;
    e = errno;
    error_set_errno(err, e, "FORBIDDEN", "no %s socket", r->domain == AF_PACKET ? "packet" : "raw");
    if (e == EPERM)
        error_hint(err, "the probe needs CAP_NET_RAW: run it with sudo");
    return -e;
}

int netns_socket(const char *path, int domain, int type, int protocol, int *ret_fd, struct error **err)
{
    struct socket_request r = {domain, type, protocol, -1};
    int result = netns_run(path, make_socket, &r, err);

    if (result == 0)
        *ret_fd = r.fd;
    return result;
}

struct device_request {
    struct in_addr address;
    struct netns_device device;
};

static int fill_device(const char *name, struct netns_device *device, struct error **err)
{
    auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {0};

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    snprintf(device->name, sizeof(device->name), "%s", ifr.ifr_name);
    if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &ifr) < 0)
        return error_set_errno(err, errno, "INTERNAL", "index of %s", name);
    device->index = ifr.ifr_ifindex;
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return error_set_errno(err, errno, "INTERNAL", "hardware address of %s", name);
    memcpy(device->mac, ifr.ifr_hwaddr.sa_data, sizeof(device->mac));
    return 0;
}

static int find_device(void *context, struct error **err)
{
    struct device_request *r = context;
    struct ifaddrs *list, *a;
    int result = -ENODEV;

    if (getifaddrs(&list) < 0)
        return error_set_errno(err, errno, "INTERNAL", "addresses cannot be listed");
    for (a = list; a; a = a->ifa_next) {
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET)
            continue;
        if (((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr.s_addr == r->address.s_addr) {
            result = fill_device(a->ifa_name, &r->device, err);
            break;
        }
    }
    freeifaddrs(list);
    if (result == -ENODEV)
        error_set(err, ENODEV, "NETWORK_NOT_FOUND", "no interface holds the gateway address %s", inet_ntoa(r->address));
    return result;
}

int netns_device_of(const char *path, struct in_addr address, struct netns_device *ret_device, struct error **err)
{
    struct device_request r = {.address = address};
    int result = netns_run(path, find_device, &r, err);

    if (result == 0)
        *ret_device = r.device;
    return result;
}
