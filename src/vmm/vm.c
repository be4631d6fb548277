/* SPDX-License-Identifier: Apache-2.0 */
/* KVM set-up, on the vCPU's thread, once. The memory slot comes before the vCPU and after the split irqchip: with a
 * full irqchip adding it costs milliseconds. */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "abi/boot.h"
#include "base/cleanup.h"
#include "vmm/vm.h"

enum { SPLIT_IRQCHIP_PINS = 24, CPUID_ENTRY_MAX = 128, TSS_ADDRESS = 0xfffbd000 };

/* CPUID of the unikernel's processor (Intel SDM volume 2, CPUID): SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT, under a
 * hypervisor; FPU TSC MSR PAE CX8 APIC PGE CMOV PAT MMX FXSR SSE SSE2; SYSCALL, NX, long mode. */
#define CPUID_1_ECX        UINT32_C(0x80982201)
#define CPUID_1_EDX        UINT32_C(0x0781a371)
#define CPUID_EXTENDED_EDX UINT32_C(0x20100800)

static int kvm_error(struct error **err, const char *call)
{
    int r = error_set_errno(err, errno, "START_FAILED", "%s", call);

    error_hint(err, "coracle doctor says what this host's KVM can do");
    return r;
}

/* What differs from one processor to the next, and what a kernel in ring 0 looks for (Intel SDM volume 2, CPUID). */
static void adjust_cpuid(struct kvm_cpuid2 *cpuid, const struct vm_shape *shape, unsigned index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        switch (e->function) {
        case 1: /* number of this one, count; hypervisor, deadline timer of the local APIC */
            e->ebx = (e->ebx & 0xffff) | shape->vcpus << 16 | index << 24;
            e->ecx |= UINT32_C(1) << 31 | UINT32_C(1) << 24;
            if (shape->vcpus > 1)
                e->edx |= UINT32_C(1) << 28;
            break;
        case 4: /* each its own core of one package */
            e->eax = (e->eax & 0x03ffffff) | (shape->vcpus - 1 < 63 ? shape->vcpus - 1 : 63) << 26;
            break;
        case 0xb: /* the host's topology is not ours: there is none here */
        case 0x1f:
            e->eax = e->ebx = 0;
            e->edx = index;
            break;
        case 0x80000008:
            e->ecx = (e->ecx & ~UINT32_C(0xff)) | (shape->vcpus - 1);
            break;
        case 0x8000001e:
            e->eax = index;
            e->ebx = index;
            break;
        default:
            break;
        }
    }
}

/*
 * A unikernel's processor: the baseline of x86-64 and no more, by which it is compiled. Asking KVM for all it could
 * offer costs 80 us, most of it instructions of ours that trap in the hypervisor below us, and each entry costs again
 * when it is set. Long mode and no-execute are what KVM itself looks for.
 */
static int set_plain_cpuid(int vcpu_fd, struct error **err)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[4];
    } c = {.head.nent = 4};
    unsigned highest;

    c.entries[0] = (struct kvm_cpuid_entry2){.eax = 1};
    __cpuid(0, highest, c.entries[0].ebx, c.entries[0].ecx, c.entries[0].edx); /* the vendor */
    c.entries[1] = (struct kvm_cpuid_entry2){.function = 1, .ecx = CPUID_1_ECX, .edx = CPUID_1_EDX};
    __cpuid(1, c.entries[1].eax, c.entries[1].ebx, highest, highest);
    c.entries[1].ebx &= 0xff00; /* size of a line; neither number nor count */
    c.entries[2] = (struct kvm_cpuid_entry2){.function = 0x80000000, .eax = 0x80000001};
    c.entries[3] = (struct kvm_cpuid_entry2){.function = 0x80000001, .ecx = 1, .edx = CPUID_EXTENDED_EDX};
    return ioctl(vcpu_fd, KVM_SET_CPUID2, &c) < 0 ? kvm_error(err, "KVM_SET_CPUID2") : 0;
}

static int set_cpuid(const struct vm *vm, int vcpu_fd, unsigned index, struct error **err)
{
    if (!vm->shape.ring0)
        return set_plain_cpuid(vcpu_fd, err);
    auto_free struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_ENTRY_MAX * sizeof(struct kvm_cpuid_entry2));

    if (!cpuid)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the processor's description");
    cpuid->nent = CPUID_ENTRY_MAX;
    if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return kvm_error(err, "KVM_GET_SUPPORTED_CPUID");
    adjust_cpuid(cpuid, &vm->shape, index);
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
        return kvm_error(err, "KVM_SET_CPUID2");
    return 0;
}

/*
 * The guest's TSC is the host's: a unikernel is told the time and tells its deadlines in it (abi/boot.h). KVM starts it
 * at 0 with VT-x and SVM; on PVM it is the host's anyway. Kernels before 5.16 have only the MSR, which is less exact.
 */
static void share_tsc(int vcpu_fd)
{
    const uint64_t none = 0;
    const struct kvm_device_attr offset = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uint64_t)(uintptr_t)&none};
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry tsc;
    } msr = {.head.nmsrs = 1, .tsc.index = 0x10};

    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &offset) == 0)
        return;
    msr.tsc.data = __rdtsc();
    ioctl(vcpu_fd, KVM_SET_MSRS, &msr); /* PVM refuses it, and does not need it */
}

static int create_vcpu(struct vm *vm, unsigned index, struct vm_vcpu *ret, struct error **err)
{
    ret->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, index);
    if (ret->fd < 0 || vm->run_bytes < sizeof(*ret->run))
        return kvm_error(err, "KVM_CREATE_VCPU");
    ret->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd, 0);
    if (ret->run == MAP_FAILED) {
        ret->run = NULL;
        return kvm_error(err, "mapping the vCPU's run area");
    }
    if (!vm->shape.ring0)
        share_tsc(ret->fd);
    return set_cpuid(vm, ret->fd, index, err);
}

static int create_vcpus(struct vm *vm, struct error **err)
{
    struct vm_vcpu first = {.fd = -1};
    int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    vm->run_bytes = size > 0 ? (size_t)size : 0;
    int r = create_vcpu(vm, 0, &first, err);
    vm->vcpu_fd = first.fd;
    vm->run = first.run;
    for (unsigned i = 1; r == 0 && i < vm->shape.vcpus; i++)
        r = create_vcpu(vm, i, &vm->others[i - 1], err);
    return r;
}

static int set_memory(const struct vm *vm, struct error **err)
{
    const struct guest_memory *m = &vm->ram.memory;
    uint64_t low = guest_memory_low(m);
    struct kvm_userspace_memory_region regions[] = {
        {.memory_size = low, .userspace_addr = (uint64_t)(uintptr_t)m->base},
        {.slot = 1,
         .guest_phys_addr = GUEST_MEMORY_HIGH,
         .memory_size = m->bytes - low,
         .userspace_addr = (uint64_t)(uintptr_t)m->base + low},
    };

    for (unsigned i = 0; i < (m->bytes > low ? 2u : 1u); i++)
        if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &regions[i]) < 0)
            return kvm_error(err, "KVM_SET_USER_MEMORY_REGION");
    return 0;
}

static int split_irqchip(const struct vm *vm, struct error **err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {SPLIT_IRQCHIP_PINS}};

    return ioctl(vm->vm_fd, KVM_ENABLE_CAP, &split) < 0 ? kvm_error(err, "KVM_CAP_SPLIT_IRQCHIP") : 0;
}

/* Interrupt controllers and timer of a PC, and the serial line's interrupt. */
static int full_irqchip(struct vm *vm, struct error **err)
{
    const struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0) /* three pages that VT-x wants */
        return kvm_error(err, "KVM_SET_TSS_ADDR");
    if (ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return kvm_error(err, "KVM_CREATE_IRQCHIP");
    if (ioctl(vm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return kvm_error(err, "KVM_CREATE_PIT2");
    vm->serial_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct kvm_irqfd irqfd = {.fd = (uint32_t)vm->serial_fd, .gsi = VM_LINE_SERIAL};
    if (vm->serial_fd < 0 || ioctl(vm->vm_fd, KVM_IRQFD, &irqfd) < 0)
        return kvm_error(err, "the serial line's interrupt");
    return 0;
}

static int set_up(struct vm *vm, struct error **err)
{
    if (ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm does not speak version %d", KVM_API_VERSION);
    vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return kvm_error(err, "KVM_CREATE_VM");
    int r = vm->shape.ring0 ? full_irqchip(vm, err) : split_irqchip(vm, err);
    if (r == 0)
        r = set_memory(vm, err);
    return r < 0 ? r : create_vcpus(vm, err);
}

static int allocate(const struct vm_shape *shape, struct vm **ret, struct error **err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm || shape->vcpus < 1 || shape->vcpus > VM_VCPU_MAX) {
        free(vm);
        return error_set(err, EINVAL, "INVALID_VALUE", "%u vCPUs: 1 to %d", shape->vcpus, VM_VCPU_MAX);
    }
    *vm = (struct vm){.vm_fd = -1, .vcpu_fd = -1, .serial_fd = -1, .shape = *shape};
    vm->others = calloc(shape->vcpus, sizeof(*vm->others));
    if (!vm->others) {
        free(vm);
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a VM");
    }
    for (unsigned i = 0; i + 1 < shape->vcpus; i++)
        vm->others[i].fd = -1;
    *ret = vm;
    return 0;
}

int vm_create(int kvm_fd, struct guest_ram *ram, const struct vm_shape *shape, struct vm **ret, struct error **err)
{
    struct vm *vm = NULL;
    int r = allocate(shape, &vm, err);

    if (r < 0)
        return r;
    vm->kvm_fd = kvm_fd;
    vm->ram = *ram;
    r = set_up(vm, err);
    if (r < 0) {
        vm->kvm_fd = -1; /* the caller's again, as ram is */
        vm->ram = (struct guest_ram){.memfd = -1};
        vm_destroy(vm);
        return r;
    }
    *ram = (struct guest_ram){.memfd = -1};
    *ret = vm;
    return 0;
}

int vm_add_device(struct vm *vm, struct device *device, struct error **err)
{
    unsigned index = vm->device_count;
    uint64_t address = VM_DEVICE_ADDRESS + (uint64_t)index * DEVICE_PAGE;
    struct kvm_irqfd irqfd = {.fd = (uint32_t)device->irq_fd, .gsi = vm->shape.ring0 ? VM_LINE_FIRST + index : index};

    if (index == VM_DEVICE_MAX) {
        device_destroy(device);
        return error_set(err, ENOSPC, "INVALID_VALUE", "more than %d devices in one VM", VM_DEVICE_MAX);
    }
    vm->devices[vm->device_count++] = device;
    for (unsigned q = 0; q < device->queue_count; q++) {
        struct kvm_ioeventfd notify = {
            .datamatch = q,
            .addr = address + REG_QUEUE_NOTIFY,
            .len = 4,
            .fd = device->queues[q].notify_fd,
            .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
        };
        if (ioctl(vm->vm_fd, KVM_IOEVENTFD, &notify) < 0)
            return kvm_error(err, "KVM_IOEVENTFD");
    }
    if (ioctl(vm->vm_fd, KVM_IRQFD, &irqfd) < 0)
        return kvm_error(err, "KVM_IRQFD");
    return 0;
}

/* Each device's interrupt is a message to the local APIC of processor 0 (Intel SDM volume 3, 11.11). One there is not
 * yet, or never, has its route too. */
int vm_route_interrupts(struct vm *vm, struct error **err)
{
    if (vm->shape.ring0)
        return 0; /* KVM's own: line n is pin n */
    auto_free struct kvm_irq_routing *routing =
        calloc(1, sizeof(*routing) + VM_DEVICE_MAX * sizeof(struct kvm_irq_routing_entry));

    if (!routing)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for interrupt routes");
    routing->nr = VM_DEVICE_MAX;
    for (unsigned i = 0; i < VM_DEVICE_MAX; i++)
        routing->entries[i] = (struct kvm_irq_routing_entry){
            .gsi = i,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = 0xfee00000, .data = (uint32_t)BOOT_VECTOR_DEVICE + i},
        };
    if (ioctl(vm->vm_fd, KVM_SET_GSI_ROUTING, routing) < 0)
        return kvm_error(err, "KVM_SET_GSI_ROUTING");
    return 0;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    for (unsigned i = 0; i < vm->device_count; i++)
        device_destroy(vm->devices[i]);
    if (vm->run)
        munmap(vm->run, vm->run_bytes);
    for (unsigned i = 0; i + 1 < vm->shape.vcpus; i++) {
        if (vm->others[i].run)
            munmap(vm->others[i].run, vm->run_bytes);
        close_fd(vm->others[i].fd);
    }
    free(vm->others);
    close_fd(vm->serial_fd);
    close_fd(vm->vcpu_fd);
    close_fd(vm->vm_fd);
    close_fd(vm->kvm_fd);
    guest_ram_destroy(&vm->ram);
    free(vm);
}
