// Given to the analysers before each file: fail() and its kin are in another file, so that they can't see that what these return is negative.
#include "../src/base/error.h"
#define fail(e, code, ...)    ((fail)(e, code, __VA_ARGS__), -(int)(code))
#define fail_os(e, err, ...)  ((fail_os)(e, err, __VA_ARGS__), -(int)E_IO)
#define fail_ctx(e, rc, ...)  ((fail_ctx)(e, rc, __VA_ARGS__), (rc))
