// An agent: what agent.c, turn.c, moves.c, engines.c and link.c in src/agent do, without the system below.
#include "sim.h"

#include <string.h>

#define RETRY_MS_MIN 250
#define RETRY_MS_MAX 30000
#define LINGER_MS    250
#define RECHECK_MS   15000

struct agent_volume *volume_at(struct world *w, int i, int k)
{
    return &w->nodes[i].agent.volumes[k];
}

static const struct volume *wanted(const struct world *w, int i, int k)
{
    const struct uuid id = volume_id(k);
    return volume_set_find(&w->nodes[i].agent.wants, &id);
}

// ---- references

static const struct world *engines_of; // refs.h asks for engines without saying of what world

static bool engine_is_dead(struct engine engine)
{
    int i = engine.pid - 1000;
    return engine.start != engines_of->nodes[i].engine;
}

void refs_save(struct world *w, int i, int k)
{
    json_decref(w->nodes[i].refs[k]);
    w->nodes[i].refs[k] = refs_to_json(&volume_at(w, i, k)->refs);
}

static void doubt(struct refs *r, int64_t now_ms)
{
    for (size_t n = 0; n < r->n; n++) {
        struct ref *ref = &r->items[n];
        if (ref->count)
            ref->opened_ms = now_ms;
        ref->open += ref->count;
        ref->count = 0;
    }
}

static void refs_load(struct world *w, int i, int k)
{
    struct error e = ERROR_INIT;
    struct agent_volume *v = volume_at(w, i, k);
    if (!w->nodes[i].refs[k] || !v->is_known)
        return;
    int rc = refs_from_json(w->nodes[i].refs[k], &v->refs, &e);
    ASSERT(rc == 0);
    doubt(&v->refs, node_clock(w, i));
    refs_save(w, i, k);
}

static void on_looked(struct world *w, const struct event *ev)
{
    struct agent_volume *v = volume_at(w, ev->node, ev->k);
    if (w->nodes[ev->node].agent.life != ev->life)
        return;
    v->looking = false;
    engines_of = w;
    if (!ev->n && refs_reap(&v->refs, engine_is_dead, node_clock(w, ev->node)))
        refs_save(w, ev->node, ev->k);
    operations_turn(w, ev->node);
    turn(w, ev->node, ev->k);
}

void turn_look(struct world *w, int i, int k)
{
    struct agent_volume *v = volume_at(w, i, k);
    engines_of = w;
    if (v->looking || v->step != STEP_NONE || !w->nodes[i].agent.is_open || !refs_has_doubtful(&v->refs, engine_is_dead, node_clock(w, i)))
        return;
    v->looking = true;
    post(w, chance_delay(w), on_looked, i, k, w->nodes[i].agent.life, place_has_user(w, i, k));
}

static void on_recheck(struct world *w, const struct event *ev)
{
    if (w->nodes[ev->node].agent.life != ev->life)
        return;
    for (int k = 0; k < VOLUMES; k++)
        turn_look(w, ev->node, k);
    post(w, RECHECK_MS, on_recheck, ev->node, 0, ev->life, 0);
}

// ---- steps

bool has_mount_operation(const struct world *w, int i, int k)
{
    for (int n = 0; n < OPERATIONS; n++)
        if (w->nodes[i].agent.operations[n].kind == OP_MOUNT && w->nodes[i].agent.operations[n].k == k)
            return true;
    return false;
}

bool agent_uses(const struct world *w, int i, int k)
{
    return refs_total(&w->nodes[i].agent.volumes[k].refs) > 0 || has_mount_operation(w, i, k);
}

static void replace_record(struct agent_volume *v)
{
    volume_free(v->record);
    v->record = TAKE(v->order, NULL);
}

static void forget_copy(struct agent_volume *v)
{
    memset(&v->copy, 0, sizeof v->copy);
}

static void forget_snapshots(struct agent_volume *v)
{
    v->snapshot = (struct move_snapshot){ .number = 0 };
    v->snapshots_unsure = false;
    v->sealed_revision = 0;
}

static void apply(struct agent_volume *v, uint64_t number)
{
    switch (v->step) {
    case STEP_CREATE:
    case STEP_UPDATE:
        replace_record(v);
        v->half_made = false;
        break;
    case STEP_PLACE:
        replace_record(v);
        v->half_placed = false;
        forget_copy(v);
        break;
    case STEP_SEAL:
        v->snapshot = (struct move_snapshot){ .number = number, .final = true };
        v->sealed_revision = v->order->revision;
        break;
    case STEP_UNSEAL:
        forget_snapshots(v);
        break;
    case STEP_DISCARD:
        forget_copy(v);
        break;
    case STEP_MOUNT:
        v->mounted = true;
        v->unsure = false;
        break;
    case STEP_UNMOUNT:
        v->mounted = v->unsure = false;
        v->checked = v->removing;
        break;
    case STEP_DESTROY:
        volume_free(v->record);
        v->record = NULL;
        v->half_made = v->half_placed = false;
        forget_snapshots(v);
        break;
    case STEP_FETCH:
    case STEP_EVICT:
    case STEP_NONE:
    case STEP_MISSING:
    case STEP_COUNT:
        break;
    }
}

void turn_due(struct world *w, const struct event *ev)
{
    if (w->nodes[ev->node].agent.life == ev->life)
        turn(w, ev->node, ev->k);
}

static void turn_in(struct world *w, int i, int k, int64_t delay_ms)
{
    post(w, delay_ms + delay_ms / 90 + 1, turn_due, i, k, w->nodes[i].agent.life, 0); // not before the node's own clock says so
}

static void note_failure(struct world *w, int i, int k, enum errcode code)
{
    struct agent_volume *v = volume_at(w, i, k);
    unsigned doublings = v->failures < 8 ? v->failures : 8;
    int64_t delay_ms = (int64_t)RETRY_MS_MIN << doublings;
    if (delay_ms > RETRY_MS_MAX)
        delay_ms = RETRY_MS_MAX;
    v->error = code;
    v->failures++;
    v->snapshots_unsure |= v->step == STEP_SEAL && w->plant != PLANT_SILENT_SNAPSHOT;
    v->abandoned &= v->step != STEP_DESTROY;
    v->unsure |= v->step == STEP_MOUNT || (v->step == STEP_UNMOUNT && code != E_BUSY);
    v->retry_ms = node_clock(w, i) + delay_ms;
    turn_in(w, i, k, delay_ms);
}

void turn_end_step(struct world *w, int i, int k, int rc, uint64_t number)
{
    struct agent_volume *v = volume_at(w, i, k);
    v->attempts++;
    if (rc == 0) {
        apply(v, number);
        v->failures = 0;
        v->error = E_NONE;
    } else
        note_failure(w, i, k, (enum errcode)-rc);
    volume_free(v->order);
    v->order = NULL;
    v->step = STEP_NONE;
    turn_report(w, i, k);
    operations_turn(w, i);
    if (rc == 0)
        turn(w, i, k);
}

static void on_step_done(struct world *w, const struct event *ev)
{
    struct agent_volume *v = volume_at(w, ev->node, ev->k);
    if (w->nodes[ev->node].agent.life != ev->life)
        return;
    trace(w, "%c  %s of v%d: %s", NODE_LETTER(ev->node), step_word(v->step), ev->k, v->step_rc ? error_word((enum errcode)-v->step_rc) : "done");
    turn_end_step(w, ev->node, ev->k, v->step_rc, v->step_number);
}

static void act(struct world *w, int i, int k)
{
    struct agent_volume *v = volume_at(w, i, k);
    v->step_acted = true;
    v->step_rc = -E_IO;
    if (fault(w, w->profile.fail_step / 2) || (v->step == STEP_CREATE && fault(w, w->profile.fail_step * 5))) // the pool is full
        return;
    place_run(w, i, k, v->step, v->order, &v->step_number, &v->step_rc);
    if (v->step_rc == 0 && fault(w, w->profile.fail_step / 2))
        v->step_rc = -E_IO;
}

static void on_step_acts(struct world *w, const struct event *ev)
{
    if (w->nodes[ev->node].agent.life != ev->life)
        return;
    act(w, ev->node, ev->k);
    post(w, 1 + chance_below(w, 10), on_step_done, ev->node, ev->k, ev->life, 0);
}

static void start(struct world *w, int i, int k, const struct volume *want, enum step step)
{
    struct agent_volume *v = volume_at(w, i, k);
    v->step = step;
    v->order = volume_copy(want);
    v->half_made |= step == STEP_CREATE;
    v->half_placed |= step == STEP_PLACE;
    v->step_acted = false;
    if (step == STEP_DISCARD)
        v->copy.snapshot = (struct move_snapshot){ .number = 0 }; // nobody is to rely on it from now on
    if (step == STEP_FETCH)
        fetch_start(w, i, k);
    else
        post(w, chance_delay(w) + (w->profile.is_slow[step] ? chance_below(w, 15000) : 0), on_step_acts, i, k, w->nodes[i].agent.life, 0);
}

static bool wants_fetch(const struct world *w, int i, const struct agent_volume *v)
{
    return v->peer >= 0 && (v->peer_final || v->copy.due_ms <= node_clock(w, i));
}

// What the plants make of what the agent should see.
static enum step plan_planted(const struct world *w, const struct volume *want, struct volume_here *here, const struct uuid *self)
{
    struct volume order = want ? *want : (struct volume){ .state = VOLUME_LIVE };
    bool mine = want && uuid_equal(&want->owner, self);
    if (w->plant == PLANT_INFERENCE && !want && here->record && !here->mounted)
        return STEP_DESTROY;
    if (!want)
        return STEP_NONE;
    if (w->plant == PLANT_MOUNT_SEALED && order.move.stage == MOVE_SEAL && here->sealed && here->mount_wanted)
        order.move.stage = MOVE_WARM;
    if (w->plant == PLANT_SEAL_MOUNTED && mine && order.move.stage == MOVE_SEAL && here->mounted && !here->sealed)
        here->mounted = false;
    if (w->plant == PLANT_RELEASE_AT_SETTLE && order.move.stage == MOVE_SETTLE)
        order.move.stage = MOVE_RELEASE;
    if (w->plant == PLANT_TRASH_UNMOUNTS)
        here->mount_wanted &= order.state == VOLUME_LIVE;
    if (w->plant == PLANT_DELETED_STAYS && order.state == VOLUME_DELETED && here->record)
        return STEP_NONE;
    if (w->plant == PLANT_DISCARD_OWN && mine && here->has_copy && !here->record)
        return STEP_DISCARD;
    return plan_step(&order, here, self);
}

static bool has_final(const struct world *w, int i, const struct agent_volume *v, const struct volume *want)
{
    const struct move_snapshot *s = &v->copy.snapshot;
    if (want && uuid_equal(&want->owner, &w->nodes[i].id))
        return s->number != 0;
    return s->final && (w->plant == PLANT_STALE_FINAL || s->number >= v->peer_final);
}

// One in the trash is given time only for who was just given it.
static bool is_wanted_mounted(const struct world *w, int i, int k, const struct volume *want)
{
    engines_of = w;
    if (want && want->state != VOLUME_LIVE)
        return has_mount_operation(w, i, k) || refs_has_fresh(&w->nodes[i].agent.volumes[k].refs, engine_is_dead, node_clock(w, i));
    return agent_uses(w, i, k);
}

static enum step plan(struct world *w, int i, int k, const struct volume *want)
{
    const struct agent_volume *v = volume_at(w, i, k);
    bool is_promised = v->promised_ms > node_clock(w, i) && w->plant != PLANT_PROMISE_BROKEN;
    struct volume_here here = {
        .record = v->record,
        .half_made = v->half_made,
        .abandoned = v->abandoned,
        .mounted = v->mounted && !v->unsure,
        .mount_wanted = is_wanted_mounted(w, i, k, want),
        .held = v->held,
        .leaving = v->removing || is_promised,
        .has_snapshots = v->snapshot.number != 0 || v->snapshots_unsure,
        .sealed = want && v->sealed_revision == want->revision,
        .has_copy = v->copy.is_here,
        .copy_final = has_final(w, i, v, want),
        .fetch_due = wants_fetch(w, i, v),
    };
    const struct volume_here as_it_is = here;
    enum step step = plan_planted(w, want, &here, &w->nodes[i].id);
    if (!v->unsure || step == STEP_MOUNT)
        return step;
    here = as_it_is;
    here.mounted = true;
    return plan_planted(w, want, &here, &w->nodes[i].id);
}

static void stop_fetch(struct world *w, int i, int k, const struct volume *want)
{
    const struct agent_volume *v = volume_at(w, i, k);
    const struct uuid *self = &w->nodes[i].id;
    bool wished = want && want->state == VOLUME_LIVE && move_is_open(want) && uuid_equal(&want->target, self) && !uuid_equal(&want->owner, self) &&
                  want->epoch == v->order->epoch && uuid_equal(&want->owner, &v->order->owner);
    if (!wished && v->fetch)
        fetch_kill(w, v->fetch);
}

void turn(struct world *w, int i, int k)
{
    static const struct volume nothing = { .state = VOLUME_PURGING };
    struct agent *a = &w->nodes[i].agent;
    struct agent_volume *v = volume_at(w, i, k);
    const struct volume *want = wanted(w, i, k);
    if (v->step == STEP_FETCH)
        stop_fetch(w, i, k, want);
    if (want && !move_is_open(want))
        peers_stop(w, i, k);
    if (!a->is_open || v->step != STEP_NONE || v->looking || v->discarding)
        return;
    if (v->failures && v->retry_ms > node_clock(w, i))
        return;
    v->abandoned &= want && want->state == VOLUME_LIVE && !v->record;
    enum step step = plan(w, i, k, want);
    v->missing = step == STEP_MISSING;
    if (step == STEP_NONE && v->removing && !v->checked)
        step = STEP_UNMOUNT;
    if (step == STEP_UNMOUNT && v->linger_ms > node_clock(w, i) && !v->removing)
        step = STEP_NONE;
    if (want && want->state != VOLUME_LIVE && !v->mounted && v->refs.n) {
        refs_done(&v->refs);
        refs_save(w, i, k);
    }
    if (want && want->state != VOLUME_LIVE && v->mounted && v->refs.n && step == STEP_NONE)
        turn_in(w, i, k, REFS_MOMENT_MS); // nobody tells when the moment is over
    if (step == STEP_NONE && v->abandoned && a->is_synced) {
        operation_discard(w, i, k);
        return;
    }
    if (step == STEP_MISSING) {
        v->attempts += v->error != E_CORRUPT;
        v->error = E_CORRUPT;
    } else if (step != STEP_NONE) {
        start(w, i, k, want ? want : &nothing, step);
        return;
    } else if (v->failures) {
        v->failures = 0;
        v->error = E_NONE;
    }
    turn_report(w, i, k);
}

// ---- what control is told

// By which it keeps what it has received.
static uint64_t order_of_copy(const struct world *w, int i, int k)
{
    const struct volume *want = wanted(w, i, k);
    return w->nodes[i].agent.volumes[k].copy.is_here && want ? want->revision : 0;
}

static bool has_news(const struct world *w, int i, int k)
{
    const struct agent_volume *v = &w->nodes[i].agent.volumes[k];
    bool present = v->record != NULL;
    return !(v->reported.sent && v->reported.present == present && v->reported.mounted == v->mounted && v->reported.code == v->error &&
           v->reported.epoch == (present ? v->record->epoch : 0) && v->reported.revision == (present ? v->record->revision : 0) &&
           v->reported.missing == v->missing && v->reported.in_use == agent_uses(w, i, k) &&
           v->reported.warm == v->copy.warm && v->reported.has_copy == v->copy.is_here &&
           move_snapshot_equal(&v->reported.snapshot, &v->snapshot) && move_snapshot_equal(&v->reported.copy, &v->copy.snapshot) &&
           v->reported.order == order_of_copy(w, i, k) && v->reported.sealed_revision == v->sealed_revision &&
           (!v->error || v->reported.attempts == v->attempts));
}

void turn_report(struct world *w, int i, int k)
{
    const struct agent *a = &w->nodes[i].agent;
    if (a->connection && a->is_welcome && a->volumes[k].is_known && has_news(w, i, k))
        link_report(w, i, k);
}

struct message *turn_make_report(struct world *w, int i, int k)
{
    struct agent_volume *v = volume_at(w, i, k);
    struct move_snapshot taken = v->snapshot;
    v->reported.sent = true;
    v->reported.present = v->record != NULL;
    v->reported.mounted = v->mounted;
    v->reported.epoch = v->record ? v->record->epoch : 0;
    v->reported.revision = v->record ? v->record->revision : 0;
    v->reported.code = v->error;
    v->reported.attempts = v->attempts;
    v->reported.missing = v->missing;
    v->reported.in_use = agent_uses(w, i, k);
    v->reported.snapshot = v->snapshot;
    v->reported.sealed_revision = v->sealed_revision;
    v->reported.copy = v->copy.snapshot;
    v->reported.warm = v->copy.warm;
    v->reported.has_copy = v->copy.is_here;
    v->reported.order = order_of_copy(w, i, k);
    taken.final = v->sealed_revision && v->record && v->sealed_revision == v->record->revision;
    struct message *m = message_new(MSG_REPORT, k);
    m->present = v->reported.present;
    m->mounted = v->mounted;
    m->missing = v->missing;
    m->in_use = v->reported.in_use;
    m->epoch = v->reported.epoch;
    m->revision = v->reported.revision;
    m->snapshot = taken.number ? move_snapshot_to_json(&taken) : NULL;
    m->has_copy = v->copy.is_here;
    m->order = v->reported.order;
    m->warm = v->copy.warm;
    m->copy = v->copy.snapshot.number ? move_snapshot_to_json(&v->copy.snapshot) : NULL;
    return m;
}

// ---- the process

static void take_volume(struct world *w, int i, int k)
{
    struct agent *a = &w->nodes[i].agent;
    struct agent_volume *v = &a->volumes[k];
    const struct place *p = &w->nodes[i].places[k];
    v->is_known = true;
    v->record = volume_through_json(p->record);
    v->mounted = p->mounted;
    v->snapshot.number = place_newest(p);
    struct volume *want = volume_copy(p->record);
    want->born = true;
    const struct volume *same = want->name && want->state == VOLUME_LIVE ? volume_set_find_name(&a->wants, want->name) : NULL;
    if (same && same->created_ms >= want->created_ms) {
        volume_free(want);
        return;
    }
    if (same) {
        const struct uuid id = same->id;
        volume_set_remove(&a->wants, &id);
    }
    volume_set_put(&a->wants, want);
}

static void take_copy(struct agent_volume *v, const struct copy *c)
{
    struct move_snapshot s = { .number = c->number, .final = c->final, .has_digest = c->number != 0 };
    memcpy(s.digest, c->digest, sizeof s.digest);
    v->is_known = v->copy.is_here = true;
    v->copy.snapshot = snapshot_through_json(&s);
}

static void on_open(struct world *w, const struct event *ev)
{
    int i = ev->node;
    struct node *n = &w->nodes[i];
    if (n->agent.life != ev->life)
        return;
    for (int k = 0; k < VOLUMES; k++) {
        if (n->places[k].record)
            take_volume(w, i, k);
        if (n->places[k].copy.is_here)
            take_copy(&n->agent.volumes[k], &n->places[k].copy);
    }
    n->agent.is_open = true;
    for (int k = 0; k < VOLUMES; k++)
        refs_load(w, i, k);
    trace(w, "%c  agent: the pool is open", NODE_LETTER(i));
    link_connect(w, i);
    for (int k = 0; k < VOLUMES; k++)
        turn(w, i, k);
    operations_turn(w, i);
    post(w, 1000, on_recheck, i, 0, ev->life, 0);
}

void agent_start(struct world *w, int i)
{
    struct agent *a = &w->nodes[i].agent;
    if (a->is_up || !w->nodes[i].is_on)
        return;
    *a = (struct agent){ .is_up = true, .life = ++w->ids };
    for (int k = 0; k < VOLUMES; k++)
        a->volumes[k].peer = -1;
    post(w, 1 + chance_below(w, 200), on_open, i, 0, a->life, 0);
}

// The kernel kills its workers: what one was about to do is done, or is not.
void agent_crash(struct world *w, int i)
{
    struct agent *a = &w->nodes[i].agent;
    if (!a->is_up)
        return;
    for (int k = 0; k < VOLUMES; k++) {
        struct agent_volume *v = &a->volumes[k];
        if (v->step != STEP_NONE && v->step != STEP_FETCH && !v->step_acted && chance(w, 500))
            act(w, i, k);
        w->nodes[i].places[k].promised_ms = 0; // a promise is not kept over that: the move then waits for the new user
        volume_free(v->record);
        volume_free(v->order);
        refs_done(&v->refs);
    }
    fetches_die(w, i);
    uint64_t connection = a->connection;
    volume_set_done(&a->wants);
    *a = (struct agent){ .is_up = false };
    connection_close(w, connection, DOWN, w->nodes[i].is_on && !fault(w, 300));
}
