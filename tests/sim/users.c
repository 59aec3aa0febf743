// What happens to a cluster from outside: users of the API, engines with their containers, and faults.
#include "sim.h"

#include <string.h>

// ---- engines

static struct container *container_at(struct world *w, int i, int c)
{
    return &w->nodes[i].containers[c];
}

static bool is_of(struct world *w, const struct event *ev, enum container_state state)
{
    const struct container *c = container_at(w, ev->node, ev->k);
    return c->life == ev->life && c->state == state;
}

// A call of the plugin, which is lost if no agent is there.
static void on_unmount(struct world *w, const struct event *ev)
{
    struct container *c = container_at(w, ev->node, ev->k);
    if (!is_of(w, ev, CONTAINER_STOPPED))
        return;
    c->state = CONTAINER_NONE;
    if (w->nodes[ev->node].agent.is_open)
        agent_unmount(w, ev->node, c->k, ev->k);
}

static void stop(struct world *w, int i, int c)
{
    struct container *x = container_at(w, i, c);
    x->state = CONTAINER_STOPPED;
    trace(w, "%c  container %d of v%d has ended", NODE_LETTER(i), c, x->k);
    post(w, 1 + chance_below(w, 50), on_unmount, i, c, x->life, 0);
}

static void write_value(struct world *w, int i, const struct container *c)
{
    struct place *p = &w->nodes[i].places[c->k];
    if (p->data.n < VALUES)
        p->data.value[p->data.n++] = ++w->next_value;
    if (chance(w, 500)) { // fsync
        p->durable = p->data.n;
        check_acknowledged(w, i, c->k);
    }
}

static void on_life(struct world *w, const struct event *ev)
{
    if (!is_of(w, ev, CONTAINER_RUNNING))
        return;
    if (w->is_quiet || chance(w, 150)) {
        stop(w, ev->node, ev->k);
        return;
    }
    write_value(w, ev->node, container_at(w, ev->node, ev->k));
    post(w, 100 + chance_below(w, 3000), on_life, ev->node, ev->k, ev->life, 0);
}

static void settle(struct world *w, int i, int c, bool taken)
{
    char id[] = { 'c', (char)('0' + c), 0 };
    const struct container *x = container_at(w, i, c);
    refs_settle(&w->nodes[i].agent.volumes[x->k].refs, id, (struct engine){ 1000 + i, w->nodes[i].engine }, taken);
    refs_save(w, i, x->k);
}

static void on_start(struct world *w, const struct event *ev)
{
    struct container *c = container_at(w, ev->node, ev->k);
    if (!is_of(w, ev, CONTAINER_STARTING))
        return;
    if (w->nodes[ev->node].agent.is_open)
        settle(w, ev->node, ev->k, true);
    if (!w->nodes[ev->node].places[c->k].mounted && !w->truth[c->k].given_up[ev->node])
        violation(w, "%c starts a container on v%d, which is not mounted there although the mount was answered", NODE_LETTER(ev->node), c->k);
    c->state = CONTAINER_RUNNING;
    trace(w, "%c  container %d runs on v%d", NODE_LETTER(ev->node), ev->k, c->k);
    post(w, 10, on_life, ev->node, ev->k, ev->life, 0);
}

void container_answered(struct world *w, int i, int c, uint64_t life, int k, int rc)
{
    struct container *x = container_at(w, i, c);
    if (x->life != life || x->state != CONTAINER_ASKING)
        return;
    x->state = rc < 0 ? CONTAINER_NONE : CONTAINER_STARTING;
    x->k = k;
    if (rc == 0)
        post(w, 1 + chance_below(w, w->profile.start_ms), on_start, i, c, life, 0);
}

void container_kill_users(struct world *w, int i, int k)
{
    for (int c = 0; c < CONTAINERS; c++)
        if (container_at(w, i, c)->state == CONTAINER_RUNNING && container_at(w, i, c)->k == k)
            stop(w, i, c);
}

static void on_engine_late(struct world *w, const struct event *ev)
{
    if (is_of(w, ev, CONTAINER_ASKING))
        container_at(w, ev->node, ev->k)->state = CONTAINER_NONE; // the agent died: the call failed
}

// What the users of the API are just busy with is also what engines are told.
static int choose_name(struct world *w)
{
    const struct volume_set *all = &w->control.volumes;
    const struct volume *v = chance(w, 500) && (size_t)w->last_wish < all->n ? all->by_id[w->last_wish] : NULL;
    for (int name = 0; v && v->name && name < NAMES; name++)
        if (strcmp(v->name, name_text(name)) == 0)
            return name;
    return chance_below(w, NAMES);
}

static void run_container(struct world *w, int i)
{
    int c = chance_below(w, CONTAINERS), name = choose_name(w);
    struct container *x = container_at(w, i, c);
    if (!w->nodes[i].is_on || !w->nodes[i].agent.is_up || x->state != CONTAINER_NONE)
        return;
    struct operation *o = operation_new(w, i, chance(w, w->profile.engine_creates) ? OP_CREATE : OP_MOUNT, name);
    if (!o || o->kind != OP_MOUNT)
        return;
    *x = (struct container){ .state = CONTAINER_ASKING, .name = name, .k = -1, .life = ++w->ids };
    o->container = c;
    o->container_life = x->life;
    post(w, 5000, on_engine_late, i, c, x->life, 0);
}

// With live-restore its containers live on.
static void engine_restart(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    bool is_restoring = chance(w, 500);
    n->engine++;
    trace(w, "%c  its engine starts anew%s", NODE_LETTER(i), is_restoring ? ", its containers live on" : "");
    for (int c = 0; c < CONTAINERS; c++)
        if (!is_restoring || n->containers[c].state != CONTAINER_RUNNING)
            n->containers[c].state = CONTAINER_NONE;
}

static void on_engine(struct world *w, const struct event *ev)
{
    if (w->is_quiet)
        return;
    run_container(w, ev->node);
    if (fault(w, w->profile.crash_agent / 2))
        engine_restart(w, ev->node);
    if (chance(w, w->profile.engine_removes) && w->nodes[ev->node].agent.is_up)
        (void)operation_new(w, ev->node, OP_REMOVE, choose_name(w));
    post(w, 500 + chance_below(w, 8000), on_engine, ev->node, 0, 0, 0);
}

// ---- users of the API

static void on_wish(struct world *w, const struct event *ev)
{
    (void)ev;
    if (w->is_quiet)
        return;
    api_wish(w);
    post(w, 20 + chance_below(w, chance(w, 300) ? 500 : 15000), on_wish, 0, 0, 0, 0);
}

// ---- faults

bool node_takes_volumes(const struct world *w, int i)
{
    return !w->control.nodes[i].is_removed && !w->nodes[i].is_gone;
}

static void on_agent_starts(struct world *w, const struct event *ev)
{
    agent_start(w, ev->node);
}

static void on_control_starts(struct world *w, const struct event *ev)
{
    (void)ev;
    control_start(w);
}

void node_power_off(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    trace(w, "%c  loses power", NODE_LETTER(i));
    n->is_on = false;
    agent_crash(w, i);
    n->boot++;
    n->engine++;
    memset(n->containers, 0, sizeof n->containers);
    for (int k = 0; k < VOLUMES; k++) {
        json_decref(n->refs[k]);
        n->refs[k] = NULL;
        place_power_loss(w, i, k);
    }
}

static void on_power(struct world *w, const struct event *ev)
{
    if (w->nodes[ev->node].is_gone)
        return;
    w->nodes[ev->node].is_on = true;
    trace(w, "%c  boots", NODE_LETTER(ev->node));
    agent_start(w, ev->node);
}

static int64_t outage(struct world *w)
{
    return chance(w, 100) ? chance_below(w, 120000) : 10 + chance_below(w, chance(w, 500) ? 300 : 10000);
}

static void go_for_good(struct world *w, int i)
{
    if (w->nodes[i].is_on)
        node_power_off(w, i);
    w->nodes[i].is_gone = true;
}

void nodes_removed_go(struct world *w)
{
    for (int i = 0; i < w->node_count; i++)
        if (w->store.is_removed[i])
            go_for_good(w, i);
}

// The old volumes are there, of a node that is no more.
static void on_join(struct world *w, const struct event *ev)
{
    struct node *old = &w->nodes[ev->node], *n = &w->nodes[w->node_count];
    if (w->is_quiet || w->node_count == NODES || old->is_gone)
        return;
    go_for_good(w, ev->node);
    *n = (struct node){ .id = node_id(w->node_count), .is_on = true, .boot = 1, .engine = 1, .drift_ppm = old->drift_ppm };
    for (int k = 0; k < VOLUMES; k++) {
        n->places[k] = old->places[k];
        old->places[k] = (struct place){ .record = NULL };
        n->places[k].is_left = n->places[k].record != NULL;
    }
    trace(w, "%c  joins, on the host that was %c", NODE_LETTER(w->node_count), NODE_LETTER(ev->node));
    agent_start(w, w->node_count);
    post(w, 500, on_engine, w->node_count++, 0, 0, 0);
}

void node_join_later(struct world *w, int i)
{
    post(w, 1000 + outage(w), on_join, i, 0, 0, 0);
}

static void on_heal(struct world *w, const struct event *ev)
{
    w->nodes[ev->node].is_cut[ev->k] = false;
}

static void cut(struct world *w, int i)
{
    int directions = 1 + chance_below(w, 3);
    for (int d = UP; d <= DOWN; d++)
        if (directions & 1 << d) {
            w->nodes[i].is_cut[d] = true;
            trace(w, "%c  is cut off, %s", NODE_LETTER(i), d == UP ? "to others" : "from others");
            post(w, outage(w), on_heal, i, d, 0, 0);
        }
}

// One end takes it for broken. The other may go on for long; what is under way still arrives.
static void lose_connection(struct world *w, int i, int end)
{
    struct connection *c = connection_of(w, end == DOWN ? w->nodes[i].agent.connection : w->control.nodes[i].peer);
    if (!c || !c->is_open[end])
        return;
    uint64_t id = c->id;
    trace(w, "%s gives its connection to %s up", end == DOWN ? (char[]){ NODE_LETTER(i), 0 } : "control", end == DOWN ? "control" : (char[]){ NODE_LETTER(i), 0 });
    connection_close(w, id, end, chance(w, 500));
    if (end == DOWN)
        agent_on_closed(w, i);
    else
        control_on_closed(w, id);
}

// Keepalive: an end whose other end has gone without a word finds out.
static void on_keepalive(struct world *w, const struct event *ev)
{
    for (int i = 0; i < w->node_count; i++) {
        struct connection *mine = connection_of(w, w->nodes[i].agent.connection), *theirs = connection_of(w, w->control.nodes[i].peer);
        if (mine && !mine->is_open[UP] && !mine->first[DOWN])
            lose_connection(w, i, DOWN);
        if (w->control.is_up && theirs && !theirs->is_open[DOWN] && !theirs->first[UP])
            lose_connection(w, i, UP);
    }
    post(w, 10000, on_keepalive, ev->node, 0, 0, 0);
}

static void fault_of_node(struct world *w, int i)
{
    const struct profile *p = &w->profile;
    if (fault(w, p->cut))
        cut(w, i);
    if (fault(w, p->lose_connection))
        lose_connection(w, i, w->control.is_up && chance(w, 300) ? UP : DOWN);
    if (w->nodes[i].is_on && !w->nodes[i].is_gone && fault(w, p->reboot)) {
        node_power_off(w, i);
        post(w, 1000 + outage(w), on_power, i, 0, 0, 0);
    }
    if (w->nodes[i].agent.is_up && fault(w, p->crash_agent)) {
        trace(w, "%c  its agent is killed", NODE_LETTER(i));
        agent_crash(w, i);
        post(w, 10 + outage(w), on_agent_starts, i, 0, 0, 0);
    }
}

static void on_fault(struct world *w, const struct event *ev)
{
    if (w->is_quiet)
        return;
    for (int i = 0; i < w->node_count; i++)
        fault_of_node(w, i);
    if (w->control.is_up && fault(w, w->profile.crash_control))
        control_crash(w);
    if (fault(w, w->profile.lose_store))
        store_lose(w);
    if (!w->control.is_up)
        post(w, outage(w), on_control_starts, 0, 0, 0, 0);
    post(w, 100 + chance_below(w, 1000), on_fault, ev->node, 0, 0, 0);
}

void users_start(struct world *w)
{
    for (int i = 0; i < w->node_count; i++)
        post(w, 500 + chance_below(w, 1000), on_engine, i, 0, 0, 0);
    post(w, 1000, on_wish, 0, 0, 0, 0);
    post(w, 1000, on_fault, 0, 0, 0, 0);
    post(w, 10000, on_keepalive, 0, 0, 0, 0);
}

void users_quiet(struct world *w)
{
    trace(w, "from here on nothing fails and nobody wishes anything");
    w->is_quiet = true;
    nodes_removed_go(w);
    for (int i = 0; i < w->node_count; i++) {
        if (w->nodes[i].is_gone)
            continue;
        w->nodes[i].is_on = true;
        w->nodes[i].is_cut[UP] = w->nodes[i].is_cut[DOWN] = false;
        agent_start(w, i);
    }
    control_start(w);
    api_release_all(w); // and nobody holds anything
}
