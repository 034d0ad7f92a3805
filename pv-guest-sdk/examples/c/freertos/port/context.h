/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Where a task's registers are while it does not run: offsets in bytes, for assembly. port.c asserts that its structures have them. */
#ifndef PORT_CONTEXT_H
#define PORT_CONTEXT_H

/* General registers, and what comes and goes with them: on the task's stack. */
#define CONTEXT_X(n) ((n) * 8)
#define CONTEXT_ELR 248
#define CONTEXT_SPSR 256
#define CONTEXT_NESTING 264
#define CONTEXT_FP_AREA 272
#define CONTEXT_BYTES 288

/* FP and SIMD registers: at the top of the task's stack. */
#define FP_Q(n) ((n) * 16)
#define FP_FPCR 512
#define FP_FPSR 520
#define FP_BYTES 528

#endif
