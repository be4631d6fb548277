/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of options from the tables of a command, and reading of what was parsed. Pure; used by every command. */
#ifndef CORACLE_CLI_ARGS_H
#define CORACLE_CLI_ARGS_H

#include "cli/cli.h"

/*
 * Parses argv (without program and command words). Options may stand between words, "--" ends them; "--name=value",
 * "--name value", "-n value", "-nvalue" and joined flags ("-it") are taken. Strings are borrowed from argv.
 * Fills ret (args_clear() frees it) or returns -EINVAL with *err naming the word, the nearest option and the help.
 */
int args_parse(const struct command *command, char **argv, int argc, struct args *ret, struct error **err);

void args_clear(struct args *args);

/* The options a command understands, global ones last; *index counts from 0. NULL at the end. */
const struct option_spec *option_next(const struct command *command, size_t *index);

/* Finds by long name or alias (length n), or by letter when n is 1 and is_letter. */
const struct option_spec *option_find(const struct command *command, const char *name, size_t n, bool is_letter);

/* The accessors abort on a name that the command's tables do not hold: a typing error in this program. */
bool args_flag(const struct args *args, const char *name);
const char *args_get(const struct args *args, const char *name); /* the last one given, or NULL */

/* Each value in order; *index starts at 0. NULL at the end. */
const char *args_next(const struct args *args, const char *name, size_t *index);

#endif
