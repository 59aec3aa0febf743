// A volume's way through one host, while control, the agent, and engines come and go, and the pool fails.
#include "agent_rig.h"

#include "base/limits.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

// ---- the way of a volume

static void life(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("Plugin.Activate", ""));
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"db\",\"Opts\":{\"size\":\"64M\"}}"));
    assert_int_equal(truth().n, 1);
    assert_int_equal(truth().size, 64 << 20);
    assert_int_equal(truth().mounted, 0);
    OK(plugin_call("VolumeDriver.Create", DB)); // it is there already
    assert_int_equal(truth().n, 1);
    assert_non_null(strstr(plugin_call("VolumeDriver.List", "{}").body, "\"db\""));
    struct answer get = plugin_call("VolumeDriver.Get", DB);
    assert_non_null(strstr(get.body, "\"Mountpoint\":\"\""));
    REFUSED(plugin_call("VolumeDriver.Get", "{\"Name\":\"no\"}"), "no such volume: no");
    REFUSED(plugin_call("VolumeDriver.Path", DB), "not mounted");
    REFUSED(plugin_call("VolumeDriver.Mount", "{\"Name\":\"no\",\"ID\":\"x\"}"), "no such volume");
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // docker cp
    OK(plugin_call("VolumeDriver.Mount", DB_TWO));
    assert_non_null(strstr(plugin_call("VolumeDriver.Path", DB).body, "/flocker/"));
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":3"));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_TWO));
    assert_int_equal(truth().mounted, 1);
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE)); // of nothing
    OK(plugin_call("VolumeDriver.Remove", DB));
    OK(plugin_call("VolumeDriver.Remove", DB));
    REFUSED(plugin_call("VolumeDriver.Get", DB), "no such volume");
    assert_null(strstr(plugin_call("VolumeDriver.List", "{}").body, "\"db\""));
    assert_int_equal(truth().n, 1); // in the trash
    OK(rest("POST /v2/volumes/db/restore", "{}"));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    OK(plugin_call("VolumeDriver.Remove", DB));
    OK(rest("DELETE /v2/volumes/db?purge=1", ""));
    WAIT_FOR(truth().n == 0);
}

static void v1_clients_find_it_mounted(void **state)
{
    (void)state;
    char body[200];
    control_up();
    agent_up();
    snprintf(body, sizeof body, "{\"primary\":\"%s\",\"metadata\":{\"name\":\"db\"}}", UUID_TEXT(&host.node));
    OK(rest("POST /v1/configuration/datasets", body));
    WAIT_FOR(truth().mounted == 1);
    WAIT_FOR(strstr(rest("GET /v1/state/datasets", "").body, "\"path\":\"/flocker/"));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    for (int i = 0; i < 50; i++)
        pump();
    assert_int_equal(truth().mounted, 1); // kept
}

static void ids_up_to_the_largest(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"db\",\"Opts\":{\"uid\":\"4294967294\",\"gid\":\"3000000000\"}}"));
    struct answer got = rest("GET /v2/volumes/db", "");
    assert_non_null(strstr(got.body, "\"uid\":4294967294"));
    assert_non_null(strstr(got.body, "\"gid\":3000000000"));
}

// ---- control comes and goes

static void control_is_late(void **state)
{
    (void)state;
    agent_up();
    int create = plugin_start("VolumeDriver.Create", DB), get = plugin_start("VolumeDriver.Get", DB), list = plugin_start("VolumeDriver.List", "{}");
    for (int i = 0; i < 300; i++)
        pump();
    control_up();
    OK(call_end(create));
    OK(call_end(list));
    struct answer a = call_end(get);
    assert_true(a.status == 200 || strstr(a.body, "no such volume")); // which of the two was first is open
    assert_int_equal(truth().n, 1);
}

static void without_control(void **state)
{
    (void)state;
    agent_up();
    int64_t began = clock_boot_ms();
    int create = plugin_start("VolumeDriver.Create", DB), get = plugin_start("VolumeDriver.Get", DB), list = plugin_start("VolumeDriver.List", "{}"),
        remove = plugin_start("VolumeDriver.Remove", DB), mount = plugin_start("VolumeDriver.Mount", DB_ONE);
    REFUSED(call_end(create), "control service can't be reached");
    REFUSED(call_end(remove), "control service can't be reached");
    REFUSED(call_end(mount), "control service can't be reached");
    assert_int_equal(call_end(get).status, 0); // an error would make the engine forget the volume
    OK(call_end(list));
    assert_true(clock_boot_ms() - began < 4000);
    assert_int_equal(truth().n, 0);
}

static void control_is_gone_and_back(void **state)
{
    (void)state;
    host.store = &store_sqlite;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    control_down();
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // its own order is the latest it knows
    assert_int_equal(truth().mounted, 1);
    int create = plugin_start("VolumeDriver.Create", "{\"Name\":\"web\"}"), remove = plugin_start("VolumeDriver.Remove", "{\"Name\":\"old\"}");
    for (int i = 0; i < 200; i++)
        pump();
    control_up();
    OK(call_end(create));
    OK(call_end(remove));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    WAIT_FOR(strstr(rest("GET /v2/volumes/db", "").body, "\"ready\":true"));
    assert_int_equal(truth().n, 2);
}

// Control that lost its store: nothing is destroyed, nothing is served under a name that control does not know.
static void control_that_forgot(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    control_down();
    control_up();
    WAIT_FOR(plugin_call("VolumeDriver.Get", DB).status == 500);
    assert_int_equal(truth().n, 1);
    assert_int_equal(plugin_call("VolumeDriver.Create", DB).status, 500); // an empty one in its place would hide the data
    assert_int_equal(truth().n, 1);
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"web\"}"));
    assert_int_equal(truth().n, 2);
}

// ---- the agent comes and goes

// A pool of which the inventory does not fit one answer:
enum { LARGE = 120000 };

static bool large_fails; // at the end of the first look

static int observe_large(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                         void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e)
{
    (void)b;
    (void)on_damaged;
    for (int i = 0; i < LARGE; i++) {
        struct error ignored = ERROR_INIT;
        struct backend_volume found = { .record = volume_new() };
        struct volume *v = found.record;
        AUTO(free) char *value = xasprintf("%0250d", i);
        memcpy(v->id.b, &i, sizeof i);
        v->id.b[6] = 0x40;
        v->id.b[8] = 0x80;
        v->name = xasprintf("volume-%d", i);
        v->owner = v->target = host.node;
        v->epoch = v->revision = 1;
        v->born = true;
        metadata_set(&v->metadata, "much", value, &ignored);
        on_volume(arg, &found);
    }
    return large_fails ? fail(e, E_IO, "the disk is gone") : 0;
}

static void count_one(void *arg, const struct agent_view *v)
{
    size_t *n = arg;
    *n += v->present;
}

static struct backend_ops large; // fault's, but for these

static int open_large(const struct backend_config *config, struct backend **ret, struct error *e)
{
    int rc = backend_fault.open(config, ret, e);
    if (rc == 0)
        (*ret)->ops = &large;
    return rc;
}

static void a_large_pool_is_opened(void **state)
{
    size_t n = 0;
    (void)state;
    large = backend_fault;
    large.in_process = false;
    large.open = open_large;
    large.observe = observe_large;
    large.copies = NULL;
    host.backend = &large;
    large_fails = true;
    agent_up();
    for (int64_t end_ms = clock_boot_ms() + 30000; !strstr(plugin_call("VolumeDriver.Create", DB).body, "disk is gone"); pump())
        assert_true(clock_boot_ms() < end_ms);
    agent_each(host.agent, count_one, &n);
    assert_int_equal(n, 0); // nothing half-way
    large_fails = false;
    for (int64_t end_ms = clock_boot_ms() + 60000; !agent_is_open(host.agent); pump())
        assert_true(clock_boot_ms() < end_ms);
    agent_each(host.agent, count_one, &n);
    assert_int_equal(n, LARGE);
    agent_down();
    host.backend = NULL;
}

// A backend without moves does its work in the agent itself, which does not serve whoever connects.
static void nobody_fetches_from_memory(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char byte;
    AUTO(free) char *path = xasprintf("%s/peers.sock", host.dir);
    host.peer_fd = socket_listen_unix(path, 0600, &e);
    agent_up();
    host.peer_fd = 0;
    WAIT_FOR(agent_is_open(host.agent));
    AUTO(close) int peer = socket_connect_unix(path, 1000, &e);
    assert_true(peer >= 0);
    WAIT_FOR(recv(peer, &byte, 1, MSG_DONTWAIT) == 0);
    agent_down();
}

static void agent_restarts(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    pump();
    agent_down();
    agent_up();
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_TWO));
    OK(plugin_call("VolumeDriver.Unmount", DB_TWO));
    for (int i = 0; i < 50; i++)
        pump();
    assert_int_equal(truth().mounted, 1);
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":1"));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
}

// The agent died in the middle of a Mount: nobody will ever say whether its answer was taken.
static void agent_that_died_while_mounting(void **state)
{
    (void)state;
    char path[200];
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    pump();
    agent_down();
    struct truth t = { 0 };
    struct error e = ERROR_INIT;
    const struct backend_config pool = { .path = "/pool" };
    assert_int_equal(backend_memory.open(&pool, &fault.inner, &e), 0);
    t = truth();
    backend_memory.close(fault.inner);
    snprintf(path, sizeof path, "%s/%s.json", host.refs, UUID_TEXT(&t.ids[0]));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "[{\"id\":\"one\",\"pid\":%d,\"start\":%llu,\"count\":0,\"open\":1,\"opened_ms\":%lld}]", (int)getpid(),
            (unsigned long long)agent_engine(getpid()).start, (long long)(clock_boot_ms() - REFS_OPEN_GRACE_MS + 1500));
    fclose(f);
    agent_up();
    WAIT_FOR(agent_is_open(host.agent));
    assert_int_equal(truth().mounted, 1);
    WAIT_FOR(truth().mounted == 0);
}

static void agent_restarts_without_control(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    agent_down();
    control_down();
    agent_up();
    WAIT_FOR(agent_is_open(host.agent));
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
}

// ---- engines

static void answers_that_nobody_takes(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    close(plugin_start("VolumeDriver.Mount", DB_ONE));
    for (int i = 0; i < 50; i++)
        pump();
    WAIT_FOR(truth().mounted == 0);
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":0"));
}

// A Mount by another engine process, which is this one's child.
static pid_t engine_that_mounts(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c[512];
        int fd = call_start(host.plugin_path, "POST /VolumeDriver.Mount HTTP/1.1", DB_TWO);
        while (recv(fd, c, sizeof c, 0) > 0)
            ;
        (void)!write(ends[1], "x", 1);
        pause();
        _exit(0);
    }
    char c;
    struct pollfd p = { ends[0], POLLIN, 0 };
    while (poll(&p, 1, 0) == 0)
        pump();
    assert_int_equal(read(ends[0], &c, 1), 1);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static void engine_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void engine_that_dies(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    pid_t engine = engine_that_mounts();
    REFUSED(plugin_call("VolumeDriver.Remove", DB), "volume db is in use by an engine");
    engine_end(engine);
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // a reason to look at what the dead one left
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    engine = engine_that_mounts();
    engine_end(engine);
    OK(plugin_call("VolumeDriver.Remove", DB));
    assert_int_equal(truth().mounted, 0);
}

static void podman_beside_docker(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(podman_call("VolumeDriver.Create", DB));
    OK(podman_call("VolumeDriver.Mount", DB_ONE));
    OK(podman_call("VolumeDriver.Mount", DB_ONE));
    REFUSED(plugin_call("VolumeDriver.Remove", DB), "in use");
    OK(podman_call("VolumeDriver.Unmount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
    OK(podman_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    OK(plugin_call("VolumeDriver.Remove", DB));
}

static void calls_at_once(void **state)
{
    (void)state;
    enum { N = 12 };
    int fds[N];
    control_up();
    agent_up();
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start("VolumeDriver.Create", DB);
    for (int i = 0; i < N; i++)
        OK(call_end(fds[i]));
    assert_int_equal(truth().n, 1);
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start("VolumeDriver.Mount", i & 1 ? DB_ONE : DB_TWO);
    for (int i = 0; i < N; i++)
        OK(call_end(fds[i]));
    for (int i = 0; i < N; i++) {
        assert_int_equal(truth().mounted, 1);
        OK(plugin_call("VolumeDriver.Unmount", i & 1 ? DB_ONE : DB_TWO));
    }
    WAIT_FOR(truth().mounted == 0);
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start(i & 1 ? "VolumeDriver.Remove" : "VolumeDriver.Mount", DB_ONE);
    for (int i = 0; i < N; i++) {
        struct answer a = call_end(fds[i]);
        assert_true(a.status == 200 || strstr(a.body, "db"));
    }
}

// ---- whatever fails, it heals

// As an engine and its user do: again, until it works. Each refusal must say which volume it is about.
static void persist(const char *call, const char *body)
{
    char id[UUID_TEXT_SIZE] = "none";
    struct truth t = truth();
    if (t.n)
        uuid_format(&t.ids[0], id);
    for (int tries = 0; tries < 5; tries++) {
        struct answer a = plugin_call(call, body);
        if (a.status == 200)
            return;
        if (a.status != 500 || (!strstr(a.body, "of volume ") && !strstr(a.body, "db") && !strstr(a.body, "pool")))
            fail_msg("%s: %d %s", call, a.status, a.body);
    }
    fail_msg("%s never works again", call);
}

static void one_life(void)
{
    control_up();
    agent_up();
    persist("VolumeDriver.Create", DB);
    assert_true(truth().n > 0);
    if (plugin_call("VolumeDriver.Mount", DB_ONE).status == 200)
        persist("VolumeDriver.Unmount", DB_ONE);
    WAIT_FOR(truth().mounted == 0); // also what was refused, and was done all the same
    persist("VolumeDriver.Mount", DB_ONE);
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Mount", DB_TWO);
    persist("VolumeDriver.Unmount", DB_TWO);
    assert_int_equal(truth().mounted, 1);
    OK(rest("PATCH /v2/volumes/db", "{\"size\":\"128M\"}"));
    WAIT_FOR(truth().size == 128 << 20);
    persist("VolumeDriver.Unmount", DB_ONE);
    persist("VolumeDriver.Mount", DB_ONE); // at once: the unmount may be under way, or have failed
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Unmount", DB_ONE);
    WAIT_FOR(truth().mounted == 0);
    OK(rest("POST /v2/volumes?wait=5", "{\"name\":\"other\"}"));
    WAIT_FOR(truth().n >= 2);
    persist("VolumeDriver.Remove", DB);
    assert_int_equal(truth().mounted, 0);
    OK(rest("DELETE /v2/volumes/db?purge=1", ""));
    WAIT_FOR(strstr(rest("GET /v2/volumes?all=1", "").body, "\"db\"") == NULL);
    agent_down();
    agent_up();
    WAIT_FOR(plugin_call("VolumeDriver.Get", "{\"Name\":\"other\"}").status == 200);
    persist("VolumeDriver.Mount", "{\"Name\":\"other\",\"ID\":\"x\"}");
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Unmount", "{\"Name\":\"other\",\"ID\":\"x\"}");
    WAIT_FOR(truth().mounted == 0);
}

static void sweep(int times, bool after)
{
    void *state = NULL;
    bool hit = true;
    long n;
    for (n = 1; hit; n++) {
        if (n > 1) {
            host_end(&state);
            host_new(&state);
        }
        fault_arm(n, times, after);
        one_life();
        hit = fault.hit;
        WAIT_FOR(truth().n == 1); // "other": nothing is left of what could not be made
    }
    print_message("each of %ld operations was made to fail %s its effect, %d in a row\n", n - 2, after ? "after" : "before", times);
    assert_true(n > 10);
    void *again = NULL;
    host_end(&again);
    host_new(&again);
}

static void operations_fail_before_their_effect(void **state)
{
    (void)state;
    sweep(1, false);
    sweep(2, false);
}

static void operations_fail_after_their_effect(void **state)
{
    (void)state;
    sweep(1, true);
    sweep(2, true);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(life),
        CASE(v1_clients_find_it_mounted),
        CASE(ids_up_to_the_largest),
        CASE(a_large_pool_is_opened),
        CASE(nobody_fetches_from_memory),
        CASE(control_is_late),
        CASE(without_control),
        CASE(control_is_gone_and_back),
        CASE(control_that_forgot),
        CASE(agent_restarts),
        CASE(agent_that_died_while_mounting),
        CASE(agent_restarts_without_control),
        CASE(answers_that_nobody_takes),
        CASE(engine_that_dies),
        CASE(podman_beside_docker),
        CASE(calls_at_once),
        CASE(operations_fail_before_their_effect),
        CASE(operations_fail_after_their_effect),
    };
    host_log();
    return RUN_TESTS(tests);
}
