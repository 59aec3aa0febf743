#include "plan/recover.h"

#include "base/limits.h"
#include "base/mem.h"

#include <string.h>

static const char *const words[RECOVER_VERDICT_COUNT] = {
#define X(verdict, word) [verdict] = word,
    RECOVER_VERDICT_TABLE(X)
#undef X
};

const char *recover_verdict_word(enum recover_verdict v)
{
    return words[v];
}

static int compare_finds(const void *a, const void *b)
{
    const struct recover_find *x = a, *y = b;
    int order = uuid_compare(&x->id, &y->id);
    return order ? order : uuid_compare(&x->node, &y->node);
}

static bool is_heard(const struct recover_input *in, const struct uuid *node)
{
    for (size_t i = 0; i < in->heard_n; i++)
        if (uuid_equal(&in->heard[i], node))
            return true;
    return false;
}

// ---- whose record counts

static bool is_sealed(const struct recover_find *f)
{
    return f->record->move.stage == MOVE_SEAL && uuid_equal(&f->record->owner, &f->node);
}

// Positive if a's claim is better than b's.
static int compare_claims(const struct recover_find *a, const struct recover_find *b)
{
    bool own_a = uuid_equal(&a->record->owner, &a->node), own_b = uuid_equal(&b->record->owner, &b->node);
    if (a->record->epoch != b->record->epoch)
        return a->record->epoch > b->record->epoch ? 1 : -1;
    if (own_a != own_b) // else it came with a disk of another node
        return own_a ? 1 : -1;
    if (a->record->revision != b->record->revision)
        return a->record->revision > b->record->revision ? 1 : -1;
    return 0;
}

static void judge(const struct recover_input *in, struct recover_outcome *o)
{
    const struct volume *known = volume_set_find(in->known, &in->finds[o->first].id);
    const struct recover_find *best = NULL, *equal = NULL, *placing = NULL;
    for (size_t i = o->first; i < o->first + o->n; i++) {
        const struct recover_find *f = &in->finds[i];
        placing = f->placing ? f : placing;
        int order = !f->record ? -1 : best ? compare_claims(f, best) : 1;
        if (order > 0) {
            best = f;
            equal = NULL;
        } else if (order == 0)
            equal = f;
    }
    if (best)
        o->chosen = (size_t)(best - in->finds);
    if (known && (!best || known->epoch >= best->record->epoch))
        o->verdict = RECOVER_KNOWN;
    else if (placing) {
        o->verdict = RECOVER_BUSY;
        o->other = placing->node;
    } else if (!best)
        o->verdict = RECOVER_COPY;
    else if (equal) {
        o->verdict = RECOVER_TIED;
        o->other = equal->node;
    } else if (is_sealed(best) && !in->force && !is_heard(in, &best->record->target)) {
        o->verdict = RECOVER_WAITS;
        o->other = best->record->target;
    } else
        o->verdict = RECOVER_TAKEN;
}

// ---- what is taken in

// A switch may have been committed that nobody has carried out: the epoch is above that, too. The revision is above all that nodes have seen.
static struct volume *rebuild(const struct recover_input *in, const struct recover_outcome *o)
{
    const struct recover_find *f = &in->finds[o->chosen];
    const struct volume *known = volume_set_find(in->known, &f->id);
    struct volume *v = volume_copy(f->record);
    v->owner = v->target = f->node;
    v->move = (struct volume_move){ .stage = MOVE_NONE };
    v->epoch += is_sealed(f) ? 2 : 0;
    v->revision = known ? known->revision : 0;
    for (size_t i = o->first; i < o->first + o->n; i++)
        if (in->finds[i].record && in->finds[i].record->revision > v->revision)
            v->revision = in->finds[i].record->revision;
    v->revision++;
    v->born = true;
    if (v->state == VOLUME_LIVE)
        return v;
    v->state = VOLUME_TRASHED;
    v->trashed_ms = v->trashed_ms ? v->trashed_ms : in->now_ms;
    v->purge_ms = in->now_ms + in->keep_ms;
    return v;
}

// ---- names

static int compare_names(const void *a, const void *b)
{
    const struct volume *x = (*(struct recover_outcome *const *)a)->volume, *y = (*(struct recover_outcome *const *)b)->volume;
    int order = strcmp(x->name, y->name);
    if (order)
        return order;
    if (x->created_ms != y->created_ms)
        return x->created_ms > y->created_ms ? -1 : 1;
    return uuid_compare(&x->id, &y->id);
}

static bool is_free(const struct volume_set *known, const struct volume_set *taken, const char *name, const struct uuid *id)
{
    const struct volume *other = volume_set_find_name(known, name);
    return (!other || uuid_equal(&other->id, id)) && !volume_set_find_name(taken, name);
}

static void claim(struct volume_set *taken, const struct volume *v)
{
    if (v->name)
        volume_set_put(taken, volume_copy(v));
}

// "<name>-<8 characters of the id>", or the whole id, or no name, whichever is free.
static void rename_apart(const struct volume_set *known, struct volume_set *taken, struct recover_outcome *o)
{
    static const int lengths[] = { 8, UUID_TEXT_SIZE - 1 };
    struct volume *v = o->volume;
    char name[NAME_BYTES_MAX + 1];
    AUTO(free) char *old = TAKE(v->name, NULL);
    o->renamed = true;
    for (size_t i = 0; i < ARRAY_SIZE(lengths) && !v->name; i++) {
        snprintf(name, sizeof name, "%.*s-%.*s", NAME_BYTES_MAX - 1 - lengths[i], old, lengths[i], UUID_TEXT(&v->id));
        if (is_free(known, taken, name, &v->id))
            v->name = xstrdup(name);
    }
    claim(taken, v);
}

static void settle_names(const struct volume_set *known, struct recover_outcome *all, size_t n)
{
    AUTO(free) struct recover_outcome **named = xcalloc(n + 1, sizeof *named);
    struct volume_set taken = { 0 };
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (all[i].volume && all[i].volume->name && all[i].volume->state == VOLUME_LIVE)
            named[count++] = &all[i];
    qsort(named, count, sizeof *named, compare_names);
    for (size_t i = 0; i < count; i++)
        if (is_free(known, &taken, named[i]->volume->name, &named[i]->volume->id))
            claim(&taken, named[i]->volume);
    for (size_t i = 0; i < count; i++)
        if (!volume_set_find(&taken, &named[i]->volume->id))
            rename_apart(known, &taken, named[i]);
    volume_set_done(&taken);
}

size_t recover_plan(struct recover_input *in, struct recover_outcome *ret)
{
    size_t count = 0;
    if (in->n)
        qsort(in->finds, in->n, sizeof *in->finds, compare_finds);
    for (size_t i = 0; i < in->n; i++) {
        if (i == 0 || !uuid_equal(&in->finds[i].id, &in->finds[i - 1].id))
            ret[count++] = (struct recover_outcome){ .first = i };
        ret[count - 1].n++;
    }
    for (size_t i = 0; i < count; i++) {
        judge(in, &ret[i]);
        if (ret[i].verdict == RECOVER_TAKEN)
            ret[i].volume = rebuild(in, &ret[i]);
    }
    settle_names(in->known, ret, count);
    return count;
}
