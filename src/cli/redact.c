#include "cli/redact.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define LEFT_OUT "[left out]"

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-';
}

// A block from "-----BEGIN" to the end of its last line, if it is a private key.
static size_t key_block(const char *p)
{
    static const char begin[] = "-----BEGIN ", end[] = "-----END ";
    if (strncmp(p, begin, sizeof begin - 1) != 0)
        return 0;
    const size_t line = strcspn(p, "\n");
    if (!memmem(p, line, "PRIVATE KEY", 11))
        return 0;
    const char *last = strstr(p, end);
    return last ? (size_t)(last - p) + strcspn(last, "\n") : strlen(p);
}

// "user:password@" behind "://".
static size_t url_user(const char *begin, const char *p)
{
    if (p - begin < 3 || strncmp(p - 3, "://", 3) != 0)
        return 0;
    const size_t n = strcspn(p, "/@ \t\n\"'");
    return p[n] == '@' ? n : 0;
}

// Whether the word of n characters names a secret.
static bool names_secret(const char *word, size_t n)
{
    static const char *const names[] = { "password", "passwd", "secret", "token", "credential", "authorization", "apikey", "api_key", "private_key" };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        for (size_t at = 0; at + strlen(names[i]) <= n; at++)
            if (strncasecmp(word + at, names[i], strlen(names[i])) == 0)
                return true;
    return false;
}

// The length of the value at `p`, to the end of what is quoted, or of the line: a header's value has blanks in it.
static size_t value_length(const char *p)
{
    if (*p == '"' || *p == '\'') {
        const char *end = strchr(p + 1, *p);
        return end ? (size_t)(end - p) + 1 : strlen(p);
    }
    return strcspn(p, "\n");
}

char *redact(const char *text)
{
    char *ret = NULL;
    size_t n;
    FILE *f = xmemstream(&ret, &n);
    for (const char *p = text; *p;) {
        size_t length = key_block(p);
        if (!length)
            length = url_user(text, p);
        if (length) {
            fputs(LEFT_OUT, f);
            p += length;
            continue;
        }
        while (is_word(p[length]))
            length++;
        const char *value = p + length + strspn(p + length, "\"'");
        const bool is_secret = length && names_secret(p, length) && *value && strchr("=: \t", *value);
        if (!is_secret) {
            length += length == 0;
            fwrite(p, 1, length, f);
            p += length;
            continue;
        }
        value += strspn(value, "=: \t");
        fwrite(p, 1, (size_t)(value - p), f);
        length = value_length(value);
        fputs(length ? LEFT_OUT : "", f);
        p = value + length;
    }
    fclose(f);
    return ret;
}
