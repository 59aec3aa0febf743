// Metadata of a volume: up to METADATA_ITEMS_MAX pairs of text, opaque to Flocker but for the key of the profile.
#ifndef FLOCKER_MODEL_METADATA_H
#define FLOCKER_MODEL_METADATA_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

#define METADATA_PROFILE "clusterhq:flocker:profile" // key the original Flocker uses for the storage profile

struct metadata {
    size_t n;
    struct metadata_item {
        char *key, *value;
    } *items; // sorted by key, keys unique; owned
};

void metadata_done(struct metadata *m);
void metadata_copy(struct metadata *ret, const struct metadata *from);
const char *metadata_get(const struct metadata *m, const char *key); // NULL if there is none
// Adds or replaces. E_INVALID if it is not UTF-8, breaks a limit (key: 1 to 256 characters, no newline; value: 0 to 256, as in v1)
// or there are too many.
int metadata_set(struct metadata *m, const char *key, const char *value, struct error *e);
void metadata_remove(struct metadata *m, const char *key);
bool metadata_equal(const struct metadata *a, const struct metadata *b);
json_t *metadata_to_json(const struct metadata *m); // new reference to an object
int metadata_from_json(const json_t *object, struct metadata *ret, struct error *e);

#endif
