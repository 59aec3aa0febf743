// The pure parts of sys: mount tables with whatever may stand in them, container ids, small files, locks.
#include "test.h"

#include "base/mem.h"
#include "sys/atomic_file.h"
#include "sys/blkid.h"
#include "sys/instance.h"
#include "sys/lock.h"
#include "sys/mountinfo.h"
#include "sys/run.h"
#include "sys/users.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- mount tables ------------------------------------------------------------------------------------------------------------

static int parse(const char *text, struct mountinfo *ret)
{
    struct error e = ERROR_INIT;
    int rc = mountinfo_parse(xstrdup(text), ret, &e);
    assert_true(rc == 0 || (rc == -E_CORRUPT && strstr(e.msg, "line")));
    return rc;
}

static void mount_table_is_read(void **state)
{
    (void)state;
    struct mountinfo m;
    assert_int_equal(parse("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
                           "36 27 0:40 /volumes/a\\040b/data /flocker/a\\040\\134\\012b rw shared:7 master:3 propagate_from:2 - btrfs /dev/loop0 ro,space_cache\n"
                           "37 36 0:40 / /x rw,noatime unbindable - fuse.s3 none rw\n"
                           "38 37 0:41 / /y rw -  \\011 ro\n"
                           "39 37 0:41 / /y rw - tmpfs  ro,size=1k",
                         &m), 0);
    assert_int_equal(m.n, 5);
    const struct mountinfo_entry *a = &m.entries[1];
    assert_int_equal(a->id, 36);
    assert_int_equal(a->parent, 27);
    assert_int_equal(a->major, 0);
    assert_int_equal(a->minor, 40);
    assert_string_equal(a->root, "/volumes/a b/data");
    assert_string_equal(a->mount_point, "/flocker/a \\\nb");
    assert_string_equal(a->type, "btrfs");
    assert_string_equal(a->source, "/dev/loop0");
    assert_int_equal(a->shared, 7);
    assert_int_equal(a->master, 3);
    assert_int_equal(m.entries[2].shared, 0);
    assert_string_equal(m.entries[4].source, "");
    assert_ptr_equal(mountinfo_by_id(&m, 37), &m.entries[2]);
    assert_null(mountinfo_by_id(&m, 99));
    assert_ptr_equal(mountinfo_at(&m, "/flocker/a \\\nb"), a);
    assert_null(mountinfo_at(&m, "/flocker"));
    mountinfo_done(&m);
}

static void topmost_of_stacked_mounts_counts(void **state)
{
    (void)state;
    struct mountinfo m;
    // The one below has the higher number and stands later.
    assert_int_equal(parse("20 1 0:1 / / rw - a a rw\n50 60 0:3 / /p rw - c c rw\n60 20 0:2 / /p rw - b b rw\n", &m), 0);
    assert_int_equal(mountinfo_at(&m, "/p")->id, 50);
    mountinfo_done(&m);
    assert_int_equal(parse("20 1 0:1 / / rw - a a rw\n60 20 0:2 / /p rw - b b rw\n70 60 0:3 / /p rw - c c rw\n", &m), 0);
    assert_int_equal(mountinfo_at(&m, "/p")->id, 70);
    mountinfo_done(&m);
}

static void hostile_mount_tables_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "\n", " ", "x", "27", "27 1", "27 1 254", "27 1 254: / / rw - a b c", "27 1 254:0", "27 1 254:0 /", "27 1 254:0 / /",
        "27 1 254:0 / / rw", "27 1 254:0 / / rw shared:1", "27 1 254:0 / / rw -", "27 1 254:0 / / rw - ext4", "-27 1 254:0 / / rw - a b c",
        "27 99999999999999999999 254:0 / / rw - a b c", "27 1 254:4294967296 / / rw - a b c", "27 1 254:0 / / rw shared: - a b c",
        "27 1 254:0 / / rw master:-3 - a b c", "27 1 254:0 / / rw shared:99999999999 - a b c", "27 1 0:1 / / rw - a b c\n\n27 1" };
    struct mountinfo m;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse(bad[i], &m) == 0)
            print_error("accepted: %s\n", bad[i]), _fail(__FILE__, __LINE__);
    assert_int_equal(parse("", &m), 0);
    assert_int_equal(m.n, 0);
    mountinfo_done(&m);
    // Escapes that aren't, at the very end of the text.
    assert_int_equal(parse("27 1 254:0 /\\ /\\0 rw - \\04 \\9\\", &m), 0);
    assert_string_equal(m.entries[0].root, "/\\");
    assert_string_equal(m.entries[0].mount_point, "/\\0");
    assert_string_equal(m.entries[0].source, "\\9\\");
    mountinfo_done(&m);
}

static void cut_and_garbled_tables_do_no_harm(void **state)
{
    (void)state;
    static const char good[] = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n36 27 0:40 /a\\040b /f rw shared:7 master:3 - btrfs /dev/loop0 ro\n";
    for (size_t cut = 0; cut < sizeof good; cut++)
        for (int c = 0; c < 256; c += 5) {
            struct mountinfo m;
            char text[sizeof good];
            memcpy(text, good, sizeof good);
            text[cut] = (char)c;
            if (c == 0 || cut == sizeof good - 1)
                text[cut] = '\0';
            if (parse(text, &m) == 0)
                mountinfo_done(&m);
        }
}

static void own_mount_table_has_a_root(void **state)
{
    (void)state;
    struct mountinfo m;
    struct error e = ERROR_INIT;
    assert_int_equal(mountinfo_read_self(&m, &e), 0);
    assert_non_null(mountinfo_at(&m, "/proc"));
    mountinfo_done(&m);
    assert_int_equal(mountinfo_read("/proc/0/mountinfo", &m, &e), -E_NOT_FOUND);
}

static void below_means_whole_names(void **state)
{
    (void)state;
    assert_true(mountinfo_is_below("/a/b", "/a/b"));
    assert_true(mountinfo_is_below("/a/b/c", "/a/b"));
    assert_true(mountinfo_is_below("/a", "/"));
    assert_false(mountinfo_is_below("/a/bc", "/a/b"));
    assert_false(mountinfo_is_below("/a", "/a/b"));
    assert_false(mountinfo_is_below("", "/"));
}

// ---- containers --------------------------------------------------------------------------------------------------------------

#define ID  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

static void container_ids_of_all_engines(void **state)
{
    (void)state;
    static const struct {
        const char *text, *id;
    } cases[] = {
        { "0::/system.slice/docker-" ID ".scope\n", ID },
        { "12:pids:/docker/" ID "\n11:memory:/docker/" ID "\n", ID },
        { "3:cpu:/\n2:cpuset:/\n1:name=systemd:/docker/" ID "\n0::/system.slice/containerd.service", ID },
        { "0::/machine.slice/libpod-" ID ".scope/container\n", ID },
        { "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope\n", ID },
        { "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-" ID ".scope\n", ID },
        { "0::/docker/" ID "/docker/" ID2 "\n", ID2 },
        { "0::/docker/" ID, ID },
        { "", NULL },
        { "0::/\n", NULL },
        { "0::/system.slice/ssh.service\n", NULL },
        { "0::/docker/0123456789abcdef\n", NULL },
        { "0::/docker/" ID "0\n", NULL },
        { "0::/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\n", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char id[CONTAINER_ID_SIZE];
        assert_int_equal(users_container_id(cases[i].text, id), cases[i].id != NULL);
        if (cases[i].id)
            assert_string_equal(id, cases[i].id);
    }
}

static void users_read_well(void **state)
{
    (void)state;
    char text[USERS_TEXT_SIZE];
    struct users_entry u = { .pid = 17, .container = ID, .command = "postgres" };
    assert_string_equal(users_text(&u, text), "container 0123456789ab (pid 17, postgres)");
    u.container[0] = '\0';
    assert_string_equal(users_text(&u, text), "pid 17 (postgres)");
}

// ---- files -------------------------------------------------------------------------------------------------------------------

static char folder[] = "/tmp/flocker-test-sys-XXXXXX";
static int folder_fd = -1;

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/flocker-test-sys-XXXXXX");
    assert_non_null(mkdtemp(folder));
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder_fd < 0;
}

static int remove_folder(void **state)
{
    (void)state;
    struct error e;
    close(folder_fd);
    return run_program((const char *const[]){ "rm", "-rf", folder, NULL }, &e);
}

static void files_are_replaced_whole(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    static const char binary[] = "a\0b";
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(atomic_file_read(folder_fd, "f", 100, &text, &n, &e), -E_NOT_FOUND);
    assert_int_equal(atomic_file_write(folder_fd, "f", "first", 5, 0600, &e), 0);
    assert_int_equal(symlinkat("/etc/passwd", folder_fd, "f.tmp"), 0); // what a predecessor, or an enemy, left
    assert_int_equal(atomic_file_write(folder_fd, "f", binary, 3, 0600, &e), 0);
    assert_int_equal(atomic_file_read(folder_fd, "f", 3, &text, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(text, binary, 4);
    free(text);
    assert_int_equal(atomic_file_read(folder_fd, "f", 2, &text, &n, &e), -E_TOO_LARGE);
    assert_int_equal(faccessat(folder_fd, "f.tmp", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    struct stat st;
    assert_int_equal(fstatat(folder_fd, "f", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(atomic_file_create(folder_fd, "f", "x", 1, 0600, &e), -E_CONFLICT);
    assert_int_equal(mkdirat(folder_fd, "d", 0700), 0);
    assert_true(atomic_file_write(folder_fd, "d", "x", 1, 0600, &e) < 0);
    assert_int_equal(faccessat(folder_fd, "d.tmp", F_OK, 0), -1);
}

static void only_plain_files_are_read(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char *text = NULL;
    size_t n;
    assert_int_equal(mkfifoat(folder_fd, "fifo", 0600), 0);
    assert_int_equal(mkdirat(folder_fd, "folder", 0700), 0);
    assert_int_equal(symlinkat("/etc/passwd", folder_fd, "link"), 0);
    static const char *const names[] = { "fifo", "folder", "link" };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(atomic_file_read(folder_fd, names[i], 100, &text, &n, &e), -E_CORRUPT);
}

static void large_file_is_read_whole(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    enum { SIZE = 300001 };
    AUTO(free) char *data = xcalloc(1, SIZE);
    AUTO(free) char *text = NULL;
    size_t n = 0;
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 7);
    assert_int_equal(atomic_file_write(folder_fd, "large", data, SIZE, 0600, &e), 0);
    assert_int_equal(atomic_file_read(folder_fd, "large", SIZE, &text, &n, &e), 0);
    assert_int_equal(n, SIZE);
    assert_memory_equal(text, data, SIZE);
}

static void locks_exclude_and_end_with_their_holder(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    AUTO(close) int a = openat(folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    AUTO(close) int b = openat(folder_fd, "lock", O_RDWR | O_CLOEXEC);
    assert_int_equal(lock_byte(a, 5, 0, &e), 1);
    assert_int_equal(lock_byte(b, 5, 0, &e), 0);
    assert_int_equal(lock_byte(b, 5, 20, &e), 0);
    assert_int_equal(lock_byte(b, 6, 0, &e), 1);
    assert_int_equal(lock_byte(b, (1ULL << 62) + 1, 0, &e), 1);
    close(TAKE(a, -1));
    assert_int_equal(lock_byte(b, 5, 0, &e), 1);
    assert_true(lock_byte(folder_fd, 5, 0, &e) < 0);
}

// A process that becomes the one with the file "instance", and says so by a byte; it serves if told to.
static pid_t instance_child(const char *path, bool serves, int *ret_fd)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct error e = ERROR_INIT;
        int fd = -1;
        char said = instance_take(path, &fd, &e) == 0 ? '1' : '0';
        if (serves && fd >= 0)
            instance_serve(fd);
        (void)!write(ends[1], &said, 1);
        pause();
        _exit(0);
    }
    close(ends[1]);
    *ret_fd = ends[0];
    return pid;
}

static char first_byte(int fd)
{
    char c = '?';
    assert_int_equal(read(fd, &c, 1), 1);
    return c;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void one_instance_at_a_time(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char path[100], text[40];
    int said, fd = -1;
    snprintf(path, sizeof path, "%s/instance", folder);
    assert_int_equal(instance_find(path).pid, 0);
    pid_t first = instance_child(path, true, &said);
    assert_int_equal(first_byte(said), '1');
    close(said);
    assert_int_equal(instance_find(path).pid, first);
    assert_true(instance_find(path).is_serving);
    assert_int_equal(instance_take(path, &fd, &e), -E_BUSY);
    snprintf(text, sizeof text, "process %d is running here", (int)first);
    assert_non_null(strstr(e.msg, text));
    end_child(first);
    assert_int_equal(instance_find(path).pid, 0);
    // One that is just starting or ending is waited for.
    first = instance_child(path, false, &said);
    assert_int_equal(first_byte(said), '1');
    close(said);
    assert_false(instance_find(path).is_serving);
    pid_t second = instance_child(path, true, &said);
    struct pollfd p = { said, POLLIN, 0 };
    assert_int_equal(poll(&p, 1, 100), 0);
    end_child(first);
    assert_int_equal(first_byte(said), '1');
    close(said);
    assert_int_equal(instance_find(path).pid, second);
    end_child(second);
    // It ends to serve before it ends; a child of it, a worker for example, does not hold the lock when it is gone.
    assert_int_equal(instance_take(path, &fd, &e), 0);
    instance_serve(fd);
    instance_leave(fd);
    pid_t worker = fork();
    if (worker == 0) {
        pause();
        _exit(0);
    }
    close(fd);
    first = instance_child(path, true, &said);
    assert_int_equal(first_byte(said), '1');
    close(said);
    end_child(first);
    end_child(worker);
    unlink(path);
    assert_int_equal(instance_take("/proc/no/such", &fd, &e), -E_NOT_FOUND);
}

// ---- programs and contents ---------------------------------------------------------------------------------------------------

static void programs_tell_why_they_failed(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    assert_int_equal(run_program((const char *const[]){ "true", NULL }, &e), 0);
    assert_int_equal(run_program((const char *const[]){ "sh", "-c", "echo first; echo the reason >&2; exit 3", NULL }, &e), -E_IO);
    assert_string_equal(e.msg, "sh failed: the reason");
    assert_int_equal(run_program((const char *const[]){ "sh", "-c", "yes | head -c 100000; echo end; exit 1", NULL }, &e), -E_IO);
    assert_string_equal(e.msg, "sh failed: end");
    assert_int_equal(run_program((const char *const[]){ "sh", "-c", "kill -9 $$", NULL }, &e), -E_IO);
    assert_non_null(strstr(e.msg, "signal 9"));
    assert_int_equal(run_program((const char *const[]){ "no-such-program", NULL }, &e), -E_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "No such file"));
}

static void contents_are_recognised(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    struct blkid_content content;
    AUTO(close) int fd = openat(folder_fd, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    AUTO(free) char *path = xasprintf("%s/image", folder);
    assert_int_equal(ftruncate(fd, 128 << 20), 0);
    assert_int_equal(blkid_look(fd, &content, &e), 0);
    assert_int_equal(run_program((const char *const[]){ "mkfs.btrfs", "--quiet", "--label", "some label", path, NULL }, &e), 0);
    assert_int_equal(blkid_look(fd, &content, &e), 1);
    assert_string_equal(content.type, "btrfs");
    assert_string_equal(content.label, "some label");
    // The signature of another file system beside it: nothing is certain.
    assert_int_equal(pwrite(fd, "XFSB\0\0\x10\0", 8, 0), 8);
    assert_int_equal(blkid_look(fd, &content, &e), 1);
    assert_true(content.what[0] != '\0');
}

int main(void)
{
#define WITH_FOLDER(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(mount_table_is_read),
        cmocka_unit_test(topmost_of_stacked_mounts_counts),
        cmocka_unit_test(hostile_mount_tables_are_refused),
        cmocka_unit_test(cut_and_garbled_tables_do_no_harm),
        cmocka_unit_test(own_mount_table_has_a_root),
        cmocka_unit_test(below_means_whole_names),
        cmocka_unit_test(container_ids_of_all_engines),
        cmocka_unit_test(users_read_well),
        WITH_FOLDER(files_are_replaced_whole),
        WITH_FOLDER(only_plain_files_are_read),
        WITH_FOLDER(large_file_is_read_whole),
        WITH_FOLDER(locks_exclude_and_end_with_their_holder),
        WITH_FOLDER(one_instance_at_a_time),
        cmocka_unit_test(programs_tell_why_they_failed),
        WITH_FOLDER(contents_are_recognised),
    };
    return RUN_TESTS(tests);
}
