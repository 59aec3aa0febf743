// What callers (the plugin) ask for: each operation looks at its volume whenever something has changed, until it is done or late.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"

#include <event2/event.h>
#include <string.h>

#define LIST_MS   500    // for control to name all volumes of the cluster
#define NAMES_MAX 100000 // that are asked for

static struct agent_volume *known(const struct operation *o)
{
    return uuid_is_zero(&o->volume) ? NULL : agent_volume(o->agent, &o->volume);
}

static void operation_free(struct operation *o)
{
    LIST_REMOVE(o, all);
    link_forget(o->agent, o);
    event_free(o->deadline);
    json_decref(o->names);
    free(o->name);
    metadata_done(&o->metadata);
    free(o);
}

static const enum failpoint replies[] = {
    [OP_SYNC] = FAIL_AGENT_SYNCED,
    [OP_FIND] = FAIL_AGENT_FOUND,
    [OP_LIST] = FAIL_AGENT_FOUND,
    [OP_CREATE] = FAIL_AGENT_CREATE_REPLY,
    [OP_MOUNT] = FAIL_AGENT_MOUNT_REPLY,
    [OP_REMOVE] = FAIL_AGENT_REMOVE_REPLY,
    [OP_RELEASE] = FAIL_AGENT_RELEASED,
};

static void finish(struct operation *o, int rc, const struct error *e)
{
    struct agent *a = o->agent;
    struct agent_volume *v = known(o);
    agent_done *done = o->done;
    void *arg = o->arg;
    enum operation_kind kind = o->kind;
    bool claimed = (kind == OP_REMOVE || kind == OP_RELEASE) && o->begun;
    operation_free(o);
    if (claimed && v) {
        v->removing = v->checked = v->to_trash = false;
        if (kind == OP_RELEASE && rc == 0) {
            v->promised_ms = clock_boot_ms() + PROMISE_MS;
            turn_later(v, PROMISE_MS + 10); // if nobody comes for it, and it is to be mounted
        }
    }
    failpoint(replies[kind]);
    done(arg, rc, e);
    if (v)
        turn(v);
    turn_soon(a);
}

static void finish_with(struct operation *o, enum errcode code, const char *what, const char *why)
{
    struct error e = ERROR_INIT;
    int rc = why ? fail(&e, code, "%s: %s", what, why) : fail(&e, code, "%s", what);
    finish(o, rc, &e);
}

// The end of a List; not `whole`: control has not said all names.
static void finish_list(struct operation *o, bool whole)
{
    agent_names_done *done = o->names_done;
    void *arg = o->arg;
    json_t *names = whole ? json_incref(o->names) : NULL;
    operation_free(o);
    done(arg, names);
    json_decref(names);
}

// What an engine whose time is over is told: that a retry will help, and how far it is.
static void describe_wait(const struct operation *o, const struct agent_volume *v, char *ret, size_t size)
{
    const struct volume *want = v ? volume_set_find(&o->agent->wants, &v->id) : NULL;
    char so_far[SIZE_TEXT_SIZE], in_all[SIZE_TEXT_SIZE];
    if (want && move_is_open(want) && v->copy.total)
        snprintf(ret, size, "volume %.255s is on its way to this node: %s of about %s are here, try again", o->name,
                 size_format(v->copy.bytes, so_far), size_format(v->copy.total, in_all));
    else if (want && move_is_open(want))
        snprintf(ret, size, "volume %.255s is on its way to node %s, try again", o->name, UUID_TEXT(&want->target));
    else if (want && want->move.stage != MOVE_NONE)
        snprintf(ret, size, "volume %.255s has just moved to node %s and settles there, try again", o->name, UUID_TEXT(&want->owner));
    else
        snprintf(ret, size, "volume %.255s: %s goes on, try again", o->name,
                 v && v->step != STEP_NONE ? step_word(v->step) : "waiting for the control service");
}

static void finish_failure(struct operation *o)
{
    const struct error e = o->failure;
    finish(o, -(int)e.code, &e);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct operation *o = arg;
    struct agent *a = o->agent;
    const struct agent_volume *v = known(o);
    char text[400];
    (void)fd;
    (void)what;
    if (o->kind == OP_LIST)
        finish_list(o, false);
    else if (o->failure.code)
        finish_failure(o); // control is slow to discard what could not be made
    else if (!a->open)
        finish_with(o, E_UNAVAILABLE, "this node's pool is not ready, try again", a->pool_error ? a->pool_error : "it is being opened");
    else if (!a->synced)
        finish_with(o, E_UNAVAILABLE, "the control service can't be reached, try again", NULL);
    else {
        describe_wait(o, v, text, sizeof text);
        finish_with(o, E_TIMEOUT, text, NULL);
    }
}

static struct operation *operation_new(struct agent *a, enum operation_kind kind, const char *name, agent_done *done, void *arg)
{
    const int limit_ms = kind == OP_LIST ? LIST_MS : PLUGIN_ANSWER_MS;
    const struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };
    struct operation *o = xcalloc(1, sizeof *o);
    o->kind = kind;
    o->agent = a;
    o->name = xstrdup(name);
    o->done = done;
    o->arg = arg;
    o->deadline = evtimer_new(a->config.base, on_deadline, o);
    evtimer_add(o->deadline, &limit);
    LIST_INSERT_HEAD(&a->operations, o, all);
    turn_soon(a);
    return o;
}

// Finds the operation's volume by name, once; lets a volume that failed try again at once for it.
static struct agent_volume *find(struct operation *o)
{
    if (uuid_is_zero(&o->volume)) {
        const struct volume *want = volume_set_find_name(&o->agent->wants, o->name);
        if (!want)
            return NULL;
        o->volume = want->id;
        struct agent_volume *v = agent_volume_add(o->agent, &want->id);
        o->attempts_before = v->attempts;
        v->retry_ms = 0;
        return v;
    }
    return agent_volume_add(o->agent, &o->volume);
}

static bool has_failed(const struct operation *o, const struct agent_volume *v)
{
    return v->error.code == E_CORRUPT || (v->error.code && v->attempts > o->attempts_before);
}

// Whether the text has that word. Ids consist of letters, too: one may have a short name somewhere within.
static bool has_word(const char *text, const char *word)
{
    static const char in_words[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t n = strlen(word);
    for (const char *at = text; n && (at = strstr(at, word)); at++) {
        bool begins = at == text || !strchr(in_words, at[-1]), ends = !at[n] || !strchr(in_words, at[n]);
        if (begins && ends)
            return true;
    }
    return false;
}

// What the last attempt failed of, in the words of whoever asked: engines know names, not ids.
static void keep_failure(struct operation *o, const struct agent_volume *v)
{
    o->failure = v->error;
    if (!has_word(o->failure.msg, o->name))
        fail_ctx(&o->failure, -(int)v->error.code, "volume %.255s", o->name);
}

static void finish_failed(struct operation *o, const struct agent_volume *v)
{
    keep_failure(o, v);
    finish_failure(o);
}

// ---- volumes of other nodes

// Whether another node has it: control's answer to an operation on a name of which nothing is known here.
static void on_looked_up(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    if (rc == -E_UNAVAILABLE)
        return; // asked again when control is back
    if (rc == -E_NOT_FOUND && o->kind == OP_REMOVE)
        finish(o, 0, NULL);
    else if (rc < 0 || o->kind == OP_FIND)
        finish(o, rc, e);
    else
        turn_soon(o->agent);
}

static void look_up(struct operation *o)
{
    if (!agent_is_synced(o->agent) || o->asked)
        return;
    o->asked = true;
    link_request(o->agent, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "find", "name", o->name), on_looked_up, o);
}

static void on_listed(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    json_t *names = json_object_get(reply, "names");
    (void)e;
    o->asked = false;
    if (rc < 0 || !json_is_array(names)) {
        finish_list(o, false);
        return;
    }
    json_array_extend(o->names, names);
    if (json_is_true(json_object_get(reply, "more")) && json_array_size(names) && json_array_size(o->names) < NAMES_MAX)
        turn_soon(o->agent);
    else
        finish_list(o, true);
}

static void list_turn(struct operation *o)
{
    size_t n = json_array_size(o->names);
    if (!agent_is_synced(o->agent) || o->asked)
        return;
    o->asked = true;
    json_t *message = json_pack("{s:s, s:s}", "type", "request", "op", "list");
    if (n)
        json_object_set(message, "after", json_array_get(o->names, n - 1));
    link_request(o->agent, message, on_listed, o);
}

// ---- create

static struct operation *still_there(const struct agent *a, const struct operation *o)
{
    struct operation *p;
    LIST_FOREACH (p, &a->operations, all)
        if (p == o)
            return p;
    return NULL;
}

struct discard {
    struct agent *agent;
    struct uuid id;
};

// An entry that stays is harmless: it is made when it can be, or removed by its user. If control has gone, its next orders will show.
static void on_discarded(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct discard *d = arg;
    struct agent_volume *v = agent_volume(d->agent, &d->id);
    (void)reply;
    (void)e;
    if (v && rc != -E_UNAVAILABLE) {
        v->discarding = false;
        turn(v);
    }
    turn_soon(d->agent);
    free(d);
}

void operation_discard(struct agent_volume *v)
{
    struct discard *d = xcalloc(1, sizeof *d);
    *d = (struct discard){ v->agent, v->id };
    v->abandoned = false;
    v->discarding = true;
    link_request(v->agent, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "discard", "id", UUID_TEXT(&v->id)), on_discarded, d);
}

static void on_created(void *arg, int rc, const json_t *reply, const struct error *e);

static json_t *wish_to_json(const struct operation *o)
{
    const struct volume_options *p = &o->wish.options;
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:{s:I, s:I, s:I, s:b}}", "type", "request", "op", "create", "name", o->name, "size",
                     (json_int_t)o->wish.size, "metadata", metadata_to_json(&o->metadata), "options", "uid", (json_int_t)p->uid, "gid",
                     (json_int_t)p->gid, "mode", (json_int_t)p->mode, "nocow", (int)p->nocow);
}

struct namesake {
    const char *name;
    const struct agent_volume *found;
};

static void match_orphan(struct agent_volume *v, void *arg)
{
    struct namesake *n = arg;
    const struct volume *r = v->record;
    if (r && !v->confirmed && r->state == VOLUME_LIVE && r->name && strcmp(r->name, n->name) == 0)
        n->found = v;
}

// An empty volume under the name of data that is here, and that control has lost, would look as if the data were gone.
static bool refuse_namesake(struct operation *o)
{
    struct error e = ERROR_INIT;
    struct namesake n = { o->name, NULL };
    if (o->agent->orphans)
        agent_for_each(o->agent, match_orphan, &n);
    if (!n.found)
        return false;
    int rc = fail(&e, E_CONFLICT, "this node's pool has a volume %.200s (%s) that control does not know: has its store been lost? `flocker control recover` "
                  "takes it in again",
                  o->name, UUID_TEXT(&n.found->id));
    finish(o, rc, &e);
    return true;
}

// Whoever looks after the answer must not find what could not be made. What was made of it all the same goes first: an agent that starts anew,
// and without control, would let it be used, and control have it destroyed then.
static void abandon(struct agent_volume *v)
{
    v->abandoned = true;
    v->retry_ms = 0;
    turn(v);
}

static void create_turn(struct operation *o)
{
    struct agent *a = o->agent;
    if (!a->synced || o->asked)
        return;
    struct agent_volume *v = find(o);
    if (!v) {
        if (refuse_namesake(o))
            return;
        o->asked = true;
        link_request(a, wish_to_json(o), on_created, o);
        FAILPOINT(AGENT_CREATE_ASKED);
        return;
    }
    if (o->failure.code) {
        if (!v->abandoned && !v->discarding)
            finish_failure(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &o->volume);
    if (!want || want->state != VOLUME_LIVE) { // discarded, because another's attempt to make it failed
        o->volume = (struct uuid){ { 0 } };
        turn_soon(a);
        return;
    }
    if (v->record || !uuid_equal(&want->owner, &a->config.node)) {
        finish(o, 0, NULL);
        return;
    }
    turn(v);
    if (!has_failed(o, v))
        return;
    keep_failure(o, v);
    if (v->step == STEP_NONE && v->error.code != E_CORRUPT)
        abandon(v);
    turn_soon(a);
}

static void on_created(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    FAILPOINT(AGENT_CREATE_ANSWERED);
    if (rc == -E_UNAVAILABLE)
        return; // control has gone: it is asked again when it is back, and makes one volume of a name, however often it is asked
    if (rc < 0)
        finish(o, rc, e);
    else if (!volume_set_find_name(&o->agent->wants, o->name))
        finish(o, 0, NULL); // another node's: control tells its owner alone, and would only say so again
    else
        turn_soon(o->agent);
}

// ---- mount

static void on_acquired(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    if (rc == -E_UNAVAILABLE && !o->agent->synced)
        o->begun = false; // control has gone: asked again when it is back
    else if (rc < 0)
        finish(o, rc, e);
    else
        turn_soon(o->agent);
}

// It lives on another node: control has it moved here if nobody uses it there. Or it is sealed here, for a move: control has that called off if
// the node that it goes to is not there. One that has just moved settles first.
static void acquire(struct operation *o, const struct agent_volume *v, const struct volume *want)
{
    struct agent *a = o->agent;
    bool comes = move_is_open(want) && uuid_equal(&want->target, &a->config.node), settles = want->move.stage >= MOVE_SETTLE;
    if (comes && has_failed(o, v) && v->step == STEP_NONE) {
        finish_failed(o, v);
        return;
    }
    if ((comes || settles) && v->unavailable && a->synced) {
        AUTO(free) char *what = xasprintf("volume %.100s", o->name);
        finish_with(o, E_UNAVAILABLE, what, v->unavailable);
        return;
    }
    if (comes || settles || o->begun || !agent_is_synced(a))
        return;
    if (v->record && !uuid_equal(&want->owner, &a->config.node)) { // nothing can come here: its owner would be sealed in vain
        AUTO(free) char *what = xasprintf("volume %.100s", o->name);
        finish_with(o, E_CONFLICT, what, "older data of it is in this node's pool, from before a node or control's store was lost: use it on another node");
        return;
    }
    o->asked = o->begun = true;
    link_request(a, json_pack("{s:s, s:s, s:s}", "type", "request", "op", "acquire", "id", UUID_TEXT(&want->id)), on_acquired, o);
}

static void mount_turn(struct operation *o)
{
    struct agent *a = o->agent;
    struct error e = ERROR_INIT;
    if (!a->open)
        return;
    struct agent_volume *v = find(o);
    if (!v) {
        look_up(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &o->volume);
    if (!want || want->state != VOLUME_LIVE) {
        int rc = fail(&e, E_NOT_FOUND, "volume %.255s was removed", o->name);
        finish(o, rc, &e);
        return;
    }
    if (!uuid_equal(&want->owner, &a->config.node) || want->move.stage == MOVE_SEAL) {
        acquire(o, v, want);
        return;
    }
    if (v->removing || v->promised_ms > clock_boot_ms())
        return;
    // An engine would take the bare directory and let a container write into the host's own file system.
    if (v->mounted && v->step == STEP_NONE && a->backend->ops->has_lost_mount && a->backend->ops->has_lost_mount(a->backend, &v->id))
        v->unsure = true;
    if (v->mounted && !v->unsure && v->step == STEP_NONE) {
        int rc = refs_open(&v->refs, o->id, o->engine, clock_boot_ms(), &e);
        FAILPOINT(AGENT_REF_OPENED);
        if (rc == 0)
            refs_save(v);
        finish(o, rc, &e);
        return;
    }
    turn(v);
    if (has_failed(o, v) && (!v->mounted || v->unsure))
        finish_failed(o, v);
}

// ---- remove

static void on_removed(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    struct agent_volume *v = known(o);
    (void)reply;
    FAILPOINT(AGENT_REMOVE_ANSWERED);
    o->asked = false;
    if (rc == -E_UNAVAILABLE)
        return; // asked again when control is back
    if (rc == 0 && v && o->begun) {
        refs_done(&v->refs);
        refs_save(v);
    }
    finish(o, rc, e);
}

// References forbid the Remove: the answer names a container, if there is one.
struct naming {
    struct agent *agent;
    const struct operation *operation;
};

static void on_user_named(void *arg, const char *user)
{
    struct naming *n = arg;
    struct operation *o = still_there(n->agent, n->operation); // it may have been late
    struct error e = ERROR_INIT;
    free(n);
    if (!o)
        return;
    int rc = fail(&e, E_BUSY, "volume %.200s is in use by %s", o->name, user);
    finish(o, rc, &e);
}

static void name_user(struct operation *o)
{
    struct naming *n = xcalloc(1, sizeof *n);
    *n = (struct naming){ o->agent, o };
    usage_name_user(o->agent, &o->volume, on_user_named, n);
}

static void ask_to_remove(struct operation *o)
{
    o->asked = true;
    link_request(o->agent, json_pack("{s:s, s:s, s:s, s:b}", "type", "request", "op", "remove", "id", UUID_TEXT(&o->volume), "unused", (int)o->begun),
                 on_removed, o);
}

// Remove, and release for another node: both let go of a volume that nothing uses. Then control has the word.
static void remove_turn(struct operation *o)
{
    struct agent *a = o->agent;
    struct error e = ERROR_INIT;
    if (!a->synced || o->asked)
        return;
    struct agent_volume *v = find(o);
    if (!v) {
        look_up(o);
        return;
    }
    const struct volume *want = volume_set_find(&a->wants, &v->id);
    if (want && !uuid_equal(&want->owner, &a->config.node)) {
        ask_to_remove(o); // which puts it to its owner
        return;
    }
    if (!o->begun) {
        if (v->removing)
            return; // another one is at it
        if (v->held) {
            int rc = fail(&e, E_BUSY, "volume %.255s is held on this node: release that hold (a lease of API v1) first", o->name);
            finish(o, rc, &e);
            return;
        }
        if (refs_forbid_remove(&v->refs, o->engine, engine_is_dead)) {
            o->asked = true;
            name_user(o);
            return;
        }
        o->begun = v->removing = true;
        v->checked = false;
        v->to_trash = o->kind == OP_REMOVE;
        o->attempts_before = v->attempts;
        v->retry_ms = 0;
        turn(v);
    }
    if (has_failed(o, v) && v->step == STEP_NONE) {
        finish_failed(o, v);
        return;
    }
    if (!v->checked || v->mounted || v->step != STEP_NONE)
        return;
    if (o->kind == OP_RELEASE) {
        finish(o, 0, NULL);
        return;
    }
    FAILPOINT(AGENT_REMOVE_CHECKED);
    ask_to_remove(o);
    FAILPOINT(AGENT_REMOVE_ASKED);
}

// ---- all

static void sync_turn(struct operation *o)
{
    if (agent_is_synced(o->agent))
        finish(o, 0, NULL);
}

void operations_turn(struct agent *a)
{
    static void (*const turns[])(struct operation *o) = {
        [OP_SYNC] = sync_turn,     [OP_FIND] = look_up,      [OP_LIST] = list_turn,      [OP_CREATE] = create_turn,
        [OP_MOUNT] = mount_turn,   [OP_REMOVE] = remove_turn, [OP_RELEASE] = remove_turn,
    };
    struct operation *o = LIST_FIRST(&a->operations);
    while (o) {
        struct operation *next = LIST_NEXT(o, all);
        turns[o->kind](o);
        o = next && still_there(a, next) ? next : NULL;
    }
    containers_turn(a);
}

void operations_free(struct agent *a)
{
    struct operation *o;
    while ((o = LIST_FIRST(&a->operations)))
        operation_free(o);
}

void agent_when_synced(struct agent *a, agent_done *done, void *arg)
{
    operation_new(a, OP_SYNC, "", done, arg);
}

void agent_lookup(struct agent *a, const char *name, agent_done *done, void *arg)
{
    operation_new(a, OP_FIND, name, done, arg);
}

void agent_list(struct agent *a, agent_names_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_LIST, "", NULL, arg);
    o->names = json_array();
    o->names_done = done;
}

void agent_create(struct agent *a, const struct volume_wish *wish, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_CREATE, wish->name, done, arg);
    o->wish = *wish;
    if (wish->metadata)
        metadata_copy(&o->metadata, wish->metadata);
}

void agent_mount(struct agent *a, const char *name, const char *id, struct engine engine, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_MOUNT, name, done, arg);
    ASSERT(strlen(id) < sizeof o->id);
    memcpy(o->id, id, strlen(id) + 1);
    o->engine = engine;
    struct agent_volume *v = find(o);
    if (v)
        turn_look(v); // a counter that a dead engine process left must not keep this one's company
}

void agent_settle(struct agent *a, const struct uuid *volume, const char *id, struct engine engine, bool taken)
{
    struct agent_volume *v = agent_volume(a, volume);
    if (!v)
        return;
    FAILPOINT(AGENT_MOUNT_SENT);
    refs_settle(&v->refs, id, engine, taken);
    refs_save(v);
    FAILPOINT(AGENT_MOUNT_SETTLED);
    engines_recheck_soon(a);
    turn(v);
}

struct named {
    const char *name;
    struct agent_volume *found;
};

static void match_used(struct agent_volume *v, void *arg)
{
    struct named *n = arg;
    if (v->refs.n && v->record && v->record->name && strcmp(v->record->name, n->name) == 0)
        n->found = v;
}

// The live volume of that name, or one that was removed or renamed under its user.
static struct agent_volume *used_by_name(const struct agent *a, const char *name)
{
    const struct volume *want = volume_set_find_name(&a->wants, name);
    struct named n = { name, want ? agent_volume(a, &want->id) : NULL };
    if (!want)
        agent_for_each(a, match_used, &n);
    return n.found;
}

void agent_unmount(struct agent *a, const char *name, const char *id, struct engine engine)
{
    struct agent_volume *v = used_by_name(a, name);
    if (!v || !refs_release(&v->refs, id, engine))
        return;
    FAILPOINT(AGENT_REF_RELEASED);
    refs_save(v);
    FAILPOINT(AGENT_UNMOUNT_SAVED);
    if (refs_total(&v->refs) == 0 && v->mounted)
        turn_linger(v);
    turn_look(v);
    turn(v);
}

void agent_remove(struct agent *a, const char *name, struct engine caller, agent_done *done, void *arg)
{
    struct operation *o = operation_new(a, OP_REMOVE, name, done, arg);
    o->engine = caller;
}

static void let_go(struct agent *a, enum operation_kind kind, const struct uuid *id, agent_done *done, void *arg)
{
    const struct volume *want = volume_set_find(&a->wants, id);
    struct operation *o = operation_new(a, kind, want && want->name ? want->name : UUID_TEXT(id), done, arg);
    o->volume = *id;
    o->engine = (struct engine){ -1, 0 }; // no engine: every live reference forbids it
}

void operation_remove(struct agent *a, const struct uuid *id, agent_done *done, void *arg)
{
    let_go(a, OP_REMOVE, id, done, arg);
}

void operation_release(struct agent *a, const struct uuid *id, agent_done *done, void *arg)
{
    let_go(a, OP_RELEASE, id, done, arg);
}
