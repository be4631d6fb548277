/* SPDX-License-Identifier: Apache-2.0 */
/* What kind of KVM a host has, found out by running a guest for a few milliseconds. */
#ifndef CORACLE_VMM_PROBE_H
#define CORACLE_VMM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum kvm_flavour {
    KVM_FLAVOUR_UNKNOWN,
    KVM_FLAVOUR_VMX,
    KVM_FLAVOUR_SVM,
    KVM_FLAVOUR_PVM, /* no hardware virtualization: guest code in ring 0 is emulated */
};

struct kvm_probe {
    bool kvm;    /* a guest ran */
    bool native; /* in ring 0 at the processor's speed: kernels can be guests */
    enum kvm_flavour flavour;
    bool vhost_net;
    uint64_t ring0_ps; /* picoseconds for one turn of a two-instruction loop there */
    uint64_t ring3_ps; /* the same in ring 3 */
};

const char *kvm_flavour_name(enum kvm_flavour flavour); /* "vmx", "svm", "pvm", "unknown" */

/* kvm_fd: /dev/kvm, borrowed. vhost_net is left to the caller. Takes about 15 ms on PVM, 1 ms elsewhere. */
int kvm_probe(int kvm_fd, struct kvm_probe *ret, struct error **err);

/* coracle-vmm --probe: opens the devices, prints one line of JSON. Returns main()'s status: 0 also without KVM. */
int kvm_probe_print(void);

#endif
