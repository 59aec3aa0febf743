// How fast a transfer goes: a limit of the rate, whether compression pays, and how far it is. Pure: time comes as an argument, in
// microseconds of any clock that is never set back.
#ifndef FLOCKER_TRANSFER_PACE_H
#define FLOCKER_TRANSFER_PACE_H

#include <stdbool.h>
#include <stdint.h>

// ---- limit: a token bucket, kept as the time at which it is full again (the "generic cell rate algorithm" of ATM Forum TM 4.0)

#define PACE_BURST_US 200000 // what was saved up while nothing was sent is at most this much of the rate

struct pace_limit {
    uint64_t rate;    // bytes per second; 0: no limit
    int64_t ready_us; // when what was sent is paid for
};

// Counts `bytes` as sent now; returns how many microseconds to wait before anything else is sent.
int64_t pace_limit_wait(struct pace_limit *l, uint64_t bytes, int64_t now_us);

// ---- compression: tried when the connection, or its limit, is what the sender waits for most of the time; kept as long as more of the
// stream gets through than without. Judged by windows of some MiB. Where it doesn't pay, it is tried more and more rarely.

#define PACE_WINDOW       (16ULL << 20)  // bytes of the stream
#define PACE_BLOCKED      75             // percent of the time that the sender has to wait for the connection before it is worth a try
#define PACE_RATE_MAX     (250ULL << 20) // bytes per second: a connection that takes more is faster than zstd on one core, with margin
#define PACE_RATIO_MAX    90             // percent of its size that a chunk may have left to be worth it
#define PACE_GAIN         110            // percent of the rate without, at least
#define PACE_SKIP_MAX     64             // windows between two tries
#define PACE_KEEP_WINDOWS 64             // after so many with compression the rate without is measured anew

enum pace_state { PACE_PLAIN, PACE_TRIAL, PACE_ZIP };

struct pace_zip {
    enum pace_state state;
    uint64_t skip, skipped;    // windows between two tries, and how many of them have passed
    uint64_t windows;          // in this state
    uint64_t plain_rate;       // of the last window without compression; bytes of the stream per second
    uint64_t bytes, wire;      // of this window
    int64_t began_us, blocked_us;
};

static inline bool pace_zip_wanted(const struct pace_zip *z)
{
    return z->state != PACE_PLAIN;
}
void pace_zip_begin(struct pace_zip *z, int64_t now_us);
// A chunk of `bytes` was sent as `wire` bytes; the connection or the limit made us wait for blocked_us of the time since the last.
void pace_zip_sent(struct pace_zip *z, uint64_t bytes, uint64_t wire, int64_t blocked_us, int64_t now_us);

// ---- progress

struct pace_meter {
    uint64_t bytes;
    int64_t at_us;
    double rate; // bytes per second, mean of the last seconds; 0: not known yet
};

// The stream has come to `bytes`. The first call only sets the beginning.
void pace_meter_note(struct pace_meter *m, uint64_t bytes, int64_t now_us);
// Seconds until `total` bytes; -1: unknown.
int64_t pace_meter_left_s(const struct pace_meter *m, uint64_t total);

#endif
