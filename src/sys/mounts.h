// Mounts, as thin calls of mount(2). Never lazy, never forced: a mount that is in use is E_BUSY.
// (Not named mount.h: the folder of this layer stands on the include path, so that would hide the C library's <sys/mount.h>.)
#ifndef FLOCKER_SYS_MOUNTS_H
#define FLOCKER_SYS_MOUNTS_H

#include "base/error.h"

#include <stdbool.h>

enum mount_propagation {
    MOUNT_PRIVATE,
    MOUNT_SHARED,
};

int mount_fs(const char *device, const char *target, const char *type, const char *options, struct error *e); // with noatime
int mount_bind(const char *source, const char *target, struct error *e);
// Mounts the directory `path` on itself, shared, as the first member of a peer group of its own. What is then mounted below it appears in
// mount namespaces that get the events of this one (peers and slaves), also in those that exist already.
int mount_share(const char *path, struct error *e);
int mount_propagate(const char *target, enum mount_propagation how, struct error *e);
// E_BUSY if something uses it; 0 also if nothing is mounted there. The last part of `target` is not followed if it is a link.
int mount_unmount(const char *target, struct error *e);
// Whether it is certain that nothing is mounted on `target`. Doesn't read from the disk of what is mounted there.
bool mount_is_missing(const char *target);

#endif
