/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coracle-vmm: one process, one VM. Parses its options, makes the VM, closes the sandbox, runs the vCPU, tells how it
 * ended. Started by a person (coracle-vmm(1)); after the sandbox is closed it can open nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <x86intrin.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/boot_direct.h"
#include "vmm/devices/loop.h"
#include "vmm/devices/net.h"
#include "vmm/options.h"
#include "vmm/sandbox.h"
#include "vmm/vcpu.h"

enum { NET_HEADER_BYTES = 12 };
/* Exit statuses besides the guest's own. */
enum { EXIT_WRONG_OPTIONS = 64, EXIT_NOT_STARTED = 125, EXIT_GUEST_FAILED = 126, EXIT_SIGNAL = 128 };

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

static int map_file(const char *path, const uint8_t **ret, size_t *ret_size, struct error **err)
{
    struct stat st;
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", path);
    if (st.st_size == 0)
        return error_set(err, EINVAL, "IMAGE_MALFORMED", "%s is empty", path);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return error_set_errno(err, errno, "IMAGE_NOT_FOUND", "%s", path);
    *ret = map;
    *ret_size = (size_t)st.st_size;
    return 0;
}

static void fill_clock(struct vm *vm, struct boot_info *info)
{
    struct timespec now;
    int khz = ioctl(vm->vcpu_fd, KVM_GET_TSC_KHZ, 0);

    clock_gettime(CLOCK_REALTIME, &now);
    info->wall_clock_tsc = __rdtsc();
    info->wall_clock_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    info->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
}

static int load(struct vm *vm, const struct options *o, struct error **err)
{
    struct direct_boot boot = {.parameters = o->parameters};
    struct elf_image image;
    size_t size = 0;
    int r = map_file(o->kernel, &boot.file, &size, err);

    if (r == 0)
        r = elf_read(boot.file, size, vm->ram.memory.bytes, 0, &image, err);
    if (r < 0)
        return r;
    boot.image = &image;
    fill_clock(vm, &boot.info);
    if (getrandom(boot.info.seed, sizeof(boot.info.seed), 0) != sizeof(boot.info.seed))
        return error_set_errno(err, errno, "INTERNAL", "getrandom");
    boot.info.device_count = vm->device_count;
    for (unsigned i = 0; i < vm->device_count; i++)
        boot.info.devices[i] = (struct boot_device){
            .address = VM_DEVICE_ADDRESS + (uint64_t)i * DEVICE_PAGE,
            .kind = vm->devices[i]->ops->type,
            .vector = (uint32_t)BOOT_VECTOR_DEVICE + i,
        };
    r = direct_boot_memory(&vm->ram.memory, &boot, err);
    if (r == 0)
        r = direct_boot_registers(vm->vcpu_fd, &vm->ram.memory, err);
    munmap((void *)(uintptr_t)boot.file, size);
    return r;
}

static int make_vm(const struct options *o, struct vm **ret, struct error **err)
{
    struct guest_ram ram = {.memfd = -1};
    auto_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int r;

    if (kvm < 0) {
        error_set_errno(err, errno, "TECHNOLOGY_UNAVAILABLE", "/dev/kvm");
        error_hint(err, "load kvm_intel or kvm_amd, or join the group kvm");
        return -EACCES;
    }
    r = guest_ram_create(o->memory_bytes, 0, &ram, err);
    if (r < 0)
        return r;
    r = vm_create(kvm, &ram, ret, err);
    if (r < 0)
        guest_ram_destroy(&ram);
    else
        take_fd(&kvm);
    return r;
}

static int add_network(struct vm *vm, struct loop *loop, const struct options *o, struct error **err)
{
    struct device *net;
    int tap = open_tap(o->tap, err);
    int r;

    if (tap < 0)
        return tap;
    r = net_create(&vm->ram.memory, tap, o->mac, &net, err);
    if (r < 0) {
        close(tap);
        return r;
    }
    r = vm_add_device(vm, net, err);
    if (r < 0)
        return r;
    return net_attach(net, loop, err);
}

/* The guest's output, written line by line: each byte is an exit already. */
struct console {
    int fd;
    size_t used;
    char line[256];
};

static void console_flush(void *context)
{
    struct console *c = context;

    if (c->used && write(c->fd, c->line, c->used) < 0) {
        /* nobody reads: the guest does not care */
    }
    c->used = 0;
}

static void console_byte(void *context, uint8_t byte)
{
    struct console *c = context;

    c->line[c->used++] = (char)byte;
    if (byte == '\n' || c->used == sizeof(c->line))
        console_flush(c);
}

static void console_text(void *context, const void *bytes, size_t size)
{
    struct console *c = context;

    console_flush(c);
    if (write(c->fd, bytes, size) < 0) {
        /* as above */
    }
}

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

static int report(const struct vcpu_result *end, const struct vcpu_counters *c, const char *kernel)
{
    log_line(LOG_LEVEL_DEBUG, NULL, "exits: %" PRIu64 " idle, %" PRIu64 " mmio, %" PRIu64 " ports", c->idle, c->mmio,
             c->pio);
    switch (end->end) {
    case VCPU_EXIT:
        return (int)(end->status & 0xff);
    case VCPU_STOPPED:
        return EXIT_SIGNAL + (int)end->status;
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
    report_registers(&end->panic, kernel);
    return EXIT_GUEST_FAILED;
}

static int prepare(const struct options *o, struct vm **ret_vm, struct error **err)
{
    struct vm *vm = NULL;
    struct loop *loop = NULL;
    int r = make_vm(o, &vm, err);

    if (r == 0)
        r = loop_create(&loop, err);
    if (r == 0 && o->tap)
        r = add_network(vm, loop, o, err);
    if (r == 0)
        r = vm_route_interrupts(vm, err);
    if (r == 0)
        r = load(vm, o, err);
    if (r == 0) {
        vm->kvm_fd = close_fd(vm->kvm_fd); /* it could make more VMs */
        r = vcpu_prepare(vm, err);
    }
    if (r == 0)
        r = sandbox_privileges(err);
    if (r == 0)
        r = sandbox_files(err);
    if (r == 0)
        r = loop_start(loop, err);
    if (r == 0)
        r = sandbox_calls(err);
    if (r < 0) {
        loop_destroy(loop);
        vm_destroy(vm);
        return r;
    }
    *ret_vm = vm; /* both live as long as the process */
    return 0;
}

int main(int argc, char **argv)
{
    struct vcpu_counters counters = {0};
    struct vcpu_result end;
    struct vm *vm = NULL;
    struct options o;
    auto_error struct error *err = NULL;

    if (options_parse(argc, argv, &o, &err) < 0) {
        fprintf(stderr, "coracle-vmm: %s%s%s\n", err->message, err->hint ? "; try: " : "", err->hint ? err->hint : "");
        return EXIT_WRONG_OPTIONS;
    }
    if (!o.kernel)
        return EXIT_SUCCESS;
    int r = sandbox_begin(o.console_fd, &err);
    log_open("coracle-vmm", getenv("CORACLE_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    tzset(); /* reads a file, which is not possible later */
    if (r == 0)
        r = prepare(&o, &vm, &err);
    if (r < 0) {
        log_error(NULL, err, "cannot run %s", o.kernel);
        return EXIT_NOT_STARTED;
    }
    struct console console = {.fd = o.console_fd};
    const struct vcpu_callbacks callbacks = {
        .console = console_byte, .text = console_text, .idle = console_flush, .context = &console};
    vcpu_run(vm, &callbacks, &counters, &end);
    console_flush(&console);
    _exit(report(&end, &counters, o.kernel)); /* no destructors: they would need calls that are gone */
}
