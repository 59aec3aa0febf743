// The only place that asks the time, and base/rng.h the only one that asks for randomness: what decides gets both as arguments.
#ifndef FLOCKER_BASE_CLOCK_H
#define FLOCKER_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

int64_t clock_wall_ms(void);     // CLOCK_REALTIME, milliseconds since 1970; for people and records
int64_t clock_boot_ms(void);     // CLOCK_BOOTTIME, for deadlines: it goes on through suspend and is never set
int64_t clock_boot_us(void);     // the same in microseconds, to measure with
struct timespec clock_after_ms(int ms); // that long from now by CLOCK_MONOTONIC: what pthread_cond_timedwait wants

static inline struct timeval clock_timeval(int64_t ms) // what libevent and sockets want
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

#define CLOCK_TEXT_SIZE 32
// RFC 3339 in UTC with milliseconds, as "2026-01-02T03:04:05.678Z"; returns `ret`.
const char *clock_format(int64_t wall_ms, char ret[CLOCK_TEXT_SIZE]);

#endif
