// Moves: what the nodes say leads to the next commit (plan/move.h decides), and the wish of an engine to have a volume here.
#include "control/internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

#define SURVEY_MS  1000 // for each of the two agents that are asked about a move; who does not answer can't be waited for
#define RELEASE_MS 3000 // for the owner's agent to find that nothing uses a volume, and to unmount it

// What is to be relied on of what a node said: all of it, as long as it is connected and nothing that it said since can be lost. One that is just
// being removed is still connected when its volumes change.
struct move_part moves_part(const struct control *c, const struct sighting *s)
{
    const struct control_node *n = s ? control_node(c, &s->node) : NULL;
    struct move_part part = { .known = false };
    if (n && n->peer && !n->node.removed && s->connection >= n->known_since)
        part = s->part;
    return part;
}

static struct move_part part_of_owner(const struct control *c, const struct volume *v)
{
    struct move_part part = moves_part(c, control_sighting(c, &v->id));
    const struct hold *h = control_hold(c, &v->id);
    part.held = h && uuid_equal(&h->node, &v->owner);
    return part;
}

uint64_t moves_final_number(const struct control *c, const struct volume *v)
{
    if (v->move.stage != MOVE_SEAL)
        return 0;
    const struct move_part owner = part_of_owner(c, v);
    return owner.known && owner.snapshot.final && owner.revision == v->revision ? owner.snapshot.number : 0;
}

bool moves_lacks_data(const struct control *c, const struct volume *v)
{
    const struct move_part owner = part_of_owner(c, v);
    return owner.known && owner.missing;
}

// What is to come to a node by the moves that are under way, as far as that is known.
static uint64_t coming_to(const struct control *c, const struct control_node *n)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        const struct sighting *s = v && move_is_open(v) && uuid_equal(&v->target, &n->node.id) ? control_other(c, &v->id) : NULL;
        bytes += s && s->copy_total > s->copy_bytes ? s->copy_total - s->copy_bytes : 0;
    }
    return bytes;
}

static struct room room_at(const struct control *c, const struct uuid *node)
{
    const struct control_node *n = control_node(c, node);
    struct room room = { .size = 0 };
    if (!n || !n->pool_size)
        return room;
    uint64_t coming = coming_to(c, n);
    return (struct room){ .size = n->pool_size, .free = n->pool_free > coming ? n->pool_free - coming : 0 };
}

int moves_carry_out(struct control *c, const struct uuid *volume, const struct move_wish *wish, struct error *e)
{
    const struct volume *v = volume_set_find(&c->volumes, volume);
    struct move_wish known = *wish;
    struct volume *changed = NULL;
    ASSERT(v);
    int rc = uuid_equal(&wish->target, &v->owner) ? 0 : drain_check(c, &wish->target, e);
    if (rc < 0)
        return rc;
    known.owner_is_unheard = !control_node(c, &v->owner);
    known.owner_lacks_data = moves_lacks_data(c, v);
    if (wish->needs)
        known.room = room_at(c, &wish->target);
    if (absence_is_for_good(c, v) && absence_describe(c, v, e)) // nobody is there to give it
        return -(int)e->code;
    rc = decide_move(v, &known, &changed, e);
    return rc == 0 && changed ? control_put(c, changed, e) : rc;
}

// ---- what a move would need

struct survey {
    struct control *control;
    struct move_wish wish;
    moves_surveyed *done;
    void *arg;
};

static void end_survey(struct survey *s)
{
    s->done(s->arg, &s->wish);
    free(s);
}

static void on_pool(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct survey *s = arg;
    struct control_node *n = control_node(s->control, &s->wish.target);
    (void)e; // what it said before counts
    if (rc == 0 && n)
        agents_note_pool(n, reply);
    end_survey(s);
}

static void on_usage(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct survey *s = arg;
    struct error full = ERROR_INIT;
    json_int_t used = json_integer_value(json_object_get(reply, "used"));
    const struct room room = room_at(s->control, &s->wish.target);
    (void)e; // the target looks for itself, when it gets it
    s->wish.needs = rc == 0 && used > 0 ? (uint64_t)used : 0;
    if (s->wish.needs && room_check(&room, s->wish.needs, &full) < 0) // by what it said some time ago
        agents_ask(s->control, &s->wish.target, json_pack("{s:s}", "type", "pool"), SURVEY_MS, on_pool, s);
    else
        end_survey(s);
}

void moves_survey(struct control *c, const struct volume *v, const struct move_wish *wish, moves_surveyed *done, void *arg)
{
    const struct control_node *target = control_node(c, &wish->target);
    if (v->state != VOLUME_LIVE || !move_would_begin(v, wish) || !target || !target->pool_size || moves_lacks_data(c, v)) {
        done(arg, wish);
        return;
    }
    struct survey *s = xcalloc(1, sizeof *s);
    *s = (struct survey){ c, *wish, done, arg };
    agents_ask(c, &v->owner, json_pack("{s:s, s:s}", "type", "usage", "id", UUID_TEXT(&v->id)), SURVEY_MS, on_usage, s);
}

void moves_turn(struct control *c, const struct uuid *volume)
{
    const struct volume *v = volume_set_find(&c->volumes, volume);
    struct error e = ERROR_INIT;
    struct volume *changed = NULL;
    if (!v || (v->move.stage == MOVE_NONE && uuid_equal(&v->owner, &v->target)))
        return;
    const struct move_part owner = part_of_owner(c, v), other = moves_part(c, control_other(c, volume));
    decide_move_next(v, &owner, &other, &changed);
    if (!changed)
        return;
    log_info("volume %s: its move from node %s to %s: %s", UUID_TEXT(&v->id), UUID_TEXT(&v->owner), UUID_TEXT(&v->target),
             move_stage_word(changed->move.stage));
    if (control_put(c, changed, &e) < 0) // which comes back here for the stage after it
        reports_again_later(c, volume, &e);
}

// ---- an engine elsewhere wants it

static bool is_connected(const struct control *c, const struct uuid *node)
{
    const struct control_node *n = control_node(c, node);
    return n && n->peer;
}

static int acquire(struct control *c, const struct uuid *volume, const struct uuid *node, struct error *e)
{
    const struct volume *v = volume_set_find(&c->volumes, volume);
    struct volume *changed = NULL;
    if (!v)
        return fail(e, E_NOT_FOUND, "volume %s is gone", UUID_TEXT(volume));
    int rc = uuid_equal(&v->owner, node) ? 0 : drain_check(c, node, e); // it may have been removed since it asked
    if (rc == 0)
        rc = decide_acquire(v, node, is_connected(c, &v->target), &changed, e);
    return rc < 0 || !changed ? rc : control_put(c, changed, e);
}

static void on_released(void *arg, int rc, const json_t *answer, const struct error *why)
{
    struct relay *r = arg;
    struct control *c = agents_relay_control(r);
    const struct volume *v = volume_set_find(&c->volumes, agents_relay_volume(r));
    struct error e = *why;
    char label[UUID_TEXT_SIZE], node[NODE_LABEL_SIZE];
    (void)answer;
    if (rc == 0)
        rc = acquire(c, agents_relay_volume(r), agents_relay_node(r), &e);
    else if (v)
        rc = fail_ctx(&e, rc, "volume %.100s is on %s", volume_label(v, label), node_label(c, &v->owner, node));
    agents_relay_reply(r, rc, &e);
}

int moves_request_acquire(struct agent_peer *p, const json_t *message, json_t *reply, struct error *e)
{
    struct control *c = agents_control(p);
    const char *text = json_string_value(json_object_get(message, "id"));
    char label[UUID_TEXT_SIZE];
    struct uuid id;
    struct volume *changed = NULL;
    const struct volume *v = text && uuid_parse(text, &id) ? volume_set_find(&c->volumes, &id) : NULL;
    if (!v)
        return fail(e, E_NOT_FOUND, "no such volume: %.40s", text ? text : "none was named");
    json_object_set_new(reply, "id", json_string(UUID_TEXT(&v->id)));
    bool is_here = uuid_equal(&v->owner, agents_node(p));
    if (v->state == VOLUME_LIVE && (v->born || absence_is_for_good(c, v)) && !is_here && absence_describe(c, v, e))
        return fail_ctx(e, -(int)e->code, "volume %.100s", volume_label(v, label));
    int rc = decide_acquire(v, agents_node(p), is_connected(c, &v->target), &changed, e);
    bool is_wanted = changed != NULL;
    volume_free(changed);
    if (rc < 0 || !is_wanted || (!is_here && (rc = drain_check(c, agents_node(p), e)) < 0))
        return rc;
    if (!v->born || is_here)
        return acquire(c, &id, agents_node(p), e);
    agents_ask(c, &v->owner, json_pack("{s:s, s:s, s:s}", "type", "release", "id", UUID_TEXT(&id), "for", UUID_TEXT(agents_node(p))), RELEASE_MS,
               on_released, agents_relay(p, message, &id));
    return REQUEST_GOES_ON;
}

// ---- for people

json_t *moves_to_v2(const struct control *c, const struct volume *v)
{
    const struct sighting *s = control_other(c, &v->id);
    if (v->move.stage == MOVE_NONE && uuid_equal(&v->owner, &v->target))
        return NULL;
    const struct control_node *target = control_node(c, &v->target);
    json_t *move = json_pack("{s:s, s:s, s:b, s:I}", "stage", move_stage_word(v->move.stage), "host", target ? target->node.host : "", "force",
                             (int)v->move.force, "rate_limit", (json_int_t)v->move.rate);
    if (!uuid_is_zero(&v->move.source))
        json_object_set_new(move, "source", json_string(UUID_TEXT(&v->move.source)));
    if (s && move_is_open(v)) {
        uint64_t left = s->copy_total > s->copy_bytes ? s->copy_total - s->copy_bytes : 0;
        json_object_set_new(move, "bytes", json_integer((json_int_t)s->copy_bytes));
        json_object_set_new(move, "total", json_integer((json_int_t)s->copy_total));
        json_object_set_new(move, "rate", json_integer((json_int_t)s->copy_rate));
        json_object_set_new(move, "seconds_left", s->copy_rate ? json_integer((json_int_t)(left / s->copy_rate)) : json_null());
    }
    if (move_is_open(v) && moves_lacks_data(c, v))
        json_object_set_new(move, "error", json_pack("{s:s, s:s}", "code", error_word(E_CORRUPT), "description",
                                                     "its data is missing on its node: bring back what that pool has lost, or cancel the move"));
    else if (move_is_open(v) && !is_connected(c, &v->target))
        json_object_set_new(move, "error", json_pack("{s:s, s:s}", "code", error_word(E_UNAVAILABLE), "description",
                                                     "that node is not connected: the move waits for it"));
    else if (s && s->error)
        json_object_set_new(move, "error", json_pack("{s:s, s:s}", "code", s->error_word, "description", s->error));
    return move;
}
