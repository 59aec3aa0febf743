// What `up` and `join` were told about this host, in <etc>/flocker.conf: their options, one a line and without the dashes, as
// "agents=0.0.0.0:4524". `control` and `agent` read it too, so that it counts however they are started. People may edit it: what they write
// between the options stays.
#ifndef FLOCKER_MAIN_SETTINGS_H
#define FLOCKER_MAIN_SETTINGS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct cli_option;

#define SETTINGS_FILE      "flocker.conf"
#define SETTINGS_BYTES_MAX 65536

struct setting {
    char *name; // NULL: a line that is empty or a comment
    char *value; // "" for an option that takes none
};

struct settings {
    struct setting *items;
    size_t n;
};
void settings_done(struct settings *s);

// Reads n bytes of text; `file` names it in errors, `known` are the options that there are. E_INVALID with the number of the line,
// E_TOO_LARGE; then *ret is empty.
int settings_parse(const char *file, const char *text, size_t n, const struct cli_option *known, struct settings *ret, struct error *e);
// As text that settings_parse reads back; the caller frees it.
char *settings_text(const struct settings *s);

// NULL: it is not there. Of several lines the last one counts.
const char *settings_value(const struct settings *s, const char *name);
// E_INVALID if a line can't hold it.
int settings_set(struct settings *s, const char *name, const char *value, struct error *e);
void settings_forget(struct settings *s, const char *name);

// Opens `etc` for the next two. Who wants to change the file has it for himself as long as the descriptor is open: E_TIMEOUT if another has it
// for 5 s. Who only reads never waits: the file is replaced as a whole. E_NOT_FOUND if `etc` isn't there.
int settings_open(const char *etc, bool to_change, int *ret_dir, struct error *e);
// No file is as good as an empty one.
int settings_read(int dir, const char *etc, const struct cli_option *known, struct settings *ret, struct error *e);
int settings_write(int dir, const struct settings *s, struct error *e);

#endif
