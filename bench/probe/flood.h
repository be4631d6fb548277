/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SYN flood of section 4.2: from outside the instance, to an address that is not there yet, until it answers.
 *
 * Two destination ports in turn: one that nobody listens on (its RST says that the network stack is there) and the
 * application's (its SYN-ACK says that the function serves). Frames leave a packet socket with the destination's
 * hardware address filled in, so no ARP, and none of its one-second timers, is part of the figure. Replies carry the
 * kernel's receive time (SO_TIMESTAMPNS, CLOCK_REALTIME); how late they are read does not matter.
 */
#ifndef CORACLE_BENCH_PROBE_FLOOD_H
#define CORACLE_BENCH_PROBE_FLOOD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

/* Where an instance will be: filled by the subject. */
struct target {
    char netns[128];        /* path of the namespace the probe stands in; "" the bench's own */
    struct in_addr address; /* the instance's */
    struct in_addr source;  /* the probe's: the address of the bridge there */
    uint8_t mac[6];         /* the instance's */
    uint16_t port;          /* the application's */
    bool emulated;          /* a guest that a SYN every 40 us would keep from everything else */
};

enum { FLOOD_CLOSED_PORT = 1, FLOOD_PERIOD_NS = 40000, FLOOD_EMULATED_PERIOD_NS = 500000 };

struct flood_result {
    bool has_rst, has_syn_ack;
    int64_t rst_ns, syn_ack_ns; /* CLOCK_REALTIME of the first of each, kernel stamps */
    uint64_t sent;              /* SYNs, both ports */
    double interval_median_us, interval_p99_us, interval_max_us; /* between SYNs to one port, as sent */
    int64_t clock_step_ns; /* how far CLOCK_REALTIME moved against CLOCK_MONOTONIC meanwhile */
};

struct flood;

/* Opens the sockets and starts the thread that sends. It waits first until nothing has answered for quiet_ms, so that
 * what an earlier instance at the same address still says is not taken for the new one's: -EBUSY after 3 s.
 * quiet_ms 0: replies may come at once. */
int flood_start(const struct target *target, unsigned quiet_ms, struct flood **ret_flood, struct error **err);

/* Waits until both replies came (or one, when want_syn_ack is false) or timeout_ms is over; stops and frees the flood.
 */
void flood_finish(struct flood *flood, bool want_syn_ack, unsigned timeout_ms, struct flood_result *ret_result);

/* Forgets the replies so far: from now on, the next of each counts. For the probe's own baseline. Returns the instant.
 */
int64_t flood_rearm(struct flood *flood);

/* Stops at once and frees; accepts NULL. */
void flood_cancel(struct flood *flood);

int64_t realtime_ns(void);
int64_t monotonic_ns(void);

#endif
