/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-vmm: one process, one VM. Started by a person (coracle-vmm(1)): parses its options, opens what they name, has
 * the machine made and run (machine.h), tells how it ended. Started by the launcher: see supervised.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/output.h"
#include "vmm/sandbox.h"
#include "vmm/supervised.h"

enum { NET_HEADER_BYTES = 12 };
/* Exit statuses besides the guest's own. */
enum { EXIT_WRONG_OPTIONS = 64, EXIT_NOT_STARTED = 125, EXIT_SIGNAL = 128 };

static int open_tap(const char *name, struct error **err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    const int header = NET_HEADER_BYTES;
    auto_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_set_errno(err, errno, "START_FAILED", "/dev/net/tun");
    if (if_nametoindex(name) == 0) { /* TUNSETIFF would make one, unconfigured, that nobody is connected to */
        int r = error_set(err, ENODEV, "START_FAILED", "tap %s is not there", name);
        error_hint(err, "ip tuntap add %s mode tap vnet_hdr", name);
        return r;
    }
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        return error_set_errno(err, errno, "START_FAILED", "tap %s", name);
    return take_fd(&fd);
}

static int open_kvm(struct error **err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        error_set_errno(err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm");
        error_hint(err, "load kvm_intel or kvm_amd, or join the group kvm");
        return -EACCES;
    }
    return fd;
}

static int add_tap(const struct options *o, struct machine_load *load, struct error **err)
{
    struct machine_nic *nic = &load->nics[load->nic_count++];

    memcpy(nic->mac, o->mac, sizeof(nic->mac));
    nic->tap_fd = open_tap(o->tap, err);
    return nic->tap_fd < 0 ? nic->tap_fd : 0;
}

static int start(struct machine *m, const struct options *o, struct error **err)
{
    struct machine_load load = {.kernel_name = o->kernel, .parameters = o->parameters};
    int r, kvm = open_kvm(err);

    if (kvm < 0)
        return kvm;
    r = machine_prepare(m, kvm, o->memory_bytes, false, err);
    if (r == 0 && o->tap)
        r = add_tap(o, &load, err);
    if (r < 0)
        return r;
    auto_fd int kernel = open(o->kernel, O_RDONLY | O_CLOEXEC);
    if (kernel < 0)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", o->kernel);
    load.kernel_fd = kernel;
    r = machine_load(m, &load, err);
    kernel = close_fd(kernel);
    return r < 0 ? r : machine_confine(m, err);
}

int main(int argc, char **argv)
{
    static struct machine machine;
    struct options o;
    auto_error struct error *err = NULL;

    if (options_parse(argc, argv, &o, &err) < 0) {
        fprintf(stderr, "coracle-vmm: %s%s%s\n", err->message, err->hint ? "; try: " : "", err->hint ? err->hint : "");
        return EXIT_WRONG_OPTIONS;
    }
    if (o.supervised)
        return supervised_run();
    if (!o.kernel)
        return EXIT_SUCCESS;
    int r = sandbox_begin(o.console_fd, &err);
    log_open("coracle-vmm", getenv("CORACLE_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    output_to_descriptor(o.console_fd);
    tzset(); /* reads a file, which is not possible later */
    if (r == 0)
        r = start(&machine, &o, &err);
    if (r < 0) {
        log_error(NULL, err, "cannot run %s", o.kernel);
        return EXIT_NOT_STARTED;
    }
    int status = machine_run(&machine);
    _exit(WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status)); /* no destructors: they would need calls that are gone */
}
