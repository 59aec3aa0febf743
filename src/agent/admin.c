#include "agent/admin.h"

#include "agent/internal.h"
#include "base/mem.h"
#include "model/json.h"
#include "net/http.h"

#include <string.h>
#include <unistd.h>

struct admin_call {
    struct agent *agent;
    struct http_exchange *exchange;
};

static void reply_json(struct http_exchange *x, int status, json_t *body /* taken */)
{
    AUTO(free) char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    ASSERT(text);
    http_reply(x, status, "", "application/json", text, strlen(text), NULL, NULL);
}

static void reply_error(struct http_exchange *x, const struct error *e)
{
    reply_json(x, error_http(e->code), json_pack("{s:s, s:o}", "code", error_word(e->code), "description", json_text(e->msg)));
}

// What this node knows of its control service.
static void add_control(json_t *body, const struct agent *a)
{
    json_object_set_new(body, "control_connected", json_boolean(a->welcome));
    if (a->config.control_host)
        json_object_set_new(body, "control", json_sprintf("%s port %u", a->config.control_host, a->config.control_port));
    if (!a->welcome && a->link_problem)
        json_object_set_new(body, "control_problem", json_text(a->link_problem));
}

static json_t *pool_to_json(const struct agent *a, const struct agent_pool_facts *facts)
{
    const struct backend_usage *u = &facts->usage;
    json_t *pool = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:b}", "backend", facts->backend, "node", UUID_TEXT(&a->config.node), "size",
                             (json_int_t)u->limit_bytes, "used", (json_int_t)u->used_bytes, "volumes", (json_int_t)a->wants.n, "synced",
                             (int)agent_is_synced(a), "read_only", (int)u->is_read_only);
    if (inventory_kept(a))
        json_object_set_new(pool, "kept", json_integer((json_int_t)inventory_kept(a)));
    if (u->is_file) {
        json_object_set_new(pool, "file_may_grow", json_integer((json_int_t)u->may_grow_bytes));
        json_object_set_new(pool, "disk_free", json_integer((json_int_t)u->disk_free_bytes));
    }
    return pool;
}

static void on_usage(void *arg, int rc, const struct agent_pool_facts *facts, const struct error *e)
{
    struct admin_call *call = arg;
    const struct agent *a = call->agent;
    if (rc < 0) {
        reply_error(call->exchange, e);
    } else {
        json_t *body = pool_to_json(a, facts);
        add_control(body, a);
        reply_json(call->exchange, 200, body);
    }
    free(call);
}

static void on_done(void *arg, int rc, const struct error *e)
{
    struct admin_call *call = arg;
    if (rc < 0)
        reply_error(call->exchange, e);
    else
        reply_json(call->exchange, 200, json_object());
    free(call);
}

static void grow(struct admin_call *call)
{
    struct error e = ERROR_INIT;
    json_t *body = NULL;
    size_t n;
    const char *text = http_body(call->exchange, &n);
    int rc = json_read(text, n, &body, &e);
    json_int_t size = json_integer_value(json_object_get(body, "size"));
    json_decref(body);
    if (rc == 0 && size <= 0)
        rc = fail(&e, E_INVALID, "\"size\" is not a number of bytes");
    if (rc < 0)
        on_done(call, rc, &e);
    else
        agent_pool_grow(call->agent, (uint64_t)size, on_done, call);
}

static void on_request(struct http_exchange *x, void *arg)
{
    const struct http_message *m = http_request(x);
    const struct http_peer *peer = http_exchange_peer(x);
    bool get = strcmp(m->method, "GET") == 0, post = strcmp(m->method, "POST") == 0;
    if (!peer->is_unix || (peer->uid != 0 && peer->uid != geteuid())) {
        http_drop(x);
        return;
    }
    struct admin_call *call = xcalloc(1, sizeof *call);
    call->agent = arg;
    call->exchange = x;
    if (get && strcmp(m->target, "/v2/pool") == 0)
        agent_pool_usage(arg, on_usage, call);
    else if (post && strcmp(m->target, "/v2/pool") == 0)
        grow(call);
    else if (post && strcmp(m->target, "/v2/pool/shutdown") == 0)
        agent_shutdown(arg, on_done, call);
    else {
        struct error e = ERROR_INIT;
        int rc = fail(&e, E_NOT_FOUND, "there is nothing at this path");
        on_done(call, rc, &e);
    }
}

struct http_server *admin_new(struct event_base *base, int listen_fd, struct agent *agent, struct error *e)
{
    const struct http_server_config config = { .base = base, .listen_fd = listen_fd, .keep_alive = true, .on_request = on_request, .arg = agent };
    return http_server_new(&config, e);
}
