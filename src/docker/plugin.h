// The volume plugin of Docker and Podman: Plugin.Activate and VolumeDriver.*, on a unix socket, and on TCP with TLS.
//
// Every call is answered within PLUGIN_ANSWER_MS; Activate, Capabilities, Get, List and Path from memory, whatever storage or control are
// doing. Errors are HTTP 500 with {"Err": ...}; where the honest answer is "can't tell", the connection is closed, because an engine
// takes an error of Get for "no such volume" and forgets what it knew. One thread, the agent's; it must be freed before the agent.
#ifndef FLOCKER_DOCKER_PLUGIN_H
#define FLOCKER_DOCKER_PLUGIN_H

#include "agent/agent.h"
#include "base/error.h"

struct event_base;
struct ssl_ctx_st;
struct plugin;

struct plugin_config {
    struct event_base *base;
    struct agent *agent;
    int unix_fd;            // listening; owned by the plugin from here on
    int tcp_fd;             // likewise; -1: none
    struct ssl_ctx_st *tls; // for tcp_fd: only clients whose certificate's CN starts with "engine-" are served
};

int plugin_new(const struct plugin_config *config, struct plugin **ret, struct error *e);
void plugin_free(struct plugin *p);

#endif
