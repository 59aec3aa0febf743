// Whether what a move brings fits into the pool that it goes to, and is no more than the volume can hold. Pure.
#ifndef FLOCKER_PLAN_ROOM_H
#define FLOCKER_PLAN_ROOM_H

#include "base/error.h"

#include <stdint.h>

// A pool, in bytes; size 0: nothing is known of it.
struct room {
    uint64_t size, free;
};

// What a move leaves free, for the other volumes of that pool: one part in 32, at most 1 GiB.
uint64_t room_margin(uint64_t pool_size);
// E_NO_SPACE unless `needed` more bytes and the margin are free. A pool of which nothing is known takes anything.
int room_check(const struct room *pool, uint64_t needed, struct error *e);

// E_TOO_LARGE if that many bytes of one stream are more than a volume of that size limit (0: none) can hold (volume_copy_max).
int room_check_stream(uint64_t volume_size, uint64_t received, struct error *e);

#endif
