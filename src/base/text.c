#include "base/text.h"

const char *text_printable(const char *text, char *ret, size_t size)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        ret[n] = (char)(text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?');
    ret[n] = '\0';
    return ret;
}
