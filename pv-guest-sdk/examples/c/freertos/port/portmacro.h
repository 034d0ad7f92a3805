/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What FreeRTOS's kernel wants to know of the machine: a vCPU of a Portico guest. AArch64, at EL1; tasks have their stacks in SP_EL0, interrupts one in
 * SP_EL1. There is one interrupt, the upcall, which is masked as a whole: so "from an interrupt" is always from the outermost one.
 */
#ifndef PORTMACRO_H
#define PORTMACRO_H

#include <portico.h>

#ifdef __cplusplus
extern "C" {
#endif

#if configNUMBER_OF_CORES != 1
#error "this port runs tasks on one vCPU"
#endif

/* Types. */
#define portCHAR char
#define portFLOAT float
#define portDOUBLE double
#define portLONG long
#define portSHORT short
#define portSTACK_TYPE size_t
#define portBASE_TYPE long
#define portPOINTER_SIZE_TYPE uint64_t

typedef portSTACK_TYPE StackType_t;
typedef portBASE_TYPE BaseType_t;
typedef unsigned long UBaseType_t;

#if configTICK_TYPE_WIDTH_IN_BITS == TICK_TYPE_WIDTH_64_BITS
typedef uint64_t TickType_t;
#define portMAX_DELAY ((TickType_t)UINT64_MAX)
#elif configTICK_TYPE_WIDTH_IN_BITS == TICK_TYPE_WIDTH_32_BITS
typedef uint32_t TickType_t;
#define portMAX_DELAY ((TickType_t)UINT32_MAX)
#else
#error "configTICK_TYPE_WIDTH_IN_BITS must be that of 32 or 64 bits"
#endif
/* One instruction loads either. */
#define portTICK_TYPE_IS_ATOMIC 1
#define portTICK_PERIOD_MS ((TickType_t)1000 / configTICK_RATE_HZ)

/* Stacks. */
#define portSTACK_GROWTH (-1)
#define portBYTE_ALIGNMENT 16

/* Yielding: by an exception, so that a task has one shape of context, however it gave up the processor. */
#define portYIELD() __asm__ volatile("svc #0" ::: "memory")
/* Has the switch done when the interrupt ends. */
extern volatile BaseType_t xPortYieldRequired;
#define portEND_SWITCHING_ISR(is_required)              \
	do {                                            \
		if ((is_required) != pdFALSE)           \
			xPortYieldRequired = pdTRUE;    \
	} while (0)
#define portYIELD_FROM_ISR(is_required) portEND_SWITCHING_ISR(is_required)

/* Masking: of the upcall, by PSTATE.I. No trap, and no barrier: the write takes effect in program order. */
#define portDISABLE_INTERRUPTS() __asm__ volatile("msr daifset, #2" ::: "memory")
#define portENABLE_INTERRUPTS() __asm__ volatile("msr daifclr, #2" ::: "memory")

void vPortEnterCritical(void);
void vPortExitCritical(void);
#define portENTER_CRITICAL() vPortEnterCritical()
#define portEXIT_CRITICAL() vPortExitCritical()

static inline UBaseType_t uxPortSetInterruptMask(void)
{
	UBaseType_t uxDaif;

	__asm__ volatile("mrs %0, daif\n\tmsr daifset, #2" : "=r"(uxDaif) : : "memory");
	return uxDaif;
}
static inline void vPortClearInterruptMask(UBaseType_t uxDaif)
{
	__asm__ volatile("msr daif, %0" : : "r"(uxDaif) : "memory");
}
#define portSET_INTERRUPT_MASK_FROM_ISR() uxPortSetInterruptMask()
#define portCLEAR_INTERRUPT_MASK_FROM_ISR(daif) vPortClearInterruptMask(daif)

/* Whether the caller is a handler. */
BaseType_t xPortIsInsideInterrupt(void);
#define portASSERT_IF_IN_ISR() configASSERT(xPortIsInsideInterrupt() == pdFALSE)

/* The ready priorities are bits of a word. */
#if configUSE_PORT_OPTIMISED_TASK_SELECTION == 1
#if configMAX_PRIORITIES > 64
#error "at most 64 priorities with configUSE_PORT_OPTIMISED_TASK_SELECTION"
#endif
#define portRECORD_READY_PRIORITY(priority, ready) ((ready) |= 1ul << (priority))
#define portRESET_READY_PRIORITY(priority, ready) ((ready) &= ~(1ul << (priority)))
#define portGET_HIGHEST_PRIORITY(top, ready) ((top) = 63ul - (UBaseType_t)__builtin_clzl(ready))
#endif

/* Sleeping: see tick.c. With configUSE_TICKLESS_IDLE 2 the application has one of its own. */
void vPortSuppressTicksAndSleep(TickType_t xExpectedIdleTime);
#if configUSE_TICKLESS_IDLE == 1
#define portSUPPRESS_TICKS_AND_SLEEP(ticks) vPortSuppressTicksAndSleep(ticks)
#endif
/* For the idle hook: waits out what is too short to be slept through. */
void vPortIdleWait(void);

/* A deleted task may be the one whose FP and SIMD registers are in the processor. */
void vPortCleanUpTCB(void *pxTCB);
#define portCLEAN_UP_TCB(tcb) vPortCleanUpTCB(tcb)

/* Every task may use FP and SIMD registers, and says nothing before: they come at the first use. Interrupt handlers must not. */
#define portTASK_USES_FLOATING_POINT()

#define portTASK_FUNCTION_PROTO(function, parameters) void function(void *parameters)
#define portTASK_FUNCTION(function, parameters) void function(void *parameters)
#define portNOP() __asm__ volatile("nop")
#define portINLINE inline
#define portFORCE_INLINE inline __attribute__((always_inline))
#define portMEMORY_BARRIER() __asm__ volatile("" ::: "memory")

/*
 * Sets the handler of a port's bit: portico_on_notify, to be called by a task. A handler is an interrupt to the kernel: it uses the functions that
 * end in FromISR, and portYIELD_FROM_ISR.
 */
void vPortOnNotify(uint16_t usBit, portico_handler pxHandler, uintptr_t uxArgument);

/* Upcalls taken since the scheduler was started. */
extern volatile uint64_t ullPortUpcalls;

#ifdef __cplusplus
}
#endif

#endif
