// The creation of a volume that an engine asks for: control is asked to note it, and then its data has to come to be; what could not be made is
// taken back, here and at control.
#include "agent/operation.h"

#include "base/failpoint.h"
#include "base/mem.h"

#include <string.h>

static json_t *wish_to_json(const struct operation *o)
{
    const struct volume_options *p = &o->wish.options;
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:{s:I, s:I, s:I, s:b}}", "type", "request", "op", "create", "name", o->name, "size",
                     (json_int_t)o->wish.size, "metadata", metadata_to_json(&o->metadata), "options", "uid", (json_int_t)p->uid, "gid",
                     (json_int_t)p->gid, "mode", (json_int_t)p->mode, "nocow", (int)p->nocow);
}

static void on_created(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    FAILPOINT(AGENT_CREATE_ANSWERED);
    if (rc == -E_UNAVAILABLE)
        return; // control has gone: it is asked again when it is back, and makes one volume of a name, however often it is asked
    if (rc < 0)
        operation_finish(o, rc, e);
    else if (!volume_set_find_name(&o->agent->wants, o->name))
        operation_finish(o, 0, NULL); // another node's: control tells its owner alone, and would only say so again
    else
        turn_soon(o->agent);
}

struct namesake {
    const char *name;
    const struct agent_volume *found;
};

static void match_orphan(struct agent_volume *v, void *arg)
{
    struct namesake *n = arg;
    const struct volume *r = v->record;
    if (r && !v->confirmed && r->state == VOLUME_LIVE && r->name && strcmp(r->name, n->name) == 0)
        n->found = v;
}

// An empty volume under the name of data that is here, and that control has lost, would look as if the data were gone.
static bool refuse_namesake(struct operation *o)
{
    struct namesake n = { o->name, NULL };
    if (o->agent->orphans)
        agent_for_each(o->agent, match_orphan, &n);
    if (!n.found)
        return false;
    operation_fail(o, E_CONFLICT, "this node's pool has a volume %.200s (%s) that control does not know: has its store been lost? `flocker control recover` "
                   "takes it in again",
                   o->name, UUID_TEXT(&n.found->id));
    return true;
}

// ---- what could not be made

// Whoever looks after the answer must not find what could not be made. What was made of it all the same goes first: an agent that starts anew,
// and without control, would let it be used, and control have it destroyed then.
static void abandon(struct agent_volume *v)
{
    v->abandoned = true;
    v->retry_ms = 0;
    turn(v);
}

struct discard {
    struct agent *agent;
    struct uuid id;
};

// An entry that stays is harmless: it is made when it can be, or removed by its user. If control has gone, its next orders will show.
static void on_discarded(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct discard *d = arg;
    struct agent_volume *v = agent_volume(d->agent, &d->id);
    (void)reply;
    (void)e;
    if (v && rc != -E_UNAVAILABLE) {
        v->discarding = false;
        turn(v);
    }
    turn_soon(d->agent);
    free(d);
}

void operation_discard(struct agent_volume *v)
{
    struct discard *d = xcalloc(1, sizeof *d);
    *d = (struct discard){ v->agent, v->id };
    v->abandoned = false;
    v->discarding = true;
    link_request(v->agent, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "discard", "id", UUID_TEXT(&v->id)), on_discarded, d);
}

// ---- the operation

void operation_create_turn(struct operation *o)
{
    struct agent *a = o->agent;
    if (!a->synced || o->asked)
        return;
    struct agent_volume *v = operation_find(o);
    if (!v) {
        if (refuse_namesake(o))
            return;
        o->asked = true;
        link_request(a, wish_to_json(o), on_created, o);
        FAILPOINT(AGENT_CREATE_ASKED);
        return;
    }
    if (o->failure.code) {
        if (!v->abandoned && !v->discarding)
            operation_finish_kept(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &o->volume);
    if (!want || want->state != VOLUME_LIVE) { // discarded, because another's attempt to make it failed
        o->volume = (struct uuid){ { 0 } };
        turn_soon(a);
        return;
    }
    if (v->record || !uuid_equal(&want->owner, &a->config.node)) {
        operation_finish(o, 0, NULL);
        return;
    }
    turn(v);
    if (!operation_has_failed(o, v))
        return;
    operation_keep_failure(o, v);
    if (v->step == STEP_NONE && v->error.code != E_CORRUPT)
        abandon(v);
    turn_soon(a);
}

void agent_create(struct agent *a, const struct volume_wish *wish, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_CREATE, wish->name, done, arg);
    o->wish = *wish;
    if (wish->metadata)
        metadata_copy(&o->metadata, wish->metadata);
}
