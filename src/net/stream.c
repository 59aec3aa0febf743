#include "net/stream.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/pki.h"
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

DEFINE_AUTO(struct addrinfo *, freeaddrinfo)

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
    int number = ERR_GET_REASON(err);
    bool is_alert = err && ERR_GET_LIB(err) == ERR_LIB_SSL && number >= SSL_AD_REASON_OFFSET;
    char why[PKI_WHY_SIZE];
    ERR_clear_error();
    if (pki_is_about_time(verdict))
        return fail(e, E_DENIED, "the certificate of %s is not valid here: %s", s->name, pki_why_not(verdict, why));
    if (verdict != X509_V_OK)
        return fail(e, E_DENIED, "%s is not who it should be: %s", s->name, pki_why_not(verdict, why));
    if (is_alert)
        return fail(e, E_DENIED, "%s refuses our certificate or TLS version: %s", s->name, pki_why_refused(number, reason, why));
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

static int expect_name(const struct stream *s, const char *name, struct error *e)
{
    struct in6_addr address;
    bool is_ip = inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    int is_set = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(param, name) : X509_VERIFY_PARAM_set1_host(param, name, 0);
    if (is_set != 1 || (!is_ip && SSL_set_tlsext_host_name(s->ssl, name) != 1))
        return fail(e, E_INVALID, "\"%s\" is not a name that a certificate can hold", name);
    return 0;
}

int stream_start_tls(struct stream *s, struct ssl_ctx_st *tls, const char *name, struct error *e)
{
    s->ssl = SSL_new(tls);
    if (!s->ssl || SSL_set_fd(s->ssl, s->fd) != 1)
        return fail(e, E_IO, "start TLS with %s", s->name);
    int named = name ? expect_name(s, name, e) : 0;
    if (named < 0)
        return named;
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

int stream_write(const struct stream *s, const char *data, size_t n, struct error *e)
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

ssize_t stream_read(const struct stream *s, char *ret, size_t n, struct error *e)
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

// ---- connecting

static int connect_to(struct stream *s, const struct addrinfo *at, struct error *e)
{
    int err = 0;
    socklen_t n = sizeof err;
    s->fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) // perhaps an address family that this kernel lacks: the next address may do
        return fail(e, E_UNAVAILABLE, "connect to %s: %s", s->name, strerror(errno));
    socket_set_nodelay(s->fd);
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

int stream_connect(struct stream *s, const char *host, uint16_t port, struct error *e)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo want = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    AUTO(freeaddrinfo) struct addrinfo *found = NULL;
    int err = getaddrinfo(host, service, &want, &found);
    if (err)
        return fail(e, E_UNAVAILABLE, "look up %s: %s", host, gai_strerror(err));
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

int stream_connect_unix(struct stream *s, const char *path, int timeout_ms, struct error *e)
{
    s->fd = socket_connect_unix(path, timeout_ms, e);
    if (s->fd < 0)
        return s->fd;
    return fcntl(s->fd, F_SETFL, O_NONBLOCK) < 0 ? fail_os(e, errno, "connect to %s", s->name) : 0;
}

void stream_close(struct stream *s)
{
    if (s->ssl) {
        SSL_shutdown(s->ssl);
        SSL_free(s->ssl);
        ERR_clear_error();
    }
    if (s->fd >= 0)
        close(s->fd);
}

