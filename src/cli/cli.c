// From argv to a command and back to an exit status.
#include "cli/internal.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#define SHORT_MAX   64
#define VALUE_FIRST 256 // of getopt's `val`: above all letters

struct given {
    const struct cli_option *option;
    const char *value;
};

struct cli_state {
    const struct cli_command *more, *command; // command: NULL until its words are read
    char *words;                              // of the command line so far: "volume create"
    bool is_json, wants_help, wants_version, is_parsed;
    size_t given_count;
    struct given *given;
    size_t kept_count;
    char **kept; // strings that commands borrow
    bool is_original; // called by the name of a program of the original Flocker that people script: errors look as they did there
    char *text; // what --json kept from standard output
    size_t text_n;
};

// ---- what commands ask

const struct cli_command *cli_more(const struct cli_context *ctx)
{
    return ctx->state->more;
}

// Options that are in no table would be a slip of the pen in a command.
static void check_option(const struct cli_state *s, const char *option)
{
    bool is_known = false;
    for (const struct cli_option *o = options_global; o->name; o++)
        is_known |= strcmp(o->name, option) == 0;
    for (const struct cli_option *o = s->command ? s->command->options : NULL; o && o->name; o++)
        is_known |= strcmp(o->name, option) == 0;
    ASSERT(is_known);
}

const char *cli_next_value(const struct cli_context *ctx, const char *option, size_t *at)
{
    const struct cli_state *s = ctx->state;
    check_option(s, option);
    while (*at < s->given_count) {
        const struct given *g = &s->given[(*at)++];
        if (strcmp(g->option->name, option) == 0)
            return g->value;
    }
    return NULL;
}

const char *cli_value(const struct cli_context *ctx, const char *option)
{
    const char *ret = NULL, *value;
    size_t at = 0;
    while ((value = cli_next_value(ctx, option, &at)))
        ret = value;
    return ret;
}

int cli_number(const struct cli_context *ctx, const char *option, int base, uint64_t max, uint64_t *ret, struct error *e)
{
    const char *text = cli_value(ctx, option);
    char *end = NULL;
    if (!text)
        return 0;
    errno = 0;
    unsigned long long n = strtoull(text, &end, base);
    if (*text < '0' || *text > '9' || *end || errno || n > max)
        return fail(e, E_INVALID,
                    base == 8 ? "--%s %.40s: not an octal number from 0 to %llo" : "--%s %.40s: not a number from 0 to %llu",
                    option, text, (unsigned long long)max);
    *ret = n;
    return 0;
}

char *cli_path(const struct cli_context *ctx, const char *path)
{
    return xasprintf("%s%s", ctx->root, path);
}

const char *cli_keep(const struct cli_context *ctx, char *text)
{
    struct cli_state *s = ctx->state;
    s->kept = xrealloc(s->kept, s->kept_count + 1, sizeof *s->kept);
    s->kept[s->kept_count++] = text;
    return text;
}

// ---- options

// The global options and a command's, in getopt's form and in ours.
struct parser {
    const struct cli_option **options;
    struct option *longs;
    char shorts[SHORT_MAX];
};

static void parser_add(struct parser *p, const struct cli_option *options, size_t *n)
{
    for (const struct cli_option *o = options; o && o->name; o++, (*n)++) {
        size_t used = strlen(p->shorts);
        p->options = xrealloc(p->options, *n + 1, sizeof(const struct cli_option *));
        p->longs = xrealloc(p->longs, *n + 2, sizeof *p->longs);
        p->options[*n] = o;
        p->longs[*n] = (struct option){ o->name, o->arg ? required_argument : no_argument, NULL, VALUE_FIRST + (int)*n };
        p->longs[*n + 1] = (struct option){ 0 };
        ASSERT(used + 3 < sizeof p->shorts);
        if (o->letter)
            snprintf(p->shorts + used, sizeof p->shorts - used, "%c%s", o->letter, o->arg ? ":" : "");
    }
}

// `mode`: "+:" ends at the first word that is no option, ":" sorts those to the end.
static struct parser parser_new(const char *mode, const struct cli_option *options)
{
    size_t n = 0;
    struct parser p = { 0 };
    snprintf(p.shorts, sizeof p.shorts, "%s", mode);
    parser_add(&p, options_global, &n);
    parser_add(&p, options, &n);
    optind = 0; // glibc: start anew
    opterr = 0;
    return p;
}

static void parser_done(struct parser *p)
{
    free(p->options);
    free(p->longs);
}

static const struct cli_option *parser_option(const struct parser *p, int c)
{
    if (c >= VALUE_FIRST)
        return p->options[c - VALUE_FIRST];
    for (size_t i = 0; p->longs[i].name; i++)
        if (p->options[i]->letter == c)
            return p->options[i];
    return NULL;
}

static void add_given(struct cli_state *s, const struct cli_option *o, const char *value)
{
    ASSERT(o);
    s->given = xrealloc(s->given, s->given_count + 1, sizeof *s->given);
    s->given[s->given_count++] = (struct given){ o, value ? value : "" };
    s->is_json |= strcmp(o->name, "json") == 0;
    s->wants_help |= strcmp(o->name, "help") == 0;
    s->wants_version |= strcmp(o->name, "version") == 0;
}

void cli_set_default(struct cli_context *ctx, const char *option, const char *value)
{
    const struct cli_option *o = ctx->state->command->options;
    check_option(ctx->state, option);
    while (strcmp(o->name, option) != 0)
        o++;
    if (!cli_value(ctx, option))
        add_given(ctx->state, o, cli_keep(ctx, xstrdup(value)));
}

// What getopt refused: `c` is its verdict, `word` the word it has just read.
static int fail_option(const struct cli_state *s, const struct parser *p, int c, const char *word, struct error *e)
{
    const struct cli_option *o = optopt ? parser_option(p, optopt) : NULL;
    const char *space = s->words ? " " : "", *words = s->words ? s->words : "";
    AUTO(free) char *shown = text_escape(word);
    if (o && c == ':')
        return fail(e, E_INVALID, "--%s needs an argument: %s", o->name, o->arg);
    if (o)
        return fail(e, E_INVALID, "--%s takes no argument", o->name);
    if (optopt)
        return fail(e, E_INVALID, "there is no option -%c here; see `flocker help%s%s`",
                    optopt > ' ' && optopt < 127 ? optopt : '?', space, words);
    return fail(e, E_INVALID, "there is no option %.60s here, or several begin so; see `flocker help%s%s`", shown, space, words);
}

// Where one word does not tell what was meant, two may: "volme ls".
static int fail_words(const struct cli_state *s, const char *next, struct error *e)
{
    bool is_alone = !strchr(s->words, ' ') && !command_nearest(s->more, s->words);
    AUTO(free) char *longer = is_alone && next && *next != '-' ? xasprintf("%s %s", s->words, next) : NULL;
    return fail_unknown(s->more, longer && command_nearest(s->more, longer) ? longer : s->words, e);
}

// The words of the command, with global options before, between and behind them. Stops where the command's own options and
// arguments begin and returns that place.
static int read_words(struct cli_state *s, int argc, char **argv, int *ret, struct error *e)
{
    struct parser p = parser_new("+:", NULL);
    int rc = 0, at = 1, words = 0;
    while (rc == 0) {
        int c = getopt_long(argc, argv, p.shorts, p.longs, NULL);
        if (c == -1 && (words == WORDS_MAX || optind >= argc))
            break;
        if (c == -1 && s->words && strcmp(argv[optind], "help") == 0 && !s->command) {
            s->wants_help = true; // `flocker volume help`
            break;
        }
        if (c == -1) {
            AUTO(free) char *next = s->words ? xasprintf("%s %s", s->words, argv[optind]) : xstrdup(argv[optind]);
            const struct cli_command *found = command_find(s->more, next);
            if (s->command && !found)
                break;
            free(s->words);
            s->words = TAKE(next, NULL);
            s->command = found;
            words++;
            if (!found && !command_is_group(s->more, s->words)) {
                rc = fail_words(s, optind + 1 < argc ? argv[optind + 1] : NULL, e);
                break;
            }
            at = ++optind;
            continue;
        }
        if (c == '?' || c == ':') {
            if (!s->command)
                rc = fail_option(s, &p, c, argv[optind - 1], e);
            break; // perhaps an option of the command
        }
        add_given(s, parser_option(&p, c), optarg);
        at = optind;
    }
    parser_done(&p);
    *ret = at;
    return rc;
}

// The rest: the command's options and arguments. argv[0] stands for the program's name. *ret is the first argument.
static int read_options(struct cli_state *s, int argc, char **argv, int *ret, struct error *e)
{
    struct parser p = parser_new(":", s->command->options);
    int rc = 0, c;
    while (rc == 0 && (c = getopt_long(argc, argv, p.shorts, p.longs, NULL)) != -1) {
        if (c == '?' || c == ':')
            rc = fail_option(s, &p, c, argv[optind - 1], e);
        else
            add_given(s, parser_option(&p, c), optarg);
    }
    *ret = optind;
    parser_done(&p);
    return rc;
}

static int check_arguments(const struct cli_state *s, int n, char **args, struct error *e)
{
    int min, max;
    command_arity(s->command, &min, &max);
    if (n < min)
        return fail(e, E_INVALID, "`flocker %s` needs: %s", s->words, s->command->args);
    if (n <= max)
        return 0;
    if (max == 0 && command_is_group(s->more, s->words)) {
        AUTO(free) char *words = xasprintf("%s %s", s->words, args[0]);
        return fail_unknown(s->more, words, e);
    }
    AUTO(free) char *shown = text_escape(args[max]);
    return fail(e, E_INVALID, "`flocker %s` takes %s%s: what is \"%.60s\"?", s->words, max ? "only " : "no arguments",
                s->command->args, shown);
}

// ---- running

static int fail_incomplete(const struct cli_state *s, struct error *e)
{
    AUTO(free) const struct cli_command **list = command_list(s->more, false);
    char names[200] = "";
    for (size_t i = 0; list[i]; i++)
        if (command_is_in(list[i], s->words, false))
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "",
                     list[i]->name + strlen(s->words) + 1);
    return fail(e, E_INVALID, "`flocker %s` needs one more word: %s", s->words, names);
}

// What the command prints for people is kept apart if a program is to read.
static void open_output(struct cli_context *ctx)
{
    struct cli_state *s = ctx->state;
    s->is_parsed = true;
    if (s->is_json)
        ctx->out = xmemstream(&s->text, &s->text_n);
}

static int run_command(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const char *root = cli_value(ctx, "root");
    uint64_t port;
    int rc = check_arguments(ctx->state, argc, argv, e);
    if (rc < 0 || (rc = cli_number(ctx, "control-port", 10, UINT16_MAX, &port, e)) < 0) // so that cli_control can't fail
        return rc;
    ctx->root = root ? root : "";
    rc = ctx->state->command->run(ctx, argc, argv, e);
    return rc < 0 ? rc : 0;
}

static int dispatch(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct cli_state *s = ctx->state;
    int at = 1, first = 0;
    const char *program = strrchr(argv[0], '/');
    s->command = command_of_program(s->more, program ? program + 1 : argv[0]);
    if (s->command)
        s->words = xstrdup(s->command->name);
    int rc = s->command ? 0 : read_words(s, argc, argv, &at, e);
    if (rc == 0 && s->command) {
        argv += at - 1;
        rc = read_options(s, argc - at + 1, argv, &first, e);
    }
    if (rc < 0)
        return rc;
    open_output(ctx);
    if (s->wants_version)
        return command_find(s->more, "version")->run(ctx, 0, argv, e);
    if (s->wants_help || !s->words)
        return help_show(ctx->out, s->more, s->words ? s->words : "", e);
    if (!s->command)
        return fail_incomplete(s, e);
    return run_command(ctx, argc - at + 1 - first, argv + first, e);
}

// ---- output

static json_t *error_to_json(const struct error *e)
{
    return json_pack("{s:s, s:o}", "code", error_word(e->code), "message", text_to_json(e->msg));
}

// The one document of --json: the command's result; without one, what it printed; after a failure {"error": ...}, with the result
// beside it if there is one.
static void print_document(struct cli_context *ctx, int rc, const struct error *e, FILE *out)
{
    struct cli_state *s = ctx->state;
    AUTO(json_decref) json_t *document = NULL;
    if (!ctx->result && rc == 0 && s->text_n)
        ctx->result = json_pack("{s:o}", "text", text_to_json(s->text));
    if (rc < 0) {
        document = json_pack("{s:o}", "error", error_to_json(e));
        if (ctx->result)
            json_object_set(document, "result", ctx->result);
    } else
        document = ctx->result ? json_incref(ctx->result) : json_object();
    AUTO(free) char *text = json_dumps(document, JSON_INDENT(2) | JSON_ENCODE_ANY);
    ASSERT(text);
    fprintf(out, "%s\n", text);
}

static bool asks_for_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

static int finish(struct cli_context *ctx, int rc, struct error *e, FILE *out, FILE *err)
{
    struct cli_state *s = ctx->state;
    if (ctx->out != out)
        fclose(ctx->out);
    if (s->is_json)
        print_document(ctx, rc, e, out);
    int failed = fflush(out) != 0 ? errno : ferror(out) ? EIO : 0;
    if (failed && rc == 0)
        rc = fail_os(e, failed, "write to standard output");
    if (rc < 0) {
        AUTO(free) char *message = text_escape(e->msg);
        fprintf(err, "%s: %s\n", s->is_original ? "Error" : "flocker", message);
    }
    if (rc < 0 && s->is_original)
        return 1;
    return rc < 0 ? error_exit(e->code) : 0;
}

// `flocker-ca initialize x` is `flocker ca initialize x`. The array has room for one more.
static bool insert_group(int *argc, char **argv)
{
    static char word[16];
    const char *slash = strrchr(argv[0], '/'), *group = group_of_program(slash ? slash + 1 : argv[0]);
    if (!group)
        return false;
    snprintf(word, sizeof word, "%s", group);
    memmove(argv + 2, argv + 1, ((size_t)*argc - 1) * sizeof *argv);
    argv[1] = word;
    ++*argc;
    return true;
}

int cli_run(int argc, char **argv, const struct cli_command *more, FILE *out, FILE *err)
{
    struct cli_state s = { .more = more };
    struct cli_context ctx = { .root = "", .out = out, .state = &s };
    struct error e = ERROR_INIT;
    AUTO(free) char **copy = xcalloc((size_t)argc + 2, sizeof *copy); // getopt sorts it
    char nameless[] = "flocker";
    for (int i = 0; i < argc; i++)
        copy[i] = argv[i];
    if (argc == 0)
        copy[argc++] = nameless;
    s.is_original = insert_group(&argc, copy);
    int rc = dispatch(&ctx, argc, copy, &e);
    ASSERT(rc == 0 || (rc < 0 && e.code != E_NONE));
    if (!s.is_parsed) // a mistake before --json was read is told in the form that was asked for too
        s.is_json = asks_for_json(argc, copy);
    int status = finish(&ctx, rc, &e, out, err);
    json_decref(ctx.result);
    free(s.words);
    free(s.given);
    for (size_t i = 0; i < s.kept_count; i++)
        free(s.kept[i]);
    free(s.kept);
    free(s.text);
    return status;
}

int cli_main(int argc, char **argv, const struct cli_command *more)
{
    return cli_run(argc, argv, more, stdout, stderr);
}
