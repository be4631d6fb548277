/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One binary, several programs: the last part of argv[0] chooses. An image needs one file and as many links as it
 * wants; what is not known by name is iperf.
 */
#include "programs.h"

static const struct program {
    const char *name;
    int (*start)(int argc, char **argv);
} programs[] = {
    {"iperf", iperf_main},
    {"responder", responder_main},
    {"pause", pause_main},
};

int nf_main(int argc, char **argv)
{
    const char *name = argc > 0 ? argv[0] : "iperf";
    for (const char *p = name; *p; p++) {
        if (*p == '/')
            name = p + 1;
    }
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        if (!strcmp(programs[i].name, name))
            return programs[i].start(argc, argv);
    }
    return iperf_main(argc, argv);
}
