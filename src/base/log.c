/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines for every host process; any thread may call, each line is one write. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

enum { LINE_MAX_BYTES = 4096 };

static const char *process_name = "coracle";
static enum log_level threshold = LOG_LEVEL_INFO;
static int journal_fd = -1;
static void (*redirected)(const char *line, size_t size);

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning", [LOG_LEVEL_NOTICE] = "notice",
    [LOG_LEVEL_INFO] = "info",   [LOG_LEVEL_DEBUG] = "debug",
};

/* systemd.exec(5): JOURNAL_STREAM holds device:inode of the stream that stderr is connected to. */
static int stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == device && st.st_ino == inode;
}

static int journal_connect(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
    auto_fd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -1;
    return take_fd(&fd);
}

void log_open(const char *process, enum log_level most_verbose)
{
    process_name = process;
    threshold = most_verbose;
    if (journal_fd < 0 && stderr_is_journal())
        journal_fd = journal_connect();
}

void log_redirect(void (*take)(const char *line, size_t size))
{
    redirected = take;
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* A newline would end the field in the journal's protocol and forge a second line on stderr. */
static void flatten(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

static void emit(enum log_level level, const char *instance, const char *code, char *text)
{
    char line[LINE_MAX_BYTES];
    int n;

    flatten(text);
    if (redirected) {
        n = snprintf(line, sizeof(line), "%s %s: %s", level_names[level], process_name, text);
        redirected(line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
        return;
    }
    if (journal_fd >= 0) {
        n = snprintf(line, sizeof(line), "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\n%s%s%s%s%s%sMESSAGE=%s\n", level,
                     process_name, instance ? "CORACLE_INSTANCE=" : "", instance ? instance : "", instance ? "\n" : "",
                     code ? "CORACLE_CODE=" : "", code ? code : "", code ? "\n" : "", text);
        if (n > 0 && send(journal_fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1, MSG_NOSIGNAL) >= 0)
            return;
    }
    struct timespec now;
    struct tm utc;
    char stamp[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    n = snprintf(line, sizeof(line), "%s.%03ldZ %s %s[%d]%s%s%s%s %s\n", stamp, now.tv_nsec / 1000000,
                 level_names[level], process_name, (int)getpid(), instance ? " instance=" : "",
                 instance ? instance : "", code ? " code=" : "", code ? code : "", text);
    if (n >= (int)sizeof(line)) {
        n = sizeof(line) - 1;
        line[n - 1] = '\n';
    }
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to say it */
}

void log_line(enum log_level level, const char *instance, const char *format, ...)
{
    char text[LINE_MAX_BYTES / 2];
    int saved = errno;
    va_list ap;

    if (level > threshold)
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    emit(level, instance, NULL, text);
    errno = saved;
}

void log_error(const char *instance, const struct error *err, const char *format, ...)
{
    char words[512], causes[1024], text[LINE_MAX_BYTES / 2];
    va_list ap;

    va_start(ap, format);
    vsnprintf(words, sizeof(words), format, ap);
    va_end(ap);
    snprintf(text, sizeof(text), "%s: %s%s%s", words, error_text(err, causes, sizeof(causes)),
             err && err->hint ? "; try: " : "", err && err->hint ? err->hint : "");
    emit(LOG_LEVEL_ERROR, instance, err ? err->code : NULL, text);
}
