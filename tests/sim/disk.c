// Disks and mount tables: what a worker's step does to them, as backend/backend.h says: in one step each, durable when it returns, done again
// without harm. Who calls it makes it fail, before or after.
#include "sim.h"

#include <string.h>

bool place_has_user(const struct world *w, int i, int k)
{
    for (int c = 0; c < CONTAINERS; c++)
        if (w->nodes[i].containers[c].state == CONTAINER_RUNNING && w->nodes[i].containers[c].k == k)
            return true;
    return false;
}

uint64_t place_newest(const struct place *p)
{
    return p->snapshot_count ? p->snapshots[p->snapshot_count - 1].number : 0;
}

struct snapshot *place_snapshot(struct place *p, uint64_t number)
{
    for (int s = 0; s < p->snapshot_count; s++)
        if (p->snapshots[s].number == number)
            return &p->snapshots[s];
    return NULL;
}

// A snapshot takes with it what was written and not synced: it is on disk from then on.
int place_take_snapshot(struct world *w, struct place *p, uint64_t number)
{
    if (!p->record)
        return -E_NOT_FOUND;
    if (place_snapshot(p, number))
        return 0;
    if (p->snapshot_count == SNAPSHOTS || number < place_newest(p)) {
        violation(w, "the simulator: snapshot %llu of %d", (unsigned long long)number, p->snapshot_count);
        return -E_IO;
    }
    p->snapshots[p->snapshot_count++] = (struct snapshot){ .number = number, .data = p->data };
    p->durable = p->data.n;
    return 0;
}

void place_drop_snapshots(struct place *p, uint64_t below)
{
    int gone = 0;
    while (gone < p->snapshot_count && p->snapshots[gone].number < below)
        gone++;
    p->snapshot_count -= gone;
    memmove(p->snapshots, p->snapshots + gone, (size_t)p->snapshot_count * sizeof *p->snapshots);
}

static void set_record(struct place *p, const struct volume *order)
{
    p->is_left &= p->record != NULL;
    volume_free(p->record);
    p->record = volume_through_json(order);
}

static void bring_up_to(const struct world *w, struct place *p, const struct volume *order)
{
    if (w->plant != PLANT_OLD_RECORD)
        set_record(p, order);
}

static int run_create(struct world *w, int i, int k, const struct volume *order)
{
    struct place *p = &w->nodes[i].places[k];
    if (p->record) {
        bring_up_to(w, p, order);
        return 0;
    }
    p->data.n = p->durable = 0;
    set_record(p, order);
    return 0;
}

static int run_update(struct world *w, int i, int k, const struct volume *order)
{
    struct place *p = &w->nodes[i].places[k];
    if (!p->record)
        return -E_NOT_FOUND;
    if (w->plant != PLANT_UNNOTED_SEAL || order->move.stage != MOVE_SEAL)
        set_record(p, order);
    return 0;
}

static int run_mount(struct world *w, int i, int k, const struct volume *order)
{
    struct place *p = &w->nodes[i].places[k];
    (void)order;
    if (!p->record)
        return -E_NOT_FOUND;
    bool was = p->mounted;
    p->mounted = true;
    if (!was)
        check_mounted(w, i, k);
    return 0;
}

static int run_unmount(struct world *w, int i, int k, const struct volume *order)
{
    (void)order;
    if (place_has_user(w, i, k) && w->plant != PLANT_LAZY_UNMOUNT)
        return -E_BUSY;
    w->nodes[i].places[k].mounted = false;
    return 0;
}

static int run_evict(struct world *w, int i, int k, const struct volume *order)
{
    (void)order;
    if (!place_has_user(w, i, k) && w->plant != PLANT_EVICT_SPINS)
        return -E_BUSY; // its engine has not given it back yet
    container_kill_users(w, i, k);
    return 0;
}

static int run_unseal(struct world *w, int i, int k, const struct volume *order)
{
    (void)order;
    place_drop_snapshots(&w->nodes[i].places[k], UINT64_MAX);
    return 0;
}

static int run_place(struct world *w, int i, int k, const struct volume *order)
{
    struct place *p = &w->nodes[i].places[k];
    if (p->record && p->record->epoch != order->epoch)
        return -E_CONFLICT;
    if (p->record) {
        bring_up_to(w, p, order);
        return 0;
    }
    if (!p->copy.number)
        return -E_NOT_FOUND;
    p->data = p->copy.data;
    p->durable = p->data.n;
    p->copy = (struct copy){ .is_here = false };
    p->lost_before_ms = w->plant == PLANT_PLACE_NOT_DURABLE ? w->now_ms + 30000 : 0;
    set_record(p, order);
    return 0;
}

static int run_discard(struct world *w, int i, int k, const struct volume *order)
{
    (void)order;
    w->nodes[i].places[k].copy = (struct copy){ .is_here = false };
    check_data(w, k);
    return 0;
}

static int run_destroy(struct world *w, int i, int k, const struct volume *order)
{
    struct place *p = &w->nodes[i].places[k];
    (void)order;
    if (!p->record)
        return 0;
    if (p->mounted || place_has_user(w, i, k))
        return -E_BUSY;
    check_destroyed(w, i, k);
    volume_free(p->record);
    p->record = NULL;
    p->data.n = p->durable = p->snapshot_count = 0;
    check_data(w, k);
    return 0;
}

static int run_seal(struct world *w, struct place *p, const struct volume *order, uint64_t *ret_number)
{
    uint64_t revision = w->plant == PLANT_NUMBER_REUSED ? 0 : order->revision;
    *ret_number = move_next_number(place_newest(p), revision);
    *ret_number += *ret_number == 0;
    return place_take_snapshot(w, p, *ret_number);
}

void place_run(struct world *w, int i, int k, enum step step, const struct volume *order, uint64_t *ret_number, int *ret_rc)
{
    static int (*const runs[STEP_COUNT])(struct world *w, int i, int k, const struct volume *order) = {
        [STEP_CREATE] = run_create, [STEP_UPDATE] = run_update,   [STEP_MOUNT] = run_mount, [STEP_UNMOUNT] = run_unmount, [STEP_EVICT] = run_evict,
        [STEP_UNSEAL] = run_unseal, [STEP_DESTROY] = run_destroy, [STEP_PLACE] = run_place, [STEP_DISCARD] = run_discard,
    };
    *ret_rc = step == STEP_SEAL ? run_seal(w, &w->nodes[i].places[k], order, ret_number) : runs[step](w, i, k, order);
}

// What was not made durable goes, or some of it.
void place_power_loss(struct world *w, int i, int k)
{
    struct place *p = &w->nodes[i].places[k];
    p->mounted = false;
    if (p->data.n > p->durable)
        p->data.n = p->durable + chance_below(w, p->data.n - p->durable + 1);
    p->durable = p->data.n;
    if (p->record && p->lost_before_ms > w->now_ms) {
        volume_free(p->record);
        p->record = NULL;
        p->data.n = p->durable = p->snapshot_count = 0;
    }
    check_data(w, k);
}
