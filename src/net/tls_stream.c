#include "net/tls_stream.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"
#include "net/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __aarch64__
#include <sys/auxv.h>
#endif

#include <openssl/err.h>
#include <openssl/ssl.h>

#define READ_AHEAD    (128L << 10) // what is read from the socket at once: 8 records of TLS
#define SCRATCH       4096         // ignored input is read in pieces of this size,
#define IGNORED_ROUND 16           // and at most so many at a time: writing goes on whatever the other end sends
#define KEEP_IDLE_S   10
#define KEEP_EVERY_S  5
#define KEEP_COUNT    4

struct tls_stream {
    int fd; // non-blocking
    SSL *ssl;
    int stall_ms;
    bool ignores_input;
    int64_t moved_ms; // when this call began, or a byte was read or written
    char name[128];
};

DEFINE_AUTO(struct tls_stream *, tls_stream_free)
DEFINE_AUTO(struct addrinfo *, freeaddrinfo)

// ---- connecting

// A connection whose other end's machine is gone is noticed by the kernel, too. Not TCP_USER_TIMEOUT: it also ends connections whose other
// end takes its time, but says that it is there. Sockets that aren't TCP don't have these.
static void set_socket_options(int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S },
        { IPPROTO_TCP, TCP_KEEPINTVL, KEEP_EVERY_S },
        { IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT },
        { IPPROTO_TCP, TCP_NODELAY, 1 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

// How long is left, for poll(2).
static int left_ms(int64_t until)
{
    int64_t left = until - clock_boot_ms();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

// Returns 0 or an errno value.
static int connect_one(const struct addrinfo *to, int64_t until, int *ret)
{
    AUTO(close) int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = 0;
    socklen_t n = sizeof err;
    if (fd < 0)
        return errno;
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS)
        return errno;
    struct pollfd p = { fd, POLLOUT, 0 };
    int got;
    while ((got = poll(&p, 1, left_ms(until))) < 0 && errno == EINTR)
        ;
    if (got <= 0)
        return got < 0 ? errno : ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0 || err)
        return err ? err : errno;
    *ret = TAKE(fd, -1);
    return 0;
}

int tls_stream_connect(const char *host, uint16_t port, int timeout_ms, struct error *e)
{
    char service[8];
    AUTO(freeaddrinfo) struct addrinfo *found = NULL;
    const struct addrinfo want = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(host, service, &want, &found);
    if (rc != 0)
        return fail(e, E_UNAVAILABLE, "connect to %s: %s", host, gai_strerror(rc));
    int64_t until = clock_boot_ms() + timeout_ms;
    int err = ENOENT, fd = -1;
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        err = connect_one(a, until, &fd);
        if (err == 0)
            return fd;
    }
    if (err == ETIMEDOUT)
        return fail(e, E_TIMEOUT, "connect to %s port %u: no answer within %d ms", host, port, timeout_ms);
    return fail(e, E_UNAVAILABLE, "connect to %s port %u: %s", host, port, strerror(err));
}

// ---- errors

// Alerts by which the other end says that it does not like our certificate (RFC 8446, 6.2).
static bool is_about_certificate(int reason)
{
    static const int alerts[] = {
        SSL_AD_BAD_CERTIFICATE,     SSL_AD_UNSUPPORTED_CERTIFICATE, SSL_AD_CERTIFICATE_REVOKED,   SSL_AD_CERTIFICATE_EXPIRED,
        SSL_AD_CERTIFICATE_UNKNOWN, SSL_AD_UNKNOWN_CA,              SSL_AD_ACCESS_DENIED,         SSL_AD_CERTIFICATE_REQUIRED,
    };
    for (size_t i = 0; i < ARRAY_SIZE(alerts); i++)
        if (reason == SSL_AD_REASON_OFFSET + alerts[i])
            return true;
    return false;
}

// What OpenSSL's error `ssl_error` means for the connection. Leaves its error queue empty.
static int stream_lost(const struct tls_stream *s, int ssl_error, struct error *e)
{
    int err = errno;
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    char why[PKI_WHY_SIZE];
    ERR_clear_error();
    if (ssl_error == SSL_ERROR_ZERO_RETURN)
        return fail(e, E_UNAVAILABLE, "%s closed the connection", s->name);
    if (ssl_error == SSL_ERROR_SYSCALL && err)
        return fail(e, E_UNAVAILABLE, "the connection to %s broke: %s", s->name, strerror(err));
    if (ssl_error == SSL_ERROR_SYSCALL || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return fail(e, E_UNAVAILABLE, "the connection to %s broke", s->name);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return fail(e, E_DENIED, "the certificate of %s is not valid here: %s", s->name, pki_why_not(SSL_get_verify_result(s->ssl), why));
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return fail(e, E_DENIED, "%s has no certificate", s->name);
    if (is_about_certificate(reason))
        return fail(e, E_DENIED, "%s refuses our certificate: %s", s->name, pki_why_refused(reason, text, why));
    return fail(e, E_UNAVAILABLE, "TLS with %s: %s", s->name, text ? text : "OpenSSL gives no reason");
}

// ---- waiting

// Waits until the socket can do what `events` says; also returns when it has something to say that is to be ignored. Never beyond `until`.
static int stream_wait(struct tls_stream *s, short events, int64_t until, struct error *e)
{
    int64_t stalled = s->moved_ms + s->stall_ms;
    struct pollfd p = { s->fd, events, 0 };
    int got;
    while ((got = poll(&p, 1, left_ms(until < stalled ? until : stalled))) < 0 && errno == EINTR)
        ;
    if (got < 0)
        return fail_os(e, errno, "wait for %s", s->name);
    if (got > 0)
        return p.revents;
    if (clock_boot_ms() >= stalled)
        return fail(e, E_TIMEOUT, "nothing came from %s, or went there, for %d ms", s->name, s->stall_ms);
    return fail(e, E_TIMEOUT, "%s takes too long", s->name);
}

// After an incomplete call of OpenSSL: waits for what it wants.
static int stream_wait_for_ssl(struct tls_stream *s, int result, short more, int64_t until, struct error *e)
{
    int ssl_error = SSL_get_error(s->ssl, result);
    if (ssl_error == SSL_ERROR_WANT_READ)
        return stream_wait(s, (short)(POLLIN | more), until, e);
    if (ssl_error == SSL_ERROR_WANT_WRITE)
        return stream_wait(s, (short)(POLLOUT | more), until, e);
    return stream_lost(s, ssl_error, e);
}

// Reads some bytes, at least one. errno and OpenSSL's errors are cleared first: SSL_get_error looks at both.
static int read_some(struct tls_stream *s, void *ret, size_t n, int64_t until, struct error *e)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(s->ssl, ret, n > INT_MAX ? INT_MAX : (int)n);
        if (got > 0) {
            s->moved_ms = clock_boot_ms();
            return got;
        }
        int rc = stream_wait_for_ssl(s, got, 0, until, e);
        if (rc < 0)
            return rc;
    }
}

static int drop_input(struct tls_stream *s, struct error *e)
{
    char scratch[SCRATCH];
    for (int round = 0; round < IGNORED_ROUND; round++) {
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(s->ssl, scratch, sizeof scratch);
        if (got <= 0) {
            int ssl_error = SSL_get_error(s->ssl, got);
            bool is_empty = ssl_error == SSL_ERROR_WANT_READ || ssl_error == SSL_ERROR_WANT_WRITE;
            return is_empty ? 0 : stream_lost(s, ssl_error, e);
        }
        s->moved_ms = clock_boot_ms();
    }
    return 0;
}

// ---- handshake

static bool cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes") != 0;
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
    return false;
#endif
}

// Reading goes through a buffer: each read from the socket costs an acknowledgement, so there should be few. Not through OpenSSL's own
// (SSL_set_read_ahead): with each record it moves all that follows to its front.
static bool set_socket(struct tls_stream *s)
{
    BIO *plain = BIO_new_socket(s->fd, BIO_NOCLOSE), *buffer = BIO_new(BIO_f_buffer());
    if (!plain || !buffer || BIO_set_read_buffer_size(buffer, READ_AHEAD) != 1 || BIO_up_ref(plain) != 1) {
        BIO_free(plain);
        BIO_free(buffer);
        return false;
    }
    SSL_set0_rbio(s->ssl, BIO_push(buffer, plain));
    SSL_set0_wbio(s->ssl, plain);
    return true;
}

static int set_tls(struct tls_stream *s, const struct tls_stream_config *config, struct error *e)
{
    const char *suites = cpu_has_aes() ? "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
                                       : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
    s->ssl = SSL_new(config->tls);
    if (!s->ssl || SSL_set_min_proto_version(s->ssl, TLS1_3_VERSION) != 1 || SSL_set_ciphersuites(s->ssl, suites) != 1 ||
        !set_socket(s)) {
        ERR_clear_error();
        return fail(e, E_IO, "set up TLS with %s", s->name);
    }
    SSL_set_mode(s->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_clear_mode(s->ssl, SSL_MODE_RELEASE_BUFFERS); // they are used all the time
    if (SSL_is_server(s->ssl))
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
    return 0;
}

static int handshake(struct tls_stream *s, int timeout_ms, struct error *e)
{
    int64_t until = clock_boot_ms() + timeout_ms;
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int rc = SSL_do_handshake(s->ssl);
        if (rc == 1)
            return 0;
        if ((rc = stream_wait_for_ssl(s, rc, 0, until, e)) < 0)
            return rc;
    }
}

static int check_name(struct tls_stream *s, const char *wanted, struct error *e)
{
    char name[sizeof s->name];
    const X509 *certificate = SSL_get0_peer_certificate(s->ssl);
    if (!certificate || SSL_get_verify_result(s->ssl) != X509_V_OK || !pki_subject_name(certificate, name, sizeof name))
        return fail(e, E_DENIED, "%s has no usable certificate", s->name);
    if (wanted && strcmp(name, wanted) != 0)
        return fail(e, E_DENIED, "expected %s, and found %s there", wanted, name);
    memcpy(s->name, name, sizeof name);
    return 0;
}

int tls_stream_open(int fd, const struct tls_stream_config *config, struct tls_stream **ret, struct error *e)
{
    AUTO(tls_stream_free) struct tls_stream *s = xcalloc(1, sizeof *s);
    *s = (struct tls_stream){ .fd = fd, .stall_ms = config->stall_ms, .moved_ms = clock_boot_ms() };
    snprintf(s->name, sizeof s->name, "%s", config->peer_name ? config->peer_name : "the other end");
    socket_ignore_sigpipe();
    set_socket_options(fd);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return fail_os(e, errno, "set up the connection to %s", s->name);
    int rc = set_tls(s, config, e);
    if (rc < 0 || (rc = handshake(s, config->handshake_ms, e)) < 0 || (rc = check_name(s, config->peer_name, e)) < 0)
        return rc;
    *ret = TAKE(s, NULL);
    return 0;
}

void tls_stream_free(struct tls_stream *s)
{
    if (!s)
        return;
    SSL_free(s->ssl);
    close(s->fd);
    free(s);
}

const char *tls_stream_peer_name(const struct tls_stream *s)
{
    return s->name;
}

// ---- reading and writing

// What went on between two calls is not held against the other end. Returns the time.
static int64_t stream_begin(struct tls_stream *s)
{
    return s->moved_ms = clock_boot_ms();
}

int tls_stream_read(struct tls_stream *s, void *ret, size_t n, int timeout_ms, struct error *e)
{
    char *p = ret;
    int64_t until = stream_begin(s) + timeout_ms;
    while (n) {
        int got = read_some(s, p, n, until, e);
        if (got < 0)
            return got;
        if (clock_boot_ms() > until)
            return fail(e, E_TIMEOUT, "%s takes too long", s->name);
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int tls_stream_read_line(struct tls_stream *s, char *ret, size_t size, int timeout_ms, struct error *e)
{
    int64_t until = stream_begin(s) + timeout_ms;
    for (size_t n = 0; n < size; n++) {
        int got = read_some(s, ret + n, 1, until, e); // one at a time: what follows is no line. OpenSSL has them in its buffer
        if (got < 0)
            return got;
        if (clock_boot_ms() > until)
            return fail(e, E_TIMEOUT, "%s takes too long", s->name);
        if (ret[n] == '\n') {
            ret[n] = '\0';
            return 0;
        }
    }
    return fail(e, E_TOO_LARGE, "%s sent a line of more than %zu bytes", s->name, size - 1);
}

int tls_stream_write(struct tls_stream *s, const void *data, size_t n, int timeout_ms, struct error *e)
{
    const char *p = data;
    int64_t until = stream_begin(s) + timeout_ms;
    while (n) {
        ERR_clear_error();
        errno = 0;
        int done = SSL_write(s->ssl, p, n > INT_MAX ? INT_MAX : (int)n);
        if (done > 0) {
            s->moved_ms = clock_boot_ms();
            p += done;
            n -= (size_t)done;
            continue;
        }
        int rc = stream_wait_for_ssl(s, done, s->ignores_input ? POLLIN : 0, until, e);
        if (rc > 0 && s->ignores_input && (rc & (POLLIN | POLLHUP | POLLERR)))
            rc = drop_input(s, e);
        if (rc == 0 && clock_boot_ms() > until)
            rc = fail(e, E_TIMEOUT, "%s takes too long", s->name);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void tls_stream_ignore_input(struct tls_stream *s)
{
    s->ignores_input = true;
}

int tls_stream_rest(struct tls_stream *s, int ms, struct error *e)
{
    ASSERT(s->ignores_input);
    int64_t until = clock_boot_ms() + ms;
    for (int left; (left = left_ms(until)) > 0;) {
        struct pollfd p = { s->fd, POLLIN, 0 };
        int got = poll(&p, 1, left);
        if (got < 0 && errno != EINTR)
            return fail_os(e, errno, "wait for %s", s->name);
        int rc = got > 0 ? drop_input(s, e) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

void tls_stream_finish(struct tls_stream *s, int timeout_ms)
{
    struct error ignored;
    char scratch[SCRATCH];
    int64_t until = stream_begin(s) + timeout_ms;
    ERR_clear_error();
    if (SSL_shutdown(s->ssl) < 0)
        ERR_clear_error();
    while (read_some(s, scratch, sizeof scratch, until, &ignored) > 0 && clock_boot_ms() < until)
        ;
}
