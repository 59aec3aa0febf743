// REST API v2: nodes and the tokens by which hosts become nodes.
#include "control/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/token.h"

#include <string.h>

#define PREFIX_MIN 4 // characters of an id that stand for all of it

static bool is_named(const struct control_node *n, const char *text)
{
    size_t length = strlen(text);
    return strcmp(n->node.host, text) == 0 || (length >= PREFIX_MIN && strncmp(UUID_TEXT(&n->node.id), text, length) == 0);
}

int control_find_node(const struct control *c, const char *text, struct control_node **ret, struct error *e)
{
    struct control_node *found = NULL, *n;
    struct uuid id;
    if (uuid_parse(text, &id))
        found = control_node(c, &id);
    else
        LIST_FOREACH (n, &c->nodes, all) {
            if (!is_named(n, text) || (found && n->node.removed && !found->node.removed))
                continue;
            if (found && found->node.removed == n->node.removed)
                return fail(e, E_CONFLICT, "several nodes are called %.100s: say the whole id of one; `flocker node ls` lists them", text);
            found = n;
        }
    if (!found)
        return fail(e, E_NOT_FOUND, "no such node: %.100s; `flocker node ls` lists them", text);
    *ret = found;
    return 0;
}

const char *api_node_state(const struct control_node *n)
{
    if (!n || !n->peer)
        return n && n->node.removed ? "removed" : "down";
    return n->node.drain == NODE_STAYS ? "up" : n->counts.live ? "draining" : "drained";
}

// Its counts have to be fresh.
static json_t *node_to_json(const struct control_node *n)
{
    char since[CLOCK_TEXT_SIZE];
    const struct node_counts *counts = &n->counts;
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "id", UUID_TEXT(&n->node.id), "host", n->node.host, "era", UUID_TEXT(&n->node.era),
                          "state", api_node_state(n), "connected", (int)(n->peer != NULL), "volumes", (json_int_t)counts->live, "trashed",
                          (json_int_t)counts->trashed, "leaving", (json_int_t)counts->leaving, "in_use", (json_int_t)counts->used);
    if (n->booted_ms)
        json_object_set_new(o, "booted", json_string(clock_format(n->booted_ms, since)));
    if (!n->peer && n->seen_ms >= 0)
        json_object_set_new(o, "seen", json_string(clock_format(clock_wall_ms() - (clock_boot_ms() - n->seen_ms), since)));
    if (n->pool_size)
        json_object_set_new(o, "pool", json_pack("{s:I, s:I}", "size", (json_int_t)n->pool_size, "used", (json_int_t)n->pool_used));
    if (n->node.drain != NODE_STAYS)
        json_object_set_new(o, "drain", json_pack("{s:b, s:o}", "force", (int)(n->node.drain == NODE_DRAINS_BY_FORCE), "problem",
                                                  n->drain_problem[0] ? json_text(n->drain_problem) : json_null()));
    return o;
}

void api_list_nodes(struct call *call)
{
    json_t *list = json_array();
    const struct control_node *n;
    drain_count(call->control);
    LIST_FOREACH (n, &call->control->nodes, all)
        json_array_append_new(list, node_to_json(n));
    api_reply(call->exchange, 200, list);
}

static void reply_node(struct call *call, int rc, const struct control_node *n, const struct error *e)
{
    drain_count(call->control);
    if (rc < 0)
        api_fail(call->exchange, e);
    else
        api_reply(call->exchange, 200, node_to_json(n));
}

void api_get_node(struct call *call)
{
    struct error e = ERROR_INIT;
    struct control_node *n = NULL;
    int rc = control_find_node(call->control, call->segment, &n, &e);
    reply_node(call, rc, n, &e);
}

void api_remove_node(struct call *call)
{
    struct error e = ERROR_INIT;
    struct control_node *n = NULL;
    size_t lost = 0, rescued = 0;
    int rc = control_find_node(call->control, call->segment, &n, &e);
    if (rc == 0)
        rc = enrol_remove_node(call->control, n, api_flag(call->exchange, "force"), &lost, &rescued, &e);
    if (rc < 0) {
        api_fail(call->exchange, &e);
        return;
    }
    drain_count(call->control);
    json_t *reply = node_to_json(n);
    json_object_set_new(reply, "lost", json_integer((json_int_t)lost));
    json_object_set_new(reply, "rescued", json_integer((json_int_t)rescued));
    api_reply(call->exchange, 200, reply);
}

static void set_drain(struct call *call, enum node_drain drain)
{
    struct error e = ERROR_INIT;
    struct control_node *n = NULL;
    int rc = control_find_node(call->control, call->segment, &n, &e);
    if (rc == 0)
        rc = drain_set(call->control, n, drain, &e);
    reply_node(call, rc, n, &e);
}

void api_drain_node(struct call *call)
{
    static const char *const members[] = { "force", NULL };
    struct error e = ERROR_INIT;
    const json_t *force = json_object_get(call->body, "force");
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0 && force && !json_is_boolean(force))
        rc = fail(&e, E_INVALID, "\"force\" is neither true nor false");
    if (rc < 0)
        api_fail(call->exchange, &e);
    else
        set_drain(call, json_is_true(force) ? NODE_DRAINS_BY_FORCE : NODE_DRAINS);
}

void api_undrain_node(struct call *call)
{
    set_drain(call, NODE_STAYS);
}

static int read_token_wish(const struct call *call, json_int_t *ret_ttl_s, struct uuid *ret_node, struct error *e)
{
    static const char *const members[] = { "ttl", "node", NULL };
    const json_t *ttl = json_object_get(call->body, "ttl"), *node = json_object_get(call->body, "node");
    struct control_node *n = NULL;
    int rc = api_check_members(call->body, members, e);
    if (rc < 0)
        return rc;
    *ret_ttl_s = ttl ? json_integer_value(ttl) : TOKEN_TTL_S;
    if (*ret_ttl_s < 1 || *ret_ttl_s > TOKEN_TTL_S_MAX)
        return fail(e, E_INVALID, "\"ttl\" is not a number of seconds from 1 to %d", TOKEN_TTL_S_MAX);
    if (!node)
        return 0;
    if (!json_is_string(node))
        return fail(e, E_INVALID, "\"node\" is not a text");
    if ((rc = control_find_node(call->control, json_string_value(node), &n, e)) < 0)
        return rc;
    if (n->node.removed) // the certificates that it had would count again
        return fail(e, E_CONFLICT, "node %s was removed: its host can only join as a new node", UUID_TEXT(&n->node.id));
    *ret_node = n->node.id;
    return 0;
}

void api_new_token(struct call *call)
{
    struct error e = ERROR_INIT;
    struct uuid node = { { 0 } };
    char token[TOKEN_TEXT_SIZE], expires[CLOCK_TEXT_SIZE];
    json_int_t ttl_s = 0;
    int64_t expires_ms = 0;
    int rc = read_token_wish(call, &ttl_s, &node, &e);
    if (rc == 0)
        rc = enrol_new_token(call->control, ttl_s, &node, token, &expires_ms, &e);
    if (rc < 0)
        api_fail(call->exchange, &e);
    else
        api_reply(call->exchange, 201, json_pack("{s:s, s:s}", "token", token, "expires", clock_format(expires_ms, expires)));
}
