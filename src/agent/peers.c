// Serves other agents, to which volumes of this node move: a worker for each connection. What a peer may have stands in control's orders;
// the worker judges by the copy of them that it was forked with. Of the places neither an address nor a node can take all: STRANGERS_MAX,
// SERVINGS_OF_NODE_MAX.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/socket.h"
#include "transfer/source.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>

#define NODE_PREFIX "node-"
#define STRANGERS_MAX 8    // of one address that have not been granted anything yet: as many as a node fetches at once
#define PATIENCE_MS 1000 // with a peer while others wait: a handshake and a request take some milliseconds

struct serving {
    LIST_ENTRY(serving) all;
    struct agent *agent;
    struct worker *worker;
    struct uuid volume, node; // once it was granted: what, and to whom
    int64_t since_ms;
    bool gives_way;     // its worker was told to end
    char from[SOCKET_ADDRESS_SIZE];
};

static bool is_granted(const struct serving *s)
{
    return !uuid_is_zero(&s->volume);
}

static size_t count_of_node(const struct agent *a, const struct uuid *node)
{
    const struct serving *s;
    size_t n = 0;
    LIST_FOREACH (s, &a->servings, all)
        n += is_granted(s) && !s->gives_way && uuid_equal(&s->node, node);
    return n;
}

// ---- in the worker

static int permit(void *arg, const char *peer, const struct transfer_request *r, struct transfer_grant *ret, struct error *e)
{
    const struct serving *s = arg;
    const struct agent *a = s->agent;
    const struct agent_volume *v = agent_volume(a, &r->volume);
    const struct volume *want = volume_set_find(&a->wants, &r->volume);
    struct uuid node;
    if (strncmp(peer, NODE_PREFIX, strlen(NODE_PREFIX)) != 0 || !uuid_parse(peer + strlen(NODE_PREFIX), &node))
        return fail(e, E_DENIED, "'%.80s' is not the certificate of a node", peer);
    if (!v || !want || !v->record || !uuid_equal(&want->owner, &a->config.node) || !move_is_open(want) || !uuid_equal(&want->target, &node))
        return fail(e, E_UNAVAILABLE, "volume %s does not move from here to node %s", UUID_TEXT(&r->volume), UUID_TEXT(&node));
    if (r->epoch != want->epoch || v->record->epoch != want->epoch)
        return fail(e, E_DENIED, "volume %s: epoch %llu was asked for, it is %llu", UUID_TEXT(&r->volume), (unsigned long long)r->epoch,
                    (unsigned long long)want->epoch);
    if (v->step == STEP_UNSEAL) // begun before the order for this move came: it would take what is sent now, too
        return fail(e, E_UNAVAILABLE, "volume %s: the snapshots of an earlier move are being removed, try again", UUID_TEXT(&r->volume));
    if (count_of_node(a, &node) >= SERVINGS_OF_NODE_MAX)
        return fail(e, E_UNAVAILABLE, "node %s has %d fetches from here already, the most that one node can have: try again when one has ended",
                    UUID_TEXT(&node), SERVINGS_OF_NODE_MAX);
    bool sealed = v->sealed_revision == want->revision;
    *ret = (struct transfer_grant){ .final_seq = sealed ? v->snapshot.number : 0, .first_seq = move_next_number(0, want->revision), .rate = want->move.rate };
    worker_tell(json_pack("{s:s, s:s}", "volume", UUID_TEXT(&r->volume), "node", UUID_TEXT(&node)));
    return 0;
}

static int run_serve(void *ctx, json_t *result, struct error *e)
{
    struct serving *s = ctx;
    struct transfer_sent sent = { { { { 0 } } } };
    uint8_t digest[MOVE_DIGEST_SIZE] = { 0 };
    struct backend *b = s->agent->backend;
    const struct transfer_source source = { .backend = b, .tls = s->agent->config.peer_server, .permit = permit, .arg = s };
    int rc = transfer_serve(WORKER_FD, &source, &sent, e);
    struct error ignored;
    struct move_snapshot taken = { .number = sent.answer.seq, .final = sent.answer.final };
    // Also when this stream has come to nothing: an earlier one may have got there.
    if (taken.number && b->ops->read_digest(b, &sent.request.volume, taken.number, digest, &ignored) == 0) {
        taken.has_digest = true;
        memcpy(taken.digest, digest, sizeof digest);
    }
    if (taken.number)
        json_object_set_new(result, "snapshot", move_snapshot_to_json(&taken));
    json_object_set_new(result, "bytes", json_integer((json_int_t)sent.bytes));
    return rc;
}

// ---- in the agent

// A worker knows of those that were granted before it began. Several that began at once may be more than a node can have.
static void on_progress(void *arg, const json_t *progress)
{
    struct serving *s = arg;
    const char *volume = json_string_value(json_object_get(progress, "volume")), *node = json_string_value(json_object_get(progress, "node"));
    if (!volume || !node || !uuid_parse(node, &s->node) || !uuid_parse(volume, &s->volume))
        return;
    s->gives_way = count_of_node(s->agent, &s->node) > SERVINGS_OF_NODE_MAX;
    if (s->gives_way)
        worker_kill(s->worker);
}

static void note_snapshot(struct agent_volume *v, const struct move_snapshot *taken)
{
    if (taken->number < v->snapshot.number)
        return;
    bool final = v->snapshot.final && taken->number == v->snapshot.number;
    v->snapshot = *taken;
    v->snapshot.final = final;
    turn_report(v);
}

// A worker that died has not said what it did. The target may have all of the final snapshot already, and would not ask for it again, while its
// digest isn't known here: another one is taken.
static void note_silence(struct agent_volume *v)
{
    v->snapshots_unsure = true;
    if (!v->snapshot.has_digest)
        v->sealed_revision = 0;
}

static void on_served(void *arg, int rc, json_t *result, const struct error *e)
{
    struct serving *s = arg;
    struct agent *a = s->agent;
    struct agent_volume *v = is_granted(s) ? agent_volume(a, &s->volume) : NULL;
    struct move_snapshot taken;
    struct error ignored = ERROR_INIT;
    if (rc < 0)
        log_warn_few("a node's fetch from here: %s", e->msg);
    if (v && move_snapshot_from_json(json_object_get(result, "snapshot"), &taken, &ignored) == 0 && taken.number)
        note_snapshot(v, &taken);
    else if (v && !json_object_get(result, "bytes"))
        note_silence(v);
    LIST_REMOVE(s, all);
    a->serving_count--;
    free(s);
    if (v)
        turn(v);
}

// Whether there is a place for one more from this address: alone it can't take all, whatever it says or does not say. The oldest from there that
// has been silent for a while gives way.
static bool has_place_for(const struct agent *a, const char *from)
{
    struct serving *s, *oldest = NULL;
    size_t n = 0;
    LIST_FOREACH (s, &a->servings, all)
        if (!s->gives_way && !is_granted(s) && strcmp(s->from, from) == 0) {
            oldest = s; // those that came later stand before
            n++;
        }
    if (n < STRANGERS_MAX)
        return true;
    oldest->gives_way = clock_boot_ms() - oldest->since_ms > PATIENCE_MS;
    if (oldest->gives_way)
        worker_kill(oldest->worker);
    return oldest->gives_way;
}

static void serve(struct agent *a, int fd)
{
    char from[SOCKET_ADDRESS_SIZE];
    struct error e = ERROR_INIT;
    socket_peer_address(fd, from);
    if (moves_check(a, &e) < 0) { // and would have the worker's task run in the agent itself
        log_warn_few("a connection from %s is closed: %s", from, e.msg);
        close(fd);
        return;
    }
    if (!has_place_for(a, from)) {
        log_debug("a connection from %s is closed: %d others from there have not said yet what they want", from, STRANGERS_MAX);
        close(fd);
        return;
    }
    struct serving *s = xcalloc(1, sizeof *s);
    s->agent = a;
    s->since_ms = clock_boot_ms();
    memcpy(s->from, from, sizeof from);
    LIST_INSERT_HEAD(&a->servings, s, all);
    a->serving_count++;
    const struct worker_task task = { .what = "serve a fetch", .run = run_serve, .ctx = s, .done = on_served, .arg = s, .is_long = true, .fd = fd,
                                      .on_progress = on_progress };
    s->worker = worker_start(a->workers, &task);
}

// Who has not said which volume he wants, and been granted it, gives way to others after a while: it may be a stranger who says nothing.
static void make_room(struct agent *a)
{
    const struct serving *s;
    LIST_FOREACH (s, &a->servings, all)
        if (!is_granted(s) && clock_boot_ms() - s->since_ms > PATIENCE_MS)
            worker_kill(s->worker);
}

// While as many are served as can be, newcomers wait in the kernel's queue.
static void on_peer(evutil_socket_t listen_fd, short what, void *arg)
{
    static const struct timeval pause = { 0, 100000 };
    struct agent *a = arg;
    (void)what;
    int fd = a->open && a->serving_count < SERVINGS_MAX ? accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (fd >= 0)
        serve(a, fd);
    else if (!a->open || a->serving_count >= SERVINGS_MAX || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) {
        if (a->serving_count >= SERVINGS_MAX)
            make_room(a);
        event_del(a->on_peer);
        evtimer_add(a->peer_resume, &pause);
    }
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    (void)fd;
    (void)what;
    event_add(a->on_peer, NULL);
}

void peers_stop(struct agent *a, const struct uuid *volume)
{
    struct serving *s;
    LIST_FOREACH (s, &a->servings, all)
        if (uuid_equal(&s->volume, volume))
            worker_kill(s->worker);
}

int peers_init(struct agent *a, struct error *e)
{
    LIST_INIT(&a->servings);
    if (!a->config.peer_fd)
        return 0;
    a->on_peer = event_new(a->config.base, a->config.peer_fd, EV_READ | EV_PERSIST, on_peer, a);
    a->peer_resume = evtimer_new(a->config.base, on_resume, a);
    return event_add(a->on_peer, NULL) < 0 ? fail(e, E_IO, "the event loop refuses the socket for other agents") : 0;
}

void peers_free(struct agent *a)
{
    struct serving *s;
    while ((s = LIST_FIRST(&a->servings))) {
        LIST_REMOVE(s, all);
        free(s);
    }
    if (a->on_peer)
        event_free(a->on_peer);
    if (a->peer_resume)
        event_free(a->peer_resume);
    if (a->config.peer_fd)
        close(a->config.peer_fd);
}
