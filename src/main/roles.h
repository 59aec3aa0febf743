// The daemons and what starts and stops them on one host. Each returns 0 or negative with `e`.
#ifndef FLOCKER_MAIN_ROLES_H
#define FLOCKER_MAIN_ROLES_H

#include "main/paths.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control_options {
    const char *rest;   // ADDRESS:PORT of the REST API; "none": not served
    const char *agents; // ADDRESS:PORT for agents of other hosts; "none": not served
    int64_t trash_keep_s;
};
int role_control(const struct paths *p, const struct control_options *o, struct error *e);

#define PEERS_DEFAULT "0.0.0.0:4525"

// What the command line says; what it leaves out (NULL, 0, false) is taken from agent.yml, and what that leaves out has a default.
struct agent_options {
    const char *config;        // path of agent.yml; NULL: <etc>/agent.yml if there is one
    const char *pool;          // file, block device or directory of a btrfs; NULL: <var>/pool.img
    uint64_t pool_size;        // of a new pool file; 0: half of what is free
    bool format;               // a device that holds nothing may be formatted
    bool qgroups;              // limits by classic qgroups
    const char *backend;       // "btrfs", or "memory" for trying things out; NULL: btrfs
    const char *plugin_listen; // ADDRESS:PORT of the plugin's TLS door; NULL: none
    const char *docker_socket; // of the engine that runs containers of API v1; NULL: /run/docker.sock below the root
    const char *peers;         // ADDRESS:PORT for other agents; "none"; NULL: every address if control is on another host, else none
    const char *host;          // this node's address as others see it; NULL: its end of the connection to control
    const char *control;       // HOST or HOST:PORT of the control service; NULL: as agent.yml says; of this host: by its socket
};
int role_agent(const struct paths *p, const struct agent_options *o, struct error *e);

// Makes this host a node of the cluster whose control service is at `where` (HOST or HOST:PORT): certificates and agent.yml, for an agent
// that is started next. E_CONFLICT if it belongs to a cluster already, E_DENIED if the token or that service is not right; then nothing but
// keys is left behind, which the next attempt uses.
int role_join(const struct paths *p, const char *where, const char *token, void (*say)(const char *line), struct error *e);

// Starts control (unless it is on another host) and agent in the background unless they answer already, and waits until they do. `say`
// gets one line for each thing done.
struct up_arguments { // both read their options from flocker.conf
    bool has_control, has_agent;     // options of that one were given: if it runs already, they do not count yet
    char *once[3];                   // words for the agent that are not kept; up to a NULL, owned
    const char *config, *control_at; // of the agent: from them follows whether control belongs on this host
};
int role_up(const struct paths *p, const struct up_arguments *arguments, void (*say)(const char *line), struct error *e);
// To what failed for want of rights, that only root has them. Returns `rc`.
int explain_denied(int rc, struct error *e);
// Stops both. Unmounts everything first unless keep_mounted; E_BUSY if something is in use: then nothing is stopped.
int role_down(const struct paths *p, bool keep_mounted, void (*say)(const char *line), struct error *e);

#endif
