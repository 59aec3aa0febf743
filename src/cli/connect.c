// Where control is, for a command: what the command line says, then the environment, then a socket of this host, then agent.yml.
#include "cli/internal.h"

#include "client/config.h"
#include "net/pki.h"

#include <string.h>

#define REST_PORT 4523

static const char *setting(const struct cli_context *ctx, const char *option, const char *variable)
{
    const char *said = cli_value(ctx, option);
    if (!said)
        said = getenv(variable);
    return said && *said ? said : NULL;
}

static bool is_local(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strncmp(host, "127.", 4) == 0;
}

// The host that agent.yml names, if that is another one; NULL.
static const char *host_of_config(const struct cli_context *ctx, const char *certs)
{
    AUTO(free) char *path = xasprintf("%s/agent.yml", certs);
    struct config file = { NULL };
    struct error ignored = ERROR_INIT; // the agent tells what is wrong with its file
    const char *host = NULL;
    if (config_read(path, &file, &ignored) == 0 && !is_local(file.control_host))
        host = cli_keep(ctx, TAKE(file.control_host, NULL));
    config_done(&file);
    return host;
}

static struct client by_tls(const struct cli_context *ctx, const char *host, const char *certs)
{
    const char *user = setting(ctx, "user", "FLOCKER_USER");
    struct error checked; // when the options were read
    uint64_t port = REST_PORT;
    user = user ? user : "user";
    int rc = cli_number(ctx, "control-port", 10, UINT16_MAX, &port, &checked);
    ASSERT(rc == 0);
    return (struct client){
        .host = host,
        .port = (uint16_t)port,
        .verify_name = PKI_CONTROL_NAME,
        .hint = "is control's REST API served there? By default it is on 127.0.0.1 alone; `flocker up --rest=0.0.0.0:4523` on its host changes that",
        .ca = cli_keep(ctx, xasprintf("%s/%s.crt", certs, PKI_CA_FILE)),
        .certificate = cli_keep(ctx, xasprintf("%s/%s.crt", certs, user)),
        .key = cli_keep(ctx, xasprintf("%s/%s.key", certs, user)),
    };
}

struct client cli_control(const struct cli_context *ctx)
{
    const char *path = cli_value(ctx, "socket"), *certs = setting(ctx, "certs-path", "FLOCKER_CERTS_PATH");
    const char *host = path ? NULL : setting(ctx, "control-service", "FLOCKER_CONTROL_SERVICE");
    bool is_said = path != NULL;
    if (!certs)
        certs = cli_keep(ctx, cli_path(ctx, CERTS_DIR));
    if (!path)
        path = cli_keep(ctx, cli_path(ctx, CONTROL_SOCKET));
    if (!host && !is_said && access(path, F_OK) != 0)
        host = host_of_config(ctx, certs);
    if (host)
        return by_tls(ctx, host, certs);
    return (struct client){ .unix_path = path, .hint = "is `flocker up` done, or `flocker control` running?" };
}

struct client cli_agent(const struct cli_context *ctx)
{
    return (struct client){ .unix_path = cli_keep(ctx, cli_path(ctx, AGENT_SOCKET)), .hint = "is `flocker up` done, or `flocker agent` running?" };
}
