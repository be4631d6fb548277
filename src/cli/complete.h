/* SPDX-License-Identifier: Apache-2.0 */
/* Shell completion: the shells call the program back, which answers from the tables and from the daemon. */
#ifndef CORACLE_CLI_COMPLETE_H
#define CORACLE_CLI_COMPLETE_H

#include "cli/cli.h"

#define COMPLETE_WORD "__complete"

/*
 * words: what was typed behind "coracle", the last being completed (may be ""). Prints one "candidate<TAB>description"
 * a line, or ":file" / ":directory" when the shell should complete paths. Always returns 0: a shell shows no errors.
 */
int complete_run(struct cli *cli, char **words, int count);

#endif
