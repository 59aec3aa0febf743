// Control's side of the connections to agents (docs/protocol.md): each agent gets only what concerns its node.
#include "control/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/line.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct ask {
    LIST_ENTRY(ask) all;
    struct agent_peer *peer;
    struct event *deadline;
    json_int_t n;
    agents_done *done;
    void *arg;
};

struct agent_peer {
    LIST_ENTRY(agent_peer) all;
    struct control *control;
    struct line_peer *line;
    struct control_node *node; // NULL until its hello
    bool synced;               // inventory-end was seen and all wants were sent
    struct event *deadline;    // for its hello
    json_int_t last_ask;
    LIST_HEAD(, ask) asks;
};

static void send_json(struct agent_peer *p, json_t *message /* taken */)
{
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    ASSERT(text);
    line_send(p->line, text, strlen(text));
}

static void send_want(struct agent_peer *p, const struct volume *v)
{
    const struct hold *h = control_hold(p->control, &v->id);
    bool held = h && uuid_equal(&h->node, &p->node->node.id);
    send_json(p, json_pack("{s:s, s:o, s:b}", "type", "want", "volume", volume_to_json(v), "held", (int)held));
}

void agents_tell(struct control *c, const struct uuid *node, const struct volume *v)
{
    const struct control_node *n = control_node(c, node);
    if (n && n->peer && n->peer->synced)
        send_want(n->peer, v);
}

void agents_send(struct control *c, const struct uuid *node, json_t *message)
{
    const struct control_node *n = control_node(c, node);
    if (n && n->peer && n->peer->synced)
        send_json(n->peer, message);
    else
        json_decref(message);
}

static void ask_end(struct ask *a, int rc, const json_t *reply, const struct error *e)
{
    LIST_REMOVE(a, all);
    a->peer->control->ask_count--;
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
    if (c->ask_count >= ASKS_MAX)
        return fail(e, E_UNAVAILABLE, "the agents have not answered %d earlier questions, the limit; try again", ASKS_MAX);
    return 0;
}

void agents_ask(struct control *c, const struct uuid *node, json_t *message, int limit_ms, agents_done *done, void *arg)
{
    struct error e = ERROR_INIT;
    const struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };
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
    json_object_set_new(message, "n", json_integer(a->n));
    send_json(p, message);
}

static void peer_free(struct agent_peer *p)
{
    struct ask *a;
    LIST_REMOVE(p, all);
    p->control->peer_count--;
    if (p->node && p->node->peer == p) {
        p->node->peer = NULL;
        p->node->seen_ms = clock_boot_ms();
    }
    while ((a = LIST_FIRST(&p->asks))) {
        struct error e = ERROR_INIT;
        int rc = fail(&e, E_UNAVAILABLE, "the agent of node %s went away before it answered; try again", UUID_TEXT(&p->node->node.id));
        ask_end(a, rc, NULL, &e);
    }
    event_free(p->deadline);
    line_free(p->line);
    free(p);
}

// ---- messages

static bool read_uuid(const json_t *message, const char *member, struct uuid *ret)
{
    const char *text = json_string_value(json_object_get(message, member));
    return text && uuid_parse(text, ret);
}

// Remembers what a node said of itself, also over a restart.
static int note_node(struct control *c, const struct node *said, struct control_node **ret, struct error *e)
{
    struct control_node *n = control_node(c, &said->id);
    const struct store_change change = { .kind = STORE_PUT_NODE, .node = said };
    if (!n && c->node_count >= NODES_MAX)
        return fail(e, E_TOO_LARGE, "the cluster has %d nodes, its limit", NODES_MAX);
    if (!n)
        n = control_node_add(c, said);
    n->saved = n->saved && strcmp(n->node.host, said->host) == 0 && uuid_equal(&n->node.era, &said->era);
    n->node = *said;
    *ret = n;
    if (!n->saved && store_commit(c->store, &change, 1, e) < 0)
        log_error("node %s can't be remembered: %s", UUID_TEXT(&said->id), e->msg);
    else
        n->saved = true;
    return 0;
}

static bool read_node(const json_t *message, struct node *ret)
{
    const char *host = json_string_value(json_object_get(message, "host"));
    if (!read_uuid(message, "node", &ret->id) || !read_uuid(message, "era", &ret->era) || uuid_is_zero(&ret->id) || !host ||
        strlen(host) >= sizeof ret->host)
        return false;
    memcpy(ret->host, host, strlen(host) + 1);
    return true;
}

// Returns a reason to close the connection, or NULL.
static const char *on_hello(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    struct node said = { .host = "" };
    struct error e = ERROR_INIT;
    if (p->node)
        return "it says hello twice";
    if (json_integer_value(json_object_get(message, "protocol")) != 1)
        return "it speaks a protocol other than 1: run the same version of Flocker on every host";
    if (!read_node(message, &said))
        return "its hello lacks node, era or host";
    if (note_node(c, &said, &p->node, &e) < 0)
        return "the cluster has as many nodes as it can have";
    FAILPOINT(CONTROL_HELLO);
    event_del(p->deadline);
    struct agent_peer *old = p->node->peer;
    p->node->peer = p;
    if (old) {
        log_warn("node %s has connected again: its earlier connection is closed", UUID_TEXT(&said.id));
        peer_free(old);
    }
    log_info("agent of node %s at %s is connected", UUID_TEXT(&said.id), said.host);
    send_json(p, json_pack("{s:s, s:s}", "type", "welcome", "version", FLOCKER_VERSION));
    return NULL;
}

static void set_text(char **place, const char *text)
{
    free(*place);
    *place = text ? xstrdup(text) : NULL;
}

static void note_present(struct control *c, const struct volume *v, const struct uuid *node, uint64_t epoch)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (decide_present(v, node, epoch, &changed, &e) < 0)
        log_warn("%s", e.msg);
    else if (changed && control_put(c, changed, &e) < 0)
        log_error("note that volume %s is there: %s", UUID_TEXT(&v->id), e.msg);
}

static void note_absent(struct control *c, const struct volume *v, const struct uuid *node)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (decide_destroyed(v, node, &changed, &e) == 0 && changed && control_put(c, changed, &e) < 0)
        log_error("note that volume %s is destroyed: %s", UUID_TEXT(&v->id), e.msg);
}

static void read_sighting(struct sighting *s, const json_t *message)
{
    const json_t *error = json_object_get(message, "error");
    const char *code = json_string_value(json_object_get(error, "code")), *text = json_string_value(json_object_get(error, "message"));
    s->present = json_is_true(json_object_get(message, "present"));
    s->mounted = json_is_true(json_object_get(message, "mounted"));
    s->epoch = (uint64_t)json_integer_value(json_object_get(message, "epoch"));
    s->revision = (uint64_t)json_integer_value(json_object_get(message, "revision"));
    s->reports++;
    set_text(&s->path, json_string_value(json_object_get(message, "path")));
    set_text(&s->error_word, !error ? NULL : code ? code : error_word(E_IO));
    set_text(&s->error, !error ? NULL : text ? text : "the agent does not say why");
}

static const char *on_report(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    struct uuid id;
    if (!read_uuid(message, "id", &id))
        return "a report without a volume's id";
    FAILPOINT(CONTROL_REPORT);
    const struct volume *v = volume_set_find(&c->volumes, &id);
    if (!v) {
        log_warn("node %s has volume %s, which is not known here: it is kept there", UUID_TEXT(&p->node->node.id), UUID_TEXT(&id));
        return NULL;
    }
    if (!uuid_equal(&v->owner, &p->node->node.id)) {
        log_info("node %s has volume %s, which belongs to node %s", UUID_TEXT(&p->node->node.id), UUID_TEXT(&id), UUID_TEXT(&v->owner));
        return NULL; // what others have of it is not its state
    }
    struct sighting *s = control_sighting_add(c, &id);
    read_sighting(s, message);
    s->node = p->node->node.id;
    if (s->present)
        note_present(c, v, &s->node, s->epoch);
    else
        note_absent(c, v, &s->node);
    waiters_turn(c, &id);
    return NULL;
}

static const char *on_inventory_end(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    (void)message;
    for (size_t i = 0; i < c->volumes.n; i++)
        if (uuid_equal(&c->volumes.by_id[i]->owner, &p->node->node.id) && c->volumes.by_id[i]->state != VOLUME_DELETED)
            send_want(p, c->volumes.by_id[i]);
    FAILPOINT(CONTROL_WANTS_SENT);
    send_json(p, json_pack("{s:s}", "type", "want-end"));
    p->synced = true;
    containers_tell_node(c, &p->node->node.id);
    return NULL;
}

static int request_create(struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e)
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
    const struct volume *existing;
    rc = control_create(p->control, &wish, ret, &existing, e);
    metadata_done(&metadata);
    if (existing) { // creating what is there is a success, as with every Docker volume
        *ret = existing;
        return 0;
    }
    return rc;
}

static int named_volume(struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e)
{
    struct uuid id;
    if (!read_uuid(message, "id", &id))
        return fail(e, E_INVALID, "a request that names no volume");
    *ret = volume_set_find(&p->control->volumes, &id);
    if (!*ret)
        return fail(e, E_NOT_FOUND, "no such volume: %s", UUID_TEXT(&id));
    // Only the owner has looked whether anything uses it.
    if (!uuid_equal(&(*ret)->owner, &p->node->node.id))
        return fail(e, E_CONFLICT, "volume %s belongs to node %s", UUID_TEXT(&id), UUID_TEXT(&(*ret)->owner));
    return 0;
}

static int request_remove(struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e)
{
    struct control *c = p->control;
    struct volume *changed = NULL;
    int rc = named_volume(p, message, ret, e);
    if (rc < 0 || (rc = decide_remove(*ret, clock_wall_ms(), c->config.trash_keep_ms, &changed, e)) < 0)
        return rc;
    const struct uuid id = (*ret)->id;
    rc = control_put(c, changed, e);
    *ret = volume_set_find(&c->volumes, &id); // the change has taken the old one's place
    return rc;
}

// The data could not be made: the entry goes as if it had never been asked for.
static int request_discard(struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e)
{
    int rc = named_volume(p, message, ret, e);
    if (rc == 0 && (*ret)->born)
        return fail(e, E_CONFLICT, "volume %s has data: it can only be removed", UUID_TEXT(&(*ret)->id));
    return rc < 0 ? rc : request_remove(p, message, ret, e);
}

static const char *on_request(struct agent_peer *p, const json_t *message)
{
    static const struct {
        const char *op;
        int (*run)(struct agent_peer *p, const json_t *message, const struct volume **ret, struct error *e);
    } ops[] = { { "create", request_create }, { "remove", request_remove }, { "discard", request_discard } };
    struct error e = ERROR_INIT;
    const struct volume *v = NULL;
    const char *op = json_string_value(json_object_get(message, "op"));
    int rc = -E_UNSUPPORTED;
    fail(&e, E_UNSUPPORTED, "a request that this version does not know");
    for (size_t i = 0; op && i < ARRAY_SIZE(ops); i++)
        if (strcmp(ops[i].op, op) == 0)
            rc = ops[i].run(p, message, &v, &e);
    FAILPOINT(CONTROL_TOLD);
    json_t *reply = json_pack("{s:s, s:O}", "type", "reply", "n", json_object_get(message, "n"));
    if (!reply)
        return "a request without a number";
    if (rc < 0)
        json_object_set_new(reply, "error", json_from_error(&e));
    else
        json_object_set_new(reply, "id", json_string(UUID_TEXT(&v->id)));
    send_json(p, reply);
    return NULL;
}

static const char *on_container_report(struct agent_peer *p, const json_t *message)
{
    return containers_on_report(p->control, &p->node->node.id, message);
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

static const struct {
    const char *type;
    const char *(*run)(struct agent_peer *p, const json_t *message);
} messages[] = {
    { "hello", on_hello },     { "report", on_report }, { "inventory-end", on_inventory_end },
    { "request", on_request }, { "reply", on_reply },
    { "container-report", on_container_report },
};

static void on_closed(void *arg, const char *why)
{
    struct agent_peer *p = arg;
    if (p->node)
        log_warn("agent of node %s is disconnected: %s", UUID_TEXT(&p->node->node.id), why);
    else
        log_warn("a connection to the agents' socket is closed before its hello: %s", why);
    peer_free(p);
}

static void on_line(void *arg, char *line, size_t n)
{
    struct agent_peer *p = arg;
    struct error e = ERROR_INIT;
    json_t *message = NULL;
    const char *why = "a line that is no message, or of a type that is not known";
    if (json_read(line, n, &message, &e) == 0) {
        const char *type = json_string_value(json_object_get(message, "type"));
        for (size_t i = 0; type && i < ARRAY_SIZE(messages); i++)
            if (strcmp(messages[i].type, type) == 0)
                why = !p->node && i != 0 ? "it speaks before its hello" : messages[i].run(p, message);
    }
    json_decref(message);
    if (why)
        on_closed(p, why);
}

static void on_hello_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    on_closed(arg, "it said nothing for too long");
}

static void peer_new(struct control *c, int fd)
{
    static const struct line_callbacks callbacks = { on_line, on_closed };
    static const struct timeval limit = { HELLO_MS / 1000, HELLO_MS % 1000 * 1000 };
    struct agent_peer *p = xcalloc(1, sizeof *p);
    p->control = c;
    LIST_INSERT_HEAD(&c->peers, p, all);
    c->peer_count++;
    p->deadline = evtimer_new(c->config.base, on_hello_late, p);
    evtimer_add(p->deadline, &limit);
    p->line = line_new(c->config.base, fd, NULL, &callbacks, p);
}

// While no more can be had, newcomers wait in the kernel's queue.
static void on_connect(evutil_socket_t listen_fd, short what, void *arg)
{
    static const struct timeval pause = { 0, 100000 };
    struct control *c = arg;
    (void)what;
    int fd = c->peer_count < PEERS_MAX ? accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
    if (fd >= 0) {
        peer_new(c, fd);
    } else if (c->peer_count >= PEERS_MAX || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) {
        event_del(c->on_agent);
        evtimer_add(c->resume, &pause);
    }
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)fd;
    (void)what;
    event_add(c->on_agent, NULL);
}

int agents_init(struct control *c, struct error *e)
{
    c->on_agent = event_new(c->config.base, c->config.agents_fd, EV_READ | EV_PERSIST, on_connect, c);
    c->resume = evtimer_new(c->config.base, on_resume, c);
    if (event_add(c->on_agent, NULL) < 0)
        return fail(e, E_IO, "the event loop refuses the agents' socket");
    return 0;
}

void agents_free(struct control *c)
{
    struct agent_peer *p;
    if (c->on_agent)
        event_free(c->on_agent);
    if (c->resume)
        event_free(c->resume);
    while ((p = LIST_FIRST(&c->peers)))
        peer_free(p);
    close(c->config.agents_fd);
}
