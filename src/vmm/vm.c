/* SPDX-License-Identifier: Apache-2.0 */
/* KVM set-up, on the vCPU's thread, once. The memory slot comes before the vCPU and after the split irqchip: with a
 * full irqchip adding it costs milliseconds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "abi/boot.h"
#include "base/cleanup.h"
#include "vmm/vm.h"

enum { SPLIT_IRQCHIP_PINS = 24, CPUID_ENTRY_MAX = 128 };

static int kvm_error(struct error **err, const char *call)
{
    int r = error_set_errno(err, errno, "START_FAILED", "%s", call);

    error_hint(err, "coracle doctor says what this host's KVM can do");
    return r;
}

static int set_cpuid(struct vm *vm, struct error **err)
{
    auto_free struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_ENTRY_MAX * sizeof(struct kvm_cpuid_entry2));

    if (!cpuid)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for the processor's description");
    cpuid->nent = CPUID_ENTRY_MAX;
    if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return kvm_error(err, "KVM_GET_SUPPORTED_CPUID");
    if (ioctl(vm->vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
        return kvm_error(err, "KVM_SET_CPUID2");
    return 0;
}

static int create_vcpu(struct vm *vm, struct error **err)
{
    int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    vm->vcpu_fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, 0);
    if (vm->vcpu_fd < 0 || size < (int)sizeof(*vm->run))
        return kvm_error(err, "KVM_CREATE_VCPU");
    vm->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
    if (vm->run == MAP_FAILED) {
        vm->run = NULL;
        return kvm_error(err, "mapping the vCPU's run area");
    }
    vm->run_bytes = (size_t)size;
    return set_cpuid(vm, err);
}

static int set_up(struct vm *vm, struct error **err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {SPLIT_IRQCHIP_PINS}};
    struct kvm_userspace_memory_region region = {
        .memory_size = vm->ram.memory.bytes,
        .userspace_addr = (uint64_t)(uintptr_t)vm->ram.memory.base,
    };

    if (ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm does not speak version %d", KVM_API_VERSION);
    vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return kvm_error(err, "KVM_CREATE_VM");
    if (ioctl(vm->vm_fd, KVM_ENABLE_CAP, &split) < 0)
        return kvm_error(err, "KVM_CAP_SPLIT_IRQCHIP");
    if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return kvm_error(err, "KVM_SET_USER_MEMORY_REGION");
    return create_vcpu(vm, err);
}

int vm_create(int kvm_fd, struct guest_ram *ram, struct vm **ret, struct error **err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a VM");
    *vm = (struct vm){.kvm_fd = kvm_fd, .vm_fd = -1, .vcpu_fd = -1, .ram = *ram};
    int r = set_up(vm, err);
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
    struct kvm_irqfd irqfd = {.fd = (uint32_t)device->irq_fd, .gsi = index};

    if (index == VM_DEVICE_MAX) {
        device_destroy(device);
        return error_set(err, ENOSPC, "INVALID_VALUE", "more than %d devices in one VM", VM_DEVICE_MAX);
    }
    vm->devices[vm->device_count++] = device;
    for (unsigned q = 0; q < device->ops->queue_count; q++) {
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

/* Each device's interrupt is a message to the local APIC of processor 0 (Intel SDM volume 3, 11.11). */
int vm_route_interrupts(struct vm *vm, struct error **err)
{
    auto_free struct kvm_irq_routing *routing =
        calloc(1, sizeof(*routing) + VM_DEVICE_MAX * sizeof(struct kvm_irq_routing_entry));

    if (!routing)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for interrupt routes");
    routing->nr = vm->device_count;
    for (unsigned i = 0; i < vm->device_count; i++)
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
    close_fd(vm->vcpu_fd);
    close_fd(vm->vm_fd);
    close_fd(vm->kvm_fd);
    guest_ram_destroy(&vm->ram);
    free(vm);
}
