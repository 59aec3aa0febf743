// The connection between agent and control: it breaks, loses what was under way, and control reads slowly.
#include "agent_rig.h"

#include <jansson.h>

// ---- a wire between agent and control that can be cut, and lose what was under way

enum { TO_CONTROL, TO_AGENT };

static struct {
    char door[96];              // where control listens; "": there is no wire
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
    host.door = wire.door;
    host.on_pump = wire_turn;
}

static int wire_end(void **state)
{
    host_end(state);
    if (!wire.door[0])
        return 0;
    wire_cut();
    close(wire.listener);
    memset(&wire, 0, sizeof wire);
    return 0;
}

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

int main(void)
{
#define WIRE_CASE(name) cmocka_unit_test_setup_teardown(name, host_new, wire_end)
    static const struct CMUnitTest tests[] = {
        WIRE_CASE(a_broken_connection_goes_on),
        WIRE_CASE(a_lost_order_is_given_again),
        WIRE_CASE(a_lost_report_is_made_again),
        WIRE_CASE(a_lost_report_of_an_end_is_made_again),
        WIRE_CASE(what_was_never_made_is_purged),
        WIRE_CASE(control_that_was_restarted_is_told_all),
        WIRE_CASE(reports_wait_for_a_slow_control),
    };
    host_log();
    return RUN_TESTS(tests);
}
