#include "model/json.h"

#include "base/limits.h"
#include "base/mem.h"

#include <stdbool.h>
#include <string.h>

// Deepest nesting of brackets outside of strings: looked at before parsing, so that depth costs the parser no stack.
static size_t depth(const char *text, size_t n)
{
    size_t now = 0, most = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '[')) {
            if (++now > most)
                most = now;
        } else if (!quoted && (c == '}' || c == ']') && now)
            now--;
    }
    return most;
}

void json_write_string(FILE *f, const char *text)
{
    fputc_unlocked('"', f);
    for (const char *p = text;;) {
        size_t plain = 0;
        while ((unsigned char)p[plain] >= ' ' && p[plain] != '"' && p[plain] != '\\')
            plain++;
        fwrite_unlocked(p, 1, plain, f);
        p += plain;
        if (*p == '\0')
            break;
        if (*p == '"' || *p == '\\')
            fprintf(f, "\\%c", *p);
        else
            fprintf(f, "\\u%04x", (unsigned)(unsigned char)*p);
        p++;
    }
    fputc_unlocked('"', f);
}

int json_read(const char *text, size_t n, json_t **ret, struct error *e)
{
    json_error_t why;
    if (depth(text, n) > JSON_DEPTH_MAX)
        return fail(e, E_INVALID, "JSON nested deeper than %d levels", JSON_DEPTH_MAX);
    json_t *value = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!value)
        return fail(e, E_INVALID, "not JSON, line %d: %s", why.line, why.text);
    *ret = value;
    return 0;
}

json_t *json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    AUTO(free) char *clean = xstrdup(text);
    for (char *p = clean; *p;) {
        size_t n = 1;
        if ((unsigned char)*p >= 0x80) {
            while (((unsigned char)p[n] & 0xc0) == 0x80)
                n++; // what continues the character
            json_t *one = json_stringn(p, n);
            if (!one || n > 4)
                memset(p, '?', n);
            json_decref(one);
        }
        p += n;
    }
    value = json_string(clean);
    ASSERT(value);
    return value;
}

json_t *json_from_error(const struct error *e)
{
    json_t *object = json_pack("{s:s, s:o}", "code", error_word(e->code), "message", json_text(e->msg));
    ASSERT(object);
    return object;
}

int json_read_error(const json_t *object, struct error *e)
{
    const json_t *error = json_object_get(object, "error");
    const char *word = json_string_value(json_object_get(error, "code")), *text = json_string_value(json_object_get(error, "message"));
    return error ? fail(e, word ? error_from_word(word) : E_IO, "%s", text ? text : "it failed, and no reason is given") : 0;
}
