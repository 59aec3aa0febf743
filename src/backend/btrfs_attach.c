// From a file, device or directory to a mounted pool, made if need be, and locked.
#include "backend/btrfs_pool.h"

#include "base/failpoint.h"
#include "base/size.h"
#include "sys/blkid.h"
#include "sys/btrfs.h"
#include "sys/lock.h"
#include "sys/loop.h"
#include "sys/mounts.h"
#include "sys/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FILE_SIZE_DEFAULT_MIN (1ULL << 30)

int pool_make_directories(const char *path, mode_t mode, struct error *e)
{
    AUTO(free) char *partial = xstrdup(path);
    for (char *slash = partial + 1;; slash++) {
        slash += strcspn(slash, "/");
        char kept = *slash;
        *slash = '\0';
        if (mkdir(partial, mode) < 0 && errno != EEXIST && (errno != EROFS || access(partial, F_OK) < 0))
            return fail_os(e, errno, "make directory %s", partial);
        *slash = kept;
        if (!kept)
            return 0;
    }
}

static int lock_pool(const char *path, int fd, struct error *e)
{
    int rc = lock_byte(fd, 0, 0, e);
    if (rc < 0)
        return fail_ctx(e, rc, "%s", path);
    return rc == 1 ? 0 : fail(e, E_BUSY, "pool %s is in use by another agent", path);
}

static int run_mkfs(const char *path, struct error *e)
{
    // Without --force: mkfs looks for signatures, too, and refuses.
    static const char label[] = POOL_LABEL;
    int rc = run_program((const char *const[]){ "mkfs.btrfs", "--quiet", "--label", label, path, NULL }, e);
    return rc < 0 ? fail_ctx(e, rc, "make a pool in %s", path) : 0;
}

// 0: holds nothing. 1: holds a pool's file system. E_CONFLICT: anything else; it isn't touched.
static int look_for_pool(const char *path, int fd, struct error *e)
{
    struct blkid_content content;
    int rc = blkid_look(fd, &content, e);
    if (rc < 0)
        return fail_ctx(e, rc, "%s", path);
    if (rc == 0)
        return 0;
    if (strcmp(content.type, "btrfs") == 0 && strcmp(content.label, POOL_LABEL) == 0)
        return 1;
    return fail(e, E_CONFLICT, "%s holds %s%s%s%s and is left alone; give an empty file or device", path, content.what,
        content.label[0] ? " with label \"" : "", content.label, content.label[0] ? "\"" : "");
}

static bool is_same_device(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode) && x.st_rdev == y.st_rdev;
}

static int mount_pool(const struct pool *p, const char *device, const char *options, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    int rc = mountinfo_read_self(&m, e);
    if (rc < 0)
        return rc;
    const struct mountinfo_entry *there = mountinfo_at(&m, p->top);
    if (there && (strcmp(there->type, "btrfs") != 0 || strcmp(there->root, "/") != 0 || !is_same_device(there->source, device)))
        return fail(e, E_CONFLICT, "%s is mounted on %s, where the pool %s belongs", there->source, p->top, p->path);
    if (!there && (rc = mount_fs(device, p->top, "btrfs", options, e)) < 0)
        return fail_ctx(e, rc, "pool %s", p->path);
    FAILPOINT(POOL_MOUNTED);
    // Private: mounts of volumes are to form groups of their own, and nobody needs to see this one.
    return mount_propagate(p->top, MOUNT_PRIVATE, e);
}

// ---- image file --------------------------------------------------------------------------------------------------------------

static int default_file_size(const char *directory, uint64_t *ret, struct error *e)
{
    struct statvfs st;
    if (statvfs(directory, &st) < 0)
        return fail_os(e, errno, "ask for the free space of %s", directory);
    uint64_t half = (uint64_t)st.f_bavail * st.f_frsize / 2 & ~((1ULL << 20) - 1);
    *ret = half < FILE_SIZE_DEFAULT_MIN ? FILE_SIZE_DEFAULT_MIN : half;
    return 0;
}

static int sync_directory(const char *path, struct error *e)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return fail_os(e, errno, "make directory %s durable", path);
    return 0;
}

// Opens "<path>.new" and locks it. What a killed predecessor left there is emptied; a live one is E_BUSY.
static int open_new_file(const char *path, const char *new_path, int *ret_fd, struct error *e)
{
    struct stat ours, there;
    AUTO(close) int fd = open(new_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_os(e, errno, "create %s", new_path);
    int rc = lock_pool(path, fd, e);
    if (rc < 0)
        return rc;
    // Between open and lock its maker may have given it its final name.
    if (fstat(fd, &ours) < 0 || stat(new_path, &there) < 0 || ours.st_ino != there.st_ino)
        return fail(e, E_BUSY, "pool %s is just being made by another agent", path);
    if (!S_ISREG(ours.st_mode))
        return fail(e, E_CONFLICT, "%s is in the way", new_path);
    *ret_fd = TAKE(fd, -1);
    return 0;
}

// A device that is not there would be made as a file in memory, and be gone with all volumes at the next start of the machine.
static int check_is_no_device(const char *path, struct error *e)
{
    bool is_device = strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0 && access(path, F_OK) < 0;
    return is_device ? fail(e, E_NOT_FOUND, "there is no device %s: `lsblk` lists those that there are", path) : 0;
}

// The file gets its name only when the file system in it is complete and durable: a file of that name is either whole or not there.
// The descriptor, and with it the lock, goes with it.
static int make_file(const char *path, const char *directory, uint64_t size, int *ret_fd, struct error *e)
{
    AUTO(free) char *new_path = xasprintf("%s.new", path);
    AUTO(close) int fd = -1;
    int rc = open_new_file(path, new_path, &fd, e);
    if (rc < 0)
        return rc;
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0)
        rc = fail_os(e, errno, "give %s its size", new_path);
    FAILPOINT(POOL_FILE_SIZED);
    if (rc == 0)
        rc = run_mkfs(new_path, e);
    FAILPOINT(POOL_FORMATTED);
    if (rc == 0 && fsync(fd) < 0)
        rc = fail_os(e, errno, "make %s durable", new_path);
    if (rc == 0 && rename(new_path, path) < 0)
        rc = fail_os(e, errno, "rename %s", new_path);
    if (rc < 0) {
        unlink(new_path);
        return rc;
    }
    FAILPOINT(POOL_NAMED);
    rc = sync_directory(directory, e);
    if (rc < 0)
        return rc;
    *ret_fd = TAKE(fd, -1);
    return 0;
}

// Opens and locks the file if there is one. 0: there is none, or it is empty: *ret_size is the size it has been given. 1: it is a pool.
static int open_file(const char *path, int *ret_fd, uint64_t *ret_size, struct error *e)
{
    struct stat st, there;
    AUTO(close) int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_os(e, errno, "open pool file %s", path);
    if (!S_ISREG(st.st_mode))
        return fail(e, E_CONFLICT, "%s is not a regular file", path);
    int rc = lock_pool(path, fd, e);
    if (rc < 0)
        return rc;
    if (stat(path, &there) < 0 || there.st_ino != st.st_ino)
        return fail(e, E_BUSY, "pool %s is just being made by another agent", path);
    rc = look_for_pool(path, fd, e);
    if (rc < 0)
        return rc;
    // A file can hold what has no known signature; any byte that was ever written to it may matter to somebody.
    if (rc == 0 && lseek(fd, 0, SEEK_DATA) >= 0)
        return fail(e, E_CONFLICT, "%s holds data of an unknown kind and is left alone; remove it or name another file", path);
    *ret_size = (uint64_t)st.st_size;
    *ret_fd = TAKE(fd, -1);
    return rc;
}

static int open_or_make_file(const char *path, uint64_t size, int *ret_fd, struct error *e)
{
    AUTO(free) char *directory = xstrndup(path, (size_t)(strrchr(path, '/') - path) + 1);
    AUTO(close) int fd = -1;
    uint64_t given = 0;
    int rc = check_is_no_device(path, e);
    if (rc == 0)
        rc = pool_make_directories(directory, 0700, e);
    if (rc == 0)
        rc = open_file(path, &fd, &given, e);
    if (rc < 0)
        return rc;
    if (rc == 1) {
        *ret_fd = TAKE(fd, -1);
        return 0;
    }
    if (size == 0)
        size = given;
    if (size == 0 && (rc = default_file_size(directory, &size, e)) < 0)
        return rc;
    return make_file(path, directory, size, ret_fd, e);
}

// The device keeps the open file description that it is given, and with it any lock: so it gets one of its own.
static int attach_loop(const struct pool *p, const char *path, char ret_device[LOOP_PATH_SIZE], int *ret_fd, struct error *e)
{
    char same[64];
    snprintf(same, sizeof same, "/proc/self/fd/%d", p->lock_fd);
    AUTO(close) int fd = open(same, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail_os(e, errno, "open %s", path);
    return loop_attach(fd, path, ret_device, ret_fd, e);
}

// A pool outlives the name of its file until it is unmounted. A new one in its place would make it look as if nothing were missing.
static int check_not_moved(const struct pool *p, const char *path, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    if (access(path, F_OK) == 0)
        return 0;
    int rc = mountinfo_read_self(&m, e);
    const struct mountinfo_entry *there = rc == 0 ? mountinfo_at(&m, p->top) : NULL;
    return there ? fail(e, E_CONFLICT, "%s is gone, and what was in it is still mounted on %s (%s): move the file back, or, if it was deleted, copy "
                        "the data before that is unmounted", path, p->top, there->source) : rc;
}

static int attach_file(struct pool *p, const struct backend_config *config, struct error *e)
{
    char device[LOOP_PATH_SIZE];
    struct stat st;
    AUTO(close) int loop_fd = -1;
    int rc = check_not_moved(p, config->path, e);
    if (rc == 0)
        rc = open_or_make_file(config->path, config->file_size, &p->lock_fd, e);
    if (rc < 0)
        return rc;
    if (fstat(p->lock_fd, &st) < 0)
        return fail_os(e, errno, "look at %s", config->path);
    rc = loop_find(&st, device, e);
    if (rc == 0)
        rc = attach_loop(p, config->path, device, &loop_fd, e);
    if (rc < 0)
        return rc;
    FAILPOINT(POOL_ATTACHED);
    // discard: what is deleted in the pool becomes free on the host again.
    return mount_pool(p, device, "discard=async", e);
}

// ---- device ------------------------------------------------------------------------------------------------------------------

static int attach_device(struct pool *p, const struct backend_config *config, struct error *e)
{
    struct stat st;
    p->lock_fd = open(config->path, O_RDWR | O_CLOEXEC);
    if (p->lock_fd < 0 || fstat(p->lock_fd, &st) < 0)
        return fail_os(e, errno, "open pool device %s", config->path);
    if (!S_ISBLK(st.st_mode))
        return fail(e, E_INVALID, "%s is not a block device", config->path);
    int rc = lock_pool(config->path, p->lock_fd, e);
    if (rc == 0)
        rc = look_for_pool(config->path, p->lock_fd, e);
    if (rc < 0)
        return rc;
    if (rc == 0 && !config->may_format)
        return fail(e, E_NOT_FOUND, "%s holds no pool, and formatting it isn't allowed", config->path);
    if (rc == 0 && (rc = run_mkfs(config->path, e)) < 0)
        return rc;
    return mount_pool(p, config->path, NULL, e);
}

// ---- directory ---------------------------------------------------------------------------------------------------------------

static int attach_directory(struct pool *p, const struct backend_config *config, struct error *e)
{
    int rc = pool_make_directories(config->path, 0700, e);
    if (rc < 0)
        return rc;
    AUTO(close) int fd = open(p->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_os(e, errno, "open pool directory %s", p->top);
    if (!btrfs_is(fd))
        return fail(e, E_UNSUPPORTED, "%s is not on a btrfs file system", p->top);
    p->lock_fd = openat(fd, POOL_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (p->lock_fd < 0)
        return fail_os(e, errno, "open %s/" POOL_LOCK, p->top);
    return lock_pool(p->top, p->lock_fd, e);
}

// ---- all ---------------------------------------------------------------------------------------------------------------------

int pool_attach(struct pool *p, const struct backend_config *config, struct error *e)
{
    static int (*const attach[])(struct pool *p, const struct backend_config *config, struct error *e) = {
        [POOL_FILE] = attach_file,
        [POOL_DEVICE] = attach_device,
        [POOL_DIRECTORY] = attach_directory,
    };
    return attach[config->source](p, config, e);
}
