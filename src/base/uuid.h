// UUIDs as 16 bytes; always written in lower case with hyphens.
#ifndef FLOCKER_BASE_UUID_H
#define FLOCKER_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_SIZE 37 // with the final NUL

struct uuid {
    uint8_t b[16];
};

// Reads 8-4-4-4-12 hex digits in either case, nothing before or after. False if it is anything else.
bool uuid_parse(const char *text, struct uuid *ret);
bool uuid_is_v4(const struct uuid *u); // version nibble 4, variant nibble 8, 9, a or b
bool uuid_is_zero(const struct uuid *u);
int uuid_compare(const struct uuid *a, const struct uuid *b); // as memcmp
static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return uuid_compare(a, b) == 0;
}
// Makes a version 4 UUID of 16 random bytes.
struct uuid uuid_from_random(const uint8_t random[16]);
// Writes 36 characters and a NUL to `ret`; returns it.
const char *uuid_format(const struct uuid *u, char ret[UUID_TEXT_SIZE]);
// The text in a buffer of the expression's own lifetime, for use in one argument list.
#define UUID_TEXT(u) uuid_format((u), (char[UUID_TEXT_SIZE]){ 0 })

#endif
