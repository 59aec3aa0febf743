// The sqlite store on disks that are full, read-only, or fail.
#include "store_files.h"

#include "fault_vfs.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

// ---- faults ---------------------------------------------------------------------------------------------------------------------

// What the next process would find if this one were killed now.
static char *content_after_a_crash(void)
{
    static const char *const suffixes[] = { "", "-wal" };
    AUTO(free) char *at = xasprintf("%s/crash.db", folder);
    struct fault saved = fault;
    fault_off();
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        AUTO(free) char *from = xasprintf("%s%s", path, suffixes[i]), *to = xasprintf("%s%s", at, suffixes[i]);
        struct bytes b = read_bytes(from);
        unlink(to);
        if (b.p)
            write_bytes(to, b.p, b.n);
        free(b.p);
    }
    char *content = content_of(at);
    unlink(at);
    fault = saved;
    return content;
}

// Five commits with the nth write or sync failing. After each, what the store says and what a crash would leave must be what was
// acknowledged. Returns whether the fault was met.
static bool one_run_with_a_fault(long nth, bool stuck, int code)
{
    unlink(path);
    fill(30);
    struct error e = ERROR_INIT;
    AUTO(store_close) struct store *s = open_store(path);
    AUTO(free) char *before = kit_dump(s);
    bool in_doubt = false;
    fault_arm(nth, stuck, code);
    for (uint32_t i = 0; i < 5; i++) {
        AUTO(volume_free) struct volume *a = kit_volume(i, "faulty"), *b = kit_volume(100 + i, NULL);
        const struct store_change changes[] = { { .kind = STORE_REMOVE_VOLUME, .id = kit_id(i - 1) },
                                                { .kind = STORE_PUT_VOLUME, .volume = a },
                                                { .kind = STORE_PUT_VOLUME, .volume = b } };
        int rc = store_commit(s, changes, 3, &e);
        assert_true(rc == 0 || rc == -E_IO || rc == -E_NO_SPACE || rc == -E_CONFLICT);
        assert_true(rc != -E_CONFLICT || fault.hit); // the commit that would have freed the name failed
        struct fault saved = fault;
        fault_off();
        AUTO(free) char *now = kit_dump(s), *crashed = content_after_a_crash();
        fault = saved;
        if (rc < 0)
            assert_string_equal(now, before);
        // The last resort, when even the disk's undoing fails: no more changes until a restart, which may find it done.
        in_doubt |= rc < 0 && strcmp(crashed, now) != 0;
        assert_true(!in_doubt || stuck);
        free(before);
        before = TAKE(now, NULL);
    }
    fault_off();
    bool hit = fault.hit;
    int rc = kit_put_new(s, 1000, "later", &e);
    if (rc < 0)
        assert_true(stuck && hit && rc == -E_IO);
    assert_true(rc < 0 || !in_doubt);
    store_close(TAKE(s, NULL));
    s = open_store(path);
    put(s, 1001, "after-the-restart");
    return hit;
}

static void any_write_or_sync_may_fail(void **state)
{
    (void)state;
    static const struct {
        bool stuck;
        int code;
    } modes[] = { { false, SQLITE_IOERR }, { false, SQLITE_FULL }, { true, SQLITE_IOERR }, { true, SQLITE_FULL } };
    fault_install();
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        long nth = 1;
        while (one_run_with_a_fault(nth, modes[i].stuck, modes[i].code))
            nth++;
        assert_true(nth > 20);
    }
}

static void any_step_of_making_a_store_may_fail(void **state)
{
    (void)state;
    for (int stuck = 0; stuck < 2; stuck++) {
        long nth = 1;
        for (bool hit = true; hit; nth++) {
            struct store *s = NULL;
            unlink(path);
            fault_arm(nth, stuck, SQLITE_FULL);
            int rc = try_open(path, &s);
            fault_off();
            hit = fault.hit;
            store_close(s);
            if (rc < 0) {
                assert_true(rc == -E_NO_SPACE || rc == -E_IO);
                // Nothing, or a whole store, but never a part of one.
                assert_true(count_files() == 0 || (count_files() == 1 && mode_of(path)));
            }
            AUTO(free) char *content = content_of(path);
            assert_string_equal(content, "[]");
        }
        assert_true(nth > 10);
    }
}

static void any_step_of_a_backup_may_fail(void **state)
{
    (void)state;
    fill(100);
    AUTO(free) char *copy = xasprintf("%s/backup.db", folder);
    AUTO(store_close) struct store *s = open_store(path);
    struct error e = ERROR_INIT;
    AUTO(free) char *want = kit_dump(s);
    long nth = 1;
    for (bool hit = true; hit; nth++) {
        fault_arm(nth, false, SQLITE_FULL);
        int rc = store_backup(s, copy, &e);
        fault_off();
        hit = fault.hit;
        assert_true(rc == 0 || rc == -E_NO_SPACE || rc == -E_IO);
        assert_int_equal(mode_of(copy) != 0, rc == 0);
        assert_int_equal(count_files(), rc == 0 ? 3 : 2); // no rest of it
        AUTO(free) char *now = kit_dump(s);
        assert_string_equal(now, want);
        if (rc == 0) {
            AUTO(free) char *have = content_of(copy);
            assert_string_equal(have, want);
            unlink(copy);
        }
    }
    assert_true(nth > 10);
}

static void every_commit_is_synced(void **state)
{
    (void)state;
    AUTO(store_close) struct store *s = open_store(path);
    for (uint32_t n = 1; n < 20; n++) {
        long before = fault.syncs;
        put(s, n, NULL);
        assert_true(fault.syncs > before);
    }
}

static void closing_may_fail_too(void **state)
{
    (void)state;
    bool hit = true;
    for (long nth = 1; hit; nth++) {
        unlink(path);
        struct store *s = open_store(path);
        put(s, 1, "a");
        fault_arm(nth, true, SQLITE_IOERR);
        store_close(s);
        fault_off();
        hit = fault.hit;
        AUTO(free) char *content = content_of(path);
        assert_non_null(strstr(content, "\"a\""));
    }
}

// ---- a full disk
// ------------------------------------------------------------------------------------------------------------------

// In a child, so that its limits and mounts go with it: fills the disk by commits, and looks at what is there then. 0 if all is
// well.
static int fill_the_disk(const char *at, int want, void (*make_room)(void))
{
    struct error e = ERROR_INIT;
    struct store *s = NULL;
    uint32_t done = 0;
    int rc = store_open(&store_sqlite, at, &s, &e);
    if (rc < 0)
        return fprintf(stderr, "%s\n", e.msg), 1;
    while (done < 100000 && (rc = kit_put_new(s, done, NULL, &e)) == 0)
        done++;
    if (rc != want || done < 10)
        return fprintf(stderr, "%d after %u: %s\n", rc, done, e.msg), 2;
    AUTO(free) char *full = kit_dump(s);
    rc = kit_put_new(s, done, NULL, &e);
    if (rc != want && rc != -E_IO && rc != 0) // small changes may fit again when the log was emptied
        return 3;
    make_room();
    if (kit_put_new(s, done + 1, NULL, &e) < 0)
        return fprintf(stderr, "%s\n", e.msg), 4;
    store_close(s);
    if (store_open(&store_sqlite, at, &s, &e) < 0)
        return fprintf(stderr, "%s\n", e.msg), 5;
    AUTO(free) char *after = kit_dump(s);
    store_close(s);
    for (uint32_t n = 0; n < done; n++) {
        struct uuid id = kit_id(n);
        if (!strstr(after, UUID_TEXT(&id)))
            return 6;
    }
    return strlen(after) > strlen(full) ? 0 : 7;
}

static void lift_limit(void)
{
    const struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void a_file_that_may_not_grow(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit limit = { 300000, RLIM_INFINITY };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(fill_the_disk(path, -E_IO, lift_limit));
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static char small_disk[128];

static void enlarge_disk(void)
{
    if (mount("none", small_disk, "tmpfs", MS_REMOUNT, "size=8m") < 0)
        _exit(20);
}

static void a_disk_that_is_full(void **state)
{
    (void)state;
    snprintf(small_disk, sizeof small_disk, "%s/disk", folder);
    assert_int_equal(mkdir(small_disk, 0700), 0);
    pid_t child = fork();
    if (child == 0) {
        AUTO(free) char *at = xasprintf("%s/control.db", small_disk);
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("none", small_disk, "tmpfs", 0, "size=300k") < 0)
            _exit(77);
        _exit(fill_the_disk(at, -E_NO_SPACE, enlarge_disk));
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); // no right to mount
    assert_int_equal(status, 0);
}

static void a_disk_that_is_read_only(void **state)
{
    (void)state;
    fill(5);
    pid_t child = fork();
    if (child == 0) {
        struct error e = ERROR_INIT;
        struct store *s = NULL;
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount(folder, folder, NULL, MS_BIND, NULL) < 0 ||
            mount("none", folder, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
            _exit(77);
        int rc = store_open(&store_sqlite, path, &s, &e);
        _exit(rc == -E_IO && strstr(e.msg, "Read-only file system") && strstr(e.msg, path) ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_file_that_may_not_grow),
        TEST(a_disk_that_is_full),
        TEST(a_disk_that_is_read_only),
        TEST(any_write_or_sync_may_fail), // from here on with the faulty file layer
        TEST(any_step_of_making_a_store_may_fail),
        TEST(any_step_of_a_backup_may_fail),
        TEST(every_commit_is_synced),
        TEST(closing_may_fail_too),
    };
    return RUN_TESTS(tests);
}
