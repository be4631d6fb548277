/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lwIP in the loop of main.c: its start, its round, and when it wants to be called again. A file of its own, because an
 * image whose program does not use the network has none of it (see unikernel.h).
 */
#include "unikernel.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/timeouts.h"

#include "../platform.h"

#define STACK_REST_NS UINT64_C(10000000000) /* twice what a question about a neighbour may take (RFC 4861, 10) */

/* Not linked when the program opens no socket of that kind. */
#pragma weak tcp_round
#pragma weak udp_round

static uint64_t packet_seen; /* when the network last brought one, 0: never */

void net_start(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    if (!net_init(network_config))
        nf_print(NF_LOG, "no network device\n");
    net_flush();
}

bool net_round(void)
{
    bool worked = false;

    sys_check_timeouts();
    if (net_poll()) {
        worked = true;
        packet_seen = cpu_ns();
    }
    if (tcp_round)
        worked |= tcp_round();
    if (udp_round)
        worked |= udp_round();
    return worked;
}

/* Whether nothing is left that the stack's ticks (ageing of neighbours, reassembly, retransmission) could be for. A
 * thousand idle guests that each tick twice a second are a busy host. */
static bool stack_rests(void)
{
    if (tcp_active_pcbs || tcp_tw_pcbs || cpu_ns() - packet_seen <= STACK_REST_NS)
        return false;
    for (unsigned i = 0; i < NET_MAX; i++)
        if (!net_is_static(&network_config[i]))
            return false;
    return true;
}

uint64_t net_next(void)
{
    u32_t sleep = stack_rests() ? SYS_TIMEOUTS_SLEEPTIME_INFINITE : sys_timeouts_sleeptime();

    return sleep == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? 0 : cpu_ns() + (uint64_t)sleep * 1000000;
}
