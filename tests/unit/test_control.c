// Control by itself: the trash and its times, a store that fails, nodes that come, go, and talk, and where new volumes are made.
#include "control_rig.h"

#include <sys/mman.h>

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

static void start_flaky(struct rig *r, int64_t keep_ms)
{
    store_flaky = store_memory;
    store_flaky.open = flaky_open;
    store_flaky.commit = flaky_commit;
    start(r, &store_flaky, keep_ms);
}

// ---- clocks that can be set

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

// ---- the trash

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

// ---- a sick store

// A change that the store refuses is not made, and is told; what runs out meanwhile is tried again without haste.
static void test_store_that_fails(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64], text[64];
    json_t *reply;
    (void)state;
    start_flaky(&r, 300);
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

// What an agent says while the store fails is noted when it works again: the agent does not say it twice.
static void test_store_that_fails_at_a_report(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64];
    (void)state;
    start_flaky(&r, 60000);
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

// ---- nodes and their connections

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
    start_flaky(&r, 60000);
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

// Waits for the message of that type, and takes of it whether its error says so.
static bool hears(const struct fake *a, const char *type, const char *error)
{
    json_t *message;
    while ((message = hear(a)) && !is_type(message, type))
        json_decref(message);
    assert_non_null(message);
    const char *said = json_string_value(json_object_get(json_object_get(message, "error"), "message"));
    bool is_so = !error || (said && strstr(said, error));
    json_decref(message);
    return is_so;
}

// One node that is silent does not keep the others from being asked.
static void test_questions_to_a_silent_node(void **state)
{
    struct rig r = { .pid = 0 };
    char id[64];
    json_t *made;
    (void)state;
    start(&r, &store_memory, 60000);
    struct fake silent = agent_up(&r, NODE), other = agent_up(&r, NODE_2);
    make(&r, &silent, id);
    for (int n = 1; n <= ASKS_OF_NODE_MAX + 1; n++)
        say(&other, json_pack("{s:s, s:i, s:s, s:s, s:b}", "type", "request", "n", n, "op", "remove", "id", id, "unused", 0));
    assert_true(hears(&other, "reply", "earlier questions"));
    assert_int_equal(call(&r, "POST", "/v2/volumes", "{\"owner\": \"" NODE_2 "\"}", &made), 201);
    say(&silent, json_pack("{s:s, s:i, s:s, s:O, s:b}", "type", "request", "n", 1, "op", "remove", "id", json_object_get(made, "id"), "unused", 0));
    json_decref(made);
    assert_true(hears(&other, "remove", NULL));
    agent_end(&silent);
    agent_end(&other);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trash_runs_out),
        cmocka_unit_test(test_trash_over_restart),
        cmocka_unit_test(test_clock_set_forward),
        cmocka_unit_test(test_clock_set_back),
        cmocka_unit_test(test_clock_wrong_at_the_start),
        cmocka_unit_test(test_store_that_fails),
        cmocka_unit_test(test_store_that_fails_at_a_report),
        cmocka_unit_test(test_lost_volumes_stay),
        cmocka_unit_test(test_containers_of_a_removed_node), cmocka_unit_test(test_rate_that_is_too_high), cmocka_unit_test(test_questions_to_a_silent_node),
        cmocka_unit_test(test_removal_before_recovery),
        cmocka_unit_test(test_remove_that_nobody_checked),
        cmocka_unit_test(test_too_many_nodes),
        cmocka_unit_test(test_reasons_are_logged),
        cmocka_unit_test(test_end_amid_work),
        cmocka_unit_test(test_silent_node),
        cmocka_unit_test(test_talkative_node),
        cmocka_unit_test(test_new_volumes_are_placed),
    };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return RUN_TESTS(tests);
}
