/* SPDX-License-Identifier: Apache-2.0 */
/* A boot sector that says so on the serial port, then waits for a byte there: p powers q35 off, r resets, anything else
 * is ignored. */
    .code16
    .section .text
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    ljmp $0, $1f
1:  movw $text, %si
2:  lodsb
    testb %al, %al
    jz 4f
    movb %al, %bl
    movw $0x3fd, %dx
3:  inb %dx, %al
    testb $0x20, %al
    jz 3b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp 2b
4:  movw $0x3fd, %dx
    inb %dx, %al
    testb $1, %al
    jz 4b
    movw $0x3f8, %dx
    inb %dx, %al
    cmpb $'p', %al
    jne 5f
    movw $0x2000, %ax
    movw $0x604, %dx
    outw %ax, %dx
5:  cmpb $'r', %al
    jne 4b
    movb $6, %al
    movw $0xcf9, %dx
    outb %al, %dx
    jmp 4b
text:
    .asciz "booted from disk\n"
    .org 510
    .word 0xaa55
