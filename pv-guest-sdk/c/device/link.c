/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "link.h"

/* The words of both sides. The back-end is side 0. */
#define BACK_STATE offsetof(struct portico_channel_header, state0)
#define BACK_EPOCH offsetof(struct portico_channel_header, epoch0)
#define BACK_SEEN offsetof(struct portico_channel_header, seen0)
#define FRONT_STATE offsetof(struct portico_channel_header, state1)
#define FRONT_EPOCH offsetof(struct portico_channel_header, epoch1)
#define FRONT_SEEN offsetof(struct portico_channel_header, seen1)
#define REFUSAL (PORTICO_DEVICE_OFFER + offsetof(struct portico_offer, refusal))

/* How often the next life of the back-end is looked for, and how long one that is there may stay silent before that. */
#define LOOK_NS 2000000u
#define SILENCE_NS 100000000u

static uint32_t get(const struct portico_link *link, size_t at)
{
	return portico_load(link->window + at);
}

static void set(struct portico_link *link, size_t at, uint32_t value)
{
	portico_store(link->window + at, value);
}

int64_t portico_link_open(struct portico_link *link, const struct portico_device *device)
{
	uint8_t *window = (uint8_t *)device->window;

	*link = (struct portico_link){ .device = *device, .window = window };
	if (device->side != PORTICO_DEVICE_FRONT || device->window % 8 != 0 || device->window_bytes < 2 * PORTICO_PAGE_SIZE)
		return PORTICO_INVALID;
	if (portico_load(window) != PORTICO_CHANNEL_MAGIC)
		return PORTICO_INVALID;
	/* It goes on from where the last life left it. */
	link->epoch = get(link, FRONT_EPOCH);
	return PORTICO_OK;
}

void portico_link_tell(struct portico_link *link)
{
	/* That nobody is there shows in the next step. */
	if (link->has_port)
		portico_call_port_notify(link->port.handle);
}

/* Whether the other end of our port is there. */
static bool is_plugged(const struct portico_link *link)
{
	uint64_t kind, cookie, state;

	return link->has_port && portico_call_handle_info(link->port.handle, &kind, &cookie, &state) == PORTICO_OK &&
	       state == 0;
}

/* Finds the port with our cookie whose other end is there: each life of the back-end has another. */
static bool find_port(uint64_t cookie, uint32_t *out)
{
	uint64_t cursor = 0, handle, next, kind, found, state;

	while (portico_call_handle_next(PORTICO_SELF_DOMAIN, cursor, &handle, &next, NULL) == PORTICO_OK) {
		if (portico_call_handle_info(handle, &kind, &found, &state) == PORTICO_OK &&
		    (kind & 0xffff) == PORTICO_TYPE_PORT && found == cookie && state == 0) {
			*out = (uint32_t)handle;
			return true;
		}
		cursor = next;
	}
	return false;
}

static bool plug(struct portico_link *link)
{
	uint32_t handle;

	if (is_plugged(link))
		return true;
	if (link->has_port) {
		link->has_port = false;
		portico_call_handle_close(link->port.handle);
	}
	if (!find_port(link->device.cookie, &handle))
		return false;
	if (link->has_bit) {
		/* The bit stays the same over all lives. */
		if (portico_call_port_bind(handle, link->port.vcpu, link->port.bit, PORTICO_CLASS_DEFAULT) != PORTICO_OK)
			return false;
		link->port.handle = handle;
	} else if (portico_bind(handle, &link->port) != PORTICO_OK) {
		return false;
	}
	link->has_port = true;
	link->has_bit = true;
	return true;
}

static void begin(struct portico_link *link)
{
	set(link, FRONT_STATE, PORTICO_CHANNEL_INIT);
	set(link, FRONT_SEEN, 0);
	link->epoch++;
	if (link->epoch == 0)
		link->epoch = 1;
	set(link, FRONT_EPOCH, link->epoch);
	link->phase = PORTICO_WAITING;
	portico_link_tell(link);
}

void portico_link_restart(struct portico_link *link)
{
	set(link, FRONT_STATE, PORTICO_CHANNEL_INIT);
	link->phase = PORTICO_UNPLUGGED;
}

static bool is_there(const struct portico_link *link)
{
	return get(link, BACK_STATE) == PORTICO_CHANNEL_CONNECTED;
}

bool portico_link_is_removed(const struct portico_link *link)
{
	return link->phase != PORTICO_CONNECTED && get(link, BACK_STATE) == PORTICO_CHANNEL_CLOSED &&
	       get(link, REFUSAL) == PORTICO_REFUSAL_REMOVED;
}

void portico_link_leave(struct portico_link *link)
{
	set(link, FRONT_STATE, PORTICO_CHANNEL_CLOSED);
}

enum portico_event portico_link_step(struct portico_link *link)
{
	switch (link->phase) {
	case PORTICO_CONNECTED:
		if (get(link, BACK_EPOCH) == link->met && is_there(link))
			return PORTICO_EVENT_NONE;
		portico_link_restart(link);
		return PORTICO_EVENT_LOST;
	case PORTICO_UNPLUGGED:
		if (!plug(link))
			return PORTICO_EVENT_NONE;
		begin(link);
		break;
	default:
		if (!is_plugged(link)) {
			portico_link_restart(link);
			return PORTICO_EVENT_NONE;
		}
		break;
	}
	switch (link->phase) {
	case PORTICO_WAITING:
		/* The epoch first: the back-end stores it behind INIT, so that CONNECTED is not its last life's. */
		link->met = get(link, BACK_EPOCH);
		return is_there(link) && link->met != 0 ? PORTICO_EVENT_OFFER : PORTICO_EVENT_NONE;
	case PORTICO_ACCEPTED:
		if (get(link, BACK_EPOCH) == link->met && get(link, BACK_STATE) == PORTICO_CHANNEL_CLOSED &&
		    get(link, REFUSAL) != PORTICO_REFUSAL_NONE) {
			link->phase = PORTICO_WAITING;
			return PORTICO_EVENT_OFFER;
		}
		if (get(link, BACK_EPOCH) != link->met || !is_there(link)) {
			begin(link);
			return PORTICO_EVENT_NONE;
		}
		if (get(link, BACK_SEEN) != link->epoch)
			return PORTICO_EVENT_NONE;
		link->phase = PORTICO_CONNECTED;
		return PORTICO_EVENT_CONNECTED;
	case PORTICO_REFUSED:
		if (get(link, BACK_EPOCH) != link->met)
			begin(link);
		return PORTICO_EVENT_NONE;
	default:
		return PORTICO_EVENT_NONE;
	}
}

void portico_link_read_offer(const struct portico_link *link, struct portico_offer *offer, void *details, size_t bytes)
{
	portico_copy_out(offer, link->window + PORTICO_DEVICE_OFFER, sizeof *offer);
	portico_copy_out(details, link->window + PORTICO_DEVICE_OFFER + sizeof *offer, bytes);
}

void portico_link_accept(struct portico_link *link, uint32_t version, uint64_t features)
{
	struct portico_accept accept = { .version = version, .features = features };

	portico_copy_in(link->window + PORTICO_DEVICE_ACCEPT, &accept, sizeof accept);
	set(link, FRONT_SEEN, link->met);
	set(link, FRONT_STATE, PORTICO_CHANNEL_CONNECTED);
	link->phase = PORTICO_ACCEPTED;
	portico_link_tell(link);
}

void portico_link_refuse(struct portico_link *link)
{
	if (get(link, BACK_EPOCH) != link->met) {
		/* It has begun another life already, and is not to answer for the last one. */
		portico_link_restart(link);
		return;
	}
	link->phase = PORTICO_REFUSED;
	set(link, FRONT_STATE, PORTICO_CHANNEL_CLOSED);
	portico_link_tell(link);
}

int64_t portico_link_wait(struct portico_link *link, uint64_t deadline)
{
	uint64_t look;
	int64_t status;

	if (link->has_port && link->phase != PORTICO_UNPLUGGED) {
		/* The back-end's next life notifies by another port: so it is looked for now and then. */
		look = portico_deadline_ns(SILENCE_NS);
		status = portico_wait(&link->port, look < deadline ? look : deadline);
		return status == PORTICO_TIMED_OUT && look < deadline ? PORTICO_OK : status;
	}
	if (portico_now() >= deadline)
		return PORTICO_TIMED_OUT;
	portico_sleep_ns(LOOK_NS);
	return PORTICO_OK;
}
