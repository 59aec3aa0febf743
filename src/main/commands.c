#include "main/commands.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"
#include "main/listen.h"
#include "main/roles.h"
#include "main/settings.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REST_DEFAULT "127.0.0.1:4523"

// ---- options: `up` and `join` keep them, control and agent read what is theirs

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
static const struct cli_option kept_options[] = { CONTROL_OPTIONS, AGENT_OPTIONS, END };
static const struct cli_option up_options[] = {
    CONTROL_OPTIONS, AGENT_OPTIONS,
    { "forget", 0, "OPTION", "Keep that option no longer: its default counts again. all: every one. Can be given several times." }, END,
};
static const struct cli_option join_options[] = {
    { "token", 0, "TOKEN", "What `flocker node token` has printed. It works once." },
    { "no-start", 0, NULL, "Do not start the agent: a service manager will." },
    AGENT_OPTIONS, END,
};
static const struct cli_option down_options[] = {
    { "keep-mounted", 0, NULL, "Stop although volumes are in use; they stay mounted and their containers go on." }, END,
};

static int check_listen(const struct cli_context *ctx, const char *option, struct error *e)
{
    const char *where = cli_value(ctx, option);
    int rc = where && strcmp(where, "none") != 0 ? listen_check(where, e) : 0;
    return rc < 0 ? fail_ctx(e, rc, "--%s", option) : 0;
}

static int read_control(const struct cli_context *ctx, struct control_options *ret, struct error *e)
{
    uint64_t keep_s = TRASH_KEEP_S;
    const char *rest = cli_value(ctx, "rest"), *agents = cli_value(ctx, "agents");
    int rc = cli_number(ctx, "trash-keep", 10, 100ULL * 365 * 86400, &keep_s, e);
    if (rc == 0 && (rc = check_listen(ctx, "rest", e)) == 0)
        rc = check_listen(ctx, "agents", e);
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
    int rc = size ? size_parse(size, &ret->pool_size, e) : 0;
    if (rc == 0 && (rc = check_listen(ctx, "peers", e)) == 0)
        rc = check_listen(ctx, "plugin-listen", e);
    return rc;
}

// ---- commands

static FILE *said_to;

static void say(const char *line)
{
    fprintf(said_to, "%s\n", line);
    fflush(said_to);
}

// What is kept in flocker.conf, changed by what the command line says. Nobody else changes the file from kept_read to kept_write.
struct kept {
    struct settings settings;
    int dir; // -1: it is not held
    bool is_changed;
    struct up_arguments up;
};

static void kept_done(struct kept *k)
{
    if (k->dir >= 0)
        close(k->dir);
    settings_done(&k->settings);
    for (size_t i = 0; i < ARRAY_SIZE(k->up.once); i++)
        free(k->up.once[i]);
}

// That a device may be formatted is said of the one that is there now; and who tries things out in memory will want to keep data later.
static bool note_once(struct kept *k, const struct cli_option *o, const char *value)
{
    static const char *const names[] = { "format", "backend" };
    for (size_t i = 0, n = k->up.once[0] ? 1 : 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(o->name, names[i]) == 0) {
            k->up.once[n] = o->arg ? xasprintf("--%s=%s", o->name, value) : xasprintf("--%s", o->name);
            return true;
        }
    return false;
}

// A later start may be from another folder.
static char *to_keep(const struct cli_option *o, const char *value)
{
    bool is_path = o->arg && (strcmp(o->arg, "PATH") == 0 || strcmp(o->arg, "FILE") == 0);
    AUTO(free) char *here = is_path && *value && *value != '/' ? getcwd(NULL, 0) : NULL;
    return here ? xasprintf("%s/%s", here, value) : xstrdup(value);
}

static bool note_options(struct kept *k, const struct cli_context *ctx, const struct cli_option *options, bool *ret_has, struct error *e)
{
    for (; options->name; options++) {
        const char *given = cli_value(ctx, options->name), *old = settings_value(&k->settings, options->name);
        *ret_has |= given != NULL;
        if (given && options->arg && !*given) { // its line in the file could not be read
            fail(e, E_INVALID, "--%s is empty: give it %s, or have its default by --forget=%s", options->name, options->arg, options->name);
            return false;
        }
        if (!given || note_once(k, options, given))
            continue;
        AUTO(free) char *value = to_keep(options, given);
        if (old && strcmp(old, value) == 0)
            continue;
        if (settings_set(&k->settings, options->name, value, e) < 0)
            return false;
        k->is_changed = true;
    }
    return true;
}

static bool has_option(const struct cli_option *options, const char *name)
{
    while (options->name && strcmp(options->name, name) != 0)
        options++;
    return options->name;
}

static int forget(struct kept *k, const struct cli_context *ctx, struct error *e)
{
    const char *name;
    for (size_t at = 0; (name = cli_next_value(ctx, "forget", &at));) {
        bool is_known = false;
        for (const struct cli_option *o = kept_options; o->name; o++) {
            if (strcmp(name, o->name) != 0 && strcmp(name, "all") != 0)
                continue;
            is_known = true;
            if (!settings_value(&k->settings, o->name))
                continue;
            k->is_changed = true;
            k->up.has_control |= has_option(control_options, o->name);
            k->up.has_agent |= has_option(agent_options, o->name);
            settings_forget(&k->settings, o->name);
        }
        if (!is_known)
            return fail(e, E_INVALID, "--forget %.60s: there is no such option; all forgets every one", name);
    }
    return 0;
}

static int kept_read(struct kept *k, const struct paths *p, struct error *e)
{
    int rc = paths_make(p, e);
    if (rc == 0 && (rc = settings_open(p->etc, true, &k->dir, e)) == 0)
        rc = settings_read(k->dir, p->etc, kept_options, &k->settings, e);
    return explain_denied(rc, e);
}

// From now on the command's own options are what it was told, and what is kept of the others.
static void apply(struct cli_context *ctx, const struct settings *s, const struct cli_option *options)
{
    for (; options->name; options++) {
        const char *value = settings_value(s, options->name);
        if (value)
            cli_set_default(ctx, options->name, value);
    }
}

static int kept_write(struct kept *k, const struct paths *p, struct error *e)
{
    AUTO(close) int dir = TAKE(k->dir, -1);
    char text[PATH_SIZE + 100];
    if (!k->is_changed)
        return 0;
    int rc = settings_write(dir, &k->settings, e);
    if (rc < 0)
        return explain_denied(rc, e);
    snprintf(text, sizeof text, "options are kept in %s/%s", p->etc, SETTINGS_FILE);
    say(text);
    return 0;
}

static int run_up(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct control_options control;
    struct agent_options agent;
    struct paths p;
    __attribute__((cleanup(kept_done))) struct kept kept = { .dir = -1 };
    (void)argc;
    (void)argv;
    said_to = ctx->out;
    int rc = paths_init(&p, ctx->root, e);
    if (rc < 0 || (rc = kept_read(&kept, &p, e)) < 0 || (rc = forget(&kept, ctx, e)) < 0)
        return rc;
    if (!note_options(&kept, ctx, control_options, &kept.up.has_control, e) || !note_options(&kept, ctx, agent_options, &kept.up.has_agent, e))
        return -(int)e->code;
    apply(ctx, &kept.settings, kept_options);
    if ((rc = read_control(ctx, &control, e)) < 0 || (rc = read_agent(ctx, &agent, e)) < 0) // what is wrong is told here, not in a log
        return rc;
    if ((rc = kept_write(&kept, &p, e)) < 0)
        return rc;
    kept.up.config = agent.config;
    kept.up.control_at = agent.control;
    return role_up(&p, &kept.up, say, e);
}

static int run_join(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct agent_options agent;
    struct paths p;
    __attribute__((cleanup(kept_done))) struct kept kept = { .dir = -1 };
    const char *token = cli_value(ctx, "token");
    (void)argc;
    if (!token)
        return fail(e, E_INVALID, "--token is missing: `flocker node token` on the control host prints one");
    said_to = ctx->out;
    int rc = paths_init(&p, ctx->root, e);
    if (rc < 0 || (rc = kept_read(&kept, &p, e)) < 0)
        return rc;
    if (!note_options(&kept, ctx, agent_options, &kept.up.has_agent, e))
        return -(int)e->code;
    apply(ctx, &kept.settings, agent_options);
    if ((rc = read_agent(ctx, &agent, e)) < 0 || (rc = role_join(&p, argv[0], token, say, e)) < 0 || (rc = kept_write(&kept, &p, e)) < 0 ||
        cli_value(ctx, "no-start"))
        return rc;
    kept.up.config = agent.config;
    return role_up(&p, &kept.up, say, e);
}

// The paths, and the command's options: those given, and those kept.
static int read_own(struct cli_context *ctx, const struct cli_option *options, struct paths *p, struct settings *kept, struct error *e)
{
    AUTO(close) int dir = -1;
    int rc = paths_init(p, ctx->root, e);
    if (rc < 0)
        return rc;
    if ((rc = settings_open(p->etc, false, &dir, e)) == 0)
        rc = settings_read(dir, p->etc, kept_options, kept, e);
    if (rc < 0 && rc != -E_NOT_FOUND)
        return explain_denied(rc, e);
    apply(ctx, kept, options);
    return 0;
}

static int run_control(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct control_options o;
    struct paths p;
    __attribute__((cleanup(settings_done))) struct settings kept = { NULL, 0 };
    (void)argc;
    (void)argv;
    int rc = read_own(ctx, control_options, &p, &kept, e);
    return rc < 0 || (rc = read_control(ctx, &o, e)) < 0 ? rc : role_control(&p, &o, e);
}

static int run_agent(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct agent_options o;
    struct paths p;
    __attribute__((cleanup(settings_done))) struct settings kept = { NULL, 0 };
    (void)argc;
    (void)argv;
    int rc = read_own(ctx, agent_options, &p, &kept, e);
    if (rc < 0 || (rc = read_agent(ctx, &o, e)) < 0)
        return rc;
    const char *agents = settings_value(&kept, "agents");
    if (!o.peers && agents && strcmp(agents, "none") != 0)
        o.peers = PEERS_DEFAULT; // volumes of the control host are to move to those others
    return role_agent(&p, &o, e);
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
      "Options count when the two are started, and are kept in /etc/flocker/flocker.conf for each later start, until they are given again with "
      "another value or forgotten; --format and --backend are not. The file may be edited: it has an option a line, without the dashes. `flocker control` and "
      "`flocker agent` read it too.\n\n"
      "    flocker up\n    flocker up --pool=/dev/sdb --format\n    flocker up --forget=pool",
      up_options, run_up, NULL, NULL, false },
    { "join", "HOST", "make this host a node of a cluster",
      "HOST, or HOST:PORT, is where the control service is. The token says which service that must be, and lets this host in. The key of "
      "this host is made here and stays here. Then the agent is started, as by `flocker up`, which keeps the options too.\n\n"
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
