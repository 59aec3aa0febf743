// A store that is rebuilt: every small set of inventories, every point of a move, and names.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "plan/recover.h"

#include <string.h>

enum { NODES = 3, KEEP_MS = 500, OLD = 5, NEW = 8 }; // revisions: of the oldest record, and above that of the newest
static const int64_t now_ms = 100000;
static const struct uuid a = { .b = { 0xa } }, b = { .b = { 0xb } }, c = { .b = { 0xc } }, id = { .b = { 1, 2, 3 } };

static struct volume *record(const struct uuid *volume, const struct uuid *owner, uint64_t epoch, const struct uuid *sealed_for)
{
    struct volume *v = volume_new();
    v->id = *volume;
    v->owner = v->target = *owner;
    v->epoch = epoch;
    v->revision = 4 + epoch;
    if (sealed_for) {
        v->move.stage = MOVE_SEAL;
        v->target = *sealed_for;
        v->revision++;
    }
    return v;
}

// Plans, and lets go of all but the outcomes.
static size_t plan(const struct volume_set *known, struct recover_find *finds, size_t n, const struct uuid *heard, size_t heard_n, bool force,
                   struct recover_outcome *ret)
{
    struct recover_input in = { .known = known, .n = n, .finds = finds, .heard_n = heard_n, .heard = heard, .force = force, .now_ms = now_ms,
                                .keep_ms = KEEP_MS };
    return recover_plan(&in, ret);
}

static void done(struct volume_set *known, struct recover_find *finds, size_t n, struct recover_outcome *outcomes, size_t count)
{
    for (size_t i = 0; i < n; i++)
        volume_free(finds[i].record);
    for (size_t i = 0; i < count; i++)
        volume_free(outcomes[i].volume);
    volume_set_done(known);
}

// ---- all small inventories of one volume

enum { NOTHING, COPY, NEW_COPY, PLACING, RECORDS, KINDS = 2 * 2 * 4, SHAPES = RECORDS + 3 * KINDS };

// Of the volume at `node`: nothing, a copy, or a record of epoch 1 or 2, its owner this node or another, sealed for nobody, a, b or c; mounted, or in use.
static bool shape(int n, const struct uuid *node, struct recover_find *ret)
{
    const struct uuid *const targets[] = { NULL, &a, &b, &c };
    *ret = (struct recover_find){ .id = id, .node = *node, .placing = n == PLACING };
    ret->mounted = n >= RECORDS + KINDS;
    ret->in_use = n >= RECORDS + 2 * KINDS;
    ret->copy.number = n == COPY ? move_next_number(0, OLD) : n == NEW_COPY ? move_next_number(0, NEW) : 0;
    if (n >= RECORDS)
        ret->record = record(&id, (n - RECORDS) / 2 % 2 ? &c : node, (uint64_t)((n - RECORDS) % 2 + 1), targets[(n - RECORDS) / 4 % 4]);
    return n != NOTHING;
}

static void check(const struct recover_find *finds, size_t n, uint64_t known_epoch, unsigned heard, bool force, const struct recover_outcome *o)
{
    uint64_t epoch = 0, revision = 0;
    bool is_placing = false;
    for (size_t i = 0; i < n; i++) {
        const struct volume *v = finds[i].record;
        epoch = v && v->epoch > epoch ? v->epoch : epoch;
        revision = v && v->revision > revision ? v->revision : revision;
        is_placing |= finds[i].placing;
    }
    assert_int_equal(o->verdict == RECOVER_KNOWN, known_epoch && known_epoch >= epoch);
    assert_int_equal(o->volume != NULL, o->verdict == RECOVER_TAKEN);
    if (o->verdict == RECOVER_KNOWN)
        return;
    assert_int_equal(o->verdict == RECOVER_BUSY, is_placing);
    assert_int_equal(o->verdict == RECOVER_COPY, !is_placing && !epoch);
    if (o->verdict != RECOVER_TAKEN)
        return;
    const struct recover_find *f = &finds[o->chosen];
    const struct volume *v = o->volume;
    assert_true(f->record && f->record->epoch == epoch);
    assert_true(uuid_equal(&v->owner, &f->node) && uuid_equal(&v->target, &f->node));
    assert_true(v->epoch >= epoch && v->epoch > known_epoch && v->revision > revision && v->born && v->move.stage == MOVE_NONE);
    bool is_sealed = f->record->move.stage == MOVE_SEAL && uuid_equal(&f->record->owner, &f->node);
    const struct uuid *target = &f->record->target;
    bool is_heard = (uuid_equal(target, &a) && (heard & 1)) || (uuid_equal(target, &b) && (heard & 2)) || (uuid_equal(target, &c) && (heard & 4));
    assert_true(!is_sealed || is_heard || force);
    assert_true(!is_sealed || v->epoch > epoch + 1); // above that of a switch that may have been
    assert_int_equal(v->accepts, is_sealed ? epoch : 0);
    for (size_t i = 0; i < n; i++) {
        assert_false(i != o->chosen && (finds[i].in_use || (finds[i].mounted && !force)));
        assert_true(force || finds[i].copy.number != move_next_number(0, NEW));
    }
    assert_true(force || !known_epoch || (heard & 4)); // c, which has it by control's word, may be writing it
}

static void all_inventories(void **state)
{
    (void)state;
    for (int n = 0; n < SHAPES * SHAPES * 3 * 2 * 2; n++) {
        struct recover_find finds[2];
        struct recover_outcome outcome[2] = { { .n = 0 } };
        struct uuid heard[NODES] = { a, b, c };
        struct volume_set known = { 0 };
        size_t count = 0;
        uint64_t known_epoch = (uint64_t)(n / SHAPES / SHAPES % 3);
        bool force = n / SHAPES / SHAPES / 3 % 2, is_third_heard = n / SHAPES / SHAPES / 6;
        count += shape(n % SHAPES, &b, &finds[count]); // unsorted
        count += shape(n / SHAPES % SHAPES, &a, &finds[count]);
        if (known_epoch)
            volume_set_put(&known, record(&id, &c, known_epoch, NULL));
        size_t got = plan(&known, finds, count, heard, is_third_heard ? 3 : 2, force, outcome);
        assert_int_equal(got, count > 0);
        if (got) {
            assert_int_equal(outcome[0].n, count);
            check(finds, count, known_epoch, is_third_heard ? 7 : 3, force, &outcome[0]);
        }
        done(&known, finds, count, outcome, got);
    }
}

// ---- every point of a move from a to b: nobody ever gets what is older than what another node has

static void all_points_of_a_move(void **state)
{
    enum { WARM, SEALED, SWITCHED, PLACED, RELEASED, POINTS };
    (void)state;
    for (int point = 0; point < POINTS; point++)
        for (unsigned heard = 1; heard < 4; heard++) {
            struct recover_find finds[2];
            struct recover_outcome outcome[2] = { { .n = 0 } };
            struct volume_set known = { 0 };
            struct uuid nodes[2];
            size_t n = 0, heard_n = 0;
            if (heard & 1)
                nodes[heard_n++] = a;
            if (heard & 2)
                nodes[heard_n++] = b;
            if ((heard & 1) && point < RELEASED)
                finds[n++] = (struct recover_find){ .id = id, .node = a, .record = record(&id, &a, 1, point == WARM ? NULL : &b) };
            if (heard & 2)
                finds[n++] = (struct recover_find){ .id = id, .node = b, .record = point >= PLACED ? record(&id, &b, 2, NULL) : NULL };
            size_t got = plan(&known, finds, n, nodes, heard_n, false, outcome);
            const struct uuid *latest = point >= PLACED ? &b : &a;
            bool is_latest_heard = heard & (point >= PLACED ? 2 : 1);
            if (outcome[0].volume)
                assert_true(uuid_equal(&outcome[0].volume->owner, latest));
            if (heard == 3 || (is_latest_heard && point != SEALED && point != SWITCHED))
                assert_int_equal(outcome[0].verdict, RECOVER_TAKEN); // and with all of them there it is found
            done(&known, finds, n, outcome, got);
        }
}

// ---- names, and the trash

static struct recover_find named(uint8_t number, const char *name, int64_t created_ms)
{
    struct uuid volume = { .b = { number, 0xab } };
    struct recover_find f = { .id = volume, .node = a, .record = record(&volume, &a, 1, NULL) };
    f.record->name = xstrdup(name);
    f.record->created_ms = created_ms;
    return f;
}

static void the_newest_keeps_the_name(void **state)
{
    (void)state;
    char longest[NAME_BYTES_MAX + 1];
    struct volume_set known = { 0 };
    memset(longest, 'x', NAME_BYTES_MAX);
    longest[NAME_BYTES_MAX] = '\0';
    struct recover_find finds[] = { named(1, "db", 10), named(2, "db", 30), named(3, "db", 20),   named(4, "web", 50),
                                    named(5, longest, 1), named(6, longest, 2), named(7, "db-01ab0000", 5) };
    enum { N = ARRAY_SIZE(finds) };
    struct recover_outcome o[N];
    struct uuid other = { .b = { 99 } };
    struct volume *web = record(&other, &b, 1, NULL);
    web->name = xstrdup("web");
    volume_set_put(&known, web);
    assert_int_equal(plan(&known, finds, N, &a, 1, false, o), N);
    const char *const names[N] = { "db-01ab0000-0000-0000-0000-000000000000", "db", "db-03ab0000", "web-04ab0000", NULL, longest, "db-01ab0000" };
    struct volume_set all = { 0 };
    for (size_t i = 0; i < N; i++) {
        if (names[i])
            assert_string_equal(o[i].volume->name, names[i]);
        assert_int_equal(o[i].renamed, i == 0 || i == 2 || i == 3 || i == 4);
        assert_null(volume_set_find_name(&all, o[i].volume->name));
        volume_set_put(&all, volume_copy(o[i].volume));
    }
    assert_int_equal(strlen(o[4].volume->name), NAME_BYTES_MAX);
    assert_string_equal(o[4].volume->name + NAME_BYTES_MAX - 9, "-05ab0000");
    volume_set_done(&all);
    done(&known, finds, N, o, N);
}

static void what_was_in_the_trash_is_in_the_trash(void **state)
{
    (void)state;
    struct volume_set known = { 0 };
    struct recover_find finds[] = { named(1, "db", 10), named(2, "db", 5) };
    struct recover_outcome o[2];
    finds[0].record->state = VOLUME_TRASHED;
    finds[0].record->trashed_ms = 11;
    finds[0].record->purge_ms = 12; // long ago
    assert_int_equal(plan(&known, finds, 2, &a, 1, false, o), 2);
    assert_int_equal(o[0].volume->state, VOLUME_TRASHED);
    assert_true(o[0].volume->trashed_ms == 11 && o[0].volume->purge_ms == now_ms + KEEP_MS);
    assert_true(!o[0].renamed && !o[1].renamed);
    assert_string_equal(o[1].volume->name, "db");
    done(&known, finds, 2, o, 2);
}

// A disk that was copied: who could tell which of the two is right.
static void equal_claims(void **state)
{
    (void)state;
    struct volume_set known = { 0 };
    const struct uuid heard[] = { a, b };
    struct recover_find finds[] = { { .id = id, .node = a, .record = record(&id, &a, 2, NULL) }, { .id = id, .node = b, .record = record(&id, &b, 2, NULL) } };
    struct recover_outcome o[2];
    assert_int_equal(plan(&known, finds, 2, heard, 2, true, o), 1);
    assert_int_equal(o[0].verdict, RECOVER_TIED);
    assert_true(uuid_equal(&o[0].other, &b));
    done(&known, finds, 2, o, 1);
    assert_string_equal(recover_verdict_word(RECOVER_TIED), "tied");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_inventories),
        cmocka_unit_test(all_points_of_a_move),
        cmocka_unit_test(the_newest_keeps_the_name),
        cmocka_unit_test(what_was_in_the_trash_is_in_the_trash),
        cmocka_unit_test(equal_claims),
    };
    return RUN_TESTS(tests);
}
