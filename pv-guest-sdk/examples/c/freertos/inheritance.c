/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Priority inheritance: a task of low priority holds a mutex, one of middle priority computes, and one of high priority wants the mutex. The holder must go
 * before the middle one. The check is one of order, not of time: it fails on no machine for being slow.
 */
#include <FreeRTOS.h>
#include <semphr.h>
#include <task.h>

#include "demo.h"

/* How long the middle task computes if nobody stops it, in turns of a loop: longer than the holder by far. */
#define HOLD_TURNS 20000u
#define MIDDLE_TURNS (1000u * HOLD_TURNS)

static SemaphoreHandle_t mutex, held;
static volatile bool is_taken, is_middle_done;

static void low(void *unused)
{
	(void)unused;
	xSemaphoreTake(mutex, portMAX_DELAY);
	xSemaphoreGive(held);
	for (volatile unsigned turn = 0; turn < HOLD_TURNS; turn++)
		;
	xSemaphoreGive(mutex);
	vTaskDelete(NULL);
}

static void middle(void *unused)
{
	(void)unused;
	for (volatile unsigned turn = 0; turn < MIDDLE_TURNS && !is_taken; turn++)
		;
	is_middle_done = true;
	vTaskDelete(NULL);
}

void check_inheritance(void)
{
	if (!mutex) {
		mutex = xSemaphoreCreateMutex();
		held = xSemaphoreCreateBinary();
		if (!mutex || !held)
			fail("no memory for a mutex");
	}
	is_taken = is_middle_done = false;
	/* The caller is the one of high priority. */
	start(low, "low", NULL, uxTaskPriorityGet(NULL) - 2);
	xSemaphoreTake(held, portMAX_DELAY);
	start(middle, "middle", NULL, uxTaskPriorityGet(NULL) - 1);
	xSemaphoreTake(mutex, portMAX_DELAY);
	is_taken = true;
	if (is_middle_done)
		fail("the holder of a mutex did not inherit the priority of who waits for it");
	xSemaphoreGive(mutex);
}
