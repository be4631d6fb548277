/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iperf: an iperf 2 compatible endpoint of its own making. Started by nf_main() when the program is called so.
 */
#include "flow.h"

/* What is under way is reported as far as it came. */
static void on_stop(void *context)
{
    (void)context;
    for (struct flow *f = flow_next(NULL); f; f = flow_next(f)) {
        if (f->announced && !f->reported)
            report_flow(f);
        if (f->tcp)
            nf_tcp_close(f->tcp);
        f->tcp = NULL;
    }
    report_sum();
}

int iperf_main(int argc, char **argv)
{
    struct iperf_options options;
    int status;
    if (!iperf_options_parse(argc, argv, &options, &status))
        return status;
    report_open(&options);
    nf_on_stop(on_stop, NULL);
    if (options.client)
        return client_start(&options);
    return server_listen(&options, !options.udp, true, NULL) ? 1 : NF_RUN;
}
