// Observe, plan, do one thing: each volume takes its turn whenever something about it has changed.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/json.h"
#include "sys/users.h"

#include <event2/event.h>
#include <stdio.h>

#define RETRY_MS_MIN 250
#define RETRY_MS_MAX 30000
#define LINGER_MS 250 // `docker run` mounts a volume twice: to copy the image's files into it, and for the container

static const struct volume *wanted(const struct agent_volume *v)
{
    return volume_set_find(&v->agent->wants, &v->id);
}

// ---- the steps, in a worker

// What an earlier attempt has made, although that took itself for failed, bears the order of then.
static int bring_up_to(struct backend *b, const struct volume *order, int was_there, struct error *e)
{
    return was_there > 0 ? b->ops->update(b, order, e) : was_there;
}

static int run_create(struct backend *b, const struct volume *order, struct error *e)
{
    return bring_up_to(b, order, b->ops->create(b, order, e), e);
}

static int run_update(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->update(b, order, e);
}

static int run_mount(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->mount(b, &order->id, e);
}

static int run_unmount(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->unmount(b, &order->id, e);
}

static int run_destroy(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->destroy(b, &order->id, e);
}

static int run_unseal(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->snapshots_drop(b, &order->id, UINT64_MAX, e);
}

static int run_place(struct backend *b, const struct volume *order, struct error *e)
{
    return bring_up_to(b, order, b->ops->place(b, order, e), e);
}

static int run_discard(struct backend *b, const struct volume *order, struct error *e)
{
    return b->ops->discard(b, &order->id, e);
}

static int (*const runs[STEP_COUNT])(struct backend *b, const struct volume *order, struct error *e) = {
    [STEP_CREATE] = run_create,   [STEP_UPDATE] = run_update, [STEP_MOUNT] = run_mount,     [STEP_UNMOUNT] = run_unmount,
    [STEP_DESTROY] = run_destroy, [STEP_UNSEAL] = run_unseal, [STEP_PLACE] = run_place,     [STEP_DISCARD] = run_discard,
};

static bool is_of_moves(enum step step)
{
    return step == STEP_SEAL || step == STEP_UNSEAL || step == STEP_FETCH || step == STEP_PLACE || step == STEP_DISCARD;
}

static int run_step(void *ctx, json_t *result, struct error *e)
{
    struct agent_volume *v = ctx;
    int rc = is_of_moves(v->step) ? moves_check(v->agent, e) : 0;
    if (rc < 0)
        return rc;
    if (v->step == STEP_SEAL)
        return moves_run_seal(v, result, e);
    if (v->step == STEP_EVICT)
        return moves_run_evict(v, e);
    ASSERT(runs[v->step]); // the steps without one are not for this worker
    return runs[v->step](v->agent->backend, v->order, e);
}

// ---- what they change here

static void forget_snapshots(struct agent_volume *v)
{
    v->snapshot = (struct move_snapshot){ .number = 0 };
    v->snapshots_unsure = false;
    v->sealed_revision = 0;
}

static void apply(struct agent_volume *v, const json_t *result)
{
    switch (v->step) {
    case STEP_CREATE:
    case STEP_UPDATE:
        volume_free(v->record);
        v->record = TAKE(v->order, NULL);
        v->half_made = false;
        break;
    case STEP_PLACE:
        volume_free(v->record);
        v->record = TAKE(v->order, NULL);
        v->half_placed = false;
        v->copy = (struct move_copy){ .is_here = false };
        break;
    case STEP_SEAL:
        moves_apply_seal(v, result);
        break;
    case STEP_UNSEAL:
        forget_snapshots(v);
        break;
    case STEP_DISCARD:
        v->copy = (struct move_copy){ .is_here = false };
        break;
    case STEP_FETCH: // moves.c has taken note of what came
    case STEP_EVICT: // the unmount that follows shows what it was good for
        break;
    case STEP_MOUNT:
        v->mounted = true;
        usage_audit_soon(v->agent);
        v->unsure = false;
        break;
    case STEP_UNMOUNT:
        v->mounted = v->unsure = false;
        v->checked = v->removing;
        break;
    case STEP_DESTROY:
        volume_free(v->record);
        v->record = NULL;
        v->half_made = v->half_placed = false;
        forget_snapshots(v);
        break;
    case STEP_NONE:
    case STEP_MISSING:
    case STEP_COUNT:
        ASSERT(false && "a step that no worker does");
    }
}

static void set_failures(struct agent_volume *v, unsigned n)
{
    if (!v->failures && n)
        LIST_INSERT_HEAD(&v->agent->failing, v, failing);
    if (v->failures && !n)
        LIST_REMOVE(v, failing);
    v->failures = n;
}

static void note_failure(struct agent_volume *v, const struct error *e)
{
    unsigned doublings = v->failures < 8 ? v->failures : 8;
    int64_t delay_ms = (int64_t)RETRY_MS_MIN << doublings;
    if (v->error.code != e->code)
        log_line(v->step == STEP_UNMOUNT ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "%s of volume %s: %s", step_word(v->step), UUID_TEXT(&v->id), e->msg);
    v->error = *e;
    set_failures(v, v->failures + 1);
    v->snapshots_unsure |= v->step == STEP_SEAL;
    v->abandoned &= v->step != STEP_DESTROY; // it stays as it is: made when it can be, or removed by its user
    v->unsure |= v->step == STEP_MOUNT || (v->step == STEP_UNMOUNT && e->code != E_BUSY);
    v->retry_ms = clock_boot_ms() + (delay_ms < RETRY_MS_MAX ? delay_ms : RETRY_MS_MAX);
}

// Sets the timer for the next volume that waits to be tried again.
static void arm_retry(struct agent *a)
{
    const struct agent_volume *v;
    int64_t earliest = -1, now_ms = clock_boot_ms();
    LIST_FOREACH (v, &a->failing, failing)
        if (v->step == STEP_NONE && (earliest < 0 || v->retry_ms < earliest))
            earliest = v->retry_ms;
    if (earliest < 0) {
        evtimer_del(a->retry);
        return;
    }
    int64_t delay_ms = earliest > now_ms ? earliest - now_ms : 1;
    const struct timeval delay = clock_timeval(delay_ms);
    evtimer_add(a->retry, &delay);
}

static void turn_each(struct agent_volume *v, void *arg)
{
    (void)arg;
    turn(v);
}

void turn_all(struct agent *a)
{
    agent_for_each(a, turn_each, NULL);
}

void turn_end_step(struct agent_volume *v, int rc, json_t *result, const struct error *e)
{
    struct agent *a = v->agent;
    v->attempts++;
    FAILPOINT(AGENT_STEP_DONE);
    if (rc == 0) {
        log_debug("%s of volume %s is done", step_word(v->step), UUID_TEXT(&v->id));
        if (v->step == STEP_CREATE || v->step == STEP_PLACE || v->step == STEP_DESTROY)
            inventory_tell_pool(a);
        apply(v, result);
        set_failures(v, 0);
        v->error = (struct error)ERROR_INIT;
    } else
        note_failure(v, e);
    volume_free(v->order);
    v->order = NULL;
    v->step = STEP_NONE;
    turn_report(v);
    FAILPOINT(AGENT_STEP_REPORTED);
    operations_turn(a);
    if (rc == 0)
        turn(v);
    arm_retry(a);
}

static void on_step_done(void *arg, int rc, json_t *result, const struct error *e)
{
    turn_end_step(arg, rc, result, e);
}

static void on_step_late(void *arg)
{
    struct agent_volume *v = arg;
    struct error e = ERROR_INIT;
    fail(&e, E_TIMEOUT, "%s of the volume hangs in the kernel for over %d s: look at the disk", step_word(v->step), WORKER_MS_MAX / 1000);
    log_error("volume %s: %s", UUID_TEXT(&v->id), e.msg);
    v->error = e;
    turn_report(v);
}

static void start(struct agent_volume *v, const struct volume *want, enum step step)
{
    char what[128], label[UUID_TEXT_SIZE];
    v->step = step;
    v->order = volume_copy(want);
    v->half_made |= step == STEP_CREATE;
    v->half_placed |= step == STEP_PLACE;
    if (step == STEP_DISCARD)
        v->copy.snapshot = (struct move_snapshot){ .number = 0 }; // nobody is to rely on it from now on
    FAILPOINT(AGENT_STEP_START);
    if (step == STEP_FETCH) {
        moves_fetch(v);
        return;
    }
    snprintf(what, sizeof what, "%s volume %.90s", step_word(step), volume_label(want, label));
    const struct worker_task task = { .what = what, .run = run_step, .ctx = v, .done = on_step_done, .on_late = on_step_late, .arg = v };
    worker_start(v->agent->workers, &task);
}

static void note_missing(struct agent_volume *v)
{
    if (v->error.code == E_CORRUPT)
        return;
    fail(&v->error, E_CORRUPT, "the data of volume %s should be in this node's pool and is not there; nothing was made in its place",
         UUID_TEXT(&v->id));
    log_error("%s", v->error.msg);
    v->attempts++;
}

bool turn_is_in_use(const struct agent_volume *v)
{
    return refs_total(&v->refs) > 0 || operation_awaits_mount(v) || containers_want(v);
}

// One in the trash is given time only for who was just given it: what an engine left behind must not keep it.
static bool is_wanted_mounted(const struct agent_volume *v, const struct volume *want)
{
    if (want && want->state != VOLUME_LIVE)
        return operation_awaits_mount(v) || refs_has_fresh(&v->refs, engine_is_dead, clock_boot_ms());
    return turn_is_in_use(v);
}

// Where it is not sure what is mounted, what is wanted is done again: both steps are idempotent.
static enum step plan(const struct agent_volume *v, const struct volume *want)
{
    struct volume_here here = {
        .record = v->record,
        .half_made = v->half_made,
        .abandoned = v->abandoned,
        .mounted = v->mounted && !v->unsure,
        .mount_wanted = is_wanted_mounted(v, want),
        .held = v->held,
        .leaving = v->removing || v->promised_ms > clock_boot_ms(),
        .has_snapshots = v->snapshot.number != 0 || v->snapshots_unsure,
        .sealed = want && v->sealed_revision == want->revision,
        .has_copy = v->copy.is_here,
        .copy_final = moves_has_final(v),
        .fetch_due = moves_wants_fetch(v),
    };
    enum step step = plan_step(want, &here, &v->agent->config.node);
    if (!v->unsure || step == STEP_MOUNT)
        return step;
    here.mounted = true;
    return plan_step(want, &here, &v->agent->config.node);
}

static void on_linger_end(evutil_socket_t fd, short what, void *arg)
{
    struct agent_volume *v = arg;
    (void)fd;
    (void)what;
    event_free(v->linger);
    v->linger = NULL;
    turn(v);
}

void turn_linger(struct agent_volume *v)
{
    static const struct timeval delay = { 0, LINGER_MS * 1000 };
    if (!v->linger)
        v->linger = evtimer_new(v->agent->config.base, on_linger_end, v);
    evtimer_add(v->linger, &delay);
}

// A fetch may take hours: it does not outlive the wish for it.
static void stop_fetch(const struct agent_volume *v, const struct volume *want)
{
    const struct uuid *self = &v->agent->config.node;
    bool wished = want && want->state == VOLUME_LIVE && move_is_open(want) && uuid_equal(&want->target, self) && !uuid_equal(&want->owner, self) &&
                  want->epoch == v->order->epoch && uuid_equal(&want->owner, &v->order->owner);
    if (!wished && v->fetch)
        worker_kill(v->fetch);
}

void turn(struct agent_volume *v)
{
    const struct volume *want = wanted(v);
    if (v->step == STEP_FETCH)
        stop_fetch(v, want);
    if (want && !move_is_open(want))
        peers_stop(v->agent, &v->id);
    if (!v->agent->open || v->step != STEP_NONE || v->looking || v->discarding)
        return;
    if (v->failures && v->retry_ms > clock_boot_ms())
        return;
    v->abandoned &= want && want->state == VOLUME_LIVE && !v->record;
    enum step step = plan(v, want);
    v->missing = step == STEP_MISSING;
    if (step == STEP_MISSING && v->to_trash)
        step = STEP_NONE; // whoever gives it up knows
    if (step == STEP_NONE && v->removing && !v->checked)
        step = STEP_UNMOUNT; // also what is not mounted here may be in a container
    if (step == STEP_UNMOUNT && v->linger && !v->removing)
        step = STEP_NONE;
    if (step == STEP_FETCH && !moves_may_fetch(v))
        step = STEP_NONE; // it has its turn when another one has ended
    if ((step == STEP_UNMOUNT || step == STEP_EVICT) && containers_begin(v))
        step = STEP_NONE;
    if (want && want->state != VOLUME_LIVE && !v->mounted && v->refs.n) {
        refs_done(&v->refs); // of an agent that was killed when it had removed the volume
        refs_save(v);
    }
    if (want && want->state != VOLUME_LIVE && v->mounted && v->refs.n && step == STEP_NONE)
        turn_later(v, REFS_MOMENT_MS); // nobody tells when the moment is over
    if (step == STEP_NONE && v->abandoned && v->agent->synced) {
        operation_discard(v);
        return;
    }
    if (step == STEP_MISSING)
        note_missing(v);
    else if (step != STEP_NONE) {
        start(v, want, step);
        return;
    } else if (v->failures) {
        set_failures(v, 0); // what failed is no longer wanted
        v->error = (struct error)ERROR_INIT;
    }
    turn_report(v);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    turn(arg);
}

void turn_later(struct agent_volume *v, int delay_ms)
{
    const struct timeval delay = clock_timeval(delay_ms);
    if (!v->due)
        v->due = evtimer_new(v->agent->config.base, on_due, v);
    evtimer_add(v->due, &delay);
}

void turn_soon(struct agent *a)
{
    const struct timeval now = { 0, 0 };
    evtimer_add(a->turn, &now);
}

void turn_failing(struct agent *a)
{
    int64_t now_ms = clock_boot_ms();
    struct agent_volume *v = LIST_FIRST(&a->failing);
    while (v) {
        struct agent_volume *next = LIST_NEXT(v, failing);
        if (v->retry_ms <= now_ms)
            turn(v);
        v = next;
    }
    arm_retry(a);
}

// That control was not told.
static bool has_news(const struct agent_volume *v)
{
    bool present = v->record != NULL;
    uint64_t epoch = present ? v->record->epoch : 0, revision = present ? v->record->revision : 0;
    return !v->reported.sent || v->reported.present != present || v->reported.mounted != v->mounted || v->reported.epoch != epoch ||
           v->reported.revision != revision || v->reported.code != v->error.code || v->reported.in_use != turn_is_in_use(v) ||
           v->reported.missing != v->missing ||
           !moves_are_reported(v) || (v->error.code && v->reported.attempts != v->attempts); // who waits for an attempt hears of each that failed
}

void turn_report(struct agent_volume *v)
{
    if (v->agent->link && v->agent->welcome && has_news(v))
        link_report(v);
}

json_t *turn_make_report(struct agent_volume *v)
{
    bool present = v->record != NULL;
    uint64_t epoch = present ? v->record->epoch : 0, revision = present ? v->record->revision : 0;
    char path[4096];
    v->reported.sent = true;
    v->reported.present = present;
    v->reported.mounted = v->mounted;
    v->reported.epoch = epoch;
    v->reported.revision = revision;
    v->reported.code = v->error.code;
    v->reported.attempts = v->attempts;
    v->reported.in_use = turn_is_in_use(v);
    v->reported.missing = v->missing;
    json_t *message = json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:b}", "type", "report", "id", UUID_TEXT(&v->id), "epoch", (json_int_t)epoch,
                                "revision", (json_int_t)revision, "present", (int)present, "mounted", (int)v->mounted, "in_use",
                                (int)v->reported.in_use);
    moves_report(v, message);
    if (v->missing)
        json_object_set_new(message, "missing", json_true());
    if (v->mounted)
        json_object_set_new(message, "path", json_string(agent_mount_point(v->agent, &v->id, path)));
    if (v->error.code)
        json_object_set_new(message, "error", json_from_error(&v->error));
    return message;
}

// ---- doubtful references: the kernel has the last word

static int run_look(void *ctx, json_t *result, struct error *e)
{
    const struct agent_volume *v = ctx;
    struct users_entry user;
    int n = v->agent->backend->ops->users(v->agent->backend, &v->id, &user, 1, e);
    json_object_set_new(result, "in_use", json_boolean(n > 0));
    return n < 0 ? n : 0;
}

static void on_looked(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent_volume *v = arg;
    v->looking = false;
    if (rc < 0)
        log_warn("can't tell whether volume %s is in use: %s", UUID_TEXT(&v->id), e->msg);
    else if (!json_is_true(json_object_get(result, "in_use")) && refs_reap(&v->refs, engine_is_dead, clock_boot_ms())) {
        log_info("volume %s: references that an engine left behind are gone, %u remain", UUID_TEXT(&v->id), refs_total(&v->refs));
        refs_save(v);
    }
    engines_recheck_soon(v->agent);
    operations_turn(v->agent);
    turn(v);
}

void turn_look(struct agent_volume *v)
{
    if (v->looking || v->step != STEP_NONE || !v->agent->open || !refs_has_doubtful(&v->refs, engine_is_dead, clock_boot_ms()))
        return;
    v->looking = true;
    const struct worker_task task = { .what = "look for users", .run = run_look, .ctx = v, .done = on_looked, .arg = v };
    worker_start(v->agent->workers, &task);
}
