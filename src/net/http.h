// HTTP/1.1, as little of it as Flocker's doors need: requests with Content-Length, replies with that or in chunks, over unix sockets, TCP and TLS.
//
// libevent's own HTTP layer is not used: it has no limit on connections, no deadline for a whole request (only for a pause in
// it), can't tell that a peer has gone while its request is worked on, and gives no access to the peer's credentials. All four
// decide whether input from a socket can hang or grow a process (CONTRIBUTING.md, rule 5) and whether an unanswered Mount is undone.
//
// The parser is a pure function over bytes (http_parse.c) and is fuzzed; server and client are thin shells around libevent's
// bufferevents. One thread.
#ifndef FLOCKER_NET_HTTP_H
#define FLOCKER_NET_HTTP_H

#include "base/error.h"
#include "base/limits.h"
#include "net/pki.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct event_base;
struct ssl_ctx_st;

struct http_header {
    const char *name, *value; // point into the message's buffer, NUL-terminated, trimmed
};

// One request or reply head, parsed in place.
struct http_message {
    const char *method, *target; // of a request
    int status;                  // of a reply
    int minor_version;           // of HTTP/1.x: 0 or 1
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;
    size_t content_length;       // 0 if the header is absent
    bool has_length;
    bool is_chunked;             // a reply's body
    bool keep_alive;
};

// Parses a head (everything up to and including the empty line; `head` is writable, `n` bytes, the byte at head[n] must be writable
// too). An empty Host header is fine. Returns 0, or negative with the code of the reply to give: E_INVALID (400), E_TOO_LARGE (413), or
// E_UNSUPPORTED (501: Transfer-Encoding, which no client of Flocker's sends; a reply may be chunked). Two Content-Length headers are E_INVALID
// unless equal.
int http_parse_request(char *head, size_t n, struct http_message *ret, struct error *e);
int http_parse_reply(char *head, size_t n, struct http_message *ret, struct error *e);
const char *http_header_get(const struct http_message *m, const char *name); // case-insensitive; NULL if absent
// Puts a whole body in chunks together, in place. E_INVALID: it is none, or not whole. Trailers are passed over.
int http_join_chunks(char *text, size_t n, size_t *ret_n, struct error *e);
// Percent-decodes a path segment or query value in place; false if malformed or it would hold a NUL byte.
bool http_percent_decode(char *text);
const char *http_status_text(int status);

// ---- server

struct http_server;
struct http_exchange;

// Who is at the other end.
struct http_peer {
    bool is_unix;
    pid_t pid;          // unix: as of connect(2); 0 otherwise
    uid_t uid;          // unix; (uid_t)-1 otherwise
    char common_name[PKI_NAME_SIZE]; // TLS: subject CN of the verified certificate; "" otherwise
    char key[PKI_KEY_SIZE];          // the same: SHA-256 of its public key, in hexadecimal digits
};

// Called with a complete request; must lead to exactly one http_reply or http_drop, now or later.
typedef void http_handler(struct http_exchange *x, void *arg);

struct http_server_config {
    struct event_base *base;
    int listen_fd;              // bound and listening; owned by the server from here on
    struct ssl_ctx_st *tls;     // NULL: plain. Borrowed. Clients must present a certificate if the context says so
    bool keep_alive;            // false: every reply says Connection: close (engines' sockets)
    http_handler *on_request;
    void *arg;
    size_t connections_max;     // 0: HTTP_CONNECTIONS_MAX. For one more, the oldest whose request isn't complete goes; none: it is closed
    int request_ms_max;         // 0: HTTP_REQUEST_MS_MAX
};

// The process ignores SIGPIPE from here on, unless it has a handler of its own; a program that it executes inherits that.
struct http_server *http_server_new(const struct http_server_config *config, struct error *e);
// Stops listening and closes every connection; exchanges still unanswered stay valid until they are replied to or dropped.
void http_server_free(struct http_server *s);
size_t http_server_connections(const struct http_server *s);
// Closes all connections of peers that are unwanted, at once. Not from within a call of one of them.
void http_server_expel(struct http_server *s, bool (*is_unwanted)(const struct http_peer *peer, void *arg), void *arg);

const struct http_message *http_request(const struct http_exchange *x);
const char *http_body(const struct http_exchange *x, size_t *ret_n); // NUL-terminated copy owned by the exchange
const struct http_peer *http_exchange_peer(const struct http_exchange *x);
bool http_peer_is_gone(const struct http_exchange *x); // closed while we worked (a half-closed unix peer is still there)

// Sends the reply and ends the exchange. `extra` is zero or more "Name: value\r\n". If on_sent is given it is called once: true when the
// kernel has taken the whole reply, false when the peer went before that (then perhaps before http_reply returns).
void http_reply(struct http_exchange *x, int status, const char *extra, const char *type, const char *body, size_t n,
                void (*on_sent)(void *arg, bool sent), void *arg);
// A reply that need not be in memory as a whole: its body is sent piece by piece, and http_stream_end ends the exchange. `on_turn` is called
// with true each time that the peer has taken all that was sent, never from within these functions; with false, once, if it has gone or did
// not take a piece within HTTP_REPLY_MS_MAX: then what is sent goes nowhere, and only the end is left. False: no body is wanted (HEAD).
bool http_stream_begin(struct http_exchange *x, int status, const char *extra, const char *type, void (*on_turn)(void *arg, bool is_there), void *arg);
void http_stream_send(struct http_exchange *x, const char *piece, size_t n);
void http_stream_end(struct http_exchange *x);
// Closes the connection without a reply: the honest answer where an error would be taken for knowledge. Ends the exchange.
void http_drop(struct http_exchange *x);

// ---- client: one request, blocking, for the CLI and tests

struct http_call {
    const char *unix_path;       // or:
    const char *host;            // name or address
    uint16_t port;
    struct ssl_ctx_st *tls;      // for host; the certificate's names must hold verify_name
    const char *verify_name;
    const char *method, *target; // target with query, already encoded
    bool any_name;               // the server's certificate must chain to our CA, whatever name it holds
    bool version_1_0;            // asks as HTTP/1.0: its server may close the connection only after a while otherwise
    const char *extra;           // "Name: value\r\n"..., or NULL
    const char *body;            // NULL: none
    size_t body_n;
    int timeout_ms;              // for the whole call
};
struct http_result {
    int status;
    char *head, *body; // owned; body is NUL-terminated
    size_t body_n;
    struct http_message message; // points into head
};
// E_UNAVAILABLE: nobody listens; E_TIMEOUT; E_IO: the connection broke; E_TOO_LARGE: a body over 64 MiB.
int http_call(const struct http_call *call, struct http_result *ret, struct error *e);
void http_result_done(struct http_result *r);

#endif
