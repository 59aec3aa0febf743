// What an agent does next for one volume. Pure: same input, same answer. One step at a time, then it looks again; a crash between two
// steps therefore needs no recovery code.
#ifndef FLOCKER_PLAN_STEP_H
#define FLOCKER_PLAN_STEP_H

#include "model/volume.h"

#define STEP_TABLE(X) \
    X(STEP_NONE,    "none")    /* as it should be */ \
    X(STEP_CREATE,  "create")  /* make the volume, empty */ \
    X(STEP_UPDATE,  "update")  /* write the record beside the data, set the size limit */ \
    X(STEP_MOUNT,   "mount")   \
    X(STEP_UNMOUNT, "unmount") \
    X(STEP_EVICT,   "evict")   /* stop who uses it: its user has said so */ \
    X(STEP_SEAL,    "seal")    /* take the final snapshot of a move */ \
    X(STEP_UNSEAL,  "unseal")  /* remove the snapshots that a move took */ \
    X(STEP_FETCH,   "fetch")   /* get the newest snapshot from its owner */ \
    X(STEP_PLACE,   "place")   /* what was received becomes the volume */ \
    X(STEP_DISCARD, "discard") /* remove what was received of it */ \
    X(STEP_DESTROY, "destroy") /* of what is purged, or moved away and safe there, or could not be made */ \
    X(STEP_MISSING, "missing") /* its data should be here and is not: told to the user, never made anew */

enum step {
#define X(step, word) step,
    STEP_TABLE(X)
#undef X
    STEP_COUNT
};
const char *step_word(enum step s);

// What is here: from disk, the mount table and the references.
struct volume_here {
    const struct volume *record; // beside the data; NULL: no data here
    bool half_made;              // a create was begun here and has not succeeded: something of it may lie about
    bool abandoned;              // whose create has failed: what there is of it goes before control is asked to forget it
    bool mounted;
    bool mount_wanted;           // somebody here uses it or waits for it
    bool held;                   // a user wants it to stay on this node: what is mounted stays mounted, also when moved away or deleted
    bool leaving;                // it is being removed or given to another node: let go of it, whatever else is wished
    bool has_snapshots;          // that a move took
    bool sealed;                 // the newest of them was taken by the order at hand, after the unmount
    bool has_copy;               // something was received of it, by a move to this node
    bool copy_final;             // all of it
    bool fetch_due;              // of a move to this node: its owner has sealed it, or it is time for the next increment
};

// `want` is the latest order of control; NULL: control knows nothing of it, and then nothing is ever done to it (CONTRIBUTING.md,
// rule 3). `self` is this node. A mount needs (a) the order to name this node as owner, (b) the record to bear the order's epoch.
enum step plan_step(const struct volume *want, const struct volume_here *here, const struct uuid *self);

#endif
