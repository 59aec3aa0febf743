// `flocker join`: makes a key here, has it certified by the control service of a cluster that is known only by its CA's fingerprint, and
// writes what an agent needs.
#include "main/roles.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "main/upstream.h"
#include "model/json.h"
#include "net/pki.h"
#include "net/stream.h"
#include "net/token.h"
#include "sys/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>

#define JOIN_MS 15000

DEFINE_AUTO(SSL_CTX *, SSL_CTX_free)
DEFINE_AUTO(json_t *, json_decref)

// What this host asks certificates for. The node's comes last: that it is there means that the host has joined.
static const char *const kinds[] = { "plugin", "engine", "node" };

// ---- before anything is asked

static int check_host(const struct paths *p, const struct token *t, struct error *e)
{
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    AUTO(free) char *path = xasprintf("%s/node.crt", p->etc), *cluster = xasprintf("%s/%s.crt", p->etc, PKI_CA_FILE);
    char name[PKI_NAME_SIZE];
    struct error why = ERROR_INIT;
    bool has_node = access(path, F_OK) == 0, has_cluster = access(cluster, F_OK) == 0;
    if (!has_node && !has_cluster)
        return 0;
    bool is_same = has_cluster && pki_fingerprint(p->etc, PKI_CA_FILE, fingerprint, &why) == 0 &&
                   memcmp(fingerprint, t->fingerprint, sizeof fingerprint) == 0;
    if (!is_same)
        return fail(e, E_CONFLICT, "this host belongs to another cluster, or has made one of its own: `flocker down`, move %s and %s away, then "
                    "join again. Volumes of that cluster stay in the pool and are not served", p->etc, p->store);
    if (!has_node)
        return 0;
    snprintf(name, sizeof name, "a node");
    pki_common_name(path, name, sizeof name, &why);
    return fail(e, E_CONFLICT, "this host is %s of that cluster already; to certify it anew, `flocker down`, move %s away, and use a token of "
                "`flocker node token --node`, or, if that node was removed, of `flocker node token`: then it becomes a new one", name, path);
}

// agent.yml may be there already, with the pool's settings; then it must name the same control service.
static int check_config(const struct paths *p, const struct upstream *control, bool *ret_exists, struct error *e)
{
    struct config file = { NULL };
    struct upstream u;
    AUTO(free) char *path = xasprintf("%s/agent.yml", p->etc);
    *ret_exists = access(path, F_OK) == 0;
    int rc = upstream_read_config(p, NULL, &file, e);
    if (rc < 0)
        return rc;
    if ((rc = upstream_find(&file, NULL, &u, e)) == 0 && *ret_exists && (strcmp(u.host, control->host) != 0 || u.port != control->port))
        rc = fail(e, E_CONFLICT, "%s names %s port %u as the control service: correct it, or move it away", path, u.host, u.port);
    config_done(&file);
    return rc;
}

// ---- asking

static int make_message(const struct paths *p, const char *token, char **ret, struct error *e)
{
    json_t *csrs = json_object();
    int rc = 0;
    for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == 0; i++) {
        AUTO(free) char *csr = NULL;
        rc = pki_make_request(p->etc, kinds[i], &csr, e);
        if (rc == 0)
            json_object_set_new(csrs, kinds[i], json_string(csr));
    }
    AUTO(json_decref) json_t *message = json_pack("{s:s, s:s, s:s, s:o}", "type", "join", "version", FLOCKER_VERSION, "token", token, "csr", csrs);
    AUTO(free) char *text = json_dumps(message, JSON_COMPACT);
    ASSERT(text);
    if (rc == 0)
        *ret = xasprintf("%s\n", text);
    return rc;
}

static int read_line(const struct stream *s, char *ret, size_t size, struct error *e)
{
    size_t n = 0;
    while (n < size) {
        ssize_t got = stream_read(s, ret + n, size - n, e);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return fail(e, E_IO, "%s closed the connection without an answer", s->name);
        char *end = memchr(ret + n, '\n', (size_t)got);
        n += (size_t)got;
        if (end)
            return (int)(end - ret);
    }
    return fail(e, E_TOO_LARGE, "the answer of %s is longer than %u bytes", s->name, LINE_BYTES_MAX);
}

static int exchange(const struct stream *s, const char *message, json_t **ret, struct error *e)
{
    AUTO(free) char *line = xcalloc(1, LINE_BYTES_MAX);
    AUTO(json_decref) json_t *answer = NULL;
    ASSERT(message);
    int rc = stream_write(s, message, strlen(message), e);
    if (rc < 0)
        return rc;
    int n = read_line(s, line, LINE_BYTES_MAX, e);
    if (n < 0 || (rc = json_read(line, (size_t)n, &answer, e)) < 0)
        return n < 0 ? n : rc;
    const char *type = json_string_value(json_object_get(answer, "type")), *why = json_string_value(json_object_get(answer, "message"));
    const char *code = json_string_value(json_object_get(answer, "code"));
    if (type && strcmp(type, "joined") == 0) {
        *ret = TAKE(answer, NULL);
        return 0;
    }
    return fail(e, code ? error_from_word(code) : E_IO, "%s does not let this host join: %s", s->name, why ? why : "it gives no reason");
}

// Nobody may be there, or not the one whom a joining host has to talk to.
static int explain_port(int rc, const struct stream *s, uint16_t port, struct error *e)
{
    struct error why = *e;
    if (rc == -E_UNAVAILABLE)
        return fail(e, E_UNAVAILABLE, "%s; is control there started with --agents=0.0.0.0:%u, and does a firewall let that through?", why.msg, port);
    if (port != AGENTS_PORT && !strstr(why.msg, "does not let this host join"))
        return fail(e, why.code, "%s; is %s where control serves agents (--agents), by default port %u?", why.msg, s->name, AGENTS_PORT);
    return rc;
}

static int ask(const struct upstream *control, const struct token *t, const char *message, json_t **ret, struct error *e)
{
    AUTO(free) char *name = xasprintf("%s port %u", control->host, control->port);
    AUTO(SSL_CTX_free) SSL_CTX *tls = NULL;
    struct stream s = { .fd = -1, .deadline_ms = clock_boot_ms() + JOIN_MS, .name = name };
    int rc = pki_pinned_context(t->fingerprint, PKI_CONTROL_NAME, &tls, e);
    signal(SIGPIPE, SIG_IGN);
    if (rc == 0 && (rc = stream_connect(&s, control->host, control->port, e)) == 0 && (rc = stream_start_tls(&s, tls, NULL, e)) == 0)
        rc = exchange(&s, message, ret, e);
    stream_close(&s);
    if (rc == -E_DENIED && strstr(e->msg, "not who it should be")) {
        struct error why = *e;
        return fail(e, E_DENIED, "%s: it is not the control service that the token is of", why.msg);
    }
    return rc < 0 ? explain_port(rc, &s, control->port, e) : rc;
}

// ---- keeping

static int write_config(const struct paths *p, const struct upstream *control, struct error *e)
{
    AUTO(free) char *text = xasprintf("version: 1\ncontrol-service:\n  hostname: \"%s\"\n  port: %u\ndataset:\n  backend: btrfs\n", control->host,
                                      control->port);
    AUTO(close) int dir = open(p->etc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fail_os(e, errno, "open %s", p->etc);
    return atomic_file_write(dir, "agent.yml", text, strlen(text), 0600, e);
}

static int install(const struct paths *p, const struct token *t, const json_t *answer, struct error *e)
{
    const char *cluster = json_string_value(json_object_get(answer, "cluster"));
    const json_t *certificates = json_object_get(answer, "certificates");
    int rc = pki_install_ca(p->etc, cluster ? cluster : "", t->fingerprint, e);
    for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == 0; i++) {
        const char *text = json_string_value(json_object_get(certificates, kinds[i]));
        rc = pki_install(p->etc, kinds[i], text ? text : "", e);
    }
    return rc;
}

int role_join(const struct paths *p, const char *where, const char *token_text, void (*say)(const char *line), struct error *e)
{
    struct upstream control = { .port = AGENTS_PORT };
    struct token token;
    AUTO(free) char *message = NULL, *done = NULL;
    AUTO(json_decref) json_t *answer = NULL;
    bool has_config = false;
    int rc = host_port_parse(where, control.host, &control.port, e);
    if (rc == 0 && host_is_local(control.host))
        rc = fail(e, E_INVALID, "%s is this host itself: name the host of the control service", control.host);
    if (rc == 0 && !token_parse(token_text, &token))
        rc = fail(e, E_INVALID, "--token is not what `flocker node token` prints: join1. and 64 more characters");
    if (rc < 0 || (rc = paths_make(p, e)) < 0 || (rc = check_host(p, &token, e)) < 0 || (rc = check_config(p, &control, &has_config, e)) < 0 ||
        (rc = make_message(p, token_text, &message, e)) < 0 || (rc = ask(&control, &token, message, &answer, e)) < 0)
        return rc;
    if ((!has_config && (rc = write_config(p, &control, e)) < 0) || (rc = install(p, &token, answer, e)) < 0)
        return rc;
    const char *node = json_string_value(json_object_get(answer, "node"));
    done = xasprintf("joined the cluster of %s as node %s", control.host, node ? node : "?");
    say(done);
    return 0;
}
