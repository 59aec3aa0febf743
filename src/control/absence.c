// Volumes whose node is away, or was taken out of the cluster: what people and other nodes are told of them, and what becomes of them.
#include "control/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <event2/event.h>

#define TELL_MS 200 // an agent that is restarted comes back sooner: nobody hears of that

const char *node_label(const struct control *c, const struct uuid *id, char ret[NODE_LABEL_SIZE])
{
    const struct control_node *n = control_node(c, id);
    snprintf(ret, NODE_LABEL_SIZE, "node %s (%s)", n ? n->node.host : "unknown", UUID_TEXT(id));
    return ret;
}

static void fail_silent(const struct control *c, const struct control_node *n, struct error *ret)
{
    char label[NODE_LABEL_SIZE], text[CLOCK_TEXT_SIZE];
    int64_t silent_ms = clock_boot_ms() - n->seen_ms;
    bool is_seen = n->seen_ms >= 0;
    fail(ret, E_UNAVAILABLE, "%s is not connected%s%s: start that host and its flocker-agent; there is no other copy, and `flocker node rm --force` "
         "would give it up", node_label(c, &n->node.id, label), is_seen ? " since " : ", and was not since control started",
         is_seen ? clock_format(clock_wall_ms() - silent_ms, text) : "");
}

bool absence_describe(const struct control *c, const struct volume *v, struct error *ret)
{
    char label[NODE_LABEL_SIZE];
    const struct control_node *n = control_node(c, &v->owner);
    if (!n)
        fail(ret, E_UNAVAILABLE, "node %s has never been heard of: `flocker node ls` lists those that there are", UUID_TEXT(&v->owner));
    else if (n->node.removed)
        fail(ret, E_NOT_FOUND, "%s was removed from the cluster, and its data with it; `flocker volume rm --purge` removes the entry",
             node_label(c, &v->owner, label));
    else if (!n->peer)
        fail_silent(c, n, ret);
    return !n || n->node.removed || !n->peer;
}

bool absence_is_for_good(const struct control *c, const struct volume *v)
{
    const struct control_node *n = control_node(c, &v->owner);
    return n && n->node.removed;
}

int absence_remove(struct control *c, const struct volume *v, struct error *e)
{
    struct volume *changed = NULL;
    int rc = decide_remove(v, clock_wall_ms(), c->config.trash_keep_ms, &changed, e);
    return rc < 0 ? rc : control_put(c, changed, e);
}

void absence_turn(struct control *c, const struct uuid *volume)
{
    const struct volume *v = volume_set_find(&c->volumes, volume);
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (!v || v->state != VOLUME_PURGING || !absence_is_for_good(c, v))
        return;
    if (decide_destroyed(v, &v->owner, &changed, &e) < 0 || control_put(c, changed, &e) < 0)
        reports_again_later(c, volume, &e);
}

void absence_begin(struct control *c)
{
    const struct control_node *n;
    for (size_t i = 0; i < c->volumes.n; i++) {
        const struct uuid id = c->volumes.by_id[i]->id;
        absence_turn(c, &id);
    }
    LIST_FOREACH (n, &c->nodes, all)
        if (n->node.removed)
            containers_node_gone(c, &n->node.id);
}

// ---- other nodes are told

static void tell_presence(struct control *c, struct control_node *n)
{
    n->is_told_absent = !n->peer;
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        const struct uuid other = control_other_node(v);
        if (v->state != VOLUME_LIVE || !uuid_equal(&v->owner, &n->node.id))
            continue;
        agents_tell_watchers(c, v);
        if (!uuid_is_zero(&other))
            agents_tell(c, &other, v);
    }
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    struct control_node *n;
    (void)fd;
    (void)what;
    LIST_FOREACH (n, &c->nodes, all)
        if (n->is_told_absent != !n->peer)
            tell_presence(c, n);
}

void absence_soon(struct control *c)
{
    static const struct timeval delay = { 0, TELL_MS * 1000 };
    if (!c->absence)
        c->absence = evtimer_new(c->config.base, on_tell, c);
    if (!evtimer_pending(c->absence, NULL))
        evtimer_add(c->absence, &delay);
}

// ---- a node goes for good

struct departure {
    size_t n, lost, rescued; // changes; volumes that stay without data; those that another node has
    struct volume **changed;
};

static void judge(const struct control *c, const struct control_node *n, const struct volume *v, struct departure *d)
{
    const struct move_part copy = moves_part(c, control_other(c, &v->id));
    struct volume *changed = NULL;
    decide_node_gone(v, &n->node.id, &copy, &changed);
    const struct volume *now = changed ? changed : v;
    if (uuid_equal(&v->owner, &n->node.id) && (now->state == VOLUME_LIVE || now->state == VOLUME_TRASHED) && now->born) {
        d->lost += uuid_equal(&now->owner, &n->node.id);
        d->rescued += !uuid_equal(&now->owner, &n->node.id);
    }
    if (changed)
        d->changed[d->n++] = changed;
}

int absence_remove_node(struct control *c, struct control_node *n, size_t *ret_lost, size_t *ret_rescued, struct error *e)
{
    struct node removed = n->node;
    struct error why = ERROR_INIT;
    struct departure d = { .changed = xcalloc(n->volumes.n + 1, sizeof(struct volume *)) };
    removed.removed = true;
    removed.drain = NODE_STAYS;
    for (size_t i = 0; i < n->volumes.n; i++)
        judge(c, n, volume_set_find(&c->volumes, &n->volumes.ids[i]), &d);
    int rc = control_put_all(c, d.changed, d.n, &removed, e);
    free(d.changed);
    if (rc < 0)
        return rc;
    *ret_lost = d.lost;
    *ret_rescued = d.rescued;
    n->seen_ms = INT64_MIN / 2; // API v1 shows it no more
    log_warn("node %s is removed from the cluster; %zu volumes were there alone, %zu have another copy", UUID_TEXT(&n->node.id), d.lost, d.rescued);
    fail(&why, E_DENIED, "node %s was removed from the cluster", UUID_TEXT(&n->node.id));
    agents_expel(n, &why);
    containers_node_gone(c, &n->node.id);
    nodes_forget_interest(c, n);
    n->connection = 0; // there is no other: it is told nothing any more, and watches nothing
    absence_soon(c);
    return 0;
}
