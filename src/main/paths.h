// Where everything lies, below one root.
#ifndef FLOCKER_MAIN_PATHS_H
#define FLOCKER_MAIN_PATHS_H

#include "base/error.h"

#define PATH_SIZE 512

#define REST_PORT   4523 // of the control service
#define AGENTS_PORT 4524

#define PATHS_TABLE(X) \
    X(etc,           "/etc/flocker",                             0700) \
    X(var,           "/var/lib/flocker",                         0700) \
    X(pool,          "/var/lib/flocker/pool",                    0)    \
    X(pool_file,     "/var/lib/flocker/pool.img",                0)    \
    X(store,         "/var/lib/flocker/control.db",              0)    \
    X(control_lock,  "/var/lib/flocker/control.lock",            0)    \
    X(agent_lock,    "/var/lib/flocker/agent.lock",              0)    \
    X(run,           "/run/flocker",                             0700) \
    X(refs,          "/run/flocker/refs",                        0)    \
    X(control_pid,   "/run/flocker/control.pid",                 0)    \
    X(agent_pid,     "/run/flocker/agent.pid",                   0)    \
    X(control_sock,  "/run/flocker/control.sock",                0)    \
    X(agents_sock,   "/run/flocker/agents.sock",                 0)    \
    X(agent_sock,    "/run/flocker/agent.sock",                  0)    \
    X(docker_sock,   "/run/docker.sock",                         0)    \
    X(log,           "/var/log/flocker",                         0755) \
    X(plugins,       "/run/docker/plugins",                      0755) \
    X(plugin_dir,    "/run/docker/plugins/flocker",              0700) \
    X(plugin_sock,   "/run/docker/plugins/flocker/flocker.sock", 0)    \
    X(mount_root,    "/flocker",                                 0)

struct paths {
    char root[PATH_SIZE];
#define X(member, path, mode) char member[PATH_SIZE];
    PATHS_TABLE(X)
#undef X
};

// `root` "" stands for /. E_INVALID if it is relative or too long (a unix socket's path has at most 107 bytes).
int paths_init(struct paths *p, const char *root, struct error *e);
// Makes the directories that have a mode in the table, with their parents.
int paths_make(const struct paths *p, struct error *e);

#endif
