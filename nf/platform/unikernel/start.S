/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first instructions, the traps and the ring-0 halt of the unikernel.
 *
 * `start` is entered at CPL 3 with everything prepared (include/abi/boot.h). The halt is for monitors that have no port to
 * sleep through (BOOT_HAS_HALT, pvh.c); coracle-vmm does not use it.
 */
#include "layout.h"

        .section .header, "a"
        .globl image_header
image_header:
        .quad 0x31656c6361726f43        /* BOOT_MAGIC */
        .quad 1                         /* BOOT_VERSION */
        .quad start
        .quad traps
        .quad boot_stack_top
        .quad fault_stack_top
        .quad ring0_halt
        .quad halt_stack_top
        .quad boot_stack_guard

        .text
        .code64
        .globl start
        .type start, @function
start:
        xor %ebp, %ebp
        and $-16, %rsp
        call unikernel_main
        ud2

/* ---- traps: 256 entries of 16 bytes. Exceptions with an error code already have it on the stack. ---- */
        .balign 16
        .globl traps
traps:
        .set vector, 0
        .rept 256
        .balign 16
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
        push $0
        .endif
        push $vector
        jmp trap_common
        .set vector, vector + 1
        .endr

        .balign 16
trap_common:
        cmpq $32, (%rsp)
        jae interrupt
        /* an exception: it never returns, so registers are only shown */
        push %r15
        push %r14
        push %r13
        push %r12
        push %r11
        push %r10
        push %r9
        push %r8
        push %rbp
        push %rdi
        push %rsi
        push %rdx
        push %rcx
        push %rbx
        push %rax
        mov $0x2b, %eax                 /* BOOT_SELECTOR_USER_DATA: QEMU's TCG leaves a null SS behind a switch of stacks, */
        mov %eax, %ss                   /* with which no IRETQ comes back from ring 0 */
        mov %rsp, %rdi
        and $-16, %rsp
        call exception
        ud2

/* A device or timer interrupt: says that something happened and ends the interrupt. No C, no vector state touched.
 * 0xfee000b0: end of interrupt of the local APIC. */
interrupt:
        push %rax
        mov 8(%rsp), %rax
        lock incq SHARED_INTERRUPTS
        mov $0xfee000b0, %eax
        movl $0, (%rax)
        pop %rax
        add $16, %rsp
        iretq

/* ---- vector 3 under a PVH monitor, at ring 0: what it does is in RAX (enum boot_flag). Interrupts come in at ring 0 as
 * well there (boot_tables.h): a processor halted at ring 0 takes none to an outer ring. ---- */
        .balign 16
        .globl ring0_halt
ring0_halt:
        cmp %rax, SHARED_INTERRUPTS
        je 1f
        cmp $-1, %rax                   /* BOOT_HALT_RESET */
        je 2f
        cmp $-2, %rax                   /* BOOT_HALT_FAULT_WHERE */
        jne 3f
        mov %cr2, %rax
        iretq
1:      sti
        hlt
        cli
3:      iretq
2:      push $0
        push $0
        lidt (%rsp)
        int3
        .section .note.GNU-stack, "", @progbits
