/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching to an instance, as `attach` and `run --attach` do. */
#ifndef CORACLE_CLI_EXEC_H
#define CORACLE_CLI_EXEC_H

#include "cli/cli.h"

/* Attaches to the terminal or standard streams of a started instance. Returns the exit status or -errno. */
/* from_start: everything the instance has written comes first, also when it has ended. */
int attach_instance(struct cli *cli, const char *name, bool tty, bool send_stdin, bool from_start, struct error **err);

#endif
