#include "main/certificates.h"

#include "base/mem.h"
#include "base/rng.h"
#include "net/pki.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DAYS 3650

int certificates_make(const char *etc, struct error *e)
{
    char node[64], host[256] = "localhost";
    const struct uuid id = rng_uuid();
    snprintf(node, sizeof node, "node-%s", UUID_TEXT(&id));
    gethostname(host, sizeof host - 1);
    const char *const names[] = { "control-service", "localhost", host, NULL }, *const local[] = { "localhost", host, NULL };
    const char *const addresses[] = { "127.0.0.1", "::1", NULL };
    const struct {
        const char *file;
        struct pki_request request;
    } all[] = {
        { "control-service", { "control-service", PKI_SERVER, names, addresses, DAYS } },
        { "node", { node, PKI_SERVER | PKI_CLIENT, local, addresses, DAYS } },
        { "user", { "user-admin", PKI_CLIENT, NULL, NULL, DAYS } },
        { "plugin", { "plugin-flocker", PKI_SERVER, local, addresses, DAYS } },
        { "engine", { "engine-docker", PKI_CLIENT, NULL, NULL, DAYS } },
    };
    int rc = pki_has(etc, "cluster") ? 0 : -1;
    for (size_t i = 0; i < ARRAY_SIZE(all) && rc == 0; i++)
        rc = pki_has(etc, all[i].file) ? 0 : -1;
    if (rc == 0)
        return 0;
    if (!pki_has(etc, "cluster") && (rc = pki_make_ca(etc, host, DAYS, e)) < 0)
        return fail_ctx(e, rc, "make the cluster's certificates");
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (!pki_has(etc, all[i].file) && (rc = pki_make_certificate(etc, etc, all[i].file, &all[i].request, e)) < 0)
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
