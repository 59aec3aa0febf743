#include "sys/btrfs.h"

#include <btrfsutil.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

// Linux 6.7; Debian 12 has the headers of 6.1.
#define QUOTA_CTL_ENABLE_SIMPLE 4

#define SUBVOLUME_INODE 256 // of its root directory, and of no other inode on btrfs that a user can make elsewhere

bool btrfs_is(int fd)
{
    struct statfs st;
    return fstatfs(fd, &st) == 0 && st.f_type == BTRFS_SUPER_MAGIC;
}

bool btrfs_has_simple_quotas(void)
{
    return access("/sys/fs/btrfs/features/simple_quota", F_OK) == 0;
}

// libbtrfsutil's own codes only say which ioctl failed; errno has the reason.
static int fail_util(struct error *e, enum btrfs_util_error err, const char *what)
{
    return errno ? fail_os(e, errno, "%s", what) : fail(e, E_IO, "%s: %s", what, btrfs_util_strerror(err));
}

int btrfs_subvolume_create(int dir_fd, const char *name, struct error *e)
{
    enum btrfs_util_error err = btrfs_util_create_subvolume_fd(dir_fd, name, 0, NULL, NULL);
    return err ? fail_util(e, err, "create subvolume") : 0;
}

int btrfs_subvolume_delete(int dir_fd, const char *name, struct error *e)
{
    enum btrfs_util_error err = btrfs_util_delete_subvolume_fd(dir_fd, name, 0);
    // ENOTEMPTY: subvolumes in it. Only then, because looking for them costs a search of the tree of roots.
    if (err && errno == ENOTEMPTY)
        err = btrfs_util_delete_subvolume_fd(dir_fd, name, BTRFS_UTIL_DELETE_SUBVOLUME_RECURSIVE);
    return err ? fail_util(e, err, "delete subvolume") : 0;
}

bool btrfs_subvolume_is(int fd)
{
    struct stat st;
    return btrfs_is(fd) && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && st.st_ino == SUBVOLUME_INODE;
}

int btrfs_subvolume_id(int fd, uint64_t *ret, struct error *e)
{
    uint64_t id;
    enum btrfs_util_error err = btrfs_util_subvolume_id_fd(fd, &id);
    if (err)
        return fail_util(e, err, "ask for the subvolume's number");
    *ret = id;
    return 0;
}

// Whether quotas are on: the kernel shows a folder for them then.
static bool quota_is_on(int fd)
{
    struct btrfs_ioctl_fs_info_args info = { 0 };
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
        return false;
    char path[100];
    const uint8_t *u = info.fsid;
    snprintf(path, sizeof path, "/sys/fs/btrfs/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x/qgroups", u[0], u[1],
        u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    return access(path, F_OK) == 0;
}

int btrfs_quota_enable(int fd, bool classic, struct error *e)
{
    if (quota_is_on(fd))
        return 0;
    struct btrfs_ioctl_quota_ctl_args args = { .cmd = classic ? BTRFS_QUOTA_CTL_ENABLE : QUOTA_CTL_ENABLE_SIMPLE };
    if (ioctl(fd, BTRFS_IOC_QUOTA_CTL, &args) < 0 && errno != EROFS)
        return fail_os(e, errno, "turn on %s", classic ? "qgroups" : "simple quotas");
    return 0;
}

int btrfs_quota_limit(int fd, uint64_t id, uint64_t bytes, struct error *e)
{
    struct btrfs_ioctl_qgroup_limit_args args = { .qgroupid = id };
    args.lim.flags = BTRFS_QGROUP_LIMIT_MAX_RFER;
    args.lim.max_rfer = bytes ? bytes : UINT64_MAX; // the kernel's word for "remove the limit"
    if (ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, &args) < 0)
        return fail_os(e, errno, "set the limit of subvolume %" PRIu64, id);
    return 0;
}

// Reads one item of the quota tree. 1: found, 0: none, negative: errno.
static int quota_item(int fd, uint32_t type, uint64_t id, void *ret, size_t size)
{
    struct btrfs_ioctl_search_args args = { .key = {
        .tree_id = BTRFS_QUOTA_TREE_OBJECTID,
        .min_type = type,
        .max_type = type,
        .min_offset = id, // objectid is 0 for all of these items
        .max_offset = id,
        .max_transid = UINT64_MAX,
        .nr_items = 1,
    } };
    if (ioctl(fd, BTRFS_IOC_TREE_SEARCH, &args) < 0)
        return errno == ENOENT ? 0 : -errno;
    struct btrfs_ioctl_search_header header;
    if (args.key.nr_items == 0)
        return 0;
    memcpy(&header, args.buf, sizeof header);
    if (header.len < size)
        return -EIO;
    memcpy(ret, args.buf + sizeof header, size);
    return 1;
}

int btrfs_quota_usage(int fd, uint64_t id, uint64_t *ret_used, uint64_t *ret_limit, struct error *e)
{
    struct btrfs_qgroup_info_item info;
    struct btrfs_qgroup_limit_item limit = { 0 };
    int rc = quota_item(fd, BTRFS_QGROUP_INFO_KEY, id, &info, sizeof info);
    if (rc > 0)
        rc = quota_item(fd, BTRFS_QGROUP_LIMIT_KEY, id, &limit, sizeof limit) < 0 ? -EIO : 1;
    if (rc < 0)
        return fail_os(e, -rc, "read the usage of subvolume %" PRIu64, id);
    if (rc == 0)
        return fail(e, E_NOT_FOUND, "subvolume %" PRIu64 " has no quota group", id);
    // Little-endian on disk.
    *ret_used = le64toh(info.rfer);
    *ret_limit = le64toh(limit.flags) & BTRFS_QGROUP_LIMIT_MAX_RFER ? le64toh(limit.max_rfer) : 0;
    return 0;
}

// Not START_SYNC and WAIT_SYNC: that wakes the kernel's transaction thread and waits for it, but the thread does not look for work once
// more before it goes to sleep. Seen on Linux 6.18: right after another commit the wake-up is lost, and the caller waits up to 30 s, in a
// state that no signal ends. Setting the label (to what it is) commits in the caller's own thread, and unlike SYNC without writing the
// data of every file first.
int btrfs_commit(int fd, struct error *e)
{
    char label[BTRFS_LABEL_SIZE];
    if (ioctl(fd, BTRFS_IOC_GET_FSLABEL, label) < 0 || ioctl(fd, BTRFS_IOC_SET_FSLABEL, label) < 0)
        return fail_os(e, errno, "commit");
    return 0;
}

int btrfs_sync(int fd, struct error *e)
{
    enum btrfs_util_error err = btrfs_util_sync_fd(fd);
    return err ? fail_util(e, err, "sync") : 0;
}

int btrfs_resize(int fd, uint64_t bytes, struct error *e)
{
    struct btrfs_ioctl_vol_args args = { 0 };
    if (bytes)
        snprintf(args.name, sizeof args.name, "%" PRIu64, bytes);
    else
        snprintf(args.name, sizeof args.name, "max");
    if (ioctl(fd, BTRFS_IOC_RESIZE, &args) < 0)
        return fail_os(e, errno, "resize");
    return 0;
}
