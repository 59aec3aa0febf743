// A stream on its way into a copy. See btrfs_transfer.h for the layout.
#include "backend/btrfs_transfer.h"

#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/size.h"
#include "sys/atomic_file.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"
#include "sys/btrfs_send.h"
#include "sys/send_apply.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

struct receiver {
    const struct pool *pool;
    int lock, fd, part, base; // fd: incoming/<id>; base: the copy that an increment builds on, or -1
    struct uuid id;
    uint64_t base_seq, seq, offset;
    uint64_t limit; // of what is in the folder
    struct send_apply *apply;
    struct send_stream *stream;
    bool is_finished;
};

// ---- a checkpoint's state ----------------------------------------------------------------------------------------------------

// The file: this, and the bytes of the command that the checkpoint cuts. In this machine's byte order; the magic tells of another one.
struct mark_state {
    uint64_t magic;
    uint32_t checksum; // CRC-32C of all that follows
    uint32_t version;  // of the stream
    uint64_t has_ended;
    struct send_apply_state applied;
};
#define MARK_MAGIC     0x314b52414d4b4c46ULL // "FLKMARK1"
#define MARK_BYTES_MAX (sizeof(struct mark_state) + SEND_COMMAND_BYTES_MAX + 64)
#define CHECKED_FROM   offsetof(struct mark_state, version)


static int write_state(const struct receiver *r, int mark_fd, struct error *e)
{
    size_t n;
    const uint8_t *pending = send_stream_pending(r->stream, &n);
    struct mark_state head = { .magic = MARK_MAGIC, .version = send_stream_version(r->stream),
        .has_ended = send_stream_has_ended(r->stream), .applied = send_apply_state(r->apply) };
    AUTO(free) uint8_t *text = xcalloc(1, sizeof head + n);
    memcpy(text, &head, sizeof head);
    if (n)
        memcpy(text + sizeof head, pending, n);
    uint32_t checksum = crc32c(0, text + CHECKED_FROM, sizeof head + n - CHECKED_FROM);
    memcpy(text + offsetof(struct mark_state, checksum), &checksum, sizeof checksum);
    return atomic_file_create(mark_fd, MARK_STATE, text, sizeof head + n, 0600, e);
}

static int read_state(int mark_fd, char **ret, size_t *ret_n, struct mark_state *ret_head, struct error *e)
{
    AUTO(free) char *text = NULL;
    size_t n;
    int rc = atomic_file_read(mark_fd, MARK_STATE, MARK_BYTES_MAX, &text, &n, e);
    if (rc < 0)
        return rc;
    if (n >= sizeof *ret_head)
        memcpy(ret_head, text, sizeof *ret_head);
    if (n < sizeof *ret_head || ret_head->magic != MARK_MAGIC || ret_head->checksum != crc32c(0, text + CHECKED_FROM, n - CHECKED_FROM))
        return fail(e, E_CORRUPT, "the state of the checkpoint is damaged");
    *ret = TAKE(text, NULL);
    *ret_n = n;
    return 0;
}

static int restore(struct receiver *r, int mark_fd, struct error *e)
{
    AUTO(free) char *text = NULL;
    size_t n = 0;
    struct mark_state head;
    int rc = read_state(mark_fd, &text, &n, &head, e);
    if (rc < 0)
        return rc;
    r->apply = send_apply_new(r->part, r->base, &head.applied);
    r->stream = send_stream_new(send_apply_command, r->apply);
    return send_stream_restore(r->stream, head.version, head.has_ended, (const uint8_t *)text + sizeof head, n - sizeof head, e);
}

// ---- begin -------------------------------------------------------------------------------------------------------------------

// All that copies and parts write counts to one group. Classic qgroups have no such thing: there a part has the limit.
static int join_group(const struct receiver *r, struct error *e)
{
    AUTO(close) int group = -1;
    uint64_t owner = 0, part = 0;
    int rc = pool_has_entry(r->fd, INCOMING_GROUP) ? 0 : btrfs_subvolume_create(r->fd, INCOMING_GROUP, e);
    if (rc == 0)
        rc = pool_open_directory(r->fd, INCOMING_GROUP, &group, e);
    if (rc == 0)
        rc = btrfs_subvolume_id(group, &owner, e);
    if (rc == 0)
        rc = btrfs_subvolume_id(r->part, &part, e);
    if (rc == 0)
        rc = btrfs_quota_join(r->fd, owner, part, e);
    return rc < 0 ? rc : btrfs_quota_limit(r->fd, btrfs_quota_is_simple(r->fd) ? owner : part, r->limit, e);
}

// Makes `part`: empty, or from the subvolume at `from`.
static int make_part(struct receiver *r, const char *from, const struct volume_options *options, struct error *e)
{
    AUTO(close) int source = -1;
    int rc = 0;
    if (from) {
        rc = pool_open_directory(r->fd, from, &source, e);
        if (rc == 0)
            rc = btrfs_snapshot(r->fd, INCOMING_PART, source, false, e);
    } else {
        rc = btrfs_subvolume_create(r->fd, INCOMING_PART, e);
    }
    FAILPOINT(TRANSFER_PART_MADE);
    if (rc == 0)
        rc = pool_open_directory(r->fd, INCOMING_PART, &r->part, e);
    if (rc == 0 && !from)
        rc = pool_volume_set_options(r->part, options, e); // new files inherit the flag that turns off copy-on-write
    return rc < 0 ? rc : join_group(r, e);
}

static int check_begin(const struct receiver *r, const struct incoming *in, struct error *e)
{
    if (r->seq <= in->is.seq)
        return fail(e, E_CONFLICT, "snapshot %" PRIu64 " is here already, %" PRIu64 " is not to follow it", in->is.seq, r->seq);
    if (r->base_seq && r->base_seq != in->is.seq)
        return fail(e, E_CONFLICT, "the copy here is of snapshot %" PRIu64 ", not %" PRIu64, in->is.seq, r->base_seq);
    if (r->offset && (in->is.part_offset != r->offset || in->is.part_seq != r->seq || in->is.part_base != r->base_seq))
        return fail(e, E_NOT_FOUND, "there is no checkpoint at byte %" PRIu64 " of snapshot %" PRIu64, r->offset, r->seq);
    return 0;
}

static int begin_in(struct receiver *r, const struct volume *v, struct error *e)
{
    AUTO(close) int mark = -1;
    AUTO(free) char *mark_data = NULL;
    struct incoming in;
    int rc = incoming_open_one(r->pool, &v->id, &r->fd, e);
    if (rc == 0)
        rc = incoming_read(r->fd, &in, e);
    if (rc == 0)
        rc = check_begin(r, &in, e);
    if (rc < 0)
        return rc;
    if (r->offset)
        mark_data = xasprintf("%s/" MARK_DATA, in.mark);
    else
        in.mark[0] = '\0';
    rc = incoming_tidy(r->fd, &in, e);
    if (rc == 0 && r->base_seq)
        rc = pool_open_directory(r->fd, in.copy, &r->base, e);
    if (rc == 0)
        rc = make_part(r, mark_data ? mark_data : r->base_seq ? in.copy : NULL, &v->options, e);
    if (rc == 0 && r->offset) {
        rc = pool_open_directory(r->fd, in.mark, &mark, e);
        return rc < 0 ? rc : restore(r, mark, e);
    }
    r->apply = send_apply_new(r->part, r->base, NULL);
    r->stream = send_stream_new(send_apply_command, r->apply);
    return rc;
}

static int check_absent(const struct pool *p, const struct uuid *id, struct error *e)
{
    AUTO(pool_dirs_done) struct pool_dirs d = { -1, -1, -1 };
    int rc = pool_open_dirs(p, &d, e);
    return rc == 0 && incoming_is_placed(&d, id) ? fail(e, E_CONFLICT, "the volume itself is here") : rc;
}

DEFINE_AUTO(struct receiver *, pool_receive_free)

int pool_receive_begin(struct backend *b, const struct volume *v, uint64_t base, uint64_t seq, uint64_t offset, struct receiver **ret,
                       struct error *e)
{
    struct pool *p = pool_enter(b);
    AUTO(pool_receive_free) struct receiver *r = xcalloc(1, sizeof *r);
    *r = (struct receiver){ .pool = p, .lock = -1, .fd = -1, .part = -1, .base = -1, .id = v->id, .base_seq = base, .seq = seq, .offset = offset,
                            .limit = v->size ? volume_copy_max(v->size) : 0 };
    ASSERT(seq > base);
    int rc = pool_lock_volume(p, &v->id, LOCK_WAIT_MS, &r->lock, e);
    if (rc > 0)
        rc = check_absent(p, &v->id, e);
    if (rc == 0)
        rc = begin_in(r, v, e);
    if (rc < 0)
        return pool_fail(p, rc, "begin to receive", &v->id, e);
    *ret = TAKE(r, NULL);
    return 0;
}

// ---- the rest ----------------------------------------------------------------------------------------------------------------

int pool_receive_feed(struct receiver *r, const void *data, size_t n, struct error *e)
{
    int rc = send_stream_feed(r->stream, data, n, e);
    r->offset += n;
    if (rc < 0 && e->os_errno == EDQUOT) {
        char limit[SIZE_TEXT_SIZE];
        rc = fail(e, E_TOO_LARGE, "what has come of it takes more than %s, more than the volume can hold: make its size limit larger, or "
                  "look at the source", size_format(r->limit, limit));
    }
    return rc < 0 ? pool_fail(r->pool, rc, "receive", &r->id, e) : 0;
}

static int checkpoint_in(struct receiver *r, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e)
{
    AUTO(close) int mark = -1;
    struct incoming in;
    char name[NAME_MAX + 1];
    incoming_mark_name(r->base_seq, r->seq, r->offset, digest, name);
    int rc = incoming_read(r->fd, &in, e);
    if (rc < 0 || strcmp(in.mark, name) == 0)
        return rc; // nothing has come since
    if (mkdirat(r->fd, name, 0700) < 0)
        return fail_os(e, errno, "make a checkpoint");
    rc = pool_open_directory(r->fd, name, &mark, e);
    if (rc == 0)
        rc = write_state(r, mark, e);
    FAILPOINT(TRANSFER_MARK_NOTED);
    if (rc == 0)
        rc = btrfs_snapshot(mark, MARK_DATA, r->part, true, e);
    FAILPOINT(TRANSFER_MARKED);
    return rc;
}

int pool_receive_checkpoint(struct receiver *r, uint64_t offset, const uint8_t digest[BACKEND_DIGEST_SIZE], struct error *e)
{
    struct incoming in;
    ASSERT(offset == r->offset && !r->is_finished);
    int rc = checkpoint_in(r, digest, e);
    if (rc == 0)
        rc = incoming_read(r->fd, &in, e);
    if (rc == 0) {
        in.has_part = true;
        rc = incoming_tidy(r->fd, &in, e);
    }
    return rc < 0 ? pool_fail(r->pool, rc, "keep a checkpoint of", &r->id, e) : 0;
}

static int finish_in(struct receiver *r, const uint8_t digest[BACKEND_DIGEST_SIZE], bool final, struct error *e)
{
    char name[NAME_MAX + 1];
    struct incoming in;
    if (!send_stream_has_ended(r->stream))
        return fail(e, E_CORRUPT, "the stream is cut off after byte %" PRIu64, r->offset);
    // The snapshot writes out what is in memory of this subvolume only, and is durable when it is there.
    int rc = btrfs_snapshot(r->fd, incoming_copy_name(r->seq, final, digest, name), r->part, true, e);
    FAILPOINT(TRANSFER_COPIED);
    if (rc == 0)
        rc = incoming_read(r->fd, &in, e);
    return rc < 0 ? rc : incoming_tidy(r->fd, &in, e);
}

int pool_receive_finish(struct receiver *r, const uint8_t digest[BACKEND_DIGEST_SIZE], bool final, struct error *e)
{
    ASSERT(!r->is_finished);
    int rc = finish_in(r, digest, final, e);
    if (rc < 0)
        return pool_fail(r->pool, rc, "finish receiving", &r->id, e);
    r->is_finished = true;
    return 0;
}

void pool_receive_free(struct receiver *r)
{
    struct error ignored;
    if (r->apply)
        send_apply_free(r->apply);
    if (r->stream)
        send_stream_free(r->stream);
    if (r->part >= 0 && !r->is_finished)
        btrfs_subvolume_delete(r->fd, INCOMING_PART, &ignored); // its room is wanted; what stays is removed by the next to begin
    auto_close(&r->part);
    auto_close(&r->base);
    auto_close(&r->fd);
    auto_close(&r->lock); // last: until now nobody else was in the folder
    free(r);
}
