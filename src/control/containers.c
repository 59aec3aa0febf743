#include "control/internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

// ---- the set

static void sighting_done(struct container_sighting *s)
{
    free(s->image);
    free(s->error);
}

static void entry_done(struct container_entry *entry)
{
    for (size_t i = 0; i < entry->n; i++)
        sighting_done(&entry->seen[i]);
    free(entry->seen);
    container_free(entry->want);
}

void containers_done(struct container_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        entry_done(&s->entries[i]);
    free(s->entries);
}

static size_t place_of(const struct container_set *s, const char *name)
{
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(s->entries[middle].want->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct container_entry *containers_find(const struct container_set *s, const char *name)
{
    size_t at = place_of(s, name);
    return at < s->n && strcmp(s->entries[at].want->name, name) == 0 ? &s->entries[at] : NULL;
}

void containers_adopt(struct container_set *s, struct container *c)
{
    struct container_entry *entry = containers_find(s, c->name);
    if (entry) {
        container_free(entry->want);
        entry->want = c;
        return;
    }
    size_t at = place_of(s, c->name);
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 16;
        s->entries = xrealloc(s->entries, s->room, sizeof *s->entries);
    }
    ASSERT(s->entries);
    memmove(s->entries + at + 1, s->entries + at, (s->n++ - at) * sizeof *s->entries);
    s->entries[at] = (struct container_entry){ .want = c };
}

static void drop(struct container_set *s, const char *name)
{
    size_t at = place_of(s, name);
    entry_done(&s->entries[at]);
    memmove(s->entries + at, s->entries + at + 1, (--s->n - at) * sizeof *s->entries);
}

// ---- may it be made?

static bool has_twin(const json_t *array, size_t i, const char *member)
{
    const json_t *mine = json_object_get(json_array_get(array, i), member);
    for (size_t j = 0; j < i; j++)
        if (json_equal(mine, json_object_get(json_array_get(array, j), member)))
            return true;
    return false;
}

int containers_check_ports(const struct container_set *s, const struct container *c, struct error *e)
{
    const json_t *ports = json_object_get(c->settings, "ports"), *port;
    size_t i;
    json_array_foreach (ports, i, port) {
        bool taken = has_twin(ports, i, "external");
        for (size_t k = 0; k < s->n && !taken; k++)
            taken = !s->entries[k].want->deleted && container_has_port(s->entries[k].want, json_integer_value(json_object_get(port, "external")));
        if (taken)
            return fail(e, E_CONFLICT, "A specified external port is already in use.");
    }
    return 0;
}

static int check_links(const struct container *c, struct error *e)
{
    const json_t *links = json_object_get(c->settings, "links");
    for (size_t i = 0; i < json_array_size(links); i++)
        if (has_twin(links, i, "alias"))
            return fail(e, E_CONFLICT, "Link aliases must be unique.");
    for (size_t i = 0; i < json_array_size(links); i++)
        if (has_twin(links, i, "local_port"))
            return fail(e, E_CONFLICT, "The local ports in a container's links must be unique.");
    return 0;
}

static int check_volume(const struct container_set *s, const struct volume_set *volumes, const struct container *c, struct error *e)
{
    if (uuid_is_zero(&c->volume))
        return 0;
    const struct volume *v = volume_set_find(volumes, &c->volume);
    if (!v || v->state != VOLUME_LIVE)
        return fail(e, E_NOT_FOUND, "Dataset not found.");
    if (!uuid_equal(&v->target, &c->node))
        return fail(e, E_CONFLICT, "The dataset is on another node.");
    for (size_t i = 0; i < s->n; i++)
        if (!s->entries[i].want->deleted && uuid_equal(&s->entries[i].want->volume, &c->volume))
            return fail(e, E_CONFLICT, "The dataset is being used by another container.");
    return 0;
}

// As API v1 says it: E_CONFLICT and E_NOT_FOUND with exactly its sentences, E_TOO_LARGE.
static int check_create(const struct container_set *s, const struct volume_set *volumes, const struct container *c, struct error *e)
{
    const struct container_entry *same = containers_find(s, c->name);
    if (same && !same->want->deleted)
        return fail(e, E_CONFLICT, "The container name already exists.");
    if (s->n >= CONTAINERS_MAX)
        return fail(e, E_TOO_LARGE, "The cluster has %d containers, its limit: delete some.", CONTAINERS_MAX);
    int rc = containers_check_ports(s, c, e);
    if (rc < 0 || (rc = check_links(c, e)) < 0)
        return rc;
    return check_volume(s, volumes, c, e);
}

// ---- telling nodes

// The other nodes are none of its business, and could be too many for one message.
static json_t *want_order(const struct container *k)
{
    json_t *want = container_to_json(k);
    json_object_del(want, "leaving");
    return json_pack("{s:s, s:s, s:o}", "type", "container", "name", k->name, "want", want);
}

// What a node is to do about it: run it, let go of it, or nothing (NULL).
static json_t *order_for(const struct container *k, const struct uuid *node)
{
    if (!k->deleted && uuid_equal(&k->node, node))
        return want_order(k);
    if (container_is_leaving(k, node))
        return json_pack("{s:s, s:s, s:b}", "type", "container", "name", k->name, "absent", 1);
    return NULL;
}

static void tell(struct control *c, const struct container *k, const struct uuid *node)
{
    json_t *order = order_for(k, node);
    if (order)
        agents_send(c, node, order);
}

static void tell_all(struct control *c, const struct container *k)
{
    for (size_t i = 0; i < k->leaving_n; i++)
        tell(c, k, &k->leaving[i]);
    if (!k->deleted)
        tell(c, k, &k->node);
}

void containers_tell_node(struct control *c, const struct uuid *node)
{
    for (size_t i = 0; i < c->containers.n; i++)
        tell(c, c->containers.entries[i].want, node);
}

// ---- changes

// Whether it can say that it has let go: not one that was never heard of, and so has never heard of it, nor one that is gone for good.
static bool can_leave(const struct control *c, const struct uuid *node)
{
    const struct control_node *n = control_node(c, node);
    return n && !n->node.removed;
}

// What takes the place of `old` (NULL: nothing). It goes on leaving the nodes that the old one was leaving, and where that ran.
static struct container *succeed(const struct control *c, const struct container *old, const struct container *wish)
{
    struct container *next = container_copy(wish);
    if (!old)
        return next;
    next->revision = container_is_alike(old, wish) && !old->deleted ? old->revision : old->revision + 1;
    for (size_t i = 0; i < old->leaving_n; i++)
        container_leave(next, &old->leaving[i]);
    if (!old->deleted && can_leave(c, &old->node))
        container_leave(next, &old->node);
    if (!next->deleted)
        container_has_left(next, &next->node);
    return next;
}

// Nothing is left to be done about it: its entry can go.
static bool is_over(const struct container *k)
{
    return k->deleted && k->leaving_n == 0;
}

static struct store_change change_to(const struct container *k)
{
    if (is_over(k))
        return (struct store_change){ .kind = STORE_REMOVE_CONTAINER, .name = k->name };
    return (struct store_change){ .kind = STORE_PUT_CONTAINER, .container = k };
}

// What was committed counts from now on.
static void adopt(struct control *c, struct container *next /* taken */)
{
    if (!is_over(next)) {
        containers_adopt(&c->containers, next);
        return;
    }
    drop(&c->containers, next->name);
    container_free(next);
}

static int commit(struct control *c, struct container **next /* each taken */, size_t n, struct error *e)
{
    AUTO(free) struct store_change *changes = xcalloc(n + 1, sizeof *changes);
    for (size_t i = 0; i < n; i++)
        changes[i] = change_to(next[i]);
    int rc = store_commit(c->store, changes, n, e);
    for (size_t i = 0; i < n; i++) {
        if (rc < 0) {
            container_free(next[i]);
            continue;
        }
        tell_all(c, next[i]);
        adopt(c, next[i]);
    }
    return rc;
}

int containers_create(struct control *c, struct container *wish, struct error *e)
{
    AUTO(container_free) struct container *k = wish;
    int rc = check_create(&c->containers, &c->volumes, k, e);
    if (rc < 0)
        return rc;
    const struct container_entry *old = containers_find(&c->containers, k->name);
    return commit(c, (struct container *[]){ succeed(c, old ? old->want : NULL, k) }, 1, e);
}

static struct container_entry *live_entry(const struct control *c, const char *name, struct error *e)
{
    struct container_entry *entry = containers_find(&c->containers, name);
    if (entry && !entry->want->deleted)
        return entry;
    fail(e, E_NOT_FOUND, "Container not found.");
    return NULL;
}

int containers_move(struct control *c, const char *name, const struct uuid *node, struct error *e)
{
    const struct container_entry *entry = live_entry(c, name, e);
    if (!entry)
        return -E_NOT_FOUND;
    if (uuid_equal(&entry->want->node, node))
        return 0;
    AUTO(container_free) struct container *wish = container_copy(entry->want);
    wish->node = *node;
    return commit(c, (struct container *[]){ succeed(c, entry->want, wish) }, 1, e);
}

int containers_delete(struct control *c, const char *name, struct error *e)
{
    const struct container_entry *entry = live_entry(c, name, e);
    if (!entry)
        return -E_NOT_FOUND;
    AUTO(container_free) struct container *wish = container_copy(entry->want);
    wish->deleted = true;
    return commit(c, (struct container *[]){ succeed(c, entry->want, wish) }, 1, e);
}

// The wish of that name, or NULL.
static const struct container *wish_named(struct container *const *wishes, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(wishes[i]->name, name) == 0)
            return wishes[i];
    return NULL;
}

int containers_replace(struct control *c, struct container **wishes, size_t n, struct error *e)
{
    struct container_set *s = &c->containers;
    AUTO(free) struct container **next = xcalloc(n + s->n + 1, sizeof(struct container *));
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const struct container_entry *old = containers_find(s, wishes[i]->name);
        next[count++] = succeed(c, old ? old->want : NULL, wishes[i]);
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct container *old = s->entries[i].want;
        if (old->deleted || wish_named(wishes, n, old->name))
            continue;
        AUTO(container_free) struct container *gone = container_copy(old);
        gone->deleted = true;
        next[count++] = succeed(c, old, gone);
    }
    for (size_t i = 0; i < n; i++)
        container_free(wishes[i]);
    return commit(c, next, count, e);
}

// ---- reports

static struct container_sighting *sighting_of(struct container_entry *entry, const struct uuid *node)
{
    for (size_t i = 0; i < entry->n; i++)
        if (uuid_equal(&entry->seen[i].node, node))
            return &entry->seen[i];
    entry->seen = xrealloc(entry->seen, entry->n + 1, sizeof *entry->seen);
    entry->seen[entry->n] = (struct container_sighting){ .node = *node };
    return &entry->seen[entry->n++];
}

static void forget_sighting(struct container_entry *entry, struct container_sighting *s)
{
    sighting_done(s);
    *s = entry->seen[--entry->n];
}

// A node has let go: the entry forgets it, and goes if nothing is left of it.
static void note_left(struct control *c, struct container_entry *entry, const struct uuid *node)
{
    struct error e = ERROR_INIT;
    struct container *next = container_copy(entry->want);
    container_has_left(next, node);
    const struct store_change change = change_to(next);
    if (store_commit(c->store, &change, 1, &e) == 0) {
        adopt(c, next);
        return;
    }
    log_error("note that container %s is gone from node %s: %s", next->name, UUID_TEXT(node), e.msg);
    container_free(next);
}

void containers_node_gone(struct control *c, const struct uuid *node)
{
    struct container_set *s = &c->containers;
    for (size_t i = s->n; i-- > 0;) // the entry may go
        if (container_is_leaving(s->entries[i].want, node))
            note_left(c, &s->entries[i], node);
}

const char *containers_on_report(struct control *c, const struct uuid *node, const json_t *message)
{
    const char *name = json_string_value(json_object_get(message, "name"));
    struct container_entry *entry = name ? containers_find(&c->containers, name) : NULL;
    if (!name)
        return "a report on a container without its name";
    if (!entry || (!uuid_equal(&entry->want->node, node) && !container_is_leaving(entry->want, node)))
        return NULL; // what is not known here is none of control's business
    struct container_sighting *s = sighting_of(entry, node);
    sighting_done(s);
    s->present = json_is_true(json_object_get(message, "present"));
    s->running = s->present && json_is_true(json_object_get(message, "running"));
    s->image = agents_said(json_object_get(message, "image"));
    s->error = agents_said(json_object_get(json_object_get(message, "error"), "message"));
    if (container_is_leaving(entry->want, node) && !s->present && !s->error) {
        forget_sighting(entry, s);
        note_left(c, entry, node);
    }
    return NULL;
}
