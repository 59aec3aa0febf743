// Included by the build before every file: functions that have a safe counterpart here do not compile.
#ifndef FLOCKER_BASE_BANNED_H
#define FLOCKER_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strncpy strncat strtok gets atoi atol atoll gmtime localtime system popen rand srand tmpnam mktemp

#endif
