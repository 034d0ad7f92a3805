/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Does what the manager asks for: `stop rtos` and `restart rtos` at its prompt. */
#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

static void on_control(uint16_t bit, uintptr_t task)
{
	BaseType_t is_required = pdFALSE;

	(void)bit;
	vTaskNotifyGiveFromISR((TaskHandle_t)task, &is_required);
	portYIELD_FROM_ISR(is_required);
}

static void orders(void *unused)
{
	struct portico_port port;

	(void)unused;
	if (portico_control_port(&port) != PORTICO_OK) {
		say("nobody can ask for an orderly end\n");
		vTaskDelete(NULL);
	}
	vPortOnNotify(port.bit, on_control, (uintptr_t)xTaskGetCurrentTaskHandle());
	portico_able(1u << PORTICO_ASK_POWER_OFF | 1u << PORTICO_ASK_REBOOT);
	for (;;) {
		switch (portico_asked()) {
		case PORTICO_ASK_POWER_OFF:
			say("asked to stop\n");
			portico_exit(0);
		case PORTICO_ASK_REBOOT:
			say("asked to restart\n");
			portico_call_self_exit(PORTICO_EXIT_REBOOT, 0);
			break;
		default:
			ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
		}
	}
}

void orders_start(void)
{
	start(orders, "orders", NULL, PRIORITY_ORDERS);
}
