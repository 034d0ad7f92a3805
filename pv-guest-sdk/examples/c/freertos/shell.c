/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Does what is typed at the console: `tasks`, and three ways of ending as broken. */
#include <string.h>

#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

#define MOST_TASKS 16

static void list_tasks(void)
{
	static TaskStatus_t tasks[MOST_TASKS];
	UBaseType_t count = uxTaskGetSystemState(tasks, MOST_TASKS, NULL);

	for (UBaseType_t index = 0; index < count; index++)
		say("%-16s priority %lu, %lu bytes of its stack never used\n", tasks[index].pcTaskName,
		    tasks[index].uxCurrentPriority, (unsigned long)tasks[index].usStackHighWaterMark * sizeof(StackType_t));
}

/* Needs more stack than there is, and then gives up the processor: at that switch the kernel sees it, before it uses what may be damaged. */
static unsigned __attribute__((noinline)) go_down(unsigned depth)
{
	volatile unsigned local[64];

	local[depth % 64] = depth;
	if (depth > 0)
		return go_down(depth - 1) + local[depth % 64];
	taskYIELD();
	return local[0];
}

static void deep(void *unused)
{
	(void)unused;
	say("%u\n", go_down(STACK_WORDS * sizeof(StackType_t) / 256));
	vTaskDelete(NULL);
}

static bool is(const char *line, const char *command)
{
	return strlen(line) == strlen(command) && memcmp(line, command, strlen(command)) == 0;
}

static void shell(void *unused)
{
	char line[40];

	(void)unused;
	for (;;) {
		read_line(line, sizeof line);
		if (is(line, "tasks"))
			list_tasks();
		else if (is(line, "overflow"))
			start(deep, "deep", NULL, PRIORITY_SHELL);
		else if (is(line, "assert"))
			configASSERT(is(line, "something else"));
		else if (is(line, "undefined"))
			__asm__ volatile(".inst 0");
		else if (line[0])
			say("\"%s\"? There are: tasks overflow assert undefined\n", line);
	}
}

void shell_start(void)
{
	start(shell, "shell", NULL, PRIORITY_SHELL);
}
