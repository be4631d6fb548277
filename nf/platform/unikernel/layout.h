/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that assembly needs; C takes them from abi/boot.h, and start.c asserts that they are the same. */
#ifndef UNIKERNEL_LAYOUT_H
#define UNIKERNEL_LAYOUT_H

#define SHARED_INTERRUPTS 0x3020 /* boot_shared.interrupts */
#define APIC_EOI          0xfee000b0

#endif
