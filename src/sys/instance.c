#include "sys/instance.h"

#include "base/clock.h"
#include "base/mem.h"
#include "sys/lock.h"

#include <errno.h>
#include <fcntl.h>

#define WAIT_MS 10000
#define LOOK_MS 20 // how often the other process is looked at meanwhile

enum lock_of { LIFE, SERVICE }; // offsets in the file

int instance_take(const char *path, int *ret_fd, struct error *e)
{
    AUTO(close) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_os(e, errno, "open %s", path);
    for (int64_t end_ms = clock_boot_ms() + WAIT_MS;;) {
        int rc = lock_process(fd, LIFE, LOOK_MS, e);
        pid_t pid = lock_holder(fd, LIFE);
        if (rc < 0)
            return fail_ctx(e, rc, "%s", path);
        if (rc > 0) {
            *ret_fd = TAKE(fd, -1);
            return 0;
        }
        if (lock_holder(fd, SERVICE) || clock_boot_ms() >= end_ms)
            return fail(e, E_BUSY, "process %d is running here already (it holds %s); `flocker down` stops it", (int)pid, path);
    }
}

void instance_serve(int fd)
{
    struct error ignored; // nobody else may have it: LIFE is ours
    lock_process(fd, SERVICE, 0, &ignored);
}

void instance_leave(int fd)
{
    lock_release(fd, SERVICE);
}

struct instance instance_find(const char *path)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return (struct instance){ errno == ENOENT ? 0 : -1, false };
    return (struct instance){ lock_holder(fd, LIFE), lock_holder(fd, SERVICE) != 0 };
}
