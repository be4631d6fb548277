/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs in a container: what its image brings and what the user says become one process, as docker combines them,
 * so that images behave as their authors saw them. Pure; used by the drivers of containers.
 */
#ifndef CORACLE_MODEL_PROCESS_H
#define CORACLE_MODEL_PROCESS_H

#include "model/plan.h"

/* entrypoint to image_user: the image's, NULL where it has none. On failure what *ret holds is plan_clear()'s to free,
 * too. MISSING_FIELD when nobody says what to run. */
int process_plan(const struct vnf_spec *spec, char *const *entrypoint, char *const *command, char *const *image_env,
                 const char *workdir, const char *image_user, const char *hostname, struct plan_process *ret,
                 struct error **err);

#endif
