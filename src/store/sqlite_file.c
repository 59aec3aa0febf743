#include "store/sqlite_internal.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

// ---- errors -------------------------------------------------------------------------------------------------------------------

int storefile_corrupt(const char *path, const char *why, struct error *e)
{
    return fail(
        e, E_CORRUPT,
        "%.150s %.140s; nothing was changed. Move it and its -wal away, and put a backup there, or start without and `flocker control recover`",
        path, why);
}

int storefile_fail(sqlite3 *db, const char *path, int rc, const char *what, struct error *e)
{
    int err = db ? sqlite3_system_errno(db) : 0;
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: // our SQL is right: what it speaks of is not there
        return storefile_corrupt(path, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc), e);
    case SQLITE_FULL:
        return fail(e, E_NO_SPACE, "%s: %s: the disk is full: make room and try again", path, what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fail(e, E_BUSY, "%s is in use by another process", path);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
        if (rc == SQLITE_IOERR_SHORT_READ || rc == SQLITE_IOERR_CORRUPTFS)
            return storefile_corrupt(path, sqlite3_errstr(rc), e);
        if (err == ENOSPC || err == EDQUOT)
            return fail_os(e, err, "%s: %s", path, what);
        return fail(e, E_IO, "%s: %s: %s (%s)", path, what, sqlite3_errstr(rc), err ? strerror(err) : "no reason given");
    default:
        return fail(e, E_IO, "%s: %s: %s", path, what, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    }
}

int storefile_exec(sqlite3 *db, const char *path, const char *sql, struct error *e)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : storefile_fail(db, path, rc, "set up the store", e);
}

int storefile_query(sqlite3 *db, const char *path, const char *sql, int64_t *ret, struct error *e)
{
    AUTO(sqlite3_finalize) sqlite3_stmt *query = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &query, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(query);
    if (rc != SQLITE_ROW)
        return storefile_fail(db, path, rc, "read the store", e);
    *ret = sqlite3_column_int64(query, 0);
    return 0;
}

enum { HEADER_BYTES = 100, AT_FORMATS = 18, AT_APPLICATION_ID = 68 }; // sqlite.org/fileformat2.html

// ---- new files ------------------------------------------------------------------------------------------------------------------

// A file that gets its final name only when it is complete and on disk.
struct fresh {
    char *path; // its name until then; NULL: none, or already given away
    int fd;
};
#define FRESH_INIT                                                                                                                 \
    {                                                                                                                              \
        NULL, -1                                                                                                                   \
    }

static void fresh_unlink(const struct fresh *f, const char *suffix)
{
    AUTO(free) char *path = xasprintf("%s%s", f->path, suffix);
    unlink(path);
}

static void auto_fresh_drop(struct fresh *f)
{
    if (f->path) {
        fresh_unlink(f, "");
        fresh_unlink(f, "-wal");
        fresh_unlink(f, "-journal");
    }
    free(f->path);
    if (f->fd >= 0)
        close(f->fd);
}

static int fresh_make(struct fresh *f, const char *path, struct error *e)
{
    AUTO(free) char *name = xasprintf("%s.XXXXXX", path);
    f->fd = mkostemp(name, O_CLOEXEC); // mode 0600
    if (f->fd < 0)
        return fail_os(e, errno, "make %s", path);
    f->path = TAKE(name, NULL);
    return 0;
}

static int sync_folder_of(const char *path, struct error *e)
{
    AUTO(free) char *copy = xstrdup(path);
    AUTO(close) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return fail_os(e, errno, "sync the folder of %s", path);
    return 0;
}

// Syncs the file and gives it its name. E_CONFLICT if that is taken.
static int fresh_install(struct fresh *f, const char *path, struct error *e)
{
    ASSERT(f->path);
    fresh_unlink(f, "-wal"); // empty, and gone unless SQLite failed to remove it
    if (fsync(f->fd) < 0)
        return fail_os(e, errno, "sync %s", path);
    int rc = renameat2(AT_FDCWD, f->path, AT_FDCWD, path, RENAME_NOREPLACE);
    if (rc < 0 && errno == EINVAL) { // a file system without the flag, such as NFS
        rc = link(f->path, path);
        if (rc == 0)
            unlink(f->path);
    }
    if (rc < 0)
        return fail_os(e, errno, "make %s", path);
    free(f->path);
    f->path = NULL;
    return sync_folder_of(path, e);
}

static int fill_new(const char *path, const char *final, struct error *e)
{
    // Born in WAL mode: no rollback journal ever lies beside a store, so what lies there is not ours.
    AUTO(db_close) sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK)
        return storefile_fail(db, final, rc, "make the store", e);
    AUTO(free)
    char *setup = xasprintf("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                            "PRAGMA application_id = %d",
                            STORE_APPLICATION_ID);
    rc = storefile_exec(db, final, setup, e);
    if (rc == 0)
        rc = schema_migrate(db, final, 0, e);
    if (rc < 0)
        return rc;
    rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return rc == SQLITE_OK ? 0 : storefile_fail(db, final, rc, "make the store", e);
}

static int make_store(const char *path, struct error *e)
{
    AUTO(free) char *wal = xasprintf("%s-wal", path);
    struct stat st;
    if (stat(wal, &st) == 0 && st.st_size > 0)
        // Its changes would be applied to the new file.
        return storefile_corrupt(path, "is not there, but its -wal is", e);
    AUTO(fresh_drop) struct fresh f = FRESH_INIT;
    int rc = fresh_make(&f, path, e);
    if (rc == 0)
        rc = fill_new(f.path, path, e);
    FAILPOINT(CONTROL_STORE_MADE);
    if (rc == 0)
        rc = fresh_install(&f, path, e);
    return rc;
}

static int write_application_id(const char *path, int fd, uint32_t id, struct error *e)
{
    const unsigned char bytes[] = { (unsigned char)(id >> 24), (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id };
    if (pwrite(fd, bytes, sizeof bytes, AT_APPLICATION_ID) != (ssize_t)sizeof bytes || fsync(fd) < 0)
        return fail_os(e, errno, "write %s", path);
    return 0;
}

int storefile_backup(sqlite3 *db, const char *path, struct error *e)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return fail(e, E_CONFLICT, "backup to %s: there is something of that name: choose another one, or remove it first", path);
    AUTO(fresh_drop) struct fresh f = FRESH_INIT;
    int rc = fresh_make(&f, path, e);
    if (rc < 0)
        return rc;
    AUTO(db_close) sqlite3 *copy = NULL;
    rc = sqlite3_open_v2(f.path, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK)
        return storefile_fail(copy, path, rc, "make the backup", e);
    // Half a backup never gets its name, so it needs neither a journal nor syncs on the way.
    rc = storefile_exec(copy, path, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", e);
    if (rc < 0)
        return rc;
    sqlite3_backup *backup = sqlite3_backup_init(copy, "main", db, "main");
    if (!backup)
        return storefile_fail(copy, path, sqlite3_extended_errcode(copy), "make the backup", e);
    sqlite3_backup_step(backup, -1); // whatever it says, finish says again
    rc = sqlite3_backup_finish(backup);
    if (rc != SQLITE_OK)
        return storefile_fail(copy, path, rc, "write the backup", e);
    db_close(TAKE(copy, NULL));
    rc = write_application_id(path, f.fd, STORE_BACKUP_APPLICATION_ID, e);
    return rc < 0 ? rc : fresh_install(&f, path, e);
}

// ---- an existing file -----------------------------------------------------------------------------------------------------------

// A backup that was put in the place of a store becomes one. A log that lies beside it is the former store's: SQLite would apply it.
static int begin_with_backup(const char *path, int fd, struct error *e)
{
    AUTO(free) char *wal = xasprintf("%s-wal", path);
    struct stat st;
    if (stat(wal, &st) == 0 && st.st_size > 0)
        return fail(e, E_CORRUPT, "%s is a backup, and %s is of the store that was there before; nothing was changed. Move that -wal away", path, wal);
    return write_application_id(path, fd, STORE_APPLICATION_ID, e);
}

// Tells what is no store before SQLite touches it: SQLite would roll back a journal, and take an empty file for a new database.
static int check_header(const char *path, int fd, struct error *e)
{
    unsigned char h[HEADER_BYTES];
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fail_os(e, errno, "look at %s", path);
    if (!S_ISREG(st.st_mode))
        return storefile_corrupt(path, "is not a regular file", e);
    ssize_t n = pread(fd, h, sizeof h, 0);
    if (n < 0)
        return fail_os(e, errno, "read %s", path);
    if (n < HEADER_BYTES)
        return storefile_corrupt(path, n == 0 ? "is empty" : "is cut off", e);
    if (memcmp(h, "SQLite format 3", 16) != 0)
        return storefile_corrupt(path, "is not a Flocker store", e);
    const unsigned char *at = h + AT_APPLICATION_ID;
    const uint32_t id = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    if (id != STORE_APPLICATION_ID && id != STORE_BACKUP_APPLICATION_ID)
        return storefile_corrupt(path, "is the database of another program", e);
    if (h[AT_FORMATS] != 2 || h[AT_FORMATS + 1] != 2)
        return storefile_corrupt(path, "is not in WAL mode: another program changed it", e);
    AUTO(free) char *journal = xasprintf("%s-journal", path);
    if (stat(journal, &st) == 0 && st.st_size > 0)
        return storefile_corrupt(path, "has a -journal beside it that is not Flocker's", e);
    return id == STORE_BACKUP_APPLICATION_ID ? begin_with_backup(path, fd, e) : 0;
}

// The lock is flock's, on the file itself: it goes with the process, needs no second file, and is not in the way of SQLite's own
// (fcntl) locks on a local file system, the only kind on which a store belongs.
static int lock(const char *path, int fd, struct error *e)
{
    struct stat ours, now;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? fail(e, E_BUSY, "%s is in use by another process: is flocker control running already?", path)
                                    : fail_os(e, errno, "lock %s", path);
    if (fstat(fd, &ours) < 0 || stat(path, &now) < 0)
        return fail_os(e, errno, "look at %s", path);
    if (ours.st_dev != now.st_dev || ours.st_ino != now.st_ino)
        return fail(e, E_BUSY, "%s was replaced just now: try again", path);
    return 0;
}

int storefile_take(const char *path, int *ret_fd, struct error *e)
{
    int flags = O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    AUTO(close) int fd = open(path, flags);
    if (fd < 0 && errno == ENOENT) {
        int rc = make_store(path, e);
        if (rc < 0 && rc != -E_CONFLICT) // another process was quicker: the lock decides
            return rc;
        fd = open(path, flags);
    }
    if (fd < 0)
        return errno == EISDIR ? storefile_corrupt(path, "is a folder", e) : fail_os(e, errno, "open %s", path);
    int rc = lock(path, fd, e);
    if (rc == 0)
        rc = check_header(path, fd, e);
    if (rc == 0)
        *ret_fd = TAKE(fd, -1);
    return rc;
}
