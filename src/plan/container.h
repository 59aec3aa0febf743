// What an agent does next for one container. Pure, as plan/step.h: one step at a time, then it asks the engine again.
#ifndef FLOCKER_PLAN_CONTAINER_H
#define FLOCKER_PLAN_CONTAINER_H

#include "model/container.h"

#define CONTAINER_STEP_TABLE(X) \
    X(CONTAINER_NONE,   "none")   /* as it should be */ \
    X(CONTAINER_LOOK,   "look")   /* ask the engine what there is */ \
    X(CONTAINER_WAIT,   "wait")   /* for its volume to be mounted here */ \
    X(CONTAINER_CREATE, "create") /* pulls the image if the engine lacks it */ \
    X(CONTAINER_START,  "start")  /* for the first time */ \
    X(CONTAINER_AGAIN,  "restart") /* because its process has ended */ \
    X(CONTAINER_REMOVE, "remove") /* stops it first */

enum container_step {
#define X(step, word) step,
    CONTAINER_STEP_TABLE(X)
#undef X
    CONTAINER_STEP_COUNT
};
const char *container_step_word(enum container_step s);

// What the engine says of it.
struct container_here {
    bool known;        // it was asked, and nothing has happened since
    bool present, running;
    bool started;      // its process has run once
    uint64_t revision; // it was made for
    struct uuid era;   // it was made in
    int exit_code;     // of a process that has ended
    unsigned restarts; // how often it was started again
};

// `want` NULL: it is to be gone from here. `ready`: its volume, if it has one, is mounted here. A container of an earlier era is made anew,
// whatever its restart policy says: after a start of the machine what is configured runs again.
enum container_step plan_container(const struct container *want, const struct container_here *here, bool ready, const struct uuid *era);
// How long to wait before a process that has ended after running for `ran_ms` is started again. Grows with the number of such ends in a
// row, which is counted in *ends and begins anew after one that lasted.
int64_t plan_restart_delay_ms(int64_t ran_ms, unsigned *ends);

#endif
