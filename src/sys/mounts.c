#include "sys/mounts.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mount.h>

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
