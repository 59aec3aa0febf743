#include "control/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

#include <event2/event.h>
#include <search.h>
#include <string.h>

// ---- the tag: a sum over all volumes of a mix of id and revision, so that it follows each change in O(1) (mixing function of SplitMix64,
// Steele, Lea, Flood 2014)

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

static void tag_count(struct control *c, const struct volume *v, bool add)
{
    uint64_t half[2];
    memcpy(half, v->id.b, sizeof half);
    for (int i = 0; i < 2; i++) {
        uint64_t term = mix(half[i] ^ mix(v->revision + (uint64_t)i));
        c->tag[i] = add ? c->tag[i] + term : c->tag[i] - term;
    }
}

void control_tag(const struct control *c, char ret[33])
{
    snprintf(ret, 33, "%016llx%016llx", (unsigned long long)mix(c->tag[0]), (unsigned long long)mix(c->tag[1]));
}

// ---- what agents see

static int compare(const void *a, const void *b)
{
    return uuid_compare(a, b);
}

static struct sighting *find_sighting(void *const *tree, const struct uuid *volume)
{
    void *node = tfind(volume, tree, compare);
    return node ? *(struct sighting **)node : NULL;
}

static void put_sighting(void **tree, struct sighting *s)
{
    void *node = tsearch(s, tree, compare);
    ASSERT(node);
}

static struct sighting *add_sighting(void **tree, const struct uuid *volume)
{
    struct sighting *s = find_sighting(tree, volume);
    if (s)
        return s;
    s = xcalloc(1, sizeof *s);
    s->id = *volume;
    put_sighting(tree, s);
    return s;
}

struct sighting *control_sighting(const struct control *c, const struct uuid *volume)
{
    return find_sighting(&c->sightings, volume);
}

struct sighting *control_sighting_add(struct control *c, const struct uuid *volume)
{
    return add_sighting(&c->sightings, volume);
}

struct sighting *control_other(const struct control *c, const struct uuid *volume)
{
    return find_sighting(&c->others, volume);
}

struct sighting *control_other_add(struct control *c, const struct uuid *volume)
{
    return add_sighting(&c->others, volume);
}

static void sighting_free(void *node)
{
    struct sighting *s = node;
    free(s->path);
    free(s->error_word);
    free(s->error);
    free(s);
}

static struct sighting *take_sighting(void **tree, const struct uuid *volume)
{
    struct sighting *s = find_sighting(tree, volume);
    if (s)
        tdelete(volume, tree, compare);
    return s;
}

static void sighting_remove(void **tree, const struct uuid *volume)
{
    struct sighting *s = take_sighting(tree, volume);
    if (s)
        sighting_free(s);
}

struct uuid control_other_node(const struct volume *v)
{
    static const struct uuid none;
    if (!uuid_is_zero(&v->move.source))
        return v->move.source;
    return uuid_equal(&v->owner, &v->target) ? none : v->target;
}

// At a switch owner and target take each other's place; what is known of a node that has no part any more is forgotten.
static void sort_sightings(struct control *c, const struct volume *v)
{
    struct sighting *owner = take_sighting(&c->sightings, &v->id), *other = take_sighting(&c->others, &v->id), *both[] = { owner, other };
    const struct uuid other_node = control_other_node(v);
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        if (!both[i])
            continue;
        if (uuid_equal(&both[i]->node, &v->owner))
            put_sighting(&c->sightings, both[i]);
        else if (uuid_equal(&both[i]->node, &other_node))
            put_sighting(&c->others, both[i]);
        else
            sighting_free(both[i]);
    }
}

// ---- changes

// Sees to it that the sweep runs at that time (wall clock) or before.
static void sweep_by(struct control *c, int64_t at_ms)
{
    int64_t delay_ms = at_ms - clock_wall_ms();
    if (c->sweep_ms <= at_ms)
        return;
    if (delay_ms < 10)
        delay_ms = 10;
    const struct timeval delay = { delay_ms / 1000, (int)(delay_ms % 1000) * 1000 };
    c->sweep_ms = at_ms;
    evtimer_add(c->sweep, &delay);
}

static struct reckoning reckon(const struct control *c)
{
    return (struct reckoning){ clock_wall_ms(), clock_boot_ms() - c->steady_from_ms, c->was_set, c->config.trash_keep_ms };
}

// When a volume that is not live has to be looked at again. A deleted one's entry stays as long again as the trash kept its data, so that
// v1 clients that poll see it go.
static int64_t sweep_time(const struct control *c, const struct volume *v, const struct reckoning *r)
{
    switch (v->state) {
    case VOLUME_TRASHED:
        return r->now_ms + decide_purge_in_ms(v, r);
    case VOLUME_DELETED: // and as long as a former owner still has data of it
        return v->move.stage == MOVE_NONE ? v->purge_ms + c->config.trash_keep_ms : INT64_MAX;
    case VOLUME_LIVE:
    case VOLUME_PURGING:
    case VOLUME_STATE_COUNT:
        break;
    }
    return INT64_MAX;
}

static void adopt(struct control *c, struct volume *v)
{
    const struct volume *old = volume_set_find(&c->volumes, &v->id);
    if (old)
        tag_count(c, old, false);
    tag_count(c, v, true);
    nodes_index(c, old, v);
    volume_set_put(&c->volumes, v);
}

// Those that have a part in it, or had until now: each once.
static void tell_each(struct control *c, const struct uuid *nodes, size_t n, const struct volume *v)
{
    for (size_t i = 0; i < n; i++) {
        bool told = uuid_is_zero(&nodes[i]);
        for (size_t k = 0; k < i; k++)
            told |= uuid_equal(&nodes[i], &nodes[k]);
        if (!told)
            agents_tell(c, &nodes[i], v);
    }
}

// What is committed counts from now on.
static void publish(struct control *c, struct volume *v /* taken */)
{
    const struct volume *old = volume_set_find(&c->volumes, &v->id);
    struct uuid id = v->id, nodes[] = { v->owner, v->target, v->move.source, old ? old->owner : v->owner, old ? old->target : v->target,
                                        old ? old->move.source : v->move.source };
    const struct reckoning time = reckon(c);
    adopt(c, v);
    const struct volume *now = volume_set_find(&c->volumes, &id);
    sort_sightings(c, now);
    agents_tell_watchers(c, now); // first: who has just lost its part is one of them from now on
    tell_each(c, nodes, ARRAY_SIZE(nodes), now);
    if (now->state != VOLUME_LIVE)
        sweep_by(c, sweep_time(c, now, &time));
    moves_turn(c, &id);
    absence_turn(c, &id);
    drain_soon(c);
}

int control_put(struct control *c, struct volume *changed, struct error *e)
{
    return control_put_all(c, &changed, 1, NULL, e);
}

int control_put_all(struct control *c, struct volume **changed, size_t n, const struct node *node, struct error *e)
{
    size_t count = 0;
    AUTO(free) struct store_change *changes = xcalloc(n + 1, sizeof *changes);
    if (node)
        changes[count++] = (struct store_change){ .kind = STORE_PUT_NODE, .node = node };
    for (size_t i = 0; i < n; i++)
        changes[count++] = (struct store_change){ .kind = STORE_PUT_VOLUME, .volume = changed[i] };
    int rc = store_commit(c->store, changes, count, e);
    if (rc == 0) {
        FAILPOINT(CONTROL_COMMITTED);
        struct control_node *known = node ? control_node(c, &node->id) : NULL;
        if (known) {
            known->node = *node;
            known->saved = true;
        }
    }
    for (size_t i = 0; i < n; i++)
        rc == 0 ? publish(c, changed[i]) : volume_free(changed[i]);
    return rc;
}

int control_create(struct control *c, const struct volume_wish *wish, const struct volume **ret, const struct volume **ret_existing,
                   struct error *e)
{
    const struct uuid fresh = rng_uuid();
    struct volume *created = NULL;
    *ret_existing = NULL;
    int rc = decide_create(&c->volumes, wish, &fresh, clock_wall_ms(), &created, ret_existing, e);
    if (rc < 0)
        return rc;
    const struct uuid id = created->id;
    rc = drain_check(c, &created->owner, e);
    if (rc < 0) {
        volume_free(created);
        return rc;
    }
    rc = control_put(c, created, e);
    if (rc < 0)
        return rc;
    *ret = volume_set_find(&c->volumes, &id);
    struct control_node *owner = control_node(c, &(*ret)->owner);
    if (owner)
        owner->created++;
    return 0;
}

// Where the volume's hold is, or would be.
static size_t place_of_hold(const struct control *c, const struct uuid *volume)
{
    size_t low = 0, high = c->hold_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (uuid_compare(&c->holds[middle].volume, volume) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct hold *control_hold(const struct control *c, const struct uuid *volume)
{
    size_t at = place_of_hold(c, volume);
    return at < c->hold_count && uuid_equal(&c->holds[at].volume, volume) ? &c->holds[at] : NULL;
}

size_t control_holds_behind(const struct control *c, const struct uuid *volume)
{
    size_t at = place_of_hold(c, volume);
    return control_hold(c, volume) ? at + 1 : at;
}

static void adopt_hold(struct control *c, const struct hold *h)
{
    size_t at = place_of_hold(c, &h->volume);
    if (!control_hold(c, &h->volume)) {
        if (c->hold_count == c->hold_room) {
            c->hold_room = c->hold_room ? c->hold_room * 2 : 16;
            c->holds = xrealloc(c->holds, c->hold_room, sizeof *c->holds);
        }
        ASSERT(c->holds);
        memmove(c->holds + at + 1, c->holds + at, (c->hold_count++ - at) * sizeof *c->holds);
    }
    c->holds[at] = *h;
}

static void tell_hold(struct control *c, const struct uuid *volume, const struct uuid *node)
{
    const struct volume *v = volume_set_find(&c->volumes, volume);
    if (v && uuid_equal(&v->owner, node) && v->state != VOLUME_DELETED)
        agents_tell(c, node, v);
}

int control_put_hold(struct control *c, const struct hold *h, struct error *e)
{
    const struct store_change change = { .kind = STORE_PUT_HOLD, .hold = h };
    if (c->hold_count >= HOLDS_MAX && !control_hold(c, &h->volume))
        return fail(e, E_TOO_LARGE, "there are %d holds, the limit: release some", HOLDS_MAX);
    int rc = store_commit(c->store, &change, 1, e);
    if (rc < 0)
        return rc;
    adopt_hold(c, h);
    tell_hold(c, &h->volume, &h->node);
    if (h->has_expiry)
        sweep_by(c, h->expires_ms + 1);
    return 0;
}

int control_remove_hold(struct control *c, const struct uuid *volume, struct error *e)
{
    const struct store_change change = { .kind = STORE_REMOVE_HOLD, .id = *volume };
    struct hold *place = control_hold(c, volume);
    int rc = store_commit(c->store, &change, 1, e);
    if (rc < 0 || !place)
        return rc;
    const struct hold gone = *place;
    size_t at = (size_t)(place - c->holds);
    memmove(place, place + 1, (--c->hold_count - at) * sizeof *c->holds);
    tell_hold(c, &gone.volume, &gone.node);
    moves_turn(c, &gone.volume); // a move may have waited for it
    return 0;
}

struct volume *control_find(const struct control *c, const char *name_or_id)
{
    struct uuid id;
    struct volume *v = volume_set_find_name(&c->volumes, name_or_id);
    if (!v && uuid_parse(name_or_id, &id))
        v = volume_set_find(&c->volumes, &id);
    return v;
}

// ---- what runs out: holds, the trash, entries of deleted volumes

#define SWEEP_MS_MAX   60000 // the wall clock may be set meanwhile
#define SWEEP_AT_ONCE  64    // changes, each with its own commit: others have their turn in between

static void earlier(int64_t *next_ms, int64_t at_ms)
{
    if (at_ms < *next_ms)
        *next_ms = at_ms;
}

static int64_t next_sweep(const struct control *c)
{
    const struct reckoning r = reckon(c);
    int64_t next_ms = r.now_ms + SWEEP_MS_MAX;
    for (size_t i = 0; i < c->hold_count; i++)
        if (c->holds[i].has_expiry)
            earlier(&next_ms, c->holds[i].expires_ms + 1);
    for (size_t i = 0; i < c->volumes.n; i++)
        earlier(&next_ms, sweep_time(c, c->volumes.by_id[i], &r));
    return next_ms;
}

static void arm_sweep(struct control *c, int64_t at_ms)
{
    c->sweep_ms = INT64_MAX;
    sweep_by(c, at_ms);
}

static int64_t wall_less_boot(void)
{
    return clock_wall_ms() - clock_boot_ms();
}

// Slow changes add up to one that counts: so no two looks at the clock, whatever lies between them, differ by more without its being noticed.
static void watch_clock(struct control *c)
{
    int64_t ahead_ms = wall_less_boot() - c->wall_less_boot_ms;
    if (llabs(ahead_ms) <= CLOCK_SLACK_MS)
        return;
    c->wall_less_boot_ms += ahead_ms;
    c->steady_from_ms = clock_boot_ms();
    c->was_set = true;
    log_warn("the clock was set %s by %lld s: nothing in the trash is destroyed for the next %lld s, unless asked for",
             ahead_ms > 0 ? "forward" : "back", (long long)llabs(ahead_ms) / 1000, (long long)c->config.trash_keep_ms / 1000);
}

struct sweep {
    struct reckoning time;
    int done; // changes of this turn
    int rc;   // negative: the store has failed
};

static void sweep_holds(struct control *c, struct sweep *s)
{
    struct error e = ERROR_INIT;
    for (size_t i = c->hold_count; i-- > 0 && s->done < SWEEP_AT_ONCE && s->rc == 0;) {
        if (!hold_is_over(&c->holds[i], s->time.now_ms))
            continue;
        s->done++;
        s->rc = control_remove_hold(c, &c->holds[i].volume, &e);
        if (s->rc < 0)
            log_error("the hold of volume %s is over and can't be removed: %s", UUID_TEXT(&c->holds[i].volume), e.msg);
    }
}

static int forget(struct control *c, const struct volume *v, struct error *e)
{
    const struct uuid id = v->id;
    const struct store_change change = { .kind = STORE_REMOVE_VOLUME, .id = id };
    int rc = store_commit(c->store, &change, 1, e);
    if (rc < 0)
        return rc;
    tag_count(c, v, false);
    nodes_forget_volume(c, v);
    sighting_remove(&c->sightings, &id);
    sighting_remove(&c->others, &id);
    volume_set_remove(&c->volumes, &id);
    waiters_turn(c, &id);
    return 0;
}

// What is due in the trash is to be destroyed by its owner; what was deleted long ago is forgotten.
static void sweep_volumes(struct control *c, struct sweep *s)
{
    struct error e = ERROR_INIT;
    for (size_t i = c->volumes.n; i-- > 0 && s->done < SWEEP_AT_ONCE && s->rc == 0;) {
        const struct volume *v = c->volumes.by_id[i];
        struct volume *changed = NULL;
        const struct uuid id = v->id;
        if (sweep_time(c, v, &s->time) > s->time.now_ms)
            continue;
        s->done++;
        if (v->state == VOLUME_DELETED)
            s->rc = forget(c, v, &e);
        else if ((s->rc = decide_purge(v, &changed, &e)) == 0)
            s->rc = control_put(c, changed, &e);
        if (s->rc < 0)
            log_error("volume %s can't be purged: %s", UUID_TEXT(&id), e.msg);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    (void)fd;
    (void)what;
    watch_clock(c);
    struct sweep s = { .time = reckon(c) };
    sweep_holds(c, &s);
    sweep_volumes(c, &s);
    arm_sweep(c, s.rc < 0 ? s.time.now_ms + STORE_RETRY_MS : next_sweep(c));
}

// ---- start and end

static int on_volume(void *arg, struct volume *volume, struct error *e)
{
    (void)e;
    adopt(arg, volume);
    return 0;
}

static int on_hold(void *arg, const struct hold *hold, struct error *e)
{
    (void)e;
    adopt_hold(arg, hold);
    return 0;
}

static int on_node(void *arg, const struct node *node, struct error *e)
{
    (void)e;
    control_node_add(arg, node)->saved = true;
    return 0;
}

static int on_container(void *arg, struct container *container, struct error *e)
{
    struct control *c = arg;
    (void)e;
    containers_adopt(&c->containers, container);
    return 0;
}

static int serve(struct control *c, struct error *e)
{
    struct http_server_config api = { .base = c->config.base, .keep_alive = true, .on_request = api_on_request, .arg = c };
    struct http_server_config rest = api;
    api.listen_fd = TAKE(c->config.api_fd, -1);
    c->api = http_server_new(&api, e);
    if (!c->api)
        return -(int)e->code;
    if (c->config.rest_fd >= 0) {
        rest.listen_fd = TAKE(c->config.rest_fd, -1);
        rest.tls = c->config.tls;
        c->rest = http_server_new(&rest, e);
        if (!c->rest)
            return -(int)e->code;
    }
    return agents_init(c, e);
}

DEFINE_AUTO(struct control *, control_free)

int control_new(const struct control_config *config, struct control **ret, struct error *e)
{
    AUTO(control_free) struct control *c = xcalloc(1, sizeof *c);
    const struct store_sink sink = { on_volume, on_hold, on_node, c, enrol_load_token, on_container, users_load };
    c->config = *config;
    c->instance = rng_uuid();
    c->sweep_ms = INT64_MAX;
    c->wall_less_boot_ms = wall_less_boot();
    c->steady_from_ms = clock_boot_ms();
    c->sweep = evtimer_new(config->base, on_sweep, c);
    listings_init(c);
    int rc = store_open(config->store, config->store_path, &c->store, e);
    if (rc < 0)
        return rc;
    volume_set_fill_begin(&c->volumes);
    if ((rc = store_load(c->store, &sink, e)) < 0)
        return rc;
    volume_set_fill_end(&c->volumes);
    FAILPOINT(CONTROL_LOADED);
    if ((rc = serve(c, e)) < 0)
        return rc;
    absence_begin(c);
    arm_sweep(c, next_sweep(c));
    *ret = TAKE(c, NULL);
    return 0;
}

void control_free(struct control *c)
{
    waiters_free(c);
    listings_free(c);
    if (c->api)
        http_server_free(c->api);
    if (c->rest)
        http_server_free(c->rest);
    if (c->config.api_fd >= 0)
        close(c->config.api_fd);
    if (c->config.rest_fd >= 0)
        close(c->config.rest_fd);
    recover_stop(c);
    agents_free(c);
    event_free(c->sweep);
    if (c->absence)
        event_free(c->absence);
    if (c->drain)
        event_free(c->drain);
    if (c->again)
        event_free(c->again);
    nodes_free(c);
    tdestroy(c->sightings, sighting_free);
    tdestroy(c->others, sighting_free);
    volume_set_done(&c->volumes);
    free(c->holds);
    containers_done(&c->containers);
    free(c->tokens);
    free(c->users);
    store_close(c->store);
    free(c);
}
