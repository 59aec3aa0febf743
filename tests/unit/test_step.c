// What an agent does next: every small input is tried, and the answers are held against rules that are written down here anew.
#include "test.h"

#include "base/mem.h"
#include "plan/step.h"

#include <stdio.h>

enum { EPOCH = 5, REVISION = 9, STEPS_MAX = 5 };

static const struct uuid self = { .b = { 1 } }, other = { .b = { 2 } };

// One input. `want_state` VOLUME_STATE_COUNT: control knows nothing of the volume.
struct input {
    int want_state, owner, epoch, revision, born, keep_mounted;
    int record, half_made, mounted, mount_wanted, held, leaving;
};

struct world {
    struct volume *want, *record;
    struct volume_here here;
};

static const char *text_of(const struct input *in)
{
    static char text[300];
    snprintf(text, sizeof text,
             "want %d owner %s epoch %+d revision %+d born %d keep_mounted %d; record %d half_made %d mounted %d mount_wanted %d held %d leaving %d",
             in->want_state, in->owner ? "self" : "other", in->epoch, in->revision, in->born, in->keep_mounted, in->record, in->half_made, in->mounted,
             in->mount_wanted, in->held, in->leaving);
    return text;
}

#define CHECK(in, x)                                            \
    do {                                                        \
        if (!(x))                                               \
            fail_msg("not so: %s\n  for %s", #x, text_of(in)); \
    } while (0)

static struct world world_of(const struct input *in)
{
    struct world w = { .here = { .half_made = in->half_made, .mounted = in->mounted, .mount_wanted = in->mount_wanted, .held = in->held,
                                 .leaving = in->leaving } };
    if (in->want_state < VOLUME_STATE_COUNT) {
        w.want = volume_new();
        w.want->state = (enum volume_state)in->want_state;
        w.want->owner = in->owner ? self : other;
        w.want->epoch = (uint64_t)(EPOCH + in->epoch);
        w.want->revision = (uint64_t)(REVISION + in->revision);
        w.want->born = in->born;
        w.want->keep_mounted = in->keep_mounted;
    }
    if (in->record) {
        w.record = volume_new();
        w.record->owner = self;
        w.record->epoch = EPOCH;
        w.record->revision = REVISION;
    }
    w.here.record = w.record;
    return w;
}

static void world_done(struct world *w)
{
    volume_free(w->want);
    volume_free(w->record);
}

static void check_rules(const struct input *in, const struct world *w, enum step step)
{
    const struct volume *want = w->want, *record = w->record;
    CHECK(in, (unsigned)step < STEP_COUNT);
    if (!want) {
        CHECK(in, step == STEP_NONE); // nothing is done by inference
        return;
    }
    bool mine = uuid_equal(&want->owner, &self), live = want->state == VOLUME_LIVE;
    if (record && record->epoch > want->epoch)
        CHECK(in, step == STEP_NONE); // an order older than what was carried out
    if (step == STEP_MOUNT)
        CHECK(in, mine && live && record && record->epoch == want->epoch && record->revision == want->revision && !w->here.mounted &&
                      !w->here.leaving && (w->here.mount_wanted || want->keep_mounted));
    if (step == STEP_CREATE)
        CHECK(in, mine && live && !record && !want->born);
    if (step == STEP_MISSING)
        CHECK(in, mine && live && !record && want->born);
    if (step == STEP_DESTROY)
        CHECK(in, mine && want->state == VOLUME_PURGING && (record ? !w->here.mounted : w->here.half_made));
    if (step == STEP_UPDATE)
        CHECK(in, mine && record && (record->revision != want->revision || record->epoch != want->epoch));
    if (step == STEP_UNMOUNT) {
        CHECK(in, w->here.mounted && record);
        CHECK(in, !w->here.held || w->here.leaving);
        CHECK(in, !mine || !live || w->here.leaving || !(w->here.mount_wanted || want->keep_mounted));
    }
}

static void apply(struct world *w, enum step step)
{
    switch (step) {
    case STEP_CREATE:
    case STEP_UPDATE:
        volume_free(w->record);
        w->record = volume_copy(w->want);
        w->here.half_made = false;
        break;
    case STEP_MOUNT:
    case STEP_UNMOUNT:
        w->here.mounted = step == STEP_MOUNT;
        break;
    case STEP_DESTROY:
        volume_free(w->record);
        w->record = NULL;
        w->here.half_made = false;
        break;
    case STEP_NONE:
    case STEP_MISSING:
    case STEP_COUNT:
        break;
    }
    w->here.record = w->record;
}

// What must be so when there is nothing left to do.
static void check_end(const struct input *in, const struct world *w, enum step last)
{
    const struct volume *want = w->want, *record = w->record;
    if (!want || (record && record->epoch > want->epoch))
        return;
    bool mine = uuid_equal(&want->owner, &self), live = want->state == VOLUME_LIVE;
    bool mount = mine && live && !w->here.leaving && (w->here.mount_wanted || want->keep_mounted);
    if (mine && live)
        CHECK(in, last == STEP_MISSING ? !record && want->born : record != NULL);
    bool stays = in->mounted && w->here.held && !w->here.leaving; // for the holder, whatever else is wished
    if (record)
        CHECK(in, w->here.mounted == (mount || stays));
    if (stays && !mount)
        return;
    if (record && mine)
        CHECK(in, record->epoch == want->epoch && record->revision == want->revision);
    if (mine && want->state == VOLUME_PURGING)
        CHECK(in, !record && !w->here.half_made);
    if (in->record && !(mine && want->state == VOLUME_PURGING))
        CHECK(in, record != NULL); // nothing else ever takes data away
}

static void try(const struct input *in)
{
    struct world w = world_of(in);
    if (!in->record && in->mounted) { // cannot be: what is mounted has a record; only that it does no harm
        check_rules(in, &w, plan_step(w.want, &w.here, &self));
        world_done(&w);
        return;
    }
    for (int n = 0;; n++) {
        enum step step = plan_step(w.want, &w.here, &self);
        CHECK(in, plan_step(w.want, &w.here, &self) == step);
        check_rules(in, &w, step);
        if (step == STEP_NONE || step == STEP_MISSING) {
            check_end(in, &w, step);
            break;
        }
        CHECK(in, n < STEPS_MAX);
        apply(&w, step);
    }
    world_done(&w);
}

static void every_small_input(void **state)
{
    (void)state;
    struct input in;
    long count = 0;
    for (in.want_state = 0; in.want_state <= VOLUME_STATE_COUNT; in.want_state++)
        for (in.owner = 0; in.owner < 2; in.owner++)
            for (in.epoch = -1; in.epoch <= 1; in.epoch++)
                for (in.revision = -1; in.revision <= 1; in.revision++)
                    for (int bits = 0; bits < 256; bits++) {
                        in.born = bits & 1;
                        in.keep_mounted = bits >> 1 & 1;
                        in.record = bits >> 2 & 1;
                        in.mounted = bits >> 3 & 1;
                        in.mount_wanted = bits >> 4 & 1;
                        in.leaving = bits >> 5 & 1;
                        in.held = bits >> 6 & 1;
                        in.half_made = bits >> 7 & 1;
                        try(&in);
                        count++;
                    }
    assert_int_equal(count, 5 * 2 * 3 * 3 * 256);
}

// A change of the order in the middle is met as well: from every end, on to every other order.
static void every_change_of_order(void **state)
{
    (void)state;
    for (int bits = 0; bits < 256; bits++) {
        struct input in = { .want_state = VOLUME_LIVE, .owner = 1, .record = 1, .born = 1, .mount_wanted = bits & 1, .keep_mounted = bits >> 1 & 1 };
        struct world w = world_of(&in);
        enum step step;
        while ((step = plan_step(w.want, &w.here, &self)) != STEP_NONE)
            apply(&w, step);
        w.want->state = (enum volume_state)(bits >> 2 & 3);
        w.want->owner = bits >> 4 & 1 ? self : other;
        w.want->epoch += (uint64_t)(bits >> 5 & 1);
        w.want->revision++;
        w.here.leaving = bits >> 6 & 1;
        w.here.mount_wanted = bits >> 7 & 1;
        for (int n = 0; (step = plan_step(w.want, &w.here, &self)) != STEP_NONE; n++) {
            check_rules(&in, &w, step);
            CHECK(&in, n < STEPS_MAX);
            apply(&w, step);
        }
        check_end(&in, &w, step);
        world_done(&w);
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
        cmocka_unit_test(words),
    };
    return RUN_TESTS(tests);
}
