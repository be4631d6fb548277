/* SPDX-License-Identifier: Apache-2.0 */
/* Where a long run stands, on standard error: one line rewritten on a terminal, a plain line a phase elsewhere. */
#ifndef CORACLE_BENCH_PROGRESS_H
#define CORACLE_BENCH_PROGRESS_H

#include <stddef.h>

void progress_phase(const char *title, size_t steps);
void progress_step(const char *what);
void progress_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void);

#endif
