// Moves of volumes between nodes, as control decides on them. Pure, like decide.h: each function gives the changed volume, or NULL in *ret
// where nothing changes; the caller commits it before anybody is told.
//
// The order of DESIGN 5: warm, seal, prepare, switch, settle. A crash of any party between any two commits leaves one owner and all data,
// because each stage only permits: a node acts on the latest order that it has, and an older one permits less or the same.
//
//     none     -> warm     the user wishes it elsewhere
//     warm     -> seal     its copy has caught up as far as it will
//     seal     -> settle   the target has the final snapshot whole, checked by its digest: the switch, owner and epoch change
//     seal     -> seal     what both ends take for the same snapshot is not: a new order has the owner take another one
//     settle   -> release  the new owner has it durable under the new epoch
//     release  -> none     the former owner says that its data is gone
#ifndef FLOCKER_PLAN_MOVE_H
#define FLOCKER_PLAN_MOVE_H

#include "model/volume.h"
#include "plan/room.h"

#include <jansson.h>

#define MOVE_DIGEST_SIZE 32

struct move_wish {
    struct uuid target;
    bool keep_mounted; // mounted there from then on also while no container uses it (API v1)
    bool force;        // stop who uses it
    uint64_t rate;     // bytes per second; 0: no limit
    bool owner_is_unheard; // no agent has ever spoken for the owner: it can't have made anything
    bool owner_lacks_data; // the owner has said so
    struct room room;      // the target's pool, as far as it is known, less what else is on its way there
    uint64_t needs;        // bytes that the volume holds; 0: not known
};

// The newest read-only snapshot of a volume at its owner, or the newest whole one that a target has received.
struct move_snapshot {
    uint64_t number; // never used twice for one volume; 0: none
    bool final;      // taken after the owner was sealed and the volume unmounted: nothing comes after it
    bool has_digest; // of the stream that made it
    uint8_t digest[MOVE_DIGEST_SIZE];
};

json_t *move_snapshot_to_json(const struct move_snapshot *s); // new reference
// From anybody: E_INVALID says what makes no sense. NULL is the snapshot with number 0.
int move_snapshot_from_json(const json_t *object, struct move_snapshot *ret, struct error *e);
bool move_snapshot_equal(const struct move_snapshot *a, const struct move_snapshot *b);
// The number of the next snapshot of a volume, by an order of that revision: above all that were given before, also to snapshots of which
// nothing is left.
uint64_t move_next_number(uint64_t newest, uint64_t revision);

// What a node has said of its part since it connected; `known` false: nothing yet.
struct move_part {
    bool known;
    bool present;             // it has a record of the volume on disk
    uint64_t epoch, revision; // of that record: the order that it acts by. Of a target: `revision` of the order by which it keeps its copy
    bool missing;  // its data should be there and is not
    bool in_use;   // somebody uses it there, or has asked for it
    bool held;     // a user's hold keeps it there
    bool warm;     // of a target: a further increment would not be smaller
    struct move_snapshot snapshot;
};

// The user wishes it on another node, or, with the owner as target, where it is: then a move that can still be called off is. The move waits
// while its owner has not reported its data yet (one that was never heard of is passed over), and while a former owner still has some.
// E_NOT_FOUND unless the volume is live. A move that would begin and can't end is refused: E_CORRUPT, its owner lacks the data; E_NO_SPACE, it
// does not fit into the target's pool. One that is under way is left to go on, or be called off.
int decide_move(const struct volume *v, const struct move_wish *wish, struct volume **ret, struct error *e);
// Whether a move by that wish is one that was not under way, with data that has to go over.
bool move_would_begin(const struct volume *v, const struct move_wish *wish);
// A node's engine wants to mount it, and the owner has just let go of it and holds it for that node (docs/protocol.md, `release`); or the owner's
// own engine wants a volume that is sealed. A move to a node that is not there gives way. E_BUSY while another move is under way.
int decide_acquire(const struct volume *v, const struct uuid *node, bool target_is_there, struct volume **ret, struct error *e);
// The next stage, from what the owner and the other node (the target, after the switch the former owner) have said.
void decide_move_next(const struct volume *v, const struct move_part *owner, const struct move_part *other, struct volume **ret);
// A node is taken out of the cluster for good, with all that is there; `copy` is what the target of the volume's move has said. A move in
// which it has a part ends, without a loss where there is another copy: a target that has the final snapshot of the present order becomes the
// owner; a former owner that was not yet told to let go becomes it again, with the data as they were when they moved; one that was told keeps
// what it has. Else the volume stays that node's, as an entry without data; one that was to be destroyed there is deleted.
void decide_node_gone(const struct volume *v, const struct uuid *node, const struct move_part *copy, struct volume **ret);
// Whether a target has caught up as far as it will: its last increment (bytes of stream) is small, or hardly smaller than the one before
// (0: there was none).
bool move_is_warm(uint64_t last_bytes, uint64_t before_bytes);
// The move ends where it is: for a volume that is removed.
void decide_call_off(struct volume *v);

#endif
