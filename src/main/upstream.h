// Where an agent finds its control service: what the command line says goes before agent.yml, and that before this host.
#ifndef FLOCKER_MAIN_UPSTREAM_H
#define FLOCKER_MAIN_UPSTREAM_H

#include "client/config.h"
#include "main/listen.h"
#include "main/paths.h"

struct upstream {
    char host[HOST_SIZE];
    uint16_t port;
    bool is_remote; // false: on this host, reached by its socket
};

// Reads agent.yml (`path`; NULL: the one in p->etc, and no file there is as good as one that says nothing).
int upstream_read_config(const struct paths *p, const char *path, struct config *ret, struct error *e);
// `option` is HOST or HOST:PORT; NULL: not given. E_INVALID.
int upstream_find(const struct config *file, const char *option, struct upstream *ret, struct error *e);

#endif
