// Control as a process of its own, with a store and times of the test's choice; agents and clients are this process.
#ifndef FLOCKER_TESTS_CONTROL_RIG_H
#define FLOCKER_TESTS_CONTROL_RIG_H

#include "test.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/control.h"
#include "model/json.h"
#include "net/http.h"
#include "net/socket.h"

#include <event2/event.h>
#include <ftw.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct rig {
    char dir[32], api[64], agents[64], store[64];
    pid_t pid;
};

// ---- the process

static inline void on_term(evutil_socket_t fd, short what, void *base)
{
    (void)fd, (void)what;
    event_base_loopbreak(base);
}

static inline _Noreturn void be_control(struct control_config config)
{
    struct error e = ERROR_INIT;
    struct control *c = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that fails leaves nothing behind
    setenv("FLOCKER_LOG", "error", 0);
    log_open("control");
    config.base = event_base_new();
    struct event *term = evsignal_new(config.base, SIGTERM, on_term, config.base);
    event_add(term, NULL);
    if (control_new(&config, &c, &e) < 0) {
        fprintf(stderr, "control: %s\n", e.msg);
        exit(1);
    }
    event_base_dispatch(config.base);
    control_free(c);
    event_free(term);
    event_base_free(config.base);
    libevent_global_shutdown();
    exit(0);
}

static inline void start(struct rig *r, const struct store_ops *ops, int64_t keep_ms)
{
    struct error e = ERROR_INIT;
    struct control_config config = { .store = ops, .store_path = r->store, .rest_fd = -1, .trash_keep_ms = keep_ms };
    if (!r->dir[0]) {
        snprintf(r->dir, sizeof r->dir, "/tmp/test-control-XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        snprintf(r->api, sizeof r->api, "%s/api", r->dir);
        snprintf(r->agents, sizeof r->agents, "%s/agents", r->dir);
        snprintf(r->store, sizeof r->store, "%s/store", r->dir);
    }
    config.api_fd = socket_listen_unix(r->api, 0600, &e);
    config.agents_fd = socket_listen_unix(r->agents, 0600, &e);
    assert_true(config.api_fd >= 0 && config.agents_fd >= 0);
    fflush(NULL);
    r->pid = fork();
    if (r->pid == 0)
        be_control(config);
    close(config.api_fd);
    close(config.agents_fd);
}

static inline void kill_9(struct rig *r)
{
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

// Ends control in order: it must say that all was well (and, with a sanitizer, that nothing leaked).
static inline void stop(struct rig *r)
{
    int status;
    kill(r->pid, SIGTERM);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

// ---- clients

static inline int call(const struct rig *r, const char *method, const char *target, const char *body, json_t **ret)
{
    struct error e = ERROR_INIT;
    struct http_result result = { 0 };
    const struct http_call c = { .unix_path = r->api, .method = method, .target = target, .body = body, .body_n = body ? strlen(body) : 0,
                                 .timeout_ms = 30000 };
    json_t *value = NULL;
    if (http_call(&c, &result, &e) < 0)
        fail_msg("%s %s: %s", method, target, e.msg);
    assert_int_equal(json_read(result.body, result.body_n, &value, &e), 0);
    int status = result.status;
    http_result_done(&result);
    if (ret)
        *ret = value;
    else
        json_decref(value);
    return status;
}

// A member of a volume as v2 shows it, or the status as text.
static inline const char *look(const struct rig *r, const char *id, const char *member, char ret[64])
{
    AUTO(free) char *target = xasprintf("/v2/volumes/%s", id);
    json_t *reply;
    int status = call(r, "GET", target, NULL, &reply);
    const char *text = json_string_value(json_object_get(reply, member));
    if (status == 200)
        snprintf(ret, 64, "%s", text ? text : "");
    else
        snprintf(ret, 64, "%d", status);
    json_decref(reply);
    return ret;
}

static inline bool comes_to(const struct rig *r, const char *id, const char *member, const char *value, int limit_ms)
{
    char text[64];
    for (int64_t end_ms = clock_boot_ms() + limit_ms; clock_boot_ms() < end_ms; usleep(10000))
        if (strcmp(look(r, id, member, text), value) == 0)
            return true;
    print_error("%s of %s is %s\n", member, id, text);
    return false;
}

// ---- agents

struct fake {
    int fd;
    FILE *in;
};

static inline void say(const struct fake *a, json_t *message)
{
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    AUTO(free) char *line = xasprintf("%s\n", text);
    json_decref(message);
    assert_int_equal(send(a->fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
}

// The next message; NULL at the end of the connection.
static inline json_t *hear(const struct fake *a)
{
    char line[65536];
    if (!fgets(line, sizeof line, a->in))
        return NULL;
    json_t *message = json_loads(line, 0, NULL);
    assert_non_null(message);
    return message;
}

static inline bool is_type(const json_t *message, const char *type)
{
    return message && strcmp(json_string_value(json_object_get(message, "type")), type) == 0;
}

static inline struct fake agent_connect(const struct rig *r)
{
    struct error e = ERROR_INIT;
    struct fake a = { .fd = socket_connect_unix(r->agents, 5000, &e) };
    const struct timeval limit = { .tv_sec = 30 }; // a test that waits in vain fails
    assert_true(a.fd >= 0);
    setsockopt(a.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    a.in = fdopen(dup(a.fd), "r");
    return a;
}

static inline void agent_end(struct fake *a)
{
    fclose(a->in);
    close(a->fd);
}

// Says hello; false if control closes the connection.
static inline bool agent_hello(const struct fake *a, const char *node)
{
    say(a, json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "type", "hello", "protocol", 1, "version", "x", "node", node, "era", node, "host",
                     "10.0.0.1"));
    json_t *welcome = hear(a);
    bool is_welcome = is_type(welcome, "welcome");
    json_decref(welcome);
    if (!is_welcome)
        return false;
    say(a, json_pack("{s:s}", "type", "inventory-end"));
    return true;
}

static inline struct fake agent_up(const struct rig *r, const char *node)
{
    struct fake a = agent_connect(r);
    assert_true(agent_hello(&a, node));
    return a;
}

// Skips messages until an order for a volume in that state, whose data control knows of.
static inline void await_want(const struct fake *a, const char *state, char id[64])
{
    for (json_t *message; (message = hear(a));) {
        const json_t *volume = json_object_get(message, "volume");
        const char *is = json_string_value(json_object_get(volume, "state"));
        bool found = is && strcmp(is, state) == 0 && json_is_true(json_object_get(volume, "born"));
        if (found)
            snprintf(id, 64, "%s", json_string_value(json_object_get(volume, "id")));
        json_decref(message);
        if (found)
            return;
    }
    fail_msg("no order with state %s came", state);
}

static inline void report(const struct fake *a, const char *id, bool present)
{
    say(a, json_pack("{s:s, s:s, s:i, s:i, s:b, s:b}", "type", "report", "id", id, "epoch", 1, "revision", 1, "present", (int)present, "mounted", 0));
}

#define NODE   "b7a1cf2e-5f0b-4d3c-8a1e-0c8f1d2e3f40"
#define NODE_2 "c7a1cf2e-5f0b-4d3c-8a1e-0c8f1d2e3f41"

static inline void make(const struct rig *r, const struct fake *a, char id[64])
{
    json_t *made;
    assert_int_equal(call(r, "POST", "/v2/volumes", "{\"owner\": \"" NODE "\"}", &made), 201);
    snprintf(id, 64, "%s", json_string_value(json_object_get(made, "id")));
    json_decref(made);
    report(a, id, true);
    await_want(a, "live", id);
}

static inline void discard(const struct rig *r, const char *id)
{
    AUTO(free) char *target = xasprintf("/v1/configuration/datasets/%s", id);
    assert_int_equal(call(r, "DELETE", target, NULL, NULL), 200);
}

#endif
