// Nodes of the cluster.
#include "cli/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/size.h"
#include "sys/process.h"

#include <poll.h>
#include <string.h>

static long long number(const json_t *node, const char *name)
{
    return json_integer_value(json_object_get(node, name));
}

static const char *member(const json_t *node, const char *name)
{
    return json_string_value(json_object_get(node, name)) ?: "";
}

// Of a node that is drained: what is left. The caller frees it.
static char *drain_note(const json_t *node, const json_t *drain)
{
    const char *problem = member(drain, "problem");
    long long left = number(node, "volumes"), trashed = number(node, "trashed");
    if (left && *problem)
        return xasprintf("%lld volumes left: %s", left, problem);
    if (left)
        return xasprintf("%lld volumes left, %lld of them in use or held", left, number(node, "in_use"));
    return trashed ? xasprintf("%lld volumes in its trash stay", trashed) : xstrdup("nothing is left on it");
}

static char *note(const json_t *node)
{
    const json_t *drain = json_object_get(node, "drain");
    const char *seen = member(node, "seen");
    if (drain)
        return drain_note(node, drain);
    if (strcmp(member(node, "state"), "down") == 0)
        return xasprintf("not connected%s%s", *seen ? " since " : "", seen);
    return xstrdup("");
}

static void add_node(struct table *t, const json_t *node)
{
    char age[AGE_SIZE] = "", volumes[24], free_text[SIZE_TEXT_SIZE] = "";
    const json_t *pool = json_object_get(node, "pool");
    long long free_bytes = number(pool, "size") - number(pool, "used");
    int64_t booted_ms = text_to_ms(member(node, "booted"));
    AUTO(free) char *last = note(node);
    if (booted_ms >= 0)
        text_age(clock_wall_ms() - booted_ms, age);
    snprintf(volumes, sizeof volumes, "%lld", number(node, "volumes"));
    if (pool)
        size_format(free_bytes > 0 ? (uint64_t)free_bytes : 0, free_text);
    const char *cells[] = { member(node, "id"), member(node, "host"), member(node, "state"), volumes, free_text, member(node, "era"), age, last };
    table_add(t, cells);
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    static const char *const headings[] = { "ID", "HOST", "STATE", "VOLUMES", "FREE", "ERA", "ERA AGE", "NOTE", NULL };
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
    long long lost = number(ctx->result, "lost"), rescued = number(ctx->result, "rescued");
    fprintf(ctx->out, "node %s is removed: its certificate is refused from now on\n", shown);
    if (rescued)
        fprintf(ctx->out, "%lld volumes that were on their way are where there is another copy of them\n", rescued);
    if (lost)
        fprintf(ctx->out, "%lld volumes were only there, and are lost: `flocker volume ls --all` shows them, `flocker volume rm --purge` removes the "
                "entries\n", lost);
    return 0;
}

// ---- drain

static int call_drain(const struct cli_context *ctx, const char *method, const char *name, const char *rest, json_t *body, json_t **ret,
                      struct error *e)
{
    const struct client control = cli_control(ctx);
    AUTO(free) char *node = client_encode(name);
    AUTO(free) char *target = xasprintf("/v2/nodes/%s%s", node, rest);
    return client_call(&control, method, target, body, ret, e);
}

#define LOOK_MS 500

// Says how many are left whenever that changes.
static int wait_until_drained(struct cli_context *ctx, const char *name, struct error *e)
{
    AUTO(free) char *said = NULL;
    while (number(ctx->result, "volumes")) {
        char *now = note(ctx->result);
        if (!said || strcmp(said, now) != 0) {
            AUTO(free) char *shown = text_escape(now);
            fprintf(ctx->out, "%s\n", shown);
            fflush(ctx->out);
        }
        free(said);
        said = now;
        poll(NULL, 0, LOOK_MS);
        json_decref(ctx->result);
        ctx->result = NULL;
        int rc = call_drain(ctx, "GET", name, "", NULL, &ctx->result, e);
        if (rc < 0)
            return rc;
        if (!json_object_get(ctx->result, "drain"))
            return fail(e, E_CONFLICT, "node %.100s is not being drained any more: somebody has undrained or removed it", name);
    }
    return 0;
}

static int run_drain(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    (void)argc;
    int rc = call_drain(ctx, "POST", argv[0], "/drain", json_pack("{s:b}", "force", (int)(cli_value(ctx, "force") != NULL)), &ctx->result, e);
    if (rc == 0 && cli_value(ctx, "wait"))
        rc = wait_until_drained(ctx, argv[0], e);
    if (rc < 0)
        return rc;
    AUTO(free) char *text = note(ctx->result);
    AUTO(free) char *shown = text_escape(text);
    fprintf(ctx->out, "node %s takes no volumes any more; %s\n", member(ctx->result, "id"), shown);
    return 0;
}

static int run_undrain(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    (void)argc;
    int rc = call_drain(ctx, "DELETE", argv[0], "/drain", NULL, &ctx->result, e);
    if (rc == 0)
        fprintf(ctx->out, "node %s takes volumes again\n", member(ctx->result, "id"));
    return rc;
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
    { "force", 'f', NULL, "Remove it although volumes are there: what is only there is lost to the cluster." },
    { NULL },
};

static const struct cli_option drain_options[] = {
    { "wait", 'w', NULL, "Wait until no volume is left on it, and show how many are." },
    { "force", 'f', NULL, "Stop the containers that use volumes there, instead of waiting until they end." },
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
    { .name = "node drain",
      .args = "NODE",
      .summary = "move all volumes away from a node",
      .text = "No volume is made or moved there from then on, and those that are there move to the connected nodes with most free space in their "
              "pools, some at a time. One that a container uses moves when that has ended. What is in the trash stays. NODE is an id, the beginning "
              "of one, or a host. It goes on until `flocker node undrain`, also over restarts; `flocker node ls` shows how far it is.\n\n"
              "    flocker node drain 10.0.0.3 --wait\n    flocker node rm 10.0.0.3",
      .options = drain_options,
      .run = run_drain,
      .also = "evacuate cordon" },
    { .name = "node undrain",
      .args = "NODE",
      .summary = "let a node take volumes again",
      .text = "Volumes that have left it stay where they are, and moves that are under way go on: `flocker volume move --cancel` calls one off."
              "\n\n    flocker node undrain 10.0.0.3",
      .run = run_undrain,
      .also = "uncordon" },
    { .name = "node rm",
      .args = "NODE",
      .summary = "take a node out of the cluster",
      .text = "Its certificate is refused from then on, and its connection closed. NODE is an id, the beginning of one, or a host. Refused "
              "for the control service's own host, and while volumes are there or move there: `flocker node drain` moves them away.\n\n"
              "With --force, for a host that won't come back: moves to and from it end, and volumes whose only data was there stay as entries whose "
              "state is lost, until `flocker volume rm --purge`. If the host comes back after all, its pool keeps them and nobody is served them."
              "\n\n    flocker node rm 10.0.0.3",
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
