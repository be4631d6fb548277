/* SPDX-License-Identifier: Apache-2.0 */
/* See machine.h. Everything here runs on the main thread, which becomes the vCPU's. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/boot_direct.h"
#include "vmm/boot_pvh.h"
#include "vmm/cpus.h"
#include "vmm/devices/net.h"
#include "vmm/guest_control.h"
#include "vmm/machine.h"
#include "vmm/output.h"
#include "vmm/sandbox.h"
#include "vmm/snapshot.h"

enum { EXIT_GUEST_FAILED = 126, DEVICE_CALLS_MAX = 16 };

uint64_t machine_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int machine_prepare(struct machine *m, int kvm_fd, uint64_t memory_bytes, bool shared, const struct vm_shape *shape,
                    struct error **err)
{
    struct guest_ram ram = {.memfd = -1};
    auto_fd int kvm = kvm_fd;
    int r;

    m->console_fd = -1;
    m->memory_shared = shared;
    m->stage = MONITOR_STAGE_MEMORY;
    r = guest_ram_create(memory_bytes, shared, &ram, err);
    if (r < 0)
        return r;
    m->memory_ns = machine_now_ns();
    m->stage = MONITOR_STAGE_VM;
    r = vm_create(kvm, &ram, shape, &m->vm, err);
    if (r < 0) {
        guest_ram_destroy(&ram);
        return r;
    }
    m->vm_ns = machine_now_ns();
    take_fd(&kvm);
    m->vm->kvm_fd = close_fd(m->vm->kvm_fd); /* it could make more VMs */
    r = vcpu_prepare(m->vm, err);
    if (r == 0 && !shape->ring0)
        r = direct_boot_processor(m->vm->vcpu_fd, err);
    return r < 0 ? r : loop_create(&m->loop, err);
}

/* ---- load ---- */

int machine_map_file(int fd, const char *name, const uint8_t **ret, size_t *ret_size, struct error **err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", name);
    if (st.st_size == 0)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "%s is empty", name);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", name);
    *ret = map;
    *ret_size = (size_t)st.st_size;
    return 0;
}

void machine_unmap_file(const uint8_t *map, size_t size)
{
    if (map)
        munmap((void *)(uintptr_t)map, size);
}

static void fill_clock(const struct vm *vm, struct boot_info *info)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    info->wall_clock_tsc = __rdtsc();
    info->wall_clock_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    info->tsc_khz = vm->deadline.tsc_khz;
}

static void fill_facts(struct device *d, struct boot_facts *ret)
{
    *ret = (struct boot_facts){.features = d->features, .queue_size = DEVICE_QUEUE_SIZE};
    if (!d->ops->config)
        return;
    pthread_mutex_lock(&d->lock);
    d->ops->config(d, ret->config, 0, sizeof(ret->config));
    pthread_mutex_unlock(&d->lock);
}

static int draw_seed(struct machine *m, struct error **err)
{
    if (getrandom(m->seed, sizeof(m->seed), 0) != sizeof(m->seed))
        return error_set_errno(err, errno, "INTERNAL", "getrandom");
    return 0;
}

/* The seed is used up. */
static void fill_info(struct machine *m, struct boot_info *info)
{
    struct vm *vm = m->vm;

    fill_clock(vm, info);
    info->flags |= BOOT_FACTS | (m->parked ? BOOT_PARKED : 0u);
    memcpy(info->seed, m->seed, sizeof(info->seed));
    explicit_bzero(m->seed, sizeof(m->seed));
    info->device_count = vm->device_count;
    for (unsigned i = 0; i < vm->device_count; i++) {
        fill_facts(vm->devices[i], &info->facts[i]);
        info->devices[i] = (struct boot_device){
            .address = VM_DEVICE_ADDRESS + (uint64_t)i * DEVICE_PAGE,
            .kind = vm->devices[i]->ops->type,
            .vector = (uint32_t)BOOT_VECTOR_DEVICE + i,
        };
    }
}

static int load_direct(struct machine *m, const uint8_t *file, size_t size, const struct machine_load *load,
                       struct error **err)
{
    struct direct_boot boot = {.parameters = load->parameters, .file = file};
    struct vm *vm = m->vm;
    struct elf_image image;
    int r = elf_read(file, size, vm->ram.memory.bytes, 0, &image, err);

    if (r < 0)
        return r;
    boot.image = &image;
    fill_info(m, &boot.info);
    r = direct_boot_memory(&vm->ram.memory, &boot, err);
    return r < 0 ? r : direct_boot_registers(vm->vcpu_fd, &vm->ram.memory, err);
}

static int load_kernel(struct machine *m, const uint8_t *file, size_t size, const struct machine_load *load,
                       struct error **err)
{
    struct pvh_boot boot = {.file = file,
                            .file_bytes = size,
                            .parameters = load->parameters,
                            .vcpus = m->vm->shape.vcpus,
                            .devices = m->vm->device_count};
    struct pvh_start start;
    int r = 0;

    if (load->initrd_fd >= 0)
        r = machine_map_file(load->initrd_fd, "initrd", &boot.initrd, &boot.initrd_bytes, err);
    if (r == 0)
        r = pvh_boot_memory(&m->vm->ram.memory, &boot, &start, err);
    machine_unmap_file(boot.initrd, boot.initrd_bytes);
    return r < 0 ? r : pvh_boot_registers(m->vm->vcpu_fd, &start, err);
}

static int load_image(struct machine *m, const struct machine_load *load, struct error **err)
{
    const uint8_t *file = NULL;
    size_t size = 0;
    int r = machine_map_file(load->kernel_fd, load->kernel_name, &file, &size, err);

    if (r < 0)
        return r;
    r = (m->vm->shape.ring0 ? load_kernel : load_direct)(m, file, size, load, err);
    machine_unmap_file(file, size);
    return r;
}

static int add_network(struct machine *m, struct machine_nic *nic, struct error **err)
{
    struct device *net;

    nic->net.memory_fd = m->vm->ram.memfd;
    int r = net_create(&m->vm->ram.memory, &nic->net, &net, err);
    if (r < 0)
        return r;
    nic->net = net_options_none(); /* its descriptors are the device's */
    r = vm_add_device(m->vm, net, err);
    return r < 0 ? r : net_attach(net, m->loop, err);
}

/* A guest that is another from now on finds what a booted one finds, but in memory that knows another life. */
static void renew(struct machine *m, const char *parameters, uint64_t free_start)
{
    const struct vm *vm = m->vm;
    struct boot_info info = {.magic = BOOT_MAGIC,
                             .version = BOOT_VERSION,
                             .flags = BOOT_DIRECT,
                             .memory_bytes = vm->ram.memory.bytes,
                             .free_start = free_start};
    struct boot_shared *shared = (void *)(vm->ram.memory.base + BOOT_SHARED_ADDRESS);

    fill_info(m, &info);
    memcpy(vm->ram.memory.base + BOOT_INFO_ADDRESS, &info, sizeof(info));
    snprintf((char *)vm->ram.memory.base + BOOT_PARAMETERS_ADDRESS, BOOT_PARAMETERS_SIZE, "%s", parameters);
    shared->ready = 0;
    shared->generation++;
}

static int restore_devices(struct vm *vm, const struct snapshot_header *header, struct error **err)
{
    int r = 0;

    if (header->device_count != vm->device_count)
        return error_set(err, EINVAL, "SNAPSHOT_UNUSABLE", "the snapshot has %u devices, this machine %u",
                         header->device_count, vm->device_count);
    for (unsigned i = 0; r == 0 && i < vm->device_count; i++)
        r = device_restore(vm->devices[i], &header->devices[i], err);
    for (unsigned i = 0; r == 0 && i < vm->device_count; i++)
        device_kick(vm->devices[i]);
    return r;
}

static int restore(struct machine *m, const struct machine_load *load, struct error **err)
{
    struct snapshot_header header;
    struct vm *vm = m->vm;
    int r = snapshot_read(load->kernel_fd, &header, err);

    if (r == 0)
        r = snapshot_map(load->kernel_fd, &header, &vm->ram, err);
    if (r == 0)
        r = restore_devices(vm, &header, err);
    if (r == 0) {
        direct_boot_hot_pages(&vm->ram.memory, header.free_start);
        r = snapshot_processor(vm->vcpu_fd, &header, err);
    }
    if (r == 0)
        renew(m, load->parameters, header.free_start);
    return r;
}

int machine_load(struct machine *m, struct machine_load *load, struct error **err)
{
    int r = 0;

    snprintf(m->kernel_name, sizeof(m->kernel_name), "%s", load->kernel_name);
    m->stage = MONITOR_STAGE_DEVICE;
    m->parked = load->park;
    for (unsigned i = 0; r == 0 && i < load->nic_count; i++) {
        load->nics[i].net.cut = load->park;
        r = add_network(m, &load->nics[i], err);
    }
    if (r == 0)
        r = machine_add_extras(m, &load->extras, m->memory_shared, err);
    if (r == 0 && m->vsock)
        r = guest_control_prepare(m, err);
    if (r == 0)
        r = draw_seed(m, err);
    if (r < 0)
        return r;
    m->stage = load->restore ? MONITOR_STAGE_SNAPSHOT : MONITOR_STAGE_IMAGE;
    r = load->restore ? restore(m, load, err) : load_image(m, load, err);
    return r == 0 && load->park ? draw_seed(m, err) : r;
}

int machine_identify(struct machine *m, const struct monitor_identity *identity, const char *parameters,
                     struct error **err)
{
    const struct vm *vm = m->vm;
    const struct boot_info *before = (void *)(vm->ram.memory.base + BOOT_INFO_ADDRESS);
    unsigned count = 0;

    for (unsigned i = 0; i < vm->device_count; i++)
        count += vm->devices[i]->ops->type == VIRTIO_NET;
    if (count != identity->nic_count)
        return error_set(err, EINVAL, "INVALID_VALUE", "an identity for %u network devices, and the guest has %u",
                         identity->nic_count, count);
    for (unsigned i = 0, nic = 0; i < vm->device_count; i++)
        if (vm->devices[i]->ops->type == VIRTIO_NET)
            net_identify(vm->devices[i], identity->nics[nic++].mac);
    snprintf(m->kernel_name, sizeof(m->kernel_name), "%s", identity->name);
    m->vm->ready = false;
    m->parked = false;
    renew(m, parameters, before->free_start); /* the guest's own business, if it had a device write there */
    return 0;
}

int machine_enclose(struct machine *m, bool run_once, struct error **err)
{
    int r;

    m->stage = MONITOR_STAGE_SANDBOX;
    r = sandbox_privileges(err);
    if (r == 0)
        r = sandbox_files(err);
    /* The kernel starts a thread of its own with the first run. It is enclosed as the one that runs: now without the
     * filter of system calls, which comes for all threads, or later with it. */
    if (r == 0 && run_once && !m->vm->shape.ring0)
        direct_boot_warm_up(m->vm->vcpu_fd, m->vm->run, &m->vm->ram.memory);
    for (unsigned i = 0; i < m->vm->shape.vcpus; i++)
        place_vcpu(loop_place(m->loop));
    if (r == 0)
        r = loop_start(m->loop, err);
    return r;
}

int machine_confine(struct machine *m, struct error **err)
{
    int r;

    m->stage = MONITOR_STAGE_SANDBOX;
    m->callbacks.console = output_byte;
    m->callbacks.text = output_text;
    m->callbacks.idle = output_flush;
    r = cpus_start(m->vm, &m->callbacks, err);
    if (r < 0)
        return r;
    loop_await_start(m->loop);
    uint32_t calls[DEVICE_CALLS_MAX];
    return sandbox_calls(calls, machine_device_calls(m, calls, DEVICE_CALLS_MAX), err);
}

/* ---- run ---- */

static void report_registers(const struct boot_panic *p, const char *kernel)
{
    static const char *const names[15] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8",
                                          "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    char text[BOOT_PANIC_WORDS * 24];
    int used = 0;

    for (unsigned i = 0; i < 15; i++)
        used += snprintf(text + used, sizeof(text) - (size_t)used, " %s %" PRIx64, names[i], p->registers[i]);
    log_line(LOG_LEVEL_ERROR, NULL,
             "vector %" PRIu64 " error %" PRIx64 " rip %" PRIx64 " rsp %" PRIx64 " rflags %" PRIx64 " cr2 %" PRIx64,
             p->vector, p->error, p->rip, p->rsp, p->rflags, p->cr2);
    log_line(LOG_LEVEL_ERROR, NULL, "registers:%s", text);
    used = 0;
    for (unsigned i = 0; i < BOOT_PANIC_WORDS; i++)
        used += snprintf(text + used, sizeof(text) - (size_t)used, " %" PRIx64, p->stack[i]);
    log_line(LOG_LEVEL_ERROR, NULL, "stack:%s", text);
    log_line(LOG_LEVEL_ERROR, NULL, "where: trace-unikernel %s.debug, with these lines as its input", kernel);
}

/* Wait statuses as the kernel encodes them (wait(2)): an exit status in the second byte, or a signal's number. */
static int exited(unsigned status)
{
    return (int)(status & 0xff) << 8;
}

static int report(const struct machine *m, const struct vcpu_result *end)
{
    const struct vcpu_counters *c = &m->counters;

    log_line(LOG_LEVEL_DEBUG, NULL, "exits: %" PRIu64 " idle, %" PRIu64 " mmio, %" PRIu64 " ports", c->idle, c->mmio,
             c->pio);
    switch (end->end) {
    case VCPU_EXIT:
        return exited(end->status);
    case VCPU_STOPPED:
        return (int)end->status;
    case VCPU_PANIC:
        log_line(LOG_LEVEL_ERROR, NULL, "the guest panicked: %s", end->panic.message);
        break;
    case VCPU_RESET:
        log_line(LOG_LEVEL_ERROR, NULL, "the guest was reset (triple fault)");
        break;
    case VCPU_FAILED:
        log_line(LOG_LEVEL_ERROR, NULL, "the guest cannot go on: %s", end->words);
        break;
    }
    report_registers(&end->panic, m->kernel_name);
    return exited(EXIT_GUEST_FAILED);
}

static bool stop(void *context)
{
    return guest_control_stop(context);
}

int machine_run(struct machine *m)
{
    struct vcpu_result end;

    if (m->vsock) {
        m->callbacks.stop = stop;
        m->callbacks.context = m;
    }
    vcpu_run(m->vm, &m->callbacks, &m->counters, &end);
    output_flush(NULL);
    loop_settle(m->loop); /* the last words on a virtio console */
    return report(m, &end);
}
