// The HTTP client against the server, and against replies that no server should send.
#include "http_rig.h"

#include <poll.h>

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_read_by_the_client),
        cmocka_unit_test(client_reports_what_happened),
        cmocka_unit_test(client_refuses_bad_replies),
    };
    return RUN_TESTS(tests);
}
