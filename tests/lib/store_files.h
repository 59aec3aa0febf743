// Files of sqlite stores, for their tests: a fresh folder for each test, and what lies in it.
#ifndef FLOCKER_TESTS_STORE_FILES_H
#define FLOCKER_TESTS_STORE_FILES_H

#include "test.h"

#include "store_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char folder[64]; // fresh for each test
static char *path;      // of the store in it

static inline int remove_one(const char *name, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(name);
}

static inline int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/flocker-store-XXXXXX");
    assert_non_null(mkdtemp(folder));
    path = xasprintf("%s/control.db", folder);
    return 0;
}

static inline int drop_folder(void **state)
{
    (void)state;
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(TAKE(path, NULL));
    return 0;
}

static inline int try_open(const char *at, struct store **ret)
{
    struct error e = ERROR_INIT;
    int rc = store_open(&store_sqlite, at, ret, &e);
    if (rc < 0)
        assert_true(e.msg[0] && !strchr(e.msg, '\n'));
    return rc;
}

static inline struct store *open_store(const char *at)
{
    struct store *s = NULL;
    struct error e = ERROR_INIT;
    if (store_open(&store_sqlite, at, &s, &e) < 0)
        print_error("%s\n", e.msg);
    assert_non_null(s);
    return s;
}

static inline char *content_of(const char *at)
{
    AUTO(store_close) struct store *s = open_store(at);
    return kit_dump(s);
}

static inline void put(struct store *s, uint32_t n, const char *name)
{
    struct error e = ERROR_INIT;
    if (kit_put_new(s, n, name, &e) < 0)
        print_error("%s\n", e.msg);
    assert_int_equal(e.code, E_NONE);
}

// A closed store with some of everything.
static inline void fill(uint32_t volumes)
{
    struct error e = ERROR_INIT;
    struct hold holds[] = { kit_hold(1), kit_hold(2) };
    struct node nodes[] = { kit_node(1), kit_node(2) };
    AUTO(store_close) struct store *s = open_store(path);
    AUTO(free) struct store_change *changes = xcalloc(volumes + 4, sizeof *changes);
    for (uint32_t n = 1; n <= volumes; n++) {
        AUTO(free) char *name = xasprintf("volume-%u", n);
        changes[n - 1] = (struct store_change){ .kind = STORE_PUT_VOLUME, .volume = kit_volume(n, n % 5 ? name : NULL) };
    }
    for (size_t i = 0; i < 2; i++) {
        changes[volumes + i] = (struct store_change){ .kind = STORE_PUT_HOLD, .hold = &holds[i] };
        changes[volumes + 2 + i] = (struct store_change){ .kind = STORE_PUT_NODE, .node = &nodes[i] };
    }
    assert_int_equal(store_commit(s, changes, volumes + 4, &e), 0);
    for (uint32_t n = 0; n < volumes; n++)
        volume_free((struct volume *)(uintptr_t)changes[n].volume);
}

struct bytes {
    unsigned char *p;
    size_t n;
};

static inline struct bytes read_bytes(const char *name)
{
    struct bytes b = { NULL, 0 };
    struct stat st;
    AUTO(close) int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return b;
    assert_int_equal(fstat(fd, &st), 0);
    b.n = (size_t)st.st_size;
    b.p = xcalloc(b.n, 1);
    assert_int_equal(read(fd, b.p, b.n), b.n);
    return b;
}

static inline void write_bytes(const char *name, const void *p, size_t n)
{
    AUTO(close) int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
}

// Names and contents of all files in the folder, to see that nothing was touched.
static inline char *folder_state(void)
{
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort);
    assert_true(n >= 2);
    char *text = xstrdup("");
    for (int i = 0; i < n; i++) {
        AUTO(free) char *name = xasprintf("%s/%s", folder, names[i]->d_name);
        struct bytes b = names[i]->d_type == DT_REG ? read_bytes(name) : (struct bytes){ NULL, 0 };
        uint64_t sum = 0;
        for (size_t j = 0; j < b.n; j++)
            sum = sum * 31 + b.p[j];
        char *longer = xasprintf("%s%s %zu %llx\n", text, names[i]->d_name, b.n, (unsigned long long)sum);
        free(text);
        text = longer;
        free(b.p);
        free(names[i]);
    }
    free(names);
    return text;
}

static inline int count_files(void)
{
    struct dirent **names;
    int n = scandir(folder, &names, NULL, NULL);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return n - 2;
}

static inline mode_t mode_of(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 ? st.st_mode & 07777 : 0;
}

#endif
