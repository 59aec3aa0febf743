// The rules that never break (CONTRIBUTING.md), held against what is on the disks and what users were told.
#include "sim.h"

static bool is_writable(const struct world *w, int i, int k)
{
    return w->nodes[i].places[k].mounted || place_has_user(w, i, k);
}

// Rule 1: one writer, and that is the owner at the epoch of its record.
static void check_writers(struct world *w, int k)
{
    int writer = -1;
    for (int i = 0; i < w->node_count; i++) {
        const struct volume *r = w->nodes[i].places[k].record;
        if (w->truth[k].given_up[i] || !is_writable(w, i, k))
            continue;
        if (writer >= 0)
            violation(w, "rule 1: v%d is mounted on %c and %c", k, NODE_LETTER(writer), NODE_LETTER(i));
        writer = i;
        if (!r)
            violation(w, "rule 1: v%d is mounted on %c, which has no record of it", k, NODE_LETTER(i));
        else if (r->epoch >= ARRAY_SIZE(w->truth[k].owners) || w->truth[k].owners[r->epoch] != i)
            violation(w, "rule 1: v%d is mounted on %c, which was not its owner at epoch %llu", k, NODE_LETTER(i), (unsigned long long)r->epoch);
    }
}

void check_step(struct world *w)
{
    for (int k = 0; k < w->volume_count; k++)
        check_writers(w, k);
    for (int i = 0; i < w->node_count; i++)
        if (w->store.is_removed[i] && w->control.is_up && w->control.nodes[i].peer)
            violation(w, "%c was removed, and is connected", NODE_LETTER(i));
}

// All that was acknowledged, as the first values.
static bool has_acknowledged(const struct world *w, int k, const struct data *d, int n)
{
    const struct data *a = &w->truth[k].acknowledged;
    if (a->n > n)
        return false;
    for (int at = 0; at < a->n; at++)
        if (a->value[at] != d->value[at])
            return false;
    return true;
}

static bool has_it_durable(const struct world *w, int i, int k)
{
    const struct place *p = &w->nodes[i].places[k];
    if (p->record && has_acknowledged(w, k, &p->data, p->durable))
        return true;
    return p->copy.number && has_acknowledged(w, k, &p->copy.data, p->copy.data.n);
}

// Rule 5: somewhere it all is, unless a user wanted it gone.
void check_data(struct world *w, int k)
{
    if (!w->truth[k].acknowledged.n || w->truth[k].may_go)
        return;
    for (int i = 0; i < w->node_count; i++)
        if (!w->truth[k].given_up[i] && has_it_durable(w, i, k))
            return;
    violation(w, "rule 5: the data of v%d is nowhere any more", k);
}

// Rule 3: it is all there where it can be used next.
void check_mounted(struct world *w, int i, int k)
{
    const struct place *p = &w->nodes[i].places[k];
    if (w->truth[k].given_up[i])
        return;
    if (!has_acknowledged(w, k, &p->data, p->data.n))
        violation(w, "rule 3: v%d is mounted on %c without all of its %d values", k, NODE_LETTER(i), w->truth[k].acknowledged.n);
    if (p->promised_ms > w->now_ms)
        violation(w, "v%d is mounted on %c, which has promised it to another node", k, NODE_LETTER(i));
}

void check_acknowledged(struct world *w, int i, int k)
{
    const struct place *p = &w->nodes[i].places[k];
    if (w->truth[k].given_up[i])
        return;
    if (!has_acknowledged(w, k, &p->data, p->data.n))
        violation(w, "rule 3: v%d is written on %c without all of its %d values", k, NODE_LETTER(i), w->truth[k].acknowledged.n);
    w->truth[k].acknowledged = p->data;
}

// Rule 5: by a purge, or when a newer owner has all of it, durable.
void check_destroyed(struct world *w, int i, int k)
{
    const struct volume *mine = w->nodes[i].places[k].record;
    if (w->truth[k].may_go || w->truth[k].given_up[i] || !w->truth[k].acknowledged.n)
        return;
    for (int n = 0; n < w->node_count; n++) {
        const struct place *p = &w->nodes[n].places[k];
        if (n != i && !w->truth[k].given_up[n] && p->record && p->record->epoch > mine->epoch && has_acknowledged(w, k, &p->data, p->durable))
            return;
    }
    violation(w, "rule 5: %c destroys v%d, which nobody wanted gone and no newer owner has whole", NODE_LETTER(i), k);
}

// ---- the end

static bool is_settled_at(const struct world *w, int i, int k, const struct volume *v, char why[200])
{
    const struct place *p = &w->nodes[i].places[k];
    bool mine = node_index(&v->owner) == i && v->state != VOLUME_DELETED;
    const char *left = NULL;
    bool is_kept = p->is_left || (w->store.is_removed[node_index(&v->owner)] && node_index(&v->move.source) == i);
    if (w->store.is_removed[i] || w->nodes[i].is_gone)
        return true;
    if (mine && v->state == VOLUME_TRASHED && !v->born)
        return true; // it was perhaps begun: what there is goes with the purge
    if (p->snapshot_count && !is_kept)
        left = "a snapshot";
    else if (p->copy.is_here && !w->has_lost_store)
        left = "a part of a copy";
    else if (p->record && !mine && !is_kept)
        left = "data";
    else if (mine && !p->record)
        left = "no data";
    else if (mine && (p->record->epoch != v->epoch || p->record->revision != v->revision))
        left = "an old record";
    else if (mine && v->keep_mounted && v->state == VOLUME_LIVE && !p->mounted)
        left = "no mount, which should be kept,";
    else if (p->mounted && !is_kept && !(mine && v->keep_mounted && v->state == VOLUME_LIVE))
        left = "a mount";
    if (left)
        snprintf(why, 200, "%c has %s of v%d", NODE_LETTER(i), left, k);
    return !left;
}

// What any agent has a record of is known again after the store was lost.
static bool is_taken_in(const struct world *w, int k, char why[200])
{
    for (int i = 0; i < w->node_count; i++)
        if (w->has_lost_store && !w->nodes[i].is_gone && w->nodes[i].agent.volumes[k].record) {
            snprintf(why, 200, "v%d, which %c has, is not known to control", k, NODE_LETTER(i));
            return false;
        }
    return true;
}

bool check_settled(struct world *w, char why[200])
{
    for (int k = 0; k < w->volume_count; k++) {
        const struct volume *v = w->store.volumes[k];
        if (!v && !is_taken_in(w, k, why))
            return false;
        if (!v)
            continue; // control has forgotten it: what a node that was off since has of it is kept, and told
        bool is_lost = w->store.is_removed[node_index(&v->owner)] && v->move.stage == MOVE_SETTLE; // its source keeps what it has
        bool stays = (v->move.stage == MOVE_NONE || is_lost) && uuid_equal(&v->owner, &v->target) && v->state != VOLUME_PURGING;
        if (!stays) {
            snprintf(why, 200, "v%d is %s, %s, owner %c, target %c", k, volume_state_word(v->state), move_stage_word(v->move.stage),
                     NODE_LETTER(node_index(&v->owner)), NODE_LETTER(node_index(&v->target)));
            return false;
        }
        for (int i = 0; i < w->node_count; i++)
            if (!is_settled_at(w, i, k, v, why))
                return false;
    }
    return true;
}
