/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iperf: an iperf 2 compatible endpoint of its own making. Started by nf_main() when the program is called so.
 */
#include "flow.h"

int iperf_main(int argc, char **argv)
{
    struct iperf_options options;
    int status;
    if (!iperf_options_parse(argc, argv, &options, &status))
        return status;
    report_open(&options);
    if (options.client)
        return client_start(&options);
    return server_listen(&options, !options.udp, true, NULL) ? 1 : NF_RUN;
}
