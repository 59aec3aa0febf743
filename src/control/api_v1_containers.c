// REST API v1: containers, and the private _compose.
#include "control/internal.h"

#include "base/mem.h"
#include "model/compose.h"

#include <openssl/evp.h>
#include <string.h>

void v1_list_containers(struct call *call)
{
    const struct container_set *s = &call->control->containers;
    json_t *list = json_array();
    for (size_t i = 0; i < s->n; i++)
        if (!s->entries[i].want->deleted)
            json_array_append_new(list, container_to_v1(s->entries[i].want));
    api_reply(call->exchange, 200, list);
}

static void add_violation(void *arg, const char *text)
{
    v1_violation(arg, "%s", text);
}

void v1_create_container(struct call *call)
{
    struct error e = ERROR_INIT;
    struct container *wish = NULL;
    json_t *errors = json_array();
    container_check(call->body, add_violation, errors);
    if (!v1_check_errors(call, errors))
        return;
    if (container_from_v1(call->body, &wish, &e) < 0) {
        v1_refuse(call->exchange, &e);
        return;
    }
    json_t *shown = container_to_v1(wish);
    if (containers_create(call->control, wish, &e) < 0) {
        json_decref(shown);
        v1_refuse(call->exchange, &e);
    } else
        api_reply(call->exchange, 201, shown);
}

// The container of the path, or NULL after a 404.
static const struct container *container_of_path(const struct call *call)
{
    const char *name = call->segment + (call->segment[0] == '/');
    const struct container_entry *entry = containers_find(&call->control->containers, name);
    if (entry && !entry->want->deleted)
        return entry->want;
    api_describe(call->exchange, 404, "Container not found.");
    return NULL;
}

// The volume first: a container never asks for one that stays behind.
void v1_move_container(struct call *call)
{
    static const struct field fields[] = { { "node_uuid", KIND_UUID, true } };
    struct control *c = call->control;
    struct error e = ERROR_INIT;
    struct uuid node;
    if (!v1_check(call, fields, ARRAY_SIZE(fields)))
        return;
    const struct container *k = container_of_path(call);
    if (!k)
        return;
    uuid_parse(json_string_value(json_object_get(call->body, "node_uuid")), &node);
    AUTO(free) char *name = xstrdup(k->name);
    const struct volume *v = uuid_is_zero(&k->volume) ? NULL : volume_set_find(&c->volumes, &k->volume);
    int rc = v && v->state == VOLUME_LIVE ? v1_move_volume(c, &k->volume, &node, &e) : 0;
    if (rc == 0)
        rc = containers_move(c, name, &node, &e);
    if (rc < 0)
        v1_refuse(call->exchange, &e);
    else
        api_reply(call->exchange, 200, container_to_v1(containers_find(&c->containers, name)->want));
}

void v1_delete_container(struct call *call)
{
    struct error e = ERROR_INIT;
    const struct container *k = container_of_path(call);
    if (!k)
        return;
    if (containers_delete(call->control, k->name, &e) < 0)
        v1_refuse(call->exchange, &e);
    else
        api_reply(call->exchange, 200, json_null());
}

static json_t *state_to_json(const struct container *k, const struct container_sighting *s)
{
    json_t *object = container_to_v1(k);
    json_object_set_new(object, "node_uuid", json_string(UUID_TEXT(&s->node)));
    json_object_set_new(object, "running", json_boolean(s->running));
    if (s->image)
        json_object_set_new(object, "image", json_text(s->image));
    if (s->error)
        json_object_set_new(object, "error", json_text(s->error));
    return object;
}

void v1_list_container_states(struct call *call)
{
    const struct control *c = call->control;
    json_t *list = json_array();
    for (size_t i = 0; i < c->containers.n; i++) {
        const struct container_entry *entry = &c->containers.entries[i];
        for (size_t k = 0; k < entry->n; k++) {
            const struct control_node *n = control_node(c, &entry->seen[k].node);
            if (n && v1_is_heard_of(n) && (entry->seen[k].present || entry->seen[k].error))
                json_array_append_new(list, state_to_json(entry->want, &entry->seen[k]));
        }
    }
    api_reply(call->exchange, 200, list);
}

// ---- _compose

// The node that has that address, if it is heard of.
static bool node_of_address(void *arg, const char *address, struct uuid *ret)
{
    const struct control *c = arg;
    const struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all)
        if (v1_is_heard_of(n) && strcmp(n->node.host, address) == 0) {
            *ret = n->node.id;
            return true;
        }
    return false;
}

// As the original: the same for the same name, so that the data is found again.
static struct uuid dataset_of_application(const char *name)
{
    uint8_t digest[EVP_MAX_MD_SIZE] = { 0 };
    EVP_Digest(name, strlen(name), digest, NULL, EVP_md5(), NULL);
    return uuid_from_random(digest);
}

static int check_volumes(const struct control *c, const struct compose *plan, struct error *e)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct compose_application *a = &plan->applications[i];
        const struct volume *v = uuid_is_zero(&a->container->volume) ? NULL : volume_set_find(&c->volumes, &a->container->volume);
        const char *name = a->container->name;
        if (v && v->state != VOLUME_LIVE)
            return fail(e, E_INVALID, "Application '%s': its dataset %s was deleted: restore it, or give another dataset_id.", name,
                        UUID_TEXT(&v->id));
        const struct volume *same = !v && !uuid_is_zero(&a->container->volume) ? volume_set_find_name(&c->volumes, name) : NULL;
        if (same)
            return fail(e, E_INVALID, "Application '%s': the name is that of dataset %s: give that as its dataset_id.", name, UUID_TEXT(&same->id));
        for (size_t k = 0; k < i && !uuid_is_zero(&a->container->volume); k++)
            if (uuid_equal(&plan->applications[k].container->volume, &a->container->volume))
                return fail(e, E_INVALID, "Applications '%s' and '%s' have the same dataset.", plan->applications[k].container->name, name);
    }
    return 0;
}

// Makes the volume where the container is to run, or moves it there.
static int put_volume(struct control *c, const struct compose_application *a, struct error *e)
{
    const struct container *k = a->container;
    struct metadata metadata = { 0, NULL };
    const struct volume *created, *existing;
    if (uuid_is_zero(&k->volume))
        return 0;
    if (volume_set_find(&c->volumes, &k->volume))
        return v1_move_volume(c, &k->volume, &k->node, e);
    const struct volume_wish wish = { .id = k->volume, .name = k->name, .size = a->size, .metadata = &metadata,
                                      .options = VOLUME_OPTIONS_DEFAULT, .owner = k->node, .keep_mounted = true };
    return control_create(c, &wish, &created, &existing, e);
}

// Ports are checked among the new ones alone: they replace all others.
static int check_containers(const struct compose *plan, struct error *e)
{
    struct container_set beside = { 0, 0, NULL };
    int rc = 0;
    for (size_t i = 0; i < plan->n && rc == 0; i++) {
        AUTO(container_free) struct container *k = container_copy(plan->applications[i].container);
        rc = containers_check_ports(&beside, k, e);
        if (rc == 0)
            containers_adopt(&beside, TAKE(k, NULL));
        else
            fail_ctx(e, rc, "Application '%s'", plan->applications[i].container->name);
    }
    containers_done(&beside);
    return rc;
}

static int carry_out(struct control *c, struct compose *plan, struct error *e)
{
    AUTO(free) struct container **wishes = xcalloc(plan->n + 1, sizeof(struct container *));
    int rc = check_containers(plan, e);
    if (rc == 0)
        rc = check_volumes(c, plan, e);
    for (size_t i = 0; i < plan->n && rc == 0; i++)
        rc = put_volume(c, &plan->applications[i], e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < plan->n; i++)
        wishes[i] = TAKE(plan->applications[i].container, NULL);
    return containers_replace(c, wishes, plan->n, e);
}

void v1_compose(struct call *call)
{
    static const struct field fields[] = { { "applications", KIND_OBJECT, true }, { "deployment", KIND_OBJECT, true } };
    static const struct compose_world world = { node_of_address, dataset_of_application };
    struct control *c = call->control;
    struct error e = ERROR_INIT;
    struct compose plan = { 0, NULL };
    if (!v1_check(call, fields, ARRAY_SIZE(fields)))
        return;
    int rc = compose_read(json_object_get(call->body, "applications"), json_object_get(call->body, "deployment"), &world, c, &plan, &e);
    if (rc == 0)
        rc = carry_out(c, &plan, &e);
    compose_done(&plan);
    if (rc < 0)
        api_describe(call->exchange, rc == -E_CONFLICT || rc == -E_NOT_FOUND ? 400 : error_http(e.code), "%s", e.msg);
    else
        api_reply(call->exchange, 200, json_null());
}
