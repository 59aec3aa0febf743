// A hold: a user's wish that a volume stay on a node (the v1 REST API calls it a lease). At most one per volume.
#ifndef FLOCKER_MODEL_HOLD_H
#define FLOCKER_MODEL_HOLD_H

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>

struct hold {
    struct uuid volume, node;
    bool has_expiry;
    int64_t expires_ms; // wall clock; meaningful with has_expiry
};

static inline bool hold_is_over(const struct hold *h, int64_t now_ms)
{
    return h->has_expiry && h->expires_ms < now_ms;
}

#endif
