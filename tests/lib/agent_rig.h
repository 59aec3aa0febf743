// One host: the real control, agent and plugin in one event loop, asked over their sockets, on a backend in memory that can be made to fail.
#ifndef FLOCKER_TESTS_AGENT_RIG_H
#define FLOCKER_TESTS_AGENT_RIG_H

#include "test.h"

#include "agent/agent.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "control/control.h"
#include "docker/plugin.h"
#include "fault_backend.h"
#include "net/socket.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define WAIT_MS 12000

static struct host {
    char dir[64], agents[96], api[96], plugin_path[96], refs[96], store_path[96];
    struct event_base *base;
    struct control *control;
    struct agent *agent;
    struct plugin *plugin;
    struct uuid node;
    const struct store_ops *store;
    const struct backend_ops *backend; // NULL: fault
    int peer_fd;
    const char *door;                  // where control listens, if not where the agent connects to
    void (*on_pump)(void);             // NULL, or what has its turn with the loop
} host;

static inline void pump(void)
{
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    if (host.on_pump)
        host.on_pump();
    poll(NULL, 0, 1);
}

static inline void control_up(void)
{
    struct error e = ERROR_INIT;
    const struct control_config config = {
        .base = host.base,
        .store = host.store,
        .store_path = host.store_path,
        .agents_fd = socket_listen_unix(host.door ? host.door : host.agents, 0600, &e),
        .api_fd = socket_listen_unix(host.api, 0600, &e),
        .rest_fd = -1,
        .trash_keep_ms = 3600000,
    };
    if (config.agents_fd < 0 || config.api_fd < 0 || control_new(&config, &host.control, &e) < 0)
        fail_msg("control: %s", e.msg);
}

static inline void control_down(void)
{
    control_free(host.control);
    host.control = NULL;
}

static inline void agent_up(void)
{
    struct error e = ERROR_INIT;
    const struct agent_config config = {
        .base = host.base,
        .node = host.node,
        .era = host.node,
        .host = "127.0.0.1",
        .control_socket = host.agents,
        .refs_dir = host.refs,
        .backend = host.backend ? host.backend : &backend_fault,
        .pool = { .source = POOL_FILE, .path = "/pool", .mount_root = "/flocker" },
        .peer_fd = host.peer_fd,
    };
    if (agent_new(&config, &host.agent, &e) < 0)
        fail_msg("agent: %s", e.msg);
    const struct plugin_config doors = {
        .base = host.base, .agent = host.agent, .unix_fd = socket_listen_unix(host.plugin_path, 0600, &e), .tcp_fd = -1,
    };
    if (doors.unix_fd < 0 || plugin_new(&doors, &host.plugin, &e) < 0)
        fail_msg("plugin: %s", e.msg);
}

static inline void agent_down(void)
{
    plugin_free(host.plugin);
    agent_free(host.agent);
    host.plugin = NULL;
    host.agent = NULL;
}

static inline int host_new(void **state)
{
    (void)state;
    host = (struct host){ .dir = "/tmp/flocker-agent.XXXXXX", .store = &store_memory, .node = rng_uuid() };
    assert_non_null(mkdtemp(host.dir));
    snprintf(host.agents, sizeof host.agents, "%s/agents.sock", host.dir);
    snprintf(host.api, sizeof host.api, "%s/api.sock", host.dir);
    snprintf(host.plugin_path, sizeof host.plugin_path, "%s/plugin.sock", host.dir);
    snprintf(host.refs, sizeof host.refs, "%s/refs", host.dir);
    snprintf(host.store_path, sizeof host.store_path, "%s/control.db", host.dir);
    host.base = event_base_new();
    fault_arm(0, 0, false);
    return 0;
}

static inline void clear_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *d; dir && (d = readdir(dir));)
        unlinkat(dirfd(dir), d->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

// ---- the truth: what is in the pool, whatever anybody thinks

struct truth {
    int n, mounted;
    uint64_t size;
    struct uuid ids[64];
};

static inline void see(void *arg, struct backend_volume *v)
{
    struct truth *t = arg;
    t->ids[t->n++] = v->record->id;
    t->mounted += v->mounted;
    t->size = v->record->size;
    volume_free(v->record);
}

static inline void see_damaged(void *arg, const char *id, const struct error *why)
{
    (void)arg;
    fail_msg("volume %s is damaged: %s", id, why->msg);
}

static inline struct truth truth(void)
{
    struct truth t = { 0 };
    struct error e = ERROR_INIT;
    if (fault.inner)
        assert_int_equal(backend_memory.observe(fault.inner, see, see_damaged, &t, &e), 0);
    return t;
}

static inline int host_end(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    fault_arm(0, 0, false);
    struct truth t = truth();
    for (int i = 0; i < t.n; i++) { // the pool outlives the agent, for the next test
        backend_memory.unmount(fault.inner, &t.ids[i], &e);
        backend_memory.destroy(fault.inner, &t.ids[i], &e);
    }
    if (host.agent)
        agent_down();
    if (host.control)
        control_down();
    event_base_free(host.base);
    clear_folder(host.refs);
    clear_folder(host.dir);
    return 0;
}

#define WAIT_FOR(x)                                                     \
    do {                                                                \
        int64_t until = clock_boot_ms() + WAIT_MS;                      \
        while (!(x) && clock_boot_ms() < until)                         \
            pump();                                                     \
        if (!(x))                                                       \
            fail_msg("not so after %d ms: %s", WAIT_MS, #x);            \
    } while (0)

// ---- calls

struct answer {
    int status; // 0: the connection was closed without an answer
    char body[8192];
};

static inline int call_start(const char *path, const char *head, const char *body)
{
    struct error e = ERROR_INIT;
    int fd = socket_connect_unix(path, 1000, &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    dprintf(fd, "%s\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", head, strlen(body), body);
    return fd;
}

static inline struct answer call_end(int fd)
{
    struct answer a = { 0, "" };
    char text[16384];
    size_t n = 0;
    int64_t until = clock_boot_ms() + WAIT_MS;
    for (;;) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        n += got > 0 ? (size_t)got : 0;
        if (clock_boot_ms() > until)
            fail_msg("no answer within %d ms", WAIT_MS);
        pump();
    }
    close(fd);
    text[n] = '\0';
    const char *body = strstr(text, "\r\n\r\n");
    if (body) {
        a.status = (int)strtol(text + strlen("HTTP/1.1 "), NULL, 10);
        snprintf(a.body, sizeof a.body, "%s", body + 4);
    }
    return a;
}

static inline int plugin_start(const char *call, const char *body)
{
    char head[100];
    snprintf(head, sizeof head, "POST /%s HTTP/1.1", call);
    return call_start(host.plugin_path, head, body);
}

static inline struct answer plugin_call(const char *call, const char *body)
{
    return call_end(plugin_start(call, body));
}

// Podman says what it sends; no process stands for it.
static inline struct answer podman_call(const char *call, const char *body)
{
    char head[140];
    snprintf(head, sizeof head, "POST /%s HTTP/1.1\r\nContent-Type: application/json", call);
    return call_end(call_start(host.plugin_path, head, body));
}

static inline struct answer rest(const char *request, const char *body)
{
    char head[200];
    snprintf(head, sizeof head, "%s HTTP/1.1", request);
    return call_end(call_start(host.api, head, body));
}

#define OK(call)                                                              \
    do {                                                                      \
        struct answer got = call;                                             \
        if (got.status != 200 && got.status != 201)                           \
            fail_msg("%s: %d %s", #call, got.status, got.body);               \
    } while (0)

#define REFUSED(call, text)                                                   \
    do {                                                                      \
        struct answer got = call;                                             \
        if (got.status != 500 || !strstr(got.body, text))                     \
            fail_msg("%s: %d %s, not: %s", #call, got.status, got.body, text); \
    } while (0)

#define DB     "{\"Name\":\"db\"}"
#define DB_ONE "{\"Name\":\"db\",\"ID\":\"one\"}"
#define DB_TWO "{\"Name\":\"db\",\"ID\":\"two\"}"

// ---- the program

#define CASE(name) cmocka_unit_test_setup_teardown(name, host_new, host_end)

static inline void host_log(void)
{
    if (!getenv("FLOCKER_LOG"))
        setenv("FLOCKER_LOG", "error", 1);
    log_open("test");
}

#endif
