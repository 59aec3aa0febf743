// Remove, and release for another node: both let go of a volume that nothing uses. Then control has the word.
#include "agent/operation.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"

#define PROMISE_MS 10000 // a volume that was released is kept free for another node's order

static void on_removed(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    struct agent_volume *v = operation_volume(o);
    (void)reply;
    FAILPOINT(AGENT_REMOVE_ANSWERED);
    o->asked = false;
    if (rc == -E_UNAVAILABLE)
        return; // asked again when control is back
    if (rc == 0 && v && o->begun) {
        refs_done(&v->refs);
        refs_save(v);
    }
    operation_finish(o, rc, e);
}

// References forbid the Remove: the answer names a container, if there is one.
struct naming {
    struct agent *agent;
    const struct operation *operation;
};

static void on_user_named(void *arg, const char *user)
{
    struct naming *n = arg;
    struct operation *o = operation_still_there(n->agent, n->operation); // it may have been late
    free(n);
    if (o)
        operation_fail(o, E_BUSY, "volume %.200s is in use by %s", o->name, user);
}

static void name_user(struct operation *o)
{
    struct naming *n = xcalloc(1, sizeof *n);
    *n = (struct naming){ o->agent, o };
    usage_name_user(o->agent, &o->volume, on_user_named, n);
}

static void ask_to_remove(struct operation *o)
{
    o->asked = true;
    link_request(o->agent, json_pack("{s:s, s:s, s:s, s:b}", "type", "request", "op", "remove", "id", UUID_TEXT(&o->volume), "unused", (int)o->begun),
                 on_removed, o);
}

void operation_remove_turn(struct operation *o)
{
    struct agent *a = o->agent;
    if (!a->synced || o->asked)
        return;
    struct agent_volume *v = operation_find(o);
    if (!v) {
        operation_look_up(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &v->id);
    if (want && !uuid_equal(&want->owner, &a->config.node)) {
        ask_to_remove(o); // which puts it to its owner
        return;
    }
    if (!o->begun) {
        if (v->removing)
            return; // another one is at it
        if (v->held) {
            operation_fail(o, E_BUSY, "volume %.255s is held on this node: release that hold (a lease of API v1) first", o->name);
            return;
        }
        if (refs_forbid_remove(&v->refs, o->engine, engine_is_dead)) {
            o->asked = true;
            name_user(o);
            return;
        }
        o->begun = v->removing = true;
        v->checked = false;
        v->to_trash = o->kind == OP_REMOVE;
        o->attempts_before = v->attempts;
        v->retry_ms = 0;
        turn(v);
    }
    if (operation_has_failed(o, v) && v->step == STEP_NONE) {
        operation_finish_failed(o, v);
        return;
    }
    if (!v->checked || v->mounted || v->step != STEP_NONE)
        return;
    if (o->kind == OP_RELEASE) {
        operation_finish(o, 0, NULL);
        return;
    }
    FAILPOINT(AGENT_REMOVE_CHECKED);
    ask_to_remove(o);
    FAILPOINT(AGENT_REMOVE_ASKED);
}

void operation_end_claim(const struct operation *o, struct agent_volume *v, int rc)
{
    if ((o->kind != OP_REMOVE && o->kind != OP_RELEASE) || !o->begun)
        return;
    v->removing = v->checked = v->to_trash = false;
    if (o->kind == OP_RELEASE && rc == 0) {
        v->promised_ms = clock_boot_ms() + PROMISE_MS;
        turn_later(v, PROMISE_MS + 10); // if nobody comes for it, and it is to be mounted
    }
}

void agent_remove(struct agent *a, const char *name, struct engine caller, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_REMOVE, name, done, arg);
    o->engine = caller;
}

static void let_go(struct agent *a, enum operation_kind kind, const struct uuid *id, agent_done *done, void *arg)
{
    const struct volume *want = volume_set_find(&a->wants, id);
    struct operation *o = operation_new(a, kind, want && want->name ? want->name : UUID_TEXT(id), done, arg);
    o->volume = *id;
    o->engine = (struct engine){ -1, 0 }; // no engine: every live reference forbids it
}

void operation_remove(struct agent *a, const struct uuid *id, agent_done *done, void *arg)
{
    let_go(a, OP_REMOVE, id, done, arg);
}

void operation_release(struct agent *a, const struct uuid *id, agent_done *done, void *arg)
{
    let_go(a, OP_RELEASE, id, done, arg);
}
