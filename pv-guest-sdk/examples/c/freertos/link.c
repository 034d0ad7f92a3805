/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Answers each number that comes over the channel `link` with its square: the guest `example:ping` asks. The port's interrupt notifies the task, which waits
 * for nothing else; whoever is at the other end may go and come back.
 */
#include <FreeRTOS.h>
#include <task.h>

#include "demo.h"

/* How long to wait before looking again for a peer: in ms. */
#define LOOK_AGAIN 100
/* How long the task waits for a notification before it looks whether the peer is still there: in ms. */
#define PATIENCE 5000

static void on_link(uint16_t bit, uintptr_t task)
{
	BaseType_t is_required = pdFALSE;

	(void)bit;
	vTaskNotifyGiveFromISR((TaskHandle_t)task, &is_required);
	portYIELD_FROM_ISR(is_required);
}

/* One that came before it is waited for is not lost: the kernel counts them. */
static void wait(void)
{
	ulTaskNotifyTake(pdTRUE, pdMS_TO_TICKS(PATIENCE));
}

static uint64_t decode(const uint8_t *message)
{
	uint64_t number = 0;

	for (int index = 7; index >= 0; index--)
		number = number << 8 | message[index];
	return number;
}

static void encode(uint8_t *message, uint64_t number)
{
	for (int index = 0; index < 8; index++, number >>= 8)
		message[index] = (uint8_t)number;
}

/* Serves one peer to its end; returns why that came. */
static int64_t serve(struct portico_channel *channel)
{
	uint8_t message[PORTICO_MESSAGE_BYTES];
	int64_t status;

	while ((status = portico_channel_try_connect(channel)) == PORTICO_AGAIN)
		wait();
	if (status != PORTICO_OK)
		return status;
	say("link: connected\n");
	for (;;) {
		while ((status = portico_channel_try_receive(channel, message)) == PORTICO_AGAIN)
			wait();
		if (status != PORTICO_OK)
			return status;
		encode(message, decode(message) * decode(message));
		while ((status = portico_channel_try_send(channel, message)) == PORTICO_AGAIN)
			wait();
		if (status != PORTICO_OK)
			return status;
	}
}

static void link_task(void *unused)
{
	struct portico_channel *channel;
	struct portico_port port;
	int64_t status;

	(void)unused;
	for (;;) {
		status = portico_channel_try_open("link", &channel);
		if (status == PORTICO_OK) {
			portico_channel_port(channel, &port);
			vPortOnNotify(port.bit, on_link, (uintptr_t)xTaskGetCurrentTaskHandle());
			status = serve(channel);
			portico_channel_close(channel);
			say("link: the peer is gone, waiting for the next\n");
		}
		if (status == PORTICO_NOT_FOUND) {
			say("link: there is no such channel\n");
			vTaskDelete(NULL);
		}
		vTaskDelay(pdMS_TO_TICKS(LOOK_AGAIN));
	}
}

void link_start(void)
{
	start(link_task, "link", NULL, PRIORITY_LINK);
}
