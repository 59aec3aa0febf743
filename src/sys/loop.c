#include "sys/loop.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ATTEMPTS 64 // others may take the free device between our question and our claim

DEFINE_AUTO(DIR *, closedir)

// 1: the device at `path` is over that file. A device that goes while we look is none.
static int is_over(const char *path, const struct stat *st)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct loop_info64 info;
    if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
        return 0;
    return info.lo_device == st->st_dev && info.lo_inode == st->st_ino;
}

int loop_find(const struct stat *st, char ret_path[LOOP_PATH_SIZE], struct error *e)
{
    AUTO(closedir) DIR *dir = opendir("/sys/block");
    if (!dir)
        return fail_os(e, errno, "open /sys/block");
    struct dirent *d;
    while ((d = readdir(dir))) {
        char path[LOOP_PATH_SIZE], bound[300];
        if (strncmp(d->d_name, "loop", 4) != 0 || strlen(d->d_name) >= sizeof path - sizeof "/dev/")
            continue;
        // The folder is there only while the device has a file; most have none and needn't be opened.
        snprintf(bound, sizeof bound, "/sys/block/%s/loop", d->d_name);
        if (access(bound, F_OK) < 0)
            continue;
        snprintf(path, sizeof path, "/dev/%.*s", (int)(sizeof path - sizeof "/dev/"), d->d_name);
        if (!is_over(path, st))
            continue;
        memcpy(ret_path, path, sizeof path);
        return 1;
    }
    return 0;
}

static int configure(int loop_fd, int file_fd, const char *file_name)
{
    struct loop_config config = { .fd = (__u32)file_fd, .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO };
    snprintf((char *)config.info.lo_file_name, sizeof config.info.lo_file_name, "%s", file_name);
    if (ioctl(loop_fd, LOOP_CONFIGURE, &config) == 0)
        return 0;
    if (errno != EINVAL)
        return errno;
    // Kernels differ in whether direct I/O over a file that can't do it is ignored or refused.
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    return ioctl(loop_fd, LOOP_CONFIGURE, &config) == 0 ? 0 : errno;
}

int loop_attach(int file_fd, const char *file_name, char ret_path[LOOP_PATH_SIZE], int *ret_fd, struct error *e)
{
    AUTO(close) int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return fail_os(e, errno, "open /dev/loop-control (is the kernel module loop loaded?)");
    for (int i = 0; i < ATTEMPTS; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return fail_os(e, errno, "find a free loop device");
        char path[LOOP_PATH_SIZE];
        snprintf(path, sizeof path, "/dev/loop%d", number);
        AUTO(close) int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 && (errno == ENXIO || errno == EBUSY))
            continue; // being torn down by its former user
        if (fd < 0)
            return fail_os(e, errno, "open %s", path);
        int err = configure(fd, file_fd, file_name);
        if (err == EBUSY)
            continue;
        if (err != 0)
            return fail_os(e, err, "make %s a device over %s", path, file_name);
        memcpy(ret_path, path, sizeof path);
        *ret_fd = TAKE(fd, -1);
        return 0;
    }
    return fail(e, E_UNAVAILABLE, "no loop device for %s: others took each free one; try again", file_name);
}

int loop_set_capacity(const char *path, struct error *e)
{
    AUTO(close) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail_os(e, errno, "open %s", path);
    if (ioctl(fd, LOOP_SET_CAPACITY, 0) < 0)
        return fail_os(e, errno, "tell %s its new size", path);
    return 0;
}
