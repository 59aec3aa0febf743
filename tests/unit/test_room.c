// What fits into a pool, and how much a source may send: the edges of both.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "model/volume.h"
#include "plan/room.h"

#include <string.h>

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static struct error e;

static void a_margin_stays_free(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 1, 31, 256 * MIB, GIB, 32 * GIB, 64 * GIB, UINT64_MAX };
    assert_int_equal(room_margin(256 * MIB), 8 * MIB);
    assert_int_equal(room_margin(100 * GIB), GIB);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct room pool = { .size = sizes[i], .free = sizes[i] };
        uint64_t margin = room_margin(sizes[i]), most = sizes[i] - margin;
        assert_true(margin <= sizes[i] / 32 && margin <= GIB);
        assert_int_equal(room_check(&pool, most, &e), 0);
        if (most < UINT64_MAX)
            assert_int_equal(room_check(&pool, most + 1, &e), -E_NO_SPACE);
        assert_int_equal(room_check(&pool, UINT64_MAX, &e), -E_NO_SPACE); // no sum overflows
        pool.free = margin;
        assert_int_equal(room_check(&pool, 0, &e), 0);
        pool.free = margin - 1;
        if (margin)
            assert_int_equal(room_check(&pool, 0, &e), -E_NO_SPACE);
    }
}

static void the_error_says_what_and_what_to_do(void **state)
{
    (void)state;
    const struct room pool = { .size = 64 * GIB, .free = 3 * GIB }, unknown = { .size = 0 };
    assert_int_equal(room_check(&pool, 5 * GIB, &e), -E_NO_SPACE);
    static const char *const words[] = { "full", "3GiB of it are free", "needs 5GiB", "leaves 1GiB", "flocker pool grow", "another node" };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        assert_non_null(strstr(e.msg, words[i]));
    assert_int_equal(room_check(&unknown, UINT64_MAX, &e), 0);
}

static void streams_have_an_end(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { VOLUME_SIZE_MIN, GIB, VOLUME_SIZE_MAX / 2, VOLUME_SIZE_MAX };
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t most = volume_copy_max(sizes[i]);
        assert_true(most > sizes[i] || most == TRANSFER_BYTES_MAX);
        assert_true(most <= TRANSFER_BYTES_MAX);
        assert_int_equal(room_check_stream(sizes[i], most, &e), 0);
        assert_int_equal(room_check_stream(sizes[i], most + 1, &e), -E_TOO_LARGE);
    }
    assert_int_equal(volume_copy_max(GIB), 2 * GIB + 64 * MIB);
    assert_int_equal(room_check_stream(0, TRANSFER_BYTES_MAX, &e), 0); // no limit
    assert_int_equal(room_check_stream(GIB, 3 * GIB, &e), -E_TOO_LARGE);
    assert_non_null(strstr(e.msg, "3GiB"));
    assert_non_null(strstr(e.msg, "limit is 1GiB"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(a_margin_stays_free), cmocka_unit_test(the_error_says_what_and_what_to_do),
                                               cmocka_unit_test(streams_have_an_end) };
    return RUN_TESTS(tests);
}
