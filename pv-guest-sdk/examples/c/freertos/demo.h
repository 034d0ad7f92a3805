/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the files of the demonstration have for each other. */
#ifndef DEMO_H
#define DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Priorities: the kernel's timer task is above them, its idle task below. */
enum { PRIORITY_SUMS = 1, PRIORITY_REPORT = 3, PRIORITY_LINK = 4, PRIORITY_SHELL = 4, PRIORITY_ORDERS = 4, PRIORITY_SAMPLES = 5 };

/* Stacks of tasks that print or call the library, in words of 8 bytes. */
#define STACK_WORDS 1024

/* Makes a task, or ends the guest. */
void start(void (*task)(void *), const char *name, void *argument, unsigned priority);

/* Ends the guest: a check of the demonstration failed. */
_Noreturn void fail(const char *what);

/* console.c: lines of tasks, whole ones; and what is typed. */
void console_start(void);
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* Waits for a line, and cuts it to `len` with a NUL. */
void read_line(char *to, size_t len);

/* samples.c: a periodic task, a queue, a software timer, and the report of each second. */
void samples_start(void);
/* link.c: answers what comes over the channel "link". */
void link_start(void);
/* shell.c: does what is typed. */
void shell_start(void);
/* orders.c: stops or restarts when the manager asks for it. */
void orders_start(void);
/* sleeper.c: a guest that does nothing but sleep. */
void sleeper_start(void);
/* measure.c: a guest that measures itself. */
void measure_start(void);

/* inheritance.c: holds a mutex against two other tasks. Waits; ends the guest if the mutex lends no priority. */
void check_inheritance(void);

/* workers.c: two tasks that compute at once for some milliseconds, and end. */
void workers_start(void);
/* Waits until both have ended, and tells how many sums they made, and how many were interrupted by the other's. */
void workers_wait(unsigned *sums, unsigned *interrupted);

/*
 * sums.c, which alone uses floating point: whether FP and SIMD registers are those of a task that has used none; the bits of a sum of many terms; and
 * whether it is rounded upwards, which the task keeps from then on.
 */
bool registers_are_new(void);
void round_upwards(bool upwards);
uint64_t sum(void);

#endif
