// The durable configuration: what control has acknowledged. A vtable with `sqlite` (one machine) and `memory` (tests).
//
// A store belongs to one process and one thread. What store_commit has acknowledged survives kill -9 and power loss; a commit
// is atomic: after a crash either all of its changes are there or none. Callers keep the working copy in memory; the store is
// read once, at start.
#ifndef FLOCKER_STORE_STORE_H
#define FLOCKER_STORE_STORE_H

#include "base/error.h"
#include "model/container.h"
#include "model/hold.h"
#include "model/join_token.h"
#include "model/node.h"
#include "model/user.h"
#include "model/volume.h"

#include <stddef.h>

struct store;

enum store_change_kind {
    STORE_PUT_VOLUME, STORE_REMOVE_VOLUME, STORE_PUT_HOLD, STORE_REMOVE_HOLD, STORE_PUT_NODE, STORE_REMOVE_NODE, STORE_PUT_TOKEN,
    STORE_REMOVE_TOKEN, STORE_PUT_CONTAINER, STORE_REMOVE_CONTAINER, STORE_PUT_USER
};

// One change. `volume` is set for PUT_VOLUME, `hold` for PUT_HOLD, `node` for PUT_NODE, `token` for PUT_TOKEN, `container` for
// PUT_CONTAINER, `user` for PUT_USER (all borrowed for the call), `id` for the REMOVEs (of a hold: its volume's id), but `name` for REMOVE_CONTAINER. Removing
// what is not there is no error.
struct store_change {
    enum store_change_kind kind;
    const struct volume *volume;
    const struct hold *hold;
    const struct node *node;
    const struct join_token *token;
    const struct container *container;
    const struct user *user;
    const char *name;
    struct uuid id;
};

// Called for each record by store_load: nodes, volumes, holds, tokens, containers and users, each in the order of ids or names. `volume` and
// `container` are handed over; the others are
// borrowed. A negative return ends the load. When a load fails, forget what it brought: damage may show only at the end.
struct store_sink {
    int (*on_volume)(void *arg, struct volume *volume, struct error *e);
    int (*on_hold)(void *arg, const struct hold *hold, struct error *e);
    int (*on_node)(void *arg, const struct node *node, struct error *e);
    void *arg;
    int (*on_token)(void *arg, const struct join_token *token, struct error *e); // NULL: tokens are not wanted
    int (*on_container)(void *arg, struct container *container, struct error *e); // NULL: containers are not wanted
    int (*on_user)(void *arg, const struct user *user, struct error *e); // NULL: users are not wanted
};

struct store_ops {
    const char *name;
    // Opens or makes the store at `path` (a file; ignored by `memory`). E_CORRUPT if the file is damaged or of a newer version: it is
    // left as it is and the message says what to do. E_BUSY if another process has it open.
    int (*open)(const char *path, struct store **ret, struct error *e);
    void (*close)(struct store *s);
    int (*load)(struct store *s, const struct store_sink *sink, struct error *e);
    // All or nothing, in the order given. E_CONFLICT if a live volume's name is taken by another; E_NO_SPACE, E_IO: nothing was changed.
    int (*commit)(struct store *s, const struct store_change *changes, size_t n, struct error *e);
    // Writes a consistent copy to a new file while in use. E_CONFLICT if the file exists. `memory`: E_UNSUPPORTED.
    int (*backup)(struct store *s, const char *path, struct error *e);
};

// First member of every implementation.
struct store {
    const struct store_ops *ops;
};

extern const struct store_ops store_sqlite, store_memory;

int store_open(const struct store_ops *ops, const char *path, struct store **ret, struct error *e);
void store_close(struct store *s); // NULL is fine
int store_load(struct store *s, const struct store_sink *sink, struct error *e);
int store_commit(struct store *s, const struct store_change *changes, size_t n, struct error *e);
int store_backup(struct store *s, const char *path, struct error *e);

#endif
