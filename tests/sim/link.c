// The agent's side of its connection to control: what src/agent/link.c does.
#include "sim.h"

// ---- reports wait while the connection has enough to do

static void send_report(struct world *w, int i, int k)
{
    struct agent *a = &w->nodes[i].agent;
    a->volumes[k].is_due = false;
    a->count.reports++;
    send_up(w, i, turn_make_report(w, i, k));
}

static bool is_full(struct world *w, int i)
{
    return line_is_full(w, w->nodes[i].agent.connection, UP);
}

void link_report(struct world *w, int i, int k)
{
    if (!is_full(w, i))
        send_report(w, i, k);
    else
        w->nodes[i].agent.volumes[k].is_due = w->plant != PLANT_REPORT_FORGOTTEN;
}

static void send_due_reports(struct world *w, int i)
{
    struct agent *a = &w->nodes[i].agent;
    for (int k = 0; k < VOLUMES && !is_full(w, i); k++)
        if (a->volumes[k].is_due)
            send_report(w, i, k);
    for (int k = 0; k < VOLUMES; k++)
        if (a->volumes[k].is_due)
            return;
    if (!a->inventory_due)
        return;
    a->inventory_due = false;
    send_up(w, i, message_new(MSG_INVENTORY_END, -1));
}

void link_on_drained(struct world *w, int i)
{
    if (w->nodes[i].agent.is_welcome)
        send_due_reports(w, i);
}

// What is said of a volume comes after the report by which control knows what it means.
void link_report_first(struct world *w, int i, int k)
{
    if (k >= 0 && w->nodes[i].agent.volumes[k].is_due)
        send_report(w, i, k);
}

int64_t link_request(struct world *w, int i, struct message *m)
{
    int64_t n = m->n = ++w->nodes[i].agent.last_request;
    link_report_first(w, i, m->k);
    send_up(w, i, m);
    return n;
}

// ---- messages of control

static void drop(struct world *w, int i, int k)
{
    struct agent_volume *v = volume_at(w, i, k);
    if (v->step != STEP_NONE || v->looking)
        return;
    volume_free(v->record);
    refs_done(&v->refs);
    *v = (struct agent_volume){ .peer = -1 };
    refs_save(w, i, k);
}

static void on_welcome(struct world *w, int i, const struct message *m)
{
    struct agent *a = &w->nodes[i].agent;
    struct resume_count next;
    enum resume verdict = resume_read_answer(m->resume, &a->count, &next);
    if (w->plant == PLANT_LOST_REPORT && verdict == RESUME_WANTS)
        verdict = RESUME_ALL;
    a->is_welcome = true;
    a->link_failures = 0;
    a->count = next;
    a->can_resume = verdict != RESUME_NOTHING;
    for (int k = 0; k < VOLUMES; k++) {
        a->volumes[k].confirmed &= verdict != RESUME_NOTHING;
        a->volumes[k].reported.sent &= verdict == RESUME_ALL;
    }
    a->inventory_due = true;
    for (int k = 0; k < VOLUMES; k++)
        if (a->volumes[k].record || a->volumes[k].copy.is_here || a->volumes[k].reported.sent || (a->volumes[k].confirmed && w->plant != PLANT_LOST_ABSENCE))
            turn_report(w, i, k);
    send_due_reports(w, i);
}

static void forget_namesake(struct agent *a, const struct volume *want)
{
    const struct volume *same = want->name && want->state == VOLUME_LIVE ? volume_set_find_name(&a->wants, want->name) : NULL;
    if (same && !uuid_equal(&same->id, &want->id)) {
        const struct uuid id = same->id;
        volume_set_remove(&a->wants, &id);
    }
}

static void on_want(struct world *w, int i, const struct message *m)
{
    struct error e = ERROR_INIT;
    struct agent *a = &w->nodes[i].agent;
    struct volume *want = NULL;
    a->count.wants++;
    int rc = volume_from_json(m->volume, &want, &e);
    ASSERT(rc == 0);
    forget_namesake(a, want);
    struct agent_volume *v = volume_at(w, i, m->k);
    bool is_concerned = volume_concerns(want, &w->nodes[i].id);
    bool is_over = !v->record && !v->copy.is_here && v->step == STEP_NONE &&
                   (is_concerned ? want->state == VOLUME_DELETED && want->move.stage == MOVE_NONE : want->state != VOLUME_LIVE);
    v->is_known = v->confirmed = true;
    v->promised_ms = 0;
    v->reported.sent &= want->state != VOLUME_PURGING || w->plant == PLANT_PURGE_UNANSWERED;
    w->nodes[i].places[m->k].promised_ms = 0;
    v->peer = m->peer;
    v->peer_final = m->peer_final;
    v->held = m->held;
    if (is_over) {
        volume_set_remove(&a->wants, &want->id);
        volume_free(want);
        drop(w, i, m->k);
    } else {
        volume_set_put(&a->wants, want);
        v->retry_ms = 0;
        turn(w, i, m->k);
    }
    if (a->is_synced)
        turn_soon(w, i);
}

static void find_again(struct world *w, int i, int k)
{
    struct message *m = message_new(MSG_REQUEST, k);
    m->request = REQUEST_FIND;
    (void)link_request(w, i, m);
}

static void on_want_end(struct world *w, int i)
{
    struct agent *a = &w->nodes[i].agent;
    for (int k = 0; k < VOLUMES; k++) {
        struct agent_volume *v = &a->volumes[k];
        const struct uuid id = volume_id(k);
        if (v->confirmed || !v->is_known)
            continue;
        const struct volume *want = volume_set_find(&a->wants, &id);
        if (!v->record && want && (node_index(&want->owner) != i || w->plant == PLANT_MADE_BY_OLD_ORDER))
            find_again(w, i, k);
        else if (!v->record && want)
            volume_set_remove(&a->wants, &id);
        else if (v->record && volume_set_find(&a->wants, &id))
            volume_set_remove(&a->wants, &id);
    }
    a->is_synced = a->can_resume = true;
    turn_soon(w, i);
    for (int k = 0; k < VOLUMES; k++) {
        bool was_asked = a->volumes[k].discarding || a->volumes[k].abandoned;
        a->volumes[k].discarding = false;
        if (was_asked || w->plant == PLANT_INFERENCE)
            turn(w, i, k);
    }
}

// Of find_again: what is gone meanwhile is forgotten, and nothing is done any more to what has come of it.
static void on_found_again(struct world *w, int i, const struct message *m)
{
    struct agent *a = &w->nodes[i].agent;
    const struct agent_volume *v = &a->volumes[m->k];
    const struct uuid id = volume_id(m->k);
    if (m->rc != -E_NOT_FOUND || !v->is_known || v->record)
        return;
    volume_set_remove(&a->wants, &id);
    if (v->copy.is_here)
        turn(w, i, m->k);
    else
        drop(w, i, m->k);
}

static void on_discarded(struct world *w, int i, const struct message *m)
{
    struct agent_volume *v = volume_at(w, i, m->k);
    if (!v->discarding || v->discard != m->n)
        return;
    v->discarding = false;
    turn(w, i, m->k);
    turn_soon(w, i);
}

static void answer_records(struct world *w, int i, const struct message *asked)
{
    struct message *m = message_new(MSG_REPLY, -1);
    m->n = asked->n;
    m->records = inventory_page(w, i, (int)asked->order, &m->more);
    send_up(w, i, m);
}

static void on_ask(struct world *w, int i, const struct message *m)
{
    if (m->ask == OP_RECORDS) {
        answer_records(w, i, m);
        return;
    }
    struct operation *o = operation_new(w, i, m->ask, -1);
    if (!o)
        return;
    o->k = m->k;
    o->ask = m->n;
    o->ask_connection = w->nodes[i].agent.connection;
}

void agent_on_message(struct world *w, int i, const struct message *m)
{
    switch (m->kind) {
    case MSG_WELCOME:
        on_welcome(w, i, m);
        break;
    case MSG_WANT:
        on_want(w, i, m);
        break;
    case MSG_WANT_END:
        on_want_end(w, i);
        break;
    case MSG_ASK:
        on_ask(w, i, m);
        break;
    case MSG_REPLY:
        if (m->request == REQUEST_FIND && !m->by_name)
            on_found_again(w, i, m);
        else if (m->request == REQUEST_DISCARD)
            on_discarded(w, i, m);
        else
            operation_on_reply(w, i, m);
        break;
    case MSG_HELLO:
    case MSG_REPORT:
    case MSG_INVENTORY_END:
    case MSG_REQUEST:
    case MSG_CLOSE:
        ASSERT(false && "not for an agent");
    }
}

void agent_on_closed(struct world *w, int i)
{
    struct agent *a = &w->nodes[i].agent;
    a->connection = 0;
    a->is_synced = a->is_welcome = a->inventory_due = false;
    for (int k = 0; k < VOLUMES; k++)
        a->volumes[k].is_due = false; // all are gone through after the next welcome
    for (int n = 0; n < OPERATIONS; n++)
        if (a->operations[n].kind && a->operations[n].asked) {
            const struct message gone = { .rc = -E_UNAVAILABLE, .n = a->operations[n].request, .k = -1 };
            operation_on_reply(w, i, &gone);
        }
    link_reconnect_later(w, i);
}
