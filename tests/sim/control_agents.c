// Control's side of the agents' connections: what src/control/agents*.c and nodes.c do.
#include "sim.h"

#include <string.h>

#define RELEASE_MS 3000
#define REMOVE_MS  3500
#define ASK_MS     10000
#define AGAIN_MS   5000

static struct control_node *node_of(struct world *w, int i)
{
    return &w->control.nodes[i];
}

// ---- telling

static void send_want(struct world *w, int i, const struct volume *v)
{
    int k = volume_index(&v->id);
    struct message *m = message_new(MSG_WANT, k);
    const struct uuid node = node_id(i);
    m->volume = volume_to_json(v);
    m->held = w->control.holds[k] == i;
    if (move_is_open(v) && uuid_equal(&v->target, &node) && !moves_lacks_data(w, v)) {
        m->peer = node_index(&v->owner);
        m->peer_final = sealed_number(w, v);
    }
    node_of(w, i)->wants_sent++;
    send_down(w, node_of(w, i)->peer, m);
}

static bool is_full(struct world *w, int i)
{
    return line_is_full(w, node_of(w, i)->peer, DOWN);
}

static void peer_pump(struct world *w, int i)
{
    struct control_node *n = node_of(w, i);
    while (n->is_told && !is_full(w, i) && id_set_take(&n->due, &n->due_at)) {
        const struct volume *v = volume_set_find(&w->control.volumes, &n->due_at);
        if (v)
            send_want(w, i, v);
    }
    if (!n->is_told || n->is_synced || is_full(w, i))
        return;
    send_down(w, n->peer, message_new(MSG_WANT_END, -1));
    n->is_synced = true;
    recover_soon(w);
}

void control_on_drained(struct world *w, uint64_t connection)
{
    for (int i = 0; i < w->node_count && w->control.is_up; i++)
        if (node_of(w, i)->peer == connection)
            peer_pump(w, i);
}

static void set_due(struct world *w, int i, const struct volume *v)
{
    struct control_node *n = node_of(w, i);
    if (n->connection == 0 || (w->plant == PLANT_DUE_FORGOTTEN && n->peer && is_full(w, i)))
        return;
    id_set_add(&n->due, &v->id);
    if (n->peer)
        peer_pump(w, i);
}

static void send_want_first(struct world *w, int i, int k)
{
    const struct uuid id = volume_id(k < 0 ? 0 : k);
    if (k < 0 || w->plant == PLANT_REPLY_FIRST || !id_set_remove(&node_of(w, i)->due, &id))
        return;
    const struct volume *v = volume_of(w, k);
    if (v)
        send_want(w, i, v);
}

void tell(struct world *w, int i, const struct volume *v)
{
    const struct uuid node = node_id(i);
    struct control_node *n = node_of(w, i);
    n->is_watching[volume_index(&v->id)] |= n->connection > 0 && !volume_concerns(v, &node);
    set_due(w, i, v);
}

void tell_all(struct world *w, const struct volume *v, const struct volume *old)
{
    for (int i = 0; i < w->node_count; i++) {
        const struct uuid node = node_id(i);
        if (volume_concerns(v, &node) || (old && volume_concerns(old, &node)) || node_of(w, i)->is_watching[volume_index(&v->id)])
            tell(w, i, v);
    }
}

// PLANT_TOLD_EARLY
void tell_early(struct world *w, const struct volume *v)
{
    for (int i = 0; i < w->node_count; i++) {
        const struct uuid node = node_id(i);
        if (volume_concerns(v, &node) && node_of(w, i)->is_synced)
            send_want(w, i, v);
    }
}

void nodes_forget_volume(struct world *w, int k)
{
    const struct uuid id = volume_id(k);
    for (int i = 0; i < w->node_count; i++) {
        node_of(w, i)->has_missed |= id_set_remove(&node_of(w, i)->due, &id);
        node_of(w, i)->is_watching[k] = false;
    }
}

// ---- reports

static void read_report(struct world *w, int i, struct sighting *s, const struct message *m)
{
    struct error e = ERROR_INIT;
    *s = (struct sighting){ .is_here = true, .node = i, .connection = node_of(w, i)->connection };
    s->part = (struct move_part){ .known = true, .present = m->present, .epoch = m->epoch, .missing = m->missing, .in_use = m->in_use, .warm = m->warm };
    s->has_copy = m->has_copy;
    s->part.revision = m->has_copy ? m->order : m->revision;
    int rc = move_snapshot_from_json(m->has_copy ? m->copy : m->snapshot, &s->part.snapshot, &e);
    ASSERT(rc == 0);
}

// What follows from what its owner said last.
static void follow_owner(struct world *w, int k)
{
    struct error e = ERROR_INIT;
    const struct volume *v = volume_of(w, k);
    const struct sighting *s = &w->control.owners[k];
    const struct move_part part = part_of(w, s);
    struct volume *changed = NULL;
    const struct uuid node = node_id(s->node);
    if (!v || !part.known)
        return;
    if (part.present)
        (void)decide_present(v, &node, part.epoch, &changed, &e);
    else if (!s->has_copy)
        (void)decide_destroyed(v, &node, &changed, &e);
    if (changed && control_put(w, changed) < 0)
        reports_again_later(w);
}

static void on_again(struct world *w, const struct event *ev)
{
    if (!w->control.is_up || w->control.life != ev->life)
        return;
    w->control.is_again_posted = false;
    for (int k = 0; k < w->volume_count && w->control.is_up && !w->control.is_again_posted; k++) {
        follow_owner(w, k);
        moves_turn(w, k);
        absence_turn(w, k);
    }
}

void reports_again_later(struct world *w)
{
    if (!w->control.is_up || w->control.is_again_posted || w->plant == PLANT_COMMIT_ONCE)
        return;
    w->control.is_again_posted = true;
    post(w, AGAIN_MS, on_again, 0, 0, w->control.life, 0);
}

static void note_owner(struct world *w, int i, const struct volume *v, const struct message *m)
{
    uint64_t was_sealed = sealed_number(w, v);
    bool lacked_data = moves_lacks_data(w, v);
    struct sighting *s = &w->control.owners[m->k];
    read_report(w, i, s, m);
    if ((m->present || m->has_copy) && v->state == VOLUME_DELETED)
        tell(w, i, v);
    if (sealed_number(w, v) != was_sealed || (move_is_open(v) && moves_lacks_data(w, v) != lacked_data))
        tell(w, node_index(&v->target), v);
    follow_owner(w, m->k);
}

static void on_report(struct world *w, int i, const struct message *m)
{
    const struct volume *v = volume_of(w, m->k);
    node_of(w, i)->reports_got++;
    if (!v) {
        node_of(w, i)->has_unknown |= m->present || m->has_copy;
        return;
    }
    const struct uuid node = node_id(i), other = other_node(v);
    if (uuid_equal(&v->owner, &node))
        note_owner(w, i, v, m);
    else if (uuid_equal(&other, &node))
        read_report(w, i, &w->control.others[m->k], m);
    else if (m->has_copy && (w->plant != PLANT_COPY_NOT_TOLD || node_of(w, i)->is_synced))
        tell(w, i, v); // also before its inventory's end
    moves_turn(w, m->k);
}

static void set_all_due(struct world *w, int i)
{
    const struct uuid node = node_id(i);
    for (size_t n = 0; n < w->control.volumes.n; n++) {
        const struct volume *v = w->control.volumes.by_id[n];
        if (volume_concerns(v, &node) && (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE))
            id_set_add(&node_of(w, i)->due, &v->id);
    }
}

static void turn_all_moves(struct world *w, int i)
{
    const struct uuid node = node_id(i);
    for (int k = 0; k < w->volume_count && w->control.is_up; k++) {
        const struct volume *v = volume_of(w, k);
        if (!v || !volume_concerns(v, &node))
            continue;
        if (move_is_open(v) && uuid_equal(&v->owner, &node))
            tell(w, node_index(&v->target), v);
        follow_owner(w, k);
        moves_turn(w, k);
    }
}

static void on_inventory_end(struct world *w, int i)
{
    struct control_node *n = node_of(w, i);
    if (!n->is_resumed || n->is_told)
        set_all_due(w, i);
    n->is_told = true;
    n->is_synced = false;
    n->known_since = n->reports_since;
    turn_all_moves(w, i);
    if (w->control.is_up)
        peer_pump(w, i);
}

// ---- connections

static void ask_end(struct world *w, struct ask *a, int rc, const struct message *m);

static void asks_end(struct world *w, uint64_t connection)
{
    for (int n = 0; n < ASKS && w->control.is_up; n++)
        if (w->control.asks[n].n && w->control.asks[n].connection == connection)
            ask_end(w, &w->control.asks[n], -E_UNAVAILABLE, NULL);
}

void peer_leave(struct world *w, int i)
{
    struct control_node *n = node_of(w, i);
    uint64_t was = n->peer;
    n->peer = 0;
    n->is_synced = n->is_told = false;
    asks_end(w, was);
}

static enum resume judge(const struct world *w, const struct control_node *n, const struct resume_count *last, json_t *claim)
{
    if (w->plant == PLANT_LOST_WANT && claim)
        json_object_set_new(claim, "wants", json_integer((json_int_t)last->wants));
    return n->has_missed ? RESUME_NOTHING : resume_judge(last, claim);
}

// Begins the node's next connection: where the last one ended, or anew.
static void welcome(struct world *w, int i, json_t *claim)
{
    struct control_node *n = node_of(w, i);
    const struct resume_count last = { w->control.instance, n->connection, n->wants_sent, n->reports_got };
    const struct resume_count next = { .instance = last.instance, .connection = last.connection + 1 };
    struct message *m = message_new(MSG_WELCOME, -1);
    m->resume = json_object();
    enum resume verdict = judge(w, n, &last, claim);
    n->is_resumed = verdict != RESUME_NOTHING;
    if (!n->is_resumed) {
        memset(n->is_watching, 0, sizeof n->is_watching);
        n->has_missed = n->has_unknown = false;
    }
    if (!n->is_resumed || w->plant == PLANT_DUE_NOT_RESUMED)
        id_set_done(&n->due);
    n->connection = n->known_since = next.connection;
    n->wants_sent = n->reports_got = 0;
    if (verdict != RESUME_ALL)
        n->reports_since = next.connection;
    resume_answer(m->resume, verdict, &last, &next);
    trace(w, "control: %c is connected%s", NODE_LETTER(i), verdict == RESUME_ALL ? ", again" : n->is_resumed ? ", again; reports were lost" : "");
    send_down(w, n->peer, m);
}

static void on_hello(struct world *w, int i, uint64_t connection, json_t *claim)
{
    struct control_node *n = node_of(w, i);
    uint64_t old = n->peer;
    if (n->is_removed && w->plant != PLANT_REMOVED_HEARD) {
        connection_close(w, connection, UP, true);
        return;
    }
    n->peer = connection;
    n->is_synced = n->is_told = false;
    welcome(w, i, claim);
    if (!old)
        return;
    connection_close(w, old, UP, true);
    asks_end(w, old);
}

void control_on_closed(struct world *w, uint64_t connection)
{
    for (int i = 0; i < w->node_count; i++)
        if (node_of(w, i)->peer == connection)
            peer_leave(w, i);
}

// ---- questions to agents

static void reply(struct world *w, int i, uint64_t connection, const struct message *asked, int rc)
{
    struct message *m = message_new(MSG_REPLY, asked->k);
    m->request = asked->request;
    m->by_name = asked->by_name;
    m->n = asked->n;
    m->rc = rc;
    if (rc == 0 && asked->k >= 0 && asked->request != REQUEST_FIND)
        acknowledge(w, asked->k);
    if (w->control.is_up && node_of(w, i)->peer == connection) {
        send_want_first(w, i, asked->k);
        send_down(w, connection, m);
    } else
        message_free(m);
}

static bool is_connected(const struct world *w, const struct uuid *node)
{
    int i = node_index(node);
    return i >= 0 && w->control.nodes[i].peer != 0;
}

static int acquire(struct world *w, int k, int from)
{
    struct error e = ERROR_INIT;
    const struct uuid node = node_id(from);
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, k);
    if (v && !uuid_equal(&v->owner, &node) && !node_takes_volumes(w, from) && w->plant != PLANT_GONE_ACQUIRES)
        return -E_CONFLICT;
    int rc = v ? decide_acquire(v, &node, is_connected(w, &v->target), &changed, &e) : -E_NOT_FOUND;
    return rc < 0 || !changed ? rc : control_put(w, changed);
}

static void ask_end(struct world *w, struct ask *a, int rc, const struct message *m)
{
    const struct ask was = *a;
    const struct message asked = { .k = was.k, .n = was.from_n, .request = was.kind == OP_RELEASE ? REQUEST_ACQUIRE : REQUEST_REMOVE };
    a->n = 0;
    if (was.kind == OP_RECORDS)
        recover_on_records(w, was.node, rc, m);
    if (rc == 0 && was.kind == OP_RELEASE)
        rc = acquire(w, was.k, was.from);
    if (was.from >= 0 && w->control.is_up)
        reply(w, was.from, was.from_connection, &asked, rc);
}

static void on_ask_late(struct world *w, const struct event *ev)
{
    for (int n = 0; n < ASKS; n++)
        if (w->control.is_up && w->control.life == ev->life && w->control.asks[n].n == (int64_t)ev->n)
            ask_end(w, &w->control.asks[n], -E_TIMEOUT, NULL);
}

int control_ask(struct world *w, int i, const struct ask *question)
{
    struct ask *a = w->control.asks;
    while (a->n && a < w->control.asks + ASKS - 1)
        a++;
    if (a->n || !node_of(w, i)->peer || !node_of(w, i)->is_synced)
        return -E_UNAVAILABLE;
    *a = *question;
    a->n = ++w->control.last_ask;
    a->node = i;
    a->connection = node_of(w, i)->peer;
    post(w, a->kind == OP_RELEASE ? RELEASE_MS : a->kind == OP_REMOVE ? REMOVE_MS : ASK_MS, on_ask_late, i, 0, w->control.life, (uint64_t)a->n);
    struct message *m = message_new(MSG_ASK, a->k);
    m->ask = a->kind;
    m->order = (uint64_t)a->from_n; // of RECORDS: after that volume
    m->n = a->n;
    send_want_first(w, i, a->k);
    send_down(w, a->connection, m);
    return 0;
}

static void on_reply(struct world *w, uint64_t connection, const struct message *m)
{
    for (int n = 0; n < ASKS; n++)
        if (w->control.asks[n].n && w->control.asks[n].n == m->n && w->control.asks[n].connection == connection) {
            ask_end(w, &w->control.asks[n], m->rc, m);
            return;
        }
}

// ---- requests of agents

enum { GOES_ON = 1 };

static int request_remove(struct world *w, int i, struct message *m)
{
    const struct volume *v = volume_of(w, m->k);
    if (!v)
        return -E_NOT_FOUND;
    if ((node_index(&v->owner) == i && (m->is_unused || w->plant == PLANT_REMOVE_UNCHECKED)) || absence_is_for_good(w, v))
        return remove_volume(w, m->k);
    const struct ask question = { .kind = OP_REMOVE, .k = m->k, .from = i, .from_connection = node_of(w, i)->peer, .from_n = m->n };
    int rc = control_ask(w, node_index(&v->owner), &question);
    return rc < 0 ? rc : GOES_ON;
}

static int request_discard(struct world *w, int i, struct message *m)
{
    const struct volume *v = volume_of(w, m->k);
    if (!v)
        return -E_NOT_FOUND;
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    int rc = node_index(&v->owner) != i ? -E_CONFLICT : decide_discard(v, wall_ms(w), &changed, &e);
    return rc < 0 ? rc : control_put(w, changed);
}

static int request_find(struct world *w, int i, struct message *m)
{
    const struct uuid node = node_id(i);
    const struct volume *v = m->by_name ? volume_set_find_name(&w->control.volumes, name_text(m->name)) : volume_of(w, m->k);
    if (!v)
        return -E_NOT_FOUND;
    m->k = volume_index(&v->id);
    node_of(w, i)->is_watching[m->k] |= !volume_concerns(v, &node);
    id_set_add(&node_of(w, i)->due, &v->id); // goes before the reply
    return 0;
}

static int request_acquire(struct world *w, int i, struct message *m)
{
    struct error e = ERROR_INIT;
    const struct uuid node = node_id(i);
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, m->k);
    if (v && v->state == VOLUME_LIVE && (v->born || absence_is_for_good(w, v)) && !uuid_equal(&v->owner, &node) && !is_connected(w, &v->owner))
        return absence_is_for_good(w, v) ? -E_NOT_FOUND : -E_UNAVAILABLE;
    int rc = v ? decide_acquire(v, &node, is_connected(w, &v->target), &changed, &e) : -E_NOT_FOUND;
    bool is_wanted = changed != NULL;
    volume_free(changed);
    if (rc < 0 || !is_wanted)
        return rc;
    if (!v->born || uuid_equal(&v->owner, &node))
        return acquire(w, m->k, i);
    const struct ask question = { .kind = OP_RELEASE, .k = m->k, .from = i, .from_connection = node_of(w, i)->peer, .from_n = m->n };
    rc = control_ask(w, node_index(&v->owner), &question);
    return rc < 0 ? rc : GOES_ON;
}

static int run_request(struct world *w, int i, struct message *m)
{
    switch (m->request) {
    case REQUEST_CREATE:
        return put_new(w, m->name, i, false, &m->k);
    case REQUEST_REMOVE:
        return request_remove(w, i, m);
    case REQUEST_DISCARD:
        return request_discard(w, i, m);
    case REQUEST_FIND:
        return request_find(w, i, m);
    case REQUEST_ACQUIRE:
        return request_acquire(w, i, m);
    }
    return -E_UNSUPPORTED;
}

void control_on_message(struct world *w, int i, uint64_t connection, struct message *m)
{
    int rc;
    if (!w->control.is_up || (m->kind != MSG_HELLO && node_of(w, i)->peer != connection && w->plant != PLANT_OLD_CONNECTION))
        return;
    switch (m->kind) {
    case MSG_HELLO:
        on_hello(w, i, connection, m->resume);
        break;
    case MSG_REPORT:
        on_report(w, i, m);
        break;
    case MSG_INVENTORY_END:
        on_inventory_end(w, i);
        break;
    case MSG_REQUEST:
        rc = run_request(w, i, m);
        if (rc != GOES_ON && w->control.is_up)
            reply(w, i, connection, m, rc);
        break;
    case MSG_REPLY:
        on_reply(w, connection, m);
        break;
    case MSG_WELCOME:
    case MSG_WANT:
    case MSG_WANT_END:
    case MSG_ASK:
    case MSG_CLOSE:
        ASSERT(false && "not for control");
    }
}
