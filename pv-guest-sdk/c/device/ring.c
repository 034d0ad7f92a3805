/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ring.h"

/* Whether an index that moved from `old` to `new_` went past `event`. All wrap. */
static bool passed(uint32_t event, uint32_t old, uint32_t new_)
{
	return new_ - event - 1 < new_ - old;
}

void portico_producer_start(struct portico_producer *producer, const struct portico_ring *ring)
{
	*producer = (struct portico_producer){ .ring = *ring };
	portico_store(ring->control + PORTICO_RING_HEAD, 0);
	/* One behind: nothing is asked for. */
	portico_store(ring->control + PORTICO_RING_SPACE_EVENT, UINT32_MAX);
}

int64_t portico_producer_room(struct portico_producer *producer)
{
	uint32_t tail = portico_load(producer->ring.control + PORTICO_RING_TAIL);

	/* Of what was known to be filled and published only a part can still be. */
	if (producer->published - tail > producer->published - producer->tail)
		return PORTICO_BAD_STATE;
	producer->tail = tail;
	return producer->ring.slots - (producer->head - tail);
}

bool portico_producer_publish(struct portico_producer *producer)
{
	uint32_t old = producer->published;

	portico_store(producer->ring.control + PORTICO_RING_HEAD, producer->head);
	producer->published = producer->head;
	/* Orders the store of `head` before the load of `data_event`: either we see what is asked for, or they see what we published. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return passed(portico_load(producer->ring.control + PORTICO_RING_DATA_EVENT), old, producer->head);
}

int64_t portico_producer_arm(struct portico_producer *producer, uint32_t slots)
{
	int64_t room;

	/* So many are free as soon as `tail` has passed this. */
	portico_store(producer->ring.control + PORTICO_RING_SPACE_EVENT, producer->head + slots - producer->ring.slots - 1);
	/* Orders the store of `space_event` before the load of `tail`. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	room = portico_producer_room(producer);
	return room < 0 ? room : room < (int64_t)slots;
}

void portico_consumer_start(struct portico_consumer *consumer, const struct portico_ring *ring)
{
	*consumer = (struct portico_consumer){ .ring = *ring };
	portico_store(ring->control + PORTICO_RING_TAIL, 0);
	portico_store(ring->control + PORTICO_RING_DATA_EVENT, UINT32_MAX);
}

int64_t portico_consumer_filled(struct portico_consumer *consumer)
{
	uint32_t head = portico_load(consumer->ring.control + PORTICO_RING_HEAD);
	uint32_t ahead = head - consumer->released;

	/* The producer knows what was released, and has no more room than the ring; what it filled it cannot take back. */
	if (ahead > consumer->ring.slots || ahead < consumer->head - consumer->released)
		return PORTICO_BAD_STATE;
	consumer->head = head;
	return head - consumer->tail;
}

bool portico_consumer_release(struct portico_consumer *consumer)
{
	uint32_t old = consumer->released;

	portico_store(consumer->ring.control + PORTICO_RING_TAIL, consumer->tail);
	consumer->released = consumer->tail;
	/* Orders the store of `tail` before the load of `space_event`. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return passed(portico_load(consumer->ring.control + PORTICO_RING_SPACE_EVENT), old, consumer->tail);
}

int64_t portico_consumer_arm(struct portico_consumer *consumer)
{
	int64_t filled;

	portico_store(consumer->ring.control + PORTICO_RING_DATA_EVENT, consumer->tail);
	/* Orders the store of `data_event` before the load of `head`. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	filled = portico_consumer_filled(consumer);
	return filled < 0 ? filled : filled == 0;
}
