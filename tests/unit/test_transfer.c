// Transfers between two agents over real TLS on loopback: what arrives is what was sent, whatever breaks on the way; nothing is taken for
// whole that is not; and neither end is held up by the other.
#include "test.h"

#include "base/clock.h"
#include "fake_transfer.h"
#include "net/pki.h"
#include "net/socket.h"
#include "net/tls_stream.h"
#include "transfer/frame.h"
#include "transfer/source.h"
#include "transfer/target.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <zstd.h>

#include <openssl/ssl.h>

#define MIB     (1U << 20)
#define SOURCE  "node-11111111-1111-4111-8111-111111111111"
#define TARGET  "node-22222222-2222-4222-8222-222222222222"
#define OTHER   "node-33333333-3333-4333-8333-333333333333"
#define NOWHERE SIZE_MAX

static char dir[64];
static SSL_CTX *server_tls, *client_tls;
static struct error error_now;
#define E (&error_now)

// ---- certificates

static SSL_CTX *context(const char *ca, const char *file, bool is_server)
{
    AUTO(free) char *ca_path = xasprintf("%s/%s/cluster.crt", dir, ca), *crt = xasprintf("%s/%s/%s.crt", dir, ca, file),
                    *key = xasprintf("%s/%s/%s.key", dir, ca, file);
    SSL_CTX *ret = NULL;
    if ((is_server ? pki_server_context : pki_client_context)(ca_path, crt, key, &ret, E) < 0)
        fail_msg("%s", E->msg);
    return ret;
}

static void make_certificates(const char *ca)
{
    static const char *const names[] = { SOURCE, TARGET, OTHER };
    AUTO(free) char *at = xasprintf("%s/%s", dir, ca);
    assert_int_equal(mkdir(at, 0700), 0);
    assert_int_equal(pki_make_ca(at, "test", 10, E), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct pki_request r = { .common_name = names[i], .use = PKI_SERVER | PKI_CLIENT, .days = 5 };
        assert_int_equal(pki_make_certificate(at, at, names[i], &r, E), 0);
    }
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static int enter(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/flocker-transfer-XXXXXX");
    assert_non_null(mkdtemp(dir));
    make_certificates("ours");
    make_certificates("foreign");
    server_tls = context("ours", SOURCE, true);
    client_tls = context("ours", TARGET, false);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    SSL_CTX_free(server_tls);
    SSL_CTX_free(client_tls);
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

// ---- both ends, and what is between them

static const struct transfer_times quick = {
    .connect_ms = 2000, .handshake_ms = 600, .request_ms = 600, .stall_ms = 600, .alive_ms = 100, .frame_ms = 3000,
    .idle_ms = 1500, .silent_ms = 2500,
    .checkpoint_ms = 60000, .retry_ms = 1, .retry_most_ms = 2, .tries = 3,
};

struct rig {
    struct fake source, target;
    struct volume *volume;
    struct transfer_grant grant;
    unsigned unavailable; // so many requests get that for an answer
    SSL_CTX *server_tls, *client_tls;
    const char *expected;
    struct transfer_times source_times, target_times;
    // The listener: serves with transfer_serve, or with `script` if there is one.
    int listener;
    void (*script)(struct tls_stream *s, const char *request);
    // What the connections have come to, oldest first:
    struct transfer_sent sent[16];
    struct error errors[16];
    atomic_uint n_sent;
    // The connection between: cut after so many bytes from the source; connections beyond n_cuts are whole.
    size_t cuts[16], n_cuts;
    atomic_size_t passed;  // from the source, on the last connection
    bool is_direct; // nothing is between: that passes one direction at a time
    atomic_bool is_over;
    pthread_t server, between;
    int outer;
    unsigned progressed;
    struct transfer_progress last;
    // What the target may take: so much of a stream, and, after a checkpoint, of its pool. 0: all
    uint64_t most_of_stream, most_in_pool;
    uint64_t left;         // that it was told of before the first byte
    unsigned n_asked, n_unsettled; // with a checkpoint to be made first
};

static int permit(void *arg, const char *peer, const struct transfer_request *r, struct transfer_grant *ret, struct error *e)
{
    struct rig *rig = arg;
    if (strcmp(peer, TARGET) != 0 || !uuid_equal(&r->volume, &rig->volume->id) || r->epoch != rig->volume->epoch)
        return fail(e, E_DENIED, "%s may not have volume %s at epoch %llu", peer, UUID_TEXT(&r->volume), (unsigned long long)r->epoch);
    if (rig->unavailable && rig->unavailable--)
        return fail(e, E_UNAVAILABLE, "not yet");
    *ret = rig->grant;
    return 0;
}

static int accept_one(struct rig *rig, int listener)
{
    while (!rig->is_over) {
        struct pollfd p = { listener, POLLIN, 0 };
        if (poll(&p, 1, 20) > 0)
            return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    return -1;
}

static void serve_script(struct rig *rig, int fd)
{
    struct tls_stream *s = NULL;
    struct error e;
    char line[TRANSFER_LINE_MAX];
    const struct tls_stream_config config = { .tls = rig->server_tls, .handshake_ms = 1000, .stall_ms = 1000 };
    if (tls_stream_open(fd, &config, &s, &e) == 0 && tls_stream_read_line(s, line, sizeof line, 1000, &e) == 0)
        rig->script(s, line);
    tls_stream_free(s);
}

static void *run_server(void *arg)
{
    struct rig *rig = arg;
    const struct transfer_source source = {
        .backend = &rig->source.base, .tls = rig->server_tls, .permit = permit, .arg = rig, .times = &rig->source_times
    };
    for (int fd; (fd = accept_one(rig, rig->listener)) >= 0;) {
        unsigned n = rig->n_sent;
        ASSERT(n < ARRAY_SIZE(rig->sent));
        if (rig->script)
            serve_script(rig, fd);
        else
            transfer_serve(fd, &source, &rig->sent[n], &rig->errors[n]);
        rig->n_sent = n + 1;
    }
    return NULL;
}

// Copies what there is; false at the end, or at the cut.
static bool pass(int from, int to, size_t *left)
{
    char buffer[16384];
    size_t most = left && *left < sizeof buffer ? *left : sizeof buffer;
    ssize_t n = read(from, buffer, most ? most : 1);
    if (n <= 0 || (left && *left == 0))
        return false;
    for (ssize_t at = 0, done; at < n; at += done)
        if ((done = send(to, buffer + at, (size_t)(n - at), MSG_NOSIGNAL)) <= 0)
            return false;
    if (left)
        *left -= (size_t)n;
    return !left || *left;
}

static void *run_between(void *arg)
{
    struct rig *rig = arg;
    unsigned n = 0;
    for (int client; (client = accept_one(rig, rig->outer)) >= 0; n++) {
        size_t left = n < rig->n_cuts ? rig->cuts[n] : NOWHERE;
        struct error e;
        int server = left ? tls_stream_connect("127.0.0.1", socket_port(rig->listener), 1000, &e) : -1;
        struct pollfd p[2] = { { client, POLLIN, 0 }, { server, POLLIN, 0 } };
        bool goes_on = server >= 0;
        if (goes_on)
            ASSERT(fcntl(server, F_SETFL, 0) == 0); // blocking, as the other one is
        while (goes_on && poll(p, 2, -1) > 0) {
            if (p[0].revents)
                goes_on = pass(client, server, NULL);
            if (goes_on && p[1].revents)
                goes_on = pass(server, client, &left);
            rig->passed = (n < rig->n_cuts ? rig->cuts[n] : NOWHERE) - left;
        }
        close(client);
        if (server >= 0)
            close(server);
    }
    return NULL;
}

static struct rig *rig_new(size_t size)
{
    struct rig *rig = xcalloc(1, sizeof *rig);
    rig->source = (struct fake){ .base = { &fake_ops }, .size = size, .is_random = true };
    rig->target = (struct fake){ .base = { &fake_ops } };
    rig->volume = volume_new();
    rig->volume->id = (struct uuid){ { 1, 2, 3 } };
    rig->volume->epoch = 7;
    rig->server_tls = server_tls;
    rig->client_tls = client_tls;
    rig->expected = SOURCE;
    rig->source_times = rig->target_times = quick;
    rig->listener = socket_listen_tcp("127.0.0.1", 0, E);
    rig->outer = socket_listen_tcp("127.0.0.1", 0, E);
    assert_true(rig->listener >= 0 && rig->outer >= 0);
    return rig;
}

static void rig_start(struct rig *rig)
{
    assert_int_equal(pthread_create(&rig->server, NULL, run_server, rig), 0);
    assert_int_equal(pthread_create(&rig->between, NULL, run_between, rig), 0);
}

static void rig_stop(struct rig *rig)
{
    rig->is_over = true;
    assert_int_equal(pthread_join(rig->server, NULL), 0);
    assert_int_equal(pthread_join(rig->between, NULL), 0);
    rig->is_over = false;
}

static void rig_free(struct rig *rig)
{
    close(rig->listener);
    close(rig->outer);
    volume_free(rig->volume);
    free(rig->target.part);
    free(rig);
}
DEFINE_AUTO(struct rig *, rig_free)

static void on_progress(void *arg, const struct transfer_progress *p)
{
    struct rig *rig = arg;
    rig->progressed++;
    rig->last = *p;
}

static int may_take(void *arg, const struct transfer_amount *a, struct error *e)
{
    struct rig *rig = arg;
    rig->n_asked++;
    rig->left = rig->left > a->left ? rig->left : a->left;
    if (rig->most_of_stream && a->applied > rig->most_of_stream)
        return fail(e, E_TOO_LARGE, "injected: too much");
    if (!rig->most_in_pool || a->applied + a->left <= rig->most_in_pool)
        return 0;
    rig->n_unsettled += a->unsettled > 0;
    return fail(e, E_NO_SPACE, "injected: no more fits");
}

static int fetch(struct rig *rig, struct transfer_result *ret)
{
    const struct transfer_target target = {
        .backend = &rig->target.base,
        .volume = rig->volume,
        .host = "127.0.0.1",
        .port = socket_port(rig->is_direct ? rig->listener : rig->outer),
        .peer_name = rig->expected,
        .tls = rig->client_tls,
        .progress = on_progress,
        .may_take = may_take,
        .arg = rig,
        .times = &rig->target_times,
    };
    rig_start(rig);
    int rc = transfer_fetch(&target, ret, E);
    rig_stop(rig);
    if (rc < 0)
        assert_true(E->msg[0] && !strchr(E->msg, '\n'));
    return rc;
}

// Fetches, and what has come is what was to come.
static struct transfer_result fetch_well(struct rig *rig, uint64_t base, uint64_t seq)
{
    struct transfer_result r = { 0 };
    if (fetch(rig, &r) < 0)
        fail_msg("%s", E->msg);
    assert_int_equal(r.seq, seq);
    assert_int_equal(rig->target.copy.seq, seq);
    assert_memory_equal(r.digest, rig->target.copy.digest, 32);
    if (!rig->source.lies)
        assert_memory_equal(r.digest, rig->source.digests[seq], 32);
    if (!r.is_current)
        for (size_t i = 0; i < rig->source.size; i++)
            assert_int_equal(rig->target.part[i], fake_byte(&rig->source, base, seq, i));
    assert_int_equal(rig->last.bytes, r.is_current ? 0 : rig->source.size);
    return r;
}

static void fetch_badly(struct rig *rig, enum errcode code, const char *words)
{
    struct transfer_result r;
    unsigned finished = rig->target.n_finished;
    int rc = fetch(rig, &r);
    if (rc != -(int)code || !strstr(E->msg, words))
        fail_msg("wanted %s with \"%s\", got %d: %s", error_word(code), words, rc, rc < 0 ? E->msg : "success");
    assert_int_equal(rig->target.n_finished, finished);
}

// ---- what is moved

// As docs/protocol.md says, computed by other programs (Python's hashlib, Debian's libxxhash).
static void the_chain_is_the_documented_one(void **state)
{
    (void)state;
    static const char *const want[] = { "1125facff6c69d594e38d7fe5101025026d23587d2143aeb33cc302c6880acaf",
                                        "c50904d9702b507270fcd8ca507d7a11800e59cb1367449fd597d1f886cf04e8" };
    static uint8_t chunk[MIB];
    struct chain c = { 0 };
    char text[2 * CHAIN_DIGEST + 1];
    for (size_t i = 0; i < sizeof chunk; i++)
        chunk[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        chain_add(&c, i == 0 ? chunk : (const uint8_t *)"flocker", i == 0 ? sizeof chunk : 7);
        for (size_t at = 0; at < CHAIN_DIGEST; at++)
            snprintf(text + 2 * at, 3, "%02x", c.digest[at]);
        assert_string_equal(text, want[i]);
    }
    assert_int_equal(c.offset, MIB + 7);
}

static void moves_streams_of_any_size(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, MIB - 1, MIB, MIB + 1, 7 * MIB + 4711 };
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        AUTO(rig_free) struct rig *rig = rig_new(sizes[i]);
        struct transfer_result r = fetch_well(rig, 0, 1);
        assert_false(r.final);
        assert_int_equal(r.bytes, sizes[i]);
        assert_int_equal(r.connections, 1);
        assert_int_equal(rig->errors[0].code, E_NONE);
        assert_int_equal(rig->sent[0].bytes, sizes[i]);
    }
}

static void moves_increments_up_to_the_final_one(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(2 * MIB);
    fetch_well(rig, 0, 1);
    assert_int_equal(rig->source.below, 1);
    fetch_well(rig, 1, 2); // the target has the newest: a new one is made
    assert_int_equal(rig->source.below, 1);
    rig->source.newest = 3; // by the seal
    rig->grant.final_seq = 3;
    struct transfer_result r = fetch_well(rig, 2, 3);
    assert_true(r.final && rig->target.copy.final);
    assert_int_equal(rig->source.below, 2); // what the target needs no more is gone
    assert_int_equal(rig->source.newest, 3);
    unsigned begun = rig->target.n_begun;
    r = fetch_well(rig, 2, 3); // once more: it has it
    assert_true(r.is_current && r.final && r.bytes == 0);
    assert_int_equal(rig->target.n_begun, begun);
}

static void a_newest_snapshot_that_the_target_lacks_is_sent_as_it_is(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    rig->source.newest = 4;
    fetch_well(rig, 0, 4);
    assert_int_equal(rig->source.below, 4);
}

static void a_base_that_is_not_common_makes_the_stream_whole(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    fetch_well(rig, 0, 1);
    rig->source.digests[1][5] ^= 1; // another stream was sent since
    rig->source.newest = 2;
    fetch_well(rig, 0, 2);
    rig->source.has_digest[2] = false; // or the snapshot is gone
    rig->source.newest = 3;
    fetch_well(rig, 0, 3);
}

static void compresses_where_the_connection_is_slow(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(20 * MIB); // the first 16 without
    rig->source.is_random = false;
    rig->grant.rate = 12 * MIB;
    struct transfer_result r = fetch_well(rig, 0, 1);
    assert_true(r.wire_bytes < r.bytes / 10 * 9 && r.wire_bytes > r.bytes / 10 * 7);
    assert_true(rig->progressed > 0 && rig->last.bytes == rig->source.size);
}

// ---- connections that break

// At each kind of place: the target goes on with another connection, from what it has applied.
static void goes_on_after_a_connection_broke_anywhere(void **state)
{
    (void)state;
    static const size_t at[] = { 0, 1, 5, 100, 900, 1500, 1700, 1800, 2000, 2100, 3000, 16384, 40000, MIB / 2, MIB, MIB + 3000, MIB + 70000,
                                 2 * MIB, 2 * MIB + 9000, 3 * MIB, 3 * MIB + 2000, 3 * MIB + 14000, 3 * MIB + 20000 };
    unsigned resumed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
        AUTO(rig_free) struct rig *rig = rig_new(3 * MIB + 11111);
        rig->cuts[0] = at[i];
        rig->n_cuts = 1;
        struct transfer_result r = fetch_well(rig, 0, 1);
        assert_int_equal(rig->target.n_finished, 1);
        uint64_t offset = rig->sent[rig->n_sent - 1].answer.offset;
        if (r.connections == 2 && (offset > at[i] || (at[i] >= MIB + 30000 && offset < MIB)))
            fail_msg("after a cut at byte %zu it went on at %llu", at[i], (unsigned long long)offset);
        resumed += offset > 0;
        assert_true(r.connections == 2 || (r.connections == 1 && (at[i] < 2000 || at[i] > rig->source.size)));
        assert_true(r.bytes <= rig->source.size + MIB);
    }
    assert_true(resumed >= 6);
}

// Also when all has come but for the end: then nothing is sent again.
static void goes_on_after_a_connection_broke_before_the_end(void **state)
{
    (void)state;
    unsigned only_the_end = 0;
    for (size_t before = 0; before <= 240; before += 12) {
        AUTO(rig_free) struct rig *rig = rig_new(MIB + 11111);
        fetch_well(rig, 0, 1);
        rig->cuts[0] = rig->passed - before;
        rig->n_cuts = 1;
        rig->n_sent = 0;
        rig->target.copy = (struct backend_copy){ 0 }; // once more, from the start
        struct transfer_result r = fetch_well(rig, 0, 1);
        assert_true(r.connections <= 2);
        only_the_end += r.connections == 2 && r.bytes == rig->source.size && rig->sent[1].answer.offset == rig->source.size;
    }
    assert_true(only_the_end > 0);
}

static void goes_on_as_long_as_attempts_bring_something(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(9 * MIB);
    rig->n_cuts = 8;
    for (size_t i = 0; i < rig->n_cuts; i++)
        rig->cuts[i] = MIB + 60000; // one chunk each; more connections than `tries`
    struct transfer_result r = fetch_well(rig, 0, 1);
    assert_int_equal(r.connections, 9);
    assert_int_equal(r.bytes, rig->source.size);
    assert_int_equal(rig->target.n_begun, 1);
}

static void gives_up_and_another_process_goes_on(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(5 * MIB);
    rig->cuts[0] = 2 * MIB + 200000;
    rig->n_cuts = 4; // then at 0
    fetch_badly(rig, E_UNAVAILABLE, "gave up after 3 attempts");
    assert_int_equal(rig->target.copy.part_offset, 2 * MIB);
    rig->n_cuts = 0;
    struct transfer_result r = fetch_well(rig, 0, 1);
    assert_int_equal(r.bytes, 3 * MIB);
    assert_int_equal(rig->sent[rig->n_sent - 1].answer.offset, 2 * MIB);
}

// A part is finished first, though the source is sealed by now: then little is missing.
static void a_part_is_finished_before_the_final_snapshot(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(5 * MIB);
    rig->cuts[0] = 3 * MIB + 200000;
    rig->n_cuts = 4;
    fetch_badly(rig, E_UNAVAILABLE, "gave up");
    rig->n_cuts = 0;
    rig->grant.final_seq = rig->source.newest = 2;
    assert_false(fetch_well(rig, 0, 1).final);
    assert_true(fetch_well(rig, 1, 2).final);
}

static void a_part_of_another_stream_is_thrown_away(void **state)
{
    (void)state;
    for (int gone = 0; gone < 3; gone++) {
        AUTO(rig_free) struct rig *rig = rig_new(5 * MIB);
        rig->cuts[0] = 2 * MIB + 200000;
        rig->n_cuts = 4;
        fetch_badly(rig, E_UNAVAILABLE, "gave up");
        rig->n_cuts = 0;
        if (gone == 0)
            rig->source.version++; // its stream is made anew, and differs
        else if (gone == 1)
            rig->source.newest = rig->source.below = 2; // its snapshot isn't there any more
        else
            rig->source.size = MIB; // its stream is shorter
        struct transfer_result r = fetch_well(rig, 0, gone == 1 ? 2 : 1);
        assert_int_equal(r.connections, 2);
        assert_int_equal(r.bytes, rig->source.size);
    }
}

static void checkpoints_are_made_on_the_way(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(6 * MIB);
    rig->target_times.checkpoint_ms = 0;
    fetch_well(rig, 0, 1);
    assert_int_equal(rig->target.n_checkpoints, 6);
}

static void gives_up_where_nobody_listens(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    struct transfer_result r;
    const struct transfer_target target = {
        .backend = &rig->target.base, .volume = rig->volume, .host = "127.0.0.1", .port = 1, .peer_name = SOURCE, .tls = client_tls,
        .times = &quick,
    };
    assert_int_equal(transfer_fetch(&target, &r, E), -E_UNAVAILABLE);
    assert_non_null(strstr(E->msg, "gave up after 3 attempts: connect to 127.0.0.1 port 1: "));
}

// ---- what takes long

static void a_slow_pool_holds_nobody_up(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(12 * MIB);
    rig->source.snapshot_ms = rig->source.pause_ms = 1000; // each longer than a stall
    struct transfer_result r = fetch_well(rig, 0, 1);
    assert_int_equal(r.connections, 1);
    AUTO(rig_free) struct rig *other = rig_new(40 * MIB); // more than all buffers on the way take
    other->is_direct = true;
    other->target.feed_ms = 2000;                         // the source can't send for longer than a stall
    r = fetch_well(other, 0, 1);
    if (r.connections != 1)
        fail_msg("it took %u connections: %s", r.connections, other->errors[0].msg);
}

static void a_pool_that_gives_nothing_is_given_up(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    rig->source.pause_ms = 2500;
    rig->target_times.tries = 1;
    fetch_badly(rig, E_TIMEOUT, "has given nothing");
    assert_int_equal(rig->errors[0].code, E_TIMEOUT);
}

// ---- errors of pools

static void errors_of_the_source_are_told(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(3 * MIB);
    rig->source.fails_at = 2 * MIB;
    fetch_badly(rig, E_IO, "the source says: injected: the disk is broken?");
    rig->unavailable = 2; // soon: asked again
    rig->source.fails_at = 0;
    fetch_well(rig, 0, 1);
}

static void a_full_target_ends_it_at_once(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(9 * MIB);
    rig->target.full_at = 3 * MIB;
    fetch_badly(rig, E_NO_SPACE, "injected: the pool is full");
    assert_int_equal(rig->n_sent, 1);
}

// Stopped before the pool is full, at a checkpoint, from which it goes on when there is room.
static void a_target_stops_while_there_is_room(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(40 * MIB);
    rig->most_in_pool = 20 * MIB;
    fetch_badly(rig, E_NO_SPACE, "injected: no more fits");
    assert_int_equal(rig->n_sent, 1); // no further try of this connection's
    assert_int_equal(rig->n_unsettled, 1);
    assert_int_equal(rig->target.copy.part_offset, 32 * MIB); // asked each 16 MiB
    assert_int_equal(rig->target.n_checkpoints, 1);
    rig->most_in_pool = 0;
    struct transfer_result r = fetch_well(rig, 0, 1);
    assert_int_equal(r.bytes, 8 * MIB);
}

static uint64_t estimated;

static int fake_usage(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e)
{
    (void)b, (void)id, (void)e;
    *ret = (struct backend_usage){ .used_bytes = estimated };
    return 0;
}

// By what the source estimates; of an increment, whose length nobody knows, nothing is assumed.
static void what_does_not_fit_is_not_begun(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(5 * MIB);
    struct backend_ops ops = fake_ops;
    ops.usage = fake_usage;
    rig->source.base.ops = &ops;
    estimated = 6 * MIB;
    rig->most_in_pool = estimated - 1;
    fetch_badly(rig, E_NO_SPACE, "injected: no more fits");
    assert_int_equal(rig->left, estimated);
    assert_int_equal(rig->target.part_fed, 0);
    rig->most_in_pool = estimated;
    fetch_well(rig, 0, 1);
    rig->left = 0;
    fetch_well(rig, 1, 2);
    assert_int_equal(rig->left, 0);
}

static void a_source_that_sends_too_much_is_stopped(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(100 * MIB);
    rig->most_of_stream = 20 * MIB;
    fetch_badly(rig, E_TOO_LARGE, "injected: too much");
    assert_int_equal(rig->n_sent, 1);
    assert_int_equal(rig->target.part_fed, 32 * MIB);
    assert_int_equal(rig->target.n_checkpoints, 0); // there is no use in keeping it
}

static void a_wrong_digest_is_never_accepted(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(2 * MIB);
    rig->source.lies = true;
    fetch_badly(rig, E_CORRUPT, "the digests differ");
    rig->source.lies = false;
    fetch_well(rig, 0, 1);
}

static void pools_that_cannot_are_told(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    static const struct backend_ops none = { .name = "none" };
    rig->source.base.ops = &none;
    fetch_badly(rig, E_UNSUPPORTED, "the source says: volumes in a pool of kind none can't be moved");
    rig->target.base.ops = &none;
    fetch_badly(rig, E_UNSUPPORTED, "into a pool of kind none");
}

// ---- who may

static void certificates_decide(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    rig->expected = OTHER;
    fetch_badly(rig, E_DENIED, "expected " OTHER ", and found " SOURCE);
    rig->expected = SOURCE;
    rig->client_tls = context("foreign", TARGET, false);
    fetch_badly(rig, E_DENIED, "the certificate of " SOURCE " is not valid here");
    SSL_CTX_free(rig->client_tls);
    rig->client_tls = client_tls;
    rig->server_tls = context("foreign", SOURCE, true);
    fetch_badly(rig, E_DENIED, "the certificate of " SOURCE " is not valid here");
    SSL_CTX_free(rig->server_tls);
    rig->server_tls = server_tls;
    rig->client_tls = context("ours", OTHER, false); // ours, but not permitted
    fetch_badly(rig, E_DENIED, "the source says: " OTHER " may not have volume");
    SSL_CTX_free(rig->client_tls);
    rig->client_tls = SSL_CTX_new(TLS_client_method()); // none at all
    fetch_badly(rig, E_DENIED, "");
    SSL_CTX_free(rig->client_tls);
    rig->client_tls = client_tls;
    assert_int_equal(rig->source.newest, 0); // nothing was done for any of them
    fetch_well(rig, 0, 1);
}

static void another_epoch_is_refused(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    struct transfer_result r;
    AUTO(volume_free) struct volume *old = volume_copy(rig->volume);
    old->epoch = 6;
    const struct transfer_target target = {
        .backend = &rig->target.base, .volume = old, .host = "127.0.0.1", .port = socket_port(rig->outer), .peer_name = SOURCE,
        .tls = client_tls, .times = &quick,
    };
    rig_start(rig);
    int rc = transfer_fetch(&target, &r, E);
    rig_stop(rig);
    assert_int_equal(rc, -E_DENIED);
    assert_non_null(strstr(E->msg, "at epoch 6"));
}

// ---- sources that lie

static void say(struct tls_stream *s, const void *data, size_t n)
{
    struct error e;
    (void)tls_stream_write(s, data, n, 2000, &e);
}

static void say_answer(struct tls_stream *s)
{
    static const char text[] = "\n\n{\"seq\":1,\"base\":0,\"offset\":0,\"estimate\":0,\"final\":true}\n";
    say(s, text, sizeof text - 1);
}

static void say_frame(struct tls_stream *s, struct frame f, const void *payload)
{
    uint8_t header[FRAME_HEADER];
    frame_write(&f, header);
    say(s, header, sizeof header);
    say(s, payload, f.wire_bytes);
}

static void linger(struct tls_stream *s)
{
    tls_stream_finish(s, 1000);
}

static void script_silence(struct tls_stream *s, const char *request)
{
    (void)request;
    struct error e;
    tls_stream_ignore_input(s);
    (void)tls_stream_rest(s, 1500, &e);
}

static void script_endless_line(struct tls_stream *s, const char *request)
{
    (void)request;
    static const char text[64 << 10] = { [0 ...(64 << 10) - 1] = 'x' };
    say(s, text, sizeof text);
    linger(s);
}

static void script_not_json(struct tls_stream *s, const char *request)
{
    (void)request;
    say(s, "HTTP/1.1 400 Bad Request\r\n", 26);
    linger(s);
}

static void script_garbage_frames(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say(s, "GARBAGE GARBAGE GARBAGE GARBAGE GARBAGE", 39);
    linger(s);
}

static void script_wrong_place(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, false, 5, 5, 77 }, "hello");
    linger(s);
}

static void script_after_short_chunk(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, false, 5, 5, 0 }, "hello");
    say_frame(s, (struct frame){ FRAME_DATA, false, 5, 5, 5 }, "hello");
    linger(s);
}

static void script_short_end(struct tls_stream *s, const char *request)
{
    (void)request;
    static const uint8_t digest[32];
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, false, 5, 5, 0 }, "hello");
    say_frame(s, (struct frame){ FRAME_END, false, 32, 32, 4 }, digest);
    linger(s);
}

static void script_bad_zstd(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, true, 12, 5000, 0 }, "no zstd here");
    linger(s);
}

static void script_zstd_of_another_size(struct tls_stream *s, const char *request)
{
    (void)request;
    static const char zeros[MIB];
    char small[1024];
    size_t n = ZSTD_compress(small, sizeof small, zeros, sizeof zeros, 1);
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, true, (uint32_t)n, MIB - 1, 0 }, small); // says less than it is
    linger(s);
}

static void script_again(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say_frame(s, (struct frame){ .kind = FRAME_AGAIN }, "");
    linger(s);
}

static void script_other_base(struct tls_stream *s, const char *request)
{
    (void)request;
    static const char text[] = "{\"seq\":9,\"base\":5,\"offset\":0,\"estimate\":0,\"final\":true}\n";
    say(s, text, sizeof text - 1);
    linger(s);
}

static void script_truncated(struct tls_stream *s, const char *request)
{
    (void)request;
    say_answer(s);
    say_frame(s, (struct frame){ FRAME_DATA, false, 5, 5, 0 }, "hello");
}

static void script_alive(struct tls_stream *s, const char *request)
{
    struct error e;
    bool is_answered = strstr(request, "base") != NULL;
    const struct frame alive = { .kind = FRAME_ALIVE };
    uint8_t header[FRAME_HEADER];
    frame_write(&alive, header);
    if (!is_answered)
        say_answer(s);
    while (tls_stream_write(s, is_answered ? "\n" : (const char *)header, is_answered ? 1 : sizeof header, 1000, &e) == 0)
        poll(NULL, 0, 50);
}

static void sources_that_lie_are_not_believed(void **state)
{
    (void)state;
    static const struct {
        void (*script)(struct tls_stream *s, const char *request);
        enum errcode code;
        const char *words;
    } cases[] = {
        { script_silence, E_TIMEOUT, "nothing came from " SOURCE },
        { script_alive, E_TIMEOUT, "only said that it is alive" },
        { script_endless_line, E_TOO_LARGE, "a line of more than" },
        { script_not_json, E_INVALID, "answer: not JSON" },
        { script_garbage_frames, E_CORRUPT, "begin none" },
        { script_wrong_place, E_CORRUPT, "goes on at byte 77 after byte 0" },
        { script_after_short_chunk, E_CORRUPT, "after a chunk that was short" },
        { script_short_end, E_CORRUPT, "goes on at byte 4 after byte 5" },
        { script_bad_zstd, E_CORRUPT, "can't be decompressed" },
        { script_zstd_of_another_size, E_CORRUPT, "can't be decompressed" },
        { script_again, E_CORRUPT, "another stream" },
        { script_other_base, E_INVALID, "against number 5, which isn't here" },
        { script_truncated, E_UNAVAILABLE, "gave up after 3 attempts" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(rig_free) struct rig *rig = rig_new(MIB);
        rig->script = cases[i].script;
        fetch_badly(rig, cases[i].code, cases[i].words);
        assert_int_equal(rig->target.copy.seq, 0);
    }
}

static void a_source_that_never_answers_is_given_up(void **state)
{
    (void)state;
    AUTO(rig_free) struct rig *rig = rig_new(MIB);
    rig->script = script_alive;
    rig->target.copy = (struct backend_copy){ .id = rig->volume->id, .seq = 1 };
    rig->target_times.tries = 1;
    fetch_badly(rig, E_TIMEOUT, "the source has not answered");
}

// ---- targets that lie

// A target without manners against transfer_serve: what the source says of it.
static struct error serve_rude(void (*rude)(struct rig *rig, int fd))
{
    AUTO(rig_free) struct rig *rig = rig_new(64 * MIB);
    rig_start(rig);
    int fd = tls_stream_connect("127.0.0.1", socket_port(rig->listener), 1000, E);
    assert_true(fd >= 0);
    rude(rig, fd);
    int64_t until = clock_boot_ms() + 5000;
    while (rig->n_sent == 0 && clock_boot_ms() < until)
        poll(NULL, 0, 5);
    assert_int_equal(rig->n_sent, 1);
    rig_stop(rig);
    return rig->errors[0];
}

static struct tls_stream *rude_stream(int fd)
{
    struct tls_stream *s = NULL;
    const struct tls_stream_config config = { .tls = client_tls, .peer_name = SOURCE, .handshake_ms = 1000, .stall_ms = 3000 };
    if (tls_stream_open(fd, &config, &s, E) < 0)
        fail_msg("%s", E->msg);
    return s;
}

static void rude_no_tls(struct rig *rig, int fd)
{
    (void)rig;
    assert_int_equal(write(fd, "GET / HTTP/1.0\r\n\r\n", 18), 18);
    poll(NULL, 0, 50);
    close(fd);
}

static void rude_silent(struct rig *rig, int fd)
{
    while (rig->n_sent == 0)
        poll(NULL, 0, 10);
    close(fd);
}

static void rude_silent_in_tls(struct rig *rig, int fd)
{
    struct tls_stream *s = rude_stream(fd);
    while (rig->n_sent == 0)
        poll(NULL, 0, 10);
    tls_stream_free(s);
}

static void rude_slow_line(struct rig *rig, int fd)
{
    struct tls_stream *s = rude_stream(fd);
    struct error e;
    while (rig->n_sent == 0 && tls_stream_write(s, "x", 1, 100, &e) == 0)
        poll(NULL, 0, 20);
    tls_stream_free(s);
}

static void rude_endless_line(struct rig *rig, int fd)
{
    (void)rig;
    struct tls_stream *s = rude_stream(fd);
    script_endless_line(s, "");
    tls_stream_free(s);
}

static void rude_garbage(struct rig *rig, int fd)
{
    (void)rig;
    struct tls_stream *s = rude_stream(fd);
    say(s, "{\"type\":\"fetch\"}\n", 17);
    linger(s);
    tls_stream_free(s);
}

static void rude_request(struct rig *rig, struct tls_stream *s)
{
    const struct transfer_request r = { .volume = rig->volume->id, .epoch = rig->volume->epoch };
    char line[TRANSFER_LINE_MAX];
    transfer_write_request(&r, line);
    say(s, line, strlen(line));
    say(s, "\n", 1);
}

static void rude_reads_nothing(struct rig *rig, int fd)
{
    int room = 65536;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    struct tls_stream *s = rude_stream(fd);
    rude_request(rig, s);
    while (rig->n_sent == 0)
        poll(NULL, 0, 10);
    tls_stream_free(s);
}

// Talks without end, and reads nothing: no progress either.
static void rude_only_talks(struct rig *rig, int fd)
{
    int room = 65536;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    struct tls_stream *s = rude_stream(fd);
    struct error e;
    rude_request(rig, s);
    while (rig->n_sent == 0 && tls_stream_write(s, "talk\n", 5, 100, &e) == 0)
        poll(NULL, 0, 1);
    tls_stream_free(s);
}

static void targets_without_manners_hold_nothing_up(void **state)
{
    (void)state;
    static const struct {
        void (*rude)(struct rig *rig, int fd);
        enum errcode code;
        const char *words;
    } cases[] = {
        { rude_no_tls, E_UNAVAILABLE, "TLS with the other end" },
        { rude_silent, E_TIMEOUT, "the other end" },
        { rude_silent_in_tls, E_TIMEOUT, TARGET },
        { rude_slow_line, E_TIMEOUT, TARGET " takes too long" },
        { rude_endless_line, E_TOO_LARGE, TARGET " sent a line of more than" },
        { rude_garbage, E_INVALID, "request: \"protocol\"" },
        { rude_reads_nothing, E_TIMEOUT, "nothing came from " TARGET },
        { rude_only_talks, E_TIMEOUT, TARGET " takes too long" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error e = serve_rude(cases[i].rude);
        if (e.code != cases[i].code || !strstr(e.msg, cases[i].words))
            fail_msg("case %zu: wanted %s with \"%s\", got %s: %s", i, error_word(cases[i].code), cases[i].words, error_word(e.code),
                     e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chain_is_the_documented_one),
        cmocka_unit_test(moves_streams_of_any_size),
        cmocka_unit_test(moves_increments_up_to_the_final_one),
        cmocka_unit_test(a_newest_snapshot_that_the_target_lacks_is_sent_as_it_is),
        cmocka_unit_test(a_base_that_is_not_common_makes_the_stream_whole),
        cmocka_unit_test(compresses_where_the_connection_is_slow),
        cmocka_unit_test(goes_on_after_a_connection_broke_anywhere),
        cmocka_unit_test(goes_on_after_a_connection_broke_before_the_end),
        cmocka_unit_test(goes_on_as_long_as_attempts_bring_something),
        cmocka_unit_test(gives_up_and_another_process_goes_on),
        cmocka_unit_test(a_part_is_finished_before_the_final_snapshot),
        cmocka_unit_test(a_part_of_another_stream_is_thrown_away),
        cmocka_unit_test(checkpoints_are_made_on_the_way),
        cmocka_unit_test(gives_up_where_nobody_listens),
        cmocka_unit_test(a_slow_pool_holds_nobody_up),
        cmocka_unit_test(a_pool_that_gives_nothing_is_given_up),
        cmocka_unit_test(errors_of_the_source_are_told),
        cmocka_unit_test(a_full_target_ends_it_at_once),
        cmocka_unit_test(a_target_stops_while_there_is_room),
        cmocka_unit_test(what_does_not_fit_is_not_begun),
        cmocka_unit_test(a_source_that_sends_too_much_is_stopped),
        cmocka_unit_test(a_wrong_digest_is_never_accepted),
        cmocka_unit_test(pools_that_cannot_are_told),
        cmocka_unit_test(certificates_decide),
        cmocka_unit_test(another_epoch_is_refused),
        cmocka_unit_test(sources_that_lie_are_not_believed),
        cmocka_unit_test(a_source_that_never_answers_is_given_up),
        cmocka_unit_test(targets_without_manners_hold_nothing_up),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
