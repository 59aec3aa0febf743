#include "main/settings.h"

#include "base/mem.h"
#include "cli/cli.h"
#include "sys/atomic_file.h"
#include "sys/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define LOCK_MS 5000
#define BLANKS  " \t\r"

static const char heading[] = "# Options of Flocker on this host, as `flocker up` and `flocker join` take them. They count when it is started.\n";

void settings_done(struct settings *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i].name);
        free(s->items[i].value);
    }
    free(s->items);
    *s = (struct settings){ NULL, 0 };
}

static void add(struct settings *s, char *name /* taken */, char *value /* taken */)
{
    s->items = xrealloc(s->items, s->n + 1, sizeof *s->items);
    s->items[s->n++] = (struct setting){ name, value };
}

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, BLANKS);
}

static char *without_blanks(const char *from, const char *to)
{
    from += strspn(from, BLANKS);
    while (to > from && strchr(BLANKS, to[-1]))
        to--;
    return xstrndup(from, to > from ? (size_t)(to - from) : 0);
}

static const struct cli_option *find(const struct cli_option *known, const char *name)
{
    for (; known->name; known++)
        if (strcmp(known->name, name) == 0)
            return known;
    return NULL;
}

// What is shown of a line in an error: nothing that a terminal would take for more than text.
static char *shown(const char *text)
{
    char *ret = xstrndup(text, 60);
    for (char *c = ret; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return ret;
}

static int parse_line(const char *line, const struct cli_option *known, struct settings *s, struct error *e)
{
    const char *text = skip_blanks(line), *equals = strchr(text, '='), *end = text + strlen(text);
    if (!*text || *text == '#') {
        add(s, NULL, xstrdup(line));
        return 0;
    }
    AUTO(free) char *name = without_blanks(text, equals ? equals : end), *value = without_blanks(equals ? equals + 1 : end, end);
    AUTO(free) char *name_shown = shown(name);
    const struct cli_option *o = find(known, name);
    if (!o)
        return fail(e, E_INVALID, "there is no option '%s'; they are written as NAME=VALUE, without dashes", name_shown);
    if (o->arg && !*value)
        return fail(e, E_INVALID, "%s needs a value: %s=%s", o->name, o->name, o->arg);
    if (!o->arg && equals)
        return fail(e, E_INVALID, "%s takes no value", o->name);
    add(s, TAKE(name, NULL), TAKE(value, NULL));
    return 0;
}

int settings_parse(const char *file, const char *text, size_t n, const struct cli_option *known, struct settings *ret, struct error *e)
{
    struct settings s = { NULL, 0 };
    int rc = 0;
    *ret = s;
    if (n > SETTINGS_BYTES_MAX)
        return fail(e, E_TOO_LARGE, "%s is longer than %d bytes", file, SETTINGS_BYTES_MAX);
    if (memchr(text, '\0', n))
        return fail(e, E_INVALID, "%s is not text", file);
    for (size_t at = 0, number = 1; at < n && rc == 0; number++) {
        const char *feed = memchr(text + at, '\n', n - at);
        size_t length = feed ? (size_t)(feed - text) - at : n - at;
        AUTO(free) char *line = xstrndup(text + at, length);
        rc = parse_line(line, known, &s, e);
        if (rc < 0)
            rc = fail_ctx(e, rc, "%s line %zu", file, number);
        at += length + 1;
    }
    if (rc < 0)
        settings_done(&s);
    *ret = s;
    return rc;
}

char *settings_text(const struct settings *s)
{
    char *ret = NULL;
    size_t n = 0;
    FILE *out = xmemstream(&ret, &n);
    for (size_t i = 0; i < s->n; i++) {
        const struct setting *item = &s->items[i];
        fprintf(out, "%s%s%s\n", item->name ? item->name : "", item->name && *item->value ? "=" : "", item->value);
    }
    fclose(out);
    return ret;
}

static struct setting *last(const struct settings *s, const char *name)
{
    for (size_t i = s->n; i-- > 0;)
        if (s->items[i].name && strcmp(s->items[i].name, name) == 0)
            return &s->items[i];
    return NULL;
}

const char *settings_value(const struct settings *s, const char *name)
{
    const struct setting *item = last(s, name);
    return item ? item->value : NULL;
}

int settings_set(struct settings *s, const char *name, const char *value, struct error *e)
{
    struct setting *item = last(s, name);
    if (strchr(value, '\n') || skip_blanks(value) != value || (*value && strchr(BLANKS, value[strlen(value) - 1])))
        return fail(e, E_INVALID, "--%s: a value can't begin or end with a blank, nor have several lines", name);
    if (!item) {
        add(s, xstrdup(name), xstrdup(value));
        return 0;
    }
    AUTO(free) char *old = TAKE(item->value, xstrdup(value)); // `value` may be a part of it
    return 0;
}

void settings_forget(struct settings *s, const char *name)
{
    size_t left = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct setting item = s->items[i];
        if (!item.name || strcmp(item.name, name) != 0) {
            s->items[left++] = item;
            continue;
        }
        free(item.name);
        free(item.value);
    }
    s->n = left;
}

// ---- the file

int settings_open(const char *etc, bool to_change, int *ret_dir, struct error *e)
{
    AUTO(close) int dir = open(etc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fail_os(e, errno, "open %s", etc);
    int rc = to_change ? lock_whole(dir, LOCK_MS, e) : 1;
    if (rc == 0)
        rc = fail(e, E_TIMEOUT, "another `flocker up` or `flocker join` is at work with %s: try again when it has ended", etc);
    if (rc < 0)
        return rc;
    *ret_dir = TAKE(dir, -1);
    return 0;
}

int settings_read(int dir, const char *etc, const struct cli_option *known, struct settings *ret, struct error *e)
{
    AUTO(free) char *text = NULL, *path = xasprintf("%s/%s", etc, SETTINGS_FILE);
    size_t n = 0;
    *ret = (struct settings){ NULL, 0 };
    int rc = atomic_file_read(dir, SETTINGS_FILE, SETTINGS_BYTES_MAX, &text, &n, e);
    if (rc == -E_NOT_FOUND)
        return 0;
    return rc < 0 ? fail_ctx(e, rc, "%s", etc) : settings_parse(path, text, n, known, ret, e);
}

int settings_write(int dir, const struct settings *s, struct error *e)
{
    AUTO(free) char *lines = settings_text(s), *text = xasprintf("%s%s", s->n && !s->items[0].name ? "" : heading, lines);
    return atomic_file_write(dir, SETTINGS_FILE, text, strlen(text), 0600, e);
}
