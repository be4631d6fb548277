/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lwIP's options for the unikernel. The source is Debian's, unmodified; what makes it fast is here and in net.c:
 * segments of up to 65,000 bytes (TCP_MSS), cut to the wire's size by the host (TSO) and merged by it (GRO).
 */
#ifndef UNIKERNEL_LWIPOPTS_H
#define UNIKERNEL_LWIPOPTS_H

#include <stdint.h>

#define NO_SYS               1
#define LWIP_TIMERS          1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN         0
#define LWIP_SOCKET          0

/* memory: everything from the allocator of heap.c */
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT   16
void *unikernel_malloc(unsigned long size);
void *unikernel_calloc(unsigned long count, unsigned long size);
void unikernel_free(void *memory);
#define mem_clib_malloc          unikernel_malloc
#define mem_clib_calloc          unikernel_calloc
#define mem_clib_free            unikernel_free
#define LWIP_SUPPORT_CUSTOM_PBUF 1

#define LWIP_IPV4                     1
#define LWIP_IPV6                     1
#define LWIP_ICMP                     1
#define LWIP_ICMP6                    1
#define LWIP_RAW                      0
#define LWIP_UDP                      1
#define LWIP_TCP                      1
#define LWIP_DHCP                     1
#define DHCP_DOES_ARP_CHECK           0 /* the server has looked; a second and a half for the same again */
#define LWIP_AUTOIP                   0
#define LWIP_DNS                      0
#define LWIP_IGMP                     0
#define LWIP_IPV6_AUTOCONFIG          1
#define LWIP_IPV6_DHCP6               0
#define LWIP_IPV6_MLD                 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_ND6_QUEUEING             1
#define IP_FRAG                       1
#define IP_REASSEMBLY                 1
#define LWIP_IPV6_FRAG                1
#define LWIP_IPV6_REASS               1
#define IP_REASS_MAX_PBUFS            64
#define ETHARP_SUPPORT_STATIC_ENTRIES 1
#define ARP_TABLE_SIZE                64
#define ARP_QUEUEING                  1
#define LWIP_ARP                      1
#define LWIP_ETHERNET                 1
/* Neighbours, routers, prefixes: each of 8 interfaces may have a gateway that stays */
#define LWIP_ND6_NUM_NEIGHBORS        20
#define LWIP_ND6_NUM_ROUTERS          8
#define LWIP_ND6_NUM_PREFIXES         8
#define LWIP_HAVE_LOOPIF              0
#define LWIP_NETIF_LOOPBACK           0
#define LWIP_NETIF_TX_SINGLE_PBUF     0
#define LWIP_NETIF_HOSTNAME           0
#define LWIP_NETIF_STATUS_CALLBACK    0
#define LWIP_CHECKSUM_CTRL_PER_NETIF  1
#define LWIP_CHECKSUM_ON_COPY         0
#define SO_REUSE                      1
#define IPV6_FRAG_COPYHEADER          1 /* pointers of 64 bits do not fit beside a fragment header */

/* super-segments */
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1
#define TCP_MSS                        65000
#define TCP_CALCULATE_EFF_SEND_MSS     0
#define LWIP_WND_SCALE                 1
#define TCP_RCV_SCALE                  7
#define TCP_WND                        (4 * 1024 * 1024)
#define TCP_SND_BUF                    (2 * 1024 * 1024)
#define TCP_SND_QUEUELEN               1024
#define TCP_SNDLOWAT                   (256 * 1024)
#define TCP_SNDQUEUELOWAT              512
#define TCP_OVERSIZE                   0
#define TCP_QUEUE_OOSEQ                1
#define TCP_OOSEQ_MAX_BYTES            (1024 * 1024)
#define TCP_WND_UPDATE_THRESHOLD       (1024 * 1024)
#define LWIP_TCP_TIMESTAMPS            0
#define LWIP_TCP_SACK_OUT              1
#define TCP_LISTEN_BACKLOG             0
#define MEMP_NUM_TCP_PCB               16384
#define TCP_MSL                        1000UL

#define LWIP_STATS        0
#define LWIP_DEBUG        0
#define LWIP_NOASSERT     1
#define LWIP_CALLBACK_API 1
#define LWIP_EVENT_API    0

/* Initial sequence numbers after RFC 6528: address.c */
uint32_t unikernel_isn(const void *local, uint16_t local_port, const void *remote, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN unikernel_isn

/* The gateways that the boot parameters name: config.c */
struct netif;
struct ip4_addr;
struct netif *unikernel_route4(const struct ip4_addr *from);
#define LWIP_HOOK_IP4_ROUTE_SRC(from, to) unikernel_route4(from)
struct ip6_addr;
const struct ip6_addr *unikernel_gateway6(const struct netif *netif);
#define LWIP_HOOK_ND6_GET_GW(netif, to) unikernel_gateway6(netif)

#endif
