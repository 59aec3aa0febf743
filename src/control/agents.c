// Control's side of the connections to agents (docs/protocol.md): each agent gets only what concerns its node.
#include "control/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/line.h"
#include "net/socket.h"

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
    bool is_resumed;           // it has the wants that were sent on the node's last connection
    bool is_told;              // its inventory is there: what is due goes out
    bool synced;               // all that was due then has gone out
    struct event *deadline;    // for its hello
    json_int_t last_ask;
    LIST_HEAD(, ask) asks;
    bool is_remote;            // it came by TLS: it is who its certificate says, not who it says
    struct uuid certified;     // the node of that certificate; zero: not known yet, or none was shown
    bool is_joining;           // none was shown: it may only ask to join
    struct error *late;        // what it will be told in a moment: NULL: nothing
    bool is_over;              // it was told why it is refused, and has a moment to read that
    TAILQ_ENTRY(agent_peer) waiting; // remote, before its hello
    char from[SOCKET_ADDRESS_SIZE];
};

// A request of one agent that is answered when another has.
struct relay {
    struct control *control;
    struct uuid node, volume;
    uint64_t connection; // of the node that asked
    json_int_t n;
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

static void send_json(struct agent_peer *p, json_t *message /* taken */)
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
    if (owner && owner->peer_port)
        json_object_set_new(message, "peer", json_pack("{s:s, s:s, s:i, s:I}", "node", UUID_TEXT(&owner->node.id), "host", owner->node.host, "port",
                                                       (int)owner->peer_port, "final", (json_int_t)moves_final_number(c, v)));
    struct error away = ERROR_INIT;
    if (!uuid_equal(&v->owner, &p->node->node.id) && absence_describe(c, v, &away))
        json_object_set_new(message, "unavailable", json_text(away.msg));
    p->node->wants_sent++;
    send_json(p, message);
}

// Sends what is due, as long as the agent takes it; on_drained goes on.
static void pump(struct agent_peer *p)
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
    send_json(p, json_pack("{s:s}", "type", "want-end"));
    p->synced = true;
    containers_tell_node(p->control, &n->node.id);
    absence_soon(p->control);
    drain_soon(p->control);
}

static void on_drained(void *arg)
{
    struct agent_peer *p = arg;
    if (p->node && p->node->peer == p)
        pump(p);
}

static void set_due(struct control_node *n, const struct volume *v)
{
    if (n->connection == 0) // who comes for the first time is told all
        return;
    id_set_add(&n->due, &v->id);
    if (n->peer)
        pump(n->peer);
}

// What is said of a volume comes after the want by which the agent knows what it means.
static void send_want_first(struct agent_peer *p, const json_t *message)
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
    send_want_first(p, message);
    send_json(p, message);
}

static bool is_newcomer(const struct agent_peer *p)
{
    return p->is_remote && !p->node;
}

static void peer_free(struct agent_peer *p)
{
    struct ask *a;
    LIST_REMOVE(p, all);
    p->control->peer_count--;
    p->control->joiner_count -= p->is_joining;
    if (is_newcomer(p))
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

// ---- messages

static bool read_uuid(const json_t *message, const char *member, struct uuid *ret)
{
    const char *text = json_string_value(json_object_get(message, member));
    return text && uuid_parse(text, ret);
}

// Remembers what a node said of itself, also over a restart.
static int note_node(struct control *c, struct node *said, struct control_node **ret, struct error *e)
{
    struct control_node *n = control_node(c, &said->id);
    const struct store_change change = { .kind = STORE_PUT_NODE, .node = said };
    if (!n && c->node_count >= NODES_MAX)
        return fail(e, E_TOO_LARGE, "the cluster has %d nodes, its limit", NODES_MAX);
    if (!n)
        n = control_node_add(c, said);
    n->saved = n->saved && strcmp(n->node.host, said->host) == 0 && uuid_equal(&n->node.era, &said->era);
    said->drain = n->node.drain;
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

static int64_t read_booted(const json_t *message)
{
    json_int_t ms = json_integer_value(json_object_get(message, "booted_ms"));
    return ms > 0 && ms < clock_wall_ms() + 86400000 ? ms : 0; // clocks differ
}

// Tells it why it is not let in, and gives it a moment to read that.
static void refuse(struct agent_peer *p, const struct error *e)
{
    static const struct timeval moment = { 1, 0 };
    log_warn("an agent%s%s is refused: %s", p->from[0] ? " at " : "", p->from, e->msg);
    send_json(p, json_pack("{s:s, s:s, s:o}", "type", "refused", "code", error_word(e->code), "message", json_text(e->msg)));
    p->is_over = true;
    evtimer_add(p->deadline, &moment);
}

// A node speaks only for itself. By the unix socket comes only root of this host, who has every node's key that is here anyway.
static int check_identity(const struct agent_peer *p, const struct uuid *said, struct error *e)
{
    const struct control_node *n = control_node(p->control, said);
    if (p->is_joining)
        return fail(e, E_DENIED, "it shows no certificate: join this host first, with `flocker join`");
    if (p->is_remote && !uuid_equal(&p->certified, said))
        return fail(e, E_DENIED, "it says that it is node %s, and its certificate is that of node %s", UUID_TEXT(said), UUID_TEXT(&p->certified));
    if (n && n->node.removed)
        return fail(e, E_DENIED, "node %s was removed from the cluster; to take this host in again, remove node.crt and node.key from its "
                    "/etc/flocker, and %s", UUID_TEXT(said), p->is_remote ? "join it with a new token" : "start its agent anew");
    return 0;
}

// Begins the node's next connection: where the last one ended, or anew.
static void welcome(struct agent_peer *p, const json_t *claim)
{
    struct control_node *n = p->node;
    const struct resume_count last = { p->control->instance, n->connection, n->wants_sent, n->reports_got };
    const struct resume_count next = { .instance = last.instance, .connection = last.connection + 1 };
    json_t *message = json_pack("{s:s, s:s}", "type", "welcome", "version", FLOCKER_VERSION);
    enum resume verdict = n->has_missed ? RESUME_NOTHING : resume_judge(&last, claim);
    p->is_resumed = verdict != RESUME_NOTHING;
    if (!p->is_resumed)
        nodes_forget_interest(p->control, n);
    n->connection = n->known_since = next.connection;
    n->wants_sent = n->reports_got = 0;
    if (verdict != RESUME_ALL)
        n->reports_since = next.connection;
    resume_answer(message, verdict, &last, &next);
    send_json(p, message);
}

// Returns a reason to close the connection, or NULL.
static const char *on_hello(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    struct node said = { .host = "" };
    struct control_node *node = NULL;
    struct error e = ERROR_INIT;
    if (p->node)
        return "it says hello twice";
    if (json_integer_value(json_object_get(message, "protocol")) != 1)
        return "it speaks a protocol other than 1: run the same version of Flocker on every host";
    if (!read_node(message, &said))
        return "its hello lacks node, era or host";
    if (check_identity(p, &said.id, &e) < 0 || note_node(c, &said, &node, &e) < 0) {
        refuse(p, &e);
        return NULL;
    }
    FAILPOINT(CONTROL_HELLO);
    ASSERT(node);
    event_del(p->deadline);
    if (p->is_remote) {
        TAILQ_REMOVE(&c->newcomers, p, waiting);
        line_keep_alive(p->line);
    }
    p->node = node;
    node->booted_ms = read_booted(message);
    struct agent_peer *old = node->peer;
    node->peer = p;
    welcome(p, json_object_get(message, "resume"));
    json_int_t port = json_integer_value(json_object_get(message, "peer_port"));
    node->peer_port = port >= 1 && port <= 65535 ? (uint16_t)port : PEER_PORT;
    if (old) {
        log_warn("node %s has connected again: its earlier connection is closed", UUID_TEXT(&said.id));
        peer_free(old);
    }
    log_info("agent of node %s at %s is connected%s", UUID_TEXT(&said.id), said.host, p->is_resumed ? " again" : "");
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

static uint64_t read_count(const json_t *object, const char *member)
{
    json_int_t n = json_integer_value(json_object_get(object, member));
    return n > 0 ? (uint64_t)n : 0;
}

// What it says of its part in a move: of an owner the snapshot it took, of a target the copy it has.
static void read_part(struct sighting *s, const json_t *message)
{
    const json_t *copy = json_object_get(message, "copy");
    const json_t *snapshot = json_object_get(copy ? copy : message, "snapshot");
    struct error e = ERROR_INIT;
    s->part = (struct move_part){ .known = true, .present = s->present, .epoch = s->epoch, .revision = s->revision,
                                  .in_use = json_is_true(json_object_get(message, "in_use")), .warm = json_is_true(json_object_get(copy, "warm")) };
    if (copy)
        s->part.revision = read_count(copy, "order");
    s->copy_bytes = read_count(copy, "bytes");
    s->copy_total = read_count(copy, "total");
    s->copy_rate = read_count(copy, "rate");
    if (move_snapshot_from_json(snapshot, &s->part.snapshot, &e) < 0)
        log_warn("node %s reports on volume %s %s", UUID_TEXT(&s->node), UUID_TEXT(&s->id), e.msg);
}

static void read_report(const struct agent_peer *p, struct sighting *s, const json_t *message)
{
    s->node = p->node->node.id;
    s->connection = p->node->connection;
    read_sighting(s, message);
    read_part(s, message);
}

static void note_owner(struct agent_peer *p, const struct volume *v, const json_t *message)
{
    struct control *c = p->control;
    uint64_t was_final = moves_final_number(c, v);
    struct sighting *s = control_sighting_add(c, &v->id);
    bool has_copy = json_object_get(message, "copy") != NULL;
    read_report(p, s, message);
    if (moves_final_number(c, v) != was_final)
        agents_tell(c, &v->target, v); // its last increment can be had
    if (v->state == VOLUME_DELETED && (s->present || has_copy))
        agents_tell(c, &p->node->node.id, v); // made when control took it for gone: it goes now
    if (s->present)
        note_present(c, v, &p->node->node.id, s->epoch);
    else if (!has_copy)
        note_absent(c, v, &p->node->node.id);
}

// Of a target, or a former owner. Another node that has anything of it is told how it is: nothing is deleted by inference.
static void note_other(struct agent_peer *p, const struct volume *v, const json_t *message)
{
    struct control *c = p->control;
    const struct uuid other = control_other_node(v);
    if (uuid_equal(&other, &p->node->node.id)) {
        read_report(p, control_other_add(c, &v->id), message);
        return;
    }
    log_info("node %s has something of volume %s, which belongs to node %s", UUID_TEXT(&p->node->node.id), UUID_TEXT(&v->id), UUID_TEXT(&v->owner));
    if (json_object_get(message, "copy"))
        agents_tell(c, &p->node->node.id, v);
}

static const char *on_report(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    struct uuid id;
    if (!read_uuid(message, "id", &id))
        return "a report without a volume's id";
    p->node->reports_got++;
    FAILPOINT(CONTROL_REPORT);
    const struct volume *v = volume_set_find(&c->volumes, &id);
    if (!v) {
        log_warn("node %s has volume %s, which is not known here: it is kept there", UUID_TEXT(&p->node->node.id), UUID_TEXT(&id));
        return NULL;
    }
    if (uuid_equal(&v->owner, &p->node->node.id))
        note_owner(p, v, message);
    else
        note_other(p, v, message);
    moves_turn(c, &id);
    waiters_turn(c, &id);
    return NULL;
}

static void set_all_due(struct control_node *n, const struct volume_set *volumes)
{
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(volumes, &n->volumes.ids[i]);
        if (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE)
            id_set_add(&n->due, &v->id);
    }
}

// The target of a move from here is told where this node is: that may have changed, and a control service that has started anew did not know it.
static void tell_target(struct control *c, const struct control_node *n, const struct volume *v)
{
    if (move_is_open(v) && uuid_equal(&v->owner, &n->node.id))
        agents_tell(c, &v->target, v);
}

// What was reported on an earlier connection counts again from here on: moves may go on by it.
static void turn_all_moves(struct control *c, const struct control_node *n)
{
    struct id_set open = { .n = 0 }; // a turn changes the node's own set
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        if (v->move.stage != MOVE_NONE || !uuid_equal(&v->owner, &v->target))
            id_set_add(&open, &v->id);
    }
    for (size_t i = 0; i < open.n; i++) {
        tell_target(c, n, volume_set_find(&c->volumes, &open.ids[i]));
        moves_turn(c, &open.ids[i]);
    }
    id_set_done(&open);
}

static const char *on_inventory_end(struct agent_peer *p, const json_t *message)
{
    struct control_node *n = p->node;
    (void)message;
    if (!p->is_resumed || p->is_told) // who says it twice wants to hear all again
        set_all_due(n, &p->control->volumes);
    p->is_told = true;
    p->synced = false;
    n->known_since = n->reports_since;
    turn_all_moves(p->control, n);
    pump(p);
    return NULL;
}

// ---- requests

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
    send_want_first(p, body);
    send_json(p, body);
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
    if (!read_uuid(message, "id", &id))
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

// Only the owner can tell whether anything uses it: another node's wish is put to it.
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
    if (!is_owner(p, v)) {
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

static const char *on_request(struct agent_peer *p, const json_t *message)
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
    send_want_first(p, message);
    reply(p, json_integer_value(n), rc, body, &e);
    return NULL;
}

static const char *on_pool(struct agent_peer *p, const json_t *message)
{
    p->node->pool_size = read_count(message, "size");
    p->node->pool_used = read_count(message, "used");
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

// ---- joining and renewing

void agents_expel(struct control *c, struct control_node *n, const struct error *why)
{
    struct agent_peer *p = n->peer;
    (void)c;
    if (!p)
        return;
    n->peer = NULL;
    p->synced = false;
    refuse(p, why);
}

// Whoever guesses tokens waits for each answer, and there is room for a few only.
static void refuse_later(struct agent_peer *p, const struct error *e)
{
    static const struct timeval pause = { 1, 0 };
    log_warn("%s wants to join with a wrong token, the %llu. since the start", p->from, (unsigned long long)p->control->wrong_tokens);
    p->late = xcalloc(1, sizeof *p->late);
    *p->late = *e;
    p->is_over = true;
    evtimer_add(p->deadline, &pause);
}

static const char *on_join(struct agent_peer *p, const json_t *message)
{
    static const struct timeval moment = { 5, 0 };
    struct error e = ERROR_INIT;
    json_t *reply = NULL;
    if (!p->is_joining)
        return "it has a certificate, or comes by the unix socket, and wants to join";
    int rc = enrol_join(p->control, message, &reply, &e);
    if (rc == -E_DENIED) {
        refuse_later(p, &e);
    } else if (rc < 0) {
        refuse(p, &e);
    } else {
        send_json(p, reply);
        p->is_over = true;
        evtimer_add(p->deadline, &moment);
    }
    return NULL;
}

static const char *on_renew(struct agent_peer *p, const json_t *message)
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
    send_json(p, reply);
    return NULL;
}

static const char *on_alive(struct agent_peer *p, const json_t *message)
{
    (void)p;
    (void)message; // that it came is all
    return NULL;
}

static const struct {
    const char *type;
    const char *(*run)(struct agent_peer *p, const json_t *message);
    bool is_first; // allowed before a hello
} messages[] = {
    { "hello", on_hello, true }, { "join", on_join, true },  { "renew", on_renew },   { "report", on_report }, { "inventory-end", on_inventory_end },
    { "request", on_request }, { "reply", on_reply },   { "alive", on_alive },
    { "container-report", on_container_report }, { "pool", on_pool },
};

static void on_closed(void *arg, const char *why)
{
    struct agent_peer *p = arg;
    if (p->node)
        log_warn("agent of node %s is disconnected: %s", UUID_TEXT(&p->node->node.id), why);
    else if (!p->is_over)
        log_warn("a connection%s%s to the agents' door is closed before its hello: %s", p->from[0] ? " from " : "", p->from, why);
    peer_free(p);
}

static void on_line(void *arg, char *line, size_t n)
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
        on_closed(p, why);
}

static void on_hello_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct agent_peer *p = arg;
    if (p->late) {
        AUTO(free) struct error *why = TAKE(p->late, NULL);
        refuse(p, why);
    } else
        on_closed(p, "it said nothing for too long");
}

static void on_anonymous(struct agent_peer *p)
{
    struct error e = ERROR_INIT;
    p->is_joining = true;
    if (++p->control->joiner_count <= JOINERS_MAX)
        return;
    fail(&e, E_UNAVAILABLE, "%d hosts are joining already; try again", JOINERS_MAX);
    refuse(p, &e);
}

static void on_open(void *arg)
{
    struct agent_peer *p = arg;
    const char *name = line_common_name(p->line);
    char why[200];
    if (strncmp(name, "node-", 5) == 0 && uuid_parse(name + 5, &p->certified))
        return;
    if (!name[0]) {
        on_anonymous(p);
        return;
    }
    snprintf(why, sizeof why, "its certificate is for '%s', not for a node", name);
    on_closed(p, why);
}

static void peer_new(struct control *c, int fd, struct ssl_ctx_st *tls)
{
    static const struct line_callbacks callbacks = { .on_line = on_line, .on_closed = on_closed, .on_open = on_open, .on_drained = on_drained };
    static const struct timeval limit = { HELLO_MS / 1000, HELLO_MS % 1000 * 1000 };
    struct agent_peer *p = xcalloc(1, sizeof *p);
    p->control = c;
    p->is_remote = tls != NULL;
    LIST_INSERT_HEAD(&c->peers, p, all);
    c->peer_count++;
    p->deadline = evtimer_new(c->config.base, on_hello_late, p);
    evtimer_add(p->deadline, &limit);
    socket_peer_address(fd, p->from);
    p->line = line_new(c->config.base, fd, tls, &callbacks, p);
    if (!tls)
        return;
    TAILQ_INSERT_TAIL(&c->newcomers, p, waiting);
    socket_set_nodelay(fd);
}

// Whoever reaches the port can fill all places. Then the oldest that has not said who it is goes, as those of an honest cluster are there
// only for a moment.
static void make_room(struct control *c)
{
    if (c->peer_count >= PEERS_MAX && !TAILQ_EMPTY(&c->newcomers))
        on_closed(TAILQ_FIRST(&c->newcomers), "it was too slow, and others wait");
}

static void on_connect(evutil_socket_t listen_fd, short what, void *arg)
{
    static const struct timeval pause = { 0, 100000 };
    struct control *c = arg;
    (void)what;
    struct ssl_ctx_st *tls = c->on_remote_agent && listen_fd == event_get_fd(c->on_remote_agent) ? c->config.agents_tls : NULL;
    make_room(c);
    // While no more can be had, newcomers wait in the kernel's queue.
    int fd = c->peer_count < PEERS_MAX ? accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
    if (fd >= 0) {
        peer_new(c, fd, tls);
    } else if (c->peer_count >= PEERS_MAX || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) {
        event_del(c->on_agent);
        if (c->on_remote_agent)
            event_del(c->on_remote_agent);
        evtimer_add(c->resume, &pause);
    }
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)fd;
    (void)what;
    event_add(c->on_agent, NULL);
    if (c->on_remote_agent)
        event_add(c->on_remote_agent, NULL);
}

int agents_init(struct control *c, struct error *e)
{
    TAILQ_INIT(&c->newcomers);
    c->on_agent = event_new(c->config.base, c->config.agents_fd, EV_READ | EV_PERSIST, on_connect, c);
    c->resume = evtimer_new(c->config.base, on_resume, c);
    if (c->config.agents_tls)
        c->on_remote_agent = event_new(c->config.base, c->config.agents_tls_fd, EV_READ | EV_PERSIST, on_connect, c);
    if (event_add(c->on_agent, NULL) < 0 || (c->on_remote_agent && event_add(c->on_remote_agent, NULL) < 0))
        return fail(e, E_IO, "the event loop refuses the agents' socket");
    return 0;
}

void agents_free(struct control *c)
{
    struct agent_peer *p;
    struct event *const events[] = { c->on_agent, c->on_remote_agent, c->resume };
    for (size_t i = 0; i < ARRAY_SIZE(events); i++)
        if (events[i])
            event_free(events[i]);
    while ((p = LIST_FIRST(&c->peers)))
        peer_free(p);
    close(c->config.agents_fd);
    if (c->config.agents_tls)
        close(c->config.agents_tls_fd);
}
