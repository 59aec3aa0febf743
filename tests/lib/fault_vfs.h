// A file layer for SQLite that passes everything on to the real one, but for the writes and syncs that it is told to fail.
#ifndef FLOCKER_TESTS_FAULT_VFS_H
#define FLOCKER_TESTS_FAULT_VFS_H

#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

// Calls that change something on the disk count down `countdown`; the one that finds it at 1 fails, and all later ones if `stuck`.
static struct fault {
    long countdown; // 0: off
    bool stuck, hit;
    int code;   // what to fail with
    long syncs; // syncs that were passed on
} fault;

static inline void fault_arm(long nth, bool stuck, int code)
{
    fault.countdown = nth;
    fault.stuck = stuck;
    fault.hit = false;
    fault.code = code;
}

static inline void fault_off(void)
{
    fault.countdown = 0;
}

static inline bool fault_now(void)
{
    if (fault.countdown == 0)
        return false;
    if (fault.countdown > 1) {
        fault.countdown--;
        return false;
    }
    fault.hit = true;
    if (!fault.stuck)
        fault.countdown = 0;
    return true;
}

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; // behind this struct
};

static inline sqlite3_file *fault_real(sqlite3_file *f)
{
    return ((struct fault_file *)f)->real;
}
static inline int fault_close(sqlite3_file *f)
{
    return fault_real(f)->pMethods->xClose(fault_real(f));
}
static inline int fault_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return fault_real(f)->pMethods->xRead(fault_real(f), p, n, at);
}
static inline int fault_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    if (!fault_now())
        return fault_real(f)->pMethods->xWrite(fault_real(f), p, n, at);
    fault_real(f)->pMethods->xWrite(fault_real(f), p, n / 2, at); // half of it gets there
    return fault.code == SQLITE_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}
static inline int fault_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return fault_now() ? SQLITE_IOERR_TRUNCATE : fault_real(f)->pMethods->xTruncate(fault_real(f), n);
}
static inline int fault_sync(sqlite3_file *f, int flags)
{
    if (fault_now())
        return SQLITE_IOERR_FSYNC;
    fault.syncs++;
    return fault_real(f)->pMethods->xSync(fault_real(f), flags);
}
static inline int fault_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return fault_real(f)->pMethods->xFileSize(fault_real(f), n);
}
static inline int fault_lock(sqlite3_file *f, int level)
{
    return fault_real(f)->pMethods->xLock(fault_real(f), level);
}
static inline int fault_unlock(sqlite3_file *f, int level)
{
    return fault_real(f)->pMethods->xUnlock(fault_real(f), level);
}
static inline int fault_check_lock(sqlite3_file *f, int *ret)
{
    return fault_real(f)->pMethods->xCheckReservedLock(fault_real(f), ret);
}
static inline int fault_control(sqlite3_file *f, int op, void *arg)
{
    return fault_real(f)->pMethods->xFileControl(fault_real(f), op, arg);
}
static inline int fault_sector(sqlite3_file *f)
{
    return fault_real(f)->pMethods->xSectorSize(fault_real(f));
}
static inline int fault_traits(sqlite3_file *f)
{
    return fault_real(f)->pMethods->xDeviceCharacteristics(fault_real(f));
}

// Version 1: no shared memory. That the store works with it shows that it makes no -shm file.
static const sqlite3_io_methods fault_methods = {
    1,          fault_close,  fault_read,       fault_write,   fault_truncate, fault_sync,   fault_size,
    fault_lock, fault_unlock, fault_check_lock, fault_control, fault_sector,   fault_traits,
};

static sqlite3_vfs *fault_inner, fault_vfs;

static inline int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    (void)vfs;
    struct fault_file *file = (struct fault_file *)f;
    file->base.pMethods = NULL;
    file->real = (sqlite3_file *)(file + 1);
    if ((flags & SQLITE_OPEN_CREATE) && fault_now())
        return SQLITE_CANTOPEN;
    int rc = fault_inner->xOpen(fault_inner, name, file->real, flags, ret_flags);
    if (rc == SQLITE_OK)
        file->base.pMethods = &fault_methods;
    return rc;
}
static inline int fault_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    return fault_now() ? SQLITE_IOERR_DELETE : fault_inner->xDelete(fault_inner, name, sync);
}
static inline int fault_last_error(sqlite3_vfs *vfs, int n, char *text)
{
    (void)vfs;
    return fault.hit ? (fault.code == SQLITE_FULL ? ENOSPC : EIO) : fault_inner->xGetLastError(fault_inner, n, text);
}

// From here on every connection of this process goes through it.
static inline void fault_install(void)
{
    fault_inner = sqlite3_vfs_find(NULL);
    fault_vfs = *fault_inner;
    fault_vfs.pNext = NULL;
    fault_vfs.zName = "fault";
    fault_vfs.szOsFile = (int)sizeof(struct fault_file) + fault_inner->szOsFile;
    fault_vfs.xOpen = fault_open;
    fault_vfs.xDelete = fault_delete;
    fault_vfs.xGetLastError = fault_last_error;
    sqlite3_vfs_register(&fault_vfs, 1);
}

#endif
