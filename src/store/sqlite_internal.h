// What the parts of the sqlite store share: sqlite.c (opening, commits, what failed), sqlite_records.c (what is in the
// tables), sqlite_file.c (the file and its lock), sqlite_schema.c (the tables themselves).
#ifndef FLOCKER_STORE_SQLITE_INTERNAL_H
#define FLOCKER_STORE_SQLITE_INTERNAL_H

#include "base/error.h"
#include "base/mem.h"
#include "store/store.h"

#include <sqlite3.h>
#include <stdint.h>

#define STORE_APPLICATION_ID 0x464c4b52        // "FLKR", in the header of the file
#define STORE_BACKUP_APPLICATION_ID 0x464c4b42 // "FLKB", of a backup, until it is opened as a store

static inline void db_close(sqlite3 *db)
{
    int rc = sqlite3_close(db);
    ASSERT(rc == SQLITE_OK); // anything else: a statement was left open
}
DEFINE_AUTO(sqlite3 *, db_close)
DEFINE_AUTO(sqlite3_stmt *, sqlite3_finalize)

// ---- sqlite_file.c ------------------------------------------------------------------------------------------------------------

// E_CORRUPT: "<path> <why>", and what to do about it.
int storefile_corrupt(const char *path, const char *why, struct error *e);
// Turns result `rc` of SQLite into an error about `path` while doing `what`. `db` may be NULL.
int storefile_fail(sqlite3 *db, const char *path, int rc, const char *what, struct error *e);
// Runs SQL that gives no rows that matter.
int storefile_exec(sqlite3 *db, const char *path, const char *sql, struct error *e);
// The integer that a query gives in its only row.
int storefile_query(sqlite3 *db, const char *path, const char *sql, int64_t *ret, struct error *e);

// Opens the file, making an empty store first if there is none, locks it against other processes, and looks at its header.
// Nothing of an existing file is changed. The lock is held until *ret_fd is closed.
int storefile_take(const char *path, int *ret_fd, struct error *e);
// A copy of `db` in a new file; E_CONFLICT if there is one.
int storefile_backup(sqlite3 *db, const char *path, struct error *e);

// ---- sqlite_schema.c ------------------------------------------------------------------------------------------------------------

int64_t schema_version(void); // of this program
// Brings tables of version `from` (0: none) to this program's version, in one transaction.
int schema_migrate(sqlite3 *db, const char *path, int64_t from, struct error *e);
// E_CORRUPT if the tables are not exactly those that this version makes.
int schema_check(sqlite3 *db, const char *path, struct error *e);

#define SUM_INIT 0xcbf29ce484222325ULL
// FNV-1a, chained: no change of one byte, and hardly any other damage, keeps the sum. Not against people.
uint64_t schema_sum(uint64_t sum, const void *data, size_t n);

// ---- sqlite_records.c -----------------------------------------------------------------------------------------------------------

struct records;
// Of a database with the tables of this version. Both are borrowed, and must outlive it; `path` is for messages.
int records_open(sqlite3 *db, const char *path, struct records **ret, struct error *e);
void records_free(struct records *r);
// These return SQLite's code.
int records_begin(struct records *r);
int records_apply(struct records *r, const struct store_change *c);
int records_commit(struct records *r);
int records_roll_back(struct records *r);
// E_CORRUPT if any record is not what was put.
int records_load(struct records *r, const struct store_sink *sink, struct error *e);

#endif
