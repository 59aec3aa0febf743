// Metadata, volumes and their JSON form, and the set of volumes.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "model/hold.h"
#include "model/json.h"
#include "model/metadata.h"
#include "model/volume.h"
#include "model/id_set.h"
#include "model/volume_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

#define ID_TEXT    "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11"
#define OWNER_TEXT "7d1c2b3a-0000-4000-8000-00000000beef"

static char *repeated(const char *unit, size_t times)
{
    size_t n = strlen(unit);
    char *text = xcalloc(n * times + 1, 1);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * n, unit, n);
    return text;
}

static struct uuid uuid_of(const char *text)
{
    struct uuid u;
    assert_true(uuid_parse(text, &u));
    return u;
}

// ---- metadata -----------------------------------------------------------------------------------------------------------------

static void metadata_is_a_sorted_map(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct metadata m = { 0 }, copy;
    static const char *const keys[] = { "m", "a", "z", "b", "y" };
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(metadata_set(&m, keys[i], "1", &e), 0);
    for (size_t i = 1; i < m.n; i++)
        assert_true(strcmp(m.items[i - 1].key, m.items[i].key) < 0);
    assert_int_equal(metadata_set(&m, "b", "2", &e), 0);
    assert_int_equal(metadata_set(&m, "b", metadata_get(&m, "b"), &e), 0);
    assert_int_equal(m.n, 5);
    assert_string_equal(metadata_get(&m, "b"), "2");
    assert_null(metadata_get(&m, "c"));
    assert_null(metadata_get(&m, "zz"));

    metadata_copy(&copy, &m);
    assert_true(metadata_equal(&copy, &m));
    metadata_remove(&copy, "nothing");
    assert_true(metadata_equal(&copy, &m));
    metadata_remove(&copy, "a");
    assert_false(metadata_equal(&copy, &m));
    assert_int_equal(metadata_set(&copy, "A", "1", &e), 0);
    assert_false(metadata_equal(&copy, &m)); // as many items, another key
    metadata_remove(&copy, "A");
    assert_int_equal(metadata_set(&copy, "a", "other", &e), 0);
    assert_false(metadata_equal(&copy, &m)); // another value
    metadata_done(&copy);
    metadata_done(&m);
    metadata_copy(&copy, &m);
    assert_true(metadata_equal(&copy, &m));
    assert_null(copy.items);
}

static void metadata_limits(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct metadata m = { 0 };
    AUTO(free) char *most = repeated("\xf0\x9f\x90\xb3", METADATA_CHARS_MAX); // characters of four bytes count as one
    AUTO(free) char *more = repeated("\xc3\xa9", METADATA_CHARS_MAX + 1);
    const struct {
        const char *key, *value;
        int rc;
    } cases[] = {
        { most, most, 0 },        { "k", "", 0 },          { "k", "a\nb", 0 },       { "", "v", -E_INVALID },
        { more, "v", -E_INVALID }, { "k", more, -E_INVALID }, { "a\nb", "v", -E_INVALID }, { "k", "\xff", -E_INVALID },
        { "\xc3", "v", -E_INVALID }, { "k", "\xed\xa0\x80", -E_INVALID },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(metadata_set(&m, cases[i].key, cases[i].value, &e), cases[i].rc);
    assert_int_equal(m.n, 2);
    for (int i = 2; i < METADATA_ITEMS_MAX; i++) {
        AUTO(free) char *key = xasprintf("key %d", i);
        assert_int_equal(metadata_set(&m, key, "v", &e), 0);
    }
    assert_int_equal(metadata_set(&m, "one more", "v", &e), -E_INVALID);
    assert_int_equal(metadata_set(&m, "key 3", "replaced", &e), 0);
    assert_int_equal(m.n, METADATA_ITEMS_MAX);

    AUTO(json_decref) json_t *object = metadata_to_json(&m);
    struct metadata back = { 0 };
    assert_int_equal(metadata_from_json(object, &back, &e), 0);
    assert_true(metadata_equal(&back, &m));
    metadata_done(&back);
    json_object_set_new(object, "one more", json_string("v"));
    assert_int_equal(metadata_from_json(object, &back, &e), -E_INVALID);
    metadata_done(&m);
}

static void metadata_rejects_what_is_not_text(void **state)
{
    (void)state;
    static const char *const bad[] = { "[]", "null", "\"x\"", "{\"a\":1}", "{\"a\":null}", "{\"a\":\"b\",\"c\":{}}", "{\"\":\"b\"}",
        "{\"a\":\"b\",\"c\":\"x\\u0000y\"}" };
    struct error e = ERROR_INIT;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct metadata m = { 0 };
        AUTO(json_decref) json_t *value = json_loads(bad[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(value);
        assert_int_equal(metadata_from_json(value, &m, &e), -E_INVALID);
        assert_int_equal(m.n, 0);
        assert_null(m.items);
    }
    struct metadata m = { 0 };
    assert_int_equal(metadata_from_json(NULL, &m, &e), -E_INVALID);
}

// ---- names and sizes ------------------------------------------------------------------------------------------------------------

static void names_follow_dockers_rule(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(free) char *most = repeated("n", NAME_BYTES_MAX);
    AUTO(free) char *more = repeated("n", NAME_BYTES_MAX + 1);
    const char *const good[] = { "a", "Z", "0", "9z", "db", "a_b.c-d", "A-", "a..", most };
    const char *const bad[] = { "", "_a", ".a", "-a", "a/b", "a b", "a\n", "a\x1b[31m", "\xc3\xa9", "a\xff", "@", "a`", "a{", "a:", "a[", more };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(volume_name_check(good[i], &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(volume_name_check(bad[i], &e), -E_INVALID);
        assert_null(strpbrk(e.msg, "\n\x1b\xc3\xff")); // a hostile name does not get into a log or onto a terminal
    }
    for (int c = 1; c < 256; c++) {
        char name[] = { 'a', (char)c, 0 };
        bool allowed = c < 128 && strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", c);
        assert_int_equal(volume_name_check(name, &e), allowed ? 0 : -E_INVALID);
    }
}

static void size_limits(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    static const struct {
        uint64_t size;
        int rc;
    } cases[] = {
        { 0, 0 }, { VOLUME_SIZE_MIN, 0 }, { VOLUME_SIZE_MIN + VOLUME_SIZE_UNIT, 0 }, { VOLUME_SIZE_MAX, 0 },
        { 1, -E_INVALID }, { VOLUME_SIZE_MIN - VOLUME_SIZE_UNIT, -E_INVALID }, { VOLUME_SIZE_MIN + 1, -E_INVALID },
        { VOLUME_SIZE_MAX + VOLUME_SIZE_UNIT, -E_INVALID }, { UINT64_MAX, -E_INVALID },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(volume_size_check(cases[i].size, &e), cases[i].rc);
}

// ---- volumes --------------------------------------------------------------------------------------------------------------------

static struct volume *full_volume(void)
{
    struct error e = ERROR_INIT;
    struct volume *v = volume_new();
    v->id = uuid_of(ID_TEXT);
    v->name = xstrdup("db");
    v->size = 10ULL << 30;
    assert_int_equal(metadata_set(&v->metadata, "a", "b", &e), 0);
    v->options = (struct volume_options){ .uid = 999, .gid = UINT32_MAX - 1, .mode = 0750, .nocow = true };
    v->owner = v->target = uuid_of(OWNER_TEXT);
    v->epoch = 7;
    v->revision = 42;
    v->state = VOLUME_TRASHED;
    v->born = v->keep_mounted = true;
    v->created_ms = 1767323045678;
    v->trashed_ms = 1767323045679;
    v->purge_ms = INT64_MAX;
    return v;
}

static const char *const full_text =
    "{\"id\":\"" ID_TEXT "\",\"name\":\"db\",\"size\":10737418240,\"metadata\":{\"a\":\"b\"},"
    "\"options\":{\"uid\":999,\"gid\":4294967294,\"mode\":488,\"nocow\":true},\"owner\":\"" OWNER_TEXT "\",\"target\":\"" OWNER_TEXT "\",\"epoch\":7,\"revision\":42,"
    "\"state\":\"trashed\",\"born\":true,\"keep_mounted\":true,\"created_ms\":1767323045678,\"trashed_ms\":1767323045679,"
    "\"purge_ms\":9223372036854775807}";

static char *text_of(const struct volume *v)
{
    AUTO(json_decref) json_t *object = volume_to_json(v);
    char *text = json_dumps(object, JSON_COMPACT);
    assert_non_null(text);
    return text;
}

// Written only where there is one.
static void accepted_epoch_is_kept(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = full_volume(), *back = NULL;
    v->accepts = 6;
    AUTO(json_decref) json_t *object = volume_to_json(v);
    assert_int_equal(volume_from_json(object, &back, &e), 0);
    assert_int_equal(back->accepts, 6);
    json_object_set_new(object, "accepts", json_integer(-1));
    assert_int_equal(volume_from_json(object, &back, &e), -E_INVALID);
}

static void volume_has_one_json_form(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = full_volume();
    AUTO(free) char *text = text_of(v);
    assert_string_equal(text, full_text);

    AUTO(json_decref) json_t *object = json_loads(text, 0, NULL);
    AUTO(volume_free) struct volume *back = NULL;
    assert_int_equal(volume_from_json(object, &back, &e), 0);
    assert_string_equal(back->name, "db");
    assert_int_equal(back->options.gid, UINT32_MAX - 1);
    assert_int_equal(back->state, VOLUME_TRASHED);
    assert_int_equal(back->purge_ms, INT64_MAX);
    AUTO(free) char *again = text_of(back);
    assert_string_equal(again, full_text);

    AUTO(volume_free) struct volume *copy = volume_copy(back);
    assert_ptr_not_equal(copy->name, back->name);
    AUTO(free) char *copied = text_of(copy);
    assert_string_equal(copied, full_text);
}

static void volume_without_a_name(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char buffer[UUID_TEXT_SIZE];
    AUTO(volume_free) struct volume *v = volume_new();
    assert_int_equal(v->options.mode, 0777);
    v->id = uuid_of(ID_TEXT);
    v->epoch = v->revision = 1;
    AUTO(json_decref) json_t *object = volume_to_json(v);
    assert_null(json_object_get(object, "name"));
    AUTO(volume_free) struct volume *back = NULL, *copy = NULL;
    assert_int_equal(volume_from_json(object, &back, &e), 0);
    assert_null(back->name);
    copy = volume_copy(back);
    assert_null(copy->name);
    assert_string_equal(volume_label(copy, buffer), ID_TEXT);
    copy->name = xstrdup("web");
    assert_string_equal(volume_label(copy, buffer), "web");
    volume_free(NULL);
}

// A move is written while there is one, and records of volumes that never moved lack it.
static void moves_survive(void **state)
{
    (void)state;
    for (int n = 0; n < MOVE_STAGE_COUNT * 4; n++) {
        struct error e = ERROR_INIT;
        AUTO(volume_free) struct volume *v = full_volume(), *back = NULL;
        v->move.stage = (enum move_stage)(n % MOVE_STAGE_COUNT);
        v->move.force = n / MOVE_STAGE_COUNT & 1;
        v->move.rate = n / MOVE_STAGE_COUNT & 2 ? 1 << 20 : 0;
        if (v->move.stage == MOVE_SETTLE || v->move.stage == MOVE_RELEASE)
            v->move.source = uuid_of(ID_TEXT);
        AUTO(json_decref) json_t *object = volume_to_json(v);
        assert_int_equal(volume_from_json(object, &back, &e), 0);
        assert_memory_equal(&back->move, &v->move, sizeof v->move);
        assert_int_equal(json_object_get(object, "move") != NULL, n != MOVE_NONE);
        if (v->move.stage == MOVE_NONE)
            continue;
        json_object_set_new(json_object_get(object, "move"), "source",
                            json_string(uuid_is_zero(&v->move.source) ? ID_TEXT : "00000000-0000-0000-0000-000000000000"));
        AUTO(volume_free) struct volume *wrong = NULL;
        assert_int_equal(volume_from_json(object, &wrong, &e), -E_INVALID);
    }
}

static void every_state_survives(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int s = 0; s < VOLUME_STATE_COUNT; s++) {
        AUTO(volume_free) struct volume *v = full_volume(), *back = NULL;
        v->state = (enum volume_state)s;
        if (s == VOLUME_LIVE)
            v->trashed_ms = v->purge_ms = 0;
        AUTO(json_decref) json_t *object = volume_to_json(v);
        assert_string_equal(json_string_value(json_object_get(object, "state")), volume_state_word(v->state));
        assert_int_equal(volume_from_json(object, &back, &e), 0);
        assert_int_equal(back->state, s);
    }
}

// The full volume with one member of `group` (NULL: of the volume) replaced by `value`, or left out if `value` is NULL.
static json_t *changed(const char *group, const char *member, const char *value)
{
    json_t *object = json_loads(full_text, 0, NULL);
    json_t *in = group ? json_object_get(object, group) : object;
    assert_non_null(in);
    if (value) {
        json_t *fresh = json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(fresh);
        json_object_set_new(in, member, fresh);
    } else {
        json_object_del(in, member);
    }
    return object;
}

static int read_changed(const char *group, const char *member, const char *value, struct error *e)
{
    AUTO(json_decref) json_t *object = changed(group, member, value);
    AUTO(volume_free) struct volume *v = NULL;
    int rc = volume_from_json(object, &v, e);
    assert_int_equal(v == NULL, rc < 0);
    return rc;
}

static void wrong_members_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *group, *member;
        const char *bad[10];
    } cases[] = {
        { NULL, "id", { "1", "null", "\"x\"", "\"00000000-0000-0000-0000-000000000000\"" } },
        { NULL, "name", { "null", "1", "\"\"", "\"a/b\"", "\"a\\u0000b\"", "[]" } },
        { NULL, "size", { "1", "-1024", "67108864.0", "true", "\"67108864\"", "null", "67108865", "4611686018427388928" } },
        { NULL, "metadata", { "null", "[]", "{\"a\":1}" } },
        { NULL, "options", { "null", "[]", "1" } },
        { "options", "uid", { "-1", "4294967295", "1.0", "null", "\"0\"" } },
        { "options", "gid", { "-1", "4294967295", "4294967296" } },
        { "options", "mode", { "-1", "4096", "\"0777\"" } },
        { "options", "nocow", { "0", "1", "null", "\"true\"" } },
        { NULL, "owner", { "null", "\"\"", "7" } },
        { NULL, "target", { "null", "\"\"", "7" } },
        { NULL, "epoch", { "0", "-1", "1.5", "null", "\"1\"" } },
        { NULL, "revision", { "0", "-1", "true" } },
        { NULL, "state", { "\"gone\"", "\"\"", "1", "null", "\"Live\"", "\"live\"" } }, // live, but with trashed_ms
        { NULL, "born", { "0", "null" } },
        { NULL, "keep_mounted", { "1", "\"no\"" } },
        { NULL, "created_ms", { "-1", "1.5", "null" } },
        { NULL, "trashed_ms", { "-1", "\"0\"" } },
        { NULL, "purge_ms", { "-1", "false" } },
    };
    struct error e = ERROR_INIT;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].bad) && cases[i].bad[j]; j++) {
            assert_int_equal(read_changed(cases[i].group, cases[i].member, cases[i].bad[j], &e), -E_INVALID);
            if (strcmp(cases[i].bad[j], "\"live\"") != 0)
                assert_non_null(strstr(e.msg, cases[i].member));
        }
        if (strcmp(cases[i].member, "name") == 0)
            continue;
        assert_int_equal(read_changed(cases[i].group, cases[i].member, NULL, &e), -E_INVALID);
        assert_non_null(strstr(e.msg, "missing"));
    }
    assert_int_equal(read_changed(NULL, "name", NULL, &e), 0);
    AUTO(json_decref) json_t *array = json_array();
    struct volume *v = NULL;
    assert_int_equal(volume_from_json(array, &v, &e), -E_INVALID);
    assert_int_equal(volume_from_json(NULL, &v, &e), -E_INVALID);
    assert_null(v);
}

static void live_has_no_trash_dates(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(json_decref) json_t *object = changed(NULL, "state", "\"live\"");
    AUTO(volume_free) struct volume *v = NULL;
    json_object_set_new(object, "trashed_ms", json_integer(0));
    assert_int_equal(volume_from_json(object, &v, &e), -E_INVALID);
    json_object_set_new(object, "purge_ms", json_integer(0));
    assert_int_equal(volume_from_json(object, &v, &e), 0);
}

static void unknown_members_are_ignored_at_any_depth(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    assert_int_equal(read_changed(NULL, "replicas", "[1,2,{\"a\":null}]", &e), 0);
    assert_int_equal(read_changed("options", "label", "{}", &e), 0);
    AUTO(free) char *open = repeated("[", 1000);
    AUTO(free) char *shut = repeated("]", 1000);
    AUTO(free) char *deep = xasprintf("%s%s", open, shut);
    assert_int_equal(read_changed(NULL, "future", deep, &e), 0);
    assert_int_equal(read_changed(NULL, "metadata", deep, &e), -E_INVALID);
    assert_int_equal(read_changed(NULL, "options", deep, &e), -E_INVALID);
}

static void hold_expires(void **state)
{
    (void)state;
    struct hold h = { .has_expiry = false, .expires_ms = 5 };
    assert_false(hold_is_over(&h, 10));
    h.has_expiry = true;
    assert_true(hold_is_over(&h, 10));
    assert_false(hold_is_over(&h, 5));
}

// ---- the set --------------------------------------------------------------------------------------------------------------------

enum { IDS = 60, NAMES = 25, NO_NAME = NAMES };

// What the set should hold, told by arrays: for each id if it is there, its name and its state.
struct reference {
    struct {
        bool there;
        int name;
        enum volume_state state;
        uint64_t revision;
    } of[IDS];
};

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static struct uuid nth_id(int i)
{
    return (struct uuid){ { (uint8_t)(i * 37), [15] = (uint8_t)i } }; // not in the order of i
}

static int holder_of(const struct reference *r, int name)
{
    for (int i = 0; i < IDS; i++)
        if (r->of[i].there && r->of[i].state == VOLUME_LIVE && r->of[i].name == name)
            return i;
    return -1;
}

static void compare(const struct volume_set *s, const struct reference *r)
{
    size_t n = 0, names = 0;
    for (int i = 0; i < IDS; i++) {
        struct uuid id = nth_id(i);
        struct volume *v = volume_set_find(s, &id);
        size_t behind = volume_set_behind(s, &id);
        assert_true(behind == s->n || uuid_compare(&s->by_id[behind]->id, &id) > 0);
        assert_true(behind == 0 || uuid_compare(&s->by_id[behind - 1]->id, &id) <= 0);
        assert_int_equal(v != NULL, r->of[i].there);
        if (!v)
            continue;
        assert_int_equal(v->revision, r->of[i].revision);
        n++;
        names += v->name && v->state == VOLUME_LIVE;
    }
    assert_int_equal(s->n, n);
    assert_int_equal(s->names, names);
    for (size_t i = 1; i < s->n; i++)
        assert_true(uuid_compare(&s->by_id[i - 1]->id, &s->by_id[i]->id) < 0);
    for (int i = 0; i < NAMES; i++) {
        AUTO(free) char *name = xasprintf("name%d", i);
        struct volume *v = volume_set_find_name(s, name);
        int holder = holder_of(r, i);
        assert_int_equal(v != NULL, holder >= 0);
        struct uuid id = nth_id(holder);
        assert_true(!v || uuid_equal(&v->id, &id));
    }
}

static void put_random(struct volume_set *s, struct reference *r, int i, uint32_t *seed, uint64_t revision)
{
    enum volume_state state = (enum volume_state)(next_random(seed) % VOLUME_STATE_COUNT);
    int name = (int)(next_random(seed) % (NAMES + 1));
    int holder = name == NO_NAME || state != VOLUME_LIVE ? -1 : holder_of(r, name);
    if (holder >= 0 && holder != i)
        return; // the caller's duty
    struct volume *v = volume_new();
    v->id = nth_id(i);
    v->name = name == NO_NAME ? NULL : xasprintf("name%d", name);
    v->state = state;
    v->revision = revision;
    volume_set_put(s, v);
    r->of[i].there = true;
    r->of[i].name = name;
    r->of[i].state = state;
    r->of[i].revision = revision;
}

static void set_agrees_with_a_simple_reference(void **state)
{
    (void)state;
    for (uint32_t run = 1; run <= 20; run++) {
        uint32_t seed = run * 2654435761u;
        struct volume_set s = { 0 };
        struct reference r = { 0 };
        for (uint64_t step = 1; step <= 600; step++) {
            int i = (int)(next_random(&seed) % IDS);
            if (next_random(&seed) % 3 == 0) {
                struct uuid id = nth_id(i);
                volume_set_remove(&s, &id);
                r.of[i].there = false;
            } else {
                put_random(&s, &r, i, &seed, step);
            }
            if (step % 20 == 0)
                compare(&s, &r);
        }
        volume_set_done(&s);
        assert_int_equal(s.n, 0);
    }
}

static void set_that_was_filled_is_like_any(void **state)
{
    (void)state;
    struct volume_set s = { 0 };
    struct reference r = { 0 };
    uint32_t seed = 3;
    volume_set_fill_begin(&s);
    for (int i = IDS - 1; i >= 0; i--)
        put_random(&s, &r, i, &seed, 1);
    volume_set_fill_end(&s);
    compare(&s, &r);
    for (int i = 0; i < IDS; i++)
        put_random(&s, &r, i, &seed, 2);
    compare(&s, &r);
    volume_set_done(&s);
    volume_set_fill_begin(&s);
    volume_set_fill_end(&s);
    compare(&s, &(struct reference){ 0 });
}

static void empty_set(void **state)
{
    (void)state;
    struct volume_set s = { 0 };
    struct uuid id = nth_id(1);
    assert_null(volume_set_find(&s, &id));
    assert_null(volume_set_find_name(&s, "a"));
    volume_set_remove(&s, &id);
    volume_set_done(&s);
}

static void id_set_agrees_with_a_simple_reference(void **state)
{
    (void)state;
    struct id_set s = { 0 };
    bool there[IDS] = { false };
    uint32_t seed = 7;
    for (int step = 0; step < 5000; step++) {
        int i = (int)(next_random(&seed) % IDS);
        struct uuid id = nth_id(i);
        bool adds = next_random(&seed) % 2;
        assert_int_equal(id_set_has(&s, &id), there[i]);
        assert_int_equal((adds ? id_set_add : id_set_remove)(&s, &id), adds != there[i]);
        there[i] = adds;
        size_t n = 0;
        for (int k = 0; k < IDS; k++)
            n += there[k];
        assert_int_equal(s.n, n);
        for (size_t k = 1; k < s.n; k++)
            assert_true(uuid_compare(&s.ids[k - 1], &s.ids[k]) < 0);
    }
    id_set_done(&s);
    assert_int_equal(s.n, 0);
    assert_null(s.ids);
}

// Each has its turn, even if the same one is added again after every step.
static void id_set_takes_in_turns(void **state)
{
    (void)state;
    struct id_set s = { 0 };
    struct uuid cursor = { { 0 } }, taken[IDS + 1];
    assert_false(id_set_take(&s, &cursor));
    for (int i = 0; i < IDS; i++) {
        struct uuid id = nth_id(i);
        id_set_add(&s, &id);
    }
    const struct uuid greedy = s.ids[IDS / 2];
    for (int i = 0; i <= IDS; i++) {
        assert_true(id_set_take(&s, &cursor));
        taken[i] = cursor;
        assert_false(id_set_has(&s, &cursor));
        id_set_add(&s, &greedy);
    }
    for (int i = 1; i < IDS; i++)
        assert_true(uuid_compare(&taken[i], &taken[i - 1]) < 0);
    assert_true(uuid_equal(&taken[IDS], &greedy));
    assert_false(id_set_take(&s, &cursor) && id_set_take(&s, &cursor));
    id_set_done(&s);
}

static void strings_are_written_as_json(void **state)
{
    static const char *const texts[] = { "", "plain", "\"", "\\\\", "a\"b\\c\n", "\x01\x1f\x7f", "\xc3\xa9\xf0\x9f\x98\x80" };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        AUTO(free) char *text = NULL;
        size_t n = 0;
        struct error e = ERROR_INIT;
        json_t *value = NULL;
        FILE *f = open_memstream(&text, &n);
        json_write_string(f, texts[i]);
        fclose(f);
        assert_int_equal(json_read(text, n, &value, &e), 0);
        assert_string_equal(json_string_value(value), texts[i]);
        json_decref(value);
    }
}

// Whatever bytes an error quotes, it arrives as an error.
static void errors_as_json(void **state)
{
    (void)state;
    struct error e = ERROR_INIT, back = ERROR_INIT;
    fail(&e, E_BUSY, "in use by \xff");
    json_t *message = json_pack("{s:o}", "error", json_from_error(&e));
    assert_int_equal(json_read_error(message, &back), -E_BUSY);
    assert_string_equal(back.msg, "in use by ?");
    json_decref(message);
    message = json_pack("{s:{}}", "error");
    assert_int_equal(json_read_error(message, &back), -E_IO);
    json_decref(message);
    message = json_object();
    assert_int_equal(json_read_error(message, &back), 0);
    json_decref(message);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_is_a_sorted_map),
        cmocka_unit_test(metadata_limits),
        cmocka_unit_test(metadata_rejects_what_is_not_text),
        cmocka_unit_test(names_follow_dockers_rule),
        cmocka_unit_test(size_limits),
        cmocka_unit_test(volume_has_one_json_form),
        cmocka_unit_test(accepted_epoch_is_kept),
        cmocka_unit_test(volume_without_a_name),
        cmocka_unit_test(every_state_survives), cmocka_unit_test(moves_survive),
        cmocka_unit_test(wrong_members_are_named),
        cmocka_unit_test(live_has_no_trash_dates),
        cmocka_unit_test(unknown_members_are_ignored_at_any_depth),
        cmocka_unit_test(hold_expires),
        cmocka_unit_test(set_agrees_with_a_simple_reference),
        cmocka_unit_test(set_that_was_filled_is_like_any),
        cmocka_unit_test(empty_set),
        cmocka_unit_test(id_set_agrees_with_a_simple_reference),
        cmocka_unit_test(id_set_takes_in_turns),
        cmocka_unit_test(strings_are_written_as_json),
        cmocka_unit_test(errors_as_json),
    };
    return RUN_TESTS(tests);
}
