/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bridge port of the fabric may send, as nft rules; guard.c fills the sets. Every frame comes from its port's
 * own hardware address; IPv4, IPv6 and ARP from an address of that port; a neighbour advertisement speaks for such an
 * address only. Router advertisements, redirects and the answers of DHCP servers come from nobody. Probing for
 * duplicates and a DHCP client's question (no address yet) pass. Multicast memberships (MLD) are of no use on a bridge
 * that does not snoop, and every start would send some to all neighbours: they stop here, and so does the question for
 * a router, which none could answer. The outer VLAN tag is taken
 * off before this hook, so it hides nothing; what still shows a tag has two, and a receiver takes any number of tags of
 * VLAN 0 off: it is refused.
 *
 * The table's name has a number: raise it when the rules change. A launcher that finds the present one leaves it alone,
 * with the addresses in it, so instances notice no restart. @th,64,128: the target of a neighbour message (RFC 4861).
 */
#include "launcher/guard.h"

const char guard_rules[] =
    /* clang-format off */
    "table bridge coracle4 {\n"
    "  set hardware { typeof iif . ether saddr; }\n"
    "  set sources4 { typeof iif . ether saddr . ip saddr; }\n"
    "  set sources6 { typeof iif . ether saddr . ip6 saddr; }\n"
    "  set targets { typeof iif . ether saddr . @th,64,128; }\n"
    "  chain refuse { counter drop; }\n"
    "  chain v4 {\n"
    "    iif . ether saddr . ip saddr != @sources4 goto v4none\n"
    "    udp sport 67 goto refuse\n"
    "    accept\n"
    "  }\n"
    "  chain v4none {\n"
    "    ip saddr 0.0.0.0 udp sport 68 udp dport 67 iif . ether saddr @hardware accept\n"
    "    goto refuse\n"
    "  }\n"
    "  chain v6 {\n"
    "    icmpv6 type vmap { nd-router-advert : goto refuse, nd-redirect : goto refuse, nd-neighbor-advert : goto advert, nd-neighbor-solicit : goto solicit, mld-listener-query : goto refuse, mld-listener-report : goto refuse, mld-listener-done : goto refuse, mld2-listener-report : goto refuse, nd-router-solicit : goto refuse }\n"
    "    iif . ether saddr . ip6 saddr != @sources6 goto refuse\n"
    "    udp sport 547 goto refuse\n"
    "    accept\n"
    "  }\n"
    "  chain advert {\n"
    "    iif . ether saddr . ip6 saddr != @sources6 goto refuse\n"
    "    iif . ether saddr . @th,64,128 @targets accept\n"
    "    goto refuse\n"
    "  }\n"
    "  chain solicit {\n"
    "    iif . ether saddr . ip6 saddr @sources6 accept\n"
    "    ip6 saddr :: iif . ether saddr . @th,64,128 @targets accept\n"
    "    goto refuse\n"
    "  }\n"
    "  chain neighbour {\n"
    "    arp htype 1 arp hlen 6 arp plen 4 iif . ether saddr @hardware iif . arp saddr ether . arp saddr ip @sources4 accept\n"
    "    arp htype 1 arp hlen 6 arp plen 4 arp saddr ip 0.0.0.0 iif . ether saddr @hardware iif . arp saddr ether @hardware accept\n"
    "    goto refuse\n"
    "  }\n"
    "  chain pre {\n"
    "    type filter hook prerouting priority -250; policy drop;\n"
    "    meta protocol vmap { ip : goto v4, ip6 : goto v6, arp : goto neighbour, 0x8100 : goto refuse, 0x88a8 : goto refuse }\n"
    "    iif . ether saddr @hardware accept\n"
    "    goto refuse\n"
    "  }\n"
    "}\n";
/* clang-format on */
