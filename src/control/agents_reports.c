// What agents report of their volumes and pools.
#include "control/agents.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include <string.h>

static void set_text(char **place, char *text /* taken */)
{
    free(*place);
    *place = text;
}

static void note_present(struct control *c, const struct volume *v, const struct uuid *node, uint64_t epoch)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (decide_present(v, node, epoch, &changed, &e) < 0)
        log_warn("%s", e.msg);
    else if (changed && control_put(c, changed, &e) < 0)
        reports_again_later(c, &v->id, &e);
}

static void note_absent(struct control *c, const struct volume *v, const struct uuid *node)
{
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (decide_destroyed(v, node, &changed, &e) == 0 && changed && control_put(c, changed, &e) < 0)
        reports_again_later(c, &v->id, &e);
}

// What follows from what its owner has said last.
static void follow_owner(struct control *c, const struct volume *v)
{
    const struct sighting *s = control_sighting(c, &v->id);
    if (!moves_part(c, s).known)
        return;
    if (s->present)
        note_present(c, v, &s->node, s->epoch);
    else if (!s->has_copy)
        note_absent(c, v, &s->node);
}

// ---- after the store has failed

// Changes of volumes that are there: their number and order stay. When the store fails once more, it is waited again.
static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < c->volumes.n && !evtimer_pending(c->again, NULL); i++) {
        const struct uuid id = c->volumes.by_id[i]->id;
        follow_owner(c, c->volumes.by_id[i]);
        moves_turn(c, &id);
        absence_turn(c, &id);
    }
}

void reports_again_later(struct control *c, const struct uuid *volume, const struct error *why)
{
    const struct timeval delay = clock_timeval(STORE_RETRY_MS);
    log_error("what has become of volume %s can't be noted, tried again in %d s: %s", UUID_TEXT(volume), STORE_RETRY_MS / 1000, why->msg);
    if (!c->again)
        c->again = evtimer_new(c->config.base, on_again, c);
    if (!evtimer_pending(c->again, NULL))
        evtimer_add(c->again, &delay);
}

// ---- what they say

static void read_sighting(struct sighting *s, const json_t *message)
{
    const json_t *error = json_object_get(message, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    char *text = agents_said(json_object_get(error, "message"));
    s->present = json_is_true(json_object_get(message, "present"));
    s->mounted = json_is_true(json_object_get(message, "mounted"));
    s->epoch = (uint64_t)json_integer_value(json_object_get(message, "epoch"));
    s->revision = (uint64_t)json_integer_value(json_object_get(message, "revision"));
    s->has_copy = json_object_get(message, "copy") != NULL;
    s->reports++;
    set_text(&s->path, agents_said(json_object_get(message, "path")));
    set_text(&s->error_word, error ? xstrdup(error_word(error_from_word(code ? code : ""))) : NULL);
    set_text(&s->error, text || !error ? text : xstrdup("the agent does not say why"));
}

static uint64_t read_count(const json_t *object, const char *member)
{
    json_int_t n = json_integer_value(json_object_get(object, member));
    return n > 0 ? (uint64_t)n : 0;
}

// What it says of its part in a move: of an owner the snapshot it took, of a target the copy it has.
static void read_part(struct sighting *s, const json_t *message)
{
    const json_t *copy = json_object_get(message, "copy");
    const json_t *snapshot = json_object_get(copy ? copy : message, "snapshot");
    struct error e = ERROR_INIT;
    s->part = (struct move_part){ .known = true, .present = s->present, .epoch = s->epoch, .revision = s->revision,
                                  .missing = json_is_true(json_object_get(message, "missing")),
                                  .in_use = json_is_true(json_object_get(message, "in_use")), .warm = json_is_true(json_object_get(copy, "warm")) };
    if (copy)
        s->part.revision = read_count(copy, "order");
    s->copy_bytes = read_count(copy, "bytes");
    s->copy_total = read_count(copy, "total");
    s->copy_rate = read_count(copy, "rate");
    if (move_snapshot_from_json(snapshot, &s->part.snapshot, &e) < 0)
        log_warn_few("node %s reports on volume %s %s", UUID_TEXT(&s->node), UUID_TEXT(&s->id), e.msg);
}

static void read_report(const struct agent_peer *p, struct sighting *s, const json_t *message)
{
    s->node = p->node->node.id;
    s->connection = p->node->connection;
    read_sighting(s, message);
    read_part(s, message);
}

static void note_owner(struct agent_peer *p, const struct volume *v, const json_t *message)
{
    struct control *c = p->control;
    uint64_t was_final = moves_final_number(c, v);
    bool lacked_data = moves_lacks_data(c, v);
    struct sighting *s = control_sighting_add(c, &v->id);
    read_report(p, s, message);
    if (moves_final_number(c, v) != was_final || (move_is_open(v) && moves_lacks_data(c, v) != lacked_data))
        agents_tell(c, &v->target, v); // its last increment can be had; or there is nothing to be had any more, or again
    if (v->state == VOLUME_DELETED && (s->present || s->has_copy))
        agents_tell(c, &p->node->node.id, v); // made when control took it for gone: it goes now
    follow_owner(c, v);
}

// Of a target, or a former owner. Another node that has anything of it is told how it is: nothing is deleted by inference.
static void note_other(struct agent_peer *p, const struct volume *v, const json_t *message)
{
    struct control *c = p->control;
    const struct uuid other = control_other_node(v);
    if (uuid_equal(&other, &p->node->node.id)) {
        read_report(p, control_other_add(c, &v->id), message);
        return;
    }
    log_info("node %s has something of volume %s, which belongs to node %s", UUID_TEXT(&p->node->node.id), UUID_TEXT(&v->id), UUID_TEXT(&v->owner));
    if (json_object_get(message, "copy"))
        agents_tell(c, &p->node->node.id, v);
}

const char *agent_on_report(struct agent_peer *p, const json_t *message)
{
    struct control *c = p->control;
    struct uuid id;
    if (!agent_read_uuid(message, "id", &id))
        return "a report without a volume's id";
    p->node->reports_got++;
    FAILPOINT(CONTROL_REPORT);
    const struct volume *v = volume_set_find(&c->volumes, &id);
    if (!v) {
        p->node->has_unknown |= json_is_true(json_object_get(message, "present")) || json_object_get(message, "copy");
        log_warn_few("node %s has volume %s, which is not known here: it is kept there", UUID_TEXT(&p->node->node.id), UUID_TEXT(&id));
        return NULL;
    }
    if (uuid_equal(&v->owner, &p->node->node.id))
        note_owner(p, v, message);
    else
        note_other(p, v, message);
    moves_turn(c, &id);
    waiters_turn(c, &id);
    return NULL;
}

static void set_all_due(struct control_node *n, const struct volume_set *volumes)
{
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(volumes, &n->volumes.ids[i]);
        if (v->state != VOLUME_DELETED || v->move.stage != MOVE_NONE)
            id_set_add(&n->due, &v->id);
    }
}

// The target of a move from here is told where this node is: that may have changed, and a control service that has started anew did not know it.
static void tell_target(struct control *c, const struct control_node *n, const struct volume *v)
{
    if (move_is_open(v) && uuid_equal(&v->owner, &n->node.id))
        agents_tell(c, &v->target, v);
}

// What was reported on an earlier connection counts again from here on: moves may go on by it, and what the store refused then may be noted.
static void turn_all_moves(struct control *c, const struct control_node *n)
{
    struct id_set open = { .n = 0 }; // a turn changes the node's own set
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        if (v->move.stage != MOVE_NONE || !uuid_equal(&v->owner, &v->target) || !v->born || v->state == VOLUME_PURGING)
            id_set_add(&open, &v->id);
    }
    for (size_t i = 0; i < open.n; i++) {
        tell_target(c, n, volume_set_find(&c->volumes, &open.ids[i]));
        follow_owner(c, volume_set_find(&c->volumes, &open.ids[i]));
        moves_turn(c, &open.ids[i]);
    }
    id_set_done(&open);
}

const char *agent_on_inventory_end(struct agent_peer *p, const json_t *message)
{
    struct control_node *n = p->node;
    (void)message;
    if (!p->is_resumed || p->is_told) // who says it twice wants to hear all again
        set_all_due(n, &p->control->volumes);
    p->is_told = true;
    p->synced = false;
    n->known_since = n->reports_since;
    turn_all_moves(p->control, n);
    agent_peer_pump(p);
    return NULL;
}

void agents_note_pool(struct control_node *n, const json_t *message)
{
    n->pool_size = read_count(message, "size");
    n->pool_used = read_count(message, "used");
    n->pool_free = n->pool_size > n->pool_used ? n->pool_size - n->pool_used : 0;
    if (json_object_get(message, "free"))
        n->pool_free = read_count(message, "free");
    n->created = 0;
}

const char *agent_on_pool(struct agent_peer *p, const json_t *message)
{
    agents_note_pool(p->node, message);
    return NULL;
}
