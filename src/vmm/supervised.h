/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-vmm under the launcher: the setup socket of monitor/protocol.h. */
#ifndef CORACLE_VMM_SUPERVISED_H
#define CORACLE_VMM_SUPERVISED_H

/* To the end of the machine. Returns main()'s status; does not return when a guest ran. */
int supervised_run(void);

#endif
