#include "plan/step.h"

static const char *const words[STEP_COUNT] = {
#define X(step, word) [step] = word,
    STEP_TABLE(X)
#undef X
};

const char *step_word(enum step s)
{
    return words[s];
}

static bool is_target(const struct volume *want, const struct uuid *self)
{
    return want->state == VOLUME_LIVE && move_is_open(want) && uuid_equal(&want->target, self) && !uuid_equal(&want->owner, self);
}

// Also when control takes it for gone already: by a report from before it was made.
static bool is_to_go(const struct volume *want)
{
    return want->state == VOLUME_PURGING || want->state == VOLUME_DELETED;
}

static enum step plan_copy(const struct volume *want, const struct volume_here *here, const struct uuid *self)
{
    if (is_target(want, self))
        return here->fetch_due && !(want->move.stage == MOVE_SEAL && here->copy_final) ? STEP_FETCH : STEP_NONE;
    return here->has_copy ? STEP_DISCARD : STEP_NONE;
}

// There is no record of it here.
static enum step plan_absent(const struct volume *want, const struct volume_here *here, const struct uuid *self)
{
    bool live = want->state == VOLUME_LIVE, kept = live || want->state == VOLUME_TRASHED;
    if (!uuid_equal(&want->owner, self))
        return plan_copy(want, here, self);
    if (here->has_copy && kept && want->born)
        return here->copy_final ? STEP_PLACE : STEP_MISSING;
    if (here->has_copy)
        return STEP_DISCARD;
    if (!live)
        return here->half_made && is_to_go(want) ? STEP_DESTROY : STEP_NONE;
    if (want->born)
        return STEP_MISSING;
    if (here->abandoned)
        return here->half_made ? STEP_DESTROY : STEP_NONE;
    return STEP_CREATE;
}

// It has another owner, or had.
static enum step plan_foreign(const struct volume *want, const struct volume_here *here, const struct uuid *self)
{
    bool released = want->move.stage == MOVE_RELEASE && uuid_equal(&want->move.source, self) && here->record->epoch < want->epoch;
    if (here->mounted)
        return here->held && !here->leaving ? STEP_NONE : STEP_UNMOUNT;
    return released ? STEP_DESTROY : plan_copy(want, here, self);
}

// The owner gives it away. Written down first, so that also an agent that starts anew without control lets nobody mount it.
static enum step plan_sealing(const struct volume *want, const struct volume_here *here, bool is_noted)
{
    if (!is_noted)
        return STEP_UPDATE;
    if (here->mounted && here->mount_wanted && want->move.force)
        return STEP_EVICT;
    if (here->mounted)
        return here->mount_wanted || here->held ? STEP_NONE : STEP_UNMOUNT;
    return here->sealed ? STEP_NONE : STEP_SEAL;
}

enum step plan_step(const struct volume *want, const struct volume_here *here, const struct uuid *self)
{
    if (!want)
        return STEP_NONE;
    if (!here->record)
        return plan_absent(want, here, self);
    if (here->record->epoch > want->epoch)
        return STEP_NONE; // an order older than what this node has already carried out
    if (!uuid_equal(&want->owner, self))
        return plan_foreign(want, here, self);
    if (here->record->epoch < want->epoch && here->record->epoch != want->accepts && want->born && !is_to_go(want))
        return STEP_MISSING; // what is here is older than what this node was made owner of
    bool live = want->state == VOLUME_LIVE, is_noted = here->record->epoch == want->epoch && here->record->revision == want->revision;
    if (live && want->move.stage == MOVE_SEAL && !here->leaving)
        return plan_sealing(want, here, is_noted);
    bool mount = live && !here->leaving && (want->keep_mounted || here->mount_wanted);
    // Who was just told where it is mounted may not have it yet: without the mount its container would write into the bare directory.
    if (here->mounted && !mount)
        return (here->held || here->mount_wanted) && !here->leaving ? STEP_NONE : STEP_UNMOUNT;
    if (is_to_go(want))
        return STEP_DESTROY;
    if (!is_noted)
        return STEP_UPDATE; // before a mount: the record must bear the order's epoch
    if (mount && !here->mounted)
        return STEP_MOUNT;
    if (here->has_snapshots && !move_is_open(want))
        return STEP_UNSEAL;
    return here->has_copy ? STEP_DISCARD : STEP_NONE;
}
