// Connections of agents to control that go on where they broke, and what is told on them.
#include "control_rig.h"

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

// ---- moves

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_amid_sync),
        cmocka_unit_test(test_resume_over_restart),
        cmocka_unit_test(test_watches_are_resumed),
        cmocka_unit_test(test_moves_over_resume), cmocka_unit_test(test_removed_owner_says_nothing),
        cmocka_unit_test(test_slow_reader),
    };
    return RUN_TESTS(tests);
}
