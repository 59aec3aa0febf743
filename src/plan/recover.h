// A lost store is rebuilt from what the nodes have. Pure: from what they have told, and what control still knows, follows what control takes
// in. Nothing is ever removed by it: what is not taken in stays where it is.
//
// Data knows itself: beside each volume stands its record, with the epoch at which the node got it. The highest epoch wins, and the owner is
// who has it. One case can't be told from one record: a node that was sealed for a move may have been relieved of the volume by a switch that
// it never heard of; only the node that it was to move to knows. A move's next one begins only when its former owner's data is gone, so no
// third node can have it. And a copy may be newer than all data that has a record, where the node that it came from is gone: its number says by
// which revision of the order it was taken.
#ifndef FLOCKER_PLAN_RECOVER_H
#define FLOCKER_PLAN_RECOVER_H

#include "model/volume_set.h"
#include "plan/move.h"

// What one node has of one volume.
struct recover_find {
    struct uuid id, node;
    struct volume *record; // beside the data; owned. NULL: a copy that a move was bringing
    bool placing;          // a copy that is just becoming the volume
    bool mounted, in_use;  // in use: by a container
    struct move_snapshot copy; // the newest whole one that a copy there holds
};

struct recover_input {
    const struct volume_set *known; // to control
    size_t n;
    struct recover_find *finds;     // recover_plan sorts them by id and node
    size_t heard_n;
    const struct uuid *heard;       // the nodes that have told all that they have
    bool force;                     // decide also without a node that may know better, and though older data is mounted or a copy is newer
    int64_t now_ms, keep_ms;        // what is in the trash stays there for so long from now on
};

#define RECOVER_VERDICT_TABLE(X) \
    X(RECOVER_KNOWN, "known")         /* control has it as new, or newer */ \
    X(RECOVER_TAKEN, "taken")         /* `volume` is taken in, or takes the place of an older entry */ \
    X(RECOVER_WAITS, "waits")         /* node `other` may have it as it was later, and has not been heard */ \
    X(RECOVER_BUSY,  "busy")          /* node `other` is just placing a copy of it: ask again */ \
    X(RECOVER_USED,  "used")          /* older data of it is in use on node `other` */ \
    X(RECOVER_MOUNTED, "mounted")     /* older data of it is mounted there, and no container uses it: by force it is taken all the same */ \
    X(RECOVER_NEWER, "newer-copy")    /* node `other` has a copy of it as it was later; its data is gone, or not heard */ \
    X(RECOVER_TIED,  "tied")          /* two nodes have equal claims: this one's and `other` */ \
    X(RECOVER_COPY,  "copy-only")     /* nobody has more than a copy that was on its way */

enum recover_verdict {
#define X(verdict, word) verdict,
    RECOVER_VERDICT_TABLE(X)
#undef X
    RECOVER_VERDICT_COUNT
};
const char *recover_verdict_word(enum recover_verdict v);

// What becomes of one volume.
struct recover_outcome {
    enum recover_verdict verdict;
    size_t first, n;       // what was found of it: of the finds, as sorted
    size_t chosen;         // of the finds: whose record counts; the first of them if none has a record
    struct uuid other;
    struct volume *volume; // TAKEN: as it is to be committed; the caller's
    bool renamed;          // its name is taken by a newer volume, or one that control knows
};

// Writes an outcome for each volume, in the order of ids, to ret, which has room for as many as there are finds; returns how many.
size_t recover_plan(struct recover_input *in, struct recover_outcome *ret);

#endif
