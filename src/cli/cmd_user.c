// Users of the REST API whose certificates were revoked.
#include "cli/internal.h"

#include "net/pki.h"

#include <string.h>

#define SHOWN 16 // characters of a key's digest in the table

static const char *member(const json_t *user, const char *name)
{
    return json_string_value(json_object_get(user, name)) ?: "";
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    static const char *const headings[] = { "NAME", "REVOKED", "ADMITTED KEY", NULL };
    const struct client control = cli_control(ctx);
    const json_t *user;
    size_t i;
    (void)argc;
    (void)argv;
    int rc = client_call(&control, "GET", "/v2/users", NULL, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(table_free) struct table *t = table_new(headings);
    json_array_foreach(ctx->result, i, user)
    {
        AUTO(free) char *key = xstrndup(member(user, "key"), SHOWN);
        const char *cells[] = { member(user, "name"), member(user, "revoked"), *key ? key : "none" };
        table_add(t, cells);
    }
    table_print(t, ctx->out);
    return 0;
}

static int call_user(const struct cli_context *ctx, const char *method, const char *name, json_t *body, json_t **ret, struct error *e)
{
    const struct client control = cli_control(ctx);
    AUTO(free) char *encoded = client_encode(name);
    AUTO(free) char *target = xasprintf("/v2/users/%s", encoded);
    if (*name)
        return client_call(&control, method, target, body, ret, e);
    json_decref(body);
    return fail(e, E_INVALID, "a user's name is empty");
}

static int run_revoke(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    (void)argc;
    int rc = call_user(ctx, "DELETE", argv[0], NULL, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *shown = text_escape(argv[0]);
    fprintf(ctx->out, "certificates of user %s are refused from now on\n", shown);
    return 0;
}

static int run_admit(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    char name[PKI_NAME_SIZE], key[PKI_KEY_SIZE];
    (void)argc;
    int rc = pki_common_name(argv[0], name, sizeof name, e);
    if (rc < 0 || (rc = pki_key_digest(argv[0], key, e)) < 0)
        return rc;
    if (strncmp(name, PKI_USER_PREFIX, strlen(PKI_USER_PREFIX)) != 0)
        return fail(e, E_INVALID, "%.200s is for \"%s\", not for a user", argv[0], name);
    rc = call_user(ctx, "POST", name + strlen(PKI_USER_PREFIX), json_pack("{s:s}", "key", key), &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *shown = text_escape(name + strlen(PKI_USER_PREFIX));
    fprintf(ctx->out, "user %s is let in with that certificate and its renewals, and with no other\n", shown);
    return 0;
}

const struct cli_command commands_user[] = {
    { .name = "user ls",
      .args = "",
      .summary = "list users whose certificates were revoked",
      .text = "ADMITTED KEY is the beginning of the SHA-256 of the public key whose certificates count all the same. Users who are not listed are let "
              "in with every certificate of the cluster's authority.\n\n    flocker user ls",
      .run = run_ls,
      .also = "list" },
    { .name = "user revoke",
      .args = "NAME",
      .summary = "refuse all certificates of a user",
      .text = "From now on, whichever there are of that name, with or without an admitted key; open connections are closed. Join tokens that were not "
              "used yet are gone, whoever made them; `flocker node ls` shows what has joined. Only root of the control host can do "
              "this.\n\n    flocker user revoke alice",
      .run = run_revoke,
      .also = "rm remove delete" },
    { .name = "user admit",
      .args = "FILE",
      .summary = "let a user in again, with a new certificate",
      .text = "FILE is the certificate that `flocker ca user` made since. It counts, and so do its renewals, which have the same key; all others of that "
              "user stay revoked. Only root of the control host can do this.\n\n"
              "    flocker user revoke alice\n    rm alice.crt alice.key\n    flocker ca user alice\n    flocker user admit alice.crt",
      .run = run_admit },
    { NULL },
};
