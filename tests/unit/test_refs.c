// References of engines without a process: only age and the kernel tell that they are left over.
#include "plan/refs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct engine podman = { 0, 0 }, docker = { 17, 4 };

static bool nobody_is_dead(struct engine engine)
{
    (void)engine;
    return false;
}

static bool all_are_dead(struct engine engine)
{
    (void)engine;
    return true;
}

static void mounted_at(struct refs *r, struct engine engine, int64_t now_ms)
{
    struct error e = ERROR_INIT;
    assert_int_equal(refs_open(r, "id", engine, now_ms, &e), 0);
    refs_settle(r, "id", engine, true);
}

static void test_engine_without_a_process(void **state)
{
    struct refs r = { 0, NULL };
    int64_t late_ms = 1000 + REFS_OPEN_GRACE_MS + 1;
    (void)state;
    mounted_at(&r, podman, 1000);
    assert_false(refs_has_doubtful(&r, nobody_is_dead, 1000 + REFS_OPEN_GRACE_MS));
    assert_false(refs_reap(&r, nobody_is_dead, false, 1000 + REFS_OPEN_GRACE_MS));
    assert_true(refs_has_doubtful(&r, nobody_is_dead, late_ms));
    assert_false(refs_reap(&r, nobody_is_dead, true, late_ms)); // a container has it
    assert_int_equal(refs_total(&r), 1);
    mounted_at(&r, podman, late_ms); // a fresh one keeps the old ones' company
    assert_false(refs_reap(&r, nobody_is_dead, false, late_ms));
    assert_int_equal(refs_total(&r), 2);
    assert_true(refs_reap(&r, nobody_is_dead, false, late_ms + REFS_OPEN_GRACE_MS + 1));
    assert_int_equal(refs_total(&r), 0);
    refs_done(&r);
}

static void test_engine_with_a_process(void **state)
{
    struct refs r = { 0, NULL };
    (void)state;
    mounted_at(&r, docker, 1000);
    assert_false(refs_has_doubtful(&r, nobody_is_dead, 1000 * REFS_OPEN_GRACE_MS)); // it lives: its word counts
    assert_true(refs_has_doubtful(&r, all_are_dead, 1000));
    assert_false(refs_reap(&r, all_are_dead, true, 1000));
    assert_true(refs_reap(&r, all_are_dead, false, 1000));
    assert_int_equal(refs_total(&r), 0);
    refs_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_without_a_process),
        cmocka_unit_test(test_engine_with_a_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
