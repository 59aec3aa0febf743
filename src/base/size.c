#include "base/size.h"

#include "base/limits.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char units[] = "bkmgtp";

// Reads "", "b", "k", "kb", "kib", ... to the power of 1024. False for anything else.
static bool unit_shift(const char *text, unsigned *ret)
{
    if (*text == '\0') {
        *ret = 0;
        return true;
    }
    const char *at = strchr(units, tolower((unsigned char)text[0]));
    if (!at)
        return false;
    *ret = (unsigned)(at - units) * 10;
    const char *rest = text + 1;
    if (*ret == 0)
        return *rest == '\0';
    if (tolower((unsigned char)rest[0]) == 'i')
        return tolower((unsigned char)rest[1]) == 'b' && rest[2] == '\0';
    return *rest == '\0' || (tolower((unsigned char)rest[0]) == 'b' && rest[1] == '\0');
}

int size_parse(const char *text, uint64_t *ret_bytes, struct error *e)
{
    const char *p = text;
    uint64_t whole = 0, part = 0, scale = 1, bytes;
    unsigned shift = 0;
    bool overflow = false;
    if (!isdigit((unsigned char)*p))
        goto bad;
    for (; isdigit((unsigned char)*p); p++) {
        overflow |= __builtin_mul_overflow(whole, 10U, &whole);
        overflow |= __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole);
    }
    if (*p == '.') {
        if (!isdigit((unsigned char)*++p))
            goto bad;
        for (; isdigit((unsigned char)*p); p++) {
            if (scale < 1000000) { // six digits decide; more change less than a KiB of a GiB
                part = part * 10 + (uint64_t)(*p - '0');
                scale *= 10;
            }
        }
    }
    if (!unit_shift(p, &shift))
        goto bad;
    overflow |= whole > VOLUME_SIZE_MAX >> shift;
    if (overflow)
        return fail(e, E_INVALID, "size '%.40s' is too large: at most 4096P", text);
    bytes = (whole << shift) + (uint64_t)((unsigned __int128)part * (1ULL << shift) / scale);
    *ret_bytes = (bytes + VOLUME_SIZE_UNIT - 1) / VOLUME_SIZE_UNIT * VOLUME_SIZE_UNIT;
    return 0;
bad:
    return fail(e, E_INVALID, "size '%.40s' is not a size: write a number and a unit, for example 10G or 512MiB", text);
}

const char *size_format(uint64_t bytes, char ret[SIZE_TEXT_SIZE])
{
    unsigned u = 0;
    while (u + 1 < sizeof units - 1 && bytes >> ((u + 1) * 10))
        u++;
    uint64_t one = 1ULL << (u * 10);
    const char *tail = u ? "iB" : "";
    char unit = "BKMGTP"[u];
    if (bytes % one == 0)
        snprintf(ret, SIZE_TEXT_SIZE, "%llu%c%s", (unsigned long long)(bytes / one), unit, tail);
    else
        snprintf(ret, SIZE_TEXT_SIZE, "%.2f%c%s", (double)bytes / (double)one, unit, tail);
    return ret;
}
