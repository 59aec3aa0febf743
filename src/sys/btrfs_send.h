// Snapshots, and the streams that the kernel makes of them.
#ifndef FLOCKER_SYS_BTRFS_SEND_H
#define FLOCKER_SYS_BTRFS_SEND_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Makes `name` in dir_fd a snapshot of subvolume_fd, on the same file system. The kernel writes out what the subvolume has in memory and
// commits: when this returns, the snapshot is durable, with all that was written before. Subvolumes inside are not part of it: where they
// are, it has empty directories. E_CONFLICT if there is a `name`.
int btrfs_snapshot(int dir_fd, const char *name, int subvolume_fd, bool read_only, struct error *e);

// Makes the stream of a read-only subvolume, or if parent_fd isn't -1, of what has changed from that one, which must be read-only, too.
// Protocol 2 where the kernel has it (6.0), else 1. `sink` is called in the caller's thread with up to 1 MiB at a time; a
// negative code of it ends all, and is what is returned.
// A thread of its own makes the ioctl, at the other end of a pipe, with all signals blocked; it is gone when this returns. If nothing can
// be written for long (an increment of nothing in a huge volume), an end of sink's is only noticed with the next byte.
// While it runs neither subvolume can be deleted.
int btrfs_send(int subvolume_fd, int parent_fd, int (*sink)(void *arg, const void *data, size_t n), void *arg, struct error *e);

#endif
