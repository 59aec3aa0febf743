// The documents of _compose (API v1) and flocker-deploy: what applications there are, in Flocker's own format or in that of Fig (which
// became Compose), and on which nodes they run.
#ifndef FLOCKER_MODEL_COMPOSE_H
#define FLOCKER_MODEL_COMPOSE_H

#include "model/container.h"

struct compose_application {
    struct container *container; // owned; at its node, with the id of its volume, which need not be there
    uint64_t size;               // of that volume when it is made; 0: no limit
};

struct compose {
    size_t n;
    struct compose_application *applications; // those that are to run; owned
};

// What the reader asks about the world.
struct compose_world {
    bool (*node_of_address)(void *arg, const char *address, struct uuid *ret); // false: no node has it
    struct uuid (*dataset_of)(const char *name);                               // id of the volume of an application that gives none
};

// E_INVALID names the application and the key. Application by application they can be run; ports and volumes that several want are the
// caller's to look at.
int compose_read(const json_t *applications, const json_t *deployment, const struct compose_world *world, void *arg, struct compose *ret,
                 struct error *e);
void compose_done(struct compose *c);

#endif
