#include "main/daemon.h"

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/socket.h"
#include "sys/instance.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct daemon *d = arg;
    (void)fd;
    (void)what;
    log_info("stopping");
    socket_notify("STOPPING=1");
    event_base_loopbreak(d->base);
}

int daemon_init(struct daemon *d, const char *program, struct error *e)
{
    static const int signals[] = { SIGTERM, SIGINT };
    struct rlimit files;
    int rc = failpoint_init(e);
    if (rc < 0)
        return rc;
    log_open(program);
    prctl(PR_SET_NAME, program); // started by way of /proc/self/exe, it would be called "exe"
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { // many agents and clients: as many descriptors as the system allows
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    d->base = event_base_new();
    if (!d->base)
        return fail(e, E_IO, "the event loop can't be made");
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        d->on_signal[i] = evsignal_new(d->base, signals[i], on_signal, d);
        event_add(d->on_signal[i], NULL);
    }
    return 0;
}

int daemon_lock(struct daemon *d, const char *path, struct error *e)
{
    return instance_take(path, &d->lock_fd, e);
}

int daemon_run(struct daemon *d, const char *pid_path, struct error *e)
{
    AUTO(close) int fd = open(pid_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0)
        return fail_os(e, errno, "write %s", pid_path);
    d->pid_path = pid_path;
    instance_serve(d->lock_fd);
    socket_notify("READY=1");
    log_info("ready, version %s", FLOCKER_VERSION);
    event_base_dispatch(d->base);
    instance_leave(d->lock_fd);
    return 0;
}

void daemon_done(struct daemon *d)
{
    if (d->pid_path)
        unlink(d->pid_path);
    for (size_t i = 0; i < ARRAY_SIZE(d->on_signal); i++)
        if (d->on_signal[i])
            event_free(d->on_signal[i]);
    if (d->base)
        event_base_free(d->base);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
}
