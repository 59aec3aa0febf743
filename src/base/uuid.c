#include "base/uuid.h"

#include <string.h>

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_hyphen_place(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_parse(const char *text, struct uuid *ret)
{
    struct uuid u = { { 0 } };
    size_t digits = 0;
    if (strnlen(text, UUID_TEXT_SIZE) != UUID_TEXT_SIZE - 1)
        return false;
    for (size_t i = 0; i < UUID_TEXT_SIZE - 1; i++) {
        if (is_hyphen_place(i)) {
            if (text[i] != '-')
                return false;
            continue;
        }
        int v = hex_value(text[i]);
        if (v < 0)
            return false;
        u.b[digits / 2] = (uint8_t)(u.b[digits / 2] << 4 | v);
        digits++;
    }
    *ret = u;
    return true;
}

bool uuid_is_v4(const struct uuid *u)
{
    return u->b[6] >> 4 == 4 && u->b[8] >> 6 == 2;
}

bool uuid_is_zero(const struct uuid *u)
{
    static const struct uuid zero;
    return uuid_equal(u, &zero);
}

int uuid_compare(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

struct uuid uuid_from_random(const uint8_t random[16])
{
    struct uuid u;
    memcpy(u.b, random, sizeof u.b);
    u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
    u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
    return u;
}

const char *uuid_format(const struct uuid *u, char ret[UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *p = ret;
    for (size_t i = 0; i < sizeof u->b; i++) {
        if (is_hyphen_place((size_t)(p - ret)))
            *p++ = '-';
        *p++ = digits[u->b[i] >> 4];
        *p++ = digits[u->b[i] & 15];
    }
    *p = '\0';
    return ret;
}
