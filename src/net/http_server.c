// The HTTP server: a listener with a limit, and per connection a small state machine around a bufferevent.
//
//   HEAD -> BODY -> WORK -> REPLY -> HEAD (keep-alive), or DRAIN (the peer may still be sending), or closed
//   A stream is a REPLY whose exchange goes on; it ends, or begins its next piece, when the peer has taken what there is.
//
// Reading is switched off from the last byte of a request until its reply has been sent. That bounds the memory of a connection (what
// its request may hold, plus one read of at most 16 KiB), serves pipelined requests one at a time and in order, and lets a half-closed
// peer live until it has its reply. User code (on_request, on_sent) is always called last, because it may free the server.
#include "net/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/util.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define ACCEPT_PAUSE_MS 100 // after EMFILE and the like: the cause does not pass within a turn of the loop
#define GRACE_MS        500 // a connection this young is not given up for a newer one
#define DRAIN_MS        1000 // how long a refused peer may go on sending before the connection is cut

enum phase { PHASE_DRAIN, PHASE_HEAD, PHASE_BODY, PHASE_WORK, PHASE_REPLY, PHASE_COUNT };

struct conn {
    TAILQ_ENTRY(conn) link; // in server->conns[phase], in the order in which the phase was entered
    struct http_server *server;
    struct bufferevent *bev;
    struct event *timer; // the phase's deadline
    struct http_exchange *x; // BODY: being filled; WORK, and REPLY of a stream: the user's, to be told if the connection ends
    struct http_peer peer;
    enum phase phase;
    int64_t since_ms;   // when it began to wait for a request: at accept or after the last reply
    bool in_handshake;
    bool eof;           // no more will come
    bool close_after;   // the reply is the last one
    bool drain_after;   // the peer may still be sending
    void (*on_sent)(void *arg, bool sent);
    void *on_sent_arg;
};

struct http_exchange {
    struct conn *conn; // NULL before it is the user's, and once the connection has ended
    char *head, *body;
    size_t body_n;
    struct http_message message;
    struct http_peer peer;
    bool is_head; // HEAD, shown to the handler as GET
    bool is_chunked; // a stream
    bool keep_alive;
};

struct http_server {
    struct http_server_config config;
    struct event *accepting, *resume;
    bool is_paused;
    TAILQ_HEAD(, conn) conns[PHASE_COUNT];
    size_t conn_count;
};

static void conn_read_body(struct conn *c);
static void server_resume(struct http_server *s);

// ---- exchanges

static void exchange_free(struct http_exchange *x)
{
    free(x->head);
    free(x->body);
    free(x);
}

const struct http_message *http_request(const struct http_exchange *x)
{
    return &x->message;
}

const char *http_body(const struct http_exchange *x, size_t *ret_n)
{
    if (ret_n)
        *ret_n = x->body_n;
    return x->body;
}

const struct http_peer *http_exchange_peer(const struct http_exchange *x)
{
    return &x->peer;
}

// A TCP peer that has sent FIN may have closed or half-closed, nobody can tell; no client of Flocker's half-closes TCP.
bool http_peer_is_gone(const struct http_exchange *x)
{
    if (!x->conn)
        return true;
    short gone = (short)(POLLHUP | POLLERR | (x->peer.is_unix ? 0 : POLLRDHUP));
    struct pollfd p = { .fd = bufferevent_getfd(x->conn->bev), .events = gone };
    return poll(&p, 1, 0) > 0 && (p.revents & gone);
}

// ---- connections

static void conn_enter(struct conn *c, enum phase phase)
{
    TAILQ_REMOVE(&c->server->conns[c->phase], c, link);
    c->phase = phase;
    TAILQ_INSERT_TAIL(&c->server->conns[phase], c, link);
}

static void conn_deadline(struct conn *c, int64_t ms)
{
    const struct timeval tv = clock_timeval(ms);
    evtimer_add(c->timer, &tv);
}

static void conn_free(struct conn *c)
{
    struct http_server *s = c->server;
    TAILQ_REMOVE(&s->conns[c->phase], c, link);
    s->conn_count--;
    if (c->x && c->x->conn)
        c->x->conn = NULL;
    else if (c->x)
        exchange_free(c->x);
    event_free(c->timer);
    bufferevent_free(c->bev);
    free(c);
    if (s->is_paused)
        server_resume(s);
}

// Ends the connection now; whoever waits for a reply to be sent hears that it was not.
static void conn_close(struct conn *c)
{
    void (*on_sent)(void *, bool) = c->on_sent;
    void *arg = c->on_sent_arg;
    conn_free(c);
    if (on_sent)
        on_sent(arg, false);
}

#define IN_CHUNKS     SIZE_MAX       // lengths of a body that comes in pieces
#define UNTIL_THE_END (SIZE_MAX - 1)

static void conn_send_head(struct conn *c, int status, bool keep_alive, const char *extra, const char *type, size_t n)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
    if (n == IN_CHUNKS)
        evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
    else if (n != UNTIL_THE_END)
        evbuffer_add_printf(out, "Content-Length: %zu\r\n", n);
    evbuffer_add_printf(out, "Connection: %s\r\n", keep_alive ? "keep-alive" : "close");
    if (type && n)
        evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
    evbuffer_add_printf(out, "%s\r\n", extra ? extra : "");
}

static void conn_start_reply(struct conn *c, bool keep_alive)
{
    c->close_after = !keep_alive;
    conn_enter(c, PHASE_REPLY);
    conn_deadline(c, HTTP_REPLY_MS_MAX);
}

// An answer of the server's own, before any handler has seen the request: both keys, so that REST clients and engines can read it. `text`
// comes from this folder and needs no escaping.
static void conn_refuse(struct conn *c, int status, const char *text)
{
    char body[1024];
    int n = snprintf(body, sizeof body, "{\"description\":\"%s\",\"Err\":\"%s\"}\n", text, text);
    ASSERT(n > 0 && (size_t)n < sizeof body);
    bufferevent_disable(c->bev, EV_READ);
    c->drain_after = true;
    conn_send_head(c, status, false, NULL, "application/json", (size_t)n);
    bufferevent_write(c->bev, body, (size_t)n);
    conn_start_reply(c, false);
}

// Closing a socket with unread input would reset the connection and may destroy the reply before the peer has read it: say that nothing
// more comes, then read and forget until the peer closes or DRAIN_MS are over.
static void conn_drain(struct conn *c)
{
    conn_enter(c, PHASE_DRAIN);
    conn_deadline(c, DRAIN_MS);
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    struct evbuffer *in = bufferevent_get_input(c->bev);
    evbuffer_drain(in, evbuffer_get_length(in));
    bufferevent_enable(c->bev, EV_READ);
}

static void conn_finish(struct conn *c)
{
    int unread = 0;
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl) {
        SSL_shutdown(ssl);
        ERR_clear_error(); // errors left in the queue would be taken for another connection's
    }
    ioctl(bufferevent_getfd(c->bev), FIONREAD, &unread);
    if (!c->eof && (c->drain_after || unread > 0))
        conn_drain(c);
    else
        conn_free(c);
}

// The kernel has taken the last byte of the reply.
static void conn_sent(struct conn *c)
{
    void (*on_sent)(void *, bool) = TAKE(c->on_sent, NULL);
    void *arg = c->on_sent_arg;
    if (c->close_after) {
        conn_finish(c);
    } else {
        conn_enter(c, PHASE_HEAD);
        c->since_ms = clock_boot_ms();
        conn_deadline(c, c->server->config.request_ms_max);
        // In a later turn of the loop: others come first, and what on_sent does cannot pull the connection away beneath us.
        bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
    }
    if (on_sent)
        on_sent(arg, true);
}

// ---- reading requests

static void conn_want_more(struct conn *c)
{
    if (c->eof)
        conn_close(c);
    else
        bufferevent_enable(c->bev, EV_READ);
}

// Takes a head of n bytes from the input and decides what follows it.
static void conn_take_head(struct conn *c, size_t n)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct error e = ERROR_INIT;
    struct http_exchange *x = xcalloc(1, sizeof *x);
    c->x = x;
    x->peer = c->peer;
    x->head = xcalloc(1, n + 1);
    evbuffer_remove(in, x->head, n);
    int rc = http_parse_request(x->head, n, &x->message, &e);
    if (rc < 0) {
        conn_refuse(c, error_http(e.code), e.msg);
        return;
    }
    if (x->message.content_length > HTTP_BODY_BYTES_MAX) {
        conn_refuse(c, error_http(E_TOO_LARGE), "The body is larger than 1 MiB.");
        return;
    }
    x->is_head = strcmp(x->message.method, "HEAD") == 0;
    if (x->is_head)
        x->message.method = "GET";
    x->keep_alive = c->server->config.keep_alive && x->message.keep_alive;
    const char *expect = http_header_get(&x->message, "Expect");
    if (expect && x->message.minor_version == 1 && strcasecmp(expect, "100-continue") == 0 &&
        evbuffer_get_length(in) < x->message.content_length)
        evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
    conn_enter(c, PHASE_BODY);
    conn_read_body(c);
}

static void conn_read_head(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    char start[2]; // empty lines before a request are to be ignored (RFC 9112, 2.2)
    while (evbuffer_copyout(in, start, 2) == 2 && start[0] == '\r' && start[1] == '\n')
        evbuffer_drain(in, 2);
    size_t have = evbuffer_get_length(in), look = have < HTTP_HEAD_BYTES_MAX ? have : HTTP_HEAD_BYTES_MAX;
    size_t n = look ? http_head_length((const char *)evbuffer_pullup(in, (ev_ssize_t)look), look) : 0;
    if (n)
        conn_take_head(c, n);
    else if (have >= HTTP_HEAD_BYTES_MAX)
        conn_refuse(c, error_http(E_TOO_LARGE), "The request's head is larger than 16 KiB.");
    else
        conn_want_more(c);
}

static void conn_read_body(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct http_exchange *x = c->x;
    size_t n = x->message.content_length;
    if (evbuffer_get_length(in) < n) {
        conn_want_more(c);
        return;
    }
    bufferevent_disable(c->bev, EV_READ);
    evtimer_del(c->timer);
    x->body = xcalloc(1, n + 1);
    x->body_n = n;
    evbuffer_remove(in, x->body, n);
    x->conn = c;
    conn_enter(c, PHASE_WORK);
    c->server->config.on_request(x, c->server->config.arg);
}

// Goes as far as the input allows.
static void conn_advance(struct conn *c)
{
    if (c->phase == PHASE_HEAD)
        conn_read_head(c);
    else if (c->phase == PHASE_BODY)
        conn_read_body(c);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    if (c->phase == PHASE_DRAIN) {
        struct evbuffer *in = bufferevent_get_input(bev);
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    conn_advance(c);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    if (c->phase != PHASE_REPLY || evbuffer_get_length(bufferevent_get_output(bev)) > 0)
        return;
    if (c->x && c->x->conn)
        c->on_sent(c->on_sent_arg, true);
    else
        conn_sent(c);
}

static void note_tls_peer(struct conn *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    c->in_handshake = false;
    if (certificate && SSL_get_verify_result(ssl) == X509_V_OK)
        if (!pki_subject_key(certificate, c->peer.key) || !pki_subject_name(certificate, c->peer.common_name, sizeof c->peer.common_name))
            c->peer.common_name[0] = '\0';
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct conn *c = arg;
    (void)bev;
    if (what & BEV_EVENT_CONNECTED) {
        note_tls_peer(c);
        return;
    }
    ERR_clear_error();
    if (!(what & BEV_EVENT_EOF) || c->phase == PHASE_DRAIN) {
        conn_close(c);
        return;
    }
    c->eof = true; // what came before it may still hold whole requests
    conn_advance(c);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct conn *c = arg;
    bool has_begun = c->phase == PHASE_BODY || (c->phase == PHASE_HEAD && evbuffer_get_length(bufferevent_get_input(c->bev)) > 0);
    if (has_begun && !c->in_handshake)
        conn_refuse(c, 408, "The request did not arrive in time.");
    else
        conn_close(c);
}

// ---- replying

void http_reply(struct http_exchange *x, int status, const char *extra, const char *type, const char *body, size_t n,
                void (*on_sent)(void *arg, bool sent), void *arg)
{
    struct conn *c = x->conn;
    if (c) {
        ASSERT(c->x == x && c->phase == PHASE_WORK);
        c->x = NULL;
        c->on_sent = on_sent;
        c->on_sent_arg = arg;
        conn_send_head(c, status, x->keep_alive, extra, type, n);
        if (!x->is_head && n)
            bufferevent_write(c->bev, body, n);
        conn_start_reply(c, x->keep_alive);
    }
    exchange_free(x);
    if (!c && on_sent)
        on_sent(arg, false);
}

bool http_stream_begin(struct http_exchange *x, int status, const char *extra, const char *type, void (*on_turn)(void *arg, bool is_there), void *arg)
{
    struct conn *c = x->conn;
    x->is_chunked = x->message.minor_version > 0;
    if (!c)
        return false;
    ASSERT(c->x == x && c->phase == PHASE_WORK);
    x->keep_alive &= x->is_chunked; // to HTTP/1.0 only the end of the connection ends a body of unknown length
    conn_send_head(c, status, x->keep_alive, extra, type, x->is_chunked ? IN_CHUNKS : UNTIL_THE_END);
    conn_start_reply(c, x->keep_alive);
    if (x->is_head)
        return false;
    c->on_sent = on_turn;
    c->on_sent_arg = arg;
    return true;
}

void http_stream_send(struct http_exchange *x, const char *piece, size_t n)
{
    struct conn *c = x->conn;
    if (!c || x->is_head || n == 0) // a chunk of 0 bytes would be the last one
        return;
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (x->is_chunked)
        evbuffer_add_printf(out, "%zx\r\n", n);
    evbuffer_add(out, piece, n);
    if (x->is_chunked)
        evbuffer_add(out, "\r\n", 2);
    conn_deadline(c, HTTP_REPLY_MS_MAX);
}

void http_stream_end(struct http_exchange *x)
{
    struct conn *c = x->conn;
    if (c) {
        c->x = NULL;
        c->on_sent = NULL;
        if (x->is_chunked && !x->is_head)
            bufferevent_write(c->bev, "0\r\n\r\n", 5);
        bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS); // nothing may be left to be sent
    }
    exchange_free(x);
}

void http_drop(struct http_exchange *x)
{
    struct conn *c = x->conn;
    if (c) {
        c->x = NULL;
        conn_free(c);
    }
    exchange_free(x);
}

// ---- listener

static void server_pause(struct http_server *s, int64_t ms)
{
    const struct timeval tv = clock_timeval(ms);
    event_del(s->accepting);
    evtimer_add(s->resume, &tv);
    s->is_paused = true;
}

static void server_resume(struct http_server *s)
{
    evtimer_del(s->resume);
    event_add(s->accepting, NULL);
    s->is_paused = false;
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    server_resume(arg);
}

// Who must go for a newer connection: the oldest of those that cost an honest client least. A peer that sends its request slowly can't
// lock others out, and one that has been waiting for its answer is never cut off.
static struct conn *server_victim(struct http_server *s)
{
    static const enum phase order[] = { PHASE_DRAIN, PHASE_HEAD, PHASE_BODY };
    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        if (!TAILQ_EMPTY(&s->conns[order[i]]))
            return TAILQ_FIRST(&s->conns[order[i]]);
    return NULL;
}

// Whether there is room for one more connection; makes some if it can. While every candidate is young, newcomers wait in the kernel's
// queue: otherwise a burst of honest clients would throw each other out before their requests are read.
static bool server_has_room(struct http_server *s)
{
    if (s->conn_count < s->config.connections_max)
        return true;
    struct conn *victim = server_victim(s);
    if (!victim)
        return true; // all are at work: the newcomer is accepted and closed
    int64_t age = clock_boot_ms() - victim->since_ms;
    if (age < GRACE_MS && victim->phase != PHASE_DRAIN) {
        server_pause(s, GRACE_MS - age);
        return false;
    }
    conn_close(victim);
    return true;
}

static void note_peer(int fd, struct http_peer *p)
{
    int domain = 0, on = 1;
    socklen_t n = sizeof domain;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n);
    p->is_unix = domain == AF_UNIX;
    p->uid = (uid_t)-1;
    if (!p->is_unix) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return;
    }
    struct ucred cred;
    n = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0) {
        p->pid = cred.pid;
        p->uid = cred.uid;
    }
}

static struct bufferevent *wrap_fd(const struct http_server_config *config, int fd)
{
    if (!config->tls)
        return bufferevent_socket_new(config->base, fd, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = SSL_new(config->tls);
    if (!ssl)
        return NULL;
    struct bufferevent *bev =
        bufferevent_openssl_socket_new(config->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        SSL_free(ssl);
    return bev;
}

static void server_add(struct http_server *s, int fd)
{
    struct bufferevent *bev = wrap_fd(&s->config, fd);
    if (!bev) {
        close(fd);
        return;
    }
    struct conn *c = xcalloc(1, sizeof *c);
    *c = (struct conn){ .server = s, .bev = bev, .phase = PHASE_HEAD, .since_ms = clock_boot_ms(), .in_handshake = s->config.tls };
    note_peer(fd, &c->peer);
    c->timer = evtimer_new(s->config.base, on_deadline, c);
    ASSERT(c->timer);
    TAILQ_INSERT_TAIL(&s->conns[c->phase], c, link);
    s->conn_count++;
    conn_deadline(c, s->config.request_ms_max);
    bufferevent_setcb(bev, on_read, on_write, on_event, c);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

// One connection per turn of the loop, so that those that are here already get their turn in between.
static void on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
    (void)what;
    struct http_server *s = arg;
    if (!server_has_room(s))
        return;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            server_pause(s, ACCEPT_PAUSE_MS);
        return;
    }
    if (s->conn_count >= s->config.connections_max)
        close(fd);
    else
        server_add(s, fd);
}

struct http_server *http_server_new(const struct http_server_config *config, struct error *e)
{
    ASSERT(config->base && config->on_request);
    socket_ignore_sigpipe();
    if (evutil_make_socket_nonblocking(config->listen_fd) < 0) {
        fail_os(e, errno, "listening socket");
        close(config->listen_fd);
        return NULL;
    }
    struct http_server *s = xcalloc(1, sizeof *s);
    s->config = *config;
    if (!s->config.connections_max)
        s->config.connections_max = HTTP_CONNECTIONS_MAX;
    if (!s->config.request_ms_max)
        s->config.request_ms_max = HTTP_REQUEST_MS_MAX;
    for (size_t i = 0; i < PHASE_COUNT; i++)
        TAILQ_INIT(&s->conns[i]);
    s->accepting = event_new(config->base, config->listen_fd, EV_READ | EV_PERSIST, on_accept, s);
    s->resume = evtimer_new(config->base, on_resume, s);
    ASSERT(s->accepting && s->resume);
    if (event_add(s->accepting, NULL) < 0) {
        fail(e, E_IO, "the event loop refuses the listening socket");
        http_server_free(s);
        return NULL;
    }
    return s;
}

void http_server_free(struct http_server *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < PHASE_COUNT; i++)
        while (!TAILQ_EMPTY(&s->conns[i]))
            conn_close(TAILQ_FIRST(&s->conns[i]));
    event_free(s->accepting);
    event_free(s->resume);
    close(s->config.listen_fd);
    free(s);
}

void http_server_expel(struct http_server *s, bool (*is_unwanted)(const struct http_peer *peer, void *arg), void *arg)
{
    for (size_t i = 0; i < PHASE_COUNT; i++)
        for (struct conn *c = TAILQ_FIRST(&s->conns[i]), *next; c; c = next) {
            next = TAILQ_NEXT(c, link);
            if (is_unwanted(&c->peer, arg))
                conn_close(c);
        }
}

size_t http_server_connections(const struct http_server *s)
{
    return s->conn_count;
}
