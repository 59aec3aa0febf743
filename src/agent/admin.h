// The agent's own API, for root on its host: HTTP on agent.sock.
//   GET  /v2/pool           the pool: backend, node, size and used in bytes, count of volumes
//   POST /v2/pool           {"size": bytes}: makes it larger
//   POST /v2/pool/shutdown  unmounts volumes and pool, if nothing is in use
#ifndef FLOCKER_AGENT_ADMIN_H
#define FLOCKER_AGENT_ADMIN_H

#include "agent/agent.h"

struct event_base;
struct http_server;

// `listen_fd` is owned by the server from here on.
struct http_server *admin_new(struct event_base *base, int listen_fd, struct agent *agent, struct error *e);

#endif
