// Trees of files: one with everything that a file system can hold, and the comparison of two, byte by byte and attribute by attribute.
#ifndef FLOCKER_TESTS_TREE_H
#define FLOCKER_TESTS_TREE_H

#include "pool.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

DEFINE_AUTO(DIR *, closedir)

static inline char *random_bytes(size_t n)
{
    char *data = xcalloc(1, n + 256);
    for (size_t i = 0; i < n; i += 256)
        rng_fill(data + i, 256);
    return data;
}

static inline void put_file(const char *path, uint64_t offset, size_t n)
{
    AUTO(free) char *data = random_bytes(n);
    AUTO(close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, n, (off_t)offset), (ssize_t)n);
}

static inline void put_clone(const char *from, const char *to)
{
    AUTO(close) int a = open(from, O_RDONLY | O_CLOEXEC);
    AUTO(close) int b = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ioctl(b, FICLONE, a), 0);
}

static inline void put_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
}

// v2 capability sets: cap_net_raw, permitted and effective. An access list: owner, user 5, group, mask, others.
static const uint8_t tree_capability[20] = { 1, 0, 0, 2, 0, 0x20 };
static const uint8_t tree_acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
    16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255 };

static inline void make_names(const char *root)
{
    assert_int_equal(mkdir(path_of("%s/names", root), 0755), 0);
    for (int byte = 1; byte < 256; byte++)
        if (byte != '/' && byte != '.')
            put_file(path_of("%s/names/%c", root, byte), 0, 3);
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = '\0';
    put_file(path_of("%s/names/%s", root, longest), 0, 3);
    put_file(path_of("%s/names/...", root), 0, 3);
    char path[3900];
    int n = snprintf(path, sizeof path, "%s/deep", root);
    for (int depth = 0; depth < 60; depth++) {
        assert_int_equal(mkdir(path, 0755), 0);
        n += snprintf(path + n, sizeof path - (size_t)n, "/directory number %d", depth);
    }
    put_file(path, 0, 100);
}

static inline void make_special(const char *root)
{
    assert_int_equal(mkfifo(path_of("%s/fifo", root), 0612), 0);
    put_socket(path_of("%s/socket", root));
    assert_int_equal(mknod(path_of("%s/null", root), S_IFCHR | 0666, makedev(1, 3)), 0);
    assert_int_equal(mknod(path_of("%s/whiteout", root), S_IFCHR, makedev(0, 0)), 0);
    assert_int_equal(mknod(path_of("%s/disk", root), S_IFBLK | 0600, makedev(259, 70000)), 0);
    assert_int_equal(symlink("/etc/passwd", path_of("%s/absolute", root)), 0);
    assert_int_equal(symlink("../../not there\n", path_of("%s/dangling", root)), 0);
    assert_int_equal(lchown(path_of("%s/dangling", root), 12, 34), 0);
    assert_int_equal(lsetxattr(path_of("%s/dangling", root), "trusted.link", "t", 1, 0), 0);
}

static inline void make_attributes(const char *root)
{
    static const struct timespec times[][2] = {
        { { .tv_sec = -5, .tv_nsec = 1 }, { .tv_sec = -1000000000, .tv_nsec = 999999999 } },
        { { .tv_sec = 4000000000, .tv_nsec = 5 }, { .tv_sec = 0, .tv_nsec = 0 } },
    };
    put_file(path_of("%s/program", root), 0, 100);
    assert_int_equal(chown(path_of("%s/program", root), 4294967294U, 65534), 0);
    assert_int_equal(chmod(path_of("%s/program", root), 06755), 0);
    assert_int_equal(setxattr(path_of("%s/program", root), "security.capability", tree_capability, sizeof tree_capability, 0), 0);
    put_file(path_of("%s/acl", root), 0, 10);
    assert_int_equal(setxattr(path_of("%s/acl", root), "system.posix_acl_access", tree_acl, sizeof tree_acl, 0), 0);
    assert_int_equal(setxattr(path_of("%s/acl", root), "user.empty", "", 0, 0), 0);
    AUTO(free) char *large = random_bytes(8000);
    assert_int_equal(setxattr(path_of("%s/acl", root), "user.large", large, 8000, 0), 0);
    put_file(path_of("%s/secret", root), 0, 10);
    assert_int_equal(chmod(path_of("%s/secret", root), 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, path_of("%s/secret", root), times[0], 0), 0);
    assert_int_equal(mkdir(path_of("%s/sticky", root), 0755), 0);
    put_file(path_of("%s/sticky/file", root), 0, 10);
    assert_int_equal(chown(path_of("%s/sticky", root), 7, 8), 0);
    assert_int_equal(chmod(path_of("%s/sticky", root), 03777), 0);
    assert_int_equal(setxattr(path_of("%s/sticky", root), "user.dir", "d", 1, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, path_of("%s/sticky", root), times[1], 0), 0);
}

// Some 12 MiB of data.
static inline void make_tree(const char *path)
{
    AUTO(free) char *root = xstrdup(path); // path_of() keeps few
    put_file(path_of("%s/empty", root), 0, 0);
    put_file(path_of("%s/small", root), 0, 1000);
    put_file(path_of("%s/large", root), 0, 5 * MIB + 77);
    put_file(path_of("%s/sparse", root), 0, 5000);
    put_file(path_of("%s/sparse", root), 40 * MIB + 13, 300000);
    assert_int_equal(truncate(path_of("%s/sparse", root), 100 * MIB + 1), 0);
    put_clone(path_of("%s/large", root), path_of("%s/clone", root));
    put_file(path_of("%s/clone", root), 8192, 4096);
    assert_int_equal(mkdir(path_of("%s/dir", root), 0750), 0);
    put_file(path_of("%s/dir/file", root), 0, 300000);
    assert_int_equal(link(path_of("%s/dir/file", root), path_of("%s/hard", root)), 0);
    assert_int_equal(link(path_of("%s/dir/file", root), path_of("%s/dir/hard too", root)), 0);
    make_names(root);
    make_special(root);
    make_attributes(root);
    assert_int_equal(chown(root, 999, 998), 0);
    assert_int_equal(chmod(root, 02751), 0);
    assert_int_equal(setxattr(root, "user.root", "r", 1, 0), 0);
}

// Changes of every kind to what make_tree made.
static inline void change_tree(const char *path)
{
    AUTO(free) char *root = xstrdup(path); // path_of() keeps few
    put_file(path_of("%s/large", root), 3 * MIB, 70000);
    assert_int_equal(truncate(path_of("%s/small", root), 10), 0);
    AUTO(close) int fd = open(path_of("%s/clone", root), O_WRONLY | O_CLOEXEC);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, 2 * MIB), 0);
    put_clone(path_of("%s/large", root), path_of("%s/moved clone", root));
    assert_int_equal(unlink(path_of("%s/dir/file", root)), 0);
    assert_int_equal(rename(path_of("%s/dir", root), path_of("%s/names/dir", root)), 0);
    assert_int_equal(rename(path_of("%s/sticky", root), path_of("%s/dir", root)), 0);
    assert_int_equal(unlink(path_of("%s/fifo", root)), 0);
    assert_int_equal(mkdir(path_of("%s/fifo", root), 0700), 0);
    put_file(path_of("%s/fifo/was a fifo", root), 0, 50000);
    assert_int_equal(renameat2(AT_FDCWD, path_of("%s/acl", root), AT_FDCWD, path_of("%s/secret", root), RENAME_EXCHANGE), 0);
    assert_int_equal(removexattr(path_of("%s/secret", root), "user.large"), 0);
    assert_int_equal(setxattr(path_of("%s/secret", root), "user.empty", "not", 3, 0), 0);
    assert_int_equal(chown(path_of("%s/program", root), 1, 1), 0); // takes set-id bits and the capability away
    assert_int_equal(unlink(path_of("%s/absolute", root)), 0);
    assert_int_equal(symlink("elsewhere", path_of("%s/absolute", root)), 0);
    assert_int_equal(unlink(path_of("%s/null", root)), 0);
    assert_int_equal(chmod(root, 0700), 0);
}

// ---- comparison --------------------------------------------------------------------------------------------------------------

static inline void same_attributes(const char *a, const char *b)
{
    struct stat x, y;
    assert_int_equal(lstat(a, &x), 0);
    if (lstat(b, &y) < 0)
        fail_msg("%s is missing", b);
    bool same = x.st_mode == y.st_mode && x.st_uid == y.st_uid && x.st_gid == y.st_gid && x.st_rdev == y.st_rdev &&
                (S_ISDIR(x.st_mode) || x.st_nlink == y.st_nlink) && (S_ISDIR(x.st_mode) || x.st_size == y.st_size) &&
                x.st_mtim.tv_sec == y.st_mtim.tv_sec && x.st_mtim.tv_nsec == y.st_mtim.tv_nsec && x.st_atim.tv_sec == y.st_atim.tv_sec &&
                x.st_atim.tv_nsec == y.st_atim.tv_nsec;
    if (!same)
        fail_msg("%s and %s differ: mode %o %o, owner %u:%u %u:%u, links %lu %lu, size %ld %ld, mtime %ld.%09ld %ld.%09ld, "
                 "atime %ld.%09ld %ld.%09ld", a, b, x.st_mode, y.st_mode, x.st_uid, x.st_gid, y.st_uid, y.st_gid, (unsigned long)x.st_nlink, (unsigned long)y.st_nlink, (long)x.st_size,
            (long)y.st_size, (long)x.st_mtim.tv_sec, x.st_mtim.tv_nsec, (long)y.st_mtim.tv_sec, y.st_mtim.tv_nsec, (long)x.st_atim.tv_sec,
            x.st_atim.tv_nsec, (long)y.st_atim.tv_sec, y.st_atim.tv_nsec);
    if (S_ISREG(x.st_mode) && llabs((long long)x.st_blocks - y.st_blocks) > 16 + x.st_blocks / 50) // holes are holes
        fail_msg("%s has %ld blocks, %s has %ld", a, (long)x.st_blocks, b, (long)y.st_blocks);
}

static inline size_t count_names(const char *list, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += list[i] == '\0';
    return count;
}

static inline void same_xattrs(const char *a, const char *b)
{
    char names[4096], other[4096];
    ssize_t n = llistxattr(a, names, sizeof names), m = llistxattr(b, other, sizeof other);
    assert_true(n >= 0 && m >= 0);
    if (count_names(names, (size_t)n) != count_names(other, (size_t)m))
        fail_msg("%s and %s have other attributes", a, b);
    for (const char *name = names; name < names + n; name += strlen(name) + 1) {
        char x[16384], y[16384];
        ssize_t p = lgetxattr(a, name, x, sizeof x), q = lgetxattr(b, name, y, sizeof y);
        if (p < 0 || p != q || memcmp(x, y, (size_t)p) != 0)
            fail_msg("attribute %s of %s and %s differs", name, a, b);
    }
}

static inline void same_data(const char *a, const char *b)
{
    AUTO(close) int x = open(a, O_RDONLY | O_CLOEXEC);
    AUTO(close) int y = open(b, O_RDONLY | O_CLOEXEC);
    AUTO(free) char *p = xcalloc(1, MIB), *q = xcalloc(1, MIB);
    assert_true(x >= 0 && y >= 0);
    for (;;) {
        ssize_t n = read(x, p, MIB), m = read(y, q, MIB);
        assert_true(n >= 0);
        if (n != m || memcmp(p, q, (size_t)n) != 0)
            fail_msg("%s and %s have other contents", a, b);
        if (n == 0)
            return;
    }
}

static inline void same_entry(const char *a, const char *b)
{
    struct stat st;
    assert_int_equal(lstat(a, &st), 0);
    if (S_ISLNK(st.st_mode)) {
        char x[4096], y[4096];
        ssize_t n = readlink(a, x, sizeof x), m = readlink(b, y, sizeof y);
        assert_true(n > 0 && n == m && memcmp(x, y, (size_t)n) == 0);
    } else if (S_ISREG(st.st_mode)) {
        same_data(a, b);
    }
}

static inline size_t list_names(const char *path, char ***ret)
{
    size_t n = 0;
    char **names = NULL;
    AUTO(closedir) DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        names = xrealloc(names, n + 1, sizeof *names);
        names[n++] = xstrdup(d->d_name);
    }
    *ret = names;
    return n;
}

// Attributes before contents: reading changes the time of access where that isn't read-only.
static inline void same_tree(const char *a, const char *b)
{
    same_attributes(a, b);
    same_xattrs(a, b);
    struct stat st;
    assert_int_equal(lstat(a, &st), 0);
    if (!S_ISDIR(st.st_mode)) {
        same_entry(a, b);
        return;
    }
    char **names, **others;
    size_t n = list_names(a, &names), m = list_names(b, &others);
    if (n != m)
        fail_msg("%s has %zu entries, %s has %zu", a, n, b, m);
    for (size_t i = 0; i < n; i++) {
        AUTO(free) char *x = xasprintf("%s/%s", a, names[i]);
        AUTO(free) char *y = xasprintf("%s/%s", b, names[i]);
        same_tree(x, y);
        free(names[i]);
        free(others[i]);
    }
    free(names);
    free(others);
}

#endif
