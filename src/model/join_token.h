// A join token as control keeps it: it lets one host into the cluster, once.
#ifndef FLOCKER_MODEL_JOIN_TOKEN_H
#define FLOCKER_MODEL_JOIN_TOKEN_H

#include "base/uuid.h"

#include <stdint.h>

struct join_token {
    struct uuid id;     // digest of its secret, which is kept nowhere
    struct uuid node;   // the node that the host becomes: one that has lost its certificate; zero: a new one
    int64_t expires_ms; // wall clock
};

#endif
