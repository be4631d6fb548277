/* SPDX-License-Identifier: Apache-2.0 */
/* See wire.h. Main thread of the plain tool; the launcher opens these things itself. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/wire.h"

enum { NET_HEADER_BYTES = 12 };

static int open_tap(const char *name, bool several, struct error **err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    const int header = NET_HEADER_BYTES;
    const char *kind = several ? "multi_queue vnet_hdr" : "vnet_hdr";
    auto_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "/dev/net/tun");
    if (if_nametoindex(name) == 0) { /* TUNSETIFF would make one, unconfigured, that nobody is connected to */
        int r = error_set(err, ENODEV, "START_FAILED", "tap %s is not there", name);
        error_hint(err, "ip tuntap add %s mode tap %s", name, kind);
        return r;
    }
    if (several)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) {
        int r = error_set_errno(err, errno, "START_FAILED", "tap %s", name);
        error_hint(err, "ip tuntap add %s mode tap %s", name, kind);
        return r;
    }
    return take_fd(&fd);
}

static int open_vhost(struct error **err)
{
    int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        int r = error_set_errno(err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/vhost-net");
        error_hint(err, "modprobe vhost_net, or leave --vhost out");
        return r;
    }
    return fd;
}

static int connect_user(const char *path, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set_errno(err, errno, "START_FAILED", "vhost-user back end %s", path);
    return take_fd(&fd);
}

static void begin(const struct options *o, const uint8_t mac[6], struct net_options *ret)
{
    *ret = net_options_none();
    memcpy(ret->mac, mac, sizeof(ret->mac));
    ret->pairs = o->queues;
    ret->control = o->queues > 1;
}

static int open_queues(const struct options *o, const char *tap, struct net_options *ret, struct error **err)
{
    for (unsigned i = 0; i < o->queues; i++) {
        ret->tap_fds[i] = open_tap(tap, o->queues > 1, err);
        if (ret->tap_fds[i] < 0)
            return ret->tap_fds[i];
        if (!o->vhost)
            continue;
        ret->vhost_fds[i] = open_vhost(err);
        if (ret->vhost_fds[i] < 0)
            return ret->vhost_fds[i];
    }
    return 0;
}

int wires_open(const struct options *o, struct machine_load *ret, struct error **err)
{
    struct net_options *nic = &ret->nics[0].net;
    int r = 0;

    if (o->vhost_user) {
        begin(o, o->mac, nic);
        ret->nic_count = 1;
        nic->user_fd = connect_user(o->vhost_user, err);
        return nic->user_fd < 0 ? nic->user_fd : 0;
    }
    for (unsigned i = 0; r == 0 && i < o->tap_count; i++) {
        nic = &ret->nics[ret->nic_count++].net;
        begin(o, o->taps[i].mac, nic);
        r = open_queues(o, o->taps[i].name, nic, err);
    }
    return r;
}
