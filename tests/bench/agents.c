// Plays the agents of a large cluster, for tests/bench/group_control.py: one process, one connection with TLS and an own certificate for each.
//
//     bench_agents fill ROOT NODES VOLUMES    makes a store with that many nodes and volumes, and a certificate authority
//     bench_agents play ROOT PORT NODES VOLUMES
//
// A player does what an agent does on the wire: hello, reports on its volumes, their orders; it comes back when it is cut off, after the same
// delays. It says "synced SECONDS BYTES" when all are connected and have got their orders: since the last time that all were, or since the
// first was cut off; and what came to them meanwhile. After that, for each order "want ID REVISION NANOSECONDS" by CLOCK_MONOTONIC. A line on
// its standard input cuts all connections; the end of it ends the player.
#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/volume.h"
#include "net/line.h"
#include "net/pki.h"
#include "net/socket.h"
#include "plan/resume.h"
#include "store/store.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define VOLUMES_OF_A_COMMIT 500

static _Noreturn void die(const char *what, const struct error *e)
{
    fprintf(stderr, "bench_agents: %s: %s\n", what, e->msg);
    exit(1);
}

// The i-th of its kind; version 4, and in no order, as ids are.
static struct uuid nth(uint8_t kind, size_t i)
{
    struct uuid id = { { 0 } };
    uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15U;
    memcpy(id.b, &x, sizeof x);
    id.b[6] = (uint8_t)(0x40 | (id.b[6] & 0x0f));
    id.b[8] = 0x80;
    memcpy(id.b + 9, &i, 6);
    id.b[15] = kind;
    return id;
}

// ---- fill

static struct volume *make_volume(size_t i, size_t nodes)
{
    struct volume *v = volume_new();
    v->id = nth(2, i);
    v->name = xasprintf("volume-%zu", i);
    v->size = 1ULL << 30;
    v->owner = v->target = nth(1, i % nodes);
    v->epoch = v->revision = 1;
    v->state = VOLUME_LIVE;
    v->born = true;
    v->created_ms = clock_wall_ms();
    return v;
}

static int compare_volumes(const void *a, const void *b)
{
    return uuid_compare(&(*(struct volume *const *)a)->id, &(*(struct volume *const *)b)->id);
}

static void fill_volumes(struct store *s, size_t nodes, size_t count)
{
    struct error e = ERROR_INIT;
    struct store_change changes[VOLUMES_OF_A_COMMIT];
    struct volume **all = xcalloc(count, sizeof *all);
    for (size_t i = 0; i < count; i++)
        all[i] = make_volume(i, nodes);
    qsort(all, count, sizeof *all, compare_volumes);
    for (size_t i = 0; i < count;) {
        size_t n = 0;
        for (; n < VOLUMES_OF_A_COMMIT && i < count; i++)
            changes[n++] = (struct store_change){ .kind = STORE_PUT_VOLUME, .volume = all[i] };
        if (store_commit(s, changes, n, &e) < 0)
            die("store", &e);
    }
    for (size_t i = 0; i < count; i++)
        volume_free(all[i]);
    free(all);
}

static void fill_nodes(struct store *s, size_t nodes)
{
    struct error e = ERROR_INIT;
    for (size_t i = 0; i < nodes; i++) {
        struct node node = { .id = nth(1, i), .era = nth(1, i), .host = "127.0.0.1" };
        const struct store_change change = { .kind = STORE_PUT_NODE, .node = &node };
        if (store_commit(s, &change, 1, &e) < 0)
            die("store", &e);
    }
}

static int fill(const char *root, size_t nodes, size_t volumes)
{
    struct error e = ERROR_INIT;
    struct store *s = NULL;
    AUTO(free) char *path = xasprintf("%s/var/lib/flocker/control.db", root);
    AUTO(free) char *etc = xasprintf("%s/etc/flocker", root);
    if (pki_make_ca(etc, "bench", 2, &e) < 0 || store_open(&store_sqlite, path, &s, &e) < 0)
        die("fill", &e);
    fill_nodes(s, nodes);
    fill_volumes(s, nodes, volumes);
    store_close(s);
    return 0;
}

// ---- play

struct player {
    size_t number;
    struct uuid node;
    SSL_CTX *tls;
    struct line_peer *line;
    struct event *connected, *reconnect; // `connected` while a connection is being made
    int fd;
    unsigned failures;
    bool is_synced, can_resume;
    struct resume_count count;
};

static struct {
    struct event_base *base;
    uint16_t port;
    size_t nodes, volumes, synced;
    struct player *players;
    int64_t begin_ms; // boot clock
    uint64_t bytes;
} all;

static void connect_player(struct player *p);

static void send_text(struct player *p, const char *text)
{
    line_send(p->line, text, strlen(text));
}

static void send_report(struct player *p, const struct uuid *id, uint64_t revision)
{
    AUTO(free) char *text = xasprintf("{\"type\":\"report\",\"id\":\"%s\",\"epoch\":1,\"revision\":%" PRIu64
                                      ",\"present\":true,\"mounted\":false,\"in_use\":false}", UUID_TEXT(id), revision);
    p->count.reports++;
    send_text(p, text);
}

static void later(struct player *p)
{
    static const int delays_ms[] = { 20, 50, 100, 200, 500, 1000, 2000, 5000 }; // those of src/agent/link.c
    size_t n = p->failures < ARRAY_SIZE(delays_ms) ? p->failures : ARRAY_SIZE(delays_ms) - 1;
    const struct timeval delay = { delays_ms[n] / 1000, delays_ms[n] % 1000 * 1000 };
    p->failures++;
    evtimer_add(p->reconnect, &delay);
}

static void leave(struct player *p)
{
    line_free(TAKE(p->line, NULL));
    if (!p->is_synced)
        return;
    if (all.synced-- == all.nodes) {
        all.begin_ms = clock_boot_ms();
        all.bytes = 0;
    }
    p->is_synced = false;
}

static void on_closed(void *arg, const char *why)
{
    (void)why;
    leave(arg);
    later(arg);
}

static void on_welcome(struct player *p, const json_t *message)
{
    struct resume_count next;
    enum resume verdict = resume_read_answer(message, &p->count, &next);
    p->count = next;
    p->can_resume = verdict != RESUME_NOTHING;
    p->failures = 0;
    for (size_t i = p->number; verdict != RESUME_ALL && i < all.volumes; i += all.nodes) {
        struct uuid id = nth(2, i);
        send_report(p, &id, 1);
    }
    send_text(p, "{\"type\":\"inventory-end\"}");
}

static void on_want_end(struct player *p, const json_t *message)
{
    (void)message;
    p->is_synced = p->can_resume = true;
    if (++all.synced < all.nodes)
        return;
    printf("synced %.3f %" PRIu64 "\n", (double)(clock_boot_ms() - all.begin_ms) / 1000, all.bytes);
    fflush(stdout);
}

static void on_want(struct player *p, const json_t *message)
{
    struct timespec now;
    struct uuid id;
    const json_t *volume = json_object_get(message, "volume");
    const char *text = json_string_value(json_object_get(volume, "id"));
    json_int_t revision = json_integer_value(json_object_get(volume, "revision"));
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!text || !uuid_parse(text, &id))
        return;
    printf("want %s %" JSON_INTEGER_FORMAT " %lld\n", text, revision, (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    fflush(stdout);
    send_report(p, &id, (uint64_t)revision);
}

#define WANT "{\"type\":\"want\","

static void on_line(void *arg, char *line, size_t n)
{
    static const struct {
        const char *type;
        void (*run)(struct player *p, const json_t *message);
    } messages[] = { { "welcome", on_welcome }, { "want", on_want }, { "want-end", on_want_end } };
    struct player *p = arg;
    all.bytes += n;
    bool is_want = strncmp(line, WANT, strlen(WANT)) == 0;
    p->count.wants += is_want;
    if (is_want && !p->is_synced) // it is control that is measured: the inventory's orders are not looked at
        return;
    json_t *message = json_loadb(line, n, 0, NULL);
    const char *type = json_string_value(json_object_get(message, "type"));
    for (size_t i = 0; type && i < ARRAY_SIZE(messages); i++)
        if (strcmp(type, messages[i].type) == 0)
            messages[i].run(p, message);
    json_decref(message);
}

static void say_hello(struct player *p)
{
    json_t *hello = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "type", "hello", "protocol", 1, "version", "bench", "node", UUID_TEXT(&p->node),
                              "era", UUID_TEXT(&p->node), "host", "127.0.0.1");
    if (p->can_resume && p->count.connection > 0)
        json_object_set_new(hello, "resume", resume_claim(&p->count));
    AUTO(free) char *text = json_dumps(hello, JSON_COMPACT);
    json_decref(hello);
    send_text(p, text);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    static const struct line_callbacks callbacks = { .on_line = on_line, .on_closed = on_closed };
    struct player *p = arg;
    int failed = 0;
    socklen_t n = sizeof failed;
    (void)what;
    event_free(TAKE(p->connected, NULL));
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &n) < 0 || failed) {
        close(fd);
        later(p);
        return;
    }
    socket_set_nodelay(fd);
    p->line = line_new(all.base, fd, p->tls, &callbacks, p);
    line_keep_alive(p->line);
    say_hello(p);
}

static void connect_player(struct player *p)
{
    struct error e = ERROR_INIT;
    int fd = socket_start_tcp("127.0.0.1", all.port, &e);
    if (fd < 0) {
        later(p);
        return;
    }
    p->connected = event_new(all.base, fd, EV_WRITE, on_connected, p);
    event_add(p->connected, NULL);
}

static void on_reconnect(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    connect_player(arg);
}

// All have one key, as it is not secrecy that is measured.
static SSL_CTX *make_context(const char *etc, const char *request, const struct uuid *node)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *name = xasprintf("node-%s", UUID_TEXT(node));
    AUTO(free) char *ca = xasprintf("%s/cluster.crt", etc);
    AUTO(free) char *crt = xasprintf("%s/player.crt", etc);
    AUTO(free) char *key = xasprintf("%s/player.key", etc);
    AUTO(free) char *text = NULL;
    const struct pki_request r = { .common_name = name, .use = PKI_CLIENT, .days = 2 };
    SSL_CTX *ctx = NULL;
    if (pki_sign(etc, request, strlen(request), &r, &text, &e) < 0)
        die("certificate", &e);
    FILE *f = fopen(crt, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0 || pki_client_context(ca, crt, key, &ctx, &e) < 0)
        die("certificate", &e);
    return ctx;
}

static void on_command(evutil_socket_t fd, short what, void *arg)
{
    char command[64];
    (void)what, (void)arg;
    if (read(fd, command, sizeof command) <= 0)
        event_base_loopbreak(all.base);
    for (size_t i = 0; i < all.nodes; i++)
        if (all.players[i].line) {
            leave(&all.players[i]);
            later(&all.players[i]);
        }
}

static int play(const char *root)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *etc = xasprintf("%s/etc/flocker", root);
    AUTO(free) char *request = NULL;
    all.base = event_base_new();
    all.players = xcalloc(all.nodes, sizeof *all.players);
    if (pki_make_request(etc, "player", &request, &e) < 0)
        die("request", &e);
    for (size_t i = 0; i < all.nodes; i++) {
        struct player *p = &all.players[i];
        p->number = i;
        p->node = nth(1, i);
        p->tls = make_context(etc, request, &p->node);
        p->reconnect = evtimer_new(all.base, on_reconnect, p);
    }
    struct event *command = event_new(all.base, STDIN_FILENO, EV_READ | EV_PERSIST, on_command, NULL);
    event_add(command, NULL);
    all.begin_ms = clock_boot_ms();
    for (size_t i = 0; i < all.nodes; i++)
        connect_player(&all.players[i]);
    event_base_dispatch(all.base);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "fill") == 0)
        return fill(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    if (argc != 6 || strcmp(argv[1], "play") != 0)
        return 2;
    all.port = (uint16_t)strtoul(argv[3], NULL, 10);
    all.nodes = strtoul(argv[4], NULL, 10);
    all.volumes = strtoul(argv[5], NULL, 10);
    return play(argv[2]);
}
