// Creates that fail: what is made, told and forgotten, with this test as the control service.
#include "agent_rig.h"

#include "base/limits.h"

#include <jansson.h>

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(failed_create_is_gone_when_it_is_answered),
        CASE(failed_create_that_is_forgotten),
        CASE(failed_create_while_control_goes),
        CASE(failed_create_while_control_is_slow),
        CASE(made_by_an_earlier_order),
    };
    host_log();
    return RUN_TESTS(tests);
}
