// The agent: makes what control wants so on this node. It holds the data and the truth about it; it has no database: at start it reads
// what is on disk, and after each step it plans again (plan/step.h).
//
// Single-threaded: every call is made from the loop's thread, and callbacks come from it, never from inside the call that asked.
// Nothing here blocks: disk and mount work goes to workers.
//
// What an engine leaves behind is looked at 15 s after its end, then ever more seldom; FLOCKER_RECHECK_S in the environment (1 to 600) is
// the first of these delays, for tests.
#ifndef FLOCKER_AGENT_AGENT_H
#define FLOCKER_AGENT_AGENT_H

#include "backend/backend.h"
#include "base/error.h"
#include "model/volume.h"
#include "plan/decide.h"
#include "plan/refs.h"

#define AGENT_RECONNECT_MS 6250 // the longest pause before it tries again to reach control

struct event_base;
struct json_t;
struct ssl_ctx_st;
struct agent;

struct agent_config {
    struct event_base *base;
    struct uuid node, era;
    const char *host;            // address of this node as others reach it; NULL: its end of the connection to control
    const char *control_socket;  // unix socket of the agent protocol, for a control service on this host; or, if that is NULL:
    const char *control_host;    // name or address of the control service,
    uint16_t control_port;
    struct ssl_ctx_st *control_tls; // and a client context with this node's certificate that expects the name "control-service"
    const char *pki_dir;         // this node's certificates, which are renewed in time; NULL: they are not looked at
    void (*on_certificates)(void *arg); // time to read them anew: after a renewal, and now and then. NULL: nobody uses them
    void *on_certificates_arg;
    const char *docker_socket;   // of the engine that runs containers of API v1
    const char *refs_dir;        // on a tmpfs: references do not outlive a boot
    const struct backend_ops *backend;
    struct backend_config pool;
    int peer_fd;                     // listens for agents that fetch volumes from here; owned. 0: none does
    uint16_t peer_port;              // where they reach it; 0: PEER_PORT
    struct ssl_ctx_st *peer_server;  // TLS of both ends of such connections; borrowed
    struct ssl_ctx_st *peer_client;
};

// Starts to open the pool and to connect to control; both go on in the background. Borrowed strings must outlive the agent.
int agent_new(const struct agent_config *config, struct agent **ret, struct error *e);
void agent_free(struct agent *a);

// Whether the pool's volumes are known (the inventory was read), and whether control has told all it wants since the connection last came up.
bool agent_is_open(const struct agent *a);
bool agent_is_synced(const struct agent *a);

// ---- what is known, from memory, in microseconds

struct agent_view {
    const struct volume *volume; // as control wants it, or as the disk says until control is heard
    bool here;                   // this node is its owner
    bool present;                // its data is on disk here
    bool mounted;
    uint32_t references;
    const char *error;           // why it is not as wanted; NULL if all is well
    const char *doing;           // "mount", ...: what a worker does with it now; NULL: nothing
};
// The live volume of that name; false if there is none as far as known.
bool agent_find(const struct agent *a, const char *name, struct agent_view *ret);
// Calls for each live volume that has a name.
void agent_each(const struct agent *a, void (*on_volume)(void *arg, const struct agent_view *v), void *arg);
const char *agent_mount_point(const struct agent *a, const struct uuid *id, char ret[4096]);

// ---- what takes time. `done` is called exactly once, within PLUGIN_ANSWER_MS: E_TIMEOUT or E_UNAVAILABLE then say what is going on.

typedef void agent_done(void *arg, int rc, const struct error *e);

// Calls done(0) as soon as both pool and control are known, for lookups of names that are not.
void agent_when_synced(struct agent *a, agent_done *done, void *arg);
// Asks control for a volume of that name that this node knows nothing of. On 0 agent_find finds it, and goes on to; E_NOT_FOUND.
void agent_lookup(struct agent *a, const char *name, agent_done *done, void *arg);
// The names of all volumes of the cluster, as far as control says so within half a second; else of those known here. `names` is a borrowed
// array of strings, sorted; NULL if control said nothing.
typedef void agent_names_done(void *arg, const struct json_t *names);
void agent_list(struct agent *a, agent_names_done *done, void *arg);
// Makes a volume owned by this node. 0 also if a live volume of that name exists already anywhere. Waits until its data is on disk.
void agent_create(struct agent *a, const struct volume_wish *wish, agent_done *done, void *arg);
// Mounts the volume; one that another node owns and nobody uses is moved here first. On success a reference (id, engine) is open: agent_settle must follow.
void agent_mount(struct agent *a, const char *name, const char *id, struct engine engine, agent_done *done, void *arg);
void agent_settle(struct agent *a, const struct uuid *volume, const char *id, struct engine engine, bool taken);
// Gives a reference back; never fails and does not wait for the unmount.
void agent_unmount(struct agent *a, const char *name, const char *id, struct engine engine);
// Moves it to the trash, if nothing uses it. 0 if there is no such volume.
void agent_remove(struct agent *a, const char *name, struct engine caller, agent_done *done, void *arg);
// The engine that is process `pid` now.
struct engine agent_engine(int pid);
// An engine has (re)started, or was seen: its end is watched, so that what it leaves behind is looked at.
void agent_saw_engine(struct agent *a, struct engine engine);

// ---- the node's pool

struct agent_pool_facts {
    struct backend_usage usage;
    const char *backend;
};
typedef void agent_pool_done(void *arg, int rc, const struct agent_pool_facts *facts, const struct error *e);
void agent_pool_usage(struct agent *a, agent_pool_done *done, void *arg);
void agent_pool_grow(struct agent *a, uint64_t size, agent_done *done, void *arg);
// Unmounts everything, for `flocker down`. E_BUSY names what is in use; then nothing has changed.
void agent_shutdown(struct agent *a, agent_done *done, void *arg);

#endif
