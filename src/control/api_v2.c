// REST API v2: what v1 never had: names, sizes that change, the trash, and answers that wait for the effect. Errors are
// {"code": <word of the error table>, "description": <sentence>}.
#include "control/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"

#include <string.h>

static json_t *time_to_json(int64_t ms)
{
    char text[CLOCK_TEXT_SIZE];
    return ms ? json_string(clock_format(ms, text)) : json_null();
}

json_t *volume_to_v2(const struct control *c, const struct volume *v)
{
    const struct sighting *s = control_sighting(c, &v->id);
    const struct control_node *owner = control_node(c, &v->owner);
    struct error away = ERROR_INIT;
    bool is_away = absence_describe(c, v, &away) && v->state != VOLUME_DELETED;
    json_t *o = json_pack("{s:s, s:s?, s:s, s:I, s:o, s:s, s:s, s:s, s:I, s:o, s:b, s:b, s:b, s:o, s:o}", "id", UUID_TEXT(&v->id), "name", v->name,
                          "state", volume_state_word(v->state), "size", (json_int_t)v->size, "metadata", metadata_to_json(&v->metadata),
                          "owner", UUID_TEXT(&v->owner), "host", owner ? owner->node.host : "", "target", UUID_TEXT(&v->target), "epoch",
                          (json_int_t)v->epoch, "options",
                          json_pack("{s:I, s:I, s:I, s:b}", "uid", (json_int_t)v->options.uid, "gid", (json_int_t)v->options.gid, "mode",
                                    (json_int_t)v->options.mode, "nocow", (int)v->options.nocow),
                          "ready", (int)(s && !is_away && s->present && s->epoch == v->epoch && v->state == VOLUME_LIVE), "mounted", (int)(s && s->mounted),
                          "in_use", (int)(s && s->part.in_use),
                          "created", time_to_json(v->created_ms), "purge", time_to_json(v->purge_ms));
    json_t *move = moves_to_v2(c, v);
    if (move)
        json_object_set_new(o, "move", move);
    if (s && s->path)
        json_object_set_new(o, "path", json_string(s->path));
    json_object_set_new(o, "node_state", json_string(api_node_state(owner)));
    if (is_away)
        json_object_set_new(o, "error", json_pack("{s:s, s:o}", "code", error_word(away.code), "description", json_text(away.msg)));
    else if (s && s->error)
        json_object_set_new(o, "error", json_pack("{s:s, s:s}", "code", s->error_word, "description", s->error));
    return o;
}

// ---- lists: a page each

static bool is_shown(const struct volume *v, bool all)
{
    return all ? v->state != VOLUME_DELETED : v->state == VOLUME_LIVE;
}

static bool write_volume(FILE *f, const struct control *c, const struct volume *v, const char *comma)
{
    json_t *o = volume_to_v2(c, v);
    fputs(comma, f);
    json_dumpf(o, f, JSON_COMPACT);
    json_decref(o);
    return true;
}

static bool write_live(FILE *f, const struct control *c, size_t at, const char *comma)
{
    const struct volume *v = c->volumes.by_id[at];
    return is_shown(v, false) && write_volume(f, c, v, comma);
}

static bool write_any(FILE *f, const struct control *c, size_t at, const char *comma)
{
    const struct volume *v = c->volumes.by_id[at];
    return is_shown(v, true) && write_volume(f, c, v, comma);
}

// The id of the last volume of a page; false if no more follow.
static bool find_end(const struct control *c, const struct uuid *after, bool all, int limit, struct uuid *ret)
{
    for (size_t i = volume_set_behind(&c->volumes, after); i < c->volumes.n; i++) {
        const struct volume *v = c->volumes.by_id[i];
        if (!is_shown(v, all))
            continue;
        if (limit-- == 0)
            return true;
        *ret = v->id;
    }
    return false;
}

static int read_page(const struct call *call, struct uuid *after, int *limit, struct error *e)
{
    char text[64];
    const char *value = api_query(call->exchange, "after", text, sizeof text);
    if (value && !uuid_parse(value, after))
        return fail(e, E_INVALID, "after=%s: the id of a volume is wanted", value);
    int rc = api_number(call->exchange, "limit", PAGE_VOLUMES_MAX, limit, e);
    return rc == 0 && *limit == 0 ? fail(e, E_INVALID, "limit=0: at least 1 is wanted") : rc;
}

static void list_volumes(struct call *call)
{
    static const struct listing_kind live = { &listing_volumes, write_live }, any = { &listing_volumes, write_any };
    bool all = api_flag(call->exchange, "all");
    struct listing_range page = { .after = { { 0 } } };
    struct error e = ERROR_INIT;
    int limit = PAGE_VOLUMES;
    if (read_page(call, &page.after, &limit, &e) < 0) {
        api_fail(call->exchange, &e);
        return;
    }
    bool has_next = find_end(call->control, &page.after, all, limit, &page.last);
    AUTO(free) char *link = has_next ? xasprintf("Link: </v2/volumes?after=%s&limit=%d%s>; rel=\"next\"\r\n", UUID_TEXT(&page.last), limit,
                                                 all ? "&all=1" : "") : xstrdup("");
    if (!has_next)
        memset(&page.last, 0xff, sizeof page.last);
    listing_reply(call, all ? &any : &live, &page, link);
}

// ---- reading bodies

static int read_size(const json_t *value, uint64_t *ret, struct error *e)
{
    if (json_is_string(value))
        return size_parse(json_string_value(value), ret, e);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return fail(e, E_INVALID, "\"size\" is neither a number of bytes nor a text such as \"10G\"");
    *ret = ((uint64_t)json_integer_value(value) + VOLUME_SIZE_UNIT - 1) / VOLUME_SIZE_UNIT * VOLUME_SIZE_UNIT;
    return 0;
}

static int read_id(const json_t *body, const char *member, struct uuid *ret, struct error *e)
{
    const json_t *value = json_object_get(body, member);
    if (value && (!json_is_string(value) || !uuid_parse(json_string_value(value), ret) || !uuid_is_v4(ret)))
        return fail(e, E_INVALID, "\"%s\" is not a UUID of version 4", member);
    return 0;
}

int api_check_members(const json_t *object, const char *const *names, struct error *e)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return fail(e, E_INVALID, "a JSON object is wanted");
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        bool known = false;
        for (size_t i = 0; names[i]; i++)
            known |= strcmp(names[i], key) == 0;
        if (!known)
            return fail(e, E_INVALID, "\"%.100s\" is not a member that this call knows", key);
    }
    return 0;
}

static int read_options(const json_t *object, struct volume_options *ret, struct error *e)
{
    static const char *const members[] = { "uid", "gid", "mode", "nocow", NULL };
    struct {
        const char *name;
        uint32_t *place;
        json_int_t max;
    } numbers[] = { { "uid", &ret->uid, UINT32_MAX - 1 }, { "gid", &ret->gid, UINT32_MAX - 1 }, { "mode", &ret->mode, 07777 } };
    const json_t *nocow = json_object_get(object, "nocow");
    int rc = object ? api_check_members(object, members, e) : 0;
    if (rc < 0)
        return fail_ctx(e, rc, "\"options\"");
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        const json_t *value = json_object_get(object, numbers[i].name);
        json_int_t n = json_integer_value(value);
        if (value && (!json_is_integer(value) || n < 0 || n > numbers[i].max))
            return fail(e, E_INVALID, "\"%s\" is not a number from 0 to %lld", numbers[i].name, (long long)numbers[i].max);
        if (value)
            *numbers[i].place = (uint32_t)n;
    }
    if (nocow && !json_is_boolean(nocow))
        return fail(e, E_INVALID, "\"nocow\" is neither true nor false");
    ret->nocow = json_is_true(nocow);
    return 0;
}

static int read_name(const json_t *body, const char **ret, struct error *e)
{
    const json_t *name = json_object_get(body, "name");
    if (name && !json_is_string(name))
        return fail(e, E_INVALID, "\"name\" is not a text");
    *ret = json_string_value(name);
    return 0;
}

// A node by its id, by the unique beginning of one, or by its address. An id may be that of a node that has not come yet.
static int read_owner(const struct call *call, struct uuid *ret, struct error *e)
{
    const json_t *owner = json_object_get(call->body, "owner");
    const char *text = json_string_value(owner);
    struct control_node *n = NULL;
    if (!owner || !text || !*text || uuid_parse(text, ret))
        return read_id(call->body, "owner", ret, e);
    int rc = control_find_node(call->control, text, &n, e);
    if (rc == 0)
        *ret = n->node.id;
    return rc;
}

static int read_wish(const struct call *call, struct volume_wish *wish, struct metadata *metadata, struct error *e)
{
    static const char *const members[] = { "name", "id", "size", "owner", "metadata", "options", NULL };
    const json_t *body = call->body, *size = json_object_get(body, "size");
    int rc = api_check_members(body, members, e);
    if (rc < 0 || (rc = read_name(body, &wish->name, e)) < 0)
        return rc;
    if ((size && (rc = read_size(size, &wish->size, e)) < 0) || (rc = read_id(body, "id", &wish->id, e)) < 0 ||
        (rc = read_owner(call, &wish->owner, e)) < 0 || (rc = read_options(json_object_get(body, "options"), &wish->options, e)) < 0)
        return rc;
    if (json_object_get(body, "metadata") && (rc = metadata_from_json(json_object_get(body, "metadata"), metadata, e)) < 0)
        return rc;
    wish->metadata = metadata;
    return 0;
}

static void create_volume(struct call *call)
{
    struct control *c = call->control;
    struct volume_wish wish = { .options = VOLUME_OPTIONS_DEFAULT };
    struct metadata metadata = { 0, NULL };
    struct error e = ERROR_INIT;
    const struct volume *created = NULL, *existing = NULL;
    int rc = read_wish(call, &wish, &metadata, &e);
    if (rc == 0 && uuid_is_zero(&wish.owner))
        rc = drain_choose(c, &wish.owner, &e);
    if (rc == 0)
        rc = control_create(c, &wish, &created, &existing, &e);
    metadata_done(&metadata);
    if (rc < 0)
        api_fail(call->exchange, &e);
    else
        wait_and_reply(call, created, 201);
}

// ---- one volume

// The one in the trash that had this name, and was removed last; *ret_several tells whether there are more.
static const struct volume *find_trashed(const struct control *c, const char *name, bool *ret_several)
{
    const struct volume *found = NULL;
    *ret_several = false;
    for (size_t i = 0; i < c->volumes.n; i++) {
        const struct volume *v = c->volumes.by_id[i];
        if (v->state != VOLUME_TRASHED || !v->name || strcmp(v->name, name) != 0)
            continue;
        *ret_several = found != NULL;
        if (!found || v->trashed_ms >= found->trashed_ms)
            found = v;
    }
    return found;
}

static void not_found(const struct call *call)
{
    struct error e = ERROR_INIT;
    fail(&e, E_NOT_FOUND, "no such volume: %.255s", call->segment);
    api_fail(call->exchange, &e);
}

// The volume of the path: a live one by name, any by id, or the last of that name in the trash. NULL after a 404.
static const struct volume *volume(const struct call *call)
{
    const struct control *c = call->control;
    const struct volume *found = control_find(c, call->segment);
    bool several;
    if (!found)
        found = find_trashed(c, call->segment, &several);
    if (!found)
        not_found(call);
    return found;
}

// A client's call that waits for an answer of the volume's agent.
struct asking {
    struct control *control;
    struct http_exchange *exchange;
    struct uuid id;
};

// The volume that was asked about; NULL after a 404.
static const struct volume *asked_volume(const struct asking *a)
{
    const struct volume *v = volume_set_find(&a->control->volumes, &a->id);
    struct error e = ERROR_INIT;
    if (!v) {
        fail(&e, E_NOT_FOUND, "volume %s is gone", UUID_TEXT(&a->id));
        api_fail(a->exchange, &e);
    }
    return v;
}

static void on_usage(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct asking *a = arg;
    const struct volume *v = asked_volume(a);
    const json_t *used = json_object_get(reply, "used");
    (void)e;
    if (v) {
        json_t *body = volume_to_v2(a->control, v);
        json_object_set_new(body, "used", rc == 0 && json_is_integer(used) ? json_deep_copy(used) : json_null());
        api_reply(a->exchange, 200, body);
    }
    free(a);
}

static void ask_agent(struct call *call, const struct volume *v, const char *type, agents_done *done)
{
    struct asking *a = xcalloc(1, sizeof *a);
    *a = (struct asking){ call->control, call->exchange, v->id };
    agents_ask(call->control, &v->owner, json_pack("{s:s, s:s}", "type", type, "id", UUID_TEXT(&v->id)),
               call->wait_s ? call->wait_s * 1000 : ASK_MS, done, a);
}

static void get_volume(struct call *call)
{
    const struct volume *v = volume(call);
    if (v && api_flag(call->exchange, "usage"))
        ask_agent(call, v, "usage", on_usage);
    else if (v)
        api_reply(call->exchange, 200, volume_to_v2(call->control, v));
}

// Commits what was decided and replies, perhaps after waiting. An unchanged copy is not written.
static void put_and_reply(struct call *call, int rc, const struct volume *old, struct volume *changed, struct error *e)
{
    struct control *c = call->control;
    struct uuid id = old->id;
    if (rc == 0 && changed->revision == old->revision)
        volume_free(changed);
    else if (rc == 0)
        rc = control_put(c, changed, e);
    if (rc < 0)
        api_fail(call->exchange, e);
    else
        wait_and_reply(call, volume_set_find(&c->volumes, &id), 200);
}

static void resize_volume(struct call *call)
{
    static const char *const members[] = { "size", NULL };
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    uint64_t size = 0;
    const struct volume *v = volume(call);
    if (!v)
        return;
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0)
        rc = read_size(json_object_get(call->body, "size"), &size, &e);
    if (rc == 0)
        rc = decide_resize(v, size, &changed, &e);
    put_and_reply(call, rc, v, changed, &e);
}

// ---- moves

static int read_move(const struct call *call, struct move_wish *wish, struct error *e)
{
    static const char *const members[] = { "node", "force", "rate_limit", NULL };
    const json_t *node = json_object_get(call->body, "node"), *force = json_object_get(call->body, "force"),
                 *rate = json_object_get(call->body, "rate_limit");
    struct control_node *n = NULL;
    int rc = api_check_members(call->body, members, e);
    if (rc < 0)
        return rc;
    if (!json_is_string(node))
        return fail(e, E_INVALID, "\"node\" is missing: the id or the address of the node that is to have the volume");
    if (force && !json_is_boolean(force))
        return fail(e, E_INVALID, "\"force\" is neither true nor false");
    wish->force = json_is_true(force);
    if (rate && (rc = read_size(rate, &wish->rate, e)) < 0)
        return fail_ctx(e, rc, "\"rate_limit\", bytes per second");
    if (wish->rate > VOLUME_SIZE_MAX) // a record would not hold it
        return fail(e, E_INVALID, "\"rate_limit\" is too high: at most 4096P bytes per second, and 0 is none");
    if ((rc = control_find_node(call->control, json_string_value(node), &n, e)) < 0)
        return rc;
    wish->target = n->node.id;
    return 0;
}

struct moving {
    struct call call; // without its path and body
    struct asking volume;
};

static void on_surveyed(void *arg, const struct move_wish *wish)
{
    AUTO(free) struct moving *m = arg;
    struct control *c = m->call.control;
    struct error e = ERROR_INIT;
    if (!asked_volume(&m->volume))
        return;
    if (moves_carry_out(c, &m->volume.id, wish, &e) < 0)
        api_fail(m->call.exchange, &e);
    else
        wait_for_move(&m->call, volume_set_find(&c->volumes, &m->volume.id));
}

static void move_to(const struct call *call, const struct volume *v, const struct move_wish *wish)
{
    struct moving *m = xcalloc(1, sizeof *m);
    m->call = (struct call){ .control = call->control, .exchange = call->exchange, .segment = "", .wait_s = call->wait_s };
    m->volume = (struct asking){ call->control, call->exchange, v->id };
    moves_survey(call->control, v, wish, on_surveyed, m);
}

static void move_volume(struct call *call)
{
    struct error e = ERROR_INIT;
    struct move_wish wish = { .force = false };
    const struct volume *v = volume(call);
    if (!v)
        return;
    if (read_move(call, &wish, &e) < 0)
        api_fail(call->exchange, &e);
    else
        move_to(call, v, &wish);
}

static void cancel_move(struct call *call)
{
    char label[UUID_TEXT_SIZE];
    struct error e = ERROR_INIT;
    const struct volume *v = volume(call);
    if (!v)
        return;
    if (!move_is_open(v)) {
        fail(&e, E_CONFLICT, v->move.stage == MOVE_NONE ? "volume %s is not being moved" : "volume %s has moved already: move it back", volume_label(v, label));
        api_fail(call->exchange, &e);
        return;
    }
    const struct move_wish wish = { .target = v->owner };
    move_to(call, v, &wish);
}

static void restore_volume(struct call *call)
{
    static const char *const members[] = { "name", NULL };
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    struct uuid id;
    bool several;
    const char *name = NULL;
    const struct control *c = call->control;
    const struct volume *v = uuid_parse(call->segment, &id) ? volume_set_find(&c->volumes, &id) : NULL;
    if (!v)
        v = find_trashed(c, call->segment, &several);
    if (!v && !(v = volume(call))) // a live one of that name: the error says so
        return;
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0)
        rc = read_name(call->body, &name, &e);
    if (rc == 0)
        rc = decide_restore(&c->volumes, v, name, &changed, &e);
    put_and_reply(call, rc, v, changed, &e);
}

static void on_removed(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct asking *a = arg;
    const struct volume *v = rc < 0 ? NULL : asked_volume(a);
    (void)reply;
    if (rc < 0)
        api_fail(a->exchange, e);
    else if (v)
        api_reply(a->exchange, 200, volume_to_v2(a->control, v));
    free(a);
}

// Of a node that was removed: nobody is there to be asked.
static void remove_lost(struct call *call, const struct volume *v)
{
    const struct uuid id = v->id;
    struct error e = ERROR_INIT;
    if (absence_remove(call->control, v, &e) < 0)
        api_fail(call->exchange, &e);
    else
        api_reply(call->exchange, 200, volume_to_v2(call->control, volume_set_find(&call->control->volumes, &id)));
}

// Which of several volumes of one name in the trash is to be destroyed must be said by its id.
static int check_purge(const struct call *call, const struct volume *v, struct error *e)
{
    bool several = false;
    struct uuid id;
    if (!uuid_parse(call->segment, &id))
        find_trashed(call->control, call->segment, &several);
    if (several)
        return fail(e, E_CONFLICT, "several volumes named %s are in the trash: say the id of the one to purge", v->name);
    return 0;
}

static void purge(struct call *call, const struct volume *v)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    int rc = check_purge(call, v, &e);
    if (rc == 0)
        rc = decide_purge(v, &changed, &e);
    put_and_reply(call, rc, v, changed, &e);
}

// To the trash, if its owner finds that nothing uses it; with ?purge=1 what is in the trash goes for good, now.
static void remove_volume(struct call *call)
{
    char label[UUID_TEXT_SIZE];
    struct error e = ERROR_INIT;
    const struct volume *v = volume(call);
    if (!v)
        return;
    if (v->state != VOLUME_LIVE && api_flag(call->exchange, "purge")) {
        purge(call, v);
        return;
    }
    if (v->state != VOLUME_LIVE) {
        fail(&e, E_NOT_FOUND, v->state == VOLUME_TRASHED ? "volume %s is in the trash already; purge it to free its space now" :
             "volume %s is deleted", volume_label(v, label));
        api_fail(call->exchange, &e);
        return;
    }
    if (absence_is_for_good(call->control, v))
        remove_lost(call, v);
    else
        ask_agent(call, v, "remove", on_removed);
}

// ---- control itself

static void get_status(struct call *call)
{
    const struct control *c = call->control;
    const struct control_node *n;
    int nodes = 0, connected = 0, counts[VOLUME_STATE_COUNT] = { 0 };
    LIST_FOREACH (n, &c->nodes, all) {
        nodes += !n->node.removed;
        connected += n->peer != NULL;
    }
    for (size_t i = 0; i < c->volumes.n; i++)
        counts[c->volumes.by_id[i]->state]++;
    api_reply(call->exchange, 200,
              json_pack("{s:s, s:s, s:b, s:{s:i, s:i}, s:{s:i, s:i, s:i}}", "version", FLOCKER_VERSION, "store", c->config.store->name,
                        "serves_other_hosts", (int)(c->config.agents_tls != NULL), "nodes", "known", nodes, "connected", connected, "volumes",
                        "live", counts[VOLUME_LIVE], "trashed", counts[VOLUME_TRASHED], "purging", counts[VOLUME_PURGING]));
}

static void backup(struct call *call)
{
    static const char *const members[] = { "path", NULL };
    struct error e = ERROR_INIT;
    const char *path = json_string_value(json_object_get(call->body, "path"));
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0 && (!path || path[0] != '/'))
        rc = fail(&e, E_INVALID, "\"path\" is not an absolute path");
    if (rc == 0)
        rc = store_backup(call->control->store, path, &e);
    if (rc < 0)
        api_fail(call->exchange, &e);
    else
        api_reply(call->exchange, 200, json_pack("{s:s}", "path", path));
}

const struct route routes_v2[] = {
    { "GET", "/v2/status", 0, get_status, "version and counts" },
    { "GET", "/v2/volumes", 0, list_volumes, "live volumes; all=1: those in the trash too; limit=, after=: a page" },
    { "POST", "/v2/volumes", ROUTE_BODY | ROUTE_WAIT, create_volume, "create a volume, without \"owner\" on the node with most room; wait=SECONDS" },
    { "GET", "/v2/volumes/*", 0, get_volume, "one volume, by name or id; usage=1: and how much it holds" },
    { "PATCH", "/v2/volumes/*", ROUTE_BODY | ROUTE_WAIT, resize_volume, "change its size; wait=SECONDS" },
    { "DELETE", "/v2/volumes/*", ROUTE_WAIT, remove_volume, "move it to the trash; purge=1: what is in the trash goes now; wait=SECONDS" },
    { "POST", "/v2/volumes/*/restore", ROUTE_BODY | ROUTE_WAIT, restore_volume, "take it out of the trash, perhaps as \"name\"; wait=SECONDS" },
    { "POST", "/v2/volumes/*/move", ROUTE_BODY | ROUTE_WAIT, move_volume, "move it to \"node\", perhaps with \"force\" or a \"rate_limit\"; wait=SECONDS" },
    { "DELETE", "/v2/volumes/*/move", ROUTE_WAIT, cancel_move, "call its move off; wait=SECONDS" },
    { "GET", "/v2/nodes", 0, api_list_nodes, "nodes" },
    { "GET", "/v2/nodes/*", 0, api_get_node, "one node, by id or host" },
    { "POST", "/v2/nodes/*/drain", ROUTE_BODY, api_drain_node, "move all volumes away from it, perhaps with \"force\"; it takes no others" },
    { "DELETE", "/v2/nodes/*/drain", 0, api_undrain_node, "it takes volumes again" },
    { "DELETE", "/v2/nodes/*", 0, api_remove_node, "take a node out of the cluster, by id or host; force=1: although volumes are there" },
    { "POST", "/v2/tokens", ROUTE_BODY, api_new_token, "a token by which a host can join, once; \"ttl\": seconds" },
    { "GET", "/v2/users", 0, api_list_users, "users whose certificates were revoked" },
    { "DELETE", "/v2/users/*", ROUTE_ROOT, api_revoke_user, "refuse all certificates of a user from now on" },
    { "POST", "/v2/users/*", ROUTE_BODY | ROUTE_ROOT, api_admit_user, "let a revoked user in whose certificate has this \"key\"" },
    { "POST", "/v2/recover", ROUTE_BODY | ROUTE_ROOT, api_recover,
      "take in volumes that nodes have and control does not know; \"dry_run\": only say what would be done; \"force\": without nodes that are away" },
    { "POST", "/v2/backup", ROUTE_BODY | ROUTE_ROOT, backup, "write a copy of the store to a file" },
    { NULL, NULL, 0, NULL, NULL },
};
