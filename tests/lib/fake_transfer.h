// A backend in memory with streams of any bytes, for tests of transfers: as a source it has numbered snapshots whose streams are made from
// their numbers, as a target it keeps what it is fed and knows whether it was right. It can fail, and take its time, where it is told to.
#ifndef FLOCKER_TESTS_FAKE_TRANSFER_H
#define FLOCKER_TESTS_FAKE_TRANSFER_H

#include "backend/backend.h"
#include "base/limits.h"
#include "base/mem.h"

#include <string.h>
#include <time.h>

#define FAKE_SNAPSHOTS 16

struct fake {
    struct backend base;
    // source
    uint64_t newest, below; // snapshots from `below` on are there
    bool has_digest[FAKE_SNAPSHOTS];
    uint8_t digests[FAKE_SNAPSHOTS][32];
    size_t size;           // of each stream
    bool is_random;        // else it shrinks well
    unsigned version;      // another one: other bytes
    size_t fails_at;       // the stream ends with an error there; 0: it doesn't
    int pause_ms;          // before the first byte of a stream
    int snapshot_ms;       // to make a snapshot
    bool lies;             // about digests
    // target
    struct backend_copy copy;
    uint8_t *part;         // of the checkpoint
    size_t full_at;        // E_NO_SPACE there; 0: never
    int feed_ms;           // that the first feed takes
    unsigned n_checkpoints, n_begun, n_finished;
    size_t part_fed;       // bytes, in all
};

struct receiver {
    struct fake *fake;
    uint64_t base, seq;
    uint8_t *data;
    size_t n;
};

static inline void fake_sleep(int ms)
{
    if (ms)
        nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000L }, NULL);
}

// Byte `at` of the stream from base to seq.
static inline uint8_t fake_byte(const struct fake *f, uint64_t base, uint64_t seq, size_t at)
{
    uint64_t x = (at / 8 + 1) * 0x9e3779b97f4a7c15ULL + base * 77777 + seq * 1234567 + f->version * 99991ULL;
    if (!f->is_random)
        return (uint8_t)(at / 512 + base + 3 * seq + f->version);
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9ULL, x ^= x >> 27, x *= 0x94d049bb133111ebULL, x ^= x >> 31;
    return (uint8_t)(x >> at % 8 * 8);
}

static inline int fake_snapshot(struct backend *b, const struct uuid *id, uint64_t seq, struct error *e)
{
    (void)id, (void)e;
    struct fake *f = (struct fake *)b;
    ASSERT(seq < FAKE_SNAPSHOTS);
    fake_sleep(f->snapshot_ms);
    f->newest = seq > f->newest ? seq : f->newest;
    return 0;
}

static inline int fake_snapshots(struct backend *b, const struct uuid *id, uint64_t *ret, struct error *e)
{
    (void)id, (void)e;
    *ret = ((struct fake *)b)->newest;
    return 0;
}

static inline int fake_drop(struct backend *b, const struct uuid *id, uint64_t below, struct error *e)
{
    (void)id, (void)e;
    struct fake *f = (struct fake *)b;
    for (uint64_t seq = 0; seq < below && seq < FAKE_SNAPSHOTS; seq++)
        f->has_digest[seq] = false;
    f->below = below > f->below ? below : f->below;
    return 0;
}

static inline int fake_note(struct backend *b, const struct uuid *id, uint64_t seq, const uint8_t digest[32], struct error *e)
{
    (void)id, (void)e;
    struct fake *f = (struct fake *)b;
    memcpy(f->digests[seq], digest, 32);
    f->has_digest[seq] = true;
    return 0;
}

static inline int fake_read(struct backend *b, const struct uuid *id, uint64_t seq, uint8_t ret[32], struct error *e)
{
    (void)id;
    struct fake *f = (struct fake *)b;
    if (seq >= FAKE_SNAPSHOTS || !f->has_digest[seq])
        return fail(e, E_NOT_FOUND, "there is no digest of snapshot %llu", (unsigned long long)seq);
    memcpy(ret, f->digests[seq], 32);
    ret[0] ^= f->lies;
    return 0;
}

static inline int fake_send(struct backend *b, const struct uuid *id, uint64_t base, uint64_t seq,
                            int (*sink)(void *arg, const void *data, size_t n), void *arg, struct error *e)
{
    (void)id;
    struct fake *f = (struct fake *)b;
    uint8_t piece[65537]; // cuts the stream where no chunk ends
    if ((base && base < f->below) || seq < f->below || seq > f->newest)
        return fail(e, E_NOT_FOUND, "there is no snapshot %llu or %llu", (unsigned long long)base, (unsigned long long)seq);
    fake_sleep(f->pause_ms);
    for (size_t at = 0; at < f->size;) {
        size_t n = f->size - at < sizeof piece ? f->size - at : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = fake_byte(f, base, seq, at + i);
        if (f->fails_at && at + n > f->fails_at)
            return fail(e, E_IO, "injected: the disk is broken\n");
        if (sink(arg, piece, n) < 0)
            return fail(e, E_IO, "the reader of the stream has gone");
        at += n;
    }
    return 0;
}

static inline int fake_copies(struct backend *b, void (*on_copy)(void *arg, const struct backend_copy *copy), void *arg, struct error *e)
{
    (void)e;
    struct fake *f = (struct fake *)b;
    on_copy(arg, &(struct backend_copy){ .id = { { 9 } }, .seq = 3 });
    if (f->copy.seq || f->copy.part_seq)
        on_copy(arg, &f->copy);
    return 0;
}

static inline int fake_begin(struct backend *b, const struct volume *v, uint64_t base, uint64_t seq, uint64_t offset, struct receiver **ret,
                             struct error *e)
{
    struct fake *f = (struct fake *)b;
    if (base && base != f->copy.seq)
        return fail(e, E_CONFLICT, "the copy isn't snapshot %llu", (unsigned long long)base);
    if (offset && (seq != f->copy.part_seq || base != f->copy.part_base || offset != f->copy.part_offset))
        return fail(e, E_CONFLICT, "there is no checkpoint at byte %llu", (unsigned long long)offset);
    f->n_begun++;
    f->copy.id = v->id;
    struct receiver *r = xcalloc(1, sizeof *r);
    *r = (struct receiver){ f, base, seq, xcalloc(1, offset + 1), offset };
    if (offset)
        memcpy(r->data, f->part, offset);
    *ret = r;
    return 0;
}

static inline int fake_feed(struct receiver *r, const void *data, size_t n, struct error *e)
{
    if (r->n == 0)
        fake_sleep(r->fake->feed_ms);
    if (r->fake->full_at && r->n + n > r->fake->full_at)
        return fail(e, E_NO_SPACE, "injected: the pool is full");
    r->data = xrealloc(r->data, r->n + n, 1);
    memcpy(r->data + r->n, data, n);
    r->n += n;
    r->fake->part_fed += n;
    return 0;
}

static inline int fake_checkpoint(struct receiver *r, uint64_t offset, const uint8_t digest[32], struct error *e)
{
    (void)e;
    struct fake *f = r->fake;
    ASSERT(offset == r->n);
    f->n_checkpoints++;
    f->copy.part_seq = r->seq;
    f->copy.part_base = r->base;
    f->copy.part_offset = offset;
    memcpy(f->copy.part_digest, digest, 32);
    free(f->part);
    f->part = xcalloc(1, r->n + 1);
    memcpy(f->part, r->data, r->n);
    return 0;
}

static inline int fake_finish(struct receiver *r, const uint8_t digest[32], bool final, struct error *e)
{
    (void)e;
    struct fake *f = r->fake;
    f->n_finished++;
    f->copy = (struct backend_copy){ .id = f->copy.id, .seq = r->seq, .final = final };
    memcpy(f->copy.digest, digest, 32);
    free(f->part);
    f->part = r->data; // to be looked at
    r->data = NULL;
    return 0;
}

static inline void fake_receiver_free(struct receiver *r)
{
    free(r->data);
    free(r);
}

static const struct backend_ops fake_ops = {
    .name = "fake",
    .snapshot = fake_snapshot,
    .snapshots = fake_snapshots,
    .snapshots_drop = fake_drop,
    .note_digest = fake_note,
    .read_digest = fake_read,
    .send = fake_send,
    .copies = fake_copies,
    .receive_begin = fake_begin,
    .receive_feed = fake_feed,
    .receive_checkpoint = fake_checkpoint,
    .receive_finish = fake_finish,
    .receive_free = fake_receiver_free,
};

#endif
