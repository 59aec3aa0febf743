// What every unit test includes: cmocka with its prerequisites.
#ifndef FLOCKER_TESTS_TEST_H
#define FLOCKER_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#undef fail // base/error.h has a function of that name; tests use assert_... only

#define RUN_TESTS(tests) cmocka_run_group_tests(tests, NULL, NULL)

#endif
