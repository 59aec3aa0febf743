// REST API v1, as the original Flocker answers it: the reference is its clients (flockerctl, the Kubernetes plugin, the old Docker plugin).
// The word for a volume here, and only here, is dataset.
#include "control/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// ---- checking bodies: every violation is told, in the wording of the original's schema library

#define VIOLATIONS_MAX 100 // that are told: a small body can hold a hundred thousand

void v1_violation(json_t *errors, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (json_array_size(errors) >= VIOLATIONS_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_array_append_new(errors, json_text(text));
}

static void check_metadata(const json_t *value, const char *name, json_t *errors)
{
    const char *key;
    json_t *item;
    struct metadata m = { 0, NULL };
    struct error e = ERROR_INIT;
    if (!json_is_object(value)) {
        v1_violation(errors, "'%s' is not of type 'object'", name);
        return;
    }
    if (json_object_size(value) > METADATA_ITEMS_MAX)
        v1_violation(errors, "'%s' has too many properties: at most %d", name, METADATA_ITEMS_MAX);
    json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
        if (!json_is_string(item))
            v1_violation(errors, "the value of '%.100s' in '%s' is not of type 'string'", key, name);
        else if (strlen(json_string_value(item)) != json_string_length(item))
            v1_violation(errors, "the value of '%.100s' in '%s' holds a NUL character", key, name);
        else if (metadata_set(&m, key, json_string_value(item), &e) < 0 && m.n < METADATA_ITEMS_MAX)
            v1_violation(errors, "'%s': %.300s", name, e.msg);
    }
    metadata_done(&m);
}

static void check_size(const json_t *value, const char *name, json_t *errors)
{
    if (json_is_null(value))
        return;
    json_int_t size = json_integer_value(value);
    if (!json_is_integer(value))
        v1_violation(errors, "'%s' is not of type 'integer', 'null'", name);
    else if (size < (json_int_t)VOLUME_SIZE_MIN)
        v1_violation(errors, "%lld is less than the minimum of %lld", (long long)size, (long long)VOLUME_SIZE_MIN);
    else if (size > (json_int_t)VOLUME_SIZE_MAX)
        v1_violation(errors, "%lld is greater than the maximum of %lld", (long long)size, (long long)VOLUME_SIZE_MAX);
}

static void check_field(const struct field *f, const json_t *value, json_t *errors)
{
    const char *text = json_string_value(value);
    struct uuid u;
    switch (f->kind) {
    case KIND_UUID:
        if (!text || !uuid_parse(text, &u) || !uuid_is_v4(&u))
            v1_violation(errors, "'%s' is not a UUID of version 4", f->name);
        break;
    case KIND_ID36:
        if (!text || !uuid_parse(text, &u))
            v1_violation(errors, "'%s' is not a UUID", f->name);
        break;
    case KIND_METADATA:
        check_metadata(value, f->name, errors);
        break;
    case KIND_SIZE:
        check_size(value, f->name, errors);
        break;
    case KIND_EXPIRES:
        if (!json_is_number(value) && !json_is_null(value))
            v1_violation(errors, "'%s' is not of type 'number', 'null'", f->name);
        break;
    case KIND_OBJECT:
        if (!json_is_object(value))
            v1_violation(errors, "'%s' is not of type 'object'", f->name);
        break;
    }
}

bool v1_check_errors(const struct call *call, json_t *errors)
{
    if (json_array_size(errors) == 0) {
        json_decref(errors);
        return true;
    }
    api_reply(call->exchange, 400,
              json_pack("{s:s, s:o}", "description", "The provided JSON doesn't match the required schema.", "errors", errors));
    return false;
}

bool v1_check(const struct call *call, const struct field *fields, size_t n)
{
    json_t *errors = json_array();
    const char *key;
    json_t *value;
    if (!json_is_object(call->body))
        v1_violation(errors, "the body is not of type 'object'");
    for (size_t i = 0; i < n; i++) {
        value = json_object_get(call->body, fields[i].name);
        if (value)
            check_field(&fields[i], value, errors);
        else if (fields[i].required)
            v1_violation(errors, "'%s' is a required property", fields[i].name);
    }
    json_object_foreach (call->body, key, value) {
        bool known = false;
        for (size_t i = 0; i < n; i++)
            known |= strcmp(fields[i].name, key) == 0;
        if (!known)
            v1_violation(errors, "Additional properties are not allowed ('%.100s' was unexpected)", key);
    }
    return v1_check_errors(call, errors);
}

// ---- shapes

// As text, not by way of json_t: a list of 10 000, which clients of v1 ask for again and again, would be half a million of them.
static void write_dataset(FILE *f, const struct volume *v)
{
    const char *comma = "";
    fprintf(f, "{\"dataset_id\":\"%s\",\"primary\":\"%s\",\"deleted\":%s,\"metadata\":{", UUID_TEXT(&v->id), UUID_TEXT(&v->target),
            v->state == VOLUME_LIVE ? "false" : "true");
    for (size_t i = 0; i < v->metadata.n; i++) {
        const struct metadata_item *item = &v->metadata.items[i];
        if (v->name && strcmp(item->key, "name") == 0)
            continue; // the volume's own is the one that counts
        fputs(comma, f);
        json_write_string(f, item->key);
        fputc(':', f);
        json_write_string(f, item->value);
        comma = ",";
    }
    if (v->name) {
        fprintf(f, "%s\"name\":", comma);
        json_write_string(f, v->name);
    }
    fputc('}', f);
    if (v->size)
        fprintf(f, ",\"maximum_size\":%llu", (unsigned long long)v->size);
    fputc('}', f);
}

static void reply_dataset(struct http_exchange *x, int status, const struct volume *v)
{
    AUTO(free) char *text = NULL;
    size_t n = 0;
    FILE *f = xmemstream(&text, &n);
    write_dataset(f, v);
    fclose(f);
    api_reply_text(x, status, "", text, n);
}

static json_t *hold_to_json(const struct hold *h)
{
    double left = (double)(h->expires_ms - clock_wall_ms()) / 1000;
    return json_pack("{s:s, s:s, s:o}", "dataset_id", UUID_TEXT(&h->volume), "node_uuid", UUID_TEXT(&h->node), "expires",
                     h->has_expiry ? json_real(left) : json_null());
}

// What stops a call here is no schema violation: the store failed, or the name is taken.
void v1_refuse(struct http_exchange *x, const struct error *e)
{
    api_describe(x, error_http(e->code), "%s", e->msg);
}

// ---- datasets

static bool list_dataset(FILE *f, const struct control *c, size_t at, const char *comma)
{
    fputs(comma, f);
    write_dataset(f, c->volumes.by_id[at]);
    return true;
}

// The tag is that of the beginning: what changes while the list is written makes it a stale one.
static void list_datasets(struct call *call)
{
    static const struct listing_kind datasets = { &listing_volumes, list_dataset };
    char tag[33];
    control_tag(call->control, tag);
    AUTO(free) char *extra = xasprintf("X-Configuration-Tag: %s\r\n", tag);
    listing_reply(call, &datasets, NULL, extra);
}

// The member `name` of the metadata becomes the volume's name if Docker could use it as one; otherwise it stays an opaque pair.
static void read_wish(const json_t *body, struct volume_wish *wish, struct metadata *metadata)
{
    struct error e = ERROR_INIT;
    const char *id = json_string_value(json_object_get(body, "dataset_id"));
    json_int_t size = json_integer_value(json_object_get(body, "maximum_size"));
    const json_t *given = json_object_get(body, "metadata");
    const char *name = json_string_value(json_object_get(given, "name"));
    if (id)
        uuid_parse(id, &wish->id);
    uuid_parse(json_string_value(json_object_get(body, "primary")), &wish->owner);
    // The original refuses what is no multiple of 1024; Kubernetes' provisioner sends such sizes, so they are rounded up.
    wish->size = ((uint64_t)size + VOLUME_SIZE_UNIT - 1) / VOLUME_SIZE_UNIT * VOLUME_SIZE_UNIT;
    if (given)
        metadata_from_json(given, metadata, &e);
    if (name && volume_name_check(name, &e) == 0) {
        wish->name = name;
        metadata_remove(metadata, "name");
    }
    wish->metadata = metadata;
    wish->keep_mounted = true;
}

static void create_dataset(struct call *call)
{
    static const struct field fields[] = {
        { "primary", KIND_UUID, true },
        { "dataset_id", KIND_UUID, false },
        { "maximum_size", KIND_SIZE, false },
        { "metadata", KIND_METADATA, false },
    };
    struct volume_wish wish = { .options = VOLUME_OPTIONS_DEFAULT };
    struct metadata metadata = { 0, NULL };
    struct error e = ERROR_INIT;
    const struct volume *created, *existing;
    if (!v1_check(call, fields, ARRAY_SIZE(fields)))
        return;
    read_wish(call->body, &wish, &metadata);
    int rc = control_create(call->control, &wish, &created, &existing, &e);
    metadata_done(&metadata);
    if (rc == -E_CONFLICT && !existing)
        api_describe(call->exchange, 409, "The provided dataset_id is already in use.");
    else if (rc < 0)
        v1_refuse(call->exchange, &e);
    else
        reply_dataset(call->exchange, 201, created);
}

// The dataset of the path, or NULL after a 404. Ids in a path match exactly, lower case only, as in the original.
static struct volume *dataset(const struct call *call)
{
    struct uuid id;
    struct volume *v = uuid_parse(call->segment, &id) && strcmp(UUID_TEXT(&id), call->segment) == 0
                           ? volume_set_find(&call->control->volumes, &id) : NULL;
    if (!v)
        api_describe(call->exchange, 404, "Dataset not found.");
    return v;
}

int v1_move_volume(struct control *c, const struct uuid *id, const struct uuid *node, struct error *e)
{
    return moves_carry_out(c, id, &(struct move_wish){ .target = *node, .keep_mounted = true }, e);
}

// A client's wish, while the nodes are asked about it.
struct moving {
    struct control *control;
    struct http_exchange *exchange;
    struct uuid id;
};

// The configuration that the client has named may have changed meanwhile, and the volume have gone.
static void on_surveyed(void *arg, const struct move_wish *wish)
{
    AUTO(free) struct moving *m = arg;
    const struct volume *v = volume_set_find(&m->control->volumes, &m->id);
    struct error e = ERROR_INIT;
    if (!v)
        api_describe(m->exchange, 404, "Dataset not found.");
    else if (!api_tag_matches(m->control, m->exchange))
        return;
    else if (moves_carry_out(m->control, &m->id, wish, &e) < 0)
        v1_refuse(m->exchange, &e);
    else
        reply_dataset(m->exchange, 200, volume_set_find(&m->control->volumes, &m->id));
}

static void move_dataset(struct call *call)
{
    static const struct field fields[] = { { "primary", KIND_UUID, false } };
    struct uuid node;
    if (!v1_check(call, fields, ARRAY_SIZE(fields)))
        return;
    const struct volume *v = dataset(call);
    if (!v)
        return;
    if (v->state != VOLUME_LIVE) {
        api_describe(call->exchange, 405, "The dataset has been deleted.");
        return;
    }
    const char *primary = json_string_value(json_object_get(call->body, "primary"));
    if (!primary || !uuid_parse(primary, &node)) {
        reply_dataset(call->exchange, 200, v);
        return;
    }
    struct moving *m = xcalloc(1, sizeof *m);
    *m = (struct moving){ call->control, call->exchange, v->id };
    moves_survey(call->control, v, &(struct move_wish){ .target = node, .keep_mounted = true }, on_surveyed, m);
}

static void delete_dataset(struct call *call)
{
    struct control *c = call->control;
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    const struct volume *v = dataset(call);
    if (!v)
        return;
    struct uuid id = v->id;
    if (v->state == VOLUME_LIVE &&
        (decide_remove(v, clock_wall_ms(), c->config.trash_keep_ms, &changed, &e) < 0 || control_put(c, changed, &e) < 0)) {
        v1_refuse(call->exchange, &e);
        return;
    }
    reply_dataset(call->exchange, 200, volume_set_find(&c->volumes, &id));
}

static void write_state(FILE *f, const struct volume *v, const struct sighting *s)
{
    fprintf(f, "{\"dataset_id\":\"%s\"", UUID_TEXT(&v->id));
    if (s->mounted && s->path) {
        fprintf(f, ",\"primary\":\"%s\",\"path\":", UUID_TEXT(&s->node));
        json_write_string(f, s->path);
    }
    if (v->size)
        fprintf(f, ",\"maximum_size\":%llu", (unsigned long long)v->size);
    if (s->error) {
        fputs(",\"error\":", f);
        json_write_string(f, s->error);
    }
    fputc('}', f);
}

bool v1_is_heard_of(const struct control_node *n)
{
    return n->peer || clock_boot_ms() - n->seen_ms < NODE_SILENT_MS;
}

static bool list_state(FILE *f, const struct control *c, size_t at, const char *comma)
{
    const struct volume *v = c->volumes.by_id[at];
    const struct sighting *s = control_sighting(c, &v->id);
    const struct control_node *n = s ? control_node(c, &s->node) : NULL;
    if (!n || !s->present || !v1_is_heard_of(n) || (v->state != VOLUME_LIVE && !s->mounted))
        return false;
    fputs(comma, f);
    write_state(f, v, s);
    return true;
}

static void list_states(struct call *call)
{
    static const struct listing_kind states = { &listing_volumes, list_state };
    listing_reply(call, &states, NULL, "");
}

// ---- nodes

static void list_nodes(struct call *call)
{
    json_t *list = json_array();
    const struct control_node *n;
    LIST_FOREACH (n, &call->control->nodes, all)
        if (v1_is_heard_of(n))
            json_array_append_new(list, json_pack("{s:s, s:s}", "host", n->node.host, "uuid", UUID_TEXT(&n->node.id)));
    api_reply(call->exchange, 200, list);
}

// In any form that Python's UUID() takes: with "urn:uuid:", braces, or without hyphens.
static bool read_era(const char *text, struct uuid *ret)
{
    char plain[UUID_TEXT_SIZE];
    size_t n = 0;
    if (strncmp(text, "urn:", 4) == 0)
        text += 4;
    if (strncmp(text, "uuid:", 5) == 0)
        text += 5;
    for (; *text; text++) {
        if (strchr("{}-", *text))
            continue;
        if (n == 8 || n == 13 || n == 18 || n == 23)
            plain[n++] = '-';
        if (n == UUID_TEXT_SIZE - 1)
            return false;
        plain[n++] = *text;
    }
    plain[n] = '\0';
    return uuid_parse(plain, ret);
}

static void node_by_era(struct call *call)
{
    struct uuid era;
    const struct control_node *n;
    bool valid = read_era(call->segment, &era) && !uuid_is_zero(&era);
    LIST_FOREACH (n, &call->control->nodes, all) {
        if (valid && !n->node.removed && uuid_equal(&n->node.era, &era)) { // a host that has joined anew has two nodes of one era
            api_reply(call->exchange, 200, json_pack("{s:s}", "uuid", UUID_TEXT(&n->node.id)));
            return;
        }
    }
    api_describe(call->exchange, 404, "No node found with given era.");
}

// ---- leases

static bool list_lease(FILE *f, const struct control *c, size_t at, const char *comma)
{
    json_t *o = hold_to_json(&c->holds[at]);
    fputs(comma, f);
    json_dumpf(o, f, JSON_COMPACT);
    json_decref(o);
    return true;
}

static void list_leases(struct call *call)
{
    static const struct listing_kind leases = { &listing_holds, list_lease };
    listing_reply(call, &leases, NULL, "");
}

#define EXPIRES_S_MAX 1e12 // 31 700 years; more would not fit a clock of milliseconds

static void acquire_lease(struct call *call)
{
    static const struct field fields[] = {
        { "dataset_id", KIND_ID36, true }, { "node_uuid", KIND_UUID, true }, { "expires", KIND_EXPIRES, true },
    };
    struct control *c = call->control;
    struct hold wish = { .has_expiry = false };
    struct error e = ERROR_INIT;
    bool renewal;
    if (!v1_check(call, fields, ARRAY_SIZE(fields)))
        return;
    const json_t *expires = json_object_get(call->body, "expires");
    double left = json_number_value(expires);
    uuid_parse(json_string_value(json_object_get(call->body, "dataset_id")), &wish.volume);
    uuid_parse(json_string_value(json_object_get(call->body, "node_uuid")), &wish.node);
    wish.has_expiry = !json_is_null(expires);
    left = left > EXPIRES_S_MAX ? EXPIRES_S_MAX : left < -EXPIRES_S_MAX ? -EXPIRES_S_MAX : left;
    wish.expires_ms = wish.has_expiry ? clock_wall_ms() + (int64_t)(left * 1000) : 0;
    if (decide_hold(control_hold(c, &wish.volume), &wish, &renewal, &e) < 0)
        api_describe(call->exchange, 409, "Lease already held.");
    else if (control_put_hold(c, &wish, &e) < 0)
        v1_refuse(call->exchange, &e);
    else
        api_reply(call->exchange, renewal ? 200 : 201, hold_to_json(&wish));
}

static void release_lease(struct call *call)
{
    struct control *c = call->control;
    struct error e = ERROR_INIT;
    struct uuid id;
    const struct hold *h = uuid_parse(call->segment, &id) ? control_hold(c, &id) : NULL;
    if (!h) {
        api_describe(call->exchange, 404, "Lease not found.");
        return;
    }
    json_t *was = hold_to_json(h);
    if (control_remove_hold(c, &id, &e) < 0) {
        json_decref(was);
        v1_refuse(call->exchange, &e);
    } else
        api_reply(call->exchange, 200, was);
}

// ---- the rest

static void version(struct call *call)
{
    api_reply(call->exchange, 200, json_pack("{s:s}", "flocker", FLOCKER_VERSION));
}

const struct route routes_v1[] = {
    { "GET", "/v1/version", 0, version, "the version of Flocker" },
    { "GET", "/v1/configuration/datasets", 0, list_datasets, "datasets as wanted" },
    { "POST", "/v1/configuration/datasets", ROUTE_BODY | ROUTE_TAG, create_dataset, "create a dataset" },
    { "POST", "/v1/configuration/datasets/*", ROUTE_BODY | ROUTE_TAG, move_dataset, "move a dataset" },
    { "DELETE", "/v1/configuration/datasets/*", ROUTE_TAG, delete_dataset, "delete a dataset" },
    { "GET", "/v1/state/datasets", 0, list_states, "datasets as they are" },
    { "GET", "/v1/state/nodes", 0, list_nodes, "nodes heard of in the last two minutes" },
    { "GET", "/v1/state/nodes/by_era/*", 0, node_by_era, "the node whose kernel has this boot id" },
    { "GET", "/v1/configuration/leases", 0, list_leases, "leases" },
    { "POST", "/v1/configuration/leases", ROUTE_BODY, acquire_lease, "acquire or renew a lease" },
    { "DELETE", "/v1/configuration/leases/*", 0, release_lease, "release a lease" },
    { "GET", "/v1/configuration/containers", 0, v1_list_containers, "containers as wanted" },
    { "POST", "/v1/configuration/containers", ROUTE_BODY, v1_create_container, "create a container" },
    { "POST", "/v1/configuration/containers/*", ROUTE_BODY, v1_move_container, "move a container and its dataset" },
    { "DELETE", "/v1/configuration/containers/*", 0, v1_delete_container, "delete a container" },
    { "GET", "/v1/state/containers", 0, v1_list_container_states, "containers as they are" },
    { "POST", "/v1/configuration/_compose", ROUTE_BODY, v1_compose, "replace all containers by those of two documents" },
    { NULL, NULL, 0, NULL, NULL },
};
