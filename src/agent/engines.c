// Engine processes, whose end makes references doubtful, and the references' files, which outlive the agent but not the boot.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sys/atomic_file.h"
#include "sys/process.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECHECK_S_MIN 15  // a restarted dockerd needs up to 10 s to kill what its predecessor left; FLOCKER_RECHECK_S overrides it
#define RECHECK_S_MAX 600
#define REFS_FILE_BYTES_MAX (4U << 20)

struct engine agent_engine(int pid)
{
    return (struct engine){ pid, process_start(pid) };
}

bool engine_is_dead(struct engine engine)
{
    return engine.pid != 0 && (engine.start == 0 || process_start(engine.pid) != engine.start);
}

// ---- watching

static void watch_free(struct engine_watch *w)
{
    LIST_REMOVE(w, all);
    event_free(w->on_end);
    close(w->fd);
    free(w);
}

static unsigned recheck_s_min(void)
{
    const char *text = getenv("FLOCKER_RECHECK_S");
    unsigned long s = text ? strtoul(text, NULL, 10) : 0;
    return s > 0 && s <= RECHECK_S_MAX ? (unsigned)s : RECHECK_S_MIN;
}

static void recheck_in(struct agent *a, unsigned seconds)
{
    const struct timeval delay = { seconds, 0 };
    a->recheck_s = seconds;
    evtimer_add(a->recheck, &delay);
}

static void on_engine_end(evutil_socket_t fd, short what, void *arg)
{
    struct engine_watch *w = arg;
    struct agent *a = w->agent;
    (void)fd;
    (void)what;
    log_debug("engine process %d has ended", (int)w->engine.pid);
    watch_free(w);
    recheck_in(a, recheck_s_min());
}

void agent_saw_engine(struct agent *a, struct engine engine)
{
    struct engine_watch *w;
    if (engine.pid == 0)
        return;
    LIST_FOREACH (w, &a->engines, all)
        if (engine_equal(w->engine, engine))
            return;
    int fd = process_watch(engine.pid);
    if (fd < 0)
        return;
    w = xcalloc(1, sizeof *w);
    w->agent = a;
    w->engine = engine;
    w->fd = fd;
    w->on_end = event_new(a->config.base, fd, EV_READ, on_engine_end, w);
    event_add(w->on_end, NULL);
    LIST_INSERT_HEAD(&a->engines, w, all);
    if (evtimer_pending(a->recheck, NULL) && a->recheck_s > recheck_s_min())
        recheck_in(a, recheck_s_min()); // a successor kills, or takes over, what its predecessor left
}

void engines_free(struct agent *a)
{
    struct engine_watch *w;
    while ((w = LIST_FIRST(&a->engines)))
        watch_free(w);
}

// Also what becomes doubtful with time.
static void count_doubtful(struct agent_volume *v, void *arg)
{
    bool *any = arg;
    *any |= refs_has_doubtful(&v->refs, engine_is_dead, INT64_MAX);
}

void engines_recheck_soon(struct agent *a)
{
    bool any = false;
    agent_for_each(a, count_doubtful, &any);
    if (!any) {
        a->recheck_s = 0;
        return;
    }
    unsigned next = a->recheck_s ? a->recheck_s * 2 : recheck_s_min();
    if (!evtimer_pending(a->recheck, NULL))
        recheck_in(a, next < RECHECK_S_MAX ? next : RECHECK_S_MAX);
}

// ---- files

#define REFS_NAME_SIZE (UUID_TEXT_SIZE + sizeof ".json")

static const char *refs_name(const struct uuid *id, char ret[REFS_NAME_SIZE])
{
    snprintf(ret, REFS_NAME_SIZE, "%s.json", UUID_TEXT(id));
    return ret;
}

void refs_save(struct agent_volume *v)
{
    struct error e = ERROR_INIT;
    char name[REFS_NAME_SIZE];
    int dir = v->agent->refs_fd;
    refs_name(&v->id, name);
    if (v->refs.n == 0) {
        if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
            log_error("remove references %s: %s", name, strerror(errno));
        return;
    }
    json_t *array = refs_to_json(&v->refs);
    AUTO(free) char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    if (atomic_file_write(dir, name, text, strlen(text), 0600, &e) < 0)
        log_error("references of volume %s: %s", UUID_TEXT(&v->id), e.msg);
}

// While no agent ran, Unmounts got lost: an engine whose call fails does not make it again. So a reference that was loaded is good only
// as long as a container has the volume, or for the time that an engine may need to start one.
static void doubt(struct refs *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct ref *ref = &r->items[i];
        if (ref->count)
            ref->opened_ms = clock_boot_ms();
        ref->open += ref->count;
        ref->count = 0;
    }
}

static int load_one(struct agent *a, const char *name, struct error *e)
{
    char text[UUID_TEXT_SIZE];
    struct uuid id;
    AUTO(free) char *content = NULL;
    size_t n = 0;
    json_error_t why;
    if (strlen(name) == REFS_NAME_SIZE - 2 + sizeof ".tmp" - 1 && strcmp(name + REFS_NAME_SIZE - 2, ".tmp") == 0)
        unlinkat(a->refs_fd, name, 0); // of an agent that was killed while it wrote
    if (strlen(name) != REFS_NAME_SIZE - 2)
        return 0;
    memcpy(text, name, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    if (!uuid_parse(text, &id))
        return 0;
    int rc = atomic_file_read(a->refs_fd, name, REFS_FILE_BYTES_MAX, &content, &n, e);
    if (rc < 0)
        return rc;
    struct agent_volume *v = agent_volume(a, &id);
    json_t *array = json_loadb(content, n, 0, &why);
    struct refs refs = { 0, NULL };
    rc = array ? refs_from_json(array, &refs, e) : fail(e, E_CORRUPT, "%s: %s", name, why.text);
    json_decref(array);
    if (rc < 0)
        return rc;
    if (!v) { // the volume is gone, so are its users
        refs_done(&refs);
        unlinkat(a->refs_fd, name, 0);
        return 0;
    }
    refs_done(&v->refs);
    v->refs = refs;
    doubt(&v->refs);
    refs_save(v);
    for (size_t i = 0; i < refs.n; i++)
        agent_saw_engine(a, refs.items[i].engine);
    return 0;
}

// References of an earlier boot are void: what they stood for is gone. A directory that is no tmpfs would keep them.
static void refs_check_era(struct agent *a)
{
    struct error e = ERROR_INIT;
    char era[UUID_TEXT_SIZE];
    AUTO(free) char *was = NULL;
    size_t n = 0;
    uuid_format(&a->config.era, era);
    if (atomic_file_read(a->refs_fd, "era", sizeof era, &was, &n, &e) == 0 && strcmp(was, era) == 0)
        return;
    DIR *dir = opendir(a->config.refs_dir);
    for (struct dirent *d; dir && (d = readdir(dir));)
        if (strlen(d->d_name) == REFS_NAME_SIZE - 2)
            unlinkat(a->refs_fd, d->d_name, 0);
    if (dir)
        closedir(dir);
    if (atomic_file_write(a->refs_fd, "era", era, sizeof era - 1, 0600, &e) < 0)
        log_error("references: %s", e.msg);
}

void refs_load(struct agent *a)
{
    refs_check_era(a);
    DIR *dir = opendir(a->config.refs_dir);
    if (!dir) {
        log_error("read %s: %s", a->config.refs_dir, strerror(errno));
        return;
    }
    for (struct dirent *d; (d = readdir(dir));) {
        struct error e = ERROR_INIT;
        if (load_one(a, d->d_name, &e) < 0)
            log_error("references are lost, the kernel's mount tables decide alone: %s", e.msg);
    }
    closedir(dir);
    recheck_in(a, 1);
}
