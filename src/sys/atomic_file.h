// Small files that are either whole or the former version, whatever happens.
#ifndef FLOCKER_SYS_ATOMIC_FILE_H
#define FLOCKER_SYS_ATOMIC_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

// Replaces (or makes) `name` below the directory `dir_fd`: writes "<name>.tmp", fsyncs, renames, fsyncs the directory.
// One writer per name at a time: callers hold a lock. What a killed writer left as ".tmp" is overwritten by the next.
int atomic_file_write(int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e);

// Makes the new file `name` and fsyncs it, but not the directory: for files in a directory that isn't to be seen yet.
int atomic_file_create(int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e);
// The same with something else in place of fsync.
int atomic_file_create_by(int (*sync)(int fd), int dir_fd, const char *name, const void *data, size_t n, mode_t mode, struct error *e);

// Reads a whole regular file of at most `max` bytes; *ret is owned by the caller and has a NUL after its *ret_n bytes.
// E_NOT_FOUND, E_TOO_LARGE; E_CORRUPT if it isn't a regular file (symbolic links are not followed).
int atomic_file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_n, struct error *e);

// Reads a file of /proc or /sys, whose size is unknown until it is read. Same results.
int atomic_file_read_pseudo(const char *path, size_t max, char **ret, size_t *ret_n, struct error *e);

// All of `data`, however often the kernel takes only a part. 0, or an errno value.
int write_all(int fd, const void *data, size_t n);

#endif
