#include "sys/process.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

// Reads a small file of /proc into `ret`; false if that fails.
static bool read_small(const char *path, char *ret, size_t size)
{
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
    if (n < 0)
        return false;
    ret[n] = '\0';
    return true;
}

uint64_t process_start(pid_t pid)
{
    char path[40], stat[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (pid <= 0 || !read_small(path, stat, sizeof stat))
        return 0;
    char *p = strrchr(stat, ')'); // the command before it may hold anything
    if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
        return 0;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

bool process_in_cgroup(pid_t pid, const char *name)
{
    char path[40], groups[4096];
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    return pid > 0 && read_small(path, groups, sizeof groups) && strstr(groups, name);
}

int process_watch(pid_t pid)
{
    return pidfd_open(pid, 0);
}

struct uuid process_boot_id(void)
{
    char text[64] = "";
    struct uuid id = { { 0 } };
    if (read_small("/proc/sys/kernel/random/boot_id", text, sizeof text)) {
        text[strcspn(text, "\n")] = '\0';
        uuid_parse(text, &id);
    }
    return id;
}
