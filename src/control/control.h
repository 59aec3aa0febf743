// Control: decides and stores what is wanted. It never touches storage, so it needs no rights: one thread, one store, and connections
// from agents and clients.
#ifndef FLOCKER_CONTROL_CONTROL_H
#define FLOCKER_CONTROL_CONTROL_H

#include "base/error.h"
#include "store/store.h"

#include <stdint.h>

struct event_base;
struct ssl_ctx_st;
struct control;

struct control_config {
    struct event_base *base;
    const struct store_ops *store;
    const char *store_path;
    int agents_fd;            // listening sockets, owned by control from here on: agents,
    int api_fd;               // the REST API for local root,
    int rest_fd;              // and over TLS; -1: not served
    struct ssl_ctx_st *tls;   // for rest_fd
    struct ssl_ctx_st *agents_tls; // agents of other hosts: NULL: not served. It takes clients without a certificate (they may join)
    int agents_tls_fd;        // looked at only with agents_tls
    const char *pki_dir;      // where cluster.crt is, and cluster.key if this control may make certificates; NULL: it can't
    int64_t trash_keep_ms;    // how long a removed volume can be restored
};

// Reads the store and serves. E_CORRUPT and E_BUSY as store_open.
int control_new(const struct control_config *config, struct control **ret, struct error *e);
void control_free(struct control *c);

#endif
