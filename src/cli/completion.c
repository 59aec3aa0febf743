// Completion scripts for shells, made from the tables of commands.
//
// A script asks the program for names of volumes and nodes while one types. Only words that mean nothing to a shell are taken from
// its answer: a name is other people's input and must not become a command in anyone's shell.
#include "cli/internal.h"

#include <string.h>

// What shells can complete, by the name of an argument in a table.
static const struct {
    const char *arg;
    const char *command; // prints the candidates
    const char *words;   // or: these
    bool is_file, is_folder;
} kinds[] = {
    { "VOLUME", "volume ls --all --quiet", NULL, false, false },
    { "NODE", "node ls --quiet", NULL, false, false },
    { "SHELL", NULL, "bash zsh fish", false, false },
    { "FILE", NULL, NULL, true, false },
    { "PATH", NULL, NULL, true, false },
    { "DIR", NULL, NULL, false, true },
};

// ---- what bash and zsh share: a function that knows the tables

// "VOLUME..." and "[FILE]" without their marks.
static char *bare_args(const char *args)
{
    char *ret = xstrdup(args), *to = ret;
    for (const char *p = ret; *p; p++)
        if (*p != '[' && *p != ']')
            *to++ = *p;
    *to = '\0';
    return ret;
}

// The words that can follow `words`, each once.
static void put_next_words(FILE *out, const struct cli_command **list, const char *words)
{
    size_t at = *words ? strlen(words) + 1 : 0;
    const char *last = "", *space = "";
    for (size_t i = 0; list[i]; i++) {
        if (!command_is_in(list[i], words, false))
            continue;
        const char *word = list[i]->name + at;
        size_t n = strcspn(word, " ");
        if (strncmp(last, word, n) == 0 && (last[n] == '\0' || last[n] == ' '))
            continue;
        fprintf(out, "%s%.*s", space, (int)n, word);
        space = " ";
        last = word;
    }
}

static void put_option_names(FILE *out, const struct cli_option *options)
{
    for (const struct cli_option *o = options; o && o->name; o++)
        fprintf(out, " --%s", o->name);
}

static void put_valued(FILE *out, const struct cli_option *options)
{
    for (const struct cli_option *o = options; o && o->name; o++) {
        if (o->arg)
            fprintf(out, " --%s:%s", o->name, o->arg);
        if (o->arg && o->letter)
            fprintf(out, " -%c:%s", o->letter, o->arg);
    }
}

static void put_case(FILE *out, const struct cli_command **list, const char *words, const struct cli_command *c)
{
    AUTO(free) char *args = bare_args(c ? c->args : "");
    fprintf(out, "    '%s')\n        subs='", words);
    put_next_words(out, list, words);
    fprintf(out, "' opts='");
    put_option_names(out, c ? c->options : NULL);
    put_option_names(out, options_global);
    fprintf(out, " ' valued='");
    put_valued(out, c ? c->options : NULL);
    put_valued(out, options_global);
    fprintf(out, " ' args='%s' ;;\n", args);
}

static void put_facts(FILE *out, const struct cli_command *more)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    fputs("_flocker_facts() {\n    case $1 in\n", out);
    put_case(out, list, "", NULL);
    for (size_t i = 0; list[i]; i++) {
        AUTO(free) char *word = xstrndup(list[i]->name, command_first_word(list[i]));
        bool is_first = !i || !command_is_in(list[i - 1], word, true);
        if (is_first && !command_find(more, word))
            put_case(out, list, word, NULL);
        put_case(out, list, list[i]->name, list[i]);
    }
    fputs("    esac\n}\n", out);
}

static void put_kinds(FILE *out, const char *files, const char *folders)
{
    fputs("_flocker_kind() {\n    case $1 in\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        fprintf(out, "    %s) ", kinds[i].arg);
        if (kinds[i].command)
            fprintf(out, "_flocker_ask %s", kinds[i].command);
        else if (kinds[i].words)
            fprintf(out, "_flocker_words %s", kinds[i].words);
        else
            fputs(kinds[i].is_folder ? folders : files, out);
        fputs(" ;;\n", out);
    }
    fputs("    esac\n}\n", out);
}

// Reads the words before the cursor: which command, which argument, or which option's argument is meant. Bash and zsh understand it
// alike. $program asks about the same control as the command line that is being typed.
static const char reading[] = "_flocker_read() { # one word\n"
                              "    if [[ -n $kind ]]; then\n"
                              "        if [[ $expect == --root || $expect == --socket ]]; then\n"
                              "            program+=(\"$expect\" \"$1\")\n"
                              "        fi\n"
                              "        kind='' expect=''\n"
                              "    elif [[ $1 == --*=* ]]; then\n"
                              "        if [[ $1 == --root=* || $1 == --socket=* ]]; then\n"
                              "            program+=(\"$1\")\n"
                              "        fi\n"
                              "    elif [[ $1 == -* ]]; then\n"
                              "        _flocker_expect \"$1\"\n"
                              "    elif [[ -z $at && -z $helping && $1 == help ]]; then\n"
                              "        helping=1 # what follows is a command again\n"
                              "    elif [[ $count == 0 && \" $subs \" == *\" $1 \"* ]]; then\n"
                              "        at=\"${at:+$at }$1\"\n"
                              "        _flocker_facts \"$at\"\n"
                              "    else\n"
                              "        count=$((count + 1))\n"
                              "    fi\n"
                              "}\n"
                              "_flocker_expect() { # an option: does an argument follow, and of what kind?\n"
                              "    local rest=\"${valued#*\" $1:\"}\"\n"
                              "    if [[ $rest != \"$valued\" ]]; then\n"
                              "        expect=$1 kind=${rest%% *}\n"
                              "    fi\n"
                              "}\n"
                              "_flocker_argument() { # the kind of the next argument\n"
                              "    local rest=\"$args \" i=0\n"
                              "    while [[ $i -lt $count && ${rest%% *} != *... ]]; do\n"
                              "        rest=${rest#* } i=$((i + 1))\n"
                              "    done\n"
                              "    rest=${rest%% *}\n"
                              "    kind=${rest%...}\n"
                              "}\n";

// ---- bash

static const char bash_head[] = "# bash completion for flocker, made by `flocker completion bash`\n"
                                "_flocker_words() {\n"
                                "    local word\n"
                                "    for word in \"$@\"; do\n"
                                "        if [[ $word == \"$cur\"* ]]; then\n"
                                "            COMPREPLY+=(\"$word\")\n"
                                "        fi\n"
                                "    done\n"
                                "}\n"
                                "_flocker_ask() {\n"
                                "    local line\n"
                                "    while IFS= read -r line; do\n"
                                "        if [[ $line == [A-Za-z0-9]* && $line != *[!A-Za-z0-9_.-]* ]]; then\n"
                                "            _flocker_words \"$line\"\n"
                                "        fi\n"
                                "    done < <(\"${program[@]}\" \"$@\" 2>/dev/null)\n"
                                "}\n"
                                "_flocker_files() {\n"
                                "    local line\n"
                                "    compopt -o filenames 2>/dev/null\n"
                                "    while IFS= read -r line; do\n"
                                "        COMPREPLY+=(\"$line\")\n"
                                "    done < <(compgen \"$1\" -- \"$cur\")\n"
                                "}\n";

static const char bash_tail[] =
    "_flocker() {\n"
    "    local LC_ALL=C cur=${COMP_WORDS[COMP_CWORD]} at='' expect='' kind='' helping='' subs opts valued args i count=0\n"
    "    local -a program=(\"${COMP_WORDS[0]}\")\n"
    "    COMPREPLY=()\n"
    "    _flocker_facts ''\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        if [[ ${COMP_WORDS[i]} != = ]]; then # bash parts --root=DIR\n"
    "            _flocker_read \"${COMP_WORDS[i]}\"\n"
    "        fi\n"
    "    done\n"
    "    if [[ $cur == = ]]; then\n"
    "        cur=''\n"
    "    fi\n"
    "    if [[ -n $kind ]]; then\n"
    "        _flocker_kind \"$kind\"\n"
    "    elif [[ $cur == -* ]]; then\n"
    "        _flocker_words $opts ${helping:+--man}\n"
    "    else\n"
    "        if [[ $count == 0 ]]; then\n"
    "            _flocker_words $subs\n"
    "        fi\n"
    "        if [[ -z $helping ]]; then\n"
    "            _flocker_argument\n"
    "            _flocker_kind \"$kind\"\n"
    "        fi\n"
    "    fi\n"
    "}\n"
    "complete -F _flocker flocker\n";

static void bash_script(FILE *out, const struct cli_command *more)
{
    fputs(bash_head, out);
    put_kinds(out, "_flocker_files -f", "_flocker_files -d");
    put_facts(out, more);
    fputs(reading, out);
    fputs(bash_tail, out);
}

// ---- zsh

static const char zsh_head[] = "#compdef flocker\n"
                               "# zsh completion for flocker, made by `flocker completion zsh`\n"
                               "_flocker_words() {\n"
                               "    compadd -- \"$@\"\n"
                               "}\n"
                               "_flocker_ask() {\n"
                               "    local line\n"
                               "    local -a found\n"
                               "    for line in ${(f)\"$(\"${program[@]}\" \"$@\" 2>/dev/null)\"}; do\n"
                               "        if [[ $line == [A-Za-z0-9]* && $line != *[^A-Za-z0-9_.-]* ]]; then\n"
                               "            found+=(\"$line\")\n"
                               "        fi\n"
                               "    done\n"
                               "    compadd -a found\n"
                               "}\n";

static const char zsh_tail[] = "_flocker() {\n"
                               "    local at='' expect='' kind='' helping='' subs opts valued args i count=0\n"
                               "    local -a program\n"
                               "    program=(\"$words[1]\")\n"
                               "    _flocker_facts ''\n"
                               "    for ((i = 2; i < CURRENT; i++)); do\n"
                               "        _flocker_read \"$words[i]\"\n"
                               "    done\n"
                               "    if [[ -z $kind && $words[CURRENT] == --*=* ]]; then\n"
                               "        _flocker_expect \"${words[CURRENT]%%=*}\"\n"
                               "        compset -P '*='\n"
                               "    fi\n"
                               "    if [[ -n $kind ]]; then\n"
                               "        _flocker_kind \"$kind\"\n"
                               "    elif [[ $words[CURRENT] == -* ]]; then\n"
                               "        compadd -- ${=opts} ${helping:+--man}\n"
                               "    else\n"
                               "        if [[ $count == 0 ]]; then\n"
                               "            compadd -- ${=subs}\n"
                               "        fi\n"
                               "        if [[ -z $helping ]]; then\n"
                               "            _flocker_argument\n"
                               "            _flocker_kind \"$kind\"\n"
                               "        fi\n"
                               "    fi\n"
                               "}\n"
                               "if [[ $funcstack[1] == _flocker ]]; then # found by compinit; else sourced\n"
                               "    _flocker \"$@\"\n"
                               "else\n"
                               "    compdef _flocker flocker\n"
                               "fi\n";

static void zsh_script(FILE *out, const struct cli_command *more)
{
    fputs(zsh_head, out);
    put_kinds(out, "_files", "_files -/");
    put_facts(out, more);
    fputs(reading, out);
    fputs(zsh_tail, out);
}

// ---- fish

static const char fish_functions[] =
    "function __flocker_command # the longest known command before the cursor\n"
    "    set -l at ''\n"
    "    set -l skip 0\n"
    "    set -l tokens (commandline -opc)\n"
    "    set -e tokens[1]\n"
    "    for word in $tokens\n"
    "        if test $skip = 1\n"
    "            set skip 0\n"
    "        else if contains -- $word $__flocker_valued\n"
    "            set skip 1\n"
    "        else if not string match -q -- '-*' $word\n"
    "            set -l longer (string trim -- \"$at $word\")\n"
    "            contains -- $longer $__flocker_known; or break\n"
    "            set at $longer\n"
    "        end\n"
    "    end\n"
    "    echo $at\n"
    "end\n"
    "function __flocker_ask\n"
    "    set -l tokens (commandline -opc)\n"
    "    set -l program $tokens[1]\n"
    "    for i in (seq 2 (count $tokens))\n"
    "        switch $tokens[$i]\n"
    "            case --root --socket\n"
    "                set -q tokens[(math $i + 1)]; and set -a program $tokens[$i] $tokens[(math $i + 1)]\n"
    "            case '--root=*' '--socket=*'\n"
    "                set -a program $tokens[$i]\n"
    "        end\n"
    "    end\n"
    "    command $program $argv 2>/dev/null | string match -r '^[A-Za-z0-9][A-Za-z0-9_.-]*$'\n"
    "end\n";

// In single quotes.
static void put_fish(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++)
        fprintf(out, "%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
    fputc('\'', out);
}

static bool is_file(const char *arg)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strcmp(kinds[i].arg, arg) == 0)
            return kinds[i].is_file;
    return false;
}

// Candidates for an argument. Files are offered only (-F) where it is one.
static void put_fish_kind(FILE *out, const char *arg)
{
    size_t n = strcspn(arg, ". ]");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strlen(kinds[i].arg) != n || memcmp(kinds[i].arg, arg, n) != 0)
            continue;
        if (kinds[i].command)
            fprintf(out, " -a '(__flocker_ask %s)'", kinds[i].command);
        else if (kinds[i].words)
            fprintf(out, " -a '%s'", kinds[i].words);
        else
            fputs(kinds[i].is_folder ? " -a '(__fish_complete_directories)'" : " -F", out);
        return;
    }
}

static void put_fish_options(FILE *out, const char *command, const struct cli_option *options)
{
    for (const struct cli_option *o = options; o && o->name; o++) {
        fputs("complete -c flocker", out);
        if (command)
            fprintf(out, " -n 'test (__flocker_command) = \"%s\"'", command);
        fprintf(out, " -l %s", o->name);
        if (o->letter)
            fprintf(out, " -s %c", o->letter);
        if (o->arg) {
            fputs(is_file(o->arg) ? " -r" : " -x", out);
            put_fish_kind(out, o->arg);
        }
        fputs(" -d ", out);
        put_fish(out, o->help);
        fputc('\n', out);
    }
}

static void put_fish_word(FILE *out, const char *behind, const char *word, const char *summary)
{
    fprintf(out, "complete -c flocker -n 'test (__flocker_command) = \"%s\"' -a %s -d ", behind, word);
    put_fish(out, summary);
    fputc('\n', out);
}

static void put_fish_command(FILE *out, const struct cli_command *c)
{
    put_fish_options(out, c->name, c->options);
    if (!*c->args)
        return;
    fprintf(out, "complete -c flocker -n 'test (__flocker_command) = \"%s\"'", c->name);
    put_fish_kind(out, c->args + (*c->args == '['));
    fputc('\n', out);
}

static void put_fish_lists(FILE *out, const struct cli_command **list)
{
    fputs("set -g __flocker_known", out);
    for (size_t i = 0; list[i]; i++)
        fprintf(out, " %.*s '%s'", (int)command_first_word(list[i]), list[i]->name, list[i]->name);
    fputs("\nset -g __flocker_valued", out);
    for (size_t i = 0; list[i]; i++)
        for (const struct cli_option *o = i ? list[i - 1]->options : options_global; o && o->name; o++) {
            if (o->arg)
                fprintf(out, " --%s", o->name);
            if (o->arg && o->letter)
                fprintf(out, " -%c", o->letter);
        }
    fputc('\n', out);
}

static void fish_script(FILE *out, const struct cli_command *more)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    fputs("# fish completion for flocker, made by `flocker completion fish`\n", out);
    put_fish_lists(out, list);
    fputs(fish_functions, out);
    fputs("complete -c flocker -f\n", out);
    put_fish_options(out, NULL, options_global);
    for (size_t i = 0; list[i]; i++) {
        size_t n = command_first_word(list[i]);
        AUTO(free) char *word = xstrndup(list[i]->name, n);
        if (!i || !command_is_in(list[i - 1], word, true)) {
            const struct cli_command *alone = command_find(more, word);
            put_fish_word(out, "", word, alone ? alone->summary : group_summary(word));
            put_fish_word(out, "help", word, alone ? alone->summary : group_summary(word));
        }
        if (list[i]->name[n])
            put_fish_word(out, word, list[i]->name + n + 1, list[i]->summary);
        put_fish_command(out, list[i]);
    }
}

// ----

int completion_script(FILE *out, const struct cli_command *more, const char *shell, struct error *e)
{
    static const struct {
        const char *shell;
        void (*script)(FILE *out, const struct cli_command *more);
    } table[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].shell, shell) == 0) {
            table[i].script(out, more);
            return 0;
        }
    AUTO(free) char *shown = text_escape(shell);
    return fail(e, E_INVALID, "there is no completion for \"%.60s\": bash, zsh and fish can be had", shown);
}
