/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_devices.h. Main thread, before the guest runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/devices/balloon.h"
#include "vmm/devices/console.h"
#include "vmm/devices/entropy.h"
#include "vmm/devices/vsock.h"
#include "vmm/machine.h"
#include "vmm/output.h"

typedef int (*attach_call)(struct device *device, struct loop *loop, struct error **err);

static int add(struct machine *m, struct device *d, attach_call attach, struct error **err)
{
    int r = vm_add_device(m->vm, d, err);

    return r < 0 ? r : attach(d, m->loop, err);
}

static int add_disk(struct machine *m, struct machine_disk *disk, unsigned index, struct error **err)
{
    struct device *d;
    char serial[20];

    snprintf(serial, sizeof(serial), "coracle-%u", index);
    int r = block_create(&m->vm->ram.memory, disk->fd, disk->mode, serial, &d, err);
    if (r < 0)
        return r;
    take_fd(&disk->fd);
    return add(m, d, block_attach, err);
}

static int make_pipe(struct machine *m, int *ret_read, struct error **err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set_errno(err, errno, "INTERNAL", "console: cannot make its pipe");
    *ret_read = ends[0];
    m->console_fd = ends[1];
    return 0;
}

static int add_console(struct machine *m, struct machine_extras *x, struct error **err)
{
    const struct console_output output = {.write = output_device};
    struct device *d;
    int r = x->console_fd == CONSOLE_PIPE ? make_pipe(m, &x->console_fd, err) : 0;

    if (r == 0)
        r = console_create(&m->vm->ram.memory, &output, x->console_fd, &d, err);
    if (r < 0)
        return r;
    x->console_fd = -1;
    return add(m, d, console_attach, err);
}

static int add_vsock(struct machine *m, struct machine_extras *x, struct error **err)
{
    int r = vsock_create(&m->vm->ram.memory, x->vsock_cid, x->vsock_fd, &m->vsock, err);

    if (r < 0)
        return r;
    x->vsock_fd = -1;
    return add(m, m->vsock, vsock_attach, err);
}

int machine_add_extras(struct machine *m, struct machine_extras *x, bool shared_memory, struct error **err)
{
    const struct guest_memory *memory = &m->vm->ram.memory;
    struct device *d;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < x->disk_count; i++)
        r = add_disk(m, &x->disks[i], i, err);
    if (r == 0 && x->console)
        r = add_console(m, x, err);
    if (r == 0 && x->entropy && (r = entropy_create(memory, &d, err)) == 0)
        r = add(m, d, entropy_attach, err);
    if (r == 0 && x->vsock)
        r = add_vsock(m, x, err);
    if (r == 0 && x->balloon && (r = balloon_create(memory, shared_memory, &m->balloon, err)) == 0)
        r = add(m, m->balloon, balloon_attach, err);
    return r;
}

static bool contains(const uint32_t *calls, unsigned count, uint32_t call)
{
    for (unsigned i = 0; i < count; i++)
        if (calls[i] == call)
            return true;
    return false;
}

unsigned machine_device_calls(const struct machine *m, uint32_t *ret, unsigned max)
{
    unsigned count = 0;

    for (unsigned i = 0; i < m->vm->device_count; i++)
        for (const uint32_t *call = m->vm->devices[i]->calls; call && *call; call++)
            if (!contains(ret, count, *call) && count < max)
                ret[count++] = *call;
    return count;
}
