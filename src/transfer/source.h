// The source's end of a transfer: serves one connection.
#ifndef FLOCKER_TRANSFER_SOURCE_H
#define FLOCKER_TRANSFER_SOURCE_H

#include "backend/backend.h"
#include "transfer/frame.h"
#include "transfer/transfer.h"

struct ssl_ctx_st;

// What a peer that asked may have.
struct transfer_grant {
    uint64_t final_seq; // the volume is sealed, and this is its last snapshot. 0: it is in use, or may be: a new one is made if the target
                        // has the newest
    uint64_t first_seq; // a new snapshot gets at least this number: none is ever used twice
    uint64_t rate;      // bytes per second on the wire; 0: no limit
};

struct transfer_source {
    struct backend *backend; // borrowed, as everything here; used in another thread, but in one at a time
    struct ssl_ctx_st *tls;  // of pki_server_context
    // Whether `peer` (common name of its certificate) may have this volume at this epoch. E_UNAVAILABLE: perhaps soon, it asks again.
    int (*permit)(void *arg, const char *peer, const struct transfer_request *r, struct transfer_grant *ret, struct error *e);
    transfer_on_progress *progress; // NULL: nobody wants to know
    void *arg;                      // of both
    const struct transfer_times *times;
};

// What was sent, for logs and measurements.
struct transfer_sent {
    struct transfer_request request; // zero: none came that could be understood
    struct transfer_answer answer;
    uint64_t bytes, wire_bytes; // of the stream on this connection; and with headers, as it went out
};

// Takes the connected socket; serves one request and returns. 0: the stream was sent to its end, its digest noted before that. An error of
// ours has been told to the peer as far as that could be. Snapshots that the target needs no more are removed.
int transfer_serve(int fd, const struct transfer_source *source, struct transfer_sent *ret, struct error *e);

#endif
