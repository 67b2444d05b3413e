/* SPDX-License-Identifier: MIT */
/* Logging to standard error, one line a record; thread-safe; never on a hot path. */
#ifndef TRANSHIP_BASE_LOG_H
#define TRANSHIP_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* who prefixes every line ("transhipd", "dataplane src 1f3a"); the string is copied. */
void log_init(const char *who, enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
