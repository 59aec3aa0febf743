// The target of a move: copies on disk, and how one becomes a volume. See btrfs_transfer.h for the layout.
#include "backend/btrfs_transfer.h"

#include "base/failpoint.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"
#include "sys/btrfs_send.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

DEFINE_AUTO(DIR *, closedir)

// ---- names -------------------------------------------------------------------------------------------------------------------

const char *transfer_hex(const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[TRANSFER_HEX_SIZE])
{
    for (size_t i = 0; i < BACKEND_DIGEST_SIZE; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return ret;
}

bool transfer_read_number(const char **at, uint64_t *ret)
{
    const char *c = *at;
    uint64_t value = 0;
    if (*c == '0' && c[1] >= '0' && c[1] <= '9')
        return false;
    for (; *c >= '0' && *c <= '9'; c++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
            return false;
    if (c == *at)
        return false;
    *ret = value;
    *at = c;
    return true;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *there = c ? strchr(digits, c) : NULL;
    return there ? (int)(there - digits) : -1;
}

bool transfer_read_hex(const char **at, uint8_t ret[BACKEND_DIGEST_SIZE])
{
    uint8_t digest[BACKEND_DIGEST_SIZE];
    for (size_t i = 0; i < BACKEND_DIGEST_SIZE; i++) {
        int high = hex_digit((*at)[2 * i]), low = high < 0 ? -1 : hex_digit((*at)[2 * i + 1]);
        if (low < 0)
            return false;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(ret, digest, sizeof digest);
    *at += 2 * BACKEND_DIGEST_SIZE;
    return true;
}

static bool read_text(const char **at, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(*at, text, n) != 0)
        return false;
    *at += n;
    return true;
}

const char *incoming_copy_name(uint64_t seq, bool final, const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[NAME_MAX + 1])
{
    snprintf(ret, NAME_MAX + 1, "copy.%" PRIu64 ".%s.%s", seq, final ? "f" : "p", TRANSFER_HEX(digest));
    return ret;
}

static bool read_copy_name(const char *name, struct backend_copy *ret)
{
    if (!read_text(&name, "copy.") || !transfer_read_number(&name, &ret->seq) || !read_text(&name, "."))
        return false;
    ret->final = *name == 'f';
    return (read_text(&name, "f.") || read_text(&name, "p.")) && transfer_read_hex(&name, ret->digest) && !*name;
}

const char *incoming_mark_name(uint64_t base, uint64_t seq, uint64_t offset, const uint8_t digest[BACKEND_DIGEST_SIZE], char ret[NAME_MAX + 1])
{
    snprintf(ret, NAME_MAX + 1, "mark.%" PRIu64 ".%" PRIu64 ".%" PRIu64 ".%s", base, seq, offset, TRANSFER_HEX(digest));
    return ret;
}

static bool read_mark_name(const char *name, struct backend_copy *ret)
{
    return read_text(&name, "mark.") && transfer_read_number(&name, &ret->part_base) && read_text(&name, ".") &&
           transfer_read_number(&name, &ret->part_seq) && read_text(&name, ".") && transfer_read_number(&name, &ret->part_offset) &&
           read_text(&name, ".") && transfer_read_hex(&name, ret->part_digest) && !*name;
}

// ---- folders -----------------------------------------------------------------------------------------------------------------

// The folder of them all.
static int incoming_open(const struct pool *p, int *ret, struct error *e)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    int rc = pool_open_dirs(p, &d, e);
    return rc < 0 ? rc : pool_open_directory(d.top, POOL_INCOMING, ret, e);
}

int incoming_open_one(const struct pool *p, const struct uuid *id, int *ret, struct error *e)
{
    AUTO(close) int all = -1;
    int rc = incoming_open(p, &all, e);
    if (rc == 0 && mkdirat(all, UUID_TEXT(id), 0700) < 0 && errno != EEXIST)
        rc = fail_os(e, errno, "make a folder in " POOL_INCOMING);
    return rc < 0 ? rc : pool_open_directory(all, UUID_TEXT(id), ret, e);
}

bool incoming_is_placed(const struct pool_dirs *d, const struct uuid *id)
{
    return pool_has_entry(d->volumes, UUID_TEXT(id));
}

static int list(int fd, DIR **ret, struct error *e)
{
    AUTO(close) int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *ret = copy < 0 ? NULL : fdopendir(copy);
    if (!*ret)
        return fail_os(e, errno, "list " POOL_INCOMING);
    TAKE(copy, -1);
    return 0;
}

static bool mark_has_data(int fd, const char *name)
{
    AUTO(free) char *path = xasprintf("%s/" MARK_DATA, name);
    return pool_has_entry(fd, path);
}

int incoming_read(int fd, struct incoming *ret, struct error *e)
{
    AUTO(closedir) DIR *dir = NULL;
    struct incoming in = { 0 };
    int rc = list(fd, &dir, e);
    if (rc < 0)
        return rc;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        struct backend_copy is = in.is;
        bool is_newer_copy = read_copy_name(entry->d_name, &is) && is.seq > in.is.seq;
        bool is_newer_mark = !is_newer_copy && read_mark_name(entry->d_name, &is) && mark_has_data(fd, entry->d_name) &&
                             (is.part_seq > in.is.part_seq || (is.part_seq == in.is.part_seq && is.part_offset > in.is.part_offset));
        if (!is_newer_copy && !is_newer_mark)
            continue;
        in.is = is;
        snprintf(is_newer_copy ? in.copy : in.mark, sizeof in.copy, "%s", entry->d_name);
    }
    // One of a stream that is the copy by now.
    if (in.is.part_seq <= in.is.seq) {
        in.mark[0] = '\0';
        in.is.part_seq = in.is.part_base = in.is.part_offset = 0;
    }
    *ret = in;
    return 0;
}

static int remove_mark(int fd, const char *name, struct error *e)
{
    AUTO(close) int mark = -1;
    int rc = pool_open_directory(fd, name, &mark, e);
    if (rc == 0 && pool_has_entry(mark, MARK_DATA))
        rc = btrfs_subvolume_delete(mark, MARK_DATA, e);
    if (rc == 0 && unlinkat(mark, MARK_STATE, 0) < 0 && errno != ENOENT)
        rc = fail_os(e, errno, "remove a checkpoint's state");
    if (rc == 0 && unlinkat(fd, name, AT_REMOVEDIR) < 0)
        rc = fail_os(e, errno, "remove a checkpoint");
    return rc;
}

static int remove_entry(int fd, const char *name, struct error *e)
{
    struct backend_copy ignored;
    return read_mark_name(name, &ignored) ? remove_mark(fd, name, e) : btrfs_subvolume_delete(fd, name, e);
}

static bool is_superfluous(const char *name, const struct incoming *keep)
{
    struct backend_copy ignored;
    if (strcmp(name, INCOMING_PART) == 0)
        return !keep->has_part;
    return (read_copy_name(name, &ignored) || read_mark_name(name, &ignored)) && strcmp(name, keep->copy) != 0 && strcmp(name, keep->mark) != 0;
}

int incoming_tidy(int fd, const struct incoming *keep, struct error *e)
{
    AUTO(closedir) DIR *dir = NULL;
    int rc = list(fd, &dir, e);
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)))
        if (is_superfluous(entry->d_name, keep))
            rc = remove_entry(fd, entry->d_name, e);
    return rc;
}

static int remove_group(int fd, struct error *e)
{
    AUTO(close) int group = -1;
    uint64_t id;
    int rc = pool_open_directory(fd, INCOMING_GROUP, &group, e);
    if (rc < 0)
        return rc == -E_NOT_FOUND ? 0 : rc;
    rc = btrfs_subvolume_id(group, &id, e);
    if (rc < 0)
        return rc;
    btrfs_quota_drop(fd, id);
    return btrfs_subvolume_delete(fd, INCOMING_GROUP, e);
}

// Removes the folder of a volume. 0 if there is none.
static int remove_all(int all_fd, const char *name, struct error *e)
{
    static const struct incoming nothing = { 0 };
    AUTO(close) int fd = -1;
    int rc = pool_open_directory(all_fd, name, &fd, e);
    if (rc < 0)
        return rc == -E_NOT_FOUND ? 0 : rc;
    rc = incoming_tidy(fd, &nothing, e);
    if (rc == 0)
        rc = remove_group(fd, e);
    if (rc == 0 && unlinkat(all_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        rc = fail_os(e, errno, "remove " POOL_INCOMING "/%s", name);
    return rc;
}

// ---- copies ------------------------------------------------------------------------------------------------------------------

static int read_one(int all_fd, const char *name, struct incoming *ret, struct error *e)
{
    AUTO(close) int fd = -1;
    int rc = pool_open_directory(all_fd, name, &fd, e);
    return rc < 0 ? rc : incoming_read(fd, ret, e);
}

int pool_copies(struct backend *b, void (*on_copy)(void *arg, const struct backend_copy *copy), void *arg, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int all = -1;
    AUTO(closedir) DIR *dir = NULL;
    int rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = incoming_open(p, &all, e);
    if (rc == 0)
        rc = list(all, &dir, e);
    if (rc < 0)
        return pool_fail(p, rc, "list what was received", NULL, e);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        struct uuid id;
        struct incoming in;
        struct error ignored; // discarded or placed while we look
        if (!uuid_parse(entry->d_name, &id) || incoming_is_placed(&d, &id) || read_one(all, entry->d_name, &in, &ignored) < 0)
            continue;
        in.is.id = id;
        if (in.is.seq || in.is.part_seq)
            on_copy(arg, &in.is);
    }
    return 0;
}

int pool_discard(struct backend *b, const struct uuid *id, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(close) int lock = -1;
    AUTO(close) int all = -1;
    int rc = pool_lock_volume(p, id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = incoming_open(p, &all, e);
    if (rc == 0)
        rc = remove_all(all, UUID_TEXT(id), e);
    FAILPOINT(TRANSFER_DISCARDED);
    if (rc == 0)
        rc = btrfs_commit(all, e);
    if (rc < 0)
        return pool_fail(p, rc, "discard the copy of", id, e);
    btrfs_free_deleted(all);
    return 0;
}

// What a killed receiver or place left, except for copies and checkpoints. Best effort, as for staging.
static void sweep_one(const struct pool *p, const struct pool_dirs *d, int all_fd, const char *name)
{
    AUTO(close) int lock = -1;
    AUTO(close) int fd = -1;
    struct uuid id;
    struct incoming in = { 0 };
    struct error ignored;
    if (!uuid_parse(name, &id) || pool_lock_volume(p, &id, 0, &lock, &ignored) != 1)
        return; // a worker that outlived the last agent is at it
    if (pool_open_directory(all_fd, name, &fd, &ignored) < 0 || incoming_read(fd, &in, &ignored) < 0)
        return;
    if (incoming_is_placed(d, &id) || (!in.is.seq && !in.is.part_seq))
        remove_all(all_fd, name, &ignored);
    else
        incoming_tidy(fd, &in, &ignored);
}

void pool_sweep_incoming(const struct pool *p)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int all = -1;
    AUTO(closedir) DIR *dir = NULL;
    struct error ignored;
    if (pool_open_dirs(p, &d, &ignored) < 0 || incoming_open(p, &all, &ignored) < 0 || list(all, &dir, &ignored) < 0)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir)))
        sweep_one(p, &d, all, entry->d_name);
}

// ---- place -------------------------------------------------------------------------------------------------------------------

struct placing {
    int fd, top;
    struct incoming in;
};

static int share_quota(const struct placing *pl, uint64_t id, struct error *e)
{
    AUTO(close) int group = -1;
    uint64_t from = 0;
    int rc = pool_open_directory(pl->fd, INCOMING_GROUP, &group, e);
    if (rc == 0)
        rc = btrfs_subvolume_id(group, &from, e);
    return rc < 0 ? rc : btrfs_quota_share(pl->top, from, id, e);
}

// The volume is a writable snapshot of the copy, which stays until the volume has its place.
static int make_data(int volume_fd, const struct volume *v, void *arg, struct error *e)
{
    const struct placing *pl = arg;
    AUTO(close) int copy = -1;
    AUTO(close) int data = -1;
    uint64_t id = 0;
    int rc = pool_open_directory(pl->fd, pl->in.copy, &copy, e);
    if (rc == 0)
        rc = btrfs_snapshot(volume_fd, VOLUME_DATA, copy, false, e);
    if (rc == 0)
        rc = pool_open_directory(volume_fd, VOLUME_DATA, &data, e);
    if (rc == 0)
        rc = btrfs_subvolume_id(data, &id, e);
    if (rc == 0)
        rc = btrfs_quota_gather(pl->top, id, e);
    if (rc == 0)
        rc = share_quota(pl, id, e);
    if (rc == 0 && v->size)
        rc = btrfs_quota_limit(pl->top, id, v->size, e);
    FAILPOINT(TRANSFER_SHARED);
    return rc;
}

static int check_placed(const struct pool_dirs *d, const struct volume *v, struct error *e)
{
    AUTO(volume_free) struct volume *there = NULL;
    int rc = pool_volume_read_record(d, &v->id, &there, e);
    if (rc == 0 && there->epoch != v->epoch)
        rc = fail(e, E_CONFLICT, "the volume is here, of epoch %" PRIu64 ", where a copy is to become the one of epoch %" PRIu64, there->epoch,
            v->epoch);
    return rc;
}

static int place_in(const struct pool *p, const struct pool_dirs *d, const struct volume *v, struct error *e)
{
    AUTO(close) int all = -1;
    AUTO(close) int fd = -1;
    struct placing pl = { .top = d->top };
    const bool was_placed = incoming_is_placed(d, &v->id);
    int rc = incoming_open(p, &all, e);
    if (rc == 0 && was_placed) {
        rc = check_placed(d, v, e);
    } else if (rc == 0) {
        rc = read_one(all, UUID_TEXT(&v->id), &pl.in, e);
        if (rc == -E_NOT_FOUND || (rc == 0 && !pl.in.copy[0]))
            return fail(e, E_NOT_FOUND, "there is no copy of it in this pool");
        if (rc == 0)
            rc = pool_open_directory(all, UUID_TEXT(&v->id), &fd, e);
        pl.fd = fd;
        if (rc == 0)
            rc = pool_volume_build(d, v, make_data, &pl, e);
    }
    FAILPOINT(TRANSFER_PLACED);
    if (rc == 0)
        rc = remove_all(all, UUID_TEXT(&v->id), e);
    if (rc == 0)
        rc = btrfs_commit(d->top, e);
    return rc < 0 ? rc : was_placed;
}

int pool_place(struct backend *b, const struct volume *v, struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    AUTO(close) int lock = -1;
    int rc = pool_lock_volume(p, &v->id, LOCK_WAIT_MS, &lock, e);
    if (rc > 0)
        rc = pool_open_dirs(p, &d, e);
    if (rc == 0)
        rc = place_in(p, &d, v, e);
    if (rc < 0)
        return pool_fail(p, rc, "place", &v->id, e);
    btrfs_free_deleted(d.top);
    return rc;
}
