/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which KVM is this? Its interface does not say. What matters is whether code in ring 0 runs natively, and that can be
 * tried: the same loop, run in ring 0 and in ring 3 of a guest, for a number of turns and for one turn; the difference
 * is the loop's own time, whatever an exit costs here. Native: equal within a small factor (a processor that is itself
 * emulated included). Emulated (PVM): 0.5 us a turn and more against 0.3 ns. Between a factor of 1 and one of thousands the
 * limit need not be precise. Each is the best of three, in the thread's own processor time: a busy host takes that away
 * from nobody, while by the wall clock it has made emulated code look native. And a ring 0 that seems native on a
 * processor that offers no virtualization is none. Called by coracle-vmm --probe, which the launcher runs once; no
 * thread, no sandbox: the guest is six bytes of our own.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "abi/boot_tables.h"
#include "base/cleanup.h"
#include "vmm/boot_direct.h"
#include "vmm/probe.h"
#include "vmm/vm.h"

enum { CODE = 0x100000, MEMORY = 2 << 20, TURNS = 2000, TRIES = 3, EMULATED_FACTOR = 30 };
/* And at least this: a loop of two instructions takes no processor 200 ns. What disturbs a measurement is divided by
 * the turns: half a millisecond in each of three runs would be needed. */
#define EMULATED_PS UINT64_C(200000)

/* dec ecx; jnz; out %al, 0x80; jmp back to the out */
static const uint8_t code[] = {0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x80, 0xeb, 0xfc};

const char *kvm_flavour_name(enum kvm_flavour flavour)
{
    static const char *const names[] = {"unknown", "vmx", "svm", "pvm"};

    _Static_assert(sizeof(names) / sizeof(names[0]) == KVM_FLAVOUR_PVM + 1, "a flavour without a name");
    return names[flavour];
}

static uint64_t spent_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The tables of abi/boot.h without an image: port 0x80 is opened to ring 3, both rings may run the code. */
static void write_guest(uint8_t *memory)
{
    const struct boot_image none = {0};
    struct boot_tables tables;

    tables_begin(&tables, memory, BOOT_IMAGE_ADDRESS);
    tables_segments(&tables, &none);
    memory[TABLE_TSS + 0x68 + 0x80 / 8] = 0xfe;
    tables_map(&tables, TABLE_GDT, TABLE_PML4, PAGE_WRITE | PAGE_NX);
    tables_map(&tables, CODE, CODE + TABLE_PAGE, PAGE_USER);
    memcpy(memory + CODE, code, sizeof(code));
}

static int set_registers(const struct vm *vm, bool ring0, uint64_t turns, struct error **err)
{
    const uint8_t dpl = ring0 ? 0 : 3;
    const struct kvm_regs regs = {.rflags = 2, .rip = CODE, .rcx = turns};
    struct kvm_sregs s;

    if (ioctl(vm->vcpu_fd, KVM_GET_SREGS, &s) < 0)
        return error_set_errno(err, errno, "START_FAILED", "KVM_GET_SREGS");
    s.cr0 = 0x80050033;
    s.cr3 = TABLE_PML4;
    s.cr4 = 0x620;
    s.efer = 0xd01;
    s.cs = (struct kvm_segment){.limit = 0xffffffff,
                                .selector = ring0 ? BOOT_SELECTOR_KERNEL_CODE : BOOT_SELECTOR_USER_CODE,
                                .type = 11,
                                .present = 1,
                                .dpl = dpl,
                                .s = 1,
                                .l = 1,
                                .g = 1};
    s.ss = s.ds = s.es = s.fs = s.gs =
        (struct kvm_segment){.limit = 0xffffffff,
                             .selector = ring0 ? BOOT_SELECTOR_KERNEL_DATA : BOOT_SELECTOR_USER_DATA,
                             .type = 3,
                             .present = 1,
                             .dpl = dpl,
                             .db = 1,
                             .s = 1,
                             .g = 1};
    s.tr = (struct kvm_segment){.base = TABLE_TSS,
                                .limit = TABLE_TSS_BYTES - 1,
                                .selector = BOOT_SELECTOR_TSS,
                                .type = direct_tss_type(),
                                .present = 1};
    s.gdt = (struct kvm_dtable){.base = TABLE_GDT, .limit = TABLE_GDT_BYTES - 1};
    s.idt = (struct kvm_dtable){.base = TABLE_IDT, .limit = 256 * 16 - 1};
    if (ioctl(vm->vcpu_fd, KVM_SET_SREGS, &s) < 0 || ioctl(vm->vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_set_errno(err, errno, "START_FAILED", "the probe's registers");
    return 0;
}

static int run_once(const struct vm *vm, bool ring0, uint64_t turns, uint64_t *ret_ns, struct error **err)
{
    int r = set_registers(vm, ring0, turns, err);
    uint64_t begin = spent_ns();

    if (r < 0)
        return r;
    while (ioctl(vm->vcpu_fd, KVM_RUN, 0) < 0)
        if (errno != EINTR && errno != EAGAIN)
            return error_set_errno(err, errno, "START_FAILED", "KVM_RUN of the probe");
    if (vm->run->exit_reason != KVM_EXIT_IO || vm->run->io.port != 0x80) {
        struct kvm_regs at = {0};
        ioctl(vm->vcpu_fd, KVM_GET_REGS, &at);
        return error_set(err, EIO, "START_FAILED",
                         "the probe's guest in ring %d ended with KVM exit %u at %#llx, %llu turns left", ring0 ? 0 : 3,
                         vm->run->exit_reason, at.rip, at.rcx);
    }
    *ret_ns = spent_ns() - begin;
    /* The port's instruction is completed by the next run; registers are set anew before it. */
    return 0;
}

static int best_of(const struct vm *vm, bool ring0, uint64_t turns, uint64_t *ret_ns, struct error **err)
{
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t ns = 0;
        int r = run_once(vm, ring0, turns, &ns, err);
        if (r < 0)
            return r;
        if (ns < best)
            best = ns;
    }
    *ret_ns = best;
    return 0;
}

static int turn_ps(const struct vm *vm, bool ring0, uint64_t *ret, struct error **err)
{
    uint64_t one = 0, many = 0;
    int r = best_of(vm, ring0, 1, &one, err);

    if (r == 0)
        r = best_of(vm, ring0, TURNS, &many, err);
    if (r == 0)
        *ret = many > one ? (many - one) * 1000 / TURNS : 0;
    return r;
}

/* A native ring 0 is one of two, and the processor says which it has (Intel SDM volume 2; AMD APM volume 3). */
static enum kvm_flavour hardware_flavour(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 5))
        return KVM_FLAVOUR_VMX;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2))
        return KVM_FLAVOUR_SVM;
    return KVM_FLAVOUR_UNKNOWN;
}

static int measure(const struct vm *vm, struct kvm_probe *ret, struct error **err)
{
    int r = turn_ps(vm, false, &ret->ring3_ps, err);

    if (r == 0)
        r = turn_ps(vm, true, &ret->ring0_ps, err);
    if (r < 0)
        return r;
    ret->kvm = true;
    ret->native = (ret->ring0_ps < EMULATED_PS || ret->ring0_ps < ret->ring3_ps * EMULATED_FACTOR) &&
                  hardware_flavour() != KVM_FLAVOUR_UNKNOWN;
    ret->flavour = ret->native ? hardware_flavour() : KVM_FLAVOUR_PVM;
    return 0;
}

int kvm_probe(int kvm_fd, struct kvm_probe *ret, struct error **err)
{
    const struct vm_shape shape = {.vcpus = 1};
    struct kvm_probe probe = {0};
    struct guest_ram ram;
    struct vm *vm = NULL;
    int fd = fcntl(kvm_fd, F_DUPFD_CLOEXEC, 0), r;

    if (fd < 0)
        return error_set_errno(err, errno, "INTERNAL", "dup of /dev/kvm");
    r = guest_ram_create(MEMORY, 0, &ram, err);
    if (r == 0) {
        write_guest(ram.memory.base);
        r = vm_create(fd, &ram, &shape, &vm, err);
        if (r < 0)
            guest_ram_destroy(&ram);
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    r = measure(vm, &probe, err);
    vm_destroy(vm);
    if (r == 0)
        *ret = probe;
    return r;
}

static bool can_open(const char *path)
{
    auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);

    return fd >= 0;
}

int kvm_probe_print(void)
{
    auto_error struct error *err = NULL;
    struct kvm_probe probe = {0};
    auto_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0)
        error_set_errno(&err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm");
    else
        kvm_probe(kvm, &probe, &err);
    printf("{\"kvm\": %s, \"flavour\": \"%s\", \"ring0\": \"%s\", \"ring0_ps\": %" PRIu64 ", \"ring3_ps\": %" PRIu64
           ", \"vhost_net\": %s",
           probe.kvm ? "true" : "false", kvm_flavour_name(probe.flavour),
           !probe.kvm     ? "unknown"
           : probe.native ? "native"
                          : "emulated",
           probe.ring0_ps, probe.ring3_ps, can_open("/dev/vhost-net") ? "true" : "false");
    if (err)
        printf(", \"reason\": \"%s\"", err->message); /* our own words: no quote, no backslash in them */
    printf("}\n");
    return 0;
}
