// Engines' Mount and Unmount: a reference is counted once the volume is mounted here, and given back.
#include "agent/operation.h"

#include "base/clock.h"
#include "base/failpoint.h"

#include <string.h>

static void on_acquired(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    if (rc == -E_UNAVAILABLE && !o->agent->synced)
        o->begun = false; // control has gone: asked again when it is back
    else if (rc < 0)
        operation_finish(o, rc, e);
    else
        turn_soon(o->agent);
}

// It lives on another node: control has it moved here if nobody uses it there. Or it is sealed here, for a move: control has that called off if
// the node that it goes to is not there. One that has just moved settles first.
static void acquire(struct operation *o, const struct agent_volume *v, const struct volume *want)
{
    struct agent *a = o->agent;
    bool comes = move_is_open(want) && uuid_equal(&want->target, &a->config.node), settles = want->move.stage >= MOVE_SETTLE;
    if (comes && operation_has_failed(o, v) && v->step == STEP_NONE) {
        operation_finish_failed(o, v);
        return;
    }
    if ((comes || settles) && v->unavailable && a->synced) {
        operation_fail(o, E_UNAVAILABLE, "volume %.100s: %s", o->name, v->unavailable);
        return;
    }
    if (comes || settles || o->begun || !agent_is_synced(a))
        return;
    if (v->record && !uuid_equal(&want->owner, &a->config.node)) { // nothing can come here: its owner would be sealed in vain
        operation_fail(o, E_CONFLICT,
                       "volume %.100s: older data of it is in this node's pool, from before a node or control's store was lost: use it on another node",
                       o->name);
        return;
    }
    o->asked = o->begun = true;
    link_request(a, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "acquire", "id", UUID_TEXT(&want->id)), on_acquired, o);
}

void operation_mount_turn(struct operation *o)
{
    struct agent *a = o->agent;
    struct error e = ERROR_INIT;
    if (!a->open)
        return;
    struct agent_volume *v = operation_find(o);
    if (!v) {
        operation_look_up(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &o->volume);
    if (!want || want->state != VOLUME_LIVE) {
        operation_fail(o, E_NOT_FOUND, "volume %.255s was removed", o->name);
        return;
    }
    if (!uuid_equal(&want->owner, &a->config.node) || want->move.stage == MOVE_SEAL) {
        acquire(o, v, want);
        return;
    }
    if (v->removing || v->promised_ms > clock_boot_ms())
        return;
    // An engine would take the bare directory and let a container write into the host's own file system.
    if (v->mounted && v->step == STEP_NONE && a->backend->ops->has_lost_mount && a->backend->ops->has_lost_mount(a->backend, &v->id))
        v->unsure = true;
    if (v->mounted && !v->unsure && v->step == STEP_NONE) {
        int rc = refs_open(&v->refs, o->id, o->engine, clock_boot_ms(), &e);
        FAILPOINT(AGENT_REF_OPENED);
        if (rc == 0)
            refs_save(v);
        operation_finish(o, rc, &e);
        return;
    }
    turn(v);
    if (operation_has_failed(o, v) && (!v->mounted || v->unsure))
        operation_finish_failed(o, v);
}

bool operation_awaits_mount(const struct agent_volume *v)
{
    const struct operation *o;
    LIST_FOREACH (o, &v->agent->operations, all)
        if (o->kind == OP_MOUNT && uuid_equal(&o->volume, &v->id))
            return true;
    return false;
}

void agent_mount(struct agent *a, const char *name, const char *id, struct engine engine, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_MOUNT, name, done, arg);
    ASSERT(strlen(id) < sizeof o->id);
    memcpy(o->id, id, strlen(id) + 1);
    o->engine = engine;
    struct agent_volume *v = operation_find(o);
    if (v)
        turn_look(v); // a counter that a dead engine process left must not keep this one's company
}

void agent_settle(struct agent *a, const struct uuid *volume, const char *id, struct engine engine, bool taken)
{
    struct agent_volume *v = agent_volume(a, volume);
    if (!v)
        return;
    FAILPOINT(AGENT_MOUNT_SENT);
    refs_settle(&v->refs, id, engine, taken);
    refs_save(v);
    FAILPOINT(AGENT_MOUNT_SETTLED);
    engines_recheck_soon(a);
    turn(v);
}

// ---- unmount

struct named {
    const char *name;
    struct agent_volume *found;
};

static void match_used(struct agent_volume *v, void *arg)
{
    struct named *n = arg;
    if (v->refs.n && v->record && v->record->name && strcmp(v->record->name, n->name) == 0)
        n->found = v;
}

// The live volume of that name, or one that was removed or renamed under its user.
static struct agent_volume *used_by_name(const struct agent *a, const char *name)
{
    const struct volume *want = volume_set_find_name(&a->wants, name);
    struct named n = { name, want ? agent_volume(a, &want->id) : NULL };
    if (!want)
        agent_for_each(a, match_used, &n);
    return n.found;
}

void agent_unmount(struct agent *a, const char *name, const char *id, struct engine engine)
{
    struct agent_volume *v = used_by_name(a, name);
    if (!v || !refs_release(&v->refs, id, engine))
        return;
    FAILPOINT(AGENT_REF_RELEASED);
    refs_save(v);
    FAILPOINT(AGENT_UNMOUNT_SAVED);
    if (refs_total(&v->refs) == 0 && v->mounted)
        turn_linger(v);
    turn_look(v);
    turn(v);
}
