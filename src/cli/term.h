/* SPDX-License-Identifier: Apache-2.0 */
/* The user's terminal: colours, width, raw mode that is always undone, and one status line for long work. */
#ifndef CORACLE_CLI_TERM_H
#define CORACLE_CLI_TERM_H

#include "cli/cli.h"

/* Fills the terminal fields of cli: what is a terminal, UTF-8 or not, NO_COLOR (https://no-color.org). */
void term_open(struct cli *cli);

bool term_colored(const struct cli *cli, bool on_stderr);

/* Colour name of libsmartcols ("green") for a state word; NULL: none. */
const char *term_state_color(const char *state);

/* SGR sequence for such a name when stdout is coloured, else "". term_plain() ends it. */
const char *term_paint(const struct cli *cli, const char *color);
const char *term_plain(const struct cli *cli);

void term_size(unsigned short *ret_columns, unsigned short *ret_rows);

/* Puts stdin into raw mode (keep_signals: Ctrl-C still raises SIGINT); undone at exit and on fatal signals. */
int term_raw(bool keep_signals, struct error **err);
void term_restore(void);

/* Full-screen: alternate screen and hidden cursor; undone by term_restore() as well. */
void term_screen(void);

/* Shows or replaces one line on stderr, only when it is a terminal and --quiet is not given. NULL: clears it. */
void term_status(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
void term_status_clear(const struct cli *cli);

/* A sentence about what was done, on stderr; --quiet and --json silence it. */
void term_note(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
