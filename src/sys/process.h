// Other processes, as /proc shows them.
#ifndef FLOCKER_SYS_PROCESS_H
#define FLOCKER_SYS_PROCESS_H

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// Start time of a process in clock ticks since boot (proc(5), stat, field 22); 0 if there is no such process or it is a zombie. With the
// pid it names a process for the whole time since boot.
uint64_t process_start(pid_t pid);
// A descriptor that becomes readable when the process ends; -1 if it has ended or the kernel can't (before 5.3).
int process_watch(pid_t pid);
// Whether a control group of the process has `name` in its path.
bool process_in_cgroup(pid_t pid, const char *name);
// The kernel's boot id (/proc/sys/kernel/random/boot_id): the era of a node. Zero if it can't be read.
struct uuid process_boot_id(void);

#endif
