// Clients that wait until a volume's owner has carried out what they wished. No polling: the owner's report wakes them.
#include "control/internal.h"

#include "base/mem.h"

#include <event2/event.h>

#define WAIT_S_MAX 30

// Whether the owner has carried out revision `revision`, or has said why it can't.
static bool is_carried_out(const struct control *c, const struct uuid *id, uint64_t revision)
{
    const struct volume *v = volume_set_find(&c->volumes, id);
    const struct sighting *s = control_sighting(c, id);
    if (!v || v->state == VOLUME_DELETED)
        return true;
    if (!s || !uuid_equal(&s->node, &v->owner))
        return false;
    return s->error || (s->present && s->revision >= revision && (s->mounted || !v->keep_mounted || v->state != VOLUME_LIVE));
}

static void answer(struct waiter *w)
{
    const struct volume *v = volume_set_find(&w->control->volumes, &w->volume);
    LIST_REMOVE(w, all);
    if (v)
        api_reply(w->exchange, w->status, volume_to_v2(w->control, v));
    else
        api_describe(w->exchange, 404, "The volume is gone.");
    event_free(w->deadline);
    free(w);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    answer(arg);
}

void wait_and_reply(struct call *call, const struct volume *v, int status)
{
    char text[16];
    struct control *c = call->control;
    const char *seconds = api_query(call->exchange, "wait", text, sizeof text);
    long limit = seconds ? strtol(seconds, NULL, 10) : 0;
    if (limit <= 0 || is_carried_out(c, &v->id, v->revision)) {
        api_reply(call->exchange, status, volume_to_v2(c, v));
        return;
    }
    const struct timeval delay = { limit < WAIT_S_MAX ? limit : WAIT_S_MAX, 0 };
    struct waiter *w = xcalloc(1, sizeof *w);
    *w = (struct waiter){ .control = c, .volume = v->id, .revision = v->revision, .status = status, .exchange = call->exchange };
    w->deadline = evtimer_new(c->config.base, on_deadline, w);
    evtimer_add(w->deadline, &delay);
    LIST_INSERT_HEAD(&c->waiters, w, all);
}

void waiters_turn(struct control *c, const struct uuid *volume)
{
    struct waiter *w = LIST_FIRST(&c->waiters);
    while (w) {
        struct waiter *next = LIST_NEXT(w, all);
        if (uuid_equal(&w->volume, volume) && is_carried_out(c, volume, w->revision))
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
