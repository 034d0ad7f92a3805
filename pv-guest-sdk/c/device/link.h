/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The link under a front-end: finds its port, shakes hands, notices that the back-end is gone or began anew, and shakes hands again.
 * ABI.md, section 11, "Negotiation". Nothing here waits but portico_link_wait.
 *
 * Of the library it needs portico_bind, portico_wait, portico_now, portico_deadline_ns and portico_sleep_ns: a kernel with its own notion of ports
 * and time defines those five, and portico_alloc and portico_free.
 */
#ifndef PORTICO_DEVICE_LINK_H
#define PORTICO_DEVICE_LINK_H

#include "ring.h"

enum portico_phase {
	PORTICO_UNPLUGGED, /* no port whose other end is there */
	PORTICO_WAITING,   /* an epoch was begun; the back-end is not ready */
	PORTICO_ACCEPTED,  /* the offer was accepted; the back-end has not seen it */
	PORTICO_CONNECTED, /* both have seen each other */
	PORTICO_REFUSED,   /* nothing happens until the back-end begins anew */
};

enum portico_event {
	PORTICO_EVENT_NONE,
	PORTICO_EVENT_OFFER,     /* read the offer, make the words of the rings anew, and accept or refuse */
	PORTICO_EVENT_CONNECTED, /* the rings may be used */
	PORTICO_EVENT_LOST,      /* the rings may no longer be used */
};

struct portico_link {
	struct portico_device device;
	uint8_t *window;
	struct portico_port port;
	bool has_port;
	bool has_bit; /* the bit of `port` is ours, also without a port */
	enum portico_phase phase;
	uint32_t epoch;
	uint32_t met; /* the back-end's epoch in which its offer was read: that one is agreed to, and no later one */
};

/* Takes the device. PORTICO_INVALID: its window is no front-end's. */
int64_t portico_link_open(struct portico_link *link, const struct portico_device *device);
/* Does what can be done now. To be called before each use of the rings, and after each notification. */
enum portico_event portico_link_step(struct portico_link *link);
/* Copies the offer, and `bytes` bytes of what follows it. */
void portico_link_read_offer(const struct portico_link *link, struct portico_offer *offer, void *details, size_t bytes);
/* Accepts the offer that was read. The front-end's words of all rings have been made anew. */
void portico_link_accept(struct portico_link *link, uint32_t version, uint64_t features);
/* Has nothing to do with this life of the back-end. */
void portico_link_refuse(struct portico_link *link);
/*
 * Whether nothing is behind the device, by the word of the manager; and saying that all that was in flight has failed: nothing else is put there before.
 */
bool portico_link_is_removed(const struct portico_link *link);
void portico_link_leave(struct portico_link *link);
/* Begins anew with the next step, though the back-end did not: it lies. */
void portico_link_restart(struct portico_link *link);
/* Notifies the back-end. */
void portico_link_tell(struct portico_link *link);
/* Sleeps until the back-end may have done something. PORTICO_TIMED_OUT at `deadline`. */
int64_t portico_link_wait(struct portico_link *link, uint64_t deadline);

#endif
