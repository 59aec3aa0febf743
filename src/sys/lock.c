#include "sys/lock.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <time.h>

// Calls `try` until it succeeds or the time is over. A blocking lock call could only be ended by a signal: so wait by naps, short
// ones first, because most holders are done within milliseconds.
static int wait_for(bool (*try)(int fd, uint64_t offset), int fd, uint64_t offset, int64_t wait_ms, struct error *e)
{
    int64_t end = clock_boot_ms() + wait_ms;
    for (long nap_us = 1000;; nap_us = nap_us < 20000 ? nap_us * 2 : nap_us) {
        if (try(fd, offset))
            return 1;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return fail_os(e, errno, "lock");
        if (clock_boot_ms() >= end)
            return 0;
        nanosleep(&(struct timespec){ .tv_nsec = nap_us * 1000 }, NULL);
    }
}

static struct flock one_byte(uint64_t offset)
{
    return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1 };
}

static bool try_byte(int fd, uint64_t offset)
{
    struct flock range = one_byte(offset);
    return fcntl(fd, F_OFD_SETLK, &range) == 0;
}

static bool try_process(int fd, uint64_t offset)
{
    struct flock range = one_byte(offset);
    return fcntl(fd, F_SETLK, &range) == 0;
}

static bool try_whole(int fd, uint64_t offset)
{
    (void)offset;
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

int lock_byte(int fd, uint64_t offset, int64_t wait_ms, struct error *e)
{
    return wait_for(try_byte, fd, offset, wait_ms, e);
}

int lock_process(int fd, uint64_t offset, int64_t wait_ms, struct error *e)
{
    return wait_for(try_process, fd, offset, wait_ms, e);
}

pid_t lock_holder(int fd, uint64_t offset)
{
    struct flock range = one_byte(offset);
    if (fcntl(fd, F_GETLK, &range) < 0)
        return -1;
    return range.l_type == F_UNLCK ? 0 : range.l_pid > 0 ? range.l_pid : -1;
}

void lock_release(int fd, uint64_t offset)
{
    struct flock range = one_byte(offset);
    range.l_type = F_UNLCK;
    fcntl(fd, F_SETLK, &range);
}

int lock_whole(int fd, int64_t wait_ms, struct error *e)
{
    return wait_for(try_whole, fd, 0, wait_ms, e);
}
