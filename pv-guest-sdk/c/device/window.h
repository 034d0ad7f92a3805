/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Access to a window: memory that the other side may change at any time.
 *
 * What is read is copied, once, by volatile accesses; the copy is checked and used. Words on which both sides agree are read and written
 * as atomics. Nobody keeps a pointer into a window beyond these functions but to say where something is.
 */
#ifndef PORTICO_DEVICE_WINDOW_H
#define PORTICO_DEVICE_WINDOW_H

#include <portico.h>

/* Eight bytes of anything. */
typedef uint64_t __attribute__((may_alias)) portico_word;

static inline uint32_t portico_load(const uint8_t *word)
{
	return __atomic_load_n((const uint32_t *)(const void *)word, __ATOMIC_ACQUIRE);
}

static inline void portico_store(uint8_t *word, uint32_t value)
{
	__atomic_store_n((uint32_t *)(void *)word, value, __ATOMIC_RELEASE);
}

/* Copies bytes out of a window. */
static inline void portico_copy_out(void *to, const uint8_t *window, size_t bytes)
{
	uint8_t *into = to;

	if (((uintptr_t)into | (uintptr_t)window) % 8 == 0) {
		for (; bytes >= 8; bytes -= 8, into += 8, window += 8)
			*(portico_word *)(void *)into = *(const volatile portico_word *)(const void *)window;
	}
	for (; bytes > 0; bytes--)
		*into++ = *(const volatile uint8_t *)window++;
}

/* Copies bytes into a window. */
static inline void portico_copy_in(uint8_t *window, const void *from, size_t bytes)
{
	const uint8_t *source = from;

	if (((uintptr_t)source | (uintptr_t)window) % 8 == 0) {
		for (; bytes >= 8; bytes -= 8, source += 8, window += 8)
			*(volatile portico_word *)(void *)window = *(const portico_word *)(const void *)source;
	}
	for (; bytes > 0; bytes--)
		*(volatile uint8_t *)window++ = *source++;
}

#endif
