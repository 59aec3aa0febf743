// On which node a volume is to be that has to leave its own, or is new. Pure.
#ifndef FLOCKER_PLAN_PLACE_H
#define FLOCKER_PLAN_PLACE_H

#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct place_node {
    struct uuid id;
    bool takes;          // connected, and neither removed nor drained
    bool knows_pool;     // free_bytes counts
    uint64_t free_bytes; // in its pool
    size_t coming;       // volumes that are on their way to it
};

// The index of the node with the most free space, what is on its way to it counted as `share` bytes for each volume; of equals the one to
// which the fewest are on their way, then that with the smallest id. Nodes whose pool is not known come last. `n`: there is none.
size_t place_choose(const struct place_node *nodes, size_t n, uint64_t share);

#endif
