#include "plan/refs.h"

#include "base/limits.h"
#include "base/mem.h"

#include <string.h>

void refs_done(struct refs *r)
{
    free(r->items);
    *r = (struct refs){ 0, NULL };
}

uint32_t refs_total(const struct refs *r)
{
    uint64_t total = 0;
    for (size_t i = 0; i < r->n; i++)
        total += (uint64_t)r->items[i].count + r->items[i].open;
    return total < UINT32_MAX ? (uint32_t)total : UINT32_MAX; // never 0 by overflow: that would unmount
}

static struct ref *find(const struct refs *r, const char *id, struct engine engine)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->items[i].id, id) == 0 && engine_equal(r->items[i].engine, engine))
            return &r->items[i];
    return NULL;
}

static void drop_empty(struct refs *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->items[i].count || r->items[i].open)
            r->items[kept++] = r->items[i];
    r->n = kept;
}

static struct ref *add(struct refs *r, const char *id, struct engine engine)
{
    r->items = xrealloc(r->items, r->n + 1, sizeof *r->items);
    struct ref *ref = &r->items[r->n++];
    *ref = (struct ref){ .engine = engine };
    memcpy(ref->id, id, strnlen(id, MOUNT_ID_SIZE - 1));
    return ref;
}

int refs_open(struct refs *r, const char *id, struct engine engine, int64_t now_ms, struct error *e)
{
    ASSERT(strlen(id) < MOUNT_ID_SIZE);
    struct ref *ref = find(r, id, engine);
    if (!ref && r->n >= MOUNT_IDS_MAX)
        return fail(e, E_TOO_LARGE, "the volume is mounted by %d containers already, no more are kept track of", MOUNT_IDS_MAX);
    if (!ref)
        ref = add(r, id, engine);
    ref->open++;
    ref->opened_ms = now_ms;
    return 0;
}

void refs_settle(struct refs *r, const char *id, struct engine engine, bool taken)
{
    struct ref *ref = find(r, id, engine);
    if (!ref || ref->open == 0)
        return; // reaped, or released by an Unmount that was quicker than our knowledge
    ref->open--;
    if (taken)
        ref->count++;
    drop_empty(r);
}

bool refs_release(struct refs *r, const char *id, struct engine engine)
{
    struct ref *ref = find(r, id, engine);
    for (size_t i = 0; !ref && i < r->n; i++)
        if (strcmp(r->items[i].id, id) == 0)
            ref = &r->items[i];
    if (!ref)
        return false;
    if (ref->count)
        ref->count--;
    else
        ref->open--;
    drop_empty(r);
    return true;
}

static bool is_lost(const struct ref *ref, int64_t now_ms)
{
    return ref->open && now_ms - ref->opened_ms > REFS_OPEN_GRACE_MS;
}

// Nobody can tell whether an engine without a process still knows of what it was given long ago; if no container has it, it does not.
static bool is_left(const struct ref *ref, bool (*is_dead)(struct engine engine), int64_t now_ms)
{
    return ref->engine.pid ? is_dead(ref->engine) : now_ms - ref->opened_ms > REFS_OPEN_GRACE_MS;
}

bool refs_has_fresh(const struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct ref *ref = &r->items[i];
        if ((ref->count && !is_dead(ref->engine)) || (ref->open && now_ms - ref->opened_ms < REFS_MOMENT_MS))
            return true;
    }
    return false;
}

bool refs_has_doubtful(const struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms)
{
    for (size_t i = 0; i < r->n; i++)
        if (is_lost(&r->items[i], now_ms) || is_left(&r->items[i], is_dead, now_ms))
            return true;
    return false;
}

bool refs_reap(struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms)
{
    bool changed = false;
    for (size_t i = 0; i < r->n; i++) {
        struct ref *ref = &r->items[i];
        bool left = is_left(ref, is_dead, now_ms);
        if (!left && !is_lost(ref, now_ms))
            continue;
        ref->open = 0;
        ref->count = left ? 0 : ref->count;
        changed = true;
    }
    drop_empty(r);
    return changed;
}

bool refs_forbid_remove(const struct refs *r, struct engine caller, bool (*is_dead)(struct engine engine))
{
    for (size_t i = 0; i < r->n; i++) {
        struct engine other = r->items[i].engine;
        if (!engine_equal(other, caller) && !(other.pid && is_dead(other)))
            return true;
    }
    return false;
}

json_t *refs_to_json(const struct refs *r)
{
    json_t *array = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const struct ref *ref = &r->items[i];
        json_array_append_new(array, json_pack("{s:s, s:i, s:I, s:i, s:i, s:I}", "id", ref->id, "pid", (int)ref->engine.pid, "start",
                                               (json_int_t)ref->engine.start, "count", (int)ref->count, "open", (int)ref->open,
                                               "opened_ms", (json_int_t)ref->opened_ms));
    }
    return array;
}

int refs_from_json(const json_t *array, struct refs *ret, struct error *e)
{
    struct refs r = { 0, NULL };
    size_t i;
    json_t *item;
    if (!json_is_array(array) || json_array_size(array) > MOUNT_IDS_MAX)
        return fail(e, E_CORRUPT, "references are not a list of at most %d", MOUNT_IDS_MAX);
    json_array_foreach (array, i, item) {
        const char *id;
        json_int_t pid, count, open, start, opened_ms;
        if (json_unpack(item, "{s:s, s:I, s:I, s:I, s:I, s:I}", "id", &id, "pid", &pid, "start", &start, "count", &count, "open", &open,
                        "opened_ms", &opened_ms) != 0 ||
            strlen(id) >= MOUNT_ID_SIZE || pid < 0 || pid > INT32_MAX || count < 0 || count > INT32_MAX || open < 0 || open > INT32_MAX ||
            opened_ms < 0) {
            refs_done(&r);
            return fail(e, E_CORRUPT, "reference %zu is damaged", i);
        }
        struct ref *ref = add(&r, id, (struct engine){ (int32_t)pid, (uint64_t)start });
        ref->count = (uint32_t)count;
        ref->open = (uint32_t)open;
        ref->opened_ms = opened_ms;
    }
    drop_empty(&r);
    *ret = r;
    return 0;
}
