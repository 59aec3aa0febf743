// What the files of the btrfs backend share.
//
// Layout below the pool's top directory (the file system's, or the directory of an existing btrfs):
//
//     pool.json                  format, id, backend: written last when a pool is made
//     lock                       bytes of it are locked, see below
//     volumes/<id>/volume.json   the record
//     volumes/<id>/data          the subvolume
//     volumes/<id>/out.<seq>     read-only snapshots of it, to be sent, and out.<seq>.digest; see btrfs_outgoing.c
//     incoming/<id>/...          what was received of a volume that isn't here; see btrfs_incoming.h
//     staging/<id>/...           the same, of what is being made or destroyed: nothing here was ever acknowledged
//
// Locks, all of open file descriptions: byte 0 of the image file, the device node or <directory>/lock is the pool's and kept by the
// process that opened it; a byte of `lock` derived from the volume's id is held for each operation on that volume.
#ifndef FLOCKER_BACKEND_BTRFS_POOL_H
#define FLOCKER_BACKEND_BTRFS_POOL_H

#include "backend/backend.h"
#include "base/mem.h"
#include "sys/mountinfo.h"
#include "sys/users.h"

#include <sys/types.h>

#define POOL_FORMAT    1
#define POOL_LABEL     "flocker-pool" // of the file system in an image or on a device
#define POOL_JSON      "pool.json"
#define POOL_LOCK      "lock"
#define POOL_VOLUMES   "volumes"
#define POOL_STAGING   "staging"
#define POOL_INCOMING  "incoming"
#define OUT_PREFIX     "out."
#define VOLUME_RECORD  "volume.json"
#define VOLUME_DATA    "data"
#define RECORD_MAX     (1U << 20)
#define LOCK_WAIT_MS   10000

// Plain data and one descriptor: workers are forked from the process that opened it.
struct pool {
    struct backend base;
    enum backend_source source;
    char *path;       // of image, device or directory; without symbolic links
    char *top;        // where pool.json is
    char *mount_root; // without symbolic links
    int lock_fd;      // keeps the pool's lock; -1 in a forked process after its first call
    pid_t opener;
};

struct pool_dirs {
    int top, volumes, staging;
};

// Where a folder of the pool stands in mount tables.
struct pool_place {
    unsigned major, minor;
    char *prefix; // of the top directory in its file system; "" if it is its root
};

// btrfs_pool.c
struct pool *pool_enter(struct backend *b); // start of each operation
int pool_open_directory(int at, const char *name, int *ret, struct error *e); // never by a symbolic link
bool pool_has_entry(int dir_fd, const char *name);
int pool_open_dirs(const struct pool *p, struct pool_dirs *ret, struct error *e);
void pool_dirs_done(struct pool_dirs *d);
int pool_lock_volume(const struct pool *p, const struct uuid *id, int64_t wait_ms, int *ret_fd, struct error *e); // 1, or 0: not in time
int pool_find(const struct pool *p, const struct mountinfo *m, struct pool_place *ret, struct error *e);
void pool_place_done(struct pool_place *place);
// Makes mount_root a shared mount, if it isn't; returns its peer group.
int pool_share_mount_root(const struct pool *p, struct error *e);
// Users of `folder` ("volumes", "volumes/<id>/data") of the pool in other mount namespaces.
int pool_users(const struct pool *p, const char *folder, struct users_entry *ret, size_t max, struct error *e);
// Turns an error of the system into one that says what is wrong with the pool, and puts "<verb> volume <id>" before it.
int pool_fail(const struct pool *p, int rc, const char *verb, const struct uuid *id, struct error *e);

// btrfs_attach.c: what differs between image, device and directory
int pool_attach(struct pool *p, const struct backend_config *config, struct error *e);
int pool_make_directories(const char *path, mode_t mode, struct error *e); // with its parents

// btrfs_volume.c
int pool_volume_create(struct backend *b, const struct volume *v, struct error *e);
int pool_volume_destroy(struct backend *b, const struct uuid *id, struct error *e);
int pool_volume_update(struct backend *b, const struct volume *v, struct error *e);
int pool_volume_usage(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e);
int pool_volume_observe(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                   void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e);
// Makes the volume in staging, by make_data what is to be in it, and gives it its place: all of it appears in one step. The caller holds the
// volume's lock and knows that there is no such volume.
int pool_volume_build(const struct pool_dirs *d, const struct volume *v,
                      int (*make_data)(int volume_fd, const struct volume *v, void *arg, struct error *e), void *arg, struct error *e);
// E_NOT_FOUND if there is no such volume.
int pool_volume_read_record(const struct pool_dirs *d, const struct uuid *id, struct volume **ret, struct error *e);
int pool_volume_set_options(int data_fd, const struct volume_options *o, struct error *e); // of a fresh subvolume
void pool_volume_sweep_staging(const struct pool *p);
// Brings limits into the shape that btrfs_quota.h tells of, where former versions or users of a volume left another one, and removes
// what destroyed volumes left. Best effort.
void pool_volume_gather_limits(const struct pool *p);
// The volume's name, or its id if the record has none or can't be read; for messages. Returns `ret`.
const char *pool_volume_name(const struct pool *p, const struct uuid *id, char *ret, size_t size);

// btrfs_outgoing.c
int pool_snapshot(struct backend *b, const struct uuid *id, uint64_t seq, struct error *e);
int pool_snapshots(struct backend *b, const struct uuid *id, uint64_t *ret_newest, struct error *e);
int pool_snapshots_drop(struct backend *b, const struct uuid *id, uint64_t below, struct error *e);
int pool_note_digest(struct backend *b, const struct uuid *id, uint64_t seq, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e);
int pool_read_digest(struct backend *b, const struct uuid *id, uint64_t seq, uint8_t ret[BACKEND_DIGEST_SIZE], struct error *e);
int pool_send(struct backend *b, const struct uuid *id, uint64_t base, uint64_t seq, int (*sink)(void *arg, const void *data, size_t n),
              void *arg, struct error *e);
// Removes snapshots with a number below `below` from a volume's folder, and their digests.
int pool_drop_outgoing(int volume_fd, uint64_t below, struct error *e);
int pool_newest_outgoing(int volume_fd, uint64_t *ret, struct error *e); // 0: there is none

// btrfs_incoming.c, btrfs_receive.c
int pool_copies(struct backend *b, void (*on_copy)(void *arg, const struct backend_copy *copy), void *arg, struct error *e);
int pool_receive_begin(struct backend *b, const struct volume *v, uint64_t base, uint64_t seq, uint64_t offset, struct receiver **ret,
                       struct error *e);
int pool_receive_feed(struct receiver *r, const void *data, size_t n, struct error *e);
int pool_receive_checkpoint(struct receiver *r, uint64_t offset, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e);
int pool_receive_finish(struct receiver *r, const uint8_t digest[BACKEND_DIGEST_SIZE], bool final, struct error *e);
void pool_receive_free(struct receiver *r);
int pool_place(struct backend *b, const struct volume *v, struct error *e);
int pool_discard(struct backend *b, const struct uuid *id, struct error *e);
void pool_sweep_incoming(const struct pool *p);

// btrfs_mount.c
int pool_volume_mount(struct backend *b, const struct uuid *id, struct error *e);
bool pool_volume_has_lost_mount(struct backend *b, const struct uuid *id);
int pool_volume_unmount(struct backend *b, const struct uuid *id, struct error *e);
int pool_volume_users(struct backend *b, const struct uuid *id, struct users_entry *ret, size_t max, struct error *e);
void pool_volume_sweep_mount_points(const struct pool *p);
// 1: the mount at the volume's mount point is the volume's, 0: nothing is mounted there, E_CONFLICT: something else is.
int pool_volume_is_mounted(const struct pool *p, const struct mountinfo *m, const struct pool_place *place, const struct uuid *id, struct error *e);
// E_BUSY if the volume is mounted anywhere in this mount namespace or another one.
int pool_volume_check_unused(const struct pool *p, const struct uuid *id, struct error *e);
// Unmounts all volumes of the pool, or none.
int pool_volume_unmount_all(const struct pool *p, struct error *e);

static inline void auto_pool_dirs_done(struct pool_dirs *d)
{
    pool_dirs_done(d);
}
static inline void auto_pool_place_done(struct pool_place *place)
{
    pool_place_done(place);
}

#endif
