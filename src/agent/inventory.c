// What control asks this node for, or is told now and then: the records of all volumes that are here, for a store that is rebuilt, and how full
// the pool is.
#include "agent/internal.h"

#include "base/limits.h"
#include "base/mem.h"

#include <event2/event.h>
#include <string.h>

#define PAGE_BYTES  (LINE_BYTES_MAX / 2) // of records in one answer; one alone is always shorter than the rest
#define POOL_TELL_S 2                    // changes come in crowds

// ---- records

struct page {
    struct uuid after;
    json_t *records;
    size_t bytes;
    bool more;
};

static size_t size_of(const json_t *object)
{
    return json_dumpb(object, NULL, 0, JSON_COMPACT);
}

static void add_record(struct agent_volume *v, void *arg)
{
    struct page *p = arg;
    bool has_record = v->record && v->step != STEP_DESTROY; // what is just being destroyed is as good as gone
    if ((!has_record && !v->copy.is_here && !v->half_placed) || uuid_compare(&v->id, &p->after) <= 0 || p->more)
        return;
    json_t *item = json_pack("{s:s}", "id", UUID_TEXT(&v->id));
    if (has_record)
        json_object_set_new(item, "volume", volume_to_json(v->record));
    if (v->half_placed)
        json_object_set_new(item, "placing", json_true());
    if (v->copy.is_here && v->copy.snapshot.number)
        json_object_set_new(item, "copy", move_snapshot_to_json(&v->copy.snapshot));
    if (v->mounted || v->unsure)
        json_object_set_new(item, "mounted", json_true());
    if (v->unsure || (v->mounted && turn_is_in_use(v)))
        json_object_set_new(item, "in_use", json_true());
    size_t n = size_of(item);
    p->more = p->bytes > 0 && p->bytes + n > PAGE_BYTES;
    p->bytes += n;
    if (p->more)
        json_decref(item);
    else
        json_array_append_new(p->records, item);
}

json_t *inventory_page(const struct agent *a, const struct uuid *after)
{
    struct page p = { .after = *after, .records = json_array() };
    agent_for_each(a, add_record, &p); // in the order of ids
    return json_pack("{s:o, s:b}", "records", p.records, "more", (int)p.more);
}

static void count_kept(struct agent_volume *v, void *arg)
{
    const struct volume *want = volume_set_find(&v->agent->wants, &v->id);
    size_t *n = arg;
    *n += v->record && (!want || !volume_concerns(want, &v->agent->config.node));
}

size_t inventory_kept(const struct agent *a)
{
    size_t n = 0;
    if (a->synced)
        agent_for_each(a, count_kept, &n);
    return n;
}

// ---- the pool

json_t *inventory_pool(const struct agent_pool_facts *facts)
{
    const struct backend_usage *u = &facts->usage;
    return json_pack("{s:s, s:I, s:I, s:I}", "type", "pool", "size", (json_int_t)u->limit_bytes, "used", (json_int_t)u->used_bytes, "free",
                     (json_int_t)u->free_bytes);
}

static void on_measured(void *arg, int rc, const struct agent_pool_facts *facts, const struct error *e)
{
    struct agent *a = arg;
    (void)e; // control goes on with what it knows
    if (rc == 0 && a->link && a->welcome)
        link_send(a, inventory_pool(facts));
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    agent_pool_usage(arg, on_measured, arg);
}

void inventory_tell_pool(struct agent *a)
{
    static const struct timeval delay = { POOL_TELL_S, 0 };
    if (!a->tell_pool)
        a->tell_pool = evtimer_new(a->config.base, on_due, a);
    if (!evtimer_pending(a->tell_pool, NULL))
        evtimer_add(a->tell_pool, &delay);
}
