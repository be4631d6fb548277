/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The draft's published figures, sections 4.2 to 4.6, in one table. Formatted beside what was measured, never mixed
 * with it: they come from other hardware and another decade.
 */
#include <string.h>

#include "bench/reference.h"

static const char *const technologies[] = {
    "standardvm.xen",    "standardvm.kvm",       "container", "tinyx.kvm", "tinyx.xen",
    "unikernel.osv.kvm", "unikernel.minios.xen", NULL,
};

static const struct reference list[] = {
    {"4.2", "instantiation", "standardvm.xen", 6500},
    {"4.2", "instantiation", "standardvm.kvm", 2988},
    {"4.2", "instantiation", "container", 1711},
    {"4.2", "instantiation", "tinyx.kvm", 1081},
    {"4.2", "instantiation", "tinyx.xen", 431},
    {"4.2", "instantiation", "unikernel.osv.kvm", 330},
    {"4.2", "instantiation", "unikernel.minios.xen", 31},

    {"4.3", "throughput_tx", "standardvm.xen", 23.1},
    {"4.3", "throughput_tx", "standardvm.kvm", 20.1},
    {"4.3", "throughput_tx", "container", 45.1},
    {"4.3", "throughput_tx", "tinyx.kvm", 21.5},
    {"4.3", "throughput_tx", "tinyx.xen", 28.6},
    {"4.3", "throughput_tx", "unikernel.osv.kvm", 47.9},
    {"4.3", "throughput_tx", "unikernel.minios.xen", 49.5},

    {"4.3", "throughput_rx", "standardvm.xen", 24.5},
    {"4.3", "throughput_rx", "standardvm.kvm", 38.9},
    {"4.3", "throughput_rx", "container", 43.8},
    {"4.3", "throughput_rx", "tinyx.kvm", 37.9},
    {"4.3", "throughput_rx", "tinyx.xen", 24.9},
    {"4.3", "throughput_rx", "unikernel.osv.kvm", 47.7},
    {"4.3", "throughput_rx", "unikernel.minios.xen", 32.6},

    {"4.4", "rtt", "standardvm.xen", 34},
    {"4.4", "rtt", "standardvm.kvm", 18},
    {"4.4", "rtt", "container", 4},
    {"4.4", "rtt", "tinyx.kvm", 19},
    {"4.4", "rtt", "tinyx.xen", 15},
    {"4.4", "rtt", "unikernel.osv.kvm", 9},
    {"4.4", "rtt", "unikernel.minios.xen", 5},

    {"4.5", "image_size", "standardvm.xen", 913},
    {"4.5", "image_size", "standardvm.kvm", 913},
    {"4.5", "image_size", "container", 61},
    {"4.5", "image_size", "tinyx.kvm", 3.5},
    {"4.5", "image_size", "tinyx.xen", 3.7},
    {"4.5", "image_size", "unikernel.osv.kvm", 12},
    {"4.5", "image_size", "unikernel.minios.xen", 2},

    {"4.6", "memory", "standardvm.xen", 112},
    {"4.6", "memory", "standardvm.kvm", 82},
    {"4.6", "memory", "container", 3.8},
    {"4.6", "memory", "tinyx.kvm", 30},
    {"4.6", "memory", "tinyx.xen", 31},
    {"4.6", "memory", "unikernel.osv.kvm", 52},
    {"4.6", "memory", "unikernel.minios.xen", 8},
};

const struct reference *reference_list(size_t *ret_count)
{
    *ret_count = sizeof(list) / sizeof(list[0]);
    return list;
}

const struct reference *reference_find(const char *metric, const char *technology)
{
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(list[i].metric, metric) == 0 && strcmp(list[i].technology, technology) == 0)
            return &list[i];
    return NULL;
}

const char *const *reference_technologies(void)
{
    return technologies;
}
