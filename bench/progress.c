/* SPDX-License-Identifier: Apache-2.0 */
/* Progress of a long measurement for the person who waits; used by run.c on the main thread. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bench/progress.h"

static struct {
    const char *title;
    size_t steps, done;
    time_t since;
    int on_line; /* something stands on the terminal's current line */
} progress;

static void wipe(void)
{
    if (progress.on_line)
        fputs("\r\033[K", stderr);
    progress.on_line = 0;
}

void progress_phase(const char *title, size_t steps)
{
    wipe();
    progress.title = title;
    progress.steps = steps;
    progress.done = 0;
    progress.since = time(NULL);
    if (!isatty(STDERR_FILENO))
        fprintf(stderr, "coracle-bench: %s, %zu runs\n", title, steps);
}

void progress_step(const char *what)
{
    progress.done++;
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K%s: run %zu of %zu, %s, %ld s", progress.title, progress.done, progress.steps, what,
            (long)(time(NULL) - progress.since));
    progress.on_line = 1;
}

void progress_note(const char *format, ...)
{
    va_list ap;

    wipe();
    fputs("coracle-bench: ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void progress_end(void)
{
    wipe();
}
