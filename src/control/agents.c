// Control's side of the connections to agents (docs/protocol.md): what is sent, each agent getting only what concerns its node, and who handles
// what comes.
#include "control/agents.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"

#include <string.h>

struct ask {
    LIST_ENTRY(ask) all;
    struct agent_peer *peer;
    struct event *deadline;
    json_int_t n;
    agents_done *done;
    void *arg;
};

const struct uuid *agents_node(const struct agent_peer *p)
{
    return &p->node->node.id;
}

bool agents_is_own_host(const struct control_node *n)
{
    return n->peer && !n->peer->is_remote;
}

struct control *agents_control(const struct agent_peer *p)
{
    return p->control;
}

void agent_peer_send(struct agent_peer *p, json_t *message /* taken */)
{
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    ASSERT(text);
    line_send(p->line, text, strlen(text));
}

static void send_want(struct agent_peer *p, const struct volume *v)
{
    struct control *c = p->control;
    const struct hold *h = control_hold(c, &v->id);
    bool held = h && uuid_equal(&h->node, &p->node->node.id);
    json_t *message = json_pack("{s:s, s:o, s:b}", "type", "want", "volume", volume_to_json(v), "held", (int)held);
    bool is_target = move_is_open(v) && uuid_equal(&v->target, &p->node->node.id);
    const struct control_node *owner = is_target ? control_node(c, &v->owner) : NULL;
    if (owner && owner->peer_port && !moves_lacks_data(c, v))
        json_object_set_new(message, "peer", json_pack("{s:s, s:s, s:i, s:I}", "node", UUID_TEXT(&owner->node.id), "host", owner->node.host, "port",
                                                       (int)owner->peer_port, "final", (json_int_t)moves_final_number(c, v)));
    struct error away = ERROR_INIT;
    if (!uuid_equal(&v->owner, &p->node->node.id) && absence_describe(c, v, &away))
        json_object_set_new(message, "unavailable", json_text(away.msg));
    p->node->wants_sent++;
    agent_peer_send(p, message);
}

void agent_peer_pump(struct agent_peer *p)
{
    struct control_node *n = p->node;
    while (p->is_told && !line_is_full(p->line) && id_set_take(&n->due, &n->due_at)) {
        const struct volume *v = volume_set_find(&p->control->volumes, &n->due_at);
        if (v)
            send_want(p, v);
    }
    if (!p->is_told || p->synced || line_is_full(p->line))
        return;
    FAILPOINT(CONTROL_WANTS_SENT);
    agent_peer_send(p, json_pack("{s:s}", "type", "want-end"));
    p->synced = true;
    containers_tell_node(p->control, &n->node.id);
    absence_soon(p->control);
    drain_soon(p->control);
}

void agent_peer_on_drained(void *arg)
{
    struct agent_peer *p = arg;
    if (p->node && p->node->peer == p)
        agent_peer_pump(p);
}

static void set_due(struct control_node *n, const struct volume *v)
{
    if (n->connection == 0) // who comes for the first time is told all
        return;
    id_set_add(&n->due, &v->id);
    if (n->peer)
        agent_peer_pump(n->peer);
}

void agent_peer_send_want_first(struct agent_peer *p, const json_t *message)
{
    const char *text = json_string_value(json_object_get(message, "id"));
    struct uuid id;
    if (!text || !p->node || !uuid_parse(text, &id) || !id_set_remove(&p->node->due, &id))
        return;
    const struct volume *v = volume_set_find(&p->control->volumes, &id);
    if (v)
        send_want(p, v);
}

// A node that has no part in it any more knows of it, and may be asked by its engines.
void agents_tell(struct control *c, const struct uuid *node, const struct volume *v)
{
    struct control_node *n = control_node(c, node);
    struct error ignored;
    if (!n)
        return;
    if (n->connection > 0 && !volume_concerns(v, node))
        nodes_watch(c, n, &v->id, &ignored);
    set_due(n, v);
}

static void tell_watcher(struct control_node *n, const struct volume *v)
{
    if (!volume_concerns(v, &n->node.id))
        set_due(n, v);
}

void agents_tell_watchers(struct control *c, const struct volume *v)
{
    nodes_each_watcher(c, &v->id, tell_watcher, v);
}

void agents_send(struct control *c, const struct uuid *node, json_t *message)
{
    const struct control_node *n = control_node(c, node);
    if (n && n->peer && n->peer->synced)
        agent_peer_send(n->peer, message);
    else
        json_decref(message);
}

static void ask_end(struct ask *a, int rc, const json_t *reply, const struct error *e)
{
    LIST_REMOVE(a, all);
    a->peer->control->ask_count--;
    a->peer->ask_count--;
    event_free(a->deadline);
    a->done(a->arg, rc, reply, e);
    free(a);
}

static void on_ask_late(evutil_socket_t fd, short what, void *arg)
{
    struct ask *a = arg;
    struct error e = ERROR_INIT;
    (void)fd;
    (void)what;
    int rc = fail(&e, E_TIMEOUT, "the agent of node %s has not answered in time; it may still do what it was asked for",
                  UUID_TEXT(&a->peer->node->node.id));
    ask_end(a, rc, NULL, &e);
}

static int check_askable(const struct control *c, const struct control_node *n, const struct uuid *node, struct error *e)
{
    if (!n || !n->peer || !n->peer->synced)
        return fail(e, E_UNAVAILABLE, "the agent of node %s is not connected; try again when it is", UUID_TEXT(node));
    if (n->peer->ask_count >= ASKS_OF_NODE_MAX)
        return fail(e, E_UNAVAILABLE, "the agent of node %s has not answered %d earlier questions, the limit for one; try again", UUID_TEXT(node),
                    ASKS_OF_NODE_MAX);
    if (c->ask_count >= ASKS_MAX)
        return fail(e, E_UNAVAILABLE, "the agents have not answered %d earlier questions, the limit; try again", ASKS_MAX);
    return 0;
}

void agents_ask(struct control *c, const struct uuid *node, json_t *message, int limit_ms, agents_done *done, void *arg)
{
    struct error e = ERROR_INIT;
    const struct timeval limit = clock_timeval(limit_ms);
    const struct control_node *n = control_node(c, node);
    int rc = check_askable(c, n, node, &e);
    if (rc < 0) {
        json_decref(message);
        done(arg, rc, NULL, &e);
        return;
    }
    struct agent_peer *p = n->peer;
    struct ask *a = xcalloc(1, sizeof *a);
    a->peer = p;
    a->n = ++p->last_ask;
    a->done = done;
    a->arg = arg;
    a->deadline = evtimer_new(c->config.base, on_ask_late, a);
    evtimer_add(a->deadline, &limit);
    LIST_INSERT_HEAD(&p->asks, a, all);
    c->ask_count++;
    p->ask_count++;
    json_object_set_new(message, "n", json_integer(a->n));
    agent_peer_send_want_first(p, message);
    agent_peer_send(p, message);
}

void agent_peer_free(struct agent_peer *p)
{
    struct ask *a;
    LIST_REMOVE(p, all);
    p->control->peer_count--;
    p->control->joiner_count -= p->is_joining;
    if (p->is_remote && !p->node)
        TAILQ_REMOVE(&p->control->newcomers, p, waiting);
    if (p->node && p->node->peer == p) {
        p->node->peer = NULL;
        p->node->seen_ms = clock_boot_ms();
        absence_soon(p->control);
    }
    while ((a = LIST_FIRST(&p->asks))) {
        struct error e = ERROR_INIT;
        int rc = fail(&e, E_UNAVAILABLE, "the agent of node %s went away before it answered; try again", UUID_TEXT(&p->node->node.id));
        ask_end(a, rc, NULL, &e);
    }
    event_free(p->deadline);
    line_free(p->line);
    free(p->late);
    free(p);
}

// ---- what comes

bool agent_read_uuid(const json_t *message, const char *member, struct uuid *ret)
{
    const char *text = json_string_value(json_object_get(message, member));
    return text && uuid_parse(text, ret);
}

char *agents_said(const json_t *text)
{
    const char *said = json_string_value(text);
    size_t n = json_string_length(text);
    if (n > SAID_BYTES_MAX)
        for (n = SAID_BYTES_MAX; n > 0 && ((unsigned char)said[n] & 0xc0) == 0x80;)
            n--; // no part of a character
    return said ? xstrndup(said, n) : NULL;
}

static const char *on_reply(struct agent_peer *p, const json_t *message)
{
    struct error e = ERROR_INIT;
    struct ask *a;
    json_int_t n = json_integer_value(json_object_get(message, "n"));
    LIST_FOREACH (a, &p->asks, all)
        if (a->n == n)
            break;
    if (!a)
        return NULL;
    int rc = json_read_error(message, &e);
    ask_end(a, rc, message, &e);
    return NULL;
}

static const char *on_alive(struct agent_peer *p, const json_t *message)
{
    (void)p;
    (void)message; // that it came is all
    return NULL;
}

static const char *on_container_report(struct agent_peer *p, const json_t *message)
{
    return containers_on_report(p->control, &p->node->node.id, message);
}

static const struct {
    const char *type;
    agent_handler *run;
    bool is_first; // allowed before a hello
} messages[] = {
    { "hello", agent_on_hello, true },
    { "join", agent_on_join, true },
    { "renew", agent_on_renew },
    { "report", agent_on_report },
    { "inventory-end", agent_on_inventory_end },
    { "request", agent_on_request },
    { "reply", on_reply },
    { "container-report", on_container_report },
    { "pool", agent_on_pool },
    { "alive", on_alive },
};

void agent_peer_on_line(void *arg, char *line, size_t n)
{
    struct agent_peer *p = arg;
    struct error e = ERROR_INIT;
    json_t *message = NULL;
    const char *why = "a line that is no message, or of a type that is not known";
    if (p->is_over)
        return;
    if (json_read(line, n, &message, &e) == 0) {
        const char *type = json_string_value(json_object_get(message, "type"));
        for (size_t i = 0; type && i < ARRAY_SIZE(messages); i++)
            if (strcmp(messages[i].type, type) == 0)
                why = !p->node && !messages[i].is_first ? "it speaks before its hello" : messages[i].run(p, message);
    }
    json_decref(message);
    if (why)
        agent_peer_close(p, why);
}
