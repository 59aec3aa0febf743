#include "sys/blkid.h"

#include "base/mem.h"

#include <blkid.h>
#include <errno.h>
#include <stdio.h>

DEFINE_AUTO(blkid_probe, blkid_free_probe)

static const char *value(blkid_probe probe, const char *name)
{
    const char *text = NULL;
    return blkid_probe_lookup_value(probe, name, &text, NULL) == 0 && text ? text : "";
}

int blkid_look(int fd, struct blkid_content *ret, struct error *e)
{
    AUTO(blkid_free_probe) blkid_probe probe = blkid_new_probe();
    if (!probe || blkid_probe_set_device(probe, fd, 0, 0) < 0 || blkid_probe_enable_superblocks(probe, 1) < 0 ||
        blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL) < 0 ||
        blkid_probe_enable_partitions(probe, 1) < 0)
        return fail(e, E_IO, "the contents can't be looked at");
    // 0: found, 1: nothing, -2: ambivalent; otherwise -1, or -errno where the documentation says -1.
    errno = 0;
    int rc = blkid_do_safeprobe(probe);
    if (rc < 0 && rc != -2)
        return fail_os(e, errno ? errno : EIO, "look at the contents");
    *ret = (struct blkid_content){ 0 };
    if (rc == 1)
        return 0;
    if (rc == -2) {
        snprintf(ret->what, sizeof ret->what, "several signatures that contradict each other");
        return 1;
    }
    const char *type = value(probe, "TYPE"), *table = value(probe, "PTTYPE");
    if (*type)
        snprintf(ret->what, sizeof ret->what, "a file system or the like of type %s", type);
    else
        snprintf(ret->what, sizeof ret->what, "a partition table of type %s", *table ? table : "unknown");
    snprintf(ret->type, sizeof ret->type, "%s", type);
    snprintf(ret->label, sizeof ret->label, "%s", value(probe, "LABEL"));
    return 1;
}
