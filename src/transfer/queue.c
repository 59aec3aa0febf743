#include "transfer/queue.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    size_t first, n; // the filled ones
    bool is_ended, is_closed;
    uint64_t signs;
    struct error why; // E_NONE: no reason is given
    struct chunk chunks[TRANSFER_QUEUE];
};

static void queue_lock(struct queue *q)
{
    int err = pthread_mutex_lock(&q->mutex);
    ASSERT(err == 0);
}

static void queue_unlock(struct queue *q)
{
    pthread_cond_broadcast(&q->changed);
    int err = pthread_mutex_unlock(&q->mutex);
    ASSERT(err == 0);
}

struct queue *queue_new(void)
{
    struct queue *q = xcalloc(1, sizeof *q);
    pthread_condattr_t monotonic;
    int err = pthread_mutex_init(&q->mutex, NULL) | pthread_condattr_init(&monotonic) |
              pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) | pthread_cond_init(&q->changed, &monotonic) |
              pthread_condattr_destroy(&monotonic);
    ASSERT(err == 0);
    return q;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    free(q);
}

static enum queue_state room_state(const struct queue *q)
{
    return q->is_closed ? QUEUE_CLOSED : q->n < TRANSFER_QUEUE ? QUEUE_READY : QUEUE_LATE;
}

static enum queue_state front_state(const struct queue *q)
{
    return q->is_closed ? QUEUE_CLOSED : q->n ? QUEUE_READY : q->is_ended ? QUEUE_ENDED : QUEUE_LATE;
}

// Waits, locked, until the state is something else than late.
static enum queue_state wait_for(struct queue *q, enum queue_state (*state)(const struct queue *q), int timeout_ms)
{
    struct timespec until = clock_after_ms(timeout_ms < 0 ? 0 : timeout_ms);
    enum queue_state s;
    while ((s = state(q)) == QUEUE_LATE) {
        int err = timeout_ms < 0 ? pthread_cond_wait(&q->changed, &q->mutex) : pthread_cond_timedwait(&q->changed, &q->mutex, &until);
        if (err == ETIMEDOUT)
            return state(q);
        ASSERT(err == 0);
    }
    return s;
}

enum queue_state queue_room(struct queue *q, int timeout_ms, struct chunk **ret)
{
    queue_lock(q);
    enum queue_state s = wait_for(q, room_state, timeout_ms);
    if (s == QUEUE_READY)
        *ret = &q->chunks[(q->first + q->n) % TRANSFER_QUEUE];
    queue_unlock(q);
    return s;
}

void queue_push(struct queue *q)
{
    queue_lock(q);
    ASSERT(q->n < TRANSFER_QUEUE);
    q->n++;
    q->signs++;
    queue_unlock(q);
}

void queue_end(struct queue *q)
{
    queue_lock(q);
    q->is_ended = true;
    queue_unlock(q);
}

void queue_sign(struct queue *q)
{
    queue_lock(q);
    q->signs++;
    queue_unlock(q);
}

enum queue_state queue_front(struct queue *q, int timeout_ms, struct chunk **ret)
{
    queue_lock(q);
    enum queue_state s = wait_for(q, front_state, timeout_ms);
    if (s == QUEUE_READY)
        *ret = &q->chunks[q->first];
    queue_unlock(q);
    return s;
}

void queue_pop(struct queue *q)
{
    queue_lock(q);
    ASSERT(q->n > 0 || q->is_closed);
    if (q->n > 0) {
        q->first = (q->first + 1) % TRANSFER_QUEUE;
        q->n--;
    }
    queue_unlock(q);
}

uint64_t queue_signs(struct queue *q)
{
    queue_lock(q);
    uint64_t signs = q->signs;
    queue_unlock(q);
    return signs;
}

void queue_close(struct queue *q, const struct error *why)
{
    queue_lock(q);
    if (!q->is_closed && why)
        q->why = *why;
    q->is_closed = true;
    queue_unlock(q);
}

int queue_error(struct queue *q, struct error *e)
{
    queue_lock(q);
    struct error why = q->why;
    queue_unlock(q);
    return why.code == E_NONE ? 0 : fail(e, why.code, "%s", why.msg);
}
