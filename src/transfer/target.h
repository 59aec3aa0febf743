// The target's end of a transfer: fetches the next snapshot of a volume from its source.
#ifndef FLOCKER_TRANSFER_TARGET_H
#define FLOCKER_TRANSFER_TARGET_H

#include "backend/backend.h"
#include "transfer/frame.h"
#include "transfer/transfer.h"

#define TRANSFER_CHECK (16 * TRANSFER_CHUNK)

struct ssl_ctx_st;

// What a target has taken of a stream.
struct transfer_amount {
    uint64_t applied;   // bytes from its start
    uint64_t unsettled; // the last ones of these, since the checkpoint: the pool may not count them as used yet
    uint64_t left;      // before the first of this fetch: about as many are to come; 0: unknown, or on the way
};

struct transfer_target {
    struct backend *backend;     // borrowed, as everything here; used in another thread, but in one at a time
    const struct volume *volume; // the record: id, epoch, options are what counts
    const char *host;            // of the source's agent: a name or numeric address
    uint16_t port;
    const char *peer_name;  // "node-<uuid>" of the source: its certificate must say so
    struct ssl_ctx_st *tls; // of pki_client_context
    transfer_on_progress *progress; // NULL: nobody wants to know
    // Whether more may come: asked from the thread that uses the backend, before the first byte and each TRANSFER_CHECK bytes. An error ends the
    // fetch; but E_NO_SPACE first has a checkpoint made, and is asked again. NULL: any number may.
    int (*may_take)(void *arg, const struct transfer_amount *a, struct error *e);
    void *arg; // of both
    const struct transfer_times *times;
};

struct transfer_result {
    uint64_t seq; // what the copy is now
    uint8_t digest[CHAIN_DIGEST];
    bool final;
    bool is_current;            // it was so before: nothing was sent. Whether it is final the backend then doesn't know
    uint64_t bytes, wire_bytes; // of the stream that came, with repetitions; of frames
    unsigned connections;
};

// Fetches one snapshot: what is missing of the one that the source names, up to the end. Goes on from where an earlier attempt, of this
// or another process, has got to; a connection that breaks is made again; it ends when several attempts in a row have brought nothing.
// On failure the copy stays at its last checkpoint; the next call goes on from there, if the source finds that to be of its stream. The copy
// is only ever taken for whole if its digest is that of the source: else E_CORRUPT.
int transfer_fetch(const struct transfer_target *target, struct transfer_result *ret, struct error *e);

#endif
