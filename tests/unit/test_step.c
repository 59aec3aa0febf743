// What an agent does next: every small input is tried, and the answers are held against rules that are written down here anew.
#include "test.h"

#include "plan/step.h"

#include <stdio.h>

enum { EPOCH = 5, REVISION = 9, STEPS_MAX = 8 };
enum { NONE, SOME, WHOLE }; // of snapshots: none, some, the sealed one; of a copy: none, part, the final one

static const struct uuid self = { .b = { 1 } }, other = { .b = { 2 } };

// One input. `state` VOLUME_STATE_COUNT: control knows nothing of the volume. Roles are true for this node, false for the other one.
struct input {
    int state, stage, owner, target, source, epoch, revision, born, keep_mounted, force;
    int record, half_made, abandoned, mounted, mount_wanted, held, leaving, snapshots, copy, fetch_due;
};

struct world {
    struct volume want, record;
    struct volume_here here;
    bool known;
};

static const char *text_of(const struct input *in)
{
    static char text[400];
    snprintf(text, sizeof text,
             "state %d stage %s owner %d target %d source %d epoch %+d revision %+d born %d keep_mounted %d force %d; record %d half_made %d abandoned %d "
             "mounted %d mount_wanted %d held %d leaving %d snapshots %d copy %d fetch_due %d",
             in->state, move_stage_word((enum move_stage)in->stage), in->owner, in->target, in->source, in->epoch, in->revision, in->born,
             in->keep_mounted, in->force, in->record, in->half_made, in->abandoned, in->mounted, in->mount_wanted, in->held, in->leaving, in->snapshots,
             in->copy, in->fetch_due);
    return text;
}

#define CHECK(in, x)                                            \
    do {                                                        \
        if (!(x))                                               \
            fail_msg("not so: %s\n  for %s", #x, text_of(in)); \
    } while (0)

static void set_record(struct world *w, bool there)
{
    w->here.record = there ? &w->record : NULL;
}

static struct world *world_of(const struct input *in, struct world *w)
{
    *w = (struct world){ .known = in->state < VOLUME_STATE_COUNT };
    w->here = (struct volume_here){ .half_made = in->half_made, .abandoned = in->abandoned, .mounted = in->mounted,
                                    .mount_wanted = in->mount_wanted, .held = in->held, .leaving = in->leaving,
                                    .has_snapshots = in->snapshots != NONE, .sealed = in->snapshots == WHOLE,
                                    .has_copy = in->copy != NONE, .copy_final = in->copy == WHOLE, .fetch_due = in->fetch_due };
    w->want.state = (enum volume_state)in->state;
    w->want.owner = in->owner ? self : other;
    w->want.target = in->target ? self : other;
    w->want.epoch = (uint64_t)(EPOCH + in->epoch);
    w->want.revision = (uint64_t)(REVISION + in->revision);
    w->want.born = in->born;
    w->want.keep_mounted = in->keep_mounted;
    w->want.move.stage = (enum move_stage)in->stage;
    w->want.move.force = in->force;
    if (in->stage == MOVE_SETTLE || in->stage == MOVE_RELEASE)
        w->want.move.source = in->source ? self : other;
    w->record.owner = self;
    w->record.epoch = EPOCH;
    w->record.revision = REVISION;
    set_record(w, in->record);
    return w;
}

static enum step step_of(const struct world *w)
{
    return plan_step(w->known ? &w->want : NULL, &w->here, &self);
}

// What each step needs, whatever else is so.
static void check_rules(const struct input *in, const struct world *w, enum step step)
{
    const struct volume *want = &w->want, *record = w->here.record;
    CHECK(in, (unsigned)step < STEP_COUNT);
    if (!w->known) {
        CHECK(in, step == STEP_NONE); // nothing is done by inference
        return;
    }
    bool mine = uuid_equal(&want->owner, &self), live = want->state == VOLUME_LIVE;
    bool noted = record && record->epoch == want->epoch && record->revision == want->revision;
    bool comes = live && !mine && uuid_equal(&want->target, &self) && (want->move.stage == MOVE_WARM || want->move.stage == MOVE_SEAL);
    bool goes = live && mine && want->move.stage == MOVE_SEAL;
    bool to_go = want->state == VOLUME_PURGING || want->state == VOLUME_DELETED;
    bool stale = mine && record && record->epoch < want->epoch && want->born && !to_go; // not what this node was made owner of
    bool gone = !mine && want->move.stage == MOVE_RELEASE && uuid_equal(&want->move.source, &self);
    if (record && record->epoch > want->epoch)
        CHECK(in, step == STEP_NONE); // an order older than what was carried out
    if (stale)
        CHECK(in, step == STEP_MISSING); // neither used nor touched
    switch (step) {
    case STEP_MOUNT:
        CHECK(in, mine && live && noted && !goes && !w->here.mounted && !w->here.leaving && (w->here.mount_wanted || want->keep_mounted));
        break;
    case STEP_CREATE:
        CHECK(in, mine && live && !record && !want->born && !w->here.has_copy && !w->here.abandoned);
        break;
    case STEP_MISSING:
        CHECK(in, stale || (mine && !record && want->born && !w->here.copy_final));
        break;
    case STEP_DESTROY: // what was purged, what is elsewhere and safe there, what could not be made: nothing else ever takes data away
        CHECK(in, !w->here.mounted && ((mine && to_go && (record || w->here.half_made)) || (gone && record && record->epoch < want->epoch) ||
                                       (mine && live && !record && !want->born && w->here.half_made && w->here.abandoned)));
        break;
    case STEP_UPDATE:
        CHECK(in, mine && record && !noted);
        break;
    case STEP_UNMOUNT:
        CHECK(in, w->here.mounted && record);
        CHECK(in, !w->here.held || w->here.leaving);
        CHECK(in, !mine || !live || w->here.leaving || goes || !(w->here.mount_wanted || want->keep_mounted));
        CHECK(in, !mine || w->here.leaving || !w->here.mount_wanted); // never under a container that just starts
        break;
    case STEP_EVICT:
        CHECK(in, goes && noted && want->move.force && w->here.mounted && w->here.mount_wanted);
        break;
    case STEP_SEAL: // the last snapshot is taken when nobody can write any more, nor will
        CHECK(in, goes && noted && !w->here.mounted && !w->here.sealed);
        break;
    case STEP_UNSEAL:
        CHECK(in, mine && noted && w->here.has_snapshots && want->move.stage != MOVE_WARM && want->move.stage != MOVE_SEAL);
        break;
    case STEP_FETCH:
        CHECK(in, comes && !w->here.mounted);
        break;
    case STEP_PLACE:
        CHECK(in, mine && want->born && !record && w->here.copy_final && want->state <= VOLUME_TRASHED);
        break;
    case STEP_DISCARD:
        CHECK(in, w->here.has_copy && !comes && (record || !mine || !want->born || want->state > VOLUME_TRASHED));
        break;
    case STEP_NONE:
    case STEP_COUNT:
        break;
    }
}

static void apply(struct world *w, enum step step)
{
    struct volume_here *h = &w->here;
    switch (step) {
    case STEP_CREATE:
    case STEP_UPDATE:
    case STEP_PLACE:
        w->record = w->want;
        set_record(w, true);
        h->half_made = h->half_made && step == STEP_PLACE;
        h->has_copy = h->copy_final = h->has_copy && step == STEP_UPDATE;
        h->sealed = false; // a snapshot of an earlier order is not the last one
        break;
    case STEP_MOUNT:
    case STEP_UNMOUNT:
        h->mounted = step == STEP_MOUNT;
        break;
    case STEP_EVICT:
        h->mount_wanted = false;
        break;
    case STEP_SEAL:
        h->has_snapshots = h->sealed = true;
        break;
    case STEP_UNSEAL:
        h->has_snapshots = h->sealed = false;
        break;
    case STEP_FETCH:
        h->has_copy = true;
        h->copy_final = w->want.move.stage == MOVE_SEAL;
        h->fetch_due = false; // until its time comes again
        break;
    case STEP_DISCARD:
        h->has_copy = h->copy_final = false;
        break;
    case STEP_DESTROY:
        set_record(w, false);
        h->half_made = h->has_snapshots = h->sealed = false;
        break;
    case STEP_NONE:
    case STEP_MISSING:
    case STEP_COUNT:
        break;
    }
}

// What must be so when there is nothing left to do.
static void check_end(const struct input *in, const struct world *w, enum step last)
{
    const struct volume *want = &w->want, *record = w->here.record;
    const struct volume_here *h = &w->here;
    if (!w->known || (record && record->epoch > want->epoch))
        return;
    bool mine = uuid_equal(&want->owner, &self), live = want->state == VOLUME_LIVE, seal = live && mine && want->move.stage == MOVE_SEAL && !h->leaving;
    bool mount = mine && live && !seal && want->move.stage != MOVE_SEAL && !h->leaving && (h->mount_wanted || want->keep_mounted);
    bool stays = in->mounted && !h->leaving && (h->held || (mine && h->mount_wanted)); // for its holder or its user, whatever else is wished
    if (mine && live)
        CHECK(in, last == STEP_MISSING  ? want->born && (!record || record->epoch < want->epoch)
                  : h->abandoned && !record ? !want->born && !h->half_made
                                            : record != NULL);
    if (record && last != STEP_MISSING)
        CHECK(in, h->mounted == (mount || stays));
    if (stays && !mount)
        return;
    bool to_go = want->state == VOLUME_PURGING || want->state == VOLUME_DELETED;
    if (record && mine && !to_go && last != STEP_MISSING)
        CHECK(in, record->epoch == want->epoch && record->revision == want->revision);
    if (seal && record && last != STEP_MISSING)
        CHECK(in, h->sealed);
    if (mine && to_go)
        CHECK(in, !record && !h->half_made);
    bool comes = live && !mine && uuid_equal(&want->target, &self) && (want->move.stage == MOVE_WARM || want->move.stage == MOVE_SEAL);
    if (comes && want->move.stage == MOVE_SEAL && in->fetch_due && !h->mounted)
        CHECK(in, h->copy_final);
    bool given = !mine && want->move.stage == MOVE_RELEASE && uuid_equal(&want->move.source, &self) && EPOCH < want->epoch;
    CHECK(in, !given || !record);
    if (in->record && !given && !(mine && to_go))
        CHECK(in, record != NULL); // nothing else ever takes data away
    if (in->copy == WHOLE && mine && live && want->born && !in->record)
        CHECK(in, record != NULL); // what was received becomes the volume
}

static void try(const struct input *in)
{
    struct world world, *w = world_of(in, &world);
    if (!in->record && in->mounted) { // cannot be: what is mounted has a record; only that it does no harm
        CHECK(in, step_of(w) != STEP_CREATE || !w->want.born);
        return;
    }
    for (int n = 0;; n++) {
        enum step step = step_of(w);
        check_rules(in, w, step);
        if (step == STEP_NONE || step == STEP_MISSING) {
            check_end(in, w, step);
            break;
        }
        CHECK(in, n < STEPS_MAX);
        apply(w, step);
    }
}

#define EACH(member, n) for (in.member = 0; in.member < (n); in.member++)

static void every_small_input(void **state)
{
    (void)state;
    struct input in;
    long count = 0;
    EACH(state, VOLUME_STATE_COUNT + 1)
    EACH(stage, MOVE_STAGE_COUNT)
    EACH(owner, 2)
    EACH(target, 2)
    EACH(source, in.stage < MOVE_SETTLE || in.owner ? 1 : 2)
    for (in.epoch = -1; in.epoch <= 1; in.epoch++)
        for (in.revision = -1; in.revision <= 1; in.revision++)
            for (int bits = 0; bits < 512; bits++)
                EACH(snapshots, 3)
                EACH(copy, 3)
                EACH(fetch_due, in.stage == MOVE_WARM || in.stage == MOVE_SEAL ? 2 : 1)
                EACH(force, in.stage == MOVE_SEAL ? 2 : 1) {
                    in.born = bits & 1;
                    in.keep_mounted = bits >> 1 & 1;
                    in.record = bits >> 2 & 1;
                    in.mounted = bits >> 3 & 1;
                    in.mount_wanted = bits >> 4 & 1;
                    in.leaving = bits >> 5 & 1;
                    in.held = bits >> 6 & 1;
                    in.half_made = bits >> 7 & 1;
                    in.abandoned = bits >> 8 & 1;
                    try(&in);
                    count++;
                }
    assert_true(count > 3000000);
}

// A change of the order in the middle is met as well: from every end, on to every other order.
static void every_change_of_order(void **state)
{
    (void)state;
    for (int bits = 0; bits < 4096; bits++) {
        struct input in = { .state = VOLUME_LIVE, .owner = 1, .target = 1, .record = 1, .born = 1, .mount_wanted = bits & 1, .keep_mounted = bits >> 1 & 1 };
        struct world world, *w = world_of(&in, &world);
        enum step step;
        while ((step = step_of(w)) != STEP_NONE)
            apply(w, step);
        in.mounted = w->here.mounted;
        w->want.state = (enum volume_state)(bits >> 2 & 3);
        w->want.owner = bits >> 4 & 1 ? self : other;
        w->want.epoch += (uint64_t)(bits >> 5 & 1);
        w->want.revision++;
        w->here.leaving = bits >> 6 & 1;
        w->here.mount_wanted = bits >> 7 & 1;
        w->want.move.stage = (enum move_stage)((bits >> 8 & 7) % MOVE_STAGE_COUNT);
        w->want.target = bits >> 11 & 1 ? self : other;
        if (w->want.move.stage >= MOVE_SETTLE)
            w->want.move.source = bits >> 4 & 1 ? other : self;
        for (int n = 0; (step = step_of(w)) != STEP_NONE; n++) {
            check_rules(&in, w, step);
            CHECK(&in, n < STEPS_MAX);
            if (step == STEP_MISSING)
                break;
            apply(w, step);
        }
        check_end(&in, w, step);
    }
}

// An owner with data of an older epoch serves it only if the order says that just these are meant.
static void older_data_is_accepted_by_order_alone(void **state)
{
    (void)state;
    for (uint64_t accepts = 0; accepts < EPOCH + 2; accepts++) {
        struct volume record = { .owner = self, .epoch = EPOCH - 1, .revision = 3, .born = true };
        struct volume want = { .owner = self, .target = self, .epoch = EPOCH, .accepts = accepts, .revision = 4, .born = true, .keep_mounted = true };
        struct volume_here here = { .record = &record };
        assert_int_equal(plan_step(&want, &here, &self), accepts == EPOCH - 1 ? STEP_UPDATE : STEP_MISSING);
    }
}

static void words(void **state)
{
    (void)state;
    assert_string_equal(step_word(STEP_MISSING), "missing");
    for (int s = 0; s < STEP_COUNT; s++)
        assert_true(step_word((enum step)s)[0]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_input),
        cmocka_unit_test(every_change_of_order),
        cmocka_unit_test(older_data_is_accepted_by_order_alone), cmocka_unit_test(words),
    };
    return RUN_TESTS(tests);
}
