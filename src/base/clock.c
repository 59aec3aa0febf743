#include "base/clock.h"

#include "base/error.h"

#include <stdio.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec ts;
    ASSERT(clock_gettime(id, &ts) == 0);
    return ts;
}

static int64_t read_ms(clockid_t id)
{
    struct timespec ts = read_clock(id);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME);
}

int64_t clock_boot_ms(void)
{
    return read_ms(CLOCK_BOOTTIME);
}

int64_t clock_boot_us(void)
{
    struct timespec ts = read_clock(CLOCK_BOOTTIME);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

struct timespec clock_after_ms(int ms)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += ms % 1000 * 1000000L;
    if (ts.tv_nsec >= 1000000000L) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000L;
    }
    return ts;
}

const char *clock_format(int64_t wall_ms, char ret[CLOCK_TEXT_SIZE])
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm = { 0 };
    char day[24];
    gmtime_r(&s, &tm);
    if (strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0) // of a record that somebody else wrote: a year of many digits
        snprintf(day, sizeof day, "9999-12-31T23:59:59");
    snprintf(ret, CLOCK_TEXT_SIZE, "%s.%03dZ", day, (int)(wall_ms % 1000));
    return ret;
}
