// The volumes of a cluster, found by id and live ones by name in O(log n), listed in the order of ids.
#ifndef FLOCKER_MODEL_VOLUME_SET_H
#define FLOCKER_MODEL_VOLUME_SET_H

#include "model/volume.h"

struct volume_set {
    size_t n, room;
    struct volume **by_id; // all; owned
    size_t names, names_room;
    struct volume **by_name; // those that are live and have a name
    bool is_filling;
};

void volume_set_done(struct volume_set *s);
struct volume *volume_set_find(const struct volume_set *s, const struct uuid *id);
size_t volume_set_behind(const struct volume_set *s, const struct uuid *id); // the first in by_id whose id is greater; s->n: none
struct volume *volume_set_find_name(const struct volume_set *s, const char *name); // live ones only
// Adds `v`, or puts it in place of the one with its id (which is freed). Takes ownership. The name of a live volume must be
// free: whoever decides on names has checked it.
void volume_set_put(struct volume_set *s, struct volume *v);
// Between these two, names are only gathered: nothing is found by name, replaced or removed. That makes n volumes cost n log n, where each for
// itself would move half of the names before it.
void volume_set_fill_begin(struct volume_set *s);
void volume_set_fill_end(struct volume_set *s);
void volume_set_remove(struct volume_set *s, const struct uuid *id);

#endif
