// The blocking HTTP client: one stream per call, with one deadline (net/stream.h).
#include "net/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"
#include "net/stream.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#define REPLY_BODY_MAX (64U << 20)
#define READ_SIZE      (16U << 10)

// What has arrived of the reply.
struct buffer {
    char *data;
    size_t n, size;
};

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

static int stream_open(struct stream *s, const struct http_call *call, struct error *e)
{
    if (call->unix_path)
        return stream_connect_unix(s, call->unix_path, call->timeout_ms, e);
    int rc = stream_connect(s, call->host, call->port, e);
    const char *name = call->any_name ? NULL : call->verify_name ? call->verify_name : call->host;
    return rc < 0 || !call->tls ? rc : stream_start_tls(s, call->tls, name, e);
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
    if (m->is_chunked && http_join_chunks(b->data, b->n, &b->n, e) < 0)
        return fail(e, E_IO, "%s closed the connection in the middle of its reply", s->name);
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
