#include "base/failpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum failpoint failpoint_armed = FAILPOINT_COUNT;

static const char *const names[FAILPOINT_COUNT] = {
#define X(id, name) [FAIL_##id] = name,
    FAILPOINT_TABLE(X)
#undef X
};

static enum { KILL, HANG, ERROR } action;
static atomic_long *left; // in memory that forked workers share, so that a failpoint acts once

static int parse(const char *text, enum failpoint *ret_point, long *ret_n, struct error *e)
{
    static const char *const actions[] = { [KILL] = "kill", [HANG] = "hang", [ERROR] = "error" };
    const char *colon = strchrnul(text, ':');
    char *end = NULL;
    *ret_n = *colon ? strtol(colon + 1, &end, 10) : 1;
    action = KILL;
    if (end && *end == ':')
        while (action < ERROR && strcmp(actions[action], end + 1) != 0)
            action++;
    bool bad = *ret_n < 1 || (end && *end && (*end != ':' || strcmp(actions[action], end + 1) != 0));
    for (*ret_point = 0; *ret_point < FAILPOINT_COUNT; (*ret_point)++)
        if (strlen(names[*ret_point]) == (size_t)(colon - text) && strncmp(names[*ret_point], text, (size_t)(colon - text)) == 0)
            break;
    return bad || *ret_point == FAILPOINT_COUNT ? fail(e, E_INVALID, "FLOCKER_FAILPOINT=%.100s is not NAME[:N[:ACTION]]", text) : 0;
}

int failpoint_init(struct error *e)
{
    const char *text = getenv("FLOCKER_FAILPOINT");
    enum failpoint point;
    long n;
    if (!text || !*text)
        return 0;
    int rc = parse(text, &point, &n, e);
    if (rc < 0)
        return rc;
    left = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (left == MAP_FAILED)
        return fail_os(e, errno, "FLOCKER_FAILPOINT");
    atomic_store(left, n);
    failpoint_armed = point;
    return 0;
}

bool failpoint_hit(enum failpoint point)
{
    if (atomic_fetch_sub(left, 1) != 1)
        return false;
    dprintf(STDERR_FILENO, "failpoint %s in process %d\n", names[point], (int)getpid());
    if (action == KILL)
        kill(getpid(), SIGKILL);
    while (action == HANG)
        pause();
    return true;
}
