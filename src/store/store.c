#include "store/store.h"

#include "base/limits.h"

#include <string.h>

int store_open(const struct store_ops *ops, const char *path, struct store **ret, struct error *e)
{
    ASSERT(ops && ops->open && ops->close && ops->load && ops->commit && ops->backup);
    ASSERT(path && ret && e);
    struct store *s = NULL;
    int rc = ops->open(path, &s, e);
    ASSERT((rc >= 0) == (s != NULL));
    if (rc < 0)
        return rc;
    ASSERT(s->ops == ops);
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
}

int store_load(struct store *s, const struct store_sink *sink, struct error *e)
{
    ASSERT(s && sink && e);
    ASSERT(sink->on_volume && sink->on_hold && sink->on_node);
    return s->ops->load(s, sink, e);
}

// What is stored can be loaded: a record that the reader would refuse must not get in.
static void assert_volume(const struct volume *v)
{
    struct error e = ERROR_INIT;
    ASSERT(!uuid_is_zero(&v->id));
    ASSERT(!v->name || volume_name_check(v->name, &e) == 0);
    ASSERT(volume_size_check(v->size, &e) == 0);
    ASSERT((unsigned)v->state < VOLUME_STATE_COUNT);
    ASSERT(v->state != VOLUME_LIVE || (v->trashed_ms == 0 && v->purge_ms == 0));
    ASSERT(v->epoch >= 1 && v->revision >= 1);
    ASSERT(v->metadata.n <= METADATA_ITEMS_MAX);
}

static void assert_change(const struct store_change *c)
{
    switch (c->kind) {
    case STORE_PUT_VOLUME:
        ASSERT(c->volume);
        assert_volume(c->volume);
        return;
    case STORE_PUT_HOLD:
        ASSERT(c->hold && !uuid_is_zero(&c->hold->volume));
        return;
    case STORE_PUT_NODE:
        ASSERT(c->node && !uuid_is_zero(&c->node->id));
        ASSERT(memchr(c->node->host, '\0', sizeof c->node->host));
        return;
    case STORE_PUT_TOKEN:
        ASSERT(c->token && !uuid_is_zero(&c->token->id));
        return;
    case STORE_PUT_CONTAINER:
        ASSERT(c->container && c->container->name && c->container->revision >= 1);
        return;
    case STORE_PUT_USER:
        ASSERT(c->user && c->user->name[0] && memchr(c->user->name, '\0', sizeof c->user->name) && memchr(c->user->key, '\0', sizeof c->user->key));
        return;
    case STORE_REMOVE_CONTAINER:
        ASSERT(c->name);
        return;
    case STORE_REMOVE_VOLUME:
    case STORE_REMOVE_HOLD:
    case STORE_REMOVE_NODE:
    case STORE_REMOVE_TOKEN:
        ASSERT(!uuid_is_zero(&c->id));
        return;
    }
    ASSERT(false); // a kind of change that is not in the switch
}

int store_commit(struct store *s, const struct store_change *changes, size_t n, struct error *e)
{
    ASSERT(s && e && (changes || n == 0));
    for (size_t i = 0; i < n; i++)
        assert_change(&changes[i]);
    return n > 0 ? s->ops->commit(s, changes, n, e) : 0;
}

int store_backup(struct store *s, const char *path, struct error *e)
{
    ASSERT(s && path && e);
    return s->ops->backup(s, path, e);
}
