// What the files of the CLI share.
#ifndef FLOCKER_CLI_INTERNAL_H
#define FLOCKER_CLI_INTERNAL_H

#include "base/mem.h"
#include "cli/cli.h"
#include "client/client.h"

DEFINE_AUTO(json_t *, json_decref)

#define CONTROL_SOCKET "/run/flocker/control.sock"
#define CERTS_DIR      "/etc/flocker"
#define AGENT_SOCKET   "/run/flocker/agent.sock"
#define CONTROL_LOCK   "/var/lib/flocker/control.lock" // sys/instance.h
#define AGENT_LOCK     "/var/lib/flocker/agent.lock"
#define WORDS_MAX      2 // of a command's name

// ---- the tables: one per file of commands, each ends with a NULL name

extern const struct cli_command commands_volume[], commands_node[], commands_ca[], commands_pool[], commands_status[], commands_control[],
    commands_user[], commands_diagnostics[], commands_help[];
extern const struct cli_option options_global[];

// All commands, those that begin with the same word together; NULL-terminated, the caller frees the array. Hidden ones only if
// asked for.
const struct cli_command **command_list(const struct cli_command *more, bool with_hidden);

// A command of exactly that name, hidden or not.
const struct cli_command *command_find(const struct cli_command *more, const char *name);
// The group whose commands a program's name stands for, as "ca" for flocker-ca; NULL: none.
const char *group_of_program(const char *program);
const struct cli_command *command_of_program(const struct cli_command *more, const char *program);
// Whether a command's name is `words` (with_self) or begins with them and a space. "" is the beginning of all.
bool command_is_in(const struct cli_command *c, const char *words, bool with_self);
bool command_is_group(const struct cli_command *more, const char *words); // some name begins with `words` and a space
// The name that was probably meant, or NULL.
const char *command_nearest(const struct cli_command *more, const char *words);
// How many arguments the command takes.
void command_arity(const struct cli_command *c, int *ret_min, int *ret_max);
size_t command_first_word(const struct cli_command *c); // its length
// What groups are about: "volume" -> "volumes of the cluster". For a group that is not known here, the group's own name.
const char *group_summary(const char *group);

const struct cli_command *cli_more(const struct cli_context *ctx);
// Keeps a string as long as the context.
const char *cli_keep(const struct cli_context *ctx, char *text /* taken */);

// ---- text for people

// A copy in which nothing can drive a terminal or forge a line: control characters and those that turn the direction of writing
// become \xNN, and what is not UTF-8 too.
char *text_escape(const char *text);
size_t text_width(const char *text); // characters of valid UTF-8
// Prints words with line breaks so that no line is longer than `width`; the first line starts at column `at`, the others at
// `indent`. Ends with a newline.
void text_wrap(FILE *out, const char *text, size_t at, size_t indent, size_t width);
// A JSON string of any text: what is not UTF-8 is escaped.
json_t *text_to_json(const char *text);
// Milliseconds since 1970 of an RFC 3339 time in UTC; -1 if it is none.
int64_t text_to_ms(const char *text);
// "12s", "5m", "3h", "9d": the largest unit alone.
#define AGE_SIZE 24
const char *text_age(int64_t ms, char ret[AGE_SIZE]);

// A table with aligned columns. Columns without a single entry are left out; the last one is not padded.
struct table;
struct table *table_new(const char *const *headings); // NULL-terminated
void table_free(struct table *t);
void table_add(struct table *t, const char *const *cells); // one per heading; escaped here. NULL or "": nothing
void table_print(const struct table *t, FILE *out);        // prints the headings also if there are no rows
DEFINE_AUTO(struct table *, table_free)

// ---- pools

// Prints what somebody has to know of a pool as the agent tells it: a line for each thing, which begins with `start`. Of a file that may
// become larger than its disk that is told from `low` bytes of free space on downwards; UINT64_MAX: always.
void pool_warn(FILE *out, const char *start, const json_t *pool, uint64_t low);

// ---- help, manual, completion: made from the tables

#define HELP_WIDTH 96
// A page in roff: "" for flocker(1), or a first word of commands for flocker-<word>(1). E_NOT_FOUND.
int man_page(FILE *out, const struct cli_command *more, const char *page, struct error *e);
// A script for a shell. E_INVALID for one that is not known.
int completion_script(FILE *out, const struct cli_command *more, const char *shell, struct error *e);

// Shows help for the words, as far as they name a command or a group.
int help_show(FILE *out, const struct cli_command *more, const char *words, struct error *e);
int fail_unknown(const struct cli_command *more, const char *words, struct error *e);

#endif
