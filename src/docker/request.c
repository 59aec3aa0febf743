#include "docker/request.h"

#include "base/mem.h"
#include "base/size.h"
#include "model/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *path;
    bool named;
} calls[CALL_COUNT] = {
#define X(call, path, named) [call] = { path, named },
    PLUGIN_CALL_TABLE(X)
#undef X
};

enum plugin_call plugin_call_of(const char *path)
{
    for (int c = 0; c < CALL_COUNT; c++)
        if (strcmp(calls[c].path, path) == 0)
            return (enum plugin_call)c;
    return CALL_COUNT;
}

void plugin_request_done(struct plugin_request *r)
{
    metadata_done(&r->metadata);
}

// ---- options of Create: one table reads, checks and lists them

static int read_size(const char *text, struct plugin_request *r, struct error *e)
{
    char decimal[24];
    int rc = size_parse(text, &r->size, e);
    if (rc < 0 || (rc = volume_size_check(r->size, e)) < 0 || r->size == 0)
        return rc < 0 ? rc : fail(e, E_INVALID, "size is 0: leave the option out for a volume without a limit");
    snprintf(decimal, sizeof decimal, "%llu", (unsigned long long)r->size);
    return metadata_set(&r->metadata, "maximum_size", decimal, e); // as the original's plugin does
}

static int read_profile(const char *text, struct plugin_request *r, struct error *e)
{
    return metadata_set(&r->metadata, METADATA_PROFILE, text, e);
}

static int read_number(const char *what, const char *text, int base, unsigned long max, uint32_t *ret, struct error *e)
{
    char *end = NULL;
    errno = 0;
    unsigned long n = strtoul(text, &end, base);
    if (errno || end == text || *end || text[0] == '-' || text[0] == '+' || text[0] == ' ' || n > max)
        return fail(e, E_INVALID, "%s '%.40s' is not a number %s", what, text, base == 8 ? "such as 0750" : "of a user or group");
    *ret = (uint32_t)n;
    return 0;
}

static int read_uid(const char *text, struct plugin_request *r, struct error *e)
{
    return read_number("uid", text, 10, UINT32_MAX - 1, &r->options.uid, e);
}

static int read_gid(const char *text, struct plugin_request *r, struct error *e)
{
    return read_number("gid", text, 10, UINT32_MAX - 1, &r->options.gid, e);
}

static int read_mode(const char *text, struct plugin_request *r, struct error *e)
{
    return read_number("mode", text, 8, 07777, &r->options.mode, e);
}

static int read_nocow(const char *text, struct plugin_request *r, struct error *e)
{
    static const char *const yes[] = { "", "1", "true", "yes" }, *const no[] = { "0", "false", "no" };
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
        if (strcmp(text, yes[i]) == 0) {
            r->options.nocow = true;
            return 0;
        }
    for (size_t i = 0; i < ARRAY_SIZE(no); i++)
        if (strcmp(text, no[i]) == 0)
            return 0;
    return fail(e, E_INVALID, "nocow '%.40s' is neither true nor false", text);
}

static int ignore(const char *text, struct plugin_request *r, struct error *e)
{
    (void)text;
    (void)r;
    (void)e;
    return 0;
}

static const struct option {
    const char *name;
    int (*read)(const char *text, struct plugin_request *r, struct error *e);
} options[] = {
    { "size", read_size },  { "profile", read_profile }, { "uid", read_uid }, { "gid", read_gid },  { "mode", read_mode },
    { "nocow", read_nocow }, { "SIZE", read_size },      { "UID", read_uid }, { "GID", read_gid },  { "INODES", ignore },
    { "NOQUOTA", ignore },  { "o", ignore },
};

static int read_options(const json_t *object, struct plugin_request *r, struct error *e)
{
    const char *key;
    json_t *value;
    if (!object || json_is_null(object))
        return 0;
    if (!json_is_object(object))
        return fail(e, E_INVALID, "Opts is not an object");
    if (json_object_size(object) > OPTIONS_MAX)
        return fail(e, E_INVALID, "more than %d options", OPTIONS_MAX);
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        const struct option *found = NULL;
        for (size_t i = 0; !found && i < ARRAY_SIZE(options); i++)
            if (strcmp(options[i].name, key) == 0)
                found = &options[i];
        if (!found)
            return fail(e, E_INVALID, "unknown option '%.60s': there are size, profile, uid, gid, mode and nocow", key);
        if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
            return fail(e, E_INVALID, "option %s is not a text", key);
        int rc = found->read(json_string_value(value), r, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

// ---- bodies

static int read_id(const json_t *value, struct plugin_request *r, struct error *e)
{
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value) || json_string_length(value) >= sizeof r->id || strlen(json_string_value(value)) != json_string_length(value))
        return fail(e, E_INVALID, "ID is not a text of at most %zu bytes", sizeof r->id - 1);
    snprintf(r->id, sizeof r->id, "%s", json_string_value(value));
    return 0;
}

static int read_members(const json_t *object, struct plugin_request *r, struct error *e)
{
    const json_t *name = json_object_get(object, "Name");
    if (!json_is_object(object))
        return fail(e, E_INVALID, "the request is not a JSON object");
    if (!json_is_string(name))
        return fail(e, E_INVALID, "the request has no Name");
    if (r->call == CALL_CREATE) {
        int rc = strlen(json_string_value(name)) == json_string_length(name) ? volume_name_check(json_string_value(name), e)
                                                                              : fail(e, E_INVALID, "the name holds a NUL character");
        if (rc < 0 || (rc = read_options(json_object_get(object, "Opts"), r, e)) < 0)
            return rc;
    }
    // What is too long or holds a NUL is no volume's name; an empty one is none either.
    if (json_string_length(name) < sizeof r->name && strlen(json_string_value(name)) == json_string_length(name))
        snprintf(r->name, sizeof r->name, "%s", json_string_value(name));
    return read_id(json_object_get(object, "ID"), r, e);
}

int plugin_request_read(enum plugin_call call, const char *body, size_t n, struct plugin_request *ret, struct error *e)
{
    json_t *object = NULL;
    *ret = (struct plugin_request){ .call = call, .options = VOLUME_OPTIONS_DEFAULT };
    if (!calls[call].named)
        return 0; // their bodies say nothing: Podman sends none at all
    ret->empty = n == 0;
    if (ret->empty)
        return 0;
    int rc = json_read(body, n, &object, e);
    if (rc == 0)
        rc = read_members(object, ret, e);
    json_decref(object);
    if (rc < 0)
        plugin_request_done(ret);
    return rc;
}
