// A backend keeps the data of volumes in a pool: one table of functions, one file per implementation, one contract suite for all
// (tests/unit/test_backend.c).
//
// Every call may block for long (it is disk and mount work): the agent makes them in a worker process, never in its event loop.
// Every call may be cut off by kill -9 at any instruction; called again afterwards it finishes the job or finds it done. Calls for
// one volume are made one at a time; the backend enforces that between processes with a lock per volume, so that a worker that
// outlives its agent can't meet its successor. Which node may write is not decided here: see plan/.
//
// Limits. Whoever can write in a volume on btrfs can make subvolumes in it; the kernel asks for no privilege. With simple quotas (Linux
// 6.7) they count towards the volume's limit and usage, with one exception: a subvolume made by a caller who names other quota groups,
// or none, to the kernel stays outside until the next call of usage, update or open takes it in. With classic qgroups they are outside
// of the limit: nothing on Linux closes that, and open warns of it in the log. A pool in a file or on a device gets simple quotas where
// the kernel has them. A pool in a directory keeps what its file system has; if quotas are off there it gets classic qgroups, because
// simple ones are an incompatible feature for ever: older kernels, such as that of a rescue disk, wouldn't mount the user's own file
// system any more, while classic ones can be turned off. Who wants simple ones there turns them on first (btrfs quota enable --simple).
#ifndef FLOCKER_BACKEND_BACKEND_H
#define FLOCKER_BACKEND_BACKEND_H

#include "base/error.h"
#include "model/volume.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BACKEND_DIGEST_SIZE 32

struct backend;
struct users_entry; // sys/users.h: a process in another mount namespace (a container) that has the volume mounted

enum backend_source { POOL_FILE, POOL_DEVICE, POOL_DIRECTORY };

// Where a pool lies and how it is made. All paths absolute; borrowed for the call of open.
struct backend_config {
    enum backend_source source;
    const char *path;       // the sparse file, the block device, or a directory of a mounted btrfs
    uint64_t file_size;     // POOL_FILE: apparent size when it is made; 0: half of what is free where it lies, at least 1 GiB
    const char *pool_dir;   // where a file's or device's pool is mounted, for example /var/lib/flocker/pool
    const char *mount_root; // volumes are mounted at <mount_root>/<id>, for example /flocker
    bool use_qgroups;       // limit sizes by classic qgroups even where simple quotas are to be had; see "Limits"
    bool may_format;        // POOL_DEVICE: make a file system on a device that holds nothing
    bool is_swept;          // a worker has opened it just now: nothing is to be swept up, which may take long
};

// What is on this node of one volume, as read from disk and mount table. Data knows itself: `record` is what stands beside the data.
struct backend_volume {
    struct volume *record; // owned by whoever got it
    bool mounted;          // at its mount point in this mount namespace
    uint64_t snapshot;     // number of the newest snapshot that a move took of it; 0: none
};

struct backend_usage {
    uint64_t used_bytes;  // of the volume, or of the pool for pool_usage
    uint64_t limit_bytes; // the volume's limit or the pool's size; 0: no limit
    // Of a pool alone:
    uint64_t free_bytes;        // what can still be written; of a file, no more than its disk can keep
    bool is_read_only;          // mounted so, or the file system has stopped after an error
    bool is_file;               // the next two count:
    uint64_t may_grow_bytes;    // what the file has not taken up yet of its size
    uint64_t disk_free_bytes;   // on the disk that it lies on. Less than the above: writing fails before the pool looks full
};

// What a node has received of a volume that it doesn't have: the newest whole copy, and how far the one after it has come.
struct backend_copy {
    struct uuid id;
    uint64_t seq; // of the copy; 0: there is none, and digest and final mean nothing
    uint8_t digest[BACKEND_DIGEST_SIZE];
    bool final;
    // The checkpoint: of the stream of snapshot part_seq against part_base, part_offset bytes are applied; part_digest is that of them.
    // part_seq 0: there is none.
    uint64_t part_seq, part_base, part_offset;
    uint8_t part_digest[BACKEND_DIGEST_SIZE];
};

struct receiver; // a stream that is being received; one thread's

// Slots from `snapshot` on are there to move volumes between nodes. All or none of them are NULL. They are idempotent, and durable when they
// return. Digests are what the caller says they are: nothing here computes one.
struct backend_ops {
    const char *name;
    bool in_process; // its pools live in this process and nothing blocks: it needs no workers
    // Makes the pool if there is none, attaches and mounts it, sweeps up what an interrupted create or destroy left, and takes the
    // pool's lock until close: E_BUSY if another agent has it. Idempotent over restarts of the agent: a pool in use stays mounted.
    // Never formats a file or device that holds anything: E_CONFLICT names what is there.
    int (*open)(const struct backend_config *config, struct backend **ret, struct error *e);
    // Lets go of the lock and frees; volumes and pool stay mounted.
    void (*close)(struct backend *b);
    // Unmounts volumes and pool and detaches the device, for `flocker down`. E_BUSY if a volume is in use: nothing was unmounted.
    // Any other error: it can't be used any more; E_TIMEOUT: all is unmounted here, and another mount namespace still has the pool.
    int (*shutdown)(struct backend *b, struct error *e);
    // Calls on_volume for each volume of the pool (it takes the record); a record that can't be read is told by on_damaged and kept.
    int (*observe)(struct backend *b, void (*on_volume)(void *arg, struct backend_volume *v),
                   void (*on_damaged)(void *arg, const char *id, const struct error *why), void *arg, struct error *e);
    // Makes the volume empty, with owner, group, mode, nocow and limit of `v`, and its record; all of it appears in one step.
    // If the volume is there already: 1, nothing touched; its record may be that of an earlier order.
    int (*create)(struct backend *b, const struct volume *v, struct error *e);
    // Destroys data and record, and subvolumes that users of the volume made in it: some 0.2 ms for each. 0 if there is no such volume.
    // E_BUSY if it is mounted or in use.
    int (*destroy)(struct backend *b, const struct uuid *id, struct error *e);
    // Replaces the record and, if its size differs from the limit in force, sets the limit. A size below what is used is E_CONFLICT.
    int (*update)(struct backend *b, const struct volume *v, struct error *e);
    // Mounts it at its mount point, empty directory made as needed. 0 if it is mounted.
    int (*mount)(struct backend *b, const struct uuid *id, struct error *e);
    // Whether nothing is mounted at its mount point, as after an unmount by hand. Asks only what the kernel has in memory: may be called
    // outside of workers. NULL: can't happen.
    bool (*has_lost_mount)(struct backend *b, const struct uuid *id);
    // Unmounts it here. 0 if it isn't mounted. E_BUSY, naming the user, if another mount namespace still has it, or a process of this
    // one has files open: never lazy, never forced.
    int (*unmount)(struct backend *b, const struct uuid *id, struct error *e);
    // Lists up to `max` users of the volume in other mount namespaces; returns how many, or negative.
    int (*users)(struct backend *b, const struct uuid *id, struct users_entry *ret, size_t max, struct error *e);
    // As of the file system's last commit: what was written since (up to 30 s, unless somebody syncs) isn't in it.
    int (*usage)(struct backend *b, const struct uuid *id, struct backend_usage *ret, struct error *e);
    int (*pool_usage)(struct backend *b, struct backend_usage *ret, struct error *e);
    // Makes the pool larger, online. E_UNSUPPORTED for a directory, E_CONFLICT if smaller than it is.
    int (*grow)(struct backend *b, uint64_t size, struct error *e);

    // ---- the source of a move: read-only snapshots of a volume, numbered from 1 by the caller; destroy removes them with it
    // Makes snapshot number seq, with all that has been written; 0 if it is there. E_UNSUPPORTED, naming the path, if there is a subvolume
    // inside the volume: a stream leaves them out.
    int (*snapshot)(struct backend *b, const struct uuid *id, uint64_t seq, struct error *e);
    // The highest number; 0: there are none.
    int (*snapshots)(struct backend *b, const struct uuid *id, uint64_t *ret_newest, struct error *e);
    // Removes those with a lower number than `below`, and their digests. E_BUSY while one of them is being sent.
    int (*snapshots_drop)(struct backend *b, const struct uuid *id, uint64_t below, struct error *e);
    // Keeps the digest of the stream of a snapshot beside it. E_NOT_FOUND if there is no such snapshot; for read_digest also if it has none.
    int (*note_digest)(struct backend *b, const struct uuid *id, uint64_t seq, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e);
    int (*read_digest)(struct backend *b, const struct uuid *id, uint64_t seq, uint8_t ret[BACKEND_DIGEST_SIZE], struct error *e);
    // Makes the stream of snapshot seq, whole (base 0) or against another. The same bytes each time, as long as the pool isn't changed
    // underneath (balance, defragmentation), so that it can be resumed; the digest tells. `sink` gets at most 1 MiB at a time; negative ends
    // it. Doesn't hold the volume's lock.
    int (*send)(struct backend *b, const struct uuid *id, uint64_t base, uint64_t seq, int (*sink)(void *arg, const void *data, size_t n),
                void *arg, struct error *e);

    // ---- the target of a move: copies, which are no volumes yet and survive restarts
    // Calls on_copy for each volume of which there is a copy or a checkpoint.
    int (*copies)(struct backend *b, void (*on_copy)(void *arg, const struct backend_copy *copy), void *arg, struct error *e);
    // Starts to receive the stream of snapshot seq against `base`, which must be the copy's seq, or 0. offset: 0, from the start (a
    // checkpoint is given up), or that of the checkpoint, which must be of this base and seq (E_NOT_FOUND): what was applied after it is
    // undone, and the bytes from there on are to follow. The volume's lock is held until receive_free: E_BUSY. E_CONFLICT if the volume
    // itself is here. The volume's limit does not count yet; but all that is received of it can't take more than volume_copy_max of that limit:
    // then feed is E_TOO_LARGE.
    int (*receive_begin)(struct backend *b, const struct volume *v, uint64_t base, uint64_t seq, uint64_t offset, struct receiver **ret,
                         struct error *e);
    // Applies the next bytes of the stream. After an error the receiver is only good to be freed. E_CORRUPT for what no sender writes.
    int (*receive_feed)(struct receiver *r, const void *data, size_t n, struct error *e);
    // Keeps the state after the bytes that were fed up to now: `offset` of them, from the stream's start, with this digest.
    int (*receive_checkpoint)(struct receiver *r, uint64_t offset, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e);
    // The stream is whole (E_CORRUPT if it isn't) and was found right: what was received is the copy now, and takes the place of the
    // former one. final: nothing was written to the volume after this snapshot.
    int (*receive_finish)(struct receiver *r, const uint8_t digest[BACKEND_DIGEST_SIZE], bool final, struct error *e);
    // Undoes what was applied after the last checkpoint, unless it was finished. To be called before close, from the process that began.
    void (*receive_free)(struct receiver *r);
    // The copy becomes the volume, with record and limit of `v`, in one step; a crash leaves one of the two. 1 if that has happened, at
    // this epoch, perhaps with the record of an earlier order. E_NOT_FOUND if there is no copy. Whether a copy that isn't final will do is for the caller to say.
    int (*place)(struct backend *b, const struct volume *v, struct error *e);
    // Removes copy and checkpoint. 0 if there is none.
    int (*discard)(struct backend *b, const struct uuid *id, struct error *e);
};

// First member of every implementation.
struct backend {
    const struct backend_ops *ops;
};

extern const struct backend_ops backend_btrfs, backend_memory;

// Exact match of the name; NULL if there is none.
const struct backend_ops *backend_find(const char *name);
// "<mount_root>/<id>"; the one place that knows. `ret` holds at least 4096 bytes.
const char *backend_mount_point(const char *mount_root, const struct uuid *id, char *ret);

#endif
