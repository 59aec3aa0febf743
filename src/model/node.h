// A node: a host with an agent.
#ifndef FLOCKER_MODEL_NODE_H
#define FLOCKER_MODEL_NODE_H

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>

#define NODE_HOST_SIZE 64

// A node that is drained gets no new volumes, and those that it has move to others.
enum node_drain { NODE_STAYS, NODE_DRAINS, NODE_DRAINS_BY_FORCE };

struct node {
    struct uuid id;
    struct uuid era;           // the kernel's boot id, as it said last
    char host[NODE_HOST_SIZE]; // the address by which it reaches control
    bool removed;              // taken out of the cluster by a user: its certificate counts no more
    enum node_drain drain;     // by force: who uses a volume there is stopped, not waited for
};

#endif
