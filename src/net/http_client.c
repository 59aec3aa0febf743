// The blocking HTTP client. One deadline for the whole call; only looking up a host name can take longer, and addresses need no look-up.
#include "net/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define REPLY_BODY_MAX (64U << 20)
#define READ_SIZE      (16U << 10)

DEFINE_AUTO(struct addrinfo *, freeaddrinfo)

// A connection with a deadline.
struct stream {
    int fd; // non-blocking
    SSL *ssl;
    int64_t deadline_ms;
    const char *name; // for messages
};

// What has arrived of the reply.
struct buffer {
    char *data;
    size_t n, size;
};

static int wait_for(const struct stream *s, short events, struct error *e)
{
    for (;;) {
        int64_t left = s->deadline_ms - clock_boot_ms();
        if (left <= 0)
            return fail(e, E_TIMEOUT, "%s did not answer in time", s->name);
        struct pollfd p = { .fd = s->fd, .events = events };
        int n = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return fail_os(e, errno, "wait for %s", s->name);
    }
}

// ---- TLS

// The reason that the peer or OpenSSL gave for breaking off.
static int fail_tls(const struct stream *s, struct error *e)
{
    unsigned long err = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(s->ssl);
    const char *reason = err ? ERR_reason_error_string(err) : NULL;
    bool is_alert = err && ERR_GET_LIB(err) == ERR_LIB_SSL && ERR_GET_REASON(err) >= SSL_AD_REASON_OFFSET;
    ERR_clear_error();
    if (verdict != X509_V_OK)
        return fail(e, E_DENIED, "%s is not who it should be: %s", s->name, X509_verify_cert_error_string(verdict));
    if (is_alert)
        return fail(e, E_DENIED, "%s refuses our certificate or TLS version: %s", s->name, reason ? reason : "no reason given");
    return fail(e, E_IO, "TLS with %s failed: %s", s->name, reason ? reason : "the connection broke");
}

// After an SSL function returned `n` <= 0: waits and returns 0 if it is to be called again; 1 if the peer has ended the stream.
static int tls_again(const struct stream *s, int n, struct error *e)
{
    int err = errno;
    switch (SSL_get_error(s->ssl, n)) {
    case SSL_ERROR_WANT_READ:
        return wait_for(s, POLLIN, e);
    case SSL_ERROR_WANT_WRITE:
        return wait_for(s, POLLOUT, e);
    case SSL_ERROR_ZERO_RETURN:
        return 1;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        return err ? fail_os(e, err, "connection to %s", s->name) : fail(e, E_IO, "%s broke the connection", s->name);
    default:
        return fail_tls(s, e);
    }
}

static int start_tls(struct stream *s, const struct http_call *call, struct error *e)
{
    struct in6_addr address;
    AUTO(free) char *name = xstrdup(call->verify_name ? call->verify_name : call->host);
    bool is_ip = inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
    s->ssl = SSL_new(call->tls);
    if (!s->ssl || SSL_set_fd(s->ssl, s->fd) != 1)
        return fail(e, E_IO, "start TLS with %s", s->name);
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    int is_set = call->any_name ? 1 : is_ip ? X509_VERIFY_PARAM_set1_ip_asc(param, name) : X509_VERIFY_PARAM_set1_host(param, name, 0);
    if (is_set != 1 || (!is_ip && SSL_set_tlsext_host_name(s->ssl, name) != 1))
        return fail(e, E_INVALID, "\"%s\" is not a name that a certificate can hold", name);
    SSL_set_verify(s->ssl, SSL_VERIFY_PEER, NULL); // whatever the context says
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int n = SSL_connect(s->ssl);
        if (n == 1)
            return 0;
        int rc = tls_again(s, n, e);
        if (rc != 0)
            return rc < 0 ? rc : fail(e, E_IO, "%s closed the connection", s->name);
    }
}

// ---- bytes

static int stream_write(const struct stream *s, const char *data, size_t n, struct error *e)
{
    while (n) {
        size_t done = 0;
        ERR_clear_error();
        errno = 0;
        if (s->ssl) {
            int ok = SSL_write_ex(s->ssl, data, n, &done);
            int rc = ok ? 0 : tls_again(s, ok, e);
            if (rc != 0)
                return rc < 0 ? rc : fail(e, E_IO, "%s closed the connection", s->name);
        } else {
            ssize_t sent = send(s->fd, data, n, MSG_NOSIGNAL);
            int rc = sent < 0 && errno == EAGAIN ? wait_for(s, POLLOUT, e) : 0;
            if (rc < 0)
                return rc;
            if (sent < 0 && errno != EAGAIN && errno != EINTR)
                return fail_os(e, errno, "send to %s", s->name);
            done = sent > 0 ? (size_t)sent : 0;
        }
        data += done;
        n -= done;
    }
    return 0;
}

// Returns the number of bytes, 0 at the end of the stream.
static ssize_t stream_read(const struct stream *s, char *ret, size_t n, struct error *e)
{
    for (;;) {
        int rc;
        ERR_clear_error();
        errno = 0;
        if (s->ssl) {
            size_t got = 0;
            int ok = SSL_read_ex(s->ssl, ret, n, &got);
            if (ok)
                return (ssize_t)got;
            rc = tls_again(s, ok, e);
            if (rc > 0)
                return 0;
        } else {
            ssize_t got = recv(s->fd, ret, n, 0);
            if (got >= 0)
                return got;
            if (errno != EAGAIN && errno != EINTR)
                return fail_os(e, errno, "receive from %s", s->name);
            rc = wait_for(s, POLLIN, e);
        }
        if (rc < 0)
            return rc;
    }
}

// Reads up to READ_SIZE more; returns the number of bytes, 0 at the end.
static ssize_t buffer_fill(struct buffer *b, const struct stream *s, struct error *e)
{
    if (b->size - b->n < READ_SIZE + 1) {
        b->size = b->size * 2 + READ_SIZE + 1;
        b->data = xrealloc(b->data, b->size, 1);
    }
    ssize_t n = stream_read(s, b->data + b->n, READ_SIZE, e);
    if (n > 0)
        b->n += (size_t)n;
    return n;
}

// ---- connecting

static int connect_to(struct stream *s, const struct addrinfo *at, struct error *e)
{
    int err = 0, on = 1;
    socklen_t n = sizeof err;
    s->fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) // perhaps an address family that this kernel lacks: the next address may do
        return fail(e, E_UNAVAILABLE, "connect to %s: %s", s->name, strerror(errno));
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(s->fd, at->ai_addr, at->ai_addrlen) < 0) {
        err = errno;
        int rc = err == EINPROGRESS ? wait_for(s, POLLOUT, e) : 0;
        if (rc < 0)
            return rc;
        if (err == EINPROGRESS && getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
            err = errno;
    }
    if (err)
        return fail(e, E_UNAVAILABLE, "connect to %s: %s", s->name, strerror(err));
    return 0;
}

static int connect_host(struct stream *s, const struct http_call *call, struct error *e)
{
    char service[8];
    snprintf(service, sizeof service, "%u", call->port);
    struct addrinfo want = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    AUTO(freeaddrinfo) struct addrinfo *found = NULL;
    int err = getaddrinfo(call->host, service, &want, &found);
    if (err)
        return fail(e, E_UNAVAILABLE, "look up %s: %s", call->host, gai_strerror(err));
    int rc = -E_UNAVAILABLE;
    for (const struct addrinfo *at = found; at; at = at->ai_next) {
        rc = connect_to(s, at, e);
        if (rc != -E_UNAVAILABLE)
            return rc;
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
    }
    return rc;
}

static int stream_open(struct stream *s, const struct http_call *call, struct error *e)
{
    if (!call->unix_path) {
        int rc = connect_host(s, call, e);
        return rc < 0 || !call->tls ? rc : start_tls(s, call, e);
    }
    s->fd = socket_connect_unix(call->unix_path, call->timeout_ms, e);
    if (s->fd < 0)
        return s->fd;
    return fcntl(s->fd, F_SETFL, O_NONBLOCK) < 0 ? fail_os(e, errno, "connect to %s", s->name) : 0;
}

static void stream_close(struct stream *s)
{
    if (s->ssl) {
        SSL_shutdown(s->ssl);
        SSL_free(s->ssl);
        ERR_clear_error();
    }
    if (s->fd >= 0)
        close(s->fd);
}

// ---- request and reply

static int send_request(const struct stream *s, const struct http_call *call, struct error *e)
{
    bool is_v6 = call->host && strchr(call->host, ':');
    AUTO(free) char *host = call->host ? xasprintf(is_v6 ? "[%s]:%u" : "%s:%u", call->host, call->port) : xstrdup("localhost");
    AUTO(free) char *length = call->body ? xasprintf("Content-Length: %zu\r\n", call->body_n) : xstrdup("");
    AUTO(free) char *head = xasprintf("%s %s HTTP/1.%d\r\nHost: %s\r\nConnection: close\r\n%s%s\r\n", call->method, call->target,
                                      call->version_1_0 ? 0 : 1, host, length, call->extra ? call->extra : "");
    int rc = stream_write(s, head, strlen(head), e);
    return rc < 0 || !call->body ? rc : stream_write(s, call->body, call->body_n, e);
}

// Takes the head of a reply from the front of the buffer.
static int read_head(struct buffer *b, const struct stream *s, struct http_result *ret, struct error *e)
{
    size_t n;
    while (!(n = b->n ? http_head_length(b->data, b->n) : 0)) {
        if (b->n > HTTP_HEAD_BYTES_MAX)
            return fail(e, E_TOO_LARGE, "the head of the reply of %s is too large", s->name);
        ssize_t got = buffer_fill(b, s, e);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return fail(e, E_IO, "%s closed the connection without a reply", s->name);
    }
    ret->head = xcalloc(1, n + 1);
    memcpy(ret->head, b->data, n);
    memmove(b->data, b->data + n, b->n - n);
    b->n -= n;
    int rc = http_parse_reply(ret->head, n, &ret->message, e);
    return rc < 0 ? fail_ctx(e, rc, "reply of %s", s->name) : 0;
}

static int read_body(struct buffer *b, const struct stream *s, const struct http_message *m, struct error *e)
{
    size_t want = m->has_length ? m->content_length : SIZE_MAX;
    if (m->has_length && want > REPLY_BODY_MAX)
        return fail(e, E_TOO_LARGE, "the reply of %s is larger than 64 MiB", s->name);
    while (b->n < want) {
        ssize_t got = buffer_fill(b, s, e);
        if (got < 0)
            return (int)got;
        if (got == 0 && m->has_length)
            return fail(e, E_IO, "%s closed the connection in the middle of its reply", s->name);
        if (got == 0)
            break;
        if (b->n > REPLY_BODY_MAX + READ_SIZE || (!m->has_length && b->n > REPLY_BODY_MAX))
            return fail(e, E_TOO_LARGE, "the reply of %s is larger than 64 MiB", s->name);
    }
    if (b->n > want)
        b->n = want;
    return 0;
}

static int read_reply(const struct stream *s, const struct http_call *call, struct http_result *ret, struct error *e)
{
    AUTO(free) char *data = NULL;
    struct buffer b = { 0 };
    int rc;
    for (;;) {
        rc = read_head(&b, s, ret, e);
        if (rc < 0 || ret->message.status >= 200)
            break;
        http_result_done(ret); // 1xx: the reply proper follows
    }
    bool has_body = rc == 0 && strcmp(call->method, "HEAD") != 0 && ret->message.status != 204 && ret->message.status != 304;
    if (has_body)
        rc = read_body(&b, s, &ret->message, e);
    else
        b.n = 0;
    data = b.data;
    if (rc < 0)
        return rc;
    ret->body = data ? xrealloc(TAKE(data, NULL), b.n + 1, 1) : xcalloc(1, 1);
    ret->body[b.n] = 0;
    ret->body_n = b.n;
    ret->status = ret->message.status;
    return 0;
}

// A server may refuse a request before it has read it all, and close: its reply, or its reason for refusing our certificate, says more than
// our broken pipe.
static int exchange(const struct stream *s, const struct http_call *call, struct http_result *ret, struct error *e)
{
    int rc = send_request(s, call, e);
    if (rc == 0)
        return read_reply(s, call, ret, e);
    if (rc != -E_IO)
        return rc;
    struct error why;
    int answer = read_reply(s, call, ret, &why);
    if (answer == -E_DENIED)
        *e = why;
    return answer == 0 || answer == -E_DENIED ? answer : rc;
}

static int call_with_signals_off(const struct http_call *call, struct http_result *ret, struct error *e)
{
    AUTO(free) char *name = call->unix_path ? xstrdup(call->unix_path) : xasprintf("%s port %u", call->host, call->port);
    struct stream s = { .fd = -1, .deadline_ms = clock_boot_ms() + call->timeout_ms, .name = name };
    struct http_result result = { 0 };
    int rc = stream_open(&s, call, e);
    if (rc == 0)
        rc = exchange(&s, call, &result, e);
    stream_close(&s);
    if (rc < 0)
        http_result_done(&result);
    else
        *ret = result;
    return rc;
}

// OpenSSL writes without MSG_NOSIGNAL. How the program treats SIGPIPE is not ours to change, so it's held back during the call and one
// that arose in it is thrown away.
int http_call(const struct http_call *call, struct http_result *ret, struct error *e)
{
    sigset_t pipe, before, pending;
    ASSERT(call->unix_path || call->host);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    int rc = call_with_signals_off(call, ret, e);
    if (!sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe, NULL, &(struct timespec){ 0 }) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

void http_result_done(struct http_result *r)
{
    free(r->head);
    free(r->body);
    *r = (struct http_result){ 0 };
}
