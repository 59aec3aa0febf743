#include "base/mem.h"

#include <stdarg.h>
#include <string.h>

static void *or_die(void *p)
{
    if (!p) {
        fputs("<2>flocker: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    return or_die(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t n, size_t size)
{
    return or_die(reallocarray(p, n ? n : 1, size ? size : 1));
}

char *xstrdup(const char *s)
{
    return or_die(strdup(s));
}

char *xstrndup(const char *s, size_t n)
{
    return or_die(strndup(s, n));
}

char *xasprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return or_die(n < 0 ? NULL : s);
}

// ---- xmemstream: open_memstream() of glibc leaves out what there is no memory for, and tells nobody

struct memstream {
    char *text, **ret;
    size_t n, room, *ret_n;
};

static ssize_t memstream_write(void *cookie, const char *data, size_t n)
{
    struct memstream *m = cookie;
    if (n >= m->room - m->n) { // one for the NUL
        m->room = 2 * m->room + n;
        m->text = xrealloc(m->text, m->room, 1);
    }
    memcpy(m->text + m->n, data, n);
    m->n += n;
    return (ssize_t)n;
}

// For ftell() alone.
static int memstream_seek(void *cookie, off64_t *at, int whence)
{
    const struct memstream *m = cookie;
    if (whence != SEEK_CUR || *at != 0)
        return -1;
    *at = (off64_t)m->n;
    return 0;
}

static int memstream_close(void *cookie)
{
    struct memstream *m = cookie;
    m->text[m->n] = '\0';
    *m->ret = m->text;
    *m->ret_n = m->n;
    free(m);
    return 0;
}

FILE *xmemstream(char **ret, size_t *ret_n)
{
    struct memstream *m = xcalloc(1, sizeof *m);
    *m = (struct memstream){ .text = xcalloc(1, 1), .ret = ret, .room = 1, .ret_n = ret_n };
    return or_die(fopencookie(m, "w", (cookie_io_functions_t){ .write = memstream_write, .seek = memstream_seek, .close = memstream_close }));
}
