// The store on one machine: SQLite with a write-ahead log, synced at each commit.
#include "store/store.h"

#include "base/failpoint.h"
#include "store/sqlite_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct sqlite_store {
    struct store base;
    char *path, *wal_path;
    int lock_fd;
    sqlite3 *db;
    struct records *records;
    bool had_wal;     // there was a -wal when it was opened
    bool is_suspect;  // damage was found, or not yet looked for: closing must not touch the files
    bool is_doubtful; // a change that failed might come back after a crash: no more changes until then
};

// ---- open and close -----------------------------------------------------------------------------------------------------------

static void set_suspect(struct sqlite_store *s, bool is_suspect)
{
    int rc = sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, (int)is_suspect, (int *)NULL);
    ASSERT(rc == SQLITE_OK);
    s->is_suspect = is_suspect;
}

static void sqlite_store_free(struct sqlite_store *s)
{
    struct stat st;
    records_free(s->records);
    bool is_open = s->db != NULL;
    if (is_open)
        db_close(s->db);
    // SQLite makes an empty -wal even to read.
    if (is_open && s->is_suspect && !s->had_wal && stat(s->wal_path, &st) == 0 && st.st_size == 0)
        unlink(s->wal_path);
    if (s->lock_fd >= 0)
        close(s->lock_fd); // last: SQLite's own locks go with any descriptor of the file
    free(s->path);
    free(s->wal_path);
    free(s);
}
DEFINE_AUTO(struct sqlite_store *, sqlite_store_free)

// Damage of the tree's structure, which a walk over the records might miss and a change would make worse. It reads all of the
// file and cannot be interrupted, so a large one is not looked at; store_load, which sums up every record and every entry of the
// index, finds most damage too.
#define QUICK_CHECK_BYTES_MAX (128LL << 20)

static int quick_check(struct sqlite_store *s, struct error *e)
{
    struct stat st;
    if (fstat(s->lock_fd, &st) == 0 && st.st_size > QUICK_CHECK_BYTES_MAX)
        return 0;
    AUTO(sqlite3_finalize) sqlite3_stmt *check = NULL;
    int rc = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &check, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(check);
    if (rc != SQLITE_ROW)
        return storefile_fail(s->db, s->path, rc, "check", e);
    const char *verdict = (const char *)sqlite3_column_text(check, 0);
    if (verdict && strcmp(verdict, "ok") == 0)
        return 0;
    AUTO(free) char *why = xasprintf("is damaged (%s)", verdict ? verdict : "?");
    for (char *c = why; *c; c++)
        if (*c == '\n')
            *c = ' ';
    return storefile_corrupt(s->path, why, e);
}

static int check_version(struct sqlite_store *s, int64_t *ret_version, struct error *e)
{
    int rc = storefile_query(s->db, s->path, "PRAGMA user_version", ret_version, e);
    if (rc < 0)
        return rc;
    if (*ret_version > schema_version())
        return storefile_corrupt(s->path, "was written by a newer version of Flocker, which should open it", e);
    return *ret_version > 0 ? 0 : storefile_corrupt(s->path, "has no version", e);
}

static int open_db(struct sqlite_store *s, struct error *e)
{
    struct stat st;
    s->had_wal = stat(s->wal_path, &st) == 0;
    int rc = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK)
        return storefile_fail(s->db, s->path, rc, "open", e);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    set_suspect(s, true);

    // The locking mode comes before the first read: then SQLite keeps its index of the log in memory, with no -shm file, and keeps
    // other programs out. A bound on the log's size lets it shrink again after a large change.
    rc = storefile_exec(s->db, s->path,
                        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;"
                        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 16777216",
                        e);
    int64_t version = 0;
    if (rc == 0)
        rc = check_version(s, &version, e);
    if (rc == 0)
        rc = quick_check(s, e);
    if (rc == 0 && version < schema_version())
        rc = schema_migrate(s->db, s->path, version, e);
    if (rc == 0)
        rc = schema_check(s->db, s->path, e);
    if (rc == 0)
        rc = records_open(s->db, s->path, &s->records, e);
    return rc;
}

// A file that was copied here by hand may be open to all.
static int restrict_modes(const struct sqlite_store *s, struct error *e)
{
    if (fchmod(s->lock_fd, 0600) < 0 || (chmod(s->wal_path, 0600) < 0 && errno != ENOENT))
        return fail_os(e, errno, "restrict access to %s", s->path);
    return 0;
}

static int sqlite_open(const char *path, struct store **ret, struct error *e)
{
    AUTO(sqlite_store_free) struct sqlite_store *s = xcalloc(1, sizeof *s);
    s->base.ops = &store_sqlite;
    s->lock_fd = -1;
    // SQLite gives names such as ":memory:" and "" a meaning; a path with a slash it takes as it is.
    s->path = strchr(path, '/') ? xstrdup(path) : xasprintf("./%s", path);
    s->wal_path = xasprintf("%s-wal", s->path);
    int rc = storefile_take(s->path, &s->lock_fd, e);
    if (rc == 0)
        rc = open_db(s, e);
    if (rc == 0)
        rc = restrict_modes(s, e);
    if (rc < 0)
        return rc;
    set_suspect(s, false);
    *ret = &s->base;
    TAKE(s, NULL);
    return 0;
}

static void sqlite_close(struct store *base)
{
    sqlite_store_free((struct sqlite_store *)base);
}

// ---- commit -------------------------------------------------------------------------------------------------------------------

// A commit whose sync failed is rolled back, but its frames lie complete in the log, and the next process to read the log would
// take them as valid: "nothing was changed" would turn out false after a crash. Empty the log, on the disk too. What was
// acknowledged goes into the main file first.
static void drop_unsynced(struct sqlite_store *s)
{
    sqlite3_file *wal = NULL;
    int rc = sqlite3_wal_checkpoint_v2(s->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(s->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (rc == SQLITE_OK && wal && wal->pMethods)
        rc = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
    s->is_doubtful = rc != SQLITE_OK;
}

// Fails with what went wrong, and leaves no transaction.
static int give_up(struct sqlite_store *s, int code, const struct store_change *c, struct error *e)
{
    int rc;
    if (code == SQLITE_CONSTRAINT_UNIQUE && c && c->kind == STORE_PUT_VOLUME && c->volume->name)
        rc = fail(e, E_CONFLICT, "volume name \"%s\" is in use by another volume", c->volume->name);
    else
        rc = storefile_fail(s->db, s->path, code, "store a change", e);
    if (!sqlite3_get_autocommit(s->db)) // SQLite rolls back by itself after some errors
        records_roll_back(s->records);
    if (!sqlite3_get_autocommit(s->db))
        s->is_doubtful = true;
    if (code == SQLITE_IOERR_FSYNC)
        drop_unsynced(s);
    return rc;
}

static int sqlite_commit(struct store *base, const struct store_change *changes, size_t n, struct error *e)
{
    struct sqlite_store *s = (struct sqlite_store *)base;
    if (s->is_doubtful)
        return fail(e, E_IO, "%s: the disk failed during an earlier change: see to the disk, then restart flocker control",
                    s->path);
    int code = records_begin(s->records);
    if (code != SQLITE_OK)
        return give_up(s, code, NULL, e);
    for (size_t i = 0; i < n; i++) {
        code = records_apply(s->records, &changes[i]);
        if (code != SQLITE_OK)
            return give_up(s, code, &changes[i], e);
    }
    FAILPOINT(CONTROL_WRITTEN);
    code = records_commit(s->records);
    return code == SQLITE_OK ? 0 : give_up(s, code, NULL, e);
}

static int sqlite_load(struct store *base, const struct store_sink *sink, struct error *e)
{
    struct sqlite_store *s = (struct sqlite_store *)base;
    int rc = records_load(s->records, sink, e);
    if (rc == -E_CORRUPT)
        set_suspect(s, true);
    return rc;
}

static int sqlite_backup(struct store *base, const char *path, struct error *e)
{
    return storefile_backup(((struct sqlite_store *)base)->db, path, e);
}

const struct store_ops store_sqlite = {
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .load = sqlite_load,
    .commit = sqlite_commit,
    .backup = sqlite_backup,
};
