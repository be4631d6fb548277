/* SPDX-License-Identifier: Apache-2.0 */
/* The element `forward` by its interface alone: the table against a plain search, what arguments mean, batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../../nf/elements/forward.h"

static const struct nfv_port ports[2] = {{{2, 0, 0, 0, 0, 1}, 1500}, {{2, 0, 0, 0, 0, 2}, 1500}};

struct simple_route {
    uint8_t prefix[16];
    unsigned bits, length, number;
};

static void *make(char **words, unsigned count)
{
    const char *problem = NULL;
    void *state = aligned_alloc(64, (nfv_forward.state_size + 63) & ~(size_t)63);

    memset(state, 0, nfv_forward.state_size);
    if (nfv_forward.init(state, ports, (int)count, words, &problem) != 0)
        fail_msg("%s", problem);
    return state;
}

/* Where a sound packet to that address leaves: the last byte of the next hop's MAC, 0 when it is dropped. */
static unsigned where(void *state, const uint8_t *address, bool v6)
{
    uint8_t frame[128] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, v6 ? 0x86 : 8, v6 ? 0xdd : 0};
    uint8_t *ip = frame + 14;
    struct nfv_packet p = {.data = frame, .length = v6 ? 54 : 34, .total = v6 ? 54 : 34};
    unsigned sum = 0;

    ip[0] = v6 ? 0x60 : 0x45;
    if (v6) {
        ip[7] = 9;
        ip[8] = 0x20;
        memcpy(ip + 24, address, 16);
    } else {
        ip[3] = 20;
        ip[8] = 9;
        ip[12] = 10;
        memcpy(ip + 16, address, 4);
        for (unsigned i = 0; i < 20; i += 2)
            sum += (unsigned)ip[i] << 8 | ip[i + 1];
        sum = (sum & 0xffff) + (sum >> 16);
        ip[10] = (uint8_t)(~sum >> 8);
        ip[11] = (uint8_t)~sum;
    }
    nfv_forward.process(state, &p, 1);
    return p.out == NFV_DROP ? 0 : frame[5];
}

static bool covers(const struct simple_route *r, const uint8_t *address)
{
    for (unsigned i = 0; i < r->length; i++)
        if ((r->prefix[i / 8] ^ address[i / 8]) & 0x80 >> i % 8)
            return false;
    return true;
}

static unsigned plain_search(const struct simple_route *routes, unsigned count, const uint8_t *address)
{
    const struct simple_route *best = NULL;

    for (unsigned i = 0; i < count; i++)
        if (covers(&routes[i], address) && (!best || routes[i].length >= best->length))
            best = &routes[i];
    return best ? best->number : 0;
}

static void format_route(const struct simple_route *r, char *to, size_t size)
{
    const uint8_t *p = r->prefix;
    size_t n = 0;

    if (r->bits == 32)
        n = (size_t)snprintf(to, size, "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
    for (unsigned i = 0; r->bits == 128 && i < 16; i += 2)
        n += (size_t)snprintf(to + n, size - n, "%s%x", i ? ":" : "", p[i] << 8 | p[i + 1]);
    snprintf(to + n, size - n, "/%u=%u@02:00:00:00:00:%02x", r->length, r->number % 2, r->number);
}

static void table_agrees_with_a_plain_search(void **context)
{
    (void)context;
    srand(7);
    for (unsigned round = 0; round < 200; round++) {
        struct simple_route routes[40];
        char text[41][96] = {"forward"}, *words[41] = {text[0]};
        bool v6 = round % 2;
        void *state;

        for (unsigned i = 0; i < 40; i++) {
            struct simple_route *r = &routes[i];
            *r = (struct simple_route){.bits = v6 ? 128 : 32, .number = i + 1};
            r->length = (unsigned)rand() % (v6 ? 65 : 33);
            r->prefix[0] = v6 ? 0x20 : 20; /* close together, so that prefixes lie in each other */
            r->prefix[1] = (uint8_t)(rand() % 4);
            for (unsigned j = 2; j < 8; j++)
                r->prefix[j] = (uint8_t)(rand() % 3 ? 0 : rand());
            for (unsigned j = r->length; j < r->bits; j++)
                r->prefix[j / 8] &= (uint8_t) ~(0x80 >> j % 8);
            format_route(r, text[i + 1], sizeof(text[0]));
            words[i + 1] = text[i + 1];
        }
        state = make(words, 41);
        for (unsigned i = 0; i < 200; i++) {
            uint8_t address[16] = {v6 ? 0x20 : 20, (uint8_t)(rand() % 4)};
            if (i < 40)
                memcpy(address, routes[i].prefix, 16);
            else
                for (unsigned j = 2; j < 16; j++)
                    address[j] = (uint8_t)(rand() % 3 ? 0 : rand());
            if (!v6 && (address[0] == 0 || address[0] >= 127))
                continue;
            if (v6 && address[0] == 0)
                continue;
            unsigned found = where(state, address, v6), expected = plain_search(routes, 40, address);
            if (found != expected)
                fail_msg("round %u: next hop %u, not %u", round, found, expected);
        }
        free(state);
    }
}

static void the_table_is_bounded(void **context)
{
    char text[251][64] = {"forward"}, *words[251];
    const char *problem = NULL;
    void *state = aligned_alloc(64, (nfv_forward.state_size + 63) & ~(size_t)63);

    (void)context;
    words[0] = text[0];
    for (unsigned i = 1; i < 251; i++) { /* each needs 31 nodes of its own */
        snprintf(text[i], sizeof(text[0]), "%x::1/128=0@02:00:00:00:00:01", 0x2000 + (i << 4));
        words[i] = text[i];
    }
    memset(state, 0, nfv_forward.state_size);
    int wrong = nfv_forward.init(state, ports, 251, words, &problem);
    assert_in_range(wrong, 20, 250);
    assert_non_null(strstr(problem, "no room"));
    free(state);
}

static void a_batch_is_counted_once_each(void **context)
{
    char *words[] = {"forward", "0.0.0.0/0=1@02:00:00:00:00:07"};
    void *state = make(words, 2);
    const uint64_t *counters = nfv_forward.read(state);
    uint8_t frames[NFV_BATCH_MAX][64] = {0};
    struct nfv_packet packets[NFV_BATCH_MAX];
    uint64_t outcomes = 0;

    (void)context;
    for (unsigned i = 0; i < NFV_BATCH_MAX; i++) {
        memcpy(frames[i], ports[i % 2].mac, 6);
        frames[i][12] = (uint8_t)i;
        packets[i] = (struct nfv_packet){.data = frames[i], .length = i, .total = i, .in = i % 2};
    }
    nfv_forward.process(state, packets, NFV_BATCH_MAX);
    for (unsigned i = nfv_forward.first_outcome; i < nfv_forward.counter_count; i++)
        outcomes += counters[i];
    assert_int_equal(counters[0], NFV_BATCH_MAX);
    assert_int_equal(outcomes, NFV_BATCH_MAX);
    for (unsigned i = 0; i < NFV_BATCH_MAX; i++)
        assert_int_equal(packets[i].out, NFV_DROP);
    free(state);
}

/* Of a longer packet only the first bytes are here; a header that goes on beyond them is not looked at. */
static void a_header_beyond_the_first_bytes_is_truncated(void **context)
{
    char *words[] = {"forward", "0.0.0.0/0=1@02:00:00:00:00:07"};
    void *state = make(words, 2);
    const uint64_t *counters = nfv_forward.read(state);
    uint8_t *frame = calloc(1, 34); /* of its exact size, for a sanitizer */
    struct nfv_packet p = {.data = frame, .length = 34, .total = 60000};
    unsigned truncated = 0;

    (void)context;
    memcpy(frame, ports[0].mac, 6);
    memcpy(frame + 12, "\x08\x00\x4f\x00\x00\x40", 6);
    while (strcmp(nfv_forward.counter_names[truncated], "truncated") != 0)
        truncated++;
    nfv_forward.process(state, &p, 1);
    assert_int_equal(counters[truncated], 1);
    free(frame);
    free(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_agrees_with_a_plain_search),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(a_batch_is_counted_once_each),
        cmocka_unit_test(a_header_beyond_the_first_bytes_is_truncated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
