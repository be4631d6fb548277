/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads 1 to n. Theory of operation:
 *
 * Each runs its vCPU until the guest ends on any of them. Whoever ends it first leaves the result and wakes the main
 * thread, which reports and ends the process; nobody else has to be stopped for that. A pause sets a flag and
 * interrupts every thread: KVM_RUN finishes what is under way (immediate_exit), the thread parks, the pauser counts.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/cpus.h"

enum { STACK_BYTES = 64 * 1024 };

static struct {
    struct vm *vm;
    const struct vcpu_callbacks *callbacks;
    unsigned count;
    pid_t main_thread, threads[VM_VCPU_MAX];
    sem_t started, parked, go, left, never;
    bool pause_wanted; /* atomic */
    pthread_mutex_t lock;
    bool ended;
    struct vcpu_result result;
} self = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void leave_result(const struct vcpu_result *result)
{
    pthread_mutex_lock(&self.lock);
    if (!self.ended)
        self.result = *result;
    self.ended = true;
    pthread_mutex_unlock(&self.lock);
    __atomic_store_n(&self.vm->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_tgkill, getpid(), self.main_thread, SIGUSR1);
}

bool cpus_ended(struct vcpu_result *ret)
{
    bool ended;

    pthread_mutex_lock(&self.lock);
    ended = self.ended;
    if (ended)
        *ret = self.result;
    pthread_mutex_unlock(&self.lock);
    return ended;
}

static void park(struct vm_vcpu *cpu)
{
    __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&self.pause_wanted, __ATOMIC_SEQ_CST))
        return;
    sem_post(&self.parked);
    while (__atomic_load_n(&self.pause_wanted, __ATOMIC_SEQ_CST))
        sem_wait(&self.go);
    sem_post(&self.left);
}

static void *cpu_thread(void *argument)
{
    unsigned index = (unsigned)(uintptr_t)argument;
    struct vm_vcpu *cpu = &self.vm->others[index];
    struct vcpu_counters counters = {0};
    struct vcpu_result result = {.end = VCPU_FAILED};
    bool on = true;

    self.threads[index] = (pid_t)syscall(SYS_gettid);
    sem_post(&self.started);
    while (on) {
        if (ioctl(cpu->fd, KVM_RUN, 0) == 0) {
            on = vcpu_handle_exit(self.vm, cpu, self.callbacks, &counters, &result);
        } else if (errno == EINTR || errno == EAGAIN) {
            park(cpu);
        } else {
            strcpy(result.words, "KVM_RUN failed on a vCPU behind the first");
            on = false;
        }
    }
    leave_result(&result);
    for (;;)
        sem_wait(&self.never); /* the main thread ends the process */
    return NULL;
}

/* The signal only has to interrupt KVM_RUN; its handler is vcpu.c's. Others are the main thread's. */
static int start_thread(unsigned index, struct error **err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t most, before;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&most);
    sigdelset(&most, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &most, &before);
    int r = pthread_create(&thread, &attributes, cpu_thread, (void *)(uintptr_t)index);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r != 0)
        return error_set_errno(err, r, "INTERNAL", "cannot start the thread of vCPU %u", index + 1);
    while (sem_wait(&self.started) < 0)
        ;
    return 0;
}

int cpus_start(struct vm *vm, const struct vcpu_callbacks *callbacks, struct error **err)
{
    int r = 0;

    self.vm = vm;
    self.callbacks = callbacks;
    self.main_thread = (pid_t)syscall(SYS_gettid);
    sem_init(&self.started, 0, 0);
    sem_init(&self.parked, 0, 0);
    sem_init(&self.go, 0, 0);
    sem_init(&self.left, 0, 0);
    sem_init(&self.never, 0, 0);
    for (unsigned i = 0; r == 0 && i + 1 < vm->shape.vcpus; i++) {
        r = start_thread(i, err);
        if (r == 0)
            self.count++;
    }
    return r;
}

static void wait_for_all(sem_t *what)
{
    for (unsigned i = 0; i < self.count; i++)
        while (sem_wait(what) < 0)
            ;
}

void cpus_pause(void)
{
    if (!self.count)
        return;
    __atomic_store_n(&self.pause_wanted, true, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < self.count; i++) {
        __atomic_store_n(&self.vm->others[i].run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_tgkill, getpid(), self.threads[i], SIGUSR1);
    }
    wait_for_all(&self.parked);
}

void cpus_resume(void)
{
    if (!self.count)
        return;
    __atomic_store_n(&self.pause_wanted, false, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < self.count; i++)
        sem_post(&self.go);
    wait_for_all(&self.left);
}
