// Control: what control.c, agents.c, moves.c and the API in src/control do, without sockets. The store commits a change whole or not at all; a
// crash comes before or after.
#include "sim.h"

#define RELEASE_MS 3000
#define REMOVE_MS  3500

enum { TRASH_MS = 60000, EPOCHS = 60 };

static struct volume *volume_of(struct world *w, int k)
{
    const struct uuid id = volume_id(k);
    return k < 0 ? NULL : volume_set_find(&w->control.volumes, &id);
}

// ---- the store

static void store_set(struct store *s, int k, const struct volume *v)
{
    volume_free(s->volumes[k]);
    s->volumes[k] = v ? volume_through_json(v) : NULL;
}

static void on_durable(struct world *w, const struct event *ev)
{
    if (w->control.life == ev->life && w->pending.volumes[ev->k])
        store_set(&w->store, ev->k, w->pending.volumes[ev->k]);
}

// NULL: forgets it.
static int store_commit(struct world *w, int k, const struct volume *v)
{
    if (fault(w, w->profile.fail_commit))
        return -E_IO;
    if (fault(w, w->profile.crash_control / 2)) {
        control_crash(w);
        return -E_UNAVAILABLE;
    }
    if (v && v->epoch < ARRAY_SIZE(w->truth[k].owners))
        w->truth[k].owners[v->epoch] = node_index(&v->owner);
    if (w->plant == PLANT_STORE_NOT_DURABLE && v) {
        store_set(&w->pending, k, v);
        post(w, 300, on_durable, 0, k, w->control.life, 0);
    } else
        store_set(&w->store, k, v);
    if (fault(w, w->profile.crash_control / 2)) {
        control_crash(w);
        return -E_UNAVAILABLE;
    }
    return 0;
}

static void acknowledge(struct world *w, int k)
{
    const struct volume *v = volume_of(w, k);
    if (w->control.is_up && v)
        w->truth[k].revision = v->revision;
}

// ---- what nodes say

static struct move_part part_of(const struct world *w, const struct sighting *s)
{
    struct move_part part = { .known = false };
    if (s->is_here && ((w->control.nodes[s->node].connection && w->control.nodes[s->node].connection == s->connection) || w->plant == PLANT_OLD_CONNECTION))
        part = s->part;
    return part;
}

static struct move_part part_of_owner(const struct world *w, const struct volume *v)
{
    int k = volume_index(&v->id);
    struct move_part part = part_of(w, &w->control.owners[k]);
    part.held = w->control.holds[k] == node_index(&v->owner);
    return part;
}

static uint64_t sealed_number(const struct world *w, const struct volume *v)
{
    const struct move_part owner = part_of_owner(w, v);
    return v->move.stage == MOVE_SEAL && owner.known && owner.snapshot.final && owner.revision == v->revision ? owner.snapshot.number : 0;
}

static struct uuid other_node(const struct volume *v)
{
    if (!uuid_is_zero(&v->move.source))
        return v->move.source;
    return uuid_equal(&v->owner, &v->target) ? (struct uuid){ { 0 } } : v->target;
}

static void sort_sightings(struct world *w, const struct volume *v)
{
    int k = volume_index(&v->id);
    const struct uuid other_id = other_node(v);
    int owner = node_index(&v->owner), other = node_index(&other_id);
    struct sighting both[] = { w->control.owners[k], w->control.others[k] };
    w->control.owners[k].is_here = w->control.others[k].is_here = false;
    for (size_t n = 0; n < ARRAY_SIZE(both); n++) {
        if (both[n].is_here && both[n].node == owner)
            w->control.owners[k] = both[n];
        else if (both[n].is_here && both[n].node == other)
            w->control.others[k] = both[n];
    }
}

// ---- telling

static void send_want(struct world *w, int i, const struct volume *v)
{
    int k = volume_index(&v->id);
    struct message *m = message_new(MSG_WANT, k);
    const struct uuid node = node_id(i);
    m->volume = volume_to_json(v);
    m->held = w->control.holds[k] == i;
    if (move_is_open(v) && uuid_equal(&v->target, &node)) {
        m->peer = node_index(&v->owner);
        m->peer_final = sealed_number(w, v);
    }
    send_down(w, w->control.nodes[i].connection, m);
}

static void tell(struct world *w, int i, const struct volume *v)
{
    const struct uuid node = node_id(i);
    if (!w->control.nodes[i].connection || !w->control.nodes[i].is_synced)
        return;
    w->control.nodes[i].is_watching[volume_index(&v->id)] |= !volume_concerns(v, &node);
    send_want(w, i, v);
}

static void tell_all(struct world *w, const struct volume *v, const struct volume *old)
{
    int k = volume_index(&v->id);
    for (int i = 0; i < w->node_count; i++) {
        const struct uuid node = node_id(i);
        if (volume_concerns(v, &node) || (old && volume_concerns(old, &node)) || w->control.nodes[i].is_watching[k])
            tell(w, i, v);
    }
}

// ---- changes

static void moves_turn(struct world *w, int k);

static int control_put(struct world *w, struct volume *changed)
{
    AUTO(volume_free) struct volume *v = changed;
    int k = volume_index(&v->id);
    AUTO(volume_free) struct volume *old = volume_of(w, k) ? volume_copy(volume_of(w, k)) : NULL;
    if (w->plant == PLANT_TOLD_EARLY)
        tell_all(w, v, old);
    int rc = store_commit(w, k, v);
    if (rc < 0)
        return rc;
    trace(w, "control: v%d is %s, owner %c, target %c, epoch %llu, revision %llx, %s%s", k, volume_state_word(v->state),
          NODE_LETTER(node_index(&v->owner)), NODE_LETTER(node_index(&v->target)), (unsigned long long)v->epoch,
          (unsigned long long)v->revision, move_stage_word(v->move.stage), v->born ? "" : ", not born");
    volume_set_put(&w->control.volumes, TAKE(v, NULL));
    const struct volume *now = volume_of(w, k);
    sort_sightings(w, now);
    tell_all(w, now, old);
    moves_turn(w, k);
    return w->control.is_up ? 0 : -E_UNAVAILABLE;
}

static void plant_parts(const struct world *w, const struct volume *v, struct move_part *owner, struct move_part *other)
{
    if (w->plant == PLANT_STALE_SEAL)
        owner->revision = v->revision;
    if (w->plant == PLANT_STALE_SEAL || w->plant == PLANT_OLD_ORDER)
        other->revision = v->revision;
    if (w->plant == PLANT_NOT_FINAL)
        owner->snapshot.final = other->snapshot.final = true;
    if (w->plant == PLANT_NO_DIGEST)
        owner->snapshot.has_digest = other->snapshot.has_digest = true;
    for (size_t n = 0; n < MOVE_DIGEST_SIZE && w->plant == PLANT_NO_DIGEST; n++)
        owner->snapshot.digest[n] = other->snapshot.digest[n];
    if (w->plant == PLANT_RELEASE_EARLY)
        owner->present = true, owner->epoch = v->epoch;
}

static void moves_turn(struct world *w, int k)
{
    const struct volume *v = volume_of(w, k);
    struct volume *changed = NULL;
    if (!w->control.is_up || !v || (v->move.stage == MOVE_NONE && uuid_equal(&v->owner, &v->target)))
        return;
    struct move_part owner = part_of_owner(w, v), other = part_of(w, &w->control.others[k]);
    plant_parts(w, v, &owner, &other);
    decide_move_next(v, &owner, &other, &changed);
    if (changed)
        (void)control_put(w, changed);
}

// ---- reports

static void read_report(struct world *w, int i, struct sighting *s, const struct message *m)
{
    struct error e = ERROR_INIT;
    *s = (struct sighting){ .is_here = true, .node = i, .connection = w->control.nodes[i].connection };
    s->part = (struct move_part){ .known = true, .present = m->present, .epoch = m->epoch, .in_use = m->in_use, .warm = m->warm };
    s->part.revision = m->has_copy ? m->order : m->revision;
    int rc = move_snapshot_from_json(m->has_copy ? m->copy : m->snapshot, &s->part.snapshot, &e);
    ASSERT(rc == 0);
}

static void note_owner(struct world *w, int i, const struct volume *v, const struct message *m)
{
    struct error e = ERROR_INIT;
    const struct uuid node = node_id(i);
    struct volume *changed = NULL;
    uint64_t was_sealed = sealed_number(w, v);
    struct sighting *s = &w->control.owners[m->k];
    read_report(w, i, s, m);
    if ((m->present || m->has_copy) && v->state == VOLUME_DELETED)
        send_want(w, i, v);
    if (sealed_number(w, v) != was_sealed)
        tell(w, node_index(&v->target), v);
    if (m->present)
        (void)decide_present(v, &node, m->epoch, &changed, &e);
    else if (!m->has_copy)
        (void)decide_destroyed(v, &node, &changed, &e);
    if (changed)
        (void)control_put(w, changed);
}

static void on_report(struct world *w, int i, const struct message *m)
{
    const struct volume *v = volume_of(w, m->k);
    if (!v)
        return;
    const struct uuid node = node_id(i), other = other_node(v);
    if (uuid_equal(&v->owner, &node))
        note_owner(w, i, v, m);
    else if (uuid_equal(&other, &node))
        read_report(w, i, &w->control.others[m->k], m);
    else if (m->has_copy) {
        w->control.nodes[i].is_watching[m->k] = true;
        if (w->plant != PLANT_COPY_NOT_TOLD || w->control.nodes[i].is_synced)
            send_want(w, i, v); // also before its inventory's end
    }
    moves_turn(w, m->k);
}

// ---- connections

static void ask_end(struct world *w, struct ask *a, int rc);

static void leave(struct world *w, int i)
{
    w->control.nodes[i].connection = 0;
    w->control.nodes[i].is_synced = false;
    for (int k = 0; k < VOLUMES; k++)
        w->control.nodes[i].is_watching[k] = false;
    for (int n = 0; n < ASKS && w->control.is_up; n++)
        if (w->control.asks[n].n && w->control.asks[n].node == i)
            ask_end(w, &w->control.asks[n], -E_UNAVAILABLE);
}

static void on_hello(struct world *w, int i, uint64_t connection)
{
    uint64_t old = w->control.nodes[i].connection;
    if (old) {
        leave(w, i);
        connection_close(w, old, UP, true);
    }
    w->control.nodes[i].connection = connection;
    trace(w, "control: %c is connected", NODE_LETTER(i));
    send_down(w, connection, message_new(MSG_WELCOME, -1));
}

static void on_inventory_end(struct world *w, int i)
{
    const struct uuid node = node_id(i);
    for (size_t n = 0; n < w->control.volumes.n; n++) {
        const struct volume *v = w->control.volumes.by_id[n];
        if (volume_concerns(v, &node) && (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE))
            send_want(w, i, v);
    }
    send_down(w, w->control.nodes[i].connection, message_new(MSG_WANT_END, -1));
    w->control.nodes[i].is_synced = true;
}

void control_on_closed(struct world *w, uint64_t connection)
{
    for (int i = 0; i < w->node_count; i++)
        if (w->control.nodes[i].connection == connection)
            leave(w, i);
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
    if (w->control.is_up && w->control.nodes[i].connection == connection)
        send_down(w, connection, m);
    else
        message_free(m);
}

static bool is_connected(const struct world *w, const struct uuid *node)
{
    int i = node_index(node);
    return i >= 0 && w->control.nodes[i].connection != 0;
}

static int acquire(struct world *w, int k, int from)
{
    struct error e = ERROR_INIT;
    const struct uuid node = node_id(from);
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, k);
    int rc = v ? decide_acquire(v, &node, is_connected(w, &v->target), &changed, &e) : -E_NOT_FOUND;
    return rc < 0 || !changed ? rc : control_put(w, changed);
}

static void ask_end(struct world *w, struct ask *a, int rc)
{
    const struct ask was = *a;
    const struct message asked = { .k = was.k, .n = was.from_n, .request = was.kind == OP_RELEASE ? REQUEST_ACQUIRE : REQUEST_REMOVE };
    a->n = 0;
    if (rc == 0 && was.kind == OP_RELEASE)
        rc = acquire(w, was.k, was.from);
    if (was.from >= 0 && w->control.is_up)
        reply(w, was.from, was.from_connection, &asked, rc);
}

static void on_ask_late(struct world *w, const struct event *ev)
{
    for (int n = 0; n < ASKS; n++)
        if (w->control.is_up && w->control.life == ev->life && w->control.asks[n].n == (int64_t)ev->n)
            ask_end(w, &w->control.asks[n], -E_TIMEOUT);
}

static int ask(struct world *w, int i, const struct ask *question)
{
    struct ask *a = w->control.asks;
    while (a->n && a < w->control.asks + ASKS - 1)
        a++;
    if (a->n || !w->control.nodes[i].connection || !w->control.nodes[i].is_synced)
        return -E_UNAVAILABLE;
    *a = *question;
    a->n = ++w->control.last_ask;
    a->node = i;
    a->connection = w->control.nodes[i].connection;
    post(w, a->kind == OP_RELEASE ? RELEASE_MS : REMOVE_MS, on_ask_late, i, 0, w->control.life, (uint64_t)a->n);
    struct message *m = message_new(MSG_ASK, a->k);
    m->ask = a->kind;
    m->n = a->n;
    send_down(w, a->connection, m);
    return 0;
}

static void on_reply(struct world *w, uint64_t connection, const struct message *m)
{
    for (int n = 0; n < ASKS; n++)
        if (w->control.asks[n].n && w->control.asks[n].n == m->n && w->control.asks[n].connection == connection) {
            ask_end(w, &w->control.asks[n], m->rc);
            return;
        }
}

// ---- requests of agents

enum { GOES_ON = 1 };

static int64_t wall_ms(const struct world *w)
{
    return 1000000 + w->now_ms;
}

static int put_new(struct world *w, int name, int owner, bool keep_mounted, int *ret_k)
{
    struct error e = ERROR_INIT;
    const struct volume *existing = NULL;
    struct volume *created = NULL;
    const struct volume_wish wish = { .name = name_text(name), .options = VOLUME_OPTIONS_DEFAULT, .owner = node_id(owner), .keep_mounted = keep_mounted };
    if (w->volume_count == w->volumes_max && !volume_set_find_name(&w->control.volumes, wish.name))
        return -E_TOO_LARGE;
    const struct uuid fresh = volume_id(w->volume_count < w->volumes_max ? w->volume_count : 0);
    int rc = decide_create(&w->control.volumes, &wish, &fresh, wall_ms(w), &created, &existing, &e);
    if (existing)
        *ret_k = volume_index(&existing->id);
    if (rc < 0)
        return existing ? 0 : rc;
    *ret_k = w->volume_count++;
    return control_put(w, created);
}

static int remove_volume(struct world *w, int k)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, k);
    int rc = v ? decide_remove(v, wall_ms(w), TRASH_MS, &changed, &e) : -E_NOT_FOUND;
    return rc < 0 ? rc : control_put(w, changed);
}

static int request_remove(struct world *w, int i, struct message *m)
{
    const struct volume *v = volume_of(w, m->k);
    if (!v)
        return -E_NOT_FOUND;
    if (node_index(&v->owner) == i)
        return remove_volume(w, m->k);
    const struct ask question = { .kind = OP_REMOVE, .k = m->k, .from = i, .from_connection = w->control.nodes[i].connection, .from_n = m->n };
    int rc = ask(w, node_index(&v->owner), &question);
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
    w->control.nodes[i].is_watching[volume_index(&v->id)] |= !volume_concerns(v, &node);
    send_want(w, i, v);
    return 0;
}

static int request_acquire(struct world *w, int i, struct message *m)
{
    struct error e = ERROR_INIT;
    const struct uuid node = node_id(i);
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, m->k);
    int rc = v ? decide_acquire(v, &node, is_connected(w, &v->target), &changed, &e) : -E_NOT_FOUND;
    bool is_wanted = changed != NULL;
    volume_free(changed);
    if (rc < 0 || !is_wanted)
        return rc;
    if (!v->born || uuid_equal(&v->owner, &node))
        return acquire(w, m->k, i);
    const struct ask question = { .kind = OP_RELEASE, .k = m->k, .from = i, .from_connection = w->control.nodes[i].connection, .from_n = m->n };
    rc = ask(w, node_index(&v->owner), &question);
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
    if (!w->control.is_up || (m->kind != MSG_HELLO && w->control.nodes[i].connection != connection && w->plant != PLANT_OLD_CONNECTION))
        return;
    switch (m->kind) {
    case MSG_HELLO:
        on_hello(w, i, connection);
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

// ---- users of the API

static void plant_move(const struct world *w, const struct volume *old, struct volume *changed)
{
    if (w->plant != PLANT_UNBORN_MOVES || !changed || old->born || uuid_equal(&changed->owner, &changed->target))
        return;
    changed->owner = changed->target;
    changed->epoch++;
}

static int wish_move(struct world *w, const struct volume *v, int target)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    const struct move_wish wish = { .target = node_id(target), .force = chance(w, 300), .keep_mounted = chance(w, 100) };
    int rc = v->epoch < EPOCHS ? decide_move(v, &wish, &changed, &e) : -E_TOO_LARGE;
    trace(w, "user: move v%d to %c%s", volume_index(&v->id), NODE_LETTER(target), wish.force ? ", by force" : "");
    plant_move(w, v, changed);
    return rc < 0 || !changed ? -E_CONFLICT : control_put(w, changed);
}

static int wish_elsewhere(struct world *w, const struct volume *v)
{
    return wish_move(w, v, chance_below(w, w->node_count));
}

static int wish_cancel(struct world *w, const struct volume *v)
{
    return move_is_open(v) ? wish_move(w, v, node_index(&v->owner)) : -E_CONFLICT;
}

static int wish_remove(struct world *w, const struct volume *v)
{
    trace(w, "user: remove v%d", volume_index(&v->id));
    if (chance(w, 500))
        return remove_volume(w, volume_index(&v->id)); // API v1
    const struct ask question = { .kind = OP_REMOVE, .k = volume_index(&v->id), .from = -1 };
    (void)ask(w, node_index(&v->owner), &question);
    return -E_TIMEOUT;
}

static int put_decided(struct world *w, const struct volume *v, struct volume *changed, int rc)
{
    if (rc == 0 && changed->revision == v->revision) {
        volume_free(changed);
        return 0;
    }
    return rc < 0 ? rc : control_put(w, changed);
}

static int wish_restore(struct world *w, const struct volume *v)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    int rc = decide_restore(&w->control.volumes, v, NULL, &changed, &e);
    trace(w, "user: restore v%d", volume_index(&v->id));
    return put_decided(w, v, changed, rc);
}

static int wish_purge(struct world *w, const struct volume *v)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    int rc = decide_purge(v, &changed, &e);
    trace(w, "user: purge v%d", volume_index(&v->id));
    if (rc == 0)
        w->truth[volume_index(&v->id)].may_go = true;
    return put_decided(w, v, changed, rc);
}

static int wish_resize(struct world *w, const struct volume *v)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    int rc = decide_resize(v, (uint64_t)(1 + chance_below(w, 8)) << 30, &changed, &e);
    return put_decided(w, v, changed, rc);
}

static int put_hold(struct world *w, const struct volume *v, int node)
{
    int k = volume_index(&v->id), was = w->control.holds[k];
    w->store.holds[k] = w->control.holds[k] = node;
    int told = node >= 0 ? node : was;
    trace(w, "user: v%d is held on %c", k, NODE_LETTER(node));
    if (told == node_index(&v->owner) && v->state != VOLUME_DELETED)
        tell(w, told, v);
    return 0;
}

static int wish_hold(struct world *w, const struct volume *v)
{
    return w->control.holds[volume_index(&v->id)] < 0 ? put_hold(w, v, chance_below(w, w->node_count)) : -E_CONFLICT;
}

static int wish_release(struct world *w, const struct volume *v)
{
    return w->control.holds[volume_index(&v->id)] >= 0 ? put_hold(w, v, -1) : 0;
}

// What was deleted long ago.
static int wish_forget(struct world *w, const struct volume *v)
{
    const struct uuid id = v->id;
    int k = volume_index(&id);
    if (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE)
        return -E_CONFLICT;
    w->truth[k].revision = 0;
    if (store_commit(w, k, NULL) < 0)
        return -E_IO;
    volume_set_remove(&w->control.volumes, &id);
    w->control.owners[k].is_here = w->control.others[k].is_here = false;
    return -E_NOT_FOUND;
}

static void wish_new(struct world *w)
{
    int k = -1;
    if (put_new(w, chance_below(w, NAMES), chance_below(w, w->node_count), chance(w, 100), &k) == 0)
        acknowledge(w, k);
}

void api_wish(struct world *w)
{
    static const struct {
        int weight;
        int (*run)(struct world *w, const struct volume *v);
    } wishes[] = {
        { 40, wish_elsewhere }, { 10, wish_cancel }, { 6, wish_remove }, { 10, wish_restore },
        { 2, wish_purge },      { 6, wish_resize },  { 4, wish_hold },   { 8, wish_release },  { 2, wish_forget },
    };
    if (!w->control.is_up)
        return;
    if (w->control.volumes.n == 0 || chance(w, 50)) {
        wish_new(w);
        return;
    }
    int pick = chance_below(w, 88);
    size_t n = 0, at = (size_t)chance_below(w, (int)w->control.volumes.n);
    if (chance(w, 500) && (size_t)w->last_wish < w->control.volumes.n)
        at = (size_t)w->last_wish; // who wishes one thing soon wishes another
    w->last_wish = (int)at;
    int k = volume_index(&w->control.volumes.by_id[at]->id);
    for (; pick >= wishes[n].weight; n++)
        pick -= wishes[n].weight;
    if (wishes[n].run(w, volume_of(w, k)) == 0)
        acknowledge(w, k);
}

// ---- the process

void control_crash(struct world *w)
{
    if (!w->control.is_up)
        return;
    trace(w, "control: dies");
    w->control.is_up = false;
    for (size_t n = 0; n < CONNECTIONS; n++)
        if (w->connections[n].id && w->connections[n].is_open[UP])
            connection_close(w, w->connections[n].id, UP, true);
    for (int i = 0; i < w->node_count; i++)
        leave(w, i);
}

// From the store alone.
void control_start(struct world *w)
{
    struct control *c = &w->control;
    if (c->is_up)
        return;
    volume_set_done(&c->volumes); // not when it died: who was in the middle of a call still looks at it
    *c = (struct control){ .is_up = true, .life = ++w->ids };
    trace(w, "control: starts");
    for (int k = 0; k < VOLUMES; k++) {
        const struct volume *v = w->store.volumes[k];
        c->holds[k] = w->store.holds[k];
        if (w->truth[k].revision > (v ? v->revision : 0))
            violation(w, "rule 2: v%d was acknowledged at revision %llu, the store has %llu", k, (unsigned long long)w->truth[k].revision,
                      (unsigned long long)(v ? v->revision : 0));
        if (v)
            volume_set_put(&c->volumes, volume_through_json(v));
    }
}
