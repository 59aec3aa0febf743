// agent.yml: what is accepted and what it comes to, and that each error names file, line, key and what is allowed.
#include "test.h"

#include "client/config.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int parse(const char *text, struct config *ret, struct error *e)
{
    *ret = (struct config){ .control_host = NULL };
    return config_parse("agent.yml", text, strlen(text), ret, e);
}

static void the_least(void **state)
{
    (void)state;
    struct config c;
    struct error e = ERROR_INIT;
    static const char *const least[] = { "version: 1", "version: 1\n", "{version: 1}", "\xef\xbb\xbfversion: 1\n", "---\n# a comment\nversion: 1\n...\n",
        "version: 1\r\n", "\"version\": '1'\n", "version: 1\ndataset: {}\ndocker: {}\ncontrol-service: {}\n",
        "version: 1\ndataset:\n  # pool: /dev/sdb\ndocker:\n" };
    for (size_t i = 0; i < ARRAY_SIZE(least); i++) {
        assert_int_equal(parse(least[i], &c, &e), 0);
        assert_string_equal(c.control_host, "127.0.0.1");
        assert_int_equal(c.control_port, 4524);
        assert_string_equal(c.backend, "btrfs");
        assert_true(!c.pool && !c.pool_size && !c.format && !c.qgroups && !c.mount_root && !c.docker_listen && !c.note[0]);
        config_done(&c);
    }
}

static void everything(void **state)
{
    (void)state;
    struct config c;
    struct error e = ERROR_INIT;
    assert_int_equal(parse("version: 1\n"
                           "control-service:\n  hostname: control.example.com\n  port: 14524\n"
                           "dataset:\n  backend: memory\n  pool: /dev/sdb\n  pool_size: 1.5T\n  format: yes\n  quota: qgroups\n  mount_root: \"/flocker\"\n"
                           "docker:\n  listen: '[::1]:4521'\n"
                           "logging:\n  version: 1\n  handlers: {file: {class: x, args: [1, {a: b}]}}\n", &c, &e), 0);
    assert_string_equal(c.control_host, "control.example.com");
    assert_int_equal(c.control_port, 14524);
    assert_string_equal(c.backend, "memory");
    assert_string_equal(c.pool, "/dev/sdb");
    assert_int_equal(c.pool_size, 3ULL << 39);
    assert_true(c.format && c.qgroups);
    assert_string_equal(c.mount_root, "/flocker");
    assert_string_equal(c.docker_listen, "[::1]:4521");
    assert_non_null(strstr(c.note, "logging"));
    config_done(&c);
    assert_null(c.pool);
}

static void values(void **state)
{
    (void)state;
    static const struct {
        const char *section, *key;
        const char *good[8], *bad[12];
    } cases[] = {
        { "control-service", "hostname", { "localhost", "10.0.0.1", "::1" }, { "", "a b", "\"a\\nb\"", "[x]", "{a: b}", "a/b", "~!" } },
        { "control-service", "port", { "1", "65535", "'4524'" }, { "0", "65536", "-1", "x", "4524x", "1e3", "''", "[1]", "99999999999" } },
        { "dataset", "backend", { "btrfs", "memory" }, { "ext4", "''", "Btrfs", "[btrfs]" } },
        { "dataset", "pool", { "/", "/a b", "/dev/sdb" }, { "a", "''", "{}" } },
        { "dataset", "pool_size", { "64M", "1T", "1073741824" }, { "0", "1M", "-1G", "big", "", "[]" } },
        { "dataset", "format", { "true", "false", "yes", "no", "on", "OFF", "True" }, { "1", "0", "", "maybe", "[true]" } },
        { "dataset", "quota", { "auto", "qgroups" }, { "none", "", "Auto" } },
        { "dataset", "mount_root", { "/flocker" }, { "flocker", "" } },
        { "docker", "listen", { "0.0.0.0:4521", "127.0.0.1:1", "'[::]:65535'" },
          { "4521", "':4521'", "localhost:4521", "1.2.3:5", "'1.2.3.4:'", "1.2.3.4:0", "1.2.3.4:65536", "'[::1:5'", "'::1:5'", "'[]:5'", "1.2.3.4:5x" } },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].good) && cases[i].good[j]; j++) {
            AUTO(free) char *text = xasprintf("version: 1\n%s:\n  %s: %s\n", cases[i].section, cases[i].key, cases[i].good[j]);
            struct config c;
            struct error e = ERROR_INIT;
            if (parse(text, &c, &e) < 0)
                fail_msg("%s is refused: %s", text, e.msg);
            config_done(&c);
        }
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].bad) && cases[i].bad[j]; j++) {
            AUTO(free) char *text = xasprintf("version: 1\n%s:\n  %s: %s\n", cases[i].section, cases[i].key, cases[i].bad[j]);
            AUTO(free) char *name = xasprintf("%s.%s", cases[i].section, cases[i].key);
            struct config c;
            struct error e = ERROR_INIT;
            if (parse(text, &c, &e) != -E_INVALID)
                fail_msg("%s is taken", text);
            assert_null(c.control_host); // untouched
            if (!strstr(e.msg, "agent.yml line 3: ") || !strstr(e.msg, name) || !strstr(e.msg, "must be "))
                fail_msg("%s: %s", text, e.msg);
            assert_null(strpbrk(e.msg, "\n\r\t\x1b"));
        }
    }
}

// Each whole text, and what the message must hold.
static void refused(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { "", "agent.yml line 1", "version: 1" },
        { "# nothing\n", "agent.yml", "version: 1" },
        { "version", "agent.yml line 1", "must hold keys" },
        { "[version, 1]", "agent.yml line 1", "must hold keys" },
        { "docker: {}\n", "version is missing", "version: 1" },
        { "version: 2", "line 1: version", "must be 1" },
        { "version: [1]", "line 1: version", "must be 1" },
        { "version: 1\nversion: 1\n", "line 2: version", "twice" },
        { "version: 1\ndocker: {}\ndocker: {}\n", "line 3: docker", "twice" },
        { "version: 1\n\nfoo: 1\n", "line 3: unknown key 'foo'", "version, control-service, dataset, docker and logging" },
        { "version: 1\ndataset:\n  zone: {a: [b, c]}\n  format: true\n", "line 3: unknown key 'dataset.zone'", "backend, pool" },
        { "version: 1\ndataset:\n  zone: a\n  backend: aws\n", "line 4: dataset.backend: 'aws'", "btrfs or memory" },
        { "version: 1\ndataset:\n  backend: loopback\n", "line 3: dataset.backend: 'loopback'", "original Flocker" },
        { "version: 1\n\"\\e[31m\": 1\n", "line 2: unknown key '?[31m'", "there are" },
        { "version: 1\npool: /x\n", "line 2: unknown key 'pool'", "there are" },
        { "version: 1\ndataset: btrfs\n", "line 2: dataset", "mapping with backend" },
        { "version: 1\ndataset: ''\n", "line 2: dataset", "mapping with backend" },
        { "version: 1\n---\nversion: 1\n", "line 2", "second document" },
        { "version: &a 1\n", "line 1", "anchors" },
        { "version: *a\n", "line 1", "anchors" },
        { "version: !!int 1\n", "line 1", "tags" },
        { "!a {version: 1}\n", "line 1", "tags" },
        { "version: 1\nlogging: {a: [&b {c: d}]}\n", "line 2", "anchors" },
        { "version: 1\nlogging: [!x []]\n", "line 2", "tags" },
        { "version: 1\nlogging: [[[[[[[[[[1]]]]]]]]]]\n", "line 2", "deeper than 8" },
        { "version: 1\nfoo: [[[[[[[[[[1]]]]]]]]]]\n", "line 2", "deeper than 8" },
        { "version: 1\n[a]: b\n", "line 2", "key is not a text" },
        { "version: 1\ndocker:\n  {a: b}: c\n", "line 3", "key is not a text" },
        { "version: \"1\\0\"\n", "line 1", "NUL" },
        { "version: 1\n\tdocker: {", "line 2", "YAML" },
        { "version: 1\ndocker: {a: ]\n", "line 2", "YAML" },
        { "version: \"\xff\"\n", "agent.yml line 1", "YAML" },
        { "version: 1\ndocker:\n  listen: 1.2.3.4:5\n  listen: 1.2.3.4:5\n", "line 4: listen", "twice" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config c;
        struct error e = ERROR_INIT;
        if (parse(cases[i][0], &c, &e) != -E_INVALID || !strstr(e.msg, cases[i][1]) || !strstr(e.msg, cases[i][2]))
            fail_msg("%s\ngives: %s", cases[i][0], e.msg);
        assert_null(c.control_host);
    }
}

static void deep_enough(void **state)
{
    (void)state;
    struct config c;
    struct error e = ERROR_INIT;
    assert_int_equal(parse("version: 1\nlogging: [[[[[[[1]]]]]]]\n", &c, &e), 0);
    config_done(&c);
}

static void files(void **state)
{
    (void)state;
    struct config c = { .control_port = 7 };
    struct error e = ERROR_INIT;
    char dir[] = "/tmp/flocker-config.XXXXXX", path[sizeof dir + 16];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/agent.yml", dir);
    assert_int_equal(config_read(path, &c, &e), -E_NOT_FOUND);
    assert_non_null(strstr(e.msg, path));
    assert_int_equal(config_read(dir, &c, &e), -E_INVALID);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("version: 1\ndataset: {pool: /p}\n", f);
    fflush(f);
    assert_int_equal(config_read(path, &c, &e), 0);
    assert_string_equal(c.pool, "/p");
    config_done(&c);
    c.control_port = 7;
    for (unsigned i = 0; i < CONFIG_BYTES_MAX / 32; i++)
        fputs("# ..............................\n", f);
    fclose(f);
    assert_int_equal(config_read(path, &c, &e), -E_TOO_LARGE);
    assert_non_null(strstr(e.msg, path));
    assert_int_equal(c.control_port, 7);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least), cmocka_unit_test(everything),  cmocka_unit_test(values),
        cmocka_unit_test(refused),   cmocka_unit_test(deep_enough), cmocka_unit_test(files),
    };
    return RUN_TESTS(tests);
}
