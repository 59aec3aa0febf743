#include "plan/decide.h"

#include "base/limits.h"
#include "base/mem.h"
#include "plan/move.h"

static struct volume *next(const struct volume *v)
{
    struct volume *n = volume_copy(v);
    n->revision++;
    return n;
}

static int not_live(const struct volume *v, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    return fail(e, E_NOT_FOUND, "volume %s is %s: restore it first if it is in the trash", volume_label(v, label),
                volume_state_word(v->state));
}

static int check_options(const struct volume_options *o, struct error *e)
{
    if (o->uid == UINT32_MAX || o->gid == UINT32_MAX || o->mode > 07777)
        return fail(e, E_INVALID, "a volume's uid and gid are from 0 to %u, its mode from 0 to 7777", UINT32_MAX - 1);
    return 0;
}

int decide_create(const struct volume_set *all, const struct volume_wish *wish, const struct uuid *fresh, int64_t now_ms,
                  struct volume **ret, const struct volume **ret_existing, struct error *e)
{
    const struct uuid *id = uuid_is_zero(&wish->id) ? fresh : &wish->id;
    int rc = wish->name ? volume_name_check(wish->name, e) : 0;
    if (rc < 0 || (rc = volume_size_check(wish->size, e)) < 0 || (rc = check_options(&wish->options, e)) < 0)
        return rc;
    if (all->n >= VOLUMES_MAX)
        return fail(e, E_TOO_LARGE, "the cluster has %d volumes, its limit; purge what is in the trash", VOLUMES_MAX);
    if (volume_set_find(all, id))
        return fail(e, E_CONFLICT, "the id %s is already in use", UUID_TEXT(id));
    const struct volume *same = wish->name ? volume_set_find_name(all, wish->name) : NULL;
    if (same) {
        *ret_existing = same;
        return fail(e, E_CONFLICT, "the name %s is already in use by volume %s", wish->name, UUID_TEXT(&same->id));
    }
    struct volume *v = volume_new();
    v->id = *id;
    v->name = wish->name ? xstrdup(wish->name) : NULL;
    v->size = wish->size;
    if (wish->metadata)
        metadata_copy(&v->metadata, wish->metadata);
    v->options = wish->options;
    v->owner = v->target = wish->owner;
    v->epoch = 1;
    v->revision = 1;
    v->state = VOLUME_LIVE;
    v->keep_mounted = wish->keep_mounted;
    v->created_ms = now_ms;
    *ret = v;
    return 0;
}

int decide_remove(const struct volume *v, int64_t now_ms, int64_t keep_ms, struct volume **ret, struct error *e)
{
    if (v->state == VOLUME_TRASHED) {
        *ret = volume_copy(v);
        return 0;
    }
    if (v->state != VOLUME_LIVE)
        return not_live(v, e);
    *ret = next(v);
    decide_call_off(*ret);
    (*ret)->state = VOLUME_TRASHED;
    (*ret)->trashed_ms = now_ms;
    (*ret)->purge_ms = now_ms + keep_ms;
    return 0;
}

int decide_discard(const struct volume *v, int64_t now_ms, struct volume **ret, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    if (v->born)
        return fail(e, E_CONFLICT, "volume %s has data: it can only be removed", volume_label(v, label));
    if (v->state != VOLUME_LIVE)
        return not_live(v, e);
    *ret = next(v);
    decide_call_off(*ret);
    (*ret)->state = VOLUME_DELETED;
    (*ret)->trashed_ms = (*ret)->purge_ms = now_ms;
    return 0;
}

int decide_restore(const struct volume_set *all, const struct volume *v, const char *new_name, struct volume **ret, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    const char *name = new_name ? new_name : v->name;
    if (v->state != VOLUME_TRASHED)
        return fail(e, E_CONFLICT, "volume %s is %s, not in the trash", volume_label(v, label), volume_state_word(v->state));
    int rc = new_name ? volume_name_check(new_name, e) : 0;
    if (rc < 0)
        return rc;
    const struct volume *same = name ? volume_set_find_name(all, name) : NULL;
    if (same)
        return fail(e, E_CONFLICT, "the name %s is already in use by volume %s: restore this one under another name with --as", name,
                    UUID_TEXT(&same->id));
    *ret = next(v);
    if (new_name) {
        free((*ret)->name);
        (*ret)->name = xstrdup(new_name);
    }
    (*ret)->state = VOLUME_LIVE;
    (*ret)->trashed_ms = (*ret)->purge_ms = 0;
    return 0;
}

int decide_purge(const struct volume *v, struct volume **ret, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    if (v->state == VOLUME_LIVE)
        return fail(e, E_CONFLICT, "volume %s is live: remove it first", volume_label(v, label));
    if (v->state == VOLUME_DELETED)
        return not_live(v, e);
    *ret = v->state == VOLUME_PURGING ? volume_copy(v) : next(v);
    (*ret)->state = VOLUME_PURGING;
    return 0;
}

int64_t decide_purge_in_ms(const struct volume *v, const struct reckoning *r)
{
    ASSERT(v->state == VOLUME_TRASHED);
    // Twice: it may have come when the clock was that much ahead, and now is that much behind.
    bool is_of_future = v->trashed_ms > r->now_ms + 2 * CLOCK_SLACK_MS;
    int64_t watch_ms = r->was_set || is_of_future || r->keep_ms < TRASH_PAUSE_MS ? r->keep_ms : TRASH_PAUSE_MS;
    int64_t watched_in_ms = watch_ms - r->steady_ms, due_in_ms = is_of_future ? 0 : v->purge_ms - r->now_ms;
    return due_in_ms > watched_in_ms ? due_in_ms : watched_in_ms;
}

int decide_resize(const struct volume *v, uint64_t size, struct volume **ret, struct error *e)
{
    if (v->state != VOLUME_LIVE)
        return not_live(v, e);
    int rc = volume_size_check(size, e);
    if (rc < 0)
        return rc;
    *ret = size == v->size ? volume_copy(v) : next(v);
    (*ret)->size = size;
    return 0;
}

static int check_reporter(const struct volume *v, const struct uuid *reporter, struct error *e)
{
    char label[UUID_TEXT_SIZE];
    if (!uuid_equal(&v->owner, reporter))
        return fail(e, E_CONFLICT, "node %s reports on volume %s, which belongs to node %s", UUID_TEXT(reporter), volume_label(v, label),
                    UUID_TEXT(&v->owner));
    return 0;
}

int decide_present(const struct volume *v, const struct uuid *reporter, uint64_t epoch, struct volume **ret, struct error *e)
{
    int rc = check_reporter(v, reporter, e);
    *ret = NULL;
    if (rc < 0)
        return rc;
    if (epoch != v->epoch || v->born)
        return 0;
    // Not a change that its owner must write beside the data: the revision stays.
    *ret = volume_copy(v);
    (*ret)->born = true;
    return 0;
}

int decide_destroyed(const struct volume *v, const struct uuid *reporter, struct volume **ret, struct error *e)
{
    int rc = check_reporter(v, reporter, e);
    *ret = NULL;
    if (rc < 0 || v->state != VOLUME_PURGING)
        return rc;
    *ret = next(v);
    (*ret)->state = VOLUME_DELETED;
    return 0;
}

int decide_hold(const struct hold *current, const struct hold *wish, bool *ret_renewal, struct error *e)
{
    if (current && !uuid_equal(&current->node, &wish->node))
        return fail(e, E_CONFLICT, "volume %s is held for node %s", UUID_TEXT(&current->volume), UUID_TEXT(&current->node));
    *ret_renewal = current != NULL;
    return 0;
}
