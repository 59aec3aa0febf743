// Chunks of a stream on their way from one thread to another: TRANSFER_QUEUE of them at most, in memory of the queue, so that neither
// thread gets far ahead, and nothing is copied. One thread fills, one empties.
#ifndef FLOCKER_TRANSFER_QUEUE_H
#define FLOCKER_TRANSFER_QUEUE_H

#include "base/error.h"
#include "base/limits.h"
#include "transfer/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunk {
    size_t n;
    struct chain before, after; // the chain up to its begin and its end
    uint8_t data[TRANSFER_CHUNK];
};

enum queue_state {
    QUEUE_READY,
    QUEUE_LATE,  // nothing happened within the limit of time
    QUEUE_ENDED, // to the one that empties: all is empty, and no more comes
    QUEUE_CLOSED // the other thread has given up, or the one that fills has failed
};

struct queue;

struct queue *queue_new(void);
void queue_free(struct queue *q); // no thread uses it any more

// The thread that fills: a free chunk, the same until it is pushed. timeout_ms < 0: none.
enum queue_state queue_room(struct queue *q, int timeout_ms, struct chunk **ret);
void queue_push(struct queue *q);
void queue_end(struct queue *q); // no more comes
// That it is at work, though nothing has been pushed: queue_signs counts these calls and those of queue_push.
void queue_sign(struct queue *q);

// The thread that empties: the oldest chunk, the same until it is popped.
enum queue_state queue_front(struct queue *q, int timeout_ms, struct chunk **ret);
void queue_pop(struct queue *q);
uint64_t queue_signs(struct queue *q);

// Either: no more comes, no more is taken. The first reason counts; NULL: none is given.
void queue_close(struct queue *q, const struct error *why);
// The reason that was given first, if there is one: negative with *e set; else 0. Once it is closed.
int queue_error(struct queue *q, struct error *e);

#include "base/mem.h"
DEFINE_AUTO(struct queue *, queue_free)

#endif
