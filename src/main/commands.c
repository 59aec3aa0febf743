#include "main/commands.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"
#include "main/roles.h"

#include <stdio.h>
#include <string.h>

#define REST_DEFAULT "127.0.0.1:4523"

// ---- options: `up` hands on to control and agent what is theirs

#define CONTROL_OPTIONS \
    { "rest", 0, "ADDRESS:PORT", "Serve the REST API there, with TLS; none: not at all. Default " REST_DEFAULT "." }, \
    { "agents", 0, "ADDRESS:PORT", "Serve agents of other hosts there, as 0.0.0.0:4524, with mutual TLS; none: a cluster of this host alone. Default none." }, \
    { "trash-keep", 0, "SECONDS", "Keep removed volumes that long. Default 86400, a day." }
#define AGENT_OPTIONS \
    { "control", 0, "HOST[:PORT]", "The control service is there; default: as agent.yml says, or this host." }, \
    { "config", 0, "FILE", "Read settings from there; options go before them. Default /etc/flocker/agent.yml, if there is one." }, \
    { "pool", 0, "PATH", "Keep volumes there: a file (made if need be), a block device, or a directory of a btrfs." }, \
    { "pool-size", 0, "SIZE", "Size of a pool file that is made. Default: half of what is free. It takes up only what is used." }, \
    { "format", 0, NULL, "Make a file system on a block device that holds nothing." }, \
    { "qgroups", 0, NULL, "Limit sizes by classic qgroups even where the kernel has simple quotas." }, \
    { "backend", 0, "NAME", "btrfs, or memory, which keeps no data and is for trying things out. Default btrfs." }, \
    { "plugin-listen", 0, "ADDRESS:PORT", "Serve the volume plugin there too, with mutual TLS." }, \
    { "docker-socket", 0, "PATH", "Have containers of the v1 API run by the engine that listens there. Default /run/docker.sock." }, \
    { "peers", 0, "ADDRESS:PORT", "Serve other agents there, to which volumes move, with mutual TLS; none: not at all. " \
      "Default 0.0.0.0:4525 where control is on another host, or serves agents of others; else none." }, \
    { "host", 0, "ADDRESS", "This node's address as others see it. Default: its end of the connection to control; 127.0.0.1 on the control host." }
#define END { NULL, 0, NULL, NULL }

static const struct cli_option control_options[] = { CONTROL_OPTIONS, END };
static const struct cli_option agent_options[] = { AGENT_OPTIONS, END };
static const struct cli_option up_options[] = { CONTROL_OPTIONS, AGENT_OPTIONS, END };
static const struct cli_option join_options[] = {
    { "token", 0, "TOKEN", "What `flocker node token` has printed. It works once." },
    { "no-start", 0, NULL, "Do not start the agent: a service manager will." },
    AGENT_OPTIONS, END,
};
static const struct cli_option down_options[] = {
    { "keep-mounted", 0, NULL, "Stop although volumes are in use; they stay mounted and their containers go on." }, END,
};

static int read_control(const struct cli_context *ctx, struct control_options *ret, struct error *e)
{
    uint64_t keep_s = TRASH_KEEP_S;
    const char *rest = cli_value(ctx, "rest"), *agents = cli_value(ctx, "agents");
    int rc = cli_number(ctx, "trash-keep", 10, 100ULL * 365 * 86400, &keep_s, e);
    *ret = (struct control_options){ rest ? rest : REST_DEFAULT, agents ? agents : "none", (int64_t)keep_s };
    return rc;
}

static int read_agent(const struct cli_context *ctx, struct agent_options *ret, struct error *e)
{
    const char *size = cli_value(ctx, "pool-size");
    *ret = (struct agent_options){
        .config = cli_value(ctx, "config"),
        .pool = cli_value(ctx, "pool"),
        .format = cli_value(ctx, "format") != NULL,
        .qgroups = cli_value(ctx, "qgroups") != NULL,
        .backend = cli_value(ctx, "backend"),
        .plugin_listen = cli_value(ctx, "plugin-listen"),
        .docker_socket = cli_value(ctx, "docker-socket"),
        .peers = cli_value(ctx, "peers"),
        .host = cli_value(ctx, "host"),
        .control = cli_value(ctx, "control"),
    };
    return size ? size_parse(size, &ret->pool_size, e) : 0;
}

// ---- commands

static int run_control(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct control_options o;
    struct paths p;
    (void)argc;
    (void)argv;
    int rc = read_control(ctx, &o, e);
    if (rc < 0 || (rc = paths_init(&p, ctx->root, e)) < 0)
        return rc;
    return role_control(&p, &o, e);
}

static int run_agent(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct agent_options o;
    struct paths p;
    (void)argc;
    (void)argv;
    int rc = read_agent(ctx, &o, e);
    if (rc < 0 || (rc = paths_init(&p, ctx->root, e)) < 0)
        return rc;
    return role_agent(&p, &o, e);
}

static FILE *said_to;

static void say(const char *line)
{
    fprintf(said_to, "%s\n", line);
    fflush(said_to);
}

// "--name=value" for each of the options that was given; the strings are owned by the list.
struct words {
    size_t n;
    char *items[24];
};

static void hand_on(const struct cli_context *ctx, const struct cli_option *options, struct words *w)
{
    for (; options->name; options++) {
        const char *value = cli_value(ctx, options->name);
        ASSERT(w->n < ARRAY_SIZE(w->items));
        if (value)
            w->items[w->n++] = options->arg ? xasprintf("--%s=%s", options->name, value) : xasprintf("--%s", options->name);
    }
}

static void words_done(struct words *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->items[i]);
}

static int run_up(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct control_options control;
    struct agent_options agent;
    struct paths p;
    struct words control_words = { 0 }, agent_words = { 0 };
    (void)argc;
    (void)argv;
    int rc = read_control(ctx, &control, e); // what is wrong is told here, not in a log
    if (rc < 0 || (rc = read_agent(ctx, &agent, e)) < 0 || (rc = paths_init(&p, ctx->root, e)) < 0)
        return rc;
    hand_on(ctx, control_options, &control_words);
    hand_on(ctx, agent_options, &agent_words);
    if (strcmp(control.agents, "none") != 0 && !agent.peers) // volumes of this host are to move to those others
        agent_words.items[agent_words.n++] = xasprintf("--peers=%s", PEERS_DEFAULT);
    said_to = ctx->out;
    rc = role_up(&p, &(struct up_arguments){ control_words.items, control_words.n, agent_words.items, agent_words.n, agent.config, agent.control }, say, e);
    words_done(&control_words);
    words_done(&agent_words);
    return rc;
}

static int run_join(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct agent_options agent;
    struct paths p;
    struct words words = { 0 };
    const char *token = cli_value(ctx, "token");
    (void)argc;
    if (!token)
        return fail(e, E_INVALID, "--token is missing: `flocker node token` on the control host prints one");
    int rc = read_agent(ctx, &agent, e);
    if (rc < 0 || (rc = paths_init(&p, ctx->root, e)) < 0)
        return rc;
    said_to = ctx->out;
    if ((rc = role_join(&p, argv[0], token, say, e)) < 0 || cli_value(ctx, "no-start"))
        return rc;
    hand_on(ctx, agent_options, &words);
    rc = role_up(&p, &(struct up_arguments){ NULL, 0, words.items, words.n, agent.config, NULL }, say, e);
    words_done(&words);
    return rc;
}

static int run_down(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct paths p;
    (void)argc;
    (void)argv;
    int rc = paths_init(&p, ctx->root, e);
    said_to = ctx->out;
    return rc < 0 ? rc : role_down(&p, cli_value(ctx, "keep-mounted") != NULL, say, e);
}

const struct cli_command main_commands[] = {
    { "up", "", "start Flocker on this host",
      "Starts the control service and the agent in the background unless they answer already, and waits until they do. The first start makes "
      "certificates, a store and a pool; later ones change nothing.\n\n"
      "    flocker up\n    flocker up --pool=/dev/sdb --format",
      up_options, run_up, NULL, NULL, false },
    { "join", "HOST", "make this host a node of a cluster",
      "HOST, or HOST:PORT, is where the control service is. The token says which service that must be, and lets this host in. The key of "
      "this host is made here and stays here. Then the agent is started, as by `flocker up`.\n\n"
      "    flocker join 10.0.0.1 --token join1.Zm9...",
      join_options, run_join, NULL, NULL, false },
    { "down", "", "stop Flocker on this host",
      "Unmounts all volumes and the pool, then stops the agent and the control service. Refused, naming the user, while a volume is in use.",
      down_options, run_down, NULL, NULL, false },
    { "control", "", "run the control service in the foreground",
      "The control service decides and stores what is wanted. For service managers; `flocker up` starts it too.",
      control_options, run_control, NULL, "flocker-control", false },
    { "agent", "", "run this host's agent in the foreground",
      "The agent keeps volumes on this host and serves them to its container engines. For service managers; `flocker up` starts it too.",
      agent_options, run_agent, NULL, "flocker-dataset-agent", false },
    { NULL },
};
