// What comes through control's door for agents of other hosts: several connections, each with a certificate or none, over any bytes. A
// stranger becomes nothing but a node with a token, nobody becomes a node that is not its own, and nothing outlives its connection.
//
// An input is records that end with the byte 0x1e. The first byte of a record says what it is: 'a' a connection without a certificate, 'n' one
// with a node's, 'u' one with a user's; '!' the last connection is closed; '#' it takes nothing any more, and at the next one it does again. Any other
// record is a line of the last connection, in which "@T" stands for a token that is good, "@R" for a request for a certificate, "@N" for the
// node of the certificate, "@I" for this instance of control.
#include "fuzz.h"

#include "base/log.h"
#include "base/mem.h"
#include "control/internal.h"
#include "net/line.h"
#include "net/pki.h"

#include <event2/event.h>
#include <ftw.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define RECORDS_MAX 24
#define NODE        "5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4"

// ---- in place of net/http_server.c: no client comes

struct http_server *http_server_new(const struct http_server_config *config, struct error *e)
{
    (void)e;
    close(config->listen_fd);
    return xcalloc(1, 1);
}
void http_server_free(struct http_server *s)
{
    free(s);
}
void http_server_expel(struct http_server *s, bool (*is_unwanted)(const struct http_peer *peer, void *arg), void *arg)
{
    (void)s, (void)is_unwanted, (void)arg;
}
const struct http_message *http_request(const struct http_exchange *x)
{
    (void)x;
    ASSERT(false);
}
const char *http_body(const struct http_exchange *x, size_t *ret_n)
{
    (void)x, (void)ret_n;
    ASSERT(false);
}
const struct http_peer *http_exchange_peer(const struct http_exchange *x)
{
    (void)x;
    ASSERT(false);
}
bool http_peer_is_gone(const struct http_exchange *x)
{
    (void)x;
    ASSERT(false);
}
void http_drop(struct http_exchange *x)
{
    (void)x;
    ASSERT(false);
}
void http_reply(struct http_exchange *x, int status, const char *extra, const char *type, const char *body, size_t n,
                void (*on_sent)(void *arg, bool sent), void *arg)
{
    (void)x, (void)status, (void)extra, (void)type, (void)body, (void)n, (void)on_sent, (void)arg;
    ASSERT(false);
}
bool http_stream_begin(struct http_exchange *x, int status, const char *extra, const char *type, void (*on_turn)(void *arg, bool is_there), void *arg)
{
    (void)x, (void)status, (void)extra, (void)type, (void)on_turn, (void)arg;
    ASSERT(false);
}
void http_stream_send(struct http_exchange *x, const char *piece, size_t n)
{
    (void)x, (void)piece, (void)n;
    ASSERT(false);
}
void http_stream_end(struct http_exchange *x)
{
    (void)x;
    ASSERT(false);
}

// ---- in place of net/line.c

struct line_peer {
    const struct line_callbacks *callbacks;
    void *arg;
    const char *name;
    bool has_joined, is_full;
};
static struct line_peer *last; // NULL: none is open
static size_t open_count;

struct line_peer *line_new(struct event_base *base, int fd, struct ssl_ctx_st *tls, const struct line_callbacks *callbacks, void *arg)
{
    (void)base;
    ASSERT(tls);
    close(fd);
    last = xcalloc(1, sizeof *last);
    *last = (struct line_peer){ callbacks, arg, "", false, false };
    open_count++;
    return last;
}
void line_send(struct line_peer *p, const char *text, size_t n)
{
    json_error_t why;
    ASSERT(p && !memchr(text, '\n', n));
    json_t *json = json_loadb(text, n, 0, &why);
    const char *type = json_string_value(json_object_get(json, "type"));
    ASSERT(type);
    if (!p->name[0])
        ASSERT(strcmp(type, "joined") == 0 || strcmp(type, "refused") == 0);
    ASSERT(!p->has_joined);
    p->has_joined = strcmp(type, "joined") == 0;
    json_decref(json);
}
void line_keep_alive(struct line_peer *p)
{
    ASSERT(p->name[0]);
}
bool line_is_full(const struct line_peer *p)
{
    return p->is_full;
}
const char *line_common_name(const struct line_peer *p)
{
    return p->name;
}
void line_free(struct line_peer *p)
{
    if (last == p)
        last = NULL;
    open_count--;
    free(p);
}

// ---- records

static char dir[] = "/tmp/fuzz-enrol-XXXXXX";
static char *request, token[TOKEN_TEXT_SIZE];
static int door = -1;
static struct sockaddr_un door_name;
static socklen_t door_name_n;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void clean_up(void)
{
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(request);
}

static void prepare(struct event_base **base)
{
    struct error e = ERROR_INIT;
    setenv("FLOCKER_LOG", "error", 0);
    log_open("fuzz");
    ASSERT(mkdtemp(dir));
    atexit(clean_up);
    ASSERT(pki_make_ca(dir, "fuzz", 1000, &e) == 0 && pki_make_request(dir, "new", &request, &e) == 0);
    for (char *p = request; *p; p++) // as JSON writes it
        if (*p == '\n')
            *p = '~';
    *base = event_base_new();
    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    door_name.sun_family = AF_UNIX;
    ASSERT(bind(door, (const struct sockaddr *)&door_name, sizeof door_name.sun_family) == 0 && listen(door, 8) == 0);
    door_name_n = sizeof door_name;
    ASSERT(getsockname(door, (struct sockaddr *)&door_name, &door_name_n) == 0);
}

static void connect_peer(struct control *c, const char *name)
{
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct line_peer *before = last;
    ASSERT(connect(fd, (const struct sockaddr *)&door_name, door_name_n) == 0);
    event_base_loop(c->config.base, EVLOOP_NONBLOCK);
    ASSERT(last && last != before);
    last->name = name;
    last->callbacks->on_open(last->arg);
}

// Puts the token and the request in their places.
static void line(const struct control *c, const char *text, size_t n)
{
    char *expanded = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&expanded, &size);
    for (size_t i = 0; i < n; i++) {
        char next = text[i] == '@' && i + 1 < n ? text[i + 1] : '\0';
        if (next == 'T')
            fputs(token, f);
        else if (next == 'N')
            fputs(NODE, f);
        else if (next == 'I')
            fputs(UUID_TEXT(&c->instance), f);
        else if (next == 'R')
            for (const char *p = request; *p; p++)
                *p == '~' ? fputs("\\n", f) : fputc(*p, f);
        else {
            fputc(text[i], f);
            continue;
        }
        i++;
    }
    ASSERT(fclose(f) == 0);
    if (size <= LINE_BYTES_MAX)
        last->callbacks->on_line(last->arg, expanded, size);
    free(expanded);
}

static void turn_tap(struct line_peer *p)
{
    p->is_full = !p->is_full;
    if (!p->is_full)
        p->callbacks->on_drained(p->arg);
}

static void one_record(struct control *c, const char *text, size_t n)
{
    static const struct {
        char letter;
        const char *name;
    } kinds[] = { { 'a', "" }, { 'n', "node-" NODE }, { 'u', "user-x" } };
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (text[0] == kinds[i].letter) {
            connect_peer(c, kinds[i].name);
            return;
        }
    if (last && text[0] == '!')
        last->callbacks->on_closed(last->arg, "it was closed");
    else if (last && text[0] == '#')
        turn_tap(last);
    else if (last)
        line(c, text, n);
}

static void check_node(const struct control *c, const struct control_node *n)
{
    size_t concerned = 0;
    for (size_t i = 0; i < c->volumes.n; i++)
        concerned += volume_concerns(c->volumes.by_id[i], &n->node.id);
    ASSERT(n->volumes.n == concerned && n->known_since >= n->reports_since && n->connection >= n->known_since);
    for (size_t i = 0; i < n->due.n; i++)
        ASSERT(volume_set_find(&c->volumes, &n->due.ids[i]));
    ASSERT(c->watch_count == n->watches.n); // there is one node
}

static void check_state(const struct control *c)
{
    struct uuid own;
    const struct control_node *n;
    ASSERT(uuid_parse(NODE, &own));
    ASSERT(c->peer_count == open_count && c->joiner_count <= open_count);
    LIST_FOREACH (n, &c->nodes, all) {
        ASSERT(uuid_equal(&n->node.id, &own));
        check_node(c, n);
    }
    ASSERT(c->token_count <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct event_base *base;
    struct error e = ERROR_INIT;
    struct control *c = NULL;
    const struct uuid no_node = { { 0 } };
    int64_t expires_ms;
    if (!base)
        prepare(&base);
    const struct control_config config = { .base = base, .store = &store_memory, .store_path = "", .api_fd = dup(door), .rest_fd = -1,
                                           .agents_fd = eventfd(0, EFD_CLOEXEC), // nobody comes there
                                           .agents_tls = (struct ssl_ctx_st *)&door, .agents_tls_fd = dup(door), .pki_dir = dir,
                                           .trash_keep_ms = 3600000 };
    ASSERT(control_new(&config, &c, &e) == 0);
    ASSERT(enrol_new_token(c, 60, &no_node, token, &expires_ms, &e) == 0);
    const char *record = (const char *)data, *limit = record + size;
    for (int n = 0; record && record < limit && n < RECORDS_MAX; n++) {
        const char *end = memchr(record, 0x1e, (size_t)(limit - record));
        one_record(c, record, (size_t)((end ? end : limit) - record));
        check_state(c);
        record = end ? end + 1 : NULL;
    }
    control_free(c);
    ASSERT(open_count == 0 && !last);
    return 0;
}
