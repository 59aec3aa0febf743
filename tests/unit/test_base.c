// Errors, memory, UUIDs and sizes: what every other module takes for granted.
#include "test.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/size.h"
#include "base/uuid.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void error_keeps_code_and_adds_context(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    int rc = fail_os(&e, ENOSPC, "write %s", "x");
    assert_int_equal(rc, -E_NO_SPACE);
    rc = fail_ctx(&e, rc, "create volume %s", "db");
    assert_int_equal(rc, -E_NO_SPACE);
    assert_string_equal(e.msg, "create volume db: write x: No space left on device");
    assert_int_equal(error_from_word(error_word(E_BUSY)), E_BUSY);
    assert_int_equal(error_http(E_NOT_FOUND), 404);
}

static void error_message_of_any_length_fits(void **state)
{
    (void)state;
    struct error e = ERROR_INIT;
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    fail(&e, E_IO, "%s", longer);
    fail_ctx(&e, -E_IO, "%s", longer);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

// What is not whole because memory ran out is never taken for whole: the process ends.
static void memstream_is_whole_or_the_process_ends(void **state)
{
    (void)state;
#ifndef __SANITIZE_ADDRESS__ // a sanitizer needs more address space, and has its own way to end
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static const char chunk[1 << 20];
        char *text;
        size_t n;
        setrlimit(RLIMIT_AS, &(struct rlimit){ 128 << 20, 128 << 20 });
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        FILE *f = xmemstream(&text, &n);
        fclose(stderr); // what it has to say is meant
        for (int i = 0; i < 256; i++)
            fwrite(chunk, 1, sizeof chunk, f);
        fclose(f);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
    AUTO(free) char *whole = NULL;
    size_t whole_n;
    FILE *f = xmemstream(&whole, &whole_n);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(ftell(f), 2 * i);
        fprintf(f, "%d,", i % 10);
    }
    fclose(f);
    assert_int_equal(whole_n, 2000);
    assert_int_equal(strlen(whole), 2000);
}

static void uuid_reads_and_writes(void **state)
{
    (void)state;
    struct uuid u, v;
    assert_true(uuid_parse("0E2D7F4C-58F5-4B0E-9A27-1F6F7F0C6A11", &u));
    assert_string_equal(UUID_TEXT(&u), "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11");
    assert_true(uuid_is_v4(&u));
    static const char *const bad[] = { "", "0e2d7f4c", "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a1", "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a111",
        "0e2d7f4cx58f5-4b0e-9a27-1f6f7f0c6a11", "0e2d7f4g-58f5-4b0e-9a27-1f6f7f0c6a11" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(uuid_parse(bad[i], &v));
    for (int i = 0; i < 100; i++) {
        u = rng_uuid();
        assert_true(uuid_is_v4(&u));
        assert_true(uuid_parse(UUID_TEXT(&u), &v));
        assert_true(uuid_equal(&u, &v));
    }
}

static void sizes_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 }, { "1", 1024 }, { "1024", 1024 }, { "67108864", 67108864 }, { "10G", 10ULL << 30 }, { "10g", 10ULL << 30 },
        { "10GB", 10ULL << 30 }, { "10GiB", 10ULL << 30 }, { "10gib", 10ULL << 30 }, { "512M", 512ULL << 20 }, { "1.5T", 3ULL << 39 },
        { "64kb", 65536 }, { "0.5k", 1024 }, { "100b", 1024 }, { "1p", 1ULL << 50 },
    };
    static const char *const bad[] = { "", "G", "-1", "10X", "10GX", "10GiBs", " 10", "10 G", "1.G", ".5G", "1e9", "0x10", "10ib", "1.5.1", "5000P",
        "99999999999999999999999999", "9223372036854775808P", "\xff" };
    struct error e;
    uint64_t got = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(size_parse(good[i].text, &got, &e), 0);
        assert_int_equal(got, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(size_parse(bad[i], &got, &e), -E_INVALID);
    char text[SIZE_TEXT_SIZE];
    assert_string_equal(size_format(64ULL << 20, text), "64MiB");
    assert_string_equal(size_format(3ULL << 29, text), "1.50GiB");
    assert_string_equal(size_format(17, text), "17B");
}

static void clock_writes_rfc3339(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_SIZE];
    assert_string_equal(clock_format(1767323045678, text), "2026-01-02T03:04:05.678Z");
    assert_string_equal(clock_format(INT64_MAX, text), "9999-12-31T23:59:59.807Z"); // a year of nine digits
    assert_true(clock_boot_ms() > 0);
}

// Counts the lines that contain `word` among those that stderr got since it was turned to the file.
static unsigned lines_with(FILE *f, const char *word)
{
    char line[256];
    unsigned n = 0;
    rewind(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, word) != NULL;
    return n;
}

static void log_says_few_of_what_is_frequent(void **state)
{
    (void)state;
    struct log_few few = { 0 };
    FILE *f = tmpfile();
    int stderr_fd = dup(STDERR_FILENO);
    assert_true(f && stderr_fd >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
    for (int i = 0; i < LOG_FEW + 7; i++)
        log_few_line(&few, LOG_LEVEL_WARN, "stranger %d", i);
    few.since_ms -= 60000; // a minute later
    log_few_line(&few, LOG_LEVEL_WARN, "stranger %d", 1000);
    few.since_ms -= 60000;
    log_few_line(&few, LOG_LEVEL_WARN, "stranger %d", 1001);
    assert_true(dup2(stderr_fd, STDERR_FILENO) >= 0);
    close(stderr_fd);
    assert_int_equal(lines_with(f, "stranger"), LOG_FEW + 2);
    assert_int_equal(lines_with(f, " left out"), 1);
    assert_int_equal(lines_with(f, ": 7 lines like the next one were left out"), 1);
    assert_int_equal(lines_with(f, "stranger 1000"), 1);
    fclose(f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_keeps_code_and_adds_context),
        cmocka_unit_test(error_message_of_any_length_fits),
        cmocka_unit_test(memstream_is_whole_or_the_process_ends),
        cmocka_unit_test(uuid_reads_and_writes),
        cmocka_unit_test(sizes_read_as_people_write_them),
        cmocka_unit_test(clock_writes_rfc3339),
        cmocka_unit_test(log_says_few_of_what_is_frequent),
    };
    return RUN_TESTS(tests);
}
