/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for every platform: a small printf, addresses from and to text, error names. Freestanding.
 *
 * Why: unikernel and Linux must print the same report, and a libc's printf alone is bigger than an application here.
 * Called by programs under nf/apps, in their one thread.
 */
#include "platform.h"

struct sink {
    char *buf;
    size_t size, used; /* used counts on beyond size, as snprintf's result does */
};

static void put(struct sink *s, char c)
{
    if (s->used + 1 < s->size)
        s->buf[s->used] = c;
    s->used++;
}

static void put_padded(struct sink *s, const char *text, size_t length, int width, bool left, char fill)
{
    int pad = width > (int)length ? width - (int)length : 0;
    if (!left && fill == '0' && length && *text == '-') {
        put(s, '-');
        text++;
        length--;
    }
    for (int i = 0; !left && i < pad; i++)
        put(s, fill);
    for (size_t i = 0; i < length; i++)
        put(s, text[i]);
    for (int i = 0; left && i < pad; i++)
        put(s, ' ');
}

/* Writes the digits at the end of a 24-byte buffer; returns the first. */
static char *digits(char *end, unsigned long long value, unsigned base, bool negative)
{
    *--end = 0;
    do
        *--end = "0123456789abcdef"[value % base];
    while (value /= base);
    if (negative)
        *--end = '-';
    return end;
}

struct directive {
    bool left;
    char fill;
    int width, precision, longs;
};

static const char *parse_directive(const char *f, struct directive *d, va_list *args)
{
    *d = (struct directive){.fill = ' ', .precision = -1};
    for (; *f == '-' || *f == '0'; f++) {
        if (*f == '-')
            d->left = true;
        else
            d->fill = '0';
    }
    if (*f == '*') {
        d->width = va_arg(*args, int);
        f++;
    }
    while (*f >= '0' && *f <= '9')
        d->width = d->width * 10 + (*f++ - '0');
    if (*f == '.') {
        d->precision = 0;
        f++;
        if (*f == '*') {
            d->precision = va_arg(*args, int);
            f++;
        }
        while (*f >= '0' && *f <= '9')
            d->precision = d->precision * 10 + (*f++ - '0');
    }
    for (; *f == 'l' || *f == 'z'; f++)
        d->longs++;
    return f;
}

static void put_number(struct sink *s, const struct directive *d, char kind, va_list *args)
{
    char buf[24];
    unsigned long long value;
    bool negative = false;
    if (kind == 'd') {
        long long v = d->longs > 1 ? va_arg(*args, long long) : d->longs ? va_arg(*args, long) : va_arg(*args, int);
        negative = v < 0;
        value = negative ? 0 - (unsigned long long)v : (unsigned long long)v;
    } else {
        value = d->longs > 1 ? va_arg(*args, unsigned long long)
                : d->longs   ? va_arg(*args, unsigned long)
                             : va_arg(*args, unsigned);
    }
    const char *text = digits(buf + sizeof buf, value, kind == 'x' ? 16 : 10, negative);
    put_padded(s, text, strlen(text), d->width, d->left, d->fill);
}

int nf_vformat(char *buf, size_t size, const char *format, va_list args)
{
    struct sink s = {buf, size, 0};
    va_list ap;
    va_copy(ap, args);
    for (const char *f = format; *f; f++) {
        if (*f != '%') {
            put(&s, *f);
            continue;
        }
        struct directive d;
        f = parse_directive(f + 1, &d, &ap);
        if (*f == 's') {
            const char *text = va_arg(ap, const char *);
            size_t length = 0;
            text = text ? text : "(null)";
            while ((d.precision < 0 || length < (size_t)d.precision) && text[length])
                length++;
            put_padded(&s, text, length, d.width, d.left, ' ');
        } else if (*f == 'c') {
            char c = (char)va_arg(ap, int);
            put_padded(&s, &c, 1, d.width, d.left, ' ');
        } else if (*f == 'd' || *f == 'u' || *f == 'x') {
            put_number(&s, &d, *f, &ap);
        } else if (*f) {
            put(&s, *f);
        } else {
            break;
        }
    }
    va_end(ap);
    if (size)
        buf[s.used < size ? s.used : size - 1] = 0;
    return (int)s.used;
}

int nf_format(char *buf, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = nf_vformat(buf, size, format, args);
    va_end(args);
    return n;
}

void nf_print(enum nf_stream stream, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    size_t n = (size_t)nf_vformat(line, sizeof line, format, args);
    va_end(args);
    nf_write(stream, line, n < sizeof line ? n : sizeof line - 1);
}

const char *nf_error_text(int error)
{
    static const char *const texts[] = {
        "success",        "would block", "connection refused", "connection reset", "timed out", "out of memory",
        "port is in use", "unreachable", "invalid argument",   "denied",           "failed",
    };
    return error <= 0 && -error < (int)(sizeof texts / sizeof *texts) ? texts[-error] : "unknown error";
}

static const char *parse_ip4(const char *t, uint8_t *ret_ip)
{
    for (int i = 0; i < 4; i++) {
        unsigned value = 0;
        int n = 0;
        for (; *t >= '0' && *t <= '9' && n < 3; n++)
            value = value * 10 + (unsigned)(*t++ - '0');
        if (!n || value > 255 || (i < 3 && *t++ != '.'))
            return NULL;
        ret_ip[i] = (uint8_t)value;
    }
    return t;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Fills the sixteen bytes; a "::" is opened once all groups are known. */
static const char *parse_ip6(const char *t, uint8_t *ret_ip)
{
    uint8_t ip[16] = {0};
    int at = 0, gap = -1;
    if (t[0] == ':' && t[1] != ':')
        return NULL;
    while (*t && *t != '%') {
        if (t[0] == ':' && t[1] == ':') {
            if (gap >= 0)
                return NULL;
            gap = at;
            t += 2;
            continue;
        }
        if (*t == ':' && (at == 0 || gap == at || hex_value(*++t) < 0))
            return NULL;
        if (at && gap != at && t[-1] != ':')
            return NULL; /* a group of five digits */
        const char *group = t;
        unsigned value = 0;
        for (; hex_value(*t) >= 0 && t - group < 4; t++)
            value = value << 4 | (unsigned)hex_value(*t);
        if (*t == '.' && at <= 12 && parse_ip4(group, ip + at)) {
            t = parse_ip4(group, ip + at);
            at += 4;
            break;
        }
        if (t == group || at > 14)
            return NULL;
        ip[at++] = (uint8_t)(value >> 8);
        ip[at++] = (uint8_t)value;
    }
    if (gap < 0 ? at != 16 : at > 14)
        return NULL;
    memset(ret_ip, 0, 16);
    memcpy(ret_ip, ip, gap < 0 ? 16 : (size_t)gap);
    if (gap >= 0)
        memcpy(ret_ip + 16 - (at - gap), ip + gap, (size_t)(at - gap));
    return t;
}

int nf_addr_parse(const char *text, struct nf_addr *ret_addr)
{
    struct nf_addr a = {.family = 4, .port = ret_addr->port};
    const char *end = parse_ip4(text, a.ip);
    if (!end) {
        a.family = 6;
        end = parse_ip6(text, a.ip);
    }
    if (end && a.family == 6 && *end == '%') {
        uint64_t scope = 0;
        if (!end[1])
            return NF_INVALID;
        while (*++end >= '0' && *end <= '9' && scope < UINT32_MAX)
            scope = scope * 10 + (uint64_t)(*end - '0');
        if (scope > UINT32_MAX)
            return NF_INVALID;
        a.scope = (uint32_t)scope;
    }
    if (!end || *end)
        return NF_INVALID;
    *ret_addr = a;
    return 0;
}

/* The longest run of zero groups (at least two) becomes "::", RFC 5952 section 4.2. */
static void longest_gap(const uint8_t *ip, int *ret_first, int *ret_count)
{
    *ret_first = -1;
    *ret_count = 1;
    for (int i = 0; i < 8; i++) {
        int n = 0;
        while (i + n < 8 && !ip[2 * (i + n)] && !ip[2 * (i + n) + 1])
            n++;
        if (n > *ret_count) {
            *ret_first = i;
            *ret_count = n;
        }
    }
}

const char *nf_addr_text(const struct nf_addr *addr, char *buf, size_t size)
{
    const uint8_t *ip = addr->ip;
    if (addr->family == 4) {
        nf_format(buf, size, "%u.%u.%u.%u", ip[0], ip[1], ip[2], ip[3]);
        return buf;
    }
    int gap, count;
    size_t used = 0;
    longest_gap(ip, &gap, &count);
    for (int i = 0; i < 8 && used < size; i++) {
        if (i == gap) {
            used += (size_t)nf_format(buf + used, size - used, i + count == 8 ? "::" : ":");
            i += count - 1;
            continue;
        }
        used += (size_t)nf_format(buf + used, size - used, "%s%x", i ? ":" : "",
                                  (unsigned)(ip[2 * i] << 8 | ip[2 * i + 1]));
    }
    if (addr->scope && used < size)
        nf_format(buf + used, size - used, "%%%u", addr->scope);
    return buf;
}

bool nf_addr_equal(const struct nf_addr *a, const struct nf_addr *b)
{
    return a->family == b->family && a->port == b->port && a->scope == b->scope &&
           !memcmp(a->ip, b->ip, a->family == 4 ? 4 : 16);
}
