// What only the sqlite store promises: its file, its lock, kill -9, damage, backups.
#include "store_files.h"

#include <signal.h>
#include <sqlite3.h>

// ---- the file -------------------------------------------------------------------------------------------------------------------

static void survives_a_reopen(void **state)
{
    (void)state;
    fill(20);
    AUTO(free) char *first = content_of(path), *second = content_of(path);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "volume-19"));
    assert_non_null(strstr(first, "hold "));
    assert_non_null(strstr(first, "node "));
    assert_int_equal(count_files(), 1); // no log, no lock file once it is closed
}

static void files_are_private(void **state)
{
    (void)state;
    mode_t mask = umask(0);
    AUTO(free) char *wal = xasprintf("%s-wal", path), *shm = xasprintf("%s-shm", path);
    struct store *s = open_store(path);
    put(s, 1, "a");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(mode_of(wal), 0600);
    assert_int_equal(mode_of(shm), 0);
    store_close(s);
    assert_int_equal(chmod(path, 0644), 0); // copied here by hand
    s = open_store(path);
    put(s, 2, "b");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(mode_of(wal), 0600);
    store_close(s);
    umask(mask);
}

static void a_name_without_a_folder(void **state)
{
    (void)state;
    AUTO(free) char *before = getcwd(NULL, 0);
    assert_int_equal(chdir(folder), 0);
    static const char *const names[] = { ":memory:", "control.db", "file:x?mode=memory" };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct store *s = open_store(names[i]);
        put(s, 1, "a");
        store_close(s);
        AUTO(free) char *content = content_of(names[i]);
        assert_non_null(strstr(content, "\"a\""));
    }
    assert_int_equal(count_files(), 3);
    assert_int_equal(chdir(before), 0);
}

static void a_second_opener_is_refused(void **state)
{
    (void)state;
    struct store *first = open_store(path), *second = NULL;
    struct error e = ERROR_INIT;
    put(first, 1, "a");
    assert_int_equal(store_open(&store_sqlite, path, &second, &e), -E_BUSY);
    assert_non_null(strstr(e.msg, path));
    pid_t child = fork();
    if (child == 0)
        _exit(store_open(&store_sqlite, path, &second, &e) == -E_BUSY ? 0 : 1);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    put(first, 2, "b");
    store_close(first);
    second = open_store(path);
    AUTO(free) char *content = kit_dump(second);
    assert_non_null(strstr(content, "\"b\""));
    store_close(second);
}

static void other_programs_are_kept_out(void **state)
{
    (void)state;
    AUTO(store_close) struct store *s = open_store(path);
    put(s, 1, "a");
    pid_t child = fork(); // SQLite's locks are between processes
    if (child == 0) {
        sqlite3 *db = NULL;
        bool is_out =
            sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, "DELETE FROM volume", NULL, NULL, NULL) == SQLITE_BUSY;
        _exit(is_out ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

// ---- kill -9 --------------------------------------------------------------------------------------------------------------------

// Commits batches of three volumes without end and says which are acknowledged.
static void storm(int report)
{
    struct store *s = NULL;
    struct error e = ERROR_INIT;
    if (store_open(&store_sqlite, path, &s, &e) < 0)
        _exit(1);
    for (uint32_t batch = 1;; batch++) {
        struct store_change changes[3];
        for (uint32_t i = 0; i < 3; i++) {
            AUTO(free) char *name = xasprintf("b%u-%u", batch, i);
            changes[i] = (struct store_change){ .kind = STORE_PUT_VOLUME, .volume = kit_volume(batch * 3 + i, name) };
        }
        if (store_commit(s, changes, 3, &e) < 0 || write(report, &batch, sizeof batch) != sizeof batch)
            _exit(2);
    }
}

static void survives_kill_9(void **state)
{
    (void)state;
    uint32_t total = 0;
    for (int round = 0; round < 12; round++) {
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        pid_t child = fork();
        if (child == 0)
            storm(ends[1]);
        close(ends[1]);
        usleep(20000 + (useconds_t)round * 9973);
        kill(child, SIGKILL);
        uint32_t last = 0, batch;
        while (read(ends[0], &batch, sizeof batch) == sizeof batch)
            last = batch;
        close(ends[0]);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));

        AUTO(free) char *content = content_of(path);
        for (batch = 1; batch <= last + 3; batch++) {
            int there = 0;
            for (uint32_t i = 0; i < 3; i++) {
                AUTO(free) char *name = xasprintf("\"name\":\"b%u-%u\"", batch, i);
                there += strstr(content, name) != NULL;
            }
            if (batch <= last)
                assert_int_equal(there, 3); // acknowledged
            else
                assert_true(there == 0 || (there == 3 && batch == last + 1)); // whole, and only the one that was under way
        }
        total += last;
        unlink(path);
    }
    assert_true(total > 20);
}

// ---- damage ---------------------------------------------------------------------------------------------------------------------

// Opens and loads. E_CORRUPT must come with advice, and leave every file as it was.
static int try_load(char **ret_content)
{
    struct error e = ERROR_INIT;
    struct store *s = NULL;
    AUTO(free) char *before = folder_state();
    *ret_content = NULL;
    int rc = store_open(&store_sqlite, path, &s, &e);
    if (rc == 0) {
        *ret_content = kit_try_dump(s, &e);
        rc = *ret_content ? 0 : -(int)e.code;
        store_close(s);
    }
    if (rc < 0) {
        AUTO(free) char *after = folder_state();
        assert_string_equal(before, after);
        if (rc != -E_CORRUPT)
            print_error("%s\n", e.msg);
        assert_int_equal(rc, -E_CORRUPT);
        assert_non_null(strstr(e.msg, path));
        assert_non_null(strstr(e.msg, "flocker control recover"));
        assert_null(strchr(e.msg, '\n'));
    }
    return rc;
}

static void assert_corrupt(void)
{
    AUTO(free) char *content = NULL;
    assert_int_equal(try_load(&content), -E_CORRUPT);
}

static void what_is_no_store_is_left_alone(void **state)
{
    (void)state;
    static const char text[] = "this is somebody's diary, not a database";
    write_bytes(path, "", 0);
    assert_corrupt();
    write_bytes(path, text, sizeof text);
    assert_corrupt();
    unsigned char random[20000];
    for (size_t i = 0; i < sizeof random; i++)
        random[i] = (unsigned char)(i * 2654435761u >> 13);
    write_bytes(path, random, sizeof random);
    assert_corrupt();
    unlink(path);

    sqlite3 *db = NULL; // another program's database
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE volume (id)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_corrupt();
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_corrupt();
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_corrupt();
}

static void exec_sql(const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        print_error("%s: %s\n", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_errcode(db), SQLITE_OK);
    sqlite3_close(db);
}

static void what_others_changed_is_noticed(void **state)
{
    (void)state;
    static const char *const changes[] = {
        "PRAGMA user_version = 99",
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 1",
        "PRAGMA journal_mode = DELETE",
        "DROP INDEX volume_live_name",
        "DROP TABLE node",
        "CREATE TABLE more (x)",
        "UPDATE volume SET record = '{}'",
        "UPDATE volume SET record = replace(record, '\"size\":', '\"size\":1')",
        "UPDATE volume SET epoch = epoch + 1",
        "UPDATE volume SET live = 0",
        "UPDATE volume SET name = name || 'x'",
        "UPDATE volume SET sum = sum + 1",
        "UPDATE hold SET expires_ms = 17",
        "UPDATE hold SET node = zeroblob(16)",
        "UPDATE node SET host = 'elsewhere'",
        "UPDATE node SET host = printf('%100d', 1)",
        "UPDATE node SET era = zeroblob(16)",
        "UPDATE node SET removed = 1",
        "INSERT INTO token VALUES (zeroblob(16), zeroblob(16), 0, 0)",
        "INSERT INTO user VALUES ('alice', '', 0, 0)",
        "INSERT INTO user VALUES ('', '', 0, 0)",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'epoch >= 1', 'epoch >= 0')",
        "PRAGMA ignore_check_constraints = ON; UPDATE volume SET record = 'no JSON'",
        "PRAGMA ignore_check_constraints = ON; UPDATE volume SET id = zeroblob(3) WHERE name = 'volume-1'",
    };
    fill(12);
    struct bytes good = read_bytes(path);
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        write_bytes(path, good.p, good.n);
        exec_sql(changes[i]);
        AUTO(free) char *content = NULL;
        if (try_load(&content) != -E_CORRUPT)
            print_error("not noticed: %s\n", changes[i]);
        assert_null(content);
    }
    free(good.p);
}

// A store of the first version is brought up to date, and nothing of it is lost.
static void an_older_store_is_taken_over(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(free) char *before = NULL, *after = NULL;
    fill(12);
    assert_int_equal(try_load(&before), 0);
    exec_sql("DROP TABLE user; DROP TABLE container; DROP TABLE token;"
             " ALTER TABLE node DROP COLUMN drain; ALTER TABLE node DROP COLUMN removed; PRAGMA user_version = 1");
    assert_int_equal(try_load(&after), 0);
    assert_string_equal(before, after);
    AUTO(store_close) struct store *s = NULL;
    assert_int_equal(store_open(&store_sqlite, path, &s, &e), 0);
    const struct join_token token = kit_token(3);
    const struct store_change put = { .kind = STORE_PUT_TOKEN, .token = &token };
    assert_int_equal(store_commit(s, &put, 1, &e), 0);
}

static void a_cut_file_is_noticed(void **state)
{
    (void)state;
    fill(60);
    struct bytes good = read_bytes(path);
    for (size_t n = 0; n < good.n; n += n < 200 ? 17 : 1777) {
        write_bytes(path, good.p, n);
        assert_corrupt();
    }
    free(good.p);
}

// Wherever a bit flips: the damage is found and the file left alone, or it did not matter.
static void flipped_bits_are_found(void **state)
{
    (void)state;
    fill(60);
    struct bytes good = read_bytes(path);
    AUTO(free) char *want = content_of(path);
    int found = 0, harmless = 0;
    for (size_t at = 0; at < good.n; at += at < 100 ? 1 : 97) {
        unsigned char bit = (unsigned char)(1 << at % 8);
        good.p[at] ^= bit;
        write_bytes(path, good.p, good.n);
        good.p[at] ^= bit;
        AUTO(free) char *content = NULL;
        if (try_load(&content) < 0) {
            found++;
            continue;
        }
        harmless++;
        assert_string_equal(content, want);
    }
    assert_true(found > 100);
    print_message("%d flips found, %d harmless\n", found, harmless);
    free(good.p);
}

// Also where SQLite's own check does not look: names are in the row, in its record, and in the index.
static void a_flip_in_any_name_is_found(void **state)
{
    (void)state;
    fill(40);
    exec_sql("VACUUM"); // no rests of earlier pages
    struct bytes good = read_bytes(path);
    int places = 0;
    for (size_t at = 0; at + 8 < good.n; at++) {
        if (memcmp(good.p + at, "volume-1", 8) != 0)
            continue;
        good.p[at + 7] ^= 1; // volume-1... is now volume-0...
        write_bytes(path, good.p, good.n);
        good.p[at + 7] ^= 1;
        assert_corrupt();
        places++;
    }
    free(good.p);
    assert_int_equal(places, 4 * 9); // 1, 10 to 19 but for those without a name: row, index, and twice in the record
}

static void damage_beside_a_log_leaves_the_log(void **state)
{
    (void)state;
    AUTO(free) char *wal = xasprintf("%s-wal", path);
    AUTO(store_close) struct store *s = open_store(path);
    for (uint32_t n = 1; n < 30; n++)
        put(s, n, NULL);
    struct bytes file = read_bytes(path), log = read_bytes(wal); // as kill -9 would leave them
    assert_true(log.n > 1000);
    store_close(TAKE(s, NULL));
    write_bytes(wal, log.p, log.n);
    memset(file.p + 100, 0xee, 4000); // a damaged first page: but the log has it whole
    write_bytes(path, file.p, file.n);
    AUTO(free) char *content = NULL;
    int rc = try_load(&content);
    assert_true(rc == 0 || rc == -E_CORRUPT);
    write_bytes(path, file.p, file.n);
    memset(log.p, 0, log.n); // and without the log
    write_bytes(wal, log.p, log.n);
    assert_corrupt();
    free(file.p);
    free(log.p);
}

static void stray_logs_are_not_applied(void **state)
{
    (void)state;
    AUTO(free) char *wal = xasprintf("%s-wal", path), *journal = xasprintf("%s-journal", path);
    write_bytes(wal, "frames", 6);
    assert_corrupt(); // a log without its file
    unlink(wal);
    fill(3);
    write_bytes(journal, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", 8);
    assert_corrupt();
}

// As another user, because root may open everything.
static void what_may_not_be_opened(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip();
    fill(3);
    assert_int_equal(chmod(folder, 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        struct error e = ERROR_INIT;
        struct store *s = NULL;
        AUTO(free) char *other = xasprintf("%s/new.db", folder);
        if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
            _exit(1);
        if (store_open(&store_sqlite, path, &s, &e) != -E_DENIED || !strstr(e.msg, path))
            _exit(2);
        if (store_open(&store_sqlite, other, &s, &e) != -E_DENIED || !strstr(e.msg, other))
            _exit(3);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct store *s = NULL;
    assert_int_equal(try_open("/nonexistent/control.db", &s), -E_NOT_FOUND);
}

// ---- backup ---------------------------------------------------------------------------------------------------------------------

static void backup_while_in_use(void **state)
{
    (void)state;
    fill(40);
    AUTO(free) char *copy = xasprintf("%s/backup.db", folder), *nowhere = xasprintf("%s/no/backup.db", folder);
    AUTO(store_close) struct store *s = open_store(path);
    struct error e = ERROR_INIT;
    put(s, 100, "in-the-log");
    AUTO(free) char *want = kit_dump(s);
    mode_t mask = umask(0);
    assert_int_equal(store_backup(s, copy, &e), 0);
    umask(mask);
    assert_int_equal(mode_of(copy), 0600);
    assert_int_equal(count_files(), 3); // store, log, backup
    put(s, 101, "later");
    AUTO(free) char *have = content_of(copy);
    assert_string_equal(have, want);
    assert_int_equal(store_backup(s, copy, &e), -E_CONFLICT);
    assert_int_equal(store_backup(s, path, &e), -E_CONFLICT);
    assert_int_equal(store_backup(s, nowhere, &e), -E_NOT_FOUND);
    AUTO(free) char *again = content_of(copy);
    assert_string_equal(again, want);
    struct store *restored = open_store(copy);
    put(restored, 5000, "after");
    store_close(restored);
    put(s, 102, "still-works");
}

// The log of the store that was lost must not be applied to the backup that takes its place.
static void backup_beside_the_log_of_another_store(void **state)
{
    (void)state;
    fill(40);
    AUTO(free) char *copy = xasprintf("%s/backup.db", folder), *log = xasprintf("%s-wal", path), *kept = xasprintf("%s/kept-wal", folder);
    struct store *s = open_store(path);
    struct error e = ERROR_INIT;
    AUTO(free) char *want = kit_dump(s);
    assert_int_equal(store_backup(s, copy, &e), 0);
    put(s, 100, "later");
    assert_int_equal(link(log, kept), 0);
    store_close(s);
    if (access(log, F_OK) < 0)
        assert_int_equal(link(kept, log), 0);
    assert_int_equal(rename(copy, path), 0);
    AUTO(free) char *before = folder_state();
    assert_int_equal(try_open(path, &s), -E_CORRUPT);
    AUTO(free) char *after = folder_state();
    assert_string_equal(before, after);
    assert_int_equal(unlink(log), 0);
    AUTO(free) char *have = content_of(path);
    assert_string_equal(have, want);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(survives_a_reopen),
        TEST(files_are_private),
        TEST(a_name_without_a_folder),
        TEST(a_second_opener_is_refused),
        TEST(other_programs_are_kept_out),
        TEST(survives_kill_9),
        TEST(what_is_no_store_is_left_alone),
        TEST(what_others_changed_is_noticed),
        TEST(an_older_store_is_taken_over),
        TEST(a_cut_file_is_noticed),
        TEST(flipped_bits_are_found),
        TEST(a_flip_in_any_name_is_found),
        TEST(damage_beside_a_log_leaves_the_log),
        TEST(stray_logs_are_not_applied),
        TEST(what_may_not_be_opened),
        TEST(backup_while_in_use),
        TEST(backup_beside_the_log_of_another_store),
    };
    return RUN_TESTS(tests);
}
