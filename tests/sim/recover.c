// A store that is lost, and rebuilt from what the nodes have: src/control/recover.c, and who calls it.
#include "sim.h"

#include <string.h>

enum { TRASH_MS = 60000, PAGE = 2 };

// ---- what an agent answers: src/agent/inventory.c

json_t *inventory_page(struct world *w, int i, int after, bool *ret_more)
{
    json_t *records = json_array();
    *ret_more = false;
    for (int k = after + 1; k < VOLUMES; k++) {
        const struct agent_volume *v = volume_at(w, i, k);
        bool has_record = v->record && (v->step != STEP_DESTROY || w->plant == PLANT_RECOVER_DESTROYED);
        if (!has_record && !v->copy.is_here && !v->half_placed)
            continue;
        *ret_more = json_array_size(records) == PAGE;
        if (*ret_more)
            break;
        json_t *item = json_pack("{s:i}", "k", k);
        if (has_record)
            json_object_set_new(item, "volume", volume_to_json(v->record));
        if (w->plant == PLANT_PLACED_UNHEARD ? v->step == STEP_PLACE : v->half_placed)
            json_object_set_new(item, "placing", json_true());
        if (v->copy.is_here && v->copy.snapshot.number)
            json_object_set_new(item, "copy", move_snapshot_to_json(&v->copy.snapshot));
        if (v->mounted || v->unsure)
            json_object_set_new(item, "mounted", json_true());
        if (v->unsure || (v->mounted && agent_uses(w, i, k)))
            json_object_set_new(item, "in_use", json_true());
        json_array_append_new(records, item);
    }
    return records;
}

// ---- what nodes tell

void recovery_free(struct recovery *r)
{
    for (size_t n = 0; n < r->finds_n; n++)
        volume_free(r->finds[n].record);
    *r = (struct recovery){ .is_open = false };
}

static void read_find(struct recovery *r, int i, const json_t *item)
{
    struct error e = ERROR_INIT;
    const json_t *record = json_object_get(item, "volume");
    struct recover_find f = { .node = node_id(i), .placing = json_is_true(json_object_get(item, "placing")),
                              .mounted = json_is_true(json_object_get(item, "mounted")),
                              .in_use = json_is_true(json_object_get(item, "in_use")) };
    r->after[i] = (int)json_integer_value(json_object_get(item, "k"));
    f.id = volume_id(r->after[i]);
    int rc = move_snapshot_from_json(json_object_get(item, "copy"), &f.copy, &e);
    if (rc == 0 && record)
        rc = volume_from_json(record, &f.record, &e);
    ASSERT(rc == 0 && r->finds_n < ARRAY_SIZE(r->finds));
    r->finds[r->finds_n++] = f;
}

static void finish(struct world *w);

static int ask(struct world *w, int i)
{
    const struct ask question = { .kind = OP_RECORDS, .k = -1, .from = -1, .from_n = w->control.recovery.after[i] };
    return control_ask(w, i, &question);
}

void recover_on_records(struct world *w, int i, int rc, const struct message *m)
{
    struct recovery *r = &w->control.recovery;
    for (size_t n = 0; rc == 0 && n < json_array_size(m->records); n++)
        read_find(r, i, json_array_get(m->records, n));
    if (rc == 0 && m->more)
        rc = ask(w, i) == 0 ? 1 : -E_UNAVAILABLE;
    if (rc > 0)
        return;
    r->is_heard[i] = rc == 0 || w->plant == PLANT_RECOVER_UNHEARD;
    if (--r->under_way == 0)
        finish(w);
}

// ---- carrying it out

static void plant_finds(const struct world *w, struct recovery *r)
{
    for (size_t n = 0; n < r->finds_n; n++) {
        struct recover_find *f = &r->finds[n];
        for (size_t other = 0; other < r->finds_n && w->plant == PLANT_RECOVER_LOWER; other++)
            if (f->record && r->finds[other].record && uuid_equal(&f->id, &r->finds[other].id) && f->record->epoch > r->finds[other].record->epoch) {
                volume_free(f->record);
                f->record = NULL;
            }
        if (f->record && w->plant == PLANT_RECOVER_SEALED)
            f->record->move.stage = MOVE_NONE;
        f->placing &= w->plant != PLANT_RECOVER_PLACING;
    }
}

static void commit(struct world *w, const struct recover_outcome *outcomes, size_t n)
{
    struct volume *taken[VOLUMES];
    size_t count = 0;
    for (size_t at = 0; at < n; at++) {
        trace(w, "control: recovery: v%d: %s", volume_index(&w->control.recovery.finds[outcomes[at].first].id), recover_verdict_word(outcomes[at].verdict));
        if (outcomes[at].volume)
            taken[count++] = outcomes[at].volume;
    }
    w->recovering = w->control.recovery;
    if (count)
        (void)control_put_all(w, taken, count, -1);
    w->recovering = (struct recovery){ .is_open = false };
}

// Older data that an earlier recovery, or a node that was removed, has left is told from the newest only if all nodes are heard: people wait
// for them then (docs/STATUS.md, known faults).
static bool is_premature(const struct world *w)
{
    bool is_unheard = false, is_left = false;
    for (int i = 0; i < w->node_count; i++) {
        is_unheard |= !w->nodes[i].is_gone && !w->control.recovery.is_heard[i];
        for (int k = 0; k < VOLUMES; k++)
            is_left |= w->nodes[i].places[k].is_left;
    }
    return is_unheard && is_left;
}

static void note_unknown(struct world *w)
{
    const struct recovery *r = &w->control.recovery;
    for (int i = 0; i < w->node_count; i++)
        w->control.nodes[i].has_unknown &= !r->is_heard[i];
    for (size_t n = 0; n < r->finds_n; n++)
        w->control.nodes[node_index(&r->finds[n].node)].has_unknown |= !volume_set_find(&w->control.volumes, &r->finds[n].id);
}

static void on_restart(struct world *w, const struct event *ev)
{
    agent_crash(w, ev->node);
    agent_start(w, ev->node);
}

// As `flocker control recover` says of those that stay busy.
static void restart_busy(struct world *w, const struct recover_outcome *outcomes, size_t n)
{
    for (size_t at = 0; w->is_quiet && at < n; at++)
        if (outcomes[at].verdict == RECOVER_BUSY)
            post(w, 1000, on_restart, node_index(&outcomes[at].other), 0, 0, 0);
}

static void finish(struct world *w)
{
    struct recovery *r = &w->control.recovery;
    struct recover_outcome outcomes[NODES * VOLUMES];
    struct uuid heard[NODES];
    struct recover_input in = { .known = &w->control.volumes, .n = r->finds_n, .finds = r->finds, .heard = heard, .force = r->force,
                                .now_ms = wall_ms(w), .keep_ms = TRASH_MS };
    for (int i = 0; i < w->node_count; i++)
        if (r->is_heard[i])
            heard[in.heard_n++] = node_id(i);
    if (is_premature(w)) {
        recovery_free(r);
        return;
    }
    plant_finds(w, r);
    size_t n = recover_plan(&in, outcomes);
    restart_busy(w, outcomes, n);
    commit(w, outcomes, n);
    note_unknown(w);
    recovery_free(r);
}

static void recover_begin(struct world *w, bool force)
{
    struct recovery *r = &w->control.recovery;
    *r = (struct recovery){ .is_open = true, .force = force, .under_way = 1 };
    trace(w, "user: recover%s", force ? ", by force" : "");
    for (int i = 0; i < w->node_count; i++) {
        r->after[i] = -1;
        if (!w->control.nodes[i].is_removed && ask(w, i) == 0)
            r->under_way++;
    }
    if (--r->under_way == 0)
        finish(w);
}

// ---- people

static int silent(const struct world *w)
{
    int n = 0;
    for (int i = 0; i < w->node_count; i++)
        n += !w->nodes[i].is_gone && !w->control.nodes[i].is_synced;
    return n;
}

static void on_impatient(struct world *w, const struct event *ev)
{
    (void)ev;
    if (w->control.is_up && !w->control.recovery.is_open && silent(w) == 0)
        recover_begin(w, false);
}

// Some do not wait for a moment once all nodes are there.
void recover_soon(struct world *w)
{
    if (w->has_lost_store && !w->is_quiet && silent(w) == 0 && chance(w, 500))
        post(w, chance_below(w, 30), on_impatient, 0, 0, 0, 0);
}

// When all nodes are there; or sooner, some do it before that. By force for what waits for a node that will not come, or that is off.
static void on_recover(struct world *w, const struct event *ev)
{
    bool force = w->is_quiet ? w->now_ms - (int64_t)ev->n > 30000 : chance(w, 50);
    for (int i = 0; i < w->node_count; i++)
        force &= w->nodes[i].is_gone || w->control.nodes[i].is_synced || !w->nodes[i].is_on;
    if (w->control.is_up && !w->control.recovery.is_open && (silent(w) == 0 || chance(w, 100)))
        recover_begin(w, force);
    post(w, 1000 + chance_below(w, 10000), on_recover, 0, 0, 0, w->is_quiet && ev->n ? ev->n : (uint64_t)w->now_ms);
}

void store_lose(struct world *w)
{
    control_crash(w);
    trace(w, "control's store is lost");
    nodes_removed_go(w);
    for (int k = 0; k < VOLUMES; k++) {
        volume_free(w->store.volumes[k]);
        volume_free(w->pending.volumes[k]);
        w->store.volumes[k] = w->pending.volumes[k] = NULL;
        w->store.holds[k] = w->pending.holds[k] = -1;
        w->truth[k].revision = 0;
    }
    memset(w->store.is_removed, 0, sizeof w->store.is_removed);
    if (!w->has_lost_store)
        post(w, 1000 + chance_below(w, 10000), on_recover, 0, 0, 0, 0);
    w->has_lost_store = true;
}
