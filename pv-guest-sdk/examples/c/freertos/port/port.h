/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the files of the port know of each other. */
#ifndef PORT_H
#define PORT_H

/* Installs the tick's handler and has the first one come. Interrupts are masked. */
void vPortStartTick(void);

/* context.S: the vectors, and the way into the first task. */
extern const char portVectors[];
_Noreturn void vPortStartFirstTask(void);

#endif
