#include "main/certificates.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/pki.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_there(const char *etc, const char *file, const char *suffix)
{
    AUTO(free) char *path = xasprintf("%s/%s.%s", etc, file, suffix);
    return access(path, F_OK) == 0;
}

// A `flocker join` that was refused, or a start that was interrupted, leaves a key without a certificate: that key is as good as a new one.
static int certify_key(const char *etc, const char *file, const struct pki_request *r, struct error *e)
{
    char *request = NULL, *certificate = NULL;
    int rc = pki_make_request(etc, file, &request, e);
    if (rc == 0 && (rc = pki_sign(etc, request, strlen(request), r, &certificate, e)) == 0)
        rc = pki_install(etc, file, certificate, e);
    free(request);
    free(certificate);
    return rc;
}

static int make_pair(const char *etc, const char *file, const struct pki_request *r, struct error *e)
{
    bool is_left = is_there(etc, file, "key") && !is_there(etc, file, "crt");
    return is_left ? certify_key(etc, file, r, e) : pki_make_certificate(etc, etc, file, r, e);
}

int certificates_make(const char *etc, struct error *e)
{
    char node[64], host[256] = "localhost";
    const struct uuid id = rng_uuid();
    snprintf(node, sizeof node, "node-%s", UUID_TEXT(&id));
    gethostname(host, sizeof host - 1);
    const char *const names[] = { PKI_CONTROL_NAME, "localhost", host, NULL }, *const local[] = { "localhost", host, NULL };
    const char *const addresses[] = { "127.0.0.1", "::1", NULL };
    const struct {
        const char *file;
        struct pki_request request;
    } all[] = {
        { "control-service", { PKI_CONTROL_NAME, PKI_SERVER, names, addresses, PKI_DAYS } },
        { "node", { node, PKI_SERVER | PKI_CLIENT, local, addresses, PKI_DAYS } },
        { "user", { "user-admin", PKI_CLIENT, NULL, NULL, PKI_DAYS } },
        { "plugin", { "plugin-flocker", PKI_SERVER, local, addresses, PKI_DAYS } },
        { "engine", { "engine-docker", PKI_CLIENT, NULL, NULL, PKI_DAYS } },
    };
    int rc;
    if (is_there(etc, PKI_CA_FILE, "crt") && !is_there(etc, PKI_CA_FILE, "key")) {
        if (pki_has(etc, all[0].file))
            return 0;
        return fail(e, E_CONFLICT, "the cluster's certificate in %s was made elsewhere, and %s.crt and .key are missing there: make them where "
                    "cluster.key is, with `flocker ca control HOST`, and copy them here", etc, all[0].file);
    }
    if (!pki_has(etc, PKI_CA_FILE) && (rc = pki_make_ca(etc, host, PKI_CA_DAYS, e)) < 0)
        return fail_ctx(e, rc, "make the cluster's certificates");
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (!pki_has(etc, all[i].file) && (rc = make_pair(etc, all[i].file, &all[i].request, e)) < 0)
            return fail_ctx(e, rc, "make certificate %s", all[i].file);
    return 0;
}

int certificates_node(const char *etc, struct uuid *ret, struct error *e)
{
    char path[600], name[128];
    snprintf(path, sizeof path, "%s/node.crt", etc);
    int rc = pki_common_name(path, name, sizeof name, e);
    if (rc < 0)
        return rc;
    if (strncmp(name, "node-", 5) != 0 || !uuid_parse(name + 5, ret))
        return fail(e, E_INVALID, "%s is not a node's certificate: its subject is '%s'", path, name);
    return 0;
}

void certificates_look_at_keys(const char *etc)
{
    static const char *const files[] = { PKI_CA_FILE, "control-service", "node", "user", "plugin", "engine" };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        AUTO(free) char *path = xasprintf("%s/%s.key", etc, files[i]);
        struct stat st;
        if (stat(path, &st) == 0 && (st.st_mode & 077 || (st.st_uid != 0 && st.st_uid != geteuid())))
            log_warn("%s is not root's alone (owner %u, mode %04o): `chown root: %s; chmod 0600 %s`, and certify anew if others may have read it", path,
                     st.st_uid, st.st_mode & 07777, path, path);
    }
}
