// Workers: short-lived children of the agent, the only processes that touch disks and mounts. One that hangs in the kernel costs one
// volume, never the agent.
//
// A worker is forked, not executed anew: the agent has one thread, so its copy is sound, and starting it takes a third of a
// millisecond instead of the several that linking a program takes. The child closes every inherited descriptor but its pipe, is killed
// when the agent dies, and answers with one JSON document.
#ifndef FLOCKER_AGENT_WORKER_H
#define FLOCKER_AGENT_WORKER_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

struct event_base;
struct worker;
struct workers;

#define WORKER_FD 4 // in the child: the descriptor that its task named

// Runs in the child. `result` is an object to fill. Returns 0 or negative with `e`.
typedef int worker_fn(void *ctx, json_t *result, struct error *e);
// Runs in the agent when the child is gone: rc and e as the function left them, or E_IO if it died. `result` is borrowed.
typedef void worker_done(void *arg, int rc, json_t *result, const struct error *e);

struct worker_task {
    const char *what;  // "mount db", for messages; copied
    worker_fn *run;
    void *ctx;         // must live until done
    worker_done *done;
    int limit_ms;      // 0: WORKER_MS_MAX
    void (*on_late)(void *arg); // may be NULL: that limit has passed, the child was killed and has not gone yet
    void *arg;
    bool is_long;      // a transfer: it has no deadline, and is not counted among the WORKERS_MAX
    int fd;            // with is_long, and not in_process: handed to the child as WORKER_FD, and closed here; 0: none
    void (*on_progress)(void *arg, const json_t *progress); // may be NULL
};

// `in_process`: run tasks in the agent itself, from its event loop: for backends that live in memory.
struct workers *workers_new(struct event_base *base, bool in_process);
void workers_free(struct workers *w); // kills what runs; no callback is called any more
// Starts the task, or queues it while WORKERS_MAX run. The worker is valid until `done`.
struct worker *worker_start(struct workers *w, const struct worker_task *task);
// Kills it: `done` follows from the loop, with an error unless it was done already.
void worker_kill(struct worker *k);
// In a task: tells the agent how far it is, or what it has found so far; `progress` is taken. Called outside of a task it does nothing.
void worker_tell(json_t *progress);

#endif
