/* SPDX-License-Identifier: MIT */
/*
 * Multiboot entry of the bare-metal guest: from 32-bit protected mode into long mode with every
 * address below 64 GiB mapped to itself by 2 MiB pages, then beater_main(magic, info).
 */
#define MAP_GIB 64

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002		/* magic */
	.long 0x00000003		/* pages aligned, memory map wanted */
	.long -(0x1badb002 + 0x00000003)

	.section .text.boot, "ax"
	.code32
	.globl _start
_start:
	cli
	cld
	movl	%eax, %ebp		/* magic and info survive in ebp and ebx */

	/* One PML4 entry, MAP_GIB page directories in a row behind one PDPT. */
	movl	$(pdpt + 3), pml4
	movl	$pdpt, %edi
	movl	$(directories + 3), %eax
	movl	$MAP_GIB, %ecx
1:	movl	%eax, (%edi)
	addl	$8, %edi
	addl	$4096, %eax
	loop	1b

	movl	$directories, %edi
	xorl	%edx, %edx		/* high half of the address */
	movl	$0x83, %eax		/* present, writable, 2 MiB */
	movl	$(MAP_GIB * 512), %ecx
2:	movl	%eax, (%edi)
	movl	%edx, 4(%edi)
	addl	$8, %edi
	addl	$0x200000, %eax
	adcl	$0, %edx
	loop	2b

	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $3f

	.code64
3:	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movq	$stack_top, %rsp
	movl	%ebp, %edi
	movl	%ebx, %esi
	call	beater_main
4:	hlt
	jmp	4b

/* The timer does nothing but end a hlt. */
	.globl interrupt_timer
interrupt_timer:
	pushq	%rax
	movb	$0x20, %al
	outb	%al, $0x20
	popq	%rax
	iretq

	.section .rodata
	.balign 8
gdt:	.quad 0
	.quad 0x00af9a000000ffff	/* 64-bit code */
	.quad 0x00cf92000000ffff	/* data */
gdt_pointer:
	.word . - gdt - 1
	.quad gdt

	.section .bss
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
directories:
	.skip 4096 * MAP_GIB
	.skip 16384
stack_top:

	.section .note.GNU-stack, "", @progbits
