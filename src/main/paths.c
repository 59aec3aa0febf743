#include "main/paths.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ROOT_BYTES_MAX 66 // leaves 107 bytes for the longest socket's path

int paths_init(struct paths *p, const char *root, struct error *e)
{
    size_t n = strlen(root);
    while (n && root[n - 1] == '/')
        n--;
    if (n && root[0] != '/')
        return fail(e, E_INVALID, "--root %.200s is not an absolute path", root);
    if (n > ROOT_BYTES_MAX)
        return fail(e, E_INVALID, "--root is longer than %d bytes, and then sockets below it can't be used", ROOT_BYTES_MAX);
    snprintf(p->root, sizeof p->root, "%.*s", (int)n, root);
#define X(member, path, mode) snprintf(p->member, sizeof p->member, "%.*s%s", (int)n, root, path);
    PATHS_TABLE(X)
#undef X
    return 0;
}

static int make_with_parents(const char *path, mode_t mode, struct error *e)
{
    char part[PATH_SIZE];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return fail_os(e, errno, "make directory %s", part);
    }
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return fail_os(e, errno, "make directory %s", path);
    return 0;
}

int paths_make(const struct paths *p, struct error *e)
{
    const struct {
        const char *path;
        mode_t mode;
    } all[] = {
#define X(member, path, mode) { p->member, mode },
        PATHS_TABLE(X)
#undef X
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int rc = all[i].mode ? make_with_parents(all[i].path, all[i].mode, e) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}
