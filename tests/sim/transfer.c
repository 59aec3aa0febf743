// Fetches: what a worker of the target's agent and one of the source's do together (transfer/target.c, transfer/source.c), in four moments:
// it connects and is permitted, the source chooses, has read all of it, the target has it whole. Between any two either may die.
#include "sim.h"

#include <string.h>

#define REFRESH_MS 30000

static struct fetch *fetch_of(struct world *w, uint64_t id)
{
    for (size_t i = 0; id && i < FETCHES; i++)
        if (w->fetches[i].id == id)
            return &w->fetches[i];
    return NULL;
}

static void free_if_over(struct fetch *f)
{
    if (f->target_runs || f->source_runs || f->target_waits || f->source_waits)
        return;
    volume_free(f->order);
    *f = (struct fetch){ .id = 0 };
}

// ---- the ends, in their agents

static void note_copy(struct world *w, const struct fetch *f)
{
    struct agent_volume *v = &w->nodes[f->target].agent.volumes[f->k];
    struct move_snapshot s = { .number = f->seq, .final = f->final, .has_digest = true };
    memcpy(s.digest, f->digest, sizeof s.digest);
    v->copy.snapshot = snapshot_through_json(&s);
    v->copy.warm = move_is_warm(f->bytes, v->copy.last_bytes);
    v->copy.last_bytes = f->bytes;
    v->copy.due_ms = node_clock(w, f->target) + (v->copy.warm ? REFRESH_MS : 0);
    post(w, (v->copy.warm ? REFRESH_MS : 0) / 98 * 100 + 1, turn_due, f->target, f->k, f->target_life, 0);
}

static void on_fetched(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->target_waits)
        return;
    struct agent_volume *v = &w->nodes[ev->node].agent.volumes[ev->k];
    bool is_whole = f->is_whole;
    f->target_waits = false;
    v->fetch = 0;
    v->copy.is_here = true;
    if (is_whole)
        note_copy(w, f);
    free_if_over(f);
    turn_end_step(w, ev->node, ev->k, is_whole ? 0 : -E_UNAVAILABLE, 0);
}

static void end_target(struct world *w, struct fetch *f, bool is_whole)
{
    if (!f->target_runs)
        return;
    f->target_runs = false;
    f->is_whole = is_whole;
    post(w, 1 + chance_below(w, 5), on_fetched, f->target, f->k, 0, f->id);
}

// The digest is what lies beside the snapshot, also when this stream came to nothing: an earlier one may have got there.
static void note_snapshot(struct world *w, struct agent_volume *v, const struct fetch *f)
{
    const struct snapshot *s = place_snapshot(&w->nodes[f->source].places[f->k], f->seq);
    struct move_snapshot taken = { .number = f->seq, .has_digest = s && s->has_digest };
    if (w->plant == PLANT_DIGEST_LOST && !f->is_sent)
        taken.has_digest = false;
    if (taken.number < v->snapshot.number)
        return;
    if (taken.has_digest)
        memcpy(taken.digest, s->digest, sizeof taken.digest);
    taken.final = v->snapshot.final && taken.number == v->snapshot.number;
    v->snapshot = taken;
}

static void on_served(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->source_waits)
        return;
    struct agent_volume *v = &w->nodes[ev->node].agent.volumes[ev->k];
    f->source_waits = false;
    v->snapshots_unsure |= !f->is_noted && w->plant != PLANT_SILENT_SNAPSHOT;
    if (!f->is_noted && !v->snapshot.has_digest)
        v->sealed_revision = 0; // the target may have it already, and would not ask again: another one is taken
    if (f->is_noted && f->seq) {
        note_snapshot(w, v, f);
        turn_report(w, ev->node, ev->k);
    }
    free_if_over(f);
    turn(w, ev->node, ev->k);
}

// `is_noted`: it lives to tell its agent which snapshot it was.
static void end_source(struct world *w, struct fetch *f, int64_t delay_ms, bool is_noted)
{
    if (!f->source_runs)
        return;
    f->source_runs = false;
    f->is_noted = is_noted;
    if (f->source_waits)
        post(w, delay_ms, on_served, f->source, f->k, 0, f->id);
}

static bool is_connected(const struct world *w, const struct fetch *f)
{
    return f->target_runs && f->source_runs && is_reachable(w, f->target, f->source);
}

static void break_off(struct world *w, struct fetch *f)
{
    trace(w, "%c  the fetch of v%d from %c breaks off", NODE_LETTER(f->target), f->k, NODE_LETTER(f->source));
    end_target(w, f, false);
    end_source(w, f, 2, true);
}

// ---- the moments

static void hash_into(uint64_t *h, uint64_t x)
{
    *h = (*h ^ x) * 0x9e3779b97f4a7c15U;
    *h ^= *h >> 29;
}

// Of a stream: of what it brings, and of what it changes.
static void digest_of(const struct data *d, uint64_t base, uint8_t ret[MOVE_DIGEST_SIZE])
{
    uint64_t h = 1;
    hash_into(&h, base);
    for (int n = 0; n < d->n; n++)
        hash_into(&h, d->value[n]);
    for (size_t n = 0; n < MOVE_DIGEST_SIZE; n += sizeof h) {
        hash_into(&h, n);
        memcpy(ret + n, &h, sizeof h);
    }
}

static bool receive(struct world *w, struct fetch *f)
{
    struct copy *c = &w->nodes[f->target].places[f->k].copy;
    struct data d = f->data;
    uint8_t digest[MOVE_DIGEST_SIZE];
    if (f->base && c->number != f->base)
        return false;
    c->is_here = true;
    if (f->is_current) { // that it is the final one is not written down
        memcpy(f->digest, c->digest, sizeof f->digest);
        return true;
    }
    if (f->is_damaged && d.n)
        d.n--;
    digest_of(&d, f->base, digest);
    if (memcmp(digest, f->digest, sizeof digest) != 0 && w->plant != PLANT_NO_DIGEST)
        return false;
    *c = (struct copy){ .is_here = true, .number = f->seq, .final = f->final, .data = d };
    memcpy(c->digest, f->digest, sizeof c->digest);
    return true;
}

static void on_end_frame(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->target_runs)
        return;
    if (!is_reachable(w, f->target, f->source)) {
        break_off(w, f);
        return;
    }
    bool is_whole = receive(w, f);
    trace(w, "%c  fetch of v%d: snapshot %llx%s %s", NODE_LETTER(f->target), f->k, (unsigned long long)f->seq, f->final ? ", the final one," : "",
          is_whole ? "is here" : "is not what was sent");
    end_target(w, f, is_whole);
}

// All is read, and its digest kept beside the snapshot.
static void on_produced(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->source_runs)
        return;
    struct snapshot *s = place_snapshot(&w->nodes[f->source].places[f->k], f->seq);
    if (!s || !is_connected(w, f)) {
        break_off(w, f);
        return;
    }
    f->data = s->data;
    if (!f->is_current) {
        digest_of(&f->data, f->base, s->digest);
        s->has_digest = true;
    }
    if (!s->has_digest) {
        break_off(w, f);
        return;
    }
    memcpy(f->digest, s->digest, sizeof f->digest);
    f->is_damaged = fault(w, w->profile.damage);
    f->is_sent = true;
    end_source(w, f, chance_delay(w), !fault(w, w->profile.fail_step)); // or it dies before it has said what it did
    post(w, chance_delay(w), on_end_frame, f->target, f->k, 0, f->id);
}

static int choose(struct world *w, struct fetch *f)
{
    struct place *p = &w->nodes[f->source].places[f->k];
    const struct snapshot *base = f->base ? place_snapshot(p, f->base) : NULL;
    uint64_t newest = place_newest(p);
    int rc = 0;
    if (!base || !base->has_digest || memcmp(base->digest, f->base_digest, sizeof base->digest) != 0)
        f->base = 0;
    if (f->grant_final)
        f->seq = f->grant_final;
    else if (newest > f->base)
        f->seq = newest;
    else
        f->seq = newest + 1 > f->grant_first ? newest + 1 : f->grant_first;
    if (!f->grant_final && newest <= f->base)
        rc = place_take_snapshot(w, p, f->seq);
    if (rc < 0 || f->seq < f->base)
        return -E_CONFLICT;
    place_drop_snapshots(p, f->base ? f->base : f->seq);
    f->final = f->seq == f->grant_final;
    f->is_current = f->seq == f->base;
    const struct snapshot *s = place_snapshot(p, f->seq);
    f->bytes = s && !f->is_current ? (uint64_t)(s->data.n - (base && f->base ? base->data.n : 0)) << 24 : 0;
    return 0;
}

static void on_request(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->source_runs)
        return;
    f->is_told = true;
    if (fault(w, w->profile.fail_step))
        end_target(w, f, false); // it dies
    if (!is_connected(w, f) || choose(w, f) < 0 || w->nodes[f->target].places[f->k].record) { // the volume itself is there
        break_off(w, f);
        return;
    }
    w->nodes[f->target].places[f->k].copy.is_here = true;
    trace(w, "%c  serves v%d to %c: snapshot %llx against %llx%s", NODE_LETTER(f->source), f->k, NODE_LETTER(f->target), (unsigned long long)f->seq,
          (unsigned long long)f->base, f->final ? ", final" : "");
    post(w, chance_delay(w) + chance_below(w, 50), on_produced, f->source, f->k, 0, f->id);
}

// As peers.c does, by the orders that the worker was forked with.
static bool permit(struct world *w, struct fetch *f)
{
    const struct agent *a = &w->nodes[f->source].agent;
    const struct agent_volume *v = &a->volumes[f->k];
    const struct uuid id = volume_id(f->k), self = node_id(f->source), target = node_id(f->target);
    const struct volume *want = a->is_up && a->is_open ? volume_set_find(&a->wants, &id) : NULL;
    if (!want || !v->record || !uuid_equal(&want->owner, &self) || !move_is_open(want) || !uuid_equal(&want->target, &target))
        return false;
    if (f->order->epoch != want->epoch || v->record->epoch != want->epoch)
        return false;
    if (v->step == STEP_UNSEAL)
        return false;
    f->grant_final = v->sealed_revision == want->revision ? v->snapshot.number : 0;
    f->grant_first = move_next_number(0, w->plant == PLANT_NUMBER_REUSED ? 0 : want->revision);
    return true;
}

static void on_connect(struct world *w, const struct event *ev)
{
    struct fetch *f = fetch_of(w, ev->n);
    if (!f || !f->target_runs)
        return;
    if (!is_reachable(w, f->target, f->source) || !permit(w, f)) {
        end_target(w, f, false);
        return;
    }
    f->source_runs = f->source_waits = true;
    post(w, 1 + chance_delay(w), on_request, f->source, f->k, 0, f->id);
}

void fetch_start(struct world *w, int i, int k)
{
    struct agent_volume *v = &w->nodes[i].agent.volumes[k];
    const struct copy *c = &w->nodes[i].places[k].copy;
    struct fetch *f = w->fetches;
    while (f->id && f < w->fetches + FETCHES - 1)
        f++;
    ASSERT(!f->id);
    *f = (struct fetch){ .id = ++w->ids, .k = k, .target = i, .source = v->peer, .target_life = w->nodes[i].agent.life, .target_runs = true, .target_waits = true };
    f->order = volume_through_json(v->order);
    f->base = c->number;
    memcpy(f->base_digest, c->digest, sizeof f->base_digest);
    v->fetch = f->id;
    post(w, chance_delay(w), on_connect, i, k, 0, f->id);
}

void fetch_kill(struct world *w, uint64_t id)
{
    struct fetch *f = fetch_of(w, id);
    if (f)
        end_target(w, f, false);
}

// A worker that is killed says nothing: its agent doesn't know how far it was.
void peers_stop(struct world *w, int i, int k)
{
    for (size_t n = 0; n < FETCHES; n++) {
        struct fetch *f = &w->fetches[n];
        if (!f->id || f->source != i || f->k != k || !f->is_told || !f->source_runs)
            continue;
        end_target(w, f, false);
        end_source(w, f, 1, false);
    }
}

void fetches_die(struct world *w, int i)
{
    for (size_t n = 0; n < FETCHES; n++) {
        struct fetch *f = &w->fetches[n];
        if (f->id && f->source == i && f->source_waits) {
            f->source_waits = false;
            break_off(w, f); // the target finds the connection closed
            f->source_runs = false;
        }
        if (f->id && f->target == i)
            f->target_runs = f->target_waits = false;
        if (f->id)
            free_if_over(f);
    }
}
