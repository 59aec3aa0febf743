// Limits on subvolumes that hold against whoever writes in them.
//
// Nobody needs a privilege to make subvolumes in a folder that he may write in, and each is accounted for by itself (group 0/<id>). So
// in simple mode the limit of subvolume <id> is on a group of groups, BTRFS_GROUP_LEVEL/<id>: its members are 0/<id> and those of all
// subvolumes inside, which the kernel makes members as they are made. One way around stays open (measured on 6.18): the ioctls that
// make subvolumes take the groups of the new one from the caller, who may name none, or another volume's. btrfs_quota_gather puts
// that right when it is called, not before.
//
// In classic mode there is no such group, and the limit is on 0/<id>: subvolumes made inside are outside of it. The kernel lets new
// ones inherit nothing there; it has no option that forbids to make them; and a group of groups would do harm: as soon as anybody
// snapshots a member, the kernel gives up accounting for the whole file system until it is scanned again.
//
// `fd` is always outside of what is limited: the kernel charges these very changes to the subvolume through which they are asked for,
// so that inside a full one they fail.
#ifndef FLOCKER_SYS_BTRFS_QUOTA_H
#define FLOCKER_SYS_BTRFS_QUOTA_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define BTRFS_GROUP_LEVEL 70 // one that admins, who start at 1, have hardly used on a file system of theirs

// Turns accounting on, if it is off: simple (by the subvolume that wrote an extent first; cheap), or classic qgroups. A file system
// that has one of the two on keeps it. On a file system mounted read-only: as it is.
int btrfs_quota_enable(int fd, bool classic, struct error *e);
bool btrfs_quota_is_simple(int fd); // false also if quotas are off
// Simple mode: makes subvolume `id` and all inside it members of its group, and of no other one's; makes the group, and moves to it
// the limit on 0/<id> that former versions set. Classic: does nothing.
int btrfs_quota_gather(int fd, uint64_t id, struct error *e);
// Simple mode: whatever subvolume `id` writes counts to the group of subvolume `owner`, too; that group is made if need be. It stays so when
// `id` is gone, as long as anything that it wrote is in use by others, such as snapshots of it. Classic: does nothing.
int btrfs_quota_join(int fd, uint64_t owner, uint64_t id, struct error *e);
// Simple mode: what counts to the group of `from` counts to that of `to`, which was gathered, as well. Classic: does nothing.
int btrfs_quota_share(int fd, uint64_t from, uint64_t to, struct error *e);
// Limits what subvolume `id` and those inside hold; 0: no limit. Gather first.
int btrfs_quota_limit(int fd, uint64_t id, uint64_t bytes, struct error *e);
// As of the last commit. E_NOT_FOUND if the subvolume is not accounted for.
int btrfs_quota_usage(int fd, uint64_t id, uint64_t *ret_used, uint64_t *ret_limit, struct error *e);
// Removes the subvolume's group; to be called before the subvolume is deleted. The kernel (6.11) removes 0/<id> when it has freed all.
void btrfs_quota_drop(int fd, uint64_t id);
// Removes groups of subvolumes that are gone: of our level, and if `all`, those of level 0, too, which older kernels leave.
void btrfs_quota_sweep(int fd, bool all);

#endif
