#include "agent/docker_api.h"

#include "client/client.h"
#include "model/json.h"
#include "net/http.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define CALL_MS 30000
#define STOP_S  10 // for a container to end by itself

#define LABEL_NAME     "flocker.container"
#define LABEL_REVISION "flocker.revision"
#define LABEL_ERA      "flocker.era"
#define LABEL_VOLUME   "flocker.volume"

DEFINE_AUTO(json_t *, json_decref)

// ---- what a container is made from

static void add_variable(json_t *list, const char *name, const char *value)
{
    AUTO(free) char *text = xasprintf("%s=%s", name, value);
    json_array_append_new(list, json_text(text));
}

// <ALIAS>_PORT_<local>_TCP and its kin, as Docker's own links once set them.
static void add_link(json_t *list, const json_t *link, const char *host)
{
    const long long local = json_integer_value(json_object_get(link, "local_port")), remote = json_integer_value(json_object_get(link, "remote_port"));
    AUTO(free) char *alias = xstrdup(json_string_value(json_object_get(link, "alias")));
    for (char *p = alias; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    AUTO(free) char *url = xasprintf("tcp://%s:%lld", host, remote), *port = xasprintf("%lld", remote);
    const struct {
        const char *suffix, *value;
    } variables[] = { { "", url }, { "_ADDR", host }, { "_PORT", port }, { "_PROTO", "tcp" } };
    for (size_t i = 0; i < ARRAY_SIZE(variables); i++) {
        AUTO(free) char *name = xasprintf("%s_PORT_%lld_TCP%s", alias, local, variables[i].suffix);
        add_variable(list, name, variables[i].value);
    }
}

static json_t *environment(const struct container *c, const char *host)
{
    json_t *list = json_array();
    const char *name;
    const json_t *value;
    size_t i;
    json_array_foreach (json_object_get(c->settings, "links"), i, value) {
        add_link(list, value, host);
    }
    json_object_foreach (json_object_get(c->settings, "environment"), name, value) {
        add_variable(list, name, json_string_value(value));
    }
    return list;
}

static void add_ports(const struct container *c, json_t *body, json_t *host_config)
{
    json_t *exposed = json_object(), *bindings = json_object();
    const json_t *port;
    size_t i;
    json_array_foreach (json_object_get(c->settings, "ports"), i, port) {
        AUTO(free) char *internal = xasprintf("%lld/tcp", (long long)json_integer_value(json_object_get(port, "internal")));
        AUTO(free) char *external = xasprintf("%lld", (long long)json_integer_value(json_object_get(port, "external")));
        json_object_set_new(exposed, internal, json_object());
        if (!json_object_get(bindings, internal))
            json_object_set_new(bindings, internal, json_array());
        json_array_append_new(json_object_get(bindings, internal), json_pack("{s:s}", "HostPort", external));
    }
    json_object_set_new(body, "ExposedPorts", exposed);
    json_object_set_new(host_config, "PortBindings", bindings);
}

// As a mount, not as a bind: where a bind's source is missing the engine makes an empty folder in its place.
static void add_volume(const struct container *c, const struct docker_place *place, json_t *host_config)
{
    const json_t *volume = json_array_get(json_object_get(c->settings, "volumes"), 0);
    if (!volume)
        return;
    ASSERT(place->mount_point);
    json_object_set_new(host_config, "Mounts", json_pack("[{s:s, s:s, s:O}]", "Type", "bind", "Source", place->mount_point, "Target",
                                                         json_object_get(volume, "mountpoint")));
}

static json_t *labels(const struct container *c, const struct docker_place *place)
{
    AUTO(free) char *revision = xasprintf("%llu", (unsigned long long)c->revision);
    json_t *object = json_pack("{s:s, s:s, s:s}", LABEL_NAME, c->name, LABEL_REVISION, revision, LABEL_ERA, UUID_TEXT(&place->era));
    if (!uuid_is_zero(&c->volume))
        json_object_set_new(object, LABEL_VOLUME, json_string(UUID_TEXT(&c->volume)));
    return object;
}

json_t *docker_create_body(const struct container *c, const struct docker_place *place)
{
    static const struct {
        const char *ours, *theirs;
    } limits[] = { { "memory_limit", "Memory" }, { "cpu_shares", "CpuShares" }, { "swappiness", "MemorySwappiness" } };
    json_t *host_config = json_pack("{s:{s:s}}", "RestartPolicy", "Name", "no");
    json_t *body = json_pack("{s:O, s:o, s:o, s:o}", "Image", json_object_get(c->settings, "image"), "Env", environment(c, place->host), "Labels",
                             labels(c, place), "HostConfig", host_config);
    ASSERT(body);
    json_t *command = json_object_get(c->settings, "command_line");
    if (command)
        json_object_set(body, "Cmd", command);
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        json_t *value = json_object_get(c->settings, limits[i].ours);
        if (value && json_integer_value(value) != 0)
            json_object_set(host_config, limits[i].theirs, value);
    }
    add_ports(c, body, host_config);
    add_volume(c, place, host_config);
    return body;
}

// ---- calls

struct reply {
    int status;
    json_t *json; // NULL if there was none
    char *text;   // the same as it came
};

static void auto_reply(struct reply *r)
{
    json_decref(r->json);
    free(r->text);
}

// Any status is a success here: what it means is the caller's to say. `body` (NULL: none) is borrowed.
static int call(const char *socket, const char *method, const char *target, const json_t *body, int timeout_ms, struct reply *ret, struct error *e)
{
    AUTO(free) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct http_result result = { 0 };
    json_error_t why;
    const struct http_call c = { .unix_path = socket,
                                 .method = method,
                                 .target = target,
                                 .version_1_0 = true,
                                 .extra = text ? "Content-Type: application/json\r\n" : NULL,
                                 .body = text,
                                 .body_n = text ? strlen(text) : 0,
                                 .timeout_ms = timeout_ms };
    int rc = http_call(&c, &result, e);
    if (rc < 0)
        return fail_ctx(e, rc, "the container engine can't be asked");
    ret->status = result.status;
    ret->json = json_loadb(result.body, result.body_n, 0, &why);
    ret->text = TAKE(result.body, NULL);
    http_result_done(&result);
    return 0;
}

static int fail_reply(const struct reply *r, const char *what, const char *name, struct error *e)
{
    const enum errcode code = r->status == 404 ? E_NOT_FOUND : r->status == 409 ? E_CONFLICT : E_IO;
    const char *message = json_string_value(json_object_get(r->json, "message"));
    return fail(e, code, "the container engine does not %s %.100s: %s", what, name, message ? message : "it gives no reason");
}

static char *target_of(const char *name, const char *rest)
{
    return xasprintf("/containers/flocker--%s%s", name, rest);
}

static int exit_code(const json_t *state)
{
    return (int)json_integer_value(json_object_get(state, "ExitCode"));
}

static void read_container(const char *name, const json_t *said, json_t *result)
{
    const json_t *state = json_object_get(said, "State"), *config = json_object_get(said, "Config"), *label = json_object_get(config, "Labels");
    const char *whose = json_string_value(json_object_get(label, LABEL_NAME)), *era = json_string_value(json_object_get(label, LABEL_ERA));
    const char *revision = json_string_value(json_object_get(label, LABEL_REVISION)), *image = json_string_value(json_object_get(config, "Image"));
    const char *started = json_string_value(json_object_get(state, "StartedAt"));
    json_object_set_new(result, "ours", json_boolean(whose && strcmp(whose, name) == 0));
    json_object_set_new(result, "running", json_boolean(json_is_true(json_object_get(state, "Running"))));
    json_object_set_new(result, "started", json_boolean(started && strncmp(started, "0001-", 5) != 0)); // Go's zero time
    json_object_set_new(result, "exit", json_integer(exit_code(state)));
    json_object_set_new(result, "pid", json_integer(json_integer_value(json_object_get(state, "Pid"))));
    json_object_set_new(result, "revision", json_integer(revision ? strtoll(revision, NULL, 10) : 0));
    json_object_set_new(result, "era", json_text(era ? era : ""));
    json_object_set_new(result, "image", json_text(image ? image : ""));
}

int docker_look(const char *socket, const char *name, json_t *result, struct error *e)
{
    __attribute__((cleanup(auto_reply))) struct reply r = { .status = 0 };
    AUTO(free) char *target = target_of(name, "/json");
    int rc = call(socket, "GET", target, NULL, CALL_MS, &r, e);
    if (rc < 0)
        return rc;
    if (r.status != 200 && r.status != 404)
        return fail_reply(&r, "show container", name, e);
    json_object_set_new(result, "present", json_boolean(r.status == 200));
    if (r.status == 200)
        read_container(name, r.json, result);
    return 0;
}

// The reply is a stream of JSON documents; one that says "error" is its end.
static int pull(const char *socket, const char *image, struct error *e)
{
    __attribute__((cleanup(auto_reply))) struct reply r = { .status = 0 };
    AUTO(free) char *encoded = client_encode(image);
    AUTO(free) char *target = xasprintf("/images/create?fromImage=%s", encoded);
    int rc = call(socket, "POST", target, NULL, DOCKER_PULL_MS, &r, e);
    if (rc < 0)
        return rc;
    if (r.status != 200)
        return fail_reply(&r, "pull image", image, e);
    const char *error = strstr(r.text, "\"error\":\"");
    if (!error)
        return 0;
    error += strlen("\"error\":\"");
    return fail(e, E_IO, "image %.100s can't be pulled: %.*s", image, (int)strcspn(error, "\""), error);
}

int docker_create(const struct container *c, const struct docker_place *place, struct error *e)
{
    AUTO(json_decref) json_t *body = docker_create_body(c, place);
    AUTO(free) char *target = xasprintf("/containers/create?name=flocker--%s", c->name);
    for (int attempt = 0;; attempt++) {
        __attribute__((cleanup(auto_reply))) struct reply r = { .status = 0 };
        int rc = call(place->socket, "POST", target, body, CALL_MS, &r, e);
        if (rc < 0 || r.status == 201)
            return rc;
        if (r.status != 404 || attempt > 0)
            return fail_reply(&r, "create container", c->name, e);
        if ((rc = pull(place->socket, json_string_value(json_object_get(c->settings, "image")), e)) < 0)
            return rc;
    }
}

// A POST or DELETE that answers with one of these statuses has done what it should.
static int simple(const char *socket, const char *method, const char *name, const char *rest, const char *what, int also, struct error *e)
{
    __attribute__((cleanup(auto_reply))) struct reply r = { .status = 0 };
    AUTO(free) char *target = target_of(name, rest);
    int rc = call(socket, method, target, NULL, CALL_MS, &r, e);
    if (rc < 0)
        return rc;
    const bool is_done = (r.status >= 200 && r.status < 300) || r.status == 304 || r.status == also;
    return is_done ? 0 : fail_reply(&r, what, name, e);
}

int docker_start(const char *socket, const char *name, struct error *e)
{
    return simple(socket, "POST", name, "/start", "start container", 304, e);
}

int docker_remove(const char *socket, const char *name, struct error *e)
{
    AUTO(free) char *stop = xasprintf("/stop?t=%d", STOP_S);
    int rc = simple(socket, "POST", name, stop, "stop container", 404, e);
    return rc < 0 ? rc : simple(socket, "DELETE", name, "?force=1", "remove container", 404, e);
}
