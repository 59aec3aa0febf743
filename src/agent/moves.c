// What moves do on this node: the final snapshot at the source, who is stopped for it, and how far both ends are.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "plan/room.h"
#include "sys/users.h"
#include "transfer/target.h"

#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define REFRESH_MS    30000 // the copy of a volume that waits for its last user is brought up to date that often
#define EVICT_ROUNDS  100
#define EVICT_WAIT_MS 50
#define EVICT_AT_ONCE 64

int moves_check(const struct agent *a, struct error *e)
{
    const struct backend_ops *ops = a->config.backend;
    return ops->send ? 0 : fail(e, E_UNSUPPORTED, "backend %s can't move volumes between nodes", ops->name);
}

// ---- the source

int moves_run_seal(struct agent_volume *v, json_t *result, struct error *e)
{
    struct backend *b = v->agent->backend;
    uint64_t newest = 0;
    int rc = b->ops->snapshots(b, &v->id, &newest, e);
    uint64_t number = move_next_number(newest, v->order->revision);
    if (rc == 0)
        rc = b->ops->snapshot(b, &v->id, number, e);
    json_object_set_new(result, "number", json_integer((json_int_t)number));
    return rc;
}

void moves_apply_seal(struct agent_volume *v, const json_t *result)
{
    v->snapshot = (struct move_snapshot){ .number = (uint64_t)json_integer_value(json_object_get(result, "number")), .final = true };
    v->sealed_revision = v->order->revision;
}

// One process of each namespace is killed in a round: of a container it is the first, whose end is the container's.
int moves_run_evict(struct agent_volume *v, struct error *e)
{
    struct backend *b = v->agent->backend;
    struct users_entry users[EVICT_AT_ONCE];
    char text[USERS_TEXT_SIZE] = "";
    for (int round = 0; round < EVICT_ROUNDS; round++) {
        int n = b->ops->users(b, &v->id, users, EVICT_AT_ONCE, e);
        if (n == 0 && round == 0)
            return fail(e, E_BUSY, "its engine has not given it back yet"); // tried again, not at once
        if (n <= 0)
            return n;
        for (int i = 0; i < n; i++)
            kill(users[i].pid, SIGKILL);
        users_text(&users[0], text);
        poll(NULL, 0, EVICT_WAIT_MS);
    }
    return fail(e, E_BUSY, "%s does not end although it was killed", text);
}

// ---- the target

void moves_read_want(struct agent_volume *v, const json_t *message)
{
    const json_t *peer = json_object_get(message, "peer");
    const char *node = json_string_value(json_object_get(peer, "node")), *host = json_string_value(json_object_get(peer, "host"));
    json_int_t port = json_integer_value(json_object_get(peer, "port"));
    v->peer = (struct move_peer){ .final = (uint64_t)json_integer_value(json_object_get(peer, "final")) };
    // The agent beside control gives an address of that host alone: it is where control is.
    if (host && strncmp(host, "127.", 4) == 0 && v->agent->config.control_host)
        host = v->agent->config.control_host;
    if (!node || !uuid_parse(node, &v->peer.node) || !host || strlen(host) >= sizeof v->peer.host || port < 1 || port > 65535)
        return;
    memcpy(v->peer.host, host, strlen(host) + 1);
    v->peer.port = (uint16_t)port;
}

bool moves_wants_fetch(const struct agent_volume *v)
{
    return v->peer.port && (v->peer.final || v->copy.due_ms <= clock_boot_ms());
}

// A final snapshot may be that of an earlier seal, which was broken since; who was made owner has been found to have the right one.
bool moves_has_final(const struct agent_volume *v)
{
    const struct volume *want = volume_set_find(&v->agent->wants, &v->id);
    const struct move_snapshot *s = &v->copy.snapshot;
    if (want && uuid_equal(&want->owner, &v->agent->config.node))
        return s->number != 0;
    return s->final && s->number >= v->peer.final;
}

static void fetch_again_in(struct agent_volume *v, int delay_ms)
{
    v->copy.due_ms = clock_boot_ms() + delay_ms;
    turn_later(v, delay_ms);
}

// Of the copy on disk, as the agent finds it when it starts.
void moves_found_copy(struct agent_volume *v, const json_t *copy)
{
    struct error e = ERROR_INIT;
    v->copy.is_here = true;
    if (move_snapshot_from_json(json_object_get(copy, "snapshot"), &v->copy.snapshot, &e) < 0)
        log_error("what was received of volume %s: %s", UUID_TEXT(&v->id), e.msg);
}

static json_t *copy_to_json(const struct move_snapshot *s)
{
    return s->number ? json_pack("{s:o}", "snapshot", move_snapshot_to_json(s)) : json_object();
}

json_t *moves_copy_to_json(const struct backend_copy *c)
{
    struct move_snapshot s = { .number = c->seq, .final = c->final, .has_digest = c->seq != 0 };
    memcpy(s.digest, c->digest, sizeof s.digest);
    return copy_to_json(&s);
}

// Those that an engine waits for have room of their own.
bool moves_may_fetch(struct agent_volume *v)
{
    struct agent *a = v->agent;
    if (a->fetch_count < (turn_is_in_use(v) ? 2 * FETCHES_MAX : FETCHES_MAX))
        return true;
    if (!v->fetch_waits)
        LIST_INSERT_HEAD(&a->fetch_waiting, v, waiting_fetch);
    v->fetch_waits = true;
    return false;
}

static void wake_waiting(struct agent *a)
{
    struct agent_volume *v = LIST_FIRST(&a->fetch_waiting);
    if (!v)
        return;
    moves_stop_waiting(v);
    turn(v);
}

void moves_stop_waiting(struct agent_volume *v)
{
    if (v->fetch_waits)
        LIST_REMOVE(v, waiting_fetch);
    v->fetch_waits = false;
}

static void tell_progress(void *arg, const struct transfer_progress *p)
{
    (void)arg;
    worker_tell(json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)p->bytes, "total", (json_int_t)p->total, "rate", (json_int_t)p->rate));
}

// What other fetches that were under way when this one was begun have still to get.
struct promised {
    const struct agent_volume *of;
    uint64_t bytes;
};

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

// As far as their sources are to be believed.
static void add_promised(struct agent_volume *v, void *arg)
{
    struct promised *p = arg;
    if (v == p->of || !v->fetch)
        return;
    uint64_t left = less(v->copy.total, v->copy.bytes), most = volume_copy_max(v->order->size);
    p->bytes += left < most ? left : most;
}

static int may_take(void *arg, const struct transfer_amount *amount, struct error *e)
{
    const struct agent_volume *v = arg;
    struct backend *b = v->agent->backend;
    struct backend_usage pool;
    struct promised others = { .of = v };
    int rc = room_check_stream(v->order->size, amount->applied, e);
    if (rc == 0)
        rc = b->ops->pool_usage(b, &pool, e);
    if (rc < 0)
        return rc;
    if (amount->left)
        agent_for_each(v->agent, add_promised, &others);
    const struct room room = { .size = pool.limit_bytes, .free = less(less(pool.free_bytes, amount->unsettled), others.bytes) };
    return room_check(&room, amount->left, e);
}

static int run_fetch(void *ctx, json_t *result, struct error *e)
{
    struct agent_volume *v = ctx;
    char name[64];
    struct transfer_result got = { 0 };
    snprintf(name, sizeof name, "node-%s", UUID_TEXT(&v->peer.node));
    const struct transfer_target target = {
        .backend = v->agent->backend,
        .volume = v->order,
        .host = v->peer.host,
        .port = v->peer.port,
        .peer_name = name,
        .tls = v->agent->config.peer_client,
        .progress = tell_progress,
        .may_take = may_take,
        .arg = v,
    };
    int rc = moves_check(v->agent, e);
    if (rc == 0)
        rc = transfer_fetch(&target, &got, e);
    struct move_snapshot s = { .number = got.seq, .final = got.final, .has_digest = true };
    memcpy(s.digest, got.digest, sizeof s.digest);
    if (rc == 0)
        json_object_set_new(result, "snapshot", move_snapshot_to_json(&s));
    json_object_set_new(result, "bytes", json_integer((json_int_t)got.bytes));
    return rc;
}

static void on_fetch_progress(void *arg, const json_t *progress)
{
    struct agent_volume *v = arg;
    v->copy.is_here = true;
    v->copy.bytes = (uint64_t)json_integer_value(json_object_get(progress, "bytes"));
    v->copy.total = (uint64_t)json_integer_value(json_object_get(progress, "total"));
    v->copy.rate = (uint64_t)json_integer_value(json_object_get(progress, "rate"));
    turn_report(v);
}

static void on_fetched(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent_volume *v = arg;
    struct move_copy *c = &v->copy;
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(result, "bytes"));
    struct error ignored = ERROR_INIT;
    struct agent *a = v->agent;
    v->fetch = NULL;
    a->fetch_count--;
    c->is_here = true; // a part of it, at least
    if (rc == 0 && move_snapshot_from_json(json_object_get(result, "snapshot"), &c->snapshot, &ignored) == 0) {
        c->warm = move_is_warm(bytes, c->last_bytes);
        c->last_bytes = bytes;
        log_info("volume %s: snapshot %llu is here, %llu bytes came for it", UUID_TEXT(&v->id), (unsigned long long)c->snapshot.number,
                 (unsigned long long)bytes);
        fetch_again_in(v, c->warm ? REFRESH_MS : 0);
    }
    turn_end_step(v, rc, result, e);
    wake_waiting(a);
}

void moves_fetch(struct agent_volume *v)
{
    char what[128], label[UUID_TEXT_SIZE];
    snprintf(what, sizeof what, "fetch volume %.90s", volume_label(v->order, label));
    const struct worker_task task = { .what = what, .run = run_fetch, .ctx = v, .done = on_fetched, .arg = v, .is_long = true,
                                      .on_progress = on_fetch_progress };
    moves_stop_waiting(v);
    v->agent->fetch_count++;
    v->fetch = worker_start(v->agent->workers, &task);
    turn_report(v); // this node knows of it
}

// ---- what control is told

// The order by which this node keeps what it has received: control relies on the copy only if that is its latest.
static uint64_t order_of_copy(const struct agent_volume *v)
{
    const struct volume *want = volume_set_find(&v->agent->wants, &v->id);
    return v->copy.is_here && want ? want->revision : 0;
}

bool moves_are_reported(const struct agent_volume *v)
{
    return v->reported.has_copy == v->copy.is_here && v->reported.order == order_of_copy(v) &&
           move_snapshot_equal(&v->reported.snapshot, &v->snapshot) && move_snapshot_equal(&v->reported.copy, &v->copy.snapshot) &&
           v->reported.warm == v->copy.warm && v->reported.copy_bytes == v->copy.bytes && v->reported.sealed_revision == v->sealed_revision;
}

void moves_report(struct agent_volume *v, json_t *report)
{
    struct move_snapshot taken = v->snapshot;
    const struct move_copy *c = &v->copy;
    taken.final = v->sealed_revision && v->record && v->sealed_revision == v->record->revision;
    v->reported.snapshot = v->snapshot;
    v->reported.sealed_revision = v->sealed_revision;
    v->reported.copy = c->snapshot;
    v->reported.has_copy = c->is_here;
    v->reported.order = order_of_copy(v);
    v->reported.warm = c->warm;
    v->reported.copy_bytes = c->bytes;
    if (taken.number)
        json_object_set_new(report, "snapshot", move_snapshot_to_json(&taken));
    if (!c->is_here)
        return;
    json_t *copy = json_pack("{s:I, s:b, s:I, s:I, s:I}", "order", (json_int_t)v->reported.order, "warm", (int)c->warm, "bytes", (json_int_t)c->bytes,
                             "total", (json_int_t)c->total, "rate", (json_int_t)c->rate);
    if (c->snapshot.number)
        json_object_set_new(copy, "snapshot", move_snapshot_to_json(&c->snapshot));
    json_object_set_new(report, "copy", copy);
}
