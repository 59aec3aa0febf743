// The command line. One table drives parsing, help, completion and the manual pages: a command is an entry, and nothing is written
// twice.
//
// A command prints for people to ctx->out and leaves for programs a JSON value in ctx->result; which of the two is seen is not its
// business. It never prints errors: it returns them.
#ifndef FLOCKER_CLI_CLI_H
#define FLOCKER_CLI_CLI_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cli_context;
struct client;

// An option of a command. Tables end with a NULL name. An option may be given several times; commands mostly take the last.
struct cli_option {
    const char *name; // "size", for --size
    char letter;      // 's', for -s; 0: none
    const char *arg;  // what its argument is called; NULL: it takes none. Some words are completed by shells: see completion.c
    const char *help; // one sentence, as "Limit its size; 0 or none: no limit."
};

// A command. Tables end with a NULL name.
struct cli_command {
    const char *name;    // one word ("status") or a group's and its own ("volume create")
    const char *args;    // "VOLUME SIZE", "[FILE]", "VOLUME...": also how many there may be. "" for none
    const char *summary; // one line, in the imperative, without a full stop
    const char *text; // help: paragraphs parted by an empty line; lines that begin with four spaces are examples, shown as they are
    const struct cli_option *options; // NULL: none
    // argv holds the arguments alone: argv[0] is the first of them. 0, or negative with *e set.
    int (*run)(struct cli_context *ctx, int argc, char **argv, struct error *e);
    const char *also;    // words that people may try for the last word of the name, as "list"; NULL
    const char *program; // name under which the program is this command, as "flocker-node-era"; NULL
    bool hidden;         // not for people: left out of help, completion and manual
};

struct cli_context {
    const char *root;        // prefix of all default paths; "" for none
    FILE *out;               // for people
    json_t *result;          // for programs (--json): set by the command, owned by the context. NULL: {"text": <what was printed>}
    struct cli_state *state; // the parser's own
};

// Runs what argv says; returns the exit status of the process. `more` holds commands of other layers (NULL: none); it is shown and
// completed like the CLI's own. Called once or often, in one thread.
int cli_main(int argc, char **argv, const struct cli_command *more);
// The same with other files than stdout and stderr.
int cli_run(int argc, char **argv, const struct cli_command *more, FILE *out, FILE *err);

// ---- for commands

// The last argument given with an option, "" for one that takes none, NULL if it was not given.
const char *cli_value(const struct cli_context *ctx, const char *option);
// From now on an option of the command that was not given counts as given with that argument ("" for one that takes none), which is copied.
void cli_set_default(struct cli_context *ctx, const char *option, const char *value);
// Walks all arguments of an option: start with *at = 0; NULL at the end.
const char *cli_next_value(const struct cli_context *ctx, const char *option, size_t *at);
// Reads an option's number; *ret stays as it is if the option was not given. Base 8 or 10.
int cli_number(const struct cli_context *ctx, const char *option, int base, uint64_t max, uint64_t *ret, struct error *e);
// <root><path>; the caller frees it.
char *cli_path(const struct cli_context *ctx, const char *path);
// Control (--socket, or by --root), and the agent of this host. The strings live as long as the context.
struct client cli_control(const struct cli_context *ctx);
struct client cli_agent(const struct cli_context *ctx);

#endif
