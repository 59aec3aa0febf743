// Nodes of the cluster.
#include "cli/internal.h"
#include "sys/process.h"

static void add_node(struct table *t, const json_t *node)
{
    const char *cells[] = { json_string_value(json_object_get(node, "id")), json_string_value(json_object_get(node, "host")),
                            json_is_true(json_object_get(node, "connected")) ? "yes" : "no",
                            json_string_value(json_object_get(node, "era")) };
    table_add(t, cells);
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    static const char *const headings[] = { "ID", "HOST", "CONNECTED", "ERA", NULL };
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
