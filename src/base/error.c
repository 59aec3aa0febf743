#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word;
    int http, exit;
} table[E_COUNT] = {
    [E_NONE] = { "", 200, 0 },
#define X(code, word, http, exit, text) [code] = { word, http, exit },
    ERROR_TABLE(X)
#undef X
};

static enum errcode code_of_errno(int err)
{
    switch (err) {
    case ENOENT:
    case ENODEV:
        return E_NOT_FOUND;
    case EEXIST:
        return E_CONFLICT;
    case EBUSY:
    case ETXTBSY:
        return E_BUSY;
    case ENOSPC:
    case EDQUOT:
        return E_NO_SPACE;
    case EACCES:
    case EPERM:
        return E_DENIED;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
        return E_UNSUPPORTED;
    case ECONNREFUSED:
    case EAGAIN:
        return E_UNAVAILABLE;
    case ETIMEDOUT:
        return E_TIMEOUT;
    default:
        return E_IO;
    }
}

// In parentheses, because tools/analyse.h makes macros of these three.
int (fail)(struct error *e, enum errcode code, const char *fmt, ...)
{
    ASSERT(code > E_NONE && code < E_COUNT);
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    e->os_errno = 0;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return -(int)code;
}

int (fail_os)(struct error *e, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    e->code = code_of_errno(err);
    e->os_errno = err;
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->msg)
        snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", strerror(err));
    return -(int)e->code;
}

int (fail_ctx)(struct error *e, int rc, const char *fmt, ...)
{
    char inner[sizeof e->msg];
    va_list ap;
    ASSERT(rc < 0 && e->code != E_NONE);
    memcpy(inner, e->msg, sizeof inner);
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->msg)
        snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", inner);
    return rc;
}

const char *error_word(enum errcode code)
{
    return table[code].word;
}

enum errcode error_from_word(const char *word)
{
    for (int c = E_NONE + 1; c < E_COUNT; c++)
        if (strcmp(table[c].word, word) == 0)
            return (enum errcode)c;
    return E_IO;
}

int error_http(enum errcode code)
{
    return table[code].http;
}

int error_exit(enum errcode code)
{
    return table[code].exit;
}

void assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "<2>flocker: bug: %s is false at %s:%d; please report this line\n", what, file, line);
    abort();
}
