// A node that is taken out of the cluster for good: what src/control/absence.c and enrol.c do.
#include "sim.h"

bool absence_is_for_good(const struct world *w, const struct volume *v)
{
    return w->control.nodes[node_index(&v->owner)].is_removed;
}

void absence_turn(struct world *w, int k)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, k);
    if (!w->control.is_up || !v || v->state != VOLUME_PURGING || !absence_is_for_good(w, v))
        return;
    if (decide_destroyed(v, &v->owner, &changed, &e) < 0 || control_put(w, changed) < 0)
        reports_again_later(w);
}

static struct volume *judge(const struct world *w, int i, const struct volume *v)
{
    const struct uuid node = node_id(i);
    struct move_part copy = part_of(w, &w->control.others[volume_index(&v->id)]);
    struct volume *changed = NULL;
    if (w->plant == PLANT_GONE_COPY_LOST)
        copy.known = false;
    if (w->plant == PLANT_GONE_ANY_COPY) {
        copy.snapshot.final = copy.snapshot.has_digest;
        copy.snapshot.number = UINT64_MAX;
    }
    decide_node_gone(v, &node, &copy, &changed);
    if (w->plant == PLANT_GONE_NOT_BACK && changed && v->move.stage == MOVE_SETTLE && uuid_equal(&changed->owner, &v->move.source))
        changed->owner = changed->target = v->owner;
    return changed;
}

static void expel(struct world *w, int i)
{
    uint64_t was = w->control.nodes[i].peer;
    if (!was || w->plant == PLANT_REMOVED_HEARD)
        return;
    peer_leave(w, i);
    connection_close(w, was, UP, true);
}

int absence_remove_node(struct world *w, int i)
{
    struct volume *changed[VOLUMES];
    size_t n = 0;
    if (w->control.recovery.is_open && w->plant != PLANT_GONE_AMID_RECOVERY)
        return -E_BUSY;
    for (size_t at = 0; at < w->control.volumes.n; at++) {
        changed[n] = judge(w, i, w->control.volumes.by_id[at]);
        n += changed[n] != NULL;
    }
    int rc = control_put_all(w, changed, n, i);
    if (rc == 0)
        expel(w, i);
    return rc;
}

// Without --force it has to have no part in any volume.
bool node_is_unused(const struct world *w, int i)
{
    const struct uuid node = node_id(i);
    for (size_t at = 0; at < w->control.volumes.n; at++) {
        const struct volume *v = w->control.volumes.by_id[at];
        if (volume_concerns(v, &node) && (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE))
            return false;
    }
    if (w->has_lost_store && !w->control.nodes[i].is_synced)
        return false; // people wait until it has told what it has
    return !w->control.nodes[i].has_unknown || w->plant == PLANT_GONE_UNKNOWN;
}
