#include "agent/worker.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/mem.h"
#include "model/json.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <unistd.h>

struct worker {
    LIST_ENTRY(worker) running;
    STAILQ_ENTRY(worker) waiting;
    struct workers *all;
    struct worker_task task;
    char *what;
    pid_t pid;
    bool late; // stuck in the kernel: no longer counts as running
    const char *stillborn; // why it could not be started
    int fd;
    struct event *on_read, *on_deadline;
    char *text;
    size_t n, room;
};

struct workers {
    struct event_base *base;
    bool in_process;
    unsigned running_count;
    LIST_HEAD(, worker) running;
    STAILQ_HEAD(, worker) waiting;
};

struct workers *workers_new(struct event_base *base, bool in_process)
{
    struct workers *w = xcalloc(1, sizeof *w);
    w->base = base;
    w->in_process = in_process;
    LIST_INIT(&w->running);
    STAILQ_INIT(&w->waiting);
    return w;
}

static void worker_free(struct worker *k)
{
    if (k->on_read)
        event_free(k->on_read);
    if (k->on_deadline)
        event_free(k->on_deadline);
    if (k->fd >= 0)
        close(k->fd);
    free(k->what);
    free(k->text);
    free(k);
}

void workers_free(struct workers *w)
{
    struct worker *k;
    if (!w)
        return;
    while ((k = LIST_FIRST(&w->running))) {
        LIST_REMOVE(k, running);
        if (k->pid > 0)
            kill(k->pid, SIGKILL);
        worker_free(k);
    }
    while ((k = STAILQ_FIRST(&w->waiting))) {
        STAILQ_REMOVE_HEAD(&w->waiting, waiting);
        worker_free(k);
    }
    free(w);
}

#define ANSWER_FD 3 // in the child

static bool is_child;
static struct worker *inside; // the one whose task runs in the agent itself

static int write_whole(const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t put = write(ANSWER_FD, text + at, n - at);
        if (put < 0 && errno != EINTR)
            return -1;
        at += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

// A line of its own before the answer, which has no line feed.
void worker_tell(json_t *progress)
{
    if (inside) {
        if (inside->task.on_progress)
            inside->task.on_progress(inside->task.arg, progress);
        json_decref(progress);
        return;
    }
    AUTO(free) char *text = json_dumps(progress, JSON_COMPACT);
    json_decref(progress);
    if (!is_child || !text)
        return;
    AUTO(free) char *line = xasprintf("%s\n", text);
    write_whole(line, strlen(line));
}

static char *answer_text(worker_fn *run, void *ctx)
{
    struct error e = ERROR_INIT;
    json_t *result = json_object();
    int rc = run(ctx, result, &e);
    json_t *answer = json_pack("{s:o}", "result", result);
    if (rc < 0)
        json_object_set_new(answer, "error", json_from_error(&e));
    char *text = json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    return text;
}

static _Noreturn void child(const struct worker *k, int out, pid_t agent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != agent)
        _exit(1); // the agent died before the line above
    prctl(PR_SET_NAME, "flocker-worker");
    static const int handled[] = { SIGTERM, SIGINT, SIGPIPE }; // by the agent, and by what it runs
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
        signal(handled[i], SIG_DFL);
    // Both may be in the other's place.
    int fd = k->task.fd ? fcntl(k->task.fd, F_DUPFD, WORKER_FD + 1) : -1, answer = fcntl(out, F_DUPFD, WORKER_FD + 1);
    if (answer < 0 || dup2(answer, ANSWER_FD) < 0 || (k->task.fd && (fd < 0 || dup2(fd, WORKER_FD) < 0)))
        _exit(1);
    close_range(k->task.fd ? WORKER_FD + 1 : WORKER_FD, ~0U, 0);
    is_child = true;
    FAILPOINT(WORKER_START);
    AUTO(free) char *text = answer_text(k->task.run, k->task.ctx);
    FAILPOINT(WORKER_DONE);
    _exit(write_whole(text, strlen(text)) < 0);
}

static void start_next(struct workers *w);

// Ends the worker and tells its owner what the answer says.
static void finish(struct worker *k, const char *text, size_t n, const char *died)
{
    struct workers *w = k->all;
    struct error e = ERROR_INIT;
    json_error_t why;
    json_t *answer = text ? json_loadb(text, n, 0, &why) : NULL;
    json_t *result = json_object_get(answer, "result");
    int rc = result ? json_read_error(answer, &e) : fail(&e, E_IO, "%s: the worker %s", k->what, died);
    worker_done *done = k->task.done;
    void *arg = k->task.arg;
    LIST_REMOVE(k, running);
    w->running_count -= !k->late && !k->task.is_long;
    worker_free(k);
    done(arg, rc, result, &e);
    json_decref(answer);
    start_next(w);
}

// Hands out and removes the whole lines that have come; the last `fresh` bytes have not been looked at.
static void take_progress(struct worker *k, size_t fresh)
{
    char *at = k->text, *end = memchr(at + k->n - fresh, '\n', fresh);
    for (; end; end = memchr(at, '\n', k->n - (size_t)(at - k->text))) {
        json_t *progress = json_loadb(at, (size_t)(end - at), 0, NULL);
        if (progress && k->task.on_progress)
            k->task.on_progress(k->task.arg, progress);
        json_decref(progress);
        at = end + 1;
    }
    if (at == k->text)
        return;
    k->n -= (size_t)(at - k->text);
    memmove(k->text, at, k->n);
}

static void on_answer(evutil_socket_t fd, short what, void *arg)
{
    struct worker *k = arg;
    char died[80];
    (void)what;
    if (k->room - k->n < 4096) {
        k->room = k->room ? k->room * 2 : 8192;
        k->text = xrealloc(k->text, k->room, 1);
    }
    if (k->n > WORKER_ANSWER_MAX) {
        snprintf(died, sizeof died, "answered with more than %u MiB, its limit", WORKER_ANSWER_MAX >> 20);
        kill(k->pid, SIGKILL); // it waits for us to read on, and we would wait for its end
        waitpid(k->pid, NULL, 0);
        finish(k, NULL, 0, died);
        return;
    }
    ssize_t got = read(fd, k->text + k->n, k->room - k->n);
    if (got > 0) {
        k->n += (size_t)got;
        take_progress(k, (size_t)got);
        return;
    }
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    int status = 0;
    waitpid(k->pid, &status, 0); // its descriptors are closed: it is past the last thing that may block
    if (WIFSIGNALED(status))
        snprintf(died, sizeof died, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(died, sizeof died, "ended with status %d and no answer", WEXITSTATUS(status));
    finish(k, k->text, k->n, died);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct worker *k = arg;
    (void)fd;
    (void)what;
    kill(k->pid, SIGKILL);
    k->late = true;
    k->all->running_count--;
    if (k->task.on_late)
        k->task.on_late(k->task.arg);
    start_next(k->all);
}

static void run_in_process(evutil_socket_t fd, short what, void *arg)
{
    struct worker *k = arg;
    (void)fd;
    (void)what;
    inside = k;
    AUTO(free) char *text = answer_text(k->task.run, k->task.ctx);
    inside = NULL;
    finish(k, text, strlen(text), "");
}

static void on_stillborn(evutil_socket_t fd, short what, void *arg)
{
    struct worker *k = arg;
    (void)fd;
    (void)what;
    finish(k, NULL, 0, k->stillborn);
}

// `run` from the loop, at once.
static void run_soon(struct worker *k, event_callback_fn run)
{
    static const struct timeval now = { 0, 0 };
    k->on_deadline = evtimer_new(k->all->base, run, k);
    evtimer_add(k->on_deadline, &now);
}

static void launch(struct worker *k)
{
    struct workers *w = k->all;
    int ends[2];
    const int limit_ms = k->task.limit_ms ? k->task.limit_ms : WORKER_MS_MAX;
    const struct timeval deadline = clock_timeval(limit_ms);
    LIST_INSERT_HEAD(&w->running, k, running);
    w->running_count += !k->task.is_long;
    if (w->in_process) {
        run_soon(k, run_in_process);
        return;
    }
    bool has_pipe = pipe2(ends, O_CLOEXEC) == 0;
    pid_t agent = getpid();
    k->pid = has_pipe ? fork() : -1;
    if (k->pid == 0)
        child(k, ends[1], agent);
    if (k->task.fd)
        close(k->task.fd);
    if (has_pipe)
        close(ends[1]);
    k->fd = has_pipe ? ends[0] : -1;
    if (k->pid < 0) {
        k->stillborn = has_pipe ? "could not be started: fork failed" : "could not be started: no descriptors are left";
        run_soon(k, on_stillborn);
        return;
    }
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
    k->on_read = event_new(w->base, k->fd, EV_READ | EV_PERSIST, on_answer, k);
    k->on_deadline = evtimer_new(w->base, on_deadline, k);
    event_add(k->on_read, NULL);
    if (!k->task.is_long)
        evtimer_add(k->on_deadline, &deadline);
}

static void start_next(struct workers *w)
{
    struct worker *k;
    while (w->running_count < WORKERS_MAX && (k = STAILQ_FIRST(&w->waiting))) {
        STAILQ_REMOVE_HEAD(&w->waiting, waiting);
        launch(k);
    }
}

struct worker *worker_start(struct workers *w, const struct worker_task *task)
{
    ASSERT(!task->fd || (task->is_long && !w->in_process));
    struct worker *k = xcalloc(1, sizeof *k);
    k->all = w;
    k->task = *task;
    k->what = xstrdup(task->what);
    k->fd = -1;
    if (task->is_long)
        launch(k);
    else {
        STAILQ_INSERT_TAIL(&w->waiting, k, waiting);
        start_next(w);
    }
    return k;
}

void worker_kill(struct worker *k)
{
    if (k->pid > 0)
        kill(k->pid, SIGKILL);
}
