// Carries out the commands of a send stream in a directory, which is the root of a subvolume. Not `btrfs receive`, for three reasons: a
// stream may be taken up in its middle, a directory's flags must be there before the first file, and a stream is a stranger's: no path of
// it leads out of the directory (openat2 with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV), nothing but regular files is
// opened, and what it shares extents with is the directory itself or the base, whatever it names.
//
// Nobody else may work in the directory meanwhile. Everything arrives as it was, but for what a stream doesn't tell or a file system
// doesn't take: times of change and birth, flags of chattr(1), room that was reserved and not written. Ranges of zeros in an increment
// become holes: that is how the kernel tells that a hole was made. A file on which extents can't be shared gets a copy of the bytes.
#ifndef FLOCKER_SYS_SEND_APPLY_H
#define FLOCKER_SYS_SEND_APPLY_H

#include "sys/send_stream.h"

// What must be known to go on in the middle; plain data.
struct send_apply_state {
    bool has_started; // the first command was seen
    struct send_id self, base;
    struct timespec root_times[2]; // of access and change, as they are to be at the end
};

struct send_apply;

// root_fd: the subvolume, writable; base_fd: the one, of which root_fd began as a snapshot, that an increment builds on, or -1. Both
// are borrowed for the life of it. With `state` it goes on; NULL: from the start.
struct send_apply *send_apply_new(int root_fd, int base_fd, const struct send_apply_state *state);
void send_apply_free(struct send_apply *a);
// A send_callback; `arg` is the struct send_apply. E_CORRUPT for what no kernel sends, E_NO_SPACE, E_IO, ...; the path is in the message.
int send_apply_command(void *arg, const struct send_command *c, struct error *e);
struct send_apply_state send_apply_state(const struct send_apply *a);

DEFINE_AUTO(struct send_apply *, send_apply_free)

#endif
