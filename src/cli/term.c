/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminal handling. Raw mode and the alternate screen are undone from atexit() and from the handlers of the signals
 * that end the program, so that no way out of exec, attach or top leaves a broken terminal behind.
 */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/term.h"
#include "cli/text.h"

static struct termios saved_mode;
static volatile sig_atomic_t is_raw, is_screen;
static bool status_shown;

void term_open(struct cli *cli)
{
    const char *term = getenv("TERM");

    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C");
    cli->out_tty = isatty(STDOUT_FILENO);
    cli->err_tty = isatty(STDERR_FILENO);
    cli->unicode = !strcmp(nl_langinfo(CODESET), "UTF-8");
    if (cli->color == COLOR_AUTO && ((getenv("NO_COLOR") && *getenv("NO_COLOR")) || (term && !strcmp(term, "dumb"))))
        cli->color = COLOR_NEVER;
}

bool term_colored(const struct cli *cli, bool on_stderr)
{
    return cli->color == COLOR_ALWAYS || (cli->color == COLOR_AUTO && (on_stderr ? cli->err_tty : cli->out_tty));
}

const char *term_state_color(const char *state)
{
    static const struct {
        const char *state, *color;
    } table[] = {
        {"STARTED", "green"},   {"COMPLETED", "green"}, {"ok", "green"},          {"FAILED", "red"},
        {"FAILED_TEMP", "red"}, {"fail", "red"},        {"ROLLED_BACK", "red"},   {"STARTING", "yellow"},
        {"STOPPING", "yellow"}, {"PAUSED", "yellow"},   {"PROCESSING", "yellow"}, {"ROLLING_BACK", "yellow"},
        {"warn", "yellow"},     {"create", "green"},    {"differs", "yellow"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(table[i].state, state))
            return table[i].color;
    return NULL;
}

const char *term_paint(const struct cli *cli, const char *color)
{
    static const struct {
        const char *name, *sequence;
    } table[] = {{"green", "\033[32m"}, {"red", "\033[31m"}, {"yellow", "\033[33m"},
                 {"blue", "\033[34m"},  {"bold", "\033[1m"}, {"dim", "\033[2m"}};

    if (color && term_colored(cli, false))
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
            if (!strcmp(table[i].name, color))
                return table[i].sequence;
    return "";
}

const char *term_plain(const struct cli *cli)
{
    return term_colored(cli, false) ? "\033[0m" : "";
}

void term_size(unsigned short *ret_columns, unsigned short *ret_rows)
{
    static const int fds[] = {STDOUT_FILENO, STDIN_FILENO, STDERR_FILENO};
    struct winsize size;

    *ret_columns = 80;
    *ret_rows = 24;
    for (size_t i = 0; i < 3; i++) {
        if (ioctl(fds[i], TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
            *ret_columns = size.ws_col;
            *ret_rows = size.ws_row;
            return;
        }
    }
}

void term_restore(void)
{
    static const char sequence[] = "\033[?25h\033[?1049l";

    if (is_screen && write(STDOUT_FILENO, sequence, sizeof(sequence) - 1) >= 0)
        is_screen = 0;
    if (is_raw && tcsetattr(STDIN_FILENO, TCSAFLUSH, &saved_mode) == 0)
        is_raw = 0;
}

/* Async-signal-safe: write and tcsetattr are on POSIX's list. Ends as the signal would have. */
static void on_fatal(int signal_number)
{
    term_restore();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void guard(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS};
    static bool done;
    struct sigaction action = {.sa_handler = on_fatal};

    if (done)
        return;
    done = true;
    atexit(term_restore);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

int term_raw(bool keep_signals, struct error **err)
{
    struct termios mode;

    if (tcgetattr(STDIN_FILENO, &saved_mode) < 0) {
        error_set_errno(err, errno, "INVALID_VALUE", "standard input is no terminal");
        error_hint(err, "leave out -t when input comes from a file or a pipe");
        return -EINVAL;
    }
    guard();
    mode = saved_mode;
    cfmakeraw(&mode);
    if (keep_signals) {
        mode.c_lflag |= ISIG;
        mode.c_oflag |= OPOST;
    }
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &mode) < 0)
        return error_set_errno(err, errno, "INTERNAL", "raw mode of the terminal");
    is_raw = 1;
    return 0;
}

void term_screen(void)
{
    guard();
    is_screen = 1;
    fputs("\033[?1049h\033[?25l", stdout);
    fflush(stdout);
}

void term_status(const struct cli *cli, const char *format, ...)
{
    unsigned short columns, rows;
    char line[512];
    va_list ap;

    if (!cli->err_tty || cli->quiet || cli->json)
        return;
    term_size(&columns, &rows);
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    fprintf(stderr, "\r\033[K%.*s", columns > 1 ? columns - 1 : 1, line);
    fflush(stderr);
    status_shown = true;
}

void term_status_clear(const struct cli *cli)
{
    if (status_shown)
        fputs("\r\033[K", stderr);
    fflush(stderr);
    status_shown = false;
}

void term_note(const struct cli *cli, const char *format, ...)
{
    va_list ap;

    if (cli->quiet || cli->json || cli->explain)
        return;
    term_status_clear(cli);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}
