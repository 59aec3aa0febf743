// Containers of API v1: what is a good one, its normal form, what an agent does next, and the documents of _compose.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "model/compose.h"
#include "plan/container.h"

#include <string.h>

#define NODE    "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11"
#define OTHER   "7d2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a12"
#define DATASET "A4C1B1B6-5d70-4b8e-b1a4-9d3b5e7f8a22"

static json_t *parse(const char *text)
{
    json_error_t why;
    json_t *value = json_loads(text, 0, &why);
    if (!value)
        fail_msg("%s in %s", why.text, text);
    return value;
}

static struct container *make(const char *members)
{
    struct error e = ERROR_INIT;
    struct container *c = NULL;
    AUTO(free) char *text = xasprintf("{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"img\"%s%s}", *members ? ", " : "", members);
    json_t *body = parse(text);
    if (container_from_v1(body, &c, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    json_decref(body);
    return c;
}

static void assert_json(json_t *have /* taken */, const char *want)
{
    json_t *expected = parse(want);
    if (!json_equal(have, expected)) {
        AUTO(free) char *text = json_dumps(have, JSON_SORT_KEYS);
        fail_msg("have %s\nwant %s", text, want);
    }
    json_decref(have);
    json_decref(expected);
}

// ---- the schema

static void count(void *arg, const char *text)
{
    (void)text;
    ++*(int *)arg;
}

// How many violations a container with these members has, on top of those that it needs.
static int violations(const char *members)
{
    int n = 0;
    AUTO(free) char *text = xasprintf("{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"img\", %s}", members);
    json_t *body = json_loads(text, 0, NULL); // a later member of a name takes the place of the first
    assert_non_null(body);
    container_check(body, count, &n);
    json_decref(body);
    return n;
}

static void good_ones_are_taken(void **state)
{
    static const char *const good[] = {
        "\"name\": \"/web\"", "\"name\": \"a_.-9\"", "\"image\": \"host:5000/a/b:tag\"", "\"image\": \"a@sha256:0123\"",
        "\"ports\": [{\"internal\": 1, \"external\": 65535}]", "\"links\": [{\"alias\": \"a1\", \"local_port\": 1, \"remote_port\": 2}]",
        "\"environment\": {}", "\"environment\": {\"A\": \"\"}", "\"restart_policy\": {\"name\": \"always\"}",
        "\"restart_policy\": {\"name\": \"on-failure\", \"maximum_retry_count\": 1}", "\"volumes\": []",
        "\"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"/a b\"}]", "\"cpu_shares\": 1024", "\"memory_limit\": 1048576",
        "\"command_line\": []", "\"command_line\": [\"\"]", "\"swappiness\": 0", "\"swappiness\": 100",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (violations(good[i]) != 0)
            fail_msg("refused: %s", good[i]);
}

static void bad_ones_are_refused(void **state)
{
    static const char *const bad[] = {
        "\"node_uuid\": \"x\"", "\"node_uuid\": null", "\"node_uuid\": \"0e2d7f4c-58f5-1b0e-9a27-1f6f7f0c6a11\"", "\"name\": \"a\"",
        "\"name\": \"//web\"", "\"name\": \"we/b\"", "\"name\": \"_web\"", "\"name\": 1", "\"image\": \"\"", "\"image\": \"a b\"", "\"image\": \"a&b\"",
        "\"image\": 1", "\"ports\": []", "\"ports\": {}", "\"ports\": [1]", "\"ports\": [{\"internal\": 1}]",
        "\"ports\": [{\"internal\": 0, \"external\": 1}]", "\"ports\": [{\"internal\": 1.5, \"external\": 1}]",
        "\"ports\": [{\"internal\": 1, \"external\": 65536}]", "\"ports\": [{\"internal\": 1, \"external\": 2, \"x\": 1}]",
        "\"ports\": [{\"internal\": 1, \"external\": 2}, {\"external\": 2, \"internal\": 1}]", "\"links\": []",
        "\"links\": [{\"alias\": \"a-b\", \"local_port\": 1, \"remote_port\": 2}]", "\"links\": [{\"local_port\": 1, \"remote_port\": 2}]",
        "\"environment\": []", "\"environment\": {\"A\": 1}", "\"environment\": {\"A=B\": \"\"}", "\"environment\": {\"\": \"\"}",
        "\"restart_policy\": {}", "\"restart_policy\": \"always\"", "\"restart_policy\": {\"name\": \"sometimes\"}",
        "\"restart_policy\": {\"name\": \"always\", \"maximum_retry_count\": 1}",
        "\"restart_policy\": {\"name\": \"on-failure\", \"maximum_retry_count\": 0}", "\"volumes\": [{\"dataset_id\": \"" DATASET "\"}]",
        "\"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"a\"}]", "\"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"//\"}]",
        "\"volumes\": [{\"dataset_id\": \"x\", \"mountpoint\": \"/a\"}]", "\"volumes\": null", "\"cpu_shares\": 0", "\"cpu_shares\": 1025",
        "\"cpu_shares\": \"1\"", "\"memory_limit\": 1048575", "\"memory_limit\": true", "\"command_line\": \"ls\"", "\"command_line\": [1]",
        "\"swappiness\": -1", "\"swappiness\": 101", "\"unknown\": 1",
        "\"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"/a\"}, {\"dataset_id\": \"" NODE "\", \"mountpoint\": \"/b\"}]",
    };
    int n = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (violations(bad[i]) != 1)
            fail_msg("%d violations: %s", violations(bad[i]), bad[i]);
    json_t *list = json_array();
    container_check(list, count, &n);
    json_decref(list);
    assert_int_equal(n, 1);
}

static void settings_have_a_limit(void **state)
{
    char *word = xcalloc(4097, 1);
    (void)state;
    memset(word, 'x', 4096);
    json_t *body = json_pack("{s:s, s:s, s:s, s:[s]}", "node_uuid", NODE, "name", "web", "image", "img", "command_line", word);
    json_t *words = json_object_get(body, "command_line");
    for (int i = 0, n = 0; i < 12; i++, n = 0) {
        container_check(body, count, &n);
        assert_int_equal(n, json_dumpb(body, NULL, 0, JSON_COMPACT) > CONTAINER_BYTES_MAX);
        json_array_append_new(words, json_string(word));
    }
    json_decref(body);
    free(word);
}

// ---- the normal form

static void replies_are_as_in_the_original(void **state)
{
    (void)state;
    AUTO(container_free) struct container *plain = make("");
    assert_json(container_to_v1(plain), "{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"img:latest\", \"restart_policy\": {\"name\": \"never\"}}");
    AUTO(container_free) struct container *full = make("\"image\": \"host:5000/img\", \"links\": [{\"alias\": \"DB\", \"local_port\": 1, \"remote_port\": 2}], "
        "\"environment\": {}, \"command_line\": [], \"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"/m\"}], \"swappiness\": 7, "
        "\"restart_policy\": {\"name\": \"always\"}");
    assert_json(container_to_v1(full), "{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"host:5000/img:latest\", "
        "\"links\": [{\"alias\": \"db\", \"local_port\": 1, \"remote_port\": 2}], "
        "\"volumes\": [{\"dataset_id\": \"a4c1b1b6-5d70-4b8e-b1a4-9d3b5e7f8a22\", \"mountpoint\": \"/m\"}], \"restart_policy\": {\"name\": \"always\"}}");
    assert_int_equal(json_integer_value(json_object_get(full->settings, "swappiness")), 7);
    assert_string_equal(UUID_TEXT(&full->volume), "a4c1b1b6-5d70-4b8e-b1a4-9d3b5e7f8a22");
    AUTO(container_free) struct container *digest = make("\"image\": \"img@sha256:00\"");
    assert_string_equal(json_string_value(json_object_get(digest->settings, "image")), "img@sha256:00");
}

static void json_keeps_all_of_it(void **state)
{
    struct error e = ERROR_INIT;
    struct uuid other;
    (void)state;
    assert_true(uuid_parse(OTHER, &other));
    AUTO(container_free) struct container *c = make("\"name\": \"/db\", \"swappiness\": 3, \"ports\": [{\"internal\": 1, \"external\": 2}]");
    c->revision = 9;
    c->deleted = true;
    container_leave(c, &other);
    container_leave(c, &other);
    assert_int_equal(c->leaving_n, 1);
    json_t *json = container_to_json(c);
    AUTO(container_free) struct container *read = NULL;
    assert_int_equal(container_from_json(json, &read, &e), 0);
    AUTO(container_free) struct container *copy = container_copy(read);
    AUTO(free) char *text = json_dumps(json, 0);
    assert_json(container_to_json(copy), text);
    assert_string_equal(copy->name, "db");
    assert_true(container_is_alike(copy, c) && container_has_port(copy, 2) && !container_has_port(copy, 1));
    json_object_set_new(json, "leaving", json_pack("[s]", "nowhere"));
    AUTO(container_free) struct container *bad = NULL;
    assert_int_equal(container_from_json(json, &bad, &e), -E_INVALID);
    json_object_set_new(json, "revision", json_integer(0));
    assert_int_equal(container_from_json(json, &bad, &e), -E_INVALID);
    json_object_del(json, "container");
    assert_int_equal(container_from_json(json, &bad, &e), -E_INVALID);
    json_decref(json);
    container_has_left(copy, &other);
    container_has_left(copy, &other);
    assert_int_equal(copy->leaving_n, 0);
}

// ---- plan

static void policies(void **state)
{
    (void)state;
    AUTO(container_free) struct container *never = make("");
    AUTO(container_free) struct container *always = make("\"restart_policy\": {\"name\": \"always\"}");
    AUTO(container_free) struct container *failure = make("\"restart_policy\": {\"name\": \"on-failure\"}");
    AUTO(container_free) struct container *twice = make("\"restart_policy\": {\"name\": \"on-failure\", \"maximum_retry_count\": 2}");
    for (unsigned restarts = 0; restarts < 4; restarts++)
        for (int code = 0; code < 2; code++) {
            assert_false(container_restarts(never, code, restarts));
            assert_true(container_restarts(always, code, restarts));
            assert_int_equal(container_restarts(failure, code, restarts), code != 0);
            assert_int_equal(container_restarts(twice, code, restarts), code != 0 && restarts < 2);
        }
}

// Every small input: nothing runs or is made without its volume, nothing of ours that is wanted as it is is touched while it runs.
static void every_plan(void **state)
{
    (void)state;
    const struct uuid era = { { 1 } }, earlier = { { 2 } };
    AUTO(container_free) struct container *want = make("\"restart_policy\": {\"name\": \"on-failure\"}");
    for (unsigned bits = 0; bits < 512; bits++) {
        const bool is_wanted = bits & 1, ready = bits & 2, same = bits & 128, now = bits & 256;
        const struct container_here here = { .known = bits & 4, .present = bits & 8, .running = bits & 16, .started = bits & 32,
                                             .exit_code = bits & 64 ? 1 : 0, .revision = same ? 1 : 2, .era = now ? era : earlier };
        const enum container_step step = plan_container(is_wanted ? want : NULL, &here, ready, &era);
        assert_int_equal(step == CONTAINER_LOOK, !here.known);
        if (step == CONTAINER_CREATE || step == CONTAINER_START || step == CONTAINER_AGAIN)
            assert_true(is_wanted && ready);
        if (step == CONTAINER_CREATE)
            assert_false(here.present);
        if (step == CONTAINER_START || step == CONTAINER_AGAIN)
            assert_true(here.present && !here.running && same && now && here.started == (step == CONTAINER_AGAIN));
        if (step == CONTAINER_AGAIN)
            assert_int_equal(here.exit_code, 1);
        if (step == CONTAINER_REMOVE)
            assert_true(here.present && !(is_wanted && same && now));
        if (here.known && here.present && is_wanted && same && now && here.running)
            assert_int_equal(step, CONTAINER_NONE);
        if (here.known && here.present && !(is_wanted && same && now))
            assert_int_equal(step, CONTAINER_REMOVE);
        assert_true(strlen(container_step_word(step)) > 0);
    }
}

static void restarts_slow_down(void **state)
{
    unsigned ends = 0;
    int64_t before = 0;
    (void)state;
    for (int i = 0; i < 30; i++) {
        const int64_t delay = plan_restart_delay_ms(100, &ends);
        assert_true(delay >= before && delay >= 100 && delay <= 60000);
        before = delay;
    }
    assert_int_equal(before, 60000);
    assert_int_equal(plan_restart_delay_ms(10000, &ends), 100);
}

// ---- _compose

static bool node_of_address(void *arg, const char *address, struct uuid *ret)
{
    (void)arg;
    return strcmp(address, "10.3.0.11") == 0 ? uuid_parse(NODE, ret) : strcmp(address, "10.3.0.12") == 0 ? uuid_parse(OTHER, ret) : false;
}

static struct uuid dataset_of(const char *name)
{
    uint8_t random[16] = { (uint8_t)name[0] };
    return uuid_from_random(random);
}

static int read_compose(const char *applications, const char *nodes, struct compose *ret, struct error *e)
{
    static const struct compose_world world = { node_of_address, dataset_of };
    AUTO(free) char *deployment = xasprintf("{\"version\": 1, \"nodes\": {%s}}", nodes);
    json_t *a = parse(applications), *d = parse(deployment);
    int rc = compose_read(a, d, &world, NULL, ret, e);
    json_decref(a);
    json_decref(d);
    return rc;
}

static void compose_in_flockers_format(void **state)
{
    struct error e = ERROR_INIT;
    struct compose c = { 0, NULL };
    (void)state;
    int rc = read_compose("{\"version\": 1, \"applications\": {\"db\": {\"image\": \"postgres\", \"mem_limit\": 200000000, \"cpu_shares\": 512, "
        "\"restart_policy\": {\"name\": \"always\"}, \"volume\": {\"mountpoint\": \"/d\", \"maximum_size\": \"1.5G\"}}, "
        "\"web\": {\"image\": \"w\", \"volume\": {\"mountpoint\": \"/w\", \"dataset_id\": \"" OTHER "\"}}, \"idle\": {\"image\": \"i\"}}}",
        "\"10.3.0.11\": [\"db\"], \"10.3.0.12\": [\"web\"]", &c, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(c.n, 2);
    const struct uuid own = dataset_of("db");
    AUTO(free) char *want = xasprintf("{\"name\": \"db\", \"node_uuid\": \"" NODE "\", \"image\": \"postgres:latest\", \"memory_limit\": 200000000, "
        "\"cpu_shares\": 512, \"restart_policy\": {\"name\": \"always\"}, \"volumes\": [{\"dataset_id\": \"%s\", \"mountpoint\": \"/d\"}]}", UUID_TEXT(&own));
    assert_json(container_to_v1(c.applications[0].container), want);
    assert_int_equal(c.applications[0].size, 3ULL << 29);
    assert_string_equal(UUID_TEXT(&c.applications[1].container->volume), OTHER);
    assert_int_equal(c.applications[1].size, 0);
    compose_done(&c);
}

static void compose_in_figs_format(void **state)
{
    struct error e = ERROR_INIT;
    struct compose c = { 0, NULL };
    (void)state;
    int rc = read_compose("{\"web\": {\"image\": \"w\", \"environment\": [\"A=1=2\", \"B\"], \"links\": [\"db\", \"db:sql\"], \"ports\": [\"80:8080\"]}, "
        "\"db\": {\"image\": \"postgres\", \"ports\": [\"5433:5432\"], \"volumes\": [\"/d\"], \"mem_limit\": 2000000}}",
        "\"10.3.0.11\": [\"web\", \"db\"]", &c, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    assert_json(container_to_v1(c.applications[0].container), "{\"name\": \"web\", \"node_uuid\": \"" NODE "\", \"image\": \"w:latest\", "
        "\"environment\": {\"A\": \"1=2\", \"B\": \"\"}, \"ports\": [{\"internal\": 8080, \"external\": 80}], \"restart_policy\": {\"name\": \"never\"}, "
        "\"links\": [{\"alias\": \"db\", \"local_port\": 5432, \"remote_port\": 5433}, {\"alias\": \"sql\", \"local_port\": 5432, \"remote_port\": 5433}]}");
    assert_false(uuid_is_zero(&c.applications[1].container->volume));
    compose_done(&c);
}

#define FLOCKER(application) "{\"version\": 1, \"applications\": {\"db\": {" application "}}}"
#define IMAGE "\"image\": \"i\""

static void compose_refuses(void **state)
{
    static const struct {
        const char *applications, *nodes, *words;
    } bad[] = {
        { FLOCKER(IMAGE), "\"10.9.9.9\": [\"db\"]", "10.9.9.9" },
        { FLOCKER(IMAGE), "\"10.3.0.11\": \"db\"", "not a list" },
        { FLOCKER(IMAGE), "\"10.3.0.11\": [\"web\"]", "web" },
        { FLOCKER(IMAGE), "\"10.3.0.11\": [1]", "name" },
        { FLOCKER(IMAGE), "\"10.3.0.11\": [\"db\"], \"10.3.0.12\": [\"db\"]", "more than one node" },
        { FLOCKER(""), "\"10.3.0.11\": [\"db\"]", "image" },
        { FLOCKER(IMAGE ", \"colour\": 1"), "\"10.3.0.11\": [\"db\"]", "colour" },
        { FLOCKER(IMAGE ", \"volume\": {}"), "\"10.3.0.11\": [\"db\"]", "mountpoint" },
        { FLOCKER(IMAGE ", \"volume\": {\"mountpoint\": \"/d\", \"maximum_size\": \"big\"}"), "\"10.3.0.11\": [\"db\"]", "maximum_size" },
        { FLOCKER(IMAGE ", \"volume\": {\"mountpoint\": \"/d\", \"maximum_size\": \"1M\"}"), "\"10.3.0.11\": [\"db\"]", "64 MiB" },
        { FLOCKER(IMAGE ", \"volume\": {\"mountpoint\": \"/d\", \"dataset_id\": \"x\"}"), "\"10.3.0.11\": [\"db\"]", "dataset_id" },
        { FLOCKER(IMAGE ", \"volume\": {\"mountpoint\": \"/d\", \"x\": 1}"), "\"10.3.0.11\": [\"db\"]", "'volume'" },
        { "{\"version\": 2, \"applications\": {}}", "", "version" },
        { "{\"applications\": {}}", "", "version" },
        { "{\"version\": 1}", "", "applications" },
        { "{\"version\": 1, \"applications\": {}, \"x\": 1}", "", "key: x" },
        { "{\"db\": {\"build\": \".\"}}", "\"10.3.0.11\": [\"db\"]", "build" },
        { "{\"db\": {" IMAGE ", \"expose\": []}}", "\"10.3.0.11\": [\"db\"]", "expose" },
        { "{\"db\": {" IMAGE ", \"ports\": [\"80\"]}}", "\"10.3.0.11\": [\"db\"]", "ports" },
        { "{\"db\": {" IMAGE ", \"ports\": [\"80:99999\"]}}", "\"10.3.0.11\": [\"db\"]", "65535" },
        { "{\"db\": {" IMAGE ", \"volumes\": [\"/a\", \"/b\"]}}", "\"10.3.0.11\": [\"db\"]", "single path" },
        { "{\"db\": {" IMAGE ", \"links\": [\"web\"]}}", "\"10.3.0.11\": [\"db\"]", "links" },
        { "{\"db\": {" IMAGE ", \"environment\": [1]}}", "\"10.3.0.11\": [\"db\"]", "NAME=VALUE" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error e = ERROR_INIT;
        struct compose c = { 0, NULL };
        if (read_compose(bad[i].applications, bad[i].nodes, &c, &e) != -E_INVALID || !strstr(e.msg, bad[i].words))
            fail_msg("%s, %s: %s", bad[i].applications, bad[i].nodes, e.msg);
        assert_null(c.applications);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_ones_are_taken),       cmocka_unit_test(bad_ones_are_refused),       cmocka_unit_test(settings_have_a_limit),
        cmocka_unit_test(replies_are_as_in_the_original), cmocka_unit_test(json_keeps_all_of_it),  cmocka_unit_test(policies),
        cmocka_unit_test(every_plan),                cmocka_unit_test(restarts_slow_down),         cmocka_unit_test(compose_in_flockers_format),
        cmocka_unit_test(compose_in_figs_format),    cmocka_unit_test(compose_refuses),
    };
    return RUN_TESTS(tests);
}
