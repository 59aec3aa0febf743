#include "docker/plugin.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "docker/request.h"
#include "model/json.h"
#include "net/http.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

struct plugin {
    struct plugin_config config;
    struct http_server *unix_server, *tcp_server;
};

// One call under way.
struct pending {
    struct plugin *plugin;
    struct http_exchange *exchange;
    struct plugin_request request;
    struct engine engine;
    struct uuid volume; // of a Mount that was answered
};

static void pending_free(struct pending *p)
{
    plugin_request_done(&p->request);
    free(p);
}

// ---- answers

static void reply_then(struct pending *p, int status, json_t *body, void (*on_sent)(void *arg, bool sent), void *arg)
{
    AUTO(free) char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    ASSERT(text);
    http_reply(p->exchange, status, "", "application/json", text, strlen(text), on_sent, arg);
}

static void reply(struct pending *p, int status, json_t *body)
{
    reply_then(p, status, body, NULL, NULL);
    pending_free(p);
}

// Reasons quote what users sent, and end on users' terminals: only printable ASCII of them is shown.
static void reply_error(struct pending *p, const struct error *e)
{
    struct error shown = *e;
    for (char *c = shown.msg; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    reply(p, 500, json_pack("{s:s}", "Err", shown.msg));
}

static void reply_ok(struct pending *p)
{
    reply(p, 200, json_pack("{s:s}", "Err", ""));
}

static void drop(struct pending *p)
{
    http_drop(p->exchange);
    pending_free(p);
}

static void reply_not_found(struct pending *p)
{
    struct error e = ERROR_INIT;
    fail(&e, E_NOT_FOUND, "no such volume: %s", p->request.name);
    reply_error(p, &e);
}

// ---- what is answered from memory

static json_t *status_of(const struct agent_view *v)
{
    const struct volume *w = v->volume;
    json_t *s = json_pack("{s:s, s:I, s:s, s:I, s:b, s:I}", "id", UUID_TEXT(&w->id), "size", (json_int_t)w->size, "owner", UUID_TEXT(&w->owner),
                          "epoch", (json_int_t)w->epoch, "mounted", (int)v->mounted, "references", (json_int_t)v->references);
    const char *profile = metadata_get(&w->metadata, METADATA_PROFILE);
    if (profile)
        json_object_set_new(s, "profile", json_string(profile));
    if (w->options.nocow)
        json_object_set_new(s, "nocow", json_true());
    if (w->move.stage != MOVE_NONE) {
        json_object_set_new(s, "move", json_string(move_stage_word(w->move.stage)));
        json_object_set_new(s, "target", json_string(UUID_TEXT(&w->target)));
    }
    if (v->doing)
        json_object_set_new(s, "doing", json_string(v->doing));
    if (v->error)
        json_object_set_new(s, "error", json_text(v->error));
    return s;
}

static json_t *volume_of(const struct plugin *p, const struct agent_view *v)
{
    char path[4096];
    return json_pack("{s:s, s:s}", "Name", v->volume->name, "Mountpoint",
                     v->mounted ? agent_mount_point(p->config.agent, &v->volume->id, path) : "");
}

static bool reply_get(struct pending *p)
{
    struct agent_view v;
    char when[CLOCK_TEXT_SIZE];
    if (!agent_find(p->plugin->config.agent, p->request.name, &v))
        return false;
    json_t *volume = volume_of(p->plugin, &v);
    json_object_set_new(volume, "CreatedAt", json_string(clock_format(v.volume->created_ms, when)));
    json_object_set_new(volume, "Status", status_of(&v));
    reply(p, 200, json_pack("{s:o, s:s}", "Volume", volume, "Err", ""));
    return true;
}

static bool reply_path(struct pending *p)
{
    struct agent_view v;
    struct error e = ERROR_INIT;
    char path[4096];
    if (!agent_find(p->plugin->config.agent, p->request.name, &v))
        return false;
    if (v.mounted) {
        reply(p, 200, json_pack("{s:s, s:s}", "Mountpoint", agent_mount_point(p->plugin->config.agent, &v.volume->id, path), "Err", ""));
        return true;
    }
    fail(&e, E_UNAVAILABLE, "volume %s is not mounted on this host", p->request.name);
    reply_error(p, &e);
    return true;
}

struct listing {
    const struct plugin *plugin;
    json_t *volumes;
    const json_t *names; // sorted; NULL, or what is still to be listed from `at` on
    size_t at;
};

static const char *name_at(const struct listing *l)
{
    return json_string_value(json_array_get(l->names, l->at));
}

// The names of other nodes' volumes that come before `limit` (NULL: all).
static void list_others(struct listing *l, const char *limit)
{
    for (const char *name; (name = name_at(l)) && (!limit || strcmp(name, limit) < 0); l->at++)
        json_array_append_new(l->volumes, json_pack("{s:s, s:s}", "Name", name, "Mountpoint", ""));
}

static void list_one(void *arg, const struct agent_view *v)
{
    struct listing *l = arg;
    list_others(l, v->volume->name);
    if (name_at(l) && strcmp(name_at(l), v->volume->name) == 0)
        l->at++;
    json_array_append_new(l->volumes, volume_of(l->plugin, v));
}

// What is known here, merged with the names of the whole cluster as far as control has said them. Both are sorted.
static void reply_list(void *arg, const json_t *names)
{
    struct pending *p = arg;
    struct listing l = { p->plugin, json_array(), names, 0 };
    agent_each(p->plugin->config.agent, list_one, &l);
    list_others(&l, NULL);
    reply(p, 200, json_pack("{s:o, s:s}", "Volumes", l.volumes, "Err", ""));
}

// ---- Get, Path and List of what is not known: only control can say that there is no such volume

static bool answer_from_memory(struct pending *p)
{
    switch ((int)p->request.call) {
    case CALL_GET:
        return reply_get(p);
    case CALL_PATH:
        return reply_path(p);
    default:
        return false;
    }
}

static void on_known(void *arg, int rc, const struct error *e)
{
    struct pending *p = arg;
    (void)e;
    if (answer_from_memory(p))
        return;
    if (rc == 0 || rc == -E_NOT_FOUND)
        reply_not_found(p);
    else
        drop(p);
}

static void on_open(void *arg, int rc, const struct error *e)
{
    struct pending *p = arg;
    (void)e;
    if (rc == 0 || agent_is_open(p->plugin->config.agent))
        reply_list(p, NULL);
    else
        drop(p);
}

static void run_lookup(struct pending *p)
{
    struct agent *agent = p->plugin->config.agent;
    if (p->request.call != CALL_LIST) {
        if (!answer_from_memory(p))
            agent_lookup(agent, p->request.name, on_known, p);
    } else if (agent_is_synced(agent))
        agent_list(agent, reply_list, p);
    else if (agent_is_open(agent))
        reply_list(p, NULL); // unlike Get's, its silence about a volume makes no engine forget it
    else
        agent_when_synced(agent, on_open, p);
}

// ---- what takes time

static void on_done(void *arg, int rc, const struct error *e)
{
    struct pending *p = arg;
    if (rc < 0)
        reply_error(p, e);
    else
        reply_ok(p);
}

static void run_create(struct pending *p)
{
    const struct plugin_request *r = &p->request;
    const struct volume_wish wish = { .name = r->name, .size = r->size, .metadata = &r->metadata, .options = r->options };
    agent_create(p->plugin->config.agent, &wish, on_done, p);
}

static void run_remove(struct pending *p)
{
    agent_remove(p->plugin->config.agent, p->request.name, p->engine, on_done, p);
}

// A Mount whose answer nobody took must be undone: the engine will never send its Unmount.
static void on_mount_sent(void *arg, bool sent)
{
    struct pending *p = arg;
    if (!sent)
        log_info("the engine had gone before its Mount of %s was answered: undone", p->request.name);
    agent_settle(p->plugin->config.agent, &p->volume, p->request.id, p->engine, sent);
    pending_free(p);
}

static void on_mounted(void *arg, int rc, const struct error *e)
{
    struct pending *p = arg;
    struct agent_view v;
    char path[4096];
    if (rc < 0) {
        reply_error(p, e);
        return;
    }
    ASSERT(agent_find(p->plugin->config.agent, p->request.name, &v));
    p->volume = v.volume->id;
    if (http_peer_is_gone(p->exchange)) {
        http_drop(p->exchange);
        on_mount_sent(p, false);
        return;
    }
    reply_then(p, 200, json_pack("{s:s, s:s}", "Mountpoint", agent_mount_point(p->plugin->config.agent, &p->volume, path), "Err", ""),
               on_mount_sent, p);
}

static void run_mount(struct pending *p)
{
    agent_mount(p->plugin->config.agent, p->request.name, p->request.id, p->engine, on_mounted, p);
}

static void run_unmount(struct pending *p)
{
    agent_unmount(p->plugin->config.agent, p->request.name, p->request.id, p->engine);
    reply_ok(p);
}

static void run_activate(struct pending *p)
{
    reply(p, 200, json_pack("{s:[s]}", "Implements", "VolumeDriver"));
}

static void run_capabilities(struct pending *p)
{
    reply(p, 200, json_pack("{s:{s:s}}", "Capabilities", "Scope", "global"));
}

static void (*const runs[CALL_COUNT])(struct pending *p) = {
    [CALL_ACTIVATE] = run_activate, [CALL_CREATE] = run_create, [CALL_REMOVE] = run_remove,
    [CALL_MOUNT] = run_mount,       [CALL_PATH] = run_lookup,   [CALL_UNMOUNT] = run_unmount,
    [CALL_GET] = run_lookup,        [CALL_LIST] = run_lookup,   [CALL_CAPABILITIES] = run_capabilities,
};

// ---- coming in

// dockerd is one process for as long as it runs. Podman is a new process for each command, so none stands for it; it can be told by the
// Content-Type that it sends and dockerd never does.
static struct engine engine_of(const struct http_exchange *x)
{
    const struct http_peer *peer = http_exchange_peer(x);
    const char *type = http_header_get(http_request(x), "Content-Type");
    if (!peer->is_unix || peer->pid <= 0 || type)
        return (struct engine){ 0, 0 };
    return agent_engine(peer->pid);
}

static void on_request(struct http_exchange *x, void *arg)
{
    struct plugin *plugin = arg;
    const struct http_message *m = http_request(x);
    const struct http_peer *peer = http_exchange_peer(x);
    struct error e = ERROR_INIT;
    size_t n;
    const char *body = http_body(x, &n);
    enum plugin_call call = plugin_call_of(m->target);
    if (!peer->is_unix && strncmp(peer->common_name, "engine-", 7) != 0) {
        log_warn_few("a client without an engine's certificate was refused ('%s')", peer->common_name);
        http_drop(x);
        return;
    }
    struct pending *p = xcalloc(1, sizeof *p);
    p->plugin = plugin;
    p->exchange = x;
    if (call == CALL_COUNT || strcmp(m->method, "POST") != 0) {
        reply(p, call == CALL_COUNT ? 404 : 405, json_pack("{s:s}", "Err", call == CALL_COUNT ? "no such call" : "calls are POSTs"));
        return;
    }
    p->engine = engine_of(x);
    agent_saw_engine(plugin->config.agent, p->engine);
    if (plugin_request_read(call, body, n, &p->request, &e) < 0)
        reply_error(p, &e);
    else if (p->request.empty && call == CALL_GET)
        drop(p); // a drained retry: an error would make the engine forget the volume
    else if (p->request.empty) {
        fail(&e, E_INVALID, "the request has no body; send it again");
        reply_error(p, &e);
    } else
        runs[call](p);
}

int plugin_new(const struct plugin_config *config, struct plugin **ret, struct error *e)
{
    struct plugin *p = xcalloc(1, sizeof *p);
    p->config = *config;
    struct http_server_config server = { .base = config->base, .listen_fd = config->unix_fd, .on_request = on_request, .arg = p };
    p->unix_server = http_server_new(&server, e);
    if (p->unix_server && config->tcp_fd >= 0) {
        server.listen_fd = config->tcp_fd;
        server.tls = config->tls;
        p->tcp_server = http_server_new(&server, e);
    }
    if (!p->unix_server || (config->tcp_fd >= 0 && !p->tcp_server)) {
        plugin_free(p);
        return -(int)e->code;
    }
    *ret = p;
    return 0;
}

void plugin_free(struct plugin *p)
{
    if (p->unix_server)
        http_server_free(p->unix_server);
    if (p->tcp_server)
        http_server_free(p->tcp_server);
    free(p);
}
