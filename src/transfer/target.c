#include "transfer/target.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"
#include "net/tls_stream.h"
#include "transfer/pace.h"
#include "transfer/queue.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#define PROGRESS_US      500000
#define AGAINS_MAX       3              // how often a source may say that what we have isn't of its stream

// One thread, which called, receives and digests; the other, one for each connection, applies.
struct fetching {
    const struct transfer_target *target;
    const struct transfer_times *times;
    struct backend_copy copy; // what was there at the beginning, less a part that was found to be strange
    struct transfer_request request;
    struct transfer_answer answer;
    struct chain chain; // what has been received
    // Of the applying thread while there is one:
    struct receiver *receiver;
    uint64_t receiver_seq, receiver_base;
    struct chain applied;
    uint64_t checkpoint; // offset of the last one
    int64_t checkpoint_ms;
    // Of the receiving thread:
    struct tls_stream *stream;
    struct queue *queue;
    ZSTD_DCtx *zstd; // both made when needed first
    void *zipped;
    struct pace_meter meter;
    int64_t told_us;
    bool may_retry;   // the error is the connection's, or the source's for the moment
    bool is_again;    // the source said that our part is not of its stream
    unsigned strange; // how often
    int64_t chunk_ms; // when the last chunk came, or the answer
    uint64_t best;    // the highest offset that was ever applied
    struct transfer_result result;
};

// ---- the applying thread

static int checkpoint(struct fetching *f, struct error *e)
{
    int rc = f->target->backend->ops->receive_checkpoint(f->receiver, f->applied.offset, f->applied.digest, e);
    f->checkpoint = f->applied.offset;
    f->checkpoint_ms = clock_boot_ms();
    return rc;
}

// How much of the stream may be taken, and of the pool.
static int check_amount(struct fetching *f, uint64_t left, struct error *e)
{
    const struct transfer_target *t = f->target;
    struct transfer_amount a = { .applied = f->applied.offset, .unsettled = f->applied.offset - f->checkpoint, .left = left };
    int rc = t->may_take ? t->may_take(t->arg, &a, e) : 0;
    if (rc != -E_NO_SPACE || a.unsettled == 0)
        return rc;
    a.unsettled = 0; // after a checkpoint the pool knows what is used
    rc = checkpoint(f, e);
    return rc < 0 ? rc : t->may_take(t->arg, &a, e);
}

// What was received before and is of no more use is let go before the room is measured.
static int begin(struct fetching *f, struct error *e)
{
    const struct transfer_target *t = f->target;
    const struct transfer_answer *a = &f->answer;
    f->checkpoint = f->applied.offset;
    f->checkpoint_ms = clock_boot_ms();
    if (f->receiver) // of a connection before
        return 0;
    f->receiver_seq = a->seq;
    f->receiver_base = a->base;
    int rc = t->backend->ops->receive_begin(t->backend, t->volume, a->base, a->seq, a->offset, &f->receiver, e);
    return rc < 0 ? rc : check_amount(f, a->estimate > a->offset ? a->estimate - a->offset : 0, e);
}

static int apply(struct fetching *f, const struct chunk *c, struct error *e)
{
    const struct backend_ops *ops = f->target->backend->ops;
    int rc = ops->receive_feed(f->receiver, c->data, c->n, e);
    if (rc < 0)
        return rc;
    f->applied = c->after;
    FAILPOINT(TRANSFER_APPLIED);
    if (f->applied.offset % TRANSFER_CHUNK)
        return 0; // the last one: the end follows
    if (f->applied.offset % TRANSFER_CHECK == 0 && (rc = check_amount(f, 0, e)) < 0)
        return rc;
    return clock_boot_ms() - f->checkpoint_ms < f->times->checkpoint_ms ? 0 : checkpoint(f, e);
}

static void *applying_thread(void *arg)
{
    struct fetching *f = arg;
    struct error e = ERROR_INIT;
    struct chunk *c = NULL;
    int rc = begin(f, &e);
    while (rc == 0 && queue_front(f->queue, -1, &c) == QUEUE_READY) {
        rc = apply(f, c, &e);
        if (rc == 0)
            queue_pop(f->queue);
    }
    if (rc < 0)
        queue_close(f->queue, &e);
    return NULL;
}

// ---- receiving

// Errors of the connection are worth another try; those of what came over it, and our own, are not.
static int connection_failed(struct fetching *f, int rc)
{
    f->may_retry = rc == -E_UNAVAILABLE || rc == -E_TIMEOUT;
    return rc;
}

static int receive(struct fetching *f, void *ret, size_t n, struct error *e)
{
    int rc = tls_stream_read(f->stream, ret, n, f->times->frame_ms, e);
    return rc < 0 ? connection_failed(f, rc) : 0;
}

static int send_alive(struct fetching *f, struct error *e)
{
    int rc = tls_stream_write(f->stream, "\n", 1, f->times->stall_ms, e);
    return rc < 0 ? connection_failed(f, rc) : 0;
}

// A free chunk. While there is none, because the disk takes its time, the source is told that we are alive.
static int wait_for_room(struct fetching *f, struct chunk **ret, struct error *e)
{
    enum queue_state state;
    while ((state = queue_room(f->queue, f->times->alive_ms, ret)) == QUEUE_LATE) {
        int rc = send_alive(f, e);
        if (rc < 0)
            return rc;
    }
    if (state == QUEUE_READY)
        return 0;
    int rc = queue_error(f->queue, e);
    return rc < 0 ? rc : fail(e, E_IO, "applying the stream of volume %s ended, and no reason is given", UUID_TEXT(&f->target->volume->id));
}

static int unzip(struct fetching *f, const struct frame *frame, void *ret, struct error *e)
{
    if (!f->zstd) {
        f->zstd = ZSTD_createDCtx();
        f->zipped = xcalloc(1, TRANSFER_CHUNK);
        ASSERT(f->zstd);
    }
    int rc = receive(f, f->zipped, frame->wire_bytes, e);
    if (rc < 0)
        return rc;
    size_t n = ZSTD_decompressDCtx(f->zstd, ret, frame->bytes, f->zipped, frame->wire_bytes);
    if (ZSTD_isError(n))
        return fail(e, E_CORRUPT, "a chunk can't be decompressed: %s", ZSTD_getErrorName(n));
    return n == frame->bytes ? 0 : fail(e, E_CORRUPT, "a chunk of %u bytes has %zu when decompressed", frame->bytes, n);
}

static void tell_progress(struct fetching *f, bool is_last)
{
    int64_t now_us = clock_boot_us();
    pace_meter_note(&f->meter, f->chain.offset, now_us);
    if (!f->target->progress || (now_us - f->told_us < PROGRESS_US && !is_last))
        return;
    f->told_us = now_us;
    const struct transfer_progress p = {
        .seq = f->answer.seq,
        .base = f->answer.base,
        .bytes = f->chain.offset,
        .total = f->answer.estimate,
        .rate = (uint64_t)f->meter.rate,
        .left_s = pace_meter_left_s(&f->meter, f->answer.estimate),
    };
    f->target->progress(f->target->arg, &p);
}

static int receive_chunk(struct fetching *f, const struct frame *frame, struct error *e)
{
    struct chunk *c = NULL;
    int rc = frame_check_place(frame, &f->chain, e);
    if (rc < 0 || (rc = wait_for_room(f, &c, e)) < 0)
        return rc;
    rc = frame->compressed ? unzip(f, frame, c->data, e) : receive(f, c->data, frame->bytes, e);
    if (rc < 0)
        return rc;
    c->n = frame->bytes;
    c->before = f->chain;
    chain_add(&f->chain, c->data, c->n);
    c->after = f->chain;
    queue_push(f->queue);
    f->result.bytes += frame->bytes;
    f->chunk_ms = clock_boot_ms();
    tell_progress(f, false);
    return 0;
}

static int receive_end(struct fetching *f, const struct frame *frame, struct error *e)
{
    uint8_t digest[CHAIN_DIGEST];
    bool has_it = f->answer.seq == f->answer.base;
    const uint8_t *ours = has_it ? f->request.base_digest : f->chain.digest;
    int rc = frame_check_place(frame, &f->chain, e);
    if (rc < 0 || (rc = receive(f, digest, sizeof digest, e)) < 0)
        return rc;
    if (memcmp(digest, ours, sizeof digest) != 0)
        return fail(e, E_CORRUPT, "snapshot %llu of volume %s did not arrive as it was sent: the digests differ",
                    (unsigned long long)f->answer.seq, UUID_TEXT(&f->target->volume->id));
    return 1;
}

static int receive_error(struct fetching *f, const struct frame *frame, struct error *e)
{
    char text[TRANSFER_LINE_MAX];
    int rc = receive(f, text, frame->bytes, e);
    if (rc < 0)
        return rc;
    rc = frame_read_error(text, frame->bytes, e);
    return connection_failed(f, rc);
}

// The source doesn't have the stream that our part is of: the part is worth nothing.
static int receive_again(struct fetching *f, struct error *e)
{
    if (f->answer.offset == 0 || ++f->strange > AGAINS_MAX)
        return fail(e, E_CORRUPT, "the source sends another stream for snapshot %llu each time", (unsigned long long)f->answer.seq);
    f->may_retry = f->is_again = true;
    return fail(e, E_UNAVAILABLE, "the source has another stream for snapshot %llu by now", (unsigned long long)f->answer.seq);
}

static int receive_alive(struct fetching *f, struct error *e)
{
    if (clock_boot_ms() - f->chunk_ms > f->times->silent_ms) {
        f->may_retry = true;
        return fail(e, E_TIMEOUT, "the source has only said that it is alive for %d s", f->times->silent_ms / 1000);
    }
    return f->queue ? queue_error(f->queue, e) : 0; // of the other thread, which nothing else would tell
}

// One frame; 1 after the end.
static int receive_frame(struct fetching *f, struct error *e)
{
    uint8_t header[FRAME_HEADER];
    struct frame frame;
    int rc = receive(f, header, sizeof header, e);
    if (rc < 0 || (rc = frame_read(header, &frame, e)) < 0)
        return rc;
    f->result.wire_bytes += FRAME_HEADER + frame.wire_bytes;
    switch (frame.kind) {
    case FRAME_DATA:
        return receive_chunk(f, &frame, e);
    case FRAME_END:
        return receive_end(f, &frame, e);
    case FRAME_AGAIN:
        return receive_again(f, e);
    case FRAME_ERROR:
        return receive_error(f, &frame, e);
    case FRAME_ALIVE:
        return receive_alive(f, e);
    }
    ASSERT(false); // frame_read lets no other pass
}

// ---- one connection

static int open_stream(struct fetching *f, struct error *e)
{
    const struct transfer_target *t = f->target;
    const struct tls_stream_config config = {
        .tls = t->tls, .peer_name = t->peer_name, .handshake_ms = f->times->handshake_ms, .stall_ms = f->times->stall_ms
    };
    int fd = tls_stream_connect(t->host, t->port, f->times->connect_ms, e);
    int rc = fd < 0 ? fd : tls_stream_open(fd, &config, &f->stream, e);
    if (rc >= 0)
        f->result.connections++;
    return rc < 0 ? connection_failed(f, rc) : 0;
}

// What we have: of the receiver of a connection before, or of the checkpoint that was found.
static void make_request(struct fetching *f)
{
    const struct backend_copy *c = &f->copy;
    f->request = (struct transfer_request){ .volume = f->target->volume->id, .epoch = f->target->volume->epoch, .base = c->seq };
    memcpy(f->request.base_digest, c->digest, CHAIN_DIGEST);
    if (f->receiver && f->receiver_base == c->seq && f->applied.offset) {
        f->request.part_seq = f->receiver_seq;
        f->request.part = f->applied;
    } else if (!f->receiver && c->part_seq && c->part_base == c->seq && c->part_offset) {
        f->request.part_seq = c->part_seq;
        f->request.part.offset = c->part_offset;
        memcpy(f->request.part.digest, c->part_digest, CHAIN_DIGEST);
    }
}

// The answer comes after any number of empty lines, by which the source says that it is at work.
static int ask(struct fetching *f, struct error *e)
{
    char line[TRANSFER_LINE_MAX];
    bool is_refused = false;
    int64_t until = clock_boot_ms() + f->times->idle_ms;
    make_request(f);
    transfer_write_request(&f->request, line);
    size_t n = strlen(line);
    line[n] = '\n';
    int rc = tls_stream_write(f->stream, line, n + 1, f->times->stall_ms, e);
    FAILPOINT(TRANSFER_ASKED);
    do
        if (rc == 0)
            rc = tls_stream_read_line(f->stream, line, sizeof line, f->times->stall_ms, e);
    while (rc == 0 && line[0] == '\0' && clock_boot_ms() < until);
    if (rc == 0 && line[0] == '\0')
        rc = fail(e, E_TIMEOUT, "the source has not answered for %d s", f->times->idle_ms / 1000);
    if (rc < 0)
        return connection_failed(f, rc);
    rc = transfer_read_answer(line, &f->request, &f->answer, &is_refused, e);
    return is_refused ? connection_failed(f, rc) : rc;
}

// What the answer does not go on with is let go.
static void settle_start(struct fetching *f)
{
    const struct transfer_answer *a = &f->answer;
    bool goes_on = a->offset != 0;
    if (f->receiver && !(goes_on && a->seq == f->receiver_seq && a->base == f->receiver_base)) {
        f->target->backend->ops->receive_free(f->receiver);
        f->receiver = NULL;
    }
    f->applied = goes_on ? f->request.part : (struct chain){ 0 };
    f->chain = f->applied;
    f->chunk_ms = clock_boot_ms();
    if (f->best < f->applied.offset)
        f->best = f->applied.offset;
    f->meter = (struct pace_meter){ 0 };
    pace_meter_note(&f->meter, f->chain.offset, clock_boot_us());
}

static int receive_stream(struct fetching *f, struct error *e)
{
    pthread_t thread;
    AUTO(queue_free) struct queue *queue = queue_new();
    f->queue = queue;
    int err = pthread_create(&thread, NULL, applying_thread, f), rc;
    if (err)
        return fail_os(e, err, "start a thread to write volume %s", UUID_TEXT(&f->target->volume->id));
    while ((rc = receive_frame(f, e)) == 0)
        ;
    tls_stream_free(TAKE(f->stream, NULL)); // the source need not wait for our disk
    queue_end(queue);                   // what has come is applied
    err = pthread_join(thread, NULL);
    ASSERT(err == 0);
    struct error ours;
    f->queue = NULL;
    if (queue_error(queue, &ours) < 0) {
        *e = ours;
        f->may_retry = false;
        return -(int)ours.code;
    }
    return rc;
}

// All of it is here, and right.
static int finish(struct fetching *f, struct error *e)
{
    const struct transfer_answer *a = &f->answer;
    f->result.seq = a->seq;
    f->result.final = a->final;
    f->result.is_current = a->seq == a->base;
    memcpy(f->result.digest, f->result.is_current ? f->request.base_digest : f->chain.digest, CHAIN_DIGEST);
    tell_progress(f, true);
    FAILPOINT(TRANSFER_CHECKED);
    return f->result.is_current ? 0 : f->target->backend->ops->receive_finish(f->receiver, f->chain.digest, a->final, e);
}

// Nothing but the end, if the copy is current: then nothing is begun.
static int receive_current(struct fetching *f, struct error *e)
{
    struct frame frame = { .kind = FRAME_ALIVE };
    uint8_t header[FRAME_HEADER];
    int rc = 0;
    while (rc == 0 && frame.kind == FRAME_ALIVE) {
        rc = receive(f, header, sizeof header, e);
        if (rc == 0)
            rc = frame_read(header, &frame, e);
        if (rc == 0 && frame.kind == FRAME_ALIVE)
            rc = receive_alive(f, e);
    }
    if (rc < 0)
        return rc;
    if (frame.kind == FRAME_ERROR)
        return receive_error(f, &frame, e);
    return frame.kind == FRAME_END ? receive_end(f, &frame, e) : fail(e, E_CORRUPT, "the source sends what it said is here");
}

static int attempt(struct fetching *f, struct error *e)
{
    f->may_retry = f->is_again = false;
    int rc = open_stream(f, e);
    if (rc == 0)
        rc = ask(f, e);
    if (rc == 0) {
        settle_start(f);
        rc = f->answer.seq == f->answer.base ? receive_current(f, e) : receive_stream(f, e);
    }
    tls_stream_free(TAKE(f->stream, NULL));
    return rc > 0 ? finish(f, e) : rc;
}

// ---- all connections

static void on_copy(void *arg, const struct backend_copy *copy)
{
    struct fetching *f = arg;
    if (uuid_equal(&copy->id, &f->target->volume->id))
        f->copy = *copy;
}

static void forget_part(struct fetching *f)
{
    if (f->receiver)
        f->target->backend->ops->receive_free(f->receiver);
    f->receiver = NULL;
    f->copy.part_seq = 0;
}

static void sleep_ms(int ms)
{
    struct timespec left = { ms / 1000, ms % 1000 * 1000000L };
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

// Attempts until one has brought it, or as many as are allowed have brought nothing.
static int attempts(struct fetching *f, struct error *e)
{
    int tries = 0, wait_ms = f->times->retry_ms;
    for (;;) {
        int rc = attempt(f, e);
        if (rc == 0 || !f->may_retry)
            return rc;
        bool has_moved = f->applied.offset > f->best;
        if (has_moved)
            f->best = f->applied.offset;
        if (f->is_again)
            forget_part(f);
        tries = has_moved ? 1 : tries + 1;
        wait_ms = has_moved ? f->times->retry_ms : wait_ms;
        if (tries >= f->times->tries)
            return fail_ctx(e, rc, "gave up after %d attempts", tries);
        sleep_ms(wait_ms);
        wait_ms = wait_ms * 2 < f->times->retry_most_ms ? wait_ms * 2 : f->times->retry_most_ms;
    }
}

// A part that is kept is at a checkpoint, so that another process can go on with it. After an error of the disk there is no use in trying.
static void keep_part(struct fetching *f)
{
    struct error ignored;
    const struct backend_ops *ops = f->target->backend->ops;
    if (f->may_retry && f->receiver && f->applied.offset > f->checkpoint)
        (void)ops->receive_checkpoint(f->receiver, f->applied.offset, f->applied.digest, &ignored);
}

int transfer_fetch(const struct transfer_target *target, struct transfer_result *ret, struct error *e)
{
    struct backend *b = target->backend;
    struct fetching f = { .target = target, .times = target->times ? target->times : &transfer_times };
    if (!b->ops->copies || !b->ops->receive_begin)
        return fail(e, E_UNSUPPORTED, "volumes can't be moved into a pool of kind %s", b->ops->name);
    int rc = b->ops->copies(b, on_copy, &f, e);
    if (rc == 0)
        rc = attempts(&f, e);
    if (rc < 0)
        keep_part(&f);
    if (f.receiver)
        b->ops->receive_free(f.receiver);
    ZSTD_freeDCtx(f.zstd);
    free(f.zipped);
    if (rc == 0)
        *ret = f.result;
    return rc < 0 ? fail_ctx(e, rc, "fetch volume %s from %s", UUID_TEXT(&target->volume->id), target->peer_name) : 0;
}
