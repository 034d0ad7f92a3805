/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Tasks as the kernel makes and starts them, critical sections, interrupts. Registers are saved and loaded in context.S. */
#include <string.h>

#include <FreeRTOS.h>
#include <task.h>

#include "context.h"
#include "port.h"

/* FP and SIMD registers of a task that is not their owner. */
struct fp_area {
	struct {
		uint64_t low, high;
	} q[32];
	uint64_t fpcr, fpsr;
};

/* A task that does not run: what its pxTopOfStack points to. */
struct context {
	uint64_t x[31];
	uint64_t elr, spsr;
	/* Its critical sections: a task may yield inside of one, and others then run outside of any. */
	uint64_t nesting;
	struct fp_area *fp;
	uint64_t _reserved;
};

_Static_assert(offsetof(struct context, x[30]) == CONTEXT_X(30), "x30");
_Static_assert(offsetof(struct context, elr) == CONTEXT_ELR, "elr");
_Static_assert(offsetof(struct context, spsr) == CONTEXT_SPSR, "spsr");
_Static_assert(offsetof(struct context, nesting) == CONTEXT_NESTING, "nesting");
_Static_assert(offsetof(struct context, fp) == CONTEXT_FP_AREA, "fp");
_Static_assert(sizeof(struct context) == CONTEXT_BYTES && CONTEXT_BYTES % portBYTE_ALIGNMENT == 0, "size");
_Static_assert(offsetof(struct fp_area, q[31]) == FP_Q(31), "q31");
_Static_assert(offsetof(struct fp_area, fpcr) == FP_FPCR, "fpcr");
_Static_assert(offsetof(struct fp_area, fpsr) == FP_FPSR, "fpsr");
_Static_assert(sizeof(struct fp_area) == FP_BYTES && FP_BYTES % portBYTE_ALIGNMENT == 0, "size");

/* PSTATE of a new task: EL1 with SP_EL0, nothing masked. (Arm ARM, "SPSR_EL1") */
#define INITIAL_SPSR 0x4ull
/* Nesting before the scheduler runs: objects are made in critical sections, and the last one's end must not let interrupts in. */
#define NESTING_BEFORE_START 9999ull

/* Of the running task; context.S switches them. */
volatile uint64_t ullPortCriticalNesting = NESTING_BEFORE_START;
struct fp_area *volatile pxPortFpArea;
/* Whose registers are in the processor; a null pointer: nobody's that counts. For every other task the first use of one is an exception. */
struct fp_area *volatile pxPortFpOwner;

volatile BaseType_t xPortYieldRequired;
volatile uint64_t ullPortUpcalls;
static volatile BaseType_t xIsInsideInterrupt;

/* Where a task ends that returns, which the kernel forbids. */
static void prvTaskReturned(void)
{
	vAssertCalled(__func__, __LINE__);
}

StackType_t *pxPortInitialiseStack(StackType_t *pxTopOfStack, TaskFunction_t pxCode, void *pvParameters)
{
	/* The kernel aligned it. */
	struct fp_area *fp = (struct fp_area *)pxTopOfStack - 1;
	struct context *context = (struct context *)fp - 1;

	memset(context, 0, sizeof *context);
	memset(fp, 0, sizeof *fp);
	context->x[0] = (uintptr_t)pvParameters;
	context->x[30] = (uintptr_t)prvTaskReturned;
	context->elr = (uintptr_t)pxCode;
	context->spsr = INITIAL_SPSR;
	context->fp = fp;
	return (StackType_t *)context;
}

void vPortCleanUpTCB(void *pxTCB)
{
	/* The first word of a TCB is the stack pointer, and the task does not run. */
	const struct context *context = *(struct context **)pxTCB;
	UBaseType_t uxDaif = uxPortSetInterruptMask();

	/* Its stack will be somebody else's memory: nothing may be saved there any more, nor taken for the next task's of that address. */
	if (pxPortFpOwner == context->fp)
		pxPortFpOwner = NULL;
	vPortClearInterruptMask(uxDaif);
}

BaseType_t xPortStartScheduler(void)
{
	portDISABLE_INTERRUPTS();
	/* The timer is each vCPU's own, and the library's handlers run on the vCPU that is notified. */
	configASSERT(portico_vcpu_index() == 0);
	vPortStartTick();
	__asm__ volatile("msr vbar_el1, %0\n\tisb" : : "r"(portVectors) : "memory");
	/* The stack of portico_main becomes that of interrupts: what is on it stays and is never returned to. */
	vPortStartFirstTask();
}

void vPortEndScheduler(void)
{
	/* There is nothing to go back to: a guest that has done its work calls portico_exit. */
	vAssertCalled(__func__, __LINE__);
}

void vPortEnterCritical(void)
{
	portDISABLE_INTERRUPTS();
	/* A handler is inside of one already; it must use portSET_INTERRUPT_MASK_FROM_ISR, since the nesting is the interrupted task's. */
	configASSERT(xIsInsideInterrupt == pdFALSE);
	ullPortCriticalNesting++;
}

void vPortExitCritical(void)
{
	configASSERT(ullPortCriticalNesting > 0);
	if (--ullPortCriticalNesting == 0)
		portENABLE_INTERRUPTS();
}

BaseType_t xPortIsInsideInterrupt(void)
{
	return xIsInsideInterrupt;
}

/* Called from the IRQ vector with interrupts masked: whether another task is to run now. */
BaseType_t xPortUpcall(void)
{
	BaseType_t xIsRequired;

	ullPortUpcalls++;
	xIsInsideInterrupt = pdTRUE;
	portico_upcall();
	xIsInsideInterrupt = pdFALSE;
	xIsRequired = xPortYieldRequired;
	xPortYieldRequired = pdFALSE;
	return xIsRequired;
}

void vPortOnNotify(uint16_t usBit, portico_handler pxHandler, uintptr_t uxArgument)
{
	portENTER_CRITICAL();
	/* What is pending already is handled here and now, with no interrupt whose end would do the switch. */
	portico_on_notify(usBit, pxHandler, uxArgument);
	if (xPortYieldRequired != pdFALSE && xTaskGetSchedulerState() == taskSCHEDULER_RUNNING) {
		xPortYieldRequired = pdFALSE;
		portYIELD();
	}
	portEXIT_CRITICAL();
}
