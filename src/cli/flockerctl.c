#include "cli/flockerctl.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"
#include "base/uuid.h"
#include "cli/flockerctl_internal.h"
#include "cli/internal.h"
#include "cli/yaml.h"
#include "net/pki.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/ssl.h>
#include <string.h>

#define PROGRAM_TEXT  "flockerctl 0.0.1, of Flocker " FLOCKER_VERSION
#define SHORT_NODE    8 // characters of a node's id that are shown
#define CHECK_MARK    "\xe2\x9c\x85" // U+2705
#define HOURGLASS     "\xe2\x8c\x9b" // U+231B

// ---- options

enum { CLUSTER_YML, CERTS_PATH, USER, CLUSTER_CRT, CONTROL_SERVICE, CONTROL_PORT, GLOBAL_COUNT };

static const struct {
    const char *name, *environment, *standard, *help;
} globals[GLOBAL_COUNT] = {
    [CLUSTER_YML] = { "cluster-yml", NULL, "./cluster.yml", "Location of cluster.yml file (makes other options unnecessary)" },
    [CERTS_PATH] = { "certs-path", "FLOCKER_CERTS_PATH", ".", "Path to certificates folder" },
    [USER] = { "user", "FLOCKER_USER", "user", "Name of user for which .key and .crt files exist" },
    [CLUSTER_CRT] = { "cluster-crt", NULL, "cluster.crt", "Name of cluster cert file" },
    [CONTROL_SERVICE] = { "control-service", "FLOCKER_CONTROL_SERVICE", NULL, "Hostname or IP of control service" },
    [CONTROL_PORT] = { "control-port", NULL, CTL_PORT_DEFAULT, "Port for control service REST API" },
};

enum { NODE, METADATA, SIZE, DATASET, DESTINATION, LONG, DELETED, HUMAN, OPTION_COUNT };

static const struct option_info {
    const char *name;
    char letter;
    bool has_value;
    const char *help;
} options[OPTION_COUNT] = {
    [NODE] = { "node", 'n', true, "Initial primary node for dataset (any unique prefix of node uuid, see flockerctl list-nodes)" },
    [METADATA] = { "metadata", 'm', true, "Set volume metadata (\"a=b,c=d\")" },
    [SIZE] = { "size", 's', true, "Set size in bytes (default), k, m, g, t" },
    [DATASET] = { "dataset", 'd', true, "Dataset to act on (any unique prefix of its uuid)" },
    [DESTINATION] = { "destination", 't', true, "New primary node to move the dataset to (any unique prefix of node uuid)" },
    [LONG] = { "long", 'l', false, "Show long UUIDs" },
    [DELETED] = { "deleted", 'd', false, "Show deleted datasets" },
    [HUMAN] = { "human", 'h', false, "Human readable numbers" },
};

struct ctl {
    FILE *out;
    const char *global[GLOBAL_COUNT];
    const char *given[OPTION_COUNT]; // "" for one without a value
    struct ctl_link *link;
};

struct command {
    const char *name, *also, *help;
    unsigned takes; // bits of options
    int (*run)(struct ctl *c, struct error *e);
};
#define TAKES(option) (1U << (option))

// ---- where control is and who we are

static int read_port(const char *text, uint16_t *ret, struct error *e)
{
    char *end = NULL;
    const unsigned long port = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || port < 1 || port > UINT16_MAX)
        return fail(e, E_INVALID, "'%.40s' is not a port", text);
    *ret = (uint16_t)port;
    return 0;
}

int ctl_link_open(struct ctl_link *l, const char *port_text, const char *ca, const char *certificate, const char *key, struct error *e)
{
    uint16_t port = 0;
    int rc = read_port(port_text, &port, e);
    if (rc == 0)
        rc = pki_client_context(ca, certificate, key, &l->tls, e);
    // The original checks the chain and no name: its users dial any address that leads there.
    l->client = (struct client){ .host = l->host, .port = port, .tls = l->tls, .any_name = true };
    return rc;
}

// In a container, the host's files are below /host.
static char *host_path(const char *path)
{
    return xasprintf("%s%s", path[0] == '/' && getenv("CONTAINERIZED") ? "/host" : "", path);
}

// The folder of the certificates, and the user's name: of cluster.yml, if there is one.
static int find_certificates(const struct ctl *c, char **ret_folder, char **ret_user, struct error *e)
{
    AUTO(free) char *cluster = host_path(c->global[CLUSTER_YML]);
    AUTO(json_decref) json_t *yml = NULL;
    const char *slash = strrchr(cluster, '/'), *user;
    if (access(cluster, F_OK) != 0) {
        *ret_folder = host_path(c->global[CERTS_PATH]);
        *ret_user = xstrdup(c->global[USER]);
        return 0;
    }
    int rc = yaml_read_file(cluster, &yml, e);
    if (rc < 0)
        return rc;
    user = json_string_value(json_array_get(json_object_get(yml, "users"), 0));
    if (!user)
        return fail(e, E_INVALID, "%s names no user in 'users'", cluster);
    *ret_folder = slash ? xstrndup(cluster, slash > cluster ? (size_t)(slash - cluster) : 1) : xstrdup(".");
    *ret_user = xstrdup(user);
    return 0;
}

static int find_control(struct ctl *c, const char *folder, struct error *e)
{
    if (c->global[CONTROL_SERVICE]) {
        c->link->host = xstrdup(c->global[CONTROL_SERVICE]);
        return 0;
    }
    AUTO(free) char *path = xasprintf("%s/agent.yml", folder);
    AUTO(json_decref) json_t *yml = NULL;
    if (access(path, F_OK) != 0)
        return fail(e, E_INVALID, "Can't find %s, please specify --control-service", path);
    int rc = yaml_read_file(path, &yml, e);
    const char *host = json_string_value(json_object_get(json_object_get(yml, "control-service"), "hostname"));
    if (rc == 0 && !host)
        return fail(e, E_INVALID, "%s has no control-service.hostname, please specify --control-service", path);
    c->link->host = rc == 0 ? xstrdup(host) : NULL;
    return rc;
}

static int connect_control(struct ctl *c, struct error *e)
{
    AUTO(free) char *folder = NULL;
    AUTO(free) char *user = NULL;
    int rc = find_certificates(c, &folder, &user, e);
    if (rc < 0 || (rc = find_control(c, folder, e)) < 0)
        return rc;
    AUTO(free) char *ca = xasprintf("%s/%s", folder, c->global[CLUSTER_CRT]);
    AUTO(free) char *certificate = xasprintf("%s/%s.crt", folder, user), *key = xasprintf("%s/%s.key", folder, user);
    return ctl_link_open(c->link, c->global[CONTROL_PORT], ca, certificate, key, e);
}

static int get(const struct ctl *c, const char *target, json_t **ret, struct error *e)
{
    int rc = client_call(&c->link->client, "GET", target, NULL, ret, e);
    if (rc == 0 && !json_is_array(*ret)) {
        json_decref(*ret);
        *ret = NULL;
        rc = fail(e, E_IO, "%s: the reply is not a list", target);
    }
    return rc;
}

// ---- tables

// As texttable draws them without lines: three blanks between columns, all of them padded, a first line of nothing but blanks.
#define COLUMNS_MAX 5
struct grid {
    size_t columns, rows;
    char *(*cells)[COLUMNS_MAX]; // escaped; the first row holds the headings
};

static void grid_add(struct grid *g, const char *const *cells)
{
    g->cells = xrealloc(g->cells, g->rows + 1, sizeof *g->cells);
    for (size_t i = 0; i < g->columns; i++)
        g->cells[g->rows][i] = text_escape(cells[i]);
    g->rows++;
}

static void grid_print(struct grid *g, FILE *out)
{
    size_t widths[COLUMNS_MAX] = { 0 };
    for (size_t row = 0; row < g->rows; row++)
        for (size_t i = 0; i < g->columns; i++)
            if (widths[i] < text_width(g->cells[row][i]))
                widths[i] = text_width(g->cells[row][i]);
    for (size_t line = 0; line <= g->rows; line++) {
        for (size_t i = 0; i < g->columns; i++) {
            const char *text = line ? g->cells[line - 1][i] : "";
            fprintf(out, "%s%s%*s", i ? "   " : "", text, (int)(widths[i] - text_width(text)), "");
        }
        fputc('\n', out);
    }
    for (size_t row = 0; row < g->rows; row++)
        for (size_t i = 0; i < g->columns; i++)
            free(g->cells[row][i]);
    free(g->cells);
}

// ---- what is in the lists

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text ? text : "";
}

static const json_t *with(const json_t *list, const char *member, const char *text)
{
    const json_t *item;
    size_t i;
    json_array_foreach (list, i, item) {
        if (strcmp(text_of(item, member), text) == 0)
            return item;
    }
    return NULL;
}

// The one item whose id begins with the prefix.
static int by_prefix(const json_t *list, const char *member, const char *prefix, const char *what, const json_t **ret, struct error *e)
{
    const json_t *item, *found = NULL;
    size_t i;
    json_array_foreach (list, i, item) {
        if (strncmp(text_of(item, member), prefix, strlen(prefix)) != 0)
            continue;
        if (found)
            return fail(e, E_INVALID, "Ambiguous %s uuid '%.40s' specified.", what, prefix);
        found = item;
    }
    if (!found)
        return fail(e, E_INVALID, "No %s found matching '%.40s'.", what, prefix);
    *ret = found;
    return 0;
}

static const char *shown_id(const struct ctl *c, const char *id, char ret[UUID_TEXT_SIZE])
{
    snprintf(ret, UUID_TEXT_SIZE, "%.*s", c->given[LONG] ? UUID_TEXT_SIZE - 1 : SHORT_NODE, id);
    return ret;
}

// ---- commands

static int run_version(struct ctl *c, struct error *e)
{
    (void)e;
    fprintf(c->out, "%s\n", PROGRAM_TEXT);
    return 0;
}

static int run_list_nodes(struct ctl *c, struct error *e)
{
    AUTO(json_decref) json_t *nodes = NULL;
    struct grid g = { .columns = 2 };
    const json_t *node;
    size_t i;
    int rc = connect_control(c, e);
    if (rc < 0 || (rc = get(c, "/v1/state/nodes", &nodes, e)) < 0)
        return rc;
    grid_add(&g, (const char *[]){ "SERVER", "ADDRESS" });
    json_array_foreach (nodes, i, node) {
        char id[UUID_TEXT_SIZE];
        grid_add(&g, (const char *[]){ shown_id(c, text_of(node, "uuid"), id), text_of(node, "host") });
    }
    grid_print(&g, c->out);
    return 0;
}

// The caller frees it.
static char *metadata_text(const json_t *dataset)
{
    char *text = NULL;
    size_t n = 0;
    const char *key;
    const json_t *value;
    const char *comma = "";
    FILE *f = xmemstream(&text, &n);
    json_object_foreach (json_object_get(dataset, "metadata"), key, value) {
        fprintf(f, "%s%s=%s", comma, key, json_string_value(value) ?: "");
        comma = ",";
    }
    fclose(f);
    return text;
}

static const char *status_of(const json_t *dataset, const json_t *state, const json_t *nodes)
{
    if (json_is_true(json_object_get(dataset, "deleted")))
        return state ? "deleting" : "deleted";
    if (!state)
        return "pending " HOURGLASS;
    return with(nodes, "uuid", text_of(state, "primary")) ? "attached " CHECK_MARK : "detached";
}

static void add_dataset(const struct ctl *c, struct grid *g, const json_t *dataset, const json_t *states, const json_t *nodes)
{
    const char *primary = text_of(dataset, "primary");
    const json_t *node = with(nodes, "uuid", primary), *size = json_object_get(dataset, "maximum_size");
    const json_t *state = with(states, "dataset_id", text_of(dataset, "dataset_id"));
    char id[UUID_TEXT_SIZE], size_text[32] = "<no quota>";
    AUTO(free) char *metadata = metadata_text(dataset);
    AUTO(free) char *server = node ? xasprintf("%s (%s)", shown_id(c, primary, id), text_of(node, "host")) : xstrdup("<missing>");
    if (json_is_integer(size))
        snprintf(size_text, sizeof size_text, "%.2fG", (double)json_integer_value(size) / (1 << 30));
    grid_add(g, (const char *[]){ text_of(dataset, "dataset_id"), size_text, metadata, status_of(dataset, state, nodes), server });
}

static int run_list(struct ctl *c, struct error *e)
{
    AUTO(json_decref) json_t *datasets = NULL;
    AUTO(json_decref) json_t *states = NULL;
    AUTO(json_decref) json_t *nodes = NULL;
    struct grid g = { .columns = 5 };
    const json_t *dataset;
    size_t i;
    int rc = connect_control(c, e);
    if (rc < 0 || (rc = get(c, "/v1/configuration/datasets", &datasets, e)) < 0 || (rc = get(c, "/v1/state/datasets", &states, e)) < 0 ||
        (rc = get(c, "/v1/state/nodes", &nodes, e)) < 0)
        return rc;
    grid_add(&g, (const char *[]){ "DATASET", "SIZE", "METADATA", "STATUS", "SERVER" });
    json_array_foreach (datasets, i, dataset) {
        // What is being deleted is shown until it is gone.
        if (json_is_true(json_object_get(dataset, "deleted")) && !c->given[DELETED] &&
            !with(states, "dataset_id", text_of(dataset, "dataset_id")))
            continue;
        add_dataset(c, &g, dataset, states, nodes);
    }
    grid_print(&g, c->out);
    return 0;
}

static int read_metadata(const char *text, json_t *ret, struct error *e)
{
    for (const char *p = text; *p;) {
        const size_t n = strcspn(p, ",");
        AUTO(free) char *pair = xstrndup(p, n);
        char *equals = strchr(pair, '=');
        if (!equals)
            return fail(e, E_INVALID, "malformed metadata specification '%.100s', please use format 'a=b,c=d'", text);
        *equals = '\0';
        if (json_object_set_new(ret, pair, json_string(equals + 1)) < 0)
            return fail(e, E_INVALID, "metadata is not UTF-8");
        p += n + (p[n] == ',');
    }
    return 0;
}

// Not rounded to a unit, as size_parse does: "1.5g" is a number of bytes here.
static int read_size(const char *text, json_int_t *ret, struct error *e)
{
    static const char units[] = "bkmgt";
    char *end = NULL;
    errno = 0;
    const double number = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end | 0x20) : units;
    const char *rest = *end ? end + 1 : end;
    const bool is_good = *text >= '0' && *text <= '9' && unit && (!*rest || strcasecmp(rest, "b") == 0 || strcasecmp(rest, "ib") == 0);
    if (!is_good || errno || number > (double)VOLUME_SIZE_MAX / (double)(1ULL << (unit - units) * 10))
        return fail(e, E_INVALID, "Invalid size '%.40s'. Use a number of bytes, or one with k, m, g or t", text);
    *ret = (json_int_t)(number * (double)(1ULL << (unit - units) * 10));
    return 0;
}

static int need(const struct ctl *c, int option, struct error *e)
{
    return c->given[option] ? 0 : fail(e, E_INVALID, "must specify --%s", options[option].name);
}

static int run_create(struct ctl *c, struct error *e)
{
    AUTO(json_decref) json_t *nodes = NULL;
    AUTO(json_decref) json_t *metadata = json_object();
    const json_t *node = NULL;
    json_int_t size = 0;
    int rc = need(c, NODE, e);
    if (rc < 0 || (c->given[METADATA] && (rc = read_metadata(c->given[METADATA], metadata, e)) < 0) ||
        (c->given[SIZE] && (rc = read_size(c->given[SIZE], &size, e)) < 0) || (rc = connect_control(c, e)) < 0 ||
        (rc = get(c, "/v1/state/nodes", &nodes, e)) < 0 || (rc = by_prefix(nodes, "uuid", c->given[NODE], "node", &node, e)) < 0)
        return rc;
    json_t *body = json_pack("{s:O, s:O}", "primary", json_object_get(node, "uuid"), "metadata", metadata);
    if (c->given[SIZE])
        json_object_set_new(body, "maximum_size", json_integer(size));
    rc = client_call(&c->link->client, "POST", "/v1/configuration/datasets", body, NULL, e);
    if (rc == 0)
        fprintf(c->out, "created dataset in configuration, manually poll state with 'flockerctl list' to see it show up.\n");
    return rc;
}

// The path of the dataset that the option's prefix names; the caller frees it.
static int dataset_target(const struct ctl *c, char **ret, struct error *e)
{
    AUTO(json_decref) json_t *datasets = NULL;
    const json_t *dataset = NULL;
    int rc = get(c, "/v1/configuration/datasets", &datasets, e);
    if (rc == 0)
        rc = by_prefix(datasets, "dataset_id", c->given[DATASET], "dataset", &dataset, e);
    if (rc == 0)
        *ret = xasprintf("/v1/configuration/datasets/%s", text_of(dataset, "dataset_id"));
    return rc;
}

static int run_destroy(struct ctl *c, struct error *e)
{
    int rc = need(c, DATASET, e);
    if (rc < 0 || (rc = connect_control(c, e)) < 0)
        return rc;
    AUTO(free) char *target = NULL;
    rc = dataset_target(c, &target, e);
    if (rc < 0 || (rc = client_call(&c->link->client, "DELETE", target, NULL, NULL, e)) < 0)
        return rc;
    fprintf(c->out, "marking dataset as deleted, poll state with 'flockerctl list' to see it disappear.\n");
    return 0;
}

static int run_move(struct ctl *c, struct error *e)
{
    int rc = need(c, DATASET, e);
    if (rc < 0 || (rc = need(c, DESTINATION, e)) < 0 || (rc = connect_control(c, e)) < 0)
        return rc;
    AUTO(json_decref) json_t *nodes = NULL;
    AUTO(free) char *target = NULL;
    const json_t *node = NULL;
    rc = dataset_target(c, &target, e);
    if (rc < 0 || (rc = get(c, "/v1/state/nodes", &nodes, e)) < 0 ||
        (rc = by_prefix(nodes, "uuid", c->given[DESTINATION], "node", &node, e)) < 0)
        return rc;
    rc = client_call(&c->link->client, "POST", target, json_pack("{s:O}", "primary", json_object_get(node, "uuid")), NULL, e);
    if (rc == 0)
        fprintf(c->out, "initiating move of dataset, please check for completion with 'flockerctl list'.\n");
    return rc;
}

static const struct command commands[] = {
    { "create", NULL, "create a dataset", TAKES(NODE) | TAKES(METADATA) | TAKES(SIZE), run_create },
    { "destroy", NULL, "mark a dataset to be deleted", TAKES(DATASET), run_destroy },
    { "list", "ls", "list datasets", TAKES(DELETED) | TAKES(LONG) | TAKES(HUMAN), run_list },
    { "list-nodes", "status", "show list of nodes in the cluster", TAKES(LONG), run_list_nodes },
    { "move", NULL, "move a dataset from one node to another", TAKES(DATASET) | TAKES(DESTINATION), run_move },
    { "version", NULL, "show version information", 0, run_version },
};

// ---- the command line

static void print_global_help(FILE *out)
{
    fprintf(out, "Usage: flockerctl [global-options] <sub-command> [options]\nOptions:\n");
    for (size_t i = 0; i < GLOBAL_COUNT; i++)
        fprintf(out, "      --%-17s %s%s%s%s\n", globals[i].name, globals[i].help, globals[i].standard ? " [default: " : "",
                globals[i].standard ? globals[i].standard : "", globals[i].standard ? "]" : "");
    fprintf(out, "      --%-17s Display version and exit.\n      --%-17s Display this help and exit.\nCommands:\n", "version", "help");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "    %-12s %s%s%s%s\n", commands[i].name, commands[i].help, commands[i].also ? " (also: " : "",
                commands[i].also ? commands[i].also : "", commands[i].also ? ")" : "");
}

static void print_command_help(FILE *out, const struct command *k)
{
    fprintf(out, "Usage: flockerctl [global-options] %s [options]\nOptions:\n", k->name);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (k->takes & TAKES(i))
            fprintf(out, "  -%c, --%-12s %s\n", options[i].letter, options[i].name, options[i].help);
    fprintf(out, "      --%-12s Display this help and exit.\n", "help");
}

static void take_environment(struct ctl *c)
{
    for (size_t i = 0; i < GLOBAL_COUNT; i++) {
        const char *value = globals[i].environment ? getenv(globals[i].environment) : NULL;
        c->global[i] = value ? value : globals[i].standard;
    }
}

// 1: help or version was asked for and printed. optind is then the first word that is no option.
static int read_globals(struct ctl *c, int argc, char **argv, struct error *e)
{
    struct option longs[GLOBAL_COUNT + 3] = { [GLOBAL_COUNT] = { "help", no_argument, NULL, CTL_HELP },
                                              [GLOBAL_COUNT + 1] = { "version", no_argument, NULL, CTL_VERSION } };
    int got;
    for (int i = 0; i < GLOBAL_COUNT; i++)
        longs[i] = (struct option){ globals[i].name, required_argument, NULL, i };
    optind = 0;
    opterr = 0;
    while ((got = getopt_long(argc, argv, "+:", longs, NULL)) != -1) {
        if (got == CTL_HELP)
            print_global_help(c->out);
        if (got == CTL_VERSION)
            run_version(c, e);
        if (got == CTL_HELP || got == CTL_VERSION)
            return 1;
        if (got < 0 || got >= GLOBAL_COUNT)
            return fail(e, E_INVALID, "option %.60s not recognized, or it lacks its value", argv[optind - 1]);
        c->global[got] = optarg;
    }
    return 0;
}

static int read_options(struct ctl *c, const struct command *k, int argc, char **argv, struct error *e)
{
    struct option longs[OPTION_COUNT + 2] = { { "help", no_argument, NULL, CTL_HELP } };
    char shorts[2 * OPTION_COUNT + 3] = "+:";
    size_t n = 1;
    int got;
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (!(k->takes & TAKES(i)))
            continue;
        longs[n++] = (struct option){ options[i].name, options[i].has_value ? required_argument : no_argument, NULL, options[i].letter };
        snprintf(shorts + strlen(shorts), sizeof shorts - strlen(shorts), "%c%s", options[i].letter, options[i].has_value ? ":" : "");
    }
    optind = 0;
    while ((got = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (got == CTL_HELP) {
            print_command_help(c->out, k);
            return 1;
        }
        if (got == '?' || got == ':')
            return fail(e, E_INVALID, "option %.60s not recognized, or it lacks its value", argv[optind - 1]);
        for (int i = 0; i < OPTION_COUNT; i++)
            if ((k->takes & TAKES(i)) && options[i].letter == got)
                c->given[i] = optarg ? optarg : "";
    }
    return optind < argc ? fail(e, E_INVALID, "Unexpected argument: %.60s", argv[optind]) : 0;
}

static int run_flockerctl(struct ctl_link *l, FILE *out, int argc, char **argv, struct error *e)
{
    struct ctl *c = &(struct ctl){ .out = out, .link = l };
    take_environment(c);
    int rc = read_globals(c, argc, argv, e);
    if (rc != 0)
        return rc;
    if (optind >= argc) {
        print_global_help(c->out);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *k = &commands[i];
        if (strcmp(k->name, argv[optind]) != 0 && (!k->also || strcmp(k->also, argv[optind]) != 0))
            continue;
        rc = read_options(c, k, argc - optind, argv + optind, e);
        return rc == 0 ? k->run(c, e) : rc;
    }
    return fail(e, E_INVALID, "Unknown command: %.60s", argv[optind]);
}

// ---- the two programs

static const struct {
    const char *name;
    int (*run)(struct ctl_link *l, FILE *out, int argc, char **argv, struct error *e);
} programs[] = { { "flockerctl", run_flockerctl }, { "flocker-volumes", run_flockerctl }, { "flocker-deploy", deploy_run } };

static const char *base_name(const char *program)
{
    const char *slash = program ? strrchr(program, '/') : NULL;
    return slash ? slash + 1 : program ? program : "";
}

bool flockerctl_is(const char *program)
{
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
        if (strcmp(programs[i].name, base_name(program)) == 0)
            return true;
    return false;
}

int flockerctl_run(int argc, char **argv, FILE *out)
{
    struct ctl_link link = { .tls = NULL };
    struct error e = ERROR_INIT;
    int rc = 0;
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
        if (strcmp(programs[i].name, base_name(argv[0])) == 0)
            rc = programs[i].run(&link, out, argc, argv, &e);
    if (rc < 0)
        fprintf(out, "%s: %s\n", base_name(argv[0]), e.msg);
    SSL_CTX_free(link.tls);
    free(link.host);
    return rc < 0 || fflush(out) != 0 ? 1 : 0;
}
