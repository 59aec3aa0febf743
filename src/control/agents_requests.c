// What agents ask for, mostly for their engines: answered at once, or when another node's agent has answered (a relay).
#include "control/agents.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"

#include <string.h>

// A request of one agent that is answered when another has.
struct relay {
    struct control *control;
    struct uuid node, volume;
    uint64_t connection; // of the node that asked
    json_int_t n;
};

struct relay *agents_relay(struct agent_peer *p, const json_t *message, const struct uuid *volume)
{
    struct relay *r = xcalloc(1, sizeof *r);
    *r = (struct relay){ p->control, p->node->node.id, *volume, p->node->connection, json_integer_value(json_object_get(message, "n")) };
    return r;
}

const struct uuid *agents_relay_volume(const struct relay *r)
{
    return &r->volume;
}

const struct uuid *agents_relay_node(const struct relay *r)
{
    return &r->node;
}

struct control *agents_relay_control(const struct relay *r)
{
    return r->control;
}

static void reply(struct agent_peer *p, json_int_t n, int rc, json_t *body /* taken */, const struct error *e)
{
    json_object_set_new(body, "type", json_string("reply"));
    json_object_set_new(body, "n", json_integer(n));
    if (rc < 0)
        json_object_set_new(body, "error", json_from_error(e));
    agent_peer_send_want_first(p, body);
    agent_peer_send(p, body);
}

void agents_relay_reply(struct relay *r, int rc, const struct error *e)
{
    const struct control_node *n = control_node(r->control, &r->node);
    if (n && n->peer && n->connection == r->connection)
        reply(n->peer, r->n, rc, json_pack("{s:s}", "id", UUID_TEXT(&r->volume)), e);
    free(r);
}

static void set_id(json_t *body, const struct volume *v)
{
    json_object_set_new(body, "id", json_string(UUID_TEXT(&v->id)));
}

static int request_create(struct agent_peer *p, const json_t *message, json_t *body, struct error *e)
{
    struct volume_wish wish = { .owner = p->node->node.id, .options = VOLUME_OPTIONS_DEFAULT };
    struct metadata metadata = { 0, NULL };
    int nocow = 0;
    json_int_t size = 0, uid = 0, gid = 0, mode = 0;
    if (json_unpack_ex((json_t *)(uintptr_t)message, NULL, 0, "{s:s, s:I, s:{s:I, s:I, s:I, s:b}}", "name", &wish.name, "size", &size, "options",
                       "uid", &uid, "gid", &gid, "mode", &mode, "nocow", &nocow) != 0)
        return fail(e, E_INVALID, "a request to create that lacks a member");
    if (size < 0 || uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX || mode < 0 || mode > 07777)
        return fail(e, E_INVALID, "volume %.255s: size, uid, gid or mode is out of its limits", wish.name);
    wish.size = (uint64_t)size;
    wish.options = (struct volume_options){ (uint32_t)uid, (uint32_t)gid, (uint32_t)mode, nocow };
    int rc = metadata_from_json(json_object_get(message, "metadata"), &metadata, e);
    if (rc < 0)
        return rc;
    wish.metadata = &metadata;
    const struct volume *created = NULL, *existing = NULL;
    rc = control_create(p->control, &wish, &created, &existing, e);
    metadata_done(&metadata);
    if (rc == 0 || existing) // creating what is there is a success, as with every Docker volume
        set_id(body, existing ? existing : created);
    return existing ? 0 : rc;
}

static int named_volume(const struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e)
{
    struct uuid id;
    if (!agent_read_uuid(message, "id", &id))
        return fail(e, E_INVALID, "a request that names no volume");
    *ret = volume_set_find(&p->control->volumes, &id);
    return *ret ? 0 : fail(e, E_NOT_FOUND, "no such volume: %s", UUID_TEXT(&id));
}

static bool is_owner(const struct agent_peer *p, const struct volume *v)
{
    return uuid_equal(&v->owner, &p->node->node.id);
}

static void on_relayed(void *arg, int rc, const json_t *answer, const struct error *e)
{
    (void)answer;
    agents_relay_reply(arg, rc, e);
}

// Only the owner can tell whether anything uses it: another node's wish is put to it, also that of one that became the owner since it wished.
static int request_remove(struct agent_peer *p, const json_t *message, json_t *body, struct error *e)
{
    struct control *c = p->control;
    struct volume *changed = NULL;
    const struct volume *v = NULL;
    int rc = named_volume(p, message, &v, e);
    if (!v)
        return rc;
    if (absence_is_for_good(c, v)) {
        set_id(body, v);
        return absence_remove(c, v, e);
    }
    if (!is_owner(p, v) || json_is_false(json_object_get(message, "unused"))) {
        agents_ask(c, &v->owner, json_pack("{s:s, s:s}", "type", "remove", "id", UUID_TEXT(&v->id)), PLUGIN_ANSWER_MS, on_relayed,
                   agents_relay(p, message, &v->id));
        return REQUEST_GOES_ON;
    }
    if ((rc = decide_remove(v, clock_wall_ms(), c->config.trash_keep_ms, &changed, e)) < 0)
        return rc;
    set_id(body, v);
    return control_put(c, changed, e);
}

// The data could not be made: the entry goes as if it had never been asked for.
static int request_discard(struct agent_peer *p, const json_t *message, json_t *body, struct error *e)
{
    const struct volume *v = NULL;
    int rc = named_volume(p, message, &v, e);
    if (!v)
        return rc;
    if (!is_owner(p, v))
        return fail(e, E_CONFLICT, "volume %s belongs to node %s", UUID_TEXT(&v->id), UUID_TEXT(&v->owner));
    struct volume *changed = NULL;
    if ((rc = decide_discard(v, clock_wall_ms(), &changed, e)) < 0)
        return rc;
    set_id(body, v);
    return control_put(p->control, changed, e);
}

// A volume that the node has no part in: it is told now, and whenever it changes.
static int request_find(struct agent_peer *p, const json_t *message, json_t *body, struct error *e)
{
    const char *name = json_string_value(json_object_get(message, "name"));
    const struct volume *v = name ? volume_set_find_name(&p->control->volumes, name) : NULL;
    if (name && !v)
        return fail(e, E_NOT_FOUND, "no such volume: %.255s", name);
    int rc = v ? 0 : named_volume(p, message, &v, e);
    if (rc < 0)
        return rc;
    if (!volume_concerns(v, &p->node->node.id) && (rc = nodes_watch(p->control, p->node, &v->id, e)) < 0)
        return rc;
    id_set_add(&p->node->due, &v->id); // goes before the reply
    set_id(body, v);
    return 0;
}

#define NAMES_OF_A_PAGE 200 // of at most NAME_BYTES_MAX bytes each: they fit a line

static size_t first_name_after(const struct volume_set *all, const char *after)
{
    size_t low = 0, high = all->names;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(all->by_name[middle]->name, after) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Names of live volumes of the whole cluster, a page at a time.
static int request_list(struct agent_peer *p, const json_t *message, json_t *body, struct error *e)
{
    const struct volume_set *all = &p->control->volumes;
    const char *after = json_string_value(json_object_get(message, "after"));
    json_t *names = json_array();
    (void)e;
    size_t at = after ? first_name_after(all, after) : 0;
    for (size_t i = at; i < all->names && i < at + NAMES_OF_A_PAGE; i++)
        json_array_append_new(names, json_string(all->by_name[i]->name));
    json_object_set_new(body, "more", json_boolean(at + NAMES_OF_A_PAGE < all->names));
    json_object_set_new(body, "names", names);
    return 0;
}

const char *agent_on_request(struct agent_peer *p, const json_t *message)
{
    static const struct {
        const char *op;
        int (*run)(struct agent_peer *p, const json_t *message, json_t *body, struct error *e);
    } ops[] = {
        { "create", request_create }, { "remove", request_remove }, { "discard", request_discard },
        { "find", request_find },     { "list", request_list },     { "acquire", moves_request_acquire },
    };
    struct error e = ERROR_INIT;
    const json_t *n = json_object_get(message, "n");
    const char *op = json_string_value(json_object_get(message, "op"));
    if (!json_is_integer(n))
        return "a request without a number";
    json_t *body = json_object();
    int rc = -E_UNSUPPORTED;
    fail(&e, E_UNSUPPORTED, "a request that this version does not know");
    for (size_t i = 0; op && i < ARRAY_SIZE(ops); i++)
        if (strcmp(ops[i].op, op) == 0)
            rc = ops[i].run(p, message, body, &e);
    if (rc == REQUEST_GOES_ON) {
        json_decref(body);
        return NULL;
    }
    FAILPOINT(CONTROL_TOLD);
    agent_peer_send_want_first(p, message);
    reply(p, json_integer_value(n), rc, body, &e);
    return NULL;
}

const char *agent_on_renew(struct agent_peer *p, const json_t *message)
{
    struct error e = ERROR_INIT;
    json_t *reply = NULL;
    const json_t *n = json_object_get(message, "n");
    if (!json_is_integer(n))
        return "a request without a number";
    if (enrol_renew(p->control, &p->node->node.id, message, &reply, &e) < 0)
        reply = json_pack("{s:o}", "error", json_from_error(&e));
    json_object_set_new(reply, "type", json_string("reply"));
    json_object_set(reply, "n", (json_t *)(uintptr_t)n);
    agent_peer_send(p, reply);
    return NULL;
}
