// Lines over sockets: both ends in one event base.
#include "test.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/mem.h"
#include "net/line.h"
#include "net/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <openssl/ssl.h>

// One end, and what it has seen.
struct end {
    struct line_peer *peer;
    char *lines[64];
    size_t sizes[64];
    size_t count;
    char why[200];
    int closed, opened, drained;
    enum { END_PLAIN, END_ECHO, END_FREE_ON_LINE, END_FREE_ON_CLOSE, END_FREE_ON_OPEN, END_FREE_ON_DRAINED, END_FLOOD } mode;
};

struct rig {
    struct event_base *base;
    struct end a, b;
    int raw; // the other end of `a` where there is no b
};

static char *flood; // 1 MiB of text

static void on_line(void *arg, char *line, size_t n)
{
    struct end *end = arg;
    assert_int_equal(line[n], 0);
    assert_true(end->count < ARRAY_SIZE(end->lines));
    end->sizes[end->count] = n;
    end->lines[end->count] = xcalloc(1, n + 1);
    memcpy(end->lines[end->count++], line, n);
    if (end->mode == END_ECHO)
        line_send(end->peer, line, n);
    if (end->mode == END_FLOOD)
        for (int i = 0; i < 100; i++)
            line_send(end->peer, flood, 1 << 20);
    if (end->mode == END_FREE_ON_LINE)
        line_free(TAKE(end->peer, NULL));
}

static void on_closed(void *arg, const char *why)
{
    struct end *end = arg;
    end->closed++;
    snprintf(end->why, sizeof end->why, "%s", why);
    if (end->mode == END_FREE_ON_CLOSE)
        line_free(TAKE(end->peer, NULL));
}

static const struct line_callbacks callbacks = { on_line, on_closed };

static void make_sockets(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static int start(void **state)
{
    struct rig *r = xcalloc(1, sizeof *r);
    int fds[2];
    r->base = event_base_new();
    make_sockets(fds);
    r->raw = fds[1];
    r->a.peer = line_new(r->base, fds[0], NULL, &callbacks, &r->a);
    *state = r;
    return 0;
}

static void end_done(struct end *end)
{
    line_free(end->peer);
    for (size_t i = 0; i < end->count; i++)
        free(end->lines[i]);
}

static int stop(void **state)
{
    struct rig *r = *state;
    end_done(&r->a);
    end_done(&r->b);
    if (r->raw >= 0)
        close(r->raw);
    event_base_free(r->base);
    free(r);
    return 0;
}

static void use_b(struct rig *r)
{
    r->b.peer = line_new(r->base, TAKE(r->raw, -1), NULL, &callbacks, &r->b);
}

// Runs the loop until there is nothing to do for 20 ms.
static void run(struct rig *r)
{
    struct timeval pause = { .tv_usec = 20000 };
    event_base_loopexit(r->base, &pause);
    event_base_dispatch(r->base);
}

static void raw_send(const struct rig *r, const char *text, size_t n)
{
    assert_int_equal(send(r->raw, text, n, MSG_NOSIGNAL), n);
}

static void lines_go_both_ways(void **state)
{
    struct rig *r = *state;
    use_b(r);
    r->b.mode = END_ECHO;
    line_send(r->a.peer, "one", 3);
    line_send(r->a.peer, "", 0);
    line_send(r->a.peer, "th\0ree", 6);
    run(r);
    assert_int_equal(r->a.count, 3);
    assert_string_equal(r->a.lines[0], "one");
    assert_string_equal(r->a.lines[1], "");
    assert_int_equal(r->a.sizes[2], 6);
    assert_memory_equal(r->a.lines[2], "th\0ree", 6);
    assert_int_equal(line_backlog(r->a.peer), 0);
    assert_string_equal(line_common_name(r->a.peer), "");
}

static void lines_may_come_in_pieces(void **state)
{
    struct rig *r = *state;
    static const char text[] = "{\"a\":1}\n{\"b\":2}\r\n";
    for (size_t i = 0; i < sizeof text - 1; i++) {
        raw_send(r, text + i, 1);
        event_base_loop(r->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(r->a.count, 2);
    assert_string_equal(r->a.lines[0], "{\"a\":1}");
    assert_string_equal(r->a.lines[1], "{\"b\":2}\r"); // only a line feed ends a line
}

static void a_line_has_a_longest_length(void **state)
{
    struct rig *r = *state;
    AUTO(free) char *text = xcalloc(1, LINE_BYTES_MAX + 2);
    memset(text, 'x', LINE_BYTES_MAX + 1);
    text[LINE_BYTES_MAX] = '\n';
    raw_send(r, text, LINE_BYTES_MAX + 1);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_int_equal(r->a.sizes[0], LINE_BYTES_MAX);
    text[LINE_BYTES_MAX] = 'x';
    text[LINE_BYTES_MAX + 1] = '\n';
    raw_send(r, text, LINE_BYTES_MAX + 2);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_int_equal(r->a.closed, 1);
    assert_non_null(strstr(r->a.why, "more than 65536 bytes"));
}

static void a_line_without_end_is_cut(void **state)
{
    struct rig *r = *state;
    char text[4096];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 100 && !r->a.closed; i++) {
        (void)!send(r->raw, text, sizeof text, MSG_NOSIGNAL);
        event_base_loop(r->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(r->a.closed, 1);
    assert_int_equal(r->a.count, 0);
    line_send(r->a.peer, "after the end", 13); // does nothing
    run(r);
    assert_int_equal(r->a.closed, 1);
}

static void a_peer_that_takes_nothing_is_closed(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 100; i++) {
        line_send(r->a.peer, flood, 1 << 20);
        assert_int_equal(r->a.closed, 0); // never from within line_send
        assert_true(line_backlog(r->a.peer) <= LINE_BACKLOG_MAX);
    }
    assert_int_equal(line_backlog(r->a.peer), 0); // given back at once
    run(r);
    assert_int_equal(r->a.closed, 1);
    assert_non_null(strstr(r->a.why, "does not take"));
}

static void on_drained(void *arg)
{
    struct end *end = arg;
    end->drained++;
    assert_true(end->mode == END_FREE_ON_DRAINED || !line_is_full(end->peer));
    if (end->mode == END_FREE_ON_DRAINED)
        line_free(TAKE(end->peer, NULL));
}

// Whoever looks at line_is_full before each line, and goes on when it is told, never has much more than LINE_FULL waiting.
static void a_slow_reader_is_waited_for(void **state)
{
    struct rig *r = *state;
    static const struct line_callbacks with_drained = { .on_line = on_line, .on_closed = on_closed, .on_drained = on_drained };
    char line[1001], text[65536];
    size_t sent = 0, got = 0;
    int fds[2];
    memset(line, 'x', 1000);
    line_free(r->a.peer);
    close(r->raw);
    make_sockets(fds);
    r->raw = fds[1];
    r->a.peer = line_new(r->base, fds[0], NULL, &with_drained, &r->a);
    assert_false(line_is_full(r->a.peer));
    for (int i = 0; i < 2000; i++) {
        bool was_full = line_is_full(r->a.peer);
        int drained = r->a.drained;
        for (; !line_is_full(r->a.peer); sent += 1001)
            line_send(r->a.peer, line, 1000);
        assert_in_range(line_backlog(r->a.peer), LINE_FULL / 4 + 1, LINE_FULL + 1001);
        ssize_t n = recv(r->raw, text, sizeof text, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        event_base_loop(r->base, EVLOOP_NONBLOCK);
        assert_true(r->a.drained - drained <= 1 && (was_full || i == 0 || r->a.drained > 0));
    }
    assert_true(r->a.drained > 10);
    assert_true(got > 10 * LINE_FULL && got <= sent);
    shutdown(r->raw, SHUT_WR);
    for (int i = 0; i < 10 && !r->a.closed; i++)
        event_base_loop(r->base, EVLOOP_NONBLOCK);
    assert_true(line_is_full(r->a.peer)); // nobody takes anything any more

    line_free(r->a.peer);
    close(r->raw);
    make_sockets(fds);
    r->raw = fds[1];
    r->a.mode = END_FREE_ON_DRAINED;
    r->a.peer = line_new(r->base, fds[0], NULL, &with_drained, &r->a);
    while (!line_is_full(r->a.peer))
        line_send(r->a.peer, line, 1000);
    for (int i = 0; i < 2000 && r->a.peer; i++) {
        (void)!recv(r->raw, text, sizeof text, MSG_DONTWAIT);
        event_base_loop(r->base, EVLOOP_NONBLOCK);
    }
    assert_null(r->a.peer);
}

static void a_callback_may_overflow_its_own_peer(void **state)
{
    struct rig *r = *state;
    r->a.mode = END_FLOOD;
    raw_send(r, "one\ntwo\n", 8);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_int_equal(r->a.closed, 1);
}

static void the_end_is_reported_once_with_its_reason(void **state)
{
    struct rig *r = *state;
    raw_send(r, "whole\npart", 10);
    close(TAKE(r->raw, -1));
    run(r);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_int_equal(r->a.closed, 1);
    assert_string_equal(r->a.why, "it closed the connection in the middle of a message");
    line_free(r->a.peer);
    int fds[2];
    make_sockets(fds);
    r->a.peer = line_new(r->base, fds[0], NULL, &callbacks, &r->a);
    close(fds[1]);
    run(r);
    assert_string_equal(r->a.why, "it closed the connection");
}

static void writing_to_a_peer_that_went_is_an_end_too(void **state)
{
    struct rig *r = *state;
    close(TAKE(r->raw, -1));
    line_send(r->a.peer, "x", 1);
    run(r);
    assert_int_equal(r->a.closed, 1);
}

static void freeing_inside_callbacks(void **state)
{
    struct rig *r = *state;
    r->a.mode = END_FREE_ON_LINE;
    raw_send(r, "one\ntwo\n", 8);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_null(r->a.peer);
    int fds[2];
    make_sockets(fds);
    r->a.mode = END_FREE_ON_CLOSE;
    r->a.peer = line_new(r->base, fds[0], NULL, &callbacks, &r->a);
    close(fds[1]);
    run(r);
    assert_null(r->a.peer);
    assert_int_equal(r->a.closed, 1);
    make_sockets(fds); // freed while on_closed is due: it is not called
    r->a.peer = line_new(r->base, fds[0], NULL, &callbacks, &r->a);
    close(fds[1]);
    for (int i = 0; i < 100; i++)
        line_send(r->a.peer, flood, 1 << 20);
    line_free(TAKE(r->a.peer, NULL));
    run(r);
    assert_int_equal(r->a.closed, 1);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static SSL_CTX *context(const char *dir, bool server, const char *name)
{
    struct error e;
    struct ssl_ctx_st *ctx = NULL;
    struct pki_request q = { .common_name = name, .use = server ? PKI_SERVER : PKI_CLIENT, .days = 1 };
    AUTO(free) char *ca = xasprintf("%s/cluster.crt", dir);
    AUTO(free) char *crt = xasprintf("%s/%s.crt", dir, name);
    AUTO(free) char *key = xasprintf("%s/%s.key", dir, name);
    if (pki_make_certificate(dir, dir, name, &q, &e) < 0 ||
        (server ? pki_server_context : pki_client_context)(ca, crt, key, &ctx, &e) < 0)
        fail_msg("%s", e.msg);
    return ctx;
}

static void tls_names_the_peer(void **state)
{
    struct rig *r = *state;
    char dir[] = "/tmp/flocker-line-XXXXXX";
    struct error e;
    int fds[2];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(pki_make_ca(dir, "c", 1, &e), 0);
    SSL_CTX *server = context(dir, true, "control-service"), *client = context(dir, false, "node-1");
    line_free(r->a.peer);
    make_sockets(fds);
    r->a.peer = line_new(r->base, fds[0], server, &callbacks, &r->a);
    r->b.peer = line_new(r->base, fds[1], client, &callbacks, &r->b);
    line_send(r->b.peer, "hello", 5); // before the handshake
    r->a.mode = END_ECHO;
    run(r);
    run(r);
    assert_int_equal(r->a.count, 1);
    assert_int_equal(r->b.count, 1);
    assert_string_equal(r->b.lines[0], "hello");
    assert_string_equal(line_common_name(r->a.peer), "node-1");
    assert_string_equal(line_common_name(r->b.peer), "control-service");
    line_free(TAKE(r->b.peer, NULL));
    run(r);
    assert_int_equal(r->a.closed, 1);
    assert_string_equal(r->a.why, "it closed the connection");

    line_free(r->a.peer); // one that speaks no TLS
    make_sockets(fds);
    r->a.peer = line_new(r->base, fds[0], server, &callbacks, &r->a);
    r->b.peer = line_new(r->base, fds[1], NULL, &callbacks, &r->b);
    line_send(r->b.peer, "hello", 5);
    run(r);
    assert_int_equal(r->a.closed, 2);
    assert_int_equal(r->a.count, 1);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

// A peer that says nothing hears from us every 5 s, and is taken for gone after 20 s; one that says anything, and is silent else, is kept.
static void silence_is_noticed(void **state)
{
    struct rig *r = *state;
    int fds[2];
    char text[256];
    const struct timeval nearly = { 19, 500000 }, rest = { 1, 0 };
    make_sockets(fds);
    r->b.peer = line_new(r->base, fds[0], NULL, &callbacks, &r->b);
    line_keep_alive(r->a.peer);
    line_keep_alive(r->b.peer);
    line_keep_alive(r->b.peer); // once is enough
    event_base_loopexit(r->base, &nearly);
    event_base_dispatch(r->base);
    assert_int_equal(r->a.closed + r->b.closed, 0);
    assert_int_equal(send(fds[1], "x", 1, MSG_NOSIGNAL), 1); // half a message is a sign of life too
    event_base_loopexit(r->base, &rest);
    event_base_dispatch(r->base);
    assert_int_equal(r->a.closed, 1);
    assert_string_equal(r->a.why, "nothing has come from it for 20 s");
    assert_int_equal(r->b.closed, 0);
    ssize_t n = recv(r->raw, text, sizeof text - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, LINE_ALIVE "\n" LINE_ALIVE "\n" LINE_ALIVE "\n");
    close(fds[1]);
}

static void on_open(void *arg)
{
    struct end *end = arg;
    end->opened++;
    if (end->mode == END_FREE_ON_OPEN)
        line_free(TAKE(end->peer, NULL));
}

// When the handshake is done, the peer's name is known; it may be sent away right there.
static void the_handshakes_end_is_told(void **state)
{
    static const struct line_callbacks with_open = { on_line, on_closed, on_open };
    struct rig *r = *state;
    char dir[] = "/tmp/flocker-line-XXXXXX";
    struct error e;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(pki_make_ca(dir, "c", 1, &e), 0);
    SSL_CTX *server = context(dir, true, "control-service"), *client = context(dir, false, "node-1");
    for (int frees = 0; frees < 2; frees++) {
        int fds[2];
        line_free(r->a.peer);
        line_free(r->b.peer);
        make_sockets(fds);
        r->a.mode = frees ? END_FREE_ON_OPEN : END_PLAIN;
        r->a.opened = r->b.closed = 0;
        r->a.peer = line_new(r->base, fds[0], server, &with_open, &r->a);
        r->b.peer = line_new(r->base, fds[1], client, &callbacks, &r->b);
        line_send(r->b.peer, "hello", 5);
        for (int i = 0; i < 20 && !(r->a.opened && (r->b.closed || r->a.count)); i++)
            run(r);
        assert_int_equal(r->a.opened, 1);
        assert_int_equal(r->b.closed, frees);
        assert_int_equal(r->a.count, 1); // of the first
    }
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(lines_go_both_ways),
        TEST(lines_may_come_in_pieces),
        TEST(a_line_has_a_longest_length),
        TEST(a_line_without_end_is_cut),
        TEST(a_peer_that_takes_nothing_is_closed),
        TEST(a_slow_reader_is_waited_for),
        TEST(a_callback_may_overflow_its_own_peer),
        TEST(the_end_is_reported_once_with_its_reason),
        TEST(writing_to_a_peer_that_went_is_an_end_too),
        TEST(freeing_inside_callbacks),
        TEST(tls_names_the_peer),
        TEST(the_handshakes_end_is_told),
        TEST(silence_is_noticed),
    };
    flood = xcalloc(1, 1 << 20);
    memset(flood, 'f', 1 << 20);
    int rc = RUN_TESTS(tests);
    free(flood);
    return rc;
}
