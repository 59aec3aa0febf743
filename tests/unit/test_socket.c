// Sockets: those that listen, those that a service manager hands over, and what it is told.
#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/socket.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void must(int rc, const struct error *e)
{
    if (rc < 0)
        fail_msg("%s", e->msg);
}

static void unix_listener_replaces_a_stale_socket_only(void **state)
{
    (void)state;
    char dir[] = "/tmp/flocker-socket-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO(free) char *path = xasprintf("%s/s", dir);
    struct error e;
    struct stat st;
    int first = socket_listen_unix(path, 0620, &e);
    must(first, &e);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0620);
    assert_true(fcntl(first, F_GETFL) & O_NONBLOCK);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_BUSY);
    close(first); // leaves the path
    AUTO(close) int second = socket_listen_unix(path, 0600, &e);
    must(second, &e);
    AUTO(close) int client = socket_connect_unix(path, 1000, &e);
    must(client, &e);
    assert_false(fcntl(client, F_GETFL) & O_NONBLOCK);
    unlink(path);
    FILE *f = fopen(path, "w");
    fclose(f);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_CONFLICT);
    unlink(path);
    rmdir(dir);
    char too_long[200];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = 0;
    assert_int_equal(socket_listen_unix(too_long, 0600, &e), -E_INVALID);
    assert_int_equal(socket_listen_tcp("not an address", 0, &e), -E_INVALID);
    assert_int_equal(socket_connect_unix(path, 1000, &e), -E_UNAVAILABLE);
}

static void connecting_to_a_full_queue_ends_in_time(void **state)
{
    (void)state;
    char dir[] = "/tmp/flocker-socket-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO(free) char *path = xasprintf("%s/s", dir);
    struct error e;
    AUTO(close) int fd = socket_listen_unix(path, 0600, &e);
    must(fd, &e);
    assert_int_equal(listen(fd, 0), 0);
    AUTO(close) int one = socket_connect_unix(path, 200, &e);
    must(one, &e);
    int64_t start = clock_boot_ms();
    assert_int_equal(socket_connect_unix(path, 200, &e), -E_TIMEOUT);
    assert_in_range(clock_boot_ms() - start, 150, 2000);
    assert_int_equal(socket_listen_unix(path, 0600, &e), -E_BUSY); // full is not stale
    unlink(path);
    rmdir(dir);
}

static void systemd_descriptors_are_found_by_name(void **state)
{
    (void)state;
    char pid[16];
    snprintf(pid, sizeof pid, "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "docker:rest", 1);
    int saved[2] = { dup(3), dup(4) }, any = open("/dev/null", O_RDONLY);
    dup2(any, 3);
    dup2(any, 4);
    assert_int_equal(socket_from_systemd("docker"), 3);
    assert_int_equal(socket_from_systemd("rest"), 4);
    assert_true(fcntl(4, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(socket_from_systemd("dock"), -1);
    assert_int_equal(socket_from_systemd(""), -1);
    setenv("LISTEN_PID", "1", 1);
    assert_int_equal(socket_from_systemd("docker"), -1);
    for (int i = 0; i < 2; i++) {
        saved[i] >= 0 ? dup2(saved[i], 3 + i) : close(3 + i);
        close(saved[i]);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

static void service_manager_is_told(void **state)
{
    (void)state;
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "flocker-notify-%d", getpid());
    AUTO(close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)), 0);
    AUTO(free) char *name = xasprintf("@%s", at.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    socket_notify("READY=1");
    char got[32] = "";
    assert_int_equal(recv(fd, got, sizeof got, 0), 7);
    assert_string_equal(got, "READY=1");
    unsetenv("NOTIFY_SOCKET");
    socket_notify("READY=1");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(systemd_descriptors_are_found_by_name),
        cmocka_unit_test(unix_listener_replaces_a_stale_socket_only),
        cmocka_unit_test(connecting_to_a_full_queue_ends_in_time),
        cmocka_unit_test(service_manager_is_told),
    };
    return RUN_TESTS(tests);
}
