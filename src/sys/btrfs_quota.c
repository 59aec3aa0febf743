#include "sys/btrfs_quota.h"

#include "base/mem.h"
#include "sys/btrfs.h"
#include "sys/btrfs_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <string.h>
#include <sys/ioctl.h>

// Linux 6.7; Debian 12 has the headers of 6.1.
#define QUOTA_CTL_ENABLE_SIMPLE 4
#define STATUS_FLAG_SIMPLE      (1ULL << 3)

#define LEVEL_SHIFT 48
#define GROUP(level, id) ((uint64_t)(level) << LEVEL_SHIFT | (id))
#define LEVEL_OF(group)  ((group) >> LEVEL_SHIFT)
#define ID_OF(group)     ((group) & ((1ULL << LEVEL_SHIFT) - 1))

// ---- items and ioctls --------------------------------------------------------------------------------------------------------

// The flags of the status item; 0 if quotas are off.
static uint64_t status_flags(int fd)
{
    const struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_STATUS_KEY, 0, 0 };
    struct btrfs_item item;
    struct btrfs_qgroup_status_item status;
    if (btrfs_tree_first(fd, &range, &item) <= 0 || item.n < sizeof status)
        return 0;
    memcpy(&status, item.data, sizeof status);
    return le64toh(status.flags);
}

bool btrfs_quota_is_simple(int fd)
{
    return status_flags(fd) & STATUS_FLAG_SIMPLE;
}

int btrfs_quota_enable(int fd, bool classic, struct error *e)
{
    if (status_flags(fd) & BTRFS_QGROUP_STATUS_FLAG_ON)
        return 0;
    struct btrfs_ioctl_quota_ctl_args args = { .cmd = classic ? BTRFS_QUOTA_CTL_ENABLE : QUOTA_CTL_ENABLE_SIMPLE };
    if (ioctl(fd, BTRFS_IOC_QUOTA_CTL, &args) < 0 && errno != EROFS)
        return fail_os(e, errno, "turn on %s", classic ? "qgroups" : "simple quotas");
    return 0;
}

// 1: found, 0: no such group, negative: -errno.
static int read_info(int fd, uint64_t group, uint64_t *ret_used)
{
    const struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_INFO_KEY, group, group };
    struct btrfs_item item;
    struct btrfs_qgroup_info_item info;
    int rc = btrfs_tree_first(fd, &range, &item);
    if (rc <= 0)
        return rc;
    if (item.n < sizeof info)
        return -EIO;
    memcpy(&info, item.data, sizeof info);
    *ret_used = le64toh(info.rfer);
    return 1;
}

static bool group_is_there(int fd, uint64_t group)
{
    uint64_t used;
    return read_info(fd, group, &used) > 0;
}

// *ret_limit is 0 if there is none.
static int read_limit(int fd, uint64_t group, uint64_t *ret_limit)
{
    const struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_LIMIT_KEY, group, group };
    struct btrfs_item item;
    struct btrfs_qgroup_limit_item limit = { 0 };
    int rc = btrfs_tree_first(fd, &range, &item);
    if (rc < 0)
        return rc;
    if (rc > 0 && item.n >= sizeof limit)
        memcpy(&limit, item.data, sizeof limit);
    *ret_limit = le64toh(limit.flags) & BTRFS_QGROUP_LIMIT_MAX_RFER ? le64toh(limit.max_rfer) : 0;
    return 0;
}

// 0, or an errno value.
static int set_limit(int fd, uint64_t group, uint64_t bytes)
{
    struct btrfs_ioctl_qgroup_limit_args args = { .qgroupid = group };
    args.lim.flags = BTRFS_QGROUP_LIMIT_MAX_RFER;
    args.lim.max_rfer = bytes ? bytes : UINT64_MAX; // the kernel's word for "remove the limit"
    return ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, &args) < 0 ? errno : 0;
}

static int make_group(int fd, uint64_t group, bool make)
{
    struct btrfs_ioctl_qgroup_create_args args = { .create = make, .qgroupid = group };
    return ioctl(fd, BTRFS_IOC_QGROUP_CREATE, &args) < 0 ? errno : 0;
}

static int assign(int fd, uint64_t member, uint64_t group, bool make)
{
    struct btrfs_ioctl_qgroup_assign_args args = { .assign = make, .src = member, .dst = group };
    return ioctl(fd, BTRFS_IOC_QGROUP_ASSIGN, &args) < 0 ? errno : 0;
}

// The first group from `first` on that `group` is a member of, or that is a member of it: the kernel keeps an item for each direction.
static int next_relation(int fd, uint64_t group, uint64_t first, uint64_t *ret)
{
    const struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, group, BTRFS_QGROUP_RELATION_KEY, first, UINT64_MAX };
    struct btrfs_item item;
    int rc = btrfs_tree_first(fd, &range, &item);
    if (rc > 0)
        *ret = item.offset;
    return rc;
}

// ---- groups ------------------------------------------------------------------------------------------------------------------

// Makes one subvolume a member of `group` and of no other group of our level. 0, or an errno value.
static int gather_one(int fd, uint64_t id, uint64_t group)
{
    uint64_t parent;
    bool is_member = false;
    int rc, err = 0;
    for (uint64_t first = GROUP(BTRFS_GROUP_LEVEL, 0); (rc = next_relation(fd, id, first, &parent)) > 0; first = parent + 1) {
        if (LEVEL_OF(parent) != BTRFS_GROUP_LEVEL)
            break;
        if (parent == group)
            is_member = true;
        else if ((err = assign(fd, id, parent, false)) != 0 && err != ENOENT)
            return err;
    }
    if (rc < 0)
        return -rc;
    err = is_member ? 0 : assign(fd, id, group, true);
    // ENOENT: its user has just deleted it. (The group itself was seen.)
    return err == EEXIST || err == ENOENT ? 0 : err;
}

static int gather_nested(int fd, uint64_t id, uint64_t group)
{
    // Breadth first: `list` is what was found, from `i` on what is to be looked into.
    AUTO(free) uint64_t *list = xcalloc(1, sizeof *list);
    size_t n = 1, room = 1;
    list[0] = id;
    for (size_t i = 0; i < n; i++) {
        struct btrfs_nested child = { .id = 0 };
        int rc;
        while ((rc = btrfs_subvolume_next_nested(fd, list[i], child.id + 1, &child)) > 0) {
            int err = gather_one(fd, child.id, group);
            if (err)
                return err;
            if (n == room)
                list = xrealloc(list, room *= 2, sizeof *list);
            list[n++] = child.id;
        }
        if (rc < 0)
            return -rc;
    }
    return 0;
}

int btrfs_quota_gather(int fd, uint64_t id, struct error *e)
{
    if (!btrfs_quota_is_simple(fd))
        return 0;
    uint64_t group = GROUP(BTRFS_GROUP_LEVEL, id), former = 0;
    int err = group_is_there(fd, group) ? 0 : make_group(fd, group, true);
    if (err == 0 || err == EEXIST)
        err = -read_limit(fd, id, &former);
    if (err == 0 && former)
        err = set_limit(fd, group, former);
    if (err == 0)
        err = gather_one(fd, id, group);
    if (err == 0)
        err = gather_nested(fd, id, group);
    if (err == 0 && former)
        err = set_limit(fd, id, 0);
    return err ? fail_os(e, err, "put subvolume %" PRIu64 " into its quota group", id) : 0;
}

int btrfs_quota_join(int fd, uint64_t owner, uint64_t id, struct error *e)
{
    if (!btrfs_quota_is_simple(fd))
        return 0;
    uint64_t group = GROUP(BTRFS_GROUP_LEVEL, owner);
    int err = group_is_there(fd, group) ? 0 : make_group(fd, group, true);
    if (err == 0 || err == EEXIST)
        err = gather_one(fd, id, group);
    return err ? fail_os(e, err, "put subvolume %" PRIu64 " into a quota group", id) : 0;
}

int btrfs_quota_share(int fd, uint64_t from, uint64_t to, struct error *e)
{
    if (!btrfs_quota_is_simple(fd))
        return 0;
    uint64_t member;
    int rc, err = 0;
    for (uint64_t first = 0; err == 0 && (rc = next_relation(fd, GROUP(BTRFS_GROUP_LEVEL, from), first, &member)) > 0; first = member + 1) {
        err = LEVEL_OF(member) == 0 ? assign(fd, member, GROUP(BTRFS_GROUP_LEVEL, to), true) : 0;
        // A member already, or gone, which it is when nothing that it wrote is in use: the kernel says EINVAL for a group that is gone.
        if (err == EEXIST || err == ENOENT || (err == EINVAL && !group_is_there(fd, member)))
            err = 0;
    }
    if (err == 0 && rc < 0)
        err = -rc;
    return err ? fail_os(e, err, "put what was received into a quota group") : 0;
}

int btrfs_quota_limit(int fd, uint64_t id, uint64_t bytes, struct error *e)
{
    int err = set_limit(fd, btrfs_quota_is_simple(fd) ? GROUP(BTRFS_GROUP_LEVEL, id) : id, bytes);
    return err ? fail_os(e, err, "set the limit of subvolume %" PRIu64, id) : 0;
}

int btrfs_quota_usage(int fd, uint64_t id, uint64_t *ret_used, uint64_t *ret_limit, struct error *e)
{
    uint64_t group = GROUP(BTRFS_GROUP_LEVEL, id), used = 0, limit = 0;
    int rc = read_info(fd, group, &used);
    if (rc == 0)
        rc = read_info(fd, group = id, &used);
    if (rc == 0)
        return fail(e, E_NOT_FOUND, "subvolume %" PRIu64 " has no quota group", id);
    if (rc > 0)
        rc = read_limit(fd, group, &limit);
    if (rc < 0)
        return fail_os(e, -rc, "read the usage of subvolume %" PRIu64, id);
    *ret_used = used;
    *ret_limit = limit;
    return 0;
}

// ---- removal -----------------------------------------------------------------------------------------------------------------

void btrfs_quota_drop(int fd, uint64_t id)
{
    uint64_t group = GROUP(BTRFS_GROUP_LEVEL, id), member;
    if (!group_is_there(fd, group))
        return;
    while (next_relation(fd, group, 0, &member) > 0)
        if (assign(fd, member, group, false) != 0)
            return; // a sweep tries again
    make_group(fd, group, false);
}

static bool root_is_there(int fd, uint64_t id, uint32_t type)
{
    const struct btrfs_range range = { BTRFS_ROOT_TREE_OBJECTID, id, type, 0, UINT64_MAX };
    struct btrfs_item item;
    return btrfs_tree_first(fd, &range, &item) != 0;
}

// Whether nothing can be accounted to a group of level 0 any more.
static bool is_gone(int fd, uint64_t id)
{
    return id >= BTRFS_FIRST_FREE_OBJECTID && !root_is_there(fd, id, BTRFS_ROOT_ITEM_KEY);
}

void btrfs_quota_sweep(int fd, bool all)
{
    struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_INFO_KEY, 0, GROUP(BTRFS_GROUP_LEVEL + 1, 0) - 1 };
    struct btrfs_item item;
    AUTO(free) uint64_t *gone = NULL;
    size_t n = 0, room = 0;
    range.first = all ? 0 : GROUP(BTRFS_GROUP_LEVEL, 0);
    for (; btrfs_tree_first(fd, &range, &item) > 0; range.first = item.offset + 1) {
        uint64_t id = ID_OF(item.offset);
        // A subvolume that is deleted keeps its root until all of it is freed, but not its name.
        if (LEVEL_OF(item.offset) == BTRFS_GROUP_LEVEL && !root_is_there(fd, id, BTRFS_ROOT_BACKREF_KEY))
            btrfs_quota_drop(fd, id);
        if (LEVEL_OF(item.offset) != 0 || !is_gone(fd, id))
            continue;
        if (n == room)
            gone = xrealloc(gone, room = room ? 2 * room : 16, sizeof *gone);
        gone[n++] = id;
    }
    // The group of a subvolume that is just being made is there before its root. Both are after the commit.
    struct error ignored;
    if (n == 0 || btrfs_commit(fd, &ignored) < 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (is_gone(fd, gone[i]))
            make_group(fd, gone[i], false); // fails as long as extents that it wrote are shared by others
}
