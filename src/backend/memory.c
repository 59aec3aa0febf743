// Volumes without data, for simulators and for tests that have no root: the same contract, as far as it can be kept without a disk.
//
// A pool lives as long as the process that first opened its path, and is shared with what that process forks: workers, as with a
// real pool. So it is one shared mapping of slots; a robust mutex in it survives workers that are killed.
#include "backend/backend.h"

#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define VOLUMES_HERE 4096
#define RECORD_ROOM  (96U << 10) // the largest record: 16 metadata items of 2 x 256 characters, escaped in JSON
#define POOLS        64
#define POOL_SIZE    (16ULL << 30)

struct slot {
    bool used, mounted;
    unsigned char current;
    struct uuid id;
    char records[2][RECORD_ROOM]; // JSON; the current one, and room for the next. Pages that were never written cost nothing
};

struct shared {
    pthread_mutex_t mutex;
    uint64_t size;
    pid_t opener; // 0: not open
    struct slot slots[VOLUMES_HERE];
};

struct memory {
    struct backend base;
    struct shared *shared;
};

static struct {
    char *path;
    struct shared *shared;
} pools[POOLS]; // of this process and those it was forked from

DEFINE_AUTO(json_t *, json_decref)

static struct shared *memory_lock(struct backend *b)
{
    struct shared *s = ((struct memory *)b)->shared;
    int err = pthread_mutex_lock(&s->mutex);
    // Its holder was killed. Each change counts from its last assignment on: there is nothing to repair.
    if (err == EOWNERDEAD)
        err = pthread_mutex_consistent(&s->mutex);
    ASSERT(err == 0);
    return s;
}

static void auto_memory_unlock(struct shared **s)
{
    pthread_mutex_unlock(&(*s)->mutex);
}

static struct slot *find(struct shared *s, const struct uuid *id)
{
    for (size_t i = 0; i < VOLUMES_HERE; i++)
        if (s->slots[i].used && uuid_equal(&s->slots[i].id, id))
            return &s->slots[i];
    return NULL;
}

static struct slot *find_free(struct shared *s)
{
    for (size_t i = 0; i < VOLUMES_HERE; i++)
        if (!s->slots[i].used)
            return &s->slots[i];
    return NULL;
}

// The last assignment makes it count: killed before it, a worker has changed nothing.
static int put_record(struct slot *slot, const struct volume *v, struct error *e)
{
    unsigned char next = !slot->current;
    AUTO(json_decref) json_t *object = volume_to_json(v);
    AUTO(free) char *text = json_dumps(object, JSON_COMPACT);
    ASSERT(text);
    size_t n = strlen(text);
    if (n >= RECORD_ROOM)
        return fail(e, E_TOO_LARGE, "the record of volume %s is larger than %u bytes", UUID_TEXT(&v->id), RECORD_ROOM);
    memcpy(slot->records[next], text, n + 1);
    slot->current = next;
    return 0;
}

static struct shared *make_shared(void)
{
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(s != MAP_FAILED);
    pthread_mutexattr_t attr;
    ASSERT(pthread_mutexattr_init(&attr) == 0);
    ASSERT(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
    ASSERT(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
    ASSERT(pthread_mutex_init(&s->mutex, &attr) == 0);
    ASSERT(pthread_mutexattr_destroy(&attr) == 0);
    return s;
}

static struct shared *find_pool(const char *path)
{
    for (size_t i = 0; i < POOLS; i++) {
        if (!pools[i].path) {
            pools[i].path = xstrdup(path);
            pools[i].shared = make_shared();
        }
        if (strcmp(pools[i].path, path) == 0)
            return pools[i].shared;
    }
    return NULL;
}

static int memory_open(const struct backend_config *config, struct backend **ret, struct error *e)
{
    struct shared *pool = find_pool(config->path);
    if (!pool)
        return fail(e, E_NO_SPACE, "a process has at most %d pools in memory", POOLS);
    struct memory *m = xcalloc(1, sizeof *m);
    *m = (struct memory){ { &backend_memory }, pool };
    AUTO(memory_unlock) struct shared *s = memory_lock(&m->base);
    if (s->opener != 0 && kill(s->opener, 0) == 0) {
        free(m);
        return fail(e, E_BUSY, "pool %s is in use by another agent", config->path);
    }
    s->opener = getpid();
    if (s->size == 0)
        s->size = config->file_size ? config->file_size : POOL_SIZE;
    *ret = &m->base;
    return 0;
}

static void memory_close(struct backend *b)
{
    {
        AUTO(memory_unlock) struct shared *s = memory_lock(b);
        if (s->opener == getpid())
            s->opener = 0;
    }
    free(b);
}

static int memory_shutdown(struct backend *b, struct error *e)
{
    (void)e;
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    for (size_t i = 0; i < VOLUMES_HERE; i++)
        s->slots[i].mounted = false;
    return 0;
}

static struct volume *record_of(const struct slot *slot, struct error *e)
{
    json_error_t why;
    struct volume *v = NULL;
    AUTO(json_decref) json_t *object = json_loads(slot->records[slot->current], 0, &why);
    if (!object)
        fail(e, E_CORRUPT, "its record is damaged: %s", why.text);
    else
        volume_from_json(object, &v, e);
    return v;
}

static int memory_observe(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                          void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e)
{
    (void)e;
    // Not locked: the callbacks may call us.
    struct shared *s = ((struct memory *)b)->shared;
    for (size_t i = 0; i < VOLUMES_HERE; i++) {
        struct slot *slot = &s->slots[i];
        struct error why = ERROR_INIT;
        if (!slot->used)
            continue;
        struct backend_volume v = { record_of(slot, &why), slot->mounted };
        if (v.record)
            on_volume(arg, &v);
        else
            on_damaged(arg, UUID_TEXT(&slot->id), &why);
    }
    return 0;
}

static int memory_create(struct backend *b, const struct volume *v, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    if (find(s, &v->id))
        return 1;
    struct slot *slot = find_free(s);
    if (!slot)
        return fail(e, E_NO_SPACE, "a pool in memory has room for %d volumes", VOLUMES_HERE);
    int rc = put_record(slot, v, e);
    if (rc < 0)
        return rc;
    slot->id = v->id;
    slot->mounted = false;
    slot->used = true;
    return 0;
}

static int memory_destroy(struct backend *b, const struct uuid *id, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    struct slot *slot = find(s, id);
    if (slot && slot->mounted)
        return fail(e, E_BUSY, "volume %s is mounted", UUID_TEXT(id));
    if (slot)
        slot->used = false;
    return 0;
}

static int memory_update(struct backend *b, const struct volume *v, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    struct slot *slot = find(s, &v->id);
    return slot ? put_record(slot, v, e) : fail(e, E_NOT_FOUND, "there is no volume %s in this pool", UUID_TEXT(&v->id));
}

static int memory_mount(struct backend *b, const struct uuid *id, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    struct slot *slot = find(s, id);
    if (!slot)
        return fail(e, E_NOT_FOUND, "there is no volume %s in this pool", UUID_TEXT(id));
    slot->mounted = true;
    return 0;
}

static int memory_unmount(struct backend *b, const struct uuid *id, struct error *e)
{
    (void)e;
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    struct slot *slot = find(s, id);
    if (slot)
        slot->mounted = false;
    return 0;
}

static int memory_users(struct backend *b, const struct uuid *id, struct users_entry *ret, size_t max, struct error *e)
{
    (void)b, (void)id, (void)ret, (void)max, (void)e;
    return 0;
}

static int memory_usage(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    struct slot *slot = find(s, id);
    if (!slot)
        return fail(e, E_NOT_FOUND, "there is no volume %s in this pool", UUID_TEXT(id));
    AUTO(volume_free) struct volume *v = record_of(slot, e);
    if (!v)
        return -(int)e->code;
    *ret = (struct backend_usage){ .used_bytes = 0, .limit_bytes = v->size };
    return 0;
}

static int memory_pool_usage(struct backend *b, struct backend_usage *ret, struct error *e)
{
    (void)e;
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    *ret = (struct backend_usage){ .used_bytes = 0, .limit_bytes = s->size, .free_bytes = s->size };
    return 0;
}

static int memory_grow(struct backend *b, uint64_t size, struct error *e)
{
    AUTO(memory_unlock) struct shared *s = memory_lock(b);
    if (size < s->size)
        return fail(e, E_CONFLICT, "the pool is larger already; pools don't shrink");
    s->size = size;
    return 0;
}

const struct backend_ops backend_memory = {
    .name = "memory",
    .in_process = true,
    .open = memory_open,
    .close = memory_close,
    .shutdown = memory_shutdown,
    .observe = memory_observe,
    .create = memory_create,
    .destroy = memory_destroy,
    .update = memory_update,
    .mount = memory_mount,
    .unmount = memory_unmount,
    .users = memory_users,
    .usage = memory_usage,
    .pool_usage = memory_pool_usage,
    .grow = memory_grow,
};
