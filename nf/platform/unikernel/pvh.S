/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PVH entry (Xen, public/arch-x86/hvm/start_info.h): a monitor that is not coracle-vmm starts the processor here, in
 * 32-bit protected mode without paging, EBX = physical address of struct hvm_start_info. This goes to long mode with a
 * map of the first 4 GiB and calls pvh_main(), which makes the environment of abi/boot.h and ends in pvh_leave: CPL 3.
 * The temporary tables lie in the boot stack, the stack is that of faults: both unused yet, so the image grows by neither.
 */
        .section .note.pvh, "a", @note
        .balign 4
        .long 4, 8, 18                  /* name bytes, value bytes, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .quad pvh_start

        .set EARLY_PML4, boot_stack_guard + 0x1000
        .set EARLY_PDPT, boot_stack_guard + 0x2000
        .set EARLY_PD, boot_stack_guard + 0x3000 /* four */

        .section .rodata.pvh, "a"
        .balign 8
pvh_gdt:
        .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff /* as BOOT_SELECTOR_KERNEL_CODE and _DATA */
pvh_gdt_pointer:
        .word . - pvh_gdt - 1
        .long pvh_gdt

        .text
        .code32
        .globl pvh_start
        .type pvh_start, @function
pvh_start:
        cli
        cld
        mov %ebx, %ebp
        mov $0x80000000, %eax
        cpuid
        cmp $0x80000001, %eax
        jb pvh_no_long_mode
        mov $0x80000001, %eax
        cpuid
        and $0x20100000, %edx           /* long mode, no-execute */
        cmp $0x20100000, %edx
        jne pvh_no_long_mode

        mov $EARLY_PML4, %edi
        mov $2048, %ecx                 /* words of PML4 and PDPT */
        xor %eax, %eax
        rep stosl
        movl $EARLY_PDPT + 7, EARLY_PML4
        mov $EARLY_PD + 7, %eax
        mov $EARLY_PDPT, %edi
1:      mov %eax, (%edi)
        add $0x1000, %eax
        add $8, %edi
        cmp $EARLY_PDPT + 32, %edi
        jne 1b
        mov $0x83, %eax                 /* present, writable, 2 MiB */
        mov $EARLY_PD, %edi
1:      mov %eax, (%edi)
        movl $0, 4(%edi)
        add $8, %edi
        add $0x200000, %eax
        jnc 1b

        mov $0x620, %eax                /* PAE, OSFXSR, OSXMMEXCPT */
        mov %eax, %cr4
        mov $EARLY_PML4, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx           /* EFER: long mode, no-execute; no SYSCALL */
        xor %edx, %edx
        mov $0x900, %eax
        wrmsr
        mov $0x80050033, %eax
        mov %eax, %cr0
        lgdt pvh_gdt_pointer
        ljmp $0x08, $1f

pvh_no_long_mode:
        mov $0x3f8, %dx
        mov $pvh_no_long_mode_text, %esi
        mov $pvh_no_long_mode_end - pvh_no_long_mode_text, %ecx
        rep outsb
        ljmp $0x18, $0                  /* no such segment, no table of handlers: a triple fault */

        .code64
1:      mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov $fault_stack_top, %esp
        mov %ebp, %edi
        call pvh_main
        ud2

/* pvh_leave(struct pvh_pointers *): the final tables, then CPL 3 at `start` as abi/boot.h has it. */
        .globl pvh_leave
        .type pvh_leave, @function
pvh_leave:
        mov $0x9000, %eax               /* TABLE_PML4 */
        mov %rax, %cr3
        lgdt (%rdi)
        lidt 10(%rdi)
        mov $0x40, %eax                 /* BOOT_SELECTOR_TSS */
        ltr %ax
        mov $0x2b, %eax                 /* BOOT_SELECTOR_USER_DATA */
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        movq $0, boot_stack_top - 8
        push $0x2b
        push $boot_stack_top - 8
        push $0x202                     /* interrupts on */
        push $0x33                      /* BOOT_SELECTOR_USER_CODE */
        push $start
        xor %eax, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        xor %esi, %esi
        xor %ebp, %ebp
        mov $0x1000, %edi               /* BOOT_INFO_ADDRESS */
        iretq

        .section .rodata.pvh
pvh_no_long_mode_text:
        .ascii "unikernel: this processor has no long mode with no-execute pages\n"
pvh_no_long_mode_end:
        .section .note.GNU-stack, "", @progbits
