// One process of a kind at a time, for example one agent for a root: it holds a lock on a file for as long as it lives. The file stays; what
// is in it does not matter. Unlike a pid file or a socket, the lock can't be stale, and no two processes that start at once can both have it.
#ifndef FLOCKER_SYS_INSTANCE_H
#define FLOCKER_SYS_INSTANCE_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

// Becomes the one process. Waits while another one is starting or ending, 10 s at most. E_BUSY names one that is running. The descriptor is
// the caller's and holds the lock; workers may inherit it, the lock is not theirs. No other descriptor of that file may be closed by this
// process meanwhile: so it does not call instance_find.
int instance_take(const char *path, int *ret_fd, struct error *e);
// From now on it serves: its sockets are there. instance_leave: from now on no more, although the process still lives.
void instance_serve(int fd);
void instance_leave(int fd);

struct instance {
    pid_t pid;       // 0: there is none; -1: it can't be told
    bool is_serving; // between instance_serve and instance_leave
};
struct instance instance_find(const char *path);

#endif
