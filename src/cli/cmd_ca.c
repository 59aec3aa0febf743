// The cluster's certificate authority: files in, files out, nothing of the network. Also flocker-ca, with the verbs of the original Flocker.
#include "cli/internal.h"

#include "base/rng.h"
#include "net/pki.h"

#include <arpa/inet.h>
#include <string.h>

#define FILE_SIZE 320

// What is to be made: where its files go, what stands in it, and what is said of it.
struct wish {
    char file[FILE_SIZE]; // without suffix
    char common_name[PKI_NAME_SIZE];
    const char *dns[4], *ip[4]; // end with NULL
    unsigned use;
};

// By the key: cluster.crt alone is also where a user keeps his own certificate.
static bool has_ca(const char *dir)
{
    AUTO(free) char *path = xasprintf("%s/%s.key", dir, PKI_CA_FILE);
    return access(path, F_OK) == 0;
}

// Where cluster.crt and cluster.key are: as said, or here, or where Flocker keeps them.
static char *input_dir(const struct cli_context *ctx)
{
    const char *said = cli_value(ctx, "inputpath");
    return said ? xstrdup(said) : has_ca(".") ? xstrdup(".") : cli_path(ctx, CERTS_DIR);
}

static const char *output_dir(const struct cli_context *ctx)
{
    const char *said = cli_value(ctx, "outputpath");
    return said ? said : ".";
}

static int check_dir(const char *dir, struct error *e)
{
    return access(dir, F_OK) == 0 ? 0 : fail(e, E_NOT_FOUND, "path %s does not exist", dir);
}

// Names become file names and certificates' subjects.
static int check_name(const char *name, struct error *e)
{
    size_t n = strlen(name);
    if (n == 0 || n > 58 || name[0] == '.' || strchr(name, '/'))
        return fail(e, E_INVALID, "\"%.60s\" is not a name of 1 to 58 characters, without slashes, that does not begin with a dot", name);
    return 0;
}

static int make(struct cli_context *ctx, const struct wish *w, struct error *e)
{
    AUTO(free) char *input = input_dir(ctx);
    const char *output = output_dir(ctx);
    int rc = check_dir(input, e);
    if (rc < 0 || (rc = check_dir(output, e)) < 0)
        return rc;
    const struct pki_request r = { .common_name = w->common_name, .use = w->use, .dns = w->dns, .ip = w->ip, .days = PKI_DAYS };
    rc = cli_value(ctx, "renew") ? pki_renew(input, output, w->file, PKI_DAYS, e) : pki_make_certificate(input, output, w->file, &r, e);
    if (rc == 0)
        ctx->result = json_pack("{s:o, s:o, s:o}", "subject", text_to_json(w->common_name), "directory", text_to_json(output), "file",
                                text_to_json(w->file));
    return rc;
}

static void add_host(struct wish *w, const char *host)
{
    struct in6_addr any;
    bool is_address = inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
    const char **list = is_address ? w->ip : w->dns;
    while (*list)
        list++;
    *list = host;
}

static bool renewed(struct cli_context *ctx, const struct wish *w)
{
    if (!cli_value(ctx, "renew"))
        return false;
    AUTO(free) char *file = text_escape(w->file);
    fprintf(ctx->out, "Renewed %s.crt. Its key stays the same.\n", file);
    return true;
}

// ---- commands

static int run_init(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const char *output = output_dir(ctx);
    (void)argc;
    int rc = check_name(argv[0], e);
    if (rc < 0 || (rc = check_dir(output, e)) < 0 || (rc = pki_make_ca(output, argv[0], PKI_CA_DAYS, e)) < 0)
        return rc;
    fprintf(ctx->out, "Created cluster.key and cluster.crt. Please keep cluster.key secret, as anyone who can access it will be able to "
                      "control your cluster.\n");
    ctx->result = json_pack("{s:o}", "directory", text_to_json(output));
    return 0;
}

static int run_control(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct wish w = { .common_name = PKI_CONTROL_NAME, .dns = { PKI_CONTROL_NAME }, .use = PKI_SERVER };
    (void)argc;
    if (strlen(argv[0]) > 253)
        return fail(e, E_INVALID, "a host name has at most 253 characters");
    snprintf(w.file, sizeof w.file, "control-%s", argv[0]);
    add_host(&w, argv[0]);
    int rc = strchr(argv[0], '/') ? fail(e, E_INVALID, "\"%.60s\" is neither a host name nor an address", argv[0]) : make(ctx, &w, e);
    if (rc < 0 || renewed(ctx, &w))
        return rc;
    fprintf(ctx->out, "Created %s.crt and %s.key. Copy them to /etc/flocker/control-service.crt and /etc/flocker/control-service.key on your "
                      "control service machine and make sure to chmod 0600 them.\n", w.file, w.file);
    return 0;
}

static int run_node(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct uuid id = rng_uuid();
    struct wish w = { .use = PKI_SERVER | PKI_CLIENT };
    if (argc > 0 && !uuid_parse(argv[0], &id))
        return fail(e, E_INVALID, "\"%.60s\" is not the id of a node", argv[0]);
    if (argc == 0 && cli_value(ctx, "renew"))
        return fail(e, E_INVALID, "which node's certificate is to be renewed? Give its id");
    snprintf(w.file, sizeof w.file, "%s", UUID_TEXT(&id));
    snprintf(w.common_name, sizeof w.common_name, "node-%s", UUID_TEXT(&id));
    int rc = make(ctx, &w, e);
    if (rc < 0 || renewed(ctx, &w))
        return rc;
    // Tools of the original Flocker's time take the id from between the first space and the first dot.
    fprintf(ctx->out, "Created %s.crt. Copy it over to /etc/flocker/node.crt on your node machine and make sure to chmod 0600 it.\n", w.file);
    return 0;
}

static int run_user(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct wish w = { .use = PKI_CLIENT };
    (void)argc;
    int rc = check_name(argv[0], e);
    if (rc < 0)
        return rc;
    snprintf(w.file, sizeof w.file, "%s", argv[0]);
    snprintf(w.common_name, sizeof w.common_name, PKI_USER_PREFIX "%s", argv[0]);
    if ((rc = make(ctx, &w, e)) < 0 || renewed(ctx, &w))
        return rc;
    AUTO(free) char *shown = text_escape(argv[0]);
    fprintf(ctx->out, "Created %s.crt. You can now give it to your API enduser so they can access the control service API.\n", shown);
    return 0;
}

// The two ends of the plugin's TLS door.
static int run_plugin(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct wish w = { .file = "plugin", .common_name = "plugin-flocker", .dns = { "localhost" }, .ip = { "127.0.0.1", "::1" }, .use = PKI_SERVER };
    if (argc > 0)
        add_host(&w, argv[0]);
    int rc = make(ctx, &w, e);
    if (rc == 0 && !renewed(ctx, &w))
        fprintf(ctx->out, "Created plugin.crt and plugin.key. Copy them to /etc/flocker on the host whose agent has --plugin-listen.\n");
    return rc;
}

static int run_engine(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct wish w = { .file = "engine", .common_name = "engine-docker", .use = PKI_CLIENT };
    (void)argc;
    (void)argv;
    int rc = make(ctx, &w, e);
    if (rc == 0 && !renewed(ctx, &w))
        fprintf(ctx->out, "Created engine.crt and engine.key. The engine shows them to the plugin's TLS door.\n");
    return rc;
}

// ---- tables

#define OUTPUT { "outputpath", 'o', "DIR", "Write the files there. Default: the present directory." }
#define INPUT  { "inputpath", 'i', "DIR", "Directory of cluster.crt and cluster.key. Default: the present one if it has cluster.key, or else /etc/flocker." }
#define END    { NULL, 0, NULL, NULL }

static const struct cli_option init_options[] = { OUTPUT, END };
static const struct cli_option options[] = {
    INPUT, OUTPUT, { "renew", 0, NULL, "Make the certificate valid for another year; its key stays the same." }, END,
};

const struct cli_command commands_ca[] = {
    { .name = "ca init",
      .args = "NAME",
      .summary = "make a certificate authority for a new cluster",
      .text = "Writes cluster.crt, which every host gets, and cluster.key, which whoever has it controls the cluster with. `flocker up` "
              "does this by itself in /etc/flocker.\n\n    flocker ca init mycluster",
      .options = init_options,
      .run = run_init },
    { .name = "ca control",
      .args = "HOST",
      .summary = "make the control service's certificate",
      .text = "HOST is the name or address by which clients call it; it is written into the certificate beside \"control-service\"."
              "\n\n    flocker ca control control.example.com",
      .options = options,
      .run = run_control },
    { .name = "ca node",
      .args = "[ID]",
      .summary = "make a node's certificate",
      .text = "For hosts that can't `flocker join`. Without an ID it is a new node.\n\n    flocker ca node",
      .options = options,
      .run = run_node },
    { .name = "ca user",
      .args = "NAME",
      .summary = "make a certificate for a user of the REST API",
      .text = "With it, the command line and the REST API work from any host.\n\n"
              "    flocker ca user alice\n    flocker --certs-path . --user alice --control-service 10.0.0.1 volume ls\n"
              "    flocker ca user alice --renew",
      .options = options,
      .run = run_user,
      .also = "api" },
    { .name = "ca plugin",
      .args = "[HOST]",
      .summary = "make the certificate of the volume plugin's TLS door",
      .text = "See `flocker agent --plugin-listen`.\n\n    flocker ca plugin",
      .options = options,
      .run = run_plugin },
    { .name = "ca engine",
      .args = "",
      .summary = "make the certificate with which an engine uses that door",
      .text = "    flocker ca engine",
      .options = options,
      .run = run_engine },
    { .name = "ca initialize", .args = "NAME", .summary = "as ca init", .options = init_options, .run = run_init, .hidden = true },
    { .name = "ca create-control-certificate", .args = "HOST", .summary = "as ca control", .options = options, .run = run_control, .hidden = true },
    { .name = "ca create-node-certificate", .args = "", .summary = "as ca node", .options = options, .run = run_node, .hidden = true },
    { .name = "ca create-api-certificate", .args = "NAME", .summary = "as ca user", .options = options, .run = run_user, .hidden = true },
    { NULL },
};
