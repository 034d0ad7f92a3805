/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The kernel includes <stdlib.h> and uses nothing of it but NULL and size_t. */
#ifndef STDLIB_H
#define STDLIB_H

#include <stddef.h>

#endif
