// Lists of what a cluster may have very many of. They are written in the order of ids, a piece in each turn of the loop, and the next one when
// the client has taken the last: nobody waits for more than one piece, and no list is ever in memory as a whole. What comes between two pieces
// is found by the id that was written last, so whatever is there all the time is listed exactly once.
#include "control/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/mem.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES (64U << 10)
#define PIECE_MS    2

struct listing {
    TAILQ_ENTRY(listing) ready;
    struct control *control;
    struct http_exchange *exchange;
    const struct listing_kind *kind;
    struct uuid after, last; // those up to `after` are done with; up to `last` belong to it
    bool is_ready, has_begun, has_items;
    char *extra;
};

static size_t volumes_behind(const struct control *c, const struct uuid *id)
{
    return volume_set_behind(&c->volumes, id);
}

static const struct uuid *volume_id(const struct control *c, size_t at)
{
    return at < c->volumes.n ? &c->volumes.by_id[at]->id : NULL;
}

static const struct uuid *hold_id(const struct control *c, size_t at)
{
    return at < c->hold_count ? &c->holds[at].volume : NULL;
}

const struct listing_source listing_volumes = { volumes_behind, volume_id }, listing_holds = { control_holds_behind, hold_id };

// ---- pieces

// Writes items until the piece is large enough or has taken long enough. True: there are no more.
static bool write_items(struct listing *l, FILE *f)
{
    const struct control *c = l->control;
    const struct listing_source *source = l->kind->source;
    const int64_t end_ms = clock_boot_ms() + PIECE_MS;
    const struct uuid *id;
    for (size_t at = source->behind(c, &l->after); (id = source->id(c, at)) && uuid_compare(id, &l->last) <= 0; at++) {
        if (ftell(f) >= (long)PIECE_BYTES || clock_boot_ms() >= end_ms)
            return false;
        l->has_items |= l->kind->write(f, c, at, l->has_items ? "," : "");
        l->after = *id;
    }
    return true;
}

static char *write_piece(struct listing *l, size_t *ret_n, bool *ret_is_last)
{
    char *text = NULL;
    FILE *f = xmemstream(&text, ret_n);
    if (!l->has_begun)
        fputc('[', f);
    *ret_is_last = write_items(l, f);
    if (*ret_is_last)
        fputc(']', f);
    fclose(f);
    return text;
}

// ---- turns

static void end(struct listing *l)
{
    if (l->is_ready)
        TAILQ_REMOVE(&l->control->listings, l, ready);
    if (l->exchange && l->has_begun)
        http_stream_end(l->exchange);
    else if (l->exchange)
        http_drop(l->exchange);
    free(l->extra);
    free(l);
}

static void ready(struct listing *l)
{
    static const struct timeval now = { 0, 0 };
    struct control *c = l->control;
    ASSERT(!l->is_ready);
    l->is_ready = true;
    TAILQ_INSERT_TAIL(&c->listings, l, ready);
    evtimer_add(c->listing, &now);
}

static void on_taken(void *arg, bool is_there)
{
    struct listing *l = arg;
    is_there ? ready(l) : end(l);
}

// What fits one piece is answered as any other call.
static void reply_at_once(struct listing *l, const char *text, size_t n)
{
    api_reply_text(TAKE(l->exchange, NULL), 200, l->extra, text, n);
    end(l);
}

static void turn(struct listing *l)
{
    bool is_last;
    size_t n;
    AUTO(free) char *text = write_piece(l, &n, &is_last);
    if (is_last && !l->has_begun) {
        reply_at_once(l, text, n);
        return;
    }
    if (!l->has_begun) {
        FAILPOINT(CONTROL_REST_REPLY);
        l->has_begun = true;
        is_last = !http_stream_begin(l->exchange, 200, l->extra, JSON_TYPE, on_taken, l);
    }
    http_stream_send(l->exchange, text, n);
    if (is_last)
        end(l);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval now = { 0, 0 };
    struct control *c = arg;
    struct listing *l = TAILQ_FIRST(&c->listings);
    (void)fd;
    (void)what;
    if (!l)
        return;
    TAILQ_REMOVE(&c->listings, l, ready);
    l->is_ready = false;
    turn(l);
    if (!TAILQ_EMPTY(&c->listings))
        evtimer_add(c->listing, &now);
}

void listing_reply(struct call *call, const struct listing_kind *kind, const struct listing_range *range, const char *extra)
{
    struct listing *l = xcalloc(1, sizeof *l);
    *l = (struct listing){ .control = call->control, .exchange = call->exchange, .kind = kind, .extra = xstrdup(extra) };
    memset(&l->last, 0xff, sizeof l->last);
    if (range) {
        l->after = range->after;
        l->last = range->last;
    }
    ready(l);
}

void listings_init(struct control *c)
{
    TAILQ_INIT(&c->listings);
    c->listing = evtimer_new(c->config.base, on_turn, c);
}

void listings_free(struct control *c)
{
    struct listing *l;
    while ((l = TAILQ_FIRST(&c->listings)))
        end(l);
    event_free(c->listing);
}
