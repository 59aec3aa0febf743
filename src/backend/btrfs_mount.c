// Volumes at their mount points, and who uses them.
#include "backend/btrfs_pool.h"

#include "base/failpoint.h"
#include "base/limits.h"
#include "sys/btrfs.h"
#include "sys/mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

DEFINE_AUTO(DIR *, closedir)

// Of a volume's data below the pool's top directory.
#define FOLDER_SIZE (sizeof POOL_VOLUMES "/" + UUID_TEXT_SIZE + sizeof "/" VOLUME_DATA)

static const char *folder_of(const struct uuid *id, char ret[FOLDER_SIZE])
{
    snprintf(ret, FOLDER_SIZE, POOL_VOLUMES "/%s/" VOLUME_DATA, UUID_TEXT(id));
    return ret;
}
#define FOLDER(id) folder_of((id), (char[FOLDER_SIZE]){ 0 })

static int fail_in_use(const struct pool *p, const struct uuid *id, const struct users_entry *user, struct error *e)
{
    char name[NAME_BYTES_MAX + 1], text[USERS_TEXT_SIZE];
    return fail(e, E_BUSY, "volume %s is in use by %s", pool_volume_name(p, id, name, sizeof name), users_text(user, text));
}

int pool_volume_is_mounted(const struct pool *p, const struct mountinfo *m, const struct pool_place *place, const struct uuid *id,
                           struct error *e)
{
    char point[PATH_MAX];
    const struct mountinfo_entry *there = mountinfo_at(m, backend_mount_point(p->mount_root, id, point));
    if (!there)
        return 0;
    AUTO(free) char *root = xasprintf("%s/%s", place->prefix, FOLDER(id));
    if (there->major == place->major && there->minor == place->minor && strcmp(there->root, root) == 0)
        return 1;
    return fail(e, E_CONFLICT, "%s of %s is mounted on %s, where the volume belongs", there->root, there->source, point);
}

static int is_mounted_now(const struct pool *p, const struct uuid *id, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    AUTO(pool_place_done) struct pool_place place = { 0 };
    int rc = mountinfo_read_self(&m, e);
    if (rc == 0)
        rc = pool_find(p, &m, &place, e);
    return rc < 0 ? rc : pool_volume_is_mounted(p, &m, &place, id, e);
}

static int check_no_users(const struct pool *p, const struct uuid *id, struct error *e)
{
    struct users_entry user;
    int rc = pool_users(p, FOLDER(id), &user, 1, e);
    return rc > 0 ? fail_in_use(p, id, &user, e) : rc;
}

int pool_volume_check_unused(const struct pool *p, const struct uuid *id, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    AUTO(pool_place_done) struct pool_place place = { 0 };
    int rc = mountinfo_read_self(&m, e);
    if (rc == 0)
        rc = pool_find(p, &m, &place, e);
    if (rc < 0)
        return rc;
    // The kernel would delete a subvolume under a mount of it.
    AUTO(free) char *root = xasprintf("%s/%s", place.prefix, FOLDER(id));
    for (size_t i = 0; i < m.n; i++)
        if (m.entries[i].major == place.major && m.entries[i].minor == place.minor && mountinfo_is_below(m.entries[i].root, root)) {
            char name[NAME_BYTES_MAX + 1];
            return fail(e, E_BUSY, "volume %s is mounted on %s", pool_volume_name(p, id, name, sizeof name), m.entries[i].mount_point);
        }
    return check_no_users(p, id, e);
}

static int mount_locked(const struct pool *p, const struct uuid *id, struct error *e)
{
    AUTO(free) char *source = xasprintf("%s/%s", p->top, FOLDER(id));
    AUTO(close) int fd = open(source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return fail(e, E_NOT_FOUND, "there is no such volume in this pool");
    if (fd < 0)
        return fail_os(e, errno, "open %s", source);
    if (!btrfs_subvolume_is(fd))
        return fail(e, E_CORRUPT, "its data is not a subvolume");
    int rc = pool_share_mount_root(p, e);
    if (rc >= 0)
        rc = is_mounted_now(p, id, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    char point[PATH_MAX];
    backend_mount_point(p->mount_root, id, point);
    if (mkdir(point, 0700) < 0 && errno != EEXIST)
        return fail_os(e, errno, "make directory %s", point);
    FAILPOINT(MOUNT_POINT_MADE);
    rc = mount_bind(source, point, e);
    FAILPOINT(MOUNT_DONE);
    return rc;
}

int pool_volume_mount(struct backend *b, const struct uuid *id, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = mount_locked(p, id, e);
    return rc < 0 ? pool_fail(p, rc, "mount", id, e) : 0;
}

bool pool_volume_has_lost_mount(struct backend *b, const struct uuid *id)
{
    const struct pool *p = pool_enter(b);
    char point[PATH_MAX];
    return mount_is_missing(backend_mount_point(p->mount_root, id, point));
}

static int fail_busy(const struct pool *p, const struct uuid *id, const char *point, struct error *e)
{
    struct users_entry user;
    char name[NAME_BYTES_MAX + 1];
    if (users_of_path(point, &user))
        return fail_in_use(p, id, &user, e);
    return fail(e, E_BUSY, "volume %s is in use: something has files open below %s, or has mounted something there",
        pool_volume_name(p, id, name, sizeof name), point);
}

static int unmount_locked(const struct pool *p, const struct uuid *id, struct error *e)
{
    char point[PATH_MAX];
    backend_mount_point(p->mount_root, id, point);
    // Users elsewhere are asked for first, mounted here or not: whoever unmounts wants to hear that nobody writes any more.
    int rc = check_no_users(p, id, e);
    if (rc == 0)
        rc = is_mounted_now(p, id, e);
    if (rc < 0)
        return rc;
    FAILPOINT(UNMOUNT_CHECKED);
    if (rc == 1) {
        rc = mount_unmount(point, e);
        FAILPOINT(UNMOUNT_DONE);
        if (rc == -E_BUSY)
            return fail_busy(p, id, point, e);
        if (rc < 0)
            return rc;
        // A container that started between question and unmount has its own copy by now. Later ones can't make one.
        rc = check_no_users(p, id, e);
        if (rc < 0) {
            struct error ignored;
            mount_locked(p, id, &ignored);
            return rc;
        }
    }
    rmdir(point); // only for tidiness: fails if it isn't empty, and then it isn't ours
    FAILPOINT(UNMOUNT_CLEARED);
    return 0;
}

int pool_volume_unmount(struct backend *b, const struct uuid *id, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = unmount_locked(p, id, e);
    return rc < 0 ? pool_fail(p, rc, "unmount", id, e) : 0;
}

int pool_volume_users(struct backend *b, const struct uuid *id, struct users_entry *ret, size_t max, struct error *e)
{
    struct pool *p = pool_enter(b);
    int n = pool_users(p, FOLDER(id), ret, max, e);
    return n < 0 ? pool_fail(p, n, "look for users of", id, e) : n;
}

// Mount points that a killed worker left, before its mount or after its unmount. Best effort, as for staging.
void pool_volume_sweep_mount_points(const struct pool *p)
{
    AUTO(closedir) DIR *dir = opendir(p->mount_root);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        AUTO(close) int lock = -1;
        struct uuid id;
        struct error ignored;
        if (uuid_parse(entry->d_name, &id) && pool_lock_volume(p, &id, 0, &lock, &ignored) == 1)
            unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR); // fails for what is mounted, or holds anything
    }
}

// ---- all of them -------------------------------------------------------------------------------------------------------------

struct id_list {
    size_t n;
    struct uuid *ids;
};

static void auto_id_list_done(struct id_list *l)
{
    free(l->ids);
}

static int list_mounted(const struct pool *p, struct id_list *ret, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    AUTO(pool_place_done) struct pool_place place = { 0 };
    size_t below = strlen(p->mount_root);
    int rc = mountinfo_read_self(&m, e);
    if (rc == 0)
        rc = pool_find(p, &m, &place, e);
    if (rc < 0)
        return rc;
    ret->ids = xcalloc(m.n, sizeof ret->ids[0]);
    for (size_t i = 0; i < m.n; i++) {
        const char *point = m.entries[i].mount_point;
        struct uuid id;
        struct error ignored;
        if (strncmp(point, p->mount_root, below) == 0 && point[below] == '/' && uuid_parse(point + below + 1, &id) &&
            pool_volume_is_mounted(p, &m, &place, &id, &ignored) == 1)
            ret->ids[ret->n++] = id;
    }
    return 0;
}

static int unmount_one(const struct pool *p, const struct uuid *id, struct error *e)
{
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    return rc < 0 ? rc : unmount_locked(p, id, e);
}

static void mount_again(const struct pool *p, const struct uuid *ids, size_t n)
{
    struct error ignored;
    for (size_t i = 0; i < n; i++) {
        AUTO(close) int lock = -1;
        if (pool_lock_volume(p, &ids[i], LOCK_WAIT_MS, &lock, &ignored) > 0)
            mount_locked(p, &ids[i], &ignored);
    }
}

int pool_volume_unmount_all(const struct pool *p, struct error *e)
{
    AUTO(id_list_done) struct id_list list = { 0 };
    struct users_entry user;
    char text[USERS_TEXT_SIZE];
    int rc = pool_users(p, POOL_VOLUMES, &user, 1, e);
    if (rc > 0)
        return fail(e, E_BUSY, "a volume of pool %s is in use by %s", p->path, users_text(&user, text));
    if (rc == 0)
        rc = list_mounted(p, &list, e);
    for (size_t i = 0; rc == 0 && i < list.n; i++) {
        rc = unmount_one(p, &list.ids[i], e);
        if (rc < 0)
            mount_again(p, list.ids, i);
    }
    return rc;
}
