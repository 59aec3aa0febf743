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

struct claims {
    const struct recover_find *best, *equal; // of those with a record; another with the same claim
    const struct recover_find *placing;
};

static struct claims claims(const struct recover_input *in, const struct recover_outcome *o)
{
    struct claims c = { NULL, NULL, NULL };
    for (size_t i = o->first; i < o->first + o->n; i++) {
        const struct recover_find *f = &in->finds[i];
        c.placing = f->placing ? f : c.placing;
        int order = !f->record ? -1 : c.best ? compare_claims(f, c.best) : 1;
        if (order > 0) {
            c.best = f;
            c.equal = NULL;
        } else if (order == 0)
            c.equal = f;
    }
    return c;
}

static enum recover_verdict about(struct recover_outcome *o, enum recover_verdict verdict, const struct uuid *other)
{
    o->other = *other;
    return verdict;
}

// What a node has received of a state later than the record that counts. NULL: nobody has.
static const struct recover_find *newer_copy(const struct recover_input *in, const struct recover_outcome *o)
{
    uint64_t next = move_next_number(0, in->finds[o->chosen].record->revision + 1);
    for (size_t i = o->first; i < o->first + o->n; i++)
        if (!in->finds[i].record && in->finds[i].copy.number >= next)
            return &in->finds[i];
    return NULL;
}

// Whether another node may have it mounted, or as it was later: then it would be written, or have been, in two places.
static enum recover_verdict judge_others(const struct recover_input *in, struct recover_outcome *o, const struct volume *known)
{
    const struct recover_find *best = &in->finds[o->chosen];
    for (size_t i = o->first; i < o->first + o->n; i++) {
        const struct recover_find *f = &in->finds[i];
        if (i != o->chosen && (f->in_use || (f->mounted && !in->force)))
            return about(o, f->in_use ? RECOVER_USED : RECOVER_MOUNTED, &f->node);
    }
    if (in->force)
        return RECOVER_TAKEN;
    const struct recover_find *newer = newer_copy(in, o);
    if (newer)
        return about(o, RECOVER_NEWER, &newer->node);
    if (is_sealed(best) && !is_heard(in, &best->record->target))
        return about(o, RECOVER_WAITS, &best->record->target);
    if (known && !uuid_equal(&known->owner, &best->node) && !is_heard(in, &known->owner))
        return about(o, RECOVER_WAITS, &known->owner);
    return RECOVER_TAKEN;
}

static enum recover_verdict judge(const struct recover_input *in, struct recover_outcome *o)
{
    const struct volume *known = volume_set_find(in->known, &in->finds[o->first].id);
    const struct claims c = claims(in, o);
    o->chosen = c.best ? (size_t)(c.best - in->finds) : o->first;
    if (known && (!c.best || known->epoch >= c.best->record->epoch))
        return RECOVER_KNOWN;
    if (c.placing)
        return about(o, RECOVER_BUSY, &c.placing->node);
    if (!c.best)
        return RECOVER_COPY;
    return c.equal ? about(o, RECOVER_TIED, &c.equal->node) : judge_others(in, o, known);
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
    v->accepts = is_sealed(f) ? v->epoch : 0;
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
        ret[i].verdict = judge(in, &ret[i]);
        if (ret[i].verdict == RECOVER_TAKEN)
            ret[i].volume = rebuild(in, &ret[i]);
    }
    settle_names(in->known, ret, count);
    return count;
}
