/* SPDX-License-Identifier: Apache-2.0 */
/* Help texts and the manual page, made from the command tables so that neither can disagree with the parser. */
#ifndef CORACLE_CLI_HELP_H
#define CORACLE_CLI_HELP_H

#include "cli/cli.h"

void help_overview(const struct cli *cli);
void help_command(const struct cli *cli, const struct command *command);

/* The whole coracle(1) as roff (man macros), to stdout; used at build time. */
void help_manual(void);

/* The tables as JSON: {"commands": [{"name", "aliases", "summary", "options": [...]}], "options": [...]}. */
json_t *help_json(void);

#endif
