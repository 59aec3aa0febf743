// What a fuzz target defines: called with any bytes, returns 0; it must not crash, hang or leak.
#ifndef FLOCKER_TESTS_FUZZ_H
#define FLOCKER_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
