// One line per event on standard error, with a "<N>" priority that journald understands. Lines from a terminal have no prefix.
// Only the code of a program (control, agent, cli) logs; libraries return errors.
#ifndef FLOCKER_BASE_LOG_H
#define FLOCKER_BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

// Sets the program's name in each line and the level from FLOCKER_LOG (error, warn, info, debug; info by default).
void log_open(const char *program);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

// For what strangers bring about as often as they like: of each place that logs so LOG_FEW lines a minute, and then how many were left out.
#define LOG_FEW 100
struct log_few {
    int64_t since_ms; // of this minute; 0: none has been said
    unsigned n;
};
void log_few_line(struct log_few *few, enum log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_warn_few(...)                                   \
    do {                                                    \
        static struct log_few few_here;                     \
        log_few_line(&few_here, LOG_LEVEL_WARN, __VA_ARGS__); \
    } while (0)

#endif
