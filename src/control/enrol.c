// Who belongs to the cluster: tokens by which a new host joins, its certificates and their renewal, and nodes that were removed.
#include "control/internal.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/pki.h"
#include "net/token.h"

#include <string.h>

// ---- tokens

static void forget_token(struct control *c, size_t i)
{
    c->tokens[i] = c->tokens[--c->token_count];
}

static int adopt_token(void *arg, const struct join_token *t, struct error *e)
{
    struct control *c = arg;
    if (c->token_count >= TOKENS_MAX)
        return fail(e, E_TOO_LARGE, "there are more than %d join tokens", TOKENS_MAX);
    c->tokens = xrealloc(c->tokens, c->token_count + 1, sizeof *c->tokens);
    c->tokens[c->token_count++] = *t;
    return 0;
}

int enrol_load_token(void *control, const struct join_token *t, struct error *e)
{
    return adopt_token(control, t, e);
}

static int remove_token(struct control *c, size_t i, struct error *e)
{
    const struct store_change change = { .kind = STORE_REMOVE_TOKEN, .id = c->tokens[i].id };
    int rc = store_commit(c->store, &change, 1, e);
    if (rc == 0)
        forget_token(c, i);
    return rc;
}

int enrol_drop_tokens(struct control *c, struct error *e)
{
    AUTO(free) struct store_change *changes = xcalloc(c->token_count + 1, sizeof *changes);
    for (size_t i = 0; i < c->token_count; i++)
        changes[i] = (struct store_change){ .kind = STORE_REMOVE_TOKEN, .id = c->tokens[i].id };
    int rc = c->token_count ? store_commit(c->store, changes, c->token_count, e) : 0;
    if (rc == 0)
        c->token_count = 0;
    return rc;
}

// What has run out is of no use to anybody.
static void drop_old_tokens(struct control *c)
{
    struct error e = ERROR_INIT;
    for (size_t i = c->token_count; i-- > 0;)
        if (c->tokens[i].expires_ms <= clock_wall_ms() && remove_token(c, i, &e) < 0)
            log_error("a join token that is over can't be removed: %s", e.msg);
}

static int check_ca(const struct control *c, struct error *e)
{
    if (c->config.pki_dir && pki_has(c->config.pki_dir, PKI_CA_FILE))
        return 0;
    return fail(e, E_UNAVAILABLE, "the control host has no %s/cluster.key, so it can't make certificates: make them where that key is, "
                "with `flocker ca node`, and copy them to the host", c->config.pki_dir ? c->config.pki_dir : "/etc/flocker");
}

int enrol_new_token(struct control *c, int64_t ttl_s, const struct uuid *node, char ret[TOKEN_TEXT_SIZE], int64_t *ret_expires_ms, struct error *e)
{
    struct token token;
    int rc = check_ca(c, e);
    if (rc < 0 || (rc = pki_fingerprint(c->config.pki_dir, PKI_CA_FILE, token.fingerprint, e)) < 0)
        return rc;
    if (!c->config.agents_tls)
        return fail(e, E_UNAVAILABLE, "this control service does not listen for agents of other hosts: start it with --agents=ADDRESS:4524, "
                    "as 0.0.0.0:4524");
    drop_old_tokens(c);
    if (c->token_count >= TOKENS_MAX)
        return fail(e, E_TOO_LARGE, "there are %d join tokens that are neither used nor over, the limit", TOKENS_MAX);
    rng_fill(token.secret, sizeof token.secret);
    const struct join_token t = { .id = token_digest(token.secret), .node = *node, .expires_ms = clock_wall_ms() + ttl_s * 1000 };
    const struct store_change change = { .kind = STORE_PUT_TOKEN, .token = &t };
    if ((rc = store_commit(c->store, &change, 1, e)) < 0 || (rc = adopt_token(c, &t, e)) < 0)
        return rc;
    token_format(&token, ret);
    *ret_expires_ms = t.expires_ms;
    return 0;
}

// ---- certificates of a host

// Their names are control's choice alone: a host that could ask for "control-service" would be taken for it.
static const char *const local_names[] = { "localhost", NULL }, *const local_addresses[] = { "127.0.0.1", "::1", NULL };

static const struct kind {
    const char *name; // in messages, and of the files
    const char *common_name; // NULL: the node's own
    unsigned use;
    bool is_local;
} kinds[] = {
    { "node", NULL, PKI_SERVER | PKI_CLIENT, false },
    { "plugin", "plugin-flocker", PKI_SERVER, true }, // for the plugin's TLS door, and for an engine that uses it
    { "engine", "engine-docker", PKI_CLIENT, false },
};

static int sign(const struct control *c, const struct kind *k, const struct uuid *node, const json_t *csr, json_t *certificates, struct error *e)
{
    char own[PKI_NAME_SIZE];
    char *text = NULL;
    snprintf(own, sizeof own, "node-%s", UUID_TEXT(node));
    const struct pki_request r = {
        .common_name = k->common_name ? k->common_name : own,
        .use = k->use,
        .dns = k->is_local ? local_names : NULL,
        .ip = k->is_local ? local_addresses : NULL,
        .days = PKI_DAYS,
    };
    if (!json_is_string(csr))
        return fail(e, E_INVALID, "no request for a certificate of kind \"%s\"", k->name);
    int rc = pki_sign(c->config.pki_dir, json_string_value(csr), json_string_length(csr), &r, &text, e);
    if (rc < 0)
        return rc;
    json_object_set_new(certificates, k->name, json_string(text));
    free(text);
    return 0;
}

// One certificate for each kind that is asked for.
static int sign_all(const struct control *c, const struct uuid *node, const json_t *csrs, json_t **ret, struct error *e)
{
    json_t *certificates = json_object();
    int rc = check_ca(c, e);
    for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == 0; i++) {
        const json_t *csr = json_object_get(csrs, kinds[i].name);
        if (csr)
            rc = sign(c, &kinds[i], node, csr, certificates, e);
    }
    if (rc == 0)
        *ret = certificates;
    else
        json_decref(certificates);
    return rc;
}

int enrol_renew(struct control *c, const struct uuid *node, const json_t *message, json_t **ret, struct error *e)
{
    json_t *certificates = NULL;
    int rc = sign_all(c, node, json_object_get(message, "csr"), &certificates, e);
    if (rc < 0)
        return rc;
    *ret = json_pack("{s:o}", "certificates", certificates);
    log_info("node %s has new certificates", UUID_TEXT(node));
    return 0;
}

// ---- joining

static int find_token(struct control *c, const json_t *message, size_t *ret, struct error *e)
{
    struct token token;
    const char *text = json_string_value(json_object_get(message, "token"));
    if (text && token_parse(text, &token)) {
        const struct uuid id = token_digest(token.secret);
        for (size_t i = 0; i < c->token_count; i++)
            if (uuid_equal(&c->tokens[i].id, &id)) {
                *ret = i;
                return 0;
            }
    }
    c->wrong_tokens++;
    return fail(e, E_DENIED, "the token is wrong, or was used: make a new one with `flocker node token` on the control host");
}

int enrol_join(struct control *c, const json_t *message, json_t **ret, struct error *e)
{
    const json_t *csrs = json_object_get(message, "csr");
    AUTO(free) char *cluster = NULL;
    json_t *certificates = NULL;
    size_t at = 0;
    int rc = find_token(c, message, &at, e);
    if (rc < 0)
        return rc;
    if (c->tokens[at].expires_ms <= clock_wall_ms()) {
        drop_old_tokens(c);
        return fail(e, E_DENIED, "the token has expired: make a new one with `flocker node token` on the control host");
    }
    struct uuid node = c->tokens[at].node;
    if (uuid_is_zero(&node))
        node = rng_uuid();
    if (!json_object_get(csrs, "node"))
        return fail(e, E_INVALID, "no request for a node's certificate");
    if ((rc = check_ca(c, e)) < 0 || (rc = pki_read_text(c->config.pki_dir, PKI_CA_FILE, &cluster, e)) < 0 ||
        (rc = sign_all(c, &node, csrs, &certificates, e)) < 0)
        return rc;
    if ((rc = remove_token(c, at, e)) < 0) { // from here on it is used, whether the host hears of it or not
        json_decref(certificates);
        return rc;
    }
    *ret = json_pack("{s:s, s:s, s:s, s:o}", "type", "joined", "cluster", cluster, "node", UUID_TEXT(&node), "certificates", certificates);
    log_info("a host has joined: it is node %s", UUID_TEXT(&node));
    return 0;
}

// ---- leaving

static int check_unused(const struct control *c, const struct control_node *n, struct error *e)
{
    const struct volume *first = NULL;
    size_t count = 0;
    char label[UUID_TEXT_SIZE];
    for (size_t i = 0; i < n->volumes.n; i++) {
        const struct volume *v = volume_set_find(&c->volumes, &n->volumes.ids[i]);
        if (v->state == VOLUME_DELETED && v->move.stage == MOVE_NONE)
            continue;
        first = first ? first : v;
        count++;
    }
    if (count == 0 && n->has_unknown)
        return fail(e, E_CONFLICT, "node %s has data of volumes that control does not know: if its store was lost, `flocker control recover` "
                    "takes in those that can be; --force removes the node all the same", UUID_TEXT(&n->node.id));
    if (count == 0)
        return 0;
    return fail(e, E_CONFLICT, "node %s has %zu volumes, or is to get them, or has a copy of them left (%.100s%s): `flocker node drain` moves them away, "
                "those in the trash have to be purged; --force removes the node all the same, and what is only there is lost",
                UUID_TEXT(&n->node.id), count, volume_label(first, label), count > 1 ? ", ..." : "");
}

static int check_not_own(const struct control_node *n, struct error *e)
{
    return !agents_is_own_host(n) ? 0 :
           fail(e, E_CONFLICT, "node %s is the control service's own host: Flocker would make no volume there any more; --force removes it all the same",
                UUID_TEXT(&n->node.id));
}

int enrol_remove_node(struct control *c, struct control_node *n, bool force, size_t *ret_lost, size_t *ret_rescued, struct error *e)
{
    int rc = force || n->node.removed ? 0 : check_not_own(n, e);
    if (rc == 0 && !force && !n->node.removed)
        rc = check_unused(c, n, e);
    if (rc < 0 || n->node.removed)
        return rc;
    if (c->recovery) // which may just have decided on what that node has
        return fail(e, E_BUSY, "a recovery of the store is under way: try again in a moment");
    return absence_remove_node(c, n, ret_lost, ret_rescued, e);
}
