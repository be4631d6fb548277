/* SPDX-License-Identifier: Apache-2.0 */
/* A pair of network namespaces of the bench's own, whose far end can begin to answer at a known instant: what the
 * instantiation probe is checked against, in every report and in the tests. */
#ifndef CORACLE_BENCH_METRICS_INSTRUMENT_H
#define CORACLE_BENCH_METRICS_INSTRUMENT_H

#include "bench/probe/flood.h"

struct mock {
    char near[32], far[32]; /* names under /run/netns */
    char far_path[64];
    struct target target;
    int listener; /* -1: nothing listens */
};

/* Makes the pair; the far end has no address yet. */
int mock_open(struct mock *mock, struct error **err);
void mock_close(struct mock *mock);

/* Gives the far end its address; *ret_before_ns and *ret_after_ns (CLOCK_REALTIME) enclose the instant. */
int mock_appear(struct mock *mock, int64_t *ret_before_ns, int64_t *ret_after_ns, struct error **err);
int mock_vanish(struct mock *mock, struct error **err);

/* Begins to listen on the application's port of the far end; and ends it. */
int mock_listen(struct mock *mock, int64_t *ret_before_ns, int64_t *ret_after_ns, struct error **err);
void mock_unlisten(struct mock *mock);

#endif
