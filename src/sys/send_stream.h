// Parser of btrfs send streams, protocols 1 and 2: what BTRFS_IOC_SEND writes. The format is that of the kernel's fs/btrfs/send.h and of
// "Send stream format" in the documentation of btrfs-progs; nothing here knows a file system.
//
// A stream is a header (magic, version) and commands; a command is a length, a number, a CRC-32C, and attributes, each a number, a
// length and bytes, little-endian all. Data, in protocol 2, has no length: it is the rest of its command. A stream ends with SEND_END.
//
// The parser is fed with any cut of the bytes, in one thread. It lets through only what a kernel can have meant: commands of the stream's
// protocol, with all attributes that they need and none that they don't know, each once; paths without NUL, "." and ".." or empty
// components, of at most SEND_PATH_BYTES_MAX bytes; commands of at most SEND_COMMAND_BYTES_MAX bytes; the right checksum. Anything else is
// E_CORRUPT, with the place in the stream. What remains for the one who carries it out: whether the paths are there, and of what kind.
#ifndef FLOCKER_SYS_SEND_STREAM_H
#define FLOCKER_SYS_SEND_STREAM_H

#include "base/error.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define SEND_VERSION_MAX  2
#define SEND_HEADER_BYTES 17

//    command           its word       number
#define SEND_COMMAND_TABLE(X) \
    X(SEND_SUBVOLUME,     "subvolume",     1) /* first of a whole stream: path, self */ \
    X(SEND_SNAPSHOT,      "snapshot",      2) /* first of an increment: path, self, from */ \
    X(SEND_MKFILE,        "mkfile",        3) /* path */ \
    X(SEND_MKDIR,         "mkdir",         4) /* path */ \
    X(SEND_MKNOD,         "mknod",         5) /* path, mode, rdev */ \
    X(SEND_MKFIFO,        "mkfifo",        6) /* path */ \
    X(SEND_MKSOCK,        "mksock",        7) /* path */ \
    X(SEND_SYMLINK,       "symlink",       8) /* path, other: what is in it */ \
    X(SEND_RENAME,        "rename",        9) /* path, other: the new one */ \
    X(SEND_LINK,          "link",         10) /* path: the new one, other: the one that is there */ \
    X(SEND_UNLINK,        "unlink",       11) /* path */ \
    X(SEND_RMDIR,         "rmdir",        12) /* path */ \
    X(SEND_SET_XATTR,     "set-xattr",    13) /* path, xattr, data */ \
    X(SEND_REMOVE_XATTR,  "remove-xattr", 14) /* path, xattr */ \
    X(SEND_WRITE,         "write",        15) /* path, offset, data */ \
    X(SEND_CLONE,         "clone",        16) /* path, offset, length; from, other, other_offset: what is to be shared */ \
    X(SEND_TRUNCATE,      "truncate",     17) /* path, length */ \
    X(SEND_CHMOD,         "chmod",        18) /* path, mode */ \
    X(SEND_CHOWN,         "chown",        19) /* path, uid, gid */ \
    X(SEND_UTIMES,        "utimes",       20) /* path, atime, mtime */ \
    X(SEND_END,           "end",          21) /* nothing follows */ \
    X(SEND_UPDATE_EXTENT, "update-extent", 22) /* path, offset, length: of a stream without data */ \
    X(SEND_FALLOCATE,     "fallocate",    23) /* path, offset, length, flags: of fallocate(2) */ \
    X(SEND_FILEATTR,      "fileattr",     24) /* path, flags: of btrfs's inode */ \
    X(SEND_ENCODED_WRITE, "encoded-write", 25) /* path, offset, data: compressed; only if it was asked for */

enum send_verb {
#define X(verb, word, number) verb = number,
    SEND_COMMAND_TABLE(X)
#undef X
    SEND_VERB_END
};

struct send_id { // of a subvolume, at a state
    uint8_t uuid[16];
    uint64_t transaction;
};

// Members that the command doesn't have are zero. All of it is the parser's, until the callback returns.
struct send_command {
    enum send_verb verb;
    const char *path;  // relative, "": the subvolume's root; NULL for SEND_END
    const char *other; // likewise, except for a symbolic link, where it is any text
    const char *xattr;
    const uint8_t *data;
    size_t n;
    uint64_t offset, length, other_offset, flags;
    uint64_t rdev;
    uint32_t mode, uid, gid;
    struct timespec atime, mtime;
    struct send_id self, from;
};

struct send_stream;

// Called for each command, SEND_END too. Negative: the feeding ends with that.
typedef int (*send_callback)(void *arg, const struct send_command *c, struct error *e);

struct send_stream *send_stream_new(send_callback on_command, void *arg);
void send_stream_free(struct send_stream *s);
// After an error it is only good to be freed. E_CORRUPT, or what the callback returned.
int send_stream_feed(struct send_stream *s, const void *data, size_t n, struct error *e);
bool send_stream_has_ended(const struct send_stream *s); // SEND_END was seen

// To go on elsewhere: what was fed after the last whole command (valid until the next call), and the stream's version, 0 before its
// header is whole. send_stream_restore puts a fresh parser there.
uint32_t send_stream_version(const struct send_stream *s);
const uint8_t *send_stream_pending(const struct send_stream *s, size_t *ret_n);
int send_stream_restore(struct send_stream *s, uint32_t version, bool has_ended, const uint8_t *pending, size_t n, struct error *e);

const char *send_verb_word(enum send_verb v);

#include "base/mem.h"
DEFINE_AUTO(struct send_stream *, send_stream_free)

#endif
