// Loop devices: a regular file as a block device.
#ifndef FLOCKER_SYS_LOOP_H
#define FLOCKER_SYS_LOOP_H

#include "base/error.h"

#include <sys/stat.h>

#define LOOP_PATH_SIZE 32

// Finds the loop device that is backed by the file `st` is of, by device and inode: paths lie (renames, mount namespaces).
// 1: ret_path is it; 0: there is none.
int loop_find(const struct stat *st, char ret_path[LOOP_PATH_SIZE], struct error *e);

// Makes a loop device over the open file: direct I/O where its file system can do that, and autoclear, so that the device goes
// with its last user. *ret_fd keeps it until it is mounted; the caller closes it afterwards.
int loop_attach(int file_fd, const char *file_name, char ret_path[LOOP_PATH_SIZE], int *ret_fd, struct error *e);

// Tells the device that its file has another size.
int loop_set_capacity(const char *path, struct error *e);

#endif
