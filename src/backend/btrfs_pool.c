// The pool as a whole: open, close, shutdown, size; and what operations on volumes need of it.
#include "backend/btrfs_pool.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/size.h"
#include "sys/atomic_file.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"
#include "sys/lock.h"
#include "sys/loop.h"
#include "sys/mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define DETACH_WAIT_MS 3000 // the kernel lets go of a loop device a moment after the unmount

DEFINE_AUTO(DIR *, closedir)
DEFINE_AUTO(json_t *, json_decref)

static void pool_free(struct pool *p)
{
    auto_close(&p->lock_fd);
    free(p->path);
    free(p->top);
    free(p->mount_root);
    free(p);
}
DEFINE_AUTO(struct pool *, pool_free)

static void pool_close(struct backend *b)
{
    pool_free((struct pool *)b);
}

struct pool *pool_enter(struct backend *b)
{
    struct pool *p = (struct pool *)b;
    // A worker that outlives its agent (stuck in the kernel, say) must not keep the next agent from the pool.
    if (p->lock_fd >= 0 && p->opener != getpid())
        close(TAKE(p->lock_fd, -1));
    return p;
}

int pool_fail(const struct pool *p, int rc, const char *verb, const struct uuid *id, struct error *e)
{
    ASSERT(rc < 0);
    if (e->os_errno == EROFS)
        rc = fail(e, E_IO, "pool %s is read-only: it was mounted so, or its file system stopped after an error (see the kernel's log)", p->path);
    else if (e->os_errno == EIO || e->os_errno == ENOSPC || e->os_errno == EDQUOT)
        fail_ctx(e, rc, e->os_errno == EIO ? "pool %s has I/O errors" : "pool %s is full", p->path);
    return id ? fail_ctx(e, rc, "%s volume %s", verb, UUID_TEXT(id)) : fail_ctx(e, rc, "%s", verb);
}

// ---- directories and locks ---------------------------------------------------------------------------------------------------

void pool_dirs_done(struct pool_dirs *d)
{
    auto_close(&d->top);
    auto_close(&d->volumes);
    auto_close(&d->staging);
}

int pool_open_directory(int at, const char *name, int *ret, struct error *e)
{
    *ret = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret < 0 ? fail_os(e, errno, "open %s", name) : 0;
}

bool pool_has_entry(int dir_fd, const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int pool_open_dirs(const struct pool *p, struct pool_dirs *ret, struct error *e)
{
    static const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    d.top = open(p->top, flags);
    if (d.top >= 0)
        d.volumes = openat(d.top, POOL_VOLUMES, flags);
    if (d.volumes >= 0)
        d.staging = openat(d.top, POOL_STAGING, flags);
    if (d.staging < 0 && errno == ENOENT)
        return fail(e, E_UNAVAILABLE, "pool %s is not mounted on %s", p->path, p->top);
    if (d.staging < 0)
        return fail_os(e, errno, "open pool %s", p->path);
    *ret = TAKE(d, ((struct pool_dirs){ -1, -1, -1 }));
    return 0;
}

int pool_lock_volume(const struct pool *p, const struct uuid *id, int64_t wait_ms, int *ret_fd, struct error *e)
{
    uint64_t offset;
    memcpy(&offset, id->b, sizeof offset);
    offset = 1 + (offset >> 2); // positive as an off_t, and not the pool's own byte
    AUTO(free) char *path = xasprintf("%s/" POOL_LOCK, p->top);
    AUTO(close) int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    bool read_only = fd < 0 && errno == EROFS; // volumes of such a pool must still be unmounted by one at a time
    if (read_only)
        fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return fail(e, E_UNAVAILABLE, "pool %s is not mounted on %s", p->path, p->top);
    if (fd < 0)
        return fail_os(e, errno, "open %s", path);
    int rc = read_only ? lock_whole(fd, wait_ms, e) : lock_byte(fd, offset, wait_ms, e);
    if (rc == 1)
        *ret_fd = TAKE(fd, -1);
    else if (rc == 0 && wait_ms > 0)
        rc = fail(e, E_BUSY, "another operation on volume %s is still going on", UUID_TEXT(id));
    return rc;
}

// ---- mount tables ------------------------------------------------------------------------------------------------------------

void pool_place_done(struct pool_place *place)
{
    free(place->prefix);
}

int pool_find(const struct pool *p, const struct mountinfo *m, struct pool_place *ret, struct error *e)
{
    struct statx st;
    if (statx(AT_FDCWD, p->top, 0, STATX_MNT_ID, &st) < 0)
        return fail_os(e, errno, "look at pool %s", p->top);
    const struct mountinfo_entry *entry = mountinfo_by_id(m, (int)st.stx_mnt_id);
    if (!entry || !mountinfo_is_below(p->top, entry->mount_point))
        return fail(e, E_UNAVAILABLE, "the mount of pool %s isn't in the mount table", p->top);
    const char *above = strcmp(entry->root, "/") == 0 ? "" : entry->root;
    const char *below = strcmp(entry->mount_point, "/") == 0 ? p->top : p->top + strlen(entry->mount_point);
    *ret = (struct pool_place){ entry->major, entry->minor, xasprintf("%s%s", above, below) };
    return 0;
}

int pool_share_mount_root(const struct pool *p, struct error *e)
{
    // Twice at most: what isn't there in the first round is there in the second.
    for (int round = 0; round < 2; round++) {
        AUTO(mountinfo_done) struct mountinfo m = { 0 };
        int rc = mountinfo_read_self(&m, e);
        if (rc < 0)
            return rc;
        const struct mountinfo_entry *there = mountinfo_at(&m, p->mount_root);
        if (there && there->shared)
            return there->shared;
        rc = there ? mount_propagate(p->mount_root, MOUNT_SHARED, e) : mount_share(p->mount_root, e);
        if (rc < 0)
            return rc;
    }
    return fail(e, E_IO, "%s doesn't become a shared mount", p->mount_root);
}

int pool_users(const struct pool *p, const char *folder, struct users_entry *ret, size_t max, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    AUTO(pool_place_done) struct pool_place place = { 0 };
    int rc = mountinfo_read_self(&m, e);
    if (rc == 0)
        rc = pool_find(p, &m, &place, e);
    if (rc < 0)
        return rc;
    const struct mountinfo_entry *mount_root = mountinfo_at(&m, p->mount_root);
    AUTO(free) char *root = xasprintf("%s/%s", place.prefix, folder);
    struct users_query query = { place.major, place.minor, root, mount_root ? mount_root->shared : 0 };
    return users_scan(&query, ret, max, e);
}

// ---- open --------------------------------------------------------------------------------------------------------------------

static int check_pool_json(const char *text, size_t n, struct error *e)
{
    json_error_t why;
    AUTO(json_decref) json_t *object = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    const char *backend = json_string_value(json_object_get(object, "backend"));
    json_int_t format = json_integer_value(json_object_get(object, "format"));
    if (!backend || format < 1)
        return fail(e, E_CORRUPT, POOL_JSON " is damaged");
    if (strcmp(backend, backend_btrfs.name) != 0 || format > POOL_FORMAT)
        return fail(e, E_UNSUPPORTED, "the pool is of backend %s, format %d; this version of Flocker knows %s, format %d", backend, (int)format,
            backend_btrfs.name, POOL_FORMAT);
    return 0;
}

// Only what we put there before pool.json may be in a directory that becomes a pool.
static int check_empty(int top_fd, const char *top, struct error *e)
{
    AUTO(close) int fd = openat(top_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO(closedir) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return fail_os(e, errno, "read %s", top);
    TAKE(fd, -1);
    static const char *const ours[] = { ".", "..", POOL_LOCK, POOL_JSON ".tmp" };
    struct dirent *d;
    while ((d = readdir(dir))) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
            known |= strcmp(d->d_name, ours[i]) == 0;
        if (!known)
            return fail(e, E_CONFLICT, "%s is not a pool and not empty: it has \"%s\"; give an empty directory", top, d->d_name);
    }
    return 0;
}

static int make_pool_json(int top_fd, struct error *e)
{
    struct uuid id = rng_uuid();
    AUTO(free) char *text = xasprintf("{\"format\":%d,\"pool\":\"%s\",\"backend\":\"%s\"}\n", POOL_FORMAT, UUID_TEXT(&id), backend_btrfs.name);
    return atomic_file_write(top_fd, POOL_JSON, text, strlen(text), 0600, e);
}

static int make_layout(const struct pool *p, int top_fd, struct error *e)
{
    AUTO(free) char *text = NULL;
    size_t n;
    int rc = atomic_file_read(top_fd, POOL_JSON, RECORD_MAX, &text, &n, e);
    if (rc == 0)
        rc = check_pool_json(text, n, e);
    else if (rc == -E_NOT_FOUND && (rc = check_empty(top_fd, p->top, e)) == 0)
        rc = make_pool_json(top_fd, e);
    if (rc < 0)
        return rc;
    FAILPOINT(POOL_MARKED);
    static const char *const directories[] = { POOL_VOLUMES, POOL_STAGING, POOL_INCOMING };
    for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
        if (mkdirat(top_fd, directories[i], 0700) < 0 && errno != EEXIST && errno != EROFS) // a pool of a former version has no incoming
            return fail_os(e, errno, "make directory %s", directories[i]);
    AUTO(close) int lock = openat(top_fd, POOL_LOCK, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return lock < 0 ? fail_os(e, errno, "make file " POOL_LOCK) : 0;
}

// Simple quotas mark a file system for ever as one that kernels before 6.7 don't mount: not for us to do to a user's own.
static bool wants_classic_quotas(const struct backend_config *config)
{
    return config->use_qgroups || config->source == POOL_DIRECTORY || !btrfs_has_simple_quotas();
}

static int prepare(const struct pool *p, const struct backend_config *config, struct error *e)
{
    AUTO(close) int top = open(p->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return fail_os(e, errno, "open pool %s", p->top);
    int rc = make_layout(p, top, e);
    FAILPOINT(POOL_LAID_OUT);
    if (rc == 0)
        rc = btrfs_quota_enable(top, wants_classic_quotas(config), e);
    FAILPOINT(POOL_QUOTAS_ON);
    if (rc == 0 && !btrfs_quota_is_simple(top))
        log_warn("pool %s has classic qgroups: subvolumes that a container makes inside a volume are outside of the volume's size limit",
            p->path);
    return rc < 0 ? rc : pool_share_mount_root(p, e);
}

// Makes the directory and returns its path without symbolic links, as it stands in mount tables.
static int real_directory(const char *path, char **ret, struct error *e)
{
    int rc = pool_make_directories(path, 0700, e);
    if (rc < 0)
        return rc;
    struct stat st;
    if (stat(path, &st) < 0 || !(*ret = realpath(path, NULL)))
        return fail_os(e, errno, "find %s", path);
    return S_ISDIR(st.st_mode) ? 0 : fail(e, E_CONFLICT, "%s is not a directory", path);
}

// A directory that isn't a pool yet and holds something is refused before anything is made in it.
static int check_directory(const struct pool *p, struct error *e)
{
    AUTO(close) int top = open(p->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return fail_os(e, errno, "open pool %s", p->top);
    return faccessat(top, POOL_JSON, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : check_empty(top, p->top, e);
}

// We make it 0700. One that was there may be open to others for a reason: it is left as it is.
static void warn_of_open_mount_root(const struct pool *p)
{
    struct stat st;
    if (stat(p->mount_root, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)))
        log_warn("%s has mode %04o: other users of this host reach the files of mounted volumes as far as those allow it; `chmod 0700 %s` ends that",
            p->mount_root, st.st_mode & 07777, p->mount_root);
}

static int pool_open(const struct backend_config *config, struct backend **ret, struct error *e)
{
    AUTO(pool_free) struct pool *p = xcalloc(1, sizeof *p);
    *p = (struct pool){ .base.ops = &backend_btrfs, .source = config->source, .lock_fd = -1, .opener = getpid() };
    p->path = xstrdup(config->path);
    bool is_directory = config->source == POOL_DIRECTORY;
    const char *top = is_directory ? config->path : config->pool_dir;
    if (config->path[0] != '/' || top[0] != '/' || config->mount_root[0] != '/')
        return fail(e, E_INVALID, "paths of a pool must be absolute");
    int rc = real_directory(top, &p->top, e);
    if (rc == 0)
        rc = real_directory(config->mount_root, &p->mount_root, e);
    if (rc == 0 && is_directory)
        rc = check_directory(p, e);
    if (rc == 0)
        rc = pool_attach(p, config, e);
    if (rc == 0)
        rc = prepare(p, config, e);
    if (rc < 0)
        return e->os_errno ? fail_ctx(e, rc, "open pool %s", p->path) : rc;
    if (!config->is_swept) {
        warn_of_open_mount_root(p);
        pool_volume_sweep_staging(p);
        pool_sweep_incoming(p);
        pool_volume_gather_limits(p);
        pool_volume_sweep_mount_points(p);
    }
    *ret = &TAKE(p, NULL)->base;
    return 0;
}

// ---- shutdown ----------------------------------------------------------------------------------------------------------------

// A mount of a directory on itself is ours; a file system of its own on mount_root is not.
static bool is_on_itself(const struct mountinfo *m, const struct mountinfo_entry *entry)
{
    const struct mountinfo_entry *parent = mountinfo_by_id(m, entry->parent);
    size_t root = strlen(entry->root), point = strlen(entry->mount_point);
    return parent && parent->major == entry->major && parent->minor == entry->minor && root > 1 &&
           (root <= point ? strcmp(entry->root, entry->mount_point + point - root) == 0 : mountinfo_is_below(entry->root, parent->root));
}

static void unshare_mount_root(const struct pool *p)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    struct error ignored;
    if (mountinfo_read_self(&m, &ignored) < 0)
        return;
    const struct mountinfo_entry *entry = mountinfo_at(&m, p->mount_root);
    if (entry && is_on_itself(&m, entry))
        mount_unmount(p->mount_root, &ignored); // holds nothing; if it stays, no harm
}

static int wait_for_detach(const struct pool *p, struct error *e)
{
    struct stat st;
    char device[LOOP_PATH_SIZE];
    if (stat(p->path, &st) < 0)
        return fail_os(e, errno, "look at %s", p->path);
    for (int64_t end = clock_boot_ms() + DETACH_WAIT_MS;;) {
        int rc = loop_find(&st, device, e);
        if (rc <= 0)
            return rc;
        if (clock_boot_ms() >= end)
            return fail(e, E_TIMEOUT, "pool %s is unmounted here, but %s is still in use: another mount namespace, such as a container's, has it "
                        "mounted, and writes to %s go on until that ends", p->path, device, p->path);
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
}

static int pool_shutdown(struct backend *b, struct error *e)
{
    struct pool *p = pool_enter(b);
    int rc = pool_volume_unmount_all(p, e);
    if (rc < 0)
        return rc;
    FAILPOINT(SHUTDOWN_VOLUMES);
    unshare_mount_root(p);
    if (p->source == POOL_DIRECTORY)
        return 0;
    rc = mount_unmount(p->top, e);
    if (rc < 0)
        return fail_ctx(e, rc, "shut down pool %s", p->path);
    FAILPOINT(SHUTDOWN_POOL);
    return p->source == POOL_FILE ? wait_for_detach(p, e) : 0;
}

// ---- size --------------------------------------------------------------------------------------------------------------------

// What a sparse file promises, and what its disk can keep of that.
static int measure_file(const struct pool *p, struct backend_usage *ret, struct error *e)
{
    struct stat st;
    struct statvfs below;
    if (stat(p->path, &st) < 0 || statvfs(p->path, &below) < 0)
        return fail_os(e, errno, "look at pool file %s", p->path);
    uint64_t has = (uint64_t)st.st_blocks * 512, size = (uint64_t)st.st_size;
    ret->is_file = true;
    ret->may_grow_bytes = size > has ? size - has : 0;
    ret->disk_free_bytes = (uint64_t)below.f_bavail * below.f_frsize;
    uint64_t lacking = ret->may_grow_bytes > ret->disk_free_bytes ? ret->may_grow_bytes - ret->disk_free_bytes : 0;
    ret->free_bytes = ret->free_bytes > lacking ? ret->free_bytes - lacking : 0;
    return 0;
}

static int pool_usage(struct backend *b, struct backend_usage *ret, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    struct statvfs st;
    int rc = pool_open_dirs(p, &d, e);
    if (rc < 0)
        return rc;
    if (fstatvfs(d.top, &st) < 0)
        return fail_os(e, errno, "ask for the usage of pool %s", p->path);
    uint64_t unit = st.f_frsize;
    *ret = (struct backend_usage){
        .used_bytes = (st.f_blocks - st.f_bfree) * unit,
        .limit_bytes = st.f_blocks * unit,
        .free_bytes = st.f_bavail * unit,
        .is_read_only = st.f_flag & ST_RDONLY,
    };
    return p->source == POOL_FILE ? measure_file(p, ret, e) : 0;
}

static int grow_file(const struct pool *p, uint64_t size, struct error *e)
{
    struct stat st;
    char device[LOOP_PATH_SIZE];
    AUTO(close) int fd = open(p->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_os(e, errno, "open %s", p->path);
    char has[SIZE_TEXT_SIZE], want[SIZE_TEXT_SIZE];
    if (size < (uint64_t)st.st_size)
        return fail(e, E_CONFLICT, "pool %s has %s already, more than %s; pools don't shrink", p->path, size_format((uint64_t)st.st_size, has),
            size_format(size, want));
    if (ftruncate(fd, (off_t)size) < 0 || fsync(fd) < 0)
        return fail_os(e, errno, "enlarge %s", p->path);
    int rc = loop_find(&st, device, e);
    if (rc == 0)
        return fail(e, E_UNAVAILABLE, "pool %s has no loop device", p->path);
    return rc < 0 ? rc : loop_set_capacity(device, e);
}

static int check_device_size(const struct pool *p, uint64_t size, struct error *e)
{
    uint64_t has = 0;
    char has_text[SIZE_TEXT_SIZE], want[SIZE_TEXT_SIZE];
    AUTO(close) int fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &has) < 0)
        return fail_os(e, errno, "ask for the size of %s", p->path);
    if (size > has)
        return fail(e, E_CONFLICT, "device %s has only %s, less than %s: enlarge it first", p->path, size_format(has, has_text),
            size_format(size, want));
    return 0;
}

static int pool_grow(struct backend *b, uint64_t size, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    struct backend_usage now;
    int rc = pool_open_dirs(p, &d, e);
    if (rc < 0)
        return rc;
    if (p->source == POOL_DIRECTORY)
        return fail(e, E_UNSUPPORTED, "pool %s is a directory: enlarge the file system that it is on", p->path);
    size &= ~4095ULL; // the unit of btrfs
    rc = pool_usage(b, &now, e);
    if (rc < 0)
        return rc;
    char has[SIZE_TEXT_SIZE], want[SIZE_TEXT_SIZE];
    if (size < now.limit_bytes)
        return fail(e, E_CONFLICT, "pool %s has %s already, more than %s; pools don't shrink", p->path, size_format(now.limit_bytes, has),
            size_format(size, want));
    rc = p->source == POOL_FILE ? grow_file(p, size, e) : check_device_size(p, size, e);
    if (rc == 0 && size > now.limit_bytes)
        rc = btrfs_resize(d.top, p->source == POOL_FILE ? 0 : size, e);
    return rc < 0 ? pool_fail(p, rc, "enlarge pool", NULL, e) : 0;
}

const struct backend_ops backend_btrfs = {
    .name = "btrfs",
    .open = pool_open,
    .close = pool_close,
    .shutdown = pool_shutdown,
    .observe = pool_volume_observe,
    .create = pool_volume_create,
    .destroy = pool_volume_destroy,
    .update = pool_volume_update,
    .mount = pool_volume_mount,
    .has_lost_mount = pool_volume_has_lost_mount,
    .unmount = pool_volume_unmount,
    .users = pool_volume_users,
    .usage = pool_volume_usage,
    .pool_usage = pool_usage,
    .grow = pool_grow,
    .snapshot = pool_snapshot,
    .snapshots = pool_snapshots,
    .snapshots_drop = pool_snapshots_drop,
    .note_digest = pool_note_digest,
    .read_digest = pool_read_digest,
    .send = pool_send,
    .copies = pool_copies,
    .receive_begin = pool_receive_begin,
    .receive_feed = pool_receive_feed,
    .receive_checkpoint = pool_receive_checkpoint,
    .receive_finish = pool_receive_finish,
    .receive_free = pool_receive_free,
    .place = pool_place,
    .discard = pool_discard,
};
