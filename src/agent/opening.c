// Opening the pool: a worker opens it and reads what is there, then the agent takes that over and opens the pool for itself.
#include "agent/internal.h"

#include "base/failpoint.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#include <event2/event.h>
#include <string.h>

#define PART        256           // volumes and copies that the worker tells at once
#define OPEN_MS_MAX (30 * 60000)  // some hundred thousand volumes on a slow disk; a worker that is stopped begins anew, and gets no further

// A volume that the worker has told of. None counts before all have come: one that fails half-way has told nothing.
struct found {
    struct volume *record;
    bool mounted;
    uint64_t snapshot;
};

// ---- in the worker

struct part {
    size_t n;
    json_t *volumes, *copies;
};

static void tell(struct part *p)
{
    worker_tell(json_pack("{s:o, s:o}", "volumes", p->volumes, "copies", p->copies));
    *p = (struct part){ 0, json_array(), json_array() };
}

static void add(struct part *p, json_t *to, json_t *item)
{
    json_array_append_new(to, item);
    if (++p->n == PART)
        tell(p);
}

static void on_observed(void *arg, struct backend_volume *v)
{
    struct part *p = arg;
    add(p, p->volumes, json_pack("{s:o, s:b, s:I}", "record", volume_to_json(v->record), "mounted", (int)v->mounted, "snapshot",
                                 (json_int_t)v->snapshot));
    volume_free(v->record);
}

static void on_damaged(void *arg, const char *id, const struct error *why)
{
    struct part *p = arg;
    add(p, p->volumes, json_pack("{s:o, s:o}", "damaged", json_text(id), "why", json_text(why->msg)));
}

static void on_copy(void *arg, const struct backend_copy *c)
{
    struct part *p = arg;
    json_t *copy = moves_copy_to_json(c);
    json_object_set_new(copy, "id", json_string(UUID_TEXT(&c->id)));
    add(p, p->copies, copy);
}

// Making or reading a large pool takes long, and a sick disk takes for ever. The worker opens the pool for itself; the agent does so once more
// afterwards, which is quick then, to hold the pool's lock.
static int observe(void *ctx, json_t *result, struct error *e)
{
    struct agent *a = ctx;
    struct part p = { 0, json_array(), json_array() };
    (void)result;
    int rc = a->backend ? 0 : a->config.backend->open(&a->config.pool, &a->backend, e);
    if (rc == 0)
        rc = a->backend->ops->observe(a->backend, on_observed, on_damaged, &p, e);
    if (rc >= 0 && a->backend->ops->copies)
        rc = a->backend->ops->copies(a->backend, on_copy, &p, e);
    tell(&p);
    json_decref(p.volumes);
    json_decref(p.copies);
    return rc;
}

// ---- in the agent

void opening_forget(struct agent *a)
{
    for (size_t i = 0; i < a->found_count; i++)
        volume_free(a->found[i].record);
    free(a->found);
    json_decref(a->found_copies);
    a->found = NULL;
    a->found_copies = NULL;
    a->found_count = a->found_room = 0;
}

static void note_volume(struct agent *a, const json_t *item)
{
    struct error e = ERROR_INIT;
    struct found f = { .mounted = json_is_true(json_object_get(item, "mounted")),
                       .snapshot = (uint64_t)json_integer_value(json_object_get(item, "snapshot")) };
    const char *id = json_string_value(json_object_get(item, "damaged"));
    if (id) {
        log_error("volume %s is kept as it is: %s", id, json_string_value(json_object_get(item, "why")));
        return;
    }
    if (volume_from_json(json_object_get(item, "record"), &f.record, &e) < 0) {
        log_error("a volume is kept as it is: %s", e.msg);
        return;
    }
    if (a->found_count == a->found_room) {
        a->found_room = a->found_room ? a->found_room * 2 : PART;
        a->found = xrealloc(a->found, a->found_room, sizeof *a->found);
    }
    a->found[a->found_count++] = f;
}

static void on_part(void *arg, const json_t *part)
{
    struct agent *a = arg;
    size_t i;
    const json_t *item;
    json_array_foreach (json_object_get(part, "volumes"), i, item)
        if (a->found_count <= VOLUMES_MAX)
            note_volume(a, item);
    if (!a->found_copies)
        a->found_copies = json_array();
    if (json_array_size(a->found_copies) <= VOLUMES_MAX)
        json_array_extend(a->found_copies, json_object_get(part, "copies"));
}

// What is on disk is wanted until control is heard.
static void want_as_found(struct agent *a, const struct volume *record)
{
    if (volume_set_find(&a->wants, &record->id))
        return;
    struct volume *want = volume_copy(record);
    want->born = true;
    const struct volume *same = want->name && want->state == VOLUME_LIVE ? volume_set_find_name(&a->wants, want->name) : NULL;
    if (same)
        log_warn("volumes %s and %s are both named %s: the newer one is served until control is heard", UUID_TEXT(&want->id),
                 UUID_TEXT(&same->id), want->name);
    // The name was given anew after the older one was removed, and its record could not be changed any more.
    if (same && same->created_ms >= want->created_ms) {
        volume_free(want);
        return;
    }
    if (same)
        volume_set_remove(&a->wants, &same->id);
    volume_set_put(&a->wants, want);
}

static void take_inventory(struct agent *a)
{
    size_t i;
    const json_t *item;
    struct uuid id;
    for (i = 0; i < a->found_count; i++) {
        struct found *f = &a->found[i];
        struct agent_volume *v = agent_volume_add(a, &f->record->id);
        v->record = TAKE(f->record, NULL);
        v->mounted = f->mounted;
        v->snapshot.number = f->snapshot;
        want_as_found(a, v->record);
    }
    json_array_foreach (a->found_copies, i, item) {
        const char *text = json_string_value(json_object_get(item, "id"));
        if (text && uuid_parse(text, &id))
            moves_found_copy(agent_volume_add(a, &id), item);
    }
    opening_forget(a);
}

static void open_later(struct agent *a, const struct error *e)
{
    static const int delays_s[] = { 1, 2, 5, 10, 30 };
    unsigned n = a->open_failures < ARRAY_SIZE(delays_s) ? a->open_failures : ARRAY_SIZE(delays_s) - 1;
    const struct timeval delay = { delays_s[n], 0 };
    if (!a->pool_error || strcmp(a->pool_error, e->msg) != 0)
        log_error("the pool can't be opened, trying again: %s", e->msg);
    opening_forget(a);
    free(a->pool_error);
    a->pool_error = xstrdup(e->msg);
    a->open_failures++;
    evtimer_add(a->reopen, &delay);
    operations_turn(a);
}

static void on_inventory(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent *a = arg;
    struct error why = *e;
    struct backend_config pool = a->config.pool;
    pool.is_swept = true;
    (void)result;
    FAILPOINT(AGENT_POOL_READ);
    if (rc == 0 && (a->found_count > VOLUMES_MAX || json_array_size(a->found_copies) > VOLUMES_MAX))
        rc = fail(&why, E_TOO_LARGE, "the pool has more than %d volumes", VOLUMES_MAX);
    if (rc == 0 && !a->backend)
        rc = a->config.backend->open(&pool, &a->backend, &why);
    if (rc < 0) {
        open_later(a, &why);
        return;
    }
    take_inventory(a);
    free(a->pool_error);
    a->pool_error = NULL;
    a->open = true;
    a->open_failures = 0;
    FAILPOINT(AGENT_POOL_OPEN);
    usage_audit_soon(a);
    refs_load(a);
    FAILPOINT(AGENT_REFS_LOADED);
    log_info("pool is open: %zu volumes known", a->wants.n);
    link_connect(a);
    turn_all(a);
    operations_turn(a);
}

void opening_on_time(int fd, short what, void *arg)
{
    struct agent *a = arg;
    const struct worker_task task = { .what = "read the pool", .run = observe, .ctx = a, .done = on_inventory, .arg = a, .on_progress = on_part,
                                      .limit_ms = OPEN_MS_MAX };
    (void)fd;
    (void)what;
    worker_start(a->workers, &task);
}
