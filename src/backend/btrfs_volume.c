// Volumes on disk: made and destroyed in one step, their records, their limits.
//
// What crash safety rests on. btrfs commits all changes of the tree of files, subvolumes and limits in transactions: after a power loss
// the state is that of the last commit plus what was fsynced since. A new subvolume is not covered by fsync: measured, a record that was
// fsynced and a rename whose directory was fsynced came back without the subvolume beside it. So each create and destroy does all its
// changes and then commits once (about 1 ms on an idle virtual disk), and nothing ever fsyncs `volumes` in between: a crash shows
// either all of it or none. The record's own bytes are data: a small record's btrfs keeps among the metadata once they are written out,
// so that the commit covers them; a larger one is fsynced before.
#include "backend/btrfs_pool.h"

#include "base/failpoint.h"
#include "base/size.h"
#include "sys/atomic_file.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

DEFINE_AUTO(DIR *, closedir)
DEFINE_AUTO(json_t *, json_decref)

static const int dir_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// ---- records -----------------------------------------------------------------------------------------------------------------

static char *record_text(const struct volume *v)
{
    AUTO(json_decref) json_t *object = volume_to_json(v);
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    ASSERT(text);
    return text;
}

static int parse_record(const char *text, size_t n, const struct uuid *id, struct volume **ret, struct error *e)
{
    json_error_t why;
    AUTO(json_decref) json_t *object = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    AUTO(volume_free) struct volume *v = NULL;
    if (!object)
        return fail(e, E_CORRUPT, "its record is damaged: line %d: %s", why.line, why.text);
    if (volume_from_json(object, &v, e) < 0) {
        fail_ctx(e, -(int)e->code, "its record is damaged");
        e->code = E_CORRUPT;
        return -E_CORRUPT;
    }
    if (!uuid_equal(&v->id, id))
        return fail(e, E_CORRUPT, "its record is that of volume %s", UUID_TEXT(&v->id));
    *ret = TAKE(v, NULL);
    return 0;
}

static int read_record_in(int volume_fd, const struct uuid *id, struct volume **ret, struct error *e)
{
    AUTO(free) char *text = NULL;
    size_t n;
    int rc = atomic_file_read(volume_fd, VOLUME_RECORD, RECORD_MAX, &text, &n, e);
    if (rc == -E_NOT_FOUND)
        return fail(e, E_CORRUPT, "its record is missing");
    return rc < 0 ? rc : parse_record(text, n, id, ret, e);
}

static int read_record(int volumes_fd, const struct uuid *id, struct volume **ret, struct error *e)
{
    AUTO(close) int fd = -1;
    int rc = pool_open_directory(volumes_fd, UUID_TEXT(id), &fd, e);
    return rc < 0 ? rc : read_record_in(fd, id, ret, e);
}

int pool_volume_read_record(const struct pool_dirs *d, const struct uuid *id, struct volume **ret, struct error *e)
{
    return read_record(d->volumes, id, ret, e);
}

const char *pool_volume_name(const struct pool *p, const struct uuid *id, char *ret, size_t size)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(volume_free) struct volume *v = NULL;
    struct error ignored;
    if (pool_open_dirs(p, &d, &ignored) == 0)
        read_record(d.volumes, id, &v, &ignored);
    snprintf(ret, size, "%s", v && v->name ? v->name : UUID_TEXT(id));
    return ret;
}

// ---- staging -----------------------------------------------------------------------------------------------------------------

static void drop_group(int volume_fd)
{
    AUTO(close) int data = -1;
    uint64_t id;
    struct error ignored;
    if (pool_open_directory(volume_fd, VOLUME_DATA, &data, &ignored) == 0 && btrfs_subvolume_id(data, &id, &ignored) == 0)
        btrfs_quota_drop(volume_fd, id);
}

// Removes staging/<name> and all that we ever put into such a folder. 0 if it isn't there.
static int clear_staged(int staging_fd, const char *name, struct error *e)
{
    AUTO(close) int fd = openat(staging_fd, name, dir_flags);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail_os(e, errno, "open " POOL_STAGING "/%s", name);
    int rc = pool_drop_outgoing(fd, UINT64_MAX, e);
    if (rc < 0)
        return rc;
    if (pool_has_entry(fd, VOLUME_DATA)) {
        drop_group(fd);
        rc = btrfs_subvolume_delete(fd, VOLUME_DATA, e);
        if (rc < 0)
            return rc;
        FAILPOINT(DESTROY_DATA_DELETED);
    }
    static const char *const files[] = { VOLUME_RECORD, VOLUME_RECORD ".tmp" };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (unlinkat(fd, files[i], 0) < 0 && errno != ENOENT)
            return fail_os(e, errno, "remove %s", files[i]);
    if (unlinkat(staging_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return fail_os(e, errno, "remove " POOL_STAGING "/%s", name);
    return 0;
}

static void sweep_one(const struct pool *p, int staging_fd, const char *name)
{
    AUTO(close) int lock = -1;
    struct uuid id;
    struct error ignored;
    // A worker that outlived the last agent may be at it: then it is its job to finish or clean up, or the next open's.
    if (uuid_parse(name, &id) && pool_lock_volume(p, &id, 0, &lock, &ignored) == 1)
        clear_staged(staging_fd, name, &ignored);
}

// Best effort: what can't be removed now (the pool may be full or read-only) harms nobody.
void pool_volume_sweep_staging(const struct pool *p)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    struct error ignored;
    if (pool_open_dirs(p, &d, &ignored) < 0)
        return;
    AUTO(close) int fd = openat(d.staging, ".", dir_flags);
    AUTO(closedir) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return;
    TAKE(fd, -1);
    struct dirent *entry;
    while ((entry = readdir(dir)))
        sweep_one(p, d.staging, entry->d_name);
}

// ---- create and destroy ------------------------------------------------------------------------------------------------------

int pool_volume_set_options(int data_fd, const struct volume_options *o, struct error *e)
{
    // Owner first: chown clears set-id bits.
    if (fchown(data_fd, o->uid, o->gid) < 0 || fchmod(data_fd, o->mode) < 0)
        return fail_os(e, errno, "set owner and mode");
    int flags;
    if (o->nocow && (ioctl(data_fd, FS_IOC_GETFLAGS, &flags) < 0 || (flags |= FS_NOCOW_FL, ioctl(data_fd, FS_IOC_SETFLAGS, &flags) < 0)))
        return fail_os(e, errno, "turn off copy-on-write");
    return 0;
}

static int make_data(int volume_fd, const struct volume *v, void *arg, struct error *e)
{
    (void)arg;
    AUTO(close) int fd = -1;
    uint64_t id = 0;
    int rc = FAILPOINT_ERROR(CREATE_STAGED, e);
    if (rc == 0)
        rc = btrfs_subvolume_create(volume_fd, VOLUME_DATA, e);
    FAILPOINT(CREATE_DATA_MADE);
    if (rc == 0)
        rc = pool_open_directory(volume_fd, VOLUME_DATA, &fd, e);
    if (rc == 0)
        rc = pool_volume_set_options(fd, &v->options, e);
    if (rc == 0)
        rc = btrfs_subvolume_id(fd, &id, e);
    if (rc == 0)
        rc = btrfs_quota_gather(volume_fd, id, e);
    return rc < 0 || v->size == 0 ? rc : btrfs_quota_limit(volume_fd, id, v->size, e);
}

typedef int (*data_maker)(int volume_fd, const struct volume *v, void *arg, struct error *e);

static int build(int staging_fd, const char *name, const struct volume *v, data_maker make, void *arg, struct error *e)
{
    AUTO(close) int fd = -1;
    AUTO(free) char *text = record_text(v);
    if (mkdirat(staging_fd, name, 0700) < 0)
        return fail_os(e, errno, "make " POOL_STAGING "/%s", name);
    int rc = pool_open_directory(staging_fd, name, &fd, e);
    if (rc == 0)
        rc = make(fd, v, arg, e);
    FAILPOINT(CREATE_LIMITED);
    return rc < 0 ? rc : atomic_file_create_by(btrfs_fsync_or_inline, fd, VOLUME_RECORD, text, strlen(text), 0600, e);
}

int pool_volume_build(const struct pool_dirs *d, const struct volume *v, data_maker make, void *arg, struct error *e)
{
    char name[UUID_TEXT_SIZE];
    int rc = clear_staged(d->staging, uuid_format(&v->id, name), e);
    if (rc < 0)
        return rc;
    rc = build(d->staging, name, v, make, arg, e);
    FAILPOINT(CREATE_RECORDED);
    if (rc == 0 && renameat(d->staging, name, d->volumes, name) < 0)
        rc = fail_os(e, errno, "rename " POOL_STAGING "/%s", name);
    FAILPOINT(CREATE_PLACED);
    if (rc == 0)
        return btrfs_commit(d->top, e);
    struct error ignored;
    clear_staged(d->staging, name, &ignored);
    return rc;
}

static int create_in(const struct pool_dirs *d, const struct volume *v, struct error *e)
{
    // There already: by us before we were killed, perhaps, so that the commit may still be due.
    if (pool_has_entry(d->volumes, UUID_TEXT(&v->id))) {
        int rc = btrfs_commit(d->top, e);
        return rc < 0 ? rc : 1;
    }
    return pool_volume_build(d, v, make_data, NULL, e);
}

int pool_volume_create(struct backend *b, const struct volume *v, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, &v->id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = create_in(&d, v, e);
    return rc < 0 ? pool_fail(p, rc, "create", &v->id, e) : rc;
}

static int destroy_in(const struct pool *p, const struct pool_dirs *d, const struct uuid *id, struct error *e)
{
    char name[UUID_TEXT_SIZE];
    uuid_format(id, name);
    bool was_there = pool_has_entry(d->staging, name) || pool_has_entry(d->volumes, name);
    int rc = clear_staged(d->staging, name, e);
    if (rc == 0 && pool_has_entry(d->volumes, name)) {
        rc = pool_volume_check_unused(p, id, e);
        if (rc == 0 && renameat(d->volumes, name, d->staging, name) < 0)
            rc = fail_os(e, errno, "rename " POOL_VOLUMES "/%s", name);
        FAILPOINT(DESTROY_STAGED);
        if (rc == 0)
            rc = clear_staged(d->staging, name, e);
        FAILPOINT(DESTROY_CLEARED);
    }
    if (rc == 0)
        rc = btrfs_commit(d->top, e);
    btrfs_free_deleted(d->top);
    return was_there || e->os_errno != EROFS ? rc : 0; // of what could not be made in a read-only pool nothing has to become durable
}

int pool_volume_destroy(struct backend *b, const struct uuid *id, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = destroy_in(p, &d, id, e);
    return rc < 0 ? pool_fail(p, rc, "destroy", id, e) : 0;
}

// ---- usage and update --------------------------------------------------------------------------------------------------------

struct limits {
    uint64_t subvolume, used, limit;
};

static int read_limits(int top_fd, int data_fd, struct limits *ret, struct error *e)
{
    struct error ignored;
    int rc = btrfs_subvolume_is(data_fd) ? 0 : fail(e, E_CORRUPT, "its data is not a subvolume");
    if (rc == 0)
        rc = btrfs_subvolume_id(data_fd, &ret->subvolume, e);
    if (rc < 0)
        return rc;
    btrfs_quota_gather(top_fd, ret->subvolume, &ignored); // the pool may be read-only or full, and can be read all the same
    return btrfs_quota_usage(top_fd, ret->subvolume, &ret->used, &ret->limit, e);
}

// Sets the limit if it isn't in force. What is in memory counts once it is written, hence the sync before a size is lowered.
static int apply_size(int top_fd, int data_fd, const struct volume *v, bool *ret_changed, struct error *e)
{
    struct limits now;
    int rc = read_limits(top_fd, data_fd, &now, e);
    *ret_changed = false;
    if (rc < 0 || now.limit == v->size)
        return rc;
    if (v->size != 0 && (now.limit == 0 || v->size < now.limit)) {
        rc = btrfs_sync(data_fd, e);
        if (rc == 0)
            rc = read_limits(top_fd, data_fd, &now, e);
        char used[SIZE_TEXT_SIZE], want[SIZE_TEXT_SIZE];
        if (rc == 0 && now.used > v->size)
            return fail(e, E_CONFLICT, "it uses %s, more than the new size of %s", size_format(now.used, used), size_format(v->size, want));
    }
    *ret_changed = true;
    if (rc == 0)
        rc = btrfs_quota_gather(top_fd, now.subvolume, e);
    return rc < 0 ? rc : btrfs_quota_limit(top_fd, now.subvolume, v->size, e);
}

static int update_in(const struct pool_dirs *d, const struct volume *v, struct error *e)
{
    AUTO(close) int fd = -1;
    AUTO(close) int data = -1;
    bool changed = false;
    char name[UUID_TEXT_SIZE];
    int rc = pool_open_directory(d->volumes, uuid_format(&v->id, name), &fd, e);
    if (rc == -E_NOT_FOUND)
        return fail(e, E_NOT_FOUND, "there is no such volume in this pool");
    if (rc == 0)
        rc = pool_open_directory(fd, VOLUME_DATA, &data, e);
    if (rc == 0)
        rc = apply_size(d->top, data, v, &changed, e);
    if (rc < 0)
        return rc;
    FAILPOINT(UPDATE_LIMITED);
    AUTO(free) char *text = record_text(v);
    rc = atomic_file_write(fd, VOLUME_RECORD, text, strlen(text), 0600, e);
    FAILPOINT(UPDATE_RECORDED);
    return rc == 0 && changed ? btrfs_commit(d->top, e) : rc;
}

int pool_volume_update(struct backend *b, const struct volume *v, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, &v->id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = update_in(&d, v, e);
    return rc < 0 ? pool_fail(p, rc, "update", &v->id, e) : 0;
}

int pool_volume_usage(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int data = -1;
    struct limits now;
    char path[UUID_TEXT_SIZE + sizeof "/" VOLUME_DATA];
    snprintf(path, sizeof path, "%s/" VOLUME_DATA, UUID_TEXT(id));
    int rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = pool_open_directory(d.volumes, path, &data, e);
    if (rc == 0)
        rc = read_limits(d.top, data, &now, e);
    if (rc < 0)
        return pool_fail(p, rc, "read the usage of", id, e);
    *ret = (struct backend_usage){ .used_bytes = now.used, .limit_bytes = now.limit };
    return 0;
}

static void gather_one(int volumes_fd, const char *name)
{
    AUTO(close) int data = -1;
    uint64_t id;
    struct error ignored;
    AUTO(free) char *path = xasprintf("%s/" VOLUME_DATA, name);
    if (pool_open_directory(volumes_fd, path, &data, &ignored) == 0 && btrfs_subvolume_is(data) && btrfs_subvolume_id(data, &id, &ignored) == 0)
        btrfs_quota_gather(volumes_fd, id, &ignored);
}

void pool_volume_gather_limits(const struct pool *p)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    struct error ignored;
    if (pool_open_dirs(p, &d, &ignored) < 0)
        return;
    AUTO(close) int fd = openat(d.volumes, ".", dir_flags);
    AUTO(closedir) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return;
    TAKE(fd, -1);
    struct dirent *entry;
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            gather_one(d.volumes, entry->d_name);
    // On a file system of its own, groups of any subvolume that is gone are the pool's.
    btrfs_quota_sweep(d.top, p->source != POOL_DIRECTORY);
}

// ---- observe -----------------------------------------------------------------------------------------------------------------

struct observation {
    const struct pool *pool;
    int volumes_fd;
    struct mountinfo mounts;
    struct pool_place place;
    struct uuid *mounted; // sorted ids that something is mounted for
    size_t n_mounted;
};

static void auto_observation_done(struct observation *o)
{
    mountinfo_done(&o->mounts);
    pool_place_done(&o->place);
    free(o->mounted);
}

static int compare_ids(const void *a, const void *b)
{
    return uuid_compare(a, b);
}

// So that a thousand volumes don't each search a table of thousands of mounts.
static void list_mounted(struct observation *o)
{
    size_t below = strlen(o->pool->mount_root);
    o->mounted = xcalloc(o->mounts.n, sizeof o->mounted[0]);
    for (size_t i = 0; i < o->mounts.n; i++) {
        const char *point = o->mounts.entries[i].mount_point;
        if (strncmp(point, o->pool->mount_root, below) == 0 && point[below] == '/' && uuid_parse(point + below + 1, &o->mounted[o->n_mounted]))
            o->n_mounted++;
    }
    qsort(o->mounted, o->n_mounted, sizeof o->mounted[0], compare_ids);
}

static int observe_one(const struct observation *o, const char *name, struct backend_volume *ret, struct error *e)
{
    AUTO(close) int fd = -1;
    AUTO(close) int data = -1;
    AUTO(volume_free) struct volume *record = NULL;
    struct uuid id;
    if (!uuid_parse(name, &id) || strcmp(name, UUID_TEXT(&id)) != 0)
        return fail(e, E_CORRUPT, "\"%s\" in the pool's folder of volumes is not a volume", name);
    int rc = pool_open_directory(o->volumes_fd, name, &fd, e);
    if (rc == 0)
        rc = read_record_in(fd, &id, &record, e);
    if (rc < 0)
        return rc;
    rc = pool_open_directory(fd, VOLUME_DATA, &data, e);
    if (rc == -E_NOT_FOUND)
        return fail(e, E_CORRUPT, "its data is missing");
    if (rc == 0 && !btrfs_subvolume_is(data))
        return fail(e, E_CORRUPT, "its data is not a subvolume");
    if (rc == 0 && bsearch(&id, o->mounted, o->n_mounted, sizeof id, compare_ids))
        rc = pool_volume_is_mounted(o->pool, &o->mounts, &o->place, &id, e);
    bool mounted = rc == 1;
    uint64_t snapshot = 0;
    if (rc < 0 || (rc = pool_newest_outgoing(fd, &snapshot, e)) < 0)
        return rc;
    *ret = (struct backend_volume){ .record = TAKE(record, NULL), .mounted = mounted, .snapshot = snapshot };
    return 0;
}

int pool_volume_observe(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                        void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(observation_done) struct observation o = { .pool = p };
    int rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = mountinfo_read_self(&o.mounts, e);
    if (rc == 0)
        rc = pool_find(p, &o.mounts, &o.place, e);
    if (rc < 0)
        return rc;
    o.volumes_fd = d.volumes;
    list_mounted(&o);
    AUTO(close) int fd = openat(d.volumes, ".", dir_flags);
    AUTO(closedir) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return fail_os(e, errno, "read the volumes of pool %s", p->path);
    TAKE(fd, -1);
    struct dirent *entry;
    for (errno = 0; (entry = readdir(dir)); errno = 0) {
        struct backend_volume v;
        struct error why = ERROR_INIT;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (observe_one(&o, entry->d_name, &v, &why) == 0)
            on_volume(arg, &v);
        else if (why.code != E_NOT_FOUND) // destroyed while we look
            on_damaged(arg, entry->d_name, &why);
    }
    return errno ? fail_os(e, errno, "read the volumes of pool %s", p->path) : 0;
}
