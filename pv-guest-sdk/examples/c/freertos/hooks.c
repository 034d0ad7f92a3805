/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the kernel calls when something is wrong, and when nothing is to be done. What ends the guest ends it as broken: the manager does as `on_crash` says. */
#include <FreeRTOS.h>
#include <task.h>

void vAssertCalled(const char *pcFunction, unsigned int uiLine)
{
	portDISABLE_INTERRUPTS();
	portico_printf("FreeRTOS: assertion failed in %s, line %u\n", pcFunction, uiLine);
	portico_panic("FreeRTOS: stopped");
}

/* Called at a switch, on the stack of interrupts. What lies below the task's stack is damaged: nothing of the kernel is used any more. */
void vApplicationStackOverflowHook(TaskHandle_t xTask, char *pcTaskName)
{
	(void)xTask;
	portico_printf("FreeRTOS: stack overflow in task \"%s\"\n", pcTaskName);
	portico_panic("FreeRTOS: stopped");
}

void vApplicationMallocFailedHook(void)
{
	portDISABLE_INTERRUPTS();
	portico_panic("FreeRTOS: no memory");
}

void vApplicationIdleHook(void)
{
	vPortIdleWait();
}
