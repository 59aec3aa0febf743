#include "main/roles.h"

#include "agent/agent.h"
#include "base/clock.h"
#include "base/mem.h"
#include "main/upstream.h"
#include "net/http.h"
#include "net/pki.h"
#include "sys/instance.h"
#include "sys/mountinfo.h"
#include "sys/process.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

DEFINE_AUTO(json_t *, json_decref)

#define READY_MS    20000 // the first start makes certificates and a pool
#define RUNNING_MS  (AGENT_RECONNECT_MS + 5000) // of one that runs already, such as an agent that has not noticed yet that control is there again
#define STOP_MS     10000
#define PATIENCE_MS 2000
#define POLL_MS     20

// The last line of a log, for the message about a daemon that did not come up.
static void last_line(const char *path, char *ret, size_t size)
{
    char text[4096];
    AUTO(fclose) FILE *f = fopen(path, "re");
    ret[0] = '\0';
    if (!f || (fseek(f, -(long)sizeof text, SEEK_END) < 0 && fseek(f, 0, SEEK_SET) < 0))
        return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    while (n && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
    const char *line = strrchr(text, '\n');
    snprintf(ret, size, "%.500s", line ? line + 1 : text);
}

static _Noreturn void become(const char *log, char *const *argv)
{
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640), in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setsid();
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    execv("/proc/self/exe", argv);
    _exit(127);
}

struct service {
    const char *name, *sock, *lock, *probe, *ready_word, *log;
    char *const *argv;
    bool has_options; // the user gave some
};

struct probe {
    int rc; // -E_UNAVAILABLE: nobody listens
    bool is_ready;
    char reason[700]; // why one that answers is not
};

static struct probe ask(const struct service *s)
{
    struct error e = ERROR_INIT;
    struct probe ret = { .rc = 0 };
    struct http_result r = { .status = 0 };
    const struct http_call call = { .unix_path = s->sock, .method = "GET", .target = s->probe, .timeout_ms = 5000 };
    ret.rc = http_call(&call, &r, &e);
    ret.is_ready = ret.rc == 0 && r.status == 200 && strstr(r.body, s->ready_word);
    AUTO(json_decref) json_t *said = ret.rc == 0 ? json_loads(r.body, 0, NULL) : NULL;
    const char *why = json_string_value(json_object_get(said, r.status != 200 ? "description" : "control_problem"));
    snprintf(ret.reason, sizeof ret.reason, "%s", ret.rc < 0 ? e.msg : why ? why : "it is not connected to control");
    http_result_done(&r);
    return ret;
}

static bool is_managed(pid_t pid)
{
    return process_in_cgroup(pid, "flocker-agent.service") || process_in_cgroup(pid, "flocker-control.service");
}

static const char *when_options_count(const struct service *s)
{
    if (!s->has_options)
        return "";
    return is_managed(instance_find(s->lock).pid) ? "; options count when it starts: systemctl restart it"
                                                  : "; options count when it starts: `flocker down` first";
}

// was_running: it was not started now, so what is wrong may be what the options are to mend.
static int fail_start(const struct service *s, bool was_running, const struct probe *last, struct error *e)
{
    char text[1024];
    if (last->rc != -E_UNAVAILABLE)
        return fail(e, E_UNAVAILABLE, "%s is running, but not ready: %s; log in %s%s", s->name, last->reason, s->log,
                    was_running && s->has_options ? when_options_count(s) : "; `flocker down` stops it");
    last_line(s->log, text, sizeof text);
    return fail(e, E_UNAVAILABLE, "%s did not come up; the last line of %s: %s", s->name, s->log, text);
}

// The pid of a daemon at whose socket nobody was found between the two looks: the socket is gone, because somebody removed /run/flocker. It is
// there for as long as the daemon serves. 0 for one that was starting or ending.
static pid_t lost(const struct instance *before, const struct instance *after)
{
    return before->pid > 0 && before->pid == after->pid && before->is_serving && after->is_serving ? after->pid : 0;
}

static struct probe ask_lost(const struct service *s, pid_t *ret)
{
    const struct instance before = instance_find(s->lock);
    struct probe now = ask(s);
    const struct instance after = instance_find(s->lock);
    *ret = now.rc == -E_UNAVAILABLE ? lost(&before, &after) : 0;
    return now;
}

// Ends a daemon that nobody can reach any more. Its successor waits until it is gone.
static int end_lost(const struct service *s, pid_t pid, void (*say)(const char *line), struct error *e)
{
    char text[PATH_SIZE + 200];
    if (is_managed(pid))
        return fail(e, E_CONFLICT, "systemd runs %s (process %d), but its socket %s is gone: systemctl restart flocker-%s", s->name, (int)pid,
                    s->sock, s->name);
    if (kill(pid, SIGTERM) < 0 && errno != ESRCH)
        return fail_os(e, errno, "end %s (process %d), whose socket %s is gone", s->name, (int)pid, s->sock);
    snprintf(text, sizeof text, "%s (process %d) is replaced: its socket %.400s was gone", s->name, (int)pid, s->sock);
    say(text);
    return 0;
}

// Whether the daemon that is ready is not the one we have started, because another start was quicker. Then ours ends: it must not come to be
// the next one when that is told to end.
static bool give_way(const struct service *s, pid_t pid)
{
    int status;
    if (instance_find(s->lock).pid == pid)
        return false;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return true;
}

// Who waits for longer than a moment is told for what.
static bool tell_wait(const struct service *s, const struct probe *now, int64_t since_ms, void (*say)(const char *line))
{
    char text[1024];
    if (now->rc == -E_UNAVAILABLE || clock_boot_ms() - since_ms < PATIENCE_MS)
        return false;
    snprintf(text, sizeof text, "waiting for %s: %s", s->name, now->reason);
    say(text);
    return true;
}

// Starts the daemon unless it runs already, and waits until it is ready.
static int start(const struct service *s, void (*say)(const char *line), struct error *e)
{
    char text[1024];
    int status;
    pid_t unreachable = 0;
    struct probe now = ask_lost(s, &unreachable);
    bool running = now.rc != -E_UNAVAILABLE;
    if (now.rc == -E_DENIED)
        return fail(e, E_DENIED, "%s", now.reason);
    if (unreachable && end_lost(s, unreachable, say, e) < 0)
        return -(int)e->code;
    const int64_t begin_ms = clock_boot_ms();
    bool is_told = false;
    pid_t pid = running ? 0 : fork();
    if (pid == 0 && !running)
        become(s->log, s->argv);
    if (pid < 0)
        return fail_os(e, errno, "start %s", s->name);
    for (int64_t end_ms = begin_ms + (running ? RUNNING_MS : READY_MS); clock_boot_ms() < end_ms; usleep(POLL_MS * 1000)) {
        now = ask(s);
        if (now.is_ready) {
            if (!running && !give_way(s, pid))
                snprintf(text, sizeof text, "%s started, log in %.500s", s->name, s->log);
            else
                snprintf(text, sizeof text, "%s is running%s", s->name, when_options_count(s));
            say(text);
            return 0;
        }
        is_told = is_told || tell_wait(s, &now, begin_ms, say);
        if (running && now.rc == -E_UNAVAILABLE)
            return start(s, say, e); // it was just ending
        if (running || waitpid(pid, &status, WNOHANG) != pid)
            continue;
        if (instance_find(s->lock).pid > 0)
            return start(s, say, e); // somebody else has started one at the same time
        now = ask(s); // the last answer may be the end of a connection to the one that has ended
        break;
    }
    return fail_start(s, running, &now, e);
}

int explain_denied(int rc, struct error *e)
{
    struct error why = *e;
    return rc == -E_DENIED && geteuid() != 0 ? fail(e, E_DENIED, "%s; only root may do this", why.msg) : rc;
}

static void auto_config(struct config *c)
{
    config_done(c);
}

static int has_remote_control(const struct paths *p, const struct up_arguments *arguments, bool *ret, struct error *e)
{
    __attribute__((cleanup(auto_config))) struct config file = { NULL };
    struct upstream u;
    int rc = upstream_read_config(p, arguments->config, &file, e);
    if (rc < 0 || (rc = upstream_find(&file, arguments->control_at, &u, e)) < 0)
        return rc;
    // The control host, too, may name itself in agent.yml, so that its agent is known by that address.
    *ret = u.is_remote && !pki_has(p->etc, "control-service");
    return 0;
}

int role_up(const struct paths *p, const struct up_arguments *arguments, void (*say)(const char *line), struct error *e)
{
    char control_log[PATH_SIZE + 16], agent_log[PATH_SIZE + 16], root[PATH_SIZE + 16];
    char program[] = "flocker", control_word[] = "control", agent_word[] = "agent";
    snprintf(control_log, sizeof control_log, "%s/control.log", p->log);
    snprintf(agent_log, sizeof agent_log, "%s/agent.log", p->log);
    snprintf(root, sizeof root, "--root=%s", p->root);
    char *const control_argv[] = { program, control_word, root, NULL };
    char *const agent_argv[] = { program, agent_word, root, arguments->once[0], arguments->once[1], NULL };
    const struct service control = { "control", p->control_sock, p->control_lock, "/v2/status", "", control_log, control_argv, arguments->has_control };
    struct service agent = { "agent", p->agent_sock, p->agent_lock, "/v2/pool", "\"synced\":true", agent_log, agent_argv, arguments->has_agent };
    struct error agent_error = ERROR_INIT;
    bool control_is_elsewhere = false;
    int rc = paths_make(p, e);
    if (rc < 0 || (rc = has_remote_control(p, arguments, &control_is_elsewhere, e)) < 0)
        return explain_denied(rc, e);
    if (control_is_elsewhere)
        return explain_denied(start(&agent, say, e), e);
    rc = start(&control, say, e);
    if (rc == 0)
        return start(&agent, say, e);
    if (rc == -E_DENIED)
        return explain_denied(rc, e);
    agent.ready_word = ""; // containers can use the volumes of this host without control
    start(&agent, say, &agent_error);
    return rc;
}

// ---- down

static int stop(const char *name, const char *lock, void (*say)(const char *line), struct error *e)
{
    char text[200];
    const pid_t pid = instance_find(lock).pid;
    if (pid < 0)
        return fail(e, E_DENIED, "can't tell whether %s is running: %s can't be read", name, lock);
    if (pid > 0 && kill(pid, SIGTERM) < 0 && errno != ESRCH)
        return fail_os(e, errno, "end %s (process %d)", name, (int)pid);
    const uint64_t began = process_start(pid);
    for (int64_t end_ms = clock_boot_ms() + STOP_MS; began && process_start(pid) == began; usleep(POLL_MS * 1000))
        if (clock_boot_ms() > end_ms)
            return fail(e, E_TIMEOUT, "%s (process %d) does not stop", name, (int)pid);
    snprintf(text, sizeof text, pid > 0 ? "%s stopped" : "%s is not running", name);
    say(text);
    return 0;
}

// Whether anything is mounted where the pool and the volumes of this root belong.
static bool has_mounts(const struct paths *p)
{
    struct error e = ERROR_INIT;
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    if (mountinfo_read_self(&m, &e) < 0)
        return true;
    for (size_t i = 0; i < m.n; i++) {
        const char *at = m.entries[i].mount_point;
        if (strcmp(at, p->pool) == 0 || (strcmp(at, p->mount_root) != 0 && mountinfo_is_below(at, p->mount_root)))
            return true;
    }
    return false;
}

// *ret_is_over: it can't be taken back, so the agent ends; the error says what remains.
static int unmount_all(const struct paths *p, bool *ret_is_over, struct error *e)
{
    struct http_result r = { .status = 0 };
    const struct http_call call = { .unix_path = p->agent_sock, .method = "POST", .target = "/v2/pool/shutdown", .timeout_ms = 60000 };
    const struct instance before = instance_find(p->agent_lock);
    int rc = http_call(&call, &r, e);
    if (rc == 0 && r.status != 200 && (r.status != 503 || has_mounts(p))) { // 503: its pool was never opened
        AUTO(json_decref) json_t *said = json_loads(r.body, 0, NULL);
        const char *why = json_string_value(json_object_get(said, "description"));
        *ret_is_over = r.status != 409;
        rc = fail(e, *ret_is_over ? E_IO : E_BUSY, "%s%s", why ? why : "volumes can't be unmounted",
                  *ret_is_over ? "" : "; `flocker down --keep-mounted` stops Flocker all the same, and containers go on");
    }
    const struct instance after = instance_find(p->agent_lock);
    if (rc == -E_UNAVAILABLE && lost(&before, &after))
        rc = fail(e, E_CONFLICT, "the agent (process %d) can't be told to unmount: its socket %s is gone; `flocker up` mends that",
                  (int)after.pid, p->agent_sock);
    else if (rc == -E_UNAVAILABLE)
        rc = 0; // the agent is not running
    http_result_done(&r);
    return rc;
}

// What a service manager runs would be started again at once.
static int check_managed(const struct paths *p, struct error *e)
{
    if (is_managed(instance_find(p->agent_lock).pid))
        return fail(e, E_CONFLICT, "systemd runs Flocker here: stop it with systemctl stop flocker-plugin.socket flocker-agent flocker-control");
    return 0;
}

int role_down(const struct paths *p, bool keep_mounted, void (*say)(const char *line), struct error *e)
{
    int managed = check_managed(p, e);
    if (managed < 0)
        return managed;
    bool is_over = false;
    struct error held = ERROR_INIT;
    int left = keep_mounted ? 0 : unmount_all(p, &is_over, &held);
    if (left < 0 && !is_over) {
        *e = held;
        return explain_denied(left, e);
    }
    int rc = stop("agent", p->agent_lock, say, e);
    if (rc < 0 || (rc = stop("control", p->control_lock, say, e)) < 0)
        return explain_denied(rc, e);
    if (left < 0)
        *e = held;
    return left;
}
