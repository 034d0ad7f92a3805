/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * FreeRTOS as a guest: tasks, a queue, a mutex, a software timer, a channel to another guest, and the console. With the boot argument `sleep` it only
 * sleeps, since an idle guest costs nothing; with `measure` it says what a switch and a tick cost.
 */
#include <string.h>

#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

void start(void (*task)(void *), const char *name, void *argument, unsigned priority)
{
	if (xTaskCreate(task, name, STACK_WORDS, argument, priority, NULL) != pdPASS)
		fail("no memory for a task");
}

void fail(const char *what)
{
	portDISABLE_INTERRUPTS();
	portico_print("FAIL: ");
	portico_panic(what);
}

static bool is_argument(const char *given, const char *wanted)
{
	return strlen(given) == strlen(wanted) && memcmp(given, wanted, strlen(wanted)) == 0;
}

uint64_t portico_main(void)
{
	char arguments[16];

	portico_bootargs(arguments, sizeof arguments);
	portico_printf("FreeRTOS %s, %u ticks a second\n", tskKERNEL_VERSION_NUMBER, (unsigned)configTICK_RATE_HZ);
	console_start();
	if (is_argument(arguments, "sleep")) {
		sleeper_start();
	} else if (is_argument(arguments, "measure")) {
		measure_start();
	} else {
		samples_start();
		link_start();
		shell_start();
	}
	orders_start();
	vTaskStartScheduler();
	portico_panic("the scheduler did not start");
}
