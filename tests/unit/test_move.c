// How control decides on moves: every stage with all that two nodes can say, held against rules that are written down here anew; every wish in every
// stage; the words of a snapshot.
#include "test.h"

#include "base/mem.h"
#include "plan/move.h"

#include <stdio.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static const struct uuid here = { .b = { 1 } }, there = { .b = { 2 } }, third = { .b = { 3 } };

enum { EPOCH = 5, REVISION = 9 };

// One of all volumes: state, stage, born, target the owner or not, kept mounted.
static const int shapes = VOLUME_STATE_COUNT * MOVE_STAGE_COUNT * 2 * 2 * 2;

static bool is_moved(const struct volume *v)
{
    return v->move.stage == MOVE_SETTLE || v->move.stage == MOVE_RELEASE;
}

static struct volume *shape(int n)
{
    struct volume *v = volume_new();
    v->id.b[0] = 77;
    v->state = (enum volume_state)(n % VOLUME_STATE_COUNT);
    v->move.stage = (enum move_stage)(n / VOLUME_STATE_COUNT % MOVE_STAGE_COUNT);
    n /= VOLUME_STATE_COUNT * MOVE_STAGE_COUNT;
    v->born = n & 1;
    v->owner = here;
    v->target = n >> 1 & 1 ? there : here;
    v->keep_mounted = n >> 2 & 1;
    v->move.source = is_moved(v) ? third : (struct uuid){ { 0 } };
    v->epoch = EPOCH;
    v->revision = REVISION;
    return v;
}

static const char *text_of(const struct volume *v)
{
    static char text[200];
    snprintf(text, sizeof text, "%s, %s, %sborn, target %s, keep_mounted %d", volume_state_word(v->state), move_stage_word(v->move.stage),
             v->born ? "" : "not ", uuid_equal(&v->target, &v->owner) ? "the owner" : "another", v->keep_mounted);
    return text;
}

#define CHECK(v, x)                                            \
    do {                                                       \
        if (!(x))                                              \
            fail_msg("not so: %s\n  for %s", #x, text_of(v)); \
    } while (0)

// Of any change: it can be written and read, is the next revision, and leaves alone what moves have no say in.
static void check_change(const struct volume *old, const struct volume *new)
{
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *back = NULL;
    AUTO(json_decref) json_t *object = volume_to_json(new);
    CHECK(old, volume_from_json(object, &back, &e) == 0);
    CHECK(old, new->revision == old->revision + 1);
    CHECK(old, new->epoch == old->epoch + !uuid_equal(&new->owner, &old->owner));
    CHECK(old, new->state == old->state && new->born == old->born && uuid_equal(&new->id, &old->id));
    CHECK(old, uuid_equal(&new->owner, &old->owner) || uuid_equal(&new->move.source, &old->owner)); // data always has somebody who keeps it
}

// ---- what comes next

// All that decides about the next stage. `number`: 1 the same at both ends. `digest`: 0 none, 1 the same
// at both ends, 2 another at the other node, 3 and 4 only at one of them.
struct input {
    int owner_known, owner_present, owner_epoch, owner_revision, owner_final, in_use, held;
    int other_known, other_present, other_revision, other_final, warm, number, digest;
};

static struct move_part owner_of(const struct input *in)
{
    struct move_part p = { .known = in->owner_known, .present = in->owner_present, .epoch = (uint64_t)(EPOCH + in->owner_epoch),
                           .revision = (uint64_t)(REVISION + in->owner_revision), .in_use = in->in_use, .held = in->held };
    p.snapshot = (struct move_snapshot){ .number = 3, .final = in->owner_final, .has_digest = in->digest != 0 && in->digest != 3, .digest = { 7, [31] = 8 } };
    return p;
}

static struct move_part other_of(const struct input *in)
{
    struct move_part p = { .known = in->other_known, .present = in->other_present, .warm = in->warm };
    p.revision = (uint64_t)(REVISION + in->other_revision);
    p.snapshot = (struct move_snapshot){ .number = in->number == 1 ? 3 : 4, .final = in->other_final, .digest = { 7, [31] = 8 } };
    p.snapshot.has_digest = in->digest != 0 && in->digest != 4;
    if (in->digest == 2)
        p.snapshot.digest[31] = 9;
    return p;
}

static bool is_final_at_both(const struct input *in)
{
    bool sealed = in->owner_known && in->owner_present && in->owner_epoch == 0 && in->owner_revision == 0 && in->owner_final;
    return sealed && in->other_known && in->other_revision == 0 && in->other_final && in->number == 1;
}

static enum move_stage stage_after(const struct volume *v, const struct input *in)
{
    bool durable = in->owner_known && in->owner_present && in->owner_epoch == 0, dropped = v->state == VOLUME_PURGING || v->state == VOLUME_DELETED;
    switch (v->move.stage) {
    case MOVE_NONE:
        return v->state == VOLUME_LIVE && v->born && !uuid_equal(&v->owner, &v->target) ? MOVE_WARM : MOVE_NONE;
    case MOVE_WARM:
        return in->owner_known && in->other_known && !in->held && in->warm ? MOVE_SEAL : MOVE_WARM;
    case MOVE_SEAL:
        return is_final_at_both(in) && in->digest == 1 ? MOVE_SETTLE : MOVE_SEAL;
    case MOVE_SETTLE:
        return dropped || durable ? MOVE_RELEASE : MOVE_SETTLE;
    case MOVE_RELEASE:
        return in->other_known && !in->other_present ? MOVE_NONE : MOVE_RELEASE;
    case MOVE_STAGE_COUNT:
        break;
    }
    return MOVE_STAGE_COUNT;
}

static void check_next(const struct volume *v, const struct input *in)
{
    AUTO(volume_free) struct volume *next = NULL;
    const struct move_part owner = owner_of(in), other = other_of(in);
    decide_move_next(v, &owner, &other, &next);
    enum move_stage expected = stage_after(v, in);
    bool anew = v->move.stage == MOVE_SEAL && is_final_at_both(in) && in->digest == 2; // the owner takes another snapshot
    CHECK(v, (next != NULL) == (anew || expected != v->move.stage));
    if (!next)
        return;
    CHECK(v, next->move.stage == expected);
    check_change(v, next);
    bool switched = v->move.stage == MOVE_SEAL && !anew;
    CHECK(v, uuid_equal(&next->owner, switched ? &v->target : &v->owner) && uuid_equal(&next->target, &v->target));
    if (switched)
        CHECK(v, uuid_equal(&next->move.source, &v->owner));
    if (expected == MOVE_NONE)
        CHECK(v, uuid_is_zero(&next->move.source));
    CHECK(v, next->keep_mounted == v->keep_mounted);
}

#define EACH(member, n) for (in.member = 0; in.member < (n); in.member++)

static void every_next_stage(void **state)
{
    (void)state;
    struct input in;
    long count = 0;
    for (int n = 0; n < shapes; n++) {
        AUTO(volume_free) struct volume *v = shape(n);
        if (move_is_open(v) && uuid_equal(&v->owner, &v->target))
            continue; // no such volume
        if (v->keep_mounted)
            continue; // no matter here
        for (in.owner_epoch = -1; in.owner_epoch <= 1; in.owner_epoch++)
            for (in.owner_revision = -1; in.owner_revision <= 1; in.owner_revision++)
                for (in.other_revision = -1; in.other_revision <= 1; in.other_revision++)
                    EACH(number, 2)
                    EACH(digest, 5)
                    for (int bits = 0; bits < 512; bits++, count++) {
                        in.owner_known = bits & 1;
                        in.owner_present = bits >> 1 & 1;
                        in.owner_final = bits >> 2 & 1;
                        in.in_use = bits >> 3 & 1;
                        in.held = bits >> 4 & 1;
                        in.other_known = bits >> 5 & 1;
                        in.other_present = bits >> 6 & 1;
                        in.other_final = bits >> 7 & 1;
                        in.warm = bits >> 8 & 1;
                        check_next(v, &in);
                    }
    }
    assert_true(count > 4000000);
}

// ---- wishes

static void check_wish(const struct volume *v, const struct move_wish *wish)
{
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *got = NULL;
    int rc = decide_move(v, wish, &got, &e);
    CHECK(v, rc == (v->state == VOLUME_LIVE ? 0 : -E_NOT_FOUND));
    if (rc < 0) {
        CHECK(v, !got);
        return;
    }
    bool stays = uuid_equal(&wish->target, &v->owner), same = uuid_equal(&wish->target, &v->target);
    bool nothing = same && (stays || (wish->force == v->move.force && wish->rate == v->move.rate)) && (v->keep_mounted || !wish->keep_mounted);
    CHECK(v, nothing == !got);
    if (!got)
        return;
    check_change(v, got);
    CHECK(v, uuid_equal(&got->owner, &v->owner)); // only a switch changes that: there may be data at the owner, also if control does not know it
    CHECK(v, uuid_equal(&got->target, &wish->target));
    CHECK(v, got->keep_mounted == (v->keep_mounted || wish->keep_mounted));
    if (!stays)
        CHECK(v, got->move.force == wish->force && got->move.rate == wish->rate);
    if (is_moved(v)) // the former owner still has data: the next move waits
        CHECK(v, got->move.stage == v->move.stage && uuid_equal(&got->move.source, &v->move.source));
    else if (stays)
        CHECK(v, got->move.stage == MOVE_NONE);
    else if (!v->born)
        CHECK(v, got->move.stage == v->move.stage && !(v->move.stage == MOVE_NONE && move_is_open(got)));
    else
        CHECK(v, got->move.stage == (same && move_is_open(v) ? v->move.stage : MOVE_WARM)); // a new target starts from the beginning
}

static void every_wish(void **state)
{
    (void)state;
    const struct uuid *const targets[] = { &here, &there, &third };
    for (int n = 0; n < shapes * 3 * 8; n++) {
        AUTO(volume_free) struct volume *v = shape(n % shapes);
        int bits = n / shapes;
        struct move_wish wish = { .target = *targets[bits % 3], .keep_mounted = bits / 3 & 1, .force = bits / 3 >> 1 & 1 };
        wish.rate = bits / 3 >> 2 & 1 ? 1000 : 0;
        check_wish(v, &wish);
    }
}

// A move that would begin is refused if it can't end, with the reason; all else goes on as it does without that knowledge.
static void check_refusal(const struct volume *v, const struct move_wish *wish, bool fits)
{
    struct error e = ERROR_INIT, ignored;
    struct move_wish plain = *wish;
    AUTO(volume_free) struct volume *got = NULL, *expected = NULL;
    plain.owner_lacks_data = false;
    plain.needs = 0;
    bool stays = uuid_equal(&wish->target, &v->owner), same = uuid_equal(&wish->target, &v->target);
    bool begins = v->state == VOLUME_LIVE && v->born && !stays && !same;
    int rc = decide_move(v, wish, &got, &e), rc_of_plain = decide_move(v, &plain, &expected, &ignored);
    if (begins && (wish->owner_lacks_data || !fits)) {
        CHECK(v, rc == (wish->owner_lacks_data ? -E_CORRUPT : -E_NO_SPACE) && !got);
        CHECK(v, strstr(e.msg, wish->owner_lacks_data ? "data is missing" : "does not fit on node"));
        return;
    }
    CHECK(v, rc == rc_of_plain && !got == !expected);
    CHECK(v, !got || (got->move.stage == expected->move.stage && uuid_equal(&got->target, &expected->target)));
}

static void moves_that_cannot_end_are_refused(void **state)
{
    (void)state;
    const uint64_t mib = 1ULL << 20;
    const struct uuid *const targets[] = { &here, &there, &third };
    static const struct {
        uint64_t size, free, needs;
        bool fits;
    } rooms[] = { { 0, 0, 900, true }, { 320, 90, 0, true }, { 320, 90, 80, true }, { 320, 90, 81, false }, { 320, 0, 1, false }, { 320, 0, 0, true } };
    for (int n = 0; n < shapes * 3 * 2; n++)
        for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
            AUTO(volume_free) struct volume *v = shape(n % shapes);
            const struct move_wish wish = { .target = *targets[n / shapes % 3], .rate = 7, .owner_lacks_data = n / shapes / 3, .needs = rooms[i].needs * mib,
                                            .room = { .size = rooms[i].size * mib, .free = rooms[i].free * mib } };
            check_refusal(v, &wish, rooms[i].fits);
        }
}

static void check_acquire(const struct volume *v, const struct uuid *node, bool target_is_there)
{
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *got = NULL;
    bool owned = uuid_equal(node, &v->owner), open = move_is_open(v), comes = open && uuid_equal(node, &v->target);
    bool has_it = owned && v->move.stage != MOVE_SEAL;
    bool is_busy = open ? target_is_there : v->move.stage != MOVE_NONE;
    int rc = decide_acquire(v, node, target_is_there, &got, &e);
    if (has_it || comes || is_busy || v->state != VOLUME_LIVE) {
        CHECK(v, rc == (has_it || comes ? 0 : is_busy ? -E_BUSY : -E_NOT_FOUND));
        CHECK(v, !got);
        return;
    }
    CHECK(v, rc == 0);
    if (!got) { // wished already, and to begin by itself
        CHECK(v, uuid_equal(node, &v->target));
        return;
    }
    check_change(v, got);
    CHECK(v, uuid_equal(&got->target, node) && uuid_equal(&got->owner, &v->owner));
    CHECK(v, got->move.stage == (!owned && (v->born || open) ? MOVE_SEAL : MOVE_NONE)); // nobody uses it there: no increments
}

static void every_acquire(void **state)
{
    (void)state;
    const struct uuid *const nodes[] = { &here, &there, &third };
    for (int n = 0; n < shapes * 3 * 2; n++) {
        AUTO(volume_free) struct volume *v = shape(n % shapes);
        check_acquire(v, nodes[n / shapes % 3], n / shapes / 3);
    }
}

static void called_off(void **state)
{
    (void)state;
    for (int n = 0; n < shapes; n++) {
        AUTO(volume_free) struct volume *v = shape(n), *was = volume_copy(v);
        decide_call_off(v);
        CHECK(was, uuid_equal(&v->target, &v->owner) && uuid_equal(&v->owner, &was->owner));
        CHECK(was, v->move.stage == (is_moved(was) ? was->move.stage : MOVE_NONE)); // what was switched is not taken back
        CHECK(was, uuid_equal(&v->move.source, &was->move.source));
    }
}

// ---- small things

static void warm_enough(void **state)
{
    (void)state;
    const uint64_t mib = 1ULL << 20;
    assert_true(move_is_warm(0, 0) && move_is_warm(64 * mib, 0) && move_is_warm(64 * mib, 1000 * mib));
    assert_false(move_is_warm(65 * mib, 0));         // the first one says nothing about the next
    assert_false(move_is_warm(650 * mib, 1000 * mib)); // it still shrinks
    assert_true(move_is_warm(710 * mib, 1000 * mib) && move_is_warm(2000 * mib, 1000 * mib));
}

// Numbers grow within an order and from order to order, also when the snapshots before are gone.
static void numbers_are_never_reused(void **state)
{
    (void)state;
    uint64_t last = 0;
    for (uint64_t revision = 1; revision < 50; revision++)
        for (int n = 0; n < 5; n++) {
            uint64_t newest = n == 0 && revision % 2 ? 0 : last, number = move_next_number(newest, revision);
            assert_true(number > last && number > newest);
            last = number;
        }
}

static void snapshots_are_written_and_read(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct move_snapshot back;
    for (int bits = 0; bits < 4; bits++) {
        struct move_snapshot s = { .number = 1ULL << 40, .final = bits & 1, .has_digest = bits >> 1 };
        for (size_t n = 0; n < MOVE_DIGEST_SIZE && s.has_digest; n++)
            s.digest[n] = (uint8_t)(n * 37);
        AUTO(json_decref) json_t *object = move_snapshot_to_json(&s);
        assert_int_equal(move_snapshot_from_json(object, &back, &e), 0);
        assert_true(move_snapshot_equal(&s, &back));
        back.number++;
        assert_false(move_snapshot_equal(&s, &back));
        back = s;
        back.final = !s.final;
        assert_false(move_snapshot_equal(&s, &back));
        back = s;
        back.digest[31] ^= 1;
        assert_int_equal(move_snapshot_equal(&s, &back), !s.has_digest);
    }
    assert_int_equal(move_snapshot_from_json(NULL, &back, &e), 0);
    assert_int_equal(back.number, 0);
}

static void damaged_snapshots_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}", "{\"number\":0}", "{\"number\":-1}", "{\"number\":\"1\"}", "{\"number\":1,\"digest\":\"\"}", "{\"number\":1,\"digest\":5}",
        "{\"number\":1,\"digest\":\"zz00000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"number\":1,\"digest\":\"AA00000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"number\":1,\"digest\":\"000000000000000000000000000000000000000000000000000000000000000000\"}",
    };
    for (size_t n = 0; n < ARRAY_SIZE(texts); n++) {
        struct error e = ERROR_INIT;
        struct move_snapshot s = { .number = 5 };
        AUTO(json_decref) json_t *object = json_loads(texts[n], 0, NULL);
        assert_non_null(object);
        assert_int_equal(move_snapshot_from_json(object, &s, &e), -E_INVALID);
        assert_int_equal(s.number, 0);
        assert_true(e.msg[0]);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_next_stage),
        cmocka_unit_test(every_wish),
        cmocka_unit_test(moves_that_cannot_end_are_refused),
        cmocka_unit_test(every_acquire),
        cmocka_unit_test(called_off),
        cmocka_unit_test(warm_enough),
        cmocka_unit_test(numbers_are_never_reused),
        cmocka_unit_test(snapshots_are_written_and_read),
        cmocka_unit_test(damaged_snapshots_are_refused),
    };
    return RUN_TESTS(tests);
}
