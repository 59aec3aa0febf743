// The life of an operation, and those that only ask control for names.
#include "agent/operation.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"

#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LIST_MS   500    // for control to name all volumes of the cluster
#define NAMES_MAX 100000 // that are asked for

struct agent_volume *operation_volume(const struct operation *o)
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

// ---- its end

void operation_finish(struct operation *o, int rc, const struct error *e)
{
    struct agent *a = o->agent;
    struct agent_volume *v = operation_volume(o);
    agent_done *done = o->done;
    void *arg = o->arg;
    enum operation_kind kind = o->kind;
    if (v)
        operation_end_claim(o, v, rc);
    operation_free(o);
    failpoint(replies[kind]);
    done(arg, rc, e);
    if (v)
        turn(v);
    turn_soon(a);
}

void operation_fail(struct operation *o, enum errcode code, const char *fmt, ...)
{
    struct error e = ERROR_INIT;
    char text[sizeof e.msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    int rc = fail(&e, code, "%s", text);
    operation_finish(o, rc, &e);
}

bool operation_has_failed(const struct operation *o, const struct agent_volume *v)
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
void operation_keep_failure(struct operation *o, const struct agent_volume *v)
{
    o->failure = v->error;
    if (!has_word(o->failure.msg, o->name))
        fail_ctx(&o->failure, -(int)v->error.code, "volume %.255s", o->name);
}

void operation_finish_kept(struct operation *o)
{
    const struct error e = o->failure;
    operation_finish(o, -(int)e.code, &e);
}

void operation_finish_failed(struct operation *o, const struct agent_volume *v)
{
    operation_keep_failure(o, v);
    operation_finish_kept(o);
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
static void fail_late(struct operation *o)
{
    const struct agent_volume *v = operation_volume(o);
    const struct volume *want = v ? volume_set_find(&o->agent->wants, &v->id) : NULL;
    char so_far[SIZE_TEXT_SIZE], in_all[SIZE_TEXT_SIZE];
    if (want && move_is_open(want) && v->copy.total)
        operation_fail(o, E_TIMEOUT, "volume %.255s is on its way to this node: %s of about %s are here, try again", o->name,
                       size_format(v->copy.bytes, so_far), size_format(v->copy.total, in_all));
    else if (want && move_is_open(want))
        operation_fail(o, E_TIMEOUT, "volume %.255s is on its way to node %s, try again", o->name, UUID_TEXT(&want->target));
    else if (want && want->move.stage != MOVE_NONE)
        operation_fail(o, E_TIMEOUT, "volume %.255s has just moved to node %s and settles there, try again", o->name, UUID_TEXT(&want->owner));
    else
        operation_fail(o, E_TIMEOUT, "volume %.255s: %s goes on, try again", o->name,
                       v && v->step != STEP_NONE ? step_word(v->step) : "waiting for the control service");
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct operation *o = arg;
    struct agent *a = o->agent;
    (void)fd;
    (void)what;
    if (o->kind == OP_LIST)
        finish_list(o, false);
    else if (o->failure.code)
        operation_finish_kept(o); // control is slow to discard what could not be made
    else if (!a->open)
        operation_fail(o, E_UNAVAILABLE, "this node's pool is not ready, try again: %s", a->pool_error ? a->pool_error : "it is being opened");
    else if (!a->synced)
        operation_fail(o, E_UNAVAILABLE, "the control service can't be reached, try again%s%s", a->link_problem ? ": " : "",
                       a->link_problem ? a->link_problem : "");
    else
        fail_late(o);
}

// ---- its beginning

struct operation *operation_new(struct agent *a, enum operation_kind kind, const char *name, agent_done *done, void *arg)
{
    const struct timeval limit = clock_timeval(kind == OP_LIST ? LIST_MS : PLUGIN_ANSWER_MS);
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

struct agent_volume *operation_find(struct operation *o)
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

struct operation *operation_still_there(const struct agent *a, const struct operation *o)
{
    struct operation *p;
    LIST_FOREACH (p, &a->operations, all)
        if (p == o)
            return p;
    return NULL;
}

// ---- names that only control knows

// Whether another node has it: control's answer to an operation on a name of which nothing is known here.
static void on_looked_up(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct operation *o = arg;
    (void)reply;
    o->asked = false;
    if (rc == -E_UNAVAILABLE)
        return; // asked again when control is back
    if (rc == -E_NOT_FOUND && o->kind == OP_REMOVE)
        operation_finish(o, 0, NULL);
    else if (rc < 0 || o->kind == OP_FIND)
        operation_finish(o, rc, e);
    else
        turn_soon(o->agent);
}

void operation_look_up(struct operation *o)
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

static void sync_turn(struct operation *o)
{
    if (agent_is_synced(o->agent))
        operation_finish(o, 0, NULL);
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

// ---- all

void operations_turn(struct agent *a)
{
    static void (*const turns[])(struct operation *o) = {
        [OP_SYNC] = sync_turn,
        [OP_FIND] = operation_look_up,
        [OP_LIST] = list_turn,
        [OP_CREATE] = operation_create_turn,
        [OP_MOUNT] = operation_mount_turn,
        [OP_REMOVE] = operation_remove_turn,
        [OP_RELEASE] = operation_remove_turn,
    };
    struct operation *o = LIST_FIRST(&a->operations);
    while (o) {
        struct operation *next = LIST_NEXT(o, all);
        turns[o->kind](o);
        o = next && operation_still_there(a, next) ? next : NULL;
    }
    containers_turn(a);
}

void operations_free(struct agent *a)
{
    struct operation *o;
    while ((o = LIST_FIRST(&a->operations)))
        operation_free(o);
}
