// flocker.conf: what is read is what was meant, what people wrote between the options stays, and an error names the line.
#include "test.h"

#include "base/mem.h"
#include "cli/cli.h"
#include "main/settings.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct cli_option known[] = {
    { "rest", 0, "ADDRESS:PORT", "" }, { "pool", 0, "PATH", "" }, { "qgroups", 0, NULL, "" }, { NULL, 0, NULL, NULL },
};

static int parse(const char *text, struct settings *ret, struct error *e)
{
    return settings_parse("flocker.conf", text, strlen(text), known, ret, e);
}

static void read_as_written(void **state)
{
    (void)state;
    struct settings s;
    struct error e = ERROR_INIT;
    assert_int_equal(parse("# mine\n\nrest=1.2.3.4:5\n  pool =  /a b=c # d \r\nqgroups\nrest=[::1]:6", &s, &e), 0);
    assert_string_equal(settings_value(&s, "rest"), "[::1]:6");
    assert_string_equal(settings_value(&s, "pool"), "/a b=c # d");
    assert_string_equal(settings_value(&s, "qgroups"), "");
    assert_null(settings_value(&s, "peers"));
    settings_done(&s);
    assert_int_equal(parse("", &s, &e), 0);
    assert_int_equal(s.n, 0);
    settings_done(&s);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *said;
    } wrong[] = {
        { "rest=1:2\nagnets=none\n", "flocker.conf line 2: there is no option 'agnets'" }, { "--rest=none", "'--rest'; they are written as NAME=VALUE, without" },
        { "\nrest", "line 2: rest needs a value: rest=ADDRESS:PORT" },                     { "rest = \n", "rest needs a value" },
        { "qgroups=yes", "qgroups takes no value" },                                       { "=x", "no option ''" },
        { "a\x1b[2J", "no option 'a?[2J'" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct settings s;
        struct error e = ERROR_INIT;
        assert_int_equal(parse(wrong[i].text, &s, &e), -E_INVALID);
        if (!strstr(e.msg, wrong[i].said))
            fail_msg("%s", e.msg);
        assert_int_equal(s.n, 0);
    }
    struct settings s;
    struct error e = ERROR_INIT;
    assert_int_equal(settings_parse("f", "rest=a\0b", 8, known, &s, &e), -E_INVALID);
    AUTO(free) char *large = xcalloc(SETTINGS_BYTES_MAX + 1, 1);
    assert_int_equal(settings_parse("f", large, SETTINGS_BYTES_MAX + 1, known, &s, &e), -E_TOO_LARGE);
}

static void changed(void **state)
{
    (void)state;
    struct settings s, back;
    struct error e = ERROR_INIT;
    assert_int_equal(parse("# mine\nrest=1:2\n\n# the disk\npool=/a\nrest=3:4\n", &s, &e), 0);
    assert_int_equal(settings_set(&s, "rest", "5:6", &e), 0);
    assert_int_equal(settings_set(&s, "qgroups", "", &e), 0);
    AUTO(free) char *text = settings_text(&s);
    assert_string_equal(text, "# mine\nrest=1:2\n\n# the disk\npool=/a\nrest=5:6\nqgroups\n");
    settings_forget(&s, "rest");
    settings_forget(&s, "qgroups");
    AUTO(free) char *less = settings_text(&s);
    assert_string_equal(less, "# mine\n\n# the disk\npool=/a\n");
    static const char *const no_line[] = { " /a", "/a\t", "/a\nrest=1:1", "\n" };
    for (size_t i = 0; i < ARRAY_SIZE(no_line); i++)
        assert_int_equal(settings_set(&s, "pool", no_line[i], &e), -E_INVALID);
    settings_done(&s);

    // Over the file: made with a heading, which stays the only one.
    char dir[] = "/tmp/test-settings-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO(close) int fd = -1;
    assert_int_equal(settings_open(dir, true, &fd, &e), 0);
    assert_int_equal(settings_read(fd, dir, known, &s, &e), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(settings_set(&s, "pool", i ? "/b" : "/a", &e), 0);
        assert_int_equal(settings_write(fd, &s, &e), 0);
        assert_int_equal(settings_read(fd, dir, known, &back, &e), 0);
        assert_string_equal(settings_value(&back, "pool"), i ? "/b" : "/a");
        assert_int_equal(back.n, 2);
        settings_done(&s);
        s = back;
    }
    settings_done(&s);
    int other = -1;
    assert_int_equal(settings_open(dir, true, &other, &e), -E_TIMEOUT);
    assert_non_null(strstr(e.msg, dir));
    assert_int_equal(settings_open(dir, false, &other, &e), 0);
    close(other);
    struct stat st;
    assert_int_equal(fstatat(fd, SETTINGS_FILE, &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(unlinkat(fd, SETTINGS_FILE, 0), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(settings_open(dir, false, &fd, &e), -E_NOT_FOUND);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_as_written),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(changed),
    };
    return RUN_TESTS(tests);
}
