// The store of tests and of the simulator: what it holds is gone when it is closed.
#include "store/store.h"

#include "base/mem.h"
#include "model/volume_set.h"

#include <string.h>

struct memory {
    struct store base;
    struct volume_set volumes;
    size_t holds_n, nodes_n, tokens_n;
    struct hold *holds; // in the order of volumes
    struct node *nodes; // in the order of ids
    size_t containers_n;
    struct container **containers; // in the order of names; owned
    struct join_token *tokens;
    size_t users_n;
    struct user *users; // in the order of names
};

static int memory_open(const char *path, struct store **ret, struct error *e)
{
    (void)path;
    (void)e;
    struct memory *m = xcalloc(1, sizeof *m);
    m->base.ops = &store_memory;
    *ret = &m->base;
    return 0;
}

static void memory_close(struct store *s)
{
    struct memory *m = (struct memory *)s;
    volume_set_done(&m->volumes);
    free(m->holds);
    free(m->nodes);
    for (size_t i = 0; i < m->containers_n; i++)
        container_free(m->containers[i]);
    free(m->containers);
    free(m->tokens);
    free(m->users);
    free(m);
}

static int memory_load(struct store *s, const struct store_sink *sink, struct error *e)
{
    const struct memory *m = (const struct memory *)s;
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < m->nodes_n; i++)
        rc = sink->on_node(sink->arg, &m->nodes[i], e);
    for (size_t i = 0; rc >= 0 && i < m->volumes.n; i++)
        rc = sink->on_volume(sink->arg, volume_copy(m->volumes.by_id[i]), e);
    for (size_t i = 0; rc >= 0 && i < m->holds_n; i++)
        rc = sink->on_hold(sink->arg, &m->holds[i], e);
    for (size_t i = 0; rc >= 0 && sink->on_token && i < m->tokens_n; i++)
        rc = sink->on_token(sink->arg, &m->tokens[i], e);
    for (size_t i = 0; rc >= 0 && sink->on_container && i < m->containers_n; i++)
        rc = sink->on_container(sink->arg, container_copy(m->containers[i]), e);
    for (size_t i = 0; rc >= 0 && sink->on_user && i < m->users_n; i++)
        rc = sink->on_user(sink->arg, &m->users[i], e);
    return rc < 0 ? rc : 0;
}

// Holds, nodes and tokens are arrays of records that start with their key, sorted by it.
static size_t place_of(const void *array, size_t n, size_t size, const struct uuid *key, bool *ret_found)
{
    size_t i = 0;
    int order = 1;
    while (i < n && (order = memcmp((const char *)array + i * size, key, sizeof *key)) < 0)
        i++;
    *ret_found = i < n && order == 0;
    return i;
}

static void *put_record(void *array, size_t *n, size_t size, const void *record)
{
    bool found;
    size_t i = place_of(array, *n, size, record, &found);
    if (!found) {
        array = xrealloc(array, *n + 1, size);
        memmove((char *)array + (i + 1) * size, (char *)array + i * size, (*n - i) * size);
        ++*n;
    }
    memcpy((char *)array + i * size, record, size);
    return array;
}

static void remove_record(void *array, size_t *n, size_t size, const struct uuid *key)
{
    bool found;
    size_t i = place_of(array, *n, size, key, &found);
    if (!found)
        return;
    --*n;
    memmove((char *)array + i * size, (char *)array + (i + 1) * size, (*n - i) * size);
}

static size_t place_of_container(const struct memory *m, const char *name, bool *ret_found)
{
    size_t i = 0;
    int order = 1;
    while (i < m->containers_n && (order = strcmp(m->containers[i]->name, name)) < 0)
        i++;
    *ret_found = i < m->containers_n && order == 0;
    return i;
}

static void remove_container(struct memory *m, const char *name)
{
    bool found;
    size_t i = place_of_container(m, name, &found);
    if (!found)
        return;
    container_free(m->containers[i]);
    m->containers_n--;
    memmove(&m->containers[i], &m->containers[i + 1], (m->containers_n - i) * sizeof(struct container *));
}

static void put_container(struct memory *m, const struct container *c)
{
    bool found;
    remove_container(m, c->name);
    size_t i = place_of_container(m, c->name, &found);
    m->containers = xrealloc(m->containers, m->containers_n + 1, sizeof(struct container *));
    memmove(&m->containers[i + 1], &m->containers[i], (m->containers_n - i) * sizeof(struct container *));
    m->containers[i] = container_copy(c);
    m->containers_n++;
}

static void put_user(struct memory *m, const struct user *u)
{
    size_t i = 0;
    while (i < m->users_n && strcmp(m->users[i].name, u->name) < 0)
        i++;
    if (i == m->users_n || strcmp(m->users[i].name, u->name) != 0) {
        m->users = xrealloc(m->users, m->users_n + 1, sizeof *m->users);
        memmove(&m->users[i + 1], &m->users[i], (m->users_n++ - i) * sizeof *m->users);
    }
    m->users[i] = *u;
}

static const struct uuid *volume_id_of(const struct store_change *c)
{
    return c->kind == STORE_PUT_VOLUME ? &c->volume->id : c->kind == STORE_REMOVE_VOLUME ? &c->id : NULL;
}

static int put_volume(struct memory *m, const struct volume *v, struct error *e)
{
    ASSERT(v);
    const struct volume *holder = v->name && v->state == VOLUME_LIVE ? volume_set_find_name(&m->volumes, v->name) : NULL;
    if (holder && !uuid_equal(&holder->id, &v->id))
        return fail(e, E_CONFLICT, "volume name \"%s\" is in use by volume %s", v->name, UUID_TEXT(&holder->id));
    volume_set_put(&m->volumes, volume_copy(v));
    return 0;
}

// Puts back the volumes of the first n changes, last one first, so that each step ends in a state that was there before.
static void undo_volumes(struct memory *m, const struct store_change *changes, size_t n, struct volume **before)
{
    while (n-- > 0) {
        const struct uuid *id = volume_id_of(&changes[n]);
        if (!id)
            continue;
        if (before[n])
            volume_set_put(&m->volumes, TAKE(before[n], NULL));
        else
            volume_set_remove(&m->volumes, id);
    }
}

static int commit_volumes(struct memory *m, const struct store_change *changes, size_t n, struct error *e)
{
    struct volume **before = xcalloc(n, sizeof(struct volume *));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct uuid *id = volume_id_of(&changes[i]);
        const struct volume *old = id ? volume_set_find(&m->volumes, id) : NULL;
        before[i] = old ? volume_copy(old) : NULL;
        if (changes[i].kind == STORE_PUT_VOLUME)
            rc = put_volume(m, changes[i].volume, e);
        else if (changes[i].kind == STORE_REMOVE_VOLUME)
            volume_set_remove(&m->volumes, id);
        if (rc < 0)
            undo_volumes(m, changes, i, before);
    }
    for (size_t i = 0; i < n; i++)
        volume_free(before[i]);
    free(before);
    return rc;
}

static int memory_commit(struct store *s, const struct store_change *changes, size_t n, struct error *e)
{
    _Static_assert(offsetof(struct hold, volume) == 0 && offsetof(struct node, id) == 0 && offsetof(struct join_token, id) == 0,
                   "the key comes first");
    struct memory *m = (struct memory *)s;
    int rc = commit_volumes(m, changes, n, e); // only volumes can be refused
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        const struct store_change *c = &changes[i];
        if (c->kind == STORE_PUT_HOLD)
            m->holds = put_record(m->holds, &m->holds_n, sizeof *m->holds, c->hold);
        else if (c->kind == STORE_REMOVE_HOLD)
            remove_record(m->holds, &m->holds_n, sizeof *m->holds, &c->id);
        else if (c->kind == STORE_PUT_NODE)
            m->nodes = put_record(m->nodes, &m->nodes_n, sizeof *m->nodes, c->node);
        else if (c->kind == STORE_REMOVE_NODE)
            remove_record(m->nodes, &m->nodes_n, sizeof *m->nodes, &c->id);
        else if (c->kind == STORE_PUT_CONTAINER)
            put_container(m, c->container);
        else if (c->kind == STORE_REMOVE_CONTAINER)
            remove_container(m, c->name);
        else if (c->kind == STORE_PUT_TOKEN)
            m->tokens = put_record(m->tokens, &m->tokens_n, sizeof *m->tokens, c->token);
        else if (c->kind == STORE_REMOVE_TOKEN)
            remove_record(m->tokens, &m->tokens_n, sizeof *m->tokens, &c->id);
        else if (c->kind == STORE_PUT_USER)
            put_user(m, c->user);
    }
    return 0;
}

static int memory_backup(struct store *s, const char *path, struct error *e)
{
    (void)s;
    return fail(e, E_UNSUPPORTED, "backup to %s: the memory store keeps nothing", path);
}

const struct store_ops store_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .load = memory_load,
    .commit = memory_commit,
    .backup = memory_backup,
};
