/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs of the multi-call binary. Each behaves as nf_main() does: NF_RUN or an exit status.
 */
#ifndef NF_APPS_PROGRAMS_H
#define NF_APPS_PROGRAMS_H

#include "../platform/platform.h"

int iperf_main(int argc, char **argv);
int responder_main(int argc, char **argv);
int pause_main(int argc, char **argv);

#endif
