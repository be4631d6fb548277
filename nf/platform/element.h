/* SPDX-License-Identifier: Apache-2.0 */
/* What nf_element_run(), the same everywhere, and the packet input and output of each platform give each other. */
#ifndef NF_PLATFORM_ELEMENT_H
#define NF_PLATFORM_ELEMENT_H

#include "nfv/element.h"
#include "platform.h"

/* Opens the ports. names: "eth0,eth1", NULL: the default. Fills ret_ports; 0, or an nf_error after saying what is wrong. */
int element_ports_open(const char *names, unsigned count, struct nfv_port *ret_ports);

/* From now on the platform calls element_batch(). */
void element_ports_start(void);

/* What of a batch could not be sent. */
extern uint64_t element_unsent;

void element_batch(struct nfv_packet *packets, unsigned count);

#endif
