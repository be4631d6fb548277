/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nf_element_run(): arguments, the element's memory, its counters on the log. Compiled into every platform; packets come
 * from linux/element.c or unikernel/element.c through element_batch().
 */
#include "element.h"

#define NS 1000000000ull

static const struct nfv_element *element;
static void *state;
static uint64_t interval, shown; /* ns; sum of the counters as they were printed */
static struct nf_timer report_timer;
uint64_t element_unsent;

static int usage(const struct nfv_element *e)
{
    nf_print(NF_LOG, "Usage: %s [--report SECONDS] [--ports NAME,NAME] %s\n", e->name, e->usage);
    return 2;
}

static bool parse_seconds(const char *text, uint64_t *ret)
{
    uint64_t value = 0;

    for (; *text >= '0' && *text <= '9' && value < 100000; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    *ret = value * NS;
    return !*text && value > 0 && value < 100000;
}

/* One line: "forward: received 5 bytes 490 forwarded 5", without what is 0. */
static void report(struct nf_timer *timer)
{
    const uint64_t *counters = element->read(state);
    uint64_t sum = element_unsent;
    char line[640];
    int n = nf_format(line, sizeof(line), "%s:", element->name);

    for (unsigned i = 0; i < element->counter_count; i++)
        sum += counters[i];
    if (sum != shown) {
        for (unsigned i = 0; i < element->counter_count && n < (int)sizeof(line) - 64; i++)
            if (counters[i])
                n += nf_format(line + n, sizeof(line) - (size_t)n, " %s %llu", element->counter_names[i],
                               (unsigned long long)counters[i]);
        if (element_unsent)
            n += nf_format(line + n, sizeof(line) - (size_t)n, " unsent %llu", (unsigned long long)element_unsent);
        nf_print(NF_OUTPUT, "%s\n", line);
    }
    shown = sum;
    nf_timer_start(timer, nf_now() + interval);
}

void element_batch(struct nfv_packet *packets, unsigned count)
{
    element->process(state, packets, count);
}

static void *aligned(size_t size)
{
    uint8_t *memory = nf_alloc(size + 63);

    return memory ? memory + (-(uintptr_t)memory & 63) : NULL;
}

int nf_element_run(const struct nfv_element *e, int argc, char **argv)
{
    struct nfv_port ports[NFV_PORT_MAX];
    const char *names = NULL, *problem = "";
    int skip = 0, wrong;

    while (argc - skip > 2 && (!strcmp(argv[skip + 1], "--report") || !strcmp(argv[skip + 1], "--ports"))) {
        if (argv[skip + 1][2] == 'p')
            names = argv[skip + 2];
        else if (!parse_seconds(argv[skip + 2], &interval))
            return usage(e);
        skip += 2;
    }
    if (e->version != NFV_ELEMENT_VERSION || e->ports < 1 || e->ports > NFV_PORT_MAX) {
        nf_print(NF_LOG, "%s: an element of another version of this interface\n", e->name);
        return 1;
    }
    if (element_ports_open(names, e->ports, ports) < 0)
        return 1;
    element = e;
    state = aligned(e->state_size);
    if (!state) {
        nf_print(NF_LOG, "%s: no memory for %zu bytes\n", e->name, e->state_size);
        return 1;
    }
    wrong = e->init(state, ports, argc - skip, argv + skip, &problem);
    if (wrong) {
        nf_print(NF_LOG, "%s: argument %d%s%s %s\n", e->name, wrong, wrong < argc - skip ? ", " : "",
                 wrong < argc - skip ? argv[skip + wrong] : "", problem);
        return usage(e);
    }
    element_ports_start();
    report_timer.fire = report;
    if (interval)
        nf_timer_start(&report_timer, nf_now() + interval);
    nf_print(NF_OUTPUT, "%s: between %u ports\n", e->name, e->ports);
    return NF_RUN;
}
