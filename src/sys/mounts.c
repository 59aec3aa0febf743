#include "sys/mounts.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>

int mount_fs(const char *device, const char *target, const char *type, const char *options, struct error *e)
{
    if (mount(device, target, type, MS_NOATIME, options) < 0)
        return fail_os(e, errno, "mount %s on %s", device, target);
    return 0;
}

int mount_bind(const char *source, const char *target, struct error *e)
{
    if (mount(source, target, NULL, MS_BIND, NULL) < 0)
        return fail_os(e, errno, "mount %s on %s", source, target);
    return 0;
}

int mount_propagate(const char *target, enum mount_propagation how, struct error *e)
{
    static const unsigned long flags[] = { [MOUNT_PRIVATE] = MS_PRIVATE, [MOUNT_SHARED] = MS_SHARED };
    if (mount(NULL, target, NULL, flags[how], NULL) < 0)
        return fail_os(e, errno, "set the propagation of mount %s", target);
    return 0;
}

int mount_unmount(const char *target, struct error *e)
{
    // EINVAL: not a mount point.
    if (umount2(target, UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return fail_os(e, errno, "unmount %s", target);
    return 0;
}

// A plain bind mount joins the peer group of the mount that `path` lies on. To leave that group and start one before copies are handed
// to other namespaces (a copy made earlier would never hear of the new group), the mount is prepared while it isn't attached anywhere.
int mount_share(const char *path, struct error *e)
{
    struct mount_attr leave = { .propagation = MS_PRIVATE }, start = { .propagation = MS_SHARED };
    AUTO(close) int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &leave, sizeof leave) < 0 ||
        mount_setattr(fd, "", AT_EMPTY_PATH, &start, sizeof start) < 0 ||
        move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail_os(e, errno, "make %s a shared mount", path);
    return 0;
}

bool mount_is_missing(const char *target)
{
    struct statx st;
    if (statx(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &st) < 0)
        return errno == ENOENT;
    return (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) && !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}
