// Single items of btrfs's own trees: of the tree of roots (subvolumes) and the tree of quotas.
#ifndef FLOCKER_SYS_BTRFS_TREE_H
#define FLOCKER_SYS_BTRFS_TREE_H

#include <stddef.h>
#include <stdint.h>

// What is looked for: items of one object and type with an offset in [first, last].
struct btrfs_range {
    uint64_t tree, object;
    uint32_t type;
    uint64_t first, last;
};

struct btrfs_item {
    uint64_t offset;
    size_t n;          // bytes that were copied to `data`; longer items are cut
    uint8_t data[512];
};

// The item with the lowest offset of the range. 1: found, 0: there is none, negative: -errno. What is being changed by the
// transaction that isn't committed yet is seen, except for usages, which the kernel enters at its end.
int btrfs_tree_first(int fd, const struct btrfs_range *range, struct btrfs_item *ret);

#endif
