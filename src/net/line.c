#include "net/line.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/mem.h"
#include "net/net_internal.h"
#include "net/pki.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

struct line_peer {
    struct line_callbacks callbacks;
    void *arg;
    struct bufferevent *bev; // NULL: closed
    struct event *closing;   // calls on_closed in a turn of the loop of its own
    struct event *alive;     // NULL: line_keep_alive was not called, or the connection has ended
    int64_t sent_ms, heard_ms, alive_ms; // boot clock: the last message out, the last bytes in, when `alive` is due
    bool is_full;            // until the backlog is LINE_DRAINED or less
    bool in_callback;        // line_free must leave the memory to the caller of the callback
    bool is_freed;
    char why[240];
    char common_name[128];
};

#define LINE_DRAINED (LINE_FULL / 4)

static void peer_close(struct line_peer *p)
{
    if (p->bev)
        bufferevent_free(p->bev);
    if (p->alive)
        event_free(p->alive);
    p->bev = NULL;
    p->alive = NULL;
}

static void peer_destroy(struct line_peer *p)
{
    peer_close(p);
    event_free(p->closing);
    free(p);
}

// Ends the connection; on_closed follows from the loop, so that no caller of line_send is surprised by it.
static void peer_end(struct line_peer *p, const char *why)
{
    snprintf(p->why, sizeof p->why, "%s", why);
    peer_close(p);
    event_active(p->closing, EV_TIMEOUT, 1);
}

static void on_closing(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct line_peer *p = arg;
    p->callbacks.on_closed(p->arg, p->why); // may have freed p
}

// Takes the first line off the input and hands it out. False if there is none, or no peer any more.
static bool peer_deliver(struct line_peer *p)
{
    size_t n = 0;
    struct evbuffer *in = bufferevent_get_input(p->bev);
    AUTO(free) char *line = evbuffer_readln(in, &n, EVBUFFER_EOL_LF);
    size_t have = line ? n : evbuffer_get_length(in);
    if (have > LINE_BYTES_MAX) {
        char why[sizeof p->why];
        snprintf(why, sizeof why, "it sent a message of more than %u bytes", LINE_BYTES_MAX);
        peer_end(p, why);
        return false;
    }
    if (!line)
        return false;
    p->in_callback = true;
    p->callbacks.on_line(p->arg, line, n);
    p->in_callback = false;
    return !p->is_freed && p->bev;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    struct line_peer *p = arg;
    p->heard_ms = p->alive ? clock_boot_ms() : 0;
    while (peer_deliver(p))
        ;
    if (p->is_freed)
        peer_destroy(p);
}

// Called whenever something was sent and LINE_DRAINED bytes or less are left.
static void on_written(struct bufferevent *bev, void *arg)
{
    (void)bev;
    struct line_peer *p = arg;
    if (!p->is_full || line_backlog(p) > LINE_DRAINED)
        return;
    p->is_full = false;
    if (!p->callbacks.on_drained)
        return;
    p->in_callback = true;
    p->callbacks.on_drained(p->arg);
    p->in_callback = false;
    if (p->is_freed)
        peer_destroy(p);
}

static void note_tls_peer(struct line_peer *p)
{
    SSL *ssl = bufferevent_openssl_get_ssl(p->bev);
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (certificate && SSL_get_verify_result(ssl) == X509_V_OK)
        pki_subject_name(certificate, p->common_name, sizeof p->common_name);
}

static void peer_open(struct line_peer *p)
{
    if (!p->callbacks.on_open)
        return;
    p->in_callback = true;
    p->callbacks.on_open(p->arg);
    p->in_callback = false;
    if (p->is_freed)
        peer_destroy(p);
}

// NULL: OpenSSL has none.
static const char *tls_reason(struct bufferevent *bev, unsigned long error, char *ret, size_t n)
{
    const char *text = ERR_reason_error_string(error);
    int number = ERR_GET_REASON(error);
    char why[PKI_WHY_SIZE];
    if (ERR_GET_LIB(error) != ERR_LIB_SSL || !text)
        return text;
    if (number == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(ret, n, "its certificate is not valid here: %s", pki_why_not(SSL_get_verify_result(bufferevent_openssl_get_ssl(bev)), why));
    else
        snprintf(ret, n, "%s%s", number >= SSL_AD_REASON_OFFSET ? "it refuses our certificate or TLS version: " : "", pki_why_refused(number, text, why));
    return ret;
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct line_peer *p = arg;
    int err = EVUTIL_SOCKET_ERROR();
    if (what & BEV_EVENT_CONNECTED) {
        note_tls_peer(p);
        peer_open(p);
        return;
    }
    unsigned long tls_err = bufferevent_get_openssl_error(bev);
    ERR_clear_error();
    if (what & BEV_EVENT_EOF) {
        bool is_cut = evbuffer_get_length(bufferevent_get_input(bev)) > 0;
        peer_end(p, is_cut ? "it closed the connection in the middle of a message" : "it closed the connection");
        return;
    }
    char text[sizeof p->why];
    const char *reason = tls_err ? tls_reason(bev, tls_err, text, sizeof text) : NULL;
    peer_end(p, reason ? reason : err ? strerror(err) : "the connection broke");
}

static struct bufferevent *wrap_fd(struct event_base *base, int fd, struct ssl_ctx_st *tls)
{
    if (!tls)
        return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = SSL_new(tls);
    if (!ssl)
        return NULL;
    SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF); // a message is whole with its line feed: no need for a close_notify
    enum bufferevent_ssl_state role = SSL_is_server(ssl) ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING;
    struct bufferevent *bev = bufferevent_openssl_socket_new(base, fd, ssl, role, BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        SSL_free(ssl);
    return bev;
}

struct line_peer *line_new(struct event_base *base, int fd, struct ssl_ctx_st *tls, const struct line_callbacks *callbacks, void *arg)
{
    ASSERT(callbacks->on_line && callbacks->on_closed);
    socket_ignore_sigpipe();
    struct line_peer *p = xcalloc(1, sizeof *p);
    p->callbacks = *callbacks;
    p->arg = arg;
    p->closing = event_new(base, -1, 0, on_closing, p);
    ASSERT(p->closing);
    p->bev = wrap_fd(base, fd, tls);
    if (!p->bev) {
        close(fd);
        peer_end(p, "the connection could not be set up");
        return p;
    }
    bufferevent_setcb(p->bev, on_read, on_written, on_event, p);
    bufferevent_setwatermark(p->bev, EV_WRITE, LINE_DRAINED, 0);
    bufferevent_enable(p->bev, EV_READ | EV_WRITE);
    return p;
}

void line_send(struct line_peer *p, const char *text, size_t n)
{
    ASSERT(!memchr(text, '\n', n)); // it would be two messages
    if (!p->bev)
        return;
    if (line_backlog(p) + n + 1 > LINE_BACKLOG_MAX) {
        char why[sizeof p->why];
        snprintf(why, sizeof why, "it does not take what is sent to it: %zu bytes wait", line_backlog(p));
        peer_end(p, why);
        return;
    }
    bufferevent_write(p->bev, text, n);
    bufferevent_write(p->bev, "\n", 1);
    p->is_full |= line_backlog(p) >= LINE_FULL;
    p->sent_ms = p->alive ? clock_boot_ms() : 0;
}

// ---- signs of life

#define OWN_ABSENCE_MS 1000 // a timer that comes this late says that we, not the peer, were away

static void alive_arm(struct line_peer *p)
{
    int64_t send_ms = p->sent_ms + LINE_ALIVE_MS, end_ms = p->heard_ms + LINE_SILENT_MS, now_ms = clock_boot_ms();
    p->alive_ms = send_ms < end_ms ? send_ms : end_ms;
    int64_t delay_ms = p->alive_ms > now_ms ? p->alive_ms - now_ms : 0;
    const struct timeval delay = clock_timeval(delay_ms);
    evtimer_add(p->alive, &delay);
}

static void on_alive(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct line_peer *p = arg;
    int64_t now_ms = clock_boot_ms();
    if (now_ms - p->alive_ms > OWN_ABSENCE_MS && now_ms - p->heard_ms > LINE_SILENT_MS - LINE_ALIVE_MS)
        p->heard_ms = now_ms - LINE_SILENT_MS + LINE_ALIVE_MS;
    if (now_ms - p->heard_ms >= LINE_SILENT_MS) {
        char why[sizeof p->why];
        snprintf(why, sizeof why, "nothing has come from it for %d s", LINE_SILENT_MS / 1000);
        peer_end(p, why);
        return;
    }
    if (now_ms - p->sent_ms >= LINE_ALIVE_MS)
        line_send(p, LINE_ALIVE, strlen(LINE_ALIVE));
    if (p->alive)
        alive_arm(p);
}

void line_keep_alive(struct line_peer *p)
{
    if (!p->bev || p->alive)
        return;
    p->sent_ms = p->heard_ms = clock_boot_ms();
    p->alive = evtimer_new(bufferevent_get_base(p->bev), on_alive, p);
    ASSERT(p->alive);
    alive_arm(p);
}

bool line_is_full(const struct line_peer *p)
{
    return !p->bev || p->is_full;
}

size_t line_backlog(const struct line_peer *p)
{
    return p->bev ? evbuffer_get_length(bufferevent_get_output(p->bev)) : 0;
}

const char *line_common_name(const struct line_peer *p)
{
    return p->common_name;
}

void line_free(struct line_peer *p)
{
    if (!p)
        return;
    if (p->in_callback) {
        peer_close(p);
        p->is_freed = true;
    } else {
        peer_destroy(p);
    }
}
