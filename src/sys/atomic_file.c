#include "sys/atomic_file.h"

#include "base/failpoint.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int write_all(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

int atomic_file_create_by(int (*sync)(int fd), int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e)
{
    AUTO(close) int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return fail_os(e, errno, "create %s", name);
    int err = write_all(fd, data, n);
    if (err == 0 && sync(fd) < 0)
        err = errno;
    if (err == 0)
        return 0;
    unlinkat(dir_fd, name, 0);
    return fail_os(e, err, "write %s", name);
}

int atomic_file_create(int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e)
{
    return atomic_file_create_by(fsync, dir_fd, name, data, n, mode, e);
}

int atomic_file_write(int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e)
{
    char tmp[NAME_MAX + 1];
    int length = snprintf(tmp, sizeof tmp, "%s.tmp", name);
    ASSERT(length > 0 && (size_t)length < sizeof tmp);
    if (unlinkat(dir_fd, tmp, 0) < 0 && errno != ENOENT)
        return fail_os(e, errno, "remove %s", tmp);
    int rc = atomic_file_create(dir_fd, tmp, data, n, mode, e);
    if (rc < 0)
        return rc;
    FAILPOINT(FILE_WRITTEN);
    if (renameat(dir_fd, tmp, dir_fd, name) < 0) {
        int err = errno;
        unlinkat(dir_fd, tmp, 0);
        return fail_os(e, err, "replace %s", name);
    }
    FAILPOINT(FILE_RENAMED);
    if (fsync(dir_fd) < 0)
        return fail_os(e, errno, "make %s durable", name);
    return 0;
}

static int read_up_to(int fd, const char *name, size_t max, char **ret, size_t *ret_n, struct error *e)
{
    size_t n = 0, room = 4096;
    AUTO(free) char *text = xcalloc(1, room + 1);
    for (;;) {
        ssize_t got = read(fd, text + n, room - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_os(e, errno, "read %s", name);
        if (got == 0)
            break;
        n += (size_t)got;
        if (n > max)
            return fail(e, E_TOO_LARGE, "%s is larger than %zu bytes", name, max);
        if (n == room) {
            room *= 2;
            text = xrealloc(text, room + 1, 1);
        }
    }
    text[n] = '\0';
    *ret = TAKE(text, NULL);
    *ret_n = n;
    return 0;
}

int atomic_file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_n, struct error *e)
{
    // O_NONBLOCK: a FIFO in place of the file must not hang us.
    AUTO(close) int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ELOOP)
        return fail(e, E_CORRUPT, "%s is a symbolic link", name);
    if (fd < 0)
        return fail_os(e, errno, "open %s", name);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fail_os(e, errno, "look at %s", name);
    if (!S_ISREG(st.st_mode))
        return fail(e, E_CORRUPT, "%s is not a regular file", name);
    return read_up_to(fd, name, max, ret, ret_n, e);
}

int atomic_file_read_pseudo(const char *path, size_t max, char **ret, size_t *ret_n, struct error *e)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_os(e, errno, "open %s", path);
    return read_up_to(fd, path, max, ret, ret_n, e);
}
