// What the two daemons have in common: a loop that ends on SIGTERM, a lock, a pid file, readiness.
#ifndef FLOCKER_MAIN_DAEMON_H
#define FLOCKER_MAIN_DAEMON_H

#include "base/error.h"

struct event_base;

struct daemon {
    struct event_base *base;
    struct event *on_signal[2];
    const char *pid_path;
    int lock_fd;
};
#define DAEMON_INIT { .lock_fd = -1 }

// Sets up loop, signals and log; `program` names it in the log.
int daemon_init(struct daemon *d, const char *program, struct error *e);
// Makes this process the only one with that lock file (sys/instance.h), from before its sockets are there until daemon_done.
int daemon_lock(struct daemon *d, const char *path, struct error *e);
// Writes the pid file, tells the service manager, runs until SIGTERM or SIGINT.
int daemon_run(struct daemon *d, const char *pid_path, struct error *e);
void daemon_done(struct daemon *d);

#endif
