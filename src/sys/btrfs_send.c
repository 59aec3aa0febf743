#include "sys/btrfs_send.h"

#include "base/mem.h"
#include "sys/btrfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#define PIPE_BYTES (1U << 20)
#define READ_BYTES (128U << 10) // at once: what was read is still in the processor's cache when the sink copies it

int btrfs_snapshot(int dir_fd, const char *name, int subvolume_fd, bool read_only, struct error *e)
{
    struct btrfs_ioctl_vol_args_v2 args = { .fd = subvolume_fd, .flags = read_only ? BTRFS_SUBVOL_RDONLY : 0 };
    size_t n = strlen(name);
    ASSERT(n < sizeof args.name);
    memcpy(args.name, name, n);
    return ioctl(dir_fd, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0 ? fail_os(e, errno, "make snapshot %s", name) : 0;
}

// ---- send --------------------------------------------------------------------------------------------------------------------

struct sender {
    int subvolume_fd, to;
    uint64_t parent; // 0: none
    uint32_t protocol;
    int err; // of the ioctl
};

static uint32_t kernel_protocol(void)
{
    char text[8] = "";
    AUTO(close) int fd = open("/sys/fs/btrfs/features/send_stream_version", O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, text, sizeof text - 1) > 0 && text[0] >= '2' ? 2 : 1;
}

static void *send_thread(void *arg)
{
    struct sender *s = arg;
    __u64 sources[] = { s->parent }; // what the stream may share extents with, besides the subvolume itself
    struct btrfs_ioctl_send_args args = {
        .send_fd = s->to,
        .parent_root = s->parent,
        .clone_sources = sources,
        .clone_sources_count = s->parent ? 1 : 0,
        .flags = s->protocol >= 2 ? BTRFS_SEND_FLAG_VERSION : 0,
        .version = s->protocol,
    };
    s->err = ioctl(s->subvolume_fd, BTRFS_IOC_SEND, &args) < 0 ? errno : 0;
    close(s->to);
    return NULL;
}

// A write into a pipe that nobody reads any more would be a signal for the whole process.
static int start_thread(struct sender *s, pthread_t *ret)
{
    sigset_t all, former;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &former);
    int err = pthread_create(ret, NULL, send_thread, s);
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    return err;
}

static int drain(int fd, int (*sink)(void *arg, const void *data, size_t n), void *arg, struct error *e)
{
    AUTO(free) char *buffer = xcalloc(1, READ_BYTES);
    for (;;) {
        ssize_t n = read(fd, buffer, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_os(e, errno, "read a send stream");
        int rc = n > 0 ? sink(arg, buffer, (size_t)n) : 0;
        if (rc < 0)
            return fail(e, (enum errcode)-rc, "its reader has ended it");
        if (n == 0)
            return 0;
    }
}

static int fail_send(int err, struct error *e)
{
    if (err == ENAMETOOLONG)
        return fail(e, E_UNSUPPORTED, "a path in it is longer than 4095 bytes, which btrfs can't send: make it shorter");
    return fail_os(e, err, "send");
}

int btrfs_send(int subvolume_fd, int parent_fd, int (*sink)(void *arg, const void *data, size_t n), void *arg, struct error *e)
{
    struct sender s = { .subvolume_fd = subvolume_fd, .protocol = kernel_protocol() };
    int ends[2];
    pthread_t thread;
    int rc = parent_fd < 0 ? 0 : btrfs_subvolume_id(parent_fd, &s.parent, e);
    if (rc < 0)
        return rc;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_os(e, errno, "make a pipe");
    AUTO(close) int from = ends[0];
    s.to = ends[1];
    fcntl(from, F_SETPIPE_SZ, PIPE_BYTES); // only for speed
    int err = start_thread(&s, &thread);
    if (err) {
        close(s.to);
        return fail_os(e, err, "start a thread");
    }
    rc = drain(from, sink, arg, e);
    close(TAKE(from, -1)); // if it still writes, this ends it
    pthread_join(thread, NULL);
    return rc < 0 || s.err == 0 ? rc : fail_send(s.err, e);
}
