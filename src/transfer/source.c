#include "transfer/source.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"
#include "net/tls_stream.h"
#include "transfer/pace.h"
#include "transfer/queue.h"

#include <pthread.h>
#include <string.h>
#include <zstd.h>

#define ZSTD_LEVEL    1
#define PROGRESS_US   500000
#define REST_MS_MAX   1000 // while the limit of the rate makes us wait, the other end is shown so often that we are alive, at least

// One thread reads the stream from the backend and digests it; the other, which called, compresses and sends.
struct serving {
    const struct transfer_source *source;
    const struct transfer_times *times;
    struct transfer_request request;
    struct transfer_grant grant;
    struct queue *queue;
    // Of the reading thread, until the queue has ended or is closed:
    struct transfer_answer answer; // readable by the other one since the first chunk, which is empty
    struct chain chain;
    struct chunk *chunk;     // that is being filled; NULL: none
    bool is_strange;         // what the target has is not of this stream
    bool is_nothing;         // nothing was produced
    // Of the sending thread:
    struct tls_stream *stream;
    struct pace_limit limit;
    struct pace_zip zip;
    struct pace_meter meter;
    ZSTD_CCtx *zstd; // made when it is needed first
    void *zipped;
    int64_t told_us;
    bool in_frames; // the answer is out
    bool is_broken; // the connection
    struct transfer_sent *sent;
};

// ---- the reading thread: which snapshot

static bool has_base(struct serving *s)
{
    const struct transfer_request *r = &s->request;
    uint8_t digest[CHAIN_DIGEST];
    struct error ignored;
    return r->base && s->source->backend->ops->read_digest(s->source->backend, &r->volume, r->base, digest, &ignored) == 0 &&
           memcmp(digest, r->base_digest, CHAIN_DIGEST) == 0;
}

// The snapshot to send; it is made if need be. A part that the target has is worth more than the newest snapshot: that follows.
static int choose(struct serving *s, struct error *e)
{
    struct backend *b = s->source->backend;
    const struct transfer_request *r = &s->request;
    struct transfer_answer *a = &s->answer;
    struct backend_usage usage;
    struct error ignored;
    uint64_t newest = 0;
    int rc = b->ops->snapshots(b, &r->volume, &newest, e);
    if (rc < 0)
        return rc;
    a->base = has_base(s) ? r->base : 0;
    if (r->part_seq && r->part_seq <= newest && a->base == r->base) {
        a->seq = r->part_seq;
        a->offset = r->part.offset;
    } else if (s->grant.final_seq) {
        a->seq = s->grant.final_seq;
    } else if (newest > a->base) {
        a->seq = newest;
    } else {
        a->seq = newest < s->grant.first_seq ? s->grant.first_seq : newest + 1;
        rc = b->ops->snapshot(b, &r->volume, a->seq, e);
    }
    if (rc == 0 && a->seq < a->base)
        rc = fail(e, E_CONFLICT, "the target has snapshot %llu, which is newer than the last one here, %llu", (unsigned long long)a->base,
                  (unsigned long long)a->seq);
    if (rc == 0) // one that can't go now, because a connection that broke still reads it, goes the next time
        (void)b->ops->snapshots_drop(b, &r->volume, a->base ? a->base : a->seq, &ignored);
    a->final = a->seq == s->grant.final_seq;
    if (a->base == 0 && b->ops->usage && b->ops->usage(b, &r->volume, &usage, &ignored) == 0)
        a->estimate = usage.used_bytes;
    return rc;
}

// ---- the reading thread: the stream

// A chunk is complete. Those before the offset at which the target goes on are only digested.
static int chunk_done(struct serving *s)
{
    struct chunk *c = s->chunk;
    c->before = s->chain;
    chain_add(&s->chain, c->data, c->n);
    c->after = s->chain;
    if (c->before.offset < s->answer.offset) {
        c->n = 0;
        s->is_strange = s->chain.offset > s->answer.offset || // within a chunk
                        (s->chain.offset == s->answer.offset && !chain_equal(&s->chain, &s->request.part));
        queue_sign(s->queue);
        return s->is_strange ? -E_CONFLICT : 0;
    }
    queue_push(s->queue);
    s->chunk = NULL;
    return 0;
}

static int take_room(struct serving *s)
{
    if (s->chunk)
        return 0;
    if (queue_room(s->queue, -1, &s->chunk) != QUEUE_READY)
        return -E_UNAVAILABLE;
    s->chunk->n = 0;
    return 0;
}

static int on_stream(void *arg, const void *data, size_t n)
{
    struct serving *s = arg;
    const uint8_t *p = data;
    s->is_nothing = false;
    while (n) {
        int rc = take_room(s);
        if (rc < 0)
            return rc;
        size_t fits = TRANSFER_CHUNK - s->chunk->n, some = n < fits ? n : fits;
        memcpy(s->chunk->data + s->chunk->n, p, some);
        s->chunk->n += some;
        p += some;
        n -= some;
        if (s->chunk->n == TRANSFER_CHUNK && (rc = chunk_done(s)) < 0)
            return rc;
    }
    return 0;
}

static int produce(struct serving *s, struct error *e)
{
    struct backend *b = s->source->backend;
    const struct transfer_answer *a = &s->answer;
    s->is_nothing = true;
    int rc = a->seq == a->base ? 0 : b->ops->send(b, &s->request.volume, a->base, a->seq, on_stream, s, e);
    if (rc == 0 && s->chunk && s->chunk->n)
        rc = chunk_done(s);
    // The snapshot of the part isn't there any more, or its stream has become shorter.
    if (a->offset && ((rc == -E_NOT_FOUND && s->is_nothing) || (rc == 0 && s->chain.offset < a->offset)))
        s->is_strange = true;
    if (rc == 0 && a->seq != a->base && !s->is_strange)
        rc = b->ops->note_digest(b, &s->request.volume, a->seq, s->chain.digest, e);
    return rc;
}

static void *reading_thread(void *arg)
{
    struct serving *s = arg;
    struct error e = ERROR_INIT;
    FAILPOINT(TRANSFER_GRANTED);
    int rc = choose(s, &e);
    FAILPOINT(TRANSFER_CHOSEN);
    if (rc == 0 && take_room(s) == 0) {
        queue_push(s->queue); // empty: the answer is known
        s->chunk = NULL;
        rc = produce(s, &e);
    }
    if (rc < 0 && !s->is_strange)
        queue_close(s->queue, &e);
    else
        queue_end(s->queue);
    return NULL;
}

// ---- the sending thread

static int send_frame(struct serving *s, const struct frame *f, const void *payload, struct error *e)
{
    uint8_t header[FRAME_HEADER];
    frame_write(f, header);
    int rc = tls_stream_write(s->stream, header, sizeof header, s->times->frame_ms, e);
    if (rc == 0 && f->wire_bytes)
        rc = tls_stream_write(s->stream, payload, f->wire_bytes, s->times->frame_ms, e);
    s->sent->wire_bytes += FRAME_HEADER + f->wire_bytes;
    s->is_broken = rc < 0;
    return rc;
}

static int send_line(struct serving *s, char line[TRANSFER_LINE_MAX], struct error *e)
{
    size_t n = strlen(line);
    line[n] = '\n'; // in place of the NUL
    int rc = tls_stream_write(s->stream, line, n + 1, s->times->stall_ms, e);
    s->is_broken = rc < 0;
    return rc;
}

static int send_alive(struct serving *s, struct error *e)
{
    const struct frame alive = { .kind = FRAME_ALIVE };
    return s->in_frames ? send_frame(s, &alive, NULL, e) : send_line(s, (char[TRANSFER_LINE_MAX]){ "" }, e);
}

// The next chunk. While there is none the target is told that we are alive; that ends when the backend does nothing for too long.
static int next_chunk(struct serving *s, struct chunk **ret, enum queue_state *ret_state, struct error *e)
{
    uint64_t signs = queue_signs(s->queue);
    int64_t since = clock_boot_ms();
    while ((*ret_state = queue_front(s->queue, s->times->alive_ms, ret)) == QUEUE_LATE) {
        int rc = send_alive(s, e);
        uint64_t now = queue_signs(s->queue);
        if (rc < 0)
            return rc;
        if (now != signs) {
            signs = now;
            since = clock_boot_ms();
        }
        if (clock_boot_ms() - since > s->times->idle_ms)
            return fail(e, E_TIMEOUT, "the pool has given nothing of volume %s for %d s", UUID_TEXT(&s->request.volume),
                        s->times->idle_ms / 1000);
    }
    if (*ret_state != QUEUE_CLOSED)
        return 0;
    int rc = queue_error(s->queue, e);
    return rc < 0 ? rc : fail(e, E_IO, "reading volume %s ended, and no reason is given", UUID_TEXT(&s->request.volume));
}

// Compresses into s->zipped; false if that saves nothing.
static bool zip(struct serving *s, const struct chunk *c, uint32_t *ret)
{
    if (!s->zstd) {
        s->zstd = ZSTD_createCCtx();
        s->zipped = xcalloc(1, TRANSFER_CHUNK);
        ASSERT(s->zstd);
    }
    size_t n = ZSTD_compressCCtx(s->zstd, s->zipped, c->n - 1, c->data, c->n, ZSTD_LEVEL); // an error if it doesn't fit
    if (ZSTD_isError(n))
        return false;
    *ret = (uint32_t)n;
    return true;
}

static int rest(struct serving *s, int64_t us, struct error *e)
{
    int rc = 0;
    for (int64_t ms = (us + 999) / 1000; rc == 0 && ms > 0; ms -= REST_MS_MAX) {
        rc = tls_stream_rest(s->stream, ms < REST_MS_MAX ? (int)ms : REST_MS_MAX, e);
        s->is_broken = rc < 0;
        if (rc == 0 && ms > REST_MS_MAX)
            rc = send_alive(s, e);
    }
    return rc;
}

static void tell_progress(struct serving *s, uint64_t bytes, int64_t now_us, bool is_last)
{
    pace_meter_note(&s->meter, bytes, now_us);
    if (!s->source->progress || (now_us - s->told_us < PROGRESS_US && !is_last))
        return;
    s->told_us = now_us;
    const struct transfer_progress p = {
        .seq = s->answer.seq,
        .base = s->answer.base,
        .bytes = bytes,
        .total = s->answer.estimate,
        .rate = (uint64_t)s->meter.rate,
        .left_s = pace_meter_left_s(&s->meter, s->answer.estimate),
    };
    s->source->progress(s->source->arg, &p);
}

static int send_chunk(struct serving *s, const struct chunk *c, struct error *e)
{
    struct frame f = { .kind = FRAME_DATA, .bytes = (uint32_t)c->n, .wire_bytes = (uint32_t)c->n, .offset = c->before.offset };
    f.compressed = pace_zip_wanted(&s->zip) && c->n > 1 && zip(s, c, &f.wire_bytes);
    int64_t before_us = clock_boot_us();
    int rc = send_frame(s, &f, f.compressed ? s->zipped : c->data, e);
    if (rc == 0)
        rc = rest(s, pace_limit_wait(&s->limit, FRAME_HEADER + f.wire_bytes, clock_boot_us()), e);
    if (rc < 0)
        return rc;
    int64_t now_us = clock_boot_us();
    pace_zip_sent(&s->zip, f.bytes, f.wire_bytes, now_us - before_us, now_us);
    s->sent->bytes += f.bytes;
    tell_progress(s, c->after.offset, now_us, false);
    return 0;
}

// After the last chunk. The digest has been noted; of a snapshot that the target has already, it is the noted one.
static int send_end(struct serving *s, struct error *e)
{
    struct backend *b = s->source->backend;
    uint8_t digest[CHAIN_DIGEST];
    if (s->is_strange) {
        const struct frame again = { .kind = FRAME_AGAIN };
        return send_frame(s, &again, NULL, e);
    }
    int rc = b->ops->read_digest(b, &s->request.volume, s->answer.seq, digest, e);
    if (rc < 0)
        return rc;
    FAILPOINT(TRANSFER_NOTED);
    const struct frame end = { .kind = FRAME_END, .bytes = CHAIN_DIGEST, .wire_bytes = CHAIN_DIGEST, .offset = s->chain.offset };
    rc = send_frame(s, &end, digest, e);
    if (rc == 0)
        tell_progress(s, s->chain.offset, clock_boot_us(), true);
    return rc;
}

static int send_all(struct serving *s, struct error *e)
{
    struct chunk *c = NULL;
    enum queue_state state;
    char line[TRANSFER_LINE_MAX];
    int rc = next_chunk(s, &c, &state, e);
    if (rc < 0)
        return rc;
    ASSERT(state == QUEUE_READY && c->n == 0);
    s->sent->answer = s->answer;
    queue_pop(s->queue);
    transfer_write_answer(&s->sent->answer, line);
    if ((rc = send_line(s, line, e)) < 0)
        return rc;
    s->in_frames = true;
    s->limit = (struct pace_limit){ .rate = s->grant.rate };
    pace_zip_begin(&s->zip, clock_boot_us());
    while ((rc = next_chunk(s, &c, &state, e)) == 0 && state == QUEUE_READY) {
        rc = send_chunk(s, c, e);
        if (rc < 0)
            return rc;
        queue_pop(s->queue);
        FAILPOINT(TRANSFER_SENT);
    }
    return rc == 0 ? send_end(s, e) : rc;
}

// Tells the target why, if the connection is in order.
static void refuse(struct serving *s, const struct error *why)
{
    if (s->is_broken)
        return;
    char line[TRANSFER_LINE_MAX];
    struct error ignored;
    transfer_write_refusal(why, line);
    struct frame f = { .kind = FRAME_ERROR, .bytes = (uint32_t)strlen(line), .wire_bytes = (uint32_t)strlen(line) };
    if (s->in_frames)
        (void)send_frame(s, &f, line, &ignored);
    else
        (void)send_line(s, line, &ignored);
    tls_stream_finish(s->stream, s->times->frame_ms);
}

static int serve_granted(struct serving *s, struct error *e)
{
    pthread_t thread;
    AUTO(queue_free) struct queue *queue = queue_new();
    s->queue = queue;
    int err = pthread_create(&thread, NULL, reading_thread, s);
    if (err)
        return fail_os(e, err, "start a thread to read volume %s", UUID_TEXT(&s->request.volume));
    int rc = send_all(s, e);
    if (rc < 0)
        refuse(s, e); // now: the other thread may take its time
    queue_close(queue, NULL);
    err = pthread_join(thread, NULL);
    ASSERT(err == 0);
    if (rc == 0)
        tls_stream_finish(s->stream, s->times->frame_ms);
    return rc;
}

static int read_request(struct serving *s, struct error *e)
{
    char line[TRANSFER_LINE_MAX];
    int rc = tls_stream_read_line(s->stream, line, sizeof line, s->times->request_ms, e);
    s->is_broken = rc == -E_UNAVAILABLE;
    if (rc < 0 || (rc = transfer_read_request(line, &s->request, e)) < 0)
        return rc;
    s->sent->request = s->request;
    tls_stream_ignore_input(s->stream);
    const struct backend_ops *ops = s->source->backend->ops;
    if (!ops->send || !ops->snapshot || !ops->snapshots || !ops->snapshots_drop || !ops->note_digest || !ops->read_digest)
        return fail(e, E_UNSUPPORTED, "volumes in a pool of kind %s can't be moved", ops->name);
    return s->source->permit(s->source->arg, tls_stream_peer_name(s->stream), &s->request, &s->grant, e);
}

int transfer_serve(int fd, const struct transfer_source *source, struct transfer_sent *ret, struct error *e)
{
    struct transfer_sent sent = { 0 };
    struct serving s = { .source = source, .times = source->times ? source->times : &transfer_times, .sent = &sent };
    const struct tls_stream_config config = { .tls = source->tls, .handshake_ms = s.times->handshake_ms, .stall_ms = s.times->stall_ms };
    int rc = tls_stream_open(fd, &config, &s.stream, e);
    if (rc == 0) {
        rc = read_request(&s, e);
        if (rc < 0)
            refuse(&s, e);
        else
            rc = serve_granted(&s, e);
    }
    ZSTD_freeCCtx(s.zstd);
    free(s.zipped);
    tls_stream_free(s.stream);
    *ret = sent;
    return rc;
}
