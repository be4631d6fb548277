/* SPDX-License-Identifier: Apache-2.0 */
/* The rooms of the unikernel's platform and what they give each other. One thread; interrupts only count. */
#ifndef UNIKERNEL_UNIKERNEL_H
#define UNIKERNEL_UNIKERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/boot.h"

/* ---- cpu.c: clock, idle, the end ---- */

extern const struct boot_image image_header;
extern struct boot_info boot; /* a copy: the page is read-only and changes at a restore */

static inline struct boot_shared *boot_shared(void)
{
    return (struct boot_shared *)BOOT_SHARED_ADDRESS;
}

static inline uint64_t tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void port_out(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

void cpu_init(const struct boot_info *info);
void cpu_stir(const uint8_t bytes[32]); /* entropy beside the monitor's */
bool cpu_restored(void); /* once after each restore from a snapshot: clock and entropy are the new ones */
uint64_t cpu_ns(void); /* since boot */
/* interrupts: boot_shared()->interrupts as it was before looking for work. until_ns: latest end; 0: none. */
void cpu_idle(uint64_t interrupts, uint64_t until_ns);
void unikernel_panic(const char *message) __attribute__((noreturn));
uint32_t unikernel_random(void);
uint64_t siphash(const uint64_t key[2], const uint64_t *words, unsigned count);
extern uint64_t isn_key[2]; /* secret of this boot */
void console_write(const char *text, size_t size);
/* Text is gathered, as each piece would be an exit: before the guest sleeps and when it is a millisecond old it goes. */
void console_flush(void);
bool console_is_due(void);

/* ---- heap.c ---- */

void heap_init(uint64_t start, uint64_t end);
void *unikernel_malloc(unsigned long size);
void *unikernel_calloc(unsigned long count, unsigned long size);
void unikernel_free(void *memory);
/* Page-aligned, given back with unikernel_free(). */
void *heap_page(void);
void *heap_pages(uint64_t count); /* contiguous, for ever */
uint64_t heap_left(void);

/* ---- virtio.c: one queue of a virtio-mmio device, driver side ---- */

enum { VQ_SIZE = 256 };
enum { VIRTIO_CONSOLE = 3, VIRTIO_ENTROPY = 4, VIRTIO_VSOCK = 19 }; /* kinds */

struct virtq {
    struct virtio *device;
    uint16_t index;
    uint16_t size;
    uint16_t free_count, free_head;
    uint16_t next_available, last_used, notified;
    struct virtq_descriptor *descriptors;
    volatile uint16_t *available, *used;
    void *tokens[VQ_SIZE]; /* of the chain's first descriptor */
};

struct virtq_segment {
    const void *address;
    uint32_t length;
    bool device_writes;
};

struct virtio {
    volatile uint32_t *registers;
    uint64_t features; /* accepted */
    bool legacy;       /* version 1 of the interface */
    bool acknowledge;  /* interrupts are level lines that must be taken back (PVH monitors) */
    bool ready;        /* DRIVER_OK: it may be notified */
    const struct boot_facts *facts; /* no register is touched before DRIVER_OK; NULL: all are */
    struct boot_setup setup;        /* with facts */
    struct virtq *queues[BOOT_QUEUE_MAX];
    unsigned queue_count;
};

/* Features of the device at that address; 0: none of that kind is there. */
uint64_t virtio_offers(uint64_t address, uint32_t kind);
/* Resets the device, negotiates (wanted: bits the driver knows). False when it is not of that kind. */
bool virtio_begin(struct virtio *device, uint64_t address, uint32_t kind, uint64_t wanted);
/* The first device of that kind, begun. */
bool virtio_find(struct virtio *device, uint32_t kind, uint64_t wanted);
/* Queues from 0 on. What is added and published before virtio_ready() is the device's then. */
bool virtio_queue(struct virtio *device, struct virtq *queue, uint16_t index);
void virtio_ready(struct virtio *device);
uint8_t virtio_config(const struct virtio *device, unsigned offset); /* a byte of the device's configuration */
void virtio_acknowledge(struct virtio *device);

/* Puts a chain into the ring; false when there is no room. The device sees it with virtq_publish(). */
bool virtq_add(struct virtq *queue, const struct virtq_segment *segments, unsigned count, void *token);
void virtq_publish(struct virtq *queue);
/* Has the device look at the queue, whether it wants to be told or not. */
void virtq_notify(struct virtq *queue);
/* The next finished chain's token, or NULL. */
void *virtq_take(struct virtq *queue, uint32_t *ret_length);
/* Whether the device shall interrupt for finished chains; after switching on, look once more. */
void virtq_interrupts(struct virtq *queue, bool on);

/* ---- console.c, entropy.c, vsock.c: each does nothing where there is no such device ---- */

bool console_init(void);
bool console_send(const char *text, size_t size); /* false: there is none */
void console_settle(void);                        /* the device has read it all, or does not */

bool entropy_stir(void); /* into the seed, as cpu_stir() does; false: there is no such device */

void vsock_init(void);
bool vsock_poll(void); /* true: there was work */
void vsock_restored(void);
bool vsock_stop_wanted(void); /* the host asked the program to end */

/* ---- net.c: each virtio-net device as a lwIP interface ---- */

enum { NET_MAX = 8 };

/* Of one interface; docs/formats/guest-network.md. */
struct net_config {
    char ip4[48], gateway4[48], ip6[64], gateway6[48]; /* "address/prefix"; "dhcp"; "" none */
    char gateway_mac[24];
    uint64_t declined; /* features of the device not to use: for tests of hosts that lack them */
};

/* After a restore from a snapshot: another MAC address and configuration, nothing remembered of neighbours. */
void net_restored(const struct net_config config[NET_MAX]);
/* Of a guest that nobody hears yet: does once what it will have to do when it is somebody and the first packet comes, so
 * that the memory for it is there then. Afterwards it is as config says. */
void net_rehearse(const struct net_config config[NET_MAX]);
bool net_init(const struct net_config config[NET_MAX]); /* false: no network device */
bool net_poll(void);                            /* true: there was work */
void net_flush(void);                           /* what was queued for sending goes out */
void net_interrupts(bool on);

/* ---- config.c: addresses, routes, neighbours ---- */

/* Takes one boot parameter ("ip4=...", "eth1.ip4=..."); false when it is none of the network's. */
bool net_parameter(struct net_config config[NET_MAX], const char *word);
struct netif;
void net_configure(struct netif *netif, const struct net_config *config, unsigned nic);
bool net_is_static(const struct net_config *config); /* no address of it comes from the network */
bool net_is_configured(const struct net_config *config); /* the boot parameters say something of it */

/* ---- What a program may do without. main.c calls each only when it was linked, and that is when something refers to
 * it: an element's image has no lwIP in it, an iperf's no element. ---- */

extern struct net_config network_config[NET_MAX]; /* main.c */
/* stack.c */
void net_start(void);    /* lwIP and its devices, once; whatever uses the network calls it first */
bool net_round(void);    /* true: there was work */
uint64_t net_next(void); /* when lwIP wants its next round; 0: never */

/* element.c */
bool element_poll(void); /* true: there was work */
void element_interrupts(bool on);
bool element_active(void);

/* ---- tcp.c, udp.c, timer.c: platform.h on lwIP ---- */

bool tcp_round(void); /* deferred calls of the program: `writable`, held bytes */
bool udp_round(void);
bool timers_run(void);          /* fires what is due */
bool net_is_bulk(void); /* a lot came between the last sleeps: more will, and the device tells of it in good time */
void net_rested(void);  /* the guest has slept */
uint64_t net_received_at(void); /* wall clock of the packet being delivered */

#endif
