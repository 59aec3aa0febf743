// What each kind of record looks like in the tables: the statements, sums that tell damage, and both ways.
#include "store/sqlite_internal.h"

#include "base/limits.h"

#include <string.h>

// clang-format off
enum statement {
    BEGIN, COMMIT, ROLLBACK,
    PUT_VOLUME, REMOVE_VOLUME, PUT_HOLD, REMOVE_HOLD, PUT_NODE, REMOVE_NODE, PUT_TOKEN, REMOVE_TOKEN, PUT_CONTAINER, REMOVE_CONTAINER,
    PUT_USER, VOLUMES, NAMES, HOLDS, NODES, TOKENS, CONTAINERS, USERS,
    STATEMENT_COUNT
};
// clang-format on

static const char *const statement_text[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    // Not REPLACE: that would delete the other volume that has the name.
    [PUT_VOLUME] =
        "INSERT INTO volume (id, name, live, epoch, record, sum) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " name = excluded.name, live = excluded.live, epoch = excluded.epoch, record = excluded.record, sum = excluded.sum",
    [REMOVE_VOLUME] = "DELETE FROM volume WHERE id = ?",
    [PUT_HOLD] = "INSERT INTO hold (volume, node, expires_ms, sum) VALUES (?, ?, ?, ?) ON CONFLICT (volume) DO UPDATE SET"
                 " node = excluded.node, expires_ms = excluded.expires_ms, sum = excluded.sum",
    [REMOVE_HOLD] = "DELETE FROM hold WHERE volume = ?",
    [PUT_NODE] = "INSERT INTO node (id, era, host, sum, removed, drain) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                 " era = excluded.era, host = excluded.host, sum = excluded.sum, removed = excluded.removed, drain = excluded.drain",
    [REMOVE_NODE] = "DELETE FROM node WHERE id = ?",
    [PUT_TOKEN] = "INSERT INTO token (id, node, expires_ms, sum) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                  " node = excluded.node, expires_ms = excluded.expires_ms, sum = excluded.sum",
    [REMOVE_TOKEN] = "DELETE FROM token WHERE id = ?",
    [VOLUMES] = "SELECT id, name, live, epoch, record, sum FROM volume ORDER BY id",
    [NAMES] = "SELECT id, name FROM volume INDEXED BY volume_live_name WHERE live = 1 AND name IS NOT NULL ORDER BY name",
    [HOLDS] = "SELECT volume, node, expires_ms, sum FROM hold ORDER BY volume",
    [NODES] = "SELECT id, era, host, sum, removed, drain FROM node ORDER BY id",
    [TOKENS] = "SELECT id, node, expires_ms, sum FROM token ORDER BY id",
    [PUT_CONTAINER] = "INSERT INTO container (name, record, sum) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                      " record = excluded.record, sum = excluded.sum",
    [REMOVE_CONTAINER] = "DELETE FROM container WHERE name = ?",
    [CONTAINERS] = "SELECT name, record, sum FROM container ORDER BY name",
    [PUT_USER] = "INSERT INTO user (name, key, revoked_ms, sum) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                 " key = excluded.key, revoked_ms = excluded.revoked_ms, sum = excluded.sum",
    [USERS] = "SELECT name, key, revoked_ms, sum FROM user ORDER BY name",
};

struct records {
    sqlite3 *db;
    const char *path; // for messages
    sqlite3_stmt *statements[STATEMENT_COUNT];
};

void records_free(struct records *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(r->statements[i]); // NULL is fine; what it returns is the last step's error, told then
    free(r);
}
DEFINE_AUTO(struct records *, records_free)

int records_open(sqlite3 *db, const char *path, struct records **ret, struct error *e)
{
    AUTO(records_free) struct records *r = xcalloc(1, sizeof *r);
    *r = (struct records){ .db = db, .path = path };
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        int rc = sqlite3_prepare_v3(db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT, &r->statements[i], NULL);
        if (rc != SQLITE_OK)
            return storefile_fail(db, path, rc, "prepare", e);
    }
    *ret = TAKE(r, NULL);
    return 0;
}

// ---- to the tables --------------------------------------------------------------------------------------------------------------

// Binding fails only for want of memory or by a bug.
static void bind_int(sqlite3_stmt *st, int i, int64_t n)
{
    int rc = sqlite3_bind_int64(st, i, n);
    ASSERT(rc == SQLITE_OK);
}

static void bind_uuid(sqlite3_stmt *st, int i, const struct uuid *u)
{
    int rc = sqlite3_bind_blob(st, i, u->b, sizeof u->b, SQLITE_STATIC);
    ASSERT(rc == SQLITE_OK);
}

static void bind_text(sqlite3_stmt *st, int i, const char *text)
{
    int rc = text ? sqlite3_bind_text(st, i, text, -1, SQLITE_STATIC) : sqlite3_bind_null(st, i);
    ASSERT(rc == SQLITE_OK);
}

// Runs a statement that gives no rows. Returns SQLite's code.
static int run(struct records *r, enum statement which)
{
    sqlite3_stmt *st = r->statements[which];
    int rc = sqlite3_step(st);
    sqlite3_reset(st); // says the same again
    sqlite3_clear_bindings(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int put_volume(struct records *r, const struct volume *v)
{
    sqlite3_stmt *st = r->statements[PUT_VOLUME];
    json_t *object = volume_to_json(v);
    AUTO(free) char *record = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    ASSERT(record);
    bind_uuid(st, 1, &v->id);
    bind_text(st, 2, v->name);
    bind_int(st, 3, v->state == VOLUME_LIVE);
    bind_int(st, 4, (int64_t)v->epoch);
    bind_text(st, 5, record);
    bind_int(st, 6, (int64_t)schema_sum(SUM_INIT, record, strlen(record)));
    return run(r, PUT_VOLUME);
}

static int64_t sum_of_hold(const struct hold *h)
{
    uint64_t expires_ms = h->has_expiry ? (uint64_t)h->expires_ms : 0;
    unsigned char expires[8]; // in the same order on every machine
    for (size_t i = 0; i < sizeof expires; i++)
        expires[i] = (unsigned char)(expires_ms >> (8 * i));
    uint64_t sum = schema_sum(SUM_INIT, h->volume.b, sizeof h->volume.b);
    sum = schema_sum(sum, h->node.b, sizeof h->node.b);
    sum = schema_sum(sum, h->has_expiry ? "1" : "0", 1);
    return (int64_t)schema_sum(sum, expires, sizeof expires);
}

static int put_hold(struct records *r, const struct hold *h)
{
    sqlite3_stmt *st = r->statements[PUT_HOLD];
    bind_uuid(st, 1, &h->volume);
    bind_uuid(st, 2, &h->node);
    if (h->has_expiry)
        bind_int(st, 3, h->expires_ms);
    bind_int(st, 4, sum_of_hold(h));
    return run(r, PUT_HOLD);
}

static int64_t sum_of_node(const struct node *n)
{
    ASSERT(n);
    uint64_t sum = schema_sum(SUM_INIT, n->id.b, sizeof n->id.b);
    sum = schema_sum(sum, n->era.b, sizeof n->era.b);
    sum = schema_sum(sum, n->host, strlen(n->host));
    const unsigned char drain = (unsigned char)n->drain;
    sum = n->removed ? schema_sum(sum, "\n", 1) : sum; // sums of earlier versions stay right
    return (int64_t)(n->drain != NODE_STAYS ? schema_sum(sum, &drain, 1) : sum);
}

static int put_node(struct records *r, const struct node *n)
{
    sqlite3_stmt *st = r->statements[PUT_NODE];
    bind_uuid(st, 1, &n->id);
    bind_uuid(st, 2, &n->era);
    bind_text(st, 3, n->host);
    bind_int(st, 4, sum_of_node(n));
    bind_int(st, 5, n->removed);
    bind_int(st, 6, n->drain);
    return run(r, PUT_NODE);
}

// The sum is over the name, too: a record that has got under another one's is damage.
static int64_t sum_of_container(const char *name, const char *record)
{
    return (int64_t)schema_sum(schema_sum(SUM_INIT, name, strlen(name) + 1), record, strlen(record));
}

static int put_container(struct records *r, const struct container *c)
{
    sqlite3_stmt *st = r->statements[PUT_CONTAINER];
    json_t *object = container_to_json(c);
    AUTO(free) char *record = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    ASSERT(record);
    bind_text(st, 1, c->name);
    bind_text(st, 2, record);
    bind_int(st, 3, sum_of_container(c->name, record));
    return run(r, PUT_CONTAINER);
}

static int remove_container(struct records *r, const char *name)
{
    bind_text(r->statements[REMOVE_CONTAINER], 1, name);
    return run(r, REMOVE_CONTAINER);
}

static int64_t sum_of_token(const struct join_token *t)
{
    ASSERT(t);
    uint64_t sum = schema_sum(SUM_INIT, t->id.b, sizeof t->id.b);
    sum = schema_sum(sum, t->node.b, sizeof t->node.b);
    return (int64_t)schema_sum(sum, &t->expires_ms, sizeof t->expires_ms);
}

static int put_token(struct records *r, const struct join_token *t)
{
    sqlite3_stmt *st = r->statements[PUT_TOKEN];
    bind_uuid(st, 1, &t->id);
    bind_uuid(st, 2, &t->node);
    bind_int(st, 3, t->expires_ms);
    bind_int(st, 4, sum_of_token(t));
    return run(r, PUT_TOKEN);
}

static int64_t sum_of_user(const struct user *u)
{
    uint64_t sum = schema_sum(SUM_INIT, u->name, strlen(u->name) + 1);
    sum = schema_sum(sum, u->key, strlen(u->key) + 1);
    return (int64_t)schema_sum(sum, &u->revoked_ms, sizeof u->revoked_ms);
}

static int put_user(struct records *r, const struct user *u)
{
    sqlite3_stmt *st = r->statements[PUT_USER];
    bind_text(st, 1, u->name);
    bind_text(st, 2, u->key);
    bind_int(st, 3, u->revoked_ms);
    bind_int(st, 4, sum_of_user(u));
    return run(r, PUT_USER);
}

static int remove_record(struct records *r, enum statement which, const struct uuid *id)
{
    bind_uuid(r->statements[which], 1, id);
    return run(r, which);
}

int records_begin(struct records *r)
{
    return run(r, BEGIN);
}

int records_commit(struct records *r)
{
    return run(r, COMMIT);
}

int records_roll_back(struct records *r)
{
    return run(r, ROLLBACK);
}

int records_apply(struct records *r, const struct store_change *c)
{
    switch (c->kind) {
    case STORE_PUT_VOLUME:
        return put_volume(r, c->volume);
    case STORE_REMOVE_VOLUME:
        return remove_record(r, REMOVE_VOLUME, &c->id);
    case STORE_PUT_HOLD:
        return put_hold(r, c->hold);
    case STORE_REMOVE_HOLD:
        return remove_record(r, REMOVE_HOLD, &c->id);
    case STORE_PUT_NODE:
        return put_node(r, c->node);
    case STORE_REMOVE_NODE:
        return remove_record(r, REMOVE_NODE, &c->id);
    case STORE_PUT_CONTAINER:
        return put_container(r, c->container);
    case STORE_REMOVE_CONTAINER:
        return remove_container(r, c->name);
    case STORE_PUT_TOKEN:
        return put_token(r, c->token);
    case STORE_REMOVE_TOKEN:
        return remove_record(r, REMOVE_TOKEN, &c->id);
    case STORE_PUT_USER:
        return put_user(r, c->user);
    }
    ASSERT(false); // a kind of change that is not in the switch
}

// ---- from the tables ------------------------------------------------------------------------------------------------------------

static bool read_uuid(sqlite3_stmt *st, int i, struct uuid *ret)
{
    const void *blob = sqlite3_column_blob(st, i);
    if (!blob || sqlite3_column_bytes(st, i) != (int)sizeof ret->b)
        return false;
    memcpy(ret->b, blob, sizeof ret->b);
    return true;
}

// Goes over the rows of a query until `row` refuses one (with an error) or there are no more.
static int each_row(struct records *r, enum statement which,
                    int (*row)(struct records *, sqlite3_stmt *, void *, struct error *), void *arg, struct error *e)
{
    sqlite3_stmt *st = r->statements[which];
    int rc = 0, code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW && rc >= 0)
        rc = row(r, st, arg, e);
    if (rc >= 0 && code != SQLITE_DONE)
        rc = storefile_fail(r->db, r->path, code, "read the store", e);
    sqlite3_reset(st);
    return rc < 0 ? rc : 0;
}

// One walk over the index of names, one over the volumes; that they tell the same is seen from sums at the end. The index alone
// says that no name is there twice, and nobody but this walk would notice damage in it.
struct load {
    const struct store_sink *sink;
    bool has_last;
    struct uuid last_id;
    char last_name[NAME_BYTES_MAX + 1];
    uint64_t index_digest, table_digest; // sums over (id, name) of the named live volumes, whatever their order
};

static uint64_t digest_of(const struct uuid *id, const char *name)
{
    return schema_sum(schema_sum(SUM_INIT, id->b, sizeof id->b), name, strlen(name));
}

static int load_name(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    struct load *l = arg;
    struct uuid id;
    const char *name = (const char *)sqlite3_column_text(st, 1);
    // They come in the order of the index: two that are equal would be neighbours.
    if (!read_uuid(st, 0, &id) || !name || strlen(name) > NAME_BYTES_MAX || strcmp(l->last_name, name) >= 0)
        return storefile_corrupt(r->path, "is damaged (index of names)", e);
    memcpy(l->last_name, name, strlen(name) + 1);
    l->index_digest += digest_of(&id, name);
    return 0;
}

static bool agrees(const struct volume *v, sqlite3_stmt *st)
{
    struct uuid id;
    const char *name = (const char *)sqlite3_column_text(st, 1);
    return read_uuid(st, 0, &id) && uuid_equal(&id, &v->id) && (name ? v->name && strcmp(name, v->name) == 0 : !v->name) &&
           sqlite3_column_int64(st, 2) == (v->state == VOLUME_LIVE) && sqlite3_column_int64(st, 3) == (int64_t)v->epoch;
}

static int load_volume(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    struct load *l = arg;
    struct uuid id;
    if (!read_uuid(st, 0, &id) || (l->has_last && uuid_compare(&l->last_id, &id) >= 0))
        return storefile_corrupt(r->path, "is damaged (volumes out of order)", e);
    l->has_last = true;
    l->last_id = id;
    const char *record = (const char *)sqlite3_column_text(st, 4);
    size_t n = (size_t)sqlite3_column_bytes(st, 4);
    bool is_whole = record && (int64_t)schema_sum(SUM_INIT, record, n) == sqlite3_column_int64(st, 5);

    AUTO(volume_free) struct volume *v = NULL;
    struct error inner = ERROR_INIT;
    json_t *object = is_whole ? json_loadb(record, n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    int rc = volume_from_json(object, &v, &inner);
    json_decref(object);
    if (rc < 0 || !agrees(v, st)) {
        const char *what = !is_whole ? "its sum is wrong" : rc < 0 ? inner.msg : "two answers";
        AUTO(free) char *why = xasprintf("is damaged (volume %s: %.60s)", UUID_TEXT(&id), what);
        return storefile_corrupt(r->path, why, e);
    }
    if (v->name && v->state == VOLUME_LIVE)
        l->table_digest += digest_of(&id, v->name);
    return l->sink->on_volume(l->sink->arg, TAKE(v, NULL), e);
}

static int load_hold(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    const struct store_sink *sink = ((struct load *)arg)->sink;
    struct hold h = { .has_expiry = sqlite3_column_type(st, 2) != SQLITE_NULL, .expires_ms = sqlite3_column_int64(st, 2) };
    if (!read_uuid(st, 0, &h.volume) || !read_uuid(st, 1, &h.node) || sum_of_hold(&h) != sqlite3_column_int64(st, 3))
        return storefile_corrupt(r->path, "is damaged (a hold)", e);
    return sink->on_hold(sink->arg, &h, e);
}

static int load_node(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    const struct store_sink *sink = ((struct load *)arg)->sink;
    struct node n = { .host = "", .removed = sqlite3_column_int64(st, 4) != 0, .drain = (enum node_drain)sqlite3_column_int(st, 5) };
    const char *host = (const char *)sqlite3_column_text(st, 2);
    bool is_good = host && strlen(host) < sizeof n.host && read_uuid(st, 0, &n.id) && read_uuid(st, 1, &n.era);
    if (is_good)
        memcpy(n.host, host, strlen(host) + 1);
    if (!is_good || sum_of_node(&n) != sqlite3_column_int64(st, 3))
        return storefile_corrupt(r->path, "is damaged (a node)", e);
    return sink->on_node(sink->arg, &n, e);
}

static int load_container(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    const struct store_sink *sink = ((struct load *)arg)->sink;
    AUTO(container_free) struct container *c = NULL;
    const char *name = (const char *)sqlite3_column_text(st, 0), *record = (const char *)sqlite3_column_text(st, 1);
    json_error_t why;
    if (!name || !record || sum_of_container(name, record) != sqlite3_column_int64(st, 2))
        return storefile_corrupt(r->path, "is damaged (a container)", e);
    json_t *object = json_loads(record, 0, &why);
    int rc = container_from_json(object, &c, e);
    json_decref(object);
    if (rc < 0 || strcmp(c->name, name) != 0)
        return storefile_corrupt(r->path, "is damaged (a container's record)", e);
    return sink->on_container(sink->arg, TAKE(c, NULL), e);
}

static int load_token(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    const struct store_sink *sink = ((struct load *)arg)->sink;
    struct join_token t = { .expires_ms = sqlite3_column_int64(st, 2) };
    if (!read_uuid(st, 0, &t.id) || !read_uuid(st, 1, &t.node) || sum_of_token(&t) != sqlite3_column_int64(st, 3))
        return storefile_corrupt(r->path, "is damaged (a join token)", e);
    return sink->on_token ? sink->on_token(sink->arg, &t, e) : 0;
}

static int load_user(struct records *r, sqlite3_stmt *st, void *arg, struct error *e)
{
    const struct store_sink *sink = ((struct load *)arg)->sink;
    struct user u = { .revoked_ms = sqlite3_column_int64(st, 2) };
    const char *name = (const char *)sqlite3_column_text(st, 0), *key = (const char *)sqlite3_column_text(st, 1);
    bool is_good = name && key && *name && strlen(name) < sizeof u.name && strlen(key) < sizeof u.key;
    if (is_good) {
        memcpy(u.name, name, strlen(name) + 1);
        memcpy(u.key, key, strlen(key) + 1);
    }
    if (!is_good || sum_of_user(&u) != sqlite3_column_int64(st, 3))
        return storefile_corrupt(r->path, "is damaged (a user)", e);
    return sink->on_user ? sink->on_user(sink->arg, &u, e) : 0;
}

int records_load(struct records *r, const struct store_sink *sink, struct error *e)
{
    struct load l = { .sink = sink };
    int rc = each_row(r, NODES, load_node, &l, e);
    if (rc == 0)
        rc = each_row(r, NAMES, load_name, &l, e);
    if (rc == 0)
        rc = each_row(r, VOLUMES, load_volume, &l, e);
    if (rc == 0 && l.table_digest != l.index_digest)
        rc = storefile_corrupt(r->path, "is damaged (index of names)", e);
    if (rc == 0)
        rc = each_row(r, HOLDS, load_hold, &l, e);
    if (rc == 0)
        rc = each_row(r, TOKENS, load_token, &l, e);
    if (rc == 0 && sink->on_container)
        rc = each_row(r, CONTAINERS, load_container, &l, e);
    if (rc == 0)
        rc = each_row(r, USERS, load_user, &l, e);
    return rc;
}
