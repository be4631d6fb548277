/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parses iperf's command line from one table: bundled short options, long names, units as iperf has them
 * (k m g are powers of 1000, K M G of 1024). Called once, by iperf_main().
 */
#include "options.h"
#include "wire.h"

#define NS 1000000000ull

static const char usage[] =
    "Usage: iperf -s [options]        serve TCP and UDP (with -u: UDP only)\n"
    "       iperf -c ADDRESS [options]\n"
    "  -p, --port N            port (default 5001)\n"
    "  -u, --udp               UDP instead of TCP\n"
    "  -B, --bind ADDRESS      local address\n"
    "  -V, -6, --ipv6_domain   IPv6 only (default: whatever the address is; a server takes both)\n"
    "  -i, --interval SECONDS  report in between\n"
    "  -y, --reportstyle C     comma-separated values;  --json: one JSON object per line\n"
    "Client:\n"
    "  -t, --time SECONDS      how long (default 10)\n"
    "  -n, --num N[kmgKMG]     how much, instead of how long\n"
    "  -l, --len N[kmKM]       length of a write or a datagram (default 128K; 1470, IPv6 1450)\n"
    "  -b, --bandwidth N[kmgKMG]|Npps   rate (default: TCP unlimited, UDP 1M)\n"
    "  -P, --parallel N        connections at once, 1-100\n"
    "  -R, --reverse           the server sends, on the client's connection\n"
    "      --full-duplex       both send, on the client's connection\n"
    "  -r, --tradeoff          then the server connects back and sends;  -d, --dualtest: meanwhile\n"
    "  -L, --listenport N      where -r and -d listen (default: the same port)\n"
    "Addresses are numeric.\n";

static const struct name {
    const char *name;
    char letter;
} long_names[] = {
    {"server", 's'},      {"client", 'c'},   {"udp", 'u'},        {"port", 'p'},        {"bind", 'B'},
    {"ipv6_domain", 'V'}, {"interval", 'i'}, {"json", 'J'},       {"time", 't'},        {"num", 'n'},
    {"len", 'l'},         {"parallel", 'P'}, {"bandwidth", 'b'},  {"reverse", 'R'},     {"full-duplex", 'F'},
    {"tradeoff", 'r'},    {"dualtest", 'd'}, {"listenport", 'L'}, {"reportstyle", 'y'}, {"help", 'h'},
    {"version", 'v'},
};

static const char flags[] = "suVJRFrdhv6";
static const char valued[] = "cpBitnlPbLy";

static bool contains(const char *set, char c)
{
    for (; *set; set++) {
        if (*set == c)
            return true;
    }
    return false;
}

static bool wrong(char letter, const char *value, const char *why)
{
    nf_print(NF_LOG, "iperf: option %c, value \"%s\": %s\n", letter, value, why);
    return false;
}

/* Digits with at most nine decimals, scaled by unit; *ret_end is the first character after them. */
static bool parse_decimal(const char *text, uint64_t unit, uint64_t *ret_value, const char **ret_end)
{
    uint64_t value = 0, fraction = 0, scale = 1;
    const char *t = text;
    for (; *t >= '0' && *t <= '9'; t++) {
        if (value > (UINT64_MAX / 10 - 9) / unit)
            return false;
        value = value * 10 + (uint64_t)(*t - '0');
    }
    if (t == text)
        return false;
    if (*t == '.') {
        for (t++; *t >= '0' && *t <= '9' && scale < NS; t++) {
            fraction = fraction * 10 + (uint64_t)(*t - '0');
            scale *= 10;
        }
    }
    if (value > (UINT64_MAX - unit) / unit)
        return false;
    *ret_value = value * unit + fraction * unit / scale; /* fraction and unit are below 2^31 */
    *ret_end = t;
    return true;
}

static uint64_t unit_of(char c)
{
    static const struct {
        char letter;
        uint64_t unit;
    } units[] = {{'k', 1000}, {'m', 1000000}, {'g', 1000000000}, {'K', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (units[i].letter == c)
            return units[i].unit;
    }
    return 0;
}

static bool parse_amount(const char *text, uint64_t max, uint64_t *ret_value, const char **ret_end)
{
    const char *end = text;
    while ((*end >= '0' && *end <= '9') || *end == '.')
        end++;
    uint64_t unit = unit_of(*end);
    uint64_t value;
    const char *stop;
    if (!parse_decimal(text, unit ? unit : 1, &value, &stop) || stop != end || value > max)
        return false;
    *ret_end = end + (unit != 0);
    *ret_value = value;
    return true;
}

static bool parse_whole(char letter, const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    const char *end;
    if (parse_amount(text, max, ret_value, &end) && !*end && *ret_value >= min)
        return true;
    char why[96];
    nf_format(why, sizeof why, "must be a number from %llu to %llu", (unsigned long long)min, (unsigned long long)max);
    return wrong(letter, text, why);
}

static bool parse_seconds(char letter, const char *text, uint64_t *ret_ns)
{
    const char *end;
    if (parse_decimal(text, NS, ret_ns, &end) && !*end && *ret_ns >= NS / 100 && *ret_ns <= 1000000 * NS)
        return true;
    return wrong(letter, text, "must be seconds, from 0.01 to 1000000");
}

static bool parse_rate(const char *text, struct iperf_options *o)
{
    const char *end;
    if (parse_amount(text, 1000000000000ull, &o->rate, &end) && o->rate) {
        o->rate_is_pps = !strcmp(end, "pps");
        if (o->rate_is_pps || !*end)
            return true;
    }
    return wrong('b', text, "must be bits per second up to 1000g (as in 10m), or packets per second (as in 100pps)");
}

static bool set_flag(char letter, struct iperf_options *o, int *ret_status)
{
    switch (letter) {
    case 's':
        o->server = true;
        break;
    case 'u':
        o->udp = true;
        break;
    case '6':
    case 'V':
        o->ipv6 = true;
        break;
    case 'J':
        o->style = STYLE_JSON;
        break;
    case 'R':
        o->reverse = true;
        break;
    case 'F':
        o->full_duplex = true;
        break;
    case 'r':
        o->tradeoff = true;
        break;
    case 'd':
        o->dual = true;
        break;
    case 'v':
        nf_print(NF_OUTPUT, "iperf (coracle), speaks iperf 2.1\n");
        *ret_status = 0;
        return false;
    default:
        nf_write(NF_OUTPUT, usage, sizeof usage - 1);
        *ret_status = 0;
        return false;
    }
    return true;
}

static bool set_value(char letter, const char *text, struct iperf_options *o)
{
    uint64_t value = 0;
    switch (letter) {
    case 'c':
        o->client = true;
        return !nf_addr_parse(text, &o->peer) || wrong(letter, text, "must be a numeric IPv4 or IPv6 address");
    case 'B':
        return !nf_addr_parse(text, &o->bind) || wrong(letter, text, "must be a numeric IPv4 or IPv6 address");
    case 'y':
        o->style = STYLE_CSV;
        return !strcmp(text, "C") || !strcmp(text, "c") || wrong(letter, text, "the only style is C");
    case 'i':
        return parse_seconds(letter, text, &o->interval);
    case 't':
        return parse_seconds(letter, text, &o->time);
    case 'b':
        return parse_rate(text, o);
    case 'n':
        return parse_whole(letter, text, 1, INT64_MAX, &o->amount);
    case 'p':
        if (!parse_whole(letter, text, 1, UINT16_MAX, &value))
            return false;
        o->port = (uint16_t)value;
        return true;
    case 'L':
        if (!parse_whole(letter, text, 1, UINT16_MAX, &value))
            return false;
        o->listen_port = (uint16_t)value;
        return true;
    case 'l':
        if (!parse_whole(letter, text, 1, 16 << 20, &value))
            return false;
        o->length = (uint32_t)value;
        return true;
    default: /* P */
        if (!parse_whole(letter, text, 1, MAX_PARALLEL, &value))
            return false;
        o->parallel = (uint32_t)value;
        return true;
    }
}

static char find_long(const char *text, const char **ret_value)
{
    for (size_t i = 0; i < sizeof long_names / sizeof *long_names; i++) {
        size_t n = strlen(long_names[i].name);
        if (strlen(text) >= n && !memcmp(text, long_names[i].name, n) && (!text[n] || text[n] == '=')) {
            *ret_value = text[n] ? text + n + 1 : NULL;
            return long_names[i].letter;
        }
    }
    return 0;
}

/* One argument, which may bundle flags and may take the next one as its value. */
static bool parse_argument(char **argv, int *at, struct iperf_options *o, int *ret_status)
{
    const char *arg = argv[*at], *value = NULL;
    bool is_long = arg[0] == '-' && arg[1] == '-';
    const char *letters = arg + 1;
    char single[2] = {0, 0};
    if (is_long) {
        single[0] = find_long(arg + 2, &value);
        letters = single;
    }
    if (arg[0] != '-' || !*letters) {
        nf_print(NF_LOG, "iperf: \"%s\" is no option; see iperf --help\n", arg);
        return false;
    }
    for (; *letters; letters++) {
        if (contains(flags, *letters) && !value) {
            if (!set_flag(*letters, o, ret_status))
                return false;
            continue;
        }
        if (!contains(valued, *letters)) {
            nf_print(NF_LOG, "iperf: option \"%s\" %s; see iperf --help\n", arg,
                     value ? "takes no value" : "is not known");
            return false;
        }
        if (!is_long && letters[1])
            value = letters + 1;
        if (!value && !(value = argv[++*at])) {
            nf_print(NF_LOG, "iperf: option %s needs a value; see iperf --help\n", arg);
            return false;
        }
        return set_value(*letters, value, o);
    }
    return true;
}

static bool complain(const char *what)
{
    nf_print(NF_LOG, "iperf: %s; see iperf --help\n", what);
    return false;
}

/* What no single option can tell. */
static bool check(struct iperf_options *o)
{
    if (o->server == o->client)
        return complain("either -s or -c ADDRESS is needed");
    if (o->tradeoff + o->dual + o->reverse + o->full_duplex > 1)
        return complain("only one of -r, -d, -R and --full-duplex is possible");
    if (o->ipv6 && ((o->client && o->peer.family != 6) || o->bind.family == 4))
        return complain("-V (-6) was given with an IPv4 address");
    if (o->client && o->bind.family && o->bind.family != o->peer.family)
        return complain("-B and -c are of different families");
    bool asks = o->tradeoff || o->dual || o->reverse || o->full_duplex;
    if (asks && o->amount > INT32_MAX)
        return complain("the protocol cannot ask the server for more than 2147483647 bytes: use -t");
    if (asks && o->time / 10000000 > INT32_MAX)
        return complain("the protocol cannot ask the server for that long");
    if (o->udp && o->length > UDP_LENGTH_MAX)
        return complain("-l: a datagram has at most 65507 bytes");
    if (o->udp && o->length && o->length < 16)
        return complain("-l: a datagram needs at least 16 bytes");
    if (o->udp && o->length && o->length < WIRE_DATAGRAM + WIRE_HEADER && asks && !o->reverse)
        return complain("-l: with -r, -d or --full-duplex a datagram needs at least 76 bytes");
    return true;
}

bool iperf_options_parse(int argc, char **argv, struct iperf_options *ret_options, int *ret_status)
{
    struct iperf_options o = {.port = IPERF_PORT, .parallel = 1, .time = 10 * NS};
    *ret_status = 2;
    for (int i = 1; i < argc; i++) {
        if (!parse_argument(argv, &i, &o, ret_status))
            return false;
    }
    if (!check(&o))
        return false;
    if (!o.listen_port)
        o.listen_port = o.port;
    o.peer.port = o.port;
    if (o.udp && !o.rate)
        o.rate = 1 << 20;
    if (o.udp && !o.length)
        o.length = o.peer.family == 6 ? UDP_LENGTH6 : UDP_LENGTH4;
    *ret_options = o;
    return true;
}
