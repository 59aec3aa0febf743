// Workers that say odd things, or much.
#include "agent_rig.h"

#include "agent/worker.h"
#include "base/limits.h"

#include <jansson.h>

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(workers_that_say_odd_things),
        CASE(parts_of_an_answer_have_no_limit),
    };
    host_log();
    return RUN_TESTS(tests);
}
