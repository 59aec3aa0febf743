#include "model/id_set.h"

#include "base/mem.h"

#include <string.h>

// Where the id is, or would be.
static size_t place(const struct id_set *s, const struct uuid *id)
{
    size_t low = 0, high = s->n;
    if (s->n > 0 && uuid_compare(&s->ids[s->n - 1], id) < 0)
        return s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (uuid_compare(&s->ids[middle], id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void id_set_done(struct id_set *s)
{
    free(s->ids);
    *s = (struct id_set){ .n = 0 };
}

bool id_set_has(const struct id_set *s, const struct uuid *id)
{
    size_t at = place(s, id);
    return at < s->n && uuid_equal(&s->ids[at], id);
}

bool id_set_add(struct id_set *s, const struct uuid *id)
{
    size_t at = place(s, id);
    if (at < s->n && uuid_equal(&s->ids[at], id))
        return false;
    if (s->n == s->room) {
        s->room = s->room ? s->room + s->room / 2 : 4;
        s->ids = xrealloc(s->ids, s->room, sizeof *s->ids);
    }
    memmove(s->ids + at + 1, s->ids + at, (s->n++ - at) * sizeof *s->ids);
    s->ids[at] = *id;
    return true;
}

static void cut(struct id_set *s, size_t at)
{
    memmove(s->ids + at, s->ids + at + 1, (--s->n - at) * sizeof *s->ids);
    if (s->n == 0)
        id_set_done(s);
}

bool id_set_remove(struct id_set *s, const struct uuid *id)
{
    size_t at = place(s, id);
    if (at == s->n || !uuid_equal(&s->ids[at], id))
        return false;
    cut(s, at);
    return true;
}

bool id_set_take(struct id_set *s, struct uuid *cursor)
{
    if (s->n == 0)
        return false;
    size_t at = place(s, cursor);
    at = (at ? at : s->n) - 1;
    *cursor = s->ids[at];
    cut(s, at);
    return true;
}
