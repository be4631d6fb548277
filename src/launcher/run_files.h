/* SPDX-License-Identifier: Apache-2.0 */
/* RUN/instances: records, exit files and sockets of the instances, always in memory. */
#ifndef CORACLE_LAUNCHER_RUN_FILES_H
#define CORACLE_LAUNCHER_RUN_FILES_H

#include "launcher/launcher.h"

/* Opens l->instances_fd; puts a memory file system there where RUN is on a disk. */
int instances_open(struct launcher *l, struct error **err);

/* Takes that file system away again when no instance is left in it. */
void instances_close(struct launcher *l);

#endif
