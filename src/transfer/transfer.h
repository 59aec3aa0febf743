// Moves one snapshot of a volume from agent to agent: what both ends share. Each end is a worker with blocking calls (a process of its own,
// which may have threads); neither knows of agents or control.
#ifndef FLOCKER_TRANSFER_TRANSFER_H
#define FLOCKER_TRANSFER_TRANSFER_H

#include <stddef.h>
#include <stdint.h>

struct transfer_progress {
    uint64_t seq, base; // of the stream that is under way
    uint64_t bytes;     // of it that have been sent, or applied
    uint64_t total;     // estimate; 0: unknown
    uint64_t rate;      // bytes per second; 0: not known yet
    int64_t left_s;     // -1: unknown
};

// Called from the thread that called the transfer, at most some times per second.
typedef void transfer_on_progress(void *arg, const struct transfer_progress *p);

// Times that tests shorten. NULL where one is wanted: transfer_times.
struct transfer_times {
    int connect_ms;       // for a connection, and
    int handshake_ms;     // for TLS on it
    int request_ms;       // for the request to come
    int stall_ms;         // a connection on which nothing moves for so long is broken
    int alive_ms;         // an end that has nothing to send says so
    int frame_ms;         // for a frame: slower than that is no connection
    int idle_ms;          // for the source's backend to make a snapshot, and to produce anything of its stream
    int silent_ms;        // for the target to wait for the next chunk of a source that only says that it is alive: it may have to skip much
    int checkpoint_ms;    // between two checkpoints of the target
    int retry_ms;         // before the first new try; twice that before the next, and so on, up to
    int retry_most_ms;
    int tries;            // in a row that have brought nothing
};
extern const struct transfer_times transfer_times;

#endif
