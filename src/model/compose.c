#include "model/compose.h"

#include "base/limits.h"
#include "base/size.h"

#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

// One application while it is read: `body` becomes the request for its container.
struct reading {
    const char *name;
    const json_t *all; // applications, by name
    const struct compose_world *world;
    json_t *body;
    uint64_t size;
};

struct key {
    const char *name;
    int (*read)(struct reading *r, const char *key, const json_t *value, struct error *e);
};

static int bad(const struct reading *r, struct error *e, const char *key, const char *what)
{
    return fail(e, E_INVALID, "Application '%.100s' has a config error. Invalid '%.100s' value. %s", r->name, key, what);
}

// ---- keys of both formats

static int copy_as_is(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    (void)e;
    json_object_set_new(r->body, strcmp(key, "mem_limit") == 0 ? "memory_limit" : key, json_deep_copy(value));
    return 0;
}

static void set_volume(struct reading *r, const char *mountpoint, const char *id)
{
    const struct uuid own = r->world->dataset_of(r->name);
    json_object_set_new(r->body, "volumes", json_pack("[{s:s, s:s}]", "dataset_id", id ? id : UUID_TEXT(&own), "mountpoint", mountpoint));
}

// ---- Flocker's format

static int read_volume(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    const char *mountpoint = json_string_value(json_object_get(value, "mountpoint")), *id = NULL, *member;
    const json_t *item;
    if (!json_is_object(value) || !mountpoint)
        return bad(r, e, key, "It has no 'mountpoint'.");
    json_object_foreach ((json_t *)(uintptr_t)value, member, item) {
        if (strcmp(member, "mountpoint") == 0)
            continue;
        if (strcmp(member, "dataset_id") == 0) {
            struct uuid u;
            id = json_string_value(item);
            if (!id || !uuid_parse(id, &u) || !uuid_is_v4(&u))
                return bad(r, e, key, "Its 'dataset_id' is not a UUID of version 4.");
        } else if (strcmp(member, "maximum_size") == 0) {
            AUTO(free) char *number = json_is_integer(item) ? xasprintf("%lld", (long long)json_integer_value(item)) : NULL;
            const char *text = number ? number : json_string_value(item);
            struct error why = ERROR_INIT;
            if (!text || size_parse(text, &r->size, &why) < 0)
                return bad(r, e, key, "Its 'maximum_size' is not a size such as \"10G\".");
            if (r->size < VOLUME_SIZE_MIN)
                return bad(r, e, key, "Its 'maximum_size' is less than 64 MiB.");
        } else
            return fail(e, E_INVALID, "Application '%.100s' has a config error. Unrecognised key in 'volume': %.100s", r->name, member);
    }
    set_volume(r, mountpoint, id);
    return 0;
}

static const struct key flocker_keys[] = {
    { "image", copy_as_is },     { "ports", copy_as_is },      { "links", copy_as_is },          { "environment", copy_as_is },
    { "mem_limit", copy_as_is }, { "cpu_shares", copy_as_is }, { "restart_policy", copy_as_is }, { "volume", read_volume },
    { NULL, NULL },
};

// ---- Fig's format

static int read_fig_environment(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    const json_t *item;
    size_t i;
    if (!json_is_array(value))
        return copy_as_is(r, key, value, e);
    json_t *environment = json_object();
    json_object_set_new(r->body, "environment", environment);
    json_array_foreach (value, i, item) {
        const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;
        if (!text)
            return bad(r, e, key, "An item is not of the form NAME=VALUE.");
        AUTO(free) char *name = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
        json_object_set_new(environment, name, json_string(equals ? equals + 1 : ""));
    }
    return 0;
}

// "EXTERNAL:INTERNAL".
static bool read_fig_port(const char *text, json_int_t *external, json_int_t *internal)
{
    char *end = NULL;
    if (!text || *text < '0' || *text > '9')
        return false;
    *external = strtol(text, &end, 10);
    if (*end != ':' || end[1] < '0' || end[1] > '9')
        return false;
    *internal = strtol(end + 1, &end, 10);
    return *end == '\0';
}

static int read_fig_ports(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    const json_t *item;
    size_t i;
    json_t *ports = json_array();
    json_object_set_new(r->body, "ports", ports);
    if (!json_is_array(value))
        return bad(r, e, key, "It is not a list.");
    json_array_foreach (value, i, item) {
        json_int_t external, internal;
        if (!read_fig_port(json_string_value(item), &external, &internal))
            return bad(r, e, key, "An item is not of the form \"EXTERNAL:INTERNAL\".");
        json_array_append_new(ports, json_pack("{s:I, s:I}", "internal", internal, "external", external));
    }
    return 0;
}

// "APPLICATION" or "APPLICATION:ALIAS": to each port of that one.
static int read_fig_links(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    const json_t *item, *port;
    size_t i, k;
    json_t *links = json_array();
    json_object_set_new(r->body, "links", links);
    if (!json_is_array(value))
        return bad(r, e, key, "It is not a list.");
    json_array_foreach (value, i, item) {
        const char *text = json_string_value(item), *colon = text ? strchr(text, ':') : NULL;
        AUTO(free) char *name = colon ? xstrndup(text, (size_t)(colon - text)) : xstrdup(text ? text : "");
        const json_t *target = json_object_get(r->all, name);
        if (!target)
            return bad(r, e, key, "An item names an application that is not there.");
        json_array_foreach (json_object_get(target, "ports"), k, port) {
            json_int_t external, internal;
            if (read_fig_port(json_string_value(port), &external, &internal))
                json_array_append_new(links, json_pack("{s:s, s:I, s:I}", "alias", colon ? colon + 1 : name, "local_port", internal,
                                                       "remote_port", external));
        }
    }
    if (json_array_size(links) == 0)
        json_object_del(r->body, "links");
    return 0;
}

static int read_fig_volumes(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    const char *path = json_string_value(json_array_get(value, 0));
    if (json_array_size(value) != 1 || !path)
        return bad(r, e, key, "Only a single path is supported.");
    set_volume(r, path, NULL);
    return 0;
}

static int refuse_build(struct reading *r, const char *key, const json_t *value, struct error *e)
{
    (void)value;
    return fail(e, E_INVALID, "Application '%.100s' has a config error. '%s' is not supported yet; please specify 'image' instead.", r->name, key);
}

static const struct key fig_keys[] = {
    { "image", copy_as_is },
    { "environment", read_fig_environment },
    { "ports", read_fig_ports },
    { "links", read_fig_links },
    { "volumes", read_fig_volumes },
    { "mem_limit", copy_as_is },
    { "build", refuse_build },
    { NULL, NULL },
};

// ---- an application

static int read_application(struct reading *r, const struct key *keys, const json_t *given, struct error *e)
{
    const char *name;
    const json_t *value;
    if (!json_is_object(given))
        return fail(e, E_INVALID, "Application '%.100s' has a config error. It is not a mapping of keys to values.", r->name);
    json_object_foreach ((json_t *)(uintptr_t)given, name, value) {
        const struct key *k = keys;
        while (k->name && strcmp(k->name, name) != 0)
            k++;
        if (!k->name)
            return fail(e, E_INVALID, "Application '%.100s' has a config error. Unrecognised key, or one that is not supported: %.100s", r->name,
                        name);
        int rc = k->read(r, name, value, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int add_application(struct compose *ret, struct reading *r, const struct key *keys, const struct uuid *node, struct error *e)
{
    struct container *c = NULL;
    AUTO(json_decref) json_t *body = json_pack("{s:s, s:s}", "name", r->name, "node_uuid", UUID_TEXT(node));
    r->body = body;
    int rc = read_application(r, keys, json_object_get(r->all, r->name), e);
    if (rc < 0)
        return rc;
    if ((rc = container_from_v1(body, &c, e)) < 0)
        return fail_ctx(e, rc, "Application '%.100s' has a config error", r->name);
    ret->applications = xrealloc(ret->applications, ret->n + 1, sizeof *ret->applications);
    ret->applications[ret->n++] = (struct compose_application){ c, r->size };
    return 0;
}

// ---- the documents

// Fig's documents have applications at the top.
static bool is_fig(const json_t *document)
{
    const char *name;
    const json_t *value;
    bool any = false;
    json_object_foreach ((json_t *)(uintptr_t)document, name, value) {
        if (!json_object_get(value, "image") && !json_object_get(value, "build"))
            return false;
        any = true;
    }
    return any;
}

static int check_version(const json_t *document, const char *kind, const char *content, struct error *e)
{
    const char *name;
    const json_t *value, *version = json_object_get(document, "version");
    if (!version)
        return fail(e, E_INVALID, "%s configuration has an error. Missing 'version' key.", kind);
    if (json_integer_value(version) != 1)
        return fail(e, E_INVALID, "%s configuration has an error. Incorrect version specified: there is 1.", kind);
    if (!json_is_object(json_object_get(document, content)))
        return fail(e, E_INVALID, "%s configuration has an error. Missing '%s' key, or it is not a mapping.", kind, content);
    json_object_foreach ((json_t *)(uintptr_t)document, name, value) {
        if (strcmp(name, "version") != 0 && strcmp(name, content) != 0)
            return fail(e, E_INVALID, "%s configuration has an error. Unrecognised key: %.100s", kind, name);
    }
    return 0;
}

static bool is_placed(const struct compose *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->applications[i].container->name, name) == 0)
            return true;
    return false;
}

struct place {
    struct uuid node;
    const char *address;
};

static int read_place(const struct place *place, const json_t *names, struct reading *r, const struct key *keys, struct compose *ret, struct error *e)
{
    const json_t *item;
    size_t i;
    if (!json_is_array(names))
        return fail(e, E_INVALID, "Node '%.100s' has a config error. Its value is not a list of applications.", place->address);
    json_array_foreach (names, i, item) {
        const char *name = json_string_value(item);
        if (!name || !json_object_get(r->all, name))
            return fail(e, E_INVALID, "Node '%.100s' has a config error. Unrecognised application name: '%.100s'.", place->address, name ? name : "?");
        if (is_placed(ret, name))
            return fail(e, E_INVALID, "Application '%.100s' is on more than one node.", name);
        if (ret->n >= CONTAINERS_MAX)
            return fail(e, E_INVALID, "There are more than %d applications, the limit.", CONTAINERS_MAX);
        struct reading one = { .name = name, .all = r->all, .world = r->world };
        int rc = add_application(ret, &one, keys, &place->node, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_all(const json_t *deployment, struct reading *r, const struct key *keys, void *arg, struct compose *ret, struct error *e)
{
    const char *address;
    const json_t *names;
    json_object_foreach ((json_t *)(uintptr_t)json_object_get(deployment, "nodes"), address, names) {
        struct place place = { .address = address };
        if (!r->world->node_of_address(arg, address, &place.node))
            return fail(e, E_INVALID, "The deployment names the node '%.100s', which is not one that is heard of.", address);
        int rc = read_place(&place, names, r, keys, ret, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int compose_read(const json_t *applications, const json_t *deployment, const struct compose_world *world, void *arg, struct compose *ret,
                 struct error *e)
{
    const bool fig = is_fig(applications);
    struct compose read = { 0, NULL };
    struct reading r = { .all = fig ? applications : json_object_get(applications, "applications"), .world = world };
    int rc = fig ? 0 : check_version(applications, "Application", "applications", e);
    if (rc == 0)
        rc = check_version(deployment, "Deployment", "nodes", e);
    if (rc == 0)
        rc = read_all(deployment, &r, fig ? fig_keys : flocker_keys, arg, &read, e);
    if (rc < 0)
        compose_done(&read);
    else
        *ret = read;
    return rc;
}

void compose_done(struct compose *c)
{
    for (size_t i = 0; i < c->n; i++)
        container_free(c->applications[i].container);
    free(c->applications);
}
