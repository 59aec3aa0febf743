// What the files of the agent share. agent.c owns the table of volumes, turn.c carries out steps, operation*.c serve callers,
// link.c talks to control, engines.c watches engines and keeps references over restarts.
#ifndef FLOCKER_AGENT_INTERNAL_H
#define FLOCKER_AGENT_INTERNAL_H

#include "agent/agent.h"
#include "agent/worker.h"
#include "model/json.h"
#include "model/node.h"
#include "model/volume_set.h"
#include "plan/move.h"
#include "plan/resume.h"
#include "plan/step.h"

#include <jansson.h>
#include <sys/queue.h>

struct dial;
struct event;
struct line_peer;

// Where a volume comes from: the agent of its owner.
struct move_peer {
    struct uuid node;
    char host[NODE_HOST_SIZE];
    uint16_t port;
    uint64_t final; // number of its final snapshot; 0: not sealed yet
};

// What was received of a volume that moves to this node.
struct move_copy {
    bool is_here;
    struct move_snapshot snapshot; // the newest whole one
    bool warm;                     // a further increment would not be smaller
    uint64_t last_bytes;           // of the stream that brought it
    uint64_t bytes, total, rate;   // of the stream under way: so far, about in all (0: unknown), per second
    int64_t due_ms;                // boot clock: time for the next increment of a warm move
};

// One volume as this node knows it: ordered by control, or found on disk, or both.
struct agent_volume {
    struct uuid id; // first: the table is searched by it
    struct agent *agent;
    struct volume *record; // beside the data on disk; NULL: no data here
    bool half_made;        // a create was begun and has not succeeded since
    bool half_placed;      // the same of a place: it may be the volume already
    bool mounted;
    bool unsure;         // a mount or unmount failed, perhaps after it was done: `mounted` is what was so before
    struct refs refs;
    bool held;           // by a user's hold for this node
    bool confirmed;      // control has named it, on this connection or one that this resumes
    bool removing;       // a Remove is under way: no new mounts
    struct event *linger; // NULL, or until when the volume stays mounted without a reference
    bool checked;        // with removing: unmounted, and no container has it
    bool to_trash;       // with removing: not to another node; its data may be missing
    bool abandoned;      // whose create has failed: what there is of it goes, then control is asked to forget it
    bool discarding;     // control was asked: nothing is made or mounted until that is answered
    bool snapshots_unsure; // a worker that may have taken one has died
    struct move_snapshot snapshot; // the newest one that a move took of it here; of that, `final` is:
    uint64_t sealed_revision;      // the order by which it was taken as the last one; 0: by none
    struct move_copy copy;
    struct move_peer peer;
    int64_t promised_ms; // boot clock: until then it is kept free for another node, whose order is to come
    enum step step;      // what a worker does with it; STEP_NONE: nothing
    struct volume *order; // what that worker works from
    struct worker *fetch; // the worker of STEP_FETCH
    struct event *due;    // NULL, or gives it its turn later: at copy.due_ms, or when a promise is over
    bool fetch_waits;     // until another one has ended: in the agent's list
    LIST_ENTRY(agent_volume) waiting_fetch;
    bool looking;        // a worker looks for users in other mount namespaces
    char *unavailable;   // of another node's: why that can't be reached, as control says; NULL: it can
    bool missing;        // its data should be here and is not
    struct error error;  // of the last attempt; E_NONE: all well
    unsigned failures;   // in a row; those that have failed are in the agent's list
    LIST_ENTRY(agent_volume) failing;
    uint64_t attempts;   // ended ones, good or bad
    int64_t retry_ms;    // boot clock: not before then, unless somebody asks
    struct {
        bool sent, present, mounted;
        bool missing, in_use, warm;
        bool has_copy;
        struct move_snapshot snapshot, copy;
        uint64_t epoch, revision, attempts, copy_bytes, sealed_revision, order;
        enum errcode code;
    } reported; // what control was told last
    bool is_due;         // control is to be told, when the connection can take it:
    TAILQ_ENTRY(agent_volume) due_reports;
};

typedef void request_done(void *arg, int rc, const json_t *reply, const struct error *e);

struct request {
    LIST_ENTRY(request) all;
    json_int_t n;
    request_done *done;
    void *arg;
};

struct engine_watch {
    LIST_ENTRY(engine_watch) all;
    struct agent *agent;
    struct engine engine;
    int fd;
    struct event *on_end;
};

struct agent {
    struct agent_config config;
    struct workers *workers, *link_workers; // the link's own: they must not queue behind a slow disk
    struct backend *backend; // of this process: for plain data and the pool's lock; workers use it too
    bool open;
    int refs_fd; // the directory of the references' files
    struct found *found; // what a worker has told of the pool that is being opened: opening.c
    size_t found_count, found_room;
    json_t *found_copies;
    char *pool_error;
    void *table;             // tree of struct agent_volume by id (tsearch)
    struct volume_set wants; // what control wants; until it is heard, what the disk says
    size_t orphans;          // volumes on disk that control did not name
    bool synced;
    struct line_peer *link;
    struct dial *dial;       // a connection to control that is being made
    char *link_problem;      // why control has not welcomed this node since it last did; NULL: all well, or not known yet
    bool refused;            // control has said that it does not want this connection
    bool welcome;            // control has answered our hello
    uint64_t link_number;    // grows with each connection
    struct resume_count count; // of the connection, or the last one
    bool can_resume;         // all wants were got, on connections up to that one
    TAILQ_HEAD(, agent_volume) due_reports;
    bool inventory_due;      // it ends when they have gone out
    struct event *renew;     // next look at the certificates; not pending: one is under way, or none was begun
    bool renew_begun;
    bool certificates_are_new; // they were installed, and not yet looked at
    bool certificate_is_over; // this node's has expired: control won't let it in
    json_t *new_certificates; // for the worker that keeps them
    struct event *reconnect, *retry, *turn, *recheck, *reopen, *audit;
    unsigned link_failures, recheck_s, open_failures;
    json_int_t last_request;
    LIST_HEAD(, agent_volume) failing; // to be tried again
    LIST_HEAD(, operation) operations;
    LIST_HEAD(, request) requests;
    LIST_HEAD(, engine_watch) engines;
    struct containers *containers; // of API v1
    size_t fetch_count;
    LIST_HEAD(, agent_volume) fetch_waiting;
    LIST_HEAD(, serving) servings;
    size_t serving_count;
    struct event *on_peer, *peer_resume;
    struct event *tell_pool; // NULL until it is needed
};

// agent.c
struct agent_volume *agent_volume(const struct agent *a, const struct uuid *id);
struct agent_volume *agent_volume_add(struct agent *a, const struct uuid *id);
void agent_volume_drop(struct agent_volume *v); // forgets one that neither control nor the disk knows
void agent_for_each(const struct agent *a, void (*fn)(struct agent_volume *v, void *arg), void *arg);

// turn.c
void turn_all(struct agent *a);
void turn(struct agent_volume *v);     // plans and starts the next step
void turn_linger(struct agent_volume *v); // lets it stay mounted for a moment although nothing refers to it any more
void turn_later(struct agent_volume *v, int delay_ms); // gives it its turn then; a later call moves that
void turn_soon(struct agent *a);       // lets every operation look again, from the loop
void turn_failing(struct agent *a);    // gives those their turn whose time has come
void turn_end_step(struct agent_volume *v, int rc, json_t *result, const struct error *e); // a step is done, or has failed
bool turn_is_in_use(const struct agent_volume *v);
void turn_report(struct agent_volume *v); // tells control what is here, if it has changed
json_t *turn_make_report(struct agent_volume *v); // notes that control is told
void turn_look(struct agent_volume *v);   // looks for users where references are doubtful

// moves.c: what moves do on this node
bool moves_wants_fetch(const struct agent_volume *v);          // it is time for one
bool moves_may_fetch(struct agent_volume *v);                  // there is room for one more; else it is called upon when there is
bool moves_has_final(const struct agent_volume *v);            // what was received is all of it
void moves_fetch(struct agent_volume *v);                      // starts it: v->step and v->order are set
int moves_run_seal(struct agent_volume *v, json_t *result, struct error *e); // in a worker
int moves_run_evict(struct agent_volume *v, struct error *e);  // in a worker
void moves_apply_seal(struct agent_volume *v, const json_t *result);
bool moves_are_reported(const struct agent_volume *v);         // control knows how far they are
void moves_report(struct agent_volume *v, json_t *report);     // adds the members about moves
void moves_read_want(struct agent_volume *v, const json_t *message); // where it comes from
void moves_stop_waiting(struct agent_volume *v); // for room
void moves_found_copy(struct agent_volume *v, const json_t *copy); // that was there before the agent was
json_t *moves_copy_to_json(const struct backend_copy *c);
int moves_check(const struct agent *a, struct error *e);       // E_UNSUPPORTED if the backend can't

// operation*.c: what callers wait for
void operations_turn(struct agent *a);
void operations_free(struct agent *a);
bool operation_awaits_mount(const struct agent_volume *v); // one does
void operation_discard(struct agent_volume *v); // asks control to forget what could not be made
void operation_remove(struct agent *a, const struct uuid *id, agent_done *done, void *arg); // as agent_remove, for any user of the CLI or API
// Lets go of the volume, if nothing uses it, and keeps it free for a moment, until another node's order comes.
void operation_release(struct agent *a, const struct uuid *id, agent_done *done, void *arg);

// link.c
void link_connect(struct agent *a);
void link_free(struct agent *a); // closes the connection; all requests end with E_UNAVAILABLE
void link_request(struct agent *a, json_t *message /* taken */, request_done *done, void *arg);
void link_forget(struct agent *a, const void *arg); // requests with this argument are no longer waited for
void link_send(struct agent *a, json_t *message /* taken */); // while there is a connection
// Reports on a volume: at once, or as soon as the connection can take it. A request or reply that names it goes after it.
void link_report(struct agent_volume *v);
void link_forget_report(struct agent_volume *v); // before its end

// peers.c: serves other agents' fetches
int peers_init(struct agent *a, struct error *e);
void peers_free(struct agent *a);
void peers_stop(struct agent *a, const struct uuid *volume); // ends those that this volume goes to

// renew.c
void renew_init(struct agent *a);
void renew_soon(struct agent *a); // control is there
void renew_free(struct agent *a);

// inventory.c
// {"records": [{"id", "volume": <record>, "mounted", "in_use", "placing", "copy"}, ...], "more"}: what is on disk here, by id,
// from `after` on; without a "volume" it is a copy that a move has brought.
json_t *inventory_page(const struct agent *a, const struct uuid *after);
size_t inventory_kept(const struct agent *a);  // volumes whose data is here, and that are not this node's by control's word
void inventory_tell_pool(struct agent *a);     // in a moment
json_t *inventory_pool(const struct agent_pool_facts *facts); // as control is told

// usage.c
void usage_measure(struct agent *a, const struct uuid *id, void (*done)(void *arg, int rc, uint64_t used, const struct error *e), void *arg);
// Calls done with words for one user of the volume, from the loop: a container, or the engine that has asked for it.
void usage_name_user(struct agent *a, const struct uuid *id, void (*done)(void *arg, const char *user), void *arg);
// Measures what is mounted, once a minute while anything is.
void usage_audit(struct agent *a);
void usage_audit_soon(struct agent *a);

// opening.c
void opening_on_time(int fd, short what, void *arg); // of a->reopen: opens the pool, and tries again until it can be opened
void opening_forget(struct agent *a); // what has been read of it so far

// containers.c
struct containers *containers_new(struct agent *a);
void containers_free(struct containers *all);
void containers_on_order(struct agent *a, const json_t *message); // of control
void containers_tell(struct agent *a);  // the connection is new: control is told of all
void containers_turn(struct agent *a);  // something has changed that one may have waited for
bool containers_want(const struct agent_volume *v);  // it is to be mounted for a container
bool containers_begin(const struct agent_volume *v); // the engine is just being told to use it: no unmount now

// engines.c
bool engine_is_dead(struct engine engine);
void refs_save(struct agent_volume *v);
void refs_load(struct agent *a);
void engines_free(struct agent *a);
void engines_recheck_soon(struct agent *a);

#endif
