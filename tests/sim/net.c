// The network: connections that keep their order, each message with a delay of its own connection; links that are cut in one direction or both,
// when nothing is lost but all waits, as TCP does; ends that go away and are told, or not.
#include "sim.h"

void message_free(struct message *m)
{
    json_decref(m->volume);
    json_decref(m->snapshot);
    json_decref(m->copy);
    json_decref(m->resume);
    json_decref(m->records);
    free(m);
}

struct message *message_new(enum message_kind kind, int k)
{
    struct message *m = xcalloc(1, sizeof *m);
    m->kind = kind;
    m->k = k;
    m->peer = -1;
    return m;
}

struct connection *connection_of(struct world *w, uint64_t id)
{
    for (size_t i = 0; id && i < CONNECTIONS; i++)
        if (w->connections[i].id == id)
            return &w->connections[i];
    return NULL;
}

bool is_reachable(const struct world *w, int from, int to)
{
    const struct node *a = &w->nodes[from], *b = &w->nodes[to];
    return a->is_on && b->is_on && !a->is_cut[UP] && !a->is_cut[DOWN] && !b->is_cut[UP] && !b->is_cut[DOWN];
}

static void free_if_over(struct connection *c)
{
    if (!c->is_open[UP] && !c->is_open[DOWN] && !c->first[UP] && !c->first[DOWN])
        c->id = 0;
}

bool line_is_full(struct world *w, uint64_t id, int direction)
{
    const struct connection *c = connection_of(w, id);
    return c && c->is_open[direction == UP ? DOWN : UP] && c->is_full[direction];
}

static void on_drained(struct world *w, const struct event *ev)
{
    if (ev->k == DOWN)
        control_on_drained(w, ev->n);
    else if (w->nodes[ev->node].agent.connection == ev->n)
        link_on_drained(w, ev->node);
}

// Of a connection with room for few, a quarter of that is left.
static void drain(struct world *w, struct connection *c, int direction)
{
    c->count[direction]--;
    if (!c->is_full[direction] || c->count[direction] > c->room / 4)
        return;
    c->is_full[direction] = false;
    post(w, 0, on_drained, c->node, direction, 0, c->id);
}

static void deliver(struct world *w, const struct event *ev);

static void enqueue(struct world *w, struct connection *c, int direction, struct message *m)
{
    int64_t at_ms = w->now_ms + 1 + chance_below(w, 4);
    if (!w->is_quiet && chance(w, w->profile.slow_message))
        at_ms += chance_below(w, c->is_slow ? 20000 : 3000);
    if (at_ms < c->last_ms[direction])
        at_ms = c->last_ms[direction];
    if (c->room < ROOM)
        at_ms += chance_below(w, 100); // read slowly
    c->last_ms[direction] = at_ms;
    c->is_full[direction] |= ++c->count[direction] >= c->room;
    *c->last[direction] = m;
    c->last[direction] = &m->next;
    post(w, at_ms - w->now_ms, deliver, c->node, direction, 0, c->id);
}

static void send_close(struct world *w, struct connection *c, int direction)
{
    enqueue(w, c, direction, message_new(MSG_CLOSE, -1));
}

// To an end that is gone: whoever sent it hears of that.
static void refuse(struct world *w, struct connection *c, int direction)
{
    int sender = direction == UP ? DOWN : UP;
    if (c->is_open[sender])
        send_close(w, c, sender);
}

static void on_message(struct world *w, struct connection *c, int direction, struct message *m)
{
    bool ends = m->kind == MSG_CLOSE;
    if (!c->is_open[direction]) {
        if (direction == UP && w->plant == PLANT_OLD_CONNECTION && w->control.is_up && m->kind == MSG_REPORT)
            control_on_message(w, c->node, c->id, m);
        if (!ends)
            refuse(w, c, direction);
        return;
    }
    c->is_open[direction] = !ends;
    if (direction == UP && ends)
        control_on_closed(w, c->id);
    else if (direction == UP)
        control_on_message(w, c->node, c->id, m);
    else if (ends)
        agent_on_closed(w, c->node);
    else
        agent_on_message(w, c->node, m);
}

static void deliver(struct world *w, const struct event *ev)
{
    struct connection *c = connection_of(w, ev->n);
    int direction = ev->k;
    ASSERT(c && c->first[direction]);
    if (w->nodes[ev->node].is_cut[direction]) {
        post(w, 50 + chance_below(w, 200), deliver, ev->node, direction, 0, ev->n);
        return;
    }
    struct message *m = c->first[direction];
    c->first[direction] = m->next;
    if (!m->next)
        c->last[direction] = &c->first[direction];
    drain(w, c, direction);
    on_message(w, c, direction, m);
    message_free(m);
    free_if_over(c);
}

void send_up(struct world *w, int i, struct message *m)
{
    struct connection *c = connection_of(w, w->nodes[i].agent.connection);
    if (c && c->is_open[DOWN])
        enqueue(w, c, UP, m);
    else
        message_free(m);
}

void send_down(struct world *w, uint64_t connection, struct message *m)
{
    struct connection *c = connection_of(w, connection);
    if (c && c->is_open[UP])
        enqueue(w, c, DOWN, m);
    else
        message_free(m);
}

void connection_close(struct world *w, uint64_t id, int end, bool is_told)
{
    struct connection *c = connection_of(w, id);
    if (!c)
        return;
    c->is_open[end] = false;
    if (is_told)
        send_close(w, c, end == UP ? DOWN : UP);
    free_if_over(c);
}

static void on_reconnect(struct world *w, const struct event *ev)
{
    struct agent *a = &w->nodes[ev->node].agent;
    if (a->is_up && a->life == ev->life && !a->connection)
        link_connect(w, ev->node);
}

void link_reconnect_later(struct world *w, int i)
{
    static const int delays_ms[] = { 20, 50, 100, 200, 500, 1000, 2000, 5000 };
    struct agent *a = &w->nodes[i].agent;
    size_t n = a->link_failures < ARRAY_SIZE(delays_ms) ? a->link_failures : ARRAY_SIZE(delays_ms) - 1;
    a->link_failures++;
    post(w, delays_ms[n], on_reconnect, i, 0, a->life, 0);
}

void link_connect(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    struct connection *c = w->connections;
    while (c->id && c < w->connections + CONNECTIONS - 1)
        c++;
    if (!w->control.is_up || n->is_cut[UP] || n->is_cut[DOWN] || c->id) {
        n->agent.connection = 0;
        link_reconnect_later(w, i);
        return;
    }
    *c = (struct connection){ .id = ++w->ids, .node = i, .is_open = { true, true }, .is_slow = chance(w, 100) };
    c->room = chance(w, 300) ? 1 + chance_below(w, 6) : ROOM;
    c->last[UP] = &c->first[UP];
    c->last[DOWN] = &c->first[DOWN];
    n->agent.connection = c->id;
    struct message *hello = message_new(MSG_HELLO, -1);
    if (n->agent.can_resume && n->agent.count.connection > 0)
        hello->resume = resume_claim(&n->agent.count);
    send_up(w, i, hello);
}
