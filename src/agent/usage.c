// How much a volume holds and who uses it, found out by a worker when somebody asks.
#include "agent/internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/json.h"
#include "sys/users.h"

#include <event2/event.h>

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

// ---- users

struct naming {
    struct agent *agent;
    struct uuid id;
    void (*done)(void *arg, const char *user);
    void *arg;
};

static int run_users(void *ctx, json_t *result, struct error *e)
{
    const struct naming *n = ctx;
    struct users_entry user;
    char text[USERS_TEXT_SIZE];
    int found = n->agent->backend->ops->users(n->agent->backend, &n->id, &user, 1, e);
    if (found <= 0)
        return found;
    json_object_set_new(result, "user", json_text(users_text(&user, text)));
    return 0;
}

static void on_users(void *arg, int rc, json_t *result, const struct error *e)
{
    struct naming *n = arg;
    const char *user = json_string_value(json_object_get(result, "user"));
    (void)rc;
    (void)e;
    n->done(n->arg, user ? user : "an engine of this node that has it mounted");
    free(n);
}

void usage_name_user(struct agent *a, const struct uuid *id, void (*done)(void *arg, const char *user), void *arg)
{
    struct naming *n = xcalloc(1, sizeof *n);
    *n = (struct naming){ a, *id, done, arg };
    const struct worker_task task = { .what = "look for users", .run = run_users, .ctx = n, .done = on_users, .arg = n };
    worker_start(a->workers, &task);
}

// ---- audit: in a volume a user can make subvolumes that count for no limit; to measure the volume is to find them and put them under
// its own (backend/btrfs_volume.c). Only what is mounted can change, and an agent without mounted volumes sleeps.

#define AUDIT_S 60

struct audit {
    struct agent *agent;
    size_t n;
    struct uuid *ids;
};

static int run_audit(void *ctx, json_t *result, struct error *e)
{
    const struct audit *u = ctx;
    struct backend_usage ignored;
    (void)result;
    int first = 0;
    for (size_t i = 0; i < u->n; i++) {
        struct error one = ERROR_INIT;
        int rc = u->agent->backend->ops->usage(u->agent->backend, &u->ids[i], &ignored, &one);
        if (rc < 0 && first == 0) {
            first = rc;
            *e = one;
        }
    }
    return first;
}

static void on_audited(void *arg, int rc, json_t *result, const struct error *e)
{
    struct audit *u = arg;
    (void)result;
    if (rc < 0)
        log_warn("volumes could not be measured: %s", e->msg);
    usage_audit_soon(u->agent);
    free(u->ids);
    free(u);
}

static void add_mounted(struct agent_volume *v, void *arg)
{
    struct audit *u = arg;
    if (!v->mounted)
        return;
    u->ids = xrealloc(u->ids, u->n + 1, sizeof *u->ids);
    u->ids[u->n++] = v->id;
}

void usage_audit(struct agent *a)
{
    struct audit *u = xcalloc(1, sizeof *u);
    u->agent = a;
    agent_for_each(a, add_mounted, u);
    if (u->n == 0) {
        free(u);
        return;
    }
    const struct worker_task task = { .what = "measure volumes", .run = run_audit, .ctx = u, .done = on_audited, .arg = u };
    worker_start(a->workers, &task);
}

void usage_audit_soon(struct agent *a)
{
    const struct timeval delay = { AUDIT_S, 0 };
    if (!evtimer_pending(a->audit, NULL))
        evtimer_add(a->audit, &delay);
}
