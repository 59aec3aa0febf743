// What source and target of a move share in the btrfs backend, and what a target keeps.
//
//     incoming/<id>/copy.<seq>.<f|p>.<digest>              the copy: a read-only subvolume; f: final, p: not
//     incoming/<id>/part                                   the subvolume that a stream is just applied to; worth nothing after a crash
//     incoming/<id>/mark.<base>.<seq>.<offset>.<digest>/   a checkpoint, which counts once it has its data
//         state                                            of the parser and of what it applies, see btrfs_receive.c
//         data                                             a read-only snapshot of part
//     incoming/<id>/group                                  an empty subvolume, whose quota group is that of all parts there were
//
// A name says it all, so that each step is one: the kernel makes a snapshot whole and durable, or not at all. Numbers are decimal,
// digests hexadecimal.
//
// Why `group`. Simple quotas charge an extent to the subvolume that wrote it first. After a resume that is a part which is gone by
// the time the copy becomes a volume; but its group of level 0 stays as long as extents of it are in use, and with it the membership that
// btrfs_quota_join gave it. So all parts join the group of `group`, and place makes all its members those of the volume's group.
#ifndef FLOCKER_BACKEND_BTRFS_TRANSFER_H
#define FLOCKER_BACKEND_BTRFS_TRANSFER_H

#include "backend/btrfs_pool.h"

#include <limits.h>

#define INCOMING_PART  "part"
#define INCOMING_GROUP "group"
#define MARK_STATE     "state"
#define MARK_DATA      "data"

#define TRANSFER_HEX_SIZE (2 * BACKEND_DIGEST_SIZE + 1) // with the final NUL

const char *transfer_hex(const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[TRANSFER_HEX_SIZE]);
#define TRANSFER_HEX(digest) transfer_hex((digest), (char[TRANSFER_HEX_SIZE]){ 0 })
// Read the start of *at, and advance it. False: something else is there.
bool transfer_read_number(const char **at, uint64_t *ret); // decimal, without leading zeros
bool transfer_read_hex(const char **at, uint8_t ret[BACKEND_DIGEST_SIZE]);

// What is in a folder incoming/<id>: the newest copy and the furthest checkpoint, as names; "" for none.
struct incoming {
    struct backend_copy is; // without the id
    char copy[NAME_MAX + 1], mark[NAME_MAX + 1];
    bool has_part; // not looked for, but minded by incoming_tidy
};
int incoming_read(int fd, struct incoming *ret, struct error *e);
const char *incoming_copy_name(uint64_t seq, bool final, const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[NAME_MAX + 1]);
const char *incoming_mark_name(uint64_t base, uint64_t seq, uint64_t offset, const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[NAME_MAX + 1]);
// Removes whatever is in the folder but what `keep` tells of, and the group.
int incoming_tidy(int fd, const struct incoming *keep, struct error *e);
// The folder for volume `id`, made if need be.
int incoming_open_one(const struct pool *p, const struct uuid *id, int *ret, struct error *e);
// Whether the volume itself is here.
bool incoming_is_placed(const struct pool_dirs *d, const struct uuid *id);

#endif
