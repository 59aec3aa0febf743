#include "sys/send_apply.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define COPY_BYTES   (1U << 20)
#define WRITE_BEHIND (16U << 20)

struct send_apply {
    int root, base;
    struct send_apply_state state;
    // The directory and the regular file that were used last: streams use them many times in a row.
    int dir, file;
    char dir_path[SEND_PATH_BYTES_MAX + 1], file_path[SEND_PATH_BYTES_MAX + 1];
    uint64_t unwritten; // bytes that were given to the kernel since it was last told to begin
};

// An entry of a directory. The root itself is ".".
struct place {
    int dir; // of the struct send_apply, until its next search
    const char *name;
};

struct send_apply *send_apply_new(int root_fd, int base_fd, const struct send_apply_state *state)
{
    struct send_apply *a = xcalloc(1, sizeof *a);
    a->root = root_fd;
    a->base = base_fd;
    a->dir = a->file = -1;
    if (state)
        a->state = *state;
    return a;
}

static void forget_all(struct send_apply *a)
{
    auto_close(&a->dir);
    auto_close(&a->file);
    a->dir = a->file = -1;
}

void send_apply_free(struct send_apply *a)
{
    forget_all(a);
    free(a);
}

struct send_apply_state send_apply_state(const struct send_apply *a)
{
    return a->state;
}

// ---- paths -------------------------------------------------------------------------------------------------------------------

static int fail_command(const struct send_command *c, int err, struct error *e)
{
    // What the stream says doesn't fit what is there: it isn't the stream of what this is a copy of, or a hostile one.
    static const int strange[] = { ENOENT, ENOTDIR, EISDIR, ELOOP, EXDEV, EEXIST, ENOTEMPTY, EINVAL };
    for (size_t i = 0; i < ARRAY_SIZE(strange); i++)
        if (err == strange[i])
            return fail(e, E_CORRUPT, "send stream: %s \"%s\" doesn't fit what is there: %s", send_verb_word(c->verb), TEXT(c->path),
                strerror(err));
    return fail_os(e, err, "%s \"%s\"", send_verb_word(c->verb), TEXT(c->path));
}

static int open_beneath(int at, const char *path, uint64_t flags)
{
    const struct open_how how = {
        .flags = flags | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    return (int)syscall(SYS_openat2, at, path, &how, sizeof how);
}

static int search_by(struct send_apply *a, const char *path, struct place *ret)
{
    const char *slash = strrchr(path, '/');
    if (strlen(slash ? slash + 1 : path) > NAME_MAX)
        return ENAMETOOLONG;
    if (!slash) {
        *ret = (struct place){ a->root, *path ? path : "." };
        return 0;
    }
    size_t n = (size_t)(slash - path);
    if (a->dir < 0 || strncmp(a->dir_path, path, n) != 0 || a->dir_path[n] != '\0') {
        auto_close(&a->dir);
        memcpy(a->dir_path, path, n);
        a->dir_path[n] = '\0';
        a->dir = open_beneath(a->root, a->dir_path, O_PATH | O_DIRECTORY);
        if (a->dir < 0)
            return errno;
    }
    *ret = (struct place){ a->dir, slash + 1 };
    return 0;
}

static bool is_at_or_below(const char *path, const char *top)
{
    size_t n = strlen(top);
    return strncmp(path, top, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

// To be called when a path gets another meaning.
static void forget(struct send_apply *a, const char *path)
{
    if ((a->dir >= 0 && is_at_or_below(a->dir_path, path)) || (a->file >= 0 && is_at_or_below(a->file_path, path)))
        forget_all(a);
}

// Opens a regular file, and nothing else: to open a device or a FIFO has effects.
static int open_regular(int at, const char *name, int flags)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return openat(at, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

// 0: a->file is the one at `path`.
static int open_file(struct send_apply *a, const char *path)
{
    struct place p = { -1, "" };
    if (a->file >= 0 && strcmp(a->file_path, path) == 0)
        return 0;
    auto_close(&a->file);
    a->file = -1;
    int err = search_by(a, path, &p);
    if (err)
        return err;
    a->file = open_regular(p.dir, p.name, O_RDWR);
    memcpy(a->file_path, path, strlen(path) + 1);
    return a->file < 0 ? errno : 0;
}

// ---- names: each returns 0 or an errno value -----------------------------------------------------------------------------------

static int apply_mkfile(struct send_apply *a, const struct send_command *c, struct place p)
{
    int fd = openat(p.dir, p.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    auto_close(&a->file);
    a->file = fd;
    memcpy(a->file_path, c->path, strlen(c->path) + 1);
    return 0;
}

static int apply_mkdir(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a, (void)c;
    return mkdirat(p.dir, p.name, 0700) < 0 ? errno : 0;
}

static int make_node(struct place p, mode_t type, uint64_t device)
{
    return mknodat(p.dir, p.name, type | 0600, (dev_t)device) < 0 ? errno : 0;
}

static int apply_mknod(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    mode_t type = c->mode & S_IFMT;
    // The kernel writes the device's number as Linux's 32 bits, which are the lower ones of the C library's.
    return type == S_IFCHR || type == S_IFBLK ? make_node(p, type, c->rdev) : EINVAL;
}

static int apply_mkfifo(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a, (void)c;
    return make_node(p, S_IFIFO, 0);
}

static int apply_mksock(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a, (void)c;
    return make_node(p, S_IFSOCK, 0);
}

static int apply_symlink(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    return symlinkat(c->other, p.dir, p.name) < 0 ? errno : 0;
}

// Where the command's other path is, with a descriptor of its own for the directory: `p` of the first keeps its own.
static int search_other(struct send_apply *a, const char *path, int *ret_dir, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    AUTO(free) char *dir = xstrndup(path, slash ? (size_t)(slash - path) : 0);
    *ret_dir = open_beneath(a->root, slash ? dir : ".", O_PATH | O_DIRECTORY);
    *ret_name = slash ? slash + 1 : path;
    return *ret_dir < 0 ? errno : **ret_name ? 0 : EINVAL;
}

static int apply_rename(struct send_apply *a, const struct send_command *c, struct place p)
{
    AUTO(close) int dir = -1;
    const char *name;
    int err = search_other(a, c->other, &dir, &name);
    if (err == 0 && renameat(p.dir, p.name, dir, name) < 0)
        err = errno;
    bool is_open = a->file >= 0 && strcmp(a->file_path, c->path) == 0;
    int file = is_open ? TAKE(a->file, -1) : -1;
    forget(a, c->path);
    forget(a, c->other);
    if (err == 0 && is_open && a->file < 0) { // a new file gets its name, and then its data
        a->file = TAKE(file, -1);
        memcpy(a->file_path, c->other, strlen(c->other) + 1);
    }
    auto_close(&file);
    return err;
}

static int apply_link(struct send_apply *a, const struct send_command *c, struct place p)
{
    AUTO(close) int dir = -1;
    const char *name;
    int err = search_other(a, c->other, &dir, &name);
    return err == 0 && linkat(dir, name, p.dir, p.name, 0) < 0 ? errno : err;
}

static int remove_name(struct send_apply *a, const struct send_command *c, struct place p, int flags)
{
    int err = unlinkat(p.dir, p.name, flags) < 0 ? errno : 0;
    forget(a, c->path);
    return err;
}

static int apply_unlink(struct send_apply *a, const struct send_command *c, struct place p)
{
    return remove_name(a, c, p, 0);
}

static int apply_rmdir(struct send_apply *a, const struct send_command *c, struct place p)
{
    return remove_name(a, c, p, AT_REMOVEDIR);
}

// ---- attributes --------------------------------------------------------------------------------------------------------------

// There is no call that takes a directory, a name and an attribute before Linux 6.13; this path doesn't follow the name either.
static const char *xattr_path(struct place p, char ret[64 + NAME_MAX])
{
    snprintf(ret, 64 + NAME_MAX, "/proc/self/fd/%d/%s", p.dir, p.name);
    return ret;
}

static int apply_set_xattr(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    return lsetxattr(xattr_path(p, (char[64 + NAME_MAX]){ 0 }), c->xattr, c->data, c->n, 0) < 0 ? errno : 0;
}

static int apply_remove_xattr(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    // Gone already: the kernel took a capability away with a change of owner that came before.
    return lremovexattr(xattr_path(p, (char[64 + NAME_MAX]){ 0 }), c->xattr) < 0 && errno != ENODATA ? errno : 0;
}

static int apply_chmod(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    struct stat st;
    if (fstatat(p.dir, p.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    if (S_ISLNK(st.st_mode))
        return EINVAL;
    return fchmodat(p.dir, p.name, c->mode, 0) < 0 ? errno : 0;
}

static int apply_chown(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a;
    return fchownat(p.dir, p.name, c->uid, c->gid, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

static int apply_utimes(struct send_apply *a, const struct send_command *c, struct place p)
{
    const struct timespec times[] = { c->atime, c->mtime };
    if (!*c->path)
        memcpy(a->state.root_times, times, sizeof times);
    return utimensat(p.dir, p.name, times, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

// Flags of chattr(1) don't travel. Kernels up to 6.18 don't send them.
static int apply_fileattr(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)a, (void)c, (void)p;
    return 0;
}

// ---- data: a->file is open ---------------------------------------------------------------------------------------------------

static int write_at(int fd, const uint8_t *data, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t done = pwrite(fd, data, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        data += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static bool is_zero(const uint8_t *data, size_t n)
{
    return n > 0 && data[0] == 0 && memcmp(data, data + 1, n - 1) == 0;
}

static int make_hole(int fd, uint64_t offset, size_t n)
{
    struct stat st;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n) < 0 || fstat(fd, &st) < 0)
        return errno;
    return (uint64_t)st.st_size < offset + n && ftruncate(fd, (off_t)(offset + n)) < 0 ? errno : 0;
}

// Has the kernel begin to write, and waits for nothing: the disk works while more comes, and not only when all is to be durable.
static void write_behind(struct send_apply *a, size_t n)
{
    a->unwritten += n;
    if (a->unwritten < WRITE_BEHIND)
        return;
    a->unwritten = 0;
    (void)sync_file_range(a->file, 0, 0, SYNC_FILE_RANGE_WRITE); // only for speed; errors show when it is made durable
}

static int apply_write(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)p;
    if (a->base >= 0 && is_zero(c->data, c->n))
        return make_hole(a->file, c->offset, c->n);
    int err = write_at(a->file, c->data, c->n, c->offset);
    if (err == 0)
        write_behind(a, c->n);
    return err;
}

static int apply_truncate(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)p;
    return ftruncate(a->file, (off_t)c->length) < 0 ? errno : 0;
}

static int apply_fallocate(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)p;
    const uint64_t known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if (c->flags & ~known)
        return EINVAL;
    return fallocate(a->file, (int)c->flags, (off_t)c->offset, (off_t)c->length) < 0 ? errno : 0;
}

// Opens the file that a clone shares its extents with. Not a->file: the two may be one.
static int open_source(struct send_apply *a, const struct send_command *c, int *ret)
{
    int top = -1;
    if (memcmp(&c->from, &a->state.self, sizeof c->from) == 0)
        top = a->root;
    else if (a->base >= 0 && memcmp(&c->from, &a->state.base, sizeof c->from) == 0)
        top = a->base;
    if (top < 0)
        return EXDEV;
    AUTO(close) int dir = -1;
    const char *slash = strrchr(c->other, '/');
    AUTO(free) char *parent = xstrndup(c->other, slash ? (size_t)(slash - c->other) : 0);
    if (slash && (dir = open_beneath(top, parent, O_PATH | O_DIRECTORY)) < 0)
        return errno;
    *ret = open_regular(slash ? dir : top, slash ? slash + 1 : c->other, O_RDONLY);
    return *ret < 0 ? errno : 0;
}

static int copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n)
{
    AUTO(free) uint8_t *buffer = xcalloc(1, COPY_BYTES);
    while (n > 0) {
        ssize_t got = pread(from, buffer, n < COPY_BYTES ? n : COPY_BYTES, (off_t)from_offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EINVAL; // the source ends before that
        int err = write_at(to, buffer, (size_t)got, to_offset);
        if (err)
            return err;
        n -= (uint64_t)got;
        from_offset += (uint64_t)got;
        to_offset += (uint64_t)got;
    }
    return 0;
}

static int apply_clone(struct send_apply *a, const struct send_command *c, struct place p)
{
    (void)p;
    AUTO(close) int from = -1;
    int err = open_source(a, c, &from);
    if (err || c->length == 0)
        return err; // a length of zero would mean all of it
    const struct file_clone_range range = { from, c->other_offset, c->length, c->offset };
    if (ioctl(a->file, FICLONERANGE, &range) == 0)
        return 0;
    // Files with and without copy-on-write can't share; an end that isn't a block's only at the end of both.
    return errno == EINVAL || errno == EOPNOTSUPP ? copy_range(from, c->other_offset, a->file, c->offset, c->length) : errno;
}

// ---- all ---------------------------------------------------------------------------------------------------------------------

enum need { NEED_NAME, NEED_ANY, NEED_FILE }; // an entry other than the root; also the root; a regular file, opened

static const struct {
    int (*apply)(struct send_apply *a, const struct send_command *c, struct place p);
    enum need need;
} actions[SEND_VERB_END] = {
    [SEND_MKFILE] = { apply_mkfile, NEED_NAME },
    [SEND_MKDIR] = { apply_mkdir, NEED_NAME },
    [SEND_MKNOD] = { apply_mknod, NEED_NAME },
    [SEND_MKFIFO] = { apply_mkfifo, NEED_NAME },
    [SEND_MKSOCK] = { apply_mksock, NEED_NAME },
    [SEND_SYMLINK] = { apply_symlink, NEED_NAME },
    [SEND_RENAME] = { apply_rename, NEED_NAME },
    [SEND_LINK] = { apply_link, NEED_NAME },
    [SEND_UNLINK] = { apply_unlink, NEED_NAME },
    [SEND_RMDIR] = { apply_rmdir, NEED_NAME },
    [SEND_SET_XATTR] = { apply_set_xattr, NEED_ANY },
    [SEND_REMOVE_XATTR] = { apply_remove_xattr, NEED_ANY },
    [SEND_WRITE] = { apply_write, NEED_FILE },
    [SEND_CLONE] = { apply_clone, NEED_FILE },
    [SEND_TRUNCATE] = { apply_truncate, NEED_FILE },
    [SEND_CHMOD] = { apply_chmod, NEED_ANY },
    [SEND_CHOWN] = { apply_chown, NEED_ANY },
    [SEND_UTIMES] = { apply_utimes, NEED_ANY },
    [SEND_FALLOCATE] = { apply_fallocate, NEED_FILE },
    [SEND_FILEATTR] = { apply_fileattr, NEED_ANY },
};

static int start(struct send_apply *a, const struct send_command *c, struct error *e)
{
    if (c->verb != (a->base >= 0 ? SEND_SNAPSHOT : SEND_SUBVOLUME))
        return fail(e, E_CORRUPT, "send stream: it starts with %s where %s is due", send_verb_word(c->verb),
            a->base >= 0 ? "an increment" : "a whole subvolume");
    struct stat st;
    if (fstat(a->root, &st) < 0)
        return fail_os(e, errno, "look at the root of a copy");
    a->state = (struct send_apply_state){ true, c->self, c->from, { st.st_atim, st.st_mtim } };
    return 0;
}

// Streams make new files in the root, from where they are renamed, and don't tell its times if they have not changed at the source.
static int finish(struct send_apply *a, struct error *e)
{
    forget_all(a);
    return futimens(a->root, a->state.root_times) < 0 ? fail_os(e, errno, "set the times of the root of a copy") : 0;
}

static int act(struct send_apply *a, const struct send_command *c)
{
    struct place p = { -1, NULL };
    if (actions[c->verb].need == NEED_FILE) {
        int err = open_file(a, c->path);
        return err ? err : actions[c->verb].apply(a, c, p);
    }
    int err = search_by(a, c->path, &p);
    if (err == 0 && actions[c->verb].need == NEED_NAME && !*c->path)
        err = EINVAL;
    return err ? err : actions[c->verb].apply(a, c, p);
}

int send_apply_command(void *arg, const struct send_command *c, struct error *e)
{
    struct send_apply *a = arg;
    if (!a->state.has_started)
        return start(a, c, e);
    if (c->verb == SEND_END)
        return finish(a, e);
    if (!actions[c->verb].apply)
        return fail(e, E_CORRUPT, "send stream: %s isn't expected here", send_verb_word(c->verb));
    int err = act(a, c);
    return err ? fail_command(c, err, e) : 0;
}
