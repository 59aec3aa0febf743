// Memory and clean-up idioms.
//
// Allocation never fails: out of memory ends the process, which is sound because every input is limited (base/limits.h) and
// every process of Flocker can be killed at any instruction without losing what it acknowledged.
#ifndef FLOCKER_BASE_MEM_H
#define FLOCKER_BASE_MEM_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n, size_t size) __attribute__((returns_nonnull)); // array of n
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));

// What is written to it is in *ret, NUL-terminated and the caller's to free, after fclose(), which can't fail.
// ftell() says how much that is so far.
FILE *xmemstream(char **ret, size_t *ret_n) __attribute__((returns_nonnull));

// AUTO(fn) type v = ...: calls fn(v) at the end of the scope unless v is NULL. Initialise at declaration; ownership leaves
// only through TAKE.
#define AUTO(fn) __attribute__((cleanup(auto_##fn)))
#define DEFINE_AUTO(type, fn)          \
    static inline void auto_##fn(type *p) \
    {                                  \
        if (*p)                        \
            fn(*p);                    \
    }
#define TAKE(p, empty)                                    \
    ({                                                    \
        __typeof__(p) *take_p = &(p), take_v = *take_p;   \
        *take_p = (empty);                                \
        take_v;                                           \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline void auto_free(void *p)
{
    free(*(void **)p);
}
static inline void auto_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
DEFINE_AUTO(FILE *, fclose)

#endif
