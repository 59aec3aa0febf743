// The few things of btrfs that pools need: subvolumes, commits, size. Limits are in btrfs_quota.h.
#ifndef FLOCKER_SYS_BTRFS_H
#define FLOCKER_SYS_BTRFS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

bool btrfs_is(int fd); // whether `fd` is on a btrfs
bool btrfs_has_simple_quotas(void); // the kernel (6.7)

// All names are of entries of the directory dir_fd. E_CONFLICT if there is one of that name.
int btrfs_subvolume_create(int dir_fd, const char *name, struct error *e);
// Deletes it and subvolumes that its users made inside it, read-only ones too, at any depth. The kernel frees the space in the
// background. E_NOT_FOUND.
int btrfs_subvolume_delete(int dir_fd, const char *name, struct error *e);
bool btrfs_subvolume_is(int fd);
int btrfs_subvolume_id(int fd, uint64_t *ret, struct error *e);

// A subvolume inside another one.
struct btrfs_nested {
    uint64_t id, parent;
    uint64_t directory; // number of the directory of `parent` that has it
    char name[256];
};
// The one directly inside subvolume `id` that has the lowest number from `first` on. 1: found, 0: there is none, negative: -errno.
int btrfs_subvolume_next_nested(int fd, uint64_t id, uint64_t first, struct btrfs_nested *ret);

// The path of a directory below its subvolume's root, "" for the root, else with a slash at its end. 0, or -errno.
int btrfs_directory_path(int fd, uint64_t subvolume, uint64_t directory, char ret[4096]);

// Makes all metadata changes up to now durable: names, subvolumes, limits. Unlike a sync it doesn't write out data that other
// users of the file system have in memory, which may be gigabytes.
int btrfs_commit(int fd, struct error *e);
// Has the kernel free deleted subvolumes now; on its own it starts within 30 s. To be called after the commit.
void btrfs_free_deleted(int fd);
int btrfs_sync(int fd, struct error *e); // data, too
// Like fsync, but leaves to the commit that is to follow what it covers: a small file's data, which btrfs keeps among its metadata.
// Saves two flushes of the device, or a whole commit: that is what fsync does when a subvolume was made in the same transaction.
int btrfs_fsync_or_inline(int fd);
// Uses the whole device (bytes = 0) or that much of it.
int btrfs_resize(int fd, uint64_t bytes, struct error *e);

#endif
