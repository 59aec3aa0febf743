// Time, chance, the trace; the life of a world.
#include "sim.h"

#include <stdarg.h>
#include <string.h>

// ---- chance: SplitMix64 (Steele, Lea, Flood 2014)

uint64_t chance_next(struct world *w)
{
    uint64_t x = w->random += 0x9e3779b97f4a7c15U;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

int chance_below(struct world *w, int n)
{
    return (int)(chance_next(w) % (uint64_t)n);
}

bool chance(struct world *w, int per_mille)
{
    return chance_below(w, 1000) < per_mille;
}

int64_t chance_delay(struct world *w)
{
    if (!w->is_quiet && chance(w, w->profile.slow_worker))
        return 100 + chance_below(w, 30000);
    return 1 + chance_below(w, chance(w, 100) ? 400 : 20);
}

bool fault(struct world *w, int per_mille)
{
    bool now = !w->is_quiet && chance(w, per_mille);
    w->faults += now;
    return now;
}

// ---- events

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

void post(struct world *w, int64_t delay_ms, void (*run)(struct world *w, const struct event *ev), int node, int k, uint64_t life, uint64_t n)
{
    struct event ev = { w->now_ms + delay_ms, w->order++, run, node, k, life, n };
    if (w->event_count == w->event_room) {
        w->event_room = w->event_room ? 2 * w->event_room : 256;
        w->events = xrealloc(w->events, w->event_room, sizeof *w->events);
    }
    size_t at = w->event_count++;
    while (at && is_before(&ev, &w->events[(at - 1) / 2])) {
        w->events[at] = w->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->events[at] = ev;
}

static struct event take_event(struct world *w)
{
    struct event first = w->events[0], last = w->events[--w->event_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < w->event_count) {
        child += child + 1 < w->event_count && is_before(&w->events[child + 1], &w->events[child]);
        if (!is_before(&w->events[child], &last))
            break;
        w->events[at] = w->events[child];
        at = child;
    }
    w->events[at] = last;
    return first;
}

// ---- trace

void trace(struct world *w, const char *fmt, ...)
{
    va_list args;
    if (!w->is_traced)
        return;
    printf("%10.3f  ", (double)w->now_ms / 1000);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

void violation(struct world *w, const char *fmt, ...)
{
    va_list args;
    if (w->is_failed)
        return;
    w->is_failed = true;
    va_start(args, fmt);
    vsnprintf(w->failure, sizeof w->failure, fmt, args);
    va_end(args);
    trace(w, "VIOLATION: %s", w->failure);
}

// ---- names

struct uuid node_id(int i)
{
    return (struct uuid){ { 0xaa, [6] = 0x40, [8] = 0x80, [15] = (uint8_t)(i + 1) } };
}

struct uuid volume_id(int k)
{
    return (struct uuid){ { 0xbb, [6] = 0x40, [8] = 0x80, [15] = (uint8_t)(k + 1) } };
}

int node_index(const struct uuid *id)
{
    return id->b[15] - 1;
}

int volume_index(const struct uuid *id)
{
    return id->b[15] - 1;
}

const char *name_text(int name)
{
    static const char *const texts[NAMES] = { "n0", "n1", "n2" };
    return texts[name];
}

int64_t node_clock(const struct world *w, int i)
{
    return w->now_ms + w->now_ms * w->nodes[i].drift_ppm / 1000000;
}

struct volume *volume_through_json(const struct volume *v)
{
    struct error e = ERROR_INIT;
    struct volume *back = NULL;
    json_t *object = volume_to_json(v);
    int rc = volume_from_json(object, &back, &e);
    json_decref(object);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.msg);
    ASSERT(rc == 0);
    return back;
}

struct move_snapshot snapshot_through_json(const struct move_snapshot *s)
{
    struct error e = ERROR_INIT;
    struct move_snapshot back;
    json_t *object = s->number ? move_snapshot_to_json(s) : NULL;
    int rc = move_snapshot_from_json(object, &back, &e);
    ASSERT(rc == 0);
    json_decref(object);
    return back;
}

// ---- a world

enum { BUSY_MS = 240000, QUIET_MS = 3600000, EVENTS_MAX = 60000 };

static void choose_habits(struct world *w)
{
    static const int factors[] = { 0, 1, 1, 1, 8 };
    struct profile *p = &w->profile;
    for (size_t i = 0; i < WISHES; i++)
        p->wishes[i] = factors[i ? chance_below(w, ARRAY_SIZE(factors)) : 1]; // moves there are always
    p->node_gone = 6 * factors[chance_below(w, ARRAY_SIZE(factors))];
    p->engine_creates = chance(w, 800) ? 300 : 50;
    p->engine_removes = 20 * factors[chance_below(w, ARRAY_SIZE(factors))];
    p->start_ms = chance(w, 700) ? 30 : 1000;
    int slow = chance(w, 500) ? 300 : 0;
    for (size_t step = 0; step < STEP_COUNT; step++)
        p->is_slow[step] = chance(w, slow);
}

static void choose_profile(struct world *w)
{
    struct profile *p = &w->profile;
    int wild = chance_below(w, 4); // 0: nearly nothing goes wrong
    *p = (struct profile){ .slow_message = 20, .slow_worker = 10 };
    choose_habits(w);
    if (!wild)
        return;
    int *all[] = { &p->crash_control, &p->crash_agent, &p->reboot, &p->cut, &p->lose_connection, &p->stall, &p->fail_step, &p->fail_commit, &p->damage };
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        *all[i] = chance(w, 600) ? chance_below(w, 12 * wild) : 0;
    if (chance(w, 300)) // in some worlds one thing fails all the time
        *all[chance_below(w, ARRAY_SIZE(all))] = 60 + chance_below(w, 100);
    p->slow_message = chance_below(w, 100 * wild);
    p->slow_worker = chance_below(w, 60 * wild);
    p->damage *= 10;
    p->lose_store = chance(w, 300) ? chance(w, 800) ? 4 : 60 : 0;
}

struct world *world_new(uint64_t seed, enum plant plant, bool is_traced)
{
    struct world *w = xcalloc(1, sizeof *w);
    w->seed = seed;
    w->random = seed * 0x9e3779b97f4a7c15U;
    w->plant = plant;
    w->is_traced = is_traced;
    choose_profile(w);
    w->node_count = 2 + chance_below(w, HOSTS - 1);
    w->volumes_max = 1 + chance_below(w, VOLUMES);
    for (int k = 0; k < VOLUMES; k++) {
        w->store.holds[k] = w->pending.holds[k] = -1;
        for (size_t e = 0; e < ARRAY_SIZE(w->truth[k].owners); e++)
            w->truth[k].owners[e] = -1;
    }
    for (int i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        *n = (struct node){ .id = node_id(i), .is_on = true, .boot = 1, .engine = 1, .drift_ppm = chance_below(w, 20001) - 10000 };
    }
    control_start(w);
    for (int i = 0; i < w->node_count; i++)
        agent_start(w, i);
    users_start(w);
    return w;
}

void world_free(struct world *w)
{
    w->is_traced = false;
    w->is_quiet = true;
    for (int i = 0; i < w->node_count; i++) {
        agent_crash(w, i);
        for (int k = 0; k < VOLUMES; k++) {
            volume_free(w->nodes[i].places[k].record);
            json_decref(w->nodes[i].refs[k]);
        }
    }
    control_crash(w);
    control_free(&w->control);
    for (int k = 0; k < VOLUMES; k++) {
        volume_free(w->store.volumes[k]);
        volume_free(w->pending.volumes[k]);
    }
    for (size_t i = 0; i < CONNECTIONS; i++)
        for (int end = UP; end <= DOWN; end++)
            for (struct message *m = w->connections[i].first[end], *next; m; m = next) {
                next = m->next;
                message_free(m);
            }
    for (size_t i = 0; i < FETCHES; i++)
        volume_free(w->fetches[i].order);
    free(w->events);
    free(w);
}

static void step(struct world *w)
{
    struct event ev = take_event(w);
    w->now_ms = ev.at_ms;
    w->steps++;
    ev.run(w, &ev);
    check_step(w);
    if (w->steps > EVENTS_MAX)
        violation(w, "liveness: %d events and no end: something spins", EVENTS_MAX);
}

// Who stands how, for who has to find out why nothing goes on.
static void trace_ends(struct world *w)
{
    for (int i = 0; i < w->node_count; i++) {
        const struct control_node *n = &w->control.nodes[i];
        const struct agent *a = &w->nodes[i].agent;
        trace(w, "control's %c: connection %llu, the %llu.%s%s, reports since %llu, known since %llu, %zu due; the agent's: %llu, the %llu.%s%s", NODE_LETTER(i),
              (unsigned long long)n->peer, (unsigned long long)n->connection, n->is_told ? ", told" : "", n->is_synced ? ", synced" : "",
              (unsigned long long)n->reports_since, (unsigned long long)n->known_since, n->due.n, (unsigned long long)a->connection,
              (unsigned long long)a->count.connection, a->is_synced ? ", synced" : "", a->inventory_due ? ", inventory due" : "");
    }
}

static void trace_sighting(struct world *w, int k, const char *who, const struct sighting *s)
{
    if (s->is_here)
        trace(w, "control's v%d, %s: %c on its %llu. connection: %s, epoch %llu, revision %llx, snapshot %llx%s%s", k, who, NODE_LETTER(s->node),
              (unsigned long long)s->connection, s->part.present ? "present" : "absent", (unsigned long long)s->part.epoch,
              (unsigned long long)s->part.revision, (unsigned long long)s->part.snapshot.number, s->part.snapshot.final ? ", final" : "",
              s->part.snapshot.has_digest ? ", with digest" : "");
}

void world_run(struct world *w)
{
    char why[200] = "";
    int64_t busy_ms = BUSY_MS / 4 + chance_below(w, BUSY_MS);
    while (!w->is_failed && w->event_count && w->events[0].at_ms < busy_ms)
        step(w);
    if (w->is_failed)
        return;
    w->now_ms = busy_ms;
    users_quiet(w);
    for (int64_t next_ms = w->now_ms; !w->is_failed && w->now_ms < busy_ms + QUIET_MS;) {
        while (!w->is_failed && w->event_count && w->events[0].at_ms <= next_ms)
            step(w);
        w->now_ms = next_ms;
        if (check_settled(w, why))
            return;
        next_ms += 2000;
    }
    trace_ends(w);
    for (int k = 0; k < w->volume_count; k++) {
        trace_sighting(w, k, "owner", &w->control.owners[k]);
        trace_sighting(w, k, "other", &w->control.others[k]);
    }
    violation(w, "liveness: after an hour without faults %s", why);
}
