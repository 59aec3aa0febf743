#include "main/roles.h"

#include "base/log.h"
#include "base/mem.h"
#include "control/control.h"
#include "main/certificates.h"
#include "main/daemon.h"
#include "main/listen.h"
#include "main/renewal.h"
#include "net/pki.h"
#include "net/socket.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

DEFINE_AUTO(struct control *, control_free)
DEFINE_AUTO(SSL_CTX *, SSL_CTX_free)

static void auto_daemon(struct daemon *d)
{
    daemon_done(d);
}

static int open_sockets(const struct paths *p, const struct control_options *o, struct control_config *config, struct error *e)
{
    int rc = listen_unix("agents", p->agents_sock, &config->agents_fd, e);
    if (rc == 0)
        rc = listen_unix("control", p->control_sock, &config->api_fd, e);
    config->rest_fd = -1;
    if (rc == 0 && strcmp(o->rest, "none") != 0)
        rc = listen_tcp("rest", "rest", o->rest, &config->rest_fd, e);
    if (rc == 0 && strcmp(o->agents, "none") != 0)
        rc = listen_tcp("agents-tls", "agents", o->agents, &config->agents_tls_fd, e);
    else
        config->agents_tls = NULL;
    return rc;
}

static int open_contexts(const struct paths *p, SSL_CTX **rest, SSL_CTX **agents, struct error *e)
{
    char ca[600], crt[600], key[600];
    snprintf(ca, sizeof ca, "%s/cluster.crt", p->etc);
    snprintf(crt, sizeof crt, "%s/control-service.crt", p->etc);
    snprintf(key, sizeof key, "%s/control-service.key", p->etc);
    int rc = pki_server_context(ca, crt, key, rest, e);
    if (rc == 0 && (rc = pki_server_context(ca, crt, key, agents, e)) == 0)
        pki_allow_anonymous(*agents);
    return rc;
}

int role_control(const struct paths *p, const struct control_options *o, struct error *e)
{
    __attribute__((cleanup(auto_daemon))) struct daemon d = DAEMON_INIT;
    AUTO(SSL_CTX_free) SSL_CTX *rest = NULL;
    AUTO(SSL_CTX_free) SSL_CTX *agents = NULL;
    AUTO(control_free) struct control *control = NULL;
    struct control_config config = { .store = &store_sqlite, .store_path = p->store, .pki_dir = p->etc, .trash_keep_ms = o->trash_keep_s * 1000 };
    int rc = daemon_init(&d, "flocker-control", e);
    if (rc < 0 || (rc = paths_make(p, e)) < 0 || (rc = daemon_lock(&d, p->control_lock, e)) < 0 || (rc = certificates_make(p->etc, e)) < 0 ||
        (rc = open_contexts(p, &rest, &agents, e)) < 0)
        return rc;
    certificates_look_at_keys(p->etc);
    config.base = d.base;
    config.tls = rest;
    config.agents_tls = agents;
    if ((rc = open_sockets(p, o, &config, e)) < 0 || (rc = control_new(&config, &control, e)) < 0)
        return rc;
    struct renewal *renewal = renewal_new(d.base, p, rest, agents);
    rc = daemon_run(&d, p->control_pid, e);
    renewal_free(renewal);
    return rc;
}
