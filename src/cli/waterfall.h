/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of an operation drawn as bars over time. Used by inspect --steps and operation inspect. */
#ifndef CORACLE_CLI_WATERFALL_H
#define CORACLE_CLI_WATERFALL_H

#include "cli/cli.h"

void waterfall_print(const struct cli *cli, const json_t *operation);

/* The bar of one step: blanks, then marks; width characters stand for total_us. Caller frees. */
char *waterfall_bar(uint64_t start_us, uint64_t duration_us, uint64_t total_us, unsigned int width, bool unicode);

#endif
