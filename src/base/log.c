#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program_name = "flocker";
static enum log_level level_max = LOG_LEVEL_INFO;

void log_open(const char *program)
{
    static const struct {
        const char *word;
        enum log_level level;
    } words[] = {
        { "error", LOG_LEVEL_ERROR }, { "warn", LOG_LEVEL_WARN }, { "info", LOG_LEVEL_INFO }, { "debug", LOG_LEVEL_DEBUG },
    };
    const char *want = getenv("FLOCKER_LOG");
    program_name = program;
    for (size_t i = 0; want && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(want, words[i].word) == 0)
            level_max = words[i].level;
}

// Control characters in names and messages must not forge lines or drive a terminal.
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

static void put(enum log_level level, const char *fmt, va_list ap)
{
    char text[1024], when[CLOCK_TEXT_SIZE];
    if (level > level_max)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    make_printable(text);
    if (getenv("JOURNAL_STREAM"))
        fprintf(stderr, "<%d>%s: %s\n", (int)level, program_name, text);
    else
        fprintf(stderr, "%s %s: %s\n", clock_format(clock_wall_ms(), when), program_name, text);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(level, fmt, ap);
    va_end(ap);
}

#define MINUTE_MS 60000

void log_few_line(struct log_few *few, enum log_level level, const char *fmt, ...)
{
    const int64_t now_ms = clock_boot_ms();
    if (few->since_ms == 0 || now_ms - few->since_ms >= MINUTE_MS) {
        if (few->n > LOG_FEW)
            log_line(level, "%u lines like the next one were left out", few->n - LOG_FEW);
        *few = (struct log_few){ .since_ms = now_ms };
    }
    if (few->n++ >= LOG_FEW)
        return;
    va_list ap;
    va_start(ap, fmt);
    put(level, fmt, ap);
    va_end(ap);
}
