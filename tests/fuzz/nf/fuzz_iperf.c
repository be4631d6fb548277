/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the iperf server as its peers see it, on the simulated platform: the input is a script of connections, pieces
 * of data, datagrams, lulls and ends. After each input and a long silence nothing may be left.
 *
 * One step: a byte op, a byte argument, and for data a length byte and that many bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "../../../nf/apps/iperf/flow.h"
#include "../../unit/nf/mock_platform.h"

enum { CONNECTIONS = 4, PORT = 5001, MAX_STEPS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct nf_addr peer_of(unsigned n)
{
    return (struct nf_addr){.family = n & 1 ? 6 : 4, .ip = {198, 18, 0, (uint8_t)n}, .port = (uint16_t)(40000 + n)};
}

static void start(void)
{
    static bool started;
    static char *argv[] = {"iperf", "-s", "-i", "1", NULL};
    if (started)
        return;
    started = true;
    if (nf_main(4, argv) != NF_RUN)
        abort();
}

/* A handle may be of a connection that is gone and taken again by another: that is a peer's view, too. */
static struct nf_tcp *handles[CONNECTIONS];

static void step(uint8_t op, uint8_t argument, const uint8_t *bytes, size_t n)
{
    unsigned i = argument % CONNECTIONS;
    struct nf_addr peer = peer_of(argument);
    struct nf_tcp *t = handles[i] && handles[i]->used ? handles[i] : NULL;
    switch (op % 8) {
    case 0:
        if (!t)
            handles[i] = mock_accept(PORT, &peer);
        break;
    case 1:
        if (t && !t->connecting)
            mock_deliver(t, bytes, n);
        break;
    case 2:
        if (t && !t->connecting)
            mock_end(t);
        handles[i] = NULL;
        break;
    case 3:
        if (t)
            mock_fail(t, NF_RESET);
        handles[i] = NULL;
        break;
    case 4:
        mock_datagram(PORT, &peer, bytes, n);
        break;
    case 5:
        mock_advance(argument * 10000000ull);
        break;
    case 6:
        mock_room = argument & 1 ? argument : SIZE_MAX;
        break;
    default:
        if ((t = mock_outgoing(argument & 1 ? PORT : argument)))
            mock_connected(t);
    }
}

/* What the parser says about any bytes must be consistent. */
static void check_parser(const uint8_t *data, size_t size)
{
    struct wire_test t;
    struct wire_report report;
    for (size_t prefix = 0; prefix <= WIRE_DATAGRAM; prefix += WIRE_DATAGRAM) {
        size_t header = 0;
        int need = wire_parse(data, size, prefix, &t, &header);
        if (need > (int)WIRE_HEADER_MAX || (need > 0 && (size_t)need <= size) || (need == 0 && header > size))
            abort();
    }
    if (wire_parse_report(data, size, &report) && size < 56)
        abort();
}

/* A test may be asked for months; its peer goes away instead. Everything else must end by its own deadlines. */
static void lose_senders(void)
{
    for (struct flow *f = flow_next(NULL); f; f = flow_next(f)) {
        if (f->tcp && f->sends)
            mock_fail(f->tcp, NF_RESET);
        else if (f->sock && f->sends)
            f->sock->ops->failed(f->sock, f->sock->context, NF_FAILED);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start();
    check_parser(data, size);
    mock_room = SIZE_MAX;
    memset(handles, 0, sizeof handles);
    for (size_t at = 0, steps = 0; at + 2 < size && steps < MAX_STEPS; steps++) {
        uint8_t op = data[at], argument = data[at + 1];
        size_t n = data[at + 2], left = size - at - 3;
        n = n < left ? n : left;
        step(op, argument, data + at + 3, n);
        at += 3 + n;
    }
    for (int i = 0; i < 8 && flow_next(NULL); i++) {
        lose_senders();
        mock_advance(30 * NS_PER_S);
    }
    if (flow_next(NULL) || mock_count_tcp() || mock_count_udp() != 1)
        abort();
    mock_output_size = 0;
    return 0;
}
