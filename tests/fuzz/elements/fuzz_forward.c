/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the element `forward`. The first byte says whether the rest is arguments (words) or packets: each one byte
 * of flags, two of length, the bytes. A packet lies in memory of its exact size, so that a sanitizer sees the first byte
 * too many; whatever comes, each packet is counted once, and what is forwarded is sound.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../../nf/elements/forward.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS_MAX = 32 };

static const struct nfv_port ports[2] = {{{2, 0, 0, 0, 0, 1}, 1500}, {{2, 0, 0, 0, 0, 2}, 1500}};

static void *make(int argc, char **argv, int *ret_result)
{
    void *state = aligned_alloc(64, (nfv_forward.state_size + 63) & ~(size_t)63);
    const char *problem = NULL;

    if (!state)
        abort();
    memset(state, 0, nfv_forward.state_size);
    *ret_result = nfv_forward.init(state, ports, argc, argv, &problem);
    if (*ret_result < 0 || *ret_result > argc || (*ret_result && !problem))
        abort();
    return state;
}

static void try_arguments(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1), *save = NULL;
    char *argv[WORDS_MAX] = {(char *)(uintptr_t) "forward"};
    int argc = 1, result;

    memcpy(text, data, size);
    for (char *w = strtok_r(text, " ", &save); w && argc < WORDS_MAX; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    free(make(argc, argv, &result));
    free(text);
}

static unsigned sum(const uint8_t *p, unsigned bytes)
{
    unsigned s = 0;

    for (unsigned i = 0; i < bytes; i += 2)
        s += (unsigned)p[i] << 8 | p[i + 1];
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return s;
}

static void check_forwarded(const uint8_t *before, const struct nfv_packet *p)
{
    const uint8_t *ip = p->data + 14, *was = before + 14;
    bool v4 = p->data[12] == 8;

    if (p->out > 1 || memcmp(p->data + 6, ports[p->out].mac, 6) != 0 || p->length < (v4 ? 34u : 54u))
        abort();
    if (v4 && (sum(ip, (ip[0] & 15u) * 4) != 0xffff || ip[8] != was[8] - 1 || ip[8] == 0))
        abort();
    if (!v4 && (ip[7] != was[7] - 1 || ip[7] == 0))
        abort();
    for (uint32_t i = 14; i < p->length; i++) /* nothing else has changed */
        if (p->data[i] != before[i] && !(v4 ? i == 22 || i == 24 || i == 25 : i == 21))
            abort();
}

static void try_packets(const uint8_t *data, size_t size)
{
    static char *words[] = {"forward", "0.0.0.0/0=0@02:00:00:00:00:0a", "198.18.0.0/15=1@02:00:00:00:00:0b",
                            "198.18.1.128/25=0@02:00:00:00:00:0c", "::/0=1@02:00:00:00:00:0d",
                            "fd00::/8=0@02:00:00:00:00:0e"};
    int result;
    void *state = make(6, words, &result);
    const uint64_t *counters = nfv_forward.read(state);
    uint64_t outcomes = 0, packets = 0;

    while (size >= 3) {
        uint8_t flags = data[0];
        size_t length = (size_t)data[1] << 8 | data[2];

        data += 3;
        size -= 3;
        if (length > size)
            length = size;
        uint8_t *copy = malloc(length ? length : 1), *before = malloc(length ? length : 1);
        memcpy(copy, data, length);
        memcpy(before, data, length);
        struct nfv_packet p = {.data = copy, .length = (uint32_t)length, .total = (uint32_t)length + (flags & 8 ? 60000 : 0),
            .segment = flags & 4 ? 1448 : 0, .in = flags & 3, .out = NFV_DROP};
        nfv_forward.process(state, &p, 1);
        if (p.out != NFV_DROP)
            check_forwarded(before, &p);
        packets++;
        free(copy);
        free(before);
        data += length;
        size -= length;
    }
    for (unsigned i = nfv_forward.first_outcome; i < nfv_forward.counter_count; i++)
        outcomes += counters[i];
    if (outcomes != packets || counters[0] != packets || result != 0)
        abort();
    free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0)
        (data[0] % 2 ? try_arguments : try_packets)(data + 1, size - 1);
    return 0;
}
