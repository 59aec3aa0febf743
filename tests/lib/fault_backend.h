// A backend in memory that fails the operation it is told to: before it has had its effect, or after, when the caller can't know.
#ifndef FLOCKER_TESTS_FAULT_BACKEND_H
#define FLOCKER_TESTS_FAULT_BACKEND_H

#include "backend/backend.h"

#include <stdlib.h>

static struct {
    long countdown; // 0: off. Operations count it down; the one that finds it at 1 fails
    int times;      // and as many in a row
    bool after;     // the effect is there all the same
    bool hit;
    struct backend *inner; // of the pool that was opened last: the truth
} fault;

static inline void fault_arm(long nth, int times, bool after)
{
    fault.countdown = nth;
    fault.times = times;
    fault.after = after;
    fault.hit = false;
}

static inline bool fault_now(void)
{
    if (fault.countdown == 0 || --fault.countdown > 0)
        return false;
    fault.hit = true;
    if (--fault.times > 0)
        fault.countdown = 1;
    return true;
}

static inline int fault_fail(const char *what, const struct uuid *id, struct error *e)
{
    return fail(e, E_IO, "injected: %s of volume %s", what, id ? UUID_TEXT(id) : "none");
}

// Does `call` unless this operation is to fail before it; fails it afterwards if it is to fail then.
#define FAULT_OP(what, id, call)                                    \
    do {                                                            \
        bool now = fault_now();                                     \
        int rc = now && !fault.after ? 0 : (call);                  \
        return now ? fault_fail(what, id, e) : rc;                  \
    } while (0)

struct fault_backend {
    struct backend base;
    struct backend *inner;
};

static inline struct backend *fault_inner(struct backend *b)
{
    return ((struct fault_backend *)b)->inner;
}

extern const struct backend_ops backend_fault;

static inline int fault_open(const struct backend_config *config, struct backend **ret, struct error *e)
{
    if (fault_now())
        return fail(e, E_IO, "injected: open of the pool"); // there is no open pool that nobody knows
    struct backend *inner = NULL;
    int rc = backend_memory.open(config, &inner, e);
    if (rc < 0)
        return rc;
    struct fault_backend *f = calloc(1, sizeof *f);
    ASSERT(f);
    *f = (struct fault_backend){ { &backend_fault }, inner };
    fault.inner = inner;
    *ret = &f->base;
    return 0;
}
static inline void fault_close(struct backend *b)
{
    backend_memory.close(fault_inner(b));
    fault.inner = NULL;
    free(b);
}
static inline int fault_shutdown(struct backend *b, struct error *e)
{
    FAULT_OP("shutdown", NULL, backend_memory.shutdown(fault_inner(b), e));
}
static inline int fault_observe(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                                void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e)
{
    FAULT_OP("observe", NULL, backend_memory.observe(fault_inner(b), on_volume, on_damaged, arg, e));
}
static inline int fault_create(struct backend *b, const struct volume *v, struct error *e)
{
    FAULT_OP("create", &v->id, backend_memory.create(fault_inner(b), v, e));
}
static inline int fault_destroy(struct backend *b, const struct uuid *id, struct error *e)
{
    FAULT_OP("destroy", id, backend_memory.destroy(fault_inner(b), id, e));
}
static inline int fault_update(struct backend *b, const struct volume *v, struct error *e)
{
    FAULT_OP("update", &v->id, backend_memory.update(fault_inner(b), v, e));
}
static inline int fault_mount(struct backend *b, const struct uuid *id, struct error *e)
{
    FAULT_OP("mount", id, backend_memory.mount(fault_inner(b), id, e));
}
static inline int fault_unmount(struct backend *b, const struct uuid *id, struct error *e)
{
    FAULT_OP("unmount", id, backend_memory.unmount(fault_inner(b), id, e));
}
static inline int fault_users(struct backend *b, const struct uuid *id, struct users_entry *ret, size_t max, struct error *e)
{
    FAULT_OP("users", id, backend_memory.users(fault_inner(b), id, ret, max, e));
}
static inline int fault_usage(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e)
{
    FAULT_OP("usage", id, backend_memory.usage(fault_inner(b), id, ret, e));
}
static inline int fault_pool_usage(struct backend *b, struct backend_usage *ret, struct error *e)
{
    FAULT_OP("pool usage", NULL, backend_memory.pool_usage(fault_inner(b), ret, e));
}
static inline int fault_grow(struct backend *b, uint64_t size, struct error *e)
{
    FAULT_OP("grow", NULL, backend_memory.grow(fault_inner(b), size, e));
}

const struct backend_ops backend_fault = {
    .name = "fault",
    .in_process = true,
    .open = fault_open,
    .close = fault_close,
    .shutdown = fault_shutdown,
    .observe = fault_observe,
    .create = fault_create,
    .destroy = fault_destroy,
    .update = fault_update,
    .mount = fault_mount,
    .unmount = fault_unmount,
    .users = fault_users,
    .usage = fault_usage,
    .pool_usage = fault_pool_usage,
    .grow = fault_grow,
};

#endif
