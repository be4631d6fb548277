/* SPDX-License-Identifier: Apache-2.0 */
/* coracle-vmm's command line. */
#ifndef CORACLE_VMM_OPTIONS_H
#define CORACLE_VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct options {
    const char *kernel;     /* NULL: only help or the version was wanted, and printed */
    const char *parameters; /* boot parameters */
    const char *tap;        /* NULL: no network device */
    uint64_t memory_bytes;
    int console_fd;
    uint8_t mac[6];
    bool supervised; /* by the launcher: everything comes on descriptor 3 */
};

int options_parse(int argc, char **argv, struct options *ret, struct error **err);

#endif
