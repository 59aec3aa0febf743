// What HTTP's parser makes of good and bad bytes, in tables.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "net/http.h"

#include <string.h>

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(parser_reads_what_clients_send),
        cmocka_unit_test(parser_trims_values_and_finds_them),
        cmocka_unit_test(parser_refuses_bad_requests),
        cmocka_unit_test(parser_limits_the_number_of_headers),
        cmocka_unit_test(parser_reads_replies),
        cmocka_unit_test(percent_decoding),
    };
    return RUN_TESTS(tests);
}
