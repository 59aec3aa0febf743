// What engines and control ask an agent for: src/agent/operation*.c.
#include "sim.h"

#define PLUGIN_MS  3500
#define PROMISE_MS 10000

static struct agent *agent_at(struct world *w, int i)
{
    return &w->nodes[i].agent;
}

static struct agent_volume *known(struct world *w, int i, const struct operation *o)
{
    return o->k < 0 ? NULL : &agent_at(w, i)->volumes[o->k];
}

static void answer_control(struct world *w, int i, const struct operation *o, int rc)
{
    struct message *m = message_new(MSG_REPLY, o->k);
    m->n = o->ask;
    m->rc = rc;
    if (agent_at(w, i)->connection == o->ask_connection) {
        link_report_first(w, i, o->k);
        send_up(w, i, m);
    } else
        message_free(m);
}

static void finish(struct world *w, int i, struct operation *o, int rc)
{
    const struct operation was = *o;
    struct agent_volume *v = known(w, i, o);
    o->kind = OP_NONE;
    if (v && (was.kind == OP_REMOVE || was.kind == OP_RELEASE) && was.begun) {
        v->removing = v->checked = false;
        if (was.kind == OP_RELEASE && rc == 0) {
            v->promised_ms = node_clock(w, i) + PROMISE_MS;
            if (w->plant != PLANT_PROMISE_FORGOTTEN)
                post(w, PROMISE_MS + PROMISE_MS / 50, turn_due, i, was.k, agent_at(w, i)->life, 0);
            w->nodes[i].places[was.k].promised_ms = w->now_ms + PROMISE_MS * 9 / 10;
        }
    }
    if (was.ask)
        answer_control(w, i, &was, rc);
    if (was.kind == OP_MOUNT)
        container_answered(w, i, was.container, was.container_life, was.k, rc);
    if (v)
        turn(w, i, was.k);
    turn_soon(w, i);
}

static void on_deadline(struct world *w, const struct event *ev)
{
    for (int n = 0; n < OPERATIONS; n++)
        if (agent_at(w, ev->node)->operations[n].kind && agent_at(w, ev->node)->operations[n].id == ev->n)
            finish(w, ev->node, &agent_at(w, ev->node)->operations[n], -E_TIMEOUT);
}

struct operation *operation_new(struct world *w, int i, enum operation_kind kind, int name)
{
    struct agent *a = agent_at(w, i);
    struct operation *o = a->operations;
    while (o->kind && o < a->operations + OPERATIONS - 1)
        o++;
    if (!a->is_up || o->kind)
        return NULL;
    *o = (struct operation){ .kind = kind, .id = ++w->ids, .name = name, .k = -1 };
    post(w, PLUGIN_MS, on_deadline, i, 0, a->life, o->id);
    turn_soon(w, i);
    return o;
}

static void request(struct world *w, int i, struct operation *o, enum request_kind kind)
{
    struct message *m = message_new(MSG_REQUEST, o->k);
    m->request = kind;
    m->name = o->name;
    m->by_name = o->k < 0;
    m->is_unused = o->begun;
    o->asked = true;
    o->request = link_request(w, i, m);
}

static struct agent_volume *find(struct world *w, int i, struct operation *o)
{
    struct agent *a = agent_at(w, i);
    if (o->k < 0) {
        const struct volume *want = volume_set_find_name(&a->wants, name_text(o->name));
        if (!want)
            return NULL;
        o->k = volume_index(&want->id);
        o->attempts_before = a->volumes[o->k].attempts;
        a->volumes[o->k].retry_ms = 0;
    }
    a->volumes[o->k].is_known = true;
    return &a->volumes[o->k];
}

static bool has_failed(const struct operation *o, const struct agent_volume *v)
{
    return v->error == E_CORRUPT || (v->error && v->attempts > o->attempts_before);
}

static const struct volume *want_of(struct world *w, int i, const struct operation *o)
{
    const struct uuid id = volume_id(o->k);
    return volume_set_find(&agent_at(w, i)->wants, &id);
}

void operation_discard(struct world *w, int i, int k)
{
    struct agent *a = agent_at(w, i);
    struct message *m = message_new(MSG_REQUEST, k);
    m->request = REQUEST_DISCARD;
    m->n = a->volumes[k].discard = ++a->last_request;
    a->volumes[k].abandoned = false;
    a->volumes[k].discarding = w->plant != PLANT_DISCARDED_USED;
    send_up(w, i, m);
}

static void abandon(struct world *w, int i, int k)
{
    struct agent_volume *v = &agent_at(w, i)->volumes[k];
    if (w->plant == PLANT_DISCARDED_EARLY) {
        operation_discard(w, i, k);
        return;
    }
    v->abandoned = true;
    v->retry_ms = 0;
    turn(w, i, k);
}

static void create_turn(struct world *w, int i, struct operation *o)
{
    struct agent *a = agent_at(w, i);
    if (!a->is_synced || o->asked)
        return;
    struct agent_volume *v = find(w, i, o);
    if (!v) {
        request(w, i, o, REQUEST_CREATE);
        return;
    }
    if (o->failure) {
        if (!v->abandoned && !v->discarding)
            finish(w, i, o, -(int)o->failure);
        return;
    }
    const struct volume *want = want_of(w, i, o);
    if (!want || want->state != VOLUME_LIVE) {
        o->k = -1;
        turn_soon(w, i);
        return;
    }
    if (v->record || !uuid_equal(&want->owner, &w->nodes[i].id)) {
        finish(w, i, o, 0);
        return;
    }
    turn(w, i, o->k);
    if (!has_failed(o, v))
        return;
    o->failure = v->error;
    if (v->step == STEP_NONE && v->error != E_CORRUPT)
        abandon(w, i, o->k);
    turn_soon(w, i);
}

static void acquire(struct world *w, int i, struct operation *o, const struct agent_volume *v, const struct volume *want)
{
    bool comes = move_is_open(want) && uuid_equal(&want->target, &w->nodes[i].id);
    if (comes && has_failed(o, v) && v->step == STEP_NONE) {
        finish(w, i, o, -(int)v->error);
        return;
    }
    if (comes || o->begun || want->move.stage >= MOVE_SETTLE || !agent_at(w, i)->is_synced)
        return;
    if (v->record && !uuid_equal(&want->owner, &w->nodes[i].id) && w->plant != PLANT_ACQUIRED_IN_VAIN) {
        finish(w, i, o, -E_CONFLICT);
        return;
    }
    o->begun = true;
    request(w, i, o, REQUEST_ACQUIRE);
}

static void open_reference(struct world *w, int i, const struct operation *o)
{
    struct error e = ERROR_INIT;
    char id[] = { 'c', (char)('0' + o->container), 0 };
    struct engine engine = { 1000 + i, w->nodes[i].engine };
    (void)refs_open(&agent_at(w, i)->volumes[o->k].refs, id, engine, node_clock(w, i), &e);
    refs_save(w, i, o->k);
}

static void mount_turn(struct world *w, int i, struct operation *o)
{
    struct agent *a = agent_at(w, i);
    if (!a->is_open)
        return;
    struct agent_volume *v = find(w, i, o);
    if (!v) {
        if (a->is_synced && !o->asked)
            request(w, i, o, REQUEST_FIND);
        return;
    }
    const struct volume *want = want_of(w, i, o);
    if (!want || want->state != VOLUME_LIVE) {
        finish(w, i, o, -E_NOT_FOUND);
        return;
    }
    if (!uuid_equal(&want->owner, &w->nodes[i].id) || (want->move.stage == MOVE_SEAL && w->plant != PLANT_MOUNT_SEALED)) {
        acquire(w, i, o, v, want);
        return;
    }
    if (v->removing || (v->promised_ms > node_clock(w, i) && w->plant != PLANT_PROMISE_BROKEN))
        return;
    if (v->mounted && !v->unsure && v->step == STEP_NONE) {
        open_reference(w, i, o);
        finish(w, i, o, 0);
        return;
    }
    turn(w, i, o->k);
    if (has_failed(o, v) && (!v->mounted || v->unsure))
        finish(w, i, o, -(int)v->error);
}

// Whether references alone forbid it: those of a live engine.
static bool is_referenced(struct world *w, int i, const struct agent_volume *v)
{
    for (size_t n = 0; n < v->refs.n; n++)
        if (v->refs.items[n].engine.start == w->nodes[i].engine)
            return true;
    return false;
}

static void remove_turn(struct world *w, int i, struct operation *o)
{
    struct agent *a = agent_at(w, i);
    if (!a->is_synced || o->asked)
        return;
    struct agent_volume *v = find(w, i, o);
    if (!v) {
        request(w, i, o, REQUEST_FIND);
        return;
    }
    const struct volume *want = want_of(w, i, o);
    if (want && !uuid_equal(&want->owner, &w->nodes[i].id)) {
        request(w, i, o, REQUEST_REMOVE);
        return;
    }
    if (!o->begun) {
        if (v->removing)
            return;
        if (v->held || is_referenced(w, i, v)) {
            finish(w, i, o, -E_BUSY);
            return;
        }
        o->begun = v->removing = true;
        v->checked = false;
        o->attempts_before = v->attempts;
        v->retry_ms = 0;
        turn(w, i, o->k);
    }
    if (has_failed(o, v) && v->step == STEP_NONE) {
        finish(w, i, o, -(int)v->error);
        return;
    }
    if (!v->checked || v->mounted || v->step != STEP_NONE)
        return;
    if (o->kind == OP_RELEASE)
        finish(w, i, o, 0);
    else
        request(w, i, o, REQUEST_REMOVE);
}

void operations_turn(struct world *w, int i)
{
    struct agent *a = agent_at(w, i);
    for (int n = 0; n < OPERATIONS; n++) {
        struct operation *o = &a->operations[n];
        if (o->kind == OP_CREATE)
            create_turn(w, i, o);
        else if (o->kind == OP_MOUNT)
            mount_turn(w, i, o);
        else if (o->kind != OP_NONE)
            remove_turn(w, i, o);
    }
}

static void on_turn(struct world *w, const struct event *ev)
{
    struct agent *a = agent_at(w, ev->node);
    if (a->life != ev->life)
        return;
    a->is_turn_posted = false;
    operations_turn(w, ev->node);
}

void turn_soon(struct world *w, int i)
{
    struct agent *a = agent_at(w, i);
    if (!a->is_up || a->is_turn_posted)
        return;
    a->is_turn_posted = true;
    post(w, 0, on_turn, i, 0, a->life, 0);
}

static void on_removed(struct world *w, int i, struct operation *o, int rc)
{
    struct agent_volume *v = known(w, i, o);
    if (rc == 0 && v && (o->begun || w->plant == PLANT_REMOVE_UNCHECKED)) {
        refs_done(&v->refs);
        refs_save(w, i, o->k);
    }
    finish(w, i, o, rc);
}

static void on_created(struct world *w, int i, struct operation *o, int rc)
{
    if (rc < 0 || !volume_set_find_name(&agent_at(w, i)->wants, name_text(o->name)))
        finish(w, i, o, rc);
    else
        turn_soon(w, i);
}

void operation_on_reply(struct world *w, int i, const struct message *m)
{
    struct agent *a = agent_at(w, i);
    for (int n = 0; n < OPERATIONS; n++) {
        struct operation *o = &a->operations[n];
        if (!o->kind || !o->asked || o->request != m->n)
            continue;
        o->asked = false;
        bool was_acquire = o->kind == OP_MOUNT && o->begun;
        if (m->rc == -E_UNAVAILABLE && (!was_acquire || !a->is_synced))
            o->begun &= !was_acquire; // control has gone: asked again when it is back
        else if (o->kind == OP_CREATE)
            on_created(w, i, o, m->rc);
        else if (o->kind == OP_REMOVE && o->k >= 0)
            on_removed(w, i, o, m->rc);
        else if (m->rc < 0)
            finish(w, i, o, m->rc);
        else
            turn_soon(w, i);
        return;
    }
}

static void on_linger_end(struct world *w, const struct event *ev)
{
    if (agent_at(w, ev->node)->life == ev->life)
        turn(w, ev->node, ev->k);
}

void agent_unmount(struct world *w, int i, int k, int container)
{
    char id[] = { 'c', (char)('0' + container), 0 };
    struct agent_volume *v = &agent_at(w, i)->volumes[k];
    if (!refs_release(&v->refs, id, (struct engine){ 1000 + i, w->nodes[i].engine }))
        return;
    refs_save(w, i, k);
    if (refs_total(&v->refs) == 0 && v->mounted) {
        v->linger_ms = node_clock(w, i) + 250;
        post(w, 260, on_linger_end, i, k, agent_at(w, i)->life, 0);
    }
    turn_look(w, i, k);
    turn(w, i, k);
}
