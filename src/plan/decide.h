// What control decides about a volume: each function takes the cluster as it is and a wish, and gives the changed volume or an error.
// Pure: nothing is written here; the caller commits the change to its store first and then puts it into the cluster.
#ifndef FLOCKER_PLAN_DECIDE_H
#define FLOCKER_PLAN_DECIDE_H

#include "model/hold.h"
#include "model/volume_set.h"

struct volume_wish {
    struct uuid id;           // zero: `fresh` becomes its id
    const char *name;         // NULL: nameless
    uint64_t size;
    const struct metadata *metadata; // NULL: none
    struct volume_options options;
    struct uuid owner;
    bool keep_mounted;
};

// A new live volume at epoch 1. E_CONFLICT if the id was ever used (deleted entries count), or the name is taken; in that case, and
// only then, *ret_existing is the volume that has it. E_INVALID for a bad name, size or option; E_TOO_LARGE beyond VOLUMES_MAX.
int decide_create(const struct volume_set *all, const struct volume_wish *wish, const struct uuid *fresh, int64_t now_ms,
                  struct volume **ret, const struct volume **ret_existing, struct error *e);
// Live -> trashed, to be purged keep_ms later. Already in the trash: unchanged copy. E_NOT_FOUND once it is being purged.
// A move that can still be called off is. Also a volume of which no data is known yet goes to the trash: its owner may have made it and use it.
int decide_remove(const struct volume *v, int64_t now_ms, int64_t keep_ms, struct volume **ret, struct error *e);
// Live -> deleted: its owner could not make it, has nothing of it on its disk, and says so. E_CONFLICT if it has data.
int decide_discard(const struct volume *v, int64_t now_ms, struct volume **ret, struct error *e);
// Trashed -> live, under new_name if given. E_CONFLICT if the name is taken by then or it isn't in the trash.
int decide_restore(const struct volume_set *all, const struct volume *v, const char *new_name, struct volume **ret, struct error *e);
// Trashed -> purging, now. For the timer, and for a user who wants the space back at once.
int decide_purge(const struct volume *v, struct volume **ret, struct error *e);

// What control knows of time. The wall clock alone may be wrong: it is set by people and by NTP, and starts anywhere where a battery is empty.
struct reckoning {
    int64_t now_ms;    // wall clock
    int64_t steady_ms; // by the boot clock: control runs for so long, and nobody has set the wall clock since
    bool was_set;      // what began then was not control, but another wall clock
    int64_t keep_ms;   // how long the trash is kept
};
#define CLOCK_SLACK_MS 60000 // more than this, and the wall clock was not slewed but set
#define TRASH_PAUSE_MS 3600000 // at a start the wall clock may still be wrong: NTP needs a while
// How long until a volume in the trash may be purged, as far as is known now; 0 or less: it may be. A clock that was set never shortens what
// was promised: by its new reckoning too the volume stays for keep_ms. What seems to come from the future was put there by a clock that
// was wrong; the time by which control has watched it counts.
int64_t decide_purge_in_ms(const struct volume *v, const struct reckoning *r);
int decide_resize(const struct volume *v, uint64_t size, struct volume **ret, struct error *e);
// What the owner reports: its data is there (-> born), or was destroyed (purging -> deleted). NULL in *ret: nothing changes.
int decide_present(const struct volume *v, const struct uuid *reporter, uint64_t epoch, struct volume **ret, struct error *e);
int decide_destroyed(const struct volume *v, const struct uuid *reporter, struct volume **ret, struct error *e);

// A hold for `node` until `expires`. E_CONFLICT while another node has one, over or not: the sweep removes what is over.
int decide_hold(const struct hold *current, const struct hold *wish, bool *ret_renewal, struct error *e);

#endif
