// Nodes, and which volumes each is to be told of: those that concern it, those that it has asked for, and of both what it has not been told yet.
#include "control/internal.h"

#include "base/mem.h"

#include <search.h>
#include <string.h>

// Nodes that have asked for a volume in which they have no part.
struct watched {
    struct uuid id; // first: the tree is searched by it
    size_t n, room;
    struct control_node **nodes; // in no order
};

static int compare(const void *a, const void *b)
{
    return uuid_compare(a, b);
}

struct control_node *control_node(const struct control *c, const struct uuid *id)
{
    void *node = tfind(id, &c->node_tree, compare);
    return node ? *(struct control_node **)node : NULL;
}

struct control_node *control_node_add(struct control *c, const struct node *node)
{
    struct control_node *n = xcalloc(1, sizeof *n);
    n->node = *node;
    n->seen_ms = INT64_MIN / 2; // not since this control started
    LIST_INSERT_HEAD(&c->nodes, n, all);
    c->node_count++;
    ASSERT(tsearch(n, &c->node_tree, compare));
    for (size_t i = 0; i < c->volumes.n; i++)
        if (volume_concerns(c->volumes.by_id[i], &node->id))
            id_set_add(&n->volumes, &c->volumes.by_id[i]->id);
    return n;
}

// ---- volumes that concern a node

static void index_part(const struct control *c, const struct uuid *node, const struct uuid *id, const struct volume *now)
{
    struct control_node *n = uuid_is_zero(node) ? NULL : control_node(c, node);
    if (!n)
        return;
    if (now && volume_concerns(now, node))
        id_set_add(&n->volumes, id);
    else
        id_set_remove(&n->volumes, id);
}

void nodes_index(const struct control *c, const struct volume *old, const struct volume *now)
{
    const struct volume *const both[] = { old, now };
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        if (!both[i])
            continue;
        const struct uuid nodes[] = { both[i]->owner, both[i]->target, both[i]->move.source };
        for (size_t k = 0; k < ARRAY_SIZE(nodes); k++)
            index_part(c, &nodes[k], &both[i]->id, now);
    }
}

// ---- volumes that a node has asked for

static struct watched *watched(const struct control *c, const struct uuid *volume)
{
    void *node = tfind(volume, &c->watched, compare);
    return node ? *(struct watched **)node : NULL;
}

static void watched_free(void *node)
{
    struct watched *w = node;
    free(w->nodes);
    free(w);
}

static void add_watcher(struct control *c, const struct uuid *volume, struct control_node *n)
{
    struct watched *w = watched(c, volume);
    if (!w) {
        w = xcalloc(1, sizeof *w);
        w->id = *volume;
        ASSERT(tsearch(w, &c->watched, compare));
    }
    if (w->n == w->room) {
        w->room = w->room ? w->room * 2 : 1;
        w->nodes = xrealloc(w->nodes, w->room, sizeof(struct control_node *));
    }
    w->nodes[w->n++] = n;
}

static void remove_watcher(struct control *c, const struct uuid *volume, const struct control_node *n)
{
    struct watched *w = watched(c, volume);
    ASSERT(w);
    size_t at = 0;
    while (w->nodes[at] != n)
        at++;
    w->nodes[at] = w->nodes[--w->n];
    if (w->n > 0)
        return;
    tdelete(volume, &c->watched, compare);
    watched_free(w);
}

int nodes_watch(struct control *c, struct control_node *n, const struct uuid *volume, struct error *e)
{
    if (id_set_has(&n->watches, volume))
        return 0;
    if (n->watches.n >= WATCHES_MAX)
        return fail(e, E_TOO_LARGE, "this node follows %d volumes of other nodes, the limit: restart its agent to forget them", WATCHES_MAX);
    if (c->watch_count >= CLUSTER_WATCHES_MAX)
        return fail(e, E_TOO_LARGE, "the nodes follow %d volumes of other nodes, the cluster's limit: restart agents to forget them",
                    CLUSTER_WATCHES_MAX);
    id_set_add(&n->watches, volume);
    c->watch_count++;
    add_watcher(c, volume, n);
    return 0;
}

void nodes_each_watcher(const struct control *c, const struct uuid *volume, void (*fn)(struct control_node *n, const struct volume *v),
                        const struct volume *v)
{
    const struct watched *w = watched(c, volume);
    for (size_t i = 0; w && i < w->n; i++)
        fn(w->nodes[i], v);
}

void nodes_forget_interest(struct control *c, struct control_node *n)
{
    for (size_t i = 0; i < n->watches.n; i++)
        remove_watcher(c, &n->watches.ids[i], n);
    c->watch_count -= n->watches.n;
    id_set_done(&n->watches);
    id_set_done(&n->due);
    n->has_missed = false;
}

// ---- ends

static void forget_due(struct control_node *n, const struct uuid *volume)
{
    n->has_missed |= id_set_remove(&n->due, volume);
}

void nodes_forget_volume(struct control *c, const struct volume *v)
{
    const struct uuid nodes[] = { v->owner, v->target, v->move.source };
    struct watched *w = watched(c, &v->id);
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        struct control_node *n = uuid_is_zero(&nodes[i]) ? NULL : control_node(c, &nodes[i]);
        if (n)
            forget_due(n, &v->id);
    }
    nodes_index(c, v, NULL);
    if (!w)
        return;
    tdelete(&v->id, &c->watched, compare);
    for (size_t i = 0; i < w->n; i++) {
        forget_due(w->nodes[i], &v->id);
        id_set_remove(&w->nodes[i]->watches, &v->id);
    }
    c->watch_count -= w->n;
    watched_free(w);
}

static void keep(void *node)
{
    (void)node; // the list has it too
}

void nodes_free(struct control *c)
{
    struct control_node *n;
    tdestroy(c->watched, watched_free);
    tdestroy(c->node_tree, keep);
    while ((n = LIST_FIRST(&c->nodes))) {
        LIST_REMOVE(n, all);
        id_set_done(&n->volumes);
        id_set_done(&n->watches);
        id_set_done(&n->due);
        free(n);
    }
}
