// Which nodes take volumes, and which of them a new one. Draining a node: its live volumes move to the other nodes, some at a time, until none
// is left.
#include "control/internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "plan/place.h"

#include <event2/event.h>
#include <string.h>

#define DRAIN_MS    100 // changes come in crowds
#define DRAIN_AGAIN_S 30
#define DRAIN_MOVES 8   // of one node whose data is on its way at once. Those that only wait for a container do not count

// It is there for volumes of others.
static bool takes(const struct control_node *n)
{
    return n->peer && !n->node.removed && n->node.drain == NODE_STAYS;
}

int drain_check(const struct control *c, const struct uuid *node, struct error *e)
{
    char label[NODE_LABEL_SIZE];
    const struct control_node *n = control_node(c, node);
    if (n && n->node.removed)
        return fail(e, E_CONFLICT, "%s was removed from the cluster: choose another one, `flocker node ls` lists them", node_label(c, node, label));
    if (n && n->node.drain != NODE_STAYS)
        return fail(e, E_CONFLICT, "%s is being drained, and takes no volumes: choose another one, or end that with `flocker node undrain`",
                    node_label(c, node, label));
    return 0;
}

// ---- how many

static void count(const struct control *c, const struct volume *v)
{
    struct control_node *n = control_node(c, &v->owner), *target = control_node(c, &v->target);
    const struct sighting *s = control_sighting(c, &v->id);
    bool moves = !uuid_equal(&v->owner, &v->target);
    const struct hold *h = control_hold(c, &v->id);
    if (!n)
        return;
    if (v->state == VOLUME_TRASHED)
        n->counts.trashed++;
    if (v->state != VOLUME_LIVE)
        return;
    n->counts.live++;
    n->counts.leaving += moves;
    n->counts.used += (s && s->part.in_use) || (h && uuid_equal(&h->node, &v->owner));
    if (moves && target)
        target->counts.coming++;
}

void drain_count(const struct control *c)
{
    struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all)
        n->counts = (struct node_counts){ 0 };
    for (size_t i = 0; i < c->volumes.n; i++)
        count(c, c->volumes.by_id[i]);
}

// ---- where to

struct candidates {
    size_t n;
    struct place_node *nodes;
};

static struct candidates candidates(const struct control *c, const struct control_node *from)
{
    struct candidates all = { .nodes = xcalloc(c->node_count + 1, sizeof(struct place_node)) };
    const struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all)
        all.nodes[all.n++] = (struct place_node){ .id = n->node.id, .takes = n != from && takes(n), .knows_pool = n->pool_size > 0,
                                                  .free_bytes = n->pool_free, .coming = n->counts.coming };
    return all;
}

// What the nodes were given and have not reported on yet counts as much as a volume takes on average; empty ones spread too.
int drain_choose(const struct control *c, struct uuid *ret, struct error *e)
{
    struct candidates all = candidates(c, NULL);
    uint64_t used = 0, count = 1;
    size_t i = 0;
    const struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all) {
        all.nodes[i++].coming = n->created;
        used += n->pool_used;
        count += n->volumes.n;
    }
    size_t at = place_choose(all.nodes, all.n, used / count + VOLUME_SIZE_MIN);
    if (at < all.n)
        *ret = all.nodes[at].id;
    free(all.nodes);
    if (at < all.n)
        return 0;
    return fail(e, E_UNAVAILABLE, "no node is connected that takes volumes: start an agent, or undrain a node; `flocker node ls` lists them");
}

// Its target takes volumes, or is only restarting.
static bool is_well_placed(const struct control *c, const struct volume *v)
{
    const struct control_node *target = control_node(c, &v->target);
    return !uuid_equal(&v->owner, &v->target) && target && !target->node.removed && target->node.drain == NODE_STAYS && v1_is_heard_of(target);
}

static bool is_waiting(const struct control *c, const struct volume *v)
{
    const struct move_part owner = moves_part(c, control_sighting(c, &v->id)), other = moves_part(c, control_other(c, &v->id));
    return owner.in_use && other.warm;
}

static int move_away(struct control *c, const struct control_node *n, const struct volume *v, struct candidates *to, struct error *e)
{
    const bool force = n->node.drain == NODE_DRAINS_BY_FORCE;
    struct move_wish wish = { .target = v->target, .force = force || v->move.force, .rate = v->move.rate };
    struct volume *changed = NULL;
    if (!is_well_placed(c, v)) {
        size_t at = place_choose(to->nodes, to->n, n->pool_used / (n->counts.live ? n->counts.live : 1));
        if (at == to->n)
            return fail(e, E_UNAVAILABLE, "no other node is connected that takes volumes: join one, or undrain one");
        wish.target = to->nodes[at].id;
        to->nodes[at].coming++;
    }
    int rc = decide_move(v, &wish, &changed, e);
    return rc == 0 && changed ? control_put(c, changed, e) : rc;
}

static bool is_of(const struct control_node *n, const struct volume *v)
{
    return v->state == VOLUME_LIVE && uuid_equal(&v->owner, &n->node.id);
}

static size_t on_their_way(const struct control *c, const struct control_node *n)
{
    size_t all = 0;
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        all += is_of(n, v) && is_well_placed(c, v) && !is_waiting(c, v);
    }
    return all;
}

// What has no data yet changes its owner at once, and leaves the node's set: the next turn finds what this one passes over by that.
static void drain(struct control *c, struct control_node *n)
{
    struct error e = ERROR_INIT;
    struct candidates to = candidates(c, n);
    size_t moving = on_their_way(c, n);
    int rc = 0;
    for (size_t i = 0; i < n->volumes.n && rc == 0; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        bool placed = is_well_placed(c, v);
        if (!is_of(n, v) || (!placed && moving >= DRAIN_MOVES))
            continue;
        moving += !placed;
        rc = move_away(c, n, v, &to, &e);
    }
    if (rc < 0 && strcmp(n->drain_problem, e.msg) != 0)
        log_warn("node %s is being drained: %s", UUID_TEXT(&n->node.id), e.msg);
    memcpy(n->drain_problem, e.msg, sizeof e.msg);
    free(to.nodes);
}

// What can't go on now, because a node or the store is away, is tried again.
static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval again = { DRAIN_AGAIN_S, 0 };
    struct control *c = arg;
    struct control_node *n;
    (void)fd;
    (void)what;
    c->drain_is_soon = false;
    drain_count(c);
    LIST_FOREACH (n, &c->nodes, all) {
        if (n->node.drain == NODE_STAYS || n->counts.live == 0)
            continue;
        drain(c, n);
        if (!c->drain_is_soon)
            evtimer_add(c->drain, &again);
    }
}

void drain_soon(struct control *c)
{
    static const struct timeval delay = { 0, DRAIN_MS * 1000 };
    const struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all)
        if (n->node.drain != NODE_STAYS)
            break;
    if (!n || c->drain_is_soon)
        return;
    if (!c->drain)
        c->drain = evtimer_new(c->config.base, on_drain, c);
    c->drain_is_soon = true;
    evtimer_add(c->drain, &delay);
}

static int check_begin(const struct control *c, const struct control_node *n, struct error *e)
{
    const struct control_node *other;
    char label[NODE_LABEL_SIZE];
    if (n->node.removed)
        return fail(e, E_CONFLICT, "%s was removed from the cluster", node_label(c, &n->node.id, label));
    LIST_FOREACH (other, &c->nodes, all)
        if (other != n && !other->node.removed && other->node.drain == NODE_STAYS)
            return 0;
    drain_count(c);
    if (n->counts.live == 0)
        return 0;
    return fail(e, E_CONFLICT, "%s has %zu volumes, and there is no other node that takes any: join one first", node_label(c, &n->node.id, label),
                n->counts.live);
}

int drain_set(struct control *c, struct control_node *n, enum node_drain drain, struct error *e)
{
    struct node changed = n->node;
    const struct store_change change = { .kind = STORE_PUT_NODE, .node = &changed };
    int rc = drain == NODE_STAYS ? 0 : check_begin(c, n, e);
    changed.drain = drain;
    if (rc < 0 || (rc = store_commit(c->store, &change, 1, e)) < 0)
        return rc;
    n->node.drain = drain;
    n->drain_problem[0] = '\0';
    n->saved = true;
    log_info("node %s is %s", UUID_TEXT(&n->node.id), drain == NODE_STAYS ? "not drained any more" : "being drained");
    drain_soon(c);
    return 0;
}
