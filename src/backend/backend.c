#include "backend/backend.h"

#include "base/mem.h"

#include <limits.h>
#include <string.h>

static const struct backend_ops *const backends[] = { &backend_btrfs, &backend_memory };

const struct backend_ops *backend_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}

const char *backend_mount_point(const char *mount_root, const struct uuid *id, char *ret)
{
    snprintf(ret, PATH_MAX, "%s/%s", strcmp(mount_root, "/") == 0 ? "" : mount_root, UUID_TEXT(id));
    return ret;
}
