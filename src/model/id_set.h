// A set of ids: 16 bytes each, in one array in their order. Finding is O(log n); adding and removing move what is behind, which for
// what is added in order, and taken from the end, is nothing.
#ifndef FLOCKER_MODEL_ID_SET_H
#define FLOCKER_MODEL_ID_SET_H

#include "base/uuid.h"

#include <stddef.h>

struct id_set {
    size_t n, room;
    struct uuid *ids; // sorted; NULL while it is empty
};

void id_set_done(struct id_set *s); // leaves it empty
bool id_set_has(const struct id_set *s, const struct uuid *id);
bool id_set_add(struct id_set *s, const struct uuid *id);    // false: it was there
bool id_set_remove(struct id_set *s, const struct uuid *id); // false: it was not
// Takes one out, in turns: the greatest that is less than *cursor, else the greatest of all; *cursor is it then. So an id that is added again
// and again keeps none waiting. Any *cursor is a beginning. False: the set is empty.
bool id_set_take(struct id_set *s, struct uuid *cursor);

#endif
