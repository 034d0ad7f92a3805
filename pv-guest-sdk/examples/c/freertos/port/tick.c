/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The tick: the virtual timer's port, and its deadlines.
 *
 * Ticks are points on the counter, counted from the start: a tick that is handled late does not move those that follow, and how many are due is always told by
 * the counter. So a vCPU that did not run for a while catches up, and an idle one leaves ticks out and counts them afterwards. Arming the timer anew is writing
 * two registers, which never traps.
 */
#include <FreeRTOS.h>
#include <task.h>

#include "port.h"

/* Most ticks that one interrupt catches up with: what remains comes with the next one, at once, and other handlers are not kept waiting for it. */
#define MAX_TICKS_AT_ONCE 50u
/* Longest sleep, in ticks, so that sums of it do not overflow: a month and more. */
#define MAX_SLEEP 0xffffffffull
/* Ticks in a second, as wide as the sums they are in. */
#define RATE ((uint64_t)configTICK_RATE_HZ)

/* Counts in a second. */
static uint64_t ullHz;
/* When the next tick is due, on the counter; and what is to be added to that, in counts / RATE: less than one count. */
static uint64_t ullNext, ullNextRest;
/* Whether the idle task's last turn slept. */
static BaseType_t xHasSlept = pdTRUE;

/* When the tick so many after the next one is due. */
static uint64_t prvDue(uint64_t ullTicks)
{
	return ullNext + ullTicks * (ullHz / RATE) + (ullTicks * (ullHz % RATE) + ullNextRest) / RATE;
}

/* Goes on by so many ticks. */
static void prvAdvance(uint64_t ullTicks)
{
	uint64_t ullDue = prvDue(ullTicks);

	ullNextRest = (ullTicks * (ullHz % RATE) + ullNextRest) % RATE;
	ullNext = ullDue;
}

/* How many ticks are due: the largest n with prvDue(n - 1) <= now. Seconds apart, so that nothing overflows. */
static uint64_t prvCountDue(uint64_t ullNow)
{
	uint64_t ullLate;

	if (ullNow < ullNext)
		return 0;
	ullLate = ullNow - ullNext;
	return 1 + ullLate / ullHz * RATE + (ullLate % ullHz * RATE + RATE - 1 - ullNextRest) / ullHz;
}

static void prvOnTimer(uint16_t usBit, uintptr_t uxArgument)
{
	uint64_t ullTicks = prvCountDue(portico_now());
	BaseType_t xSwitch = pdFALSE;

	(void)usBit;
	(void)uxArgument;
	if (ullTicks > MAX_TICKS_AT_ONCE)
		ullTicks = MAX_TICKS_AT_ONCE;
	prvAdvance(ullTicks);
	while (ullTicks-- > 0)
		if (xTaskIncrementTick() != pdFALSE)
			xSwitch = pdTRUE;
	/* Arming also clears the mask that EL2 set when the timer fired. A deadline that has passed fires at once. */
	portico_timer_arm(ullNext);
	portYIELD_FROM_ISR(xSwitch);
}

void vPortStartTick(void)
{
	ullHz = portico_counter_hz();
	configASSERT(ullHz >= RATE);
	ullNextRest = 0;
	ullNext = portico_now();
	prvAdvance(1);
	portico_on_notify(PORTICO_BIT_TIMER, prvOnTimer, 0);
	portico_timer_arm(ullNext);
}

/* Waits natively until an interrupt is pending, masked or not. The barrier completes stores that the waker may look for. */
static void prvWait(void)
{
	__asm__ volatile("dsb ish\n\twfi" : : : "memory");
}

#if configUSE_TICKLESS_IDLE == 1
void vPortSuppressTicksAndSleep(TickType_t xExpectedIdleTime)
{
	uint64_t ullTicks = xExpectedIdleTime < MAX_SLEEP ? xExpectedIdleTime : MAX_SLEEP;
	uint64_t ullDue;

	/* From here on to the end: what happens meanwhile is pending, ends the wait, and is taken at the end. */
	portDISABLE_INTERRUPTS();
	if (eTaskConfirmSleepModeStatus() != eAbortSleep) {
		portico_timer_arm(prvDue(ullTicks - 1));
		prvWait();
		xHasSlept = pdTRUE;
		ullDue = prvCountDue(portico_now());
		if (ullDue >= ullTicks) {
			/* Slept through. The tick that makes a task ready must be a proper one: the timer is pending, and its handler does it. */
			ullDue = ullTicks - 1;
		} else {
			portico_timer_arm(prvDue(ullDue));
		}
		prvAdvance(ullDue);
		vTaskStepTick((TickType_t)ullDue);
	}
	portENABLE_INTERRUPTS();
}
#endif

void vPortIdleWait(void)
{
	/*
	 * The kernel sleeps only if it has two ticks or more, and would spin out a single one. Whether it will is not known in the hook, but that it did not in the
	 * last turn is; without configUSE_TICKLESS_IDLE it never does. With interrupts let in: a handler that makes a task ready switches to it at once, so the wait cannot be missed.
	 */
	if (xHasSlept == pdFALSE)
		prvWait();
	xHasSlept = pdFALSE;
}
