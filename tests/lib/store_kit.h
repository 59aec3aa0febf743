// What the tests of stores share: records made from numbers, and the content of a store as one text.
#ifndef FLOCKER_TESTS_STORE_KIT_H
#define FLOCKER_TESTS_STORE_KIT_H

#include "base/mem.h"
#include "store/store.h"

#include <jansson.h>
#include <string.h>

DEFINE_AUTO(struct store *, store_close)

static inline struct uuid kit_id(uint32_t n)
{
    // Scattered, so that the order of ids is not that of numbers.
    uint32_t h = n * 2654435761u + 12345; // never zero for small numbers
    return (struct uuid){ { (uint8_t)(h >> 24), (uint8_t)(h >> 16), (uint8_t)(h >> 8), (uint8_t)h, [12] = (uint8_t)(n >> 24),
                            (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n } };
}

static inline struct volume *kit_volume(uint32_t n, const char *name)
{
    struct error e = ERROR_INIT;
    struct volume *v = volume_new();
    v->id = kit_id(n);
    v->name = name ? xstrdup(name) : NULL;
    v->size = (uint64_t)(64 + n % 1000) << 20;
    v->owner = kit_id(n + 1);
    v->epoch = 1 + n % 7;
    v->revision = 1 + n;
    v->born = n % 2;
    v->created_ms = 1767323045678 + n;
    int rc = metadata_set(&v->metadata, "number", name ? name : "none", &e);
    ASSERT(rc == 0);
    return v;
}

static inline void kit_trash(struct volume *v)
{
    v->state = VOLUME_TRASHED;
    v->trashed_ms = v->created_ms + 1;
    v->purge_ms = v->created_ms + 2;
}

static inline struct node kit_node(uint32_t n)
{
    struct node node = { .id = kit_id(n), .era = kit_id(n + 1000000) };
    snprintf(node.host, sizeof node.host, "host-%u", n);
    return node;
}

static inline struct hold kit_hold(uint32_t n)
{
    return (struct hold){
        .volume = kit_id(n), .node = kit_id(n + 1), .has_expiry = n % 2, .expires_ms = n % 2 ? (int64_t)n * 1000 : 0
    };
}

static inline int kit_put(struct store *s, const struct volume *v, struct error *e)
{
    struct store_change c = { .kind = STORE_PUT_VOLUME, .volume = v };
    return store_commit(s, &c, 1, e);
}

static inline int kit_put_new(struct store *s, uint32_t n, const char *name, struct error *e)
{
    AUTO(volume_free) struct volume *v = kit_volume(n, name);
    return kit_put(s, v, e);
}

static inline int kit_on_volume(void *arg, struct volume *v, struct error *e)
{
    (void)e;
    json_array_append_new(arg, volume_to_json(v));
    volume_free(v);
    return 0;
}

static inline int kit_on_hold(void *arg, const struct hold *h, struct error *e)
{
    (void)e;
    AUTO(free)
    char *text =
        xasprintf("hold %s %s %d %lld", UUID_TEXT(&h->volume), UUID_TEXT(&h->node), h->has_expiry, (long long)h->expires_ms);
    json_array_append_new(arg, json_string(text));
    return 0;
}

static inline int kit_on_node(void *arg, const struct node *n, struct error *e)
{
    (void)e;
    AUTO(free) char *text = xasprintf("node %s %s %s%s%s", UUID_TEXT(&n->id), UUID_TEXT(&n->era), n->host, n->removed ? " removed" : "",
                                 n->drain == NODE_DRAINS ? " drained" : n->drain == NODE_DRAINS_BY_FORCE ? " drained by force" : "");
    json_array_append_new(arg, json_string(text));
    return 0;
}

static inline struct join_token kit_token(uint32_t n)
{
    return (struct join_token){ .id = kit_id(n), .node = n % 2 ? kit_id(n + 1) : (struct uuid){ { 0 } }, .expires_ms = (int64_t)n * 1000 };
}

static inline int kit_on_token(void *arg, const struct join_token *t, struct error *e)
{
    (void)e;
    AUTO(free) char *text = xasprintf("token %s %s %lld", UUID_TEXT(&t->id), UUID_TEXT(&t->node), (long long)t->expires_ms);
    json_array_append_new(arg, json_string(text));
    return 0;
}

static inline struct user kit_user(uint32_t n)
{
    struct user u = { .revoked_ms = (int64_t)n * 1000 };
    snprintf(u.name, sizeof u.name, "user %u", n);
    for (size_t i = 0; n % 2 && i < sizeof u.key - 1; i++)
        u.key[i] = (char)('a' + n % 6);
    return u;
}

static inline int kit_on_user(void *arg, const struct user *u, struct error *e)
{
    (void)e;
    AUTO(free) char *text = xasprintf("%s %s %lld", u->name, u->key, (long long)u->revoked_ms);
    json_array_append_new(arg, json_string(text));
    return 0;
}

static inline int kit_on_container(void *arg, struct container *c, struct error *e)
{
    (void)e;
    json_array_append_new(arg, container_to_json(c));
    container_free(c);
    return 0;
}

// Container "c<n>" on node n.
static inline struct container *kit_container(uint32_t n)
{
    struct error e = ERROR_INIT;
    struct container *c = NULL;
    uint8_t random[16] = { [15] = (uint8_t)n };
    const struct uuid node = uuid_from_random(random);
    AUTO(free) char *name = xasprintf("c%u", n);
    json_t *body = json_pack("{s:s, s:s, s:s, s:{s:s}}", "node_uuid", UUID_TEXT(&node), "name", name, "image", "busybox", "environment",
                             "NUMBER", name);
    int rc = container_from_v1(body, &c, &e);
    json_decref(body);
    ASSERT(rc == 0);
    return c;
}

static inline int kit_put_container(struct store *s, uint32_t n, struct error *e)
{
    AUTO(container_free) struct container *c = kit_container(n);
    const struct store_change change = { .kind = STORE_PUT_CONTAINER, .container = c };
    return store_commit(s, &change, 1, e);
}

// All that the store holds, in the order in which it loads, or NULL with an error.
static inline char *kit_try_dump(struct store *s, struct error *e)
{
    json_t *all = json_array();
    const struct store_sink sink = { .on_volume = kit_on_volume, .on_hold = kit_on_hold, .on_node = kit_on_node, .arg = all,
                                     .on_token = kit_on_token, .on_container = kit_on_container, .on_user = kit_on_user };
    int rc = store_load(s, &sink, e);
    char *text = rc < 0 ? NULL : json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

static inline char *kit_dump(struct store *s)
{
    struct error e = ERROR_INIT;
    char *text = kit_try_dump(s, &e);
    if (!text)
        fprintf(stderr, "load: %s\n", e.msg);
    ASSERT(text);
    return text;
}

#endif
