// How much a volume holds, measured by a worker when somebody asks.
#include "agent/internal.h"

#include "base/mem.h"

struct measuring {
    struct agent *agent;
    struct uuid id;
    void (*done)(void *arg, int rc, uint64_t used, const struct error *e);
    void *arg;
};

static int run(void *ctx, json_t *result, struct error *e)
{
    const struct measuring *m = ctx;
    struct backend_usage u = { 0, 0 };
    int rc = m->agent->backend->ops->usage(m->agent->backend, &m->id, &u, e);
    json_object_set_new(result, "used", json_integer((json_int_t)u.used_bytes));
    return rc;
}

static void on_measured(void *arg, int rc, json_t *result, const struct error *e)
{
    struct measuring *m = arg;
    m->done(m->arg, rc, rc < 0 ? 0 : (uint64_t)json_integer_value(json_object_get(result, "used")), e);
    free(m);
}

void usage_measure(struct agent *a, const struct uuid *id, void (*done)(void *arg, int rc, uint64_t used, const struct error *e), void *arg)
{
    struct error e = ERROR_INIT;
    const struct agent_volume *v = agent_volume(a, id);
    if (!a->backend || !v || !v->record) {
        int rc = fail(&e, E_UNAVAILABLE, "the volume has no data on this node yet");
        done(arg, rc, 0, &e);
        return;
    }
    struct measuring *m = xcalloc(1, sizeof *m);
    *m = (struct measuring){ a, *id, done, arg };
    const struct worker_task task = { .what = "measure a volume", .run = run, .ctx = m, .done = on_measured, .arg = m };
    worker_start(a->workers, &task);
}
