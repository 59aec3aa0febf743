// The few things of btrfs that pools need: subvolumes, limits, size.
#ifndef FLOCKER_SYS_BTRFS_H
#define FLOCKER_SYS_BTRFS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

bool btrfs_is(int fd); // whether `fd` is on a btrfs
bool btrfs_has_simple_quotas(void); // the kernel (6.7)

// All names are of entries of the directory dir_fd. E_CONFLICT if there is one of that name.
int btrfs_subvolume_create(int dir_fd, const char *name, struct error *e);
// Deletes it and subvolumes that its users made inside it. The kernel frees the space in the background. E_NOT_FOUND.
int btrfs_subvolume_delete(int dir_fd, const char *name, struct error *e);
bool btrfs_subvolume_is(int fd);
int btrfs_subvolume_id(int fd, uint64_t *ret, struct error *e);

// Turns accounting on, if it is off: simple (by the subvolume that wrote an extent first; cheap), or classic qgroups. A file system
// that has one of the two on keeps it. On a file system mounted read-only: as it is.
int btrfs_quota_enable(int fd, bool classic, struct error *e);
// Limits what subvolume `id` refers to; 0: no limit.
int btrfs_quota_limit(int fd, uint64_t id, uint64_t bytes, struct error *e);
// As of the last commit. E_NOT_FOUND if the subvolume is not accounted for.
int btrfs_quota_usage(int fd, uint64_t id, uint64_t *ret_used, uint64_t *ret_limit, struct error *e);

// Makes all metadata changes up to now durable: names, subvolumes, limits. Unlike a sync it doesn't write out data that other
// users of the file system have in memory, which may be gigabytes.
int btrfs_commit(int fd, struct error *e);
int btrfs_sync(int fd, struct error *e); // data, too
// The kernel's cleaner frees the space of deleted subvolumes soon after a commit, not within half a minute. Best effort.
void btrfs_clean_soon(int fd);
// Uses the whole device (bytes = 0) or that much of it.
int btrfs_resize(int fd, uint64_t bytes, struct error *e);

#endif
