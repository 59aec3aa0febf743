// Whether control and this host's agent are well.
#include "cli/internal.h"

#include "base/size.h"
#include "sys/instance.h"

#include <string.h>

#define DISK_LOW_BYTES (1ULL << 30) // free below a pool's file: from here on somebody should look after it

static long long number(const json_t *object, const char *group, const char *member)
{
    const json_t *in = group ? json_object_get(object, group) : object;
    return json_integer_value(json_object_get(in, member));
}

static void print_control(FILE *out, const json_t *reply)
{
    AUTO(free) char *version = text_escape(json_string_value(json_object_get(reply, "version")) ?: "?");
    fprintf(out, "control: up, version %s\n", version);
    fprintf(out, "  nodes: %lld known, %lld connected\n", number(reply, "nodes", "known"), number(reply, "nodes", "connected"));
    fprintf(out, "  volumes: %lld live, %lld in the trash, %lld being purged\n", number(reply, "volumes", "live"),
            number(reply, "volumes", "trashed"), number(reply, "volumes", "purging"));
}

static void print_agent(FILE *out, const json_t *reply)
{
    char size_text[SIZE_TEXT_SIZE], used_text[SIZE_TEXT_SIZE];
    long long size = number(reply, NULL, "size"), used = number(reply, NULL, "used");
    AUTO(free) char *backend = text_escape(json_string_value(json_object_get(reply, "backend")) ?: "?");
    const char *alone = json_is_false(json_object_get(reply, "synced")) ? ", but not connected to control" : "";
    fprintf(out, "agent: up%s\n  pool: %s, %s of %s used, %lld volumes\n", alone, backend,
            size_format(used > 0 ? (uint64_t)used : 0, used_text), size_format(size > 0 ? (uint64_t)size : 0, size_text),
            number(reply, NULL, "volumes"));
    AUTO(free) char *warnings = pool_warnings(reply, DISK_LOW_BYTES);
    for (const char *line = warnings; *line; line += strcspn(line, "\n") + 1)
        fprintf(out, "  warning: %.*s\n", (int)strcspn(line, "\n"), line);
}

// One that runs although nobody listens at its socket has lost it: what to do is not the same as for one that is down.
static void explain_lost(const struct cli_context *ctx, const char *who, const char *sock, const char *lock, struct error *e)
{
    AUTO(free) char *path = cli_path(ctx, lock);
    const struct instance i = instance_find(path);
    if (i.pid > 0 && i.is_serving)
        fail(e, E_UNAVAILABLE,
             "%s runs as process %d, but its socket %s is gone: was the folder removed? `flocker up` replaces it; containers go on", who,
             (int)i.pid, sock);
}

// Asks one of the two and adds what it says to the result. A failure is part of the report: it comes back in *e.
static int ask(struct cli_context *ctx, const char *who, const struct client *client, const char *lock, const char *target,
               void (*print)(FILE *out, const json_t *reply), struct error *e)
{
    AUTO(json_decref) json_t *reply = NULL;
    int rc = client_call(client, "GET", target, NULL, &reply, e);
    if (rc == -E_UNAVAILABLE)
        explain_lost(ctx, who, client->unix_path, lock, e);
    if (rc < 0) {
        AUTO(free) char *message = text_escape(e->msg);
        fprintf(ctx->out, "%s: %s\n  %s\n", who, rc == -E_DENIED ? "not known" : "down", message);
        json_object_set_new(
            ctx->result, who,
            json_pack("{s:b, s:s, s:o}", "up", 0, "code", error_word(e->code), "description", text_to_json(e->msg)));
        return rc;
    }
    print(ctx->out, reply);
    json_t *said = json_is_object(reply) ? json_incref(reply) : json_object();
    json_object_set_new(said, "up", json_true());
    json_object_set_new(ctx->result, who, said);
    return 0;
}

static int run_status(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client control = cli_control(ctx), agent = cli_agent(ctx);
    struct error control_error = ERROR_INIT, agent_error = ERROR_INIT;
    (void)argc;
    (void)argv;
    ctx->result = json_object();
    int control_rc = ask(ctx, "control", &control, CONTROL_LOCK, "/v2/status", print_control, &control_error);
    int agent_rc = ask(ctx, "agent", &agent, AGENT_LOCK, "/v2/pool", print_agent, &agent_error);
    if (control_rc == -E_DENIED || agent_rc == -E_DENIED) // they may well be up
        return fail(e, E_DENIED, "the sockets of control and agent are for root only: ask as root");
    if (control_rc < 0 && agent_rc < 0)
        return fail(e, control_error.code, "control and this host's agent are down: start both with `flocker up`");
    if (control_rc < 0) {
        *e = control_error;
        return fail_ctx(e, control_rc, "control is down");
    }
    if (agent_rc < 0) {
        *e = agent_error;
        return fail_ctx(e, agent_rc, "this host's agent is down");
    }
    return 0;
}

const struct cli_command commands_status[] = {
    { .name = "status",
      .args = "",
      .summary = "show whether control and this host's agent are up",
      .text = "Says what is down and what to do about it; then the exit status is not 0.\n\n    flocker status",
      .run = run_status,
      .also = "info ps" },
    { NULL },
};
