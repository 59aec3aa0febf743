// Clients that wait until a volume's owner has carried out what they wished. No polling: the owner's report wakes them.
#include "control/internal.h"

#include "base/mem.h"

#include <event2/event.h>

// Whether the owner has carried out revision `revision`, or has said after its first `reports` reports why it can't.
static bool is_carried_out(const struct control *c, const struct uuid *id, uint64_t revision, uint64_t reports)
{
    const struct volume *v = volume_set_find(&c->volumes, id);
    const struct sighting *s = control_sighting(c, id);
    if (!v || v->state == VOLUME_DELETED)
        return true;
    if (!s)
        return false;
    if (s->error)
        return s->reports > reports;
    return s->present && s->revision >= revision && (s->mounted || !v->keep_mounted || v->state != VOLUME_LIVE);
}

// It is where its user wants it, and there for use.
static bool has_arrived(const struct control *c, const struct uuid *id)
{
    const struct volume *v = volume_set_find(&c->volumes, id);
    const struct sighting *s = control_sighting(c, id);
    return !v || v->state != VOLUME_LIVE || (uuid_equal(&v->owner, &v->target) && (!v->born || (s && s->present && s->epoch == v->epoch)));
}

static bool is_over(const struct waiter *w)
{
    return w->for_move ? has_arrived(w->control, &w->volume) : is_carried_out(w->control, &w->volume, w->revision, w->reports);
}

static void answer(struct waiter *w)
{
    const struct volume *v = volume_set_find(&w->control->volumes, &w->volume);
    struct error e = ERROR_INIT;
    LIST_REMOVE(w, all);
    w->control->waiter_count--;
    if (v) {
        api_reply(w->exchange, w->status, volume_to_v2(w->control, v));
    } else {
        fail(&e, E_NOT_FOUND, "volume %s is gone", UUID_TEXT(&w->volume));
        api_fail(w->exchange, &e);
    }
    event_free(w->deadline);
    free(w);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    answer(arg);
}

// Whether one more may wait. Those whose clients have gone make room for it.
static bool has_room(struct control *c)
{
    struct waiter *w = c->waiter_count < WAITERS_MAX ? NULL : LIST_FIRST(&c->waiters);
    while (w) {
        struct waiter *next = LIST_NEXT(w, all);
        if (http_peer_is_gone(w->exchange))
            answer(w);
        w = next;
    }
    return c->waiter_count < WAITERS_MAX;
}

static void wait_or_reply(struct call *call, const struct volume *v, int status, bool for_move)
{
    struct control *c = call->control;
    const struct sighting *s = control_sighting(c, &v->id);
    const struct waiter now = { .control = c, .volume = v->id, .revision = v->revision, .reports = s ? s->reports : 0, .status = status,
                                .exchange = call->exchange, .for_move = for_move };
    if (call->wait_s == 0 || is_over(&now) || !has_room(c)) {
        api_reply(call->exchange, status, volume_to_v2(c, v));
        return;
    }
    const struct timeval delay = { call->wait_s, 0 };
    struct waiter *w = xcalloc(1, sizeof *w);
    *w = now;
    w->deadline = evtimer_new(c->config.base, on_deadline, w);
    evtimer_add(w->deadline, &delay);
    LIST_INSERT_HEAD(&c->waiters, w, all);
    c->waiter_count++;
}

void wait_and_reply(struct call *call, const struct volume *v, int status)
{
    wait_or_reply(call, v, status, false);
}

void wait_for_move(struct call *call, const struct volume *v)
{
    wait_or_reply(call, v, 200, true);
}

void waiters_turn(struct control *c, const struct uuid *volume)
{
    struct waiter *w = LIST_FIRST(&c->waiters);
    while (w) {
        struct waiter *next = LIST_NEXT(w, all);
        if (uuid_equal(&w->volume, volume) && is_over(w))
            answer(w);
        w = next;
    }
}

void waiters_free(struct control *c)
{
    struct waiter *w;
    while ((w = LIST_FIRST(&c->waiters)))
        answer(w);
}
