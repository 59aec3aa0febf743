// HTTP over TLS: who may talk to whom.
#include "http_rig.h"

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tls_both_sides_prove_who_they_are),
        cmocka_unit_test(unwanted_peers_are_expelled),
        cmocka_unit_test(tls_refuses_strangers),
        cmocka_unit_test(tls_keeps_a_connection),
        cmocka_unit_test(tls_handshake_has_a_deadline),
    };
    return RUN_TESTS(tests);
}
