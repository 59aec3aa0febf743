// The mount table of a mount namespace, as /proc/PID/mountinfo tells it.
#ifndef FLOCKER_SYS_MOUNTINFO_H
#define FLOCKER_SYS_MOUNTINFO_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct mountinfo_entry {
    int id, parent;
    unsigned major, minor;   // of the file system; stat's st_dev differs from it below a btrfs subvolume
    const char *root;        // the folder of the file system that is mounted, "/" for all of it
    const char *mount_point; // as seen from the root of the process asked about
    const char *type, *source;
    int shared, master;      // peer groups: that it is a member of, and that it gets events from; 0: none
};

struct mountinfo {
    size_t n;
    struct mountinfo_entry *entries; // in the order of the file: what was mounted later comes later, mostly
    char *text;                      // entries point into it
};

void mountinfo_done(struct mountinfo *m);
// Takes ownership of `text` (from malloc), also on failure. E_CORRUPT if a line isn't what the kernel writes.
int mountinfo_parse(char *text, struct mountinfo *ret, struct error *e);
int mountinfo_read(const char *path, struct mountinfo *ret, struct error *e); // "/proc/PID/mountinfo"
int mountinfo_read_self(struct mountinfo *ret, struct error *e);

// The topmost mount at exactly that path; NULL if there is none.
const struct mountinfo_entry *mountinfo_at(const struct mountinfo *m, const char *mount_point);
const struct mountinfo_entry *mountinfo_by_id(const struct mountinfo *m, int id);
// Whether `path` is `top` or lies below it.
bool mountinfo_is_below(const char *path, const char *top);

static inline void auto_mountinfo_done(struct mountinfo *m)
{
    mountinfo_done(m);
}

#endif
