/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* An idle guest: says after each ten seconds how many interrupts there were meanwhile. */
#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

#define SLEEP_MS 10000

static void sleeper(void *unused)
{
	(void)unused;
	for (;;) {
		uint64_t upcalls = ullPortUpcalls, begin = portico_now_ns();
		TickType_t tick = xTaskGetTickCount();

		vTaskDelay(pdMS_TO_TICKS(SLEEP_MS));
		say("slept %lu ticks in %lu us with %lu interrupts\n", (unsigned long)(xTaskGetTickCount() - tick),
		    (unsigned long)((portico_now_ns() - begin) / 1000), (unsigned long)(ullPortUpcalls - upcalls));
	}
}

void sleeper_start(void)
{
	start(sleeper, "sleeper", NULL, PRIORITY_REPORT);
}
