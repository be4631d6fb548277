/* SPDX-License-Identifier: Apache-2.0 */
/* The program an instance runs, of what its image brings and its descriptor says, as docker combines them. Pure. */
#ifndef CORACLE_MODEL_COMMAND_H
#define CORACLE_MODEL_COMMAND_H

#include "model/spec.h"

/* command replaces entry point and command of the image; args replace the image's command only. The list is the
 * caller's (strv_free). MISSING_FIELD when nothing names a program. */
int command_combine(const struct vnf_spec *spec, char *const *entrypoint, char *const *command, char ***ret,
                    struct error **err);

#endif
