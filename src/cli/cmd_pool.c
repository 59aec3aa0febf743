// The pool of this host: asked of its agent.
#include "cli/internal.h"

#include "base/limits.h"
#include "base/size.h"

static void print_pool(FILE *out, const json_t *pool)
{
    static const char *const headings[] = { "NODE", "BACKEND", "SIZE", "USED", "FREE", "VOLUMES", NULL };
    char size_text[SIZE_TEXT_SIZE], used_text[SIZE_TEXT_SIZE], free_text[SIZE_TEXT_SIZE], count[24];
    json_int_t size = json_integer_value(json_object_get(pool, "size")), used = json_integer_value(json_object_get(pool, "used"));
    snprintf(count, sizeof count, "%lld", (long long)json_integer_value(json_object_get(pool, "volumes")));
    AUTO(table_free) struct table *t = table_new(headings);
    const char *cells[] = { json_string_value(json_object_get(pool, "node")),
                            json_string_value(json_object_get(pool, "backend")),
                            size_format(size > 0 ? (uint64_t)size : 0, size_text),
                            size_format(used > 0 ? (uint64_t)used : 0, used_text),
                            size_format(size > used && used >= 0 ? (uint64_t)(size - used) : 0, free_text),
                            count };
    table_add(t, cells);
    table_print(t, out);
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client agent = cli_agent(ctx);
    AUTO(json_decref) json_t *pool = NULL;
    (void)argc;
    (void)argv;
    int rc = client_call(&agent, "GET", "/v2/pool", NULL, &pool, e);
    if (rc < 0)
        return rc;
    print_pool(ctx->out, pool);
    ctx->result = json_pack("[O]", pool);
    return 0;
}

static void warn_disk(FILE *out, const char *start, const json_t *pool, uint64_t low)
{
    char free_text[SIZE_TEXT_SIZE], more_text[SIZE_TEXT_SIZE];
    const json_t *free_on_disk = json_object_get(pool, "disk_free");
    json_int_t free_bytes = json_integer_value(free_on_disk), more = json_integer_value(json_object_get(pool, "file_may_grow"));
    if (json_is_integer(free_on_disk) && free_bytes >= 0 && more > free_bytes && (uint64_t)free_bytes <= low)
        fprintf(out,
                "%sthe pool's file may still become %s larger, but the disk below it has only %s free: when that is used up, writing "
                "fails\n",
                start, size_format((uint64_t)more, more_text), size_format((uint64_t)free_bytes, free_text));
}

void pool_warn(FILE *out, const char *start, const json_t *pool, uint64_t low)
{
    json_int_t kept = json_integer_value(json_object_get(pool, "kept"));
    if (json_is_true(json_object_get(pool, "read_only")))
        fprintf(out, "%sthe pool is read-only: it was mounted so, or its file system stopped after an error (see the kernel's log)\n",
                start);
    warn_disk(out, start, pool, low);
    if (kept > 0)
        fprintf(out,
                "%sthe pool has %lld volumes that are not this node's by control's word: they are kept, and not served; the agent's log "
                "names them\n",
                start, (long long)kept);
}

// The pool has grown, whatever comes of the question what to look out for.
static int warn(const struct client *agent, struct cli_context *ctx, struct error *e)
{
    AUTO(json_decref) json_t *pool = NULL;
    if (client_call(agent, "GET", "/v2/pool", NULL, &pool, e) < 0)
        return 0;
    pool_warn(ctx->out, "", pool, UINT64_MAX);
    return 0;
}

static int run_grow(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client agent = cli_agent(ctx);
    uint64_t size = 0;
    char text[SIZE_TEXT_SIZE];
    (void)argc;
    int rc = size_parse(argv[0], &size, e);
    if (rc < 0)
        return rc;
    rc = client_call(&agent, "POST", "/v2/pool", json_pack("{s:I}", "size", (json_int_t)size), &ctx->result, e);
    if (rc < 0)
        return rc;
    json_int_t now = json_integer_value(json_object_get(ctx->result, "size"));
    fprintf(ctx->out, "the pool has %s now\n", size_format(now > 0 ? (uint64_t)now : size, text));
    return warn(&agent, ctx, e);
}

const struct cli_command commands_pool[] = {
    { .name = "pool ls",
      .args = "",
      .summary = "show this host's pool: its size, and how much of it is used",
      .text = "The agent of this host is asked, at its own socket.\n\n    flocker pool ls",
      .run = run_ls,
      .also = "list show inspect" },
    { .name = "pool grow",
      .args = "SIZE",
      .summary = "make this host's pool larger",
      .text = "SIZE is the size that the whole pool is to have, as 200G. Volumes stay in use meanwhile. A pool can't be made "
              "smaller.\n\n"
              "    flocker pool grow 200G",
      .run = run_grow,
      .also = "resize extend" },
    { NULL },
};
