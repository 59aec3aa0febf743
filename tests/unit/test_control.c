// Control as a process of its own, with a store and times of the test's choice; agents and clients are this process.
#include "test.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/control.h"
#include "model/json.h"
#include "net/http.h"
#include "net/socket.h"

#include <errno.h>
#include <event2/event.h>
#include <ftw.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct rig {
    char dir[32], api[64], agents[64], store[64];
    pid_t pid;
};

// ---- a store that fails when it is told to; this process sees what happens

static struct {
    bool fails;
    int commits;
    int64_t clock_ahead_ms, boot_ahead_ms;
} *shared;

static int flaky_commit(struct store *s, const struct store_change *changes, size_t n, struct error *e)
{
    shared->commits++;
    if (shared->fails)
        return fail(e, E_NO_SPACE, "the disk is full");
    return store_memory.commit(s, changes, n, e);
}

static struct store_ops store_flaky; // memory's, but for these two

static int flaky_open(const char *path, struct store **ret, struct error *e)
{
    int rc = store_memory.open(path, ret, e);
    if (rc == 0)
        (*ret)->ops = &store_flaky;
    return rc;
}

// ---- a wall clock that can be set

int64_t __real_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void);

int64_t __wrap_clock_wall_ms(void)
{
    return __real_clock_wall_ms() + shared->clock_ahead_ms;
}

int64_t __real_clock_boot_ms(void);
int64_t __wrap_clock_boot_ms(void);

int64_t __wrap_clock_boot_ms(void)
{
    return __real_clock_boot_ms() + shared->boot_ahead_ms;
}

// ---- the process

static void on_term(evutil_socket_t fd, short what, void *base)
{
    (void)fd, (void)what;
    event_base_loopbreak(base);
}

static _Noreturn void be_control(struct control_config config)
{
    struct error e = ERROR_INIT;
    struct control *c = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that fails leaves nothing behind
    setenv("FLOCKER_LOG", "error", 0);
    log_open("control");
    config.base = event_base_new();
    struct event *term = evsignal_new(config.base, SIGTERM, on_term, config.base);
    event_add(term, NULL);
    if (control_new(&config, &c, &e) < 0) {
        fprintf(stderr, "control: %s\n", e.msg);
        exit(1);
    }
    event_base_dispatch(config.base);
    control_free(c);
    event_free(term);
    event_base_free(config.base);
    libevent_global_shutdown();
    exit(0);
}

static void start(struct rig *r, const struct store_ops *ops, int64_t keep_ms)
{
    struct error e = ERROR_INIT;
    struct control_config config = { .store = ops, .store_path = r->store, .rest_fd = -1, .trash_keep_ms = keep_ms };
    if (!r->dir[0]) {
        snprintf(r->dir, sizeof r->dir, "/tmp/test-control-XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        snprintf(r->api, sizeof r->api, "%s/api", r->dir);
        snprintf(r->agents, sizeof r->agents, "%s/agents", r->dir);
        snprintf(r->store, sizeof r->store, "%s/store", r->dir);
    }
    config.api_fd = socket_listen_unix(r->api, 0600, &e);
    config.agents_fd = socket_listen_unix(r->agents, 0600, &e);
    assert_true(config.api_fd >= 0 && config.agents_fd >= 0);
    fflush(NULL);
    r->pid = fork();
    if (r->pid == 0)
        be_control(config);
    close(config.api_fd);
    close(config.agents_fd);
}

static void kill_9(struct rig *r)
{
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

// Ends control in order: it must say that all was well (and, with a sanitizer, that nothing leaked).
static void stop(struct rig *r)
{
    int status;
    kill(r->pid, SIGTERM);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

// ---- clients

static int call(const struct rig *r, const char *method, const char *target, const char *body, json_t **ret)
{
    struct error e = ERROR_INIT;
    struct http_result result = { 0 };
    const struct http_call c = { .unix_path = r->api, .method = method, .target = target, .body = body, .body_n = body ? strlen(body) : 0,
                                 .timeout_ms = 30000 };
    json_t *value = NULL;
    if (http_call(&c, &result, &e) < 0)
        fail_msg("%s %s: %s", method, target, e.msg);
    assert_int_equal(json_read(result.body, result.body_n, &value, &e), 0);
    int status = result.status;
    http_result_done(&result);
    if (ret)
        *ret = value;
    else
        json_decref(value);
    return status;
}

// A member of a volume as v2 shows it, or the status as text.
static const char *look(const struct rig *r, const char *id, const char *member, char ret[64])
{
    char target[128];
    json_t *reply;
    snprintf(target, sizeof target, "/v2/volumes/%s", id);
    int status = call(r, "GET", target, NULL, &reply);
    const char *text = json_string_value(json_object_get(reply, member));
    if (status == 200)
        snprintf(ret, 64, "%s", text ? text : "");
    else
        snprintf(ret, 64, "%d", status);
    json_decref(reply);
    return ret;
}

static bool comes_to(const struct rig *r, const char *id, const char *member, const char *value, int limit_ms)
{
    char text[64];
    for (int64_t end_ms = clock_boot_ms() + limit_ms; clock_boot_ms() < end_ms; usleep(10000))
        if (strcmp(look(r, id, member, text), value) == 0)
            return true;
    print_error("%s of %s is %s\n", member, id, text);
    return false;
}

// ---- agents

struct fake {
    int fd;
    FILE *in;
};

static void say(const struct fake *a, json_t *message)
{
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    AUTO(free) char *line = xasprintf("%s\n", text);
    json_decref(message);
    assert_int_equal(send(a->fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
}

// The next message; NULL at the end of the connection.
static json_t *hear(const struct fake *a)
{
    char line[65536];
    if (!fgets(line, sizeof line, a->in))
        return NULL;
    json_t *message = json_loads(line, 0, NULL);
    assert_non_null(message);
    return message;
}

static bool is_type(const json_t *message, const char *type)
{
    return message && strcmp(json_string_value(json_object_get(message, "type")), type) == 0;
}

static struct fake agent_connect(const struct rig *r)
{
    struct error e = ERROR_INIT;
    struct fake a = { .fd = socket_connect_unix(r->agents, 5000, &e) };
    const struct timeval limit = { .tv_sec = 30 }; // a test that waits in vain fails
    assert_true(a.fd >= 0);
    setsockopt(a.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    a.in = fdopen(dup(a.fd), "r");
    return a;
}

static void agent_end(struct fake *a)
{
    fclose(a->in);
    close(a->fd);
}

// Says hello; false if control closes the connection.
static bool agent_hello(const struct fake *a, const char *node)
{
    say(a, json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "type", "hello", "protocol", 1, "version", "x", "node", node, "era", node, "host",
                     "10.0.0.1"));
    json_t *welcome = hear(a);
    bool is_welcome = is_type(welcome, "welcome");
    json_decref(welcome);
    if (!is_welcome)
        return false;
    say(a, json_pack("{s:s}", "type", "inventory-end"));
    return true;
}

static struct fake agent_up(const struct rig *r, const char *node)
{
    struct fake a = agent_connect(r);
    assert_true(agent_hello(&a, node));
    return a;
}

// Skips messages until an order for a volume in that state, whose data control knows of.
static void await_want(const struct fake *a, const char *state, char id[64])
{
    for (json_t *message; (message = hear(a));) {
        const json_t *volume = json_object_get(message, "volume");
        const char *is = json_string_value(json_object_get(volume, "state"));
        bool found = is && strcmp(is, state) == 0 && json_is_true(json_object_get(volume, "born"));
        if (found)
            snprintf(id, 64, "%s", json_string_value(json_object_get(volume, "id")));
        json_decref(message);
        if (found)
            return;
    }
    fail_msg("no order with state %s came", state);
}

static void report(const struct fake *a, const char *id, bool present)
{
    say(a, json_pack("{s:s, s:s, s:i, s:i, s:b, s:b}", "type", "report", "id", id, "epoch", 1, "revision", 1, "present", (int)present, "mounted", 0));
}

#define NODE   "b7a1cf2e-5f0b-4d3c-8a1e-0c8f1d2e3f40"
#define NODE_2 "c7a1cf2e-5f0b-4d3c-8a1e-0c8f1d2e3f41"

static void make(const struct rig *r, const struct fake *a, char id[64])
{
    json_t *made;
    assert_int_equal(call(r, "POST", "/v2/volumes", "{\"owner\": \"" NODE "\"}", &made), 201);
    snprintf(id, 64, "%s", json_string_value(json_object_get(made, "id")));
    json_decref(made);
    report(a, id, true);
    await_want(a, "live", id);
}

static void discard(const struct rig *r, const char *id)
{
    char target[128];
    snprintf(target, sizeof target, "/v1/configuration/datasets/%s", id);
    assert_int_equal(call(r, "DELETE", target, NULL, NULL), 200);
}

// ---- tests

// What is in the trash is kept as long as it was promised, then its owner is told to destroy it, then the entry stays as long again.
static void test_trash_runs_out(void **state)
{
    enum { MANY = 200 };
    static char ids[MANY][64];
    struct rig r = { .pid = 0 };
    char id[64], text[64];
    (void)state;
    start(&r, &store_memory, 1000);
    struct fake a = agent_up(&r, NODE);
    for (int i = 0; i < MANY; i++)
        make(&r, &a, ids[i]);
    int64_t begin_ms = clock_boot_ms();
    for (int i = 0; i < MANY; i++)
        discard(&r, ids[i]);
    look(&r, ids[0], "state", text);
    assert_true(strcmp(text, "trashed") == 0 || clock_boot_ms() - begin_ms >= 1000);
    for (int i = 0; i < MANY; i++) {
        await_want(&a, "purging", id);
        report(&a, id, false);
    }
    assert_true(clock_boot_ms() - begin_ms >= 990);
    for (int i = 0; i < MANY; i++)
        assert_true(comes_to(&r, ids[i], "state", "404", 5000));
    assert_true(clock_boot_ms() - begin_ms >= 1990 && clock_boot_ms() - begin_ms < 8000);
    agent_end(&a);
    stop(&r);
}

// Over a kill -9 the time goes on; what is due at the start is done soon: when control has seen that the clock is left alone.
static void test_trash_over_restart(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], due[64], purge[64], text[64];
    (void)state;
    start(&r, &store_sqlite, 1000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    discard(&r, id);
    look(&r, id, "purge", purge);
    kill_9(&r);
    agent_end(&a);
    usleep(1200000);
    start(&r, &store_sqlite, 1000);
    assert_true(comes_to(&r, id, "state", "purging", 5000));
    assert_string_equal(look(&r, id, "purge", text), purge);
    a = agent_connect(&r);
    assert_true(agent_hello(&a, NODE));
    await_want(&a, "purging", due);
    assert_string_equal(due, id);
    report(&a, id, false);
    assert_true(comes_to(&r, id, "state", "404", 5000));
    agent_end(&a);
    stop(&r);
}

// A clock that is set forward by days doesn't empty the trash: what is in it is kept as long as promised, counted from then.
static void test_clock_set_forward(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], second[64], text[64];
    (void)state;
    start(&r, &store_memory, 2000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    make(&r, &a, second);
    discard(&r, id);
    shared->clock_ahead_ms = (int64_t)7 * 24 * 3600 * 1000;
    discard(&r, second); // runs a sweep
    int64_t begin_ms = clock_boot_ms();
    while (clock_boot_ms() < begin_ms + 1500) {
        assert_string_equal(look(&r, id, "state", text), "trashed");
        usleep(100000);
    }
    assert_true(comes_to(&r, id, "state", "purging", 4000));
    assert_true(comes_to(&r, second, "state", "purging", 4000));
    assert_true(clock_boot_ms() - begin_ms >= 1990);
    shared->clock_ahead_ms = 0;
    agent_end(&a);
    stop(&r);
}

// A clock that was wrong when a volume was removed, and is right now: it goes after the promised time, not in years.
static void test_clock_set_back(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], second[64], text[64];
    (void)state;
    shared->clock_ahead_ms = (int64_t)3000 * 24 * 3600 * 1000;
    start(&r, &store_memory, 2000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    make(&r, &a, second);
    discard(&r, id);
    usleep(1000000);
    shared->clock_ahead_ms = 0;
    int64_t begin_ms = clock_boot_ms();
    discard(&r, second);
    while (clock_boot_ms() < begin_ms + 1500) {
        assert_string_equal(look(&r, id, "state", text), "trashed");
        usleep(100000);
    }
    assert_true(comes_to(&r, id, "state", "purging", 4000));
    assert_true(comes_to(&r, second, "state", "purging", 4000));
    agent_end(&a);
    stop(&r);
}

// Started with a clock that is years ahead, as a host whose battery is empty may be until it has asked others: the trash has its time.
static void test_clock_wrong_at_the_start(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], text[64];
    (void)state;
    start(&r, &store_sqlite, 2000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    discard(&r, id);
    kill_9(&r);
    agent_end(&a);
    shared->clock_ahead_ms = (int64_t)3000 * 24 * 3600 * 1000;
    int64_t begin_ms = clock_boot_ms();
    start(&r, &store_sqlite, 2000);
    while (clock_boot_ms() < begin_ms + 1500) {
        assert_string_equal(look(&r, id, "state", text), "trashed");
        usleep(100000);
    }
    assert_true(comes_to(&r, id, "state", "purging", 4000));
    shared->clock_ahead_ms = 0;
    stop(&r);
}

// A change that the store refuses is not made, and is told; what runs out meanwhile is tried again without haste.
static void test_store_that_fails(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], text[64];
    json_t *reply;
    (void)state;
    store_flaky = store_memory;
    store_flaky.open = flaky_open;
    store_flaky.commit = flaky_commit;
    start(&r, &store_flaky, 300);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    const char *lease = "{\"dataset_id\": \"0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11\", \"node_uuid\": \"" NODE "\", \"expires\": 0.3}";
    assert_int_equal(call(&r, "POST", "/v1/configuration/leases", lease, NULL), 201);
    discard(&r, id);
    shared->fails = true;
    assert_int_equal(call(&r, "POST", "/v1/configuration/datasets", "{\"primary\": \"" NODE "\"}", &reply), 507);
    assert_string_equal(json_string_value(json_object_get(reply, "description")), "the disk is full");
    json_decref(reply);
    assert_int_equal(call(&r, "POST", "/v2/volumes", "{\"name\": \"x\", \"owner\": \"" NODE "\"}", NULL), 507);
    assert_int_equal(call(&r, "GET", "/v2/volumes/x", NULL, NULL), 404);
    int before = shared->commits;
    usleep(1500000);
    assert_in_range(shared->commits - before, 1, 3);
    assert_string_equal(look(&r, id, "state", text), "trashed");
    shared->fails = false;
    assert_true(comes_to(&r, id, "state", "purging", 8000));
    assert_int_equal(call(&r, "GET", "/v1/configuration/leases", NULL, &reply), 200);
    assert_int_equal(json_array_size(reply), 0);
    json_decref(reply);
    agent_end(&a);
    stop(&r);
}

// A volume that was only on a node that was removed can't be moved: the move would wait for ever.
static void test_lost_volumes_stay(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64];
    json_t *reply;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE), b = agent_up(&r, NODE_2);
    make(&r, &a, id);
    assert_int_equal(call(&r, "DELETE", "/v2/nodes/" NODE "?force=1", NULL, NULL), 200);
    AUTO(free) char *target = xasprintf("/v2/volumes/%s/move", id);
    assert_int_equal(call(&r, "POST", target, "{\"node\": \"" NODE_2 "\"}", &reply), 404);
    assert_non_null(strstr(json_string_value(json_object_get(reply, "description")), "was removed from the cluster"));
    json_decref(reply);
    agent_end(&a);
    agent_end(&b);
    stop(&r);
}

// The entry of a deleted container waits until its node has let go; one that is gone for good never does.
static void test_containers_of_a_removed_node(void **state)
{
    struct rig r = { .pid = 0 };
    (void)state;
    store_flaky = store_memory;
    store_flaky.open = flaky_open;
    store_flaky.commit = flaky_commit;
    start(&r, &store_flaky, 60000);
    struct fake a = agent_up(&r, NODE);
    assert_int_equal(call(&r, "POST", "/v1/configuration/containers", "{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"x\"}", NULL), 201);
    assert_int_equal(call(&r, "DELETE", "/v1/configuration/containers/web", NULL, NULL), 200);
    int before = shared->commits;
    assert_int_equal(call(&r, "DELETE", "/v2/nodes/" NODE "?force=1", NULL, NULL), 200);
    assert_int_equal(shared->commits, before + 2); // the node, and the end of the container's entry
    assert_int_equal(call(&r, "GET", "/v1/state/nodes/by_era/" NODE, NULL, NULL), 404); // its host may be another node by now
    agent_end(&a);
    stop(&r);
}

// After a loss of the store control knows of no volume on a node: that it has some still counts.
static void test_removal_before_recovery(void **state)
{
    struct rig r = { .pid = 0 };
    bool is_told = false;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE);
    report(&a, "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11", true);
    agent_end(&a);
    for (int64_t end_ms = clock_boot_ms() + 8000; !is_told && clock_boot_ms() < end_ms; usleep(10000)) { // first it is control's own host
        json_t *reply;
        assert_int_equal(call(&r, "DELETE", "/v2/nodes/" NODE, NULL, &reply), 409);
        is_told = strstr(json_string_value(json_object_get(reply, "description")), "does not know") != NULL;
        json_decref(reply);
    }
    assert_true(is_told);
    assert_int_equal(call(&r, "DELETE", "/v2/nodes/" NODE "?force=1", NULL, NULL), 200);
    stop(&r);
}

// A node that has become the owner since it wished a volume removed has not looked whether anything uses it there.
static void test_remove_that_nobody_checked(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], text[64];
    json_t *message;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    say(&a, json_pack("{s:s, s:i, s:s, s:s, s:b}", "type", "request", "n", 1, "op", "remove", "id", id, "unused", 0));
    while ((message = hear(&a)) && strcmp(json_string_value(json_object_get(message, "type")), "remove") != 0)
        json_decref(message);
    assert_non_null(message);
    json_decref(message);
    assert_string_equal(look(&r, id, "state", text), "live");
    say(&a, json_pack("{s:s, s:i, s:s, s:s, s:b}", "type", "request", "n", 2, "op", "remove", "id", id, "unused", 1));
    await_want(&a, "trashed", id);
    agent_end(&a);
    stop(&r);
}

// What an agent says while the store fails is noted when it works again: the agent does not say it twice.
static void test_store_that_fails_at_a_report(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64];
    (void)state;
    store_flaky = store_memory;
    store_flaky.open = flaky_open;
    store_flaky.commit = flaky_commit;
    start(&r, &store_flaky, 60000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    discard(&r, id);
    AUTO(free) char *target = xasprintf("/v2/volumes/%s?purge=1", id);
    assert_int_equal(call(&r, "DELETE", target, NULL, NULL), 200);
    await_want(&a, "purging", id);
    shared->fails = true;
    int before = shared->commits;
    report(&a, id, false);
    while (shared->commits == before)
        usleep(10000);
    shared->fails = false;
    assert_true(comes_to(&r, id, "state", "deleted", 8000));
    agent_end(&a);
    stop(&r);
}

// A cluster has a limit of nodes; who is known may come back all the same.
static void test_too_many_nodes(void **state)
{
    struct rig r = { .pid = 0 };
    char node[64];
    (void)state;
    start(&r, &store_memory, 1000);
    for (int i = 0; i <= NODES_MAX + 1; i++) {
        struct fake a = agent_connect(&r);
        snprintf(node, sizeof node, "0e2d7f4c-58f5-4b0e-9a27-%012x", i <= NODES_MAX ? i : 7);
        assert_int_equal(agent_hello(&a, node), i != NODES_MAX);
        agent_end(&a);
    }
    stop(&r);
}

// A connection that is closed before its hello (here: of another protocol) leaves the reason in control's log.
static void test_reasons_are_logged(void **state)
{
    (void)state;
    struct rig r = { .dir = "" };
    char path[] = "/tmp/test-control-log-XXXXXX", text[4096] = "";
    int log = mkstemp(path), before = dup(STDERR_FILENO);
    assert_true(log >= 0 && before >= 0);
    unlink(path);
    dup2(log, STDERR_FILENO);
    setenv("FLOCKER_LOG", "warn", 1);
    start(&r, &store_memory, 1000);
    unsetenv("FLOCKER_LOG");
    dup2(before, STDERR_FILENO);
    close(before);
    struct fake a = agent_connect(&r);
    say(&a, json_pack("{s:s, s:i}", "type", "hello", "protocol", 2));
    assert_null(hear(&a));
    agent_end(&a);
    stop(&r);
    assert_true(pread(log, text, sizeof text - 1, 0) > 0);
    assert_non_null(strstr(text, "before its hello: it speaks a protocol other than 1"));
    close(log);
}

// Everything that can be under way when control ends is given up in order.
static void test_end_amid_work(void **state)
{
    struct rig r = { .pid = 0 };
    struct error e = ERROR_INIT;
    char id[64], text[512];
    int fds[20];
    (void)state;
    start(&r, &store_memory, 1000);
    struct fake a = agent_connect(&r), silent = agent_connect(&r);
    assert_true(agent_hello(&a, NODE));
    make(&r, &a, id);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = socket_connect_unix(r.api, 5000, &e);
        if (i % 3 == 0) // an agent is asked; a client waits; a request is not complete
            snprintf(text, sizeof text, "DELETE /v2/volumes/%s HTTP/1.1\r\n\r\n", id);
        else
            snprintf(text, sizeof text, "PATCH /v2/volumes/%s?wait=30 HTTP/1.1\r\nContent-Length: 18\r\n\r\n%s", id,
                     i % 3 == 1 ? "{\"size\": 67108864}" : "{");
        assert_int_equal(send(fds[i], text, strlen(text), MSG_NOSIGNAL), strlen(text));
        if (i % 4 == 0)
            close(fds[i]);
    }
    assert_int_equal(call(&r, "GET", "/v2/status", NULL, NULL), 200);
    stop(&r);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (i % 4)
            close(fds[i]);
    agent_end(&a);
    agent_end(&silent);
}

// What a node told is forgotten by API v1 when it has been silent for two minutes; v2 says at once that the volume can't be had, and since when.
static void test_silent_node(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], target[128], text[64];
    json_t *reply = NULL;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    agent_end(&a);
    assert_true(comes_to(&r, id, "node_state", "down", 5000));
    snprintf(target, sizeof target, "/v2/volumes/%s", id);
    assert_int_equal(call(&r, "GET", target, NULL, &reply), 200);
    assert_true(json_is_false(json_object_get(reply, "ready")));
    const json_t *error = json_object_get(reply, "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), "unavailable");
    const char *why = json_string_value(json_object_get(error, "description"));
    assert_true(strstr(why, "10.0.0.1") && strstr(why, NODE) && strstr(why, "not connected since "));
    json_decref(reply);
    for (int silent = 0; silent < 2; silent++) {
        shared->boot_ahead_ms = silent ? 121000 : 118000;
        static const char *const lists[] = { "/v1/state/datasets", "/v1/state/nodes" };
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
            assert_int_equal(call(&r, "GET", lists[i], NULL, &reply), 200);
            assert_int_equal(json_array_size(reply), !silent);
            json_decref(reply);
        }
    }
    a = agent_connect(&r);
    assert_true(agent_hello(&a, NODE));
    assert_true(comes_to(&r, id, "node_state", "up", 5000));
    assert_string_equal(look(&r, id, "state", text), "live");
    agent_end(&a);
    shared->boot_ahead_ms = 0;
    stop(&r);
}

// An agent as a process of its own, that answers each question for records with the next of these lines, and the last one for ever.
static pid_t start_teller(const struct rig *r, const char *const *answers)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct fake a = agent_connect(r);
    agent_hello(&a, NODE);
    for (json_t *message; (message = hear(&a)); json_decref(message)) {
        if (!is_type(message, "records"))
            continue;
        json_t *answer = json_loads(*answers, 0, NULL);
        json_object_set_new(answer, "type", json_string("reply"));
        json_object_set(answer, "n", json_object_get(message, "n"));
        say(&a, answer);
        answers += answers[1] != NULL;
    }
    _exit(0);
}

#define V1 "11111111-0000-4000-8000-000000000001"
#define V2 "11111111-0000-4000-8000-000000000002"
#define RECORD(id, epoch) RECORD_OF(id, epoch, "7")
#define RECORD_OF(id, epoch, revision) \
    "{\"id\": \"" id "\", \"volume\": {\"id\": \"" id "\", \"name\": \"db\", \"size\": 0, \"metadata\": {}, \"options\": {\"uid\": 0, \"gid\": 0, " \
    "\"mode\": 511, \"nocow\": false}, \"owner\": \"" NODE "\", \"target\": \"" NODE "\", \"epoch\": " epoch ", \"revision\": " revision ", " \
    "\"state\": \"live\", \"born\": true, \"keep_mounted\": false, \"created_ms\": 1, \"trashed_ms\": 0, \"purge_ms\": 0}}"

// Records come in pages. A node that tells what makes no sense is asked no further, and is not taken for heard.
static void test_recovery(void **state)
{
    static const struct {
        const char *answers[4];
        const char *error; // of the node; NULL: none
        int taken;
    } cases[] = {
        { { "{\"records\": [" RECORD(V1, "3") "], \"more\": true}", "{\"records\": [" RECORD(V2, "1") "], \"more\": false}" }, NULL, 2 },
        { { "{\"records\": []}" }, NULL, 0 },
        { { "{\"records\": [" RECORD(V2, "3") "," RECORD(V1, "1") "]}" }, "has no order", 1 },
        { { "{\"records\": [" RECORD(V1, "3") "], \"more\": true}" }, "has no order", 1 },
        { { "{\"records\": [], \"more\": true}" }, "holds no records", 0 },
        { { "{\"records\": 1}" }, "holds no records", 0 },
        { { "{\"records\": [" RECORD(V1, "0") "]}" }, "epoch", 0 },
        { { "{\"records\": [" RECORD(V1, "9223372036854775807") "]}" }, "no cluster gets there", 0 }, // there is no room for the next one
        { { "{\"records\": [" RECORD_OF(V1, "3", "9223372036854775807") "]}" }, "no cluster gets there", 0 },
        { { "{\"records\": [{\"id\": \"" V1 "\"}]}" }, NULL, 0 },
        { { "{\"error\": {\"code\": \"io-error\", \"message\": \"a sick disk\"}}" }, "a sick disk", 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig r = { .pid = 0 };
        json_t *reply = NULL;
        start(&r, &store_sqlite, 60000);
        pid_t teller = start_teller(&r, cases[i].answers);
        for (int synced = 0; !synced; usleep(10000)) {
            assert_int_equal(call(&r, "POST", "/v2/recover", "{\"dry_run\": true}", &reply), 200);
            const json_t *node = json_array_get(json_object_get(reply, "nodes"), 0);
            const char *why = json_string_value(json_object_get(json_object_get(node, "error"), "description"));
            synced = node && (!why || !strstr(why, "not connected"));
            if (synced && cases[i].error)
                assert_true(why && strstr(why, cases[i].error));
            else if (synced)
                assert_null(why);
            json_decref(reply);
        }
        kill(teller, SIGKILL);
        waitpid(teller, NULL, 0);
        assert_int_equal(call(&r, "GET", "/v2/volumes", NULL, &reply), 200);
        assert_int_equal(json_array_size(reply), 0); // it was a dry run
        json_decref(reply);
        teller = start_teller(&r, cases[i].answers);
        for (int synced = 0; !synced; usleep(10000)) {
            assert_int_equal(call(&r, "GET", "/v2/status", NULL, &reply), 200);
            synced = json_integer_value(json_object_get(json_object_get(reply, "nodes"), "connected")) == 1;
            json_decref(reply);
        }
        usleep(100000); // for its inventory
        assert_int_equal(call(&r, "POST", "/v2/recover", "{}", NULL), 200);
        assert_int_equal(call(&r, "GET", "/v2/volumes", NULL, &reply), 200);
        assert_int_equal(json_array_size(reply), cases[i].taken);
        json_decref(reply);
        kill(teller, SIGKILL);
        waitpid(teller, NULL, 0);
        stop(&r);
    }
    struct rig r = { .pid = 0 };
    start(&r, &store_memory, 60000);
    assert_int_equal(call(&r, "POST", "/v2/recover", "{\"dry_run\": 1}", NULL), 400);
    assert_int_equal(call(&r, "POST", "/v2/recover", "{}", NULL), 200); // with nobody there
    stop(&r);
}

// A volume that control knows, and of which a node has told no more than a copy, is shown as itself.
static void test_recovery_shows_a_copy_of_what_is_known(void **state)
{
    (void)state;
    static const char *const answers[] = { "{\"records\": [" RECORD(V1, "3") "," RECORD(V2, "3") "]}",
                                           "{\"records\": [" RECORD(V1, "3") ", {\"id\": \"" V2 "\"}]}", NULL };
    struct rig r = { .pid = 0 };
    json_t *reply = NULL;
    start(&r, &store_memory, 60000);
    pid_t teller = start_teller(&r, answers);
    for (size_t taken = 0; taken < 2; usleep(10000)) { // until it is there to be asked
        assert_int_equal(call(&r, "POST", "/v2/recover", "{}", &reply), 200);
        taken = json_array_size(json_object_get(reply, "volumes"));
        json_decref(reply);
    }
    assert_int_equal(call(&r, "POST", "/v2/recover", "{}", &reply), 200);
    const json_t *list = json_object_get(reply, "volumes"), *volume = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_object_get(volume, "id")), V2);
    assert_string_equal(json_string_value(json_object_get(volume, "name")), "db-11111111");
    assert_string_equal(json_string_value(json_object_get(volume, "verdict")), "known");
    const json_t *kept = json_array_get(json_object_get(volume, "kept"), 0);
    assert_string_equal(json_string_value(json_object_get(kept, "what")), "copy");
    json_decref(reply);
    kill(teller, SIGKILL);
    waitpid(teller, NULL, 0);
    stop(&r);
}

// ---- connections that go on where they broke

// One node's agent over several connections: what it has counted on the last one.
struct link {
    struct fake fake;
    const char *node;
    char instance[64];
    json_int_t connection, wants, reports;
    bool is_resumed;
    json_int_t welcome_reports; // -1: the welcome has none
};

// Connects and says hello with its claim, as it is.
static void link_begin(const struct rig *r, struct link *l)
{
    l->fake = agent_connect(r);
    json_t *hello = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "type", "hello", "protocol", 1, "version", "x", "node", l->node, "era", l->node, "host",
                              "10.0.0.1");
    if (l->connection)
        json_object_set_new(hello, "resume", json_pack("{s:s, s:I, s:I, s:I}", "instance", l->instance, "connection", l->connection, "wants", l->wants,
                                                       "reports", l->reports));
    say(&l->fake, hello);
    json_t *welcome = hear(&l->fake);
    assert_true(is_type(welcome, "welcome"));
    const json_t *reports = json_object_get(welcome, "reports");
    snprintf(l->instance, sizeof l->instance, "%s", json_string_value(json_object_get(welcome, "instance")));
    l->connection = json_integer_value(json_object_get(welcome, "connection"));
    l->is_resumed = json_is_true(json_object_get(welcome, "resume"));
    l->welcome_reports = reports ? json_integer_value(reports) : -1;
    l->wants = l->reports = 0;
    json_decref(welcome);
}

static json_t *link_hear(struct link *l)
{
    json_t *message = hear(&l->fake);
    l->wants += is_type(message, "want");
    return message;
}

static void link_report(struct link *l, const char *id)
{
    report(&l->fake, id, true);
    l->reports++;
}

// Ends the inventory; the number of wants up to want-end, and the volume of the last.
static int link_sync(struct link *l, char ret_id[64])
{
    json_int_t before = l->wants;
    say(&l->fake, json_pack("{s:s}", "type", "inventory-end"));
    for (json_t *message; (message = link_hear(l)); json_decref(message)) {
        if (is_type(message, "want-end")) {
            json_decref(message);
            return (int)(l->wants - before);
        }
        assert_true(is_type(message, "want"));
        if (ret_id)
            snprintf(ret_id, 64, "%s", json_string_value(json_object_get(json_object_get(message, "volume"), "id")));
    }
    fail_msg("the connection ended before want-end");
    return -1;
}

static int link_again(const struct rig *r, struct link *l, char ret_id[64])
{
    link_begin(r, l);
    return link_sync(l, ret_id);
}

static void link_make(const struct rig *r, struct link *l, char id[64])
{
    json_t *made;
    AUTO(free) char *body = xasprintf("{\"owner\": \"%s\"}", l->node);
    assert_int_equal(call(r, "POST", "/v2/volumes", body, &made), 201);
    snprintf(id, 64, "%s", json_string_value(json_object_get(made, "id")));
    json_decref(made);
    json_decref(link_hear(l));
    link_report(l, id);
    json_decref(link_hear(l)); // it is born
}

static void resize(const struct rig *r, const char *id, int size_mib)
{
    AUTO(free) char *target = xasprintf("/v2/volumes/%s", id);
    AUTO(free) char *body = xasprintf("{\"size\": %lld}", (long long)size_mib << 20);
    assert_int_equal(call(r, "PATCH", target, body, NULL), 200);
}

// Nothing lost: only what changed meanwhile is told, as often as it breaks. Anything lost, or another connection in between: all of it.
static void test_resume(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE };
    char ids[3][64], id[64];
    (void)state;
    start(&r, &store_memory, 60000);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    assert_false(a.is_resumed);
    for (int i = 0; i < 3; i++)
        link_make(&r, &a, ids[i]);
    for (int round = 0; round < 3; round++) {
        json_int_t reports = a.reports;
        agent_end(&a.fake);
        for (int i = 0; i < round; i++) // several changes of one volume are told once
            resize(&r, ids[1], 100 + 10 * round + i);
        assert_int_equal(link_again(&r, &a, id), round > 0);
        assert_true(a.is_resumed);
        assert_int_equal(a.welcome_reports, reports);
        if (round)
            assert_string_equal(id, ids[1]);
    }
    agent_end(&a.fake);
    a.reports++; // the last report was lost: the wants go on all the same
    assert_int_equal(link_again(&r, &a, NULL), 0);
    assert_true(a.is_resumed);
    assert_int_equal(a.welcome_reports, 0);
    resize(&r, ids[2], 200);
    agent_end(&a.fake); // and this want
    assert_int_equal(link_again(&r, &a, NULL), 3);
    assert_false(a.is_resumed);
    assert_int_equal(a.welcome_reports, -1);
    const struct link before = a;
    agent_end(&a.fake);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    agent_end(&a.fake);
    a = before; // it says what was so two connections ago
    assert_int_equal(link_again(&r, &a, NULL), 3);
    assert_false(a.is_resumed);
    agent_end(&a.fake);
    stop(&r);
}

// A connection that breaks before want-end goes on too; two at once don't.
static void test_resume_amid_sync(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE };
    char ids[2][64];
    (void)state;
    start(&r, &store_memory, 60000);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    for (int i = 0; i < 2; i++)
        link_make(&r, &a, ids[i]);
    agent_end(&a.fake);
    resize(&r, ids[0], 100);
    link_begin(&r, &a);
    assert_true(a.is_resumed);
    agent_end(&a.fake);
    assert_int_equal(link_again(&r, &a, NULL), 1);
    assert_true(a.is_resumed);
    struct link twin = { .node = NODE };
    assert_int_equal(link_again(&r, &twin, NULL), 2);
    assert_null(hear(&a.fake)); // closed
    agent_end(&a.fake);
    assert_int_equal(link_again(&r, &a, NULL), 2);
    assert_false(a.is_resumed);
    agent_end(&twin.fake);
    agent_end(&a.fake);
    stop(&r);
}

static void test_resume_over_restart(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE };
    char id[64], instance[64];
    (void)state;
    start(&r, &store_sqlite, 60000);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    link_make(&r, &a, id);
    memcpy(instance, a.instance, sizeof instance);
    kill_9(&r);
    agent_end(&a.fake);
    start(&r, &store_sqlite, 60000);
    assert_int_equal(link_again(&r, &a, NULL), 1);
    assert_false(a.is_resumed);
    assert_int_equal(a.connection, 1);
    assert_string_not_equal(a.instance, instance);
    agent_end(&a.fake);
    stop(&r);
}

static void link_find(struct link *l, const char *id)
{
    say(&l->fake, json_pack("{s:s, s:i, s:s, s:s}", "type", "request", "n", 1, "op", "find", "id", id));
    json_t *want = link_hear(l), *reply = link_hear(l);
    assert_true(is_type(want, "want") && is_type(reply, "reply"));
    json_decref(want);
    json_decref(reply);
}

// What a node has asked for is followed as long as it resumes. If a volume ends meanwhile, so that nobody could tell it, it begins anew.
static void test_watches_are_resumed(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE }, b = { .node = NODE_2 };
    char id[64], told[64];
    (void)state;
    start(&r, &store_memory, 300);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    assert_int_equal(link_again(&r, &b, NULL), 0);
    link_make(&r, &a, id);
    link_find(&b, id);
    agent_end(&b.fake);
    resize(&r, id, 100);
    assert_int_equal(link_again(&r, &b, told), 1);
    assert_string_equal(told, id);
    resize(&r, id, 101);
    json_decref(link_hear(&b)); // and now
    agent_end(&b.fake);
    b.wants++;
    assert_int_equal(link_again(&r, &b, NULL), 0);
    assert_false(b.is_resumed);
    resize(&r, id, 102);
    agent_end(&b.fake);
    assert_int_equal(link_again(&r, &b, NULL), 0); // it is not watched any more
    assert_true(b.is_resumed);
    link_find(&b, id);
    agent_end(&b.fake);
    discard(&r, id);
    await_want(&a.fake, "purging", told);
    report(&a.fake, id, false);
    assert_true(comes_to(&r, id, "state", "404", 8000));
    assert_int_equal(link_again(&r, &b, NULL), 0);
    assert_false(b.is_resumed);
    agent_end(&b.fake);
    agent_end(&a.fake);
    stop(&r);
}

#define DIGEST "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static json_t *snapshot(int number)
{
    return json_pack("{s:i, s:b, s:s}", "number", number, "final", 1, "digest", DIGEST);
}

// The next want of that volume; its owner and stage.
static void await_stage(struct link *l, const char *stage, json_int_t *ret_revision)
{
    for (json_t *message; (message = link_hear(l)); json_decref(message)) {
        const json_t *volume = json_object_get(message, "volume"), *move = json_object_get(volume, "move");
        const char *is = json_string_value(json_object_get(move, "stage"));
        if (is && strcmp(is, stage) == 0) {
            *ret_revision = json_integer_value(json_object_get(volume, "revision"));
            json_decref(message);
            return;
        }
    }
    fail_msg("no order with stage %s came", stage);
}

static void await_disconnected(const struct rig *r, const char *node)
{
    for (int64_t end_ms = clock_boot_ms() + 5000; clock_boot_ms() < end_ms; usleep(5000)) {
        bool is_connected = false;
        size_t i;
        json_t *nodes, *item;
        assert_int_equal(call(r, "GET", "/v2/nodes", NULL, &nodes), 200);
        json_array_foreach (nodes, i, item)
            is_connected |= strcmp(json_string_value(json_object_get(item, "id")), node) == 0 && json_is_true(json_object_get(item, "connected"));
        json_decref(nodes);
        if (!is_connected)
            return;
    }
    fail_msg("node %s stays connected", node);
}

static void say_sealed(struct link *l, const char *id, json_int_t revision)
{
    say(&l->fake, json_pack("{s:s, s:s, s:i, s:I, s:b, s:b, s:o}", "type", "report", "id", id, "epoch", 1, "revision", revision, "present", 1, "mounted", 0,
                            "snapshot", snapshot(9)));
    l->reports++;
}

// Moves a volume from `a` to `b` as far as this: the owner has said that it is sealed, and was cut off; the target has everything.
static void move_all_but_switch(const struct rig *r, struct link *a, struct link *b, char id[64], json_int_t *ret_revision)
{
    json_int_t ignored;
    assert_int_equal(link_again(r, a, NULL), 0);
    assert_int_equal(link_again(r, b, NULL), 0);
    link_make(r, a, id);
    AUTO(free) char *target = xasprintf("/v2/volumes/%s/move", id);
    assert_int_equal(call(r, "POST", target, "{\"node\": \"" NODE_2 "\"}", NULL), 200);
    say(&b->fake, json_pack("{s:s, s:s, s:b, s:{s:{s:i, s:b}, s:b}}", "type", "report", "id", id, "present", 0, "copy", "snapshot", "number", 1,
                            "final", 0, "warm", 1));
    await_stage(a, "seal", ret_revision);
    await_stage(b, "seal", &ignored);
    say_sealed(a, id, *ret_revision);
    await_stage(b, "seal", &ignored); // with word of that
    agent_end(&a->fake);
    await_disconnected(r, a->node);
    say(&b->fake, json_pack("{s:s, s:s, s:b, s:{s:I, s:o}}", "type", "report", "id", id, "present", 0, "copy", "order", *ret_revision, "snapshot",
                            snapshot(9)));
    link_find(b, id);
}

// What an owner had said counts for a move's switch only if nothing that it said since can be lost: then at once when it is back, else when it
// says it again.
static void test_moves_over_resume(void **state)
{
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        struct rig r = { .pid = 0 };
        struct link a = { .node = NODE }, b = { .node = NODE_2 };
        char id[64], owner[64];
        json_int_t revision, ignored;
        start(&r, &store_memory, 60000);
        move_all_but_switch(&r, &a, &b, id, &revision);
        assert_string_equal(look(&r, id, "owner", owner), NODE);
        a.reports += lost;
        assert_int_equal(link_again(&r, &a, NULL), !lost);
        assert_true(a.is_resumed);
        assert_string_equal(look(&r, id, "owner", owner), lost ? NODE : NODE_2);
        if (lost)
            say_sealed(&a, id, revision);
        await_stage(&b, "settle", &ignored);
        agent_end(&a.fake);
        agent_end(&b.fake);
        stop(&r);
    }
}

// The new owner is taken out of the cluster for good: its former one was told to let go of its data, and is not told so again. What the new owner
// had said does not count any more, although it was connected until then.
static void test_removed_owner_says_nothing(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE }, b = { .node = NODE_2 };
    char id[64];
    json_int_t ignored;
    json_t *reply;
    (void)state;
    start(&r, &store_memory, 60000);
    move_all_but_switch(&r, &a, &b, id, &ignored);
    link_again(&r, &a, NULL);
    await_stage(&b, "settle", &ignored);
    agent_end(&a.fake);
    await_disconnected(&r, NODE);
    say(&b.fake, json_pack("{s:s, s:s, s:i, s:i, s:b, s:b}", "type", "report", "id", id, "epoch", 2, "revision", 9, "present", 1, "mounted", 0));
    await_stage(&b, "release", &ignored);
    assert_int_equal(call(&r, "DELETE", "/v2/nodes/" NODE_2 "?force=1", NULL, NULL), 200);
    AUTO(free) char *target = xasprintf("/v2/volumes/%s", id);
    assert_int_equal(call(&r, "GET", target, NULL, &reply), 200);
    assert_string_equal(json_string_value(json_object_get(json_object_get(reply, "move"), "stage")), "settle");
    json_decref(reply);
    agent_end(&b.fake);
    stop(&r);
}

// A rate beyond what a record can hold.
static void test_rate_that_is_too_high(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64];
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE), b = agent_up(&r, NODE_2);
    make(&r, &a, id);
    AUTO(free) char *target = xasprintf("/v2/volumes/%s/move", id);
    assert_int_equal(call(&r, "POST", target, "{\"node\": \"" NODE_2 "\", \"rate_limit\": 9223372036854775807}", NULL), 400);
    assert_int_equal(call(&r, "POST", target, "{\"node\": \"" NODE_2 "\", \"rate_limit\": \"4096P\"}", NULL), 200);
    agent_end(&a);
    agent_end(&b);
    stop(&r);
}

// ---- a node with very many volumes that reads slowly

enum { MANY_VOLUMES = 200000, CHANGED = 3, FOUND = 5, FOUND_BY_NAME = 7 };

static struct store_ops store_many; // memory's, and these volumes

static struct uuid many_id(uint32_t i)
{
    struct uuid id = { { (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i, [6] = 0x40, [8] = 0x80 } };
    return id;
}

static int many_load(struct store *s, const struct store_sink *sink, struct error *e)
{
    (void)s;
    for (uint32_t i = 0; i < MANY_VOLUMES; i++) {
        struct volume *v = volume_new();
        v->id = many_id(i);
        assert_true(uuid_parse(NODE, &v->owner));
        v->target = v->owner;
        v->epoch = v->revision = 1;
        v->born = true;
        v->name = xasprintf("v%06u", i);
        int rc = sink->on_volume(sink->arg, v, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int many_open(const char *path, struct store **ret, struct error *e)
{
    int rc = store_memory.open(path, ret, e);
    if (rc == 0)
        (*ret)->ops = &store_many;
    return rc;
}

static long rss_kib(pid_t pid)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    AUTO(fclose) FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    return kib;
}

// Reads all that comes up to want-end; each volume comes once, the changed one as it is last, those that were asked for right before the replies.
static void read_many(struct link *l)
{
    static bool seen[MANY_VOLUMES];
    char last[64] = "";
    struct uuid id, changed = many_id(CHANGED), found[] = { many_id(FOUND), many_id(FOUND_BY_NAME) };
    size_t replies = 0;
    json_t *message;
    for (; (message = link_hear(l)) && !is_type(message, "want-end"); json_decref(message)) {
        const json_t *volume = json_object_get(message, "volume");
        if (is_type(message, "reply")) {
            assert_true(replies < ARRAY_SIZE(found));
            assert_string_equal(last, UUID_TEXT(&found[replies]));
            replies++;
            continue;
        }
        snprintf(last, sizeof last, "%s", json_string_value(json_object_get(volume, "id")));
        assert_true(uuid_parse(last, &id));
        uint32_t i = (uint32_t)id.b[0] << 24 | (uint32_t)id.b[1] << 16 | (uint32_t)id.b[2] << 8 | id.b[3];
        assert_true(i < MANY_VOLUMES && !seen[i]);
        seen[i] = true;
        if (uuid_equal(&id, &changed))
            assert_int_equal(json_integer_value(json_object_get(volume, "size")), 105LL << 20);
    }
    json_decref(message);
    assert_int_equal(replies, ARRAY_SIZE(found));
    assert_int_equal(l->wants, MANY_VOLUMES);
}

#define GROWTH_KIB_MAX (16 << 10) // all that is due would be 100 MiB

static void check_growth(const struct rig *r, long before_kib)
{
#ifdef __SANITIZE_ADDRESS__
    print_message("memory is not measured: AddressSanitizer keeps what was freed (now %ld KiB, before %ld)\n", rss_kib(r->pid), before_kib);
#else
    assert_in_range(rss_kib(r->pid) - before_kib, 0, GROWTH_KIB_MAX);
#endif
}

// A node that says more than an agent has to say makes control keep no more of it.
static void test_talkative_node(void **state)
{
    enum { LINE = 60000, KEPT = 1000 };
    struct rig r = { .pid = 0 };
    char id[64], target[128];
    json_t *volume;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake a = agent_up(&r, NODE);
    make(&r, &a, id);
    AUTO(free) char *words = xcalloc(1, LINE + 1);
    for (size_t i = 0; i < LINE; i += 2)
        memcpy(words + i, "\u00e9", 2);
    words[0] = words[1] = 'x';
    snprintf(target, sizeof target, "/v2/volumes/%s", id);
    say(&a, json_pack("{s:s, s:s, s:i, s:i, s:b, s:b, s:{s:s, s:s}}", "type", "report", "id", id, "epoch", 1, "revision", 1, "present", 1, "mounted", 0,
                      "error", "code", "\x1b[2J", "message", words));
    const char *said = NULL;
    for (int i = 0; !said; i++) {
        assert_in_range(i, 0, 500);
        usleep(10000);
        assert_int_equal(call(&r, "GET", target, NULL, &volume), 200);
        const json_t *error = json_object_get(volume, "error");
        said = json_string_value(json_object_get(error, "description"));
        if (said) {
            assert_in_range(strlen(said), KEPT - 3, KEPT);
            assert_memory_equal(said, words, strlen(said));
            assert_string_equal(json_string_value(json_object_get(error, "code")), "io-error");
        }
        json_decref(volume);
    }
    agent_end(&a);
    stop(&r);
}

static void test_slow_reader(void **state)
{
    struct rig r = { .pid = 0 };
    struct link a = { .node = NODE };
    struct uuid changed = many_id(CHANGED), found = many_id(FOUND);
    (void)state;
    store_many = store_memory;
    store_many.open = many_open;
    store_many.load = many_load;
    start(&r, &store_many, 60000);
    assert_int_equal(call(&r, "GET", "/v2/status", NULL, NULL), 200);
    long before_kib = rss_kib(r.pid);
    link_begin(&r, &a);
    say(&a.fake, json_pack("{s:s}", "type", "inventory-end"));
    for (int i = 0; i <= 5; i++) // meanwhile others are served
        resize(&r, UUID_TEXT(&changed), 100 + i);
    check_growth(&r, before_kib);
    say(&a.fake, json_pack("{s:s, s:i, s:s, s:s}", "type", "request", "n", 1, "op", "find", "id", UUID_TEXT(&found)));
    AUTO(free) char *name = xasprintf("v%06d", FOUND_BY_NAME);
    say(&a.fake, json_pack("{s:s, s:i, s:s, s:s}", "type", "request", "n", 2, "op", "find", "name", name));
    read_many(&a);
    check_growth(&r, before_kib);
    agent_end(&a.fake);
    assert_int_equal(link_again(&r, &a, NULL), 0);
    assert_true(a.is_resumed);
    agent_end(&a.fake);
    stop(&r);
}

// ---- where new volumes go

#define NODES "0000000%d-5f0b-4d3c-8a1e-0c8f1d2e3f40"

static void tell_pool(const struct rig *r, const struct fake *a, int number, int64_t size_gib, int64_t used_gib)
{
    char target[128];
    snprintf(target, sizeof target, "/v2/nodes/" NODES, number);
    say(a, json_pack("{s:s, s:I, s:I}", "type", "pool", "size", (json_int_t)(size_gib << 30), "used", (json_int_t)(used_gib << 30)));
    for (bool is_read = false; !is_read; usleep(1000)) {
        json_t *node;
        assert_int_equal(call(r, "GET", target, NULL, &node), 200);
        is_read = json_integer_value(json_object_get(json_object_get(node, "pool"), "used")) == used_gib << 30;
        json_decref(node);
    }
}

static struct fake pool_agent(const struct rig *r, int number, int64_t size_gib, int64_t used_gib)
{
    char id[64];
    struct fake a = agent_connect(r);
    snprintf(id, sizeof id, NODES, number);
    assert_true(agent_hello(&a, id));
    json_decref(hear(&a)); // want-end
    if (size_gib)
        tell_pool(r, &a, number, size_gib, used_gib);
    return a;
}

// The number of the node that gets a new volume for which nobody says where; 0: it is refused, with a reason.
static int place_one(const struct rig *r, const char *body)
{
    json_t *made;
    int number = 0, status = call(r, "POST", "/v2/volumes", body, &made);
    if (status == 503)
        assert_non_null(strstr(json_string_value(json_object_get(made, "description")), "takes volumes"));
    else
        assert_int_equal(sscanf(json_string_value(json_object_get(made, "owner")), "%8d-", &number), 1);
    json_decref(made);
    return number;
}

static int drain_node(const struct rig *r, int number, bool on)
{
    char target[128];
    snprintf(target, sizeof target, "/v2/nodes/" NODES "/drain", number);
    return call(r, on ? "POST" : "DELETE", target, on ? "{}" : NULL, NULL);
}

// Most room wins, a crowd spreads, a node that is drained or away gets none; API v1 still wants to be told.
static void test_new_volumes_are_placed(void **state)
{
    struct rig r = { "" };
    int got[4] = { 0 };
    (void)state;
    start(&r, &store_memory, 1000);
    assert_int_equal(place_one(&r, "{}"), 0);
    struct fake unknown = pool_agent(&r, 3, 0, 0);
    assert_int_equal(place_one(&r, "{}"), 3);
    struct fake one = pool_agent(&r, 1, 100, 99), two = pool_agent(&r, 2, 50, 10);
    assert_int_equal(place_one(&r, "{}"), 2);
    assert_int_equal(place_one(&r, "{\"owner\": \"00000001\"}"), 1);
    assert_int_equal(drain_node(&r, 2, true), 200);
    assert_int_equal(place_one(&r, "{}"), 1);
    assert_int_equal(drain_node(&r, 2, false), 200);
    tell_pool(&r, &one, 1, 50, 11); // read anew, also what it was given before
    tell_pool(&r, &one, 1, 50, 10);
    tell_pool(&r, &two, 2, 50, 11);
    tell_pool(&r, &two, 2, 50, 10);
    for (int i = 0; i < 10; i++)
        got[place_one(&r, "{}")]++;
    assert_int_equal(got[1], 5);
    assert_int_equal(got[2], 5);
    assert_int_equal(call(&r, "POST", "/v1/configuration/datasets", "{}", NULL), 400);
    agent_end(&two);
    agent_end(&one);
    for (int owner = 1; owner != 3 && owner; usleep(1000)) // until control has noticed
        owner = place_one(&r, "{}");
    agent_end(&unknown);
    while (place_one(&r, "{}"))
        usleep(1000);
    stop(&r);
}

// ---- long lists

struct list {
    json_t *items;
    char next[128]; // target of the next page; ""
};

static struct list get_list(const struct rig *r, const char *target)
{
    struct error e = ERROR_INIT;
    struct list list = { .next = "" };
    struct http_result result = { 0 };
    const struct http_call c = { .unix_path = r->api, .method = "GET", .target = target, .timeout_ms = 30000 };
    if (http_call(&c, &result, &e) < 0)
        fail_msg("%s: %s", target, e.msg);
    assert_int_equal(result.status, 200);
    assert_int_equal(json_read(result.body, result.body_n, &list.items, &e), 0);
    const char *link = http_header_get(&result.message, "Link");
    if (link)
        assert_int_equal(sscanf(link, "<%127[^>]>; rel=\"next\"", list.next), 1);
    http_result_done(&result);
    return list;
}

static void make_many(const struct rig *r, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(call(r, "POST", "/v2/volumes", "{\"owner\": \"" NODE "\"}", NULL), 201);
}

// How often each id is in the list.
static json_t *count_ids(const json_t *list, const char *member)
{
    json_t *counts = json_object();
    size_t i;
    const json_t *item;
    json_array_foreach (list, i, item) {
        const char *id = json_string_value(json_object_get(item, member));
        json_object_set_new(counts, id, json_integer(1 + json_integer_value(json_object_get(counts, id))));
    }
    return counts;
}

// Pages are in order, as long as asked for, without what is filtered; and together all, also if the last of a page is gone meanwhile.
static void test_pages(void **state)
{
    enum { MANY = 25 };
    struct rig r = { "" };
    (void)state;
    start(&r, &store_memory, 1000);
    make_many(&r, MANY);
    struct list whole = get_list(&r, "/v1/configuration/datasets");
    assert_int_equal(json_array_size(whole.items), MANY);
    for (size_t i = 0; i < MANY; i += 5)
        discard(&r, json_string_value(json_object_get(json_array_get(whole.items, i), "dataset_id")));
    for (int all = 0; all < 2; all++) {
        json_t *seen = json_array();
        char target[128];
        int pages = 0;
        snprintf(target, sizeof target, "/v2/volumes?limit=4%s", all ? "&all=1" : "");
        for (; target[0]; pages++) {
            struct list page = get_list(&r, target);
            json_array_extend(seen, page.items);
            assert_int_equal(json_array_size(page.items), page.next[0] || !all ? 4 : MANY % 4);
            memcpy(target, page.next, sizeof page.next);
            json_decref(page.items);
        }
        json_t *counts = count_ids(seen, "id");
        assert_int_equal(json_object_size(counts), all ? MANY : 20);
        assert_int_equal(json_array_size(seen), all ? MANY : 20);
        assert_int_equal(pages, all ? 7 : 5); // none is empty
        json_decref(counts);
        json_decref(seen);
    }
    static const char *const bad[] = { "limit=0", "limit=x", "limit=", "limit=-1", "after=x", "after=" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO(free) char *target = xasprintf("/v2/volumes?%s", bad[i]);
        assert_int_equal(call(&r, "GET", target, NULL, NULL), 400);
    }
    struct list most = get_list(&r, "/v2/volumes?limit=99999999999999999999&after=ffffffff-ffff-ffff-ffff-ffffffffffff");
    assert_int_equal(json_array_size(most.items), 0);
    json_decref(most.items);
    json_decref(whole.items);
    stop(&r);
}

static int ask_for_list(const struct rig *r, const char *target)
{
    struct error e = ERROR_INIT;
    int fd = socket_connect_unix(r->api, 5000, &e);
    AUTO(free) char *request = xasprintf("GET %s HTTP/1.0\r\n\r\n", target);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    return fd;
}

// The body, as far as the first bytes or all of it.
static void read_more(int fd, char **text, size_t *n, size_t limit)
{
    *text = xrealloc(*text, *n + limit + 1, 1);
    for (ssize_t got = 1; got > 0 && limit > 0; limit -= (size_t)got) {
        got = recv(fd, *text + *n, limit, 0);
        assert_true(got >= 0);
        *n += (size_t)got;
    }
    (*text)[*n] = '\0';
}

// Who is slow to read a long list holds up nobody. What comes meanwhile may be in it; what was there is, once.
static void test_long_list_while_things_change(void **state)
{
    enum { MANY = 4000, MORE = 500 };
    struct rig r = { "" };
    (void)state;
    start(&r, &store_memory, 1000);
    make_many(&r, MANY);
    struct list before = get_list(&r, "/v1/configuration/datasets");
    int gone = ask_for_list(&r, "/v1/configuration/datasets"), never = ask_for_list(&r, "/v1/configuration/datasets");
    AUTO(close) int fd = ask_for_list(&r, "/v1/configuration/datasets");
    char *text = NULL;
    size_t n = 0;
    read_more(fd, &text, &n, 1000);
    close(gone);
    make_many(&r, MORE);
    assert_int_equal(call(&r, "GET", "/v1/version", NULL, NULL), 200);
    read_more(fd, &text, &n, (MANY + MORE) * 400);
    json_t *list = json_loads(strstr(text, "\r\n\r\n") + 4, 0, NULL);
    json_t *counts = count_ids(list, "dataset_id"), *wanted = count_ids(before.items, "dataset_id");
    const char *id;
    json_t *count;
    assert_int_equal(json_object_size(counts), json_array_size(list));
    json_object_foreach (wanted, id, count)
        assert_int_equal(json_integer_value(json_object_get(counts, id)), 1);
    assert_in_range(json_array_size(list), MANY + 1, MANY + MORE);
    free(text);
    json_decref(list);
    json_decref(counts);
    json_decref(wanted);
    json_decref(before.items);
    stop(&r); // amid the list that nobody reads
    close(never);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trash_runs_out),   cmocka_unit_test(test_trash_over_restart), cmocka_unit_test(test_store_that_fails),
        cmocka_unit_test(test_too_many_nodes),   cmocka_unit_test(test_reasons_are_logged), cmocka_unit_test(test_end_amid_work),
        cmocka_unit_test(test_store_that_fails_at_a_report), cmocka_unit_test(test_lost_volumes_stay), cmocka_unit_test(test_containers_of_a_removed_node),
        cmocka_unit_test(test_remove_that_nobody_checked), cmocka_unit_test(test_removal_before_recovery),
        cmocka_unit_test(test_clock_set_forward), cmocka_unit_test(test_clock_set_back), cmocka_unit_test(test_clock_wrong_at_the_start),
        cmocka_unit_test(test_silent_node),       cmocka_unit_test(test_recovery),
        cmocka_unit_test(test_recovery_shows_a_copy_of_what_is_known),
        cmocka_unit_test(test_resume),            cmocka_unit_test(test_resume_amid_sync),
        cmocka_unit_test(test_resume_over_restart), cmocka_unit_test(test_watches_are_resumed), cmocka_unit_test(test_moves_over_resume),
        cmocka_unit_test(test_removed_owner_says_nothing), cmocka_unit_test(test_rate_that_is_too_high),
        cmocka_unit_test(test_talkative_node),    cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_pages), cmocka_unit_test(test_new_volumes_are_placed),
        cmocka_unit_test(test_long_list_while_things_change),
    };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return RUN_TESTS(tests);
}
