// Help texts and manual pages, made from the tables of commands.
#include "cli/internal.h"

#include <ctype.h>
#include <string.h>

#define LEFT_MAX 26 // width of the column of names

static const char intro[] =
    "Flocker gives containers volumes that belong to the cluster, not to one host. Control keeps what is wanted, an agent on "
    "each host keeps the data, and these commands talk to both.";

// ---- help

static void print_pair(FILE *out, const char *left, const char *right)
{
    int n = fprintf(out, "  %s", left);
    if (n > LEFT_MAX) {
        fprintf(out, "\n%*s", LEFT_MAX + 2, "");
        n = LEFT_MAX + 2;
    } else
        n += fprintf(out, "%*s", LEFT_MAX + 2 - n, "");
    text_wrap(out, right, (size_t)n, LEFT_MAX + 2, HELP_WIDTH);
}

static void print_options(FILE *out, const struct cli_option *options)
{
    for (const struct cli_option *o = options; o && o->name; o++) {
        char letter[5] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        AUTO(free) char *left = xasprintf("%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        print_pair(out, left, o->help);
    }
}

// Calls for each paragraph of a help text; examples keep their lines.
static void each_paragraph(const char *text, void (*on_paragraph)(FILE *out, const char *paragraph, bool is_example), FILE *out)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);
        AUTO(free) char *paragraph = xstrndup(text, n);
        on_paragraph(out, paragraph, strncmp(paragraph, "    ", 4) == 0);
        text += n;
        text += strspn(text, "\n");
    }
}

static void print_paragraph(FILE *out, const char *paragraph, bool is_example)
{
    fputc('\n', out);
    if (is_example)
        fprintf(out, "%s\n", paragraph);
    else
        text_wrap(out, paragraph, 0, 0, HELP_WIDTH);
}

static void print_summary(FILE *out, const char *summary)
{
    fprintf(out, "\n%c%s.\n", toupper((unsigned char)*summary), summary + 1);
}

static void show_command(FILE *out, const struct cli_command *c)
{
    fprintf(out, "Usage: flocker %s%s%s%s\n", c->name, c->options ? " [OPTION]..." : "", *c->args ? " " : "", c->args);
    print_summary(out, c->summary);
    each_paragraph(c->text, print_paragraph, out);
    if (c->options) {
        fputs("\nOptions:\n", out);
        print_options(out, c->options);
    }
    fputs("\nOptions of every command:\n", out);
    print_options(out, options_global);
}

static void print_commands(FILE *out, const struct cli_command *more, const char *words)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    fputs("\nCommands:\n", out);
    for (size_t i = 0; list[i]; i++) {
        const struct cli_command *c = list[i];
        AUTO(free) char *left = xasprintf("%s%s%s", c->name, *c->args ? " " : "", c->args);
        if (command_is_in(c, words, true))
            print_pair(out, left, c->summary);
    }
}

static void show_group(FILE *out, const struct cli_command *more, const char *group)
{
    fprintf(out, "Usage: flocker %s COMMAND\n", group);
    print_summary(out, group_summary(group));
    print_commands(out, more, group);
    fprintf(out, "\n`flocker help %s COMMAND` tells more about one of them.\n", group);
}

static void show_overview(FILE *out, const struct cli_command *more)
{
    fputs("Usage: flocker COMMAND [OPTION]... [ARGUMENT]...\n", out);
    print_paragraph(out, intro, false);
    print_commands(out, more, "");
    fputs("\nOptions of every command:\n", out);
    print_options(out, options_global);
    fputs("\n`flocker help COMMAND` tells more about one of them.\n", out);
}

int help_show(FILE *out, const struct cli_command *more, const char *words, struct error *e)
{
    const struct cli_command *c = command_find(more, words);
    if (!*words)
        show_overview(out, more);
    else if (c)
        show_command(out, c);
    else if (command_is_group(more, words))
        show_group(out, more, words);
    else
        return fail_unknown(more, words, e);
    if (c && command_is_group(more, words))
        print_commands(out, more, words);
    return 0;
}

// ---- manual pages, in the man(7) macros

// Text for roff: nothing in it is taken for a request. Words in backquotes become bold.
static void put_roff(FILE *out, const char *text)
{
    bool is_start = true, is_bold = false;
    for (const char *p = text; *p; p++) {
        if (is_start && (*p == '.' || *p == '\''))
            fputs("\\&", out);
        is_start = *p == '\n';
        if (*p == '\\')
            fputs("\\e", out);
        else if (*p == '-')
            fputs("\\-", out);
        else if (*p == '`')
            fputs((is_bold = !is_bold) ? "\\fB" : "\\fR", out);
        else
            fputc(*p, out);
    }
}

__attribute__((format(printf, 2, 3))) static void roff(FILE *out, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    put_roff(out, text);
    free(text);
}

static void roff_paragraph(FILE *out, const char *paragraph, bool is_example)
{
    fputs(is_example ? ".PP\n.nf\n" : ".PP\n", out);
    roff(out, "%s\n", paragraph);
    if (is_example)
        fputs(".fi\n", out);
}

// Each sentence on a line of its own would be better roff; words are filled anyway.
static void roff_options(FILE *out, const struct cli_option *options)
{
    for (const struct cli_option *o = options; o && o->name; o++) {
        fputs(".TP\n", out);
        if (o->letter)
            fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
        fputs("\\fB", out);
        roff(out, "--%s", o->name);
        fprintf(out, "\\fR%s\\fI%s\\fR\n", o->arg ? " " : "", o->arg ? o->arg : "");
        roff(out, "%s\n", o->help);
    }
}

static void roff_name(FILE *out, const struct cli_command *c)
{
    roff(out, "flocker %s", c->name);
    fprintf(out, "\\fR%s", c->options ? " [\\fIOPTION\\fR]..." : "");
    fputs(*c->args ? " \\fI" : "", out);
    roff(out, "%s", c->args);
    fputs(*c->args ? "\\fR\n" : "\n", out);
}

static void roff_command(FILE *out, const struct cli_command *c)
{
    fputs(".SS \\fB", out);
    roff_name(out, c);
    fprintf(out, "%c", toupper((unsigned char)*c->summary));
    roff(out, "%s.\n", c->summary + 1);
    each_paragraph(c->text, roff_paragraph, out);
    roff_options(out, c->options);
}

static void roff_head(FILE *out, const char *page, const char *summary)
{
    AUTO(free) char *title = xasprintf("flocker%s%s", *page ? "-" : "", page);
    fputs(".\\\" Made from the program's own tables by `flocker help --man`: do not edit.\n.TH ", out);
    for (const char *p = title; *p; p++)
        fputs(*p == '-' ? "\\-" : (char[]){ (char)toupper((unsigned char)*p), '\0' }, out);
    fputs(" 1 \"\" \"Flocker " FLOCKER_VERSION "\" \"Flocker Manual\"\n.SH NAME\n", out);
    roff(out, "%s", title);
    fputs(" \\- ", out);
    roff(out, "%s\n", summary);
}

static void roff_exit_status(FILE *out)
{
    static const struct {
        const char *word, *text;
        int exit;
    } table[] = {
#define X(code, word, http, exit, text) { word, text, exit },
        ERROR_TABLE(X)
#undef X
    };
    fputs(".SH EXIT STATUS\n.TP\n\\fB0\\fR\nIt is done.\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        fprintf(out, ".TP\n\\fB%d\\fR ", table[i].exit);
        roff(out, "(%s)\n%s\n", table[i].word, table[i].text);
    }
    fputs(".PP\nWith \\fB\\-\\-json\\fR, the word in parentheses is \\(lqcode\\(rq of the member \\(lqerror\\(rq.\n", out);
}

static void roff_tail(FILE *out)
{
    static const struct {
        const char *name, *text;
    } files[] = {
        { CONTROL_SOCKET, "Control's socket: the REST API for root on that host." },
        { AGENT_SOCKET, "The agent's socket: its pool." },
        { "/run/docker/plugins/flocker/flocker.sock", "Where Docker and Podman find Flocker." },
        { "/etc/flocker", "Certificates and the agent's configuration." },
        { "/var/lib/flocker", "Control's store and the pool." },
        { "/flocker/ID", "Where a volume is mounted while it is in use." },
    };
    fputs(".SH FILES\nAll of them are below the folder given with \\fB\\-\\-root\\fR.\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        fputs(".TP\n\\fI", out);
        roff(out, "%s", files[i].name);
        fputs("\\fR\n", out);
        roff(out, "%s\n", files[i].text);
    }
    fputs(".SH ENVIRONMENT\n.TP\n\\fBFLOCKER_LOG\\fR\n", out);
    roff(out, "How much control and the agent write to standard error: `error`, `warn`, `info` (the default) or `debug`.\n");
}

static void roff_see_also(FILE *out, const struct cli_command *more, const char *page)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    const char *comma = "";
    fputs(".SH SEE ALSO\n", out);
    if (*page) {
        fputs(".BR flocker (1)", out);
        comma = ",\n";
    }
    for (size_t i = 0; list[i]; i++) {
        AUTO(free) char *word = xstrndup(list[i]->name, command_first_word(list[i]));
        if (strcmp(word, page) == 0 || !command_is_group(more, word) || (i && command_is_in(list[i - 1], word, true)))
            continue;
        fprintf(out, "%s.BR flocker\\-%s (1)", comma, word);
        comma = ",\n";
    }
    fputc('\n', out);
}

static void man_group(FILE *out, const struct cli_command *more, const char *page)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    const struct cli_command *one = command_find(more, page);
    roff_head(out, page, one && !command_is_group(more, page) ? one->summary : group_summary(page));
    fputs(".SH SYNOPSIS\n.nf\n", out);
    for (size_t i = 0; list[i]; i++)
        if (command_is_in(list[i], page, true)) {
            fputs("\\fB", out);
            roff_name(out, list[i]);
        }
    fputs(".fi\n.SH DESCRIPTION\n", out);
    for (size_t i = 0; list[i]; i++)
        if (command_is_in(list[i], page, true))
            roff_command(out, list[i]);
    fputs(".SH OPTIONS OF EVERY COMMAND\n", out);
    roff_options(out, options_global);
    fputs(".SH EXIT STATUS\nSee\n.BR flocker (1).\n", out);
    roff_see_also(out, more, page);
}

// Commands of one word are described here in full, unless there is a group of that name; groups have their own pages.
static void man_overview(FILE *out, const struct cli_command *more)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    roff_head(out, "", "volumes for containers that follow them from host to host");
    fputs(".SH SYNOPSIS\n\\fBflocker\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n.SH DESCRIPTION\n", out);
    roff(out, "%s\n", intro);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; list[i]; i++) {
        const struct cli_command *c = list[i];
        AUTO(free) char *word = xstrndup(c->name, command_first_word(c));
        if (!command_is_group(more, word)) {
            roff_command(out, c);
            continue;
        }
        fputs(".SS \\fB", out);
        roff_name(out, c);
        fprintf(out, "%c", toupper((unsigned char)*c->summary));
        roff(out, "%s; see ", c->summary + 1);
        fprintf(out, "\\fBflocker\\-%s\\fR(1).\n", word);
    }
    fputs(".SH OPTIONS OF EVERY COMMAND\n", out);
    roff_options(out, options_global);
    roff_exit_status(out);
    roff_tail(out);
    roff_see_also(out, more, "");
}

int man_page(FILE *out, const struct cli_command *more, const char *page, struct error *e)
{
    if (!*page)
        man_overview(out, more);
    else if (!strchr(page, ' ') && (command_find(more, page) || command_is_group(more, page)))
        man_group(out, more, page);
    else
        return fail_unknown(more, page, e);
    return 0;
}
