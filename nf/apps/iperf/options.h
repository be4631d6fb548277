/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of iperf: what iperf 2 calls the same is called the same. Pure but for error messages.
 */
#ifndef IPERF_OPTIONS_H
#define IPERF_OPTIONS_H

#include "../../platform/platform.h"

enum { IPERF_PORT = 5001, MAX_PARALLEL = 100, UDP_LENGTH4 = 1470, UDP_LENGTH6 = 1450, UDP_LENGTH_MAX = 65507 };

enum iperf_style { STYLE_TEXT, STYLE_CSV, STYLE_JSON };

struct iperf_options {
    bool server, client, udp, tradeoff, dual, reverse, full_duplex, ipv6, rate_is_pps;
    enum iperf_style style;
    struct nf_addr peer, bind; /* bind.family 0: not given */
    uint16_t port, listen_port;
    uint32_t parallel, length; /* length 0: the default */
    uint64_t time, interval;   /* ns; interval 0: none */
    uint64_t amount, rate;     /* bytes, 0: by time; bits (or packets) per second, 0: unlimited */
};

/* Returns true; or false with the exit status when the program is to end (a mistake was explained, or --help). */
bool iperf_options_parse(int argc, char **argv, struct iperf_options *ret_options, int *ret_status);

#endif
