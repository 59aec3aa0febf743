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

enum step plan_step(const struct volume *want, const struct volume_here *here, const struct uuid *self)
{
    if (!want)
        return STEP_NONE;
    bool owner = uuid_equal(&want->owner, self);
    bool live = owner && want->state == VOLUME_LIVE;
    bool mount = live && !here->leaving && (want->keep_mounted || here->mount_wanted);
    if (!here->record) {
        if (!live)
            return owner && here->half_made && want->state == VOLUME_PURGING ? STEP_DESTROY : STEP_NONE;
        return want->born ? STEP_MISSING : STEP_CREATE;
    }
    if (here->record->epoch > want->epoch)
        return STEP_NONE; // an order older than what this node has already carried out
    if (here->mounted && !mount)
        return here->held && !here->leaving ? STEP_NONE : STEP_UNMOUNT;
    if (owner && want->state == VOLUME_PURGING)
        return STEP_DESTROY;
    if (owner && (here->record->epoch != want->epoch || here->record->revision != want->revision))
        return STEP_UPDATE; // before a mount: the record must bear the order's epoch
    if (mount && !here->mounted)
        return STEP_MOUNT;
    return STEP_NONE;
}
