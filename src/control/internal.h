// What the files of control share. control.c owns the state and is the only one that changes it; agents.c talks to agents; api.c routes
// requests to api_v1.c and api_v2.c.
#ifndef FLOCKER_CONTROL_INTERNAL_H
#define FLOCKER_CONTROL_INTERNAL_H

#include "base/limits.h"
#include "control/containers.h"
#include "control/control.h"
#include "model/json.h"
#include "model/volume_set.h"
#include "net/http.h"
#include "plan/decide.h"

#include <jansson.h>
#include <sys/queue.h>

struct event;
struct line_peer;

// What the owner's agent said last about a volume.
struct sighting {
    struct uuid id; // first: the tree is searched by it
    struct uuid node;
    bool present, mounted;
    uint64_t epoch, revision;
    char *path;       // where it is mounted; NULL
    char *error_word, *error; // both or none; none: all well
    uint64_t reports; // how often it was told
};

// A node as long as it is heard of, and for a while after.
struct control_node {
    struct node node; // first: the tree is searched by its id
    LIST_ENTRY(control_node) all;
    bool saved;              // the store knows it as it is
    struct agent_peer *peer; // NULL: not connected
    int64_t seen_ms;         // boot clock, when it was last connected
};

// A client that waits until the owner has carried out what it wished.
struct waiter {
    LIST_ENTRY(waiter) all;
    struct control *control;
    struct uuid volume;
    uint64_t revision;
    uint64_t reports; // of the owner, when the wait began: an error counts if it was told later
    int status; // to answer with
    struct http_exchange *exchange;
    struct event *deadline;
};

struct control {
    struct control_config config;
    struct store *store;
    struct volume_set volumes;
    size_t hold_count, hold_room;
    struct hold *holds; // sorted by volume
    struct container_set containers;
    uint64_t tag[2];    // of the configuration of volumes: changes with each change, the same after a restart
    void *sightings;    // tree of struct sighting by id (tsearch)
    LIST_HEAD(, control_node) nodes;
    void *node_tree; // the same, by id
    size_t node_count;
    LIST_HEAD(, agent_peer) peers;
    size_t peer_count, ask_count;
    LIST_HEAD(, waiter) waiters;
    size_t waiter_count;
    struct event *sweep, *on_agent, *resume;
    int64_t sweep_ms; // wall clock, when the sweep is to run
    int64_t wall_less_boot_ms; // at the last sweep: what it has grown by since, the wall clock was set forward by
    int64_t purge_from_ms; // boot clock: nothing that runs out in the trash is destroyed before
    struct http_server *api, *rest;
};

#define NODE_SILENT_MS 120000 // Flocker v1: a node's state is forgotten after that
#define ASK_MS         10000  // an agent answers within PLUGIN_ANSWER_MS unless it is stuck
#define HELLO_MS       10000  // for an agent to say who it is

// ---- control.c
// Commits the changed volume and makes it the current one; tells its owner. Takes `changed`. On failure nothing has changed.
int control_put(struct control *c, struct volume *changed, struct error *e);
// Decides on a new volume (decide_create) with a fresh id unless the wish has one, and commits it. On success *ret is it; if the name is
// taken, *ret_existing is the volume that has it.
int control_create(struct control *c, const struct volume_wish *wish, const struct volume **ret, const struct volume **ret_existing,
                   struct error *e);
int control_put_hold(struct control *c, const struct hold *h, struct error *e);
int control_remove_hold(struct control *c, const struct uuid *volume, struct error *e);
struct hold *control_hold(const struct control *c, const struct uuid *volume);
struct sighting *control_sighting(const struct control *c, const struct uuid *volume);
struct sighting *control_sighting_add(struct control *c, const struct uuid *volume);
// Live volume of that name, or any volume of that id.
struct volume *control_find(const struct control *c, const char *name_or_id);
struct control_node *control_node(const struct control *c, const struct uuid *id);
struct control_node *control_node_add(struct control *c, const struct node *node);

// ---- agents.c
int agents_init(struct control *c, struct error *e);
void agents_free(struct control *c);
void agents_tell(struct control *c, const struct uuid *node, const struct volume *v);
// Sends a message to a node's agent, if that is connected and has told its inventory; else it is lost.
void agents_send(struct control *c, const struct uuid *node, json_t *message /* taken */);
// Asks a node's agent. `done` is called once, perhaps at once: with its answer, with E_UNAVAILABLE if it is not connected or goes away, or
// with E_TIMEOUT after `limit_ms`.
typedef void agents_done(void *arg, int rc, const json_t *reply, const struct error *e);
void agents_ask(struct control *c, const struct uuid *node, json_t *message /* taken */, int limit_ms, agents_done *done, void *arg);

// ---- api.c
void api_on_request(struct http_exchange *x, void *control);
void api_reply(struct http_exchange *x, int status, json_t *body /* taken */);
void api_reply_text(struct http_exchange *x, int status, const char *extra, const char *json, size_t n);
void api_describe(struct http_exchange *x, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void api_fail(struct http_exchange *x, const struct error *e); // as v2 writes errors
bool api_flag(const struct http_exchange *x, const char *name); // it is in the query, and not as "0"

// One request as handlers see it: path segments that stood for a '*', and the parsed body (NULL unless the route takes one).
struct call {
    struct control *control;
    struct http_exchange *exchange;
    const char *segment; // the '*' of the path, percent-decoded; "" if there is none
    json_t *body;
    int wait_s;          // with ROUTE_WAIT: how long the client will wait for the effect; 0 to WAIT_S_MAX
};
typedef void api_handler(struct call *call);

struct route {
    const char *method, *path; // "/v1/version"; '*' stands for one segment
    unsigned flags;
    api_handler *run;
    const char *summary;       // one line for the manual
};
#define ROUTE_BODY   1U // takes a JSON document
#define ROUTE_TAG    2U // honours X-If-Configuration-Matches
#define ROUTE_ROOT   4U // only for local root
#define ROUTE_WAIT   8U // takes wait=SECONDS

extern const struct route routes_v1[], routes_v2[]; // end with a NULL method
void control_tag(const struct control *c, char ret[33]);

// ---- api_v1.c: for the files that serve API v1

struct field {
    const char *name;
    enum { KIND_UUID, KIND_METADATA, KIND_SIZE, KIND_ID36, KIND_EXPIRES, KIND_OBJECT } kind;
    bool required;
};
// Replies 400 and returns false if the body breaks the schema.
bool v1_check(const struct call *call, const struct field *fields, size_t n);
void v1_violation(json_t *errors, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool v1_check_errors(const struct call *call, json_t *errors /* taken */); // the same for a list of violations that may be empty
void v1_refuse(struct http_exchange *x, const struct error *e);
bool v1_is_heard_of(const struct control_node *n);
// The user wants it on that node.
int v1_move_volume(struct control *c, const struct uuid *id, const struct uuid *node, struct error *e);

// ---- api_v1_containers.c

void v1_list_containers(struct call *call);
void v1_create_container(struct call *call);
void v1_move_container(struct call *call);
void v1_delete_container(struct call *call);
void v1_list_container_states(struct call *call);
void v1_compose(struct call *call);

// ---- wait.c
// Answers the call with the volume as v2 shows it: at once or, if it wants to wait, when its owner has carried out the present revision,
// or has failed to, or that time is over.
void wait_and_reply(struct call *call, const struct volume *v, int status);
void waiters_turn(struct control *c, const struct uuid *volume);
void waiters_free(struct control *c);
json_t *volume_to_v2(const struct control *c, const struct volume *v);

#endif
