// HTTP: the parser over tables of good and bad bytes, and the server and client against each other and against peers that misbehave.
// The server runs in a thread of its own, on unix sockets, TCP and TLS; everything that asserts is in the main thread.
#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/pki.h"
#include "net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <openssl/ssl.h>

// ---- parser

// Parses a copy of exactly n + 1 bytes, so that a sanitizer sees any byte too far.
static int parse(int (*fn)(char *, size_t, struct http_message *, struct error *), const char *text, size_t n, struct http_message *m,
                 char **ret_head)
{
    struct error e = ERROR_INIT;
    *ret_head = xcalloc(1, n + 1);
    memcpy(*ret_head, text, n);
    int rc = fn(*ret_head, n, m, &e);
    if (rc < 0)
        assert_true(e.msg[0]);
    return rc;
}

static void parser_reads_what_clients_send(void **state)
{
    (void)state;
    static const struct {
        const char *text, *method, *target;
        size_t headers, length;
        int minor;
        bool has_length, keep_alive;
    } good[] = {
        { "POST /Plugin.Activate HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n"
          "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
          "POST", "/Plugin.Activate", 4, 0, 1, true, true },
        { "POST /VolumeDriver.Get HTTP/1.1\r\nHost: \r\nContent-Length: 14\r\n\r\n", "POST", "/VolumeDriver.Get", 2, 14, 1, true, true },
        { "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", "/", 1, 0, 1, false, true },
        { "GET / HTTP/1.1\r\n\r\n", "GET", "/", 0, 0, 1, false, true },
        { "GET / HTTP/1.0\r\n\r\n", "GET", "/", 0, 0, 0, false, false },
        { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", 1, 0, 0, false, true },
        { "GET / HTTP/1.1\r\nCONNECTION: foo, Close\r\n\r\n", "GET", "/", 1, 0, 1, false, false },
        { "GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", "GET", "/", 2, 0, 0, false, false },
        { "GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", "GET", "/", 1, 0, 1, false, true },
        { "DELETE /v1/x%20y?a=b&c=%2F HTTP/1.1\r\nX:\t a b \t\r\n\r\n", "DELETE", "/v1/x%20y?a=b&c=%2F", 1, 0, 1, false, true },
        { "P0ST!#$%&'*+-.^_`|~ // HTTP/1.1\r\nX: \xc3\xbc\r\n\r\n", "P0ST!#$%&'*+-.^_`|~", "//", 1, 0, 1, false, true },
        { "PUT / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 005\r\n\r\n", "PUT", "/", 2, 5, 1, true, true },
        { "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", "PUT", "/", 1, SIZE_MAX, 1, true, true },
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct http_message m = { 0 };
        AUTO(free) char *head = NULL;
        int rc = parse(http_parse_request, good[i].text, strlen(good[i].text), &m, &head);
        assert_int_equal(rc, 0);
        assert_string_equal(m.method, good[i].method);
        assert_string_equal(m.target, good[i].target);
        assert_int_equal(m.header_count, good[i].headers);
        assert_int_equal(m.content_length, good[i].length);
        assert_int_equal(m.has_length, good[i].has_length);
        assert_int_equal(m.minor_version, good[i].minor);
        assert_int_equal(m.keep_alive, good[i].keep_alive);
    }
}

static void parser_trims_values_and_finds_them(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nA:1\r\nB: \t two words \t \r\nEmpty:\r\nBlank:   \r\n\r\n";
    struct http_message m;
    AUTO(free) char *head = NULL;
    assert_int_equal(parse(http_parse_request, text, sizeof text - 1, &m, &head), 0);
    assert_string_equal(http_header_get(&m, "a"), "1");
    assert_string_equal(http_header_get(&m, "B"), "two words");
    assert_string_equal(http_header_get(&m, "EMPTY"), "");
    assert_string_equal(http_header_get(&m, "blank"), "");
    assert_null(http_header_get(&m, "C"));
}

#define BAD(text, code) { text, sizeof text - 1, code }
static void parser_refuses_bad_requests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        int code;
    } bad[] = {
        // line ends
        BAD("", E_INVALID), BAD("\r\n", E_INVALID), BAD("\n\n", E_INVALID), BAD("GET / HTTP/1.1", E_INVALID),
        BAD("GET / HTTP/1.1\n\n", E_INVALID), BAD("GET / HTTP/1.1\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\n\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: b\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: b\r\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: b\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA: b\r\n\r", E_INVALID),
        BAD("GET / HTTP/1.1\r\n\r\nmore", E_INVALID),
        // NUL and other control characters
        BAD("GET /\0 HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA\0: b\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", E_INVALID), BAD("\0\0\0\0", E_INVALID), BAD("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: \x1b[0m\r\n\r\n", E_INVALID), BAD("GET /\x01 HTTP/1.1\r\n\r\n", E_INVALID),
        // request lines
        BAD("GET\r\n\r\n", E_INVALID), BAD("GET /\r\n\r\n", E_INVALID), BAD(" / HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("GET  / HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET /  HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1 \r\n\r\n", E_INVALID),
        BAD(" GET / HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET\t/\tHTTP/1.1\r\n\r\n", E_INVALID), BAD("G(T / HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("G\xc3\x96T / HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET /a b HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("GET / http/1.1\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.2\r\n\r\n", E_INVALID), BAD("GET / HTTP/2.0\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/0.9\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.10\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.\r\n\r\n", E_INVALID),
        BAD("PRI * HTTP/2.0\r\n\r\n", E_INVALID), BAD("\x16\x03\x01\x02\r\n\r\n", E_INVALID),
        // absurd targets
        BAD("GET * HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET http://x/ HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("CONNECT x:1 HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET .. HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("GET /a#b HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET /\xc3\xbc HTTP/1.1\r\n\r\n", E_INVALID),
        BAD("GET ?a=b HTTP/1.1\r\n\r\n", E_INVALID), BAD("GET \\a HTTP/1.1\r\n\r\n", E_INVALID),
        // headers
        BAD("GET / HTTP/1.1\r\nA : b\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA\t: b\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\n A: b\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nA: b\r\n\tc: d\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\n: b\r\n\r\n", E_INVALID), BAD("GET / HTTP/1.1\r\nA(b): c\r\n\r\n", E_INVALID),
        BAD("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", E_INVALID),
        // lengths
        BAD("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", E_INVALID), BAD("PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", E_INVALID),
        BAD("PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n", E_INVALID), BAD("PUT / HTTP/1.1\r\nContent-Length: 1 2\r\n\r\n", E_INVALID),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n", E_INVALID), BAD("PUT / HTTP/1.1\r\nContent-Length: 1.5\r\n\r\n", E_INVALID),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", E_INVALID), BAD("PUT / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", E_INVALID),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", E_INVALID),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", E_TOO_LARGE),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 999999999999999999999999999999\r\n\r\n", E_TOO_LARGE),
        BAD("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", E_UNSUPPORTED),
        BAD("PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", E_UNSUPPORTED),
        BAD("PUT / HTTP/1.1\r\nContent-Length: 5\r\ntransfer-ENCODING: chunked\r\n\r\n", E_UNSUPPORTED),
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct http_message m = { .status = 77 };
        AUTO(free) char *head = NULL;
        if (parse(http_parse_request, bad[i].text, bad[i].n, &m, &head) != -bad[i].code)
            fail_msg("request %zu is not refused as it should be: %s", i, bad[i].text);
        assert_int_equal(m.status, 77); // untouched on failure
    }
}

static void parser_limits_the_number_of_headers(void **state)
{
    (void)state;
    for (size_t count = HTTP_HEADERS_MAX; count <= HTTP_HEADERS_MAX + 1; count++) {
        char text[4096] = "GET / HTTP/1.1\r\n";
        size_t n = strlen(text);
        for (size_t i = 0; i < count; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "A: b\r\n");
        n += (size_t)snprintf(text + n, sizeof text - n, "\r\n");
        struct http_message m;
        AUTO(free) char *head = NULL;
        assert_int_equal(parse(http_parse_request, text, n, &m, &head), count > HTTP_HEADERS_MAX ? -E_TOO_LARGE : 0);
    }
}

static void parser_reads_replies(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
    } good[] = {
        { "HTTP/1.1 200 OK\r\n\r\n", 200 }, { "HTTP/1.1 404 \r\n\r\n", 404 }, { "HTTP/1.0 500\r\n\r\n", 500 },
        { "HTTP/1.1 999 a b c \xc3\xbc\r\n\r\n", 999 }, { "HTTP/1.1 100 Continue\r\n\r\n", 100 },
    };
    static const char *const bad[] = { "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 -20 OK\r\n\r\n", "HTTP/1.1 012 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 \x01\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.\r\n\r\n", "\r\n\r\n", "H\r\n\r\n" };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct http_message m;
        AUTO(free) char *head = NULL;
        assert_int_equal(parse(http_parse_reply, good[i].text, strlen(good[i].text), &m, &head), 0);
        assert_int_equal(m.status, good[i].status);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct http_message m;
        AUTO(free) char *head = NULL;
        assert_int_equal(parse(http_parse_reply, bad[i], strlen(bad[i]), &m, &head), -E_INVALID);
    }
}

static void percent_decoding(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } table[] = {
        { "", "" }, { "abc", "abc" }, { "%41%62%2f%2F", "Ab//" }, { "a%20b+c", "a b+c" }, { "%C3%BC", "\xc3\xbc" }, { "%2541", "%41" },
        { "%00", NULL }, { "a%", NULL }, { "a%4", NULL }, { "%4g", NULL }, { "%g4", NULL }, { "%%41", NULL }, { "% 41", NULL }, { "%-1", NULL },
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        AUTO(free) char *text = xstrdup(table[i].text);
        assert_int_equal(http_percent_decode(text), table[i].want != NULL);
        if (table[i].want)
            assert_string_equal(text, table[i].want);
    }
    assert_string_equal(http_status_text(200), "OK");
    assert_string_equal(http_status_text(299), "Unknown");
}

// ---- a server in a thread

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

static void on_sent(void *arg, bool sent)
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

static void on_turn(void *arg, bool is_there)
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

static void start_stream(struct rig *r, struct http_exchange *x, int pieces, bool is_endless)
{
    struct stream_reply *s = xcalloc(1, sizeof *s);
    *s = (struct stream_reply){ .r = r, .x = x, .left = pieces, .is_endless = is_endless };
    if (!http_stream_begin(x, 200, NULL, "text/plain", on_turn, s)) {
        http_stream_end(x);
        free(s);
    }
}

static void on_request(struct http_exchange *x, void *arg)
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

static void release_held(struct rig *r)
{
    for (size_t i = 0; i < r->held_count; i++) {
        if (http_peer_is_gone(r->held[i]))
            atomic_fetch_add(&r->gone, 1);
        http_reply(r->held[i], 200, NULL, "text/plain", "held", 4, on_sent, r);
    }
    r->held_count = 0;
}

static bool is_alice(const struct http_peer *peer, void *arg)
{
    (void)arg;
    return strcmp(peer->common_name, "user-alice") == 0 && strlen(peer->key) == 64;
}

static void on_command(evutil_socket_t fd, short what, void *arg)
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

static void *serve(void *arg)
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

static void must(int rc, const struct error *e)
{
    if (rc < 0)
        fail_msg("%s", e->msg);
}

static char *in_dir(const struct rig *r, const char *name)
{
    return xasprintf("%s/%s", r->dir, name);
}

static SSL_CTX *context(const struct rig *r, bool server, const char *ca, const char *pair)
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
static void make_certificates(const struct rig *r)
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

static struct rig *rig_start_with(int kind, bool keep_alive, size_t connections_max, int request_ms_max)
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

static struct rig *rig_start(int kind)
{
    return rig_start_with(kind, true, 0, 0);
}

static void command(struct rig *r, char c)
{
    int before = atomic_load(&r->commands_done);
    assert_int_equal(write(r->command[1], &c, 1), 1);
    while (atomic_load(&r->commands_done) == before)
        usleep(1000);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static void remove_tree(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void rig_stop(struct rig *r)
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
static void wait_for(atomic_int *n, int want)
{
    for (int i = 0; i < 5000 && atomic_load(n) < want; i++)
        usleep(1000);
    assert_int_equal(atomic_load(n), want);
}

static int connections(struct rig *r)
{
    command(r, 'n');
    return atomic_load(&r->connections);
}

static void wait_for_connections(struct rig *r, int want)
{
    for (int i = 0; i < 500 && connections(r) != want; i++)
        usleep(10000);
    assert_int_equal(connections(r), want);
}

// ---- raw peers

static int raw_connect(const struct rig *r)
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

static void raw_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

// Everything until the server closes, NUL-terminated. A reset counts as an end: what matters is what came before.
static char *raw_read_all(int fd)
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
static char *raw_read_reply(int fd)
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

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

// Sends one text and compares the start of all that comes back.
static void exchange(struct rig *r, const char *text, const char *status)
{
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, text);
    AUTO(free) char *reply = raw_read_all(fd);
    if (!starts(reply, status))
        fail_msg("got %s instead of %s", reply, status);
}

#define GET(target)       "GET " target " HTTP/1.1\r\nHost: \r\n\r\n"
#define GET_CLOSE(target) "GET " target " HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"

// ---- tests of the server

static void server_answers_on_every_kind_of_connection_setting(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    for (int i = 0; i < 3; i++) {
        raw_send(fd, "\r\n\r\nPOST /x HTTP/1.1\r\nHost:\r\nContent-Length: 4\r\n\r\nbody");
        AUTO(free) char *reply = raw_read_reply(fd);
        assert_string_equal(reply, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\n\r\nbody");
    }
    raw_send(fd, GET_CLOSE("/method"));
    AUTO(free) char *last = raw_read_all(fd);
    assert_string_equal(last, "HTTP/1.1 201 Created\r\nContent-Length: 3\r\nConnection: close\r\nContent-Type: text/plain\r\nX-Extra: yes\r\n\r\nGET");
    exchange(r, "GET /a HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n");
    AUTO(close) int old = raw_connect(r);
    raw_send(old, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    AUTO(free) char *kept = raw_read_reply(old);
    assert_non_null(strstr(kept, "Connection: keep-alive"));
    wait_for(&r->sent, 6);
    rig_stop(r);
}

static void server_without_keep_alive_always_closes(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, false, 0, 0);
    exchange(r, GET("/a"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n");
    exchange(r, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n");
    rig_stop(r);
}

static void head_is_get_without_a_body(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, "HEAD /method HTTP/1.1\r\nConnection: close\r\n\r\n");
    AUTO(free) char *reply = raw_read_all(fd);
    assert_string_equal(reply, "HTTP/1.1 201 Created\r\nContent-Length: 3\r\nConnection: close\r\nContent-Type: text/plain\r\nX-Extra: yes\r\n\r\n");
    rig_stop(r);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TCP);
    AUTO(close) int fd = raw_connect(r);
    static const char text[] = "POST /x HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    for (size_t i = 0; i < sizeof text - 1; i++) {
        assert_int_equal(send(fd, text + i, 1, MSG_NOSIGNAL), 1);
        usleep(500);
    }
    AUTO(free) char *reply = raw_read_all(fd);
    assert_non_null(strstr(reply, "\r\n\r\nhello"));
    rig_stop(r);
}

static void pipelined_requests_are_served_in_order_one_at_a_time(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, GET("/one") GET("/hold") "POST /three HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" GET_CLOSE("/four"));
    wait_for(&r->holding, 1);
    usleep(50000);
    assert_int_equal(atomic_load(&r->requests), 2);
    command(r, 'r');
    AUTO(free) char *reply = raw_read_all(fd);
    const char *one = strstr(reply, "/one"), *held = strstr(reply, "held"), *three = strstr(reply, "abc"), *four = strstr(reply, "/four");
    assert_true(one && held && three && four && one < held && held < three && three < four);
    assert_int_equal(count_of(reply, "HTTP/1.1 200"), 4);
    rig_stop(r);
}

// Nothing after the end of the last request of a connection is looked at, and it doesn't cost the client its reply.
static void what_follows_a_closing_request_is_ignored(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TCP);
    for (int i = 0; i < 20; i++) {
        AUTO(close) int fd = raw_connect(r);
        raw_send(fd, GET_CLOSE("/one") GET("/two"));
        (void)!send(fd, "garbage", 7, MSG_NOSIGNAL);
        AUTO(free) char *reply = raw_read_all(fd);
        assert_true(starts(reply, "HTTP/1.1 200") && strstr(reply, "/one") && !strstr(reply, "/two"));
    }
    rig_stop(r);
}

static void a_half_closed_peer_gets_its_replies(void **state)
{
    (void)state;
    for (int kind = KIND_UNIX; kind <= KIND_TCP; kind++) {
        struct rig *r = rig_start(kind);
        AUTO(close) int fd = raw_connect(r);
        raw_send(fd, GET("/hold") GET("/two"));
        shutdown(fd, SHUT_WR);
        wait_for(&r->holding, 1);
        usleep(20000);
        command(r, 'r');
        AUTO(free) char *reply = raw_read_all(fd);
        assert_int_equal(count_of(reply, "HTTP/1.1 200"), 2);
        assert_int_equal(atomic_load(&r->gone), kind == KIND_UNIX ? 0 : 1);
        wait_for(&r->sent, 2);
        wait_for_connections(r, 0);
        rig_stop(r);
    }
}

static void a_peer_that_went_is_noticed(void **state)
{
    (void)state;
    for (int kind = KIND_UNIX; kind <= KIND_TCP; kind++) {
        struct rig *r = rig_start(kind);
        int fd = raw_connect(r);
        raw_send(fd, GET("/hold"));
        wait_for(&r->holding, 1);
        if (kind == KIND_TCP) { // so that the close is a reset, which is certain to be seen before the reply
            struct linger now = { .l_onoff = 1 };
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        }
        close(fd);
        usleep(20000);
        command(r, 'r');
        assert_int_equal(atomic_load(&r->gone), 1);
        wait_for(&r->unsent, 1);
        assert_int_equal(atomic_load(&r->sent), 0);
        wait_for_connections(r, 0);
        rig_stop(r);
    }
}

static void a_peer_that_goes_during_a_long_reply_is_noticed(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    int fd = raw_connect(r);
    raw_send(fd, GET("/big"));
    char some[1000];
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    close(fd);
    wait_for(&r->unsent, 1);
    AUTO(close) int slow = raw_connect(r); // and one that reads it all
    raw_send(slow, GET_CLOSE("/big"));
    AUTO(free) char *reply = raw_read_all(slow);
    assert_int_equal(strlen(strstr(reply, "\r\n\r\n") + 4), BIG);
    wait_for(&r->sent, 1);
    rig_stop(r);
}

static void dropped_means_closed_without_a_word(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, GET("/drop"));
    AUTO(free) char *reply = raw_read_all(fd);
    assert_string_equal(reply, "");
    rig_stop(r);
}

static void bad_requests_get_an_answer_for_every_kind_of_client(void **state)
{
    (void)state;
    static const struct {
        const char *text, *status;
    } bad[] = {
        { "nonsense\r\n\r\n", "HTTP/1.1 400 " },
        { "GET / HTTP/1.1\n\n", "HTTP/1.1 400 " },
        { "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 501 " },
        { "PUT / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", "HTTP/1.1 413 " },
        { "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", "HTTP/1.1 413 " },
        { "PUT / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", "HTTP/1.1 400 " },
    };
    for (int kind = KIND_UNIX; kind <= KIND_TCP; kind++) {
        struct rig *r = rig_start(kind);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
            AUTO(close) int fd = raw_connect(r);
            raw_send(fd, bad[i].text);
            AUTO(free) char *reply = raw_read_reply(fd);
            assert_true(starts(reply, bad[i].status));
            assert_non_null(strstr(reply, "Connection: close\r\n"));
            assert_non_null(strstr(reply, "\r\n\r\n{\"description\":\""));
            assert_non_null(strstr(reply, "\",\"Err\":\""));
        }
        assert_int_equal(atomic_load(&r->requests), 0);
        wait_for_connections(r, 0);
        rig_stop(r);
    }
}

static void a_head_without_end_is_cut(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, "GET / HTTP/1.1\r\n");
    char filler[1024];
    memset(filler, 'a', sizeof filler);
    filler[0] = 'A', filler[1] = ':', filler[1022] = '\r', filler[1023] = '\n';
    for (int i = 0; i < 64; i++)
        if (send(fd, filler, sizeof filler, MSG_NOSIGNAL) < 0)
            break;
    AUTO(free) char *reply = raw_read_reply(fd);
    assert_true(starts(reply, "HTTP/1.1 413 "));
    rig_stop(r);
}

// A client that goes on sending a body that was refused still reads why.
static void a_refused_body_does_not_cost_the_answer(void **state)
{
    (void)state;
    for (int kind = KIND_UNIX; kind <= KIND_TCP; kind++) {
        struct rig *r = rig_start(kind);
        struct error e;
        AUTO(free) char *body = xcalloc(1, 3 << 20);
        struct http_call call = { .unix_path = kind == KIND_UNIX ? r->path : NULL, .host = "127.0.0.1", .port = r->port, .method = "PUT",
            .target = "/x", .body = body, .body_n = 3 << 20, .timeout_ms = 5000 };
        struct http_result result;
        must(http_call(&call, &result, &e), &e);
        assert_int_equal(result.status, 413);
        http_result_done(&result);
        call.body_n = HTTP_BODY_BYTES_MAX; // the largest that is allowed
        must(http_call(&call, &result, &e), &e);
        assert_int_equal(result.status, 200);
        assert_int_equal(result.body_n, HTTP_BODY_BYTES_MAX);
        http_result_done(&result);
        rig_stop(r);
    }
}

static void expect_continue_is_answered(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
    char interim[64] = "";
    assert_int_equal(recv(fd, interim, sizeof interim - 1, 0), 25);
    assert_string_equal(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(fd, "hello");
    AUTO(free) char *reply = raw_read_all(fd);
    assert_true(starts(reply, "HTTP/1.1 200 OK") && strstr(reply, "hello"));
    struct error e; // our own client steps over the interim reply
    struct http_call call = { .unix_path = r->path, .method = "PUT", .target = "/x", .extra = "Expect: 100-continue\r\n", .body = "abc",
        .body_n = 3, .timeout_ms = 5000 };
    struct http_result result;
    must(http_call(&call, &result, &e), &e);
    assert_string_equal(result.body, "abc");
    http_result_done(&result);
    rig_stop(r);
}

static void slow_requests_are_ended(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, true, 0, 300);
    AUTO(close) int silent = raw_connect(r), slow = raw_connect(r), body = raw_connect(r);
    int64_t start = clock_boot_ms();
    raw_send(slow, "GET / HTTP/1.1\r\n");
    raw_send(body, "PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345");
    for (int i = 0; i < 20; i++) { // a byte now and then changes nothing: the limit is for the whole request
        (void)!send(slow, "A", 1, MSG_NOSIGNAL);
        usleep(20000);
    }
    AUTO(free) char *slow_reply = raw_read_reply(slow);
    AUTO(free) char *body_reply = raw_read_reply(body);
    AUTO(free) char *silent_reply = raw_read_reply(silent);
    assert_true(starts(slow_reply, "HTTP/1.1 408 "));
    assert_true(starts(body_reply, "HTTP/1.1 408 "));
    assert_string_equal(silent_reply, "");
    assert_true(clock_boot_ms() - start < 3000);
    rig_stop(r);
}

static void an_idle_kept_connection_is_ended(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, true, 0, 300);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, GET("/hold"));
    wait_for(&r->holding, 1);
    usleep(500000); // work is not limited by the request's deadline
    command(r, 'r');
    AUTO(free) char *reply = raw_read_all(fd);
    assert_true(starts(reply, "HTTP/1.1 200 "));
    wait_for_connections(r, 0);
    rig_stop(r);
}

static void connections_without_a_byte_do_no_harm(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    for (int i = 0; i < 200; i++) {
        int fd = raw_connect(r);
        close(fd);
    }
    exchange(r, GET_CLOSE("/a"), "HTTP/1.1 200");
    wait_for_connections(r, 0);
    assert_int_equal(atomic_load(&r->requests), 1);
    rig_stop(r);
}

static void sixty_four_at_once(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, false, 0, 0);
    int fds[64];
    for (size_t i = 0; i < 64; i++) {
        fds[i] = raw_connect(r);
        raw_send(fds[i], GET("/hold"));
    }
    wait_for(&r->holding, 64);
    command(r, 'r');
    for (size_t i = 0; i < 64; i++) {
        AUTO(free) char *reply = raw_read_all(fds[i]);
        assert_true(starts(reply, "HTTP/1.1 200 "));
        close(fds[i]);
    }
    wait_for(&r->sent, 64);
    rig_stop(r);
}

// Peers that take every place and send nothing do not lock an honest client out.
static void at_the_limit_an_honest_client_is_still_served(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, true, 8, 60000);
    int loris[24];
    for (size_t i = 0; i < 24; i++) {
        loris[i] = raw_connect(r);
        (void)!send(loris[i], "GET / HT", 8, MSG_NOSIGNAL);
    }
    int64_t start = clock_boot_ms();
    exchange(r, GET_CLOSE("/a"), "HTTP/1.1 200");
    assert_true(clock_boot_ms() - start < 5000);
    assert_true(connections(r) <= 8);
    for (size_t i = 0; i < 24; i++)
        close(loris[i]);
    rig_stop(r);
}

static void at_the_limit_a_burst_of_honest_clients_waits(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, false, 4, 60000);
    int fds[32];
    for (size_t i = 0; i < 32; i++) {
        fds[i] = raw_connect(r);
        raw_send(fds[i], GET("/a"));
    }
    for (size_t i = 0; i < 32; i++) {
        AUTO(free) char *reply = raw_read_all(fds[i]);
        assert_true(starts(reply, "HTTP/1.1 200 "));
        close(fds[i]);
    }
    rig_stop(r);
}

static void when_all_are_at_work_one_more_is_closed(void **state)
{
    (void)state;
    struct rig *r = rig_start_with(KIND_UNIX, false, 4, 0);
    int fds[4];
    for (size_t i = 0; i < 4; i++) {
        fds[i] = raw_connect(r);
        raw_send(fds[i], GET("/hold"));
    }
    wait_for(&r->holding, 4);
    AUTO(close) int fd = raw_connect(r);
    AUTO(free) char *reply = raw_read_all(fd);
    assert_string_equal(reply, "");
    command(r, 'r');
    for (size_t i = 0; i < 4; i++) {
        AUTO(free) char *held = raw_read_all(fds[i]);
        assert_true(starts(held, "HTTP/1.1 200 "));
        close(fds[i]);
    }
    exchange(r, GET("/a"), "HTTP/1.1 200");
    rig_stop(r);
}

// Out of descriptors: the server waits instead of spinning, and serves again when there are some.
static void without_descriptors_it_waits(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    exchange(r, GET_CLOSE("/a"), "HTTP/1.1 200");
    wait_for_connections(r, 0);
    AUTO(close) int client = raw_connect(r), other = socket(AF_UNIX, SOCK_STREAM, 0);
    struct rlimit before, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    wait_for_connections(r, 1);
    now = before;
    now.rlim_cur = (rlim_t)other + 1;
    int fill[64], filled = 0; // closes holes below `other`
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    while (filled < 64 && (fill[filled] = dup(other)) >= 0)
        filled++;
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    memcpy(at.sun_path, r->path, strlen(r->path));
    int rc = connect(other, (const struct sockaddr *)&at, sizeof at);
    raw_send(client, GET_CLOSE("/a")); // others are served meanwhile
    struct timespec cpu[2];
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
    setrlimit(RLIMIT_NOFILE, &before);
    while (filled)
        close(fill[--filled]);
    assert_int_equal(rc, 0);
    long used_ms = (cpu[1].tv_sec - cpu[0].tv_sec) * 1000 + (cpu[1].tv_nsec - cpu[0].tv_nsec) / 1000000;
    assert_true(used_ms < 150);
    AUTO(free) char *first = raw_read_all(client);
    assert_true(starts(first, "HTTP/1.1 200"));
    raw_send(other, GET_CLOSE("/b"));
    AUTO(free) char *second = raw_read_all(other);
    assert_true(starts(second, "HTTP/1.1 200"));
    rig_stop(r);
}

static void a_reply_comes_in_pieces(void **state)
{
    static const struct {
        const char *request, *reply;
    } table[] = {
        { "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" GET_CLOSE("/next"),
          "Connection: keep-alive\r\nContent-Type: text/plain\r\n\r\n8\r\npiece 0;\r\n8\r\npiece 1;\r\n8\r\npiece 2;\r\n0\r\n\r\nHTTP/1.1 200 OK" },
        { GET_CLOSE("/empty-stream"), "Content-Type: text/plain\r\n\r\n0\r\n\r\n" },
        { "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" GET("/next"),
          "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\npiece 0;piece 1;piece 2;" },
        { "GET /empty-stream HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n" },
        { "HEAD /stream HTTP/1.1\r\n\r\n" GET_CLOSE("/next"), "Connection: keep-alive\r\nContent-Type: text/plain\r\n\r\nHTTP/1.1 200 OK" },
    };
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        AUTO(close) int fd = raw_connect(r);
        raw_send(fd, table[i].request);
        AUTO(free) char *reply = raw_read_all(fd);
        if (!strstr(reply, table[i].reply))
            fail_msg("%zu: %s", i, reply);
        if (strstr(table[i].request, "/next") && strstr(table[i].request, "1.0"))
            assert_null(strstr(reply, "/next"));
    }
    rig_stop(r);
}

static void pieces_are_read_by_the_client(void **state)
{
    (void)state;
    for (int kind = KIND_UNIX; kind <= KIND_TCP; kind++) {
        struct rig *r = rig_start(kind);
        struct error e;
        struct http_result result;
        struct http_call call = { .unix_path = kind == KIND_UNIX ? r->path : NULL, .host = "127.0.0.1", .port = r->port, .method = "GET",
                                  .target = "/stream", .timeout_ms = 5000 };
        must(http_call(&call, &result, &e), &e);
        assert_string_equal(result.body, "piece 0;piece 1;piece 2;");
        assert_int_equal(result.body_n, 24);
        http_result_done(&result);
        rig_stop(r);
    }
}

// A peer that reads nothing gets no more than its socket holds; when it goes, or the server does, the stream hears of it.
static void a_stream_ends_with_its_peer(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TCP);
    struct rusage before, after;
    int fd = raw_connect(r);
    raw_send(fd, GET("/flood"));
    getrusage(RUSAGE_SELF, &before);
    usleep(200000);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 32768);
    AUTO(close) int other = raw_connect(r);
    raw_send(other, GET_CLOSE("/x"));
    AUTO(free) char *reply = raw_read_all(other);
    assert_true(starts(reply, "HTTP/1.1 200"));
    close(fd);
    wait_for(&r->unsent, 1);
    fd = raw_connect(r);
    raw_send(fd, GET("/flood"));
    usleep(20000);
    command(r, 'f');
    wait_for(&r->unsent, 2);
    close(fd);
    rig_stop(r);
}

static void exchanges_outlive_the_server(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    AUTO(close) int fd = raw_connect(r), idle = raw_connect(r);
    raw_send(fd, GET("/hold"));
    wait_for(&r->holding, 1);
    command(r, 'f');
    AUTO(free) char *reply = raw_read_all(fd);
    assert_string_equal(reply, "");
    AUTO(free) char *nothing = raw_read_all(idle);
    assert_string_equal(nothing, "");
    command(r, 'r');
    assert_int_equal(atomic_load(&r->gone), 1);
    wait_for(&r->unsent, 1);
    rig_stop(r);
}

static void unix_peers_are_known(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_UNIX);
    struct error e;
    struct http_call call = { .unix_path = r->path, .method = "GET", .target = "/who", .timeout_ms = 5000 };
    struct http_result result;
    char want[64];
    must(http_call(&call, &result, &e), &e);
    snprintf(want, sizeof want, "1 %ld %ld ", (long)getpid(), (long)getuid());
    assert_string_equal(result.body, want);
    http_result_done(&result);
    rig_stop(r);
}

// ---- client

static void client_reports_what_happened(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TCP);
    struct error e;
    struct http_call call = { .host = "127.0.0.1", .port = r->port, .method = "GET", .target = "/big", .timeout_ms = 5000 };
    struct http_result result;
    must(http_call(&call, &result, &e), &e);
    assert_int_equal(result.status, 200);
    assert_int_equal(result.body_n, BIG);
    assert_int_equal(strlen(result.body), BIG);
    assert_string_equal(http_header_get(&result.message, "content-type"), "application/octet-stream");
    http_result_done(&result);
    call.host = "localhost";
    call.method = "HEAD";
    must(http_call(&call, &result, &e), &e);
    assert_int_equal(result.body_n, 0);
    assert_int_equal(result.message.content_length, BIG);
    http_result_done(&result);
    call.target = "/drop";
    assert_int_equal(http_call(&call, &result, &e), -E_IO);
    call.target = "/hold";
    call.timeout_ms = 200;
    int64_t start = clock_boot_ms();
    assert_int_equal(http_call(&call, &result, &e), -E_TIMEOUT);
    assert_in_range(clock_boot_ms() - start, 190, 2000);
    call.port = 1;
    assert_int_equal(http_call(&call, &result, &e), -E_UNAVAILABLE);
    call = (struct http_call){ .unix_path = "/tmp/flocker-nobody", .method = "GET", .target = "/", .timeout_ms = 1000 };
    assert_int_equal(http_call(&call, &result, &e), -E_UNAVAILABLE);
    rig_stop(r);
}

struct canned {
    int listen_fd;
    const char *text;
    size_t n;
};

static void *serve_canned(void *arg)
{
    struct canned *c = arg;
    char request[4096];
    struct pollfd p = { .fd = c->listen_fd, .events = POLLIN };
    poll(&p, 1, 5000);
    int fd = accept(c->listen_fd, NULL, NULL);
    (void)!recv(fd, request, sizeof request, 0);
    (void)!send(fd, c->text, c->n, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
static void client_refuses_bad_replies(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        const char *body;
    } table[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 0, "ok" },
        { "HTTP/1.0 200 OK\r\n\r\nuntil the end", 0, "until the end" },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, "ok" },
        { "HTTP/1.1 204 No Content\r\n\r\n", 0, "" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", -E_IO, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Le", -E_IO, NULL },
        { "", -E_IO, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n", -E_TOO_LARGE, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", -E_TOO_LARGE, NULL },
        { CHUNKED "2\r\nok\r\n0\r\n\r\n", 0, "ok" },
        { CHUNKED "1;a=b\r\no\r\n1 \r\nk\r\n000\r\nTrailer: x\r\n\r\n", 0, "ok" },
        { CHUNKED "0a\r\n0123456789\r\n0\r\n\r\n", 0, "0123456789" },
        { CHUNKED "0\r\n\r\n", 0, "" },
        { CHUNKED "2\r\nok\r\n0\r\n", -E_IO, NULL },
        { CHUNKED "2\r\nok\r\n", -E_IO, NULL },
        { CHUNKED "2\r\no", -E_IO, NULL },
        { CHUNKED "2\r\nokay\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED "2\nok\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED "-2\r\nok\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED "\r\nok\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED "ffffffffffffffff\r\nok\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED "10000000000000002\r\nok\r\n0\r\n\r\n", -E_IO, NULL },
        { CHUNKED, -E_IO, NULL },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", -E_UNSUPPORTED, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", -E_INVALID, NULL },
        { "SSH-2.0-OpenSSH_9.2\r\n\r\n", -E_INVALID, NULL },
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct error e;
        AUTO(close) int listen_fd = socket_listen_tcp("127.0.0.1", 0, &e);
        struct canned canned = { listen_fd, table[i].text, strlen(table[i].text) };
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, serve_canned, &canned), 0);
        struct http_call call = { .host = "127.0.0.1", .port = socket_port(listen_fd), .method = "GET", .target = "/", .timeout_ms = 5000 };
        struct http_result result = { 0 };
        int rc = http_call(&call, &result, &e);
        pthread_join(thread, NULL);
        if (rc != table[i].rc)
            fail_msg("reply %zu: %d: %s", i, rc, e.msg);
        if (rc == 0)
            assert_string_equal(result.body, table[i].body);
        http_result_done(&result);
    }
}

// ---- TLS

static int tls_call(struct rig *r, SSL_CTX *ctx, const char *name, const char *target, struct http_result *ret, struct error *e)
{
    struct http_call call = { .host = "127.0.0.1", .port = r->port, .tls = ctx, .verify_name = name, .method = "POST", .target = target,
        .body = "", .timeout_ms = 5000 };
    return http_call(&call, ret, e);
}

struct waiting {
    struct rig *r;
    SSL_CTX *ctx;
    const char *target;
    pthread_t thread;
    int rc;
};

static void *wait_for_reply(void *arg)
{
    struct waiting *w = arg;
    struct error e;
    struct http_result result = { 0 };
    w->rc = tls_call(w->r, w->ctx, NULL, w->target, &result, &e);
    http_result_done(&result);
    return NULL;
}

static void tls_both_sides_prove_who_they_are(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TLS);
    struct error e;
    struct http_result result;
    SSL_CTX *alice = context(r, false, "ca1", "alice");
    static const char *const names[] = { "127.0.0.1", "flocker.test", NULL };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) { // NULL: the host
        must(tls_call(r, alice, names[i], "/who", &result, &e), &e);
        assert_string_equal(result.body, "0 0 -1 user-alice");
        http_result_done(&result);
    }
    must(tls_call(r, alice, NULL, "/big", &result, &e), &e);
    assert_int_equal(result.body_n, BIG);
    http_result_done(&result);
    assert_int_equal(tls_call(r, alice, "other.test", "/who", &result, &e), -E_DENIED); // not the server's name
    assert_int_equal(tls_call(r, alice, "127.0.0.2", "/who", &result, &e), -E_DENIED);
    SSL_CTX_free(alice);
    rig_stop(r);
}

// One that waits for its answer, one amid a reply; others stay.
static void unwanted_peers_are_expelled(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TLS);
    struct error e;
    SSL_CTX *alice = context(r, false, "ca1", "alice");
    static const char *const targets[] = { "/hold", "/flood" };
    struct waiting calls[ARRAY_SIZE(targets)];
    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        calls[i] = (struct waiting){ .r = r, .ctx = alice, .target = targets[i] };
        assert_int_equal(pthread_create(&calls[i].thread, NULL, wait_for_reply, &calls[i]), 0);
    }
    wait_for(&r->holding, 1);
    wait_for(&r->requests, 2);
    AUTO(close) int stranger = raw_connect(r); // says nothing yet: nobody knows whose it is
    assert_true(stranger >= 0);
    command(r, 'x');
    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        pthread_join(calls[i].thread, NULL);
        assert_int_equal(calls[i].rc, -E_IO);
    }
    command(r, 'n');
    assert_int_equal(atomic_load(&r->connections), 1);
    wait_for(&r->unsent, 1); // the stream has heard of it; who holds the other one will
    struct http_result result;
    must(tls_call(r, alice, NULL, "/who", &result, &e), &e); // that is for the handler to decide
    http_result_done(&result);
    SSL_CTX_free(alice);
    rig_stop(r);
}

static void tls_refuses_strangers(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TLS);
    struct error e;
    struct http_result result;
    struct {
        const char *ca, *pair;
    } bad[] = {
        { "ca1", "stranger" },  // a certificate of another cluster
        { "ca1", "wrong-use" }, // one for servers only
        { "ca2", "stranger" },  // and a client that trusts another cluster
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        SSL_CTX *ctx = context(r, false, bad[i].ca, bad[i].pair);
        int rc = tls_call(r, ctx, NULL, "/who", &result, &e);
        if (rc != -E_DENIED && rc != -E_IO) // E_IO: the reset came before the reason
            fail_msg("%s of %s was let in", bad[i].pair, bad[i].ca);
        SSL_CTX_free(ctx);
    }
    SSL_CTX *nobody = SSL_CTX_new(TLS_client_method()); // no certificate at all
    AUTO(free) char *ca = in_dir(r, "ca1/cluster.crt");
    assert_int_equal(SSL_CTX_load_verify_locations(nobody, ca, NULL), 1);
    assert_true(tls_call(r, nobody, NULL, "/who", &result, &e) < 0);
    SSL_CTX_set_max_proto_version(nobody, TLS1_1_VERSION);
    assert_true(tls_call(r, nobody, NULL, "/who", &result, &e) < 0);
    SSL_CTX_free(nobody);
    exchange(r, GET("/who"), ""); // plain HTTP at a TLS port
    assert_int_equal(atomic_load(&r->requests), 0);
    SSL_CTX *alice = context(r, false, "ca1", "alice");
    must(tls_call(r, alice, NULL, "/who", &result, &e), &e);
    http_result_done(&result);
    SSL_CTX_free(alice);
    rig_stop(r);
}

// Many requests over one TLS connection, some of them in one record, with keep-alive and a body each.
static void tls_keeps_a_connection(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TLS);
    SSL_CTX *ctx = context(r, false, "ca1", "alice");
    AUTO(close) int fd = raw_connect(r);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    assert_int_equal(SSL_connect(ssl), 1);
    char text[8192] = "";
    size_t n = 0, replies = 0;
    for (int i = 0; i < 50; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\n%03d", i);
    n += (size_t)snprintf(text + n, sizeof text - n, GET_CLOSE("/last"));
    assert_int_equal(SSL_write(ssl, text, (int)n), (int)n);
    AUTO(free) char *all = xcalloc(1, 65536);
    size_t have = 0;
    for (int got; have < 65535 && (got = SSL_read(ssl, all + have, (int)(65535 - have))) > 0;)
        have += (size_t)got;
    replies = count_of(all, "HTTP/1.1 200 OK");
    assert_int_equal(replies, 51);
    assert_true(SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN); // an orderly end
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    rig_stop(r);
}

static void tls_handshake_has_a_deadline(void **state)
{
    (void)state;
    struct rig *r = rig_start(KIND_TLS);
    rig_stop(r);
    r = rig_start_with(KIND_TLS, true, 0, 300);
    AUTO(close) int fd = raw_connect(r);
    raw_send(fd, "\x16\x03\x01"); // the start of a ClientHello
    AUTO(free) char *reply = raw_read_all(fd);
    assert_string_equal(reply, "");
    wait_for_connections(r, 0);
    rig_stop(r);
}

// ---- sockets

static void unix_listener_replaces_a_stale_socket_only(void **state)
{
    (void)state;
    char dir[] = "/tmp/flocker-socket-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO(free) char *path = xasprintf("%s/s", dir);
    struct error e;
    struct stat st;
    int first = socket_listen_unix(path, 0620, &e);
    must(first, &e);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0620);
    assert_true(fcntl(first, F_GETFL) & O_NONBLOCK);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_BUSY);
    close(first); // leaves the path
    AUTO(close) int second = socket_listen_unix(path, 0600, &e);
    must(second, &e);
    AUTO(close) int client = socket_connect_unix(path, 1000, &e);
    must(client, &e);
    assert_false(fcntl(client, F_GETFL) & O_NONBLOCK);
    unlink(path);
    FILE *f = fopen(path, "w");
    fclose(f);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_CONFLICT);
    unlink(path);
    rmdir(dir);
    char too_long[200];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = 0;
    assert_int_equal(socket_listen_unix(too_long, 0600, &e), -E_INVALID);
    assert_int_equal(socket_listen_tcp("not an address", 0, &e), -E_INVALID);
    assert_int_equal(socket_connect_unix(path, 1000, &e), -E_UNAVAILABLE);
}

static void connecting_to_a_full_queue_ends_in_time(void **state)
{
    (void)state;
    char dir[] = "/tmp/flocker-socket-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO(free) char *path = xasprintf("%s/s", dir);
    struct error e;
    AUTO(close) int fd = socket_listen_unix(path, 0600, &e);
    must(fd, &e);
    assert_int_equal(listen(fd, 0), 0);
    AUTO(close) int one = socket_connect_unix(path, 200, &e);
    must(one, &e);
    int64_t start = clock_boot_ms();
    assert_int_equal(socket_connect_unix(path, 200, &e), -E_TIMEOUT);
    assert_in_range(clock_boot_ms() - start, 150, 2000);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_BUSY); // full is not stale
    unlink(path);
    rmdir(dir);
}

static void systemd_descriptors_are_found_by_name(void **state)
{
    (void)state;
    char pid[16];
    snprintf(pid, sizeof pid, "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "docker:rest", 1);
    int saved[2] = { dup(3), dup(4) }, any = open("/dev/null", O_RDONLY);
    dup2(any, 3);
    dup2(any, 4);
    assert_int_equal(socket_from_systemd("docker"), 3);
    assert_int_equal(socket_from_systemd("rest"), 4);
    assert_true(fcntl(4, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(socket_from_systemd("dock"), -1);
    assert_int_equal(socket_from_systemd(""), -1);
    setenv("LISTEN_PID", "1", 1);
    assert_int_equal(socket_from_systemd("docker"), -1);
    for (int i = 0; i < 2; i++) {
        saved[i] >= 0 ? dup2(saved[i], 3 + i) : close(3 + i);
        close(saved[i]);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

static void service_manager_is_told(void **state)
{
    (void)state;
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "flocker-notify-%d", getpid());
    AUTO(close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)), 0);
    AUTO(free) char *name = xasprintf("@%s", at.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    socket_notify("READY=1");
    char got[32] = "";
    assert_int_equal(recv(fd, got, sizeof got, 0), 7);
    assert_string_equal(got, "READY=1");
    unsetenv("NOTIFY_SOCKET");
    socket_notify("READY=1");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(systemd_descriptors_are_found_by_name),
        cmocka_unit_test(parser_reads_what_clients_send),
        cmocka_unit_test(parser_trims_values_and_finds_them),
        cmocka_unit_test(parser_refuses_bad_requests),
        cmocka_unit_test(parser_limits_the_number_of_headers),
        cmocka_unit_test(parser_reads_replies),
        cmocka_unit_test(percent_decoding),
        cmocka_unit_test(server_answers_on_every_kind_of_connection_setting),
        cmocka_unit_test(server_without_keep_alive_always_closes),
        cmocka_unit_test(head_is_get_without_a_body),
        cmocka_unit_test(a_request_may_come_byte_by_byte),
        cmocka_unit_test(pipelined_requests_are_served_in_order_one_at_a_time),
        cmocka_unit_test(what_follows_a_closing_request_is_ignored),
        cmocka_unit_test(a_half_closed_peer_gets_its_replies),
        cmocka_unit_test(a_peer_that_went_is_noticed),
        cmocka_unit_test(a_peer_that_goes_during_a_long_reply_is_noticed),
        cmocka_unit_test(dropped_means_closed_without_a_word),
        cmocka_unit_test(bad_requests_get_an_answer_for_every_kind_of_client),
        cmocka_unit_test(a_head_without_end_is_cut),
        cmocka_unit_test(a_refused_body_does_not_cost_the_answer),
        cmocka_unit_test(expect_continue_is_answered),
        cmocka_unit_test(slow_requests_are_ended),
        cmocka_unit_test(an_idle_kept_connection_is_ended),
        cmocka_unit_test(connections_without_a_byte_do_no_harm),
        cmocka_unit_test(sixty_four_at_once),
        cmocka_unit_test(at_the_limit_an_honest_client_is_still_served),
        cmocka_unit_test(at_the_limit_a_burst_of_honest_clients_waits),
        cmocka_unit_test(when_all_are_at_work_one_more_is_closed),
        cmocka_unit_test(without_descriptors_it_waits),
        cmocka_unit_test(a_reply_comes_in_pieces), cmocka_unit_test(pieces_are_read_by_the_client),
        cmocka_unit_test(a_stream_ends_with_its_peer), cmocka_unit_test(exchanges_outlive_the_server),
        cmocka_unit_test(unix_peers_are_known),
        cmocka_unit_test(client_reports_what_happened),
        cmocka_unit_test(client_refuses_bad_replies),
        cmocka_unit_test(tls_both_sides_prove_who_they_are),
        cmocka_unit_test(unwanted_peers_are_expelled), cmocka_unit_test(tls_refuses_strangers),
        cmocka_unit_test(tls_keeps_a_connection),
        cmocka_unit_test(tls_handshake_has_a_deadline),
        cmocka_unit_test(unix_listener_replaces_a_stale_socket_only),
        cmocka_unit_test(connecting_to_a_full_queue_ends_in_time),
        cmocka_unit_test(service_manager_is_told),
    };
    return RUN_TESTS(tests);
}
