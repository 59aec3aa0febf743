// What may be lost, and nothing more: when a node is taken out of the cluster by force, and when control's store is lost (README, "When a host or
// the control service is lost").
#include "sim.h"

static bool begins_with(const struct data *d, int n, const struct data *with)
{
    if (with->n > n)
        return false;
    for (int at = 0; at < with->n; at++)
        if (d->value[at] != with->value[at])
            return false;
    return true;
}

// What it can be used with next on that node.
static struct data durable_at(const struct world *w, int i, int k)
{
    const struct place *p = &w->nodes[i].places[k];
    struct data d = p->record ? p->data : p->copy.data;
    if (p->record)
        d.n = p->durable;
    return d;
}

// Control has been told that all of it is there, and it is.
static bool is_whole_elsewhere(const struct world *w, int k, const struct volume *v)
{
    const struct move_part part = part_of(w, &w->control.others[k]);
    const struct copy *c = &w->nodes[node_index(&v->target)].places[k].copy;
    return v->move.stage == MOVE_SEAL && part.known && part.snapshot.final && part.snapshot.has_digest && c->final && c->number == part.snapshot.number &&
           c->number >= move_next_number(0, v->revision);
}

// Nobody has it any more: it must not have been anywhere.
static void check_given_up(struct world *w, int i, int k, const struct volume *before)
{
    const struct volume_move *m = &before->move;
    if (before->state == VOLUME_PURGING)
        return;
    if (is_whole_elsewhere(w, k, before))
        violation(w, "%c is removed, and v%d is given up although %c has all of it", NODE_LETTER(i), k, NODE_LETTER(node_index(&before->target)));
    if (m->stage == MOVE_SETTLE && !w->truth[k].given_up[node_index(&m->source)])
        violation(w, "%c is removed, and v%d is given up although %c still has it as it was when it moved", NODE_LETTER(i), k,
                  NODE_LETTER(node_index(&m->source)));
    w->truth[k].may_go = true;
}

// Its copy must be all of it; who gets it back must have it as it was when it moved: what was written since is lost.
static void check_rescued(struct world *w, int k, const struct volume *before, const struct volume *after)
{
    int heir = node_index(&after->owner);
    const struct data has = durable_at(w, heir, k);
    const struct data *must = before->move.stage == MOVE_SETTLE ? &w->truth[k].switched : &w->truth[k].acknowledged;
    if (w->truth[k].given_up[heir])
        violation(w, "v%d goes to %c, which was removed before", k, NODE_LETTER(heir));
    if (!w->truth[k].may_go && !begins_with(&has, has.n, must))
        violation(w, "v%d is %c's, without all of its %d values", k, NODE_LETTER(heir), must->n);
    if (before->move.stage == MOVE_SETTLE)
        w->truth[k].acknowledged = w->truth[k].switched;
}

static bool has_all(const struct world *w, int i, int k)
{
    const struct data d = durable_at(w, i, k);
    const struct place *p = &w->nodes[i].places[k];
    return (p->record || p->copy.number) && !w->truth[k].given_up[i] && begins_with(&d, d.n, &w->truth[k].acknowledged);
}

// What is just being removed, by an order of before, is as good as gone.
static bool is_anywhere(const struct world *w, int k)
{
    for (int i = 0; i < w->node_count; i++) {
        enum step step = w->nodes[i].agent.volumes[k].step;
        if (has_all(w, i, k) && step != (w->nodes[i].places[k].record ? STEP_DESTROY : STEP_DISCARD))
            return true;
    }
    return false;
}

void check_node_gone(struct world *w, int i, struct volume *const *changed, size_t n)
{
    for (int k = 0; k < VOLUMES; k++) {
        const struct volume *before = w->store.volumes[k], *after = before;
        for (size_t at = 0; at < n; at++)
            after = volume_index(&changed[at]->id) == k ? changed[at] : after;
        w->truth[k].given_up[i] = true;
        if (!before && w->has_lost_store && w->is_forced && !is_anywhere(w, k))
            w->truth[k].may_go = true; // control did not know it, and it was only there
        if (!before || node_index(&before->owner) != i)
            continue;
        if (node_index(&after->owner) == i)
            check_given_up(w, i, k, before);
        else
            check_rescued(w, k, before, after);
    }
    for (int k = 0; k < VOLUMES; k++)
        check_data(w, k);
}

// ---- a store that is rebuilt

// Who was not heard does not count any more where it was done by force: what only that node has is lost.
static void give_up_unheard(struct world *w, int k, int owner, const bool *is_heard)
{
    for (int i = 0; i < w->node_count; i++)
        w->truth[k].given_up[i] |= i != owner && !is_heard[i];
}

void check_recovered(struct world *w, const struct recovery *r, const struct volume *v)
{
    int k = volume_index(&v->id), owner = node_index(&v->owner);
    const struct data has = durable_at(w, owner, k);
    if (r->force)
        give_up_unheard(w, k, owner, r->is_heard);
    for (int i = 0; i < w->node_count && !w->truth[k].may_go && !has_all(w, owner, k); i++)
        if (i != owner && has_all(w, i, k) && (!r->force || w->nodes[i].places[k].record)) // by force also older data than a copy's
            violation(w, "v%d is taken in at %c, although %c has all of its %d values", k, NODE_LETTER(owner), NODE_LETTER(i), w->truth[k].acknowledged.n);
    if (r->force || w->truth[k].may_go)
        w->truth[k].acknowledged = w->truth[k].switched = has;
    for (int i = 0; i < w->node_count; i++)
        w->nodes[i].places[k].is_left = i != owner && w->nodes[i].places[k].record;
}
