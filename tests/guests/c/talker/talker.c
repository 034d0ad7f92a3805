/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Test guest in C: writes to its console without end, and says how long a print took at most. As the talker in Rust with `victim`.
 */
#include <portico.h>

/* Between two lines. */
#define NAP_NS 1000000
/* What fills a line, so that the ring is full soon if nobody takes it. */
#define FILL "................................................................................................................................"

uint64_t portico_main(void)
{
	static const uint8_t some[] = "some\n";
	uint64_t slowest = 0;

	for (uint64_t line = 1;; line++) {
		uint64_t begin = portico_now_ns(), took;
		uint8_t keys[64];

		/* In one piece: each call has its own patience. */
		portico_printf("line %lu, slowest %lu ms " FILL "\n", (unsigned long)line, (unsigned long)(slowest / 1000000));
		portico_write_some(some, sizeof some - 1);
		portico_read(keys, sizeof keys);
		took = portico_now_ns() - begin;
		if (took > slowest)
			slowest = took;
		portico_sleep_ns(NAP_NS);
	}
}
