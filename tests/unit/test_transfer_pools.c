// Transfers between two real pools of btrfs, each end in processes of its own that are killed on the way: the volume arrives whole, with
// its content, its increments, and no more of it is sent again than since the last checkpoint. Needs root.
#include "pool.h"

#include "base/failpoint.h"
#include "net/pki.h"
#include "net/socket.h"
#include "transfer/source.h"
#include "transfer/target.h"

#include <poll.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#define DATA_BYTES (24 * MIB)
#define SOURCE     "node-11111111-1111-4111-8111-111111111111"
#define TARGET     "node-22222222-2222-4222-8222-222222222222"

struct pair {
    struct fixture *from, *to;
    struct volume *volume;
    SSL_CTX *server_tls, *client_tls;
    int listener;
    pid_t server;
    uint64_t final_seq;
    const char *source_failpoint, *target_failpoint;
};

static const struct transfer_times quick = {
    .connect_ms = 5000, .handshake_ms = 5000, .request_ms = 5000, .stall_ms = 10000, .alive_ms = 500, .frame_ms = 30000,
    .idle_ms = 30000, .silent_ms = 30000,
    .checkpoint_ms = 0, .retry_ms = 10, .retry_most_ms = 100, .tries = 5,
};

static SSL_CTX *context(const char *dir, const char *name, bool is_server)
{
    SSL_CTX *ret = NULL;
    AUTO(free) char *ca = xasprintf("%s/cluster.crt", dir), *crt = xasprintf("%s/%s.crt", dir, name),
                    *key = xasprintf("%s/%s.key", dir, name);
    struct pki_request r = { .common_name = name, .use = PKI_SERVER | PKI_CLIENT, .days = 5 };
    NO_ERROR(pki_make_certificate(dir, dir, name, &r, E));
    NO_ERROR((is_server ? pki_server_context : pki_client_context)(ca, crt, key, &ret, E));
    return ret;
}

static int pair_start(void **state)
{
    struct pair *p = xcalloc(1, sizeof *p);
    void *at = *state;
    fixture_open(&at);
    p->from = at;
    at = *state;
    fixture_open(&at);
    p->to = at;
    NO_ERROR(pki_make_ca(p->from->dir, "test", 10, E));
    p->server_tls = context(p->from->dir, SOURCE, true);
    p->client_tls = context(p->from->dir, TARGET, false);
    struct error e = ERROR_INIT;
    p->listener = socket_listen_tcp("127.0.0.1", 0, &e);
    assert_true(p->listener >= 0);
    p->volume = new_volume("db", 0);
    *state = p;
    return 0;
}

static int pair_end(void **state)
{
    struct pair *p = *state;
    void *a = p->from, *b = p->to;
    if (p->server) {
        kill(p->server, SIGKILL);
        waitpid(p->server, NULL, 0);
    }
    close(p->listener);
    SSL_CTX_free(p->server_tls);
    SSL_CTX_free(p->client_tls);
    volume_free(p->volume);
    fixture_end(&a);
    fixture_end(&b);
    free(p);
    return 0;
}

// ---- both ends

static int permit(void *arg, const char *peer, const struct transfer_request *r, struct transfer_grant *ret, struct error *e)
{
    struct pair *p = arg;
    if (strcmp(peer, TARGET) != 0 || r->epoch != p->volume->epoch)
        return fail(e, E_DENIED, "no");
    *ret = (struct transfer_grant){ .final_seq = p->final_seq };
    return 0;
}

static void arm(const char *failpoint)
{
    struct error e;
    if (!failpoint)
        return;
    setenv("FLOCKER_FAILPOINT", failpoint, 1);
    ASSERT(failpoint_init(&e) == 0);
}

// The source's agent: a worker for each connection.
static void run_server(struct pair *p)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    arm(p->source_failpoint);
    for (;;) {
        struct pollfd ready = { p->listener, POLLIN, 0 };
        poll(&ready, 1, -1);
        int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        pid_t worker = fd >= 0 ? fork() : -1;
        if (worker == 0) {
            struct error e;
            struct transfer_sent sent;
            const struct transfer_source source = {
                .backend = p->from->b, .tls = p->server_tls, .permit = permit, .arg = p, .times = &quick
            };
            _exit(transfer_serve(fd, &source, &sent, &e) < 0);
        }
        close(fd);
        waitpid(worker, NULL, 0);
    }
}

static void start_server(struct pair *p)
{
    p->server = fork();
    assert_true(p->server >= 0);
    if (p->server == 0)
        run_server(p);
}

static void stop_server(struct pair *p)
{
    kill(p->server, SIGKILL);
    waitpid(TAKE(p->server, 0), NULL, 0);
}

static int fetch(struct pair *p, struct transfer_result *ret, struct error *e)
{
    const struct transfer_target target = {
        .backend = p->to->b, .volume = p->volume, .host = "127.0.0.1", .port = socket_port(p->listener), .peer_name = SOURCE,
        .tls = p->client_tls, .times = &quick,
    };
    return transfer_fetch(&target, ret, e);
}

static int fetch_killed(void *arg)
{
    struct pair *p = arg;
    struct transfer_result r;
    struct error e;
    arm(p->target_failpoint);
    return fetch(p, &r, &e) < 0 ? 1 : 0;
}

static struct transfer_result fetch_well(struct pair *p, uint64_t seq)
{
    struct transfer_result r = { 0 };
    start_server(p);
    NO_ERROR(fetch(p, &r, E));
    stop_server(p);
    assert_int_equal(r.seq, seq);
    return r;
}

// ---- content

static void write_data(const char *path, unsigned seed)
{
    AUTO(close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    static uint32_t block[MIB / 4];
    assert_true(fd >= 0);
    for (uint32_t i = 0, x = seed * 2654435761U + 1; i < DATA_BYTES / MIB; i++) {
        for (size_t at = 0; at < ARRAY_SIZE(block); at++)
            block[at] = x = x * 1664525U + 1013904223U;
        assert_int_equal(write(fd, block, sizeof block), sizeof block);
    }
}

static void make_volume(struct pair *p)
{
    NO_ERROR(p->from->b->ops->create(p->from->b, p->volume, E));
    NO_ERROR(p->from->b->ops->mount(p->from->b, &p->volume->id, E));
    write_data(path_of("%s/one", mount_point(p->from, &p->volume->id)), 1);
}

// The copy becomes the volume, and is what the source has.
static void place_and_compare(struct pair *p)
{
    p->volume->epoch++;
    NO_ERROR(p->to->b->ops->place(p->to->b, p->volume, E));
    NO_ERROR(p->to->b->ops->mount(p->to->b, &p->volume->id, E));
    NO_ERROR(run_program((const char *const[]){ "diff", "-r", path_of("%s", mount_point(p->from, &p->volume->id)),
                                                path_of("%s", mount_point(p->to, &p->volume->id)), NULL }, E));
}

// ---- tests

static void a_volume_in_use_moves_by_increments(void **state)
{
    struct pair *p = *state;
    make_volume(p);
    struct transfer_result r = fetch_well(p, 1);
    assert_true(r.bytes > DATA_BYTES && !r.final);
    write_data(path_of("%s/two", mount_point(p->from, &p->volume->id)), 2);
    assert_int_equal(unlink(path_of("%s/one", mount_point(p->from, &p->volume->id))), 0);
    r = fetch_well(p, 2);
    assert_true(r.bytes > DATA_BYTES && r.bytes < DATA_BYTES + MIB);
    NO_ERROR(p->from->b->ops->snapshot(p->from->b, &p->volume->id, 3, E));
    p->final_seq = 3;
    r = fetch_well(p, 3);
    assert_true(r.final && r.bytes < MIB);
    assert_true(fetch_well(p, 3).is_current);
    place_and_compare(p);
}

static void a_killed_target_goes_on_from_its_checkpoint(void **state)
{
    struct pair *p = *state;
    make_volume(p);
    start_server(p);
    static const char *const failpoints[] = { "transfer.asked", "transfer.applied:9", "transfer.applied:5", "transfer.checked" };
    for (size_t i = 0; i < ARRAY_SIZE(failpoints); i++) {
        p->target_failpoint = failpoints[i];
        pid_t pid = fork();
        if (pid == 0)
            _exit(fetch_killed(p));
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status))
            fail_msg("%s was never reached", failpoints[i]);
    }
    stop_server(p);
    struct transfer_result r = fetch_well(p, 1);
    assert_true(r.bytes <= MIB); // the last, short chunk: a part ends where a whole one does
    place_and_compare(p);
}

static void a_killed_source_is_asked_again(void **state)
{
    static const char *const failpoints[] = { "transfer.granted", "transfer.chosen", "transfer.sent:7", "transfer.noted" };
    struct pair *p = *state;
    make_volume(p);
    for (uint64_t i = 0; i < ARRAY_SIZE(failpoints); i++) {
        p->source_failpoint = failpoints[i];
        struct transfer_result r = fetch_well(p, i + 1);
        assert_int_equal(r.connections, 2);
        write_data(path_of("%s/more", mount_point(p->from, &p->volume->id)), (unsigned)i + 7);
    }
    p->source_failpoint = NULL;
    fetch_well(p, ARRAY_SIZE(failpoints) + 1);
    place_and_compare(p);
}

int main(void)
{
    if (!has_own_mounts())
        return 77;
    static struct setup setup = { "btrfs in a file", &backend_btrfs, POOL_FILE, false, true };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate_setup_teardown(a_volume_in_use_moves_by_increments, pair_start, pair_end, &setup),
        cmocka_unit_test_prestate_setup_teardown(a_killed_target_goes_on_from_its_checkpoint, pair_start, pair_end, &setup),
        cmocka_unit_test_prestate_setup_teardown(a_killed_source_is_asked_again, pair_start, pair_end, &setup),
    };
    return RUN_TESTS(tests);
}
