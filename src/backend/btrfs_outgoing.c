// The source of a move: numbered read-only snapshots beside a volume's data, and their streams.
//
//     volumes/<id>/out.<seq>          the snapshot
//     volumes/<id>/out.<seq>.digest   of its stream, once there was one: 64 hexadecimal digits
//
// With simple quotas the kernel charges an extent to the subvolume that wrote it for as long as anybody holds it: what a container
// overwrites or deletes while a snapshot has it goes on counting towards the volume's limit until the snapshot is dropped. With
// classic qgroups it doesn't.
#include "backend/btrfs_transfer.h"

#include "base/failpoint.h"
#include "base/text.h"
#include "sys/atomic_file.h"
#include "sys/btrfs.h"
#include "sys/btrfs_send.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define OUT_NAME_SIZE 48
#define DIGEST_SUFFIX ".digest"

DEFINE_AUTO(DIR *, closedir)

static const char *out_name(uint64_t seq, const char *suffix, char ret[OUT_NAME_SIZE])
{
    snprintf(ret, OUT_NAME_SIZE, OUT_PREFIX "%" PRIu64 "%s", seq, suffix);
    return ret;
}
#define OUT_NAME(seq, suffix) out_name((seq), (suffix), (char[OUT_NAME_SIZE]){ 0 })

// Whether it is the name of a snapshot, and of which.
static bool is_out_name(const char *name, uint64_t *ret_seq)
{
    const char *at = name + strlen(OUT_PREFIX);
    return strncmp(name, OUT_PREFIX, strlen(OUT_PREFIX)) == 0 && transfer_read_number(&at, ret_seq) && !*at;
}

static int open_volume(const struct pool *p, const struct uuid *id, int *ret, struct error *e)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    int rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = pool_open_directory(d.volumes, UUID_TEXT(id), ret, e);
    return rc == -E_NOT_FOUND ? fail(e, E_NOT_FOUND, "there is no such volume in this pool") : rc;
}

static int open_out(int volume_fd, uint64_t seq, int *ret, struct error *e)
{
    int rc = pool_open_directory(volume_fd, OUT_NAME(seq, ""), ret, e);
    return rc == -E_NOT_FOUND ? fail(e, E_NOT_FOUND, "it has no snapshot number %" PRIu64, seq) : rc;
}

// ---- snapshots ---------------------------------------------------------------------------------------------------------------

static int check_not_nested(int data_fd, struct error *e)
{
    uint64_t id;
    struct btrfs_nested inside;
    char folder[4096] = "";
    int rc = btrfs_subvolume_id(data_fd, &id, e);
    if (rc < 0)
        return rc;
    rc = btrfs_subvolume_next_nested(data_fd, id, 0, &inside);
    if (rc < 0)
        return fail_os(e, -rc, "look for subvolumes in it");
    if (rc == 0)
        return 0;
    btrfs_directory_path(data_fd, id, inside.directory, folder); // what fails shows only the name
    AUTO(free) char *path = xasprintf("%s%s", folder, inside.name);
    return fail(e, E_UNSUPPORTED, "it has a subvolume in it, \"%s\", which btrfs would leave behind: replace it by a directory", TEXT(path));
}

static int snapshot_in(int volume_fd, uint64_t seq, struct error *e)
{
    AUTO(close) int data = -1;
    // There already: a snapshot's maker returns when it is durable, but may have been killed before.
    if (pool_has_entry(volume_fd, OUT_NAME(seq, "")))
        return btrfs_commit(volume_fd, e);
    int rc = pool_open_directory(volume_fd, VOLUME_DATA, &data, e);
    if (rc == 0)
        rc = check_not_nested(data, e);
    if (rc == 0)
        rc = btrfs_snapshot(volume_fd, OUT_NAME(seq, ""), data, true, e);
    FAILPOINT(TRANSFER_SNAPSHOT);
    return rc;
}

int pool_snapshot(struct backend *b, const struct uuid *id, uint64_t seq, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    AUTO(close) int fd = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = snapshot_in(fd, seq, e);
    return rc < 0 ? pool_fail(p, rc, "take a snapshot of", id, e) : 0;
}

struct numbers {
    uint64_t *items;
    size_t n;
};

static void auto_numbers_done(struct numbers *l)
{
    free(l->items);
}

static int list_out(int volume_fd, struct numbers *ret, struct error *e)
{
    AUTO(close) int fd = -1;
    int rc = pool_open_directory(volume_fd, ".", &fd, e);
    if (rc < 0)
        return rc;
    AUTO(closedir) DIR *dir = fdopendir(fd);
    if (!dir)
        return fail_os(e, errno, "list its snapshots");
    TAKE(fd, -1);
    size_t room = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        uint64_t seq;
        if (!is_out_name(entry->d_name, &seq))
            continue;
        if (ret->n == room)
            ret->items = xrealloc(ret->items, room = room ? 2 * room : 8, sizeof ret->items[0]);
        ret->items[ret->n++] = seq;
    }
    return 0;
}

int pool_newest_outgoing(int volume_fd, uint64_t *ret, struct error *e)
{
    AUTO(numbers_done) struct numbers list = { NULL, 0 };
    int rc = list_out(volume_fd, &list, e);
    *ret = 0;
    for (size_t i = 0; i < list.n; i++)
        *ret = list.items[i] > *ret ? list.items[i] : *ret;
    return rc;
}

int pool_snapshots(struct backend *b, const struct uuid *id, uint64_t *ret_newest, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int fd = -1;
    int rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = pool_newest_outgoing(fd, ret_newest, e);
    return rc < 0 ? pool_fail(p, rc, "list the snapshots of", id, e) : 0;
}

// And what a worker left that was killed while it wrote one.
static int remove_digest(int volume_fd, uint64_t seq, struct error *e)
{
    static const char *const suffixes[] = { DIGEST_SUFFIX, DIGEST_SUFFIX ".tmp" };
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        if (unlinkat(volume_fd, OUT_NAME(seq, suffixes[i]), 0) < 0 && errno != ENOENT)
            return fail_os(e, errno, "remove the digest of snapshot %" PRIu64, seq);
    return 0;
}

int pool_drop_outgoing(int volume_fd, uint64_t below, struct error *e)
{
    AUTO(numbers_done) struct numbers list = { NULL, 0 };
    int rc = list_out(volume_fd, &list, e);
    for (size_t i = 0; rc == 0 && i < list.n; i++) {
        uint64_t seq = list.items[i];
        if (seq >= below)
            continue;
        // The digest first: one must never stand beside another snapshot of that number.
        if ((rc = remove_digest(volume_fd, seq, e)) < 0)
            return rc;
        FAILPOINT(TRANSFER_DROPPED);
        rc = btrfs_subvolume_delete(volume_fd, OUT_NAME(seq, ""), e);
        if (rc < 0 && e->os_errno == EPERM)
            return fail(e, E_BUSY, "its snapshot %" PRIu64 " is being sent", seq);
    }
    return rc;
}

int pool_snapshots_drop(struct backend *b, const struct uuid *id, uint64_t below, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    AUTO(close) int fd = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = pool_drop_outgoing(fd, below, e);
    if (rc == 0)
        rc = btrfs_commit(fd, e);
    if (rc < 0)
        return pool_fail(p, rc, "drop snapshots of", id, e);
    btrfs_free_deleted(fd);
    return 0;
}

// ---- digests -----------------------------------------------------------------------------------------------------------------

static int note_digest_in(int volume_fd, uint64_t seq, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e)
{
    char text[TRANSFER_HEX_SIZE + 1];
    AUTO(close) int out = -1;
    int rc = open_out(volume_fd, seq, &out, e);
    if (rc < 0)
        return rc;
    int n = snprintf(text, sizeof text, "%s\n", TRANSFER_HEX(digest));
    return atomic_file_write(volume_fd, OUT_NAME(seq, DIGEST_SUFFIX), text, (size_t)n, 0600, e);
}

int pool_note_digest(struct backend *b, const struct uuid *id, uint64_t seq, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    AUTO(close) int fd = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = note_digest_in(fd, seq, digest, e);
    return rc < 0 ? pool_fail(p, rc, "keep a digest of", id, e) : 0;
}

int pool_read_digest(struct backend *b, const struct uuid *id, uint64_t seq, uint8_t ret[BACKEND_DIGEST_SIZE], struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int fd = -1;
    AUTO(close) int out = -1;
    AUTO(free) char *text = NULL;
    size_t n;
    int rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = open_out(fd, seq, &out, e);
    if (rc == 0)
        rc = atomic_file_read(fd, OUT_NAME(seq, DIGEST_SUFFIX), TRANSFER_HEX_SIZE, &text, &n, e);
    if (rc == -E_NOT_FOUND && out >= 0)
        fail(e, E_NOT_FOUND, "its snapshot %" PRIu64 " has no digest yet", seq);
    const char *at = text;
    if (rc == 0 && (!transfer_read_hex(&at, ret) || strcmp(at, "\n") != 0))
        rc = fail(e, E_CORRUPT, "the digest of its snapshot %" PRIu64 " is damaged", seq);
    return rc < 0 ? pool_fail(p, rc, "read a digest of", id, e) : 0;
}

// ---- send --------------------------------------------------------------------------------------------------------------------

int pool_send(struct backend *b, const struct uuid *id, uint64_t base, uint64_t seq, int (*sink)(void *arg, const void *data, size_t n),
              void *arg, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int fd = -1;
    AUTO(close) int out = -1;
    AUTO(close) int parent = -1;
    int rc = open_volume(p, id, &fd, e);
    if (rc == 0)
        rc = open_out(fd, seq, &out, e);
    if (rc == 0 && base)
        rc = open_out(fd, base, &parent, e);
    if (rc == 0)
        rc = btrfs_send(out, parent, sink, arg, e);
    return rc < 0 ? pool_fail(p, rc, "send", id, e) : 0;
}
