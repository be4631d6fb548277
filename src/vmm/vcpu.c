/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU's thread. Theory of operation:
 *
 * Data makes no exits: queues are notified by ioeventfd, interrupts come by irqfd. What is left is configuration (MMIO
 * to a device's page), the early console, and idle. A guest at CPL 3 cannot halt, so it says so through a port; the
 * monitor then marks the vCPU halted and lets KVM sleep until an interrupt comes: the irqfd wakes it without the
 * monitor. A deadline of the guest is a timer of ours whose signal ends KVM_RUN. Signal handlers set immediate_exit,
 * which KVM looks at after it has blocked signals: one that comes just before KVM_RUN is not lost.
 */
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/cpus.h"
#include "vmm/device_setup.h"
#include "vmm/pc.h"
#include "vmm/vcpu.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid /* as the kernel and musl call it */
#endif

static struct kvm_run *running; /* of the vCPU of this process */
static volatile sig_atomic_t stop_signal;
static struct {
    bool wanted; /* atomic */
    pid_t thread;
    sem_t parked, go, left;
} pausing;

static void on_signal(int signal)
{
    if (signal != SIGUSR1) {
        stop_signal = signal;
        sem_post(&pausing.go);
    }
    if (running)
        __atomic_store_n(&running->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

static int set_handlers(struct error **err)
{
    static const int signals[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP};
    const struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a stuck console must not hold a stop */

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], &action, NULL) < 0)
            return error_set_errno(err, errno, "INTERNAL", "sigaction");
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

bool vcpu_is_stopping(void)
{
    return stop_signal != 0;
}

void vcpu_end(int signal)
{
    syscall(SYS_tgkill, getpid(), pausing.thread, signal);
}

int vcpu_prepare(struct vm *vm, struct error **err)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    int khz = ioctl(vm->vcpu_fd, KVM_GET_TSC_KHZ, 0);

    pausing.thread = (pid_t)syscall(SYS_gettid);
    sem_init(&pausing.parked, 0, 0);
    sem_init(&pausing.go, 0, 0);
    sem_init(&pausing.left, 0, 0);
    event.sigev_notify_thread_id = pausing.thread;
    vm->deadline.tsc_khz = khz > 0 ? (uint64_t)khz : 1000000;
    if (timer_create(CLOCK_MONOTONIC, &event, &vm->deadline.timer) < 0)
        return error_set_errno(err, errno, "INTERNAL", "timer_create");
    running = vm->run;
    return set_handlers(err);
}

static struct device *device_at(struct vm *vm, uint64_t address, uint64_t *ret_offset)
{
    uint64_t index = (address - VM_DEVICE_ADDRESS) / DEVICE_PAGE;

    if (address < VM_DEVICE_ADDRESS || index >= vm->device_count)
        return NULL;
    *ret_offset = (address - VM_DEVICE_ADDRESS) % DEVICE_PAGE;
    return vm->devices[index];
}

static void handle_mmio(struct vm *vm, struct kvm_run *run, struct vcpu_counters *counters)
{
    unsigned length = run->mmio.len <= 8 ? run->mmio.len : 8;
    uint64_t offset = 0, value = 0;
    struct device *device = device_at(vm, run->mmio.phys_addr, &offset);

    counters->mmio++;
    if (device && (offset == REG_QUEUE_NOTIFY || offset == REG_INTERRUPT_STATUS || offset == REG_INTERRUPT_ACK))
        counters->data++;
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, length);
        if (device)
            virtio_mmio_write(device, offset, length, value);
        return;
    }
    if (device)
        value = virtio_mmio_read(device, offset, length);
    memcpy(run->mmio.data, &value, length);
}

/* Halted until an interrupt; KVM_RUN sleeps in the kernel. A pending one ends the sleep at once. */
static int halt(struct vm *vm)
{
    struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_HALTED};

    return ioctl(vm->vcpu_fd, KVM_SET_MP_STATE, &state) < 0 ? -errno : 0;
}

/* until: the guest's word, any value. */
static void deadline_arm(struct vm_deadline *d, uint64_t until)
{
    struct itimerspec when = {0};
    uint64_t now = __rdtsc();

    if (until == 0 && !d->armed)
        return;
    if (until != 0) {
        uint64_t ticks = until > now ? until - now : 0;
        uint64_t seconds = ticks / (d->tsc_khz * 1000), rest = ticks % (d->tsc_khz * 1000);
        when.it_value.tv_sec = seconds < 86400 ? (time_t)seconds : 86400;
        when.it_value.tv_nsec = (long)(rest * 1000000 / d->tsc_khz);
        if (seconds == 0 && when.it_value.tv_nsec < 1000)
            when.it_value.tv_nsec = 1000;
    }
    d->armed = until != 0;
    timer_settime(d->timer, 0, &when, NULL);
}

/* Everything here is the guest's word: the address, and the text, of which only printable characters are shown. */
static void fill_panic(struct vm *vm, struct vcpu_result *ret)
{
    const struct boot_shared *shared = guest_memory_at(&vm->ram.memory, BOOT_SHARED_ADDRESS, sizeof(*shared));
    uint64_t address = shared ? __atomic_load_n(&shared->panic, __ATOMIC_RELAXED) : 0;
    const void *panic = guest_memory_at(&vm->ram.memory, address, sizeof(ret->panic));

    ret->end = VCPU_PANIC;
    if (panic)
        memcpy(&ret->panic, panic, sizeof(ret->panic));
    struct kvm_sregs special;
    if (ioctl(vm->vcpu_fd, KVM_GET_SREGS, &special) == 0)
        ret->panic.cr2 = special.cr2; /* a guest at CPL 3 cannot read it */
    ret->panic.message[sizeof(ret->panic.message) - 1] = '\0';
    for (char *c = ret->panic.message; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
}

/* Where a guest was that reset itself: for its developer. */
static void describe_registers(const struct vm_vcpu *cpu, struct vcpu_result *ret)
{
    struct kvm_regs regs;
    struct kvm_sregs special;

    if (ioctl(cpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(cpu->fd, KVM_GET_SREGS, &special) < 0)
        return;
    ret->panic.rip = regs.rip;
    ret->panic.rsp = regs.rsp;
    ret->panic.rflags = regs.rflags;
    ret->panic.cr2 = special.cr2;
    const uint64_t registers[15] = {regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.r8,
                                    regs.r9,  regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15};
    memcpy(ret->panic.registers, registers, sizeof(registers));
}

/* Told once. */
static void look_whether_ready(struct vm *vm, const struct vcpu_callbacks *callbacks)
{
    const struct boot_shared *shared = guest_memory_at(&vm->ram.memory, BOOT_SHARED_ADDRESS, sizeof(*shared));

    if (vm->ready || !shared || !__atomic_load_n(&shared->ready, __ATOMIC_RELAXED))
        return;
    vm->ready = true;
    if (callbacks->ready)
        callbacks->ready(callbacks->context);
}

/* Sleeps, unless an interrupt came since the guest looked for work. */
static bool handle_idle(struct vm *vm, const struct vcpu_callbacks *callbacks, uint32_t value)
{
    const struct boot_shared *shared = guest_memory_at(&vm->ram.memory, BOOT_SHARED_ADDRESS, sizeof(*shared));

    if (callbacks->idle)
        callbacks->idle(callbacks->context);
    if (vm->ready && callbacks->park && callbacks->park(callbacks->context))
        return true;
    if (!shared || (uint32_t)__atomic_load_n(&shared->interrupts, __ATOMIC_RELAXED) != value)
        return true;
    deadline_arm(&vm->deadline, __atomic_load_n(&shared->sleep_until_tsc, __ATOMIC_RELAXED));
    return halt(vm) == 0;
}

/* Text that does not lie in the guest's memory, or is too long, is not shown. */
static void handle_text(struct vm *vm, const struct vcpu_callbacks *callbacks, uint32_t address)
{
    const void *at = guest_memory_at(&vm->ram.memory, address, sizeof(struct boot_text));
    struct boot_text text = {0};

    if (at)
        memcpy(&text, at, sizeof(text));
    const void *bytes = guest_memory_at(&vm->ram.memory, text.address, text.length);
    if (bytes && text.length > 0 && text.length <= BOOT_TEXT_MAX && callbacks->text)
        callbacks->text(callbacks->context, bytes, text.length);
}

/* Returns whether to go on. */
static bool handle_port(struct vm *vm, const struct vcpu_callbacks *callbacks, struct vcpu_counters *counters,
                        struct vcpu_result *ret)
{
    struct kvm_run *run = vm->run;
    uint32_t value = 0;

    if (run->io.direction != KVM_EXIT_IO_OUT || run->io.size > 4 || run->io.count != 1)
        return true; /* reads give what lies there: zeroes */
    memcpy(&value, (const uint8_t *)run + run->io.data_offset, run->io.size);
    if (run->io.port == PORT_TEXT) /* what it said before it was ready is in the log when that is told */
        handle_text(vm, callbacks, value);
    look_whether_ready(vm, callbacks);
    switch (run->io.port) {
    case PORT_IDLE:
        counters->idle++;
        return handle_idle(vm, callbacks, value);
    case PORT_TEXT:
        return true;
    case PORT_DEVICE:
        device_setup(vm, value);
        return true;
    case PORT_CONSOLE:
        if (callbacks->console)
            callbacks->console(callbacks->context, (uint8_t)value);
        return true;
    case PORT_READY:
        return true;
    case PORT_EXIT:
        ret->end = VCPU_EXIT;
        ret->status = value;
        return false;
    case PORT_PANIC:
        fill_panic(vm, ret);
        return false;
    default:
        return true;
    }
}

void vcpu_pause(struct vm *vm)
{
    __atomic_store_n(&pausing.wanted, true, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vm->run->immediate_exit, 1, __ATOMIC_SEQ_CST); /* KVM_RUN finishes what is under way, no more */
    syscall(SYS_tgkill, getpid(), pausing.thread, SIGUSR1);
    while (sem_wait(&pausing.parked) < 0)
        ;
    cpus_pause();
}

void vcpu_resume(struct vm *vm)
{
    (void)vm;
    cpus_resume();
    __atomic_store_n(&pausing.wanted, false, __ATOMIC_SEQ_CST);
    sem_post(&pausing.go);
    while (sem_wait(&pausing.left) < 0) /* so that the next pause finds it running */
        ;
}

static void park(void)
{
    if (!__atomic_load_n(&pausing.wanted, __ATOMIC_SEQ_CST))
        return;
    sem_post(&pausing.parked);
    while (__atomic_load_n(&pausing.wanted, __ATOMIC_SEQ_CST) && !stop_signal)
        sem_wait(&pausing.go); /* a signal ends it, or its handler's post does */
    sem_post(&pausing.left);
}

/* KVM_RUN ended by a signal: a stop, or the deadline of a sleeping guest, which must then look at its clock. */
static bool handle_interrupted(struct vm *vm, const struct vcpu_callbacks *callbacks, struct vcpu_result *ret)
{
    struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_RUNNABLE};

    __atomic_store_n(&vm->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    park();
    if (stop_signal && callbacks->stop && callbacks->stop(callbacks->context))
        stop_signal = 0;
    if (stop_signal) {
        ret->end = VCPU_STOPPED;
        ret->status = (uint32_t)stop_signal;
        return false;
    }
    if (vm->shape.ring0) /* halted in KVM, which knows its timers */
        return !cpus_ended(ret);
    return ioctl(vm->vcpu_fd, KVM_SET_MP_STATE, &state) == 0;
}

bool vcpu_handle_exit(struct vm *vm, const struct vm_vcpu *cpu, const struct vcpu_callbacks *callbacks,
                      struct vcpu_counters *counters, struct vcpu_result *ret)
{
    switch (cpu->run->exit_reason) {
    case KVM_EXIT_IO:
        counters->pio++;
        return vm->shape.ring0 ? pc_port(vm, cpu->run, callbacks, ret) : handle_port(vm, callbacks, counters, ret);
    case KVM_EXIT_MMIO:
        handle_mmio(vm, cpu->run, counters);
        return true;
    case KVM_EXIT_SHUTDOWN:
    case KVM_EXIT_SYSTEM_EVENT:
        ret->end = VCPU_RESET;
        describe_registers(cpu, ret);
        return false;
    case KVM_EXIT_INTR:
    case KVM_EXIT_HLT:
        counters->other++;
        return true;
    default:
        snprintf(ret->words, sizeof(ret->words), "KVM exit %u", cpu->run->exit_reason);
        describe_registers(cpu, ret);
        return false;
    }
}

void vcpu_run(struct vm *vm, const struct vcpu_callbacks *callbacks, struct vcpu_counters *counters,
              struct vcpu_result *ret)
{
    const struct vm_vcpu cpu = {.fd = vm->vcpu_fd, .run = vm->run};
    bool on = true;

    *ret = (struct vcpu_result){.end = VCPU_FAILED};
    if (stop_signal)
        __atomic_store_n(&vm->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    while (on) {
        if (ioctl(vm->vcpu_fd, KVM_RUN, 0) == 0) {
            on = vcpu_handle_exit(vm, &cpu, callbacks, counters, ret);
            continue;
        }
        counters->interrupted++;
        on = (errno == EINTR || errno == EAGAIN) && handle_interrupted(vm, callbacks, ret);
        if (!on && ret->end == VCPU_FAILED)
            snprintf(ret->words, sizeof(ret->words), "KVM_RUN: %s", strerror(errno));
    }
}
