// The parser of send streams: what a kernel writes is understood however it is cut, and nothing else is let through.
#include "test.h"

#include "send_kit.h"
#include "sys/send_stream.h"

#include <errno.h>

// ---- checksums ---------------------------------------------------------------------------------------------------------------

static void checksum_is_that_of_the_standard(void **state)
{
    (void)state;
    uint8_t bytes[32]; // RFC 3720, B.4
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(~crc32c(~0U, bytes, sizeof bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(~crc32c(~0U, bytes, sizeof bytes), 0x62a8ab43);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(~crc32c(~0U, bytes, sizeof bytes), 0x46dd794e);
    assert_int_equal(~crc32c_by_table(~0U, bytes, sizeof bytes), 0x46dd794e);
    assert_int_equal(~crc32c(~0U, "123456789", 9), 0xe3069283);
    for (size_t n = 0; n <= sizeof bytes; n++)
        assert_int_equal(crc32c(5, bytes, n), crc32c_by_table(5, bytes, n));
}

// Long data are taken in lanes: around the lengths at which that begins and at any alignment.
static void checksum_of_long_data_is_that_of_the_table(void **state)
{
    (void)state;
    static uint8_t bytes[20000];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((x = x * 1664525U + 1013904223U) >> 24);
    for (size_t n = 6100; n < sizeof bytes - 8; n += n % 61 + 1)
        assert_int_equal(crc32c((uint32_t)n, bytes + n % 8, n), crc32c_by_table((uint32_t)n, bytes + n % 8, n));
}

// ---- commands ----------------------------------------------------------------------------------------------------------------

struct log {
    char text[8192];
    size_t n;
};

static int on_command(void *arg, const struct send_command *c, struct error *e)
{
    struct log *l = arg;
    if (c->path && strcmp(c->path, "refused") == 0)
        return fail(e, E_BUSY, "refused");
    l->n += (size_t)snprintf(l->text + l->n, sizeof l->text - l->n, "%s %s %s %s %.*s %llu %llu %o %u %u %llx\n", send_verb_word(c->verb),
        c->path ? c->path : "-", c->other ? c->other : "-", c->xattr ? c->xattr : "-", c->n < 40 ? (int)c->n : 40, c->data ? (const char *)c->data : "",
        (unsigned long long)c->offset, (unsigned long long)c->length, c->mode, c->uid, c->gid, (unsigned long long)c->rdev);
    return 0;
}

static int parse(const struct stream *s, size_t piece, struct log *ret, struct error *e)
{
    AUTO(send_stream_free) struct send_stream *parser = send_stream_new(on_command, ret);
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < s->n; at += piece)
        rc = send_stream_feed(parser, s->data + at, s->n - at < piece ? s->n - at : piece, e);
    return rc;
}

static void make_all_commands(struct stream *s, uint32_t version)
{
    stream_header(s, version);
    stream_subvolume(s, 1);
    stream_paths(s, SEND_MKFILE, "o257-7-0", 0, NULL);
    stream_paths(s, SEND_RENAME, "o257-7-0", S_PATH_TO, "dir/\xff\n name");
    stream_write(s, "dir/\xff\n name", 4096, "text");
    stream_paths(s, SEND_SYMLINK, "l", S_PATH_LINK, "/../anything//at/all");
    stream_paths(s, SEND_LINK, "b", S_PATH_LINK, "a");
    stream_begin(s, SEND_MKNOD);
    stream_text(s, S_PATH, "null");
    stream_64(s, S_MODE, 020644);
    stream_64(s, S_RDEV, 0x103);
    stream_end_command(s);
    stream_begin(s, SEND_CHOWN);
    stream_text(s, S_PATH, "");
    stream_64(s, S_UID, 4294967294);
    stream_64(s, S_GID, 5);
    stream_end_command(s);
    stream_begin(s, SEND_SET_XATTR);
    stream_text(s, S_PATH, "b");
    stream_text(s, S_XATTR_NAME, "user.x");
    stream_attribute(s, S_XATTR_DATA, "v", 1);
    stream_end_command(s);
    stream_end(s);
}

static const char *const all_said =
    "subvolume out.1 - -  0 0 0 0 0 0\n"
    "mkfile o257-7-0 - -  0 0 0 0 0 0\n"
    "rename o257-7-0 dir/\xff\n name -  0 0 0 0 0 0\n"
    "write dir/\xff\n name - - text 4096 0 0 0 0 0\n"
    "symlink l /../anything//at/all -  0 0 0 0 0 0\n"
    "link b a -  0 0 0 0 0 0\n"
    "mknod null - -  0 0 20644 0 0 103\n"
    "chown  - -  0 0 0 4294967294 5 0\n"
    "set-xattr b - user.x v 0 0 0 0 0 0\n"
    "end - - -  0 0 0 0 0 0\n";

static void any_cut_says_the_same(void **state)
{
    (void)state;
    AUTO(stream_done) struct stream s = { NULL, 0, 0 };
    make_all_commands(&s, 1);
    for (size_t piece = 1; piece <= s.n; piece++) {
        struct log l = { "", 0 };
        struct error e = ERROR_INIT;
        assert_int_equal(parse(&s, piece, &l, &e), 0);
        assert_string_equal(l.text, all_said);
    }
    for (size_t half = 0; half <= s.n; half++) {
        struct log l = { "", 0 };
        struct error e = ERROR_INIT;
        AUTO(send_stream_free) struct send_stream *a = send_stream_new(on_command, &l);
        AUTO(send_stream_free) struct send_stream *b = send_stream_new(on_command, &l);
        assert_int_equal(send_stream_feed(a, s.data, half, &e), 0);
        size_t n;
        const uint8_t *pending = send_stream_pending(a, &n);
        assert_int_equal(send_stream_restore(b, send_stream_version(a), send_stream_has_ended(a), pending, n, &e), 0);
        assert_int_equal(send_stream_feed(b, s.data + half, s.n - half, &e), 0);
        assert_true(send_stream_has_ended(b));
        assert_string_equal(l.text, all_said);
    }
}

static void data_of_protocol_2_has_no_length(void **state)
{
    (void)state;
    AUTO(stream_done) struct stream s = { NULL, 0, 0 };
    stream_header(&s, 2);
    stream_subvolume(&s, 1);
    AUTO(free) char *text = xcalloc(1, 200000);
    memset(text, 'x', 199999);
    stream_begin(&s, SEND_WRITE);
    stream_text(&s, S_PATH, "f");
    stream_64(&s, S_OFFSET, 0);
    stream_number(&s, S_DATA, 2);
    stream_add(&s, text, 199999);
    stream_end_command(&s);
    stream_end(&s);
    size_t n = 0;
    struct error e = ERROR_INIT;
    struct log l = { "", 0 };
    for (size_t piece = 1; piece < 400000; piece = piece * 3 + 1) {
        l.n = 0;
        assert_int_equal(parse(&s, piece, &l, &e), 0);
        n += l.n;
    }
    assert_true(n > 0);
}

static void callers_no_ends_it(void **state)
{
    (void)state;
    AUTO(stream_done) struct stream s = { NULL, 0, 0 };
    struct log l = { "", 0 };
    struct error e = ERROR_INIT;
    stream_header(&s, 1);
    stream_subvolume(&s, 1);
    stream_paths(&s, SEND_MKFILE, "refused", 0, NULL);
    assert_int_equal(parse(&s, 1000, &l, &e), -E_BUSY);
}

// ---- what no kernel writes -----------------------------------------------------------------------------------------------------

static void add_path(struct stream *s, const char *path)
{
    stream_paths(s, SEND_MKFILE, path, 0, NULL);
}

static void two_paths(struct stream *s)
{
    stream_begin(s, SEND_MKFILE);
    stream_text(s, S_PATH, "a");
    stream_text(s, S_PATH, "b");
    stream_end_command(s);
}
static void nul_in_path(struct stream *s)
{
    stream_begin(s, SEND_MKFILE);
    stream_attribute(s, S_PATH, "a\0b", 3);
    stream_end_command(s);
}
static void dots_up(struct stream *s)
{
    add_path(s, "../x");
}
static void dots_inside(struct stream *s)
{
    add_path(s, "a/../../x");
}
static void dots_at_end(struct stream *s)
{
    add_path(s, "a/..");
}
static void one_dot(struct stream *s)
{
    add_path(s, ".");
}
static void absolute(struct stream *s)
{
    add_path(s, "/etc/passwd");
}
static void empty_part(struct stream *s)
{
    add_path(s, "a//b");
}
static void slash_at_end(struct stream *s)
{
    add_path(s, "a/");
}
static void long_path(struct stream *s)
{
    char path[4097];
    memset(path, 'a', sizeof path - 1);
    path[4096] = '\0';
    add_path(s, path);
}
static void dots_as_other(struct stream *s)
{
    stream_paths(s, SEND_RENAME, "a", S_PATH_TO, "../b");
}
static void dots_as_link(struct stream *s)
{
    stream_paths(s, SEND_LINK, "a", S_PATH_LINK, "../b");
}
static void no_path(struct stream *s)
{
    stream_begin(s, SEND_MKFILE);
    stream_64(s, S_INO, 257);
    stream_end_command(s);
}
static void foreign_attribute(struct stream *s)
{
    stream_begin(s, SEND_UNLINK);
    stream_text(s, S_PATH, "a");
    stream_64(s, S_UID, 1);
    stream_end_command(s);
}
static void unknown_attribute(struct stream *s)
{
    stream_begin(s, SEND_UNLINK);
    stream_text(s, S_PATH, "a");
    stream_64(s, 999, 1);
    stream_end_command(s);
}
static void short_number(struct stream *s)
{
    stream_begin(s, SEND_TRUNCATE);
    stream_text(s, S_PATH, "a");
    stream_attribute(s, S_SIZE, "1234", 4);
    stream_end_command(s);
}
static void long_attribute(struct stream *s)
{
    stream_begin(s, SEND_UNLINK);
    stream_number(s, S_PATH, 2);
    stream_number(s, 500, 2);
    stream_add(s, "a", 1);
    stream_end_command(s);
}
static void cut_attribute(struct stream *s)
{
    stream_begin(s, SEND_UNLINK);
    stream_text(s, S_PATH, "a");
    stream_number(s, S_PATH, 1);
    stream_end_command(s);
}
static void huge_uid(struct stream *s)
{
    stream_begin(s, SEND_CHOWN);
    stream_text(s, S_PATH, "a");
    stream_64(s, S_UID, 4294967295);
    stream_64(s, S_GID, 0);
    stream_end_command(s);
}
static void huge_mode(struct stream *s)
{
    stream_begin(s, SEND_CHMOD);
    stream_text(s, S_PATH, "a");
    stream_64(s, S_MODE, 0100644);
    stream_end_command(s);
}
static void negative_size(struct stream *s)
{
    stream_begin(s, SEND_TRUNCATE);
    stream_text(s, S_PATH, "a");
    stream_64(s, S_SIZE, UINT64_MAX);
    stream_end_command(s);
}
static void end_beyond_all(struct stream *s)
{
    stream_write(s, "a", INT64_MAX, "text");
}
static void huge_command(struct stream *s)
{
    stream_number(s, SEND_COMMAND_BYTES_MAX + 1, 4);
    stream_number(s, SEND_WRITE, 2);
    stream_number(s, 0, 4);
}
static void unknown_command(struct stream *s)
{
    stream_begin(s, 26);
    stream_end_command(s);
}
static void command_of_protocol_2(struct stream *s)
{
    stream_begin(s, SEND_FILEATTR);
    stream_end_command(s);
}
static void wrong_checksum(struct stream *s)
{
    add_path(s, "a");
    s->data[s->n - 1] ^= 1;
}
static void after_the_end(struct stream *s)
{
    stream_end(s);
    add_path(s, "a");
}

static void nothing_else_is_let_through(void **state)
{
    (void)state;
    static const struct {
        void (*add)(struct stream *s);
        const char *why;
    } cases[] = {
        { two_paths, "isn't expected" }, { nul_in_path, "not a path" }, { dots_up, "not a path" }, { dots_inside, "not a path" },
        { dots_at_end, "not a path" }, { one_dot, "not a path" }, { absolute, "not a path" }, { empty_part, "not a path" },
        { slash_at_end, "not a path" }, { long_path, "not a path" }, { dots_as_other, "not a path" }, { dots_as_link, "not a path" },
        { no_path, "missing" }, { foreign_attribute, "isn't expected" }, { unknown_attribute, "isn't expected" },
        { short_number, "wrong length" }, { long_attribute, "wrong length" }, { cut_attribute, "cut off" }, { huge_uid, "not an owner" },
        { huge_mode, "not a mode" }, { negative_size, "a range" }, { end_beyond_all, "a range" }, { huge_command, "too long" },
        { unknown_command, "unknown command" }, { command_of_protocol_2, "unknown command" }, { wrong_checksum, "checksum" },
        { after_the_end, "follows its end" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (size_t piece = 1; piece < 10000; piece = piece * 7) {
            AUTO(stream_done) struct stream s = { NULL, 0, 0 };
            struct log l = { "", 0 };
            struct error e = ERROR_INIT;
            stream_header(&s, 1);
            stream_subvolume(&s, 1);
            cases[i].add(&s);
            int rc = parse(&s, piece, &l, &e);
            if (rc != -E_CORRUPT || !strstr(e.msg, cases[i].why) || !strstr(e.msg, "byte"))
                fail_msg("case %zu: %d, \"%s\" and not \"%s\"", i, rc, e.msg, cases[i].why);
        }
}

static void other_streams_are_refused(void **state)
{
    (void)state;
    AUTO(stream_done) struct stream s = { NULL, 0, 0 };
    struct log l = { "", 0 };
    struct error e = ERROR_INIT;
    stream_header(&s, 3);
    assert_int_equal(parse(&s, 1, &l, &e), -E_UNSUPPORTED);
    s.data[0] = 'x';
    assert_int_equal(parse(&s, 1, &l, &e), -E_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_is_that_of_the_standard),
        cmocka_unit_test(checksum_of_long_data_is_that_of_the_table),
        cmocka_unit_test(any_cut_says_the_same),
        cmocka_unit_test(data_of_protocol_2_has_no_length),
        cmocka_unit_test(callers_no_ends_it),
        cmocka_unit_test(nothing_else_is_let_through),
        cmocka_unit_test(other_streams_are_refused),
    };
    return RUN_TESTS(tests);
}
