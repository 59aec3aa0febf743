// Users of the API: what they wish, and what src/control/api_v1.c and api_v2.c make of it.
#include "sim.h"

enum { TRASH_MS = 60000, EPOCHS = 60 };

int64_t wall_ms(const struct world *w)
{
    return 1000000 + w->now_ms;
}

int put_new(struct world *w, int name, int owner, bool keep_mounted, int *ret_k)
{
    struct error e = ERROR_INIT;
    const struct volume *existing = NULL;
    struct volume *created = NULL;
    const struct volume_wish wish = { .name = name_text(name), .options = VOLUME_OPTIONS_DEFAULT, .owner = node_id(owner), .keep_mounted = keep_mounted };
    if (!node_takes_volumes(w, owner))
        return -E_CONFLICT;
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

int remove_volume(struct world *w, int k)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    const struct volume *v = volume_of(w, k);
    int rc = v ? decide_remove(v, wall_ms(w), TRASH_MS, &changed, &e) : -E_NOT_FOUND;
    return rc < 0 ? rc : control_put(w, changed);
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
    const struct move_wish wish = { .target = node_id(target), .force = chance(w, 300), .keep_mounted = chance(w, 100),
                                    .owner_lacks_data = moves_lacks_data(w, v) };
    if (absence_is_for_good(w, v))
        return -E_NOT_FOUND;
    if (!node_takes_volumes(w, target) && node_index(&v->owner) != target)
        return -E_CONFLICT;
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
    if (chance(w, 500) || absence_is_for_good(w, v))
        return remove_volume(w, volume_index(&v->id)); // API v1
    const struct ask question = { .kind = OP_REMOVE, .k = volume_index(&v->id), .from = -1 };
    (void)control_ask(w, node_index(&v->owner), &question);
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
    if (node < 0)
        moves_turn(w, k); // a move may have waited for it
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
    if (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE || w->control.recovery.is_open) // which may have begun before that
        return -E_CONFLICT;
    w->truth[k].revision = 0;
    if (store_forget(w, k) < 0)
        return -E_IO;
    nodes_forget_volume(w, k);
    volume_set_remove(&w->control.volumes, &id);
    w->control.owners[k].is_here = w->control.others[k].is_here = false;
    return -E_NOT_FOUND;
}

// Where data is left that no longer counts nothing can move to.
static int wish_possible(struct world *w, const struct volume *v)
{
    const struct place *p = &w->nodes[node_index(&v->target)].places[volume_index(&v->id)];
    return p->is_left && !uuid_equal(&v->owner, &v->target) ? wish_move(w, v, node_index(&v->owner)) : 0;
}

void api_release_all(struct world *w)
{
    for (int k = 0; k < w->volume_count; k++) {
        if (volume_of(w, k) && w->control.is_up)
            (void)wish_release(w, volume_of(w, k));
        if (volume_of(w, k) && w->control.is_up)
            (void)wish_possible(w, volume_of(w, k));
    }
}

// By force mostly, of a host that is off for good; or that its user takes for that.
static void wish_node_gone(struct world *w)
{
    int i = chance_below(w, w->node_count), members = 0;
    for (int n = 0; n < w->node_count; n++)
        members += node_takes_volumes(w, n);
    bool force = chance(w, 700);
    if (members < 2 || !node_takes_volumes(w, i) || (!force && !node_is_unused(w, i)))
        return;
    if (w->nodes[i].is_on && chance(w, 700))
        node_power_off(w, i);
    w->is_forced = force;
    trace(w, "user: remove node %c%s", NODE_LETTER(i), force ? ", by force" : "");
    if (absence_remove_node(w, i) == 0 && chance(w, 500))
        node_join_later(w, i);
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
    } wishes[WISHES] = {
        { 40, wish_elsewhere }, { 10, wish_cancel }, { 6, wish_remove }, { 10, wish_restore },
        { 2, wish_purge },      { 6, wish_resize },  { 4, wish_hold },   { 8, wish_release },  { 2, wish_forget },
    };
    if (!w->control.is_up)
        return;
    if (chance(w, w->profile.node_gone)) {
        wish_node_gone(w);
        return;
    }
    if (w->control.volumes.n == 0 || chance(w, 50)) {
        wish_new(w);
        return;
    }
    int pick, sum = 0;
    for (size_t i = 0; i < WISHES; i++)
        sum += wishes[i].weight * w->profile.wishes[i];
    pick = chance_below(w, sum);
    size_t n = 0, at = (size_t)chance_below(w, (int)w->control.volumes.n);
    if (chance(w, 500) && (size_t)w->last_wish < w->control.volumes.n)
        at = (size_t)w->last_wish; // who wishes one thing soon wishes another
    w->last_wish = (int)at;
    int k = volume_index(&w->control.volumes.by_id[at]->id);
    for (; pick >= wishes[n].weight * w->profile.wishes[n]; n++)
        pick -= wishes[n].weight * w->profile.wishes[n];
    if (wishes[n].run(w, volume_of(w, k)) == 0)
        acknowledge(w, k);
}
