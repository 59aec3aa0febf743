// What two agents say to each other on port 4525 (docs/protocol.md), as pure functions: no socket, no clock.
//
// The target, which connects, sends one line: a request for a snapshot of a volume. The source answers with one line, then with frames.
// A frame has a header of FRAME_HEADER bytes and up to one chunk of payload. The stream of a snapshot is cut into chunks of TRANSFER_CHUNK
// bytes, of which only the last may be shorter; each travels in a frame of its own, which says its place.
#ifndef FLOCKER_TRANSFER_FRAME_H
#define FLOCKER_TRANSFER_FRAME_H

#include "base/error.h"
#include "base/limits.h"
#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- the chain of digests

#define CHAIN_DIGEST 32

// How far a stream has come: D = SHA-256(D of all chunks before || XXH3-128(chunk)), from 32 zero bytes on. It can be kept at the end of
// each chunk and gone on with, also by another process. {0}: the beginning.
//
// It finds what bugs, memory and disks spoil, and streams that are not the same. Against attackers it need not stand: TLS does, between
// ends that both have certificates. So the chunks are hashed by XXH3 (seed 0, in the canonical form, highest byte first; xxHash 0.8), in a
// tenth of SHA-256's time.
struct chain {
    uint64_t offset;
    uint8_t digest[CHAIN_DIGEST];
};

// Adds the next chunk: of 1 to TRANSFER_CHUNK bytes. After one that is shorter there is no other.
void chain_add(struct chain *c, const void *data, size_t n);
bool chain_equal(const struct chain *a, const struct chain *b);

// ---- lines. Both are written without the line feed and NUL-terminated, into TRANSFER_LINE_MAX bytes

#define TRANSFER_PROTOCOL 1

struct transfer_request {
    struct uuid volume;
    uint64_t epoch;
    uint64_t base; // the newest snapshot that the target has whole; 0: none
    uint8_t base_digest[CHAIN_DIGEST];
    uint64_t part_seq; // the snapshot of which it has a part, sent against `base`; 0: none
    struct chain part; // how much of it: whole chunks, at least one; or all of it, but for the end
};

struct transfer_answer {
    uint64_t seq;    // the snapshot that follows
    uint64_t base;   // what the stream starts from: the request's base, or 0. Equal to seq: the target has it, only its digest follows
    uint64_t offset; // where the stream goes on: the request's part, or 0
    uint64_t estimate; // bytes of the whole stream; 0: unknown
    bool final;      // no snapshot comes after this one
};

void transfer_write_request(const struct transfer_request *r, char ret[TRANSFER_LINE_MAX]);
int transfer_read_request(const char *line, struct transfer_request *ret, struct error *e);
void transfer_write_answer(const struct transfer_answer *a, char ret[TRANSFER_LINE_MAX]);
void transfer_write_refusal(const struct error *why, char ret[TRANSFER_LINE_MAX]);
// Checks the answer against the request. A refusal is the error that it tells, and *ret_refused is true: the source has said so itself.
int transfer_read_answer(const char *line, const struct transfer_request *asked, struct transfer_answer *ret, bool *ret_refused,
                         struct error *e);

// ---- frames

#define FRAME_TABLE(X) \
    X(FRAME_DATA,  1) /* a chunk */ \
    X(FRAME_END,   2) /* the stream is whole: its length, and the digest of its chain as payload */ \
    X(FRAME_AGAIN, 3) /* what the target has of it is not of this stream: ask again, without it */ \
    X(FRAME_ERROR, 4) /* it can't go on; the payload is a refusal as a line has it */ \
    X(FRAME_ALIVE, 5) /* nothing for the moment */

enum frame_kind {
#define X(kind, number) kind = (number),
    FRAME_TABLE(X)
#undef X
};

struct frame {
    enum frame_kind kind;
    bool compressed;     // FRAME_DATA: the payload is a zstd frame
    uint32_t wire_bytes; // of the payload
    uint32_t bytes;      // of the chunk; else that of the payload
    uint64_t offset;     // FRAME_DATA: where in the stream it stands. FRAME_END: the length of the stream. Else 0
};

#define FRAME_HEADER 20

void frame_write(const struct frame *f, uint8_t ret[FRAME_HEADER]);
// Checks all that can be known without the stream: E_CORRUPT. Payloads have at most TRANSFER_CHUNK bytes.
int frame_read(const uint8_t header[FRAME_HEADER], struct frame *ret, struct error *e);
// Whether a FRAME_DATA or FRAME_END is what has to come after `c`: E_CORRUPT if not.
int frame_check_place(const struct frame *f, const struct chain *c, struct error *e);
// What a FRAME_ERROR says; never 0.
int frame_read_error(const char *payload, size_t n, struct error *e);

#endif
