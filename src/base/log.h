/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured log lines of the host processes, one per event, with the instance's id where there is one.
 *
 * Goes to the journal's native socket when stderr is connected to it (JOURNAL_STREAM), else to stderr as
 * "TIME LEVEL process[pid] key=value ... message". Never called on a packet path.
 */
#ifndef CORACLE_BASE_LOG_H
#define CORACLE_BASE_LOG_H

#include <stddef.h>

#include "base/error.h"

/* Values are syslog's (RFC 5424 section 6.2.1). */
enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Call once, before any thread. process: static string, the program's name. */
void log_open(const char *process, enum log_level most_verbose);

/* From now on each line, without its end, goes to take instead: "LEVEL process: message". For a process whose log is
 * its instance's. Called on the thread that logs. */
void log_redirect(void (*take)(const char *line, size_t size));

/* Parses "error", "warning", "notice", "info", "debug". Returns -EINVAL for another word. */
int log_level_parse(const char *word, enum log_level *ret_level);

/* instance: the id of the instance this is about, or NULL. */
void log_line(enum log_level level, const char *instance, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Logs an error's text, code and hint behind the given words. */
void log_error(const char *instance, const struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
