#include "main/roles.h"

#include "agent/admin.h"
#include "agent/agent.h"
#include "client/config.h"
#include "base/log.h"
#include "base/mem.h"
#include "docker/plugin.h"
#include "main/certificates.h"
#include "main/daemon.h"
#include "main/listen.h"
#include "main/upstream.h"
#include "net/http.h"
#include "net/pki.h"
#include "net/socket.h"
#include "sys/process.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

DEFINE_AUTO(struct agent *, agent_free)
DEFINE_AUTO(struct plugin *, plugin_free)
DEFINE_AUTO(struct http_server *, http_server_free)
DEFINE_AUTO(SSL_CTX *, SSL_CTX_free)

static void auto_daemon(struct daemon *d)
{
    daemon_done(d);
}

static enum backend_source source_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return POOL_FILE;
    return S_ISBLK(st.st_mode) ? POOL_DEVICE : S_ISDIR(st.st_mode) ? POOL_DIRECTORY : POOL_FILE;
}

static const char *first(const char *a, const char *b, const char *c)
{
    return a ? a : b ? b : c;
}

static int configure(const struct paths *p, const struct agent_options *o, const struct config *file, struct agent_config *config, struct error *e)
{
    const char *pool = first(o->pool, file->pool, p->pool_file), *backend = first(o->backend, file->backend, "btrfs");
    config->backend = backend_find(backend);
    if (!config->backend)
        return fail(e, E_INVALID, "there is no backend '%.40s': there are btrfs and memory", backend);
    config->pool = (struct backend_config){
        .source = source_of(pool),
        .path = pool,
        .file_size = o->pool_size ? o->pool_size : file->pool_size,
        .pool_dir = p->pool,
        .mount_root = file->mount_root ? file->mount_root : p->mount_root,
        .use_qgroups = o->qgroups || file->qgroups,
        .may_format = o->format || file->format,
    };
    config->era = process_boot_id();
    config->host = o->host;
    config->refs_dir = p->refs;
    config->docker_socket = first(o->docker_socket, p->docker_sock, NULL);
    return certificates_node(p->etc, &config->node, e);
}

static int find_control(const struct paths *p, const char *option, const struct config *file, struct upstream *u, SSL_CTX **tls,
                        struct agent_config *config, struct error *e)
{
    char ca[600], crt[600], key[600];
    int rc = upstream_find(file, option, u, e);
    if (rc < 0)
        return rc;
    if (!u->is_remote) {
        config->control_socket = p->agents_sock;
        return 0;
    }
    snprintf(ca, sizeof ca, "%s/cluster.crt", p->etc);
    snprintf(crt, sizeof crt, "%s/node.crt", p->etc);
    snprintf(key, sizeof key, "%s/node.key", p->etc);
    rc = pki_client_context(ca, crt, key, tls, e);
    if (rc == 0)
        rc = pki_expect_name(*tls, PKI_CONTROL_NAME, e);
    config->control_host = u->host;
    config->control_port = u->port;
    config->control_tls = *tls;
    return rc;
}

// The door at which agents of other nodes fetch volumes, and this one's way through theirs.
static int open_peers(const struct paths *p, const char *where, struct agent_config *config, SSL_CTX **server, SSL_CTX **client, struct error *e)
{
    char ca[600], crt[600], key[600];
    int fd = -1;
    snprintf(ca, sizeof ca, "%s/cluster.crt", p->etc);
    snprintf(crt, sizeof crt, "%s/node.crt", p->etc);
    snprintf(key, sizeof key, "%s/node.key", p->etc);
    int rc = pki_client_context(ca, crt, key, client, e);
    config->peer_client = *client;
    if (rc < 0 || strcmp(where, "none") == 0)
        return rc;
    rc = pki_server_context(ca, crt, key, server, e);
    if (rc == 0)
        rc = listen_tcp("peers", "peers", where, &fd, e);
    if (rc < 0)
        return rc;
    config->peer_server = *server;
    config->peer_fd = fd;
    config->peer_port = socket_port(fd);
    return 0;
}

static int open_tls_door(const struct paths *p, const char *where, struct plugin_config *config, SSL_CTX **tls, struct error *e)
{
    char ca[600], crt[600], key[600];
    if (!where)
        return 0;
    snprintf(ca, sizeof ca, "%s/cluster.crt", p->etc);
    snprintf(crt, sizeof crt, "%s/plugin.crt", p->etc);
    snprintf(key, sizeof key, "%s/plugin.key", p->etc);
    int rc = pki_server_context(ca, crt, key, tls, e);
    if (rc == 0)
        rc = listen_tcp("plugin-tls", "plugin-listen", where, &config->tcp_fd, e);
    config->tls = *tls;
    return rc;
}

// What of TLS the agent has in use.
struct in_use {
    const struct paths *paths;
    SSL_CTX *control, *plugin, *peer_server, *peer_client;
};

static void reload(const struct paths *p, SSL_CTX *ctx, const char *file)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *crt = xasprintf("%s/%s.crt", p->etc, file), *key = xasprintf("%s/%s.key", p->etc, file);
    if (ctx && pki_reload(ctx, crt, key, &e) < 0)
        log_error("certificates stay as they were: %s", e.msg);
}

static void on_certificates(void *arg)
{
    const struct in_use *u = arg;
    reload(u->paths, u->control, "node");
    reload(u->paths, u->peer_server, "node");
    reload(u->paths, u->peer_client, "node");
    reload(u->paths, u->plugin, "plugin");
}

// A dead socket would cost every volume command of Docker 15 s. systemd's own stays, and queues calls until the agent is back.
static void remove_dead_socket(const char *path)
{
    if (socket_from_systemd("plugin") < 0)
        unlink(path);
}

int role_agent(const struct paths *p, const struct agent_options *o, struct error *e)
{
    __attribute__((cleanup(auto_daemon))) struct daemon d = DAEMON_INIT;
    AUTO(SSL_CTX_free) SSL_CTX *tls = NULL;
    AUTO(SSL_CTX_free) SSL_CTX *control_tls = NULL;
    AUTO(SSL_CTX_free) SSL_CTX *peer_server = NULL;
    AUTO(SSL_CTX_free) SSL_CTX *peer_client = NULL;
    struct upstream upstream;
    AUTO(agent_free) struct agent *agent = NULL;
    AUTO(http_server_free) struct http_server *admin = NULL;
    AUTO(plugin_free) struct plugin *plugin = NULL;
    __attribute__((cleanup(config_done))) struct config file = { NULL };
    struct agent_config config = { .node = { { 0 } } };
    struct plugin_config doors = { .tcp_fd = -1 };
    int admin_fd = -1;
    int rc = daemon_init(&d, "flocker-agent", e);
    if (rc < 0 || (rc = paths_make(p, e)) < 0 || (rc = daemon_lock(&d, p->agent_lock, e)) < 0 || (rc = upstream_read_config(p, o->config, &file, e)) < 0 ||
        (rc = configure(p, o, &file, &config, e)) < 0 || (rc = find_control(p, o->control, &file, &upstream, &control_tls, &config, e)) < 0)
        return rc;
    if ((rc = open_peers(p, o->peers ? o->peers : upstream.is_remote ? PEERS_DEFAULT : "none", &config, &peer_server, &peer_client, e)) < 0)
        return rc;
    struct in_use tls_in_use = { p, control_tls, NULL, peer_server, peer_client };
    certificates_look_at_keys(p->etc);
    config.pki_dir = p->etc;
    config.on_certificates = on_certificates;
    config.on_certificates_arg = &tls_in_use;
    if (file.note[0])
        log_info("%s", file.note);
    config.base = doors.base = d.base;
    if ((rc = listen_unix("agent", p->agent_sock, &admin_fd, e)) < 0 || (rc = listen_unix("plugin", p->plugin_sock, &doors.unix_fd, e)) < 0 ||
        (rc = open_tls_door(p, first(o->plugin_listen, file.docker_listen, NULL), &doors, &tls, e)) < 0 || (rc = agent_new(&config, &agent, e)) < 0)
        return rc;
    admin = admin_new(d.base, admin_fd, agent, e);
    if (!admin)
        return -(int)e->code;
    tls_in_use.plugin = tls;
    doors.agent = agent;
    if ((rc = plugin_new(&doors, &plugin, e)) < 0)
        return rc;
    rc = daemon_run(&d, p->agent_pid, e);
    remove_dead_socket(p->plugin_sock);
    return rc;
}
