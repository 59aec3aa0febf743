// The HTTP server against peers that misbehave.
#include "http_rig.h"

#include <sys/resource.h>
#include <sys/un.h>

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(a_reply_comes_in_pieces),
        cmocka_unit_test(a_stream_ends_with_its_peer),
        cmocka_unit_test(exchanges_outlive_the_server),
        cmocka_unit_test(unix_peers_are_known),
    };
    return RUN_TESTS(tests);
}
