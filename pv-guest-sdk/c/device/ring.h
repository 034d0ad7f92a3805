/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The two ends of a ring: ABI.md, section 10.
 *
 * Each end keeps both indices to itself. What it reads of the other side's must be possible after what it read last; if it is not, the answer is
 * PORTICO_BAD_STATE, nothing was done, and the caller ends the connection.
 */
#ifndef PORTICO_DEVICE_RING_H
#define PORTICO_DEVICE_RING_H

#include "window.h"

/* Where a ring is, as its protocol says: never as the window does. */
struct portico_ring {
	uint8_t *control;
	uint8_t *first_slot;
	uint32_t slots; /* a power of two */
	uint32_t slot_bytes;
};

static inline uint8_t *portico_ring_slot(const struct portico_ring *ring, uint32_t index)
{
	return ring->first_slot + (size_t)(index & (ring->slots - 1)) * ring->slot_bytes;
}

/* The end that writes. */
struct portico_producer {
	struct portico_ring ring;
	uint32_t head;      /* slots written, published or not */
	uint32_t published; /* what `head` was at the last publication */
	uint32_t tail;      /* the last possible `tail` */
};

/* The end that reads. */
struct portico_consumer {
	struct portico_ring ring;
	uint32_t tail;     /* slots taken, released or not */
	uint32_t released; /* what `tail` was at the last release */
	uint32_t head;     /* the last possible `head` */
};

/* Begins anew: the producer's words are set. To be done before the other side is told that it may use them. */
void portico_producer_start(struct portico_producer *producer, const struct portico_ring *ring);
/* Free slots. */
int64_t portico_producer_room(struct portico_producer *producer);
/* Publishes what was written, up to `head`. Whether the other side wants to be notified. */
bool portico_producer_publish(struct portico_producer *producer);
/* Asks for a notification when `slots` slots are free. 1: they are not, and the caller may sleep; 0: they are. All must be published. */
int64_t portico_producer_arm(struct portico_producer *producer, uint32_t slots);

/* As portico_producer_start. */
void portico_consumer_start(struct portico_consumer *consumer, const struct portico_ring *ring);
/* Slots that are filled and were not taken. */
int64_t portico_consumer_filled(struct portico_consumer *consumer);
/* Gives what was taken back, up to `tail`. Whether the other side wants to be notified. */
bool portico_consumer_release(struct portico_consumer *consumer);
/* Asks for a notification of the next slot. 1: there is none, and the caller may sleep; 0: there is. */
int64_t portico_consumer_arm(struct portico_consumer *consumer);

#endif
