// A blocking connection with one deadline for all that is done with it, plain or TLS: for short-lived programs and workers, never for an
// event loop. Only looking up a host name can take longer than the deadline; addresses need no look-up.
//
// OpenSSL writes without MSG_NOSIGNAL: the caller has SIGPIPE ignored or blocked.
#ifndef FLOCKER_NET_STREAM_H
#define FLOCKER_NET_STREAM_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

struct ssl_st;
struct ssl_ctx_st;

struct stream {
    int fd; // non-blocking; -1: none
    struct ssl_st *ssl;
    int64_t deadline_ms; // boot clock
    const char *name;    // for messages; borrowed
};

// `s` has name and deadline, and fd -1; stream_close follows in any case. E_UNAVAILABLE: nobody listens; E_TIMEOUT; E_DENIED: one side
// refuses the other's certificate; E_IO: the connection broke.
int stream_connect(struct stream *s, const char *host, uint16_t port, struct error *e);
int stream_connect_unix(struct stream *s, const char *path, int timeout_ms, struct error *e);
// The certificate of the server must hold `name`, a DNS name or an address; NULL: what the context says is enough (pki_expect_name).
int stream_start_tls(struct stream *s, struct ssl_ctx_st *tls, const char *name, struct error *e);
int stream_write(const struct stream *s, const char *data, size_t n, struct error *e); // all of it
ssize_t stream_read(const struct stream *s, char *ret, size_t n, struct error *e);     // some of it; 0 at the end
void stream_close(struct stream *s);

#endif
