// The agent's side of its connection to control: what control wants comes in, what is here goes out (docs/protocol.md).
#include "agent/dial.h"
#include "agent/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/json.h"
#include "net/line.h"
#include "net/socket.h"

#include <event2/event.h>
#include <event2/util.h>
#include <malloc.h>
#include <string.h>

#define CONNECT_MS 1000

void link_send(struct agent *a, json_t *message /* taken */)
{
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    ASSERT(text);
    line_send(a->link, text, strlen(text));
}

// ---- reports wait while the connection has enough to do: a pool can hold 100 000 volumes

void link_forget_report(struct agent_volume *v)
{
    if (v->is_due)
        TAILQ_REMOVE(&v->agent->due_reports, v, due_reports);
    v->is_due = false;
}

static void send_report(struct agent_volume *v)
{
    link_forget_report(v);
    v->agent->count.reports++;
    link_send(v->agent, turn_make_report(v));
}

void link_report(struct agent_volume *v)
{
    if (!line_is_full(v->agent->link)) {
        send_report(v);
    } else if (!v->is_due) {
        TAILQ_INSERT_TAIL(&v->agent->due_reports, v, due_reports);
        v->is_due = true;
    }
}

static void send_due_reports(struct agent *a)
{
    struct agent_volume *v;
    while (!line_is_full(a->link) && (v = TAILQ_FIRST(&a->due_reports)))
        send_report(v);
    if (!a->inventory_due || !TAILQ_EMPTY(&a->due_reports))
        return;
    a->inventory_due = false;
    link_send(a, json_pack("{s:s}", "type", "inventory-end"));
}

static void on_drained(void *arg)
{
    send_due_reports(arg);
}

// What is said of a volume comes after the report by which control knows what it means.
static void send_report_first(struct agent *a, const struct uuid *id)
{
    struct agent_volume *v = agent_volume(a, id);
    if (v && v->is_due)
        send_report(v);
}

// ---- requests

void link_request(struct agent *a, json_t *message, request_done *done, void *arg)
{
    struct request *r = xcalloc(1, sizeof *r);
    r->n = ++a->last_request;
    r->done = done;
    r->arg = arg;
    LIST_INSERT_HEAD(&a->requests, r, all);
    ASSERT(message);
    const char *text = json_string_value(json_object_get(message, "id"));
    struct uuid id;
    if (text && uuid_parse(text, &id))
        send_report_first(a, &id);
    json_object_set_new(message, "n", json_integer(r->n));
    link_send(a, message);
}

static void ignore_reply(void *arg, int rc, const json_t *reply, const struct error *e)
{
    (void)arg;
    (void)rc;
    (void)reply;
    (void)e;
}

void link_forget(struct agent *a, const void *arg)
{
    struct request *r;
    LIST_FOREACH (r, &a->requests, all)
        if (r->arg == arg)
            r->done = ignore_reply;
}

// Says what keeps us from control: once, and again when it is something else.
static void note_problem(struct agent *a, const char *why)
{
    if (a->link_problem && strcmp(a->link_problem, why) == 0)
        return;
    free(a->link_problem);
    a->link_problem = xstrdup(why);
    log_warn("%s", why);
}

// ---- messages of control

static void unconfirm(struct agent_volume *v, void *arg)
{
    (void)arg;
    v->confirmed = false;
}

static void unreport(struct agent_volume *v, void *arg)
{
    (void)arg;
    v->reported.sent = false;
}

// Also that what control has named is not here: a report that it was destroyed may have been lost, and control does not name it again.
static void report(struct agent_volume *v, void *arg)
{
    (void)arg;
    if (v->record || v->copy.is_here || v->reported.sent || v->confirmed)
        turn_report(v);
}

static void on_welcome(struct agent *a, const json_t *message)
{
    const char *version = json_string_value(json_object_get(message, "version"));
    struct resume_count next;
    enum resume verdict = resume_read_answer(message, &a->count, &next);
    log_info("connected to control %s%s", version ? version : "?", verdict == RESUME_NOTHING ? "" : ", again");
    a->welcome = true;
    a->link_failures = 0;
    containers_tell(a);
    free(TAKE(a->link_problem, NULL));
    renew_soon(a);
    a->count = next;
    a->can_resume = verdict != RESUME_NOTHING;
    if (verdict == RESUME_NOTHING)
        agent_for_each(a, unconfirm, NULL);
    if (verdict != RESUME_ALL)
        agent_for_each(a, unreport, NULL);
    a->inventory_due = true;
    agent_for_each(a, report, NULL);
    send_due_reports(a);
}

static void on_want(struct agent *a, const json_t *message)
{
    struct error e = ERROR_INIT;
    struct volume *want = NULL;
    FAILPOINT(AGENT_WANT);
    a->count.wants++;
    if (volume_from_json(json_object_get(message, "volume"), &want, &e) < 0) {
        log_error("control sent a volume that makes no sense: %s", e.msg);
        return;
    }
    const struct volume *same = want->name && want->state == VOLUME_LIVE ? volume_set_find_name(&a->wants, want->name) : NULL;
    if (same && !uuid_equal(&same->id, &want->id))
        volume_set_remove(&a->wants, &same->id); // what the disk said of a name that control gives to another
    struct agent_volume *v = agent_volume_add(a, &want->id);
    bool concerned = volume_concerns(want, &a->config.node);
    bool over = !v->record && !v->copy.is_here && v->step == STEP_NONE &&
                (concerned ? want->state == VOLUME_DELETED && want->move.stage == MOVE_NONE : want->state != VOLUME_LIVE);
    v->confirmed = true;
    v->promised_ms = 0;
    v->reported.sent &= want->state != VOLUME_PURGING; // control waits to hear that it is gone, also if it never was here
    moves_read_want(v, message);
    v->held = json_is_true(json_object_get(message, "held"));
    const char *unavailable = json_string_value(json_object_get(message, "unavailable"));
    free(v->unavailable);
    v->unavailable = unavailable ? xstrdup(unavailable) : NULL;
    if (over) {
        volume_set_remove(&a->wants, &want->id);
        volume_free(want);
        if (v->step == STEP_NONE && !v->looking)
            agent_volume_drop(v);
    } else {
        volume_set_put(&a->wants, want);
        v->retry_ms = 0; // what failed may be right now
        turn(v);
    }
    if (a->synced)
        turn_soon(a);
}

struct again {
    struct agent *agent;
    struct uuid id;
};

static void on_found_again(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct again *again = arg;
    struct agent_volume *v = agent_volume(again->agent, &again->id);
    (void)reply;
    (void)e;
    if (rc == -E_NOT_FOUND && v && !v->record) { // nothing is done any more to what has come of it, either
        volume_set_remove(&again->agent->wants, &again->id);
        if (v->copy.is_here)
            turn(v);
        else if (v->step == STEP_NONE && !v->looking)
            agent_volume_drop(v);
    }
    free(again);
}

// What is known of a volume of another node is asked for again: it may have changed while there was no connection.
static void find_again(struct agent_volume *v)
{
    if (!volume_set_find(&v->agent->wants, &v->id))
        return;
    struct again *again = xcalloc(1, sizeof *again);
    *again = (struct again){ v->agent, v->id };
    link_request(v->agent, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "find", "id", UUID_TEXT(&v->id)), on_found_again, again);
}

// What control has not named is not this node's, or not any more: by an old order nothing is made.
static void forget_unmade(struct agent_volume *v)
{
    const struct volume *want = volume_set_find(&v->agent->wants, &v->id);
    if (want && uuid_equal(&want->owner, &v->agent->config.node))
        volume_set_remove(&v->agent->wants, &v->id);
    else
        find_again(v);
}

static void orphan(struct agent_volume *v, void *arg)
{
    (void)arg;
    if (!v->confirmed && !v->record)
        forget_unmade(v);
    if (v->confirmed || !v->record)
        return;
    v->agent->orphans++;
    if (!volume_set_find(&v->agent->wants, &v->id))
        return;
    log_warn("volume %s (%s) is in this node's pool and control does not know it: it is kept, and not served",
             UUID_TEXT(&v->id), v->record->name ? v->record->name : "no name");
    volume_set_remove(&v->agent->wants, &v->id);
}

static void has_heard(struct agent_volume *v, void *arg)
{
    (void)arg;
    if (!v->discarding && !v->abandoned)
        return;
    v->discarding = false;
    turn(v);
}

static void on_want_end(struct agent *a, const json_t *message)
{
    (void)message;
    a->orphans = 0;
    agent_for_each(a, orphan, NULL);
    agent_for_each(a, has_heard, NULL);
    FAILPOINT(AGENT_SYNCED);
    malloc_trim(0); // of the inventory and of all that was wanted: as large again as what stays
    a->synced = a->can_resume = true;
    inventory_tell_pool(a);
    turn_soon(a);
}

static void on_reply(struct agent *a, const json_t *message)
{
    struct error e = ERROR_INIT;
    struct request *r;
    json_int_t n = json_integer_value(json_object_get(message, "n"));
    LIST_FOREACH (r, &a->requests, all)
        if (r->n == n)
            break;
    if (!r)
        return;
    LIST_REMOVE(r, all);
    int rc = json_read_error(message, &e);
    r->done(r->arg, rc, message, &e);
    free(r);
}

// What control asks on behalf of a client: whether a volume can go (answered when this node has let go of it), how much it holds.
struct asked {
    struct agent *agent;
    uint64_t link_number; // it was asked on that connection, and is answered on no other
    struct uuid volume;
    json_int_t n;
};

static void answer(struct asked *asked, int rc, json_t *reply /* taken */, const struct error *e)
{
    struct agent *a = asked->agent;
    json_object_set_new(reply, "type", json_string("reply"));
    json_object_set_new(reply, "n", json_integer(asked->n));
    if (rc < 0)
        json_object_set_new(reply, "error", json_from_error(e));
    if (a->link && a->link_number == asked->link_number) {
        send_report_first(a, &asked->volume);
        link_send(a, reply);
    } else {
        json_decref(reply);
    }
    free(asked);
}

static void on_asked_done(void *arg, int rc, const struct error *e)
{
    answer(arg, rc, json_object(), e);
}

static void on_asked_usage(void *arg, int rc, uint64_t used, const struct error *e)
{
    answer(arg, rc, json_pack("{s:I}", "used", (json_int_t)used), e);
}

static struct asked *asked_new(struct agent *a, const json_t *message)
{
    struct asked *asked = xcalloc(1, sizeof *asked);
    asked->agent = a;
    asked->link_number = a->link_number;
    asked->n = json_integer_value(json_object_get(message, "n"));
    return asked;
}

// NULL if the message has no id as that member.
static struct asked *asked_about(struct agent *a, const json_t *message, const char *member, struct uuid *id)
{
    const char *text = json_string_value(json_object_get(message, member));
    if (!text || !uuid_parse(text, id))
        return NULL;
    struct asked *asked = asked_new(a, message);
    asked->volume = *id;
    return asked;
}

static void on_remove(struct agent *a, const json_t *message)
{
    struct uuid id;
    struct asked *asked = asked_about(a, message, "id", &id);
    if (asked)
        operation_remove(a, &id, on_asked_done, asked);
}

static void on_release(struct agent *a, const json_t *message)
{
    struct uuid id;
    struct asked *asked = asked_about(a, message, "id", &id);
    if (asked)
        operation_release(a, &id, on_asked_done, asked);
}

static void on_usage(struct agent *a, const json_t *message)
{
    struct uuid id;
    struct asked *asked = asked_about(a, message, "id", &id);
    if (asked)
        usage_measure(a, &id, on_asked_usage, asked);
}

static void on_asked_pool(void *arg, int rc, const struct agent_pool_facts *facts, const struct error *e)
{
    answer(arg, rc, rc < 0 ? json_object() : inventory_pool(facts), e);
}

static void on_pool(struct agent *a, const json_t *message)
{
    agent_pool_usage(a, on_asked_pool, asked_new(a, message));
}

static void on_records(struct agent *a, const json_t *message)
{
    const struct error none = ERROR_INIT;
    struct uuid after;
    struct asked *asked = asked_about(a, message, "after", &after);
    if (asked)
        answer(asked, 0, inventory_page(a, &after), &none);
}

static void on_container(struct agent *a, const json_t *message)
{
    containers_on_order(a, message);
}

static void on_refused(struct agent *a, const json_t *message)
{
    const char *text = json_string_value(json_object_get(message, "message"));
    AUTO(free) char *why = xasprintf("control refuses this node: %s", text ? text : "it does not say why");
    note_problem(a, why);
    a->refused = true;
}

static void on_alive(struct agent *a, const json_t *message)
{
    (void)a;
    (void)message; // that it came is all
}

static const struct {
    const char *type;
    void (*run)(struct agent *a, const json_t *message);
} messages[] = {
    { "welcome", on_welcome }, { "want", on_want },       { "want-end", on_want_end }, { "reply", on_reply },
    { "remove", on_remove },   { "release", on_release }, { "usage", on_usage },       { "alive", on_alive },
    { "refused", on_refused }, { "container", on_container }, { "records", on_records },
    { "pool", on_pool },
};

static void on_line(void *arg, char *line, size_t n)
{
    struct agent *a = arg;
    json_error_t why;
    json_t *message = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
    const char *type = json_string_value(json_object_get(message, "type"));
    for (size_t i = 0; type && i < ARRAY_SIZE(messages); i++)
        if (strcmp(messages[i].type, type) == 0)
            messages[i].run(a, message);
    if (!type)
        log_error("control sent a line that is no message: %s", message ? "it has no type" : why.text);
    json_decref(message);
}

// ---- the connection

static void reconnect_later(struct agent *a)
{
    static const int delays_ms[] = { 20, 50, 100, 200, 500, 1000, 2000, AGENT_RECONNECT_MS * 4 / 5 };
    size_t n = a->link_failures < ARRAY_SIZE(delays_ms) ? a->link_failures : ARRAY_SIZE(delays_ms) - 1;
    uint8_t random;
    rng_fill(&random, sizeof random);
    int delay_ms = delays_ms[n] + delays_ms[n] * random / 1024; // up to a quarter more: not all nodes at once
    const struct timeval delay = clock_timeval(delay_ms);
    a->link_failures++;
    evtimer_add(a->reconnect, &delay);
}

static void close_link(struct agent *a)
{
    struct agent_volume *v;
    while ((v = TAILQ_FIRST(&a->due_reports))) // all are gone through after the next welcome
        link_forget_report(v);
    a->inventory_due = false;
    line_free(a->link);
    a->link = NULL;
    a->synced = a->welcome = false;
}

// Nobody will answer them any more.
static void end_requests(struct agent *a)
{
    struct request *r;
    while ((r = LIST_FIRST(&a->requests))) {
        struct error e = ERROR_INIT;
        int rc = fail(&e, E_UNAVAILABLE, "the control service went away before it answered; try again");
        LIST_REMOVE(r, all);
        r->done(r->arg, rc, NULL, &e);
        free(r);
    }
}

static void on_closed(void *arg, const char *why)
{
    struct agent *a = arg;
    char today[CLOCK_TEXT_SIZE];
    AUTO(free) char *over = xasprintf("; this node's certificate has expired, if its clock is right, which says %.10s: then move node.crt out of "
                                      "/etc/flocker and join again with a token of `flocker node token --node`", clock_format(clock_wall_ms(), today));
    AUTO(free) char *problem = xasprintf("the connection to control is closed: %s%s", why, a->certificate_is_over ? over : "");
    if (!a->refused) // it has said why
        note_problem(a, problem);
    a->refused = false;
    close_link(a);
    end_requests(a);
    reconnect_later(a);
}

void link_free(struct agent *a)
{
    dial_free(TAKE(a->dial, NULL));
    close_link(a);
    end_requests(a);
}

static void fail_connect(struct agent *a, const struct error *e)
{
    AUTO(free) char *problem = xasprintf("control can't be reached, trying on: %s", e->msg);
    if (a->link_failures >= 5) // else it may just be restarting
        note_problem(a, problem);
    reconnect_later(a);
}

#define LOOPBACK "127.0.0.1"

static void begin(struct agent *a, int fd, struct ssl_ctx_st *tls)
{
    static const struct line_callbacks callbacks = { .on_line = on_line, .on_closed = on_closed, .on_drained = on_drained };
    char local[SOCKET_ADDRESS_SIZE];
    socket_local_address(fd, local);
    const char *host = a->config.host ? a->config.host : local[0] ? local : LOOPBACK;
    a->link_number++;
    a->link = line_new(a->config.base, fd, tls, &callbacks, a);
    if (tls)
        line_keep_alive(a->link);
    json_int_t now_ms = clock_wall_ms(), booted_ms = now_ms - clock_boot_ms();
    int port = a->config.peer_port ? a->config.peer_port : PEER_PORT;
    json_t *hello = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "type", "hello", "protocol", 1, "version", FLOCKER_VERSION, "node",
                              UUID_TEXT(&a->config.node), "era", UUID_TEXT(&a->config.era), "host", host, "booted_ms", booted_ms, "clock_ms", now_ms,
                              "peer_port", port);
    if (a->can_resume && a->count.connection > 0)
        json_object_set_new(hello, "resume", resume_claim(&a->count));
    link_send(a, hello);
    FAILPOINT(AGENT_HELLO);
}

static void on_dialled(void *arg, int fd, const struct error *e)
{
    struct agent *a = arg;
    a->dial = NULL;
    if (fd < 0)
        fail_connect(a, e);
    else
        begin(a, fd, a->config.control_tls);
}

void link_connect(struct agent *a)
{
    struct error e = ERROR_INIT;
    if (!a->config.control_socket) {
        a->dial = dial_start(a->config.base, a->link_workers, a->config.control_host, a->config.control_port, on_dialled, a);
        return;
    }
    int fd = socket_connect_unix(a->config.control_socket, CONNECT_MS, &e);
    if (fd < 0) {
        fail_connect(a, &e);
        return;
    }
    evutil_make_socket_nonblocking(fd);
    begin(a, fd, NULL);
}
