// Feeds each file of the named folders to a fuzz target: known inputs are tried in every build, by every compiler and sanitizer.
#include "fuzz.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

DEFINE_AUTO(DIR *, closedir)

static int replay_file(const char *path)
{
    struct stat st;
    AUTO(fclose) FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    if (!S_ISREG(st.st_mode))
        return 0;
    AUTO(free) uint8_t *data = xcalloc(1, (size_t)st.st_size + 1);
    size_t n = fread(data, 1, (size_t)st.st_size, f);
    uint8_t *exact = xcalloc(n ? n : 1, 1); // a byte too far must be seen
    memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

static int replay_folder(const char *folder)
{
    int count = 0;
    AUTO(closedir) DIR *dir = opendir(folder);
    if (!dir) {
        fprintf(stderr, "%s: %s\n", folder, strerror(errno));
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        AUTO(free) char *path = xasprintf("%s/%s", folder, entry->d_name);
        int rc = replay_file(path);
        if (rc < 0)
            return rc;
        count += rc;
    }
    printf("%s: %d inputs\n", folder, count);
    return count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (replay_folder(argv[i]) <= 0) // an empty corpus is a mistake
            return 1;
    return argc > 1 ? 0 : 1;
}
