// A TLS stream with blocking calls and deadlines: how workers of two agents talk. One thread at a time.
//
// TLS 1.3 only, AES-128-GCM first where the CPU has AES. A stream on which no byte moves for the stall limit, in either direction, is
// broken. Errors: E_UNAVAILABLE, E_TIMEOUT: the connection, or the other end, is broken: a new one may do; E_DENIED: a certificate was
// refused, by us or by the other end: no use in trying again.
#ifndef FLOCKER_NET_TLS_STREAM_H
#define FLOCKER_NET_TLS_STREAM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st;
struct tls_stream;

// Connects to a name or numeric address; looking a name up has no limit but the resolver's. Returns the descriptor.
int tls_stream_connect(const char *host, uint16_t port, int timeout_ms, struct error *e);

struct tls_stream_config {
    struct ssl_ctx_st *tls; // borrowed; pki_server_context accepts, pki_client_context connects
    const char *peer_name;  // common name that the other end must have; NULL: any that the CA has signed
    int handshake_ms;       // limit for the handshake
    int stall_ms;
};

// Makes the handshake on a connected socket, which the stream owns from here on, also on failure.
int tls_stream_open(int fd, const struct tls_stream_config *config, struct tls_stream **ret, struct error *e);
void tls_stream_free(struct tls_stream *s); // without a farewell. NULL is fine

// Common name of the other end's certificate.
const char *tls_stream_peer_name(const struct tls_stream *s);

// Reads exactly n bytes, all of them within `timeout_ms`.
int tls_stream_read(struct tls_stream *s, void *ret, size_t n, int timeout_ms, struct error *e);
// Reads up to a line feed, which is replaced by a NUL, and not a byte more. E_TOO_LARGE for one that does not fit into `size` bytes.
int tls_stream_read_line(struct tls_stream *s, char *ret, size_t size, int timeout_ms, struct error *e);
// Writes all of it.
int tls_stream_write(struct tls_stream *s, const void *data, size_t n, int timeout_ms, struct error *e);
// From here on the other end only shows that it is alive: what it sends is thrown away while we write or rest.
void tls_stream_ignore_input(struct tls_stream *s);
// Waits that long, unless the connection breaks meanwhile. Needs tls_stream_ignore_input.
int tls_stream_rest(struct tls_stream *s, int ms, struct error *e);
// Says farewell and waits for the other end to close, so that what was sent isn't lost with the connection: up to `timeout_ms`, as long as
// the other end shows that it is alive.
void tls_stream_finish(struct tls_stream *s, int timeout_ms);

#endif
