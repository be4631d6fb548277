/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward: the element of the same name between the machine's first two ports. A program of its own, not one of the
 * multi-call binary: its image holds nothing else.
 */
#include "../../elements/forward.h"
#include "../../platform/platform.h"

int nf_main(int argc, char **argv)
{
    return nf_element_run(&nfv_forward, argc, argv);
}
