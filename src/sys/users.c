#include "sys/users.h"

#include "base/mem.h"
#include "sys/atomic_file.h"
#include "sys/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

DEFINE_AUTO(DIR *, closedir)

#define TASK_SIZE 600 // "17" or "17/task/18", with names as long as the system's can be in theory

// A mount that fits the query, before it is known whether it is a copy of ours.
struct candidate {
    int pid;
    ino_t ns;
    int parent_shared, parent_master; // groups of the mount that it is mounted on
};

struct link {
    int group, master; // a mount that is a member of `group` gets the events of `master`
};

struct scan {
    const struct users_query *query;
    size_t n_seen, n_candidates, n_links, n_groups;
    ino_t *seen; // namespaces
    struct candidate *candidates;
    struct link *links;
    int *groups; // those that events of the query's group reach
};

static void scan_done(struct scan *s)
{
    free(s->seen);
    free(s->candidates);
    free(s->links);
    free(s->groups);
}

static void auto_scan_done(struct scan *s)
{
    scan_done(s);
}

// Adds one element to an array whose room is always the next power of two.
#define APPEND(array, n, ...)                                                        \
    do {                                                                             \
        if (((n) & ((n) - 1)) == 0)                                                  \
            (array) = xrealloc((array), (n) ? (n) * 2 : 1, sizeof (array)[0]);       \
        (array)[(n)++] = (__typeof__((array)[0])) __VA_ARGS__;                       \
    } while (0)

static bool is_pid(const char *name)
{
    return name[0] >= '1' && name[0] <= '9' && strspn(name, "0123456789") == strlen(name) && strlen(name) < 10;
}

static int pid_of(const char *name)
{
    return (int)strtol(name, NULL, 10);
}

// The number of the namespace; 0 if the process has none (any more). `task` is relative to proc_fd. The text of the link costs half of
// what a stat of its target does, and this is most of a scan's time.
static ino_t namespace_of(int proc_fd, const char *task)
{
    char path[TASK_SIZE + sizeof "/ns/mnt"], target[64];
    snprintf(path, sizeof path, "%s/ns/mnt", task);
    ssize_t n = readlinkat(proc_fd, path, target, sizeof target - 1);
    if (n <= 0)
        return 0;
    target[n] = '\0';
    return strncmp(target, "mnt:[", 5) == 0 ? strtoull(target + 5, NULL, 10) : 0;
}

static bool seen_before(struct scan *s, ino_t ns)
{
    for (size_t i = s->n_seen; i > 0; i--)
        if (s->seen[i - 1] == ns)
            return true;
    APPEND(s->seen, s->n_seen, ns);
    return false;
}

static bool went_away(const struct error *e)
{
    return e->os_errno == ENOENT || e->os_errno == ESRCH || e->os_errno == EINVAL;
}

static int look_into(struct scan *s, const char *task, int pid, ino_t ns, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { 0 };
    char path[PATH_MAX];
    struct error why = ERROR_INIT;
    snprintf(path, sizeof path, "/proc/%s/mountinfo", task);
    int rc = mountinfo_read(path, &m, &why);
    if (rc < 0 && went_away(&why)) {
        // Only this process is known to be gone: another one may show the namespace.
        s->n_seen--;
        return 0;
    }
    if (rc < 0) {
        *e = why;
        return rc;
    }
    for (size_t i = 0; i < m.n; i++) {
        const struct mountinfo_entry *mount = &m.entries[i];
        if (mount->shared && mount->master)
            APPEND(s->links, s->n_links, { mount->shared, mount->master });
        if (mount->major != s->query->major || mount->minor != s->query->minor || !mountinfo_is_below(mount->root, s->query->root))
            continue;
        const struct mountinfo_entry *parent = mountinfo_by_id(&m, mount->parent);
        APPEND(s->candidates, s->n_candidates, { pid, ns, parent ? parent->shared : 0, parent ? parent->master : 0 });
    }
    return 0;
}

// A process whose first thread has ended keeps its namespaces in the others. `ret_task` is relative to /proc.
static ino_t find_task(int proc_fd, const char *pid_name, char ret_task[TASK_SIZE])
{
    snprintf(ret_task, TASK_SIZE, "%s", pid_name);
    ino_t ns = namespace_of(proc_fd, ret_task);
    if (ns)
        return ns;
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/task", pid_name);
    AUTO(closedir) DIR *tasks = opendir(path);
    struct dirent *d;
    while (!ns && tasks && (d = readdir(tasks))) {
        if (!is_pid(d->d_name))
            continue;
        snprintf(ret_task, TASK_SIZE, "%s/task/%s", pid_name, d->d_name);
        ns = namespace_of(proc_fd, ret_task);
    }
    return ns;
}

static int scan_processes(struct scan *s, DIR *proc, struct error *e)
{
    struct dirent *d;
    while ((d = readdir(proc))) {
        char task[TASK_SIZE];
        if (!is_pid(d->d_name))
            continue;
        ino_t ns = find_task(dirfd(proc), d->d_name, task);
        if (!ns || seen_before(s, ns))
            continue;
        int rc = look_into(s, task, pid_of(d->d_name), ns, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool is_reached(const struct scan *s, int group)
{
    for (size_t i = 0; group && i < s->n_groups; i++)
        if (s->groups[i] == group)
            return true;
    return false;
}

// All groups that get our events, directly or through others. Ends: each round but the last adds one of finitely many groups.
static void follow_links(struct scan *s)
{
    if (!s->query->peer_group)
        return;
    APPEND(s->groups, s->n_groups, s->query->peer_group);
    for (bool grew = true; grew;) {
        grew = false;
        for (size_t i = 0; i < s->n_links; i++) {
            if (!is_reached(s, s->links[i].master) || is_reached(s, s->links[i].group))
                continue;
            APPEND(s->groups, s->n_groups, s->links[i].group);
            grew = true;
        }
    }
}

bool users_container_id(const char *text, char ret[CONTAINER_ID_SIZE])
{
    // A line is "number:controllers:/path". The id stands in the last part but one when the engine makes groups of its own in it.
    bool found = false;
    for (const char *line = text, *end; *line && !found; line = *end ? end + 1 : end) {
        end = line + strcspn(line, "\n");
        size_t run = 0;
        for (const char *c = line; c <= end; c++) {
            bool hex = c < end && ((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f'));
            if (!hex && run == 64) {
                memcpy(ret, c - 64, 64);
                ret[64] = '\0';
                found = true; // the last such part counts: containers in containers
            }
            run = hex ? run + 1 : 0;
        }
    }
    return found;
}

static void describe(int pid, struct users_entry *ret)
{
    char path[64];
    size_t n;
    struct error ignored;
    AUTO(free) char *cgroup = NULL, *command = NULL;
    *ret = (struct users_entry){ .pid = pid };
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    if (atomic_file_read_pseudo(path, 1 << 20, &cgroup, &n, &ignored) < 0 || !users_container_id(cgroup, ret->container))
        ret->container[0] = '\0';
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    if (atomic_file_read_pseudo(path, 4096, &command, &n, &ignored) == 0)
        snprintf(ret->command, sizeof ret->command, "%.*s", (int)strcspn(command, "\n"), command);
    // A process names itself as it likes; the name goes to logs and terminals.
    for (char *c = ret->command; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

int users_scan(const struct users_query *query, struct users_entry *ret, size_t max, struct error *e)
{
    AUTO(scan_done) struct scan s = { .query = query };
    AUTO(closedir) DIR *proc = opendir("/proc");
    if (!proc)
        return fail_os(e, errno, "open /proc");
    ino_t own = namespace_of(dirfd(proc), "self");
    if (!own)
        return fail(e, E_IO, "/proc/self/ns/mnt can't be read");
    APPEND(s.seen, s.n_seen, own);
    int rc = scan_processes(&s, proc, e);
    if (rc < 0)
        return rc;
    follow_links(&s);
    size_t n = 0;
    ino_t last = 0;
    for (size_t i = 0; i < s.n_candidates && n < max; i++) {
        const struct candidate *c = &s.candidates[i];
        if (c->ns == last || is_reached(&s, c->parent_shared) || is_reached(&s, c->parent_master))
            continue; // candidates of one namespace stand together
        last = c->ns;
        describe(c->pid, &ret[n++]);
    }
    return (int)n;
}

static bool leads_to(const char *link, const char *path)
{
    char target[PATH_MAX];
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    return mountinfo_is_below(target, path);
}

static bool has_open(const char *pid_name, const char *path)
{
    char link[600];
    static const char *const fixed[] = { "cwd", "root", "exe" };
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        snprintf(link, sizeof link, "/proc/%s/%s", pid_name, fixed[i]);
        if (leads_to(link, path))
            return true;
    }
    snprintf(link, sizeof link, "/proc/%s/fd", pid_name);
    AUTO(closedir) DIR *fds = opendir(link);
    struct dirent *d;
    while (fds && (d = readdir(fds))) {
        snprintf(link, sizeof link, "/proc/%s/fd/%s", pid_name, d->d_name);
        if (leads_to(link, path))
            return true;
    }
    return false;
}

bool users_of_path(const char *path, struct users_entry *ret)
{
    AUTO(closedir) DIR *proc = opendir("/proc");
    struct dirent *d;
    while (proc && (d = readdir(proc))) {
        if (!is_pid(d->d_name) || !has_open(d->d_name, path))
            continue;
        describe(pid_of(d->d_name), ret);
        return true;
    }
    return false;
}

const char *users_text(const struct users_entry *u, char ret[USERS_TEXT_SIZE])
{
    if (u->container[0])
        snprintf(ret, USERS_TEXT_SIZE, "container %.12s (pid %d, %s)", u->container, u->pid, u->command);
    else
        snprintf(ret, USERS_TEXT_SIZE, "pid %d (%s)", u->pid, u->command);
    return ret;
}
