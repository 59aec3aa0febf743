// What a device or image holds, before anyone writes to it.
#ifndef FLOCKER_SYS_BLKID_H
#define FLOCKER_SYS_BLKID_H

#include "base/error.h"

struct blkid_content {
    char what[64];   // "a btrfs file system", "a gpt partition table", "several signatures that contradict each other"
    char type[32];   // "btrfs"; "" if it isn't a file system or not certain
    char label[256]; // of the file system
};

// 0: nothing that is known; 1: *ret says what. Looks for all signatures and takes no guess: what is ambivalent holds something.
int blkid_look(int fd, struct blkid_content *ret, struct error *e);

#endif
