/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the kernel uses of <string.h>. libportico.a has these functions: compilers call them too. */
#ifndef STRING_H
#define STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *start, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *text);

#endif
