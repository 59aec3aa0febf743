#include "agent/worker.h"

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
    if (dup2(out, 3) < 0)
        _exit(1);
    close_range(4, ~0U, 0);
    FAILPOINT(WORKER_START);
    AUTO(free) char *text = answer_text(k->task.run, k->task.ctx);
    FAILPOINT(WORKER_DONE);
    for (size_t n = strlen(text), at = 0; at < n;) {
        ssize_t put = write(3, text + at, n - at);
        if (put < 0 && errno != EINTR)
            _exit(1);
        at += put > 0 ? (size_t)put : 0;
    }
    _exit(0);
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
    w->running_count -= !k->late;
    worker_free(k);
    done(arg, rc, result, &e);
    json_decref(answer);
    start_next(w);
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
    AUTO(free) char *text = answer_text(k->task.run, k->task.ctx);
    finish(k, text, strlen(text), "");
}

static void launch(struct worker *k)
{
    struct workers *w = k->all;
    int ends[2];
    const int limit_ms = k->task.limit_ms ? k->task.limit_ms : WORKER_MS_MAX;
    const struct timeval deadline = { limit_ms / 1000, limit_ms % 1000 * 1000 }, now = { 0, 0 };
    LIST_INSERT_HEAD(&w->running, k, running);
    w->running_count++;
    if (w->in_process) {
        k->on_deadline = evtimer_new(w->base, run_in_process, k);
        evtimer_add(k->on_deadline, &now);
        return;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        finish(k, NULL, 0, "could not be started: no descriptors are left");
        return;
    }
    pid_t agent = getpid();
    k->pid = fork();
    if (k->pid == 0)
        child(k, ends[1], agent);
    close(ends[1]);
    k->fd = ends[0];
    if (k->pid < 0) {
        finish(k, NULL, 0, "could not be started: fork failed");
        return;
    }
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
    k->on_read = event_new(w->base, k->fd, EV_READ | EV_PERSIST, on_answer, k);
    k->on_deadline = evtimer_new(w->base, on_deadline, k);
    event_add(k->on_read, NULL);
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

void worker_start(struct workers *w, const struct worker_task *task)
{
    struct worker *k = xcalloc(1, sizeof *k);
    k->all = w;
    k->task = *task;
    k->what = xstrdup(task->what);
    k->fd = -1;
    STAILQ_INSERT_TAIL(&w->waiting, k, waiting);
    start_next(w);
}
