// References: who has asked for a volume to be mounted here. Pure: the caller says which engine processes are dead and what time it is,
// and asks for doubtful references to be dropped when the kernel shows the file system in no container.
//
// Engines repeat mount IDs (docker cp), lose Unmounts (kill -9, failed cp) and send the same ID again after a restart, so neither a set
// of IDs nor one counter is right. Kept are counters per (mount ID, engine process); what a
// dead process left counts only as long as a container still has the file system.
#ifndef FLOCKER_PLAN_REFS_H
#define FLOCKER_PLAN_REFS_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define MOUNT_ID_SIZE 129

// An engine process: its pid and start time (clock ticks since boot, field 22 of /proc/PID/stat), which together are never reused
// before the next boot. pid 0: no process stands for it (an engine without a daemon, such as Podman, or one that came by TCP); what such
// a one was given is doubtful once REFS_OPEN_GRACE_MS old.
struct engine {
    int32_t pid;
    uint64_t start;
};
static inline bool engine_equal(struct engine a, struct engine b)
{
    return a.pid == b.pid && a.start == b.start;
}

struct ref {
    char id[MOUNT_ID_SIZE];
    struct engine engine;
    uint32_t count;    // Mounts answered and not undone
    uint32_t open;     // Mounts whose answer is not known to have been taken
    int64_t opened_ms; // boot clock: the latest of these
};

struct refs {
    size_t n;
    struct ref *items; // owned
};

#define REFS_OPEN_GRACE_MS 130000 // Docker gives up a Mount after 120 s: older open ones that no container shows were never used

void refs_done(struct refs *r);
uint32_t refs_total(const struct refs *r); // all counts, open ones included
// A Mount is about to be answered. E_TOO_LARGE beyond MOUNT_IDS_MAX references.
int refs_open(struct refs *r, const char *id, struct engine engine, int64_t now_ms, struct error *e);
// The answer was taken (true: it counts from now on), or the engine had gone (false: as if never asked).
void refs_settle(struct refs *r, const char *id, struct engine engine, bool taken);
// An Unmount. Takes one from the engine's own counter, else from another process's of that ID (an engine that lived on with live-restore).
// False if there was none: an Unmount of nothing is a success that changes nothing.
bool refs_release(struct refs *r, const char *id, struct engine engine);
// Whether refs_reap could drop anything: a reason to look into the kernel's mount tables.
bool refs_has_doubtful(const struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms);
// Whether a live engine has a reference, or was given one a moment ago (REFS_MOMENT_MS): its container may just be starting.
bool refs_has_fresh(const struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms);
#define REFS_MOMENT_MS 5000
// Drops what dead processes, lost answers and, long ago, engines without a process left; only for a volume whose file system no container
// has. Returns whether anything changed.
bool refs_reap(struct refs *r, bool (*is_dead)(struct engine engine), int64_t now_ms);
// Whether a Remove by `caller` must be refused for references alone: those of another live engine. The caller's own are stale by its word.
bool refs_forbid_remove(const struct refs *r, struct engine caller, bool (*is_dead)(struct engine engine));

json_t *refs_to_json(const struct refs *r);
int refs_from_json(const json_t *array, struct refs *ret, struct error *e);

#endif
