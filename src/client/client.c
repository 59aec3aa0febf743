#include "client/client.h"

#include "base/limits.h"
#include "base/mem.h"
#include "model/json.h"
#include "net/http.h"
#include "net/pki.h"

#include <ctype.h>
#include <string.h>

#include <openssl/ssl.h>

#define TYPE_HEADER "Content-Type: application/json\r\n"

DEFINE_AUTO(json_t *, json_decref)
DEFINE_AUTO(SSL_CTX *, SSL_CTX_free)

static void auto_http_result_done(struct http_result *r)
{
    http_result_done(r);
}

char *client_encode(const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *ret = xcalloc(strlen(text) * 3 + 1, 1), *to = ret;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (isascii(*p) && (isalnum(*p) || strchr("-_.~", *p))) {
            *to++ = (char)*p;
            continue;
        }
        *to++ = '%';
        *to++ = digits[*p >> 4];
        *to++ = digits[*p & 15];
    }
    return ret;
}

static enum errcode code_of_status(int status)
{
    for (int c = E_NONE + 1; c < E_COUNT; c++)
        if (error_http((enum errcode)c) == status)
            return (enum errcode)c;
    switch (status) {
    case 401:
        return E_DENIED;
    case 405:
        return E_UNSUPPORTED;
    case 410:
        return E_NOT_FOUND;
    case 412:
        return E_CONFLICT;
    default:
        return status >= 400 && status < 500 ? E_INVALID : E_IO;
    }
}

// The server's reason. A word that this version does not know is a newer server's: then the status decides.
static int fail_reply(const char *name, int status, const json_t *reply, struct error *e)
{
    const char *word = json_string_value(json_object_get(reply, "code"));
    const char *text = json_string_value(json_object_get(reply, "description"));
    enum errcode code = word ? error_from_word(word) : E_IO;
    if (!word || strcmp(error_word(code), word) != 0)
        code = code_of_status(status);
    if (!text || !*text)
        return fail(e, code, "%s refused with HTTP status %d and no reason", name, status);
    return fail(e, code, "%s", text);
}

// What can be done about a call that got no reply.
static int fail_transport(const struct client *c, const char *name, int rc, struct error *e)
{
    struct error why = *e;
    if (rc == -E_UNAVAILABLE && c->unix_path)
        return fail(e, E_UNAVAILABLE, "nobody listens at %s%s%s", name, c->hint ? ": " : "", c->hint ? c->hint : "");
    if (rc == -E_UNAVAILABLE && c->hint)
        return fail(e, E_UNAVAILABLE, "%s: %s", why.msg, c->hint);
    if (c->unix_path && geteuid() != 0 && (rc == -E_DENIED || rc == -E_IO))
        return fail(e, E_DENIED, "%s; only root may use it", why.msg);
    return rc;
}

static int open_files(const struct client *c, SSL_CTX **ret, struct error *e)
{
    int rc = pki_client_context(c->ca, c->certificate, c->key, ret, e);
    if (rc != -E_NOT_FOUND)
        return rc;
    struct error why = *e;
    return fail(e, E_NOT_FOUND, "%s; a user's certificate is wanted to talk to control at %s: `flocker ca user NAME` makes one, where cluster.key is",
                why.msg, c->host);
}

// The target that a reply's Link names as the next one (RFC 8288, as much of it as control uses); NULL: none. The caller frees it.
static char *next_page(const struct http_message *m)
{
    const char *link = http_header_get(m, "Link"), *end = link ? strchr(link, '>') : NULL;
    if (!end || link[0] != '<' || link[1] != '/' || strcmp(end, ">; rel=\"next\"") != 0)
        return NULL;
    return xstrndup(link + 1, (size_t)(end - link - 1));
}

static int call_once(const struct client *c, const char *method, const char *target, json_t *body, json_t **ret, char **ret_next, struct error *e)
{
    AUTO(free) char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    AUTO(free) char *name = c->unix_path ? xstrdup(c->unix_path) : xasprintf("%s port %u", c->host, c->port);
    AUTO(json_decref) json_t *reply = NULL;
    AUTO(http_result_done) struct http_result result = { 0 };
    struct http_call call = { .unix_path = c->unix_path,
                              .host = c->host,
                              .port = c->port,
                              .tls = c->tls,
                              .verify_name = c->verify_name,
                              .any_name = c->any_name,
                              .method = method,
                              .target = target,
                              .extra = text ? TYPE_HEADER : NULL,
                              .body = text,
                              .body_n = text ? strlen(text) : 0,
                              .timeout_ms = c->timeout_ms ? c->timeout_ms : CLIENT_TIMEOUT_MS };
    struct error bad = ERROR_INIT;
    ASSERT(!body || text);
    json_decref(body);
    AUTO(SSL_CTX_free) SSL_CTX *own = NULL;
    int rc = c->ca ? open_files(c, &own, e) : 0;
    if (rc < 0)
        return rc;
    if (own)
        call.tls = own;
    rc = http_call(&call, &result, e);
    if (rc < 0)
        return fail_transport(c, name, rc, e);
    rc = result.body_n ? json_read(result.body, result.body_n, &reply, &bad) : 0;
    if (result.status < 200 || result.status > 299)
        return fail_reply(name, result.status, reply, e);
    if (rc < 0)
        return fail(e, E_IO, "%s answered with something that is %s", name, bad.msg);
    if (ret_next)
        *ret_next = next_page(&result.message);
    if (ret)
        *ret = reply ? TAKE(reply, NULL) : json_null();
    return 0;
}

int client_call(const struct client *c, const char *method, const char *target, json_t *body, json_t **ret, struct error *e)
{
    return call_once(c, method, target, body, ret, NULL, e);
}

int client_list(const struct client *c, const char *target, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *all = json_array();
    AUTO(free) char *at = xstrdup(target);
    for (size_t pages = 0; at; pages++) {
        AUTO(json_decref) json_t *page = NULL;
        char *next = NULL;
        int rc = call_once(c, "GET", at, NULL, &page, &next, e);
        free(at);
        at = next;
        if (rc < 0)
            return rc;
        if (!json_is_array(page) || json_array_extend(all, page) < 0)
            return fail(e, E_IO, "%s of control is no list", target);
        if (json_array_size(all) > VOLUMES_MAX || pages > VOLUMES_MAX)
            return fail(e, E_TOO_LARGE, "%s of control has no end", target);
    }
    *ret = TAKE(all, NULL);
    return 0;
}
