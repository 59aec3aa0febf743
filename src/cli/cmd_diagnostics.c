// One archive for a report of a bug. What goes in is in a table; what is secret is never asked for, and redact() goes over all of it.
#include "cli/internal.h"

#include "base/rng.h"
#include "cli/redact.h"
#include "sys/run.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_BYTES_MAX (16U << 20) // of one member
#define PROGRAM_MS     15000

struct collection {
    struct cli_context *ctx;
    char *folder; // temporary: members are made there
};

struct member {
    const char *name;
    int (*collect)(struct cli_context *ctx, const char *arg, char **ret, struct error *e);
    const char *arg;
    bool is_log; // compressed
};

// ---- sources

static int version_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    (void)ctx;
    (void)arg;
    (void)e;
    *ret = xasprintf("flocker %s\n", FLOCKER_VERSION);
    return 0;
}

// `arg`: a program with its arguments, parted by blanks.
static int program_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    const char *argv[12] = { NULL };
    AUTO(free) char *words = xstrdup(arg);
    char *rest = NULL;
    size_t n = 0;
    (void)ctx;
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        ASSERT(n + 1 < ARRAY_SIZE(argv));
        argv[n++] = word;
    }
    return run_capture(argv, TEXT_BYTES_MAX, PROGRAM_MS, ret, e);
}

// The last TEXT_BYTES_MAX bytes of a file.
static int read_end(const char *path, char **ret, struct error *e)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t n = 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_os(e, errno, "open %s", path);
    if (st.st_size > (off_t)TEXT_BYTES_MAX)
        lseek(fd, -(off_t)TEXT_BYTES_MAX, SEEK_END);
    char *text = xcalloc(TEXT_BYTES_MAX + 1, 1);
    for (ssize_t got; n < TEXT_BYTES_MAX && (got = read(fd, text + n, TEXT_BYTES_MAX - n)) > 0;)
        n += (size_t)got;
    *ret = xrealloc(text, n + 1, 1);
    return 0;
}

static int file_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    (void)ctx;
    return read_end(arg, ret, e);
}

// Of the journal where there is one, else of our own file. `arg`: the role, "control" or "agent".
static int log_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    AUTO(free) char *file = xasprintf("%s/var/log/flocker/%s.log", ctx->root, arg), *unit = xasprintf("--unit=flocker-%s", arg);
    const char *const journal[] = { "journalctl", unit, "--no-pager", "--lines=50000", "--output=short-iso", NULL };
    if (access(file, R_OK) == 0)
        return read_end(file, ret, e);
    return run_capture(journal, TEXT_BYTES_MAX, PROGRAM_MS, ret, e);
}

// What an API says, without what a user has written into it. `arg`: its path.
static int pretty(json_t *value /* taken */, char **ret)
{
    AUTO(free) char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    json_decref(value);
    *ret = xasprintf("%s\n", text ? text : "null");
    return 0;
}

static int control_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    const struct client control = cli_control(ctx);
    json_t *reply = NULL;
    int rc = client_call(&control, "GET", arg, NULL, &reply, e);
    return rc < 0 ? rc : pretty(reply, ret);
}

static int agent_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    const struct client agent = cli_agent(ctx);
    json_t *reply = NULL;
    int rc = client_call(&agent, "GET", arg, NULL, &reply, e);
    return rc < 0 ? rc : pretty(reply, ret);
}

// Of each item only these members: not its name, metadata, environment, command line. `arg`: the path of a list.
static int list_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    static const char *const shown[] = { "id", "dataset_id", "node_uuid", "owner", "target", "state", "size", "epoch", "revision", "ready",
                                         "mounted", "running", "image", "restart_policy" };
    const struct client control = cli_control(ctx);
    AUTO(json_decref) json_t *reply = NULL;
    json_t *list = json_array();
    const json_t *item;
    size_t i;
    int rc = client_list(&control, arg, &reply, e);
    json_array_foreach (reply, i, item) {
        json_t *copy = json_object();
        for (size_t k = 0; k < ARRAY_SIZE(shown); k++)
            if (json_object_get(item, shown[k]))
                json_object_set(copy, shown[k], json_object_get(item, shown[k]));
        json_array_append_new(list, copy);
    }
    if (rc == 0)
        return pretty(list, ret);
    json_decref(list);
    return rc;
}

// The mounts of volumes and pools: others are none of our business.
static int mounts_text(struct cli_context *ctx, const char *arg, char **ret, struct error *e)
{
    AUTO(free) char *all = NULL;
    size_t n;
    (void)ctx;
    int rc = read_end(arg, &all, e);
    if (rc < 0)
        return rc;
    FILE *f = xmemstream(ret, &n);
    for (const char *p = all; *p;) {
        const size_t length = strcspn(p, "\n");
        if (memmem(p, length, "flocker", 7) || memmem(p, length, " btrfs ", 7))
            fprintf(f, "%.*s\n", (int)length, p);
        p += length + (p[length] == '\n');
    }
    fclose(f);
    return 0;
}

static const struct member members[] = {
    { "flocker-version", version_text, NULL, false },
    { "flocker-control_startup", log_text, "control", true },
    { "flocker-dataset-agent_startup", log_text, "agent", true },
    { "service-status", program_text, "systemctl status --no-pager flocker-control flocker-agent docker", false },
    { "control-status", control_text, "/v2/status", false },
    { "nodes", control_text, "/v2/nodes", false },
    { "volumes", list_text, "/v2/volumes", false },
    { "containers", list_text, "/v1/state/containers", false },
    { "pool", agent_text, "/v2/pool", false },
    { "mounts", mounts_text, "/proc/self/mountinfo", false },
    { "docker-version", program_text, "docker version", false },
    { "docker-info", program_text, "docker info", false },
    { "uname", program_text, "uname -a", false },
    { "os-release", file_text, "/etc/os-release", false },
    { "ip-addr", program_text, "ip addr", false },
    { "hostname", program_text, "hostname", false },
    { "fdisk", program_text, "fdisk -l", false },
    { "lsblk", program_text, "lsblk --all", false },
    { "lshw", program_text, "lshw -quiet -sanitize", false },
};

// ---- the archive

static int write_member(const struct collection *c, const struct member *m, struct error *e)
{
    struct error why = ERROR_INIT;
    AUTO(free) char *text = NULL;
    AUTO(free) char *path = xasprintf("%s/%s", c->folder, m->name);
    if (m->collect(c->ctx, m->arg, &text, &why) < 0)
        text = xasprintf("(not to be had: %s)\n", why.msg);
    AUTO(free) char *clean = redact(text);
    AUTO(fclose) FILE *f = fopen(path, "wex");
    if (!f || fputs(clean, f) < 0 || fflush(f) != 0)
        return fail_os(e, errno, "write %s", path);
    const char *const gzip[] = { "gzip", "-n", path, NULL };
    return m->is_log ? run_program(gzip, e) : 0;
}

static void remove_folder(const struct collection *c, const char *parent)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        AUTO(free) char *path = xasprintf("%s/%s%s", c->folder, members[i].name, members[i].is_log ? ".gz" : "");
        unlink(path);
    }
    rmdir(c->folder);
    rmdir(parent);
}

static int collect_all(const struct collection *c, const char *parent, const char *stem, const char *archive, struct error *e)
{
    const char *const tar[] = { "tar", "--create", "--file", archive, "--directory", parent, stem, NULL };
    int rc = 0;
    for (size_t i = 0; i < ARRAY_SIZE(members) && rc == 0; i++)
        rc = write_member(c, &members[i], e);
    return rc == 0 ? run_program(tar, e) : rc;
}

static int run_diagnostics(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    char parent[] = "/tmp/flocker-diagnostics-XXXXXX";
    const struct uuid id = rng_uuid();
    AUTO(free) char *here = getcwd(NULL, 0);
    AUTO(free) char *stem = xasprintf("clusterhq_flocker_logs_%s", UUID_TEXT(&id));
    AUTO(free) char *archive = xasprintf("%s/%s.tar", here ? here : ".", stem);
    struct collection c = { .ctx = ctx };
    (void)argc;
    (void)argv;
    umask(077);
    if (access(here ? here : ".", W_OK) < 0)
        return fail_os(e, errno, "make %s", archive);
    if (!mkdtemp(parent))
        return fail_os(e, errno, "make %s", parent);
    AUTO(free) char *folder = xasprintf("%s/%s", parent, stem);
    c.folder = folder;
    int rc = mkdir(folder, 0700) < 0 ? fail_os(e, errno, "make %s", folder) : collect_all(&c, parent, stem, archive, e);
    remove_folder(&c, parent);
    if (rc < 0)
        return rc;
    fprintf(ctx->out, "%s\n", archive);
    ctx->result = json_pack("{s:o}", "archive", text_to_json(archive));
    return 0;
}

static const struct cli_option diagnostics_options[] = {
    { "distribution-name", 'd', "NAME", "Taken for scripts of the original Flocker; what there is is found without it." },
    { NULL },
};

const struct cli_command commands_diagnostics[] = {
    { .name = "diagnostics",
      .args = "",
      .summary = "collect what a report of a bug needs into one archive",
      .text = "Makes clusterhq_flocker_logs_<id>.tar in the present folder and prints its path. It holds versions, logs, what control and agent "
              "say of themselves, and what Docker and the system do: no keys, tokens, names and metadata of volumes, no environments and "
              "command lines of containers. Look into it before you send it.\n\n"
              "    flocker diagnostics",
      .options = diagnostics_options,
      .run = run_diagnostics,
      .program = "flocker-diagnostics" },
    { NULL },
};
