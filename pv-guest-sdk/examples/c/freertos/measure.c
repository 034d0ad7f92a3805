/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a switch and a tick cost, in ns. On a machine that counts instructions (`-icount shift=0`) one ns is one instruction, the hypervisor's included. */
#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

#define YIELDS 1000u
/* Turns of a loop, less than a tick takes; and how often they are made again with the tick. */
#define TURNS 50000u
#define TIMES 200u

static volatile bool is_over;

static void other(void *unused)
{
	(void)unused;
	while (!is_over)
		taskYIELD();
	vTaskDelete(NULL);
}

static uint64_t turn(unsigned times)
{
	uint64_t begin = portico_now_ns();

	for (unsigned at = 0; at < times * TURNS; at++)
		__asm__ volatile("");
	return portico_now_ns() - begin;
}

static void measure(void *unused)
{
	uint64_t begin, yields, empty, bare, with_ticks;
	TickType_t ticks;

	(void)unused;
	start(other, "other", NULL, uxTaskPriorityGet(NULL));
	taskYIELD();
	begin = portico_now_ns();
	for (unsigned count = 0; count < YIELDS; count++)
		taskYIELD();
	yields = portico_now_ns() - begin;
	is_over = true;
	/* The other ends, and the idle task takes its memory back. */
	vTaskDelay(2);
	taskENTER_CRITICAL();
	empty = turn(0);
	bare = empty + TIMES * (turn(1) - empty);
	taskEXIT_CRITICAL();
	/* To the beginning of a tick. */
	vTaskDelay(1);
	ticks = xTaskGetTickCount();
	with_ticks = turn(TIMES);
	ticks = xTaskGetTickCount() - ticks;
	say("a switch %lu ns, a tick %lu ns\n", (unsigned long)(yields / (2 * YIELDS)),
	    (unsigned long)(ticks > 0 && with_ticks > bare ? (with_ticks - bare) / ticks : 0));
	vTaskDelete(NULL);
}

void measure_start(void)
{
	start(measure, "measure", NULL, PRIORITY_REPORT);
}
