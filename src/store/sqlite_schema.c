#include "store/sqlite_internal.h"

#include <inttypes.h>
#include <string.h>

// Entry i brings version i to i + 1. Entries are never changed once released: schema_check compares text.
//
// SQL guarantees what must hold whatever the program does: ids and the names of live volumes are unique, epochs are positive, a
// record is JSON. The other members of a volume are in its record alone, so that they can grow without a migration. Volumes are in
// the order of ids (WITHOUT ROWID), in which the program wants to read them. `sum` is over the record, because SQLite itself has
// no checksums: a bit that flips in a text would go unnoticed. The index has `live` in it, always 1, so that a walk over the names
// need not look into the table.
static const char *const migrations[] = {
    "CREATE TABLE volume ("
    " id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),"
    " name TEXT,"
    " live INTEGER NOT NULL CHECK (live IN (0, 1)),"
    " epoch INTEGER NOT NULL CHECK (epoch >= 1),"
    " record TEXT NOT NULL CHECK (json_valid(record)),"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;"
    "CREATE UNIQUE INDEX volume_live_name ON volume (name, live) WHERE live = 1 AND name IS NOT NULL;"
    "CREATE TABLE hold ("
    " volume BLOB NOT NULL PRIMARY KEY CHECK (length(volume) = 16),"
    " node BLOB NOT NULL CHECK (length(node) = 16),"
    " expires_ms INTEGER,"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE node ("
    " id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),"
    " era BLOB NOT NULL CHECK (length(era) = 16),"
    " host TEXT NOT NULL,"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;",

    "ALTER TABLE node ADD COLUMN removed INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1));"
    "CREATE TABLE token ("
    " id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),"
    " node BLOB NOT NULL CHECK (length(node) = 16),"
    " expires_ms INTEGER NOT NULL,"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;",

    "CREATE TABLE container ("
    " name TEXT NOT NULL PRIMARY KEY,"
    " record TEXT NOT NULL CHECK (json_valid(record)),"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;",

    "ALTER TABLE node ADD COLUMN drain INTEGER NOT NULL DEFAULT 0 CHECK (drain IN (0, 1, 2));",

    "CREATE TABLE user ("
    " name TEXT NOT NULL PRIMARY KEY,"
    " key TEXT NOT NULL CHECK (length(key) IN (0, 64)),"
    " revoked_ms INTEGER NOT NULL,"
    " sum INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;",
};

int64_t schema_version(void)
{
    return (int64_t)ARRAY_SIZE(migrations);
}

static int run_migrations(sqlite3 *db, const char *path, int64_t from, struct error *e)
{
    int rc = 0;
    for (int64_t i = from; rc == 0 && i < schema_version(); i++)
        rc = storefile_exec(db, path, migrations[i], e);
    if (rc < 0)
        return rc;
    AUTO(free) char *version = xasprintf("PRAGMA user_version = %" PRId64, schema_version());
    rc = storefile_exec(db, path, version, e);
    return rc < 0 ? rc : storefile_exec(db, path, "COMMIT", e);
}

int schema_migrate(sqlite3 *db, const char *path, int64_t from, struct error *e)
{
    ASSERT(from >= 0 && from < schema_version());
    int rc = storefile_exec(db, path, "BEGIN IMMEDIATE", e);
    if (rc < 0)
        return rc;
    rc = run_migrations(db, path, from, e);
    if (rc < 0 && !sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); // the error to tell is the first one
    return rc;
}

uint64_t schema_sum(uint64_t sum, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ p[i]) * 0x100000001b3ULL;
    return sum;
}

// A sum over the text of all tables and indices.
static int schema_fingerprint(sqlite3 *db, const char *path, uint64_t *ret, struct error *e)
{
    AUTO(sqlite3_finalize) sqlite3_stmt *query = NULL;
    int rc = sqlite3_prepare_v2(db, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name", -1, &query, NULL);
    uint64_t sum = SUM_INIT;
    while (rc == SQLITE_OK && (rc = sqlite3_step(query)) == SQLITE_ROW) {
        for (int i = 0; i < 4; i++) {
            const unsigned char *text = sqlite3_column_text(query, i);
            sum = schema_sum(sum, text ? (const char *)text : "", (size_t)sqlite3_column_bytes(query, i) + 1);
        }
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_DONE)
        return storefile_fail(db, path, rc, "read its tables", e);
    *ret = sum;
    return 0;
}

int schema_check(sqlite3 *db, const char *path, struct error *e)
{
    // What the tables should be is what the migrations make of nothing: no second list to keep.
    AUTO(db_close) sqlite3 *model = NULL;
    uint64_t want = 0, have = 0;
    int rc = sqlite3_open_v2(":memory:", &model, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return storefile_fail(model, path, rc, "compare its tables", e);
    rc = schema_migrate(model, path, 0, e);
    if (rc == 0)
        rc = schema_fingerprint(model, path, &want, e);
    if (rc == 0)
        rc = schema_fingerprint(db, path, &have, e);
    if (rc < 0)
        return rc;
    return want == have ? 0 : storefile_corrupt(path, "has other tables than this version of Flocker makes", e);
}
