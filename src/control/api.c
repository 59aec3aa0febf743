// The REST API's doors and router: who may come in, which handler serves, and how answers and errors look.
#include "control/internal.h"

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

void api_reply_text(struct http_exchange *x, int status, const char *extra, const char *json, size_t n)
{
    FAILPOINT(CONTROL_REST_REPLY);
    http_reply(x, status, extra, JSON_TYPE, json, n, NULL, NULL);
}

static void reply_extra(struct http_exchange *x, int status, const char *extra, json_t *body /* taken */)
{
    AUTO(free) char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(body);
    ASSERT(text);
    api_reply_text(x, status, extra, text, strlen(text));
}

void api_reply(struct http_exchange *x, int status, json_t *body)
{
    reply_extra(x, status, "", body);
}

void api_describe(struct http_exchange *x, int status, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    api_reply(x, status, json_pack("{s:o}", "description", json_text(text)));
}

void api_fail(struct http_exchange *x, const struct error *e)
{
    api_reply(x, error_http(e->code), json_pack("{s:s, s:o}", "code", error_word(e->code), "description", json_text(e->msg)));
}

// What stops a call before its handler, as the API of its path writes errors.
static void refuse(struct http_exchange *x, int status, const char *extra, enum errcode code, const char *text)
{
    json_t *body = json_pack("{s:s}", "description", text);
    if (strncmp(http_request(x)->target, "/v1/", 4) != 0)
        json_object_set_new(body, "code", json_string(error_word(code)));
    reply_extra(x, status, extra, body);
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
        int length = (int)strcspn(value, "&");
        snprintf(ret, size, "%.*s", length, value);
        if (!http_percent_decode(ret))
            snprintf(ret, size, "%.*s", length, value);
        return ret;
    }
    return NULL;
}

bool api_flag(const struct http_exchange *x, const char *name)
{
    char text[16];
    const char *value = api_query(x, name, text, sizeof text);
    return value && strcmp(value, "0") != 0;
}

int api_number(const struct http_exchange *x, const char *name, int max, int *ret, struct error *e)
{
    char text[64];
    const char *value = api_query(x, name, text, sizeof text);
    int number = 0;
    if (!value)
        return 0;
    if (*value == '\0' || value[strspn(value, "0123456789")] != '\0')
        return fail(e, E_INVALID, "%s=%s: a number is wanted", name, value);
    for (; *value && number < max; value++)
        number = number * 10 + (*value - '0');
    *ret = number < max ? number : max;
    return 0;
}

// ---- routing

// Takes one character of a path, which may be percent-encoded; a slash is only what is written as one. False if it isn't `wanted`.
static bool take_char(const char **path, const char *end, char wanted)
{
    char text[4] = "";
    size_t n = **path == '%' ? 3 : 1;
    if (n > (size_t)(end - *path))
        return false;
    memcpy(text, *path, n);
    *path += n;
    return http_percent_decode(text) && text[0] == wanted && (wanted != '/' || n == 1);
}

// Whether `path` (up to `n`) fits the pattern; the segment for its '*' goes to `segment`.
static bool fits(const char *pattern, const char *path, size_t n, char *segment, size_t size)
{
    const char *end = path + n;
    for (; *pattern; pattern++) {
        if (*pattern != '*') {
            if (!take_char(&path, end, *pattern))
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

bool api_tag_matches(const struct control *c, struct http_exchange *x)
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
        refuse(x, 400, "", E_INVALID, "The path holds a malformed percent-encoding.");
        return;
    }
    if ((route->flags & ROUTE_TAG) && !api_tag_matches(c, x))
        return;
    if ((route->flags & ROUTE_WAIT) && api_number(x, "wait", WAIT_S_MAX, &call.wait_s, &e) < 0) {
        api_fail(x, &e);
        return;
    }
    if (route->flags & ROUTE_BODY) {
        size_t n;
        const char *text = http_body(x, &n);
        if (json_read(text, n, &call.body, &e) < 0) {
            if (strncmp(route->path, "/v1/", 4) == 0)
                api_describe(x, 400, "The request body could not be decoded according to the value of the Content-Type header.");
            else
                api_fail(x, &e);
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
    return strncmp(peer->common_name, PKI_USER_PREFIX, strlen(PKI_USER_PREFIX)) == 0;
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
        log_warn_few("a client without a user's certificate was refused ('%s')", peer->common_name);
        http_drop(x);
        return;
    }
    if (!users_may_enter(c, peer)) {
        log_warn("a client was refused, its certificate was revoked ('%s')", peer->common_name);
        refuse(x, 403, "", E_DENIED, "This user's certificates were revoked.");
        return;
    }
    search(routes_v1, method, request->target, n, &m);
    search(routes_v2, method, request->target, n, &m);
    if (m.route && (m.route->flags & ROUTE_ROOT) && !peer->is_unix)
        refuse(x, 403, "", E_DENIED, "Only root on the control host may do this, by its socket.");
    else if (m.route)
        run(c, x, m.route, m.segment);
    else if (m.path_known) {
        AUTO(free) char *allow = xasprintf("Allow: %s\r\n", m.allowed);
        refuse(x, 405, allow, E_INVALID, "The method is not allowed for this path.");
    } else
        refuse(x, 404, "", E_NOT_FOUND, "There is nothing at this path; the API starts at /v1 or /v2.");
}
