// What callers (the plugin, control) ask for and wait for: each operation looks at its volume whenever something has changed, until it is done or
// late. operation.c has what all of them have in common, and those that only ask control for names; operation_create.c, operation_mount.c and
// operation_remove.c have a kind each. No other file knows what an operation looks like.
#ifndef FLOCKER_AGENT_OPERATION_H
#define FLOCKER_AGENT_OPERATION_H

#include "agent/internal.h"

enum operation_kind { OP_SYNC, OP_FIND, OP_LIST, OP_CREATE, OP_MOUNT, OP_REMOVE, OP_RELEASE };

struct operation {
    LIST_ENTRY(operation) all;
    enum operation_kind kind;
    struct agent *agent;
    struct event *deadline;
    char *name;
    struct volume_wish wish; // of CREATE; owned copies below
    struct metadata metadata;
    char id[MOUNT_ID_SIZE]; // of MOUNT
    struct engine engine;
    bool asked;             // control was asked and has not answered
    bool begun;             // REMOVE, RELEASE: has claimed the volume; MOUNT: control has been asked for it
    struct uuid volume;     // once known
    uint64_t attempts_before;
    struct json_t *names;   // of LIST: so far
    struct error failure;   // CREATE: what it is answered once control has discarded the volume; E_NONE: it has not failed
    agent_done *done;
    agent_names_done *names_done; // of LIST
    void *arg;
};

// operation.c. What finishes an operation also frees it.
struct operation *operation_new(struct agent *a, enum operation_kind kind, const char *name, agent_done *done, void *arg);
struct operation *operation_still_there(const struct agent *a, const struct operation *o); // NULL: it has finished
struct agent_volume *operation_volume(const struct operation *o); // as far as it was found; NULL
// Finds the operation's volume by name, once; lets a volume that failed try again at once for it.
struct agent_volume *operation_find(struct operation *o);
void operation_look_up(struct operation *o); // asks control for a name of which nothing is known here
void operation_finish(struct operation *o, int rc, const struct error *e);
void operation_fail(struct operation *o, enum errcode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool operation_has_failed(const struct operation *o, const struct agent_volume *v); // an attempt that was made for it has
void operation_keep_failure(struct operation *o, const struct agent_volume *v); // in o->failure
void operation_finish_kept(struct operation *o);
void operation_finish_failed(struct operation *o, const struct agent_volume *v); // both at once

// The turns of each kind, whenever something has changed.
void operation_create_turn(struct operation *o);
void operation_mount_turn(struct operation *o);
void operation_remove_turn(struct operation *o); // REMOVE and RELEASE
void operation_end_claim(const struct operation *o, struct agent_volume *v, int rc); // others may have the volume again, if it is one of these

#endif
