// The real control, agent and plugin in one event loop, asked over their sockets, on a backend in memory that can be made to fail.
#include "test.h"

#include "agent/agent.h"
#include "agent/worker.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "control/control.h"
#include "docker/plugin.h"
#include "fault_backend.h"
#include "net/socket.h"

#include <dirent.h>
#include <event2/event.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define WAIT_MS 12000

// ---- one host -------------------------------------------------------------------------------------------------------------------

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
} host;

// ---- a wire between agent and control that can be cut, and lose what was under way

enum { TO_CONTROL, TO_AGENT };

static struct {
    char door[96];              // where control listens while there is a wire; "": there is none
    int listener, ends[2];      // -1: none
    bool is_down;               // whoever connects waits
    const char *loses[2];       // a line with that word is lost, and all that come after it that way
    bool is_losing[2];
    char text[2][1 << 17];      // what has come and is not a whole line
    size_t n[2];
    int reports, wants, ends_of_wants; // of this connection
    bool is_resumed;
} wire;

static void wire_cut(void)
{
    for (int i = 0; i < 2; i++) {
        close(wire.ends[i]);
        wire.ends[i] = -1;
        wire.n[i] = 0;
        wire.is_losing[i] = false;
        wire.loses[i] = NULL;
    }
}

static void wire_accept(void)
{
    struct error e = ERROR_INIT;
    int agent = accept4(wire.listener, NULL, NULL, SOCK_CLOEXEC);
    if (agent < 0)
        return;
    wire.ends[TO_AGENT] = agent;
    wire.ends[TO_CONTROL] = socket_connect_unix(wire.door, 1000, &e);
    assert_true(wire.ends[TO_CONTROL] >= 0);
    wire.reports = wire.wants = wire.ends_of_wants = 0;
    wire.is_resumed = false;
}

static void wire_line(int way, const char *line, size_t n)
{
    AUTO(free) char *text = xstrndup(line, n);
    wire.is_losing[way] |= wire.loses[way] && strstr(text, wire.loses[way]);
    if (wire.is_losing[way])
        return;
    wire.reports += strstr(text, "\"type\":\"report\"") != NULL;
    wire.wants += strstr(text, "\"type\":\"want\"") != NULL;
    wire.ends_of_wants += strstr(text, "\"type\":\"want-end\"") != NULL;
    wire.is_resumed |= strstr(text, "\"resume\":true") != NULL;
    assert_int_equal(send(wire.ends[way], line, n, MSG_NOSIGNAL), n);
}

static void wire_carry(int way)
{
    char *text = wire.text[way], *end;
    ssize_t got = recv(wire.ends[!way], text + wire.n[way], sizeof wire.text[way] - wire.n[way], MSG_DONTWAIT);
    wire.n[way] += got > 0 ? (size_t)got : 0;
    while ((end = memchr(text, '\n', wire.n[way]))) {
        size_t n = (size_t)(end - text) + 1;
        wire_line(way, text, n);
        wire.n[way] -= n;
        memmove(text, text + n, wire.n[way]);
    }
}

static void wire_turn(void)
{
    if (wire.ends[0] < 0 && !wire.is_down)
        wire_accept();
    for (int way = 0; way < 2 && wire.ends[0] >= 0; way++)
        wire_carry(way);
}

// Before control_up and agent_up.
static void wire_up(void)
{
    struct error e = ERROR_INIT;
    snprintf(wire.door, sizeof wire.door, "%s/door.sock", host.dir);
    wire.listener = socket_listen_unix(host.agents, 0600, &e);
    wire.ends[0] = wire.ends[1] = -1;
    assert_true(wire.listener >= 0);
}

static void wire_end(void)
{
    if (!wire.door[0])
        return;
    wire_cut();
    close(wire.listener);
    memset(&wire, 0, sizeof wire);
}

static void pump(void)
{
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    if (wire.door[0])
        wire_turn();
    poll(NULL, 0, 1);
}

static void control_up(void)
{
    struct error e = ERROR_INIT;
    const struct control_config config = {
        .base = host.base,
        .store = host.store,
        .store_path = host.store_path,
        .agents_fd = socket_listen_unix(wire.door[0] ? wire.door : host.agents, 0600, &e),
        .api_fd = socket_listen_unix(host.api, 0600, &e),
        .rest_fd = -1,
        .trash_keep_ms = 3600000,
    };
    if (config.agents_fd < 0 || config.api_fd < 0 || control_new(&config, &host.control, &e) < 0)
        fail_msg("control: %s", e.msg);
}

static void control_down(void)
{
    control_free(host.control);
    host.control = NULL;
}

static void agent_up(void)
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

static void agent_down(void)
{
    plugin_free(host.plugin);
    agent_free(host.agent);
    host.plugin = NULL;
    host.agent = NULL;
}

static int host_new(void **state)
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

static void clear_folder(const char *path)
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

static void see(void *arg, struct backend_volume *v)
{
    struct truth *t = arg;
    t->ids[t->n++] = v->record->id;
    t->mounted += v->mounted;
    t->size = v->record->size;
    volume_free(v->record);
}

static void see_damaged(void *arg, const char *id, const struct error *why)
{
    (void)arg;
    fail_msg("volume %s is damaged: %s", id, why->msg);
}

static struct truth truth(void)
{
    struct truth t = { 0 };
    struct error e = ERROR_INIT;
    if (fault.inner)
        assert_int_equal(backend_memory.observe(fault.inner, see, see_damaged, &t, &e), 0);
    return t;
}

static int host_end(void **state)
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
    wire_end();
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

static int call_start(const char *path, const char *head, const char *body)
{
    struct error e = ERROR_INIT;
    int fd = socket_connect_unix(path, 1000, &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    dprintf(fd, "%s\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", head, strlen(body), body);
    return fd;
}

static struct answer call_end(int fd)
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

static int plugin_start(const char *call, const char *body)
{
    char head[100];
    snprintf(head, sizeof head, "POST /%s HTTP/1.1", call);
    return call_start(host.plugin_path, head, body);
}

static struct answer plugin_call(const char *call, const char *body)
{
    return call_end(plugin_start(call, body));
}

// Podman says what it sends; no process stands for it.
static struct answer podman_call(const char *call, const char *body)
{
    char head[140];
    snprintf(head, sizeof head, "POST /%s HTTP/1.1\r\nContent-Type: application/json", call);
    return call_end(call_start(host.plugin_path, head, body));
}

static struct answer rest(const char *request, const char *body)
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

// ---- the way of a volume

static void life(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("Plugin.Activate", ""));
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"db\",\"Opts\":{\"size\":\"64M\"}}"));
    assert_int_equal(truth().n, 1);
    assert_int_equal(truth().size, 64 << 20);
    assert_int_equal(truth().mounted, 0);
    OK(plugin_call("VolumeDriver.Create", DB)); // it is there already
    assert_int_equal(truth().n, 1);
    assert_non_null(strstr(plugin_call("VolumeDriver.List", "{}").body, "\"db\""));
    struct answer get = plugin_call("VolumeDriver.Get", DB);
    assert_non_null(strstr(get.body, "\"Mountpoint\":\"\""));
    REFUSED(plugin_call("VolumeDriver.Get", "{\"Name\":\"no\"}"), "no such volume: no");
    REFUSED(plugin_call("VolumeDriver.Path", DB), "not mounted");
    REFUSED(plugin_call("VolumeDriver.Mount", "{\"Name\":\"no\",\"ID\":\"x\"}"), "no such volume");
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // docker cp
    OK(plugin_call("VolumeDriver.Mount", DB_TWO));
    assert_non_null(strstr(plugin_call("VolumeDriver.Path", DB).body, "/flocker/"));
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":3"));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_TWO));
    assert_int_equal(truth().mounted, 1);
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE)); // of nothing
    OK(plugin_call("VolumeDriver.Remove", DB));
    OK(plugin_call("VolumeDriver.Remove", DB));
    REFUSED(plugin_call("VolumeDriver.Get", DB), "no such volume");
    assert_null(strstr(plugin_call("VolumeDriver.List", "{}").body, "\"db\""));
    assert_int_equal(truth().n, 1); // in the trash
    OK(rest("POST /v2/volumes/db/restore", "{}"));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    OK(plugin_call("VolumeDriver.Remove", DB));
    OK(rest("DELETE /v2/volumes/db?purge=1", ""));
    WAIT_FOR(truth().n == 0);
}

static void v1_clients_find_it_mounted(void **state)
{
    (void)state;
    char body[200];
    control_up();
    agent_up();
    snprintf(body, sizeof body, "{\"primary\":\"%s\",\"metadata\":{\"name\":\"db\"}}", UUID_TEXT(&host.node));
    OK(rest("POST /v1/configuration/datasets", body));
    WAIT_FOR(truth().mounted == 1);
    WAIT_FOR(strstr(rest("GET /v1/state/datasets", "").body, "\"path\":\"/flocker/"));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    for (int i = 0; i < 50; i++)
        pump();
    assert_int_equal(truth().mounted, 1); // kept
}

static void ids_up_to_the_largest(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"db\",\"Opts\":{\"uid\":\"4294967294\",\"gid\":\"3000000000\"}}"));
    struct answer got = rest("GET /v2/volumes/db", "");
    assert_non_null(strstr(got.body, "\"uid\":4294967294"));
    assert_non_null(strstr(got.body, "\"gid\":3000000000"));
}

// ---- workers

struct verdict {
    bool done;
    int rc;
    char message[sizeof((struct error *)0)->msg];
};

static void on_verdict(void *arg, int rc, json_t *result, const struct error *e)
{
    struct verdict *v = arg;
    (void)result;
    v->done = true;
    v->rc = rc;
    snprintf(v->message, sizeof v->message, "%s", e->msg);
}

enum { MUCH_PARTS = 700, MUCH_BYTES = 200000 }; // 140 MB

static int answer_too_much(void *ctx, json_t *result, struct error *e)
{
    (void)ctx;
    (void)e;
    AUTO(free) char *text = xcalloc(WORKER_ANSWER_MAX + (1U << 20), 1);
    memset(text, 'x', WORKER_ANSWER_MAX + (1U << 20) - 1);
    json_object_set_new(result, "text", json_string(text));
    return 0;
}

// More than fits one answer, in parts.
static int tell_much(void *ctx, json_t *result, struct error *e)
{
    (void)ctx;
    (void)result;
    (void)e;
    AUTO(free) char *text = xcalloc(MUCH_BYTES, 1);
    memset(text, 'x', MUCH_BYTES - 1);
    for (int i = 0; i < MUCH_PARTS; i++)
        worker_tell(json_pack("{s:i, s:s}", "i", i, "text", text));
    return 0;
}

struct both {
    struct verdict *verdict;
    int *count;
};

static void on_both_done(void *arg, int rc, json_t *result, const struct error *e)
{
    on_verdict(((struct both *)arg)->verdict, rc, result, e);
}

static void on_much(void *arg, const json_t *part)
{
    int *count = ((struct both *)arg)->count;
    assert_int_equal(json_integer_value(json_object_get(part, "i")), *count);
    assert_int_equal(json_string_length(json_object_get(part, "text")), MUCH_BYTES - 1);
    ++*count;
}

// Bytes that are no text, as the names of processes and files can be.
static int fail_oddly(void *ctx, json_t *result, struct error *e)
{
    (void)ctx;
    (void)result;
    return fail(e, E_BUSY, "in use by \xff\xfe");
}

static void parts_of_an_answer_have_no_limit(void **state)
{
    (void)state;
    for (int in_process = 0; in_process < 2; in_process++) {
        struct verdict v = { .done = false };
        int count = 0;
        struct both both = { &v, &count };
        struct workers *workers = workers_new(host.base, in_process);
        const struct worker_task task = { .what = "test", .run = tell_much, .done = on_both_done, .on_progress = on_much, .arg = &both };
        worker_start(workers, &task);
        WAIT_FOR(v.done);
        workers_free(workers);
        assert_int_equal(v.rc, 0);
        assert_int_equal(count, MUCH_PARTS);
    }
}

// ---- a pool of which the inventory does not fit one answer

enum { LARGE = 120000 };

static bool large_fails; // at the end of the first look

static int observe_large(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                         void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e)
{
    (void)b;
    (void)on_damaged;
    for (int i = 0; i < LARGE; i++) {
        struct error ignored = ERROR_INIT;
        struct backend_volume found = { .record = volume_new() };
        struct volume *v = found.record;
        AUTO(free) char *value = xasprintf("%0250d", i);
        memcpy(v->id.b, &i, sizeof i);
        v->id.b[6] = 0x40;
        v->id.b[8] = 0x80;
        v->name = xasprintf("volume-%d", i);
        v->owner = v->target = host.node;
        v->epoch = v->revision = 1;
        v->born = true;
        metadata_set(&v->metadata, "much", value, &ignored);
        on_volume(arg, &found);
    }
    return large_fails ? fail(e, E_IO, "the disk is gone") : 0;
}

static void count_one(void *arg, const struct agent_view *v)
{
    size_t *n = arg;
    *n += v->present;
}

static struct backend_ops large; // fault's, but for these

static int open_large(const struct backend_config *config, struct backend **ret, struct error *e)
{
    int rc = backend_fault.open(config, ret, e);
    if (rc == 0)
        (*ret)->ops = &large;
    return rc;
}

static void a_large_pool_is_opened(void **state)
{
    size_t n = 0;
    (void)state;
    large = backend_fault;
    large.in_process = false;
    large.open = open_large;
    large.observe = observe_large;
    large.copies = NULL;
    host.backend = &large;
    large_fails = true;
    agent_up();
    for (int64_t end_ms = clock_boot_ms() + 30000; !strstr(plugin_call("VolumeDriver.Create", DB).body, "disk is gone"); pump())
        assert_true(clock_boot_ms() < end_ms);
    agent_each(host.agent, count_one, &n);
    assert_int_equal(n, 0); // nothing half-way
    large_fails = false;
    for (int64_t end_ms = clock_boot_ms() + 60000; !agent_is_open(host.agent); pump())
        assert_true(clock_boot_ms() < end_ms);
    agent_each(host.agent, count_one, &n);
    assert_int_equal(n, LARGE);
    agent_down();
    host.backend = NULL;
}

// A backend without moves does its work in the agent itself, which does not serve whoever connects.
static void nobody_fetches_from_memory(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char byte;
    AUTO(free) char *path = xasprintf("%s/peers.sock", host.dir);
    host.peer_fd = socket_listen_unix(path, 0600, &e);
    agent_up();
    host.peer_fd = 0;
    WAIT_FOR(agent_is_open(host.agent));
    AUTO(close) int peer = socket_connect_unix(path, 1000, &e);
    assert_true(peer >= 0);
    WAIT_FOR(recv(peer, &byte, 1, MSG_DONTWAIT) == 0);
    agent_down();
}

static struct verdict work(worker_fn *run)
{
    struct verdict v = { .done = false };
    struct workers *workers = workers_new(host.base, false);
    const struct worker_task task = { .what = "test", .run = run, .done = on_verdict, .arg = &v };
    worker_start(workers, &task);
    WAIT_FOR(v.done);
    workers_free(workers);
    return v;
}

static void workers_that_say_odd_things(void **state)
{
    (void)state;
    struct verdict v = work(answer_too_much); // neither waits for the other for ever
    assert_int_equal(v.rc, -E_IO);
    assert_non_null(strstr(v.message, "more than 64 MiB"));
    v = work(fail_oddly);
    assert_int_equal(v.rc, -E_BUSY);
    assert_string_equal(v.message, "in use by ??");
}

// ---- control comes and goes

static void control_is_late(void **state)
{
    (void)state;
    agent_up();
    int create = plugin_start("VolumeDriver.Create", DB), get = plugin_start("VolumeDriver.Get", DB), list = plugin_start("VolumeDriver.List", "{}");
    for (int i = 0; i < 300; i++)
        pump();
    control_up();
    OK(call_end(create));
    OK(call_end(list));
    struct answer a = call_end(get);
    assert_true(a.status == 200 || strstr(a.body, "no such volume")); // which of the two was first is open
    assert_int_equal(truth().n, 1);
}

static void without_control(void **state)
{
    (void)state;
    agent_up();
    int64_t began = clock_boot_ms();
    int create = plugin_start("VolumeDriver.Create", DB), get = plugin_start("VolumeDriver.Get", DB), list = plugin_start("VolumeDriver.List", "{}"),
        remove = plugin_start("VolumeDriver.Remove", DB), mount = plugin_start("VolumeDriver.Mount", DB_ONE);
    REFUSED(call_end(create), "control service can't be reached");
    REFUSED(call_end(remove), "control service can't be reached");
    REFUSED(call_end(mount), "control service can't be reached");
    assert_int_equal(call_end(get).status, 0); // an error would make the engine forget the volume
    OK(call_end(list));
    assert_true(clock_boot_ms() - began < 4000);
    assert_int_equal(truth().n, 0);
}

static void control_is_gone_and_back(void **state)
{
    (void)state;
    host.store = &store_sqlite;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    control_down();
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // its own order is the latest it knows
    assert_int_equal(truth().mounted, 1);
    int create = plugin_start("VolumeDriver.Create", "{\"Name\":\"web\"}"), remove = plugin_start("VolumeDriver.Remove", "{\"Name\":\"old\"}");
    for (int i = 0; i < 200; i++)
        pump();
    control_up();
    OK(call_end(create));
    OK(call_end(remove));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    WAIT_FOR(strstr(rest("GET /v2/volumes/db", "").body, "\"ready\":true"));
    assert_int_equal(truth().n, 2);
}

// Control that lost its store: nothing is destroyed, nothing is served under a name that control does not know.
static void control_that_forgot(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    control_down();
    control_up();
    WAIT_FOR(plugin_call("VolumeDriver.Get", DB).status == 500);
    assert_int_equal(truth().n, 1);
    assert_int_equal(plugin_call("VolumeDriver.Create", DB).status, 500); // an empty one in its place would hide the data
    assert_int_equal(truth().n, 1);
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"web\"}"));
    assert_int_equal(truth().n, 2);
}

// ---- connections that break

static void wire_start(void)
{
    wire_up();
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    OK(plugin_call("VolumeDriver.Create", "{\"Name\":\"web\"}"));
    WAIT_FOR(strstr(rest("GET /v2/volumes/web", "").body, "\"ready\":true"));
    WAIT_FOR(agent_is_synced(host.agent));
}

static void wire_again(void)
{
    wire_cut();
    pump();
    wire.is_down = false;
    WAIT_FOR(wire.ends[0] >= 0 && wire.ends_of_wants == 1 && agent_is_synced(host.agent));
}

static bool has_size(uint64_t size)
{
    struct agent_view view;
    return agent_find(host.agent, "db", &view) && view.volume->size == size;
}

// Nothing is said again; what happened meanwhile on either side is.
static void a_broken_connection_goes_on(void **state)
{
    (void)state;
    wire_start();
    for (int i = 0; i < 3; i++) {
        wire_again();
        assert_true(wire.is_resumed);
        assert_int_equal(wire.wants, 0);
        assert_int_equal(wire.reports, 0);
    }
    wire.is_down = true;
    wire_cut();
    WAIT_FOR(!agent_is_synced(host.agent));
    OK(rest("PATCH /v2/volumes/db", "{\"size\": 67108864}"));
    OK(plugin_call("VolumeDriver.Mount", "{\"Name\":\"web\",\"ID\":\"one\"}"));
    wire_again();
    assert_true(wire.is_resumed);
    WAIT_FOR(has_size(67108864));
    WAIT_FOR(strstr(rest("GET /v2/volumes/db", "").body, "\"ready\":true"));
    assert_int_equal(wire.wants, 1); // of db
    assert_in_range(wire.reports, 2, 3); // of web: mounted and in use; of db: as ordered
    OK(plugin_call("VolumeDriver.Unmount", "{\"Name\":\"web\",\"ID\":\"one\"}"));
}

static void a_lost_order_is_given_again(void **state)
{
    (void)state;
    wire_start();
    wire.loses[TO_AGENT] = "\"want\"";
    OK(rest("PATCH /v2/volumes/db", "{\"size\": 67108864}"));
    WAIT_FOR(wire.is_losing[TO_AGENT]);
    assert_false(has_size(67108864));
    wire_again();
    assert_false(wire.is_resumed);
    assert_int_equal(wire.wants, 2);
    WAIT_FOR(has_size(67108864));
}

static void a_lost_report_is_made_again(void **state)
{
    (void)state;
    wire_start();
    wire.loses[TO_CONTROL] = "\"report\"";
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    WAIT_FOR(wire.is_losing[TO_CONTROL]);
    wire_again();
    assert_true(wire.is_resumed); // control's orders have all come
    assert_int_equal(wire.wants, 0);
    assert_in_range(wire.reports, 2, 4);
    WAIT_FOR(strstr(rest("GET /v2/volumes/db", "").body, "\"mounted\":true"));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
}

// Removed before its agent has heard of it: there is nothing to destroy, and control is told that.
static void what_was_never_made_is_purged(void **state)
{
    static const char id[] = "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11";
    char body[150];
    (void)state;
    wire_start();
    wire.is_down = true;
    wire_cut();
    WAIT_FOR(!agent_is_synced(host.agent));
    snprintf(body, sizeof body, "{\"primary\":\"%s\",\"dataset_id\":\"%s\"}", UUID_TEXT(&host.node), id);
    OK(rest("POST /v1/configuration/datasets", body));
    snprintf(body, sizeof body, "DELETE /v1/configuration/datasets/%s", id);
    OK(rest(body, ""));
    wire_again();
    snprintf(body, sizeof body, "DELETE /v2/volumes/%s?purge=1", id);
    OK(rest(body, ""));
    WAIT_FOR(strstr(rest("GET /v2/status", "").body, "\"purging\":0"));
}

// Also the one that nothing is left of a volume.
static void a_lost_report_of_an_end_is_made_again(void **state)
{
    (void)state;
    wire_start();
    OK(plugin_call("VolumeDriver.Remove", DB));
    wire.loses[TO_CONTROL] = "\"present\":false";
    OK(rest("DELETE /v2/volumes/db?purge=1", ""));
    WAIT_FOR(wire.is_losing[TO_CONTROL]);
    wire_again();
    assert_true(wire.is_resumed);
    WAIT_FOR(strstr(rest("GET /v2/status", "").body, "\"purging\":0"));
}

// Another instance of control has counted nothing.
static void control_that_was_restarted_is_told_all(void **state)
{
    (void)state;
    host.store = &store_sqlite;
    wire_start();
    wire.is_down = true;
    wire_cut();
    control_down();
    control_up();
    wire_again();
    assert_false(wire.is_resumed);
    assert_int_equal(wire.wants, 2);
    assert_int_equal(wire.reports, 2);
}

// ---- control that reads slowly

enum { MANY = 4000 };

static struct uuid many_id(int i)
{
    return (struct uuid){ { 0xee, (uint8_t)(i >> 8), (uint8_t)i, [6] = 0x40, [8] = 0x80 } };
}

static void make_many(void)
{
    struct error e = ERROR_INIT;
    struct backend *pool;
    const struct backend_config config = { .source = POOL_FILE, .path = "/pool", .mount_root = "/flocker" };
    assert_int_equal(backend_memory.open(&config, &pool, &e), 0);
    for (int i = 0; i < MANY; i++) {
        AUTO(volume_free) struct volume *v = volume_new();
        v->id = many_id(i);
        v->name = xasprintf("many-%d", i);
        v->owner = v->target = host.node;
        v->epoch = v->revision = 1;
        assert_int_equal(backend_memory.create(pool, v, &e), 0);
    }
    backend_memory.close(pool);
}

// Hears reports up to the end of the inventory: each volume once. True if the last one's says that it is mounted.
static bool hear_many(int fd)
{
    static bool seen[MANY];
    int n = 0;
    AUTO(fclose) FILE *in = fdopen(dup(fd), "r");
    char line[4096];
    bool is_mounted = false;
    while (fgets(line, sizeof line, in) && !strstr(line, "inventory-end")) {
        json_t *message = json_loads(line, 0, NULL);
        const char *text = json_string_value(json_object_get(message, "id"));
        struct uuid id;
        if (text) {
            assert_true(uuid_parse(text, &id));
            int i = id.b[1] << 8 | id.b[2];
            assert_true(i < MANY && !seen[i]);
            seen[i] = true;
            n++;
            if (i == MANY - 1)
                is_mounted = json_is_true(json_object_get(message, "mounted"));
        }
        json_decref(message);
        event_base_loop(host.base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(n, MANY);
    return is_mounted;
}

// Reports wait at the agent, and what changes meanwhile is reported once, as it is in the end.
static void reports_wait_for_a_slow_control(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(close) int listener = socket_listen_unix(host.agents, 0600, &e);
    struct pollfd waiting = { listener, POLLIN, 0 };
    make_many();
    agent_up();
    WAIT_FOR(poll(&waiting, 1, 0) == 1);
    AUTO(close) int control = accept(listener, NULL, NULL);
    AUTO(free) char *mount = xasprintf("{\"Name\":\"many-%d\",\"ID\":\"one\"}", MANY - 1);
    dprintf(control, "{\"type\":\"welcome\"}\n");
    OK(plugin_call("VolumeDriver.Mount", mount)); // its own order is the latest it knows
    assert_true(hear_many(control));
    OK(plugin_call("VolumeDriver.Unmount", mount));
    for (int i = 0; i < MANY; i++) {
        const struct uuid id = many_id(i);
        backend_memory.unmount(fault.inner, &id, &e);
        backend_memory.destroy(fault.inner, &id, &e);
    }
}

// ---- a create that fails

static void failed_create_while_control_goes(void **state)
{
    (void)state;
    control_up();
    agent_up();
    WAIT_FOR(agent_is_synced(host.agent));
    fault_arm(1, 2, false); // the attempt that starts before the caller looks, and the one that it asks for
    int create = plugin_start("VolumeDriver.Create", DB);
    int64_t began = clock_boot_ms();
    WAIT_FOR(fault.hit);
    control_down();
    REFUSED(call_end(create), "volume db");
    assert_true(clock_boot_ms() - began < PLUGIN_ANSWER_MS / 2);
}

// Reads what the agent says until it has said `word`.
static void hear(int fd, const char *word)
{
    char text[8192] = "";
    size_t n = 0;
    for (int64_t until = clock_boot_ms() + WAIT_MS; !strstr(text, word); pump()) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, MSG_DONTWAIT);
        n += got > 0 ? (size_t)got : 0;
        if (clock_boot_ms() > until)
            fail_msg("the agent has not said %s but %s", word, text);
    }
}

static void order(int fd, const struct volume *v, const char *more)
{
    json_t *want = volume_to_json(v);
    AUTO(free) char *text = json_dumps(want, JSON_COMPACT);
    json_decref(want);
    dprintf(fd, "{\"type\":\"want\",\"volume\":%s}\n%s\n", text, more);
}

// This test as the control service, up to where it has heard that the volume db, whose Create is under way, can't be made.
struct failing_create {
    struct volume *volume;
    int control, caller;
};

// A control service that wants nothing, as the agent connects to it.
static int welcome_agent(int listener)
{
    struct pollfd waiting = { listener, POLLIN, 0 };
    assert_true(listener >= 0);
    WAIT_FOR(poll(&waiting, 1, 0) == 1);
    int control = accept(listener, NULL, NULL);
    hear(control, "hello");
    dprintf(control, "{\"type\":\"welcome\"}\n{\"type\":\"want-end\"}\n");
    WAIT_FOR(agent_is_synced(host.agent));
    return control;
}

static struct failing_create failing_create(void)
{
    struct error e = ERROR_INIT;
    struct failing_create f = { .volume = volume_new() };
    AUTO(close) int listener = socket_listen_unix(host.agents, 0600, &e);
    agent_up();
    f.control = welcome_agent(listener);
    f.caller = plugin_start("VolumeDriver.Create", DB);
    hear(f.control, "\"create\"");
    uuid_parse("7f1c3937-3447-4402-bd3d-784e705dbeb1", &f.volume->id); // it has "db" in it, and an error that has the id does not name db
    f.volume->name = xstrdup("db");
    f.volume->owner = f.volume->target = host.node;
    f.volume->epoch = f.volume->revision = 1;
    fault_arm(1, 2, true); // the attempt that starts before the caller looks, and the one that it asks for: both make it all the same
    order(f.control, f.volume, "{\"type\":\"reply\",\"n\":1}");
    hear(f.control, "\"discard\"");
    assert_int_equal(truth().n, 0); // what an agent that starts anew would find is gone by then
    return f;
}

static void failed_create_is_gone_when_it_is_answered(void **state)
{
    (void)state;
    char c;
    struct agent_view view;
    struct failing_create f = failing_create();
    for (int i = 0; i < 100; i++)
        pump();
    assert_int_equal(recv(f.caller, &c, 1, MSG_PEEK | MSG_DONTWAIT), -1);
    f.volume->state = VOLUME_DELETED;
    f.volume->revision++;
    f.volume->purge_ms = f.volume->trashed_ms = 1;
    order(f.control, f.volume, "{\"type\":\"reply\",\"n\":2}");
    int64_t began = clock_boot_ms();
    REFUSED(call_end(f.caller), "volume db: injected: create");
    assert_true(clock_boot_ms() - began < PLUGIN_ANSWER_MS / 2);
    assert_false(agent_find(host.agent, "db", &view));
    close(f.control);
    volume_free(f.volume);
}

// It was deleted, and control has died before it could say so: by the old order it would be made, used, and destroyed in use.
static void failed_create_that_is_forgotten(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct failing_create f = failing_create();
    AUTO(close) int listener = socket_listen_unix(host.agents, 0600, &e);
    close(f.control);
    WAIT_FOR(!agent_is_synced(host.agent));
    f.control = welcome_agent(listener);
    REFUSED(call_end(f.caller), "volume db: injected: create");
    for (int i = 0; i < 100; i++)
        pump();
    assert_int_equal(truth().n, 0);
    close(f.control);
    volume_free(f.volume);
}

static void failed_create_while_control_is_slow(void **state)
{
    (void)state;
    struct failing_create f = failing_create();
    REFUSED(call_end(f.caller), "volume db: injected: create");
    close(f.control);
    volume_free(f.volume);
}

// The order has changed since an attempt that made the volume and took itself for failed.
static void made_by_an_earlier_order(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = volume_new();
    AUTO(close) int listener = socket_listen_unix(host.agents, 0600, &e);
    agent_up();
    AUTO(close) int control = welcome_agent(listener);
    v->id = rng_uuid();
    v->owner = v->target = host.node;
    v->epoch = v->revision = 1;
    v->size = 64 << 20;
    fault_arm(1, 1, true);
    order(control, v, "");
    WAIT_FOR(fault.hit && truth().n == 1);
    v->revision++;
    v->size = 128 << 20;
    order(control, v, "");
    WAIT_FOR(truth().size == 128 << 20);
}

// ---- the agent comes and goes

static void agent_restarts(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    pump();
    agent_down();
    agent_up();
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_TWO));
    OK(plugin_call("VolumeDriver.Unmount", DB_TWO));
    for (int i = 0; i < 50; i++)
        pump();
    assert_int_equal(truth().mounted, 1);
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":1"));
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
}

// The agent died in the middle of a Mount: nobody will ever say whether its answer was taken.
static void agent_that_died_while_mounting(void **state)
{
    (void)state;
    char path[200];
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    pump();
    agent_down();
    struct truth t = { 0 };
    struct error e = ERROR_INIT;
    const struct backend_config pool = { .path = "/pool" };
    assert_int_equal(backend_memory.open(&pool, &fault.inner, &e), 0);
    t = truth();
    backend_memory.close(fault.inner);
    snprintf(path, sizeof path, "%s/%s.json", host.refs, UUID_TEXT(&t.ids[0]));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "[{\"id\":\"one\",\"pid\":%d,\"start\":%llu,\"count\":0,\"open\":1,\"opened_ms\":%lld}]", (int)getpid(),
            (unsigned long long)agent_engine(getpid()).start, (long long)(clock_boot_ms() - REFS_OPEN_GRACE_MS + 1500));
    fclose(f);
    agent_up();
    WAIT_FOR(agent_is_open(host.agent));
    assert_int_equal(truth().mounted, 1);
    WAIT_FOR(truth().mounted == 0);
}

static void agent_restarts_without_control(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    agent_down();
    control_down();
    agent_up();
    WAIT_FOR(agent_is_open(host.agent));
    OK(plugin_call("VolumeDriver.Get", DB));
    OK(plugin_call("VolumeDriver.Mount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
}

// ---- engines

static void answers_that_nobody_takes(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    close(plugin_start("VolumeDriver.Mount", DB_ONE));
    for (int i = 0; i < 50; i++)
        pump();
    WAIT_FOR(truth().mounted == 0);
    assert_non_null(strstr(plugin_call("VolumeDriver.Get", DB).body, "\"references\":0"));
}

// A Mount by another engine process, which is this one's child.
static pid_t engine_that_mounts(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c[512];
        int fd = call_start(host.plugin_path, "POST /VolumeDriver.Mount HTTP/1.1", DB_TWO);
        while (recv(fd, c, sizeof c, 0) > 0)
            ;
        (void)!write(ends[1], "x", 1);
        pause();
        _exit(0);
    }
    char c;
    struct pollfd p = { ends[0], POLLIN, 0 };
    while (poll(&p, 1, 0) == 0)
        pump();
    assert_int_equal(read(ends[0], &c, 1), 1);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static void engine_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void engine_that_dies(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(plugin_call("VolumeDriver.Create", DB));
    pid_t engine = engine_that_mounts();
    REFUSED(plugin_call("VolumeDriver.Remove", DB), "volume db is in use by an engine");
    engine_end(engine);
    OK(plugin_call("VolumeDriver.Mount", DB_ONE)); // a reason to look at what the dead one left
    OK(plugin_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    engine = engine_that_mounts();
    engine_end(engine);
    OK(plugin_call("VolumeDriver.Remove", DB));
    assert_int_equal(truth().mounted, 0);
}

static void podman_beside_docker(void **state)
{
    (void)state;
    control_up();
    agent_up();
    OK(podman_call("VolumeDriver.Create", DB));
    OK(podman_call("VolumeDriver.Mount", DB_ONE));
    OK(podman_call("VolumeDriver.Mount", DB_ONE));
    REFUSED(plugin_call("VolumeDriver.Remove", DB), "in use");
    OK(podman_call("VolumeDriver.Unmount", DB_ONE));
    assert_int_equal(truth().mounted, 1);
    OK(podman_call("VolumeDriver.Unmount", DB_ONE));
    WAIT_FOR(truth().mounted == 0);
    OK(plugin_call("VolumeDriver.Remove", DB));
}

static void calls_at_once(void **state)
{
    (void)state;
    enum { N = 12 };
    int fds[N];
    control_up();
    agent_up();
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start("VolumeDriver.Create", DB);
    for (int i = 0; i < N; i++)
        OK(call_end(fds[i]));
    assert_int_equal(truth().n, 1);
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start("VolumeDriver.Mount", i & 1 ? DB_ONE : DB_TWO);
    for (int i = 0; i < N; i++)
        OK(call_end(fds[i]));
    for (int i = 0; i < N; i++) {
        assert_int_equal(truth().mounted, 1);
        OK(plugin_call("VolumeDriver.Unmount", i & 1 ? DB_ONE : DB_TWO));
    }
    WAIT_FOR(truth().mounted == 0);
    for (int i = 0; i < N; i++)
        fds[i] = plugin_start(i & 1 ? "VolumeDriver.Remove" : "VolumeDriver.Mount", DB_ONE);
    for (int i = 0; i < N; i++) {
        struct answer a = call_end(fds[i]);
        assert_true(a.status == 200 || strstr(a.body, "db"));
    }
}

// ---- whatever fails, it heals

// As an engine and its user do: again, until it works. Each refusal must say which volume it is about.
static void persist(const char *call, const char *body)
{
    char id[UUID_TEXT_SIZE] = "none";
    struct truth t = truth();
    if (t.n)
        uuid_format(&t.ids[0], id);
    for (int tries = 0; tries < 5; tries++) {
        struct answer a = plugin_call(call, body);
        if (a.status == 200)
            return;
        if (a.status != 500 || (!strstr(a.body, "of volume ") && !strstr(a.body, "db") && !strstr(a.body, "pool")))
            fail_msg("%s: %d %s", call, a.status, a.body);
    }
    fail_msg("%s never works again", call);
}

static void one_life(void)
{
    control_up();
    agent_up();
    persist("VolumeDriver.Create", DB);
    assert_true(truth().n > 0);
    if (plugin_call("VolumeDriver.Mount", DB_ONE).status == 200)
        persist("VolumeDriver.Unmount", DB_ONE);
    WAIT_FOR(truth().mounted == 0); // also what was refused, and was done all the same
    persist("VolumeDriver.Mount", DB_ONE);
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Mount", DB_TWO);
    persist("VolumeDriver.Unmount", DB_TWO);
    assert_int_equal(truth().mounted, 1);
    OK(rest("PATCH /v2/volumes/db", "{\"size\":\"128M\"}"));
    WAIT_FOR(truth().size == 128 << 20);
    persist("VolumeDriver.Unmount", DB_ONE);
    persist("VolumeDriver.Mount", DB_ONE); // at once: the unmount may be under way, or have failed
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Unmount", DB_ONE);
    WAIT_FOR(truth().mounted == 0);
    OK(rest("POST /v2/volumes?wait=5", "{\"name\":\"other\"}"));
    WAIT_FOR(truth().n >= 2);
    persist("VolumeDriver.Remove", DB);
    assert_int_equal(truth().mounted, 0);
    OK(rest("DELETE /v2/volumes/db?purge=1", ""));
    WAIT_FOR(strstr(rest("GET /v2/volumes?all=1", "").body, "\"db\"") == NULL);
    agent_down();
    agent_up();
    WAIT_FOR(plugin_call("VolumeDriver.Get", "{\"Name\":\"other\"}").status == 200);
    persist("VolumeDriver.Mount", "{\"Name\":\"other\",\"ID\":\"x\"}");
    assert_int_equal(truth().mounted, 1);
    persist("VolumeDriver.Unmount", "{\"Name\":\"other\",\"ID\":\"x\"}");
    WAIT_FOR(truth().mounted == 0);
}

static void sweep(int times, bool after)
{
    void *state = NULL;
    bool hit = true;
    long n;
    for (n = 1; hit; n++) {
        if (n > 1) {
            host_end(&state);
            host_new(&state);
        }
        fault_arm(n, times, after);
        one_life();
        hit = fault.hit;
        WAIT_FOR(truth().n == 1); // "other": nothing is left of what could not be made
    }
    print_message("each of %ld operations was made to fail %s its effect, %d in a row\n", n - 2, after ? "after" : "before", times);
    assert_true(n > 10);
    void *again = NULL;
    host_end(&again);
    host_new(&again);
}

static void operations_fail_before_their_effect(void **state)
{
    (void)state;
    sweep(1, false);
    sweep(2, false);
}

static void operations_fail_after_their_effect(void **state)
{
    (void)state;
    sweep(1, true);
    sweep(2, true);
}

int main(void)
{
    if (!getenv("FLOCKER_LOG"))
        setenv("FLOCKER_LOG", "error", 1);
    log_open("test");
#define CASE(name) cmocka_unit_test_setup_teardown(name, host_new, host_end)
    static const struct CMUnitTest tests[] = {
        CASE(life),
        CASE(v1_clients_find_it_mounted),
        CASE(ids_up_to_the_largest),
        CASE(workers_that_say_odd_things),
        CASE(parts_of_an_answer_have_no_limit),
        CASE(a_large_pool_is_opened),
        CASE(nobody_fetches_from_memory),
        CASE(control_is_late),
        CASE(without_control),
        CASE(control_is_gone_and_back),
        CASE(control_that_forgot),
        CASE(a_broken_connection_goes_on),
        CASE(a_lost_order_is_given_again),
        CASE(a_lost_report_is_made_again),
        CASE(a_lost_report_of_an_end_is_made_again),
        CASE(what_was_never_made_is_purged),
        CASE(control_that_was_restarted_is_told_all),
        CASE(reports_wait_for_a_slow_control),
        CASE(failed_create_is_gone_when_it_is_answered),
        CASE(failed_create_that_is_forgotten),
        CASE(failed_create_while_control_goes),
        CASE(failed_create_while_control_is_slow),
        CASE(made_by_an_earlier_order),
        CASE(agent_restarts),
        CASE(agent_that_died_while_mounting),
        CASE(agent_restarts_without_control),
        CASE(answers_that_nobody_takes),
        CASE(engine_that_dies),
        CASE(podman_beside_docker),
        CASE(calls_at_once),
        CASE(operations_fail_before_their_effect),
        CASE(operations_fail_after_their_effect),
    };
    return RUN_TESTS(tests);
}
