/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A task that takes a sample each 10 ms, a task that is sent them by a queue and reports each second, and a software timer. The report says what was
 * checked meanwhile; a check that fails ends the guest.
 */
#include <FreeRTOS.h>
#include <queue.h>
#include <task.h>
#include <timers.h>

#include "demo.h"

#define PERIOD_MS 10
#define SAMPLES 100
#define TIMER_MS 250
/* Without a report for so long the manager ends the guest as crashed. */
#define WATCHDOG_MS 20000

struct sample {
	TickType_t tick;
	uint64_t ns;
};

static QueueHandle_t queue;
static volatile unsigned timer_calls;

static void on_timer(TimerHandle_t timer)
{
	(void)timer;
	timer_calls++;
}

static void sampler(void *unused)
{
	TickType_t wake = xTaskGetTickCount();
	struct sample sample;

	(void)unused;
	for (;;) {
		xTaskDelayUntil(&wake, pdMS_TO_TICKS(PERIOD_MS));
		taskENTER_CRITICAL();
		sample.tick = xTaskGetTickCount();
		sample.ns = portico_now_ns();
		taskEXIT_CRITICAL();
		/* After a pause of the whole guest the samples that were due come at once, and must wait for the one who reports. */
		xQueueSend(queue, &sample, portMAX_DELAY);
	}
}

static void reporter(void *unused)
{
	unsigned sums, interrupted, calls = 0;
	struct sample first, last;

	(void)unused;
	for (unsigned second = 1;; second++) {
		workers_start();
		xQueueReceive(queue, &first, portMAX_DELAY);
		last = first;
		for (unsigned count = 1; count < SAMPLES; count++) {
			TickType_t before = last.tick;

			xQueueReceive(queue, &last, portMAX_DELAY);
			if (last.tick < before)
				fail("samples are out of order");
		}
		workers_wait(&sums, &interrupted);
		check_inheritance();
		if (timer_calls == calls)
			fail("the software timer is silent");
		calls = timer_calls;
		/* This task is reached only if all else works. */
		portico_heartbeat();
		say("second %u: tick %lu at %lu us, %lu sums, %lu interrupted, timer %u, inheritance ok\n", second,
		    (unsigned long)last.tick, (unsigned long)(last.ns / 1000), (unsigned long)sums, (unsigned long)interrupted,
		    calls);
	}
}

void samples_start(void)
{
	TimerHandle_t timer = xTimerCreate("timer", pdMS_TO_TICKS(TIMER_MS), pdTRUE, NULL, on_timer);

	portico_watchdog(WATCHDOG_MS);
	queue = xQueueCreate(SAMPLES, sizeof(struct sample));
	if (!queue || !timer || xTimerStart(timer, 0) != pdPASS)
		fail("no memory for a queue and a timer");
	start(sampler, "sampler", NULL, PRIORITY_SAMPLES);
	start(reporter, "reporter", NULL, PRIORITY_REPORT);
}
