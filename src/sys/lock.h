// Locks on bytes of a file, held by an open file description (OFD): they vanish with the last descriptor of it, also by kill -9,
// and unlike POSIX locks not earlier. A fork shares them; an open of its own does not.
#ifndef FLOCKER_SYS_LOCK_H
#define FLOCKER_SYS_LOCK_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

// Locks the byte at `offset` of `fd` (open for writing) exclusively. Waits up to wait_ms.
// 1: locked, 0: somebody else has it. Errors of the system are negative.
int lock_byte(int fd, uint64_t offset, int64_t wait_ms, struct error *e);

// The same, but the lock is the process's, not the description's: a fork does not have it, and others can ask who holds it. It ends with
// the process, or when the process closes any descriptor of the file: so let it have one only, and close that last.
int lock_process(int fd, uint64_t offset, int64_t wait_ms, struct error *e);

// The process that has locked that byte by lock_process; 0 if none has. -1 if it can't be told, or its number means nothing here (another
// pid namespace).
pid_t lock_holder(int fd, uint64_t offset);
void lock_release(int fd, uint64_t offset); // of lock_process, before its end

// The same as lock_byte for a file on a read-only file system, where a descriptor for writing is not to be had: locks the whole file.
int lock_whole(int fd, int64_t wait_ms, struct error *e);

#endif
