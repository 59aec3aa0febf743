#include "main/roles.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/socket.h"
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
#define STOP_MS     10000
#define POLL_MS     20

// Whether the daemon answers, and with `word` in its answer.
static bool answers(const char *sock, const char *target, const char *word)
{
    struct error e = ERROR_INIT;
    struct http_result r = { .status = 0 };
    const struct http_call call = { .unix_path = sock, .method = "GET", .target = target, .timeout_ms = 5000 };
    bool ok = http_call(&call, &r, &e) == 0 && r.status == 200 && strstr(r.body, word);
    http_result_done(&r);
    return ok;
}

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
    const char *name, *sock, *probe, *ready_word, *log;
    char *const *argv;
};

// Starts the daemon unless it answers already, and waits until it is ready.
static int start(const struct service *s, void (*say)(const char *line), struct error *e)
{
    char text[1024];
    int status;
    bool running = answers(s->sock, s->probe, "");
    pid_t pid = running ? 0 : fork();
    if (pid == 0 && !running)
        become(s->log, s->argv);
    if (pid < 0)
        return fail_os(e, errno, "start %s", s->name);
    for (int64_t end_ms = clock_boot_ms() + READY_MS; clock_boot_ms() < end_ms; usleep(POLL_MS * 1000)) {
        if (answers(s->sock, s->probe, s->ready_word)) {
            if (running)
                snprintf(text, sizeof text, "%s is running", s->name);
            else
                snprintf(text, sizeof text, "%s started, log in %.500s", s->name, s->log);
            say(text);
            return 0;
        }
        if (!running && waitpid(pid, &status, WNOHANG) == pid)
            break;
    }
    last_line(s->log, text, sizeof text);
    return fail(e, E_UNAVAILABLE, "%s did not come up; the last line of %s: %s", s->name, s->log, text);
}

static char **daemon_argv(char *role, char *root, char *const *words, size_t n)
{
    static char program[] = "flocker";
    char **argv = xcalloc(n + 4, sizeof *argv);
    argv[0] = program;
    argv[1] = role;
    argv[2] = root;
    memcpy(argv + 3, words, n * sizeof *argv);
    return argv;
}

int role_up(const struct paths *p, const struct up_arguments *arguments, void (*say)(const char *line), struct error *e)
{
    char control_log[PATH_SIZE + 16], agent_log[PATH_SIZE + 16], root[PATH_SIZE + 16];
    char control_word[] = "control", agent_word[] = "agent";
    snprintf(control_log, sizeof control_log, "%s/control.log", p->log);
    snprintf(agent_log, sizeof agent_log, "%s/agent.log", p->log);
    snprintf(root, sizeof root, "--root=%s", p->root);
    AUTO(free) char **control_argv = daemon_argv(control_word, root, arguments->control, arguments->control_n);
    AUTO(free) char **agent_argv = daemon_argv(agent_word, root, arguments->agent, arguments->agent_n);
    const struct service control = { "control", p->control_sock, "/v2/status", "", control_log, control_argv };
    struct service agent = { "agent", p->agent_sock, "/v2/pool", "\"synced\":true", agent_log, agent_argv };
    struct error agent_error = ERROR_INIT;
    int rc = paths_make(p, e);
    if (rc < 0)
        return rc;
    rc = start(&control, say, e);
    if (rc == 0)
        return start(&agent, say, e);
    agent.ready_word = ""; // containers can use the volumes of this host without control
    start(&agent, say, &agent_error);
    return rc;
}

// ---- down

static pid_t pid_of(const char *path)
{
    char text[32] = "";
    AUTO(fclose) FILE *f = fopen(path, "re");
    if (!f || !fgets(text, sizeof text, f))
        return 0;
    long pid = strtol(text, NULL, 10);
    return pid > 1 && kill((pid_t)pid, 0) == 0 ? (pid_t)pid : 0;
}

static int stop(const char *name, const char *pid_path, const char *sock, void (*say)(const char *line), struct error *e)
{
    char text[200];
    pid_t pid = pid_of(pid_path);
    int fd = socket_connect_unix(sock, 1000, e);
    if (fd < 0 || pid == 0) {
        if (fd >= 0)
            close(fd);
        snprintf(text, sizeof text, "%s is not running", name);
        say(text);
        return 0;
    }
    close(fd);
    kill(pid, SIGTERM);
    for (int64_t end_ms = clock_boot_ms() + STOP_MS; clock_boot_ms() < end_ms; usleep(POLL_MS * 1000))
        if (kill(pid, 0) < 0) {
            snprintf(text, sizeof text, "%s stopped", name);
            say(text);
            return 0;
        }
    return fail(e, E_TIMEOUT, "%s (process %d) does not stop", name, (int)pid);
}

static int unmount_all(const struct paths *p, struct error *e)
{
    struct http_result r = { .status = 0 };
    const struct http_call call = { .unix_path = p->agent_sock, .method = "POST", .target = "/v2/pool/shutdown", .timeout_ms = 60000 };
    int rc = http_call(&call, &r, e);
    if (rc == 0 && r.status != 200) {
        AUTO(json_decref) json_t *said = json_loads(r.body, 0, NULL);
        const char *why = json_string_value(json_object_get(said, "description"));
        rc = fail(e, r.status == 409 ? E_BUSY : E_IO, "%s; --keep-mounted stops Flocker all the same, and containers go on",
                  why ? why : "volumes can't be unmounted");
    }
    if (rc == -E_UNAVAILABLE)
        rc = 0; // the agent is not running
    http_result_done(&r);
    return rc;
}

// What a service manager runs would be started again at once.
static int check_managed(const struct paths *p, struct error *e)
{
    if (process_in_cgroup(pid_of(p->agent_pid), "flocker-agent.service"))
        return fail(e, E_CONFLICT, "systemd runs Flocker here: stop it with systemctl stop flocker-plugin.socket flocker-agent flocker-control");
    return 0;
}

int role_down(const struct paths *p, bool keep_mounted, void (*say)(const char *line), struct error *e)
{
    int managed = check_managed(p, e);
    if (managed < 0)
        return managed;
    int rc = keep_mounted ? 0 : unmount_all(p, e);
    if (rc < 0 || (rc = stop("agent", p->agent_pid, p->agent_sock, say, e)) < 0)
        return rc;
    return stop("control", p->control_pid, p->control_sock, say, e);
}
