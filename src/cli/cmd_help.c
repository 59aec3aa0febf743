// What tells about the program itself: help, version, completion.
#include "cli/internal.h"

#include <string.h>

// "volume create" of the arguments "volume" and "create".
static char *join(int argc, char **argv)
{
    char *ret = xstrdup("");
    for (int i = 0; i < argc; i++) {
        char *longer = xasprintf("%s%s%s", ret, i ? " " : "", argv[i]);
        free(ret);
        ret = longer;
    }
    return ret;
}

static int run_help(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    AUTO(free) char *words = join(argc, argv);
    if (cli_value(ctx, "man"))
        return man_page(ctx->out, cli_more(ctx), words, e);
    return help_show(ctx->out, cli_more(ctx), words, e);
}

static int run_version(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    (void)argc;
    (void)argv;
    (void)e;
    fprintf(ctx->out, "flocker %s\n", FLOCKER_VERSION);
    ctx->result = json_pack("{s:s}", "version", FLOCKER_VERSION);
    return 0;
}

static int run_completion(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    (void)argc;
    return completion_script(ctx->out, cli_more(ctx), argv[0], e);
}

static const struct cli_option help_options[] = {
    { "man", 0, NULL, "Print the manual page in roff: flocker(1), or that of a first word." },
    { NULL },
};

const struct cli_command commands_help[] = {
    { .name = "help",
      .args = "[COMMAND...]",
      .summary = "show what commands there are, or how one is used",
      .text = "Without a command, all are listed. The same is shown by --help behind any command.\n\n"
              "    flocker help volume create\n"
              "    flocker help --man volume | man -l -",
      .options = help_options,
      .run = run_help },
    { .name = "completion",
      .args = "SHELL",
      .summary = "print a completion script for bash, zsh or fish",
      .text = "Packages install these scripts. Without a package, load them from the shell's start-up file:\n\n"
              "    source <(flocker completion bash)\n"
              "    source <(flocker completion zsh)\n"
              "    flocker completion fish | source",
      .run = run_completion },
    { .name = "version", .args = "", .summary = "print the version", .text = "    flocker version --json", .run = run_version },
    { NULL },
};
