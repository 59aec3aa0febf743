// Nodes of the cluster.
#include "cli/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "sys/process.h"

static void add_node(struct table *t, const json_t *node)
{
    char age[AGE_SIZE] = "";
    int64_t booted_ms = text_to_ms(json_string_value(json_object_get(node, "booted")) ?: "");
    if (booted_ms >= 0)
        text_age(clock_wall_ms() - booted_ms, age);
    const char *cells[] = { json_string_value(json_object_get(node, "id")), json_string_value(json_object_get(node, "host")),
                            json_string_value(json_object_get(node, "state")), json_string_value(json_object_get(node, "era")), age };
    table_add(t, cells);
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    static const char *const headings[] = { "ID", "HOST", "STATE", "ERA", "ERA AGE", NULL };
    const struct client control = cli_control(ctx);
    (void)argc;
    (void)argv;
    int rc = client_call(&control, "GET", "/v2/nodes", NULL, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(table_free) struct table *t = table_new(headings);
    const json_t *node;
    size_t i;
    json_array_foreach(ctx->result, i, node)
    {
        AUTO(free) char *id = text_escape(json_string_value(json_object_get(node, "id")) ?: "");
        if (cli_value(ctx, "quiet"))
            fprintf(ctx->out, "%s\n", id);
        else
            add_node(t, node);
    }
    if (!cli_value(ctx, "quiet"))
        table_print(t, ctx->out);
    return 0;
}

static int run_era(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct uuid era = process_boot_id();
    (void)argc;
    (void)argv;
    if (uuid_is_zero(&era))
        return fail(e, E_IO, "/proc/sys/kernel/random/boot_id can't be read: is /proc mounted?");
    fputs(UUID_TEXT(&era), ctx->out);
    ctx->result = json_pack("{s:s}", "era", UUID_TEXT(&era));
    return 0;
}

static int run_rm(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client control = cli_control(ctx);
    (void)argc;
    AUTO(free) char *node = client_encode(argv[0]);
    AUTO(free) char *target = xasprintf("/v2/nodes/%s%s", node, cli_value(ctx, "force") ? "?force=1" : "");
    int rc = client_call(&control, "DELETE", target, NULL, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *shown = text_escape(json_string_value(json_object_get(ctx->result, "id")) ?: argv[0]);
    fprintf(ctx->out, "node %s is removed: its certificate is refused from now on\n", shown);
    return 0;
}

static int run_token(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client control = cli_control(ctx);
    uint64_t ttl_s = TOKEN_TTL_S;
    const char *node = cli_value(ctx, "node");
    (void)argc;
    (void)argv;
    int rc = cli_number(ctx, "ttl", 10, TOKEN_TTL_S_MAX, &ttl_s, e);
    if (rc < 0)
        return rc;
    json_t *body = json_pack("{s:I, s:s*}", "ttl", (json_int_t)ttl_s, "node", node);
    if (!body)
        return fail(e, E_INVALID, "--node is not UTF-8");
    rc = client_call(&control, "POST", "/v2/tokens", body, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *token = text_escape(json_string_value(json_object_get(ctx->result, "token")) ?: "");
    fprintf(ctx->out, "%s\n", token);
    return 0;
}

static const struct cli_option rm_options[] = {
    { "force", 'f', NULL, "Remove it although volumes are there, which are out of reach then." },
    { NULL },
};

static const struct cli_option token_options[] = {
    { "ttl", 0, "SECONDS", "How long it is good; 3600, an hour, by default." },
    { "node", 0, "NODE", "For the host of that node, whose certificate is lost or has expired: it becomes that node again." },
    { NULL },
};

static const struct cli_option ls_options[] = {
    { "quiet", 'q', NULL, "Print only ids, one per line." },
    { NULL },
};

const struct cli_command commands_node[] = {
    { .name = "node ls",
      .args = "",
      .summary = "list the nodes that control knows",
      .text = "A node is a host with an agent. Its era is new with each start of its kernel.\n\n    flocker node ls",
      .options = ls_options,
      .run = run_ls,
      .also = "list" },
    { .name = "node token",
      .args = "",
      .summary = "print a token by which a host can join",
      .text = "The token says which control service the new host is to trust, and lets one host in, once. Keep it as a password.\n\n"
              "    flocker node token\n    flocker join 10.0.0.1 --token TOKEN    # on the new host",
      .options = token_options,
      .run = run_token },
    { .name = "node rm",
      .args = "NODE",
      .summary = "take a node out of the cluster",
      .text = "Its certificate is refused from then on, and its connection closed. NODE is an id, the beginning of one, or a host. Refused "
              "for the control service's own host, and while volumes are there or move there.\n\n    flocker node rm 10.0.0.3",
      .options = rm_options,
      .run = run_rm,
      .also = "remove delete" },
    { .name = "node era",
      .args = "",
      .summary = "print this host's era",
      .text = "The era is the kernel's boot id. It's printed without a newline, as by flocker-node-era of the original Flocker, "
              "whose name "
              "this program can be linked to.\n\n    flocker node era",
      .run = run_era,
      .program = "flocker-node-era" },
    { NULL },
};
