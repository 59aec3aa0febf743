// One line per event on standard error, with a "<N>" priority that journald understands. Lines from a terminal have no prefix.
// Only the code of a program (control, agent, cli) logs; libraries return errors.
#ifndef FLOCKER_BASE_LOG_H
#define FLOCKER_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

// Sets the program's name in each line and the level from FLOCKER_LOG (error, warn, info, debug; info by default).
void log_open(const char *program);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
