// Connecting to another host without ever blocking the loop: a name is looked up by a worker, addresses are tried one after the other.
#ifndef FLOCKER_AGENT_DIAL_H
#define FLOCKER_AGENT_DIAL_H

#include "base/error.h"

#include <stdint.h>

struct event_base;
struct workers;
struct dial;

// `fd`: connected, non-blocking, the callee's; or negative, with `e`. Called once, from the loop; the dial has been freed by then.
typedef void dial_done(void *arg, int fd, const struct error *e);

// `host` is a name or a numeric address; `workers` must fork.
struct dial *dial_start(struct event_base *base, struct workers *workers, const char *host, uint16_t port, dial_done *done, void *arg);
// Gives up, without a call of `done`. Only after the workers are gone (workers_free): one may be looking up the name. NULL is fine.
void dial_free(struct dial *d);

#endif
