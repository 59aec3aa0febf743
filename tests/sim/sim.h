// The simulator: control, agents, disks, engines and users of a small cluster in virtual time, from one seed. What decides is the product's own
// code (model/, plan/); around it stands a thin copy of the shells in control/ and agent/, with the same names where it can be, so that one
// can be read beside the other. All that comes from outside (delays, faults, wishes) is drawn from the seed: the same seed, the same run.
//
// One event at a time; after each the rules are checked (check.c). Times are milliseconds. Memory that a crash loses is in struct agent and
// struct control; what survives is in struct place (disk, mounts), struct node (what lies in /run) and struct store.
#ifndef FLOCKER_TESTS_SIM_H
#define FLOCKER_TESTS_SIM_H

#include "base/mem.h"
#include "model/id_set.h"
#include "model/volume_set.h"
#include "plan/decide.h"
#include "plan/move.h"
#include "plan/recover.h"
#include "plan/refs.h"
#include "plan/resume.h"
#include "plan/step.h"

#include <jansson.h>

enum { HOSTS = 5, NODES = HOSTS + 2 /* those that join anew */, VOLUMES = 6, NAMES = 3, CONTAINERS = 4, VALUES = 64, SNAPSHOTS = 40 };
enum { OPERATIONS = 12, WISHES = 9, ASKS = 16, FETCHES = 48, CONNECTIONS = 64, ROOM = 1 << 20 };

// Bugs that the simulator has to find: each is a way in which the shells or the decisions could be wrong, and changes what they do or what they
// are told. X(name, what is wrong)
#define PLANT_TABLE(X) \
    X(PLANT_MOUNT_SEALED,       "the owner lets a container mount what it has sealed") \
    X(PLANT_SEAL_MOUNTED,       "the final snapshot is taken while the volume is mounted") \
    X(PLANT_NO_DIGEST,          "neither target nor control compare digests") \
    X(PLANT_STALE_SEAL,         "control switches on what both ends said under an earlier order") \
    X(PLANT_NOT_FINAL,          "control switches on a snapshot that is not the final one") \
    X(PLANT_UNNOTED_SEAL,       "the owner seals before the order to do so is on its disk") \
    X(PLANT_UNBORN_MOVES,       "a volume that control has not heard of yet changes its owner at once") \
    X(PLANT_OLD_ORDER,          "control does not ask by which order a target keeps its copy") \
    X(PLANT_RELEASE_AT_SETTLE,  "the former owner lets go before it is told to") \
    X(PLANT_RELEASE_EARLY,      "control releases the former owner's data before the new owner has reported") \
    X(PLANT_PLACE_NOT_DURABLE,  "the new owner reports data that is not durable yet") \
    X(PLANT_DISCARD_OWN,        "the new owner discards what it has received instead of placing it") \
    X(PLANT_NUMBER_REUSED,      "numbers of snapshots start anew when the earlier ones were removed") \
    X(PLANT_STORE_NOT_DURABLE,  "the store acknowledges a commit before it is durable") \
    X(PLANT_TOLD_EARLY,         "control tells agents of a change before it is committed") \
    X(PLANT_OLD_CONNECTION,     "control relies on what was said by an earlier connection") \
    X(PLANT_LAZY_UNMOUNT,       "an unmount succeeds although a container has the volume") \
    X(PLANT_PROMISE_BROKEN,     "the owner mounts what it has promised to another node") \
    X(PLANT_INFERENCE,          "what control does not name is destroyed") \
    X(PLANT_GONE_COPY_LOST,     "a volume is given up with its node although another one has it whole") \
    X(PLANT_GONE_ANY_COPY,      "a copy that is not whole becomes the volume when its node is removed") \
    X(PLANT_GONE_NOT_BACK,      "a volume that has just moved to a node that is removed is not given back") \
    X(PLANT_REMOVED_HEARD,      "a node that was removed is still listened to") \
    X(PLANT_RECOVER_LOWER,      "recovery prefers the lower epoch") \
    X(PLANT_RECOVER_SEALED,     "recovery takes who has sealed a volume for its owner, whatever its target has") \
    X(PLANT_RECOVER_PLACING,    "recovery overlooks a copy that is just becoming the volume") \
    X(PLANT_RECOVER_UNHEARD,    "recovery takes a node that has not answered for one that has nothing") \
    X(PLANT_LOST_WANT,          "control resumes a connection of which a want was lost") \
    X(PLANT_LOST_REPORT,        "an agent takes a report that was lost for told") \
    X(PLANT_DUE_NOT_RESUMED,    "who resumes is not told what was due") \
    X(PLANT_DUE_FORGOTTEN,      "what changes while a node reads slowly is not due to it") \
    X(PLANT_REPORT_FORGOTTEN,   "what changes while control reads slowly is not reported") \
    X(PLANT_REPLY_FIRST,        "a reply overtakes the want that is due for its volume") \
    /* what the simulator has found, put back */ \
    X(PLANT_DISCARDED_USED,     "a volume is made and used after control was asked to forget it") \
    X(PLANT_DISCARDED_EARLY,    "control is asked to forget a volume before what was perhaps made of it is destroyed") \
    X(PLANT_STALE_FINAL,        "a target takes the final snapshot of an earlier seal for that of the last one") \
    X(PLANT_COPY_NOT_TOLD,      "a node that reports a copy in its inventory is not told what became of the volume") \
    X(PLANT_SILENT_SNAPSHOT,    "the snapshot of a worker that died is not known of") \
    X(PLANT_DIGEST_LOST,        "a fetch that breaks off makes the source forget the digest of an earlier one") \
    X(PLANT_PURGE_FORGOTTEN,    "control dies between a purge of what a removed node had and noting that it is gone, and notes it never") \
    X(PLANT_MADE_BY_OLD_ORDER,  "a volume is made by an order of before a connection on which control does not name it any more") \
    X(PLANT_OLD_RECORD,         "what an attempt that took itself for failed has made keeps the order of then") \
    X(PLANT_PLACED_UNHEARD,     "recovery does not hear of a place that has failed, and has happened") \
    X(PLANT_EVICT_SPINS,        "who is stopped by force, again and again while the engine has not said so") \
    X(PLANT_PROMISE_FORGOTTEN,  "nobody looks when a promise is over") \
    X(PLANT_TRASH_UNMOUNTS,     "a volume that is removed is unmounted under a container that just starts") \
    X(PLANT_DELETED_STAYS,      "what was made while control took it for destroyed stays") \
    X(PLANT_GONE_ACQUIRES,      "a volume moves to a node that was removed since it asked for it") \
    X(PLANT_GONE_AMID_RECOVERY, "a node is removed while recovery decides on what it has") \
    X(PLANT_ACQUIRED_IN_VAIN,   "a volume is sealed for a node whose pool has older data of it") \
    X(PLANT_RECOVER_DESTROYED,  "recovery takes in what is just being destroyed") \
    X(PLANT_REMOVE_UNCHECKED,   "who became the owner since it wished a volume removed is taken to have found it unused") \
    X(PLANT_GONE_UNKNOWN,       "a node goes without force although it has what control does not know") \
    X(PLANT_PURGE_UNANSWERED,   "who is to destroy what it never had does not say that it is gone") \
    X(PLANT_COMMIT_ONCE,        "a move whose commit has failed is not tried again") \
    X(PLANT_LOST_ABSENCE,       "that a volume is gone is not reported anew when the report was lost")

enum plant {
    PLANT_NOTHING,
#define X(name, what) name,
    PLANT_TABLE(X)
#undef X
    PLANT_COUNT
};

// ---- what lies on disk

struct data {
    int n;
    uint32_t value[VALUES];
};

struct snapshot {
    uint64_t number;
    struct data data;
    bool has_digest;
    uint8_t digest[MOVE_DIGEST_SIZE];
};

struct copy {
    bool is_here;    // at least a part
    uint64_t number; // of the newest that is whole; 0: none
    bool final;
    uint8_t digest[MOVE_DIGEST_SIZE];
    struct data data;
};

// What one node has of one volume: its pool and its mount table.
struct place {
    struct volume *record; // owned
    struct data data;
    int durable; // of the values: what a power loss leaves
    int64_t lost_before_ms; // PLANT_PLACE_NOT_DURABLE: a power loss before then takes all of it
    int snapshot_count;
    struct snapshot snapshots[SNAPSHOTS]; // ascending
    struct copy copy;
    bool mounted;
    bool is_left;        // data that no longer counts: kept until a person removes it
    int64_t promised_ms; // check.c: until then it is promised to another node, by true time
};

enum container_state { CONTAINER_NONE, CONTAINER_ASKING, CONTAINER_STARTING, CONTAINER_RUNNING, CONTAINER_STOPPED };

struct container {
    enum container_state state;
    int name, k;   // the volume's name; its index, once it is mounted
    uint64_t life; // of this use of the slot
};

// ---- the agent's memory

enum operation_kind { OP_NONE, OP_CREATE, OP_MOUNT, OP_REMOVE, OP_RELEASE, OP_RECORDS };

struct operation {
    enum operation_kind kind;
    uint64_t id;
    int name, k;   // k -1: not known yet
    int container; // of MOUNT
    uint64_t container_life;
    bool asked, begun;
    enum errcode failure; // of CREATE: what it is answered once control has discarded the volume
    int64_t request;      // number of the request under way
    uint64_t attempts_before;
    int64_t ask;          // REMOVE, RELEASE by control's wish: the number of its question; 0: a user of this node
    uint64_t ask_connection;
};

struct agent_volume {
    bool is_known; // has an entry in the agent's table
    bool is_due;   // its report waits
    struct volume *record, *order;
    bool half_made, half_placed, mounted, unsure, held, confirmed, removing, checked, looking, abandoned, discarding, missing;
    int64_t discard; // number of that request
    struct refs refs;
    struct move_snapshot snapshot;
    bool snapshots_unsure; // a worker that may have taken one has died
    uint64_t sealed_revision;
    struct {
        bool is_here, warm;
        struct move_snapshot snapshot;
        uint64_t last_bytes;
        int64_t due_ms;
    } copy;
    int peer; // index of the node that it comes from; -1: none
    uint64_t peer_final; // number of the snapshot that its owner has sealed it with; 0: not sealed
    int64_t promised_ms, retry_ms, linger_ms;
    enum step step;
    bool step_acted;      // its worker has done what it does
    int step_rc;
    uint64_t step_number; // of the snapshot that it took
    uint64_t fetch;       // id of the fetch under way
    enum errcode error;
    unsigned failures;
    uint64_t attempts;
    struct {
        bool sent, present, mounted, missing, in_use, warm, has_copy;
        uint64_t epoch, revision, attempts, sealed_revision, order;
        struct move_snapshot snapshot, copy;
        enum errcode code;
    } reported;
};

struct agent {
    bool is_up, is_open, is_welcome, is_synced, can_resume, inventory_due;
    struct resume_count count;
    uint64_t life; // of the process: what was started by an earlier one comes to nothing
    uint64_t connection; // 0: none
    unsigned link_failures;
    int64_t last_request;
    struct agent_volume volumes[VOLUMES];
    struct volume_set wants;
    struct operation operations[OPERATIONS];
    bool is_turn_posted;
};

struct node {
    struct uuid id;
    bool is_on;      // has power
    bool is_gone;    // its host is off for good, or another node now
    uint64_t boot;   // counts boots: the era
    uint64_t engine; // counts starts of its engine
    int drift_ppm;   // of its clock
    json_t *refs[VOLUMES]; // in /run: the references' files
    struct place places[VOLUMES];
    struct container containers[CONTAINERS];
    struct agent agent;
    bool is_cut[2]; // of its link to all others: what it sends is not delivered; what is sent to it
};

// ---- control

struct sighting {
    bool is_here, has_copy;
    int node;
    uint64_t connection; // the how manieth of the node it was
    struct move_part part;
};

struct ask {
    int64_t n; // 0: free
    int node;
    uint64_t connection;
    enum operation_kind kind;
    int k, from; // from: the node on behalf of which; -1: a user of the API
    uint64_t from_connection;
    int64_t from_n;
};

struct control_node {
    uint64_t peer;       // its connection; 0: not connected
    uint64_t connection; // grows with each
    uint64_t reports_since, known_since;
    uint64_t wants_sent, reports_got;
    bool has_unknown, is_removed, is_resumed, is_told, is_synced, has_missed, is_watching[VOLUMES];
    struct id_set due;
    struct uuid due_at;
};

// What nodes have told, for a store that is rebuilt.
struct recovery {
    bool is_open, force, is_heard[NODES];
    int under_way, after[NODES]; // the last volume that each has told
    size_t finds_n;
    struct recover_find finds[NODES * VOLUMES];
};

struct control {
    bool is_up, is_again_posted;
    uint64_t life;
    struct uuid instance;
    struct volume_set volumes;
    int holds[VOLUMES]; // index of the node; -1: none
    struct sighting owners[VOLUMES], others[VOLUMES];
    struct control_node nodes[NODES];
    struct ask asks[ASKS];
    struct recovery recovery;
    int64_t last_ask;
};

struct store {
    struct volume *volumes[VOLUMES];
    bool is_removed[NODES];
    int holds[VOLUMES];
};

// ---- the network

enum message_kind { MSG_HELLO, MSG_REPORT, MSG_INVENTORY_END, MSG_REQUEST, MSG_REPLY, MSG_WELCOME, MSG_WANT, MSG_WANT_END, MSG_ASK, MSG_CLOSE };
enum request_kind { REQUEST_CREATE, REQUEST_REMOVE, REQUEST_DISCARD, REQUEST_FIND, REQUEST_ACQUIRE };

struct message {
    struct message *next;
    enum message_kind kind;
    enum request_kind request;
    enum operation_kind ask;
    int k, name, rc;
    int64_t n;
    json_t *volume, *snapshot, *copy, *resume; // owned; resume: the claim in a hello, the answer in a welcome
    json_t *records; // owned
    bool held, present, mounted, missing, in_use, has_copy, warm, by_name, more, is_unused;
    uint64_t epoch, revision, order, peer_final; // order: by which a copy is kept
    int peer;
};

enum { UP, DOWN }; // to control, to the agent

struct connection {
    uint64_t id; // 0: free
    int node;
    bool is_open[2]; // at control's end, at the agent's
    bool is_slow;
    struct message *first[2], **last[2];
    int64_t last_ms[2];
    int room, count[2]; // with so many under way what can wait does
    bool is_full[2];
};

// ---- transfers: one fetch, with the workers at its two ends

struct fetch {
    uint64_t id; // 0: free
    int k, target, source;
    uint64_t target_life; // of the agent that started it
    bool target_runs, source_runs;   // the workers
    bool target_waits, source_waits; // the agents, for their ends
    bool is_told;                    // the source's agent knows which volume it serves
    bool is_whole;                   // the target has it
    bool is_sent, is_noted;          // the source's worker has got to its end; it has said which snapshot it was
    struct volume *order;
    uint64_t base, seq, grant_final, grant_first;
    uint8_t base_digest[MOVE_DIGEST_SIZE], digest[MOVE_DIGEST_SIZE];
    bool final, is_current, is_damaged;
    struct data data;
    uint64_t bytes;
};

// ---- the world

struct world;
struct event {
    int64_t at_ms;
    uint64_t order;
    void (*run)(struct world *w, const struct event *ev);
    int node, k;
    uint64_t life, n;
};

struct profile { // per mille, and milliseconds
    int lose_store, crash_control, crash_agent, reboot, cut, lose_connection, stall, fail_step, fail_commit, damage, slow_message, slow_worker;
    // No faults: what users and engines are fond of. Worlds differ in it, so that each rare thing is common somewhere (swarm testing: Groce et
    // al., 2012).
    int wishes[WISHES], node_gone, engine_creates, engine_removes;
    int start_ms;       // from the answered mount to the running container, at most
    bool is_slow[STEP_COUNT]; // the disks are slow with that
};

struct world {
    uint64_t seed, random;
    enum plant plant;
    bool is_traced;
    int64_t now_ms;
    uint64_t order, ids;
    size_t event_count, event_room;
    struct event *events; // a heap
    struct profile profile;
    bool is_quiet;        // no more wishes and faults: all that was begun has to end
    int node_count, volume_count; // volumes: ids that were given,
    int volumes_max;              // of so many
    int move_turns;               // of control, one within the other
    int last_wish;                // index of the volume of the wish before
    uint32_t next_value;
    struct node nodes[NODES];
    struct connection connections[CONNECTIONS];
    struct fetch fetches[FETCHES];
    struct control control;
    struct store store;
    bool has_lost_store;
    bool is_forced; // the removal of a node that is being committed
    struct recovery recovering; // what is being committed comes of it
    struct store pending; // PLANT_STORE_NOT_DURABLE: what will be durable in a while
    // ---- what check.c knows
    struct {
        struct data acknowledged; // values that an fsync acknowledged, in order
        uint64_t revision;        // of the change that a user was told of last
        struct data switched;     // what was acknowledged at its last switch
        bool may_go;              // a user has asked for its data to be destroyed, or given it up with the node that had it
        bool given_up[NODES];     // nodes on which nothing of it counts any more, and what they do with it is not watched
        int owners[64];           // by epoch
    } truth[VOLUMES];
    uint64_t steps, faults;
    bool is_failed;
    char failure[400];
};

// ---- sim.c: time, chance, trace
struct world *world_new(uint64_t seed, enum plant plant, bool is_traced);
void world_free(struct world *w);
void world_run(struct world *w); // to its end, or to the first violation
uint64_t chance_next(struct world *w);
int chance_below(struct world *w, int n);
bool chance(struct world *w, int per_mille);
int64_t chance_delay(struct world *w); // of a worker, an engine, a person: mostly short
bool fault(struct world *w, int per_mille); // never while it is quiet; counted
void post(struct world *w, int64_t delay_ms, void (*run)(struct world *w, const struct event *ev), int node, int k, uint64_t life, uint64_t n);
void trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void violation(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define NODE_LETTER(i) ((i) < 0 ? '-' : (char)('A' + (i)))

struct uuid node_id(int i);
struct uuid volume_id(int k);
int node_index(const struct uuid *id);   // -1: zero
int volume_index(const struct uuid *id);
struct volume *volume_through_json(const struct volume *v); // what is read of what was written
struct move_snapshot snapshot_through_json(const struct move_snapshot *s);
const char *name_text(int name); // "n0"
int64_t node_clock(const struct world *w, int i); // the boot clock of a node, with its drift

// ---- disk.c
void place_run(struct world *w, int i, int k, enum step step, const struct volume *order, uint64_t *ret_number, int *ret_rc); // what a worker does
bool place_has_user(const struct world *w, int i, int k);
struct snapshot *place_snapshot(struct place *p, uint64_t number);
uint64_t place_newest(const struct place *p);
int place_take_snapshot(struct world *w, struct place *p, uint64_t number);
void place_drop_snapshots(struct place *p, uint64_t below);
void place_power_loss(struct world *w, int i, int k);

// ---- net.c
struct connection *connection_of(struct world *w, uint64_t id);
void send_up(struct world *w, int i, struct message *m /* taken */);
void send_down(struct world *w, uint64_t connection, struct message *m /* taken */);
void link_connect(struct world *w, int i);
void link_reconnect_later(struct world *w, int i);
bool line_is_full(struct world *w, uint64_t connection, int direction); // of those who send in that direction
struct message *message_new(enum message_kind kind, int k);
void connection_close(struct world *w, uint64_t id, int end, bool is_told); // end UP: control's
void message_free(struct message *m);
bool is_reachable(const struct world *w, int from, int to); // between two nodes, both ways

// ---- transfer.c
void fetch_start(struct world *w, int i, int k);
void fetch_kill(struct world *w, uint64_t id);        // the target's worker
void peers_stop(struct world *w, int i, int k);
void fetches_die(struct world *w, int i);             // the agent that started them has died

// ---- agent.c
void agent_start(struct world *w, int i);
void agent_crash(struct world *w, int i);
struct agent_volume *volume_at(struct world *w, int i, int k);
void turn(struct world *w, int i, int k);
void turn_due(struct world *w, const struct event *ev); // an event: takes the volume's turn
void turn_end_step(struct world *w, int i, int k, int rc, uint64_t number);
void turn_report(struct world *w, int i, int k);
struct message *turn_make_report(struct world *w, int i, int k);
void turn_look(struct world *w, int i, int k);
void turn_soon(struct world *w, int i);
void refs_save(struct world *w, int i, int k);
bool has_mount_operation(const struct world *w, int i, int k);

// ---- link.c
void agent_on_message(struct world *w, int i, const struct message *m);
void agent_on_closed(struct world *w, int i);
void link_on_drained(struct world *w, int i);
void link_report(struct world *w, int i, int k); // at once, or when the connection can take it
void link_report_first(struct world *w, int i, int k);
int64_t link_request(struct world *w, int i, struct message *m /* taken */); // returns its number

// ---- operation.c
void operations_turn(struct world *w, int i);
struct operation *operation_new(struct world *w, int i, enum operation_kind kind, int name);
void operation_on_reply(struct world *w, int i, const struct message *m);
void operation_discard(struct world *w, int i, int k);
bool agent_uses(const struct world *w, int i, int k); // a container does, or is about to
void agent_unmount(struct world *w, int i, int k, int container); // an engine's call

// ---- control.c
void control_start(struct world *w);
void control_crash(struct world *w);
void control_free(struct control *c);
struct volume *volume_of(struct world *w, int k);
int store_forget(struct world *w, int k);
void acknowledge(struct world *w, int k); // a user was told of its present revision
int control_put(struct world *w, struct volume *changed /* taken */);
int control_put_all(struct world *w, struct volume **changed /* each taken */, size_t n, int removed); // and a node that goes, -1: none
void moves_turn(struct world *w, int k);
struct move_part part_of(const struct world *w, const struct sighting *s);
uint64_t sealed_number(const struct world *w, const struct volume *v);
bool moves_lacks_data(const struct world *w, const struct volume *v);
struct uuid other_node(const struct volume *v);

// ---- control_agents.c
void control_on_message(struct world *w, int i, uint64_t connection, struct message *m);
void control_on_closed(struct world *w, uint64_t connection);
void control_on_drained(struct world *w, uint64_t connection);
void reports_again_later(struct world *w); // the store has refused what follows from reports
void peer_leave(struct world *w, int i);
void tell(struct world *w, int i, const struct volume *v);
void tell_all(struct world *w, const struct volume *v, const struct volume *old);
void tell_early(struct world *w, const struct volume *v); // before it is committed: a plant
void nodes_forget_volume(struct world *w, int k);
int control_ask(struct world *w, int i, const struct ask *question); // an agent; negative: it can't be asked

// ---- absence.c
bool absence_is_for_good(const struct world *w, const struct volume *v);
void absence_turn(struct world *w, int k);
int absence_remove_node(struct world *w, int i);
bool node_is_unused(const struct world *w, int i);

// ---- recover.c
json_t *inventory_page(struct world *w, int i, int after, bool *ret_more);
void recover_on_records(struct world *w, int i, int rc, const struct message *m);
void recovery_free(struct recovery *r);
void recover_soon(struct world *w); // a node is there again
void store_lose(struct world *w);

// ---- wishes.c
int64_t wall_ms(const struct world *w);
int put_new(struct world *w, int name, int owner, bool keep_mounted, int *ret_k);
int remove_volume(struct world *w, int k);
void api_wish(struct world *w); // any wish of a user
void api_release_all(struct world *w); // nothing is held any more

// ---- users.c: engines, containers, faults
void users_start(struct world *w);
void nodes_removed_go(struct world *w); // their hosts are off for good
bool node_takes_volumes(const struct world *w, int i); // it is in the cluster
void node_join_later(struct world *w, int i); // as another node, with what lies on its disk
void users_quiet(struct world *w); // all is healed, nobody wishes anything more
void container_answered(struct world *w, int i, int c, uint64_t life, int k, int rc);
void container_kill_users(struct world *w, int i, int k);
void node_power_off(struct world *w, int i);

// ---- check.c
void check_step(struct world *w);
void check_data(struct world *w, int k);  // after anything on a disk has changed
void check_mounted(struct world *w, int i, int k); // it has just been mounted
void check_destroyed(struct world *w, int i, int k); // it is about to be destroyed
void check_acknowledged(struct world *w, int i, int k); // a container has had its values made durable
// ---- check_loss.c
void check_node_gone(struct world *w, int i, struct volume *const *changed, size_t n); // it is being removed, with these changes

void check_recovered(struct world *w, const struct recovery *r, const struct volume *v); // it is being taken in

bool check_settled(struct world *w, char ret_why[200]); // nothing is left of any move

#endif
