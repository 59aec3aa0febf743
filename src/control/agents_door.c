// How an agent's connection comes in: whose it is, by certificate and hello; who is refused; hosts that want to join.
#include "control/agents.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// Tells it why it is not let in, and gives it a moment to read that.
static void refuse(struct agent_peer *p, const struct error *e)
{
    static const struct timeval moment = { 1, 0 };
    log_warn_few("an agent%s%s is refused: %s", p->from[0] ? " at " : "", p->from, e->msg);
    agent_peer_send(p, json_pack("{s:s, s:s, s:o}", "type", "refused", "code", error_word(e->code), "message", json_text(e->msg)));
    p->is_over = true;
    evtimer_add(p->deadline, &moment);
}

void agents_expel(struct control_node *n, const struct error *why)
{
    struct agent_peer *p = n->peer;
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
    log_warn_few("%s wants to join with a wrong token, the %llu. since the start", p->from, (unsigned long long)p->control->wrong_tokens);
    p->late = xcalloc(1, sizeof *p->late);
    *p->late = *e;
    p->is_over = true;
    evtimer_add(p->deadline, &pause);
}

const char *agent_on_join(struct agent_peer *p, const json_t *message)
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
        agent_peer_send(p, reply);
        p->is_over = true;
        evtimer_add(p->deadline, &moment);
    }
    return NULL;
}

// ---- hello

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
    if (!agent_read_uuid(message, "node", &ret->id) || !agent_read_uuid(message, "era", &ret->era) || uuid_is_zero(&ret->id) || !host ||
        strlen(host) >= sizeof ret->host)
        return false;
    memcpy(ret->host, host, strlen(host) + 1);
    return true;
}

#define WALL_MS_MAX (INT64_C(1) << 50) // some 35000 years: no arithmetic with these overflows

static int64_t read_ms(const json_t *message, const char *member)
{
    json_int_t ms = json_integer_value(json_object_get(message, member));
    return ms > -WALL_MS_MAX && ms < WALL_MS_MAX ? ms : 0;
}

// When the node's era began, by the clock of this host. That of the node may be wrong, which is told to whoever reads the log.
static int64_t read_booted(const json_t *message, const struct node *node)
{
    int64_t booted_ms = read_ms(message, "booted_ms"), clock_ms = read_ms(message, "clock_ms"), now_ms = clock_wall_ms();
    int64_t ahead_ms = clock_ms ? clock_ms - now_ms : 0;
    if (llabs(ahead_ms) <= CLOCK_SLACK_MS)
        ahead_ms = 0;
    else
        log_warn("the clock of node %s at %s is %lld s %s this host's: set the one that is wrong; certificates depend on them", UUID_TEXT(&node->id),
                 node->host, (long long)llabs(ahead_ms) / 1000, ahead_ms > 0 ? "ahead of" : "behind");
    int64_t ret = booted_ms ? booted_ms - ahead_ms : 0;
    return ret > 0 && ret <= now_ms + CLOCK_SLACK_MS ? ret : 0;
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
    if (!p->is_resumed) {
        nodes_forget_interest(p->control, n);
        n->has_unknown = false;
    }
    n->connection = n->known_since = next.connection;
    n->wants_sent = n->reports_got = 0;
    if (verdict != RESUME_ALL)
        n->reports_since = next.connection;
    resume_answer(message, verdict, &last, &next);
    agent_peer_send(p, message);
}

// Returns a reason to close the connection, or NULL.
const char *agent_on_hello(struct agent_peer *p, const json_t *message)
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
    node->booted_ms = read_booted(message, &said);
    struct agent_peer *old = node->peer;
    node->peer = p;
    welcome(p, json_object_get(message, "resume"));
    json_int_t port = json_integer_value(json_object_get(message, "peer_port"));
    node->peer_port = port >= 1 && port <= 65535 ? (uint16_t)port : PEER_PORT;
    if (old) {
        log_warn("node %s has connected again: its earlier connection is closed", UUID_TEXT(&said.id));
        agent_peer_free(old);
    }
    log_info("agent of node %s at %s is connected%s", UUID_TEXT(&said.id), said.host, p->is_resumed ? " again" : "");
    return NULL;
}

// ---- connections

void agent_peer_close(void *arg, const char *why)
{
    struct agent_peer *p = arg;
    if (p->node)
        log_warn("agent of node %s is disconnected: %s", UUID_TEXT(&p->node->node.id), why);
    else if (!p->is_over)
        log_warn_few("a connection%s%s to the agents' door is closed before its hello: %s", p->from[0] ? " from " : "", p->from, why);
    agent_peer_free(p);
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
        agent_peer_close(p, "it said nothing for too long");
}

static size_t joiners_from(const struct control *c, const char *from)
{
    const struct agent_peer *p;
    size_t n = 0;
    TAILQ_FOREACH (p, &c->newcomers, waiting)
        n += p->is_joining && strcmp(p->from, from) == 0;
    return n;
}

// The oldest joiner of the address that has most, if that has more than the newcomer's: one host alone can't keep the others out.
static struct agent_peer *joiner_to_go(const struct agent_peer *newcomer)
{
    struct agent_peer *p, *found = NULL;
    size_t most = joiners_from(newcomer->control, newcomer->from);
    TAILQ_FOREACH (p, &newcomer->control->newcomers, waiting) {
        size_t n = p->is_joining ? joiners_from(newcomer->control, p->from) : 0;
        if (n > most) {
            most = n;
            found = p;
        }
    }
    return found;
}

static void on_anonymous(struct agent_peer *p)
{
    struct error e = ERROR_INIT;
    p->is_joining = true;
    if (++p->control->joiner_count <= JOINERS_MAX)
        return;
    struct agent_peer *old = joiner_to_go(p);
    if (old) {
        agent_peer_close(old, "its host has more of them than others, and one of those wants to join");
        return;
    }
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
    agent_peer_close(p, why);
}

static void peer_new(struct control *c, int fd, struct ssl_ctx_st *tls)
{
    static const struct line_callbacks callbacks = {
        .on_line = agent_peer_on_line, .on_closed = agent_peer_close, .on_open = on_open, .on_drained = agent_peer_on_drained
    };
    const struct timeval limit = clock_timeval(HELLO_MS);
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
        agent_peer_close(TAILQ_FIRST(&c->newcomers), "it was too slow, and others wait");
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
        agent_peer_free(p);
    close(c->config.agents_fd);
    if (c->config.agents_tls)
        close(c->config.agents_tls_fd);
}
