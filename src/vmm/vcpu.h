/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the vCPU: the exit loop, and the guest's idle. */
#ifndef CORACLE_VMM_VCPU_H
#define CORACLE_VMM_VCPU_H

#include "abi/boot.h"
#include "vmm/vm.h"

enum vcpu_end {
    VCPU_EXIT,    /* the guest ended by itself: status */
    VCPU_PANIC,   /* it panicked: panic is filled */
    VCPU_RESET,   /* triple fault or reset: the registers of panic are filled */
    VCPU_STOPPED, /* a signal: status is its number */
    VCPU_FAILED,  /* KVM refused to go on: words */
};

struct vcpu_result {
    enum vcpu_end end;
    uint32_t status;
    struct boot_panic panic;
    char words[128];
};

struct vcpu_counters {
    uint64_t idle, mmio, pio, other, interrupted;
    uint64_t data; /* of mmio: what a driver does for each packet or interrupt, where it is not spared that */
};

/* What the guest says through its ports, told on the vCPU's thread. NULL: not told. */
struct vcpu_callbacks {
    void (*ready)(void *context);
    void (*console)(void *context, uint8_t byte);
    void (*text)(void *context, const void *bytes, size_t size); /* bytes lie in guest memory */
    void (*idle)(void *context);                                 /* it has nothing to do: before it sleeps */
    bool (*park)(void *context); /* it is ready and would sleep. True: time has passed, it looks for work again */
    bool (*stop)(void *context); /* a signal wants the run to end. True: the guest was asked to end by itself */
    void *context;
};

/* Runs until something ends it. Returns with *ret filled. */
void vcpu_run(struct vm *vm, const struct vcpu_callbacks *callbacks, struct vcpu_counters *counters,
              struct vcpu_result *ret);

/* What KVM_RUN of any vCPU came back for. Returns whether to go on; else *ret says how the guest ended. */
bool vcpu_handle_exit(struct vm *vm, const struct vm_vcpu *cpu, const struct vcpu_callbacks *callbacks,
                      struct vcpu_counters *counters, struct vcpu_result *ret);

/* Any other thread: returns when no guest code runs and no exit is being handled, until vcpu_resume(). What a guest was
 * doing is complete then: its state can be read. A signal that ends the run ends the pause. */
void vcpu_pause(struct vm *vm);
void vcpu_resume(struct vm *vm);

/* The vCPU's thread: whether a signal wants the run to end. */
bool vcpu_is_stopping(void);

/* Any thread: as a signal from outside. */
void vcpu_end(int signal);

/* Handlers of the signals that end a run (SIGTERM, SIGINT, SIGHUP) and the timer of the guest's deadlines. Once, on the
 * thread that will call vcpu_run(); other threads block all signals. */
int vcpu_prepare(struct vm *vm, struct error **err);

#endif
