// What every unit test includes: cmocka with its prerequisites.
#ifndef FLOCKER_TESTS_TEST_H
#define FLOCKER_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#undef fail // base/error.h has a function of that name; tests use assert_... and fail_msg only
#undef fail_msg
#define fail_msg(...) (print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#define RUN_TESTS(tests) cmocka_run_group_tests(tests, NULL, NULL)

#endif
