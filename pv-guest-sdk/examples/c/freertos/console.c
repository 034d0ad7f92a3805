/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The console, for tasks: who finds no room waits as a task, and the others run. The library's own portico_print would wait with interrupts masked.
 */
#include <FreeRTOS.h>
#include <semphr.h>
#include <task.h>

#include "demo.h"

/* Longest line that is said, in bytes. */
#define LONGEST 160
/* How long one who waits for room or for input sleeps before it looks again, should nothing announce it: in ms. */
#define LOOK_AGAIN 1000

static SemaphoreHandle_t speaker, changed_room, changed_input;

/* The one port tells of both. */
static void on_console(uint16_t bit, uintptr_t argument)
{
	BaseType_t is_required = pdFALSE;

	(void)bit;
	(void)argument;
	xSemaphoreGiveFromISR(changed_room, &is_required);
	xSemaphoreGiveFromISR(changed_input, &is_required);
	portYIELD_FROM_ISR(is_required);
}

void console_start(void)
{
	struct portico_port port;

	speaker = xSemaphoreCreateMutex();
	changed_room = xSemaphoreCreateBinary();
	changed_input = xSemaphoreCreateBinary();
	if (!speaker || !changed_room || !changed_input)
		fail("no memory for the console");
	if (portico_console_port(&port))
		vPortOnNotify(port.bit, on_console, 0);
}

void say(const char *format, ...)
{
	char line[LONGEST];
	va_list arguments;
	size_t len, written = 0;

	va_start(arguments, format);
	len = portico_format(line, sizeof line, format, arguments);
	va_end(arguments);
	if (len > sizeof line - 1)
		len = sizeof line - 1;
	xSemaphoreTake(speaker, portMAX_DELAY);
	for (;;) {
		written += portico_write_some(line + written, len - written);
		if (written == len)
			break;
		xSemaphoreTake(changed_room, pdMS_TO_TICKS(LOOK_AGAIN));
	}
	xSemaphoreGive(speaker);
}

void read_line(char *to, size_t len)
{
	size_t at = 0;
	char letter;

	for (;;) {
		while (portico_read(&letter, 1) == 1) {
			if (letter == '\r' || letter == '\n') {
				to[at] = 0;
				return;
			}
			if (at + 1 < len)
				to[at++] = letter;
		}
		xSemaphoreTake(changed_input, portMAX_DELAY);
	}
}
