/* SPDX-License-Identifier: Apache-2.0 */
/* The elements that are shipped, for programs that run them. */
#ifndef NF_ELEMENTS_FORWARD_H
#define NF_ELEMENTS_FORWARD_H

#include "nfv/element.h"

/* IPv4 and IPv6 forwarding between two ports; see forward.c. */
extern const struct nfv_element nfv_forward;

#endif
