#include "net/socket.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

void socket_ignore_sigpipe(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL) {
        now.sa_handler = SIG_IGN;
        sigaction(SIGPIPE, &now, NULL);
    }
}

static int unix_address(const char *path, struct sockaddr_un *ret, struct error *e)
{
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof ret->sun_path)
        return fail(e, E_INVALID, "socket %s: the path must have 1 to %zu bytes", path, sizeof ret->sun_path - 1);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(ret->sun_path, path, n + 1);
    return 0;
}

// Removes a socket that nobody listens at.
static int clear_stale(const char *path, const struct sockaddr_un *address, struct error *e)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : fail_os(e, errno, "socket %s", path);
    if (!S_ISSOCK(st.st_mode))
        return fail(e, E_CONFLICT, "socket %s: something that is not a socket is there; remove it or choose another path", path);
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_os(e, errno, "socket %s", path);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN) // EAGAIN: its queue is full
        return fail(e, E_BUSY, "socket %s: another process listens there; stop it first", path);
    if (errno != ECONNREFUSED && errno != ENOENT)
        return fail_os(e, errno, "socket %s: see whether somebody listens", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return fail_os(e, errno, "socket %s: remove the stale one", path);
    return 0;
}

int socket_listen_unix(const char *path, mode_t mode, struct error *e)
{
    struct sockaddr_un address;
    int rc = unix_address(path, &address, e);
    if (rc < 0 || (rc = clear_stale(path, &address, e)) < 0)
        return rc;
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_os(e, errno, "socket %s", path);
    mode_t before = umask(0777 & ~mode); // chmod afterwards would leave a moment in which others can connect
    int bound = bind(fd, (const struct sockaddr *)&address, sizeof address), err = errno;
    umask(before);
    if (bound < 0)
        return err == EADDRINUSE ? fail(e, E_BUSY, "socket %s: another process has just taken it", path)
                                 : fail_os(e, err, "socket %s: bind", path);
    if (listen(fd, SOMAXCONN) < 0)
        return fail_os(e, errno, "socket %s: listen", path);
    return TAKE(fd, -1);
}

static bool numeric_address(const char *address, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_n)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo *found = NULL, want = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM };
    if (getaddrinfo(address, service, &want, &found) != 0)
        return false;
    *ret_n = found->ai_addrlen;
    memcpy(ret, found->ai_addr, *ret_n);
    freeaddrinfo(found);
    return true;
}

int socket_listen_tcp(const char *address, uint16_t port, struct error *e)
{
    struct sockaddr_storage at;
    socklen_t at_n;
    if (!numeric_address(address, port, &at, &at_n))
        return fail(e, E_INVALID, "listen at %s: not a numeric IP address", address);
    AUTO(close) int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_os(e, errno, "listen at %s", address);
    int on = 1; // a restart must not wait for the old connections' TIME_WAIT
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        return fail_os(e, errno, "listen at %s", address);
    if (bind(fd, (const struct sockaddr *)&at, at_n) < 0 || listen(fd, SOMAXCONN) < 0)
        return errno == EADDRINUSE ? fail(e, E_BUSY, "listen at %s port %u: another process listens there", address, port)
                                   : fail_os(e, errno, "listen at %s port %u", address, port);
    return TAKE(fd, -1);
}

int socket_start_tcp(const char *address, uint16_t port, struct error *e)
{
    struct sockaddr_storage at;
    socklen_t at_n;
    if (!numeric_address(address, port, &at, &at_n))
        return fail(e, E_INVALID, "connect to %s: not a numeric IP address", address);
    AUTO(close) int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (const struct sockaddr *)&at, at_n) < 0 && errno != EINPROGRESS))
        return fail(e, E_UNAVAILABLE, "connect to %s port %u: %s", address, port, strerror(errno));
    return TAKE(fd, -1);
}

static void address_text(int (*get)(int fd, struct sockaddr *at, socklen_t *n), int fd, char ret[SOCKET_ADDRESS_SIZE])
{
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    ret[0] = '\0';
    if (get(fd, (struct sockaddr *)&at, &n) == 0 && at.ss_family != AF_UNIX)
        getnameinfo((const struct sockaddr *)&at, n, ret, SOCKET_ADDRESS_SIZE, NULL, 0, NI_NUMERICHOST);
}

void socket_local_address(int fd, char ret[SOCKET_ADDRESS_SIZE])
{
    address_text(getsockname, fd, ret);
}

void socket_peer_address(int fd, char ret[SOCKET_ADDRESS_SIZE])
{
    address_text(getpeername, fd, ret);
}

void socket_set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // only a matter of speed
}

uint16_t socket_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at = { 0 };
    socklen_t n = sizeof at;
    if (getsockname(fd, &at.any, &n) < 0)
        return 0;
    return ntohs(at.any.sa_family == AF_INET ? at.v4.sin_port : at.any.sa_family == AF_INET6 ? at.v6.sin6_port : 0);
}

// connect(2) of a unix socket waits while the listener's queue is full; only SO_SNDTIMEO limits that (non-blocking, it fails at once).
int socket_connect_unix(const char *path, int timeout_ms, struct error *e)
{
    struct sockaddr_un address;
    int rc = unix_address(path, &address, e);
    if (rc < 0)
        return rc;
    AUTO(close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_os(e, errno, "connect to %s", path);
    int64_t deadline = clock_boot_ms() + timeout_ms;
    for (;;) {
        int64_t left = deadline - clock_boot_ms();
        if (left < 1)
            left = 1; // 0 would mean for ever
        struct timeval limit = clock_timeval(left);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
            break;
        if (errno == EINTR && clock_boot_ms() < deadline)
            continue;
        if (errno == EAGAIN || errno == EINTR)
            return fail(e, E_TIMEOUT, "connect to %s: no answer within %d ms", path, timeout_ms);
        if (errno == ENOENT || errno == ECONNREFUSED)
            return fail(e, E_UNAVAILABLE, "connect to %s: nobody listens there", path);
        return fail_os(e, errno, "connect to %s", path);
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ 0 }, sizeof(struct timeval));
    return TAKE(fd, -1);
}

#define SYSTEMD_FIRST_FD 3

static bool env_number(const char *name, long max, long *ret)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (!text || !*text)
        return false;
    long n = strtol(text, &end, 10);
    if (*end || n < 0 || n > max)
        return false;
    *ret = n;
    return true;
}

int socket_from_systemd(const char *name)
{
    long pid = 0, count = 0;
    const char *names = getenv("LISTEN_FDNAMES");
    if (!names || !env_number("LISTEN_PID", INT32_MAX, &pid) || pid != getpid() || !env_number("LISTEN_FDS", 1024, &count))
        return -1; // another pid: the variables were meant for a parent
    size_t n = strlen(name);
    for (int fd = SYSTEMD_FIRST_FD; fd < SYSTEMD_FIRST_FD + (int)count; fd++) {
        size_t word = strcspn(names, ":");
        if (word == n && memcmp(names, name, n) == 0)
            return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? fd : -1;
        names += word + (names[word] == ':');
    }
    return -1;
}

void socket_notify(const char *state)
{
    struct sockaddr_un to;
    const char *path = getenv("NOTIFY_SOCKET");
    struct error ignored;
    if (!path || (path[0] != '/' && path[0] != '@') || unix_address(path, &to, &ignored) < 0)
        return;
    if (to.sun_path[0] == '@')
        to.sun_path[0] = 0; // abstract
    AUTO(close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, n);
}
