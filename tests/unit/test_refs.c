// References: the rules one by one, and a model of engines that behave as they were recorded to, against the truth of who has the volume.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "plan/refs.h"

#include <stdio.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static const struct engine one = { 10, 100 }, two = { 20, 200 }, podman = { 0, 0 };
static struct engine living[2];

static bool is_dead(struct engine engine)
{
    return !engine_equal(engine, living[0]) && !engine_equal(engine, living[1]);
}

static void mount(struct refs *r, const char *id, struct engine engine)
{
    struct error e = ERROR_INIT;
    assert_int_equal(refs_open(r, id, engine, 0, &e), 0);
    refs_settle(r, id, engine, true);
}

// ---- one by one -----------------------------------------------------------------------------------------------------------------

static void counts_by_id_and_engine(void **state)
{
    (void)state;
    struct refs r = { 0, NULL };
    mount(&r, "x", one);
    mount(&r, "x", one); // docker cp
    mount(&r, "x", two);
    mount(&r, "y", one);
    assert_int_equal(refs_total(&r), 4);
    assert_int_equal(r.n, 3);
    assert_true(refs_release(&r, "x", two));
    assert_true(refs_release(&r, "x", two)); // its own is used up: another process's of that ID
    assert_int_equal(refs_total(&r), 2);
    assert_false(refs_release(&r, "z", one));
    assert_true(refs_release(&r, "x", one));
    assert_false(refs_release(&r, "x", one));
    assert_true(refs_release(&r, "y", two));
    assert_int_equal(refs_total(&r), 0);
    assert_int_equal(r.n, 0);
    refs_done(&r);
}

static void lost_answers(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL };
    assert_int_equal(refs_open(&r, "x", one, 5, &e), 0);
    assert_int_equal(refs_total(&r), 1); // it may be used at any time
    refs_settle(&r, "x", one, false);
    assert_int_equal(refs_total(&r), 0);
    refs_settle(&r, "x", one, true); // nothing is open
    assert_int_equal(refs_total(&r), 0);
    assert_int_equal(refs_open(&r, "x", one, 5, &e), 0);
    assert_true(refs_release(&r, "x", one)); // an Unmount quicker than our knowledge
    refs_settle(&r, "x", one, true);
    assert_int_equal(refs_total(&r), 0);
    mount(&r, "x", one);
    refs_settle(&r, "x", one, false);
    assert_int_equal(refs_total(&r), 1);
    refs_done(&r);
}

static void reaping(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    const int64_t late = REFS_OPEN_GRACE_MS + 1;
    living[0] = living[1] = one;
    struct refs r = { 0, NULL };
    mount(&r, "x", one);
    mount(&r, "y", podman);
    assert_false(refs_has_doubtful(&r, is_dead, REFS_OPEN_GRACE_MS));
    assert_false(refs_reap(&r, is_dead, REFS_OPEN_GRACE_MS));
    mount(&r, "z", two);
    assert_true(refs_has_doubtful(&r, is_dead, 0));
    assert_true(refs_reap(&r, is_dead, 0));
    assert_int_equal(refs_total(&r), 2); // Podman has no process that could be dead
    assert_int_equal(refs_open(&r, "x", one, 0, &e), 0);
    assert_false(refs_has_doubtful(&r, is_dead, REFS_OPEN_GRACE_MS));
    assert_true(refs_has_doubtful(&r, is_dead, late));
    assert_false(refs_reap(&r, is_dead, REFS_OPEN_GRACE_MS));
    assert_int_equal(refs_total(&r), 3);
    assert_true(refs_has_doubtful(&r, is_dead, late)); // what Podman was given long ago, too
    assert_true(refs_reap(&r, is_dead, late));
    assert_int_equal(refs_total(&r), 1); // what its living process was given and has taken
    refs_done(&r);
}

static void fresh_are_those_that_may_be_starting(void **state)
{
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL };
    (void)state;
    living[0] = living[1] = one;
    assert_false(refs_has_fresh(&r, is_dead, 0));
    assert_int_equal(refs_open(&r, "x", two, 1000, &e), 0); // an engine that is dead by now: what it started may live
    assert_true(refs_has_fresh(&r, is_dead, 1000 + REFS_MOMENT_MS - 1));
    assert_false(refs_has_fresh(&r, is_dead, 1000 + REFS_MOMENT_MS));
    refs_settle(&r, "x", two, true);
    assert_false(refs_has_fresh(&r, is_dead, 1000)); // counted for a dead engine: nothing starts any more
    mount(&r, "y", one);
    assert_true(refs_has_fresh(&r, is_dead, INT64_MAX)); // a live one gives back what it has
    refs_done(&r);
}

static void removes_that_references_forbid(void **state)
{
    (void)state;
    struct refs r = { 0, NULL };
    living[0] = one;
    living[1] = two;
    assert_false(refs_forbid_remove(&r, one, is_dead));
    mount(&r, "x", one);
    assert_false(refs_forbid_remove(&r, one, is_dead)); // its own are stale by its word
    assert_true(refs_forbid_remove(&r, two, is_dead));
    living[0] = two;
    assert_false(refs_forbid_remove(&r, two, is_dead)); // a dead engine's
    mount(&r, "x", podman);
    assert_true(refs_forbid_remove(&r, two, is_dead));
    assert_false(refs_forbid_remove(&r, podman, is_dead));
    refs_done(&r);
}

static void limits(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL };
    char id[MOUNT_ID_SIZE];
    memset(id, 'i', sizeof id - 1);
    id[sizeof id - 1] = 0;
    mount(&r, id, one);
    assert_string_equal(r.items[0].id, id);
    for (int i = 1; i < MOUNT_IDS_MAX; i++) {
        snprintf(id, sizeof id, "%d", i);
        mount(&r, id, one);
    }
    assert_int_equal(refs_open(&r, "one more", one, 0, &e), -E_TOO_LARGE);
    assert_int_equal(refs_open(&r, "7", one, 0, &e), 0); // known ones may be repeated
    assert_int_equal(refs_total(&r), MOUNT_IDS_MAX + 1);
    r.items[0].count = r.items[1].count = UINT32_MAX / 2 + 1;
    assert_int_equal(refs_total(&r), UINT32_MAX); // not 0
    refs_done(&r);
}

static void kept_over_restarts(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL }, back = { 0, NULL };
    mount(&r, "x", one);
    mount(&r, "2f73349c", podman);
    assert_int_equal(refs_open(&r, "x", two, 77, &e), 0);
    AUTO(json_decref) json_t *array = refs_to_json(&r);
    assert_int_equal(refs_from_json(array, &back, &e), 0);
    assert_int_equal(back.n, 3);
    for (size_t i = 0; i < back.n; i++) {
        assert_string_equal(back.items[i].id, r.items[i].id);
        assert_true(engine_equal(back.items[i].engine, r.items[i].engine));
        assert_int_equal(back.items[i].count, r.items[i].count);
        assert_int_equal(back.items[i].open, r.items[i].open);
        assert_int_equal(back.items[i].opened_ms, r.items[i].opened_ms);
    }
    refs_done(&r);
    refs_done(&back);
}

static void damage_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *member, *bad[4];
    } cases[] = {
        { "id", { "1", "null" } }, { "pid", { "-1", "2147483648", "\"1\"" } }, { "start", { "null", "1.5" } }, { "count", { "-1", "4294967296", "[]" } },
        { "open", { "-1", "2147483648" } }, { "opened_ms", { "-1", "-9223372036854775808", "true" } },
    };
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL }, back = { 0, NULL };
    mount(&r, "ok", two);
    mount(&r, "x", one);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (size_t j = 0; cases[i].bad[j] && j < 4; j++) {
            AUTO(json_decref) json_t *array = refs_to_json(&r);
            json_t *item = json_array_get(array, 1);
            json_object_set_new(item, cases[i].member, json_loads(cases[i].bad[j], JSON_DECODE_ANY, NULL));
            assert_int_equal(refs_from_json(array, &back, &e), -E_CORRUPT);
            json_object_del(item, cases[i].member);
            assert_int_equal(refs_from_json(array, &back, &e), -E_CORRUPT);
        }
    char longer[MOUNT_ID_SIZE + 1];
    memset(longer, 'i', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    AUTO(json_decref) json_t *array = refs_to_json(&r);
    json_object_set_new(json_array_get(array, 0), "id", json_string(longer));
    assert_int_equal(refs_from_json(array, &back, &e), -E_CORRUPT);
    AUTO(json_decref) json_t *many = json_array(), *object = json_object();
    for (int i = 0; i <= MOUNT_IDS_MAX; i++)
        json_array_append_new(many, json_object());
    assert_int_equal(refs_from_json(many, &back, &e), -E_CORRUPT);
    assert_int_equal(refs_from_json(object, &back, &e), -E_CORRUPT);
    assert_int_equal(refs_from_json(NULL, &back, &e), -E_CORRUPT);
    assert_int_equal(back.n, 0);
    refs_done(&r);
}

// ---- the model ------------------------------------------------------------------------------------------------------------------
//
// A dockerd with containers, Podman beside it, and an agent that may restart; what they do is taken from recordings.
// The truth is who has the volume: the references must never be fewer.

enum { CONTAINERS = 4, PODS = 3, STEPS = 120, SEEDS = 4000 };

struct container {
    bool running; // its mount namespace shows the volume
    bool copying; // a docker cp is under way
    int id;       // of its mount point, as on dockerd's disk; 0: none
    int counter;  // in dockerd's memory
};

struct model {
    uint64_t seed, random;
    struct refs refs;
    int64_t now_ms;
    struct engine docker;
    bool up;           // dockerd runs
    bool live_restore; // containers outlive it
    bool old;          // 20.10.24: forgets its counter over a restart, and sends an Unmount all the same
    int last_id;
    struct container containers[CONTAINERS];
    bool pods[PODS];
    bool lossy;           // something was lost: the count may stay too high until engines end
    uint32_t podman_lost; // what can never be known to be stale, as no process stands for it
    struct {
        char id[16];
        struct engine engine;
        bool taken;
    } unsettled[4];
    size_t unsettled_n;
    char trace[STEPS * 24];
};

#define PODMAN_ID "2f73349c"

static uint32_t below(struct model *m, uint32_t n)
{
    m->random = m->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(m->random >> 33) % n;
}

static void note(struct model *m, const char *what, int i)
{
    size_t n = strlen(m->trace);
    snprintf(m->trace + n, sizeof m->trace - n, "%s%d ", what, i);
}

#define MODEL_CHECK(m, x)                                                                   \
    do {                                                                                    \
        if (!(x))                                                                           \
            fail_msg("seed %llu: not so: %s after: %s", (unsigned long long)(m)->seed, #x, (m)->trace); \
    } while (0)

static void settle_all(struct model *m)
{
    if (m->unsettled_n)
        note(m, "settle", (int)m->unsettled_n);
    for (size_t i = 0; i < m->unsettled_n; i++)
        refs_settle(&m->refs, m->unsettled[i].id, m->unsettled[i].engine, m->unsettled[i].taken);
    m->unsettled_n = 0;
}

static void agent_restart(struct model *m)
{
    struct error e = ERROR_INIT;
    AUTO(json_decref) json_t *array = refs_to_json(&m->refs);
    if (m->unsettled_n) {
        m->lossy = true; // nobody will settle these any more
        for (size_t i = 0; i < m->unsettled_n; i++)
            m->podman_lost += m->unsettled[i].engine.pid == 0;
    }
    m->unsettled_n = 0;
    refs_done(&m->refs);
    MODEL_CHECK(m, refs_from_json(array, &m->refs, &e) == 0);
}

// A Mount; false if the engine did not get the answer. The agent learns of either now, later, or, if it restarts first, never.
static bool send_mount(struct model *m, const char *id, struct engine engine)
{
    struct error e = ERROR_INIT;
    bool taken = below(m, 8) != 0;
    MODEL_CHECK(m, refs_open(&m->refs, id, engine, m->now_ms, &e) == 0);
    if (below(m, 4) || m->unsettled_n == ARRAY_SIZE(m->unsettled))
        refs_settle(&m->refs, id, engine, taken);
    else {
        note(m, "unsettled", taken);
        snprintf(m->unsettled[m->unsettled_n].id, sizeof m->unsettled[0].id, "%s", id);
        m->unsettled[m->unsettled_n].engine = engine;
        m->unsettled[m->unsettled_n++].taken = taken;
    }
    if (!taken)
        note(m, "lost", 0);
    return taken;
}

// An Unmount. If it overtakes what the agent learns of an earlier Mount's answer, the count may stay too high by one.
static void send_unmount(struct model *m, const char *id, struct engine engine)
{
    for (size_t i = 0; i < m->unsettled_n; i++)
        if (strcmp(m->unsettled[i].id, id) == 0 && engine_equal(m->unsettled[i].engine, engine)) {
            m->lossy = true;
            m->podman_lost += engine.pid == 0;
        }
    refs_release(&m->refs, id, engine);
}

static const char *id_text(int id, char ret[16])
{
    snprintf(ret, 16, "id%d", id);
    return ret;
}

static bool docker_mount(struct model *m, struct container *c)
{
    char text[16];
    if (!c->id)
        c->id = ++m->last_id;
    bool taken = send_mount(m, id_text(c->id, text), m->docker);
    if (taken)
        c->counter++;
    else if (c->counter == 0 && !c->running)
        c->id = 0;
    return taken;
}

static void docker_unmount(struct model *m, struct container *c)
{
    char text[16];
    if (!c->id)
        return;
    if (c->counter || m->old)
        send_unmount(m, id_text(c->id, text), m->docker);
    if (c->counter)
        c->counter--;
    if (c->counter == 0)
        c->id = 0;
}

static void docker_start(struct model *m, int i)
{
    struct container *c = &m->containers[i];
    if (c->running || c->copying)
        return;
    note(m, "start", i);
    c->running = docker_mount(m, c);
}

static void docker_copied(struct model *m, int i)
{
    struct container *c = &m->containers[i];
    if (!c->copying)
        return;
    note(m, "copied", i);
    c->copying = false;
    docker_unmount(m, c);
}

static void docker_stop(struct model *m, int i, bool lost)
{
    struct container *c = &m->containers[i];
    if (!c->running)
        return;
    docker_copied(m, i); // a copy holds the container's lock
    note(m, lost ? "stop-lost" : "stop", i);
    c->running = false;
    if (lost)
        m->lossy = true; // Get had failed: the Unmount is skipped
    else
        docker_unmount(m, c);
}

static void docker_copy(struct model *m, int i, bool fails)
{
    struct container *c = &m->containers[i];
    if (c->copying)
        return;
    note(m, fails ? "cp-fails" : "cp", i);
    if (!docker_mount(m, c))
        return;
    if (fails)
        m->lossy = true; // another volume of the container failed: no Unmount for this one
    else
        c->copying = true;
}

static void docker_up(struct model *m)
{
    note(m, "up", 0);
    m->docker = living[0] = (struct engine){ m->docker.pid + 1, m->docker.start + 7 };
    m->up = true;
    for (int i = 0; i < CONTAINERS; i++) {
        struct container *c = &m->containers[i];
        c->running &= m->live_restore; // else what it finds running is killed, without an Unmount
        c->counter = c->running && !m->old;
    }
}

static void docker_kill(struct model *m)
{
    note(m, "kill", 0);
    m->lossy = true;
    m->up = false;
    living[0] = podman;
    for (int i = 0; i < CONTAINERS; i++) {
        m->containers[i].copying = false;
        m->containers[i].counter = 0;
    }
}

static void docker_restart(struct model *m)
{
    for (int i = 0; i < CONTAINERS; i++) {
        docker_copied(m, i);
        if (!m->live_restore)
            docker_stop(m, i, false);
    }
    docker_kill(m);
    docker_up(m);
}

static void podman_step(struct model *m, int i)
{
    note(m, m->pods[i] ? "pod-stop" : "pod-start", i);
    if (!m->pods[i]) {
        m->pods[i] = send_mount(m, PODMAN_ID, podman);
        return;
    }
    m->pods[i] = false;
    if (below(m, 6))
        send_unmount(m, PODMAN_ID, podman);
    else {
        m->lossy = true;
        m->podman_lost++;
    }
}

static bool in_use(const struct model *m)
{
    bool any = false;
    for (int i = 0; i < CONTAINERS; i++)
        any |= m->containers[i].running;
    for (int i = 0; i < PODS; i++)
        any |= m->pods[i];
    return any;
}

static void reap(struct model *m)
{
    uint32_t before = refs_total(&m->refs);
    bool used = in_use(m), doubtful = refs_has_doubtful(&m->refs, is_dead, m->now_ms);
    bool changed = !used && refs_reap(&m->refs, is_dead, m->now_ms);
    note(m, "reap", changed);
    MODEL_CHECK(m, !changed || doubtful);
    MODEL_CHECK(m, !used || refs_total(&m->refs) == before);
    MODEL_CHECK(m, refs_total(&m->refs) <= before);
}

// Time passes: answers are settled and copies end long before an open reference counts as lost.
static void pass(struct model *m)
{
    settle_all(m);
    for (int i = 0; i < CONTAINERS; i++)
        docker_copied(m, i);
    m->now_ms += 1 + below(m, 2 * REFS_OPEN_GRACE_MS);
    note(m, "pass", 0);
}

static uint32_t references_of(const struct model *m, const char *id)
{
    uint32_t n = 0;
    for (size_t i = 0; i < m->refs.n; i++)
        if (strcmp(m->refs.items[i].id, id) == 0)
            n += m->refs.items[i].count + m->refs.items[i].open;
    return n;
}

static uint32_t unsettled_lost(const struct model *m)
{
    uint32_t n = 0;
    for (size_t i = 0; i < m->unsettled_n; i++)
        n += !m->unsettled[i].taken;
    return n;
}

static void check_truth(struct model *m)
{
    char text[16];
    uint32_t users = 0, pods = 0;
    for (int i = 0; i < CONTAINERS; i++) {
        const struct container *c = &m->containers[i];
        uint32_t n = (uint32_t)c->running + c->copying;
        users += n;
        if (c->id) // 20.10.24 may have forgotten it while the container runs: then it counts under the ID from before
            MODEL_CHECK(m, references_of(m, id_text(c->id, text)) >= n - (m->old && c->running));
    }
    for (int i = 0; i < PODS; i++)
        pods += m->pods[i];
    MODEL_CHECK(m, references_of(m, PODMAN_ID) >= pods);
    MODEL_CHECK(m, refs_total(&m->refs) >= users + pods);
    MODEL_CHECK(m, m->lossy || refs_total(&m->refs) == users + pods + unsettled_lost(m));
}

static void one_step(struct model *m)
{
    int i = (int)below(m, CONTAINERS);
    switch (below(m, m->up ? 16 : 5)) {
    case 0:
        pass(m);
        break;
    case 1:
        reap(m);
        break;
    case 2:
        note(m, "agent", 0);
        agent_restart(m);
        break;
    case 3:
        podman_step(m, (int)below(m, PODS));
        break;
    case 4:
        if (m->up && below(m, 3) == 0)
            docker_kill(m);
        else if (m->up && below(m, 3) == 0)
            docker_restart(m);
        else if (!m->up)
            docker_up(m);
        break;
    case 5:
        docker_copy(m, i, below(m, 4) == 0);
        break;
    case 6:
    case 7:
        docker_copied(m, i);
        break;
    case 8:
        settle_all(m);
        break;
    case 9:
    case 10:
    case 11:
        docker_stop(m, i, below(m, 10) == 0);
        break;
    default:
        docker_start(m, i);
    }
}

// Everything ends. With engines that lost nothing the references are gone then and there; else when their processes are.
static void end(struct model *m)
{
    settle_all(m);
    for (int i = 0; i < CONTAINERS; i++) {
        if (m->up)
            docker_copied(m, i);
        if (m->up)
            docker_stop(m, i, false);
        m->containers[i].running = m->containers[i].copying = false;
    }
    for (int i = 0; i < PODS; i++)
        if (m->pods[i])
            refs_release(&m->refs, PODMAN_ID, podman);
    memset(m->pods, 0, sizeof m->pods);
    MODEL_CHECK(m, m->lossy || refs_total(&m->refs) == 0);
    living[0] = podman;
    m->now_ms += 2 * REFS_OPEN_GRACE_MS;
    reap(m);
    MODEL_CHECK(m, !refs_has_doubtful(&m->refs, is_dead, m->now_ms));
    MODEL_CHECK(m, refs_total(&m->refs) == references_of(m, PODMAN_ID) && refs_total(&m->refs) <= m->podman_lost);
    refs_done(&m->refs);
}

static void never_fewer_than_users(void **state)
{
    (void)state;
    static struct model m;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        m = (struct model){ .seed = seed, .random = seed, .docker = one, .up = true, .live_restore = seed & 1, .old = seed >> 1 & 1 };
        living[0] = living[1] = one;
        living[1] = podman;
        for (int step = 0; step < STEPS; step++) {
            one_step(&m);
            check_truth(&m);
        }
        end(&m);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_by_id_and_engine), cmocka_unit_test(lost_answers),
        cmocka_unit_test(reaping),                 cmocka_unit_test(fresh_are_those_that_may_be_starting),
        cmocka_unit_test(removes_that_references_forbid),
        cmocka_unit_test(limits),                  cmocka_unit_test(kept_over_restarts),
        cmocka_unit_test(damage_is_told),          cmocka_unit_test(never_fewer_than_users),
    };
    return RUN_TESTS(tests);
}
