// Included by the build before every file: functions that have a safe counterpart here do not compile.
#ifndef FLOCKER_BASE_BANNED_H
#define FLOCKER_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef sprintf // a macro of glibc's when clang compiles with _FORTIFY_SOURCE
#pragma GCC poison strcpy strcat sprintf vsprintf strncpy strncat strtok gets atoi atol atoll gmtime localtime system popen tmpnam mktemp

// Not poisoned, because OpenSSL's headers use the name for parameters: calling it is the error.
int rand(void) __attribute__((unavailable("use base/rng.h")));
void srand(unsigned seed) __attribute__((unavailable("use base/rng.h")));

#endif
