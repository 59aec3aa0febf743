// Randomness from the kernel.
#ifndef FLOCKER_BASE_RNG_H
#define FLOCKER_BASE_RNG_H

#include "base/uuid.h"

#include <stddef.h>

void rng_fill(void *ret, size_t n); // never fails, n <= 256
struct uuid rng_uuid(void);         // a fresh version 4 UUID

#endif
