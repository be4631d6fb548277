/* SPDX-License-Identifier: Apache-2.0 */
/* Giving memory back to the host after start and after a peak. For long-lived processes; any thread. */
#ifndef CORACLE_BASE_MEMORY_H
#define CORACLE_BASE_MEMORY_H

/*
 * Returns free heap to the kernel and unmaps the pages of program text touched so far: those of constructors,
 * relocation and configuration are never needed again, the others come back from the page cache at their next use.
 */
void memory_give_back(void);

#endif
