// Snapshots, streams and copies (backend/backend.h, from `snapshot` on): between two pools of each kind, on real file systems. Needs root.
#include "tree.h"

#include "base/failpoint.h"
#include "send_kit.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"
#include "sys/btrfs_tree.h"
#include "sys/send_stream.h"

#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/falloc.h>

DEFINE_AUTO(json_t *, json_decref)

struct pair {
    struct fixture *from, *to;
};

static int pair_of(void **state, uint64_t to_size)
{
    struct pair *p = xcalloc(1, sizeof *p);
    void *setup = *state, *at = setup;
    fixture_open(&at);
    p->from = at;
    at = setup;
    fixture_make(&at, to_size);
    p->to = at;
    NO_ERROR(open_pool(p->to, E));
    *state = p;
    return 0;
}

static int pair_start(void **state)
{
    return pair_of(state, POOL_SIZE);
}

static int pair_small(void **state)
{
    return pair_of(state, 160 * MIB);
}

static int pair_end(void **state)
{
    struct pair *p = *state;
    void *a = p->from, *b = p->to;
    fixture_end(&a);
    fixture_end(&b);
    free(p);
    return 0;
}

#define FROM (p->from->b)
#define TO   (p->to->b)
#define OPS  (p->from->setup->ops)

static const uint8_t some_digest[BACKEND_DIGEST_SIZE] = { 1, 2, 0xfe, 0xff, [31] = 9 };

static const char *data_of(const struct fixture *f, const struct volume *v)
{
    return path_of("%s/volumes/%s/data", top_of(f), UUID_TEXT(&v->id));
}

static const char *out_of(const struct fixture *f, const struct volume *v, unsigned seq)
{
    return path_of("%s/volumes/%s/out.%u", top_of(f), UUID_TEXT(&v->id), seq);
}

static const char *incoming_of(const struct fixture *f, const struct volume *v)
{
    return path_of("%s/incoming/%s", top_of(f), UUID_TEXT(&v->id));
}

// The one entry of incoming/<id> that starts with `prefix`; NULL: there is none.
static const char *entry_of(const struct fixture *f, const struct volume *v, const char *prefix)
{
    const char *ret = NULL;
    AUTO(closedir) DIR *dir = opendir(incoming_of(f, v));
    for (struct dirent *d; dir && (d = readdir(dir));)
        if (strncmp(d->d_name, prefix, strlen(prefix)) == 0) {
            assert_null(ret);
            ret = path_of("%s/%s", incoming_of(f, v), d->d_name);
        }
    return ret;
}

// ---- streams in memory ---------------------------------------------------------------------------------------------------------

static int collect(void *arg, const void *data, size_t n)
{
    stream_add(arg, data, n);
    return 0;
}

static struct stream send_all(struct pair *p, const struct volume *v, uint64_t base, uint64_t seq)
{
    struct stream s = { NULL, 0, 0 };
    NO_ERROR(OPS->send(FROM, &v->id, base, seq, collect, &s, E));
    return s;
}

static int feed(struct pair *p, struct receiver *r, const struct stream *s, size_t from, size_t to, size_t piece, struct error *e)
{
    int rc = 0;
    for (size_t at = from; rc == 0 && at < to; at += piece)
        rc = OPS->receive_feed(r, s->data + at, to - at < piece ? to - at : piece, e);
    return rc;
}

static void receive_all(struct pair *p, const struct volume *v, uint64_t base, uint64_t seq, const struct stream *s, size_t piece, bool final)
{
    struct receiver *r = NULL;
    NO_ERROR(OPS->receive_begin(TO, v, base, seq, 0, &r, E));
    NO_ERROR(feed(p, r, s, 0, s->n, piece, E));
    NO_ERROR(OPS->receive_finish(r, some_digest, final, E));
    OPS->receive_free(r);
}

static void move_one(struct pair *p, const struct volume *v, uint64_t base, uint64_t seq, size_t piece, bool final)
{
    NO_ERROR(OPS->snapshot(FROM, &v->id, seq, E));
    AUTO(stream_done) struct stream s = send_all(p, v, base, seq);
    receive_all(p, v, base, seq, &s, piece, final);
}

static struct volume *volume_with(struct pair *p, uint64_t size, bool nocow)
{
    struct volume *v = new_volume("db", size);
    v->options.nocow = nocow;
    NO_ERROR(OPS->create(FROM, v, E));
    return v;
}

struct seen_copies {
    size_t n;
    struct backend_copy copies[8];
};

static void on_copy(void *arg, const struct backend_copy *copy)
{
    struct seen_copies *s = arg;
    ASSERT(s->n < ARRAY_SIZE(s->copies));
    s->copies[s->n++] = *copy;
}

static struct seen_copies copies_of(struct pair *p)
{
    struct seen_copies s = { .n = 0 };
    NO_ERROR(OPS->copies(TO, on_copy, &s, E));
    return s;
}

static void reopen(struct fixture *f)
{
    close_pool(f);
    NO_ERROR(open_pool(f, E));
}

// ---- what arrives --------------------------------------------------------------------------------------------------------------

static void all_arrives_as_it_was(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    make_tree(data_of(p->from, v));
    move_one(p, v, 0, 1, 100000, false);
    same_tree(out_of(p->from, v, 1), entry_of(p->to, v, "copy.1.p."));
    change_tree(data_of(p->from, v));
    move_one(p, v, 1, 2, MIB, false);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy."));
    struct stat a, b;
    assert_int_equal(stat(path_of("%s/hard", entry_of(p->to, v, "copy.2.p.")), &a), 0);
    assert_int_equal(stat(path_of("%s/names/dir/hard too", entry_of(p->to, v, "copy.2.p.")), &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    move_one(p, v, 2, 3, 7777, true); // of nothing
    struct seen_copies s = copies_of(p);
    assert_int_equal(s.n, 1);
    assert_true(s.copies[0].seq == 3 && s.copies[0].final && s.copies[0].part_seq == 0 && uuid_equal(&s.copies[0].id, &v->id));
    assert_memory_equal(s.copies[0].digest, some_digest, sizeof some_digest);
    v->epoch = 2;
    v->size = 256 * MIB;
    struct error e = ERROR_INIT;
    assert_int_equal(OPS->place(TO, v, &e), 0);
    same_tree(out_of(p->from, v, 3), data_of(p->to, v));
    assert_int_equal(OPS->place(TO, v, &e), 1);
    assert_int_equal(copies_of(p).n, 0);
    assert_false(exists(incoming_of(p->to, v)));
    NO_ERROR(OPS->mount(TO, &v->id, E));
    put_file(path_of("%s/new", mount_point(p->to, &v->id)), 0, 1000);
    assert_int_equal(usage_of(p->to, &v->id).limit_bytes, 256 * MIB);
    NO_ERROR(OPS->unmount(TO, &v->id, E));
    NO_ERROR(OPS->destroy(FROM, &v->id, E));
    AUTO(seen_done) struct seen *there = observe(p->to);
    assert_int_equal(there->n, 1);
    AUTO(json_decref) json_t *x = volume_to_json(v);
    AUTO(json_decref) json_t *y = volume_to_json(there->volumes[0].record);
    assert_true(json_equal(x, y));
}

static void sharing_is_kept(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    put_file(path_of("%s/a", data_of(p->from, v)), 0, 20 * MIB);
    put_clone(path_of("%s/a", data_of(p->from, v)), path_of("%s/b", data_of(p->from, v)));
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream s = send_all(p, v, 0, 1);
    assert_true(s.n < 21 * MIB);
    receive_all(p, v, 0, 1, &s, MIB, false);
    // From a file that only the base has.
    assert_int_equal(rename(path_of("%s/a", data_of(p->from, v)), path_of("%s/c", data_of(p->from, v))), 0);
    put_clone(path_of("%s/b", data_of(p->from, v)), path_of("%s/d", data_of(p->from, v)));
    assert_int_equal(unlink(path_of("%s/b", data_of(p->from, v))), 0);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 2, E));
    AUTO(stream_done) struct stream more = send_all(p, v, 1, 2);
    assert_true(more.n < MIB);
    receive_all(p, v, 1, 2, &more, MIB, true);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy.2."));
    NO_ERROR(OPS->place(TO, v, E));
    sync_pool(p->to);
    uint64_t used = usage_of(p->to, &v->id).used_bytes;
    assert_true(used >= 20 * MIB && used < 22 * MIB);
}

static void no_copy_on_write_is_kept(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, true);
    assert_int_equal(mkdir(path_of("%s/dir", data_of(p->from, v)), 0755), 0);
    put_file(path_of("%s/dir/file", data_of(p->from, v)), 0, 3 * MIB);
    put_clone(path_of("%s/dir/file", data_of(p->from, v)), path_of("%s/clone", data_of(p->from, v)));
    move_one(p, v, 0, 1, 100000, false);
    put_file(path_of("%s/dir/more", data_of(p->from, v)), 0, 3 * MIB);
    move_one(p, v, 1, 2, 100000, true);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy."));
    NO_ERROR(OPS->place(TO, v, E));
    static const char *const names[] = { "", "/dir", "/dir/file", "/dir/more", "/clone" };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        int flags = 0;
        AUTO(close) int fd = open(path_of("%s%s", data_of(p->to, v), names[i]), O_RDONLY | O_CLOEXEC);
        assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
        assert_true(flags & FS_NOCOW_FL);
    }
}

static void holes_in_increments_are_holes(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 10 * MIB + 5);
    move_one(p, v, 0, 1, MIB, false);
    AUTO(close) int fd = open(path_of("%s/file", data_of(p->from, v)), O_WRONLY | O_CLOEXEC);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 9 * MIB), 0);
    put_file(path_of("%s/sparse", data_of(p->from, v)), 200 * MIB, 5);
    assert_int_equal(truncate(path_of("%s/sparse", data_of(p->from, v)), 300 * MIB), 0);
    move_one(p, v, 1, 2, MIB, true);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy."));
    struct stat st;
    assert_int_equal(stat(path_of("%s/file", entry_of(p->to, v, "copy.2.f.")), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < 2 * MIB);
}

// ---- snapshots -----------------------------------------------------------------------------------------------------------------

static void snapshots_are_numbered(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    uint64_t newest = 77;
    uint8_t digest[BACKEND_DIGEST_SIZE];
    NO_ERROR(OPS->snapshots(FROM, &v->id, &newest, E));
    assert_int_equal(newest, 0);
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 100);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 9, E));
    put_file(path_of("%s/second", data_of(p->from, v)), 0, 100);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 9, E));
    assert_false(exists(path_of("%s/second", out_of(p->from, v, 9))));
    NO_ERROR(OPS->snapshot(FROM, &v->id, 10, E));
    assert_true(exists(path_of("%s/second", out_of(p->from, v, 10))));
    NO_ERROR(OPS->note_digest(FROM, &v->id, 9, some_digest, E));
    EXPECT(E_NOT_FOUND, "no digest yet", OPS->read_digest(FROM, &v->id, 10, digest, E));
    EXPECT(E_NOT_FOUND, "no snapshot number 11", OPS->read_digest(FROM, &v->id, 11, digest, E));
    EXPECT(E_NOT_FOUND, "no snapshot number 11", OPS->note_digest(FROM, &v->id, 11, some_digest, E));
    EXPECT(E_NOT_FOUND, "no snapshot number 8", OPS->send(FROM, &v->id, 8, 9, collect, NULL, E));
    reopen(p->from);
    NO_ERROR(OPS->snapshots(FROM, &v->id, &newest, E));
    assert_int_equal(newest, 10);
    NO_ERROR(OPS->read_digest(FROM, &v->id, 9, digest, E));
    assert_memory_equal(digest, some_digest, sizeof digest);
    write_file(path_of("%s.digest", out_of(p->from, v, 9)), "nonsense");
    EXPECT(E_CORRUPT, "damaged", OPS->read_digest(FROM, &v->id, 9, digest, E));
    NO_ERROR(OPS->snapshots_drop(FROM, &v->id, 10, E));
    assert_false(exists(out_of(p->from, v, 9)));
    assert_false(exists(path_of("%s.digest", out_of(p->from, v, 9))));
    assert_true(exists(out_of(p->from, v, 10)));
    NO_ERROR(OPS->destroy(FROM, &v->id, E));
    assert_false(exists(path_of("%s/volumes/%s", top_of(p->from), UUID_TEXT(&v->id))));
    EXPECT(E_NOT_FOUND, "no such volume", OPS->snapshot(FROM, &v->id, 1, E));
}

static int refuse_second(void *arg, const void *data, size_t n)
{
    (void)data;
    size_t *total = arg;
    *total += n;
    return *total > 2 * MIB ? -E_BUSY : 0;
}

static void send_can_be_ended(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    size_t total = 0;
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 30 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    EXPECT(E_BUSY, "", OPS->send(FROM, &v->id, 0, 1, refuse_second, &total, E));
    assert_true(total < 4 * MIB);
    // Nothing goes on behind it, and the next one says the same from the start.
    AUTO(stream_done) struct stream a = send_all(p, v, 0, 1);
    AUTO(stream_done) struct stream b = send_all(p, v, 0, 1);
    assert_true(a.n == b.n && memcmp(a.data, b.data, a.n) == 0);
    NO_ERROR(OPS->snapshots_drop(FROM, &v->id, UINT64_MAX, E));
}

struct while_sending {
    struct pair *p;
    const struct volume *v;
    bool tried;
};

static int drop_meanwhile(void *arg, const void *data, size_t n)
{
    (void)data, (void)n;
    struct while_sending *w = arg;
    struct pair *p = w->p;
    if (!w->tried)
        EXPECT(E_BUSY, "is being sent", OPS->snapshots_drop(FROM, &w->v->id, 2, E));
    w->tried = true;
    return 0;
}

static void what_is_sent_stays(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    struct while_sending w = { p, v, false };
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 10 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    NO_ERROR(OPS->send(FROM, &v->id, 0, 1, drop_meanwhile, &w, E));
    assert_true(w.tried);
    NO_ERROR(OPS->snapshots_drop(FROM, &v->id, 2, E));
}

static void subvolumes_inside_are_not_lost_silently(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    assert_int_equal(mkdir(path_of("%s/some", data_of(p->from, v)), 0755), 0);
    assert_int_equal(mkdir(path_of("%s/some/folder", data_of(p->from, v)), 0755), 0);
    AUTO(close) int fd = open(path_of("%s/some/folder", data_of(p->from, v)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    NO_ERROR(btrfs_subvolume_create(fd, "inner\n", E));
    EXPECT(E_UNSUPPORTED, "\"some/folder/inner?\"", OPS->snapshot(FROM, &v->id, 1, E));
    NO_ERROR(btrfs_subvolume_delete(fd, "inner\n", E));
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
}

// ---- checkpoints ---------------------------------------------------------------------------------------------------------------

static void begin_minds_what_is_there(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    AUTO(volume_free) struct volume *other = new_volume("other", 0);
    struct receiver *r = NULL;
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 3 * MIB);
    EXPECT(E_NOT_FOUND, "no checkpoint", OPS->receive_begin(TO, v, 0, 1, MIB, &r, E));
    EXPECT(E_CONFLICT, "is of snapshot 0, not 1", OPS->receive_begin(TO, v, 1, 2, 0, &r, E));
    EXPECT(E_NOT_FOUND, "no copy", OPS->place(TO, v, E));
    NO_ERROR(OPS->discard(TO, &v->id, E));
    move_one(p, v, 0, 3, MIB, false);
    EXPECT(E_CONFLICT, "snapshot 3 is here already", OPS->receive_begin(TO, v, 0, 3, 0, &r, E));
    EXPECT(E_CONFLICT, "is of snapshot 3, not 2", OPS->receive_begin(TO, v, 2, 4, 0, &r, E));
    EXPECT(E_CONFLICT, "the volume itself is here", OPS->receive_begin(FROM, v, 0, 4, 0, &r, E));
    NO_ERROR(OPS->create(TO, other, E));
    assert_int_equal(copies_of(p).n, 1);
    v->epoch = 5;
    NO_ERROR(OPS->place(TO, v, E));
    v->epoch = 6;
    EXPECT(E_CONFLICT, "of epoch 5", OPS->place(TO, v, E));
}

static int hold_lock(void *arg)
{
    struct pair *p = arg;
    struct receiver *r = NULL;
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    v->id = (struct uuid){ { 7 } };
    return OPS->receive_begin(TO, v, 0, 1, 0, &r, &e);
}

static void one_receiver_at_a_time(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    v->id = (struct uuid){ { 7 } };
    struct helper h = helper_start(NS_OWN, hold_lock, p);
    EXPECT(E_BUSY, "still going on", OPS->discard(TO, &v->id, E));
    reopen(p->to); // sweeps nothing that is in use
    assert_non_null(entry_of(p->to, v, "part"));
    kill(h.pid, SIGKILL);
    helper_end(&h);
    NO_ERROR(OPS->discard(TO, &v->id, E));
    assert_false(exists(incoming_of(p->to, v)));
}

struct killed {
    struct pair *p;
    const struct volume *v;
    const struct stream *s;
    uint64_t base, seq, offset, stop; // stop: bytes after which the process dies
};

static uint64_t mark_every = 3 * MIB / 2 + 1001; // any byte will do, not only the end of a command

static uint8_t digest_at(uint64_t offset)
{
    return (uint8_t)(offset * 7 / 1001);
}

static int receive_until_killed(void *arg)
{
    const struct killed *k = arg;
    struct pair *p = k->p;
    struct receiver *r = NULL;
    struct error e = ERROR_INIT;
    if (OPS->receive_begin(TO, k->v, k->base, k->seq, k->offset, &r, &e) < 0) {
        print_error("%s\n", e.msg);
        return 1;
    }
    for (uint64_t at = k->offset; at < k->s->n;) {
        uint64_t next = (at / mark_every + 1) * mark_every;
        if (next > k->s->n)
            next = k->s->n;
        uint64_t end = k->stop < next ? k->stop : next;
        const uint8_t digest[BACKEND_DIGEST_SIZE] = { digest_at(next) };
        if (feed(p, r, k->s, at, end, 65537, &e) < 0) {
            print_error("%s\n", e.msg);
            return 2;
        }
        if (end == k->stop)
            kill(getpid(), SIGKILL);
        if (OPS->receive_checkpoint(r, next, digest, &e) < 0)
            return 3;
        at = next;
    }
    int rc = OPS->receive_finish(r, some_digest, false, &e);
    OPS->receive_free(r);
    return rc < 0 ? 4 : 0;
}

// A process that dies again and again while it receives; each one goes on where the last checkpoint is.
static void receive_with_kills(struct pair *p, const struct volume *v, uint64_t base, uint64_t seq, const struct stream *s, uint64_t step)
{
    struct killed k = { p, v, s, base, seq, 0, step };
    for (int round = 0;; round++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0 && round < 1000);
        if (pid == 0)
            _exit(receive_until_killed(&k));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return;
        }
        if (round % 3 == 2)
            reopen(p->to);
        struct seen_copies seen = copies_of(p);
        assert_true(seen.n <= 1);
        const struct backend_copy *c = &seen.copies[0];
        k.offset = seen.n ? c->part_offset : 0;
        if (k.offset) {
            assert_true(c->part_seq == seq && c->part_base == base && c->part_digest[0] == digest_at(k.offset) && c->seq == base);
            assert_true(k.offset <= k.stop && k.offset + mark_every >= k.stop);
        }
        k.stop += step;
    }
}

static void kills_lose_nothing(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    make_tree(data_of(p->from, v));
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream whole = send_all(p, v, 0, 1);
    receive_with_kills(p, v, 0, 1, &whole, 900011);
    same_tree(out_of(p->from, v, 1), entry_of(p->to, v, "copy."));
    change_tree(data_of(p->from, v));
    NO_ERROR(OPS->snapshot(FROM, &v->id, 2, E));
    AUTO(stream_done) struct stream more = send_all(p, v, 1, 2);
    mark_every = 20011;
    receive_with_kills(p, v, 1, 2, &more, 30011);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy."));
    assert_null(entry_of(p->to, v, "mark."));
    assert_null(entry_of(p->to, v, "part"));
}

static void damaged_checkpoint_is_told(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    struct receiver *r = NULL;
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 3 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream s = send_all(p, v, 0, 1);
    NO_ERROR(OPS->receive_begin(TO, v, 0, 1, 0, &r, E));
    NO_ERROR(feed(p, r, &s, 0, 10000, 1000, E));
    NO_ERROR(OPS->receive_checkpoint(r, 10000, some_digest, E));
    NO_ERROR(OPS->receive_checkpoint(r, 10000, some_digest, E));
    OPS->receive_free(r);
    write_file(path_of("%s/state", entry_of(p->to, v, "mark.0.1.10000.")), "nonsense, but long enough to be read as if it were the head of a state");
    EXPECT(E_CORRUPT, "checkpoint is damaged", OPS->receive_begin(TO, v, 0, 1, 10000, &r, E));
    receive_all(p, v, 0, 1, &s, MIB, true);
    same_tree(out_of(p->from, v, 1), entry_of(p->to, v, "copy."));
}

static void cut_stream_is_no_copy(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    struct receiver *r = NULL;
    put_file(path_of("%s/file", data_of(p->from, v)), 0, 3 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream s = send_all(p, v, 0, 1);
    NO_ERROR(OPS->receive_begin(TO, v, 0, 1, 0, &r, E));
    NO_ERROR(feed(p, r, &s, 0, s.n - 10, 1000000, E)); // without its last command
    EXPECT(E_CORRUPT, "cut off", OPS->receive_finish(r, some_digest, true, E));
    OPS->receive_free(r);
    assert_int_equal(copies_of(p).n, 0);
    assert_null(entry_of(p->to, v, "part"));
}

// ---- limits --------------------------------------------------------------------------------------------------------------------

static int fill(const char *path, uint64_t bytes)
{
    AUTO(free) char *data = random_bytes(MIB);
    AUTO(close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (uint64_t done = 0; fd >= 0 && done < bytes; done += MIB)
        if (write(fd, data, MIB) < 0)
            return errno;
    return fd < 0 || fsync(fd) < 0 ? errno : 0;
}

static void check_limit(struct pair *p, const struct volume *v, uint64_t used)
{
    sync_pool(p->to);
    struct backend_usage u = usage_of(p->to, &v->id);
    print_message("             %s: %.2f MiB used of %.0f written\n", p->to->setup->name, (double)u.used_bytes / MIB, (double)used / MIB);
    assert_int_equal(u.limit_bytes, v->size);
    assert_true(u.used_bytes >= used && u.used_bytes < used + 2 * MIB);
    NO_ERROR(OPS->mount(TO, &v->id, E));
    int err = fill(path_of("%s/fill", mount_point(p->to, &v->id)), v->size);
    assert_true(err == EDQUOT || err == ENOSPC);
    sync_pool(p->to);
    u = usage_of(p->to, &v->id);
    assert_true(u.used_bytes <= v->size + 2 * MIB && u.used_bytes + 4 * MIB >= v->size);
    NO_ERROR(OPS->unmount(TO, &v->id, E));
}

// What was written by parts that are gone counts, what was overwritten doesn't, and after a restart it is the same.
static void limit_counts_what_was_received(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 96 * MIB, false);
    put_file(path_of("%s/a", data_of(p->from, v)), 0, 20 * MIB);
    put_file(path_of("%s/b", data_of(p->from, v)), 0, 10 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream whole = send_all(p, v, 0, 1);
    mark_every = 5 * MIB + 3;
    receive_with_kills(p, v, 0, 1, &whole, 7 * MIB);
    assert_int_equal(unlink(path_of("%s/b", data_of(p->from, v))), 0);
    put_file(path_of("%s/c", data_of(p->from, v)), 0, 30 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 2, E));
    AUTO(stream_done) struct stream more = send_all(p, v, 1, 2);
    receive_with_kills(p, v, 1, 2, &more, 7 * MIB);
    reopen(p->to);
    NO_ERROR(OPS->place(TO, v, E));
    same_tree(out_of(p->from, v, 2), data_of(p->to, v));
    // What b had is freed in the background.
    for (int i = 0; i < 300 && usage_of(p->to, &v->id).used_bytes > 52 * MIB; i++, nap_ms(50))
        sync_pool(p->to);
    check_limit(p, v, 50 * MIB);
    NO_ERROR(p->to->setup->ops->shutdown(TO, E));
    reopen(p->to);
    assert_int_equal(unlink(path_of("%s/fill", data_of(p->to, v))), 0);
    for (int i = 0; i < 300 && usage_of(p->to, &v->id).used_bytes > 52 * MIB; i++, nap_ms(50))
        sync_pool(p->to);
    check_limit(p, v, 50 * MIB);
}

static void limit_does_not_hinder_receiving(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    put_file(path_of("%s/a", data_of(p->from, v)), 0, 100 * MIB);
    v->size = 64 * MIB;
    move_one(p, v, 0, 1, MIB, true);
    NO_ERROR(OPS->place(TO, v, E));
    same_tree(out_of(p->from, v, 1), data_of(p->to, v));
    assert_int_not_equal(fill(path_of("%s/more", data_of(p->to, v)), 8 * MIB), 0);
}

static int receive_one(struct pair *p, const struct volume *v, uint64_t seq, bool final, struct error *e)
{
    struct receiver *r = NULL;
    AUTO(stream_done) struct stream s = send_all(p, v, seq - 1, seq);
    int rc = OPS->receive_begin(TO, v, seq - 1, seq, 0, &r, e);
    if (rc == 0)
        rc = feed(p, r, &s, 0, s.n, MIB, e);
    if (rc == 0)
        rc = OPS->receive_finish(r, some_digest, final, e);
    if (r)
        OPS->receive_free(r);
    return rc;
}

// A source may send one increment after the other, each of which is no longer than the volume may be; what is kept of them has a limit all the
// same.
static void receiving_has_a_limit(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    struct error e = ERROR_INIT;
    unsigned seq = 0;
    int rc = 0;
    v->size = 64 * MIB;
    while (rc == 0 && seq < 6) {
        put_file(path_of("%s/f%u", data_of(p->from, v), seq), 0, 60 * MIB);
        seq++;
        NO_ERROR(OPS->snapshot(FROM, &v->id, seq, E));
        rc = receive_one(p, v, seq, false, &e);
    }
    assert_int_equal(rc, -E_TOO_LARGE);
    assert_non_null(strstr(e.msg, "more than 192MiB, more than the volume can hold"));
    assert_true(seq >= 3 && seq <= 5);
    v->size *= 4; // as the error says
    NO_ERROR(receive_one(p, v, seq, true, E));
    NO_ERROR(OPS->place(TO, v, E));
    same_tree(out_of(p->from, v, seq), data_of(p->to, v));
}

static size_t count_groups(const struct fixture *f)
{
    AUTO(close) int fd = open(top_of(f), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_INFO_KEY, 0, UINT64_MAX };
    struct btrfs_item item;
    size_t n = 0;
    for (; btrfs_tree_first(fd, &range, &item) > 0; range.first = item.offset + 1)
        n++;
    return n;
}

static void no_group_is_left(void **state)
{
    struct pair *p = *state;
    sync_pool(p->to);
    size_t before = count_groups(p->to), after = 0;
    for (int round = 0; round < 2; round++) {
        AUTO(volume_free) struct volume *v = volume_with(p, 64 * MIB, false);
        put_file(path_of("%s/a", data_of(p->from, v)), 0, 10 * MIB);
        NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
        AUTO(stream_done) struct stream whole = send_all(p, v, 0, 1);
        mark_every = 2 * MIB;
        receive_with_kills(p, v, 0, 1, &whole, 3 * MIB);
        if (round == 0) {
            NO_ERROR(OPS->discard(TO, &v->id, E));
        } else {
            NO_ERROR(OPS->place(TO, v, E));
            NO_ERROR(OPS->destroy(TO, &v->id, E));
        }
        for (int i = 0; i < 100; i++, nap_ms(50)) {
            sync_pool(p->to);
            reopen(p->to);
            if ((after = count_groups(p->to)) <= before)
                break;
        }
        assert_int_equal(after, before);
    }
}

static void full_pool_says_so(void **state)
{
    struct pair *p = *state;
    AUTO(volume_free) struct volume *v = volume_with(p, 0, false);
    struct receiver *r = NULL;
    put_file(path_of("%s/a", data_of(p->from, v)), 0, 10 * MIB);
    put_file(path_of("%s/b", data_of(p->from, v)), 0, 200 * MIB);
    NO_ERROR(OPS->snapshot(FROM, &v->id, 1, E));
    AUTO(stream_done) struct stream s = send_all(p, v, 0, 1);
    NO_ERROR(OPS->receive_begin(TO, v, 0, 1, 0, &r, E));
    NO_ERROR(feed(p, r, &s, 0, 8 * MIB, MIB, E));
    NO_ERROR(OPS->receive_checkpoint(r, 8 * MIB, some_digest, E));
    EXPECT(E_NO_SPACE, "is full", feed(p, r, &s, 8 * MIB, s.n, MIB, E));
    OPS->receive_free(r);
    struct seen_copies seen = copies_of(p);
    assert_true(seen.n == 1 && seen.copies[0].part_offset == 8 * MIB && seen.copies[0].seq == 0);
    NO_ERROR(OPS->discard(TO, &v->id, E));
    assert_int_equal(copies_of(p).n, 0);
    assert_int_equal(unlink(path_of("%s/b", data_of(p->from, v))), 0);
    for (int i = 0; i < 100; i++, nap_ms(50)) { // the space comes back in the background
        struct backend_usage u = { 0 };
        sync_pool(p->to);
        NO_ERROR(OPS->pool_usage(TO, &u, E));
        if (u.used_bytes < 20 * MIB)
            break;
    }
    move_one(p, v, 0, 2, MIB, true);
    same_tree(out_of(p->from, v, 2), entry_of(p->to, v, "copy."));
}

// ---- hostile streams -----------------------------------------------------------------------------------------------------------

static void attack_through_link(struct stream *s)
{
    stream_paths(s, SEND_MKFILE, "link/evil", 0, NULL);
}
static void attack_write_through_link(struct stream *s)
{
    stream_write(s, "link/victim", 0, "evil");
}
static void attack_write_link(struct stream *s)
{
    stream_write(s, "file link", 0, "evil");
}
static void attack_write_device(struct stream *s)
{
    stream_write(s, "device", 0, "evil");
}
static void attack_write_fifo(struct stream *s)
{
    stream_write(s, "fifo", 0, "evil");
}
static void attack_rename_out(struct stream *s)
{
    stream_paths(s, SEND_RENAME, "file", S_PATH_TO, "link/evil");
}
static void attack_rename_in(struct stream *s)
{
    stream_paths(s, SEND_RENAME, "link/victim", S_PATH_TO, "mine");
}
static void attack_link_in(struct stream *s)
{
    stream_paths(s, SEND_LINK, "mine", S_PATH_LINK, "link/victim");
}
static void attack_unlink(struct stream *s)
{
    stream_paths(s, SEND_UNLINK, "link/victim", 0, NULL);
}
static void chmod_to(struct stream *s, const char *path)
{
    stream_begin(s, SEND_CHMOD);
    stream_text(s, S_PATH, path);
    stream_64(s, S_MODE, 0777);
    stream_end_command(s);
}
static void attack_chmod(struct stream *s)
{
    chmod_to(s, "link/victim");
}
static void attack_chmod_link(struct stream *s)
{
    chmod_to(s, "file link");
}
static void attack_xattr(struct stream *s)
{
    stream_begin(s, SEND_SET_XATTR);
    stream_text(s, S_PATH, "link/victim");
    stream_text(s, S_XATTR_NAME, "user.evil");
    stream_text(s, S_XATTR_DATA, "evil");
    stream_end_command(s);
}
static void clone_of(struct stream *s, uint8_t id, const char *path)
{
    uint8_t uuid[16] = { id };
    stream_begin(s, SEND_CLONE);
    stream_text(s, S_PATH, "file");
    stream_64(s, S_OFFSET, 0);
    stream_64(s, S_FROM_LENGTH, 6);
    stream_attribute(s, S_FROM_UUID, uuid, sizeof uuid);
    stream_64(s, S_FROM_TRANSACTION, 7);
    stream_text(s, S_FROM_PATH, path);
    stream_64(s, S_FROM_OFFSET, 0);
    stream_end_command(s);
}
static void attack_clone(struct stream *s)
{
    clone_of(s, 1, "link/victim");
}
static void attack_clone_link(struct stream *s)
{
    clone_of(s, 1, "file link");
}
static void attack_clone_foreign(struct stream *s)
{
    clone_of(s, 2, "file");
}
static void attack_second_subvolume(struct stream *s)
{
    stream_subvolume(s, 3);
}
static void attack_long_name(struct stream *s)
{
    char name[400];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    stream_begin(s, SEND_SET_XATTR);
    stream_text(s, S_PATH, name);
    stream_text(s, S_XATTR_NAME, "user.evil");
    stream_text(s, S_XATTR_DATA, "evil");
    stream_end_command(s);
}
static void attack_mknod_of_file(struct stream *s)
{
    stream_begin(s, SEND_MKNOD);
    stream_text(s, S_PATH, "node");
    stream_64(s, S_MODE, S_IFDIR | 0700);
    stream_64(s, S_RDEV, 0);
    stream_end_command(s);
}
static void attack_root(struct stream *s)
{
    stream_paths(s, SEND_RMDIR, "", 0, NULL);
}
static void attack_rename_to_root(struct stream *s)
{
    stream_paths(s, SEND_RENAME, "file", S_PATH_TO, "");
}

static void make_stage(struct stream *s, const char *outside)
{
    stream_header(s, 1);
    stream_subvolume(s, 1);
    stream_paths(s, SEND_MKFILE, "file", 0, NULL);
    stream_paths(s, SEND_SYMLINK, "link", S_PATH_LINK, outside);
    stream_paths(s, SEND_SYMLINK, "file link", S_PATH_LINK, path_of("%s/victim", outside));
    stream_paths(s, SEND_MKFIFO, "fifo", 0, NULL);
    stream_begin(s, SEND_MKNOD);
    stream_text(s, S_PATH, "device");
    stream_64(s, S_MODE, S_IFCHR | 0600);
    stream_64(s, S_RDEV, 0x103);
    stream_end_command(s);
}

static void nothing_gets_out(void **state)
{
    struct pair *p = *state;
    static void (*const attacks[])(struct stream *s) = {
        attack_through_link, attack_write_through_link, attack_write_link, attack_write_device, attack_write_fifo, attack_rename_out,
        attack_rename_in, attack_link_in, attack_unlink, attack_chmod, attack_chmod_link, attack_xattr, attack_clone, attack_clone_link,
        attack_clone_foreign, attack_second_subvolume, attack_long_name, attack_mknod_of_file, attack_root, attack_rename_to_root,
    };
    char *outside = xasprintf("%s/outside", top_of(p->to));
    assert_int_equal(mkdir(outside, 0700), 0);
    write_file(path_of("%s/victim", outside), "victim");
    assert_int_equal(chmod(path_of("%s/victim", outside), 0600), 0);
    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++) {
        AUTO(stream_done) struct stream s = { NULL, 0, 0 };
        AUTO(volume_free) struct volume *v = new_volume("db", 0);
        struct receiver *r = NULL;
        struct error e = ERROR_INIT;
        make_stage(&s, outside);
        NO_ERROR(OPS->receive_begin(TO, v, 0, 1, 0, &r, E));
        NO_ERROR(feed(p, r, &s, 0, s.n, 1000, E));
        size_t at = s.n;
        attacks[i](&s);
        int rc = feed(p, r, &s, at, s.n, 1000, &e);
        if (rc >= 0 || (e.code != E_CORRUPT && e.code != E_IO))
            fail_msg("attack %zu: %d, %s", i, rc, e.msg);
        OPS->receive_free(r);
        struct stat st;
        assert_int_equal(stat(path_of("%s/victim", outside), &st), 0);
        assert_true(st.st_nlink == 1 && st.st_mode == (S_IFREG | 0600));
        assert_string_equal(read_file(path_of("%s/victim", outside)), "victim");
        assert_false(exists(path_of("%s/evil", outside)));
        assert_int_equal(getxattr(path_of("%s/victim", outside), "user.evil", NULL, 0), -1);
        NO_ERROR(OPS->discard(TO, &v->id, E));
    }
    free(outside);
}

// ---- crashes -------------------------------------------------------------------------------------------------------------------

struct life {
    struct pair *p;
    const struct volume *v, *gone;
    const char *failpoint;
};

static char life_error[256]; // why the last one ended early

// All that there is to do, in steps that are repeated from the start until all succeed.
static int live_on(const struct life *l, struct error *e)
{
    struct pair *p = l->p;
    struct stream s[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } };
    bool is_here = exists(data_of(p->to, l->v));
    if (!is_here) {
        if (OPS->snapshot(FROM, &l->v->id, 2, e) < 0 || OPS->snapshot(FROM, &l->gone->id, 1, e) < 0 ||
            OPS->send(FROM, &l->v->id, 1, 2, collect, &s[0], e) < 0 || OPS->send(FROM, &l->gone->id, 0, 1, collect, &s[1], e) < 0)
            return 1;
        struct seen_copies seen = copies_of(p);
        const struct backend_copy *c = NULL;
        for (size_t i = 0; i < seen.n; i++)
            if (uuid_equal(&seen.copies[i].id, &l->v->id))
                c = &seen.copies[i];
        ASSERT(c && c->seq >= 1); // acknowledged before
        struct receiver *r = NULL;
        if (c->seq == 1) {
            size_t offset = c->part_offset;
            if (OPS->receive_begin(TO, l->v, 1, 2, offset, &r, e) < 0)
                return 2;
            for (size_t at = offset; at < s[0].n; at += at < 4000 ? 4000 - at : s[0].n - at)
                if (feed(p, r, &s[0], at, at < 4000 ? 4000 : s[0].n, 1000, e) < 0 ||
                    (at < 4000 && OPS->receive_checkpoint(r, 4000, some_digest, e) < 0))
                    return 3;
            if (OPS->receive_finish(r, some_digest, true, e) < 0)
                return 4;
            OPS->receive_free(r);
        }
        if (OPS->receive_begin(TO, l->gone, 0, 1, 0, &r, e) < 0 || feed(p, r, &s[1], 0, s[1].n, 1000, e) < 0)
            return 5;
        OPS->receive_free(r);
        if (OPS->discard(TO, &l->gone->id, e) < 0)
            return 6;
    }
    if (OPS->place(TO, l->v, e) < 0 || OPS->snapshots_drop(FROM, &l->v->id, 2, e) < 0)
        return 7;
    stream_done(&s[0]);
    stream_done(&s[1]);
    return 0;
}

static int live(const struct life *l)
{
    struct error e = ERROR_INIT;
    int rc = live_on(l, &e);
    snprintf(life_error, sizeof life_error, "%s", e.msg);
    return rc;
}

static int live_until_failpoint(void *arg)
{
    const struct life *l = arg;
    struct error e = ERROR_INIT;
    setenv("FLOCKER_FAILPOINT", l->failpoint, 1);
    AUTO(close) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, STDERR_FILENO);
    return failpoint_init(&e) < 0 ? 9 : live(l);
}

static void killed_at(struct pair *p, const char *failpoint)
{
    AUTO(volume_free) struct volume *v = volume_with(p, 64 * MIB, false);
    AUTO(volume_free) struct volume *gone = volume_with(p, 0, false);
    struct life l = { p, v, gone, failpoint };
    int status;
    put_file(path_of("%s/a", data_of(p->from, v)), 0, 3 * MIB);
    move_one(p, v, 0, 1, MIB, false);
    put_file(path_of("%s/b", data_of(p->from, v)), 0, MIB);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(live_until_failpoint(&l));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status))
        fail_msg("%s was never reached, %d", failpoint, WEXITSTATUS(status));
    if (failpoint[strlen(failpoint) - 1] != 'd') // with and without a restart of the agent
        reopen(p->to);
    int rc = live(&l);
    if (rc)
        fail_msg("after %s: %d: %s", failpoint, rc, life_error);
    same_tree(out_of(p->from, v, 2), data_of(p->to, v));
    reopen(p->to);
    assert_false(exists(incoming_of(p->to, v)) || exists(incoming_of(p->to, gone)) || exists(out_of(p->from, v, 1)));
    assert_int_equal(rmdir(path_of("%s/staging", top_of(p->to))), 0); // nothing is left in it
    assert_int_equal(mkdir(path_of("%s/staging", top_of(p->to)), 0700), 0);
    sync_pool(p->to);
    uint64_t used = usage_of(p->to, &v->id).used_bytes;
    assert_true(used >= 4 * MIB && used < 5 * MIB);
    NO_ERROR(OPS->destroy(TO, &v->id, E));
    NO_ERROR(OPS->destroy(FROM, &v->id, E));
    NO_ERROR(OPS->destroy(FROM, &gone->id, E));
}

static void killed_at_each_failpoint(void **state)
{
    static const char *const points[] = {
        "transfer.snapshot", "transfer.dropped", "transfer.part-made", "transfer.part-made:2", "transfer.mark-noted", "transfer.marked",
        "transfer.copied", "create.staged", "create.limited", "create.recorded", "create.placed", "transfer.shared", "transfer.placed",
        "transfer.discarded",
    };
    for (size_t i = 0; i < ARRAY_SIZE(points); i++)
        if (strcmp(points[i], "create.staged") != 0)
            killed_at(*state, points[i]);
}

static void acknowledged_survives_power_loss(void **state)
{
    // What the image holds right after a call returned is what a power loss leaves.
    struct pair *p = *state;
    AUTO(volume_free) struct volume *placed = volume_with(p, 64 * MIB, false);
    AUTO(volume_free) struct volume *copied = volume_with(p, 64 * MIB, false);
    AUTO(volume_free) struct volume *marked = volume_with(p, 64 * MIB, false);
    AUTO(volume_free) struct volume *gone = volume_with(p, 64 * MIB, false);
    struct volume *const all[] = { placed, copied, marked, gone };
    struct receiver *r = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        put_file(path_of("%s/a", data_of(p->from, all[i])), 0, 3 * MIB);
        NO_ERROR(OPS->snapshot(FROM, &all[i]->id, 1, E));
    }
    AUTO(stream_done) struct stream s = send_all(p, marked, 0, 1);
    move_one(p, placed, 0, 1, MIB, true);
    move_one(p, gone, 0, 1, MIB, true);
    NO_ERROR(OPS->place(TO, placed, E));
    NO_ERROR(OPS->discard(TO, &gone->id, E));
    NO_ERROR(OPS->receive_begin(TO, marked, 0, 1, 0, &r, E));
    NO_ERROR(feed(p, r, &s, 0, 2 * MIB, MIB, E));
    NO_ERROR(OPS->receive_checkpoint(r, 2 * MIB, some_digest, E));
    move_one(p, copied, 0, 1, MIB, true);
    NO_ERROR(run_program((const char *const[]){ "cp", "--sparse=always", p->to->path, path_of("%s/copy", p->to->dir), NULL }, E));
    OPS->receive_free(r);
    NO_ERROR(OPS->shutdown(TO, E));
    close_pool(p->to);
    assert_int_equal(rename(path_of("%s/copy", p->to->dir), p->to->path), 0);
    NO_ERROR(open_pool(p->to, E));
    same_tree(out_of(p->from, placed, 1), data_of(p->to, placed));
    same_tree(out_of(p->from, copied, 1), entry_of(p->to, copied, "copy."));
    assert_false(exists(incoming_of(p->to, gone)));
    NO_ERROR(OPS->receive_begin(TO, marked, 0, 1, 2 * MIB, &r, E));
    NO_ERROR(feed(p, r, &s, 2 * MIB, s.n, MIB, E));
    NO_ERROR(OPS->receive_finish(r, some_digest, true, E));
    OPS->receive_free(r);
    same_tree(out_of(p->from, marked, 1), entry_of(p->to, marked, "copy."));
}

// ---- all of it -----------------------------------------------------------------------------------------------------------------

static const struct pool_case cases[] = {
    CASE(all_arrives_as_it_was, pair_start, ANY),
    CASE(sharing_is_kept, pair_start, ANY),
    CASE(no_copy_on_write_is_kept, pair_start, ANY),
    CASE(holes_in_increments_are_holes, pair_start, FILES),
    CASE(snapshots_are_numbered, pair_start, FILES),
    CASE(send_can_be_ended, pair_start, FILES),
    CASE(what_is_sent_stays, pair_start, FILES),
    CASE(subvolumes_inside_are_not_lost_silently, pair_start, ANY),
    CASE(begin_minds_what_is_there, pair_start, FILES),
    CASE(one_receiver_at_a_time, pair_start, FILES),
    CASE(kills_lose_nothing, pair_start, ANY),
    CASE(damaged_checkpoint_is_told, pair_start, FILES),
    CASE(cut_stream_is_no_copy, pair_start, FILES),
    CASE(limit_counts_what_was_received, pair_start, ANY),
    CASE(limit_does_not_hinder_receiving, pair_start, ANY),
    CASE(receiving_has_a_limit, pair_start, ANY),
    CASE(no_group_is_left, pair_start, FILES | DEVICES),
    CASE(full_pool_says_so, pair_small, FILES),
    CASE(nothing_gets_out, pair_start, FILES),
    CASE(killed_at_each_failpoint, pair_start, ANY),
    CASE(acknowledged_survives_power_loss, pair_start, FILES),
};

int main(void)
{
    return run_contract("transfer_backend", cases, ARRAY_SIZE(cases), pair_end);
}
