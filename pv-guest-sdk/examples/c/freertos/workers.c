/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Two tasks that compute at once, with the same formula and another rounding each. They never yield: that each gets on is time slicing, that
 * anything else runs meanwhile is preemption, and that their results stay right is the port's handling of FP registers.
 */
#include <FreeRTOS.h>
#include <semphr.h>
#include <task.h>

#include "demo.h"

#define WORKERS 2
/* How often each must have been interrupted by the other in the middle of a sum, and most sums that may take: a thousand times more than it does. */
#define INTERRUPTIONS 4
#define MOST_SUMS 1000000u

static volatile unsigned made[WORKERS], interrupted[WORKERS];
static uint64_t results[WORKERS];
static SemaphoreHandle_t ended;

static void worker(void *argument)
{
	unsigned self = (unsigned)(uintptr_t)argument, other = WORKERS - 1 - self, others;
	uint64_t wanted;

	/* Its stack was that of a worker before it. */
	if (!registers_are_new())
		fail("a new task has another's FP registers");
	round_upwards(self == 1);
	/* What is right is found out while no other task can run. */
	vTaskSuspendAll();
	wanted = sum();
	xTaskResumeAll();
	results[self] = wanted;
	do {
		others = made[other];
		if (sum() != wanted)
			fail("a task's FP registers were changed");
		if (++made[self] > MOST_SUMS)
			fail("tasks of one priority do not share the processor");
		if (made[other] != others)
			interrupted[self]++;
	} while (interrupted[0] < INTERRUPTIONS || interrupted[1] < INTERRUPTIONS);
	xSemaphoreGive(ended);
	vTaskDelete(NULL);
}

void workers_start(void)
{
	if (!ended)
		ended = xSemaphoreCreateCounting(WORKERS, 0);
	if (!ended)
		fail("no memory for a semaphore");
	for (unsigned index = 0; index < WORKERS; index++) {
		made[index] = interrupted[index] = 0;
		start(worker, index == 0 ? "nearest" : "upwards", (void *)(uintptr_t)index, PRIORITY_SUMS);
	}
}

void workers_wait(unsigned *sums, unsigned *between)
{
	for (unsigned index = 0; index < WORKERS; index++)
		xSemaphoreTake(ended, portMAX_DELAY);
	/* With the same rounding the check of the registers would not see FPCR. */
	if (results[0] == results[1])
		fail("two ways of rounding have the same result");
	*sums = made[0] + made[1];
	*between = interrupted[0] + interrupted[1];
}
