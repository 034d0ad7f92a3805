/*
 * Test guest in C: `mode=disk` writes, reads and verifies its disk for ever, with many requests in flight; `mode=net` sends every frame of the
 * test's type back to whom it came from; `mode=victim` reads from a service that lies in ever other ways, until it does no more.
 */
#include <portico.h>

#define SECOND_NS 1000000000ull
/* A service that does not come back within this is a failure, a slow machine is none. */
#define PATIENCE_NS (60 * SECOND_NS)

static _Noreturn void fail(const char *why, uint64_t a, uint64_t b)
{
	portico_print("FAIL ");
	portico_print(why);
	portico_print(" ");
	portico_print_hex(a);
	portico_print(" ");
	portico_print_hex(b);
	portico_panic("");
}

/* (Marsaglia, "Xorshift RNGs") */
static uint64_t random_below(uint64_t bound)
{
	static uint64_t state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

/* ----- The disk ----- */

#define BLOCKS 96u
#define BLOCK_SECTORS 8u
#define BLOCK_WORDS 512u
#define MOST 4u
#define DEPTH 12u
#define ZEROED 0u

/* What a block must hold: zeros, or what belongs to this generation. */
static uint64_t generation[BLOCKS];
static bool is_busy[BLOCKS];

struct flight {
	bool is_used;
	uint8_t op;
	uint32_t first, count;
	uint64_t generation;
	uint64_t data[MOST * BLOCK_WORDS];
};

static struct flight flights[DEPTH];
static struct portico_disk *disk;
static struct portico_disk_info info;

static uint64_t word_of(uint32_t block, uint64_t of, uint32_t at)
{
	uint64_t word = (of * BLOCKS + block) * BLOCK_WORDS + at;

	return of == ZEROED ? 0 : (word ^ word >> 29) * 0xbf58476d1ce4e5b9;
}

static void check(const struct flight *flight)
{
	for (uint32_t block = 0; block < flight->count; block++)
		for (uint32_t at = 0; at < BLOCK_WORDS; at++) {
			uint64_t wanted = word_of(flight->first + block, generation[flight->first + block], at);

			if (flight->data[block * BLOCK_WORDS + at] != wanted)
				fail("another word than was written", flight->data[block * BLOCK_WORDS + at], wanted);
		}
}

/* Begins a request on blocks that no other is about; whether it has. */
static bool make(uint64_t *next_generation)
{
	struct flight *flight = NULL;
	uint64_t roll = random_below(100);
	int64_t status;
	uint32_t slot;

	for (slot = 0; slot < DEPTH && !flight; slot++)
		if (!flights[slot].is_used)
			flight = &flights[slot];
	if (!flight)
		return false;
	flight->count = 1 + (uint32_t)random_below(MOST);
	flight->first = (uint32_t)random_below(BLOCKS - flight->count + 1);
	for (uint32_t block = 0; block < flight->count; block++)
		if (is_busy[flight->first + block])
			return false;
	if (roll < 4) {
		flight->op = PORTICO_BLOCK_OP_FLUSH;
	} else if (roll < 10 && info.features & PORTICO_BLOCK_FEATURE_WRITE_ZEROES) {
		flight->op = PORTICO_BLOCK_OP_WRITE_ZEROES;
		flight->generation = ZEROED;
	} else if (roll < 55) {
		flight->op = PORTICO_BLOCK_OP_WRITE;
		flight->generation = ++*next_generation;
		for (uint32_t block = 0; block < flight->count; block++)
			for (uint32_t at = 0; at < BLOCK_WORDS; at++)
				flight->data[block * BLOCK_WORDS + at] = word_of(flight->first + block, flight->generation, at);
	} else {
		flight->op = PORTICO_BLOCK_OP_READ;
	}
	if (flight->op == PORTICO_BLOCK_OP_FLUSH)
		flight->count = 0;
	status = portico_disk_submit(disk, flight->op, flight->count ? (uint64_t)flight->first * BLOCK_SECTORS : 0,
				     flight->count * BLOCK_SECTORS, flight->data, slot - 1);
	if (status == PORTICO_LIMIT)
		return false;
	if (status != PORTICO_OK)
		fail("submit", (uint64_t)status, flight->op);
	for (uint32_t block = 0; block < flight->count; block++)
		is_busy[flight->first + block] = true;
	flight->is_used = true;
	return true;
}

static void end(const struct portico_disk_done *done)
{
	struct flight *flight = &flights[done->token];

	if (done->token >= DEPTH || !flight->is_used || done->status != PORTICO_BLOCK_STATUS_OK)
		fail("an answer", done->token, done->status);
	if (flight->op == PORTICO_BLOCK_OP_READ)
		check(flight);
	for (uint32_t block = flight->first; block < flight->first + flight->count; block++) {
		is_busy[block] = false;
		if (flight->op != PORTICO_BLOCK_OP_READ)
			generation[block] = flight->generation;
	}
	flight->is_used = false;
}

static void run_disk(void)
{
	uint64_t next_generation = 0, count = 0, next_line = 0, lost = 0;
	struct portico_disk_done done;
	int64_t status = portico_disk_open("disk0", 0, portico_deadline_ns(PATIENCE_NS), &disk);

	if (status != PORTICO_OK)
		fail("open", (uint64_t)status, 0);
	portico_disk_info(disk, &info);
	if (portico_disk_read(disk, 0, flights[0].data, 513) != PORTICO_INVALID ||
	    portico_disk_read(disk, info.sectors, flights[0].data, 512) != PORTICO_BLOCK_STATUS_RANGE ||
	    portico_disk_submit(disk, PORTICO_BLOCK_OP_READ, 0, info.max_sectors + 1, flights[0].data, 0) != PORTICO_INVALID)
		fail("what cannot be was not refused", 0, 0);
	/* Zeros, by the functions that wait. */
	for (uint32_t block = 0; block < BLOCKS; block += MOST)
		if (portico_disk_write(disk, block * BLOCK_SECTORS, flights[0].data, MOST * BLOCK_WORDS * 8) != PORTICO_OK)
			fail("write", block, 0);
	if (portico_disk_flush(disk) != PORTICO_OK)
		fail("flush", 0, 0);
	for (;;) {
		for (unsigned tries = 0; tries < 2 * DEPTH; tries++)
			make(&next_generation);
		status = portico_disk_wait(disk, &done, portico_deadline_ns(PATIENCE_NS));
		for (; status == PORTICO_OK; count++) {
			end(&done);
			if (portico_disk_lost(disk) != lost) {
				/* This answer is of the service's next life. */
				lost = portico_disk_lost(disk);
				portico_print("load: served again\n");
			}
			status = portico_disk_reap(disk, &done);
		}
		if (status != PORTICO_AGAIN)
			fail("reap", (uint64_t)status, count);
		if (portico_now() < next_line)
			continue;
		next_line = portico_deadline_ns(SECOND_NS / 4);
		portico_print("load: ");
		portico_print_unsigned(count);
		portico_print(" done, ");
		portico_print_unsigned(lost);
		portico_print(" lost\n");
	}
}

static void run_victim(void)
{
	uint64_t refused = 0, failed = 0, served = 0, in_flight = 0, wrong = 0, before = 0;
	uint64_t end = portico_deadline_ns(PATIENCE_NS), quiet = 0;
	struct portico_disk_done done;

	/* What is offered first makes no sense: the disk is open all the same. */
	if (portico_disk_open("disk0", 0, portico_deadline_ns(SECOND_NS), &disk) != PORTICO_OK)
		refused++;
	if (!disk)
		fail("open", 0, 0);
	/* Until nothing was wrong for as long as several lies last. */
	while (portico_now() < end && (served < 20 || portico_now() < quiet)) {
		wrong = refused + failed + portico_disk_lost(disk);
		if (wrong != before) {
			before = wrong;
			quiet = portico_deadline_ns(2 * SECOND_NS);
		}
		if (portico_disk_connect(disk, portico_deadline_ns(3 * SECOND_NS / 10)) != PORTICO_OK) {
			refused++;
			continue;
		}
		if (portico_disk_submit(disk, PORTICO_BLOCK_OP_READ, 0, 8, flights[0].data, 1) != PORTICO_OK) {
			failed++;
			continue;
		}
		for (in_flight = 1; in_flight > 0 && portico_now() < end;) {
			if (portico_disk_wait(disk, &done, portico_deadline_ns(3 * SECOND_NS / 10)) != PORTICO_OK) {
				refused++;
				continue;
			}
			in_flight--;
			if (done.token != 1)
				fail("a token", done.token, 0);
			if (done.status == PORTICO_BLOCK_STATUS_OK)
				served++;
			else
				failed++;
		}
	}
	portico_print_unsigned(refused);
	portico_print(" refused, ");
	portico_print_unsigned(failed);
	portico_print(" failed, ");
	portico_print_unsigned(portico_disk_lost(disk));
	portico_print(" lost\n");
	if (served < 20 || refused < 3 || failed < 1 || portico_disk_lost(disk) < 8 || in_flight > 0)
		fail("it has not noticed, or is not served", served, in_flight);
}

/* ----- The interface ----- */

static void swap(uint8_t *frame, const uint8_t *mac)
{
	for (unsigned at = 0; at < 6; at++) {
		frame[at] = frame[6 + at];
		frame[6 + at] = mac[at];
	}
}

static void run_net(void)
{
	static uint8_t frame[2048];
	struct portico_net_interface interface;
	struct portico_net *net;
	size_t bytes;
	int64_t status = portico_net_open("net0", portico_deadline_ns(PATIENCE_NS), &net);

	if (status != PORTICO_OK)
		fail("open", (uint64_t)status, 0);
	portico_net_info(net, &interface);
	if (portico_net_send(net, frame, 13) != PORTICO_INVALID ||
	    portico_net_send(net, frame, interface.max_frame + 1) != PORTICO_INVALID)
		fail("a frame that cannot be was not refused", 0, 0);
	for (;;) {
		while ((status = portico_net_receive(net, frame, sizeof frame, &bytes)) == PORTICO_OK) {
			if (frame[12] != 0x88 || frame[13] != 0xb5)
				continue;
			swap(frame, interface.mac);
			while ((status = portico_net_send(net, frame, bytes)) == PORTICO_AGAIN)
				if (portico_net_wait_for_room(net, bytes, portico_deadline_ns(PATIENCE_NS)) != PORTICO_OK)
					fail("no room", bytes, 0);
			if (status != PORTICO_OK)
				fail("send", (uint64_t)status, bytes);
		}
		if (status == PORTICO_AGAIN)
			status = portico_net_wait(net, PORTICO_DEADLINE_NEVER);
		if (status != PORTICO_OK)
			fail("receive", (uint64_t)status, 0);
	}
}

uint64_t portico_main(void)
{
	char mode[64];

	portico_bootargs(mode, sizeof mode);
	if (mode[5] == 'd')
		run_disk();
	else if (mode[5] == 'v')
		run_victim();
	else
		run_net();
	return 0;
}
