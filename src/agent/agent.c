#include "agent/internal.h"

#include "base/failpoint.h"
#include "base/mem.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/stat.h>

static int compare(const void *a, const void *b)
{
    return uuid_compare(a, b);
}

struct agent_volume *agent_volume(const struct agent *a, const struct uuid *id)
{
    void *node = tfind(id, &a->table, compare);
    return node ? *(struct agent_volume **)node : NULL;
}

struct agent_volume *agent_volume_add(struct agent *a, const struct uuid *id)
{
    struct agent_volume *v = agent_volume(a, id);
    if (v)
        return v;
    v = xcalloc(1, sizeof *v);
    v->id = *id;
    v->agent = a;
    ASSERT(tsearch(v, &a->table, compare));
    return v;
}

static void volume_done(struct agent_volume *v)
{
    volume_free(v->record);
    volume_free(v->order);
    free(v->unavailable);
    refs_done(&v->refs);
    if (v->linger)
        event_free(v->linger);
    if (v->due)
        event_free(v->due);
    free(v);
}

void agent_volume_drop(struct agent_volume *v)
{
    ASSERT(v->step == STEP_NONE && !v->looking && !v->record);
    if (v->failures)
        LIST_REMOVE(v, failing);
    link_forget_report(v);
    moves_stop_waiting(v);
    tdelete(&v->id, &v->agent->table, compare);
    volume_done(v);
}

struct walk {
    void (*fn)(struct agent_volume *v, void *arg);
    void *arg;
};

static void walk_node(const void *node, VISIT which, void *arg)
{
    const struct walk *w = arg;
    if (which == postorder || which == leaf)
        w->fn(*(struct agent_volume *const *)node, w->arg);
}

void agent_for_each(const struct agent *a, void (*fn)(struct agent_volume *v, void *arg), void *arg)
{
    struct walk w = { fn, arg };
    twalk_r(a->table, walk_node, &w);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    operations_turn(arg);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    turn_failing(arg);
}

static void on_reconnect(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    link_connect(arg);
}

static void look_at_volume(struct agent_volume *v, void *arg)
{
    (void)arg;
    turn_look(v);
}

static void on_recheck(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    (void)fd;
    (void)what;
    agent_for_each(a, look_at_volume, NULL);
    engines_recheck_soon(a); // what was busy is looked at next time
    inventory_tell_pool(a);
}

static void on_audit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    usage_audit(arg);
}

int agent_new(const struct agent_config *config, struct agent **ret, struct error *e)
{
    mkdir(config->refs_dir, 0700);
    int refs_fd = open(config->refs_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (refs_fd < 0)
        return fail_os(e, errno, "open %s", config->refs_dir);
    struct agent *a = xcalloc(1, sizeof *a);
    a->config = *config;
    a->refs_fd = refs_fd;
    TAILQ_INIT(&a->due_reports);
    a->workers = workers_new(config->base, config->backend->in_process);
    a->containers = containers_new(a);
    a->link_workers = workers_new(config->base, false);
    a->reconnect = evtimer_new(config->base, on_reconnect, a);
    a->retry = evtimer_new(config->base, on_retry, a);
    a->turn = evtimer_new(config->base, on_turn, a);
    a->recheck = evtimer_new(config->base, on_recheck, a);
    a->reopen = evtimer_new(config->base, opening_on_time, a);
    a->audit = evtimer_new(config->base, on_audit, a);
    int rc = peers_init(a, e);
    if (rc < 0) {
        agent_free(a);
        return rc;
    }
    renew_init(a);
    const struct timeval now = { 0, 0 };
    evtimer_add(a->reopen, &now);
    *ret = a;
    return 0;
}

static void free_node(void *node)
{
    volume_done(node);
}

void agent_free(struct agent *a)
{
    if (!a)
        return;
    workers_free(a->workers);
    containers_free(a->containers);
    peers_free(a);
    workers_free(a->link_workers);
    operations_free(a);
    link_free(a);
    engines_free(a);
    renew_free(a);
    if (a->tell_pool)
        event_free(a->tell_pool);
    tdestroy(a->table, free_node);
    volume_set_done(&a->wants);
    struct event *events[] = { a->reconnect, a->retry, a->turn, a->recheck, a->reopen, a->audit };
    for (size_t i = 0; i < ARRAY_SIZE(events); i++)
        event_free(events[i]);
    if (a->backend)
        a->backend->ops->close(a->backend);
    close(a->refs_fd);
    opening_forget(a);
    free(a->pool_error);
    free(a->link_problem);
    free(a);
}

// ---- what is known

bool agent_is_open(const struct agent *a)
{
    return a->open;
}

bool agent_is_synced(const struct agent *a)
{
    return a->open && a->synced;
}

static void view(const struct agent *a, const struct volume *want, struct agent_view *ret)
{
    const struct agent_volume *v = agent_volume(a, &want->id);
    *ret = (struct agent_view){ .volume = want, .here = uuid_equal(&want->owner, &a->config.node) };
    if (!v)
        return;
    ret->present = v->record != NULL;
    ret->mounted = v->mounted;
    ret->references = refs_total(&v->refs);
    ret->error = v->error.code ? v->error.msg : v->unavailable;
    ret->doing = v->step != STEP_NONE ? step_word(v->step) : NULL;
}

bool agent_find(const struct agent *a, const char *name, struct agent_view *ret)
{
    const struct volume *want = volume_set_find_name(&a->wants, name);
    if (want)
        view(a, want, ret);
    return want != NULL;
}

void agent_each(const struct agent *a, void (*on_volume)(void *arg, const struct agent_view *v), void *arg)
{
    for (size_t i = 0; i < a->wants.names; i++) {
        struct agent_view v;
        view(a, a->wants.by_name[i], &v);
        on_volume(arg, &v);
    }
}

const char *agent_mount_point(const struct agent *a, const struct uuid *id, char ret[4096])
{
    return backend_mount_point(a->config.pool.mount_root, id, ret);
}

// ---- the pool

struct pool_job {
    struct agent *agent;
    uint64_t size;
    agent_pool_done *usage_done;
    agent_done *done;
    void *arg;
};

static int run_usage(void *ctx, json_t *result, struct error *e)
{
    const struct pool_job *j = ctx;
    struct backend_usage u;
    int rc = j->agent->backend->ops->pool_usage(j->agent->backend, &u, e);
    if (rc < 0)
        return rc;
    return json_object_update_new(result, json_pack("{s:I, s:I, s:I, s:b, s:b, s:I, s:I}", "used", (json_int_t)u.used_bytes, "size",
                                                    (json_int_t)u.limit_bytes, "free", (json_int_t)u.free_bytes, "read_only",
                                                    (int)u.is_read_only, "is_file", (int)u.is_file, "may_grow", (json_int_t)u.may_grow_bytes,
                                                    "disk_free", (json_int_t)u.disk_free_bytes));
}

static void on_usage(void *arg, int rc, json_t *result, const struct error *e)
{
    struct pool_job *j = arg;
    struct agent_pool_facts facts = { .backend = j->agent->config.backend->name };
    if (rc == 0)
        facts.usage = (struct backend_usage){
            .used_bytes = (uint64_t)json_integer_value(json_object_get(result, "used")),
            .limit_bytes = (uint64_t)json_integer_value(json_object_get(result, "size")),
            .free_bytes = (uint64_t)json_integer_value(json_object_get(result, "free")),
            .is_read_only = json_is_true(json_object_get(result, "read_only")),
            .is_file = json_is_true(json_object_get(result, "is_file")),
            .may_grow_bytes = (uint64_t)json_integer_value(json_object_get(result, "may_grow")),
            .disk_free_bytes = (uint64_t)json_integer_value(json_object_get(result, "disk_free")),
        };
    j->usage_done(j->arg, rc, &facts, e);
    free(j);
}

static int run_grow(void *ctx, json_t *result, struct error *e)
{
    const struct pool_job *j = ctx;
    (void)result;
    return j->agent->backend->ops->grow(j->agent->backend, j->size, e);
}

static int run_shutdown(void *ctx, json_t *result, struct error *e)
{
    const struct pool_job *j = ctx;
    (void)result;
    return j->agent->backend->ops->shutdown(j->agent->backend, e);
}

static void on_pool_job(void *arg, int rc, json_t *result, const struct error *e)
{
    struct pool_job *j = arg;
    (void)result;
    j->done(j->arg, rc, e);
    free(j);
}

// An agent whose pool is gone is of no use: it ends. One that could not unmount because of a user goes on as before.
static void on_shutdown(void *arg, int rc, json_t *result, const struct error *e)
{
    static const struct timeval soon = { 0, 200000 }; // time for the answer; `flocker down` does not wait for this end
    const struct pool_job *j = arg;
    struct agent *a = j->agent;
    if (rc != -E_BUSY)
        event_base_loopexit(a->config.base, &soon);
    else {
        a->open = true;
        turn_all(a);
        turn_soon(a);
    }
    on_pool_job(arg, rc, result, e);
}

static struct pool_job *pool_job(struct agent *a, void *arg, struct error *e)
{
    if (!a->backend) {
        fail(e, E_UNAVAILABLE, "the pool is not open: %s", a->pool_error ? a->pool_error : "it is being opened");
        return NULL;
    }
    struct pool_job *j = xcalloc(1, sizeof *j);
    j->agent = a;
    j->arg = arg;
    return j;
}

void agent_pool_usage(struct agent *a, agent_pool_done *done, void *arg)
{
    struct error e = ERROR_INIT;
    struct pool_job *j = pool_job(a, arg, &e);
    if (!j) {
        done(arg, -(int)e.code, NULL, &e);
        return;
    }
    j->usage_done = done;
    const struct worker_task task = { .what = "measure the pool", .run = run_usage, .ctx = j, .done = on_usage, .arg = j };
    worker_start(a->workers, &task);
}

static void start_pool_job(struct agent *a, const char *what, worker_fn *run, worker_done *on_done, uint64_t size, agent_done *done, void *arg)
{
    struct error e = ERROR_INIT;
    struct pool_job *j = pool_job(a, arg, &e);
    if (!j) {
        done(arg, -(int)e.code, &e);
        return;
    }
    j->size = size;
    j->done = done;
    const struct worker_task task = { .what = what, .run = run, .ctx = j, .done = on_done, .arg = j };
    worker_start(a->workers, &task);
}

void agent_pool_grow(struct agent *a, uint64_t size, agent_done *done, void *arg)
{
    start_pool_job(a, "grow the pool", run_grow, on_pool_job, size, done, arg);
}

void agent_shutdown(struct agent *a, agent_done *done, void *arg)
{
    a->open &= !a->backend; // what was mounted is not to be relied on from now on: calls wait
    start_pool_job(a, "shut the pool down", run_shutdown, on_shutdown, 0, done, arg);
}
