#include "agent/dial.h"

#include "agent/worker.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define ADDRESSES_MAX  8
#define ONE_ADDRESS_MS 3000 // for one of them to answer

struct dial {
    struct event_base *base;
    char *host;
    uint16_t port;
    dial_done *done;
    void *arg;
    struct event *event;     // the socket's, or one that starts the next try
    int fd;
    size_t next, count;
    char addresses[ADDRESSES_MAX][SOCKET_ADDRESS_SIZE];
    struct error error; // of the last try
};

void dial_free(struct dial *d)
{
    if (!d)
        return;
    if (d->event)
        event_free(d->event);
    if (d->fd >= 0)
        close(d->fd);
    free(d->host);
    free(d);
}

static void end(struct dial *d, int fd)
{
    dial_done *done = d->done;
    void *arg = d->arg;
    struct error e = d->error;
    dial_free(d);
    done(arg, fd, &e);
}

static void try_next(struct dial *d);

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    int err = 0;
    socklen_t n = sizeof err;
    if (what & EV_TIMEOUT)
        err = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
        err = errno;
    event_free(TAKE(d->event, NULL));
    if (err == 0) {
        socket_set_nodelay(d->fd);
        end(d, TAKE(d->fd, -1));
        return;
    }
    close(TAKE(d->fd, -1));
    fail(&d->error, E_UNAVAILABLE, "connect to %s port %u: %s", d->host, d->port, strerror(err));
    try_next(d);
}

static void try_next(struct dial *d)
{
    const struct timeval limit = clock_timeval(ONE_ADDRESS_MS);
    while (d->next < d->count) {
        d->fd = socket_start_tcp(d->addresses[d->next++], d->port, &d->error);
        if (d->fd < 0)
            continue;
        d->event = event_new(d->base, d->fd, EV_WRITE, on_socket, d);
        event_add(d->event, &limit);
        return;
    }
    d->fd = -1;
    end(d, -1);
}

static void on_start(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    (void)fd;
    (void)what;
    event_free(TAKE(d->event, NULL));
    try_next(d);
}

// ---- names

// In the worker: {"addresses": [TEXT, ...]}
static int run_look_up(void *ctx, json_t *result, struct error *e)
{
    const struct dial *d = ctx;
    struct addrinfo *found = NULL, want = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    int err = getaddrinfo(d->host, NULL, &want, &found);
    if (err)
        return fail(e, E_UNAVAILABLE, "look up %s: %s", d->host, gai_strerror(err));
    json_t *list = json_array();
    for (const struct addrinfo *at = found; at && json_array_size(list) < ADDRESSES_MAX; at = at->ai_next) {
        char text[SOCKET_ADDRESS_SIZE];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
            json_array_append_new(list, json_string(text));
    }
    freeaddrinfo(found);
    return json_object_set_new(result, "addresses", list) < 0 ? fail(e, E_IO, "look up %s: no memory", d->host) : 0;
}

static void on_look_up(void *arg, int rc, json_t *result, const struct error *e)
{
    struct dial *d = arg;
    const json_t *text;
    size_t i;
    if (rc < 0)
        d->error = *e;
    json_array_foreach (json_object_get(result, "addresses"), i, text)
        if (d->count < ADDRESSES_MAX && json_is_string(text))
            snprintf(d->addresses[d->count++], SOCKET_ADDRESS_SIZE, "%s", json_string_value(text));
    try_next(d);
}

struct dial *dial_start(struct event_base *base, struct workers *workers, const char *host, uint16_t port, dial_done *done, void *arg)
{
    struct dial *d = xcalloc(1, sizeof *d);
    struct in6_addr any;
    *d = (struct dial){ .base = base, .host = xstrdup(host), .port = port, .done = done, .arg = arg, .fd = -1 };
    fail(&d->error, E_UNAVAILABLE, "look up %s: it has no address", host);
    if (inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1) {
        snprintf(d->addresses[d->count++], SOCKET_ADDRESS_SIZE, "%s", host);
        d->event = evtimer_new(base, on_start, d);
        event_active(d->event, EV_TIMEOUT, 1);
        return d;
    }
    const struct worker_task task = { .what = "look up the control service", .run = run_look_up, .ctx = d, .done = on_look_up, .arg = d };
    worker_start(workers, &task);
    return d;
}
