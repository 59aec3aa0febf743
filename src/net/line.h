// Messages of one line each over a stream socket, in both directions: the carrier of the agent protocol.
//
// A message is any text without a line feed; on the wire a line feed ends it. Both directions are limited (base/limits.h): a peer that
// sends a longer line, or that does not take what is sent to it, is closed, with a reason that says so. Whoever has much to send does
// not come to that: it keeps back what can wait while line_is_full, and goes on when on_drained is called. One thread.
#ifndef FLOCKER_NET_LINE_H
#define FLOCKER_NET_LINE_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct ssl_ctx_st;
struct line_peer;

struct line_callbacks {
    // A whole message of n bytes, without its line feed and NUL-terminated; valid until the callback returns, and writable.
    void (*on_line)(void *arg, char *line, size_t n);
    // The connection has ended; called at most once, never from within line_send, and nothing is called after it. `why` is for people.
    // The peer must still be freed (also allowed right here).
    void (*on_closed)(void *arg, const char *why);
    // TLS: the handshake is done, and line_common_name known. Called once, before any line. NULL: not wanted.
    void (*on_open)(void *arg);
    // The line was full, and isn't any more. From the loop, never from within line_send. NULL: not wanted.
    void (*on_drained)(void *arg);
};

// What line_keep_alive sends. A receiver takes it as any other message, and does nothing with it.
#define LINE_ALIVE "{\"type\":\"alive\"}"

// `fd` is connected and non-blocking, and owned by the peer from here on. With `tls` (borrowed) the TLS role is that of the context: one
// for a server accepts, one for a client connects. The context verifies the chain; a client that wants a certain name of the server sets
// it in the context's X509_VERIFY_PARAM beforehand. What is sent before the handshake is done waits for it; the handshake itself has no
// deadline here. Never fails (a TLS object that cannot be made is reported by on_closed).
struct line_peer *line_new(struct event_base *base, int fd, struct ssl_ctx_st *tls, const struct line_callbacks *callbacks, void *arg);
// Queues a message. More than LINE_BACKLOG_MAX unsent bytes close the peer. After the end of the connection it does nothing.
void line_send(struct line_peer *p, const char *text, size_t n);
// From here on a message LINE_ALIVE goes out when nothing else has for LINE_ALIVE_MS, and the connection ends when nothing has come for
// LINE_SILENT_MS: over a network nothing else tells that a peer is gone. A process that was itself stopped meanwhile gives its peer the time
// to be heard. Not needed over a unix socket.
void line_keep_alive(struct line_peer *p);
// LINE_FULL unsent bytes or more have been there, and more than a quarter of that still are; or the connection has ended. What is sent all
// the same is queued.
bool line_is_full(const struct line_peer *p);
// Unsent bytes.
size_t line_backlog(const struct line_peer *p);
// TLS: subject CN of the peer's verified certificate, known from on_open on; "" before that, without TLS, and for a client that has shown no
// certificate, where the context lets it.
const char *line_common_name(const struct line_peer *p);
// Closes the connection without calling anything; what is unsent is lost. Safe within callbacks. NULL is fine.
void line_free(struct line_peer *p);

#endif
