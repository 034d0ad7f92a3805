/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A disk's front-end: ABI.md, section 11, "Disks".
 *
 * Every request is kept until its answer. When the back-end goes and comes back, what was in flight is made again in the order in which it was
 * made: the caller sees nothing but the delay. Data is copied through pages of the window, one run of them for each request.
 */
#include "link.h"

/* Steps of the handshake at once: a back-end that always has something new is left for later. */
#define MAX_STEPS 8

struct pending {
	struct portico_block_request request;
	bool is_used;
	uint64_t order;
	uintptr_t token;
	void *to; /* where the data of a read goes */
	uint32_t page, pages;
};

struct portico_disk {
	struct portico_link link;
	struct portico_ring requests, responses;
	struct portico_producer producer;
	struct portico_consumer consumer;
	bool is_connected;
	bool is_unpublished;
	struct portico_disk_info info;
	size_t data;     /* offset of the data area */
	uint32_t pages;  /* pages of it */
	uint8_t *is_taken; /* for each page */
	struct pending *pending;
	uint32_t in_flight;
	uint64_t next_order;
	uint64_t lost;
};

static void zero(void *start, size_t bytes)
{
	uint8_t *at = start;

	while (bytes-- > 0)
		*at++ = 0;
}

/* The shape of the window follows from its size: nothing of it is taken from the window. */
static bool set_shape(struct portico_disk *disk)
{
	uint64_t all = disk->link.device.window_bytes / PORTICO_PAGE_SIZE;
	uint8_t *window = disk->link.window;

	for (uint32_t slots = 8; slots <= 256; slots *= 2) {
		uint64_t rings = PORTICO_DEVICE_RINGS + 2 * PORTICO_RING_SLOTS +
				 (uint64_t)slots * (sizeof(struct portico_block_request) + sizeof(struct portico_block_response));
		uint64_t control = (rings + PORTICO_PAGE_SIZE - 1) / PORTICO_PAGE_SIZE;
		uint64_t pages = all > control ? all - control : 0;

		/* The largest power of two that is not above the pages of data and 256. */
		if (pages < slots || pages > PORTICO_BLOCK_MAX_PAGES || (slots < 256 && pages >= 2 * slots))
			continue;
		disk->requests = (struct portico_ring){
			.control = window + PORTICO_DEVICE_RINGS,
			.first_slot = window + PORTICO_DEVICE_RINGS + PORTICO_RING_SLOTS,
			.slots = slots,
			.slot_bytes = sizeof(struct portico_block_request),
		};
		disk->responses = (struct portico_ring){
			.control = disk->requests.first_slot + slots * sizeof(struct portico_block_request),
			.slots = slots,
			.slot_bytes = sizeof(struct portico_block_response),
		};
		disk->responses.first_slot = disk->responses.control + PORTICO_RING_SLOTS;
		disk->data = control * PORTICO_PAGE_SIZE;
		disk->pages = (uint32_t)pages;
		return true;
	}
	return false;
}

int64_t portico_disk_open(const char *name, uint32_t queue, uint64_t deadline, struct portico_disk **out)
{
	struct portico_device device;
	struct portico_disk *disk;
	int64_t status = portico_device_find(PORTICO_DT_BLOCK, name, queue, &device);

	*out = NULL;
	if (status != PORTICO_OK)
		return status;
	disk = portico_alloc(sizeof *disk);
	if (!disk)
		return PORTICO_NO_BUDGET;
	zero(disk, sizeof *disk);
	status = portico_link_open(&disk->link, &device);
	if (status != PORTICO_OK || !set_shape(disk)) {
		portico_free(disk);
		return PORTICO_INVALID;
	}
	disk->pending = portico_alloc(disk->requests.slots * sizeof *disk->pending);
	disk->is_taken = portico_alloc(disk->pages);
	if (!disk->pending || !disk->is_taken) {
		portico_free(disk->pending);
		portico_free(disk->is_taken);
		portico_free(disk);
		return PORTICO_NO_BUDGET;
	}
	zero(disk->pending, disk->requests.slots * sizeof *disk->pending);
	zero(disk->is_taken, disk->pages);
	*out = disk;
	return portico_disk_connect(disk, deadline);
}

/* What was offered makes no sense, or is for another. */
static int64_t refuse(struct portico_disk *disk, int64_t status)
{
	portico_link_refuse(&disk->link);
	return status;
}

/* Copies the offer, checks the copy, and accepts. */
static int64_t greet(struct portico_disk *disk)
{
	const uint64_t known = PORTICO_BLOCK_FEATURE_DISCARD | PORTICO_BLOCK_FEATURE_WRITE_ZEROES;
	uint32_t most = disk->pages * (PORTICO_PAGE_SIZE / PORTICO_BLOCK_SECTOR);
	struct portico_block_disk details;
	struct portico_offer offer;

	portico_link_read_offer(&disk->link, &offer, &details, sizeof details);
	if (offer.refusal != PORTICO_REFUSAL_NONE)
		return refuse(disk, PORTICO_BAD_STATE);
	if (offer.kind != PORTICO_KIND_BLOCK || offer.version >> 16 != PORTICO_BLOCK_VERSION >> 16)
		return refuse(disk, PORTICO_NOT_SUPPORTED);
	if (details.max_sectors == 0 || details.max_segments == 0 || details.block_bytes < PORTICO_BLOCK_SECTOR ||
	    (details.block_bytes & (details.block_bytes - 1)) != 0)
		return refuse(disk, PORTICO_NOT_SUPPORTED);
	disk->info = (struct portico_disk_info){
		.sectors = details.sectors,
		.features = offer.features & known,
		.block_bytes = details.block_bytes,
		.flags = details.flags & PORTICO_BLOCK_FLAG_READ_ONLY,
		.max_sectors = details.max_sectors < most ? details.max_sectors : most,
		.max_discard = details.max_discard,
		.max_zeroes = details.max_zeroes,
		.depth = disk->requests.slots,
	};
	portico_producer_start(&disk->producer, &disk->requests);
	portico_consumer_start(&disk->consumer, &disk->responses);
	portico_link_accept(&disk->link, PORTICO_BLOCK_VERSION, disk->info.features);
	return PORTICO_OK;
}

/* The back-end lies: it is left, and everything is made again for its next life. */
static void leave(struct portico_disk *disk)
{
	disk->is_connected = false;
	disk->lost++;
	portico_link_restart(&disk->link);
}

/* Puts a request into the ring. There is room, since no more are pending than it has slots. */
static void put(struct portico_disk *disk, const struct portico_block_request *request)
{
	if (!disk->is_connected)
		return;
	if (portico_producer_room(&disk->producer) <= 0) {
		leave(disk);
		return;
	}
	portico_copy_in(portico_ring_slot(&disk->requests, disk->producer.head), request, sizeof *request);
	disk->producer.head++;
	disk->is_unpublished = true;
}

void portico_disk_publish(struct portico_disk *disk)
{
	if (!disk->is_unpublished)
		return;
	disk->is_unpublished = false;
	if (disk->is_connected && portico_producer_publish(&disk->producer))
		portico_link_tell(&disk->link);
}

/* Makes everything again that has no answer, in the order in which it was made. */
static void make_again(struct portico_disk *disk)
{
	uint64_t from = 0;

	for (uint32_t count = 0; count < disk->in_flight; count++) {
		struct pending *next = NULL;

		for (uint32_t id = 0; id < disk->requests.slots; id++) {
			struct pending *one = &disk->pending[id];

			if (one->is_used && one->order >= from && (!next || one->order < next->order))
				next = one;
		}
		if (!next)
			break;
		put(disk, &next->request);
		from = next->order + 1;
	}
	portico_disk_publish(disk);
}

/* Keeps the link alive. */
static int64_t step(struct portico_disk *disk)
{
	int64_t status;

	for (int steps = 0; steps < MAX_STEPS; steps++) {
		switch (portico_link_step(&disk->link)) {
		case PORTICO_EVENT_NONE:
			return PORTICO_OK;
		case PORTICO_EVENT_LOST:
			disk->is_connected = false;
			disk->lost++;
			break;
		case PORTICO_EVENT_OFFER:
			status = greet(disk);
			if (status != PORTICO_OK)
				return status;
			break;
		case PORTICO_EVENT_CONNECTED:
			disk->is_connected = true;
			make_again(disk);
			break;
		}
	}
	return PORTICO_OK;
}

int64_t portico_disk_connect(struct portico_disk *disk, uint64_t deadline)
{
	for (;;) {
		int64_t status = step(disk);

		if (status != PORTICO_OK || disk->is_connected)
			return status;
		if (disk->in_flight == 0 && portico_link_is_removed(&disk->link)) {
			portico_link_leave(&disk->link);
			return PORTICO_PEER_GONE;
		}
		status = portico_link_wait(&disk->link, deadline);
		if (status != PORTICO_OK)
			return status;
	}
}

void portico_disk_info(const struct portico_disk *disk, struct portico_disk_info *out)
{
	*out = disk->info;
}

uint64_t portico_disk_lost(const struct portico_disk *disk)
{
	return disk->lost;
}

/* The first of so many free pages one behind the other, or all of them if there are none. */
static uint32_t find_pages(const struct portico_disk *disk, uint32_t pages)
{
	uint32_t run = 0;

	for (uint32_t page = 0; page < disk->pages; page++) {
		run = disk->is_taken[page] ? 0 : run + 1;
		if (run == pages)
			return page + 1 - pages;
	}
	return disk->pages;
}

static void mark_pages(struct portico_disk *disk, const struct pending *pending, uint8_t is_taken)
{
	for (uint32_t page = pending->page; page < pending->page + pending->pages; page++)
		disk->is_taken[page] = is_taken;
}

static uint8_t *data_of(const struct portico_disk *disk, const struct pending *pending)
{
	return disk->link.window + disk->data + (size_t)pending->page * PORTICO_PAGE_SIZE;
}

/* Most sectors of an operation; 0 if it is not offered. */
static uint32_t most_sectors(const struct portico_disk *disk, uint8_t op)
{
	switch (op) {
	case PORTICO_BLOCK_OP_READ:
	case PORTICO_BLOCK_OP_WRITE:
		return disk->info.max_sectors;
	case PORTICO_BLOCK_OP_DISCARD:
		return disk->info.features & PORTICO_BLOCK_FEATURE_DISCARD ? disk->info.max_discard : 0;
	case PORTICO_BLOCK_OP_WRITE_ZEROES:
		return disk->info.features & PORTICO_BLOCK_FEATURE_WRITE_ZEROES ? disk->info.max_zeroes : 0;
	default:
		return 0;
	}
}

int64_t portico_disk_submit(struct portico_disk *disk, uint8_t op, uint64_t sector, uint32_t sectors, void *data,
			    uintptr_t token)
{
	bool has_data = op == PORTICO_BLOCK_OP_READ || op == PORTICO_BLOCK_OP_WRITE;
	size_t bytes = has_data ? (size_t)sectors * PORTICO_BLOCK_SECTOR : 0;
	struct pending *pending = NULL;
	uint32_t id;

	if (op == PORTICO_BLOCK_OP_FLUSH ? sector != 0 || sectors != 0 : sectors == 0 || sectors > most_sectors(disk, op))
		return PORTICO_INVALID;
	for (id = 0; id < disk->requests.slots && !pending; id++)
		if (!disk->pending[id].is_used)
			pending = &disk->pending[id];
	if (!pending)
		return PORTICO_LIMIT;
	id--;
	pending->pages = (uint32_t)((bytes + PORTICO_PAGE_SIZE - 1) / PORTICO_PAGE_SIZE);
	pending->page = pending->pages > 0 ? find_pages(disk, pending->pages) : 0;
	if (pending->pages > 0 && pending->page == disk->pages)
		return PORTICO_LIMIT;
	mark_pages(disk, pending, 1);
	pending->request = (struct portico_block_request){ .id = id, .op = op, .sector = sector, .sectors = sectors };
	if (has_data) {
		pending->request.segments = 1;
		pending->request.segment[0].offset = (uint32_t)(data_of(disk, pending) - disk->link.window);
		pending->request.segment[0].bytes = (uint32_t)bytes;
	}
	if (op == PORTICO_BLOCK_OP_WRITE)
		portico_copy_in(data_of(disk, pending), data, bytes);
	pending->to = op == PORTICO_BLOCK_OP_READ ? data : NULL;
	pending->token = token;
	pending->order = disk->next_order++;
	pending->is_used = true;
	disk->in_flight++;
	put(disk, &pending->request);
	return PORTICO_OK;
}

/* Of a disk that was taken away nothing gets an answer: all fail. */
static int64_t reap_without(struct portico_disk *disk, struct portico_disk_done *done)
{
	if (!portico_link_is_removed(&disk->link))
		return PORTICO_AGAIN;
	for (uint32_t id = 0; id < disk->requests.slots; id++) {
		struct pending *pending = &disk->pending[id];

		if (!pending->is_used)
			continue;
		mark_pages(disk, pending, 0);
		pending->is_used = false;
		disk->in_flight--;
		*done = (struct portico_disk_done){ .token = pending->token, .status = PORTICO_BLOCK_STATUS_IO };
		return PORTICO_OK;
	}
	portico_link_leave(&disk->link);
	return PORTICO_PEER_GONE;
}

int64_t portico_disk_reap(struct portico_disk *disk, struct portico_disk_done *done)
{
	struct portico_block_response response;
	struct pending *pending;
	int64_t filled, status = step(disk);

	if (status != PORTICO_OK)
		return status;
	if (!disk->is_connected)
		return reap_without(disk, done);
	filled = portico_consumer_filled(&disk->consumer);
	if (filled < 0)
		leave(disk);
	if (filled <= 0)
		return PORTICO_AGAIN;
	portico_copy_out(&response, portico_ring_slot(&disk->responses, disk->consumer.tail), sizeof response);
	disk->consumer.tail++;
	if (response.id >= disk->requests.slots || !disk->pending[response.id].is_used) {
		/* An answer to what was not asked. */
		leave(disk);
		return PORTICO_AGAIN;
	}
	if (portico_consumer_release(&disk->consumer))
		portico_link_tell(&disk->link);
	pending = &disk->pending[response.id];
	if (pending->to && response.status == PORTICO_BLOCK_STATUS_OK)
		portico_copy_out(pending->to, data_of(disk, pending), (size_t)pending->request.sectors * PORTICO_BLOCK_SECTOR);
	mark_pages(disk, pending, 0);
	pending->is_used = false;
	disk->in_flight--;
	*done = (struct portico_disk_done){ .token = pending->token, .status = response.status };
	return PORTICO_OK;
}

int64_t portico_disk_wait(struct portico_disk *disk, struct portico_disk_done *done, uint64_t deadline)
{
	portico_disk_publish(disk);
	for (;;) {
		int64_t status = portico_disk_reap(disk, done);

		if (status != PORTICO_AGAIN)
			return status;
		if (disk->is_connected) {
			status = portico_consumer_arm(&disk->consumer);
			if (status == 0)
				continue;
			if (status < 0) {
				leave(disk);
				continue;
			}
		}
		status = portico_link_wait(&disk->link, deadline);
		if (status != PORTICO_OK)
			return status;
	}
}

/* Makes one request and waits for it. */
static int64_t one(struct portico_disk *disk, uint8_t op, uint64_t sector, uint32_t sectors, void *data)
{
	struct portico_disk_done done;
	int64_t status;

	if (disk->in_flight > 0)
		return PORTICO_BAD_STATE;
	status = portico_disk_submit(disk, op, sector, sectors, data, 0);
	if (status == PORTICO_OK)
		status = portico_disk_wait(disk, &done, PORTICO_DEADLINE_NEVER);
	return status == PORTICO_OK ? done.status : status;
}

/* Makes as many requests as the data needs, one after the other. */
static int64_t all(struct portico_disk *disk, uint8_t op, uint64_t sector, uint8_t *data, size_t bytes)
{
	uint64_t sectors = bytes / PORTICO_BLOCK_SECTOR;

	if (bytes % PORTICO_BLOCK_SECTOR != 0)
		return PORTICO_INVALID;
	while (sectors > 0) {
		uint32_t most = disk->info.max_sectors;
		uint32_t count = sectors < most ? (uint32_t)sectors : most;
		int64_t status = one(disk, op, sector, count, data);

		if (status != PORTICO_OK)
			return status;
		sector += count;
		sectors -= count;
		data += (size_t)count * PORTICO_BLOCK_SECTOR;
	}
	return PORTICO_OK;
}

int64_t portico_disk_read(struct portico_disk *disk, uint64_t sector, void *to, size_t bytes)
{
	return all(disk, PORTICO_BLOCK_OP_READ, sector, to, bytes);
}

int64_t portico_disk_write(struct portico_disk *disk, uint64_t sector, const void *from, size_t bytes)
{
	/* Only read from: a write's data is copied when it is made. */
	return all(disk, PORTICO_BLOCK_OP_WRITE, sector, (uint8_t *)(uintptr_t)from, bytes);
}

int64_t portico_disk_flush(struct portico_disk *disk)
{
	return one(disk, PORTICO_BLOCK_OP_FLUSH, 0, 0, NULL);
}

int64_t portico_disk_discard(struct portico_disk *disk, uint64_t sector, uint32_t sectors)
{
	return one(disk, PORTICO_BLOCK_OP_DISCARD, sector, sectors, NULL);
}

int64_t portico_disk_write_zeroes(struct portico_disk *disk, uint64_t sector, uint32_t sectors)
{
	return one(disk, PORTICO_BLOCK_OP_WRITE_ZEROES, sector, sectors, NULL);
}
