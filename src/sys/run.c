#include "sys/run.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void become(const char *const argv[], int output)
{
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(127);
    char *const environment[] = { (char[]){ "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }, (char[]){ "LC_ALL=C" }, NULL };
    environ = (char **)(uintptr_t)environment;
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(2, "%s\n", strerror(errno));
    _exit(127);
}

// Starts it; returns where its output can be read.
static int start(const char *const argv[], pid_t *ret, struct error *e)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_os(e, errno, "run %s", argv[0]);
    AUTO(close) int from = ends[0];
    AUTO(close) int to = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return fail_os(e, errno, "run %s", argv[0]);
    if (pid == 0)
        become(argv, to);
    *ret = pid;
    return TAKE(from, -1);
}

// Keeps what fits of the end of the output.
static void read_tail(int fd, char *ret, size_t size)
{
    size_t n = 0;
    char chunk[256];
    ssize_t got;
    while ((got = read(fd, chunk, sizeof chunk)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        size_t add = (size_t)got, keep = n + add < size ? n : size - 1 - add;
        memmove(ret, ret + n - keep, keep);
        memcpy(ret + keep, chunk, add);
        n = keep + add;
    }
    ret[n] = '\0';
}

static const char *last_line(char *text)
{
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    const char *newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}

int run_program(const char *const argv[], struct error *e)
{
    pid_t pid;
    AUTO(close) int from = start(argv, &pid, e);
    if (from < 0)
        return from;
    char output[512];
    read_tail(from, output, sizeof output);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return fail_os(e, errno, "wait for %s", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        return fail(e, E_IO, "%s was killed by signal %d", argv[0], WTERMSIG(status));
    if (WEXITSTATUS(status) == 127)
        return fail(e, E_UNSUPPORTED, "%s can't be run: %s; is it installed?", argv[0], last_line(output));
    return fail(e, E_IO, "%s failed: %s", argv[0], last_line(output));
}

// Reads until the end, the limit of bytes, or the deadline; true if that has passed. What is beyond the limit is read and dropped.
static bool read_until(int fd, int64_t deadline_ms, FILE *to, size_t max)
{
    char chunk[4096];
    size_t n = 0;
    for (;;) {
        const int64_t left_ms = deadline_ms - clock_boot_ms();
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (left_ms <= 0)
            return true;
        if (poll(&p, 1, (int)left_ms) <= 0)
            continue;
        const ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        const size_t keep = n + (size_t)got <= max ? (size_t)got : max - n;
        fwrite(chunk, 1, keep, to);
        n += keep;
    }
}

int run_capture(const char *const argv[], size_t max, int timeout_ms, char **ret, struct error *e)
{
    pid_t pid;
    AUTO(close) int from = start(argv, &pid, e);
    if (from < 0)
        return from;
    int status = 0;
    size_t n;
    AUTO(free) char *text = NULL;
    FILE *out = xmemstream(&text, &n);
    const bool is_late = read_until(from, clock_boot_ms() + timeout_ms, out, max);
    if (is_late) {
        kill(pid, SIGKILL);
        fprintf(out, "\n(%s was ended: it took longer than %d s)\n", argv[0], timeout_ms / 1000);
    }
    fclose(out);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return fail(e, E_UNSUPPORTED, "%s can't be run: %s", argv[0], last_line(text));
    *ret = TAKE(text, NULL);
    return 0;
}
