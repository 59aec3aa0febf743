#include "sys/btrfs.h"

#include "base/mem.h"
#include "sys/btrfs_tree.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SUBVOLUME_INODE 256 // of its root directory, and of no other inode on btrfs that a user can make elsewhere

// A handle of btrfs: number of the inode, number of the subvolume, and a generation of 0, "whichever".
#define HANDLE_TYPE 0x4d
#define HANDLE_SIZE 20

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

int btrfs_subvolume_next_nested(int fd, uint64_t id, uint64_t first, struct btrfs_nested *ret)
{
    const struct btrfs_range range = { BTRFS_ROOT_TREE_OBJECTID, id, BTRFS_ROOT_REF_KEY, first, UINT64_MAX };
    struct btrfs_item item;
    struct btrfs_root_ref ref;
    int rc = btrfs_tree_first(fd, &range, &item);
    if (rc <= 0)
        return rc;
    memcpy(&ref, item.data, sizeof ref);
    size_t n = le16toh(ref.name_len);
    if (item.n < sizeof ref || n >= sizeof ret->name || n > item.n - sizeof ref)
        return -EIO;
    *ret = (struct btrfs_nested){ .id = item.offset, .parent = id, .directory = le64toh(ref.dirid) };
    memcpy(ret->name, item.data + sizeof ref, n);
    return 1;
}

int btrfs_directory_path(int fd, uint64_t subvolume, uint64_t directory, char ret[4096])
{
    struct btrfs_ioctl_ino_lookup_args args = { .treeid = subvolume, .objectid = directory };
    if (ioctl(fd, BTRFS_IOC_INO_LOOKUP, &args) < 0)
        return -errno;
    snprintf(ret, 4096, "%s", args.name);
    return 0;
}

// Opens a directory by its number: paths inside may be longer than the system can take.
static int open_by_number(int fd, uint64_t subvolume, uint64_t inode)
{
    union {
        char room[sizeof(struct file_handle) + HANDLE_SIZE];
        struct file_handle head;
    } handle = { .room = { 0 } };
    handle.head.handle_bytes = HANDLE_SIZE;
    handle.head.handle_type = HANDLE_TYPE;
    memcpy(handle.head.f_handle, &inode, sizeof inode);
    memcpy(handle.head.f_handle + sizeof inode, &subvolume, sizeof subvolume);
    return open_by_handle_at(fd, &handle.head, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

// The next two are best effort: if they fail, so does what they are for.
static void make_writable(int subvolume_fd)
{
    uint64_t flags = 0;
    ioctl(subvolume_fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags);
}

// Takes the flags away that chattr +i and +a set: they forbid even root to remove what has them, or what is in it.
static void make_removable(int fd)
{
    static const int guards = FS_IMMUTABLE_FL | FS_APPEND_FL;
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & guards)) {
        flags &= ~guards;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
}

// 0, or an errno value.
static int delete_one(int dir_fd, const char *name)
{
    struct btrfs_ioctl_vol_args args = { 0 };
    memcpy(args.name, name, strlen(name)); // of at most NAME_MAX
    if (ioctl(dir_fd, BTRFS_IOC_SNAP_DESTROY, &args) == 0)
        return 0;
    if (errno != EPERM)
        return errno;
    AUTO(close) int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    make_writable(fd);
    make_removable(fd);
    return ioctl(dir_fd, BTRFS_IOC_SNAP_DESTROY, &args) < 0 ? errno : 0;
}

static int delete_nested_one(int fd, const struct btrfs_nested *s)
{
    AUTO(close) int dir = open_by_number(fd, s->parent, s->directory);
    int err = dir < 0 ? errno : delete_one(dir, s->name);
    if (err != EROFS && err != EPERM)
        return err;
    AUTO(close) int parent = open_by_number(fd, s->parent, SUBVOLUME_INODE);
    if (dir < 0 || parent < 0)
        return err;
    make_writable(parent);
    make_removable(dir);
    return delete_one(dir, s->name);
}

// Deletes all subvolumes below subvolume `id`, innermost first; `path` are those from it down to the one that is being emptied.
static int delete_nested(int fd, uint64_t id)
{
    size_t depth = 0, room = 0;
    AUTO(free) struct btrfs_nested *path = NULL;
    for (;;) {
        struct btrfs_nested child;
        int rc = btrfs_subvolume_next_nested(fd, depth ? path[depth - 1].id : id, 0, &child);
        if (rc < 0)
            return -rc;
        if (rc == 0 && depth == 0)
            return 0;
        if (rc == 0) {
            int err = delete_nested_one(fd, &path[--depth]);
            if (err)
                return err;
            continue;
        }
        if (depth == room)
            path = xrealloc(path, room = room ? 2 * room : 8, sizeof path[0]);
        path[depth++] = child;
    }
}

int btrfs_subvolume_delete(int dir_fd, const char *name, struct error *e)
{
    int err = delete_one(dir_fd, name);
    if (err == ENOTEMPTY) {
        AUTO(close) int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        uint64_t id = 0;
        int rc = fd < 0 ? fail_os(e, errno, "open subvolume %s", name) : btrfs_subvolume_id(fd, &id, e);
        if (rc < 0)
            return rc;
        err = delete_nested(dir_fd, id);
        if (err == 0)
            err = delete_one(dir_fd, name);
    }
    return err ? fail_os(e, err, "delete subvolume") : 0;
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

// Not BTRFS_IOC_START_SYNC: it leaves the commit to a kernel thread and waits, uninterruptibly, until that has begun. Seen on 6.18 with a
// few creates at once: that wake-up is lost, and all hang until something else commits, up to 30 s (mount option commit=). To set a label
// commits in the caller's own process; the label is the one that is there.
int btrfs_commit(int fd, struct error *e)
{
    char label[BTRFS_LABEL_SIZE];
    if (ioctl(fd, FS_IOC_GETFSLABEL, label) < 0 || ioctl(fd, FS_IOC_SETFSLABEL, label) < 0)
        return fail_os(e, errno, "commit");
    return 0;
}

void btrfs_free_deleted(int fd)
{
    struct btrfs_ioctl_fs_info_args info = { 0 };
    char label[BTRFS_LABEL_SIZE] = "", path[100];
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0 || ioctl(fd, BTRFS_IOC_GET_FSLABEL, label) < 0)
        return;
    const uint8_t *u = info.fsid;
    snprintf(path, sizeof path, "/sys/fs/btrfs/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x/label", u[0], u[1], u[2],
        u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    // To write the label here, again to what it is, wakes the thread that wakes the one that frees, and doesn't wait.
    AUTO(close) int label_fd = open(path, O_WRONLY | O_CLOEXEC);
    if (label_fd >= 0)
        dprintf(label_fd, "%s\n", label);
}

int btrfs_fsync_or_inline(int fd)
{
    union {
        char room[sizeof(struct fiemap) + 2 * sizeof(struct fiemap_extent)];
        struct fiemap head;
    } map = { .room = { 0 } };
    map.head = (struct fiemap){ .fm_length = UINT64_MAX, .fm_flags = FIEMAP_FLAG_SYNC, .fm_extent_count = 2 };
    if (ioctl(fd, FS_IOC_FIEMAP, &map) == 0 && map.head.fm_mapped_extents == 1 &&
        (map.head.fm_extents[0].fe_flags & FIEMAP_EXTENT_DATA_INLINE) != 0)
        return 0;
    return fsync(fd);
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
