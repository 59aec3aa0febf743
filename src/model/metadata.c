#include "model/metadata.h"

#include "base/limits.h"
#include "base/mem.h"

#include <stdint.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static void item_done(struct metadata_item *item)
{
    free(item->key);
    free(item->value);
}

void metadata_done(struct metadata *m)
{
    for (size_t i = 0; i < m->n; i++)
        item_done(&m->items[i]);
    free(m->items);
    *m = (struct metadata){ 0 };
}

void metadata_copy(struct metadata *ret, const struct metadata *from)
{
    *ret = (struct metadata){ 0 };
    if (from->n == 0)
        return;
    ret->items = xcalloc(from->n, sizeof *ret->items);
    for (size_t i = 0; i < from->n; i++)
        ret->items[i] = (struct metadata_item){ .key = xstrdup(from->items[i].key), .value = xstrdup(from->items[i].value) };
    ret->n = from->n;
}

// The place of `key`, or where it would be inserted. Metadata is small: a walk is as good as a search.
static size_t place_of(const struct metadata *m, const char *key, bool *ret_found)
{
    size_t i = 0;
    int order = 1;
    while (i < m->n && (order = strcmp(m->items[i].key, key)) < 0)
        i++;
    *ret_found = i < m->n && order == 0;
    return i;
}

const char *metadata_get(const struct metadata *m, const char *key)
{
    bool found;
    size_t i = place_of(m, key, &found);
    return found ? m->items[i].value : NULL;
}

// v1 counts Unicode characters, not bytes: every byte of UTF-8 but the continuation bytes starts one.
static size_t count_chars(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static int check_text(const char *what, const char *text, size_t chars_min, struct error *e)
{
    // What is not UTF-8 could not be written as JSON. Limit first: what comes from outside may be long.
    size_t chars = count_chars(text);
    if (chars < chars_min || chars > METADATA_CHARS_MAX)
        return fail(e, E_INVALID, "metadata: a %s must have %zu to %d characters, this one has %zu", what, chars_min,
                    METADATA_CHARS_MAX, chars);
    AUTO(json_decref) json_t *as_json = json_string(text);
    if (!as_json)
        return fail(e, E_INVALID, "metadata: a %s is not valid UTF-8", what);
    return 0;
}

int metadata_set(struct metadata *m, const char *key, const char *value, struct error *e)
{
    int rc = check_text("key", key, 1, e);
    if (rc == 0)
        rc = check_text("value", value, 0, e);
    if (rc < 0)
        return rc;
    if (strchr(key, '\n'))
        return fail(e, E_INVALID, "metadata: a key must not contain a line break");

    bool found;
    size_t i = place_of(m, key, &found);
    if (!found) {
        if (m->n == METADATA_ITEMS_MAX)
            return fail(e, E_INVALID, "metadata: more than %d items", METADATA_ITEMS_MAX);
        m->items = xrealloc(m->items, m->n + 1, sizeof *m->items);
        memmove(m->items + i + 1, m->items + i, (m->n - i) * sizeof *m->items);
        m->items[i] = (struct metadata_item){ .key = xstrdup(key) };
        m->n++;
    }
    char *fresh = xstrdup(value); // before the old one goes: `value` may be it
    free(m->items[i].value);
    m->items[i].value = fresh;
    return 0;
}

void metadata_remove(struct metadata *m, const char *key)
{
    bool found;
    size_t i = place_of(m, key, &found);
    if (!found)
        return;
    item_done(&m->items[i]);
    m->n--;
    memmove(m->items + i, m->items + i + 1, (m->n - i) * sizeof *m->items);
}

bool metadata_equal(const struct metadata *a, const struct metadata *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->items[i].key, b->items[i].key) != 0 || strcmp(a->items[i].value, b->items[i].value) != 0)
            return false;
    return true;
}

json_t *metadata_to_json(const struct metadata *m)
{
    json_t *object = json_object();
    ASSERT(object);
    for (size_t i = 0; i < m->n; i++) {
        int rc = json_object_set_new(object, m->items[i].key, json_string(m->items[i].value));
        ASSERT(rc == 0); // metadata_set has let only UTF-8 in
    }
    return object;
}

static int fill_from_json(struct metadata *m, const json_t *object, struct error *e)
{
    json_t *members = (json_t *)(uintptr_t)object; // jansson iterates only over what is not const
    const char *key;
    json_t *value;
    json_object_foreach(members, key, value)
    {
        if (!json_is_string(value))
            return fail(e, E_INVALID, "metadata: every value must be a text");
        if (strlen(json_string_value(value)) != json_string_length(value))
            return fail(e, E_INVALID, "metadata: a value contains a NUL character");
        int rc = metadata_set(m, key, json_string_value(value), e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int metadata_from_json(const json_t *object, struct metadata *ret, struct error *e)
{
    if (!json_is_object(object))
        return fail(e, E_INVALID, "metadata must be a JSON object");
    if (json_object_size(object) > METADATA_ITEMS_MAX)
        return fail(e, E_INVALID, "metadata: more than %d items", METADATA_ITEMS_MAX);
    struct metadata m = { 0 };
    int rc = fill_from_json(&m, object, e);
    if (rc < 0) {
        metadata_done(&m);
        return rc;
    }
    *ret = m;
    return 0;
}
