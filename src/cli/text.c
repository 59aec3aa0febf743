// Text for people: escaped, wrapped, in tables.
#include "cli/internal.h"

#include <string.h>
#include <time.h>

// Length of the UTF-8 sequence at `p`, 0 if it is none.
static size_t sequence(const unsigned char *p)
{
    size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool is_bad =
        (*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f);
    return n && is_bad ? 0 : n;
}

// C0 and C1 controls, line separators, and what turns the direction of writing (U+061C, U+200E, U+200F, U+2028-202E, U+2066-2069).
static bool is_harmless(const unsigned char *p, size_t n)
{
    if (n == 1)
        return *p >= 0x20 && *p != 0x7f;
    if (n == 2)
        return !(p[0] == 0xc2 && p[1] < 0xa0) && !(p[0] == 0xd8 && p[1] == 0x9c);
    if (n == 3 && p[0] == 0xe2 && p[1] == 0x80)
        return p[2] != 0x8e && p[2] != 0x8f && (p[2] < 0xa8 || p[2] > 0xae);
    return !(n == 3 && p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

char *text_escape(const char *text)
{
    char *ret = xcalloc(strlen(text) * 4 + 1, 1), *to = ret;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = sequence(p);
        if (n && is_harmless(p, n)) {
            memcpy(to, p, n);
            to += n;
            p += n;
            continue;
        }
        for (size_t left = n ? n : 1; left; left--)
            to += snprintf(to, 5, "\\x%02x", *p++);
    }
    return ret;
}

size_t text_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void text_wrap(FILE *out, const char *text, size_t at, size_t indent, size_t width)
{
    bool is_first = true;
    for (const char *p = text + strspn(text, " \n"); *p;) {
        size_t n = strcspn(p, " \n");
        AUTO(free) char *word = xstrndup(p, n);
        size_t w = text_width(word);
        if (!is_first && at + 1 + w > width) {
            fprintf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!is_first) {
            fputc(' ', out);
            at++;
        }
        fputs(word, out);
        at += w;
        is_first = false;
        p += n;
        p += strspn(p, " \n");
    }
    fputc('\n', out);
}

json_t *text_to_json(const char *text)
{
    json_t *ret = json_string(text);
    AUTO(free) char *escaped = ret ? NULL : text_escape(text);
    if (escaped)
        ret = json_string(escaped);
    ASSERT(ret);
    return ret;
}

int64_t text_to_ms(const char *text)
{
    struct tm tm = { 0 };
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!rest || (*rest != '.' && *rest != 'Z'))
        return -1;
    return (int64_t)timegm(&tm) * 1000;
}

const char *text_age(int64_t ms, char ret[AGE_SIZE])
{
    static const struct {
        int64_t seconds;
        char unit;
    } units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
    int64_t s = ms > 0 ? ms / 1000 : 0;
    size_t u = 0;
    while (u + 1 < ARRAY_SIZE(units) && s < units[u].seconds)
        u++;
    snprintf(ret, AGE_SIZE, "%lld%c", (long long)(s / units[u].seconds), units[u].unit);
    return ret;
}

// ---- tables

struct table {
    size_t columns, cells, size;
    char **text; // row by row; the first row holds the headings
};

struct table *table_new(const char *const *headings)
{
    struct table *t = xcalloc(1, sizeof *t);
    while (headings[t->columns])
        t->columns++;
    table_add(t, headings);
    return t;
}

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->cells; i++)
        free(t->text[i]);
    free(t->text);
    free(t);
}

void table_add(struct table *t, const char *const *cells)
{
    if (t->cells + t->columns > t->size) {
        t->size = t->size * 2 + t->columns * 16;
        t->text = xrealloc(t->text, t->size, sizeof *t->text);
    }
    for (size_t i = 0; i < t->columns; i++)
        t->text[t->cells++] = text_escape(cells[i] ? cells[i] : "");
}

// Width of a column, 0 if there is nothing in it below its heading.
static size_t column_width(const struct table *t, size_t column)
{
    size_t most = 0;
    for (size_t i = column + t->columns; i < t->cells; i += t->columns)
        if (most < text_width(t->text[i]))
            most = text_width(t->text[i]);
    bool is_shown = most || t->cells == t->columns;
    return !is_shown ? 0 : most > text_width(t->text[column]) ? most : text_width(t->text[column]);
}

void table_print(const struct table *t, FILE *out)
{
    AUTO(free) size_t *widths = xcalloc(t->columns, sizeof *widths);
    for (size_t i = 0; i < t->columns; i++)
        widths[i] = column_width(t, i);
    for (size_t row = 0; row < t->cells; row += t->columns) {
        size_t owed = 0; // spaces, if something follows
        for (size_t i = 0; i < t->columns; i++) {
            const char *text = t->text[row + i];
            if (*text && widths[i])
                fprintf(out, "%*s%s", (int)owed, "", text);
            owed = (*text && widths[i] ? 0 : owed) + (widths[i] ? widths[i] - text_width(text) + 2 : 0);
        }
        fputc('\n', out);
    }
}
