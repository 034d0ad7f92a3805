/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The vectors, and switching from task to task.
 *
 * A task runs with SP_EL0; an exception comes with SP_EL1, the stack of interrupts, which is empty whenever a task runs. All that a task has goes to its own
 * stack, in the shape of context.h, whether it yielded (svc #0) or was interrupted: so each can be resumed in one way.
 *
 * FP and SIMD registers are not switched with the rest. They stay in the processor as their owner left them, and for every other task they are turned off: its
 * first use is an exception, at which the owner's are saved to the owner's area and the task's own loaded. A task that uses none pays one write to CPACR_EL1.
 */
#include "context.h"

/* ESR_EL1 of `svc #0`, and exception class of an access to FP or SIMD registers that are turned off. (Arm ARM, "ESR_EL1") */
#define ESR_SVC_0 0x56000000
#define CLASS_FP 0x07
/* CPACR_EL1.FPEN: not turned off. */
#define FP_ON (3 << 20)

/* An entry of the library's table, which reports and ends the domain. */
.macro others, offset
	.balign 128
	b	portico_vectors + \offset
.endm

	.section .text.portVectors, "ax"
	.balign 2048
	.global portVectors
portVectors:
	b	synchronous
	.balign 128
	b	interrupt
	others	0x100
	others	0x180
	/* With SP_EL1: from a handler, or from the switch itself. */
	others	0x200
	others	0x280
	others	0x300
	others	0x380
	/* From EL0, where nothing runs. */
	others	0x400
	others	0x480
	others	0x500
	others	0x580
	others	0x600
	others	0x680
	others	0x700
	others	0x780
	.balign 128

	.text
synchronous:
	stp	x0, x1, [sp, #-16]!
	mrs	x0, esr_el1
	mov	w1, #ESR_SVC_0
	cmp	w0, w1
	b.eq	1f
	lsr	w0, w0, #26
	cmp	w0, #CLASS_FP
	b.eq	take_fp
	ldp	x0, x1, [sp], #16
	b	portico_vectors
1:	ldp	x0, x1, [sp], #16

/* Saves the running task, has the kernel choose one, and resumes that. */
switch_task:
	msr	spsel, #0
	sub	sp, sp, #CONTEXT_BYTES
	stp	x0, x1, [sp, #CONTEXT_X(0)]
	stp	x2, x3, [sp, #CONTEXT_X(2)]
	stp	x4, x5, [sp, #CONTEXT_X(4)]
	stp	x6, x7, [sp, #CONTEXT_X(6)]
	stp	x8, x9, [sp, #CONTEXT_X(8)]
	stp	x10, x11, [sp, #CONTEXT_X(10)]
	stp	x12, x13, [sp, #CONTEXT_X(12)]
	stp	x14, x15, [sp, #CONTEXT_X(14)]
	stp	x16, x17, [sp, #CONTEXT_X(16)]
	stp	x18, x19, [sp, #CONTEXT_X(18)]
	stp	x20, x21, [sp, #CONTEXT_X(20)]
	stp	x22, x23, [sp, #CONTEXT_X(22)]
	stp	x24, x25, [sp, #CONTEXT_X(24)]
	stp	x26, x27, [sp, #CONTEXT_X(26)]
	stp	x28, x29, [sp, #CONTEXT_X(28)]
	mrs	x0, elr_el1
	stp	x30, x0, [sp, #CONTEXT_X(30)]
	mrs	x0, spsr_el1
	adrp	x1, ullPortCriticalNesting
	ldr	x1, [x1, #:lo12:ullPortCriticalNesting]
	stp	x0, x1, [sp, #CONTEXT_SPSR]
	adrp	x0, pxPortFpArea
	ldr	x0, [x0, #:lo12:pxPortFpArea]
	str	x0, [sp, #CONTEXT_FP_AREA]
	/* The first word of a TCB is its stack pointer. */
	adrp	x0, pxCurrentTCB
	ldr	x0, [x0, #:lo12:pxCurrentTCB]
	mov	x1, sp
	str	x1, [x0]
	msr	spsel, #1
	bl	vTaskSwitchContext

	.global vPortStartFirstTask
vPortStartFirstTask:
	adrp	x0, pxCurrentTCB
	ldr	x0, [x0, #:lo12:pxCurrentTCB]
	ldr	x0, [x0]
	msr	spsel, #0
	mov	sp, x0
	ldp	x0, x1, [sp, #CONTEXT_SPSR]
	msr	spsr_el1, x0
	adrp	x0, ullPortCriticalNesting
	str	x1, [x0, #:lo12:ullPortCriticalNesting]
	ldr	x0, [sp, #CONTEXT_FP_AREA]
	adrp	x1, pxPortFpArea
	str	x0, [x1, #:lo12:pxPortFpArea]
	/* On for their owner only. The return from the exception makes it take effect. */
	adrp	x1, pxPortFpOwner
	ldr	x1, [x1, #:lo12:pxPortFpOwner]
	cmp	x0, x1
	mov	x0, #FP_ON
	csel	x0, x0, xzr, eq
	msr	cpacr_el1, x0
	ldp	x30, x0, [sp, #CONTEXT_X(30)]
	msr	elr_el1, x0
	ldp	x28, x29, [sp, #CONTEXT_X(28)]
	ldp	x26, x27, [sp, #CONTEXT_X(26)]
	ldp	x24, x25, [sp, #CONTEXT_X(24)]
	ldp	x22, x23, [sp, #CONTEXT_X(22)]
	ldp	x20, x21, [sp, #CONTEXT_X(20)]
	ldp	x18, x19, [sp, #CONTEXT_X(18)]
	ldp	x16, x17, [sp, #CONTEXT_X(16)]
	ldp	x14, x15, [sp, #CONTEXT_X(14)]
	ldp	x12, x13, [sp, #CONTEXT_X(12)]
	ldp	x10, x11, [sp, #CONTEXT_X(10)]
	ldp	x8, x9, [sp, #CONTEXT_X(8)]
	ldp	x6, x7, [sp, #CONTEXT_X(6)]
	ldp	x4, x5, [sp, #CONTEXT_X(4)]
	ldp	x2, x3, [sp, #CONTEXT_X(2)]
	ldp	x0, x1, [sp, #CONTEXT_X(0)]
	add	sp, sp, #CONTEXT_BYTES
	eret
	/* Nothing behind it is run ahead of it. */
	dsb	nsh
	isb

/* Registers that a function of C may change: the rest it keeps itself. */
#define VOLATILE_BYTES 160

.macro load_volatile
	ldp	x18, x30, [sp, #144]
	ldp	x16, x17, [sp, #128]
	ldp	x14, x15, [sp, #112]
	ldp	x12, x13, [sp, #96]
	ldp	x10, x11, [sp, #80]
	ldp	x8, x9, [sp, #64]
	ldp	x6, x7, [sp, #48]
	ldp	x4, x5, [sp, #32]
	ldp	x2, x3, [sp, #16]
	ldp	x0, x1, [sp], #VOLATILE_BYTES
.endm

interrupt:
	stp	x0, x1, [sp, #-VOLATILE_BYTES]!
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x30, [sp, #144]
	/* ELR_EL1 and SPSR_EL1 stay: nothing from here on takes another exception and goes on. */
	bl	xPortUpcall
	cbnz	x0, 1f
	load_volatile
	eret
	dsb	nsh
	isb
1:	load_volatile
	b	switch_task

/* A task uses FP or SIMD registers that are not its own: they become its own, and it makes the same access again. x0, x1 are on the stack. */
take_fp:
	stp	x2, x3, [sp, #-16]!
	mov	x0, #FP_ON
	msr	cpacr_el1, x0
	isb
	adrp	x1, pxPortFpOwner
	ldr	x0, [x1, #:lo12:pxPortFpOwner]
	cbz	x0, 1f
	stp	q0, q1, [x0, #FP_Q(0)]
	stp	q2, q3, [x0, #FP_Q(2)]
	stp	q4, q5, [x0, #FP_Q(4)]
	stp	q6, q7, [x0, #FP_Q(6)]
	stp	q8, q9, [x0, #FP_Q(8)]
	stp	q10, q11, [x0, #FP_Q(10)]
	stp	q12, q13, [x0, #FP_Q(12)]
	stp	q14, q15, [x0, #FP_Q(14)]
	stp	q16, q17, [x0, #FP_Q(16)]
	stp	q18, q19, [x0, #FP_Q(18)]
	stp	q20, q21, [x0, #FP_Q(20)]
	stp	q22, q23, [x0, #FP_Q(22)]
	stp	q24, q25, [x0, #FP_Q(24)]
	stp	q26, q27, [x0, #FP_Q(26)]
	stp	q28, q29, [x0, #FP_Q(28)]
	stp	q30, q31, [x0, #FP_Q(30)]
	mrs	x2, fpcr
	str	x2, [x0, #FP_FPCR]
	mrs	x2, fpsr
	str	x2, [x0, #FP_FPSR]
1:	adrp	x0, pxPortFpArea
	ldr	x0, [x0, #:lo12:pxPortFpArea]
	str	x0, [x1, #:lo12:pxPortFpOwner]
	ldr	x2, [x0, #FP_FPCR]
	msr	fpcr, x2
	ldr	x2, [x0, #FP_FPSR]
	msr	fpsr, x2
	ldp	q0, q1, [x0, #FP_Q(0)]
	ldp	q2, q3, [x0, #FP_Q(2)]
	ldp	q4, q5, [x0, #FP_Q(4)]
	ldp	q6, q7, [x0, #FP_Q(6)]
	ldp	q8, q9, [x0, #FP_Q(8)]
	ldp	q10, q11, [x0, #FP_Q(10)]
	ldp	q12, q13, [x0, #FP_Q(12)]
	ldp	q14, q15, [x0, #FP_Q(14)]
	ldp	q16, q17, [x0, #FP_Q(16)]
	ldp	q18, q19, [x0, #FP_Q(18)]
	ldp	q20, q21, [x0, #FP_Q(20)]
	ldp	q22, q23, [x0, #FP_Q(22)]
	ldp	q24, q25, [x0, #FP_Q(24)]
	ldp	q26, q27, [x0, #FP_Q(26)]
	ldp	q28, q29, [x0, #FP_Q(28)]
	ldp	q30, q31, [x0, #FP_Q(30)]
	ldp	x2, x3, [sp], #16
	ldp	x0, x1, [sp], #16
	eret
	dsb	nsh
	isb
