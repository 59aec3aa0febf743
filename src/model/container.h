// A container of API v1: a process that is to run on a node, perhaps with a volume. What a user can set is kept as JSON in the shape of
// that API, checked and normalised when it comes in; the few members that decisions are made on are beside it.
#ifndef FLOCKER_MODEL_CONTAINER_H
#define FLOCKER_MODEL_CONTAINER_H

#include "base/error.h"
#include "base/mem.h"
#include "base/uuid.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct container {
    char *name;        // owned; unique in the cluster; without the slash that Docker puts before names
    struct uuid node;  // where it is to run
    struct uuid volume; // that it has mounted; zero: none
    json_t *settings;  // owned: image, ports, links, ... as the API shows them, and swappiness, which it does not show
    uint64_t revision; // starts at 1, grows with each change of the settings: what runs with another one is made anew
    bool deleted;      // it is to run nowhere; the entry stays until those in `leaving` have let go
    size_t leaving_n;
    struct uuid *leaving; // owned: nodes that may still have it, and are to stop and remove it
};

void container_free(struct container *c);
struct container *container_copy(const struct container *c);

// Tells every way in which `object`, the body of a request, breaks the schema of API v1; at most CONTAINER_BYTES_MAX bytes of settings.
typedef void container_violation(void *arg, const char *text);
void container_check(const json_t *object, container_violation *tell, void *arg);
// A container as a request describes it, at revision 1. E_INVALID with the first violation.
int container_from_v1(const json_t *object, struct container **ret, struct error *e);
json_t *container_to_v1(const struct container *c); // new reference: as replies show it

// The form in the store and in the agent protocol.
json_t *container_to_json(const struct container *c); // new reference
int container_from_json(const json_t *object, struct container **ret, struct error *e);

// Whether both would run alike: settings, not the place.
bool container_is_alike(const struct container *a, const struct container *b);
// Whether it publishes one of the other's external ports, or the port `external`.
bool container_has_port(const struct container *c, json_int_t external);
// Adds to, removes from the nodes that are to let go of it; both are fine with what is so already.
void container_leave(struct container *c, const struct uuid *node);
void container_has_left(struct container *c, const struct uuid *node);
bool container_is_leaving(const struct container *c, const struct uuid *node);

// What becomes of a container whose process has ended with that status, after it was started again `restarts` times.
bool container_restarts(const struct container *c, int exit_code, unsigned restarts);

DEFINE_AUTO(struct container *, container_free)

#endif
