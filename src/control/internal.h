// What the files of control share. control.c owns the state and is the only one that changes it; nodes.c knows which node is to be told of
// what; agents*.c talk to agents; api.c routes requests to api_v1.c and api_v2.c.
#ifndef FLOCKER_CONTROL_INTERNAL_H
#define FLOCKER_CONTROL_INTERNAL_H

#include "base/limits.h"
#include "control/containers.h"
#include "control/control.h"
#include "model/id_set.h"
#include "model/json.h"
#include "model/volume_set.h"
#include "net/http.h"
#include "net/token.h"
#include "plan/decide.h"
#include "plan/move.h"
#include "plan/resume.h"

#include <jansson.h>
#include <sys/queue.h>

struct event;
struct line_peer;

// What an agent said last about a volume: that of its owner, or of the other node of a move.
struct sighting {
    struct uuid id; // first: the tree is searched by it
    struct uuid node;
    bool present, mounted, has_copy;
    uint64_t epoch, revision;
    char *path;       // where it is mounted; NULL
    char *error_word, *error; // both or none; none: all well
    uint64_t reports; // how often it was told
    uint64_t connection; // of the node when it was told: relied on from its known_since on
    struct move_part part;
    uint64_t copy_bytes, copy_total, copy_rate; // of the stream that a target receives: so far, about in all, per second
};

// Of a node: its volumes, how many of them are to be elsewhere, and are used or held there; those on their way to it.
struct node_counts {
    size_t live, trashed, leaving, used, coming;
};

// A node as long as it is heard of, and for a while after.
struct control_node {
    struct node node; // first: the tree is searched by its id
    LIST_ENTRY(control_node) all;
    bool saved;              // the store knows it as it is
    struct agent_peer *peer; // NULL: not connected
    uint64_t connection;     // grows with each
    uint64_t reports_since;  // what it reported on that connection or later was not lost on the way
    uint64_t known_since;    // the same, once what changed in between has been reported too
    uint64_t wants_sent, reports_got; // on that connection
    struct id_set volumes;   // that concern it
    struct id_set watches;   // that do not, and that it asked for; as long as it resumes
    struct id_set due;       // of both: it has to be told how they are; outlives the connection
    struct uuid due_at;      // the last one taken (id_set_take)
    bool has_unknown;        // it has reported data of a volume that is not known here, on this connection or one that it goes on with
    bool has_missed;         // something that was due can't be told any more: it has to begin anew
    uint16_t peer_port;      // where its agent listens for others
    int64_t seen_ms;         // boot clock, when it was last connected
    int64_t booted_ms;       // this host's wall clock, when its era began; 0: it has not said
    bool is_told_absent;     // other nodes know that it is not connected
    uint64_t pool_size, pool_used, pool_free; // bytes, as it said last; size 0: it has not
    size_t created;          // volumes that it was given since then
    struct node_counts counts;     // as of the last drain_count
    char drain_problem[sizeof ((struct error *)NULL)->msg]; // why its drain can't go on; ""
};

// A client that waits until the owner has carried out what it wished.
struct waiter {
    LIST_ENTRY(waiter) all;
    struct control *control;
    struct uuid volume;
    uint64_t revision;
    uint64_t reports; // of the owner, when the wait began: an error counts if it was told later
    bool for_move;    // until it is where its user wants it
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
    size_t token_count;
    struct join_token *tokens; // in no order
    size_t user_count;
    struct user *users;        // whose certificates were revoked, in the order of names
    uint64_t wrong_tokens;     // that hosts have come with, since the start
    uint64_t tag[2];    // of the configuration of volumes: changes with each change, the same after a restart
    void *sightings;    // of owners: tree of struct sighting by id (tsearch)
    void *others;       // of the other node of a move, the same
    LIST_HEAD(, control_node) nodes;
    void *node_tree; // the same, by id
    size_t node_count;
    struct uuid instance;    // of this process: no other has the same
    void *watched;           // volumes that nodes without a part in them have asked for: nodes.c
    size_t watch_count;      // of all nodes together
    LIST_HEAD(, agent_peer) peers;
    TAILQ_HEAD(, agent_peer) newcomers; // of other hosts that have not said hello; the oldest first
    size_t peer_count, ask_count, joiner_count;
    LIST_HEAD(, waiter) waiters;
    size_t waiter_count;
    TAILQ_HEAD(, listing) listings; // of which a piece is to be written; the one that has waited longest first
    struct event *listing;
    struct event *absence, *drain, *again; // NULL until they are needed
    bool drain_is_soon;
    struct recovery *recovery;     // that is under way; NULL
    struct event *sweep, *on_agent, *on_remote_agent, *resume;
    int64_t sweep_ms; // wall clock, when the sweep is to run
    int64_t wall_less_boot_ms; // at the start, or when the wall clock was last found to have been set
    int64_t steady_from_ms;    // boot clock: since then it was not set
    bool was_set;              // then it was; else control was started
    struct http_server *api, *rest;
};

#define NODE_SILENT_MS 120000 // Flocker v1: a node's state is forgotten after that
#define ASK_MS         10000  // an agent answers within PLUGIN_ANSWER_MS unless it is stuck
#define STORE_RETRY_MS 5000   // after the store has failed
#define HELLO_MS       10000  // for an agent to say who it is

// ---- control.c
// Commits the changed volume and makes it the current one; tells its owner. Takes `changed`. On failure nothing has changed.
int control_put(struct control *c, struct volume *changed, struct error *e);
// The same for several volumes of different ids, and for what is known of a node (NULL: none), in one commit.
int control_put_all(struct control *c, struct volume **changed /* each taken */, size_t n, const struct node *node, struct error *e);
// Decides on a new volume (decide_create) with a fresh id unless the wish has one, and commits it. On success *ret is it; if the name is
// taken, *ret_existing is the volume that has it.
int control_create(struct control *c, const struct volume_wish *wish, const struct volume **ret, const struct volume **ret_existing,
                   struct error *e);
int control_put_hold(struct control *c, const struct hold *h, struct error *e);
int control_remove_hold(struct control *c, const struct uuid *volume, struct error *e);
struct hold *control_hold(const struct control *c, const struct uuid *volume);
size_t control_holds_behind(const struct control *c, const struct uuid *volume); // index of the first of a volume with a greater id
struct sighting *control_sighting(const struct control *c, const struct uuid *volume);
struct sighting *control_sighting_add(struct control *c, const struct uuid *volume);
struct sighting *control_other(const struct control *c, const struct uuid *volume);
struct sighting *control_other_add(struct control *c, const struct uuid *volume);
// The other node of a move: its target, after the switch its source. Zero: none.
struct uuid control_other_node(const struct volume *v);
// Live volume of that name, or any volume of that id.
struct volume *control_find(const struct control *c, const char *name_or_id);

// ---- nodes.c
struct control_node *control_node(const struct control *c, const struct uuid *id);
struct control_node *control_node_add(struct control *c, const struct node *node); // looks through all volumes once
// Notes whom the volume concerns from now on. `old`: as it was, NULL: new; `now` NULL: it is gone.
void nodes_index(const struct control *c, const struct volume *old, const struct volume *now);
// From now on the node is told of each change, as long as its connections are resumed. E_TOO_LARGE.
int nodes_watch(struct control *c, struct control_node *n, const struct uuid *volume, struct error *e);
// fn must not add or remove watches.
void nodes_each_watcher(const struct control *c, const struct uuid *volume, void (*fn)(struct control_node *n, const struct volume *v),
                        const struct volume *v);
void nodes_forget_interest(struct control *c, struct control_node *n);        // what it watches, and what is due
void nodes_forget_volume(struct control *c, const struct volume *v);          // before its end
void nodes_free(struct control *c);

// ---- absence.c
#define NODE_LABEL_SIZE 160
const char *node_label(const struct control *c, const struct uuid *id, char ret[NODE_LABEL_SIZE]); // "node 10.0.0.2 (<uuid>)": as people know it
// Whether its owner can't be reached now; *ret says so, since when, and what to do.
bool absence_describe(const struct control *c, const struct volume *v, struct error *ret);
bool absence_is_for_good(const struct control *c, const struct volume *v); // its owner was removed from the cluster
// To the trash, without asking the owner: for those that it is no more to be had from.
int absence_remove(struct control *c, const struct volume *v, struct error *e);
void absence_turn(struct control *c, const struct uuid *volume); // what is to be destroyed by a node that was removed is gone
void absence_begin(struct control *c); // the same of all: control may have died between the one commit and the other
void absence_soon(struct control *c); // a node has come or gone: who knows of its volumes is told in a moment
// For good. *ret_lost: volumes whose data was only there; *ret_rescued: those of which another node's copy is the volume now.
int absence_remove_node(struct control *c, struct control_node *n, size_t *ret_lost, size_t *ret_rescued, struct error *e);

// ---- drain.c
int drain_check(const struct control *c, const struct uuid *node, struct error *e); // E_CONFLICT: no volume may go there
void drain_count(const struct control *c); // the counts of all nodes
void drain_soon(struct control *c);        // something has changed by which one may go on
// The node for a new volume for which nobody says where: that with most room in its pool. E_UNAVAILABLE: there is none that takes any.
int drain_choose(const struct control *c, struct uuid *ret, struct error *e);
int drain_set(struct control *c, struct control_node *n, enum node_drain drain, struct error *e);

// ---- recover.c
void recover_stop(struct control *c); // control ends: what is under way commits nothing any more

// ---- moves.c
struct move_part moves_part(const struct control *c, const struct sighting *s); // what is to be relied on; s may be NULL
// Finds out how much a move by that wish would bring, and, if that seems not to fit, how full its target's pool is by now; the agents of both
// nodes have a moment to say it. `done` is called once, perhaps at once, with what to decide by; the volume may be another one by then, or gone.
typedef void moves_surveyed(void *arg, const struct move_wish *known);
void moves_survey(struct control *c, const struct volume *v, const struct move_wish *wish, moves_surveyed *done, void *arg);
// Whether the owner has said that the data of the volume is missing there.
bool moves_lacks_data(const struct control *c, const struct volume *v);
// Commits what decide_move makes of the wish, with what is known here of the owner and of the target's pool. The volume must be there. Errors as
// those of decide_move and drain_check, and of the store.
int moves_carry_out(struct control *c, const struct uuid *volume, const struct move_wish *wish, struct error *e);
// Commits the next stage of a move, if what the two nodes have said allows it.
void moves_turn(struct control *c, const struct uuid *volume);
// The number of the final snapshot, once the owner has said that it took it by the present order; 0: it has not.
uint64_t moves_final_number(const struct control *c, const struct volume *v);
json_t *moves_to_v2(const struct control *c, const struct volume *v); // NULL: none is under way
// Requests of agents; as those in agents_requests.c.
int moves_request_acquire(struct agent_peer *p, const json_t *message, json_t *reply, struct error *e);

// ---- agents.c
#define REQUEST_GOES_ON 1 // what a request gives that is answered later
struct relay; // a request that waits for another node's agent
struct relay *agents_relay(struct agent_peer *p, const json_t *message, const struct uuid *volume); // taken by agents_relay_reply
const struct uuid *agents_relay_volume(const struct relay *r);
const struct uuid *agents_relay_node(const struct relay *r); // who asked
struct control *agents_relay_control(const struct relay *r);
void agents_relay_reply(struct relay *r, int rc, const struct error *e); // to nobody, if who asked has gone
const struct uuid *agents_node(const struct agent_peer *p);
struct control *agents_control(const struct agent_peer *p);
int agents_init(struct control *c, struct error *e);
void agents_free(struct control *c);
// The node is to be told how the volume is: at once, or as soon as it can take it; several changes meanwhile become one message.
void agents_tell(struct control *c, const struct uuid *node, const struct volume *v);
// Sends a message to a node's agent, if that is connected and has told its inventory; else it is lost.
void agents_send(struct control *c, const struct uuid *node, json_t *message /* taken */);
void agents_tell_watchers(struct control *c, const struct volume *v); // nodes that have no part in it, but have asked for it
// Asks a node's agent. `done` is called once, perhaps at once: with its answer, with E_UNAVAILABLE if it is not connected or goes away, or
// with E_TIMEOUT after `limit_ms`.
typedef void agents_done(void *arg, int rc, const json_t *reply, const struct error *e);
void agents_ask(struct control *c, const struct uuid *node, json_t *message /* taken */, int limit_ms, agents_done *done, void *arg);

// Whether its agent is connected by the unix socket: it is that of control's own host.
bool agents_is_own_host(const struct control_node *n);

// What an agent says is kept as long as what it is said of: a copy of the text, at most SAID_BYTES_MAX of it, NULL if there is none.
#define SAID_BYTES_MAX 1000 // errors, images and paths are shorter
char *agents_said(const json_t *text);

// Closes the node's connection, if it has one, after telling it why; it counts as gone at once.
void agents_expel(struct control_node *n, const struct error *why);

// ---- agents_reports.c
void agents_note_pool(struct control_node *n, const json_t *message); // what it says of its pool
// The store has refused what followed from a report of that volume: said in the log, and all that follows from reports is tried again in a while,
// without waiting for the agents to say it once more.
void reports_again_later(struct control *c, const struct uuid *volume, const struct error *why);

// ---- enrol.c
int enrol_load_token(void *control, const struct join_token *t, struct error *e); // for the store's sink
// A new join token; `node`: the one that the host becomes, zero for a new one.
int enrol_new_token(struct control *c, int64_t ttl_s, const struct uuid *node, char ret[TOKEN_TEXT_SIZE], int64_t *ret_expires_ms, struct error *e);
// All tokens that were not used yet.
int enrol_drop_tokens(struct control *c, struct error *e);
// What a host without a certificate has sent. On success the token is used up, and *ret is what to answer. E_DENIED: the token is no good.
int enrol_join(struct control *c, const json_t *message, json_t **ret, struct error *e);
// New certificates for a node; *ret is a reply without type and number.
int enrol_renew(struct control *c, const struct uuid *node, const json_t *message, json_t **ret, struct error *e);
// E_CONFLICT while volumes are on the node, or move to it, or are left there by a move, unless `force`. Else as absence_remove_node.
int enrol_remove_node(struct control *c, struct control_node *n, bool force, size_t *ret_lost, size_t *ret_rescued, struct error *e);

// ---- users.c
int users_load(void *control, const struct user *u, struct error *e); // for the store's sink
bool users_may_enter(const struct control *c, const struct http_peer *peer); // false: its certificate was revoked

// ---- api_nodes.c
// By id, by host, or by the beginning of the id if only one begins so; a removed node only if no other is called that.
int control_find_node(const struct control *c, const char *text, struct control_node **ret, struct error *e);

#define JSON_TYPE "application/json"

// ---- api.c
void api_on_request(struct http_exchange *x, void *control);
void api_reply(struct http_exchange *x, int status, json_t *body /* taken */);
void api_reply_text(struct http_exchange *x, int status, const char *extra, const char *json, size_t n);
void api_describe(struct http_exchange *x, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void api_fail(struct http_exchange *x, const struct error *e); // as v2 writes errors
bool api_tag_matches(const struct control *c, struct http_exchange *x); // false after a reply: the client wants another configuration
bool api_flag(const struct http_exchange *x, const char *name); // it is in the query, and not as "0"
// The value of a query's parameter; "" if it has none, NULL if it isn't there. What is no percent-encoding stays as it is.
const char *api_query(const struct http_exchange *x, const char *name, char *ret, size_t size);
// A number in the query; one that is greater than `max` is taken for that. Left alone if it isn't there.
int api_number(const struct http_exchange *x, const char *name, int max, int *ret, struct error *e);

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

const char *api_node_state(const struct control_node *n); // n may be NULL: never heard of
void api_list_nodes(struct call *call);
void api_remove_node(struct call *call);
void api_get_node(struct call *call);
void api_drain_node(struct call *call);
void api_undrain_node(struct call *call);
void api_recover(struct call *call); // recover.c
void api_new_token(struct call *call);
void api_list_users(struct call *call); // users.c
void api_revoke_user(struct call *call);
void api_admit_user(struct call *call);
int api_check_members(const json_t *object, const char *const *names, struct error *e); // that it is an object and has no others

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

// ---- listing.c
struct listing_source {
    size_t (*behind)(const struct control *c, const struct uuid *id); // index of the first item with a greater id
    const struct uuid *(*id)(const struct control *c, size_t at);     // NULL: there are no more
};
extern const struct listing_source listing_volumes, listing_holds;
struct listing_kind {
    const struct listing_source *source;
    // Writes the comma, and the item at that index; or nothing, and returns false: it does not belong to the list.
    bool (*write)(FILE *f, const struct control *c, size_t at, const char *comma);
};
struct listing_range {
    struct uuid after, last; // ids greater than `after`, up to and with `last`
};
// Answers with a list of what is in the range (NULL: all), piece by piece.
void listing_reply(struct call *call, const struct listing_kind *kind, const struct listing_range *range, const char *extra);
void listings_init(struct control *c);
void listings_free(struct control *c); // before the servers end; those that wait for their client end with these

// ---- wait.c
// Answers the call with the volume as v2 shows it: at once or, if it wants to wait, when its owner has carried out the present revision,
// or has failed to, or that time is over.
void wait_and_reply(struct call *call, const struct volume *v, int status);
void wait_for_move(struct call *call, const struct volume *v); // the same, until it is where its user wants it
void waiters_turn(struct control *c, const struct uuid *volume);
void waiters_free(struct control *c);
json_t *volume_to_v2(const struct control *c, const struct volume *v);

#endif
