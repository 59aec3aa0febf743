#include "model/container.h"

#include "base/limits.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PORT_MAX         65535
#define COMMAND_WORDS    4096 // Flocker v1: words of a command line, and characters of each
#define COMMAND_CHARS    4096
#define IMAGE_BYTES_MAX  255
#define ALIAS_BYTES_MAX  64
#define CPU_SHARES_MAX   1024
#define MEMORY_BYTES_MIN 1048576
#define SWAPPINESS_MAX   100

void container_free(struct container *c)
{
    if (!c)
        return;
    json_decref(c->settings);
    free(c->leaving);
    free(c->name);
    free(c);
}

struct container *container_copy(const struct container *c)
{
    struct container *copy = xcalloc(1, sizeof *copy);
    *copy = *c;
    copy->name = xstrdup(c->name);
    copy->settings = json_deep_copy(c->settings);
    copy->leaving = NULL;
    copy->leaving_n = 0;
    for (size_t i = 0; i < c->leaving_n; i++)
        container_leave(copy, &c->leaving[i]);
    return copy;
}

// ---- the schema

struct sink {
    container_violation *tell;
    void *arg;
};

static void violation(const struct sink *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void violation(const struct sink *s, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    s->tell(s->arg, text);
}

static void check_int(const json_t *value, const char *name, json_int_t min, json_int_t max, const struct sink *s)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value))
        violation(s, "'%s' is not of type 'integer'", name);
    else if (n < min)
        violation(s, "%lld is less than the minimum of %lld ('%s')", (long long)n, (long long)min, name);
    else if (n > max)
        violation(s, "%lld is greater than the maximum of %lld ('%s')", (long long)n, (long long)max, name);
}

struct member {
    const char *name;
    bool required;
    void (*check)(const json_t *value, const char *name, const struct sink *s);
};

static void check_members(const json_t *object, const char *name, const struct member *members, size_t n, const struct sink *s)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        violation(s, "%s is not of type 'object'", name);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        value = json_object_get(object, members[i].name);
        if (value)
            members[i].check(value, members[i].name, s);
        else if (members[i].required)
            violation(s, "'%s' is a required property", members[i].name);
    }
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        bool known = false;
        for (size_t i = 0; i < n; i++)
            known |= strcmp(members[i].name, key) == 0;
        if (!known)
            violation(s, "Additional properties are not allowed ('%.100s' was unexpected)", key);
    }
}

// Each item of an array; all different if `unique`.
static void check_items(const json_t *array, const char *name, size_t min, size_t max, bool unique,
                        void (*check)(const json_t *value, const char *name, const struct sink *s), const struct sink *s)
{
    size_t n = json_array_size(array);
    if (!json_is_array(array))
        violation(s, "'%s' is not of type 'array'", name);
    else if (n < min)
        violation(s, "'%s' is too short", name);
    else if (n > max)
        violation(s, "'%s' is too long: %zu items, at most %zu", name, n, max);
    else
        for (size_t i = 0; i < n; i++) {
            check(json_array_get(array, i), name, s);
            for (size_t j = 0; unique && j < i; j++)
                if (json_equal(json_array_get(array, i), json_array_get(array, j)))
                    violation(s, "'%s' has non-unique elements", name);
        }
}

static void check_uuid(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    struct uuid u;
    if (!text || !uuid_parse(text, &u) || !uuid_is_v4(&u))
        violation(s, "'%s' is not a UUID of version 4", name);
}

static bool is_name(const char *text)
{
    text += *text == '/';
    size_t n = strlen(text);
    if (n < 2 || n > CONTAINER_NAME_MAX || !isascii(*text) || !isalnum((unsigned char)*text))
        return false;
    for (; *text; text++)
        if (!isascii(*text) || !(isalnum((unsigned char)*text) || strchr("_.-", *text)))
            return false;
    return true;
}

static void check_name(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    if (!text || !is_name(text))
        violation(s, "'%s' does not match '^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$', or has more than %d characters", name, CONTAINER_NAME_MAX);
}

static void check_image(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    size_t n = text ? strlen(text) : 0;
    bool is_good = n > 0 && n <= IMAGE_BYTES_MAX && isalnum((unsigned char)text[0]) && isalnum((unsigned char)text[n - 1]);
    for (size_t i = 0; i < n; i++)
        is_good &= isascii(text[i]) && (isalnum((unsigned char)text[i]) || strchr("._/:@-", text[i]));
    if (!is_good)
        violation(s, "'%s' is not the name of an image, as 'repository:tag'", name);
}

static void check_port(const json_t *value, const char *name, const struct sink *s)
{
    check_int(value, name, 1, PORT_MAX, s);
}

static void check_port_pair(const json_t *value, const char *name, const struct sink *s)
{
    static const struct member members[] = { { "internal", true, check_port }, { "external", true, check_port } };
    check_members(value, name, members, ARRAY_SIZE(members), s);
}

static void check_ports(const json_t *value, const char *name, const struct sink *s)
{
    check_items(value, name, 1, 256, true, check_port_pair, s);
}

static void check_alias(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    size_t n = text ? strlen(text) : 0;
    bool is_good = n > 0 && n <= ALIAS_BYTES_MAX;
    for (size_t i = 0; i < n; i++)
        is_good &= isascii(text[i]) && isalnum((unsigned char)text[i]);
    if (!is_good)
        violation(s, "'%s' does not match '^[a-zA-Z0-9]+$', or has more than %d characters", name, ALIAS_BYTES_MAX);
}

static void check_link(const json_t *value, const char *name, const struct sink *s)
{
    static const struct member members[] = {
        { "alias", true, check_alias }, { "local_port", true, check_port }, { "remote_port", true, check_port },
    };
    check_members(value, name, members, ARRAY_SIZE(members), s);
}

static void check_links(const json_t *value, const char *name, const struct sink *s)
{
    check_items(value, name, 1, 256, true, check_link, s);
}

static void check_environment(const json_t *value, const char *name, const struct sink *s)
{
    const char *key;
    json_t *item;
    if (!json_is_object(value))
        violation(s, "'%s' is not of type 'object'", name);
    json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
        if (!*key || strchr(key, '='))
            violation(s, "'%.100s' in '%s' is not the name of a variable", key, name);
        if (!json_is_string(item))
            violation(s, "the value of '%.100s' in '%s' is not of type 'string'", key, name);
    }
}

static void check_mountpoint(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    if (!text || text[0] != '/' || strspn(text, "/") == strlen(text) || strlen(text) > COMMAND_CHARS)
        violation(s, "'%s' is not an absolute path other than '/'", name);
}

static void check_volume(const json_t *value, const char *name, const struct sink *s)
{
    static const struct member members[] = { { "dataset_id", true, check_uuid }, { "mountpoint", true, check_mountpoint } };
    check_members(value, name, members, ARRAY_SIZE(members), s);
}

static void check_volumes(const json_t *value, const char *name, const struct sink *s)
{
    check_items(value, name, 0, 1, false, check_volume, s);
}

static const struct {
    const char *word;
    bool counts; // takes maximum_retry_count
} policies[] = { { "never", false }, { "always", false }, { "on-failure", true } };

static void check_policy_name(const json_t *value, const char *name, const struct sink *s)
{
    const char *text = json_string_value(value);
    for (size_t i = 0; text && i < ARRAY_SIZE(policies); i++)
        if (strcmp(policies[i].word, text) == 0)
            return;
    violation(s, "'%s' is not one of 'never', 'always', 'on-failure'", name);
}

static void check_retries(const json_t *value, const char *name, const struct sink *s)
{
    check_int(value, name, 1, INT32_MAX, s);
}

static void check_policy(const json_t *value, const char *name, const struct sink *s)
{
    static const struct member members[] = { { "name", true, check_policy_name }, { "maximum_retry_count", false, check_retries } };
    const char *word = json_string_value(json_object_get(value, "name"));
    check_members(value, name, members, ARRAY_SIZE(members), s);
    for (size_t i = 0; word && i < ARRAY_SIZE(policies); i++)
        if (strcmp(policies[i].word, word) == 0 && !policies[i].counts && json_object_get(value, "maximum_retry_count"))
            violation(s, "Additional properties are not allowed ('maximum_retry_count' was unexpected)");
}

static void check_cpu_shares(const json_t *value, const char *name, const struct sink *s)
{
    check_int(value, name, 1, CPU_SHARES_MAX, s);
}

static void check_memory(const json_t *value, const char *name, const struct sink *s)
{
    check_int(value, name, MEMORY_BYTES_MIN, INT64_MAX, s);
}

static void check_swappiness(const json_t *value, const char *name, const struct sink *s)
{
    check_int(value, name, 0, SWAPPINESS_MAX, s);
}

static void check_word(const json_t *value, const char *name, const struct sink *s)
{
    if (!json_is_string(value) || json_string_length(value) > COMMAND_CHARS)
        violation(s, "an item of '%s' is not a string of at most %d characters", name, COMMAND_CHARS);
}

static void check_command(const json_t *value, const char *name, const struct sink *s)
{
    check_items(value, name, 0, COMMAND_WORDS, false, check_word, s);
}

static const struct member container_members[] = {
    { "node_uuid", true, check_uuid },
    { "name", true, check_name },
    { "image", true, check_image },
    { "ports", false, check_ports },
    { "links", false, check_links },
    { "environment", false, check_environment },
    { "restart_policy", false, check_policy },
    { "volumes", false, check_volumes },
    { "cpu_shares", false, check_cpu_shares },
    { "memory_limit", false, check_memory },
    { "command_line", false, check_command },
    { "swappiness", false, check_swappiness },
};

void container_check(const json_t *object, container_violation *tell, void *arg)
{
    const struct sink s = { tell, arg };
    check_members(object, "the body", container_members, ARRAY_SIZE(container_members), &s);
    size_t n = json_dumpb(object, NULL, 0, JSON_COMPACT);
    if (json_is_object(object) && n > CONTAINER_BYTES_MAX)
        violation(&s, "the settings of a container take %zu bytes as JSON, more than the limit of %u", n, CONTAINER_BYTES_MAX);
}

// ---- normal form

// With the tag that an image without one stands for. One that is named by its digest has none.
static json_t *normal_image(const char *image)
{
    const char *slash = strrchr(image, '/');
    bool has_tag = strchr(image, '@') || strchr(slash ? slash : image, ':');
    AUTO(free) char *text = xasprintf("%s%s", image, has_tag ? "" : ":latest");
    return json_string(text);
}

static json_t *lower(const char *text)
{
    AUTO(free) char *copy = xstrdup(text);
    for (char *p = copy; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return json_string(copy);
}

// Empty collections are as good as none.
static void drop_empty(json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (value && (json_is_object(value) ? json_object_size(value) : json_array_size(value)) == 0)
        json_object_del(object, name);
}

static json_t *normal_settings(const json_t *object)
{
    static const char *const collections[] = { "environment", "volumes", "command_line" };
    json_t *s = json_deep_copy(object), *item;
    size_t i;
    ASSERT(s);
    json_object_del(s, "name");
    json_object_del(s, "node_uuid");
    json_object_set_new(s, "image", normal_image(json_string_value(json_object_get(s, "image"))));
    json_array_foreach (json_object_get(s, "links"), i, item) {
        json_object_set_new(item, "alias", lower(json_string_value(json_object_get(item, "alias"))));
    }
    json_array_foreach (json_object_get(s, "volumes"), i, item) {
        json_object_set_new(item, "dataset_id", lower(json_string_value(json_object_get(item, "dataset_id"))));
    }
    for (i = 0; i < ARRAY_SIZE(collections); i++)
        drop_empty(s, collections[i]);
    if (!json_object_get(s, "restart_policy"))
        json_object_set_new(s, "restart_policy", json_pack("{s:s}", "name", "never"));
    return s;
}

static void keep_first(void *arg, const char *text)
{
    struct error *e = arg;
    if (e->code == E_NONE)
        fail(e, E_INVALID, "container: %s", text);
}

int container_from_v1(const json_t *object, struct container **ret, struct error *e)
{
    struct error why = ERROR_INIT;
    container_check(object, keep_first, &why);
    if (why.code != E_NONE) {
        *e = why;
        return -(int)e->code;
    }
    struct container *c = xcalloc(1, sizeof *c);
    const char *name = json_string_value(json_object_get(object, "name"));
    const char *volume;
    c->name = xstrdup(name + (name[0] == '/'));
    c->revision = 1;
    c->settings = normal_settings(object);
    uuid_parse(json_string_value(json_object_get(object, "node_uuid")), &c->node);
    volume = json_string_value(json_object_get(json_array_get(json_object_get(c->settings, "volumes"), 0), "dataset_id"));
    if (volume)
        uuid_parse(volume, &c->volume);
    *ret = c;
    return 0;
}

json_t *container_to_v1(const struct container *c)
{
    json_t *object = json_deep_copy(c->settings);
    ASSERT(object);
    json_object_del(object, "swappiness"); // as in the original
    json_object_set_new(object, "name", json_string(c->name));
    json_object_set_new(object, "node_uuid", json_string(UUID_TEXT(&c->node)));
    return object;
}

// ---- between programs

json_t *container_to_json(const struct container *c)
{
    json_t *settings = json_deep_copy(c->settings), *leaving = json_array();
    json_object_set_new(settings, "name", json_string(c->name));
    json_object_set_new(settings, "node_uuid", json_string(UUID_TEXT(&c->node)));
    for (size_t i = 0; i < c->leaving_n; i++)
        json_array_append_new(leaving, json_string(UUID_TEXT(&c->leaving[i])));
    json_t *object = json_pack("{s:o, s:I, s:b, s:o}", "container", settings, "revision", (json_int_t)c->revision, "deleted", (int)c->deleted,
                               "leaving", leaving);
    ASSERT(object);
    return object;
}

int container_from_json(const json_t *object, struct container **ret, struct error *e)
{
    AUTO(container_free) struct container *c = NULL;
    const json_t *item;
    size_t i;
    json_int_t revision = json_integer_value(json_object_get(object, "revision"));
    int rc = container_from_v1(json_object_get(object, "container"), &c, e);
    if (rc < 0)
        return rc;
    ASSERT(c);
    if (revision < 1)
        return fail(e, E_INVALID, "container %s: its revision is not a number from 1 on", c->name);
    c->revision = (uint64_t)revision;
    c->deleted = json_is_true(json_object_get(object, "deleted"));
    json_array_foreach (json_object_get(object, "leaving"), i, item) {
        struct uuid node;
        const char *text = json_string_value(item);
        if (!text || !uuid_parse(text, &node) || c->leaving_n >= NODES_MAX)
            return fail(e, E_INVALID, "container %s: it is leaving a node whose name is not a UUID, or too many nodes", c->name);
        container_leave(c, &node);
    }
    *ret = TAKE(c, NULL);
    return 0;
}

// ---- questions

bool container_is_alike(const struct container *a, const struct container *b)
{
    return json_equal(a->settings, b->settings) == 1;
}

bool container_has_port(const struct container *c, json_int_t external)
{
    const json_t *port;
    size_t i;
    json_array_foreach (json_object_get(c->settings, "ports"), i, port) {
        if (json_integer_value(json_object_get(port, "external")) == external)
            return true;
    }
    return false;
}

bool container_is_leaving(const struct container *c, const struct uuid *node)
{
    for (size_t i = 0; i < c->leaving_n; i++)
        if (uuid_equal(&c->leaving[i], node))
            return true;
    return false;
}

void container_leave(struct container *c, const struct uuid *node)
{
    if (container_is_leaving(c, node))
        return;
    c->leaving = xrealloc(c->leaving, c->leaving_n + 1, sizeof *c->leaving);
    c->leaving[c->leaving_n++] = *node;
}

void container_has_left(struct container *c, const struct uuid *node)
{
    for (size_t i = 0; i < c->leaving_n; i++)
        if (uuid_equal(&c->leaving[i], node)) {
            c->leaving[i] = c->leaving[--c->leaving_n];
            return;
        }
}

bool container_restarts(const struct container *c, int exit_code, unsigned restarts)
{
    const json_t *policy = json_object_get(c->settings, "restart_policy");
    const char *word = json_string_value(json_object_get(policy, "name"));
    json_int_t most = json_integer_value(json_object_get(policy, "maximum_retry_count"));
    ASSERT(word);
    if (strcmp(word, "always") == 0)
        return true;
    return strcmp(word, "on-failure") == 0 && exit_code != 0 && (most == 0 || restarts < (json_int_t)most);
}
