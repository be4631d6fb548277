/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pause: does nothing until it is ended. The smallest workload there is: what an instance costs without a function.
 */
#include "../programs.h"

int pause_main(int argc, char **argv)
{
    (void)argv;
    return argc > 1 ? 2 : NF_RUN;
}
