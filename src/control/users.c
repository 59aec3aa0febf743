// Users whose certificates were revoked. A revocation is of a name, whichever certificates there are of it: nobody keeps a list of those that were
// made, and a certificate's dates are of another machine's clock. What counts all the same is one key, which the user got since: whoever has an
// older key stays outside, also if a certificate of that is renewed.
#include "control/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <string.h>

_Static_assert(USER_KEY_SIZE == PKI_KEY_SIZE && USER_NAME_SIZE == PKI_NAME_SIZE - sizeof PKI_USER_PREFIX + 1, "a user is who its certificate says");

static size_t place_of(const struct control *c, const char *name)
{
    size_t low = 0, high = c->user_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(c->users[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct user *find(const struct control *c, const char *name)
{
    size_t at = place_of(c, name);
    return at < c->user_count && strcmp(c->users[at].name, name) == 0 ? &c->users[at] : NULL;
}

static void adopt(struct control *c, const struct user *u)
{
    size_t at = place_of(c, u->name);
    if (!find(c, u->name)) {
        c->users = xrealloc(c->users, c->user_count + 1, sizeof *c->users);
        memmove(c->users + at + 1, c->users + at, (c->user_count++ - at) * sizeof *c->users);
    }
    c->users[at] = *u;
}

int users_load(void *control, const struct user *u, struct error *e)
{
    (void)e;
    adopt(control, u);
    return 0;
}

bool users_may_enter(const struct control *c, const struct http_peer *peer)
{
    const struct user *u = strncmp(peer->common_name, PKI_USER_PREFIX, strlen(PKI_USER_PREFIX)) == 0 ? find(c, peer->common_name + strlen(PKI_USER_PREFIX)) : NULL;
    return !u || (u->key[0] && strcmp(u->key, peer->key) == 0);
}

static bool is_unwanted(const struct http_peer *peer, void *control)
{
    return !users_may_enter(control, peer);
}

// From now on; also for connections that are open.
static int put(struct control *c, const struct user *u, struct error *e)
{
    const struct store_change change = { .kind = STORE_PUT_USER, .user = u };
    int rc = store_commit(c->store, &change, 1, e);
    if (rc < 0)
        return rc;
    adopt(c, u);
    log_info(u->key[0] ? "user %s is let in with one key, which was admitted" : "the certificates of user %s are revoked", u->name);
    if (c->rest)
        http_server_expel(c->rest, is_unwanted, c);
    return 0;
}

// ---- REST

static json_t *user_to_json(const struct user *u)
{
    char revoked[CLOCK_TEXT_SIZE];
    return json_pack("{s:s, s:s, s:o}", "name", u->name, "revoked", clock_format(u->revoked_ms, revoked), "key",
                     u->key[0] ? json_string(u->key) : json_null());
}

void api_list_users(struct call *call)
{
    const struct control *c = call->control;
    json_t *list = json_array();
    for (size_t i = 0; i < c->user_count; i++)
        json_array_append_new(list, user_to_json(&c->users[i]));
    api_reply(call->exchange, 200, list);
}

static void put_and_reply(struct call *call, int rc, const struct user *u, struct error *e)
{
    if (rc == 0)
        rc = put(call->control, u, e);
    if (rc < 0)
        api_fail(call->exchange, e);
    else
        api_reply(call->exchange, 200, user_to_json(u));
}

static int check_revocation(const struct control *c, const char *name, struct error *e)
{
    json_t *text = json_string(name);
    bool is_utf8 = text != NULL;
    json_decref(text);
    if (strlen(name) >= USER_NAME_SIZE || !is_utf8)
        return fail(e, E_INVALID, "no user has such a name: it has at most %d bytes of UTF-8", USER_NAME_SIZE - 1);
    if (c->user_count >= USERS_MAX && !find(c, name))
        return fail(e, E_TOO_LARGE, "certificates of %d users are revoked, the limit", USERS_MAX);
    return 0;
}

void api_revoke_user(struct call *call)
{
    struct user u = { .revoked_ms = clock_wall_ms() };
    struct error e = ERROR_INIT;
    int rc = check_revocation(call->control, call->segment, &e);
    snprintf(u.name, sizeof u.name, "%s", call->segment);
    if (rc == 0) // whoever has a user's certificate can make a token, and come back as a node
        rc = enrol_drop_tokens(call->control, &e);
    put_and_reply(call, rc, &u, &e);
}

void api_admit_user(struct call *call)
{
    static const char *const members[] = { "key", NULL };
    struct error e = ERROR_INIT;
    const struct user *known = find(call->control, call->segment);
    const char *key = json_string_value(json_object_get(call->body, "key"));
    struct user u = known ? *known : (struct user){ .name = "" };
    int rc = api_check_members(call->body, members, &e);
    if (rc == 0 && (!key || strlen(key) != USER_KEY_SIZE - 1 || strspn(key, "0123456789abcdef") != USER_KEY_SIZE - 1))
        rc = fail(&e, E_INVALID, "\"key\" is not the SHA-256 of a public key, in hexadecimal digits");
    if (rc == 0 && !known)
        rc = fail(&e, E_NOT_FOUND, "user %.100s was not revoked: every certificate of that name counts", call->segment);
    if (rc == 0)
        snprintf(u.key, sizeof u.key, "%s", key);
    put_and_reply(call, rc, &u, &e);
}
