/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out: only when host.conf names an uplink. A veth pair joins the fabric with the launcher's own network
 * namespace; one nftables table there masquerades what links marked `uplink` send, and forwards published ports. IPv4, and
 * IPv6 where host.conf says so.
 * Any thread may call; changes are made one at a time.
 */
#ifndef CORACLE_LAUNCHER_UPLINK_H
#define CORACLE_LAUNCHER_UPLINK_H

#include "launcher/launcher.h"

struct uplink;

/* Makes or completes the pair and forwarding; the tables stay as they are until uplink_refresh(). Not called when no
 * uplink is configured. */
int uplink_open(struct launcher *l, struct uplink **ret_uplink, struct error **err);
void uplink_close(struct uplink *uplink); /* what it made stays for the instances; accepts NULL */

/* Whether a plan's ports may be published: UNSUPPORTED_BY_TECHNOLOGY with what to configure. uplink may be NULL. */
int uplink_check(const struct launcher *l, const struct launch_plan *plan, struct error **err);

/* Publishes an instance's ports to the addresses of its first interface. ADDRESS_TAKEN when another instance has one of them. */
int uplink_publish(struct uplink *uplink, const char *id, const struct fabric_port *to, const struct spec_port *ports,
                   size_t count, struct error **err);
/* As uplink_publish(), for an adopted instance: in force after uplink_refresh(). */
int uplink_restore(struct uplink *uplink, const char *id, const struct fabric_port *to, const struct spec_port *ports,
                   size_t count, struct error **err);
void uplink_unpublish(struct uplink *uplink, const char *id); /* uplink may be NULL */

/* After links changed: which subnets may go out. gone: a link that was removed, or NULL. */
int uplink_refresh(struct uplink *uplink, const struct link *gone, struct error **err);

#endif
