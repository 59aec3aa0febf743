// Containers of API v1: what is wanted, and what nodes say of them. Each is told to the node that is to have it, and to those that are to
// let go of it, until they say that they have (docs/protocol.md).
#ifndef FLOCKER_CONTROL_CONTAINERS_H
#define FLOCKER_CONTROL_CONTAINERS_H

#include "model/container.h"

struct control;

// What a node said last of a container.
struct container_sighting {
    struct uuid node;
    bool present, running;
    char *image, *error; // NULL: not said
};

struct container_entry {
    struct container *want;
    size_t n;
    struct container_sighting *seen;
};

struct container_set {
    size_t n, room;
    struct container_entry *entries; // in the order of names
};

void containers_done(struct container_set *s);
// Puts what the store has; takes it.
void containers_adopt(struct container_set *s, struct container *c);
// The entry of that name, deleted ones too; NULL if there is none.
struct container_entry *containers_find(const struct container_set *s, const char *name);

// Whether its external ports are free. E_CONFLICT, as API v1 says it.
int containers_check_ports(const struct container_set *s, const struct container *c, struct error *e);

// Commits and tells nodes. `c` is taken; one of that name that is being deleted goes on leaving its nodes.
int containers_create(struct control *c, struct container *wish, struct error *e);
// The caller moves its volume.
int containers_move(struct control *c, const char *name, const struct uuid *node, struct error *e);
int containers_delete(struct control *c, const char *name, struct error *e);
// Makes the wishes (taken, the array stays the caller's) all that there is, in one commit; what goes on as it was is left alone.
int containers_replace(struct control *c, struct container **wishes, size_t n, struct error *e);

// A node has told what it has: what it is to have, and to let go of, is sent to it.
void containers_tell_node(struct control *c, const struct uuid *node);
// A node was taken out of the cluster for good: nobody waits any more until it has let go.
void containers_node_gone(struct control *c, const struct uuid *node);
// A report of a node. Returns a reason to close its connection, or NULL.
const char *containers_on_report(struct control *c, const struct uuid *node, const json_t *message);

#endif
