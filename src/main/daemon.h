// What the two daemons have in common: a loop that ends on SIGTERM, a pid file, readiness.
#ifndef FLOCKER_MAIN_DAEMON_H
#define FLOCKER_MAIN_DAEMON_H

#include "base/error.h"

struct event_base;

struct daemon {
    struct event_base *base;
    struct event *on_signal[2];
    const char *pid_path;
};

// Sets up loop, signals and log; `program` names it in the log.
int daemon_init(struct daemon *d, const char *program, struct error *e);
// Writes the pid file, tells the service manager, runs until SIGTERM or SIGINT.
int daemon_run(struct daemon *d, const char *pid_path, struct error *e);
void daemon_done(struct daemon *d);

#endif
