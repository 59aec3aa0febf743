#include "model/volume_set.h"

#include <string.h>

// Two sorted arrays of pointers: 8 bytes for each volume in each, found by halving. An insertion moves what is behind it, which for
// a hundred thousand volumes is less work than one system call; the store loads in the order of ids, where nothing is behind.

static size_t place_of_id(const struct volume_set *s, const struct uuid *id)
{
    size_t low = 0, high = s->n;
    if (s->n > 0 && uuid_compare(&s->by_id[s->n - 1]->id, id) < 0)
        return s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (uuid_compare(&s->by_id[middle]->id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t place_of_name(const struct volume_set *s, const char *name)
{
    size_t low = 0, high = s->names;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(s->by_name[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(struct volume ***array, size_t *n, size_t *room, size_t at, struct volume *v)
{
    ASSERT(at <= *n && *n <= *room);
    if (*n == *room) {
        *room = *room ? *room * 2 : 16;
        *array = xrealloc(*array, *room, sizeof **array);
    }
    memmove(*array + at + 1, *array + at, (*n - at) * sizeof **array);
    (*array)[at] = v;
    ++*n;
}

static void cut(struct volume **array, size_t *n, size_t at)
{
    ASSERT(at < *n);
    --*n;
    memmove(array + at, array + at + 1, (*n - at) * sizeof *array);
}

static bool has_live_name(const struct volume *v)
{
    return v->name && v->state == VOLUME_LIVE;
}

static void forget_name(struct volume_set *s, const struct volume *v)
{
    if (!has_live_name(v))
        return;
    size_t at = place_of_name(s, v->name);
    ASSERT(at < s->names && s->by_name[at] == v); // false: somebody changed a volume while it was in the set
    cut(s->by_name, &s->names, at);
}

void volume_set_done(struct volume_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        volume_free(s->by_id[i]);
    free(s->by_id);
    free(s->by_name);
    *s = (struct volume_set){ 0 };
}

struct volume *volume_set_find(const struct volume_set *s, const struct uuid *id)
{
    size_t at = place_of_id(s, id);
    return at < s->n && uuid_equal(&s->by_id[at]->id, id) ? s->by_id[at] : NULL;
}

size_t volume_set_behind(const struct volume_set *s, const struct uuid *id)
{
    size_t at = place_of_id(s, id);
    return at < s->n && uuid_equal(&s->by_id[at]->id, id) ? at + 1 : at;
}

struct volume *volume_set_find_name(const struct volume_set *s, const char *name)
{
    ASSERT(!s->is_filling);
    size_t at = place_of_name(s, name);
    return at < s->names && strcmp(s->by_name[at]->name, name) == 0 ? s->by_name[at] : NULL;
}

void volume_set_put(struct volume_set *s, struct volume *v)
{
    size_t at = place_of_id(s, &v->id);
    if (at < s->n && uuid_equal(&s->by_id[at]->id, &v->id)) {
        struct volume *old = s->by_id[at];
        ASSERT(old != v && !s->is_filling);
        forget_name(s, old);
        volume_free(old);
        s->by_id[at] = v;
    } else {
        insert(&s->by_id, &s->n, &s->room, at, v);
    }
    if (!has_live_name(v))
        return;
    at = s->is_filling ? s->names : place_of_name(s, v->name);
    ASSERT(at == s->names || strcmp(s->by_name[at]->name, v->name) != 0);
    insert(&s->by_name, &s->names, &s->names_room, at, v);
}

void volume_set_fill_begin(struct volume_set *s)
{
    s->is_filling = true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct volume *const *)a)->name, (*(struct volume *const *)b)->name);
}

void volume_set_fill_end(struct volume_set *s)
{
    s->is_filling = false;
    if (s->names > 1)
        qsort(s->by_name, s->names, sizeof(struct volume *), compare_names);
    for (size_t i = 1; i < s->names; i++)
        ASSERT(strcmp(s->by_name[i - 1]->name, s->by_name[i]->name) < 0);
}

void volume_set_remove(struct volume_set *s, const struct uuid *id)
{
    ASSERT(!s->is_filling);
    size_t at = place_of_id(s, id);
    if (at == s->n || !uuid_equal(&s->by_id[at]->id, id))
        return;
    struct volume *v = s->by_id[at];
    forget_name(s, v);
    cut(s->by_id, &s->n, at);
    volume_free(v);
}
