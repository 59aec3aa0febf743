// Pools for tests: one configuration table, a fixture that makes a pool in a directory of its own and leaves nothing behind, and
// processes in mount namespaces of their own.
#ifndef FLOCKER_TESTS_POOL_H
#define FLOCKER_TESTS_POOL_H

#include "test.h"

#include "backend/backend.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "sys/btrfs.h"
#include "sys/loop.h"
#include "sys/mountinfo.h"
#include "sys/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define MIB       (1ULL << 20)
#define POOL_SIZE (640 * MIB)

struct setup {
    const char *name;
    const struct backend_ops *ops;
    enum backend_source source;
    bool use_qgroups, is_real; // real: there are files
};

static const struct setup setups[] = {
    { "memory", &backend_memory, POOL_FILE, false, false },
    { "btrfs in a file", &backend_btrfs, POOL_FILE, false, true },
    { "btrfs in a file, qgroups", &backend_btrfs, POOL_FILE, true, true },
    { "btrfs on a device", &backend_btrfs, POOL_DEVICE, false, true },
    { "btrfs in a directory", &backend_btrfs, POOL_DIRECTORY, false, true },
};

struct fixture {
    const struct setup *setup;
    char *dir, *path, *disk; // disk: the file under a device or a directory's file system
    int disk_fd, loop_fd;
    uint64_t size;
    struct backend_config config;
    struct backend *b; // NULL while closed
};

// ---- small things ------------------------------------------------------------------------------------------------------------

#define NO_ERROR(call)                                                                       \
    do {                                                                                     \
        struct error *no_error = &(struct error)ERROR_INIT;                                  \
        int no_error_rc = (call);                                                            \
        if (no_error_rc < 0)                                                                 \
            fail_msg("%s: %s", #call, no_error->msg);                                        \
    } while (0)
#define EXPECT(code, text, call)                                                             \
    do {                                                                                     \
        struct error *no_error = &(struct error)ERROR_INIT;                                  \
        int no_error_rc = (call);                                                            \
        if (no_error_rc != -(int)(code) || !strstr(no_error->msg, (text)))                   \
            fail_msg("%s: is %d (%s), not %d with \"%s\"", #call, no_error_rc, no_error->msg, -(int)(code), (text)); \
    } while (0)
#define E no_error // the error of the call inside NO_ERROR and EXPECT
#define B (f->b->ops)

static inline __attribute__((format(printf, 1, 2))) char *path_of(const char *fmt, ...)
{
    static char ring[8][PATH_MAX]; // good for the next seven calls
    static unsigned at;
    char *text = ring[at++ % 8];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, PATH_MAX, fmt, ap);
    va_end(ap);
    return text;
}

static inline bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static inline char *read_file(const char *path)
{
    static char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n >= 0);
    text[n] = '\0';
    close(fd);
    return text;
}

static inline void nap_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static inline double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// ---- the pool ----------------------------------------------------------------------------------------------------------------

static inline const char *top_of(const struct fixture *f)
{
    return f->setup->source == POOL_DIRECTORY ? f->config.path : f->config.pool_dir;
}

static inline const char *mount_point(const struct fixture *f, const struct uuid *id)
{
    return backend_mount_point(f->config.mount_root, id, path_of("%s", ""));
}

static inline int open_pool(struct fixture *f, struct error *e)
{
    return f->setup->ops->open(&f->config, &f->b, e);
}

static inline void close_pool(struct fixture *f)
{
    f->b->ops->close(f->b);
    f->b = NULL;
}

static inline void make_disk(struct fixture *f, bool with_btrfs)
{
    char device[LOOP_PATH_SIZE];
    f->disk = xasprintf("%s/disk", f->dir);
    f->disk_fd = open(f->disk, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(f->disk_fd, (off_t)f->size), 0);
    if (with_btrfs)
        NO_ERROR(run_program((const char *const[]){ "mkfs.btrfs", "--quiet", f->disk, NULL }, E));
    NO_ERROR(loop_attach(f->disk_fd, f->disk, device, &f->loop_fd, E));
    f->path = xstrdup(device);
}

static inline void make_place(struct fixture *f)
{
    char *device = NULL;
    switch (f->setup->source) {
    case POOL_FILE:
        f->path = xasprintf("%s/new folder/pool.img", f->dir);
        break;
    case POOL_DEVICE:
        make_disk(f, false);
        break;
    case POOL_DIRECTORY:
        make_disk(f, true);
        device = f->path;
        assert_int_equal(mkdir(path_of("%s/host", f->dir), 0755), 0);
        assert_int_equal(mount(device, path_of("%s/host", f->dir), "btrfs", 0, NULL), 0);
        f->path = xasprintf("%s/host/flocker", f->dir);
        free(device);
        break;
    }
}

static inline int fixture_make(void **state, uint64_t size)
{
    const char *tmp = getenv("TMPDIR");
    struct fixture *f = xcalloc(1, sizeof *f);
    f->setup = *state;
    f->size = size;
    f->disk_fd = f->loop_fd = -1;
    f->dir = xasprintf("%s/flocker-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    make_place(f);
    f->config = (struct backend_config){ .source = f->setup->source, .path = f->path, .file_size = size,
        .pool_dir = xasprintf("%s/pool", f->dir), .mount_root = xasprintf("%s/flocker", f->dir),
        .use_qgroups = f->setup->use_qgroups, .may_format = true };
    *state = f;
    return 0;
}

static inline int fixture_closed(void **state)
{
    return fixture_make(state, 128 * MIB);
}

static inline int fixture_open(void **state)
{
    fixture_make(state, POOL_SIZE);
    struct fixture *f = *state;
    NO_ERROR(open_pool(f, E));
    return 0;
}

// Whatever a failed test left mounted below its directory; the last first.
static inline void unmount_below(const char *dir)
{
    struct mountinfo m = { 0 };
    struct error e;
    assert_int_equal(mountinfo_read_self(&m, &e), 0);
    for (size_t i = m.n; i > 0; i--)
        if (mountinfo_is_below(m.entries[i - 1].mount_point, dir))
            umount2(m.entries[i - 1].mount_point, MNT_DETACH);
    mountinfo_done(&m);
}

static inline bool has_loop(const char *path)
{
    struct stat st;
    char device[LOOP_PATH_SIZE];
    struct error e;
    return stat(path, &st) == 0 && loop_find(&st, device, &e) == 1;
}

static inline int fixture_end(void **state)
{
    struct fixture *f = *state;
    struct error e;
    if (f->b) {
        f->b->ops->shutdown(f->b, &e);
        close_pool(f);
    }
    unmount_below(f->dir);
    auto_close(&f->loop_fd);
    auto_close(&f->disk_fd);
    const char *image = f->disk ? f->disk : f->path;
    for (int i = 0; i < 500 && has_loop(image); i++)
        nap_ms(10);
    if (has_loop(image))
        fail_msg("a loop device over %s is left", image);
    NO_ERROR(run_program((const char *const[]){ "rm", "-rf", f->dir, NULL }, E));
    free((char *)(uintptr_t)f->config.pool_dir);
    free((char *)(uintptr_t)f->config.mount_root);
    free(f->dir);
    free(f->path);
    free(f->disk);
    free(f);
    return 0;
}

// ---- volumes -----------------------------------------------------------------------------------------------------------------

static inline struct volume *new_volume(const char *name, uint64_t size)
{
    struct volume *v = volume_new();
    v->id = rng_uuid();
    v->owner = rng_uuid();
    v->name = xstrdup(name);
    v->size = size;
    v->epoch = v->revision = 1;
    v->created_ms = clock_wall_ms();
    return v;
}

struct seen {
    size_t n, n_damaged;
    struct backend_volume volumes[2000];
    char damaged[16][NAME_MAX + 1];
    char why[400];
};

static inline void on_seen(void *arg, struct backend_volume *v)
{
    struct seen *s = arg;
    ASSERT(s->n < ARRAY_SIZE(s->volumes));
    s->volumes[s->n++] = *v;
}

static inline void on_damaged(void *arg, const char *id, const struct error *why)
{
    struct seen *s = arg;
    ASSERT(s->n_damaged < ARRAY_SIZE(s->damaged));
    snprintf(s->damaged[s->n_damaged++], sizeof s->damaged[0], "%s", id);
    snprintf(s->why, sizeof s->why, "%s", why->msg);
}

static inline void seen_done(struct seen *s)
{
    for (size_t i = 0; i < s->n; i++)
        volume_free(s->volumes[i].record);
    free(s);
}
DEFINE_AUTO(struct seen *, seen_done)

static inline struct seen *observe(struct fixture *f)
{
    struct seen *s = xcalloc(1, sizeof *s);
    NO_ERROR(B->observe(f->b, on_seen, on_damaged, s, E));
    return s;
}

static inline const struct backend_volume *find_seen(const struct seen *s, const struct uuid *id)
{
    for (size_t i = 0; i < s->n; i++)
        if (uuid_equal(&s->volumes[i].record->id, id))
            return &s->volumes[i];
    fail_msg("volume %s wasn't seen", UUID_TEXT(id));
    abort();
}

static inline struct backend_usage usage_of(struct fixture *f, const struct uuid *id)
{
    struct backend_usage u = { 0 };
    NO_ERROR(B->usage(f->b, id, &u, E));
    return u;
}

// ---- other processes ---------------------------------------------------------------------------------------------------------

struct helper {
    pid_t pid;
    int from, to;
};

// Starts a process that runs `prepare`, tells whether it worked, waits for helper_end, and exits. Private: its mount namespace gets
// and sends no events; slave: it gets ours; own: it stays in ours.
enum helper_ns { NS_OWN, NS_PRIVATE, NS_SLAVE };

static inline struct helper helper_start(enum helper_ns ns, int (*prepare)(void *arg), void *arg)
{
    int there[2], back[2];
    assert_int_equal(pipe2(there, O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(there[1]);
        close(back[0]);
        int rc = 0;
        if (ns != NS_OWN)
            rc = unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | (ns == NS_PRIVATE ? MS_PRIVATE : MS_SLAVE), NULL) < 0;
        if (rc == 0)
            rc = prepare(arg);
        char byte = rc == 0 ? 'y' : 'n';
        if (write(back[1], &byte, 1) != 1 || read(there[0], &byte, 1) < 0)
            _exit(1);
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    char byte = 0;
    assert_int_equal(read(back[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    return (struct helper){ pid, back[0], there[1] };
}

static inline void helper_end(struct helper *h)
{
    // A byte, not only the end of the pipe: helpers that were started later hold a copy of it.
    assert_int_equal(write(h->to, "x", 1), 1);
    close(h->to);
    close(h->from);
    assert_int_equal(waitpid(h->pid, NULL, 0), h->pid);
}

// Runs `fn` in a process and returns what it returned (0 to 127).
static inline int in_child(int (*fn)(void *arg), void *arg)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn(arg));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline void sync_pool(const struct fixture *f)
{
    AUTO(close) int fd = open(top_of(f), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    NO_ERROR(btrfs_sync(fd, E));
}

// ---- contracts: each case with each kind of pool that it is for ------------------------------------------------------------------

enum { FILES = 1 << POOL_FILE, DEVICES = 1 << POOL_DEVICE, DIRECTORIES = 1 << POOL_DIRECTORY, ANY = FILES | DEVICES | DIRECTORIES, MEMORY = 8 };

struct pool_case {
    const char *name;
    CMUnitTestFunction run;
    CMFixtureFunction start;
    int where;
};

#define CASE(test, start, where) { #test, test, start, where }

// Whoever copies the mounts of this machine meanwhile must not keep ours.
static inline bool has_own_mounts(void)
{
    if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        return true;
    fputs("needs root\n", stderr);
    return false;
}

// The exit status of a test program. The variable TESTS is a pattern of those to run, such as "btrfs on a device*".
static inline int run_contract(const char *group, const struct pool_case cases[], size_t case_count, CMFixtureFunction end)
{
    if (!has_own_mounts())
        return 77;
    struct CMUnitTest *tests = xcalloc(case_count * ARRAY_SIZE(setups), sizeof *tests);
    size_t n = 0;
    for (size_t s = 0; s < ARRAY_SIZE(setups); s++)
        for (size_t c = 0; c < case_count; c++)
            if (cases[c].where & (setups[s].is_real ? 1 << setups[s].source : MEMORY))
                tests[n++] = (struct CMUnitTest){ xasprintf("%s: %s", setups[s].name, cases[c].name), cases[c].run, cases[c].start, end,
                    (void *)(uintptr_t)&setups[s] };
    const char *filter = getenv("TESTS");
    if (filter)
        cmocka_set_test_filter(filter);
    int failed = _cmocka_run_group_tests(group, tests, n, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        free((char *)(uintptr_t)tests[i].name);
    free(tests);
    return failed;
}

#endif
