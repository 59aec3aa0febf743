#include "plan/move.h"

#include "base/mem.h"

#include <string.h>

static struct volume *next(const struct volume *v)
{
    struct volume *n = volume_copy(v);
    n->revision++;
    return n;
}

void decide_call_off(struct volume *v)
{
    if (move_is_open(v))
        v->move = (struct volume_move){ .stage = MOVE_NONE };
    v->target = v->owner;
}

static void set_target(struct volume *v, const struct move_wish *wish)
{
    bool same = uuid_equal(&v->target, &wish->target);
    v->target = wish->target;
    v->move.force = wish->force;
    v->move.rate = wish->rate;
    if (uuid_equal(&v->owner, &wish->target))
        decide_call_off(v);
    else if (!v->born && wish->owner_is_unheard) {
        v->owner = wish->target;
        v->epoch++;
    } else if (!v->born)
        return; // its owner may be making it just now, and use it before that is known here
    else if (v->move.stage == MOVE_NONE || (move_is_open(v) && !same))
        v->move.stage = MOVE_WARM;
}

bool move_would_begin(const struct volume *v, const struct move_wish *wish)
{
    bool is_under_way = !uuid_equal(&v->owner, &v->target) && uuid_equal(&v->target, &wish->target);
    return v->born && !is_under_way && !uuid_equal(&v->owner, &wish->target);
}

static int check_begin(const struct volume *v, const struct move_wish *wish, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    if (!move_would_begin(v, wish))
        return 0;
    if (wish->owner_lacks_data)
        return fail(e, E_CORRUPT, "volume %.100s can't move: its data is missing on its node %s, see the error in `flocker volume inspect`; bring "
                    "back what that node's pool has lost, or remove the volume", volume_label(v, label), UUID_TEXT(&v->owner));
    int rc = wish->needs ? room_check(&wish->room, wish->needs, e) : 0;
    return rc < 0 ? fail_ctx(e, rc, "volume %.100s does not fit on node %s", volume_label(v, label), UUID_TEXT(&wish->target)) : 0;
}

int decide_move(const struct volume *v, const struct move_wish *wish, struct volume **ret, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    *ret = NULL;
    if (v->state != VOLUME_LIVE)
        return fail(e, E_NOT_FOUND, "volume %s is %s: restore it first if it is in the trash", volume_label(v, label), volume_state_word(v->state));
    bool stays = uuid_equal(&v->owner, &wish->target);
    if (uuid_equal(&v->target, &wish->target) && v->keep_mounted >= wish->keep_mounted &&
        (stays || (v->move.force == wish->force && v->move.rate == wish->rate)))
        return 0;
    int rc = check_begin(v, wish, e);
    if (rc < 0)
        return rc;
    *ret = next(v);
    (*ret)->keep_mounted |= wish->keep_mounted;
    set_target(*ret, wish);
    return 0;
}

int decide_acquire(const struct volume *v, const struct uuid *node, bool target_is_there, struct volume **ret, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    bool owned = uuid_equal(&v->owner, node), open = move_is_open(v);
    *ret = NULL;
    if ((owned && v->move.stage != MOVE_SEAL) || (open && uuid_equal(&v->target, node)))
        return 0;
    if (open ? target_is_there : v->move.stage != MOVE_NONE)
        return fail(e, E_BUSY, "volume %s is being moved to node %s: mount it there, or cancel the move", volume_label(v, label), UUID_TEXT(&v->target));
    const struct move_wish wish = { .target = *node };
    int rc = decide_move(v, &wish, ret, e);
    if (rc == 0 && *ret && move_is_open(*ret))
        (*ret)->move.stage = MOVE_SEAL; // the engine is waiting
    return rc;
}

static struct volume *to_stage(const struct volume *v, enum move_stage stage)
{
    struct volume *n = next(v);
    n->move.stage = stage;
    return n;
}

// Force and rate stay if the user has wished it elsewhere meanwhile: they are of that wish.
static struct volume *to_settled(const struct volume *v)
{
    struct volume *n = to_stage(v, MOVE_NONE);
    n->move.source = (struct uuid){ { 0 } };
    if (uuid_equal(&n->owner, &n->target))
        n->move = (struct volume_move){ .stage = MOVE_NONE };
    return n;
}

static struct volume *to_switched(const struct volume *v)
{
    struct volume *n = to_stage(v, MOVE_SETTLE);
    n->move.source = v->owner;
    n->owner = v->target;
    n->epoch++;
    n->accepts = 0;
    return n;
}

// Also a volume that nobody uses stays to be had at its owner while most of it goes over, or while its target is not there.
static bool may_seal(const struct move_part *owner, const struct move_part *other)
{
    return owner->known && other->known && !owner->held && other->warm;
}

// The owner has sealed it by this very order: an earlier seal may have been broken since, and written to. The target keeps its copy by this very
// order: an earlier one may still be on its way to it, and have it throw the copy away. Both ends name the same final snapshot.
static bool is_at_both_ends(const struct volume *v, const struct move_part *owner, const struct move_part *other)
{
    const struct move_snapshot *sent = &owner->snapshot, *received = &other->snapshot;
    return owner->known && other->known && owner->present && owner->epoch == v->epoch && owner->revision == v->revision &&
           other->revision == v->revision && sent->final && received->final && sent->number == received->number && sent->has_digest && received->has_digest;
}

// What was received is what was sent. If not, the snapshot was sent once more, against another base, to a node that it does not go to any more:
// another one is taken.
static bool is_same(const struct move_part *owner, const struct move_part *other)
{
    return memcmp(owner->snapshot.digest, other->snapshot.digest, MOVE_DIGEST_SIZE) == 0;
}

void decide_move_next(const struct volume *v, const struct move_part *owner, const struct move_part *other, struct volume **ret)
{
    *ret = NULL;
    switch (v->move.stage) {
    case MOVE_NONE:
        if (v->state == VOLUME_LIVE && v->born && !uuid_equal(&v->owner, &v->target))
            *ret = to_stage(v, MOVE_WARM);
        break;
    case MOVE_WARM:
        if (may_seal(owner, other))
            *ret = to_stage(v, MOVE_SEAL);
        break;
    case MOVE_SEAL:
        if (is_at_both_ends(v, owner, other))
            *ret = is_same(owner, other) ? to_switched(v) : next(v);
        break;
    case MOVE_SETTLE:
        if (v->state == VOLUME_PURGING || v->state == VOLUME_DELETED || (owner->known && owner->present && owner->epoch == v->epoch))
            *ret = to_stage(v, MOVE_RELEASE);
        break;
    case MOVE_RELEASE:
        if (other->known && !other->present)
            *ret = to_settled(v);
        break;
    case MOVE_STAGE_COUNT:
        ASSERT(false && "no stage");
    }
}

// Of the order at hand: numbers of snapshots say by which one they were taken.
static bool is_whole(const struct volume *v, const struct move_part *copy)
{
    const struct move_snapshot *s = &copy->snapshot;
    return v->move.stage == MOVE_SEAL && copy->known && s->final && s->has_digest && s->number >= move_next_number(0, v->revision);
}

static void set_owner(struct volume *v, const struct uuid *owner)
{
    v->owner = v->target = *owner;
    v->epoch++;
    v->accepts = 0;
    v->move = (struct volume_move){ .stage = MOVE_NONE };
}

static bool leave_owner(const struct volume *v, const struct move_part *copy, struct volume *n)
{
    bool moves = !uuid_equal(&v->owner, &v->target);
    if (v->state == VOLUME_PURGING) {
        n->state = VOLUME_DELETED;
    } else if (is_whole(v, copy)) {
        set_owner(n, &v->target);
    } else if (v->move.stage == MOVE_SETTLE) {
        set_owner(n, &v->move.source);
        n->accepts = v->epoch - 1; // what it had before the switch
    } else {
        decide_call_off(n);
    }
    if (n->move.stage == MOVE_RELEASE && n->state != VOLUME_DELETED)
        n->move.stage = MOVE_SETTLE; // its source keeps it until the user destroys the volume
    return moves || n->state != v->state || n->move.stage != v->move.stage;
}

void decide_node_gone(const struct volume *v, const struct uuid *node, const struct move_part *copy, struct volume **ret)
{
    *ret = NULL;
    if (!volume_concerns(v, node))
        return;
    struct volume *n = next(v);
    bool changes = true;
    if (uuid_equal(&v->owner, node))
        changes = leave_owner(v, copy, n);
    else {
        if (uuid_equal(&v->target, node))
            decide_call_off(n);
        if (uuid_equal(&v->move.source, node))
            n->move = (struct volume_move){ .stage = MOVE_NONE };
    }
    if (changes)
        *ret = n;
    else
        volume_free(n);
}

#define WARM_BYTES (64ULL << 20) // sent in well under a second

bool move_is_warm(uint64_t last_bytes, uint64_t before_bytes)
{
    return last_bytes <= WARM_BYTES || (before_bytes && last_bytes > before_bytes / 10 * 7);
}

// ---- snapshots

bool move_snapshot_equal(const struct move_snapshot *a, const struct move_snapshot *b)
{
    return a->number == b->number && a->final == b->final && a->has_digest == b->has_digest &&
           (!a->has_digest || memcmp(a->digest, b->digest, MOVE_DIGEST_SIZE) == 0);
}

#define NUMBERS_OF_AN_ORDER_BITS 16

uint64_t move_next_number(uint64_t newest, uint64_t revision)
{
    uint64_t first = revision << NUMBERS_OF_AN_ORDER_BITS;
    return newest >= first ? newest + 1 : first;
}

json_t *move_snapshot_to_json(const struct move_snapshot *s)
{
    char text[2 * MOVE_DIGEST_SIZE + 1] = "";
    json_t *object = json_pack("{s:I, s:b}", "number", (json_int_t)s->number, "final", (int)s->final);
    for (size_t i = 0; i < MOVE_DIGEST_SIZE && s->has_digest; i++)
        snprintf(text + 2 * i, 3, "%02x", s->digest[i]);
    if (s->has_digest)
        json_object_set_new(object, "digest", json_string(text));
    return object;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_digest(const char *text, uint8_t ret[MOVE_DIGEST_SIZE])
{
    if (!text || strlen(text) != 2 * MOVE_DIGEST_SIZE)
        return false;
    for (size_t i = 0; i < MOVE_DIGEST_SIZE; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

int move_snapshot_from_json(const json_t *object, struct move_snapshot *ret, struct error *e)
{
    const json_t *number = json_object_get(object, "number"), *digest = json_object_get(object, "digest");
    struct move_snapshot s = { .final = json_is_true(json_object_get(object, "final")), .has_digest = digest != NULL };
    *ret = (struct move_snapshot){ .number = 0 };
    if (!object)
        return 0;
    if (!json_is_integer(number) || json_integer_value(number) < 1)
        return fail(e, E_INVALID, "a snapshot without a number");
    s.number = (uint64_t)json_integer_value(number);
    if (digest && !read_digest(json_string_value(digest), s.digest))
        return fail(e, E_INVALID, "a snapshot's digest is not %d hex digits", 2 * MOVE_DIGEST_SIZE);
    *ret = s;
    return 0;
}
