// Control's two doors, without sockets: REST requests and lines of agents, several in a row, over any bytes. Each request gets exactly one
// answer that is JSON with a status; whatever happened, what control holds can be stored and read again.
//
// An input is records that end with the byte 0x1e. One that starts with '{' is a line of an agent; '!' closes its connection. Any other is
// a request: a line "METHOD TARGET", perhaps a line with the value of X-If-Configuration-Matches after '=', then the body.
#include "fuzz.h"

#include "base/log.h"
#include "base/mem.h"
#include "control/internal.h"
#include "net/line.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RECORDS_MAX 24

// ---- in place of net/http_server.c

struct http_exchange {
    struct http_message message;
    struct http_peer peer;
    char *text, *body;
    bool answered;
    void (*on_turn)(void *arg, bool is_there); // of a stream; its text so far
    void *arg;
    char *pieces;
    struct http_exchange *next;
};
static struct http_exchange *exchanges; // of this input; a reply may come as late as control_free

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
    return &x->message;
}
const char *http_body(const struct http_exchange *x, size_t *ret_n)
{
    *ret_n = strlen(x->body);
    return x->body;
}
const struct http_peer *http_exchange_peer(const struct http_exchange *x)
{
    return &x->peer;
}
bool http_peer_is_gone(const struct http_exchange *x)
{
    (void)x;
    return false;
}
void http_drop(struct http_exchange *x)
{
    ASSERT(!x->answered);
    x->answered = true;
}
void http_reply(struct http_exchange *x, int status, const char *extra, const char *type, const char *body, size_t n,
                void (*on_sent)(void *arg, bool sent), void *arg)
{
    json_error_t why;
    ASSERT(!x->answered && status >= 200 && status < 600 && strlen(type) && strlen(body) == n && !on_sent && !arg);
    size_t length = strlen(extra);
    ASSERT(length == 0 || (length > 2 && strcmp(extra + length - 2, "\r\n") == 0));
    json_t *json = json_loadb(body, n, JSON_DECODE_ANY, &why);
    ASSERT(json);
    if (status >= 400)
        ASSERT(json_is_string(json_object_get(json, "description")));
    json_decref(json);
    x->answered = true;
}

bool http_stream_begin(struct http_exchange *x, int status, const char *extra, const char *type, void (*on_turn)(void *arg, bool is_there), void *arg)
{
    ASSERT(!x->answered && !x->pieces && status == 200 && strlen(type) && extra);
    x->on_turn = on_turn;
    x->arg = arg;
    x->pieces = xstrdup("");
    return true;
}
void http_stream_send(struct http_exchange *x, const char *piece, size_t n)
{
    AUTO(free) char *before = x->pieces;
    ASSERT(before && strlen(piece) == n);
    x->pieces = xasprintf("%s%s", before, piece);
}
void http_stream_end(struct http_exchange *x)
{
    AUTO(free) char *text = TAKE(x->pieces, NULL);
    x->on_turn = NULL;
    http_reply(x, 200, "", "application/json", text, strlen(text), NULL, NULL);
}

// ---- in place of net/line.c

struct line_peer {
    const struct line_callbacks *callbacks;
    void *arg;
};
static struct line_peer *peer; // the one agent

struct line_peer *line_new(struct event_base *base, int fd, struct ssl_ctx_st *tls, const struct line_callbacks *callbacks, void *arg)
{
    (void)base;
    (void)tls;
    close(fd);
    struct line_peer *p = xcalloc(1, sizeof *p);
    *p = (struct line_peer){ callbacks, arg };
    peer = p;
    return p;
}
void line_send(struct line_peer *p, const char *text, size_t n)
{
    json_error_t why;
    ASSERT(p && !memchr(text, '\n', n));
    json_t *json = json_loadb(text, n, 0, &why);
    ASSERT(json_is_string(json_object_get(json, "type")));
    json_decref(json);
}
void line_keep_alive(struct line_peer *p)
{
    (void)p;
}
bool line_is_full(const struct line_peer *p)
{
    return !p;
}
const char *line_common_name(const struct line_peer *p)
{
    (void)p;
    return "";
}
void line_free(struct line_peer *p)
{
    if (peer == p)
        peer = NULL;
    free(p);
}

// ---- records

static int door = -1; // listening, for accept
static struct sockaddr_un door_name;
static socklen_t door_name_n;

static void connect_agent(struct control *c)
{
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(connect(fd, (const struct sockaddr *)&door_name, door_name_n) == 0);
    event_base_loop(c->config.base, EVLOOP_NONBLOCK);
    ASSERT(peer);
}

static void agent_line(struct control *c, char *line, size_t n)
{
    if (!peer)
        connect_agent(c);
    peer->callbacks->on_line(peer->arg, line, n);
}

static void request(struct control *c, char *text)
{
    struct http_exchange *x = xcalloc(1, sizeof *x);
    x->next = exchanges;
    exchanges = x;
    x->text = xstrdup(text);
    x->body = strchr(x->text, '\n');
    if (x->body)
        *x->body++ = '\0';
    else
        x->body = x->text + strlen(x->text);
    if (x->body[0] == '=') {
        char *end = strchr(x->body, '\n');
        x->message.headers[x->message.header_count++] = (struct http_header){ "X-If-Configuration-Matches", x->body + 1 };
        if (end)
            *end = '\0';
        x->body = end ? end + 1 : x->body + strlen(x->body);
    }
    char *target = strchr(x->text, ' ');
    x->message.method = x->text;
    x->message.target = "/";
    if (target) {
        *target++ = '\0';
        x->message.target = target;
    }
    x->peer = (struct http_peer){ .is_unix = true, .uid = geteuid() };
    bool outside = strncmp(x->message.target, "/v2/backup", 10) == 0; // no file is made by a fuzzer
    if (outside)
        x->peer = (struct http_peer){ .common_name = "user-x" };
    api_on_request(x, c);
    do {
        event_base_loop(c->config.base, EVLOOP_NONBLOCK);
        if (x->on_turn)
            x->on_turn(x->arg, true);
    } while (x->on_turn);
}

static void one_record(struct control *c, char *text, size_t n)
{
    if (text[0] == '{')
        agent_line(c, text, n);
    else if (text[0] != '!')
        request(c, text);
    else if (peer)
        peer->callbacks->on_closed(peer->arg, "it was closed");
}

static void check_state(const struct control *c)
{
    for (size_t i = 0; i < c->volumes.n; i++) {
        struct error e = ERROR_INIT;
        struct volume *back = NULL;
        json_t *object = volume_to_json(c->volumes.by_id[i]);
        ASSERT(volume_from_json(object, &back, &e) == 0);
        json_decref(object);
        volume_free(back);
    }
    for (size_t i = 0; i < c->containers.n; i++) {
        struct error e = ERROR_INIT;
        struct container *back = NULL;
        json_t *object = container_to_json(c->containers.entries[i].want);
        ASSERT(container_from_json(object, &back, &e) == 0);
        ASSERT(i == 0 || strcmp(c->containers.entries[i - 1].want->name, back->name) < 0);
        json_decref(object);
        container_free(back);
    }
    const struct control_node *n;
    LIST_FOREACH (n, &c->nodes, all)
        ASSERT(!n->peer || peer);
}

static void prepare(struct event_base **base)
{
    *base = event_base_new();
    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    door_name.sun_family = AF_UNIX;
    ASSERT(bind(door, (const struct sockaddr *)&door_name, sizeof door_name.sun_family) == 0 && listen(door, 8) == 0); // a name of the kernel's choice
    door_name_n = sizeof door_name;
    ASSERT(getsockname(door, (struct sockaddr *)&door_name, &door_name_n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct event_base *base;
    struct error e = ERROR_INIT;
    struct control *c = NULL;
    if (!base) {
        prepare(&base);
        setenv("FLOCKER_LOG", "error", 1);
        log_open("fuzz");
    }
    const struct control_config config = { .base = base, .store = &store_memory, .store_path = "", .agents_fd = dup(door), .api_fd = dup(door),
                                           .rest_fd = -1, .trash_keep_ms = 3600000 };
    ASSERT(control_new(&config, &c, &e) == 0);
    AUTO(free) char *text = xcalloc(size + 1, 1);
    memcpy(text, data, size);
    char *record = text;
    for (int n = 0; record && n < RECORDS_MAX; n++) {
        char *end = memchr(record, 0x1e, size - (size_t)(record - text));
        size_t length = end ? (size_t)(end - record) : size - (size_t)(record - text);
        record[length] = '\0';
        one_record(c, record, length);
        check_state(c);
        record = end ? end + 1 : NULL;
    }
    control_free(c);
    for (struct http_exchange *x = exchanges, *next; x; x = next) {
        next = x->next;
        ASSERT(x->answered);
        free(x->text);
        free(x);
    }
    exchanges = NULL;
    ASSERT(!peer);
    return 0;
}
