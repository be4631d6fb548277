/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching to an instance, as `attach` and `run --attach` do. */
#ifndef CORACLE_CLI_EXEC_H
#define CORACLE_CLI_EXEC_H

#include "cli/cli.h"

/* Attaches to the terminal or standard streams of a started instance. Returns the exit status or -errno. */
int attach_instance(struct cli *cli, const char *name, bool tty, bool send_stdin, struct error **err);

#endif
