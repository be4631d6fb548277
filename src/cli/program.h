/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the platform's other programs: beside this one, where it is installed, in its build tree. */
#ifndef CORACLE_CLI_PROGRAM_H
#define CORACLE_CLI_PROGRAM_H

#include "cli/cli.h"

/* The directory this program lies in. Caller frees. */
char *program_directory(void);

/* The path of the program called name (caller frees), or NULL with *err naming where it was looked for. */
char *program_find(const char *name, struct error **err);

/* The same for what the launcher starts (libexec); NULL: not installed. */
char *helper_find(const char *name);

/* Whether name is on the PATH; for tools of others. */
bool program_on_path(const char *name);

struct cli;

/* Replaces this process by the program (with --explain: prints the command); returns only on failure. */
int program_become(struct cli *cli, const char *name, char **words, size_t count, struct error **err);

#endif
