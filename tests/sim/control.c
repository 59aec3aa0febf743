// Control: the store, and what src/control/control.c and moves.c do, without sockets. The store commits a change whole or not at all; a crash
// comes before or after.
#include "sim.h"

struct volume *volume_of(struct world *w, int k)
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

// What counts from now on, for check.c too.
static void store_carry_out(struct world *w, struct volume *const *changed, size_t n, int removed)
{
    if (removed >= 0)
        check_node_gone(w, removed, changed, n);
    for (size_t at = 0; at < n; at++) {
        const struct volume *v = changed[at];
        int k = volume_index(&v->id);
        if (w->recovering.is_open)
            check_recovered(w, &w->recovering, v);
        if (w->store.volumes[k] && !uuid_equal(&w->store.volumes[k]->owner, &v->owner))
            w->truth[k].given_up[node_index(&v->owner)] = false; // by a move that has brought all of it
        if (v->epoch < ARRAY_SIZE(w->truth[k].owners))
            w->truth[k].owners[v->epoch] = node_index(&v->owner);
        if (v->move.stage == MOVE_SETTLE && (!w->store.volumes[k] || w->store.volumes[k]->move.stage == MOVE_SEAL))
            w->truth[k].switched = w->truth[k].acknowledged;
        if (w->plant == PLANT_STORE_NOT_DURABLE) {
            store_set(&w->pending, k, v);
            post(w, 300, on_durable, 0, k, w->control.life, 0);
        } else
            store_set(&w->store, k, v);
    }
    if (removed >= 0)
        w->store.is_removed[removed] = true;
}

static int store_fault(struct world *w)
{
    if (!fault(w, w->profile.crash_control / 2))
        return 0;
    control_crash(w);
    return -E_UNAVAILABLE;
}

static int store_commit(struct world *w, struct volume *const *changed, size_t n, int removed)
{
    if (fault(w, w->profile.fail_commit))
        return -E_IO;
    if (store_fault(w) < 0)
        return -E_UNAVAILABLE;
    store_carry_out(w, changed, n, removed);
    return store_fault(w);
}

int store_forget(struct world *w, int k)
{
    if (fault(w, w->profile.fail_commit))
        return -E_IO;
    store_set(&w->store, k, NULL);
    return 0;
}

void acknowledge(struct world *w, int k)
{
    const struct volume *v = volume_of(w, k);
    if (w->control.is_up && v)
        w->truth[k].revision = v->revision;
}

// ---- what nodes say

struct move_part part_of(const struct world *w, const struct sighting *s)
{
    struct move_part part = { .known = false };
    const struct control_node *n = &w->control.nodes[s->node];
    if (s->is_here && ((n->peer && !n->is_removed && s->connection >= n->known_since) || w->plant == PLANT_OLD_CONNECTION))
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

uint64_t sealed_number(const struct world *w, const struct volume *v)
{
    const struct move_part owner = part_of_owner(w, v);
    return v->move.stage == MOVE_SEAL && owner.known && owner.snapshot.final && owner.revision == v->revision ? owner.snapshot.number : 0;
}

bool moves_lacks_data(const struct world *w, const struct volume *v)
{
    const struct move_part owner = part_of_owner(w, v);
    return owner.known && owner.missing;
}

struct uuid other_node(const struct volume *v)
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

// ---- changes

static void publish(struct world *w, struct volume *v /* taken */)
{
    int k = volume_index(&v->id);
    AUTO(volume_free) struct volume *old = volume_of(w, k) ? volume_copy(volume_of(w, k)) : NULL;
    trace(w, "control: v%d is %s, owner %c, target %c, epoch %llu, revision %llx, %s%s", k, volume_state_word(v->state),
          NODE_LETTER(node_index(&v->owner)), NODE_LETTER(node_index(&v->target)), (unsigned long long)v->epoch,
          (unsigned long long)v->revision, move_stage_word(v->move.stage), v->born ? "" : ", not born");
    volume_set_put(&w->control.volumes, v);
    const struct volume *now = volume_of(w, k);
    sort_sightings(w, now);
    tell_all(w, now, old);
    moves_turn(w, k);
    absence_turn(w, k);
}

int control_put(struct world *w, struct volume *changed)
{
    return control_put_all(w, &changed, 1, -1);
}

int control_put_all(struct world *w, struct volume **changed, size_t n, int removed)
{
    for (size_t at = 0; at < n && w->plant == PLANT_TOLD_EARLY; at++)
        tell_early(w, changed[at]);
    int rc = store_commit(w, changed, n, removed);
    if (rc == 0 && removed >= 0) {
        w->control.nodes[removed].is_removed = true;
        trace(w, "control: %c is removed from the cluster", NODE_LETTER(removed));
    }
    for (size_t at = 0; at < n; at++)
        if (rc == 0 && w->control.is_up)
            publish(w, changed[at]);
        else
            volume_free(changed[at]);
    return rc < 0 || w->control.is_up ? rc : -E_UNAVAILABLE;
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

void moves_turn(struct world *w, int k)
{
    const struct volume *v = volume_of(w, k);
    struct volume *changed = NULL;
    if (!w->control.is_up || !v || (v->move.stage == MOVE_NONE && uuid_equal(&v->owner, &v->target)))
        return;
    if (w->move_turns > 100) {
        violation(w, "control changes v%d again and again", k);
        return;
    }
    struct move_part owner = part_of_owner(w, v), other = part_of(w, &w->control.others[k]);
    plant_parts(w, v, &owner, &other);
    decide_move_next(v, &owner, &other, &changed);
    w->move_turns++;
    if (changed && control_put(w, changed) < 0)
        reports_again_later(w);
    w->move_turns--;
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
        peer_leave(w, i);
}

void control_free(struct control *c)
{
    volume_set_done(&c->volumes);
    recovery_free(&c->recovery);
    for (int i = 0; i < NODES; i++)
        id_set_done(&c->nodes[i].due);
}

// From the store alone.
void control_start(struct world *w)
{
    struct control *c = &w->control;
    if (c->is_up)
        return;
    control_free(c); // not when it died: who was in the middle of a call still looks at it
    *c = (struct control){ .is_up = true, .life = ++w->ids };
    c->instance = (struct uuid){ { 0xcc, [6] = 0x40, [8] = 0x80, [13] = (uint8_t)(c->life >> 16), [14] = (uint8_t)(c->life >> 8), [15] = (uint8_t)c->life } };
    trace(w, "control: starts");
    for (int i = 0; i < NODES; i++)
        c->nodes[i].is_removed = w->store.is_removed[i];
    for (int k = 0; k < VOLUMES; k++) {
        const struct volume *v = w->store.volumes[k];
        c->holds[k] = w->store.holds[k];
        if (w->truth[k].revision > (v ? v->revision : 0))
            violation(w, "rule 2: v%d was acknowledged at revision %llu, the store has %llu", k, (unsigned long long)w->truth[k].revision,
                      (unsigned long long)(v ? v->revision : 0));
        if (v)
            volume_set_put(&c->volumes, volume_through_json(v));
    }
    for (int k = 0; k < VOLUMES && w->plant != PLANT_PURGE_FORGOTTEN; k++)
        absence_turn(w, k);
}
