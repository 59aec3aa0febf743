// A volume: the cluster-wide unit of data, as plain data. No clock, no file, no socket below this folder.
#ifndef FLOCKER_MODEL_VOLUME_H
#define FLOCKER_MODEL_VOLUME_H

#include "base/error.h"
#include "base/uuid.h"
#include "model/metadata.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define VOLUME_STATE_TABLE(X) \
    X(VOLUME_LIVE,    "live")    /* in use or ready for use */ \
    X(VOLUME_TRASHED, "trashed") /* removed; its data is kept until purge_ms and it can be restored */ \
    X(VOLUME_PURGING, "purging") /* the owner is to destroy its data */ \
    X(VOLUME_DELETED, "deleted") /* the data is gone; the entry stays a while for v1 clients */

enum volume_state {
#define X(state, word) state,
    VOLUME_STATE_TABLE(X)
#undef X
    VOLUME_STATE_COUNT
};

// How far a move has come (docs/moves.md). Control commits each change of it before anybody acts on it.
#define MOVE_STAGE_TABLE(X) \
    X(MOVE_NONE,    "none")    /* it is where it is */ \
    X(MOVE_WARM,    "warm")    /* increments go to the target while containers use it at the owner */ \
    X(MOVE_SEAL,    "seal")    /* the owner lets nobody mount it any more, and gives the last increment once it is unmounted */ \
    X(MOVE_SETTLE,  "settle")  /* the owner has changed; the former one keeps its data until the new one's is durable */ \
    X(MOVE_RELEASE, "release") /* the former owner is to let go of its data */

enum move_stage {
#define X(stage, word) stage,
    MOVE_STAGE_TABLE(X)
#undef X
    MOVE_STAGE_COUNT
};

struct volume_move {
    enum move_stage stage;
    struct uuid source; // in SETTLE and RELEASE the former owner; else zero
    bool force;         // who uses it at the owner is stopped, not waited for
    uint64_t rate;      // bytes per second that the transfer may take; 0: no limit
};

// How the root directory of a fresh volume is made. Fixed at creation.
struct volume_options {
    uint32_t uid, gid;
    uint32_t mode; // permission bits, 0 to 07777
    bool nocow;    // no copy-on-write for its files: for databases; no checksums for their data
};
#define VOLUME_OPTIONS_DEFAULT { .uid = 0, .gid = 0, .mode = 0777, .nocow = false }

struct volume {
    struct uuid id;
    char *name;               // owned; NULL: only reachable by id. Unique among live volumes
    uint64_t size;            // limit in bytes; 0: no limit but the pool's
    struct metadata metadata; // without the name
    struct volume_options options;
    struct uuid owner;        // the one node that may have it mounted read-write
    struct uuid target;       // the node where the user wants it: differs from the owner while a move is under way
    struct volume_move move;
    uint64_t epoch;           // starts at 1, grows each time the owner changes
    uint64_t accepts;         // older epoch whose data counts as this one's: the owner got back what it had then. 0: none
    uint64_t revision;        // starts at 1, grows with each change of anything here
    enum volume_state state;
    bool born;                // an owner has reported its data on disk: from then on it is never made anew, empty
    bool keep_mounted;        // mounted on the owner also while no container uses it (v1 clients expect that)
    int64_t created_ms;       // wall clock
    int64_t trashed_ms;       // when it was removed; 0 while live
    int64_t purge_ms;         // when its data may go; 0 while live
};

struct volume *volume_new(void); // zeroed but for the default options
void volume_free(struct volume *v);
struct volume *volume_copy(const struct volume *v);
const char *volume_state_word(enum volume_state s);
const char *move_stage_word(enum move_stage s);
// Before the switch: its target gets data, and it can be called off.
static inline bool move_is_open(const struct volume *v)
{
    return v->move.stage == MOVE_WARM || v->move.stage == MOVE_SEAL;
}
// Whether `node` has a part in it: as owner, as the one it moves to, or as a former owner that still has data.
bool volume_concerns(const struct volume *v, const struct uuid *node);
// The name, or the id's text where there is none. Valid until the volume changes, or for the buffer's life.
const char *volume_label(const struct volume *v, char buffer[UUID_TEXT_SIZE]);

// Docker's rule for local volumes: [a-zA-Z0-9][a-zA-Z0-9_.-]*, 1 to NAME_BYTES_MAX bytes. E_INVALID says what is wrong.
int volume_name_check(const char *name, struct error *e);
// 0 (no limit), or VOLUME_SIZE_MIN to VOLUME_SIZE_MAX in steps of VOLUME_SIZE_UNIT.
int volume_size_check(uint64_t size, struct error *e);
// The most that a move may bring of a volume of that size limit (0: none): in one stream, and in the copy on disk. A stream is longer than the
// data on disk where files are small, their paths long, or the source's file system compresses; the copy has what was overwritten meanwhile,
// too. So it is twice the limit, and room for the names of an almost empty volume.
uint64_t volume_copy_max(uint64_t size);

// The one JSON form of a volume: in the store, in the agent protocol, and beside the data on disk.
json_t *volume_to_json(const struct volume *v); // new reference
// Checks every member and limit; unknown members are ignored (a newer version may have written them).
int volume_from_json(const json_t *object, struct volume **ret, struct error *e);

#include "base/mem.h"
DEFINE_AUTO(struct volume *, volume_free)

#endif
