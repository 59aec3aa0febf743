// The REST API's doors and router: who may come in, which handler serves, and how answers and errors look.
#include "control/internal.h"

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define JSON_TYPE "application/json"

void api_reply_extra(struct http_exchange *x, int status, const char *extra, json_t *body)
{
    FAILPOINT(CONTROL_REST_REPLY);
    AUTO(free) char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(body);
    ASSERT(text);
    http_reply(x, status, extra, JSON_TYPE, text, strlen(text), NULL, NULL);
}

void api_reply(struct http_exchange *x, int status, json_t *body)
{
    api_reply_extra(x, status, "", body);
}

void api_describe(struct http_exchange *x, int status, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_t *body = json_pack("{s:s}", "description", text);
    api_reply(x, status, body ? body : json_pack("{s:s}", "description", "the reason can't be shown as text"));
}

void api_fail(struct http_exchange *x, const struct error *e)
{
    json_t *body = json_pack("{s:s, s:s}", "code", error_word(e->code), "description", e->msg);
    api_reply(x, error_http(e->code), body ? body : json_pack("{s:s, s:s}", "code", error_word(e->code), "description", ""));
}

const char *api_query(const struct http_exchange *x, const char *name, char *ret, size_t size)
{
    const char *p = strchr(http_request(x)->target, '?');
    size_t n = strlen(name);
    for (; p; p = strchr(p, '&')) {
        p++;
        if (strncmp(p, name, n) != 0 || (p[n] != '=' && p[n] != '&' && p[n] != '\0'))
            continue;
        const char *value = p[n] == '=' ? p + n + 1 : "";
        snprintf(ret, size, "%.*s", (int)strcspn(value, "&"), value);
        return http_percent_decode(ret) ? ret : NULL;
    }
    return NULL;
}

// ---- routing

// Whether `path` (up to `n`) fits the pattern; the segment for its '*' goes to `segment`.
static bool fits(const char *pattern, const char *path, size_t n, char *segment, size_t size)
{
    const char *end = path + n;
    for (; *pattern; pattern++) {
        if (*pattern != '*') {
            if (path == end || *path++ != *pattern)
                return false;
            continue;
        }
        size_t length = 0;
        while (path + length < end && path[length] != '/')
            length++;
        if (length == 0 || length >= size)
            return false;
        memcpy(segment, path, length);
        segment[length] = '\0';
        path += length;
    }
    return path == end;
}

struct match {
    const struct route *route;
    char segment[1024];
    bool path_known;
    char allowed[80]; // methods of that path, for 405
};

static void search(const struct route *table, const char *method, const char *path, size_t n, struct match *m)
{
    char segment[sizeof m->segment] = "";
    for (const struct route *r = table; r->method && !m->route; r++) {
        if (!fits(r->path, path, n, segment, sizeof segment))
            continue;
        size_t used = strlen(m->allowed);
        snprintf(m->allowed + used, sizeof m->allowed - used, "%s%s", used ? ", " : "", r->method);
        m->path_known = true;
        if (strcmp(r->method, method) == 0) {
            m->route = r;
            memcpy(m->segment, segment, sizeof segment);
        }
    }
}

static bool tag_matches(const struct control *c, struct http_exchange *x)
{
    const struct http_message *request = http_request(x);
    const char *sent = NULL;
    char tag[33];
    control_tag(c, tag);
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, "X-If-Configuration-Matches") != 0)
            continue;
        sent = request->headers[i].value;
        if (strcmp(sent, tag) == 0)
            return true;
    }
    if (sent)
        api_describe(x, 412, "Tag doesn't match. Required: %.100s, current: %s", sent, tag);
    return sent == NULL;
}

static void run(struct control *c, struct http_exchange *x, const struct route *route, char *segment)
{
    struct call call = { .control = c, .exchange = x, .segment = segment };
    struct error e = ERROR_INIT;
    if (!http_percent_decode(segment)) {
        api_describe(x, 400, "The path holds a malformed percent-encoding.");
        return;
    }
    if ((route->flags & ROUTE_TAG) && !tag_matches(c, x))
        return;
    if (route->flags & ROUTE_BODY) {
        size_t n;
        const char *text = http_body(x, &n);
        if (json_read(text, n, &call.body, &e) < 0) {
            api_describe(x, 400, "The request body could not be decoded according to the value of the Content-Type header.");
            return;
        }
    }
    route->run(&call);
    json_decref(call.body);
}

// On the unix socket root and control's own user may ask; over TLS who has a user's certificate. Others get no answer at all, as in v1.
static bool may_enter(const struct http_peer *peer)
{
    if (peer->is_unix)
        return peer->uid == 0 || peer->uid == geteuid();
    return strncmp(peer->common_name, "user-", 5) == 0;
}

void api_on_request(struct http_exchange *x, void *control)
{
    struct control *c = control;
    const struct http_message *request = http_request(x);
    const struct http_peer *peer = http_exchange_peer(x);
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    size_t n = strcspn(request->target, "?");
    struct match m = { .route = NULL };
    if (!may_enter(peer)) {
        log_warn("a client without a user's certificate was refused ('%s')", peer->common_name);
        http_drop(x);
        return;
    }
    search(routes_v1, method, request->target, n, &m);
    search(routes_v2, method, request->target, n, &m);
    if (m.route && (m.route->flags & ROUTE_ROOT) && !peer->is_unix)
        api_describe(x, 403, "Only root on the control host may do this, by its socket.");
    else if (m.route)
        run(c, x, m.route, m.segment);
    else if (m.path_known) {
        AUTO(free) char *allow = xasprintf("Allow: %s\r\n", m.allowed);
        api_reply_extra(x, 405, allow, json_pack("{s:s}", "description", "The method is not allowed for this path."));
    } else
        api_describe(x, 404, "There is nothing at this path; the API starts at /v1 or /v2.");
}
