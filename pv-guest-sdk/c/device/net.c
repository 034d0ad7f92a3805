/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A network interface's front-end: ABI.md, section 11, "Network interfaces".
 *
 * Frames are copied into and out of the rings. When the back-end goes and comes back what was on its way is lost, as on every Ethernet; while it
 * is away there is no room, and nothing comes.
 */
#include "link.h"

#define MAX_STEPS 8

struct portico_net {
	struct portico_link link;
	struct portico_ring transmit, receive;
	struct portico_producer producer;
	struct portico_consumer consumer;
	bool is_connected;
	bool is_unpublished;
	bool has_accepted; /* a refusal that is read now is the answer to that */
	struct portico_net_interface info;
	uint64_t lost;
};

static uint32_t slots_of(uint64_t bytes)
{
	return (uint32_t)((bytes + PORTICO_NET_HEADER + PORTICO_NET_SLOT - 1) / PORTICO_NET_SLOT);
}

/* Two rings in halves of a power of two of pages, with their words in the page before. */
static bool set_shape(struct portico_net *net)
{
	uint64_t pages = net->link.device.window_bytes / PORTICO_PAGE_SIZE - PORTICO_NET_CONTROL_PAGES;
	uint8_t *control = net->link.window + PORTICO_DEVICE_RINGS;
	uint8_t *data = net->link.window + PORTICO_NET_CONTROL_PAGES * PORTICO_PAGE_SIZE;
	uint64_t half = pages / 2 * PORTICO_PAGE_SIZE;

	if (pages < PORTICO_NET_MIN_PAGES || pages > PORTICO_NET_MAX_PAGES || (pages & (pages - 1)) != 0)
		return false;
	net->transmit = (struct portico_ring){
		.control = control,
		.first_slot = data,
		.slots = (uint32_t)(half / PORTICO_NET_SLOT),
		.slot_bytes = PORTICO_NET_SLOT,
	};
	net->receive = net->transmit;
	net->receive.control += PORTICO_RING_SLOTS;
	net->receive.first_slot += half;
	return true;
}

int64_t portico_net_open(const char *name, uint64_t deadline, struct portico_net **out)
{
	struct portico_device device;
	struct portico_net *net;
	int64_t status = portico_device_find(PORTICO_DT_NET, name, 0, &device);

	*out = NULL;
	if (status != PORTICO_OK)
		return status;
	net = portico_alloc(sizeof *net);
	if (!net)
		return PORTICO_NO_BUDGET;
	*net = (struct portico_net){ .is_connected = false };
	status = portico_link_open(&net->link, &device);
	if (status != PORTICO_OK || !set_shape(net)) {
		portico_free(net);
		return PORTICO_INVALID;
	}
	*out = net;
	return portico_net_connect(net, deadline);
}

/* Copies the offer, checks the copy, and accepts. */
static int64_t greet(struct portico_net *net)
{
	uint32_t longest = net->transmit.slots * PORTICO_NET_SLOT - PORTICO_NET_HEADER;
	bool has_accepted = net->has_accepted;
	struct portico_offer offer;

	portico_link_read_offer(&net->link, &offer, &net->info, sizeof net->info);
	net->has_accepted = false;
	/* What was refused before this life is not for us. */
	if (has_accepted && offer.refusal != PORTICO_REFUSAL_NONE) {
		portico_link_refuse(&net->link);
		return PORTICO_BAD_STATE;
	}
	if (offer.kind != PORTICO_KIND_NET || offer.version >> 16 != PORTICO_NET_VERSION >> 16) {
		portico_link_refuse(&net->link);
		return PORTICO_NOT_SUPPORTED;
	}
	if (net->info.max_frame > longest)
		net->info.max_frame = longest;
	/* An Ethernet header is no payload. */
	if (net->info.mtu + PORTICO_NET_MIN_FRAME > net->info.max_frame)
		net->info.mtu =
			net->info.max_frame > PORTICO_NET_MIN_FRAME ? (uint16_t)(net->info.max_frame - PORTICO_NET_MIN_FRAME) : 0;
	portico_producer_start(&net->producer, &net->transmit);
	portico_consumer_start(&net->consumer, &net->receive);
	net->has_accepted = true;
	portico_link_accept(&net->link, PORTICO_NET_VERSION, 0);
	return PORTICO_OK;
}

/* The back-end lies. */
static int64_t leave(struct portico_net *net)
{
	net->is_connected = false;
	net->has_accepted = false;
	net->lost++;
	portico_link_restart(&net->link);
	return PORTICO_AGAIN;
}

/* Keeps the link alive. */
static int64_t step(struct portico_net *net)
{
	int64_t status;

	for (int steps = 0; steps < MAX_STEPS; steps++) {
		switch (portico_link_step(&net->link)) {
		case PORTICO_EVENT_NONE:
			return PORTICO_OK;
		case PORTICO_EVENT_LOST:
			net->is_connected = false;
			net->lost++;
			break;
		case PORTICO_EVENT_OFFER:
			status = greet(net);
			if (status != PORTICO_OK)
				return status;
			break;
		case PORTICO_EVENT_CONNECTED:
			net->is_connected = true;
			net->is_unpublished = false;
			break;
		}
	}
	return PORTICO_OK;
}

int64_t portico_net_connect(struct portico_net *net, uint64_t deadline)
{
	for (;;) {
		int64_t status = step(net);

		if (status != PORTICO_OK || net->is_connected)
			return status;
		status = portico_link_wait(&net->link, deadline);
		if (status != PORTICO_OK)
			return status;
	}
}

void portico_net_info(const struct portico_net *net, struct portico_net_interface *out)
{
	*out = net->info;
}

uint64_t portico_net_lost(const struct portico_net *net)
{
	return net->lost;
}

/* Bytes of a frame that are one behind the other: to the end of the ring, and from its beginning on. */
static size_t before_the_end(const struct portico_ring *ring, uint32_t index, size_t bytes)
{
	size_t left = (size_t)(ring->slots - (index & (ring->slots - 1))) * PORTICO_NET_SLOT - PORTICO_NET_HEADER;

	return bytes < left ? bytes : left;
}

int64_t portico_net_send(struct portico_net *net, const void *frame, size_t bytes)
{
	struct portico_net_frame header = { .bytes = (uint32_t)bytes };
	const uint8_t *from = frame;
	uint32_t first;
	int64_t room, status = step(net);
	size_t run;

	if (status != PORTICO_OK)
		return status;
	if (!net->is_connected)
		return PORTICO_AGAIN;
	if (bytes < PORTICO_NET_MIN_FRAME || bytes > net->info.max_frame)
		return PORTICO_INVALID;
	room = portico_producer_room(&net->producer);
	if (room < 0)
		return leave(net);
	if (room < (int64_t)slots_of(bytes))
		return PORTICO_AGAIN;
	first = net->producer.head;
	run = before_the_end(&net->transmit, first, bytes);
	portico_copy_in(portico_ring_slot(&net->transmit, first), &header, sizeof header);
	portico_copy_in(portico_ring_slot(&net->transmit, first) + PORTICO_NET_HEADER, from, run);
	portico_copy_in(net->transmit.first_slot, from + run, bytes - run);
	net->producer.head += slots_of(bytes);
	net->is_unpublished = true;
	return PORTICO_OK;
}

void portico_net_publish(struct portico_net *net)
{
	if (!net->is_unpublished)
		return;
	net->is_unpublished = false;
	if (net->is_connected && portico_producer_publish(&net->producer))
		portico_link_tell(&net->link);
}

/* Gives the slots of what was taken back. */
static void release(struct portico_net *net)
{
	if (net->consumer.tail != net->consumer.released && portico_consumer_release(&net->consumer))
		portico_link_tell(&net->link);
}

int64_t portico_net_receive(struct portico_net *net, void *to, size_t room, size_t *bytes)
{
	struct portico_net_frame header;
	const uint8_t *slot;
	uint8_t *into = to;
	int64_t filled, status = step(net);
	size_t wanted, run;

	if (status != PORTICO_OK)
		return status;
	if (!net->is_connected)
		return PORTICO_AGAIN;
	filled = portico_consumer_filled(&net->consumer);
	if (filled < 0)
		return leave(net);
	if (filled == 0) {
		release(net);
		return PORTICO_AGAIN;
	}
	slot = portico_ring_slot(&net->receive, net->consumer.tail);
	/* Once: what is checked is what is used. */
	portico_copy_out(&header, slot, sizeof header);
	/* No feature was accepted that gives the rest of it a meaning. */
	if (header.flags != 0 || header.checksum_start != 0 || header.checksum_offset != 0 || header.segment_bytes != 0 ||
	    header.header_bytes != 0 || slots_of(header.bytes) > filled)
		return leave(net);
	wanted = header.bytes < room ? header.bytes : room;
	run = before_the_end(&net->receive, net->consumer.tail, wanted);
	portico_copy_out(into, slot + PORTICO_NET_HEADER, run);
	portico_copy_out(into + run, net->receive.first_slot, wanted - run);
	*bytes = header.bytes;
	net->consumer.tail += slots_of(header.bytes);
	if (net->consumer.tail - net->consumer.released > net->receive.slots / 4)
		release(net);
	return PORTICO_OK;
}

int64_t portico_net_wait(struct portico_net *net, uint64_t deadline)
{
	int64_t status;

	portico_net_publish(net);
	status = step(net);
	if (status != PORTICO_OK)
		return status;
	if (net->is_connected) {
		release(net);
		status = portico_consumer_arm(&net->consumer);
		if (status < 0)
			leave(net);
		if (status <= 0)
			return PORTICO_OK;
	}
	return portico_link_wait(&net->link, deadline);
}

int64_t portico_net_wait_for_room(struct portico_net *net, size_t bytes, uint64_t deadline)
{
	uint32_t slots = slots_of(bytes), quarter = net->transmit.slots / 4;
	int64_t room, status;

	if (bytes > (size_t)net->transmit.slots * PORTICO_NET_SLOT - PORTICO_NET_HEADER)
		return PORTICO_INVALID;
	portico_net_publish(net);
	status = step(net);
	if (status != PORTICO_OK)
		return status;
	if (net->is_connected) {
		room = portico_producer_room(&net->producer);
		if (room >= (int64_t)slots)
			return PORTICO_OK;
		/* Rather for many slots and seldom than for each. */
		if (room >= 0)
			room = portico_producer_arm(&net->producer, slots > quarter ? slots : quarter);
		if (room < 0)
			leave(net);
		if (room <= 0)
			return PORTICO_OK;
	}
	return portico_link_wait(&net->link, deadline);
}
