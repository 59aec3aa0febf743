// A lost store is rebuilt from the nodes' inventories (plan/recover.h decides): all connected agents are asked for the records beside their
// data, a page at a time; then what is to be taken in is committed at once, or only shown.
#include "control/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "plan/recover.h"

#include <string.h>

#define NODES_AT_ONCE 16
#define TELL_MS       300000      // for one node to tell all that it has: a thousand pages take some seconds
#define COUNTER_MAX   (1ULL << 40) // what an epoch or a revision is never counted up to. Beyond it would be no room for those that follow

// What one node has told, or why it has not.
struct inquiry {
    struct recovery *recovery;
    struct uuid node, after;
    int64_t until_ms; // boot clock
    size_t records, copies;
    struct error error; // E_NONE: it has told all
};

struct recovery {
    struct control *control;
    struct http_exchange *exchange;
    bool dry_run, force, is_advancing;
    size_t n, next, under_way; // inquiries: all, the first that has not begun, those that wait for an answer
    struct inquiry *inquiries;
    size_t finds_n, finds_room;
    struct recover_find *finds;
};

static void recovery_free(struct recovery *r)
{
    for (size_t i = 0; i < r->finds_n; i++)
        volume_free(r->finds[i].record);
    free(r->finds);
    free(r->inquiries);
    r->control->recovery = NULL;
    free(r);
}

void recover_stop(struct control *c)
{
    if (c->recovery)
        c->recovery->dry_run = true;
}

// ---- what nodes tell

static void add_find(struct recovery *r, const struct recover_find *f)
{
    if (r->finds_n == r->finds_room) {
        r->finds_room = r->finds_room ? r->finds_room * 2 : 64;
        r->finds = xrealloc(r->finds, r->finds_room, sizeof *r->finds);
    }
    r->finds[r->finds_n++] = *f;
}

static int check_record(const struct volume *record, const struct uuid *id, struct error *e)
{
    if (!uuid_equal(&record->id, id))
        return fail(e, E_INVALID, "the record of volume %s is that of another", UUID_TEXT(id));
    if (record->epoch > COUNTER_MAX || record->revision > COUNTER_MAX)
        return fail(e, E_INVALID, "volume %s is at epoch %llu and revision %llu: no cluster gets there", UUID_TEXT(id),
                    (unsigned long long)record->epoch, (unsigned long long)record->revision);
    return 0;
}

static int read_find(struct inquiry *q, const json_t *item, struct error *e)
{
    const json_t *record = json_object_get(item, "volume");
    const char *id = json_string_value(json_object_get(item, "id"));
    struct recover_find f = { .node = q->node, .placing = json_is_true(json_object_get(item, "placing")),
                              .mounted = json_is_true(json_object_get(item, "mounted")),
                              .in_use = json_is_true(json_object_get(item, "in_use")) };
    if (!id || !uuid_parse(id, &f.id) || uuid_compare(&f.id, &q->after) <= 0)
        return fail(e, E_INVALID, "its list of volumes has no order");
    if (q->recovery->finds_n >= VOLUMES_MAX)
        return fail(e, E_TOO_LARGE, "the nodes have more than %d volumes, the limit of a cluster", VOLUMES_MAX);
    q->after = f.id;
    int rc = move_snapshot_from_json(json_object_get(item, "copy"), &f.copy, e);
    if (rc == 0 && record)
        rc = volume_from_json(record, &f.record, e);
    if (rc < 0)
        return fail_ctx(e, rc, "what it tells of volume %s", id);
    if (f.record && (rc = check_record(f.record, &f.id, e)) < 0) {
        volume_free(f.record);
        return rc;
    }
    q->records += f.record != NULL;
    q->copies += f.record == NULL;
    add_find(q->recovery, &f);
    return 0;
}

static void advance(struct recovery *r);
static void ask(struct inquiry *q);

static void on_records(void *arg, int rc, const json_t *reply, const struct error *why)
{
    struct inquiry *q = arg;
    const json_t *list = json_object_get(reply, "records");
    bool more = json_is_true(json_object_get(reply, "more"));
    struct error e = *why;
    if (rc == 0 && (!json_is_array(list) || (more && json_array_size(list) == 0)))
        rc = fail(&e, E_INVALID, "its answer holds no records");
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++)
        rc = read_find(q, json_array_get(list, i), &e);
    if (rc == 0 && more && clock_boot_ms() > q->until_ms)
        rc = fail(&e, E_TIMEOUT, "it has not told all that it has in %d s", TELL_MS / 1000);
    if (rc == 0 && more) {
        ask(q);
        return;
    }
    if (rc < 0)
        q->error = e;
    q->recovery->under_way--;
    advance(q->recovery);
}

static void ask(struct inquiry *q)
{
    struct control *c = q->recovery->control;
    agents_ask(c, &q->node, json_pack("{s:s, s:s}", "type", "records", "after", UUID_TEXT(&q->after)), ASK_MS, on_records, q);
}

// ---- the answer

static const char *host_of(const struct control *c, const struct uuid *node)
{
    const struct control_node *n = control_node(c, node);
    return n ? n->node.host : "";
}

static json_t *kept_to_json(const struct recovery *r, const struct recover_outcome *o)
{
    json_t *kept = json_array();
    for (size_t i = o->first; i < o->first + o->n; i++) {
        const struct recover_find *f = &r->finds[i];
        const struct volume *known = volume_set_find(&r->control->volumes, &f->id);
        bool counts = f->record && (o->verdict == RECOVER_TAKEN ? i == o->chosen : o->verdict == RECOVER_KNOWN && known && volume_concerns(known, &f->node));
        if (!counts)
            json_array_append_new(kept, json_pack("{s:s, s:s, s:s, s:I}", "node", UUID_TEXT(&f->node), "host", host_of(r->control, &f->node), "what",
                                                  f->record ? "data" : "copy", "epoch", (json_int_t)(f->record ? f->record->epoch : 0)));
    }
    return kept;
}

static json_t *outcome_to_json(const struct recovery *r, const struct recover_outcome *o)
{
    const struct recover_find *f = &r->finds[o->chosen];
    const struct volume *v = o->volume ? o->volume : f->record ? f->record : volume_set_find(&r->control->volumes, &f->id);
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s?}", "id", UUID_TEXT(&f->id), "verdict", recover_verdict_word(o->verdict), "node",
                               UUID_TEXT(&f->node), "host", host_of(r->control, &f->node), "name", v ? v->name : NULL);
    if (v)
        json_object_update_new(object, json_pack("{s:s, s:I}", "state", volume_state_word(v->state), "epoch", (json_int_t)v->epoch));
    if (o->renamed) {
        ASSERT(f->record); // else it would not have been taken in
        json_object_set_new(object, "was", json_string(f->record->name));
    }
    if (!uuid_is_zero(&o->other))
        json_object_update_new(object, json_pack("{s:s, s:s}", "other", UUID_TEXT(&o->other), "other_host", host_of(r->control, &o->other)));
    json_object_set_new(object, "kept", kept_to_json(r, o));
    return object;
}

static json_t *nodes_to_json(const struct recovery *r)
{
    json_t *nodes = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const struct inquiry *q = &r->inquiries[i];
        json_t *node = json_pack("{s:s, s:s, s:I, s:I}", "id", UUID_TEXT(&q->node), "host", host_of(r->control, &q->node), "volumes",
                                 (json_int_t)q->records, "copies", (json_int_t)q->copies);
        if (q->error.code)
            json_object_set_new(node, "error", json_pack("{s:s, s:o}", "code", error_word(q->error.code), "description", json_text(q->error.msg)));
        json_array_append_new(nodes, node);
    }
    return nodes;
}

static void reply(const struct recovery *r, const struct recover_outcome *outcomes, size_t n)
{
    json_t *volumes = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *o = outcome_to_json(r, &outcomes[i]);
        if (outcomes[i].verdict != RECOVER_KNOWN || json_array_size(json_object_get(o, "kept")))
            json_array_append_new(volumes, o);
        else
            json_decref(o);
    }
    api_reply(r->exchange, 200, json_pack("{s:b, s:o, s:o}", "dry_run", (int)r->dry_run, "nodes", nodes_to_json(r), "volumes", volumes));
}

// ---- carrying it out

static size_t heard(const struct recovery *r, struct uuid *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (!r->inquiries[i].error.code)
            ret[n++] = r->inquiries[i].node;
    return n;
}

static int commit(const struct recovery *r, const struct recover_outcome *outcomes, size_t n, struct error *e)
{
    AUTO(free) struct volume **taken = xcalloc(n + 1, sizeof *taken);
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (outcomes[i].volume)
            taken[count++] = volume_copy(outcomes[i].volume);
    if (count)
        log_warn("%zu volumes are taken in from what the nodes have", count);
    return control_put_all(r->control, taken, count, NULL, e);
}

// Who still has data of volumes that are not known, if only a copy that a move has brought, as far as the nodes have told.
static void note_unknown(const struct recovery *r)
{
    const struct control *c = r->control;
    for (size_t i = 0; i < r->n; i++) {
        struct control_node *n = control_node(c, &r->inquiries[i].node);
        if (n && !r->inquiries[i].error.code)
            n->has_unknown = false;
    }
    for (size_t i = 0; i < r->finds_n; i++) {
        struct control_node *n = control_node(c, &r->finds[i].node);
        if (n && !volume_set_find(&c->volumes, &r->finds[i].id))
            n->has_unknown = true;
    }
}

static void finish(struct recovery *r)
{
    struct control *c = r->control;
    struct error e = ERROR_INIT;
    AUTO(free) struct uuid *nodes = xcalloc(r->n + 1, sizeof *nodes);
    AUTO(free) struct recover_outcome *outcomes = xcalloc(r->finds_n + 1, sizeof *outcomes);
    struct recover_input in = { .known = &c->volumes, .n = r->finds_n, .finds = r->finds, .heard_n = heard(r, nodes), .heard = nodes,
                                .force = r->force, .now_ms = clock_wall_ms(), .keep_ms = c->config.trash_keep_ms };
    size_t n = recover_plan(&in, outcomes);
    int rc = r->dry_run ? 0 : commit(r, outcomes, n, &e);
    note_unknown(r);
    if (rc < 0)
        api_fail(r->exchange, &e);
    else
        reply(r, outcomes, n);
    for (size_t i = 0; i < n; i++)
        volume_free(outcomes[i].volume);
    recovery_free(r);
}

static void advance(struct recovery *r)
{
    if (r->is_advancing) // the answer came before agents_ask returned
        return;
    r->is_advancing = true;
    while (r->next < r->n && r->under_way < NODES_AT_ONCE) {
        r->under_way++;
        r->inquiries[r->next].until_ms = clock_boot_ms() + TELL_MS;
        ask(&r->inquiries[r->next++]);
    }
    r->is_advancing = false;
    if (r->under_way == 0)
        finish(r);
}

static void begin(struct call *call, bool dry_run, bool force)
{
    struct control *c = call->control;
    const struct control_node *n;
    struct recovery *r = xcalloc(1, sizeof *r);
    *r = (struct recovery){ .control = c, .exchange = call->exchange, .dry_run = dry_run, .force = force };
    r->inquiries = xcalloc(c->node_count + 1, sizeof *r->inquiries);
    LIST_FOREACH (n, &c->nodes, all)
        if (!n->node.removed)
            r->inquiries[r->n++] = (struct inquiry){ .recovery = r, .node = n->node.id };
    c->recovery = r;
    advance(r);
}

void api_recover(struct call *call)
{
    static const char *const members[] = { "dry_run", "force", NULL };
    struct error e = ERROR_INIT;
    const json_t *dry_run = json_object_get(call->body, "dry_run"), *force = json_object_get(call->body, "force");
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0 && ((dry_run && !json_is_boolean(dry_run)) || (force && !json_is_boolean(force))))
        rc = fail(&e, E_INVALID, "\"dry_run\" and \"force\" are true or false");
    if (rc == 0 && call->control->recovery)
        rc = fail(&e, E_BUSY, "another recovery is under way: wait for its end");
    if (rc < 0)
        api_fail(call->exchange, &e);
    else
        begin(call, json_is_true(dry_run), json_is_true(force));
}
