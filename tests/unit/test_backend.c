// The contract of a backend (backend/backend.h), for each backend and each place that a pool can lie. Needs root.
#include "pool.h"

#include "base/size.h"
#include "sys/atomic_file.h"
#include "sys/btrfs.h"
#include "sys/btrfs_quota.h"
#include "sys/btrfs_tree.h"
#include "sys/users.h"

#include <dirent.h>
#include <grp.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

DEFINE_AUTO(json_t *, json_decref)
DEFINE_AUTO(DIR *, closedir)

static bool same_record(const struct volume *a, const struct volume *b)
{
    AUTO(json_decref) json_t *x = volume_to_json(a);
    AUTO(json_decref) json_t *y = volume_to_json(b);
    return json_equal(x, y);
}

// Writes up to `bytes` in pieces of 1 MiB and syncs; returns 0, or the errno of the first failure.
static int fill(const char *path, uint64_t bytes, int flags)
{
    AUTO(free) char *buffer = aligned_alloc(4096, MIB);
    AUTO(close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    assert_non_null(buffer);
    if (fd < 0)
        return errno;
    for (size_t i = 0; i < MIB; i += 256)
        rng_fill(buffer + i, 256);
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = write(fd, buffer, bytes - done < MIB ? bytes - done : MIB);
        if (n < 0)
            return errno;
        done += (uint64_t)n;
    }
    return fsync(fd) < 0 ? errno : 0;
}

static int count_entries(const char *path)
{
    int n = 0;
    AUTO(closedir) DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));)
        n += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    return n;
}

// ---- create, destroy, observe ------------------------------------------------------------------------------------------------

static void create_twice_changes_nothing(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 64 * MIB);
    AUTO(volume_free) struct volume *other = volume_copy(v);
    other->size = 128 * MIB;
    NO_ERROR(metadata_set(&v->metadata, "k\xc3\xbcy", "\"value\"\n", E));
    struct error e = ERROR_INIT;
    assert_int_equal(B->create(f->b, v, &e), 0);
    assert_int_equal(B->create(f->b, other, &e), 1);
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 1);
    assert_int_equal(s->n_damaged, 0);
    assert_true(same_record(s->volumes[0].record, v));
    assert_false(s->volumes[0].mounted);
    assert_int_equal(usage_of(f, &v->id).limit_bytes, 64 * MIB);
}

static void fresh_volume_is_empty_and_has_its_options(void **state)
{
    struct fixture *f = *state;
    static const struct volume_options options[] = {
        VOLUME_OPTIONS_DEFAULT,
        { .uid = 999, .gid = 998, .mode = 02750, .nocow = true },
        { .uid = 65534, .gid = 0, .mode = 0, .nocow = false },
    };
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        AUTO(volume_free) struct volume *v = new_volume("db", 0);
        v->options = options[i];
        NO_ERROR(B->create(f->b, v, E));
        NO_ERROR(B->mount(f->b, &v->id, E));
        const char *point = mount_point(f, &v->id);
        struct stat st;
        int flags = 0;
        assert_int_equal(stat(point, &st), 0);
        assert_int_equal(st.st_uid, options[i].uid);
        assert_int_equal(st.st_gid, options[i].gid);
        assert_int_equal(st.st_mode & 07777, options[i].mode);
        assert_int_equal(count_entries(point), 0);
        AUTO(close) int fd = open(point, O_RDONLY | O_CLOEXEC);
        assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
        assert_int_equal((flags & FS_NOCOW_FL) != 0, options[i].nocow);
        close(TAKE(fd, -1));
        NO_ERROR(B->unmount(f->b, &v->id, E));
    }
}

static void destroy_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 64 * MIB);
    NO_ERROR(B->destroy(f->b, &v->id, E));
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    EXPECT(E_BUSY, "is mounted", B->destroy(f->b, &v->id, E));
    if (f->setup->is_real) {
        // A user of the volume may have made subvolumes in it.
        AUTO(close) int fd = open(mount_point(f, &v->id), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        NO_ERROR(btrfs_subvolume_create(fd, "inner", E));
        write_file(path_of("%s/inner/file", mount_point(f, &v->id)), "text");
    }
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
    EXPECT(E_NOT_FOUND, "", B->mount(f->b, &v->id, E));
    EXPECT(E_NOT_FOUND, "", B->update(f->b, v, E));
    EXPECT(E_NOT_FOUND, "", B->usage(f->b, &v->id, &(struct backend_usage){ 0 }, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n + s->n_damaged, 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    if (f->setup->is_real)
        assert_int_equal(count_entries(mount_point(f, &v->id)), 0);
}

static void restart_finds_all_again(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *a = new_volume("a", 64 * MIB);
    AUTO(volume_free) struct volume *b = new_volume("b", 0);
    NO_ERROR(B->create(f->b, a, E));
    NO_ERROR(B->create(f->b, b, E));
    NO_ERROR(B->mount(f->b, &a->id, E));
    b->epoch = 7;
    b->born = true;
    NO_ERROR(B->update(f->b, b, E));
    for (int round = 0; round < 2; round++) {
        // First as an agent that restarts, then as after `flocker down`.
        if (round == 1)
            NO_ERROR(B->shutdown(f->b, E));
        close_pool(f);
        NO_ERROR(open_pool(f, E));
        AUTO(seen_done) struct seen *s = observe(f);
        assert_int_equal(s->n, 2);
        assert_true(same_record(find_seen(s, &a->id)->record, a));
        assert_true(same_record(find_seen(s, &b->id)->record, b));
        assert_int_equal(find_seen(s, &a->id)->mounted, round == 0);
        assert_false(find_seen(s, &b->id)->mounted);
    }
}

static void damaged_records_are_told_and_kept(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    AUTO(volume_free) struct volume *good = new_volume("good", 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->create(f->b, good, E));
    char *record = path_of("%s/volumes/%s/volume.json", top_of(f), UUID_TEXT(&v->id));
    static const char *const bad[] = { "", "{", "[]", "{\"id\":\"x\"}", "\xff\xfe" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        write_file(record, bad[i]);
        AUTO(seen_done) struct seen *s = observe(f);
        assert_int_equal(s->n, 1);
        assert_int_equal(s->n_damaged, 1);
        assert_string_equal(s->damaged[0], UUID_TEXT(&v->id));
        assert_non_null(strstr(s->why, "record"));
    }
    assert_int_equal(unlink(record), 0);
    assert_int_equal(mkdir(path_of("%s/volumes/stranger", top_of(f)), 0700), 0);
    assert_int_equal(symlink("/etc", path_of("%s/volumes/%s", top_of(f), UUID_TEXT(&(struct uuid){ { 1 } }))), 0);
    close_pool(f);
    NO_ERROR(open_pool(f, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 1);
    assert_int_equal(s->n_damaged, 3);
    assert_true(exists(path_of("%s/volumes/stranger", top_of(f))));
    assert_true(exists(path_of("%s/volumes/%s/data", top_of(f), UUID_TEXT(&v->id))));
}

// ---- limits and usage --------------------------------------------------------------------------------------------------------

static void check_overshoot(struct fixture *f, const struct volume *v, const char *how)
{
    sync_pool(f);
    uint64_t used = usage_of(f, &v->id).used_bytes;
    print_message("             %s, %s: %.2f MiB used of %llu MiB\n", f->setup->name, how, (double)used / MIB, (unsigned long long)(v->size / MIB));
    assert_true(used <= v->size + 2 * MIB);
    assert_true(used >= v->size - 4 * MIB);
}

static void limits_hold(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *how;
        int flags;
    } ways[] = { { "buffered writes", 0 }, { "direct writes", O_DIRECT } };
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        AUTO(volume_free) struct volume *v = new_volume("db", 64 * MIB);
        NO_ERROR(B->create(f->b, v, E));
        NO_ERROR(B->mount(f->b, &v->id, E));
        const char *file = path_of("%s/file", mount_point(f, &v->id));
        int err = fill(file, 160 * MIB, ways[i].flags);
        assert_true(err == EDQUOT || err == ENOSPC);
        check_overshoot(f, v, ways[i].how);
        // Still so after a restart of the host, and whoever deletes can write again.
        NO_ERROR(B->shutdown(f->b, E));
        close_pool(f);
        NO_ERROR(open_pool(f, E));
        NO_ERROR(B->mount(f->b, &v->id, E));
        err = fill(path_of("%s/more", mount_point(f, &v->id)), 160 * MIB, ways[i].flags);
        assert_true(err == EDQUOT || err == ENOSPC);
        check_overshoot(f, v, "after a restart");
        assert_int_equal(unlink(path_of("%s/file", mount_point(f, &v->id))), 0);
        sync_pool(f);
        assert_int_equal(fill(path_of("%s/again", mount_point(f, &v->id)), 32 * MIB, ways[i].flags), 0);
        NO_ERROR(B->unmount(f->b, &v->id, E));
        NO_ERROR(B->destroy(f->b, &v->id, E));
    }
}

static void size_changes_online(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 64 * MIB);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    v->size = 128 * MIB;
    NO_ERROR(B->update(f->b, v, E));
    assert_int_equal(usage_of(f, &v->id).limit_bytes, 128 * MIB);
    if (f->setup->is_real) {
        const char *file = path_of("%s/file", mount_point(f, &v->id));
        assert_int_equal(fill(file, 80 * MIB, 0), 0);
        v->size = 64 * MIB;
        EXPECT(E_CONFLICT, "more than the new size of 64MiB", B->update(f->b, v, E));
        EXPECT(E_CONFLICT, "it uses 80", B->update(f->b, v, E));
        AUTO(seen_done) struct seen *s = observe(f);
        assert_int_equal(s->volumes[0].record->size, 128 * MIB);
        assert_int_equal(unlink(file), 0); // truncate keeps whole extents
    }
    v->size = 64 * MIB;
    v->revision++;
    NO_ERROR(B->update(f->b, v, E));
    NO_ERROR(B->update(f->b, v, E));
    assert_int_equal(usage_of(f, &v->id).limit_bytes, 64 * MIB);
    if (f->setup->is_real)
        assert_int_not_equal(fill(path_of("%s/file2", mount_point(f, &v->id)), 100 * MIB, 0), 0);
    v->size = 0;
    NO_ERROR(B->update(f->b, v, E));
    assert_int_equal(usage_of(f, &v->id).limit_bytes, 0);
    if (f->setup->is_real)
        assert_int_equal(fill(path_of("%s/file2", mount_point(f, &v->id)), 100 * MIB, 0), 0);
    AUTO(seen_done) struct seen *s = observe(f);
    assert_true(same_record(s->volumes[0].record, v));
    assert_true(s->volumes[0].mounted);
}

// Small files live in metadata: fills that, too, so that no subvolume can be made.
static void fill_with_small_files(const char *folder)
{
    char text[2000];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 200000; i++) {
        AUTO(close) int fd = open(path_of("%s/%d", folder, i), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, text, sizeof text) < 0 || (i % 500 == 0 && fsync(fd) < 0)) {
            assert_true(errno == ENOSPC || errno == EDQUOT);
            return;
        }
    }
    fail_msg("the pool never gets full");
}

static void full_volume_can_be_enlarged(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 64 * MIB);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    assert_int_not_equal(fill(path_of("%s/file", mount_point(f, &v->id)), 160 * MIB, 0), 0);
    fill_with_small_files(mount_point(f, &v->id));
    v->size = 128 * MIB;
    NO_ERROR(B->update(f->b, v, E));
    assert_int_equal(fill(path_of("%s/more", mount_point(f, &v->id)), 40 * MIB, 0), 0);
}

static void usage_follows_what_is_written(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    AUTO(volume_free) struct volume *other = new_volume("other", 64 * MIB);
    struct backend_usage before = { 0 }, after = { 0 };
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->create(f->b, other, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    sync_pool(f);
    assert_true(usage_of(f, &v->id).used_bytes < MIB);
    NO_ERROR(B->pool_usage(f->b, &before, E));
    assert_int_equal(before.limit_bytes, f->size);
    assert_int_equal(fill(path_of("%s/file", mount_point(f, &v->id)), 10 * MIB, 0), 0);
    sync_pool(f);
    uint64_t used = usage_of(f, &v->id).used_bytes;
    assert_true(used >= 10 * MIB && used < 11 * MIB);
    assert_true(usage_of(f, &other->id).used_bytes < MIB);
    NO_ERROR(B->pool_usage(f->b, &after, E));
    assert_true(after.used_bytes >= before.used_bytes + 10 * MIB);
    assert_false(after.is_read_only);
    bool is_file = f->setup->is_real && f->setup->source == POOL_FILE;
    assert_int_equal(after.is_file, is_file);
    if (is_file)
        assert_true(after.disk_free_bytes > 0 && before.may_grow_bytes < f->size && after.may_grow_bytes + 9 * MIB < before.may_grow_bytes);
    if (!f->setup->is_real || f->setup->source == POOL_DIRECTORY)
        return;
    assert_int_equal(mount(NULL, top_of(f), NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    NO_ERROR(B->pool_usage(f->b, &after, E));
    assert_true(after.is_read_only);
    assert_int_equal(mount(NULL, top_of(f), NULL, MS_REMOUNT, NULL), 0);
}

static void pool_grows_online(void **state)
{
    struct fixture *f = *state;
    struct backend_usage u = { 0 };
    if (f->setup->source == POOL_DIRECTORY) {
        EXPECT(E_UNSUPPORTED, "directory", B->grow(f->b, 2 * f->size, E));
        return;
    }
    EXPECT(E_CONFLICT, "", B->grow(f->b, f->size / 2, E));
    if (f->setup->source == POOL_DEVICE) {
        EXPECT(E_CONFLICT, "enlarge it first", B->grow(f->b, 2 * f->size, E));
        assert_int_equal(ftruncate(f->disk_fd, (off_t)(2 * f->size)), 0);
        NO_ERROR(loop_set_capacity(f->path, E));
    }
    NO_ERROR(B->grow(f->b, 2 * f->size, E));
    NO_ERROR(B->grow(f->b, 2 * f->size, E));
    NO_ERROR(B->pool_usage(f->b, &u, E));
    assert_int_equal(u.limit_bytes, 2 * f->size);
    EXPECT(E_CONFLICT, "", B->grow(f->b, f->size, E));
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    if (f->setup->is_real)
        assert_int_equal(fill(path_of("%s/file", mount_point(f, &v->id)), f->size + 100 * MIB, O_DIRECT), 0);
}

// ---- mounts and users --------------------------------------------------------------------------------------------------------

static void mount_twice_unmount_twice(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    EXPECT(E_NOT_FOUND, "", B->mount(f->b, &v->id, E));
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->create(f->b, v, E));
    for (int round = 0; round < 2; round++) {
        NO_ERROR(B->mount(f->b, &v->id, E));
        NO_ERROR(B->mount(f->b, &v->id, E));
        AUTO(seen_done) struct seen *s = observe(f);
        assert_true(s->volumes[0].mounted);
        if (f->setup->is_real && round == 0)
            write_file(path_of("%s/file", mount_point(f, &v->id)), "kept");
        if (f->setup->is_real)
            assert_string_equal(read_file(path_of("%s/file", mount_point(f, &v->id))), "kept");
        NO_ERROR(B->unmount(f->b, &v->id, E));
        NO_ERROR(B->unmount(f->b, &v->id, E));
        AUTO(seen_done) struct seen *s2 = observe(f);
        assert_false(s2->volumes[0].mounted);
        assert_false(exists(mount_point(f, &v->id)));
    }
}

struct place {
    const char *from, *to;
};

static int do_nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int bind_elsewhere(void *arg)
{
    const struct place *place = arg;
    return mount(place->from, place->to, NULL, MS_BIND, NULL);
}

static void container_keeps_its_volume(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    AUTO(volume_free) struct volume *other = new_volume("other", 0);
    struct users_entry users[4];
    struct place place = { mount_point(f, &v->id), path_of("%s/container", f->dir) };
    assert_int_equal(mkdir(place.to, 0700), 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->create(f->b, other, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    NO_ERROR(B->mount(f->b, &other->id, E));
    struct helper h = helper_start(NS_SLAVE, bind_elsewhere, &place);
    struct error e = ERROR_INIT;
    assert_int_equal(B->users(f->b, &v->id, users, ARRAY_SIZE(users), &e), 1);
    assert_int_equal(users[0].pid, h.pid);
    assert_string_equal(users[0].command, "test_backend");
    EXPECT(E_BUSY, path_of("volume db is in use by pid %d (test_backend)", h.pid), B->unmount(f->b, &v->id, E));
    EXPECT(E_BUSY, "is mounted", B->destroy(f->b, &v->id, E));
    EXPECT(E_BUSY, "in use by", B->shutdown(f->b, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_true(find_seen(s, &v->id)->mounted);
    assert_true(find_seen(s, &other->id)->mounted);
    // Its neighbour isn't in use by that.
    assert_int_equal(B->users(f->b, &other->id, users, ARRAY_SIZE(users), &e), 0);
    NO_ERROR(B->unmount(f->b, &other->id, E));
    // Unmounted behind our back: the container still has it.
    assert_int_equal(umount(mount_point(f, &v->id)), 0);
    EXPECT(E_BUSY, "in use by", B->unmount(f->b, &v->id, E));
    EXPECT(E_BUSY, "in use by", B->destroy(f->b, &v->id, E));
    helper_end(&h);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
}

static int bind_inside(void *arg)
{
    const struct place *place = arg;
    return mount(path_of("%s/sub/folder", place->from), place->to, NULL, MS_BIND, NULL);
}

static void folder_of_a_volume_counts(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    struct place place = { mount_point(f, &v->id), path_of("%s/a b\n\\c", f->dir) };
    assert_int_equal(mkdir(place.to, 0700), 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    assert_int_equal(mkdir(path_of("%s/sub", place.from), 0700), 0);
    assert_int_equal(mkdir(path_of("%s/sub/folder", place.from), 0700), 0);
    struct helper h = helper_start(NS_SLAVE, bind_inside, &place);
    EXPECT(E_BUSY, "in use by", B->unmount(f->b, &v->id, E));
    helper_end(&h);
    NO_ERROR(B->unmount(f->b, &v->id, E));
}

static void private_copies_count(void **state)
{
    // `unshare --mount` and some services copy all mounts and get no events: they keep the volume when we unmount it.
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    struct helper h = helper_start(NS_PRIVATE, do_nothing, NULL);
    EXPECT(E_BUSY, "in use by", B->unmount(f->b, &v->id, E));
    helper_end(&h);
    NO_ERROR(B->unmount(f->b, &v->id, E));
}

static int chain_of_namespaces(void *arg)
{
    // A namespace that gets events of one that gets ours: its groups have other numbers.
    (void)arg;
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0)
        return 1;
    pid_t pid = fork();
    if (pid < 0)
        return 1;
    if (pid > 0)
        return 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        _exit(1);
    pause();
    _exit(0);
}

static void propagated_copies_do_not_count(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *before = new_volume("before", 0);
    AUTO(volume_free) struct volume *after = new_volume("after", 0);
    NO_ERROR(B->create(f->b, before, E));
    NO_ERROR(B->create(f->b, after, E));
    NO_ERROR(B->mount(f->b, &before->id, E));
    struct helper h = helper_start(NS_SLAVE, do_nothing, NULL);
    struct helper chain = helper_start(NS_SLAVE, chain_of_namespaces, NULL);
    nap_ms(50);
    NO_ERROR(B->mount(f->b, &after->id, E));
    const struct volume *const both[] = { before, after };
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        struct users_entry users[4];
        struct error e = ERROR_INIT;
        struct mountinfo m = { 0 };
        const char *path = path_of("/proc/%d/mountinfo", h.pid);
        NO_ERROR(mountinfo_read(path, &m, E));
        assert_non_null(mountinfo_at(&m, mount_point(f, &both[i]->id)));
        mountinfo_done(&m);
        assert_int_equal(B->users(f->b, &both[i]->id, users, ARRAY_SIZE(users), &e), 0);
        NO_ERROR(B->unmount(f->b, &both[i]->id, E));
        NO_ERROR(mountinfo_read(path, &m, E));
        assert_null(mountinfo_at(&m, mount_point(f, &both[i]->id)));
        mountinfo_done(&m);
    }
    helper_end(&h);
    helper_end(&chain);
}

static void engines_that_run_already_see_new_pools(void **state)
{
    // A namespace that exists before the pool's mount root becomes a mount gets volumes, too.
    struct fixture *f = *state;
    assert_int_equal(mount(f->dir, f->dir, NULL, MS_BIND | MS_REC, NULL), 0);
    assert_int_equal(mount(NULL, f->dir, NULL, MS_SHARED, NULL), 0);
    struct helper h = helper_start(NS_SLAVE, do_nothing, NULL);
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    struct mountinfo m = { 0 };
    NO_ERROR(open_pool(f, E));
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    NO_ERROR(mountinfo_read(path_of("/proc/%d/mountinfo", h.pid), &m, E));
    assert_non_null(mountinfo_at(&m, mount_point(f, &v->id)));
    mountinfo_done(&m);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->shutdown(f->b, E));
    helper_end(&h);
}

static int work_inside(void *arg)
{
    return chdir(arg);
}

static void open_files_are_named(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    struct helper h = helper_start(NS_OWN, work_inside, (char *)(uintptr_t)mount_point(f, &v->id));
    EXPECT(E_BUSY, path_of("in use by pid %d (test_backend)", h.pid), B->unmount(f->b, &v->id, E));
    helper_end(&h);
    NO_ERROR(B->unmount(f->b, &v->id, E));
}

static void pool_in_another_namespace_is_told(void **state)
{
    struct fixture *f = *state;
    struct helper h = helper_start(NS_PRIVATE, do_nothing, NULL);
    EXPECT(E_TIMEOUT, "another mount namespace", B->shutdown(f->b, E));
    helper_end(&h);
}

static void missing_device_is_not_made(void **state)
{
    struct fixture *f = *state;
    const char *path = f->config.path;
    f->config.path = "/dev/flocker-test-no-such-device";
    EXPECT(E_NOT_FOUND, "there is no device /dev/flocker-test-no-such-device", open_pool(f, E));
    assert_int_equal(access(f->config.path, F_OK), -1);
    f->config.path = path;
}

static void shutdown_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct uuid ids[5];
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        AUTO(volume_free) struct volume *v = new_volume("db", 0);
        ids[i] = v->id;
        NO_ERROR(B->create(f->b, v, E));
        NO_ERROR(B->mount(f->b, &v->id, E));
    }
    struct helper h = helper_start(NS_OWN, work_inside, (char *)(uintptr_t)mount_point(f, &ids[3]));
    EXPECT(E_BUSY, "in use by", B->shutdown(f->b, E));
    AUTO(seen_done) struct seen *s = observe(f);
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        assert_true(find_seen(s, &ids[i])->mounted);
    helper_end(&h);
    NO_ERROR(B->shutdown(f->b, E));
    struct mountinfo m = { 0 };
    NO_ERROR(mountinfo_read_self(&m, E));
    for (size_t i = 0; i < m.n; i++)
        if (mountinfo_is_below(m.entries[i].mount_point, f->dir))
            assert_string_equal(m.entries[i].mount_point, path_of("%s/host", f->dir));
    mountinfo_done(&m);
}

static void foreign_mount_in_place_of_a_volume(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    NO_ERROR(B->create(f->b, v, E));
    assert_int_equal(mkdir(mount_point(f, &v->id), 0700), 0);
    assert_int_equal(mount("tmpfs", mount_point(f, &v->id), "tmpfs", 0, NULL), 0);
    EXPECT(E_CONFLICT, "is mounted on", B->mount(f->b, &v->id, E));
    EXPECT(E_CONFLICT, "is mounted on", B->unmount(f->b, &v->id, E));
    assert_int_equal(umount(mount_point(f, &v->id)), 0);
    NO_ERROR(B->mount(f->b, &v->id, E));
}

// ---- subvolumes that users make in volumes -------------------------------------------------------------------------------------

#define ANYBODY 1000 // an unprivileged user

static int open_top(const struct fixture *f)
{
    int fd = open(top_of(f), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static bool is_simple(const struct fixture *f)
{
    AUTO(close) int fd = open_top(f);
    return btrfs_quota_is_simple(fd);
}

static uint64_t subvolume_of(const struct fixture *f, const struct uuid *id)
{
    uint64_t ret = 0;
    AUTO(close) int fd = open(path_of("%s/volumes/%s/data", top_of(f), UUID_TEXT(id)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    NO_ERROR(btrfs_subvolume_id(fd, &ret, E));
    return ret;
}

// What a process of that user does in a folder that is opened for it; nothing above the folder is open to it.
struct deed {
    int folder;
    int (*run)(const struct deed *d); // 0, or an errno value
    const char *name;
    const uint64_t *groups; // quota groups of a new subvolume, ended by 0; NULL: as the kernel likes
    uint64_t bytes;
};

static int do_as_anybody(void *arg)
{
    const struct deed *d = arg;
    if (fchdir(d->folder) < 0 || setgroups(0, NULL) < 0 || setgid(ANYBODY) < 0 || setuid(ANYBODY) < 0)
        return 255;
    return d->run(d);
}

static int as_anybody(const char *folder, struct deed d)
{
    d.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(d.folder >= 0);
    int rc = in_child(do_as_anybody, &d);
    close(d.folder);
    return rc;
}

static int make_subvolume(const struct deed *d)
{
    uint64_t inherit[sizeof(struct btrfs_qgroup_inherit) / sizeof(uint64_t) + 4] = { 0 };
    struct btrfs_qgroup_inherit *head = (struct btrfs_qgroup_inherit *)inherit;
    AUTO(close) int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct btrfs_ioctl_vol_args_v2 args = { 0 };
    snprintf(args.name, sizeof args.name, "%s", d->name);
    if (d->groups) {
        while (d->groups[head->num_qgroups]) {
            head->qgroups[head->num_qgroups] = d->groups[head->num_qgroups];
            head->num_qgroups++;
        }
        args.flags = BTRFS_SUBVOL_QGROUP_INHERIT;
        args.size = sizeof *head + head->num_qgroups * sizeof(uint64_t);
        args.qgroup_inherit = head;
    }
    return ioctl(here, BTRFS_IOC_SUBVOL_CREATE_V2, &args) < 0 ? errno : 0;
}

static int make_file(const struct deed *d)
{
    return fill(d->name, d->bytes, 0);
}

static int seal(const struct deed *d)
{
    uint64_t flags = BTRFS_SUBVOL_RDONLY;
    AUTO(close) int fd = open(d->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags) < 0 ? errno : 0;
}

static struct volume *volume_of_anybody(struct fixture *f, uint64_t size)
{
    struct volume *v = new_volume("db", size);
    v->options.uid = v->options.gid = ANYBODY;
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    return v;
}

// Makes subvolume `name` in the folder and writes up to `bytes` in it.
static int fill_new_subvolume(const char *folder, const char *name, const uint64_t *groups, uint64_t bytes)
{
    assert_int_equal(as_anybody(folder, (struct deed){ .run = make_subvolume, .name = name, .groups = groups }), 0);
    return as_anybody(path_of("%s/%s", folder, name), (struct deed){ .run = make_file, .name = "file", .bytes = bytes });
}

static void limits_hold_for_subvolumes_inside(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 64 * MIB);
    AUTO(volume_free) struct volume *other = volume_of_anybody(f, 64 * MIB);
    const char *point = path_of("%s", mount_point(f, &v->id));
    bool held = true;
    held &= fill_new_subvolume(point, "a", NULL, 100 * MIB) == EDQUOT;
    held &= as_anybody(path_of("%s/a", point), (struct deed){ .run = make_subvolume, .name = "b" }) == EDQUOT ||
            as_anybody(path_of("%s/a/b", point), (struct deed){ .run = make_file, .name = "file", .bytes = 10 * MIB }) == EDQUOT;
    held &= as_anybody(point, (struct deed){ .run = make_file, .name = "file", .bytes = 10 * MIB }) == EDQUOT;
    sync_pool(f);
    print_message("             %s: %.2f MiB used of 64 MiB, as told\n", f->setup->name, (double)usage_of(f, &v->id).used_bytes / MIB);
    assert_int_equal(held, is_simple(f)); // classic: documented
    if (held)
        check_overshoot(f, v, "in subvolumes inside");
    assert_true(usage_of(f, &other->id).used_bytes < MIB);
    // Whoever deletes can write again.
    if (held) {
        assert_int_equal(unlink(path_of("%s/a/file", point)), 0);
        sync_pool(f);
        assert_int_equal(as_anybody(point, (struct deed){ .run = make_file, .name = "more", .bytes = 32 * MIB }), 0);
    }
}

static void chosen_groups_are_put_right(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 64 * MIB);
    AUTO(volume_free) struct volume *other = volume_of_anybody(f, 64 * MIB);
    if (!is_simple(f))
        return;
    const char *point = path_of("%s", mount_point(f, &v->id));
    const uint64_t none[] = { 0 }, others[] = { (uint64_t)BTRFS_GROUP_LEVEL << 48 | subvolume_of(f, &other->id), 0 };
    assert_int_equal(fill_new_subvolume(point, "a", none, 80 * MIB), 0);
    assert_int_equal(fill_new_subvolume(point, "b", others, 20 * MIB), 0);
    sync_pool(f);
    assert_true(usage_of(f, &other->id).used_bytes >= 20 * MIB);
    for (int i = 0; i < 2; i++) {
        usage_of(f, &v->id);
        sync_pool(f);
    }
    assert_true(usage_of(f, &v->id).used_bytes >= 100 * MIB);
    assert_true(usage_of(f, &other->id).used_bytes < MIB);
    assert_int_equal(as_anybody(path_of("%s/a", point), (struct deed){ .run = make_file, .name = "more", .bytes = MIB }), EDQUOT);
    assert_int_equal(as_anybody(path_of("%s/b", point), (struct deed){ .run = make_file, .name = "more", .bytes = MIB }), EDQUOT);
    assert_int_equal(as_anybody(mount_point(f, &other->id), (struct deed){ .run = make_file, .name = "file", .bytes = 60 * MIB }), 0);
}

// As volumes were until now: the limit on the subvolume itself.
static void give_former_shape(const struct fixture *f, const struct uuid *id, uint64_t limit)
{
    AUTO(close) int fd = open_top(f);
    struct btrfs_ioctl_qgroup_limit_args args = { .qgroupid = subvolume_of(f, id) };
    args.lim.flags = BTRFS_QGROUP_LIMIT_MAX_RFER;
    args.lim.max_rfer = limit;
    btrfs_quota_drop(fd, args.qgroupid);
    assert_int_equal(ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, &args), 0);
}

static void former_limits_get_the_new_shape(void **state)
{
    struct fixture *f = *state;
    for (int way = 0; way < 2; way++) {
        AUTO(volume_free) struct volume *v = volume_of_anybody(f, 64 * MIB);
        const char *point = path_of("%s", mount_point(f, &v->id));
        give_former_shape(f, &v->id, 64 * MIB);
        assert_int_equal(fill_new_subvolume(point, "a", NULL, 40 * MIB), 0);
        assert_int_equal(as_anybody(path_of("%s/a", point), (struct deed){ .run = make_subvolume, .name = "b" }), 0);
        sync_pool(f);
        if (way == 0) {
            close_pool(f);
            NO_ERROR(open_pool(f, E));
        } else {
            v->size = 65 * MIB;
            NO_ERROR(B->update(f->b, v, E));
        }
        assert_int_equal(usage_of(f, &v->id).limit_bytes, v->size);
        if (is_simple(f)) {
            sync_pool(f);
            assert_true(usage_of(f, &v->id).used_bytes >= 40 * MIB);
            assert_int_equal(as_anybody(path_of("%s/a/b", point), (struct deed){ .run = make_file, .name = "file", .bytes = 40 * MIB }), EDQUOT);
        }
        v->size = 200 * MIB; // nothing of the former limit stays
        NO_ERROR(B->update(f->b, v, E));
        assert_int_equal(as_anybody(point, (struct deed){ .run = make_file, .name = "more", .bytes = 80 * MIB }), 0);
    }
}

static size_t count_groups(const struct fixture *f)
{
    AUTO(close) int fd = open_top(f);
    struct btrfs_range range = { BTRFS_QUOTA_TREE_OBJECTID, 0, BTRFS_QGROUP_INFO_KEY, 0, UINT64_MAX };
    struct btrfs_item item;
    size_t n = 0;
    for (; btrfs_tree_first(fd, &range, &item) > 0; range.first = item.offset + 1)
        n++;
    return n;
}

// The kernel removes those of subvolumes when it has freed them in the background.
static void wait_for_groups(const struct fixture *f, size_t n)
{
    for (int i = 0; count_groups(f) != n && i < 200; i++) {
        sync_pool(f);
        nap_ms(50);
    }
    assert_int_equal(count_groups(f), n);
}

static void no_group_is_left(void **state)
{
    struct fixture *f = *state;
    size_t before = count_groups(f);
    for (int i = 0; i < 20; i++) {
        AUTO(volume_free) struct volume *v = volume_of_anybody(f, i % 2 ? 64 * MIB : 0);
        const char *point = path_of("%s", mount_point(f, &v->id));
        const uint64_t none[] = { 0 };
        assert_int_equal(fill_new_subvolume(point, "a", i % 3 ? NULL : none, MIB), 0);
        assert_int_equal(fill_new_subvolume(path_of("%s/a", point), "b", NULL, MIB), 0);
        if (i % 4 == 0)
            sync_pool(f);
        NO_ERROR(B->unmount(f->b, &v->id, E));
        NO_ERROR(B->destroy(f->b, &v->id, E));
    }
    wait_for_groups(f, before);
    // One that a worker was killed over.
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 64 * MIB);
    AUTO(close) int fd = open(path_of("%s/volumes/%s", top_of(f), UUID_TEXT(&v->id)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(btrfs_subvolume_delete(fd, "data", E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
    close_pool(f);
    NO_ERROR(open_pool(f, E));
    wait_for_groups(f, before);
}

static int make_nest(const struct deed *d)
{
    // Subvolumes in subvolumes, each in a folder of a long name: the innermost has a path that is longer than the system takes.
    char name[201];
    memset(name, 'n', sizeof name - 1);
    name[200] = '\0';
    for (int i = 0; i < 25; i++) {
        const struct deed next = { .name = i % 2 ? "sub" : "it's \"one\"\n" };
        if (mkdir(name, 0700) < 0 || chdir(name) < 0)
            return errno;
        int err = make_subvolume(&next);
        if (err || chdir(next.name) < 0)
            return err ? err : errno;
    }
    return d->bytes ? make_file(&(struct deed){ .name = "file", .bytes = d->bytes }) : 0;
}

static int make_many(const struct deed *d)
{
    char name[32];
    int err = 0;
    for (uint64_t i = 0; !err && i < d->bytes; i++) {
        snprintf(name, sizeof name, "many%d", (int)i);
        err = make_subvolume(&(struct deed){ .name = name });
    }
    return err;
}

static int bind_sub(void *arg)
{
    const struct place *place = arg;
    return mount(path_of("%s/a/b", place->from), place->to, NULL, MS_BIND, NULL);
}

static void subvolumes_inside_are_in_nobodys_way(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 0);
    struct place place = { path_of("%s", mount_point(f, &v->id)), path_of("%s/container", f->dir) };
    const char *point = place.from, *inside = path_of("%s/a", point);
    assert_int_equal(mkdir(place.to, 0700), 0);
    assert_int_equal(fill_new_subvolume(point, "a", NULL, MIB), 0);
    assert_int_equal(fill_new_subvolume(inside, "b", NULL, MIB), 0);
    assert_int_equal(as_anybody(inside, (struct deed){ .run = seal, .name = "b" }), 0);
    assert_int_equal(as_anybody(point, (struct deed){ .run = seal, .name = "a" }), 0);
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 1);
    assert_int_equal(s->n_damaged, 0);
    assert_true(s->volumes[0].mounted);
    // One of them is all that a container has of the volume, and all that a process has open.
    struct users_entry users[4];
    struct error e = ERROR_INIT;
    struct helper h = helper_start(NS_SLAVE, bind_sub, &place);
    assert_int_equal(B->users(f->b, &v->id, users, ARRAY_SIZE(users), &e), 1);
    assert_int_equal(users[0].pid, h.pid);
    EXPECT(E_BUSY, "in use by", B->unmount(f->b, &v->id, E));
    helper_end(&h);
    h = helper_start(NS_OWN, work_inside, path_of("%s/a/b", point));
    EXPECT(E_BUSY, path_of("in use by pid %d", h.pid), B->unmount(f->b, &v->id, E));
    helper_end(&h);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
    assert_int_equal(count_entries(path_of("%s/staging", top_of(f))), 0);
}

static void destroy_finds_all_subvolumes(void **state)
{
    struct fixture *f = *state;
    size_t before = count_groups(f);
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 0);
    const char *point = path_of("%s", mount_point(f, &v->id));
    assert_int_equal(as_anybody(point, (struct deed){ .run = make_nest, .bytes = MIB }), 0);
    assert_int_equal(as_anybody(point, (struct deed){ .run = make_subvolume, .name = "sealed" }), 0);
    assert_int_equal(as_anybody(path_of("%s/sealed", point), (struct deed){ .run = make_nest }), 0);
    assert_int_equal(as_anybody(point, (struct deed){ .run = seal, .name = "sealed" }), 0);
    assert_int_equal(as_anybody(point, (struct deed){ .run = make_many, .bytes = 200 }), 0);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    double start = now_ms();
    NO_ERROR(B->destroy(f->b, &v->id, E));
    double took = now_ms() - start;
    print_message("             %s: 251 subvolumes destroyed in %.0f ms\n", f->setup->name, took);
    assert_true(took < 20000);
    assert_int_equal(count_entries(path_of("%s/staging", top_of(f))), 0);
    wait_for_groups(f, before);
}

static void guard(const char *folder, int flag, bool is_sealed)
{
    int flags = 0;
    uint64_t subvolume_flags = BTRFS_SUBVOL_RDONLY;
    AUTO(close) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
    flags |= flag;
    assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &flags), 0);
    if (is_sealed)
        assert_int_equal(ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &subvolume_flags), 0);
}

// With chattr +i and +a a container may forbid even root to remove a subvolume, or what is in a folder.
static void destroy_minds_no_guards(void **state)
{
    static const int flags[] = { FS_IMMUTABLE_FL, FS_APPEND_FL };
    struct fixture *f = *state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(flags); i++) {
        AUTO(volume_free) struct volume *v = volume_of_anybody(f, 0);
        AUTO(free) char *point = xasprintf("%s", mount_point(f, &v->id));
        const int flag = flags[i / 2];
        const bool is_sealed = i % 2;
        assert_int_equal(fill_new_subvolume(point, "a", NULL, MIB), 0);
        assert_int_equal(mkdir(path_of("%s/a/folder", point), 0777), 0);
        assert_int_equal(chmod(path_of("%s/a/folder", point), 0777), 0);
        assert_int_equal(fill_new_subvolume(path_of("%s/a/folder", point), "b", NULL, MIB), 0);
        guard(path_of("%s/a/folder/b", point), flag, is_sealed);
        guard(path_of("%s/a/folder", point), flag, false);
        guard(path_of("%s/a", point), flag, is_sealed);
        guard(point, flag, is_sealed);
        NO_ERROR(B->unmount(f->b, &v->id, E));
        NO_ERROR(B->destroy(f->b, &v->id, E));
        assert_int_equal(count_entries(path_of("%s/staging", top_of(f))), 0);
    }
}

static uint64_t incompatible_features(const struct fixture *f)
{
    struct btrfs_ioctl_feature_flags flags = { 0 };
    AUTO(close) int fd = open_top(f);
    assert_int_equal(ioctl(fd, BTRFS_IOC_GET_FEATURES, &flags), 0);
    return flags.incompat_flags;
}

static void users_file_system_stays_compatible(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkdir(f->path, 0700), 0);
    uint64_t before = incompatible_features(f);
    NO_ERROR(open_pool(f, E));
    assert_int_equal(incompatible_features(f), before);
    assert_false(is_simple(f));
    NO_ERROR(B->shutdown(f->b, E));
    close_pool(f);
    // Simple quotas that are on already are kept and used.
    AUTO(close) int fd = open_top(f);
    struct btrfs_ioctl_quota_ctl_args off = { .cmd = BTRFS_QUOTA_CTL_DISABLE };
    assert_int_equal(ioctl(fd, BTRFS_IOC_QUOTA_CTL, &off), 0);
    NO_ERROR(btrfs_quota_enable(fd, false, E));
    NO_ERROR(open_pool(f, E));
    assert_true(is_simple(f));
    assert_true(incompatible_features(f) != before);
    AUTO(volume_free) struct volume *v = volume_of_anybody(f, 16 * MIB);
    assert_int_equal(fill_new_subvolume(mount_point(f, &v->id), "a", NULL, 30 * MIB), EDQUOT);
    sync_pool(f);
    assert_true(usage_of(f, &v->id).used_bytes <= 18 * MIB);
}

// ---- the pool ----------------------------------------------------------------------------------------------------------------

static int open_and_close(void *arg)
{
    struct fixture *f = arg;
    struct error e = ERROR_INIT;
    struct backend *b = NULL;
    int rc = f->setup->ops->open(&f->config, &b, &e);
    if (rc == 0)
        b->ops->close(b);
    return -rc;
}

static int one_operation(void *arg)
{
    struct fixture *f = arg;
    struct error e = ERROR_INIT;
    struct backend_usage u;
    return B->pool_usage(f->b, &u, &e) == 0 ? 0 : 1;
}

static void one_agent_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct backend *second = NULL;
    assert_int_equal(in_child(open_and_close, f), E_BUSY);
    EXPECT(E_BUSY, "in use by another agent", f->setup->ops->open(&f->config, &second, E));
    // A worker that is still at it when its agent ends doesn't keep the next one out.
    struct helper worker = helper_start(NS_OWN, one_operation, f);
    close_pool(f);
    assert_int_equal(in_child(open_and_close, f), 0);
    NO_ERROR(open_pool(f, E));
    assert_int_equal(in_child(open_and_close, f), E_BUSY);
    helper_end(&worker);
}

static uint64_t digest(const char *path)
{
    AUTO(free) unsigned char *buffer = xcalloc(1, MIB);
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t sum = 14695981039346656037ULL;
    assert_true(fd >= 0);
    for (ssize_t n; (n = read(fd, buffer, MIB)) > 0;)
        for (ssize_t i = 0; i < n; i++)
            sum = (sum ^ buffer[i]) * 1099511628211ULL;
    return sum;
}

// Empties the file or device; returns it, open for writing.
static int open_emptied(const struct fixture *f)
{
    const char *disk = f->disk ? f->disk : f->path;
    int fd = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(ftruncate(fd, (off_t)f->size), 0);
    if (!f->disk)
        return fd;
    close(fd);
    fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(fd, BLKFLSBUF), 0); // what the kernel remembers of the former contents
    return fd;
}

static void what_others_left_is_not_touched(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *program, *says;
    } systems[] = { { "mkfs.ext4", "ext4" }, { "mkfs.btrfs", "btrfs" }, { "mkswap", "swap" }, { NULL, "unknown kind" } };
    if (f->setup->source == POOL_FILE)
        assert_int_equal(mkdir(path_of("%s/new folder", f->dir), 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(systems); i++) {
        AUTO(close) int fd = open_emptied(f);
        if (systems[i].program)
            NO_ERROR(run_program((const char *const[]){ systems[i].program, f->path, NULL }, E));
        else if (f->setup->source == POOL_DEVICE)
            continue; // data of no known kind on a device: that is what may_format is for
        else
            assert_int_equal(pwrite(fd, "my thesis", 9, 100000), 9);
        assert_int_equal(fsync(fd), 0);
        uint64_t before = digest(f->path);
        EXPECT(E_CONFLICT, systems[i].says, open_pool(f, E));
        assert_true(before == digest(f->path));
    }
}

static void foreign_folder_is_not_touched(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkdir(f->path, 0700), 0);
    write_file(path_of("%s/thesis", f->path), "x");
    EXPECT(E_CONFLICT, "thesis", open_pool(f, E));
    assert_int_equal(count_entries(f->path), 1);
    f->config.path = f->dir; // not on btrfs, most likely; on one, not empty
    struct error e = ERROR_INIT;
    assert_true(open_pool(f, &e) < 0);
    f->config.path = f->path;
}

static void device_is_formatted_only_if_allowed(void **state)
{
    struct fixture *f = *state;
    uint64_t before = digest(f->disk);
    f->config.may_format = false;
    EXPECT(E_NOT_FOUND, "formatting", open_pool(f, E));
    assert_true(before == digest(f->disk));
    f->config.may_format = true;
    NO_ERROR(open_pool(f, E));
    NO_ERROR(B->shutdown(f->b, E));
    close_pool(f);
    f->config.may_format = false;
    NO_ERROR(open_pool(f, E));
}

static void half_made_file_is_made_anew(void **state)
{
    struct fixture *f = *state;
    NO_ERROR(open_pool(f, E));
    NO_ERROR(B->shutdown(f->b, E));
    close_pool(f);
    // Killed during mkfs: only the temporary file is there. An empty file in place is taken, too: an installer may have made it.
    assert_int_equal(rename(f->path, path_of("%s.new", f->path)), 0);
    write_file(f->path, "");
    NO_ERROR(open_pool(f, E));
    assert_false(exists(path_of("%s.new", f->path)));
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_size, f->size);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true((uint64_t)st.st_blocks * 512 < 32 * MIB); // sparse
}

static void staging_is_swept(void **state)
{
    struct fixture *f = *state;
    struct uuid id = rng_uuid(), empty = rng_uuid();
    const char *folder = path_of("%s/staging/%s", top_of(f), UUID_TEXT(&id));
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mkdir(path_of("%s/staging/%s", top_of(f), UUID_TEXT(&empty)), 0700), 0);
    AUTO(close) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    NO_ERROR(btrfs_subvolume_create(fd, "data", E));
    write_file(path_of("%s/data/file", folder), "x");
    write_file(path_of("%s/volume.json", folder), "{");
    close_pool(f);
    NO_ERROR(open_pool(f, E));
    assert_int_equal(count_entries(path_of("%s/staging", top_of(f))), 0);
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n + s->n_damaged, 0);
}

static int fixture_small(void **state)
{
    fixture_make(state, 256 * MIB);
    struct fixture *f = *state;
    NO_ERROR(open_pool(f, E));
    return 0;
}

static void full_pool_recovers(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    AUTO(volume_free) struct volume *good = new_volume("good", 64 * MIB);
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    assert_int_equal(fill(path_of("%s/file", mount_point(f, &v->id)), f->size, 0), ENOSPC);
    fill_with_small_files(mount_point(f, &v->id));
    struct error e = ERROR_INIT;
    size_t made = 0;
    for (; made < 300; made++) {
        AUTO(volume_free) struct volume *more = new_volume("more", 64 * MIB);
        if (B->create(f->b, more, &e) < 0)
            break;
    }
    assert_int_equal(e.code, E_NO_SPACE);
    assert_non_null(strstr(e.msg, "is full"));
    // Mounts, looks and the destruction of volumes need no space that can't be had.
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, made + 1);
    assert_int_equal(s->n_damaged, 0);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    NO_ERROR(B->destroy(f->b, &v->id, E));
    int rc = -1;
    for (int i = 0; rc < 0 && i < 100; i++, nap_ms(100)) // the space of a subvolume comes back in the background
        rc = B->create(f->b, good, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    NO_ERROR(B->mount(f->b, &good->id, E));
    assert_int_equal(fill(path_of("%s/file", mount_point(f, &good->id)), 32 * MIB, 0), 0);
}

static void read_only_pool_says_so(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    AUTO(volume_free) struct volume *other = new_volume("other", 0);
    const char *mounted = f->config.pool_dir; // not of a directory: the kernel refuses that while the pool's lock file is open
    NO_ERROR(B->create(f->b, v, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    assert_int_equal(mount(NULL, mounted, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    EXPECT(E_IO, "is read-only", B->create(f->b, other, E));
    EXPECT(E_IO, "is read-only", B->update(f->b, v, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 1);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    EXPECT(E_IO, "is read-only", B->destroy(f->b, &v->id, E));
    NO_ERROR(B->mount(f->b, &v->id, E));
    close_pool(f);
    NO_ERROR(open_pool(f, E));
    AUTO(seen_done) struct seen *again = observe(f);
    assert_int_equal(again->n, 1);
    NO_ERROR(B->unmount(f->b, &v->id, E));
    assert_int_equal(mount(NULL, mounted, NULL, MS_REMOUNT, NULL), 0);
    NO_ERROR(B->create(f->b, other, E));
}

static void pool_that_is_gone_is_told(void **state)
{
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *v = new_volume("db", 0);
    NO_ERROR(B->create(f->b, v, E));
    assert_int_equal(umount(f->config.pool_dir), 0);
    EXPECT(E_UNAVAILABLE, "not mounted", B->create(f->b, v, E));
    EXPECT(E_UNAVAILABLE, "not mounted", B->mount(f->b, &v->id, E));
    EXPECT(E_UNAVAILABLE, "not mounted", B->observe(f->b, on_seen, on_damaged, NULL, E));
    assert_int_equal(count_entries(f->config.pool_dir), 0);
    close_pool(f);
    NO_ERROR(open_pool(f, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 1);
}

// ---- crashes -----------------------------------------------------------------------------------------------------------------

#define STORM_IDS 6

struct storm {
    struct fixture *f;
    struct uuid ids[STORM_IDS];
    uint32_t seed;
};

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static _Noreturn void rage(struct storm *s)
{
    struct fixture *f = s->f;
    for (;;) {
        struct error e = ERROR_INIT;
        AUTO(volume_free) struct volume *v = new_volume("storm", 64 * MIB);
        v->id = s->ids[next_random(&s->seed) % STORM_IDS];
        switch (next_random(&s->seed) % 6) {
        case 0:
        case 1:
            B->create(f->b, v, &e);
            break;
        case 2:
            B->destroy(f->b, &v->id, &e);
            break;
        case 3:
            v->size = 128 * MIB;
            B->update(f->b, v, &e);
            break;
        case 4:
            B->mount(f->b, &v->id, &e);
            break;
        default:
            B->unmount(f->b, &v->id, &e);
            break;
        }
    }
}

static void check_all_whole(struct fixture *f)
{
    AUTO(seen_done) struct seen *s = observe(f);
    if (s->n_damaged)
        fail_msg("%s is damaged: %s", s->damaged[0], s->why);
    for (size_t i = 0; i < s->n; i++) {
        const struct volume *v = s->volumes[i].record;
        assert_string_equal(v->name, "storm");
        uint64_t limit = usage_of(f, &v->id).limit_bytes;
        assert_true(limit == 64 * MIB || limit == 128 * MIB); // a size and its record change one after the other
        NO_ERROR(B->mount(f->b, &v->id, E));
        NO_ERROR(B->update(f->b, v, E));
        assert_int_equal(usage_of(f, &v->id).limit_bytes, v->size);
    }
}

static void killed_at_any_moment_leaves_volumes_whole(void **state)
{
    struct fixture *f = *state;
    struct storm s = { .f = f, .seed = 1 };
    for (size_t i = 0; i < STORM_IDS; i++)
        s.ids[i] = rng_uuid();
    for (int round = 0; round < 10; round++) {
        pid_t pids[3];
        double start = now_ms();
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
            s.seed = (uint32_t)round * 10 + (uint32_t)i;
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (pids[i] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                rage(&s);
            }
        }
        nap_ms(20 + round * 7 % 50);
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
            kill(pids[i], SIGKILL);
            assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        }
        assert_true(now_ms() - start < 5000); // commits at the same time don't wait for the kernel's regular one
        if (round % 2) {
            close_pool(f);
            NO_ERROR(open_pool(f, E));
            if (f->setup->is_real)
                assert_int_equal(count_entries(path_of("%s/staging", top_of(f))), 0);
        }
        check_all_whole(f);
    }
    for (size_t i = 0; i < STORM_IDS; i++) {
        NO_ERROR(B->unmount(f->b, &s.ids[i], E));
        NO_ERROR(B->destroy(f->b, &s.ids[i], E));
    }
    AUTO(seen_done) struct seen *end = observe(f);
    assert_int_equal(end->n, 0);
}

static void acknowledged_survives_power_loss(void **state)
{
    // What the image holds right after a call returned is what a power loss leaves.
    struct fixture *f = *state;
    AUTO(volume_free) struct volume *kept = new_volume("kept", 64 * MIB);
    AUTO(volume_free) struct volume *gone = new_volume("gone", 64 * MIB);
    AUTO(volume_free) struct volume *large = new_volume("large", 64 * MIB);
    AUTO(volume_free) struct volume *last = new_volume("last", 64 * MIB);
    NO_ERROR(B->create(f->b, kept, E));
    NO_ERROR(B->create(f->b, gone, E));
    kept->size = 128 * MIB;
    kept->epoch = 9;
    NO_ERROR(B->update(f->b, kept, E));
    NO_ERROR(B->destroy(f->b, &gone->id, E));
    for (int i = 0; i < 16; i++) // too large to stand among the metadata of the file system, which a small record does
        NO_ERROR(metadata_set(&large->metadata, path_of("key%d", i), path_of("%0200d", i), E));
    NO_ERROR(B->create(f->b, large, E));
    NO_ERROR(B->create(f->b, last, E));
    NO_ERROR(run_program((const char *const[]){ "cp", "--sparse=always", f->path, path_of("%s/copy", f->dir), NULL }, E));
    NO_ERROR(B->shutdown(f->b, E));
    close_pool(f);
    assert_int_equal(rename(path_of("%s/copy", f->dir), f->path), 0);
    NO_ERROR(open_pool(f, E));
    AUTO(seen_done) struct seen *s = observe(f);
    assert_int_equal(s->n, 3);
    assert_int_equal(s->n_damaged, 0);
    assert_true(same_record(find_seen(s, &kept->id)->record, kept));
    assert_true(same_record(find_seen(s, &large->id)->record, large));
    assert_true(same_record(find_seen(s, &last->id)->record, last));
    assert_int_equal(usage_of(f, &kept->id).limit_bytes, 128 * MIB);
    assert_int_equal(usage_of(f, &last->id).limit_bytes, 64 * MIB);
}

// ---- all of it ---------------------------------------------------------------------------------------------------------------

static const struct pool_case cases[] = {
    CASE(create_twice_changes_nothing, fixture_open, ANY | MEMORY),
    CASE(fresh_volume_is_empty_and_has_its_options, fixture_open, ANY),
    CASE(destroy_leaves_nothing, fixture_open, ANY | MEMORY),
    CASE(restart_finds_all_again, fixture_open, ANY | MEMORY),
    CASE(damaged_records_are_told_and_kept, fixture_open, ANY),
    CASE(limits_hold, fixture_open, ANY),
    CASE(size_changes_online, fixture_open, ANY | MEMORY),
    CASE(full_volume_can_be_enlarged, fixture_open, ANY),
    CASE(usage_follows_what_is_written, fixture_open, ANY),
    CASE(pool_grows_online, fixture_small, ANY | MEMORY),
    CASE(mount_twice_unmount_twice, fixture_open, ANY | MEMORY),
    CASE(container_keeps_its_volume, fixture_open, ANY),
    CASE(folder_of_a_volume_counts, fixture_open, ANY),
    CASE(private_copies_count, fixture_open, ANY),
    CASE(propagated_copies_do_not_count, fixture_open, ANY),
    CASE(engines_that_run_already_see_new_pools, fixture_closed, FILES | DIRECTORIES),
    CASE(open_files_are_named, fixture_open, ANY),
    CASE(shutdown_is_all_or_nothing, fixture_open, ANY),
    CASE(pool_in_another_namespace_is_told, fixture_open, FILES),
    CASE(missing_device_is_not_made, fixture_closed, FILES),
    CASE(foreign_mount_in_place_of_a_volume, fixture_open, FILES),
    CASE(limits_hold_for_subvolumes_inside, fixture_open, ANY),
    CASE(chosen_groups_are_put_right, fixture_open, ANY),
    CASE(former_limits_get_the_new_shape, fixture_open, ANY),
    CASE(no_group_is_left, fixture_open, ANY),
    CASE(subvolumes_inside_are_in_nobodys_way, fixture_open, ANY),
    CASE(destroy_minds_no_guards, fixture_open, ANY),
    CASE(destroy_finds_all_subvolumes, fixture_open, ANY),
    CASE(users_file_system_stays_compatible, fixture_closed, DIRECTORIES),
    CASE(one_agent_at_a_time, fixture_open, ANY | MEMORY),
    CASE(what_others_left_is_not_touched, fixture_closed, FILES | DEVICES),
    CASE(foreign_folder_is_not_touched, fixture_closed, DIRECTORIES),
    CASE(device_is_formatted_only_if_allowed, fixture_closed, DEVICES),
    CASE(half_made_file_is_made_anew, fixture_closed, FILES),
    CASE(staging_is_swept, fixture_open, ANY),
    CASE(full_pool_recovers, fixture_small, ANY),
    CASE(read_only_pool_says_so, fixture_open, FILES | DEVICES),
    CASE(pool_that_is_gone_is_told, fixture_open, FILES | DEVICES),
    CASE(killed_at_any_moment_leaves_volumes_whole, fixture_open, ANY | MEMORY),
    CASE(acknowledged_survives_power_loss, fixture_open, FILES),
};

int main(void)
{
    return run_contract("backend", cases, ARRAY_SIZE(cases), fixture_end);
}
