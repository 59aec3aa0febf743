// The Docker Engine API, as much as containers of API v1 need of it. Calls block: only workers make them.
//
// A container of ours is called "flocker--<name>" and has labels that say what it was made from. What has no such labels is somebody
// else's and is never touched. The engine itself never starts them again (policy "no"): it would do so before a volume is mounted.
#ifndef FLOCKER_AGENT_DOCKER_API_H
#define FLOCKER_AGENT_DOCKER_API_H

#include "model/container.h"

#define DOCKER_PULL_MS 600000 // for an image to come

// Where a container is made.
struct docker_place {
    const char *socket;       // the engine's
    const char *host;         // address of this node, for links
    const char *mount_point;  // of its volume; NULL: it has none
    struct uuid era;
};

// The body of the engine's "create". New reference.
json_t *docker_create_body(const struct container *c, const struct docker_place *place);

// What there is of the container `name`, as members of `result`: "present", "ours", "running", "started", "exit", "pid", "revision", "era",
// "image". E_UNAVAILABLE: the engine can't be reached.
int docker_look(const char *socket, const char *name, json_t *result, struct error *e);
// Creates it, pulling its image if the engine has it not. E_CONFLICT if there is one of that name.
int docker_create(const struct container *c, const struct docker_place *place, struct error *e);
int docker_start(const char *socket, const char *name, struct error *e);  // 0 also if it runs
int docker_remove(const char *socket, const char *name, struct error *e); // stops it first; 0 also if there is none

#endif
