// Whether control and this host's agent are well.
#include "cli/internal.h"

#include "base/size.h"
#include "sys/instance.h"

#include <unistd.h>

#define ANSWER_MS      5000        // both answer at once unless they are stopped, or their disk hangs
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
    if (number(reply, "nodes", "known") > 1 && json_is_false(json_object_get(reply, "serves_other_hosts")))
        fputs("  warning: the other nodes can't reach it: it was started without --agents; `flocker down`, then `flocker up "
              "--agents=0.0.0.0:4524`\n", out);
}

static void print_agent(FILE *out, const json_t *reply)
{
    char size_text[SIZE_TEXT_SIZE], used_text[SIZE_TEXT_SIZE];
    long long size = number(reply, NULL, "size"), used = number(reply, NULL, "used");
    AUTO(free) char *backend = text_escape(json_string_value(json_object_get(reply, "backend")) ?: "?");
    const char *alone = json_is_false(json_object_get(reply, "synced")) ? ", but not connected to control" : "";
    fprintf(out, "agent: up%s\n  pool: %s, %s of %s used, %lld volume%s\n", alone, backend,
            size_format(used > 0 ? (uint64_t)used : 0, used_text), size_format(size > 0 ? (uint64_t)size : 0, size_text),
            number(reply, NULL, "volumes"), number(reply, NULL, "volumes") == 1 ? "" : "s");
    pool_warn(out, "  warning: ", reply, DISK_LOW_BYTES);
}

// One that runs although nobody listens at its socket has lost it: what to do is not the same as for one that is down.
static void explain_lost(const struct cli_context *ctx, const char *who, const char *sock, const char *lock, struct error *e)
{
    AUTO(free) char *path = cli_path(ctx, lock);
    const struct instance i = instance_find(path);
    if (i.pid > 0 && i.is_serving && access(sock, F_OK) < 0) // else it has answered: that it can't do its work now
        fail(e, E_UNAVAILABLE,
             "%s runs as process %d, but its socket %s is gone: was the folder removed? `flocker up` replaces it; containers go on", who,
             (int)i.pid, sock);
}

// What one of the two says, or why it does not.
struct answer {
    const char *who, *lock;
    int rc;
    struct error error;
    json_t *reply;
};

static void auto_answer(struct answer *a)
{
    json_decref(a->reply);
}

static void ask(const struct cli_context *ctx, struct answer *a, const struct client *client, const char *target)
{
    a->rc = client_call(client, "GET", target, NULL, &a->reply, &a->error);
    if (a->rc == -E_UNAVAILABLE && client->unix_path)
        explain_lost(ctx, a->who, client->unix_path, a->lock, &a->error);
}

static const char *fate(const struct answer *a)
{
    return a->rc == -E_DENIED || a->rc == -E_NOT_FOUND ? "not known" : a->rc == -E_TIMEOUT ? "hangs" : "down";
}

// A failure is part of the report.
static void show(struct cli_context *ctx, const struct answer *a, void (*print)(FILE *out, const json_t *reply))
{
    if (a->rc < 0) {
        AUTO(free) char *message = text_escape(a->error.msg);
        fprintf(ctx->out, "%s: %s\n  %s\n", a->who, fate(a), message);
        json_object_set_new(ctx->result, a->who,
                            json_pack("{s:b, s:s, s:o}", "up", 0, "code", error_word(a->error.code), "description", text_to_json(a->error.msg)));
        return;
    }
    print(ctx->out, a->reply);
    json_t *said = json_is_object(a->reply) ? json_incref(a->reply) : json_object();
    json_object_set_new(said, "up", json_true());
    json_object_set_new(ctx->result, a->who, said);
}

// On a host without control and without a user's certificate, its agent knows at least whether it is connected.
static bool is_elsewhere(const struct answer *control, const struct answer *agent)
{
    return agent->rc == 0 && json_object_get(agent->reply, "control") && (control->rc == -E_UNAVAILABLE || control->rc == -E_NOT_FOUND);
}

static int show_elsewhere(struct cli_context *ctx, const struct answer *agent, struct error *e)
{
    const json_t *r = agent->reply;
    bool is_connected = json_is_true(json_object_get(r, "control_connected"));
    const char *why = json_string_value(json_object_get(r, "control_problem"));
    AUTO(free) char *at = text_escape(json_string_value(json_object_get(r, "control")) ?: "?");
    fprintf(ctx->out, "control: at %s, %s\n", at, is_connected ? "connected" : "not connected");
    json_object_set_new(ctx->result, "control", json_pack("{s:b, s:o}", "up", (int)is_connected, "at", text_to_json(at)));
    show(ctx, agent, print_agent);
    if (is_connected)
        return 0;
    return fail(e, E_UNAVAILABLE, "this node is not connected to control at %s%s%s; containers go on, and nothing new can be made", at,
                why ? ": " : "", why ? why : "");
}

static int run_status(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct client control_client = cli_control(ctx), agent_client = cli_agent(ctx);
    __attribute__((cleanup(auto_answer))) struct answer control = { .who = "control", .lock = CONTROL_LOCK };
    __attribute__((cleanup(auto_answer))) struct answer agent = { .who = "agent", .lock = AGENT_LOCK };
    (void)argc;
    (void)argv;
    ctx->result = json_object();
    control_client.timeout_ms = agent_client.timeout_ms = ANSWER_MS;
    ask(ctx, &control, &control_client, "/v2/status");
    ask(ctx, &agent, &agent_client, "/v2/pool");
    if (is_elsewhere(&control, &agent))
        return show_elsewhere(ctx, &agent, e);
    show(ctx, &control, print_control);
    show(ctx, &agent, print_agent);
    if ((control.rc == -E_DENIED && control_client.unix_path) || agent.rc == -E_DENIED) // they may well be up
        return fail(e, E_DENIED, "the sockets of control and agent are for root only: ask as root");
    if (control.rc < 0 && agent.rc < 0 && control.rc != -E_TIMEOUT && agent.rc != -E_TIMEOUT)
        return control_client.unix_path ? fail(e, control.error.code, "control and this host's agent are down: start both with `flocker up`")
                                        : fail(e, agent.error.code, "this host's agent is down: start it with `flocker up`; control is on %s",
                                               control_client.host);
    const struct answer *down = control.rc < 0 ? &control : &agent;
    if (down->rc == 0)
        return 0;
    *e = down->error;
    return fail_ctx(e, down->rc, "%s %s%s", down == &control ? "control" : "this host's agent", down->rc == -E_TIMEOUT ? "" : "is ", fate(down));
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
