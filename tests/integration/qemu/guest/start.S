/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of the test guest: multiboot and PVH, both in 32-bit protected mode without paging; and what an interrupt does.
 * See guest.c.
 */
#ifdef MULTIBOOT /* QEMU would take this entry on any machine */
    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 0, -0x1badb002
#endif

    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start

    .section .text
    .code32
    .globl multiboot_start, pvh_start
multiboot_start:
    movl $stack_top, %esp
    pushl 16(%ebx)              /* command line */
    jmp 1f
pvh_start:
    movl $stack_top, %esp
    pushl 24(%ebx)
1:  cld
    lgdt gdt_pointer
    ljmp $8, $2f
2:  movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    call guest_main
3:  cli
    hlt
    jmp 3b

    .globl interrupt_entry, reset
interrupt_entry:                /* all of the two PICs: they only end a hlt */
    pushl %eax
    movb $0x20, %al
    outb %al, $0xa0
    outb %al, $0x20
    popl %eax
    iret

reset:                          /* a triple fault: the reset that every machine knows */
    lidt no_idt
    int3

    .section .rodata
    .align 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
    .word . - gdt - 1
    .long gdt
no_idt:
    .word 0
    .long 0

    .section .bss
    .align 16
    .skip 16384
stack_top:
