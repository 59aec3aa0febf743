// What is asked of control itself.
#include "cli/internal.h"

#include <errno.h>

// Control has another working directory than we.
static int absolute(const char *file, char **ret, struct error *e)
{
    if (file[0] == '/') {
        *ret = xstrdup(file);
        return 0;
    }
    AUTO(free) char *here = getcwd(NULL, 0);
    if (!here)
        return fail_os(e, errno, "the present directory");
    *ret = xasprintf("%s/%s", here, file);
    return 0;
}

static int run_backup(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct client control = cli_control(ctx);
    AUTO(free) char *path = NULL;
    (void)argc;
    control.timeout_ms = 600000; // it copies the whole store before it answers
    if (!*argv[0])
        return fail(e, E_INVALID, "the name of the file is empty");
    int rc = absolute(argv[0], &path, e);
    if (rc < 0)
        return rc;
    json_t *body = json_pack("{s:s}", "path", path);
    if (!body)
        return fail(e, E_INVALID, "the name of the file is not UTF-8");
    rc = client_call(&control, "POST", "/v2/backup", body, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *shown = text_escape(path);
    fprintf(ctx->out, "control's store is copied to %s\n", shown);
    return 0;
}

const struct cli_command commands_control[] = {
    { .name = "control backup",
      .args = "FILE",
      .summary = "copy control's store to a file",
      .text = "The copy is consistent although control goes on working. Control writes the file, on its host, with its rights. It "
              "holds what "
              "volumes there are and where, not their data.\n\n"
              "    flocker control backup /var/backups/flocker.db",
      .run = run_backup },
    { NULL },
};
