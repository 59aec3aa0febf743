// Sizes as people write them: "10G", "512MiB", "1.5t", "1073741824". Units are binary, as in the original Flocker.
#ifndef FLOCKER_BASE_SIZE_H
#define FLOCKER_BASE_SIZE_H

#include "base/error.h"

#include <stdint.h>

// Digits with an optional fraction, then nothing or one of b k m g t p, optionally followed by "b" or "ib", in either case.
// Rounds up to a multiple of VOLUME_SIZE_UNIT. E_INVALID names the text and what is allowed.
int size_parse(const char *text, uint64_t *ret_bytes, struct error *e);

#define SIZE_TEXT_SIZE 24
// Shortest exact or two-decimal form: "64MiB", "1.50GiB", "17B"; returns `ret`.
const char *size_format(uint64_t bytes, char ret[SIZE_TEXT_SIZE]);

#endif
