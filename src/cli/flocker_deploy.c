// flocker-deploy: gives control an application and a deployment in YAML, as the original's.
#include "cli/flockerctl_internal.h"

#include "base/mem.h"
#include "cli/internal.h"
#include "cli/yaml.h"

#include <getopt.h>

enum { DEPLOY_PORT, DEPLOY_CA, DEPLOY_CERT, DEPLOY_KEY, DEPLOY_FOLDER, DEPLOY_COUNT };

static const struct option deploy_options[] = {
    { "port", required_argument, NULL, DEPLOY_PORT },   { "cacert", required_argument, NULL, DEPLOY_CA },
    { "cert", required_argument, NULL, DEPLOY_CERT },   { "key", required_argument, NULL, DEPLOY_KEY },
    { "certificates-directory", required_argument, NULL, DEPLOY_FOLDER }, { "help", no_argument, NULL, CTL_HELP },
    { "version", no_argument, NULL, CTL_VERSION }, { NULL, 0, NULL, 0 },
};

static const char deploy_usage[] =
    "Usage: flocker-deploy [OPTIONS] <control-host> <deployment.yml-path> <application.yml-path>\n"
    "  -p, --port                     The REST API port on the server. [default: 4523]\n"
    "      --cacert, --cert, --key    Files of the cluster's certificate, the user's certificate and its key.\n"
    "  -c, --certificates-directory   The folder with cluster.crt, user.crt and user.key instead. [default: the present one]\n";

static int deploy(struct ctl_link *l, FILE *out, const char *const *given, char **words, struct error *e)
{
    const char *folder = given[DEPLOY_FOLDER] ? given[DEPLOY_FOLDER] : ".";
    AUTO(free) char *ca = given[DEPLOY_CA] ? xstrdup(given[DEPLOY_CA]) : xasprintf("%s/cluster.crt", folder);
    AUTO(free) char *cert = given[DEPLOY_CERT] ? xstrdup(given[DEPLOY_CERT]) : xasprintf("%s/user.crt", folder);
    AUTO(free) char *key = given[DEPLOY_KEY] ? xstrdup(given[DEPLOY_KEY]) : xasprintf("%s/user.key", folder);
    AUTO(json_decref) json_t *deployment = NULL;
    AUTO(json_decref) json_t *applications = NULL;
    if (given[DEPLOY_FOLDER] && (given[DEPLOY_CA] || given[DEPLOY_CERT] || given[DEPLOY_KEY]))
        return fail(e, E_INVALID, "--certificates-directory excludes --cacert, --cert and --key");
    int rc = yaml_read_file(words[1], &deployment, e);
    if (rc < 0 || (rc = yaml_read_file(words[2], &applications, e)) < 0)
        return rc;
    l->host = xstrdup(words[0]);
    if ((rc = ctl_link_open(l, given[DEPLOY_PORT] ? given[DEPLOY_PORT] : CTL_PORT_DEFAULT, ca, cert, key, e)) < 0)
        return rc;
    json_t *body = json_pack("{s:O, s:O}", "applications", applications, "deployment", deployment);
    rc = client_call(&l->client, "POST", "/v1/configuration/_compose", body, NULL, e);
    if (rc == 0)
        fprintf(out, "The cluster configuration has been updated. It may take a short while for changes to take effect, in particular if "
                     "Docker images need to be pulled.\n");
    return rc;
}

int deploy_run(struct ctl_link *l, FILE *out, int argc, char **argv, struct error *e)
{
    const char *given[DEPLOY_COUNT] = { NULL };
    int got;
    optind = 0;
    opterr = 0;
    while ((got = getopt_long(argc, argv, "+:p:c:", deploy_options, NULL)) != -1) {
        if (got == CTL_HELP)
            fputs(deploy_usage, out);
        if (got == CTL_VERSION)
            fprintf(out, "%s\n", FLOCKER_VERSION);
        if (got == CTL_HELP || got == CTL_VERSION)
            return 1;
        const int which = got == 'p' ? DEPLOY_PORT : got == 'c' ? DEPLOY_FOLDER : got;
        if (which < 0 || which >= DEPLOY_COUNT)
            return fail(e, E_INVALID, "option %.60s not recognized, or it lacks its value", argv[optind - 1]);
        given[which] = optarg;
    }
    if (argc - optind != 3)
        return fail(e, E_INVALID, "Wrong number of arguments.\n%s", deploy_usage);
    return deploy(l, out, given, argv + optind, e);
}
