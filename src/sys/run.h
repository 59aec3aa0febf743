// Other programs, run without a shell.
#ifndef FLOCKER_SYS_RUN_H
#define FLOCKER_SYS_RUN_H

#include "base/error.h"

// Runs argv[0], found by PATH or in the usual places of system programs, with no input, and waits. 0 if it exits with 0; otherwise the
// message has the last line that it wrote. It dies with the process that started it.
int run_program(const char *const argv[], struct error *e);

// The same, but what it writes, to standard output or error, goes to *ret: at most `max` bytes, NUL-terminated, the caller's. 0 however it
// ends; a program that is killed because `timeout_ms` has passed has said so at the end. E_UNSUPPORTED: it can't be run.
int run_capture(const char *const argv[], size_t max, int timeout_ms, char **ret, struct error *e);

#endif
