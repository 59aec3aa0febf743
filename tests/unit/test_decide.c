// What control decides: every function over every state of a volume, and what may change and what may not.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "plan/decide.h"
#include "plan/move.h"

#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static const struct uuid here = { .b = { 1 } }, there = { .b = { 2 } }, third = { .b = { 3 } };
static const int64_t now_ms = 1000000, keep_ms = 500;

enum { SHAPES = VOLUME_STATE_COUNT * 2 * 2 * 2 };

// One of all volumes that differ in what decisions look at: state, born, kept mounted, named.
static struct volume *shape(int n)
{
    struct volume *v = volume_new();
    v->id.b[0] = 77;
    v->state = (enum volume_state)(n % VOLUME_STATE_COUNT);
    v->born = n / VOLUME_STATE_COUNT & 1;
    v->keep_mounted = n / VOLUME_STATE_COUNT >> 1 & 1;
    v->name = n / VOLUME_STATE_COUNT >> 2 & 1 ? xstrdup("db") : NULL;
    v->owner = v->target = here;
    v->epoch = 3;
    v->revision = 8;
    v->created_ms = 5;
    if (v->state != VOLUME_LIVE) {
        v->trashed_ms = 10;
        v->purge_ms = 20;
    }
    return v;
}

static bool same_but_for(const struct volume *a, const struct volume *b, const char *const *members)
{
    AUTO(json_decref) json_t *x = volume_to_json(a), *y = volume_to_json(b);
    for (; *members; members++) {
        json_object_del(x, *members);
        json_object_del(y, *members);
    }
    return json_equal(x, y);
}
#define SAME_BUT_FOR(a, b, ...) same_but_for(a, b, (const char *const[]){ __VA_ARGS__, NULL })

// What holds for any change: it can be written and read again, it is unchanged with the same revision or has the next one, the epoch
// grows with the owner and never otherwise, what was born stays so.
static void check_change(const struct volume *old, const struct volume *new)
{
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *back = NULL;
    AUTO(json_decref) json_t *object = volume_to_json(new), *before = volume_to_json(old);
    assert_int_equal(volume_from_json(object, &back, &e), 0);
    assert_true(new->revision == old->revision || new->revision == old->revision + 1);
    if (new->revision == old->revision)
        json_object_set(before, "born", json_object_get(object, "born")); // the one thing that is no change for the owner to write
    assert_int_equal(new->revision == old->revision, json_equal(object, before));
    assert_true(!old->born || new->born);
    assert_int_equal(new->epoch, old->epoch + !uuid_equal(&new->owner, &old->owner));
    assert_true(uuid_equal(&new->id, &old->id));
    assert_int_equal(new->created_ms, old->created_ms);
}

static int create(const struct volume_set *all, const struct volume_wish *wish, struct volume **ret, const struct volume **existing, struct error *e)
{
    static const struct uuid fresh = { .b = { 9, [6] = 0x40, [8] = 0x80 } };
    *ret = NULL;
    *existing = NULL;
    return decide_create(all, wish, &fresh, now_ms, ret, existing, e);
}

static void created_as_wished(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct volume_set all = { 0 };
    struct metadata m = { 0 };
    const struct volume *existing;
    assert_int_equal(metadata_set(&m, "a", "b", &e), 0);
    for (int bits = 0; bits < 16; bits++) {
        const struct volume_wish wish = {
            .id = bits & 1 ? third : (struct uuid){ { 0 } },
            .name = bits & 2 ? "db" : NULL,
            .metadata = bits & 4 ? &m : NULL,
            .keep_mounted = bits & 8,
            .size = VOLUME_SIZE_MIN,
            .options = { 1, 2, 0700, true },
            .owner = there,
        };
        AUTO(volume_free) struct volume *v = NULL;
        assert_int_equal(create(&all, &wish, &v, &existing, &e), 0);
        assert_null(existing);
        assert_int_equal(uuid_equal(&v->id, &third), bits & 1);
        assert_int_equal(v->name != NULL, (bits & 2) != 0);
        assert_int_equal(v->metadata.n, (bits & 4) != 0);
        assert_int_equal(v->keep_mounted, (bits & 8) != 0);
        assert_true(uuid_equal(&v->owner, &there) && uuid_equal(&v->target, &there));
        assert_true(v->epoch == 1 && v->revision == 1 && v->state == VOLUME_LIVE && !v->born);
        assert_true(v->size == VOLUME_SIZE_MIN && v->options.uid == 1 && v->options.mode == 0700 && v->options.nocow);
        assert_true(v->created_ms == now_ms && v->trashed_ms == 0 && v->purge_ms == 0);
    }
    metadata_done(&m);
}

static void create_refuses(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    const struct volume *existing;
    struct volume *v;
    const struct volume_set full = { .n = VOLUMES_MAX };
    const struct volume_set none = { 0 };
    struct volume_wish wish = { .name = "db", .owner = here };
    assert_int_equal(create(&full, &wish, &v, &existing, &e), -E_TOO_LARGE);
    wish.name = "-";
    assert_int_equal(create(&none, &wish, &v, &existing, &e), -E_INVALID);
    wish.name = "db";
    wish.size = 1;
    assert_int_equal(create(&none, &wish, &v, &existing, &e), -E_INVALID);
    wish.size = 0;
    static const struct volume_options bad[] = { { .uid = UINT32_MAX }, { .gid = UINT32_MAX }, { .mode = 010000 } };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        wish.options = bad[i];
        assert_int_equal(create(&none, &wish, &v, &existing, &e), -E_INVALID); // volume_to_json could not write it
        assert_null(v);
    }
}

// A name is taken by a live volume only; an id by any that there ever was.
static void names_and_ids_are_taken(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int n = 0; n < SHAPES; n++) {
        struct volume_set all = { 0 };
        const struct volume *existing;
        struct volume *v = shape(n), *got;
        struct volume_wish wish = { .name = "db", .owner = here };
        volume_set_put(&all, v);
        bool taken = v->state == VOLUME_LIVE && v->name;
        assert_int_equal(create(&all, &wish, &got, &existing, &e), taken ? -E_CONFLICT : 0);
        assert_ptr_equal(existing, taken ? v : NULL);
        assert_true(!taken || strstr(e.msg, "db"));
        volume_free(got);
        wish.id = v->id;
        wish.name = "other";
        assert_int_equal(create(&all, &wish, &got, &existing, &e), -E_CONFLICT);
        assert_null(existing);
        assert_null(got);
        volume_set_done(&all);
    }
}

static void removed(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int n = 0; n < SHAPES; n++) {
        AUTO(volume_free) struct volume *v = shape(n), *got = NULL;
        int rc = decide_remove(v, now_ms, keep_ms, &got, &e);
        if (v->state == VOLUME_PURGING || v->state == VOLUME_DELETED) {
            assert_int_equal(rc, -E_NOT_FOUND);
            assert_null(got);
            continue;
        }
        assert_int_equal(rc, 0);
        check_change(v, got);
        assert_true(SAME_BUT_FOR(v, got, "state", "revision", "trashed_ms", "purge_ms"));
        assert_int_equal(got->revision, v->revision + (v->state == VOLUME_LIVE));
        assert_int_equal(got->state, VOLUME_TRASHED);
        if (v->state == VOLUME_LIVE)
            assert_true(got->trashed_ms == now_ms && got->purge_ms == now_ms + keep_ms);
    }
}

// Only what has no data, and is no user's loss.
static void discarded(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int n = 0; n < SHAPES; n++) {
        AUTO(volume_free) struct volume *v = shape(n), *got = NULL;
        int rc = decide_discard(v, now_ms, &got, &e);
        assert_int_equal(rc, v->born ? -E_CONFLICT : v->state == VOLUME_LIVE ? 0 : -E_NOT_FOUND);
        assert_int_equal(got != NULL, rc == 0);
        if (!got)
            continue;
        check_change(v, got);
        assert_true(SAME_BUT_FOR(v, got, "state", "revision", "trashed_ms", "purge_ms"));
        assert_int_equal(got->state, VOLUME_DELETED);
    }
}

static void restored(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    static const char *const new_names[] = { NULL, "fresh", "taken", "no/name" };
    for (int n = 0; n < SHAPES * (int)ARRAY_SIZE(new_names) * 2; n++) {
        const char *new_name = new_names[n / SHAPES % (int)ARRAY_SIZE(new_names)];
        struct volume_set all = { 0 };
        AUTO(volume_free) struct volume *v = shape(n % SHAPES), *got = NULL;
        struct volume *rival = shape(n / SHAPES / (int)ARRAY_SIZE(new_names) ? VOLUME_LIVE : VOLUME_TRASHED);
        rival->id = third;
        free(rival->name);
        rival->name = xstrdup(new_name ? "taken" : "db");
        volume_set_put(&all, rival);
        bool trashed = v->state == VOLUME_TRASHED, valid = !new_name || strcmp(new_name, "no/name") != 0;
        const char *name = new_name ? new_name : v->name;
        bool taken = rival->state == VOLUME_LIVE && name && strcmp(name, rival->name) == 0;
        int rc = decide_restore(&all, v, new_name, &got, &e);
        assert_int_equal(rc, !trashed ? -E_CONFLICT : !valid ? -E_INVALID : taken ? -E_CONFLICT : 0);
        assert_int_equal(got != NULL, rc == 0);
        if (got) {
            check_change(v, got);
            assert_true(SAME_BUT_FOR(v, got, "state", "revision", "trashed_ms", "purge_ms", "name"));
            assert_int_equal(got->state, VOLUME_LIVE);
            assert_int_equal(got->revision, v->revision + 1);
            assert_true(name ? strcmp(got->name, name) == 0 : got->name == NULL);
        }
        volume_set_done(&all);
    }
}

static void purged(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int n = 0; n < SHAPES; n++) {
        AUTO(volume_free) struct volume *v = shape(n), *got = NULL;
        int rc = decide_purge(v, &got, &e);
        assert_int_equal(rc, v->state == VOLUME_LIVE ? -E_CONFLICT : v->state == VOLUME_DELETED ? -E_NOT_FOUND : 0);
        assert_int_equal(got != NULL, rc == 0);
        if (!got)
            continue;
        check_change(v, got);
        assert_true(SAME_BUT_FOR(v, got, "state", "revision"));
        assert_int_equal(got->state, VOLUME_PURGING);
        assert_int_equal(got->revision, v->revision + (v->state == VOLUME_TRASHED));
    }
}

static void resized(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    static const uint64_t sizes[] = { 0, VOLUME_SIZE_MIN, VOLUME_SIZE_MIN + 1, 1 };
    for (int n = 0; n < SHAPES * (int)ARRAY_SIZE(sizes); n++) {
        uint64_t size = sizes[n / SHAPES];
        AUTO(volume_free) struct volume *v = shape(n % SHAPES), *got = NULL;
        int rc = decide_resize(v, size, &got, &e);
        assert_int_equal(rc, v->state != VOLUME_LIVE ? -E_NOT_FOUND : size == 0 || size == VOLUME_SIZE_MIN ? 0 : -E_INVALID);
        assert_int_equal(got != NULL, rc == 0);
        if (!got)
            continue;
        check_change(v, got);
        assert_true(SAME_BUT_FOR(v, got, "size", "revision"));
        assert_int_equal(got->size, size);
        assert_int_equal(got->revision, v->revision + (size != v->size));
    }
}

static void reports(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (int n = 0; n < SHAPES * 2 * 3; n++) {
        const struct uuid *reporter = n / SHAPES % 2 ? &there : &here;
        uint64_t epoch = (uint64_t)(2 + n / SHAPES / 2);
        AUTO(volume_free) struct volume *v = shape(n % SHAPES), *present = v, *destroyed = v;
        int rc = decide_present(v, reporter, epoch, &present, &e), rc2 = decide_destroyed(v, reporter, &destroyed, &e);
        assert_int_equal(rc, reporter == &there ? -E_CONFLICT : 0);
        assert_int_equal(rc2, rc);
        assert_int_equal(present != NULL, rc == 0 && epoch == v->epoch && !v->born);
        assert_int_equal(destroyed != NULL, rc == 0 && v->state == VOLUME_PURGING);
        if (present) {
            check_change(v, present);
            assert_true(SAME_BUT_FOR(v, present, "born") && present->born && present->revision == v->revision);
        }
        if (destroyed) {
            check_change(v, destroyed);
            assert_true(SAME_BUT_FOR(v, destroyed, "state", "revision"));
            assert_true(destroyed->state == VOLUME_DELETED && destroyed->revision == v->revision + 1);
        }
    }
}

static void holds(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    const struct hold mine = { .node = here }, theirs = { .node = there };
    bool renewal = true;
    assert_int_equal(decide_hold(NULL, &mine, &renewal, &e), 0);
    assert_false(renewal);
    assert_int_equal(decide_hold(&mine, &mine, &renewal, &e), 0);
    assert_true(renewal);
    assert_int_equal(decide_hold(&theirs, &mine, &renewal, &e), -E_CONFLICT);
}

// ---- a whole cluster over a long time: any wishes in any order

enum { IDS = 6, NAMES = 3, STEPS = 400 };

static uint32_t random_below(uint64_t *seed, uint32_t n)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*seed >> 33) % n;
}

static void check_set(const struct volume_set *all)
{
    size_t named = 0;
    for (size_t i = 0; i < all->n; i++) {
        const struct volume *v = all->by_id[i];
        assert_true(i == 0 || uuid_compare(&all->by_id[i - 1]->id, &v->id) < 0);
        named += v->name && v->state == VOLUME_LIVE;
        assert_true(v->state == VOLUME_LIVE || v->trashed_ms);
    }
    assert_int_equal(all->names, named);
    for (size_t i = 1; i < all->names; i++)
        assert_true(strcmp(all->by_name[i - 1]->name, all->by_name[i]->name) < 0);
}

static int decide_any(const struct volume_set *all, const struct volume *v, uint64_t *seed, struct volume **ret, struct error *e)
{
    static const char *const names[NAMES] = { "a", "b", "c" };
    const struct uuid *node = random_below(seed, 2) ? &here : &there;
    switch (random_below(seed, 7)) {
    case 0:
        return decide_remove(v, now_ms, keep_ms, ret, e);
    case 1:
        return decide_restore(all, v, random_below(seed, 2) ? names[random_below(seed, NAMES)] : NULL, ret, e);
    case 2:
        return decide_purge(v, ret, e);
    case 3:
        return decide_resize(v, VOLUME_SIZE_MIN * random_below(seed, 3), ret, e);
    case 4:
        return decide_move(v, &(struct move_wish){ .target = *node }, ret, e);
    case 5:
        return decide_present(v, node, v->epoch - random_below(seed, 2), ret, e);
    default:
        return decide_destroyed(v, node, ret, e);
    }
}

static void any_history(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    for (uint64_t run = 1; run <= 300; run++) {
        uint64_t seed = run;
        struct volume_set all = { 0 };
        for (int step = 0; step < STEPS; step++) {
            struct volume *got = NULL;
            const struct volume *existing = NULL;
            struct uuid id = { .b = { (uint8_t)(1 + random_below(&seed, IDS)) } };
            const struct volume *v = volume_set_find(&all, &id);
            const char name[] = { (char)('a' + (int)random_below(&seed, NAMES)), 0 };
            const struct volume_wish wish = { .id = id, .name = random_below(&seed, 4) ? name : NULL, .owner = here };
            int rc = v ? decide_any(&all, v, &seed, &got, &e) : decide_create(&all, &wish, &id, now_ms, &got, &existing, &e);
            assert_true(rc == 0 || !got);
            if (v && v->state == VOLUME_DELETED && got)
                assert_true(got->state == VOLUME_DELETED); // there is no way back
            if (v && got)
                check_change(v, got);
            if (got)
                volume_set_put(&all, got);
            check_set(&all);
        }
        volume_set_done(&all);
    }
}

// ---- a node that goes for good

// The copy that a target may have: none, a part, all by an order before, all by the present one, the same without a digest.
static struct move_part copy_of(const struct volume *v, int kind)
{
    const uint64_t number = move_next_number(0, v->revision - (kind == 2));
    struct move_part part = { .known = kind > 0, .snapshot = { .number = number, .final = kind > 1, .has_digest = kind < 4 } };
    return part;
}

// Every stage, state, node, copy: the node that goes owns nothing but entries, no move has a part with it, and what has data keeps it.
static void node_gone(void **state)
{
    (void)state;
    const struct uuid *const nodes[] = { &here, &there, &third };
    for (int n = 0; n < MOVE_STAGE_COUNT * VOLUME_STATE_COUNT * 3 * 5 * 2; n++) {
        const int copy = n / MOVE_STAGE_COUNT / VOLUME_STATE_COUNT / 3 % 5;
        const struct uuid *gone = nodes[n / MOVE_STAGE_COUNT / VOLUME_STATE_COUNT % 3];
        AUTO(volume_free) struct volume *v = shape(n / MOVE_STAGE_COUNT % VOLUME_STATE_COUNT), *got = NULL;
        v->born = true;
        v->move.stage = (enum move_stage)(n % MOVE_STAGE_COUNT);
        bool is_open = move_is_open(v), is_moved = v->move.stage == MOVE_SETTLE || v->move.stage == MOVE_RELEASE;
        if ((is_open && v->state != VOLUME_LIVE))
            continue;
        if (is_open || n / MOVE_STAGE_COUNT / VOLUME_STATE_COUNT / 15)
            v->target = there;
        if (is_moved)
            v->move.source = third;
        struct move_part part = copy_of(v, copy);
        decide_node_gone(v, gone, &part, &got);
        const struct volume *now = got ? got : v;
        if (got)
            check_change(v, got);
        if (!volume_concerns(v, gone)) {
            assert_null(got);
            continue;
        }
        assert_false(uuid_equal(&now->target, gone) && !uuid_equal(&now->owner, gone));
        assert_false(uuid_equal(&now->move.source, gone) || move_is_open(now) != (is_open && gone == &third));
        bool is_rescued = gone == &here && ((v->move.stage == MOVE_SEAL && copy == 3) || (v->move.stage == MOVE_SETTLE && v->state != VOLUME_PURGING));
        if (v->state == VOLUME_LIVE || v->state == VOLUME_TRASHED)
            assert_int_equal(!uuid_equal(&now->owner, &here), is_rescued);
        if (gone == &here && v->state == VOLUME_PURGING)
            assert_int_equal(now->state, VOLUME_DELETED);
        else
            assert_int_equal(now->state, v->state);
        bool is_back = is_rescued && v->move.stage == MOVE_SETTLE;
        assert_int_equal(now->accepts, is_back ? v->epoch - 1 : 0);
        if (gone == &here && v->move.stage == MOVE_RELEASE && now->state != VOLUME_DELETED)
            assert_true(now->move.stage == MOVE_SETTLE && uuid_equal(&now->move.source, &third)); // the last copy is not let go of
    }
}

// ---- the trash, and clocks that are wrong

#define HOUR INT64_C(3600000)

static int64_t purge_in(int64_t trashed_ms, struct reckoning r)
{
    AUTO(volume_free) struct volume *v = shape(VOLUME_TRASHED);
    v->trashed_ms = trashed_ms;
    v->purge_ms = trashed_ms + r.keep_ms;
    return decide_purge_in_ms(v, &r);
}

static void purge_is_due(void **state)
{
    (void)state;
    const int64_t now = 1000 * 24 * HOUR, day = 24 * HOUR;
    assert_int_equal(purge_in(now - 5 * HOUR, (struct reckoning){ now, 100 * HOUR, false, day }), 19 * HOUR);
    assert_true(purge_in(now - day, (struct reckoning){ now, HOUR, false, day }) <= 0);
    // A start: what has been due for long waits until the clock has had time to be put right; never longer than it is kept anyway.
    assert_int_equal(purge_in(now - 9 * day, (struct reckoning){ now, HOUR / 4, false, day }), HOUR * 3 / 4);
    assert_int_equal(purge_in(now - day, (struct reckoning){ now, 1000, false, 3000 }), 2000);
    // Set forward, or back by a little: by the new reckoning all of its time is still to come.
    assert_int_equal(purge_in(now - 9 * day, (struct reckoning){ now, 5 * HOUR, true, day }), 19 * HOUR);
    assert_int_equal(purge_in(now - HOUR, (struct reckoning){ now, 5 * HOUR, true, day }), 23 * HOUR);
    // From the future: after as much time as it is kept. Not if its time is ahead by what clocks are slewed.
    assert_int_equal(purge_in(now + 900 * day, (struct reckoning){ now, HOUR, true, day }), 23 * HOUR);
    assert_int_equal(purge_in(now + 900 * day, (struct reckoning){ now, HOUR, false, day }), 23 * HOUR);
    assert_true(purge_in(now + 900 * day, (struct reckoning){ now, day, false, day }) <= 0);
    assert_int_equal(purge_in(now + CLOCK_SLACK_MS, (struct reckoning){ now, 90 * day, false, day }), day + CLOCK_SLACK_MS);
}

// Whatever is done to the wall clock while control runs: what is put into the trash stays there for the promised time, and is due when the
// clock has been left alone for twice that time.
static void no_clock_shortens_the_trash(void **state)
{
    (void)state;
    const int64_t steps[] = { -700 * 24 * HOUR, -HOUR, -CLOCK_SLACK_MS - 1, 0, CLOCK_SLACK_MS + 1, 25 * HOUR, 9000 * 24 * HOUR }, keep = 24 * HOUR;
    for (int n = 0; n < 7 * 7 * 23; n++) {
        int64_t wall = 20000 * 24 * HOUR, boot = 40 * HOUR, steady_from = 0;
        const int64_t trashed_wall = wall, trashed = boot, set_at[] = { boot + 1 + n / 49 * HOUR, boot + 3 * HOUR + n / 49 * HOUR };
        bool was_set = false;
        int64_t left = 0;
        for (size_t i = 0; i < 2; i++) {
            const int64_t step = steps[n / (i ? 7 : 1) % 7];
            left = purge_in(trashed_wall, (struct reckoning){ wall + set_at[i] - boot, set_at[i] - steady_from, was_set, keep });
            assert_true(left > 0 || set_at[i] - trashed >= keep);
            wall += set_at[i] - boot + step;
            boot = set_at[i];
            was_set |= step != 0;
            steady_from = step ? boot : steady_from;
        }
        left = purge_in(trashed_wall, (struct reckoning){ wall, boot - steady_from, was_set, keep });
        assert_true(boot + left - trashed >= keep);
        int64_t later = boot + 2 * keep + 3 * HOUR;
        left = purge_in(trashed_wall, (struct reckoning){ wall + later - boot, later - steady_from, was_set, keep });
        assert_true(left <= 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_as_wished), cmocka_unit_test(create_refuses), cmocka_unit_test(names_and_ids_are_taken),
        cmocka_unit_test(removed),           cmocka_unit_test(discarded),      cmocka_unit_test(restored),
        cmocka_unit_test(purged),            cmocka_unit_test(purge_is_due),   cmocka_unit_test(no_clock_shortens_the_trash),
        cmocka_unit_test(resized),           cmocka_unit_test(reports),        cmocka_unit_test(holds),
        cmocka_unit_test(any_history),       cmocka_unit_test(node_gone),
    };
    return RUN_TESTS(tests);
}
