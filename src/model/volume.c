#include "model/volume.h"

#include "base/limits.h"
#include "base/size.h"

#include <string.h>

static const char *const state_words[VOLUME_STATE_COUNT] = {
#define X(state, word) [state] = word,
    VOLUME_STATE_TABLE(X)
#undef X
};

static const char *const stage_words[MOVE_STAGE_COUNT] = {
#define X(stage, word) [stage] = word,
    MOVE_STAGE_TABLE(X)
#undef X
};

struct volume *volume_new(void)
{
    struct volume *v = xcalloc(1, sizeof *v);
    v->options = (struct volume_options)VOLUME_OPTIONS_DEFAULT;
    return v;
}

void volume_free(struct volume *v)
{
    if (!v)
        return;
    metadata_done(&v->metadata);
    free(v->name);
    free(v);
}

struct volume *volume_copy(const struct volume *v)
{
    struct volume *copy = xcalloc(1, sizeof *copy);
    *copy = *v;
    copy->name = v->name ? xstrdup(v->name) : NULL;
    metadata_copy(&copy->metadata, &v->metadata);
    return copy;
}

const char *volume_state_word(enum volume_state s)
{
    ASSERT((unsigned)s < VOLUME_STATE_COUNT);
    return state_words[s];
}

const char *move_stage_word(enum move_stage s)
{
    ASSERT((unsigned)s < MOVE_STAGE_COUNT);
    return stage_words[s];
}

bool volume_concerns(const struct volume *v, const struct uuid *node)
{
    return uuid_equal(&v->owner, node) || uuid_equal(&v->target, node) || (!uuid_is_zero(&v->move.source) && uuid_equal(&v->move.source, node));
}

const char *volume_label(const struct volume *v, char buffer[UUID_TEXT_SIZE])
{
    return v->name ? v->name : uuid_format(&v->id, buffer);
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int volume_name_check(const char *name, struct error *e)
{
    size_t n = strnlen(name, NAME_BYTES_MAX + 1);
    if (n == 0)
        return fail(e, E_INVALID, "a volume name must not be empty");
    if (n > NAME_BYTES_MAX)
        return fail(e, E_INVALID, "volume name \"%.16s...\" is too long: at most %d bytes", name, NAME_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        if (is_name_start(name[i]) || (i > 0 && strchr("_.-", name[i])))
            continue;
        // Only what was found good is repeated: the rest could be a control sequence for somebody's terminal.
        return fail(
            e, E_INVALID,
            "volume name: byte 0x%02x after \"%.*s\" is not allowed: letters, digits, and after the first also '_', '.' and '-'",
            (unsigned)(unsigned char)name[i], (int)i, name);
    }
    return 0;
}

#define COPY_FACTOR 2
#define COPY_EXTRA  (64ULL << 20)

uint64_t volume_copy_max(uint64_t size)
{
    if (size == 0 || size > VOLUME_SIZE_MAX)
        return TRANSFER_BYTES_MAX;
    uint64_t most = COPY_FACTOR * size + COPY_EXTRA;
    return most < TRANSFER_BYTES_MAX ? most : TRANSFER_BYTES_MAX;
}

int volume_size_check(uint64_t size, struct error *e)
{
    if (size == 0)
        return 0;
    if (size < VOLUME_SIZE_MIN || size > VOLUME_SIZE_MAX) {
        char is[SIZE_TEXT_SIZE], limit[SIZE_TEXT_SIZE];
        bool is_small = size < VOLUME_SIZE_MIN;
        return fail(e, E_INVALID, "size %s is too %s: %s at %s", size_format(size, is), is_small ? "small" : "large",
                    size_format(is_small ? VOLUME_SIZE_MIN : VOLUME_SIZE_MAX, limit), is_small ? "least" : "most");
    }
    if (size % VOLUME_SIZE_UNIT != 0)
        return fail(e, E_INVALID, "size %llu is not a multiple of %llu bytes", (unsigned long long)size, VOLUME_SIZE_UNIT);
    return 0;
}

// ---- JSON ---------------------------------------------------------------------------------------------------------------------

// One table writes and reads every member, in this order. Integers in JSON are signed 64-bit for jansson, so max is INT64_MAX
// where the type could hold more: no counter gets there.
enum member_kind {
    MEMBER_UUID,
    MEMBER_NAME,
    MEMBER_SIZE,
    MEMBER_METADATA,
    MEMBER_STATE,
    MEMBER_STAGE,
    MEMBER_BOOL,
    MEMBER_U32,
    MEMBER_U64,
    MEMBER_MS
};

#define MOVE_GROUP "move" // written only while it says anything: most volumes never move

static const struct member {
    const char *group; // name of the object that it is in; NULL: the volume's own
    const char *name;
    enum member_kind kind;
    size_t offset;
    json_int_t min, max; // of integers
} members[] = {
#define AT(field) offsetof(struct volume, field)
    { NULL, "id", MEMBER_UUID, AT(id), 0, 0 },
    { NULL, "name", MEMBER_NAME, AT(name), 0, 0 },
    { NULL, "size", MEMBER_SIZE, AT(size), 0, INT64_MAX },
    { NULL, "metadata", MEMBER_METADATA, AT(metadata), 0, 0 },
    { "options", "uid", MEMBER_U32, AT(options.uid), 0, UINT32_MAX - 1 }, // chown(2) takes (uid_t)-1 as "leave it"
    { "options", "gid", MEMBER_U32, AT(options.gid), 0, UINT32_MAX - 1 },
    { "options", "mode", MEMBER_U32, AT(options.mode), 0, 07777 },
    { "options", "nocow", MEMBER_BOOL, AT(options.nocow), 0, 0 },
    { NULL, "owner", MEMBER_UUID, AT(owner), 0, 0 },
    { NULL, "target", MEMBER_UUID, AT(target), 0, 0 },
    { MOVE_GROUP, "stage", MEMBER_STAGE, AT(move.stage), 0, 0 },
    { MOVE_GROUP, "source", MEMBER_UUID, AT(move.source), 0, 0 },
    { MOVE_GROUP, "force", MEMBER_BOOL, AT(move.force), 0, 0 },
    { MOVE_GROUP, "rate", MEMBER_U64, AT(move.rate), 0, INT64_MAX },
    { NULL, "epoch", MEMBER_U64, AT(epoch), 1, INT64_MAX },
    { NULL, "accepts", MEMBER_U64, AT(accepts), 0, INT64_MAX }, // written only if there is one
    { NULL, "revision", MEMBER_U64, AT(revision), 1, INT64_MAX },
    { NULL, "state", MEMBER_STATE, AT(state), 0, 0 },
    { NULL, "born", MEMBER_BOOL, AT(born), 0, 0 },
    { NULL, "keep_mounted", MEMBER_BOOL, AT(keep_mounted), 0, 0 },
    { NULL, "created_ms", MEMBER_MS, AT(created_ms), 0, INT64_MAX },
    { NULL, "trashed_ms", MEMBER_MS, AT(trashed_ms), 0, INT64_MAX },
    { NULL, "purge_ms", MEMBER_MS, AT(purge_ms), 0, INT64_MAX },
#undef AT
};

// What is written can be read again: a number out of its limits is a bug here, not in the reader.
static json_t *integer_to_json(const struct member *m, int64_t n)
{
    ASSERT(n >= m->min && n <= m->max);
    return json_integer(n);
}

static json_t *member_to_json(const struct member *m, const struct volume *v)
{
    const void *p = (const char *)v + m->offset;
    switch (m->kind) {
    case MEMBER_UUID:
        return json_string(UUID_TEXT((const struct uuid *)p));
    case MEMBER_NAME:
        return json_string(*(char *const *)p);
    case MEMBER_METADATA:
        return metadata_to_json(p);
    case MEMBER_STATE:
        return json_string(volume_state_word(*(const enum volume_state *)p));
    case MEMBER_STAGE:
        return json_string(move_stage_word(*(const enum move_stage *)p));
    case MEMBER_BOOL:
        return json_boolean(*(const bool *)p);
    case MEMBER_U32:
        return integer_to_json(m, *(const uint32_t *)p);
    case MEMBER_SIZE:
    case MEMBER_U64: // above INT64_MAX it is negative, and refused
    case MEMBER_MS:
        return integer_to_json(m, *(const int64_t *)p);
    }
    ASSERT(false); // a kind of member that is not in the switch
}

static bool is_of_move(const struct member *m)
{
    return m->group && strcmp(m->group, MOVE_GROUP) == 0;
}

static bool is_accepts(const struct member *m)
{
    return m->offset == offsetof(struct volume, accepts);
}

static bool has_move(const struct volume *v)
{
    return v->move.stage != MOVE_NONE || v->move.force || v->move.rate;
}

json_t *volume_to_json(const struct volume *v)
{
    json_t *object = json_object();
    ASSERT(object);
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        const struct member *m = &members[i];
        if ((m->kind == MEMBER_NAME && !v->name) || (is_of_move(m) && !has_move(v)) || (is_accepts(m) && !v->accepts))
            continue;
        json_t *in = object;
        if (m->group) {
            in = json_object_get(object, m->group);
            if (!in) {
                in = json_object();
                int rc = json_object_set_new(object, m->group, in);
                ASSERT(rc == 0);
            }
        }
        int rc = json_object_set_new(in, m->name, member_to_json(m, v));
        ASSERT(rc == 0); // all text in a volume is checked before it gets there
    }
    return object;
}

static int read_name(const json_t *value, char **ret, struct error *e)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) != json_string_length(value))
        return fail(e, E_INVALID, "not a text");
    int rc = volume_name_check(text, e);
    if (rc == 0)
        *ret = xstrdup(text);
    return rc;
}

// The place of a word in a table of `count`.
static int read_word(const json_t *value, const char *const words[], int count, int *ret, struct error *e)
{
    const char *word = json_string_value(value);
    for (int i = 0; word && i < count; i++)
        if (strcmp(word, words[i]) == 0) {
            *ret = i;
            return 0;
        }
    return fail(e, E_INVALID, "not a word that this version knows");
}

static int read_integer(const struct member *m, const json_t *value, json_int_t *ret, struct error *e)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < m->min || n > m->max)
        return fail(e, E_INVALID, "not an integer from %lld to %lld", (long long)m->min, (long long)m->max);
    *ret = n;
    return 0;
}

static int member_from_json(const struct member *m, const json_t *value, struct volume *v, struct error *e)
{
    void *p = (char *)v + m->offset;
    json_int_t n = 0;
    int rc, at = 0;
    switch (m->kind) {
    case MEMBER_UUID:
        return json_is_string(value) && uuid_parse(json_string_value(value), p) ? 0 : fail(e, E_INVALID, "not a UUID");
    case MEMBER_NAME:
        return read_name(value, p, e);
    case MEMBER_METADATA:
        return metadata_from_json(value, p, e);
    case MEMBER_STATE:
        rc = read_word(value, state_words, VOLUME_STATE_COUNT, &at, e);
        *(enum volume_state *)p = (enum volume_state)at;
        return rc;
    case MEMBER_STAGE:
        rc = read_word(value, stage_words, MOVE_STAGE_COUNT, &at, e);
        *(enum move_stage *)p = (enum move_stage)at;
        return rc;
    case MEMBER_BOOL:
        *(bool *)p = json_is_true(value);
        return json_is_boolean(value) ? 0 : fail(e, E_INVALID, "neither true nor false");
    case MEMBER_U32:
        rc = read_integer(m, value, &n, e);
        *(uint32_t *)p = (uint32_t)n;
        return rc;
    case MEMBER_SIZE:
    case MEMBER_U64:
        rc = read_integer(m, value, &n, e);
        *(uint64_t *)p = (uint64_t)n;
        return rc == 0 && m->kind == MEMBER_SIZE ? volume_size_check((uint64_t)n, e) : rc;
    case MEMBER_MS:
        rc = read_integer(m, value, &n, e);
        *(int64_t *)p = n;
        return rc;
    }
    ASSERT(false); // a kind of member that is not in the switch
}

int volume_from_json(const json_t *object, struct volume **ret, struct error *e)
{
    if (!json_is_object(object))
        return fail(e, E_INVALID, "a volume must be a JSON object");
    AUTO(volume_free) struct volume *v = volume_new();
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        const struct member *m = &members[i];
        const json_t *in = m->group ? json_object_get(object, m->group) : object;
        const json_t *value = json_object_get(in, m->name); // NULL too if `in` is no object
        const char *group = m->group ? m->group : "", *dot = m->group ? "." : "";
        if (!value && (m->kind == MEMBER_NAME || is_accepts(m) || (is_of_move(m) && !in)))
            continue;
        if (!value)
            return fail(e, E_INVALID, "volume: \"%s%s%s\" is missing", group, dot, m->name);
        int rc = member_from_json(m, value, v, e);
        if (rc < 0)
            return fail_ctx(e, rc, "volume: \"%s%s%s\"", group, dot, m->name);
    }
    if (uuid_is_zero(&v->id))
        return fail(e, E_INVALID, "volume: \"id\" is zero");
    if (v->state == VOLUME_LIVE && (v->trashed_ms != 0 || v->purge_ms != 0))
        return fail(e, E_INVALID, "volume: \"trashed_ms\" and \"purge_ms\" must be 0 while its state is \"live\"");
    bool moved = v->move.stage == MOVE_SETTLE || v->move.stage == MOVE_RELEASE;
    if (moved == uuid_is_zero(&v->move.source))
        return fail(e, E_INVALID, "volume: \"move.source\" does not fit its stage");
    *ret = TAKE(v, NULL);
    return 0;
}
