/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands and signals in a container that a guest carries: as container_exec() and its like (runtime/runtime.h), by way
 * of the machine's monitor. Called by operations.c on its worker.
 */
#ifndef CORACLE_LAUNCHER_MACHINE_EXEC_H
#define CORACLE_LAUNCHER_MACHINE_EXEC_H

#include "launcher/instance.h"

/* ret_exec: no pidfd; with a terminal its terminal is a pty's master. EXEC_FAILED, CONFLICTING_STATE (paused). */
int machine_exec(struct launcher *l, struct instance *i, const struct plan_process *process, const int stdio[3],
                 struct runtime_exec *ret_exec, struct error **err);
int machine_exec_signal(const struct runtime_exec *exec, int signal, struct error **err);
/* As runtime_exec_wait(). */
int machine_exec_wait(const struct runtime_exec *exec, int *ret_wait_status);

/* To the application. */
int machine_signal(struct launcher *l, struct instance *i, int signal, struct error **err);

#endif
