// Containers of API v1: has the engine of this node run what control wants. Everything that is asked of the engine goes through workers of
// their own, so that neither the loop nor a volume ever waits for it; an engine that is away is an error in a report.
#include "agent/internal.h"

#include "agent/docker_api.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "plan/container.h"
#include "sys/atomic_file.h"
#include "sys/process.h"

#include <event2/event.h>
#include <string.h>
#include <unistd.h>

#define KEPT_FILE        "containers.json" // beside the references: it outlives the agent, not the boot
#define KEPT_BYTES_MAX   (1U << 30)
#define RETRY_MS_MIN     500
#define RETRY_MS_MAX     60000
#define AFTER_END_MS     100 // for the engine to notice what the kernel has told us

struct agent_container {
    LIST_ENTRY(agent_container) all;
    struct containers *owner;
    char *name;
    struct container *want;  // NULL: it is to be gone
    struct container_here here;
    struct uuid used;        // the volume that it had, or was to have, last
    char *image;             // as the engine has it
    enum container_step step; // what a worker does; CONTAINER_NONE: nothing
    struct container *order; // what that worker works from
    struct error error;      // of the last attempt
    unsigned failures, ends; // attempts that failed, processes that ended: in a row
    int64_t not_before_ms;   // boot clock: when it is tried again
    int64_t running_ms;      // boot clock: since when it is known to run
    struct event *timer;
    int watch_fd;            // of its first process; -1
    struct event *on_end;
    char *reported;          // what control was told last
};

struct containers {
    struct agent *agent;
    struct workers *workers;
    unsigned jobs, creates;
    json_t *wants;  // {name: container}: what control wants, for an agent that starts while control is away
    json_t *counts; // {name: {"revision", "restarts"}}
    bool is_changed; // these two are to be written
    LIST_HEAD(, agent_container) list;
};

// ---- what is kept of this era

static json_t *kept_member(const json_t *kept, const char *name)
{
    json_t *object = json_object_get(kept, name);
    return json_is_object(object) ? json_incref(object) : json_object();
}

static void kept_load(struct containers *all)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *text = NULL;
    size_t n = 0;
    json_t *kept = NULL;
    int rc = atomic_file_read(all->agent->refs_fd, KEPT_FILE, KEPT_BYTES_MAX, &text, &n, &e);
    if (rc == 0)
        rc = json_read(text, n, &kept, &e);
    if (rc < 0 && rc != -E_NOT_FOUND)
        log_error("what was kept of containers is lost: %s", e.msg);
    const char *era = json_string_value(json_object_get(kept, "era"));
    const bool is_ours = era && strcmp(era, UUID_TEXT(&all->agent->config.era)) == 0;
    all->wants = kept_member(is_ours ? kept : NULL, "wants");
    all->counts = kept_member(is_ours ? kept : NULL, "counts");
    json_decref(kept);
}

static void kept_save(struct containers *all)
{
    struct error e = ERROR_INIT;
    json_t *kept = json_pack("{s:s, s:O, s:O}", "era", UUID_TEXT(&all->agent->config.era), "wants", all->wants, "counts", all->counts);
    AUTO(free) char *text = json_dumps(kept, JSON_COMPACT);
    json_decref(kept);
    all->is_changed = false;
    if (atomic_file_write(all->agent->refs_fd, KEPT_FILE, text, strlen(text), 0600, &e) < 0)
        log_error("what is wanted of containers can't be kept: %s", e.msg);
}

static void keep_want(struct containers *all, const char *name, const struct container *want)
{
    json_t *json = want ? container_to_json(want) : NULL;
    all->is_changed |= json ? !json_equal(json, json_object_get(all->wants, name)) : json_object_get(all->wants, name) != NULL;
    if (json)
        json_object_set_new(all->wants, name, json);
    else
        json_object_del(all->wants, name);
}

static unsigned restarts_of(const struct agent_container *c)
{
    const json_t *count = json_object_get(c->owner->counts, c->name);
    const bool is_same = c->want && json_integer_value(json_object_get(count, "revision")) == (json_int_t)c->want->revision;
    return is_same ? (unsigned)json_integer_value(json_object_get(count, "restarts")) : 0;
}

static void count_restart(struct agent_container *c)
{
    const unsigned restarts = restarts_of(c) + 1;
    ASSERT(c->order);
    json_object_set_new(c->owner->counts, c->name,
                        json_pack("{s:I, s:I}", "revision", (json_int_t)c->order->revision, "restarts", (json_int_t)restarts));
    c->owner->is_changed = true;
}

// ---- one container

static struct agent_container *find(const struct containers *all, const char *name)
{
    struct agent_container *c;
    LIST_FOREACH (c, &all->list, all)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void on_timer(evutil_socket_t fd, short what, void *arg);

static struct agent_container *add(struct containers *all, const char *name)
{
    struct agent_container *c = xcalloc(1, sizeof *c);
    c->owner = all;
    c->name = xstrdup(name);
    c->watch_fd = -1;
    c->timer = evtimer_new(all->agent->config.base, on_timer, c);
    LIST_INSERT_HEAD(&all->list, c, all);
    return c;
}

static void unwatch(struct agent_container *c)
{
    if (c->watch_fd < 0)
        return;
    event_free(c->on_end);
    close(c->watch_fd);
    c->watch_fd = -1;
}

static void drop(struct agent_container *c)
{
    LIST_REMOVE(c, all);
    unwatch(c);
    event_free(c->timer);
    container_free(c->want);
    container_free(c->order);
    free(c->name);
    free(c->image);
    free(c->reported);
    free(c);
}

static void try_in(struct agent_container *c, int64_t delay_ms)
{
    const struct timeval delay = clock_timeval(delay_ms);
    c->not_before_ms = clock_boot_ms() + delay_ms;
    evtimer_add(c->timer, &delay);
}

// Tells control what is here, if it has changed.
static void report(struct agent_container *c)
{
    struct agent *a = c->owner->agent;
    if (!a->link || !a->welcome || (!c->here.known && c->error.code == E_NONE))
        return;
    json_t *message = json_pack("{s:s, s:s, s:b, s:b}", "type", "container-report", "name", c->name, "present", (int)c->here.present, "running",
                                (int)c->here.running);
    if (c->here.present && c->image)
        json_object_set_new(message, "image", json_text(c->image));
    if (c->error.code != E_NONE)
        json_object_set_new(message, "error", json_from_error(&c->error));
    char *text = json_dumps(message, JSON_COMPACT);
    if (c->reported && strcmp(c->reported, text) == 0) {
        json_decref(message);
        free(text);
        return;
    }
    free(c->reported);
    c->reported = text;
    link_send(a, message);
}

// ---- its volume

static struct agent_volume *volume_of(const struct agent_container *c)
{
    return c->want && !uuid_is_zero(&c->want->volume) ? agent_volume(c->owner->agent, &c->want->volume) : NULL;
}

// Nobody who does not have it gets it any more: it is being removed, moved away, or kept for another node.
static bool is_leaving(const struct agent_volume *v, const struct volume *want)
{
    return v->removing || want->move.stage == MOVE_SEAL || v->promised_ms > clock_boot_ms();
}

// Whether its volume, if it has one, is mounted here and is to stay so. A mount that somebody has taken away is made again first.
static bool is_ready(const struct agent_container *c)
{
    struct agent *a = c->owner->agent;
    if (!c->want || uuid_is_zero(&c->want->volume))
        return true;
    struct agent_volume *v = volume_of(c);
    const struct volume *want = volume_set_find(&a->wants, &c->want->volume);
    if (!a->open || !v || !want || want->state != VOLUME_LIVE || !uuid_equal(&want->owner, &a->config.node) || is_leaving(v, want) ||
        v->step != STEP_NONE || !v->mounted || v->unsure)
        return false;
    if (!a->backend->ops->has_lost_mount || !a->backend->ops->has_lost_mount(a->backend, &v->id))
        return true;
    v->unsure = true;
    turn(v);
    return false;
}

// Its volume is looked at only if the answer matters: that takes a system call.
static enum container_step plan(const struct agent_container *c)
{
    const struct uuid *era = &c->owner->agent->config.era;
    const enum container_step step = plan_container(c->want, &c->here, true, era);
    const bool needs_volume = step == CONTAINER_CREATE || step == CONTAINER_START || step == CONTAINER_AGAIN;
    return needs_volume ? plan_container(c->want, &c->here, is_ready(c), era) : step;
}

// What failed because the container had it may be right now.
static void turn_its_volume(const struct agent_container *c)
{
    struct agent_volume *v = uuid_is_zero(&c->used) ? NULL : agent_volume(c->owner->agent, &c->used);
    if (!v)
        return;
    v->retry_ms = 0;
    turn(v);
}

// One that has ended, and is not to run again, needs nothing; and of a volume that leaves only who has it is a user. Where the engine has not
// said whether that is so, the kernel will.
static bool is_user(const struct agent_container *c, bool leaves)
{
    if (c->step != CONTAINER_NONE && c->step != CONTAINER_LOOK)
        return true;
    if (leaves || (c->here.known && c->here.running))
        return c->here.known && c->here.running;
    return plan_container(c->want, &c->here, true, &c->owner->agent->config.era) != CONTAINER_NONE;
}

bool containers_want(const struct agent_volume *v)
{
    const struct agent_container *c;
    const struct volume *want = volume_set_find(&v->agent->wants, &v->id);
    const bool leaves = want && is_leaving(v, want);
    LIST_FOREACH (c, &v->agent->containers->list, all)
        if (c->want && uuid_equal(&c->want->volume, &v->id) && is_user(c, leaves))
            return true;
    return false;
}

bool containers_begin(const struct agent_volume *v)
{
    const struct agent_container *c;
    LIST_FOREACH (c, &v->agent->containers->list, all)
        if (c->order && uuid_equal(&c->order->volume, &v->id) && (c->step == CONTAINER_START || c->step == CONTAINER_AGAIN))
            return true;
    return false;
}

// ---- jobs

// In a worker.
static int run_job(void *ctx, json_t *result, struct error *e)
{
    const struct agent_container *c = ctx;
    const struct agent *a = c->owner->agent;
    char mount_point[4096];
    struct docker_place place = { .socket = a->config.docker_socket, .host = a->config.host ? a->config.host : "127.0.0.1", .era = a->config.era };
    if (c->order && !uuid_is_zero(&c->order->volume))
        place.mount_point = agent_mount_point(a, &c->order->volume, mount_point);
    int rc = 0;
    switch (c->step) {
    case CONTAINER_CREATE:
        rc = docker_create(c->order, &place, e);
        break;
    case CONTAINER_START:
    case CONTAINER_AGAIN:
        rc = docker_start(place.socket, c->name, e);
        break;
    case CONTAINER_REMOVE:
        rc = docker_remove(place.socket, c->name, e);
        break;
    case CONTAINER_LOOK:
    case CONTAINER_NONE:
    case CONTAINER_WAIT:
    case CONTAINER_STEP_COUNT:
        break;
    }
    return rc < 0 ? rc : docker_look(place.socket, c->name, result, e);
}

static void on_process_end(evutil_socket_t fd, short what, void *arg)
{
    struct agent_container *c = arg;
    (void)fd;
    (void)what;
    unwatch(c);
    c->here.known = false;
    try_in(c, AFTER_END_MS);
}

// The kernel tells when its first process ends. Where it can't, it is looked at now and then.
static void watch(struct agent_container *c, pid_t pid)
{
    unwatch(c);
    c->watch_fd = pid > 0 ? process_watch(pid) : -1;
    if (c->watch_fd < 0) {
        c->here.known = false;
        try_in(c, RETRY_MS_MIN);
        return;
    }
    c->on_end = event_new(c->owner->agent->config.base, c->watch_fd, EV_READ, on_process_end, c);
    event_add(c->on_end, NULL);
}

static void note_failure(struct agent_container *c, const struct error *e)
{
    const unsigned doublings = c->failures < 8 ? c->failures : 8;
    const int64_t delay_ms = (int64_t)RETRY_MS_MIN << doublings;
    if (strcmp(c->error.msg, e->msg) != 0)
        log_warn("container %s: %s", c->name, e->msg);
    c->error = *e;
    c->failures++;
    c->here.known = false;
    try_in(c, delay_ms < RETRY_MS_MAX ? delay_ms : RETRY_MS_MAX);
}

// To have looked is not to have succeeded: what failed before is still to be done, unless it is no longer wanted.
static void note_success(struct agent_container *c)
{
    const enum container_step next = plan(c);
    const bool is_done = c->step != CONTAINER_LOOK || next == CONTAINER_NONE || next == CONTAINER_WAIT;
    if (is_done)
        c->failures = 0;
    if (is_done || c->error.code == E_UNAVAILABLE)
        c->error = (struct error)ERROR_INIT;
}

static void read_here(struct agent_container *c, const json_t *result)
{
    const char *era = json_string_value(json_object_get(result, "era")), *image = json_string_value(json_object_get(result, "image"));
    const bool is_ours = json_is_true(json_object_get(result, "ours"));
    const bool was_running = c->here.running, has_run = was_running || c->step == CONTAINER_START || c->step == CONTAINER_AGAIN;
    c->here = (struct container_here){
        .known = true,
        .present = is_ours && json_is_true(json_object_get(result, "present")),
        .running = is_ours && json_is_true(json_object_get(result, "running")),
        .started = json_is_true(json_object_get(result, "started")),
        .revision = (uint64_t)json_integer_value(json_object_get(result, "revision")),
        .exit_code = (int)json_integer_value(json_object_get(result, "exit")),
        .restarts = restarts_of(c),
    };
    if (era)
        uuid_parse(era, &c->here.era);
    free(c->image);
    c->image = image ? xstrdup(image) : NULL;
    if (!was_running)
        c->running_ms = clock_boot_ms();
    if (c->here.running)
        watch(c, (pid_t)json_integer_value(json_object_get(result, "pid")));
    else
        unwatch(c);
    if (has_run && !c->here.running)
        try_in(c, plan_restart_delay_ms(clock_boot_ms() - c->running_ms, &c->ends));
}

static void on_job_done(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent_container *c = arg;
    struct containers *all = c->owner;
    struct error foreign = ERROR_INIT;
    all->jobs--;
    all->creates -= c->step == CONTAINER_CREATE;
    if (rc == 0 && c->want && json_is_true(json_object_get(result, "present")) && !json_is_true(json_object_get(result, "ours"))) {
        rc = fail(&foreign, E_CONFLICT, "the engine has a container flocker--%s that Flocker did not make: rename or remove it", c->name);
        e = &foreign;
    }
    if (rc < 0)
        note_failure(c, e);
    else {
        if (c->step == CONTAINER_AGAIN)
            count_restart(c);
        if (c->step != CONTAINER_LOOK)
            log_info("container %s: %s is done", c->name, container_step_word(c->step));
        read_here(c, result);
        note_success(c);
    }
    c->step = CONTAINER_NONE;
    container_free(c->order);
    c->order = NULL;
    report(c);
    turn_its_volume(c);
    containers_turn(all->agent);
}

static void on_job_late(void *arg)
{
    struct agent_container *c = arg;
    fail(&c->error, E_TIMEOUT, "the container engine has not answered for a long time (%s)", container_step_word(c->step));
    log_error("container %s: %s", c->name, c->error.msg);
    report(c);
}

// Half of the jobs at most may be those that wait for images.
static bool may_start(const struct containers *all, enum container_step step)
{
    return all->jobs < CONTAINER_JOBS_MAX && (step != CONTAINER_CREATE || all->creates < CONTAINER_JOBS_MAX / 2);
}

static void start(struct agent_container *c, enum container_step step)
{
    struct containers *all = c->owner;
    char what[CONTAINER_NAME_MAX + 32];
    if (!may_start(all, step))
        return; // the end of one of them gives it its turn
    snprintf(what, sizeof what, "%s container %s", container_step_word(step), c->name);
    c->step = step;
    c->order = c->want ? container_copy(c->want) : NULL;
    all->jobs++;
    all->creates += step == CONTAINER_CREATE;
    const struct worker_task task = { .what = what, .run = run_job, .ctx = c, .done = on_job_done, .on_late = on_job_late, .arg = c,
                                      .limit_ms = step == CONTAINER_CREATE ? DOCKER_PULL_MS + WORKER_MS_MAX : 2 * WORKER_MS_MAX };
    worker_start(all->workers, &task);
}

// True if nothing is left to be done for one that is to be gone: control knows, and the entry can go.
static bool is_over(const struct agent_container *c)
{
    return !c->want && c->here.known && !c->here.present && c->reported;
}

static void turn_one(struct agent_container *c)
{
    if (c->step != CONTAINER_NONE || clock_boot_ms() < c->not_before_ms)
        return;
    const enum container_step step = plan(c);
    if (step == CONTAINER_NONE || step == CONTAINER_WAIT)
        report(c);
    else
        start(c, step);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct agent_container *c = arg;
    (void)fd;
    (void)what;
    c->not_before_ms = 0;
    turn_one(c);
}

// ---- all

void containers_turn(struct agent *a)
{
    struct agent_container *c = LIST_FIRST(&a->containers->list);
    while (c) {
        struct agent_container *next = LIST_NEXT(c, all);
        turn_one(c);
        if (c->step == CONTAINER_NONE && is_over(c)) {
            a->containers->is_changed |= json_object_del(a->containers->counts, c->name) == 0;
            drop(c);
        }
        c = next;
    }
    if (a->containers->is_changed)
        kept_save(a->containers);
}

static void forget_report(struct agent_container *c)
{
    free(c->reported);
    c->reported = NULL;
}

void containers_tell(struct agent *a)
{
    struct agent_container *c;
    LIST_FOREACH (c, &a->containers->list, all)
        forget_report(c);
    turn_soon(a);
}

void containers_on_order(struct agent *a, const json_t *message)
{
    struct error e = ERROR_INIT;
    struct container *want = NULL;
    const char *name = json_string_value(json_object_get(message, "name"));
    const bool absent = json_is_true(json_object_get(message, "absent"));
    if (!name || (!absent && container_from_json(json_object_get(message, "want"), &want, &e) < 0) || (want && strcmp(want->name, name) != 0)) {
        log_error("control sent a container that makes no sense: %s", e.code ? e.msg : "it has no name, or two");
        container_free(want);
        return;
    }
    struct agent_container *c = find(a->containers, name);
    if (!c)
        c = add(a->containers, name);
    container_free(c->want);
    c->want = want;
    turn_its_volume(c); // that of before
    if (want)
        c->used = want->volume;
    keep_want(a->containers, name, want);
    c->not_before_ms = 0; // what failed may be right now
    c->failures = 0;
    c->here.restarts = restarts_of(c);
    forget_report(c);
    turn_its_volume(c);
    turn_soon(a);
}

struct containers *containers_new(struct agent *a)
{
    struct error e = ERROR_INIT;
    const char *name;
    json_t *json;
    struct containers *all = xcalloc(1, sizeof *all);
    all->agent = a;
    all->workers = workers_new(a->config.base, false);
    LIST_INIT(&all->list);
    kept_load(all);
    json_object_foreach (all->wants, name, json) {
        struct container *want = NULL;
        if (container_from_json(json, &want, &e) < 0)
            continue;
        struct agent_container *c = add(all, want->name);
        c->want = want;
        c->used = want->volume;
    }
    return all;
}

void containers_free(struct containers *all)
{
    struct agent_container *c;
    workers_free(all->workers);
    while ((c = LIST_FIRST(&all->list)))
        drop(c);
    json_decref(all->wants);
    json_decref(all->counts);
    free(all);
}
