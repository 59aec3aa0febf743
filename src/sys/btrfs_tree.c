#include "sys/btrfs_tree.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <string.h>
#include <sys/ioctl.h>

int btrfs_tree_first(int fd, const struct btrfs_range *range, struct btrfs_item *ret)
{
    struct btrfs_ioctl_search_args args = { .key = {
        .tree_id = range->tree,
        .min_objectid = range->object,
        .max_objectid = range->object,
        .min_type = range->type,
        .max_type = range->type,
        .min_offset = range->first,
        .max_offset = range->last,
        .max_transid = UINT64_MAX,
        .nr_items = 1,
    } };
    if (ioctl(fd, BTRFS_IOC_TREE_SEARCH, &args) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (args.key.nr_items == 0)
        return 0;
    struct btrfs_ioctl_search_header header;
    memcpy(&header, args.buf, sizeof header);
    ret->offset = header.offset;
    ret->n = header.len < sizeof ret->data ? header.len : sizeof ret->data;
    memcpy(ret->data, args.buf + sizeof header, ret->n);
    return 1;
}
