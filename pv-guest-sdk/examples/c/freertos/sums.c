/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A sum whose every bit depends on many FP registers, and on the rounding that the processor is told: whoever changes one of them on the way changes the
 * result.
 */
#include <stddef.h>

#include "demo.h"

#define TERMS 400
#define LANES 8

/* FPCR.RMode: to the nearest, or upwards. (Arm ARM, "FPCR") */
#define ROUND_UPWARDS (1ull << 22)

bool registers_are_new(void)
{
	uint64_t q[64], fpcr, all;

	__asm__ volatile("stp q0, q1, [%1]\n\tstp q2, q3, [%1, #32]\n\tstp q4, q5, [%1, #64]\n\tstp q6, q7, [%1, #96]\n\t"
			 "stp q8, q9, [%1, #128]\n\tstp q10, q11, [%1, #160]\n\tstp q12, q13, [%1, #192]\n\t"
			 "stp q14, q15, [%1, #224]\n\tstp q16, q17, [%1, #256]\n\tstp q18, q19, [%1, #288]\n\t"
			 "stp q20, q21, [%1, #320]\n\tstp q22, q23, [%1, #352]\n\tstp q24, q25, [%1, #384]\n\t"
			 "stp q26, q27, [%1, #416]\n\tstp q28, q29, [%1, #448]\n\tstp q30, q31, [%1, #480]\n\tmrs %0, fpcr"
			 : "=r"(fpcr)
			 : "r"(q)
			 : "memory");
	all = fpcr;
	for (size_t index = 0; index < 64; index++)
		all |= q[index];
	return all == 0;
}

void round_upwards(bool upwards)
{
	__asm__ volatile("msr fpcr, %0" : : "r"(upwards ? ROUND_UPWARDS : 0ull));
}

uint64_t sum(void)
{
	double lane[LANES], step = 1.0 / 3.0;
	union {
		double value;
		uint64_t bits;
	} all = { .value = 0 };

	for (size_t index = 0; index < LANES; index++)
		lane[index] = 1.0 + (double)index;
	for (int term = 0; term < TERMS; term++) {
		for (size_t index = 0; index < LANES; index++)
			lane[index] = lane[index] * 0.999 + step / lane[(index + 1) % LANES];
		/* The compiler keeps the sums in registers, and makes them one after the other. */
		__asm__ volatile("" : "+w"(lane[0]), "+w"(lane[1]), "+w"(lane[2]), "+w"(lane[3]), "+w"(step));
	}
	for (size_t index = 0; index < LANES; index++)
		all.value += lane[index];
	return all.bits;
}
