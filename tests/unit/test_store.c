// The contract of stores: the same tests over each implementation, in a fresh store for each test.
#include "test.h"

#include "store_kit.h"

#include "base/limits.h"

#include <ftw.h>
#include <sys/stat.h>

struct fixture {
    const struct store_ops *ops;
    char folder[64];
    char *path;
    struct store *s;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int make_fixture(const struct store_ops *ops, void **state)
{
    struct error e = ERROR_INIT;
    struct fixture *f = xcalloc(1, sizeof *f);
    f->ops = ops;
    snprintf(f->folder, sizeof f->folder, "/tmp/flocker-store-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    f->path = xasprintf("%s/control.db", f->folder);
    if (store_open(ops, f->path, &f->s, &e) < 0)
        print_error("%s\n", e.msg);
    assert_non_null(f->s);
    *state = f;
    return 0;
}

static int make_sqlite(void **state)
{
    return make_fixture(&store_sqlite, state);
}

static int make_memory(void **state)
{
    return make_fixture(&store_memory, state);
}

static int drop_fixture(void **state)
{
    struct fixture *f = *state;
    store_close(f->s);
    nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f->path);
    free(f);
    return 0;
}

static void assert_content(struct store *s, const char *want)
{
    AUTO(free) char *have = kit_dump(s);
    assert_string_equal(have, want);
}

static void a_new_store_is_empty(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    assert_content(f->s, "[]");
    assert_int_equal(store_commit(f->s, NULL, 0, &e), 0);
    assert_content(f->s, "[]");
    store_close(NULL);
}

static void what_is_put_is_loaded(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *live = kit_volume(1, "db"), *trashed = kit_volume(2, "db"), *nameless = kit_volume(3, NULL);
    kit_trash(trashed);
    struct hold hold = kit_hold(1), lasting = kit_hold(2);
    struct node node = kit_node(7);
    const struct store_change changes[] = {
        { .kind = STORE_PUT_VOLUME, .volume = live },  { .kind = STORE_PUT_VOLUME, .volume = trashed },
        { .kind = STORE_PUT_VOLUME, .volume = nameless }, { .kind = STORE_PUT_HOLD, .hold = &hold },
        { .kind = STORE_PUT_HOLD, .hold = &lasting },  { .kind = STORE_PUT_NODE, .node = &node },
    };
    assert_int_equal(store_commit(f->s, changes, ARRAY_SIZE(changes), &e), 0);

    json_t *want = json_array(); // nodes, then volumes by id (3, 2, 1 as it happens: see kit_id), then holds
    kit_on_node(want, &node, &e);
    struct volume *volumes[] = { live, trashed, nameless };
    for (size_t i = 0; i < 3; i++)
        for (size_t j = i + 1; j < 3; j++)
            if (uuid_compare(&volumes[i]->id, &volumes[j]->id) > 0) {
                struct volume *swap = volumes[i];
                volumes[i] = volumes[j];
                volumes[j] = swap;
            }
    for (size_t i = 0; i < 3; i++)
        kit_on_volume(want, volume_copy(volumes[i]), &e);
    bool in_order = uuid_compare(&hold.volume, &lasting.volume) < 0;
    kit_on_hold(want, in_order ? &hold : &lasting, &e);
    kit_on_hold(want, in_order ? &lasting : &hold, &e);
    AUTO(free) char *text = json_dumps(want, JSON_COMPACT);
    json_decref(want);
    assert_content(f->s, text);
    assert_content(f->s, text); // loading changes nothing
}

static void put_replaces_and_remove_removes(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = kit_volume(1, "a");
    struct hold hold = kit_hold(1);
    struct node node = kit_node(1);
    struct store_change puts[] = {
        { .kind = STORE_PUT_VOLUME, .volume = v }, { .kind = STORE_PUT_HOLD, .hold = &hold }, { .kind = STORE_PUT_NODE, .node = &node }
    };
    assert_int_equal(store_commit(f->s, puts, 3, &e), 0);
    AUTO(free) char *before = kit_dump(f->s);
    free(v->name);
    v->name = xstrdup("b");
    v->revision++;
    hold.has_expiry = true;
    hold.expires_ms = -5;
    node.era = kit_id(99);
    assert_int_equal(store_commit(f->s, puts, 3, &e), 0);
    AUTO(free) char *after = kit_dump(f->s);
    assert_string_not_equal(before, after);
    assert_non_null(strstr(after, "\"b\""));
    assert_null(strstr(after, "\"name\":\"a\""));

    struct store_change removes[] = {
        { .kind = STORE_REMOVE_VOLUME, .id = v->id }, { .kind = STORE_REMOVE_HOLD, .id = hold.volume }, { .kind = STORE_REMOVE_NODE, .id = node.id }
    };
    assert_int_equal(store_commit(f->s, removes, 3, &e), 0);
    assert_content(f->s, "[]");
    assert_int_equal(store_commit(f->s, removes, 3, &e), 0); // what is not there
    assert_int_equal(store_commit(f->s, puts, 3, &e), 0);
    assert_content(f->s, after);
}

static void a_taken_name_undoes_the_whole_commit(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct hold old_hold = kit_hold(5), new_hold = kit_hold(6), changed_hold = kit_hold(5);
    struct node old_node = kit_node(8), new_node = kit_node(9);
    changed_hold.node = kit_id(1234);
    AUTO(volume_free) struct volume *a = kit_volume(1, "a"), *b = kit_volume(2, "b"), *c = kit_volume(3, "c"), *thief = kit_volume(4, "a");
    AUTO(volume_free) struct volume *renamed = kit_volume(2, "other");
    const struct store_change first[] = {
        { .kind = STORE_PUT_VOLUME, .volume = a }, { .kind = STORE_PUT_VOLUME, .volume = b }, { .kind = STORE_PUT_HOLD, .hold = &old_hold },
        { .kind = STORE_PUT_NODE, .node = &old_node },
    };
    assert_int_equal(store_commit(f->s, first, ARRAY_SIZE(first), &e), 0);
    AUTO(free) char *before = kit_dump(f->s);
    const struct store_change bad[] = {
        { .kind = STORE_PUT_NODE, .node = &new_node },       { .kind = STORE_REMOVE_NODE, .id = old_node.id },
        { .kind = STORE_PUT_HOLD, .hold = &changed_hold },   { .kind = STORE_PUT_HOLD, .hold = &new_hold },
        { .kind = STORE_PUT_VOLUME, .volume = c },           { .kind = STORE_PUT_VOLUME, .volume = renamed },
        { .kind = STORE_REMOVE_VOLUME, .id = b->id },        { .kind = STORE_PUT_VOLUME, .volume = renamed },
        { .kind = STORE_PUT_VOLUME, .volume = thief },       { .kind = STORE_REMOVE_VOLUME, .id = a->id },
    };
    assert_int_equal(store_commit(f->s, bad, ARRAY_SIZE(bad), &e), -E_CONFLICT);
    assert_non_null(strstr(e.msg, "\"a\""));
    assert_content(f->s, before);
    assert_int_equal(kit_put(f->s, c, &e), 0);
}

static void only_live_volumes_own_names(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *a = kit_volume(1, "x"), *b = kit_volume(2, "x");
    assert_int_equal(kit_put(f->s, a, &e), 0);
    assert_int_equal(kit_put(f->s, b, &e), -E_CONFLICT);
    kit_trash(a);
    // In one commit, in this order: the name is free when it is taken again.
    const struct store_change swap[] = { { .kind = STORE_PUT_VOLUME, .volume = a }, { .kind = STORE_PUT_VOLUME, .volume = b } };
    assert_int_equal(store_commit(f->s, swap, 2, &e), 0);
    a->state = VOLUME_PURGING;
    assert_int_equal(kit_put(f->s, a, &e), 0);
    a->state = VOLUME_DELETED;
    assert_int_equal(kit_put(f->s, a, &e), 0);
    a->state = VOLUME_LIVE; // restored, but the name is gone
    a->trashed_ms = a->purge_ms = 0;
    assert_int_equal(kit_put(f->s, a, &e), -E_CONFLICT);
    free(TAKE(a->name, NULL));
    assert_int_equal(kit_put(f->s, a, &e), 0);
    for (uint32_t n = 10; n < 15; n++)
        assert_int_equal(kit_put_new(f->s, n, NULL, &e), 0);
    assert_int_equal(kit_put_new(f->s, 20, "X", &e), 0); // names differ by case
}

static void values_at_their_limits(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = kit_volume(1, NULL);
    char name[NAME_BYTES_MAX + 1], text[METADATA_CHARS_MAX * 4 + 1];
    memset(name, 'n', NAME_BYTES_MAX);
    name[NAME_BYTES_MAX] = '\0';
    for (size_t i = 0; i < METADATA_CHARS_MAX; i++)
        memcpy(text + 4 * i, "\xf0\x9f\x90\xb3", 4);
    text[sizeof text - 1] = '\0';
    v->name = xstrdup(name);
    v->size = VOLUME_SIZE_MAX;
    v->options = (struct volume_options){ .uid = UINT32_MAX - 1, .gid = UINT32_MAX - 1, .mode = 07777, .nocow = true };
    v->epoch = v->revision = INT64_MAX;
    v->created_ms = INT64_MAX;
    metadata_remove(&v->metadata, "number");
    for (char key[] = "a'\"\\;\x01"; key[0] < 'a' + METADATA_ITEMS_MAX - 1; key[0]++)
        assert_int_equal(metadata_set(&v->metadata, key, text, &e), 0);
    assert_int_equal(metadata_set(&v->metadata, text, "\x01\x02\n'); DROP TABLE volume; --", &e), 0);
    assert_int_equal(kit_put(f->s, v, &e), 0);
    struct hold hold = { .volume = kit_id(1), .has_expiry = true, .expires_ms = INT64_MIN };
    struct node node = { .id = kit_id(1) };
    memset(node.host, 'h', sizeof node.host - 1);
    const struct store_change changes[] = { { .kind = STORE_PUT_HOLD, .hold = &hold }, { .kind = STORE_PUT_NODE, .node = &node } };
    assert_int_equal(store_commit(f->s, changes, 2, &e), 0);
    AUTO(free) char *record = NULL, *dump = kit_dump(f->s);
    json_t *object = volume_to_json(v);
    record = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    assert_non_null(strstr(dump, record));
    assert_non_null(strstr(dump, node.host));
    assert_non_null(strstr(dump, "-9223372036854775808"));
}

struct counter {
    int left, volumes, holds, nodes, containers;
};

static int count_volume(void *arg, struct volume *v, struct error *e)
{
    struct counter *c = arg;
    volume_free(v);
    c->volumes++;
    return c->left-- > 0 ? 0 : fail(e, E_TOO_LARGE, "enough");
}

static int count_hold(void *arg, const struct hold *h, struct error *e)
{
    (void)h;
    struct counter *c = arg;
    c->holds++;
    return c->left-- > 0 ? 0 : fail(e, E_TOO_LARGE, "enough");
}

static int count_node(void *arg, const struct node *n, struct error *e)
{
    (void)n;
    struct counter *c = arg;
    c->nodes++;
    return c->left-- > 0 ? 0 : fail(e, E_TOO_LARGE, "enough");
}

static int count_container(void *arg, struct container *k, struct error *e)
{
    struct counter *c = arg;
    container_free(k);
    c->containers++;
    return c->left-- > 0 ? 0 : fail(e, E_TOO_LARGE, "enough");
}

// Containers are kept by name; one that is put again has the new settings, and removing what is not there is no error.
static void containers_are_kept_by_name(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    AUTO(container_free) struct container *first = kit_container(1);
    AUTO(container_free) struct container *second = kit_container(2);
    const struct store_change puts[] = { { .kind = STORE_PUT_CONTAINER, .container = second }, { .kind = STORE_PUT_CONTAINER, .container = first } };
    assert_int_equal(store_commit(f->s, puts, 2, &e), 0);
    first->revision = 7;
    first->deleted = true;
    container_leave(first, &second->node);
    assert_int_equal(store_commit(f->s, &puts[1], 1, &e), 0);
    json_t *want = json_pack("[o, o]", container_to_json(first), container_to_json(second));
    AUTO(free) char *text = json_dumps(want, JSON_COMPACT);
    json_decref(want);
    assert_content(f->s, text);
    const struct store_change removals[] = { { .kind = STORE_REMOVE_CONTAINER, .name = "c1" }, { .kind = STORE_REMOVE_CONTAINER, .name = "c2" },
                                             { .kind = STORE_REMOVE_CONTAINER, .name = "c3" } };
    assert_int_equal(store_commit(f->s, removals, 3, &e), 0);
    assert_content(f->s, "[]");
}

// A token is kept until it is removed; whoever does not want tokens is not told of them.
static void tokens_are_kept(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct join_token first = kit_token(1), second = kit_token(2), replaced = first;
    replaced.expires_ms = -5;
    replaced.node = (struct uuid){ { 0 } };
    const struct store_change puts[] = { { .kind = STORE_PUT_TOKEN, .token = &first }, { .kind = STORE_PUT_TOKEN, .token = &second } };
    assert_int_equal(store_commit(f->s, puts, 2, &e), 0);
    AUTO(free) char *both = kit_dump(f->s);
    assert_non_null(strstr(both, UUID_TEXT(&first.node)));
    const struct store_change more[] = { { .kind = STORE_PUT_TOKEN, .token = &replaced }, { .kind = STORE_REMOVE_TOKEN, .id = second.id } };
    assert_int_equal(store_commit(f->s, more, 2, &e), 0);
    AUTO(free) char *want = xasprintf("[\"token %s 00000000-0000-0000-0000-000000000000 -5\"]", UUID_TEXT(&first.id));
    assert_content(f->s, want);
    struct counter c = { .left = 0 };
    const struct store_sink sink = { count_volume, count_hold, count_node, &c, NULL };
    assert_int_equal(store_load(f->s, &sink, &e), 0);
}

// Users are kept by their names, which sort as bytes; whoever does not want them is not told of them.
static void users_are_kept(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct user first = kit_user(1), second = kit_user(2), again = first;
    memset(first.name, 'x', sizeof first.name - 1);
    snprintf(second.name, sizeof second.name, "Z\xc3\xa9");
    memcpy(again.name, first.name, sizeof again.name);
    again.key[0] = '\0';
    again.revoked_ms = INT64_MAX;
    const struct store_change puts[] = { { .kind = STORE_PUT_USER, .user = &first }, { .kind = STORE_PUT_USER, .user = &second },
                                         { .kind = STORE_PUT_USER, .user = &again } };
    assert_int_equal(store_commit(f->s, puts, 3, &e), 0);
    AUTO(free) char *want = xasprintf("[\"%s  2000\",\"%s  %lld\"]", second.name, again.name, (long long)INT64_MAX);
    assert_content(f->s, want);
    struct counter c = { .left = 0 };
    const struct store_sink sink = { count_volume, count_hold, count_node, &c, NULL };
    assert_int_equal(store_load(f->s, &sink, &e), 0);
}

// That a node was removed from the cluster outlives everything.
static void a_removed_node_stays_removed(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct node node = kit_node(7);
    const struct store_change put = { .kind = STORE_PUT_NODE, .node = &node };
    assert_int_equal(store_commit(f->s, &put, 1, &e), 0);
    node.removed = true;
    assert_int_equal(store_commit(f->s, &put, 1, &e), 0);
    AUTO(free) char *want = xasprintf("[\"node %s %s %s removed\"]", UUID_TEXT(&node.id), UUID_TEXT(&node.era), node.host);
    assert_content(f->s, want);
}

static void the_sink_ends_the_load(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    for (uint32_t n = 1; n <= 3; n++) {
        AUTO(volume_free) struct volume *v = kit_volume(n, NULL);
        struct hold hold = kit_hold(n);
        struct node node = kit_node(n);
        const struct store_change changes[] = {
            { .kind = STORE_PUT_VOLUME, .volume = v }, { .kind = STORE_PUT_HOLD, .hold = &hold }, { .kind = STORE_PUT_NODE, .node = &node }
        };
        assert_int_equal(store_commit(f->s, changes, 3, &e), 0);
        assert_int_equal(kit_put_container(f->s, n, &e), 0);
    }
    for (int left = 0; left < 12; left++) {
        struct counter c = { .left = left };
        const struct store_sink sink = { count_volume, count_hold, count_node, &c, NULL, count_container };
        assert_int_equal(store_load(f->s, &sink, &e), -E_TOO_LARGE);
        assert_string_equal(e.msg, "enough");
        assert_int_equal(c.volumes + c.holds + c.nodes + c.containers, left + 1);
    }
    struct counter c = { .left = 12 };
    const struct store_sink sink = { count_volume, count_hold, count_node, &c, NULL, count_container };
    assert_int_equal(store_load(f->s, &sink, &e), 0);
    assert_int_equal(kit_put_new(f->s, 50, "after", &e), 0);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

// Random commits, to this store and to a memory store: same answers, same content.
static void agrees_with_memory(void **state)
{
    enum { CHANGES = 6 };
    struct fixture *f = *state;
    struct error e = ERROR_INIT, e2 = ERROR_INIT;
    AUTO(store_close) struct store *reference = NULL;
    assert_int_equal(store_open(&store_memory, "", &reference, &e), 0);
    uint32_t seed = 12345, conflicts = 0;
    for (int round = 0; round < 300; round++) {
        struct store_change changes[CHANGES];
        struct volume *volumes[CHANGES] = { NULL };
        struct hold holds[CHANGES];
        struct node nodes[CHANGES];
        struct container *containers[CHANGES] = { NULL };
        struct join_token tokens[CHANGES];
        struct user users[CHANGES];
        size_t n = next_random(&seed) % CHANGES + 1;
        for (size_t i = 0; i < n; i++) {
            uint32_t which = next_random(&seed) % 20 + 1;
            char name[] = { (char)('a' + next_random(&seed) % 15), 0 };
            volumes[i] = kit_volume(which, next_random(&seed) % 4 ? name : NULL);
            if (next_random(&seed) % 4 == 0)
                kit_trash(volumes[i]);
            holds[i] = kit_hold(which);
            nodes[i] = kit_node(which);
            nodes[i].era = kit_id(next_random(&seed));
            nodes[i].removed = next_random(&seed) % 4 == 0;
            nodes[i].drain = (enum node_drain)(next_random(&seed) % 3);
            tokens[i] = kit_token(which);
            tokens[i].expires_ms += next_random(&seed) % 2;
            users[i] = kit_user(which);
            containers[i] = kit_container(which);
            containers[i]->revision = next_random(&seed) % 100 + 1;
            changes[i] = (struct store_change){ .kind = next_random(&seed) % 2 ? STORE_PUT_VOLUME
                                                                               : (enum store_change_kind)(next_random(&seed) % (STORE_PUT_USER + 1)),
                .volume = volumes[i], .hold = &holds[i], .node = &nodes[i], .token = &tokens[i], .user = &users[i], .container = containers[i],
                .name = containers[i]->name, .id = kit_id(which) };
        }
        int rc = store_commit(f->s, changes, n, &e);
        assert_int_equal(rc, store_commit(reference, changes, n, &e2));
        conflicts += rc == -E_CONFLICT;
        AUTO(free) char *want = kit_dump(reference);
        assert_content(f->s, want);
        for (size_t i = 0; i < n; i++)
            volume_free(volumes[i]);
        for (size_t i = 0; i < n; i++)
            container_free(containers[i]);
    }
    assert_in_range(conflicts, 20, 200); // both ways were taken
}

#define CONTRACT(make, test) { #test " (" #make ")", test, make, drop_fixture, NULL }
#define BOTH(test)           CONTRACT(make_sqlite, test), CONTRACT(make_memory, test)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BOTH(a_new_store_is_empty),
        BOTH(what_is_put_is_loaded),
        BOTH(put_replaces_and_remove_removes),
        BOTH(a_taken_name_undoes_the_whole_commit),
        BOTH(only_live_volumes_own_names),
        BOTH(values_at_their_limits),
        BOTH(containers_are_kept_by_name),
        BOTH(the_sink_ends_the_load),
        BOTH(tokens_are_kept),
        BOTH(users_are_kept),
        BOTH(a_removed_node_stays_removed),
        BOTH(agrees_with_memory),
    };
    return RUN_TESTS(tests);
}
