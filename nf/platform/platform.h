/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface network functions are written against, and all of it.
 *
 * Why: the same source must run as a Linux process and inside a unikernel on lwIP's raw API, where there is no
 * operating system to call. A program under nf/apps includes this header and freestanding ones only.
 * Who implements it: nf/platform/linux (epoll), nf/platform/unikernel, and the tests' simulated network.
 *
 * Theory of operation
 *   One thread, no preemption. The platform calls nf_main() once; the program opens listeners, connections and
 *   timers there and returns NF_RUN. From then on everything happens in callbacks, which must not block.
 *   A callback may call any function below, also those that close the object it was called for.
 * Ownership
 *   struct nf_tcp and struct nf_udp belong to the platform. They are valid from the call or callback that hands
 *   them out until the program closes or aborts them, or until `failed` was called; afterwards no callback comes.
 *   Buffers given to a callback are valid until it returns. struct nf_timer belongs to the program.
 * No call allocates without bound: each platform has a fixed number of connections and answers NF_NO_MEMORY.
 */
#ifndef NF_PLATFORM_H
#define NF_PLATFORM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Results are 0 or positive on success and one of these otherwise. */
enum nf_error {
    NF_AGAIN = -1,       /* no room now; ask to be told with nf_tcp_want_write(), or wait for nf_udp_ops.writable */
    NF_REFUSED = -2,     /* the peer has nobody there */
    NF_RESET = -3,       /* the peer broke the connection */
    NF_TIMED_OUT = -4,   /* the peer does not answer */
    NF_NO_MEMORY = -5,   /* the platform's bound on objects or memory is reached */
    NF_IN_USE = -6,      /* the local port is taken */
    NF_UNREACHABLE = -7, /* no route, or the address is not ours */
    NF_INVALID = -8,     /* an argument, or a datagram too long */
    NF_DENIED = -9,      /* the platform's policy forbids it */
    NF_FAILED = -10,     /* anything else */
};

/* A static string, e.g. "connection refused". */
const char *nf_error_text(int error);

/* ---- program ---- */

enum { NF_RUN = -1 };

/*
 * The program. argv is as in C: argv[0] the name it was started by, argv[argc] NULL.
 * Returns NF_RUN to go on in callbacks until nf_exit(), or an exit status (0-255) to end at once.
 */
int nf_main(int argc, char **argv);

void nf_exit(int status) __attribute__((noreturn));

/*
 * The host wants the program to end (a signal, or a request to the unikernel): hook is called once, outside any other
 * callback, prints what there is to say and may close connections; when it returns the platform ends the program with
 * status 143. Without a hook it ends at once. A program has one; NULL takes it away.
 */
void nf_on_stop(void (*hook)(void *context), void *context);

/* ---- elements ---- */

struct nfv_element; /* include/nfv/element.h */

/*
 * Runs an element between this machine's ports, for ever: a program's nf_main() returns what this returns. Before the
 * element's own arguments it takes "--report SECONDS" (prints the counters whenever they have changed, at most so often)
 * and, where ports have names, "--ports NAME,NAME" (default eth0,eth1,...).
 */
int nf_element_run(const struct nfv_element *element, int argc, char **argv);

/* ---- clock and timers, in nanoseconds ---- */

uint64_t nf_now(void);        /* monotonic, of no particular epoch */
uint64_t nf_wall_clock(void); /* since 1970-01-01 UTC; may jump; 0-based where the platform knows no time */

struct nf_timer {
    void (*fire)(struct nf_timer *timer); /* set by the program; the timer is idle when it is called */
    void *context;                        /* set by the program */
    uint64_t due;                         /* platform's */
    struct nf_timer *next, **link;        /* platform's; link is NULL while idle: a zeroed timer is an idle timer */
};

/* (Re)starts the timer; due is on nf_now()'s clock, a due in the past fires on the next round, after pending I/O. */
void nf_timer_start(struct nf_timer *timer, uint64_t due);

/* Accepts an idle timer. */
void nf_timer_stop(struct nf_timer *timer);

/* ---- memory and strings ---- */

/* Zeroed memory or NULL. For tables sized by an option; programs keep their working set in static arrays. */
void *nf_alloc(size_t size);
void nf_free(void *memory);

/* Every platform has these, with C's meaning; <string.h> is not a freestanding header. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);

/* ---- output ---- */

enum nf_stream { NF_OUTPUT, NF_LOG }; /* results; diagnostics */

/* Written whole or, where the reader is gone or stuck, not at all. Never blocks for long; not for a packet path. */
void nf_write(enum nf_stream stream, const char *text, size_t size);

/* nf/platform/format.c, the same everywhere: %s %c %d %u %x %llu %lld %zu %%, width, 0 and -, precision of %s. */
int nf_vformat(char *buf, size_t size, const char *format, va_list args);
int nf_format(char *buf, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
void nf_print(enum nf_stream stream, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- addresses ---- */

struct nf_addr {
    uint8_t family; /* 4, 6, or 0: any address of either family (for listening) */
    uint8_t ip[16]; /* network order; the first four bytes for family 4. IPv4 is never given as a mapped IPv6 address */
    uint16_t port;  /* host order */
    uint32_t scope; /* interface index of a link-local address, else 0 */
};

/* Numeric addresses only: 198.18.0.1, fd00::1, fe80::1%2. Leaves the port alone. NF_INVALID if it is none. */
int nf_addr_parse(const char *text, struct nf_addr *ret_addr);

/* Without the port; buf of NF_ADDR_TEXT bytes always suffices. Returns buf. */
enum { NF_ADDR_TEXT = 48 };
const char *nf_addr_text(const struct nf_addr *addr, char *buf, size_t size);

/* Same family, address and port. */
bool nf_addr_equal(const struct nf_addr *a, const struct nf_addr *b);

/* ---- TCP ---- */

struct nf_tcp;
struct nf_listener;

/* A NULL member means the program has no interest; `failed` is required. context is what the program gave. */
struct nf_tcp_ops {
    /* nf_tcp_connect() succeeded. */
    void (*connected)(struct nf_tcp *tcp, void *context);
    /* Bytes in order. All of them count as consumed when it returns: the window opens again. */
    void (*receive)(struct nf_tcp *tcp, void *context, const uint8_t *data, size_t size);
    /* There is room to send; called again and again until nf_tcp_want_write(tcp, false). */
    void (*writable)(struct nf_tcp *tcp, void *context);
    /* The peer sends no more; our direction is still open. Called once. */
    void (*end)(struct nf_tcp *tcp, void *context);
    /* The connection is lost, error says why; the object is gone when this returns: do not close it. */
    void (*failed)(struct nf_tcp *tcp, void *context, int error);
};

/*
 * A connection came in. Returns true to keep it, having called nf_tcp_attach(); false and it is reset.
 */
typedef bool (*nf_accept_fn)(struct nf_tcp *tcp, const struct nf_addr *peer, void *context);

int nf_tcp_listen(const struct nf_addr *local, nf_accept_fn accept, void *context, struct nf_listener **ret_listener);
void nf_listener_close(struct nf_listener *listener);

/* local may be NULL. The outcome comes later, as connected or failed. */
int nf_tcp_connect(const struct nf_addr *peer, const struct nf_addr *local, const struct nf_tcp_ops *ops, void *context,
                   struct nf_tcp **ret_tcp);

/* Says who is called from now on; ops must live as long as the program. */
void nf_tcp_attach(struct nf_tcp *tcp, const struct nf_tcp_ops *ops, void *context);

enum nf_lifetime {
    NF_STATIC, /* the bytes never change again while the program runs: sent without a copy where that is possible */
    NF_COPY,   /* the bytes are the caller's again when the call returns; meant for short messages */
};

/* Returns how many bytes were taken (0 < n <= size), NF_AGAIN, or another error after which `failed` follows. */
long nf_tcp_send(struct nf_tcp *tcp, const void *data, size_t size, enum nf_lifetime lifetime);

/* Whether `writable` is wanted. Off at first. */
void nf_tcp_want_write(struct nf_tcp *tcp, bool on);

/* From now on no call of `receive` brings more than max bytes; 0 stops receiving (the peer is held back). */
void nf_tcp_limit_receive(struct nf_tcp *tcp, size_t max);

/* Sends what was taken, then ends our direction. */
void nf_tcp_shutdown(struct nf_tcp *tcp);

/* Sends what was taken and ends both directions; no callback follows. */
void nf_tcp_close(struct nf_tcp *tcp);

/* Resets. */
void nf_tcp_abort(struct nf_tcp *tcp);

void nf_tcp_addresses(const struct nf_tcp *tcp, struct nf_addr *ret_local, struct nf_addr *ret_peer);

/* ---- UDP ---- */

struct nf_udp;

struct nf_udp_ops {
    /* received: arrival on nf_wall_clock()'s clock, as early in the stack as the platform can tell. */
    void (*receive)(struct nf_udp *udp, void *context, const struct nf_addr *from, const uint8_t *data, size_t size,
                    uint64_t received);
    /* There is room again after NF_AGAIN. Called once for each NF_AGAIN or run of them. */
    void (*writable)(struct nf_udp *udp, void *context);
    /* Only for an object opened with a peer: it is not there. The object stays. */
    void (*failed)(struct nf_udp *udp, void *context, int error);
};

/*
 * peer NULL: datagrams from everyone. Otherwise from and to that peer only, which takes precedence over an object
 * on the same local port without a peer.
 */
int nf_udp_open(const struct nf_addr *local, const struct nf_addr *peer, const struct nf_udp_ops *ops, void *context,
                struct nf_udp **ret_udp);

/*
 * Sends one datagram of header (copied) and body (NF_STATIC; may be NULL with size 0). to: NULL when the object has a
 * peer. 0, NF_AGAIN, or an error that concerns this datagram only.
 */
int nf_udp_send(struct nf_udp *udp, const struct nf_addr *to, const void *header, size_t header_size, const void *body,
                size_t body_size);

void nf_udp_address(const struct nf_udp *udp, struct nf_addr *ret_local);

/* Accepts NULL. */
void nf_udp_close(struct nf_udp *udp);

#endif
