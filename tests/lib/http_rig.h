// An HTTP server in a thread of its own, on unix sockets, TCP and TLS, and peers that send it bytes. Everything that asserts is in the main thread.
#ifndef FLOCKER_TESTS_HTTP_RIG_H
#define FLOCKER_TESTS_HTTP_RIG_H

#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/pki.h"
#include "net/socket.h"

#include <errno.h>
#include <event2/event.h>
#include <ftw.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { KIND_UNIX, KIND_TCP, KIND_TLS };
#define HELD_MAX 128
#define BIG      (8U << 20)

struct rig {
    char dir[64], path[96];
    uint16_t port;
    pthread_t thread;
    int command[2]; // a pipe: bytes to the thread
    struct event_base *base;
    struct http_server *server;
    SSL_CTX *tls;
    struct http_exchange *held[HELD_MAX];
    size_t held_count;
    char *big;
    atomic_int requests, holding, sent, unsent, gone, connections, commands_done;
};

static inline void on_sent(void *arg, bool sent)
{
    struct rig *r = arg;
    atomic_fetch_add(sent ? &r->sent : &r->unsent, 1);
}

// A reply in pieces: as many as `left`, or without an end.
struct stream_reply {
    struct rig *r;
    struct http_exchange *x;
    int left, count;
    bool is_endless;
};

static inline void on_turn(void *arg, bool is_there)
{
    struct stream_reply *s = arg;
    char text[32];
    if (is_there && s->is_endless)
        http_stream_send(s->x, s->r->big, 65536);
    else if (is_there && s->left-- > 0)
        http_stream_send(s->x, text, (size_t)snprintf(text, sizeof text, "piece %d;", s->count++));
    else {
        http_stream_end(s->x);
        atomic_fetch_add(is_there ? &s->r->sent : &s->r->unsent, 1);
        free(s);
    }
}

static inline void start_stream(struct rig *r, struct http_exchange *x, int pieces, bool is_endless)
{
    struct stream_reply *s = xcalloc(1, sizeof *s);
    *s = (struct stream_reply){ .r = r, .x = x, .left = pieces, .is_endless = is_endless };
    if (!http_stream_begin(x, 200, NULL, "text/plain", on_turn, s)) {
        http_stream_end(x);
        free(s);
    }
}

static inline void on_request(struct http_exchange *x, void *arg)
{
    struct rig *r = arg;
    size_t n;
    const char *target = http_request(x)->target, *body = http_body(x, &n);
    const struct http_peer *p = http_exchange_peer(x);
    char text[256];
    atomic_fetch_add(&r->requests, 1);
    if (strcmp(target, "/drop") == 0) {
        http_drop(x);
    } else if (strcmp(target, "/hold") == 0) {
        r->held[r->held_count++] = x;
        atomic_fetch_add(&r->holding, 1);
    } else if (strcmp(target, "/big") == 0) {
        http_reply(x, 200, NULL, "application/octet-stream", r->big, BIG, on_sent, r);
    } else if (strcmp(target, "/stream") == 0 || strcmp(target, "/empty-stream") == 0) {
        start_stream(r, x, target[1] == 's' ? 3 : 0, false);
    } else if (strcmp(target, "/flood") == 0) {
        start_stream(r, x, 0, true);
    } else if (strcmp(target, "/who") == 0) {
        snprintf(text, sizeof text, "%d %ld %ld %s", p->is_unix, (long)p->pid, (long)(int)p->uid, p->common_name);
        http_reply(x, 200, NULL, "text/plain", text, strlen(text), on_sent, r);
    } else if (strcmp(target, "/method") == 0) {
        http_reply(x, 201, "X-Extra: yes\r\n", "text/plain", http_request(x)->method, strlen(http_request(x)->method), on_sent, r);
    } else {
        http_reply(x, 200, NULL, "text/plain", n ? body : target, n ? n : strlen(target), on_sent, r);
    }
}

static inline void release_held(struct rig *r)
{
    for (size_t i = 0; i < r->held_count; i++) {
        if (http_peer_is_gone(r->held[i]))
            atomic_fetch_add(&r->gone, 1);
        http_reply(r->held[i], 200, NULL, "text/plain", "held", 4, on_sent, r);
    }
    r->held_count = 0;
}

static inline bool is_alice(const struct http_peer *peer, void *arg)
{
    (void)arg;
    return strcmp(peer->common_name, "user-alice") == 0 && strlen(peer->key) == 64;
}

static inline void on_command(evutil_socket_t fd, short what, void *arg)
{
    struct rig *r = arg;
    char c;
    (void)what;
    ASSERT(read((int)fd, &c, 1) == 1);
    switch (c) {
    case 'q':
        event_base_loopbreak(r->base);
        break;
    case 'r':
        release_held(r);
        break;
    case 'f':
        http_server_free(r->server);
        r->server = NULL;
        break;
    case 'x':
        http_server_expel(r->server, is_alice, NULL);
        break;
    case 'n':
        atomic_store(&r->connections, (int)http_server_connections(r->server));
        break;
    }
    atomic_fetch_add(&r->commands_done, 1);
}

static inline void *serve(void *arg)
{
    struct rig *r = arg;
    struct event *commands = event_new(r->base, r->command[0], EV_READ | EV_PERSIST, on_command, r);
    event_add(commands, NULL);
    event_base_dispatch(r->base);
    event_free(commands);
    http_server_free(r->server);
    release_held(r);
    return NULL;
}

static inline void must(int rc, const struct error *e)
{
    if (rc < 0)
        fail_msg("%s", e->msg);
}

static inline char *in_dir(const struct rig *r, const char *name)
{
    return xasprintf("%s/%s", r->dir, name);
}

static inline SSL_CTX *context(const struct rig *r, bool server, const char *ca, const char *pair)
{
    struct error e;
    struct ssl_ctx_st *ctx = NULL;
    AUTO(free) char *ca_path = xasprintf("%s/%s/cluster.crt", r->dir, ca);
    AUTO(free) char *certificate = xasprintf("%s/%s.crt", r->dir, pair);
    AUTO(free) char *key = xasprintf("%s/%s.key", r->dir, pair);
    must((server ? pki_server_context : pki_client_context)(ca_path, certificate, key, &ctx, &e), &e);
    return ctx;
}

// Two clusters; the server is of the first.
static inline void make_certificates(const struct rig *r)
{
    static const char *const names[] = { "flocker.test", NULL }, *const ips[] = { "127.0.0.1", NULL };
    static const struct {
        const char *ca, *file, *name;
        unsigned use;
    } pairs[] = {
        { "ca1", "server", "control-service", PKI_SERVER },
        { "ca1", "alice", "user-alice", PKI_CLIENT },
        { "ca1", "wrong-use", "user-mallory", PKI_SERVER },
        { "ca2", "stranger", "user-stranger", PKI_CLIENT },
    };
    struct error e;
    for (int i = 1; i <= 2; i++) {
        AUTO(free) char *dir = xasprintf("%s/ca%d", r->dir, i);
        assert_int_equal(mkdir(dir, 0700), 0);
        must(pki_make_ca(dir, "cluster", 30, &e), &e);
    }
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        AUTO(free) char *ca = in_dir(r, pairs[i].ca);
        struct pki_request q = { .common_name = pairs[i].name, .use = pairs[i].use, .dns = names, .ip = ips, .days = 10 };
        must(pki_make_certificate(ca, r->dir, pairs[i].file, &q, &e), &e);
    }
}

static inline struct rig *rig_start_with(int kind, bool keep_alive, size_t connections_max, int request_ms_max)
{
    struct error e;
    struct rig *r = xcalloc(1, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "/tmp/flocker-http-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/s", r->dir);
    r->big = xcalloc(1, BIG);
    memset(r->big, 'b', BIG);
    assert_int_equal(pipe(r->command), 0);
    if (kind == KIND_TLS) {
        make_certificates(r);
        r->tls = context(r, true, "ca1", "server");
    }
    int fd = kind == KIND_UNIX ? socket_listen_unix(r->path, 0600, &e) : socket_listen_tcp("127.0.0.1", 0, &e);
    must(fd, &e);
    r->port = kind == KIND_UNIX ? 0 : socket_port(fd);
    r->base = event_base_new();
    struct http_server_config config = { .base = r->base, .listen_fd = fd, .tls = r->tls, .keep_alive = keep_alive,
        .on_request = on_request, .arg = r, .connections_max = connections_max, .request_ms_max = request_ms_max };
    r->server = http_server_new(&config, &e);
    if (!r->server)
        fail_msg("%s", e.msg);
    assert_int_equal(pthread_create(&r->thread, NULL, serve, r), 0);
    return r;
}

static inline struct rig *rig_start(int kind)
{
    return rig_start_with(kind, true, 0, 0);
}

static inline void command(struct rig *r, char c)
{
    int before = atomic_load(&r->commands_done);
    assert_int_equal(write(r->command[1], &c, 1), 1);
    while (atomic_load(&r->commands_done) == before)
        usleep(1000);
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static inline void remove_tree(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void rig_stop(struct rig *r)
{
    command(r, 'q');
    pthread_join(r->thread, NULL);
    event_base_free(r->base);
    SSL_CTX_free(r->tls);
    close(r->command[0]);
    close(r->command[1]);
    remove_tree(r->dir);
    free(r->big);
    free(r);
}

// Waits for a counter of the server's thread.
static inline void wait_for(atomic_int *n, int want)
{
    for (int i = 0; i < 5000 && atomic_load(n) < want; i++)
        usleep(1000);
    assert_int_equal(atomic_load(n), want);
}

static inline int connections(struct rig *r)
{
    command(r, 'n');
    return atomic_load(&r->connections);
}

static inline void wait_for_connections(struct rig *r, int want)
{
    for (int i = 0; i < 500 && connections(r) != want; i++)
        usleep(10000);
    assert_int_equal(connections(r), want);
}

// ---- raw peers

static inline int raw_connect(const struct rig *r)
{
    struct error e;
    int fd;
    if (r->port) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof at), 0);
    } else {
        fd = socket_connect_unix(r->path, 5000, &e);
        must(fd, &e);
    }
    struct timeval limit = { .tv_sec = 10 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return fd;
}

static inline void raw_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

// Everything until the server closes, NUL-terminated. A reset counts as an end: what matters is what came before.
static inline char *raw_read_all(int fd)
{
    size_t n = 0;
    char *text = xcalloc(1, 1);
    for (;;) {
        text = xrealloc(text, n + 65537, 1);
        ssize_t got = recv(fd, text + n, 65536, 0);
        if (got < 0)
            assert_int_equal(errno, ECONNRESET);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = 0;
    return text;
}

// One reply with a length; returns head and body as one text.
static inline char *raw_read_reply(int fd)
{
    char *text = xcalloc(1, 65536);
    size_t n = 0, want = SIZE_MAX;
    while (n < want && n < 65535) {
        ssize_t got = recv(fd, text + n, 1, 0);
        if (got <= 0)
            break;
        n++;
        const char *end = want == SIZE_MAX ? strstr(text, "\r\n\r\n") : NULL;
        if (end) {
            const char *length = strstr(text, "Content-Length: ");
            assert_non_null(length);
            want = (size_t)(end + 4 - text) + strtoul(length + 16, NULL, 10);
        }
    }
    return text;
}

static inline bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static inline size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

// Sends one text and compares the start of all that comes back.
static inline void exchange(struct rig *r, const char *text, const char *status)
{
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, text);
    AUTO(free) char *reply = raw_read_all(fd);
    if (!starts(reply, status))
        fail_msg("got %s instead of %s", reply, status);
}

#define GET(target)       "GET " target " HTTP/1.1\r\nHost: \r\n\r\n"
#define GET_CLOSE(target) "GET " target " HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"

#endif
