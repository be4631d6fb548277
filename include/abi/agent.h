/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a guest's agent listens, and the words that host and unikernel use of docs/formats/guest-agent.md: lines over a
 * vsock stream that the host opens. The guest greets, says that its application serves, and takes the request to end.
 * Shared by host and guest; strict C11.
 */
#ifndef CORACLE_ABI_AGENT_H
#define CORACLE_ABI_AGENT_H

#define AGENT_VSOCK_PORT 1024 /* of the guest */

#define AGENT_HELLO    "hello 1\n"
#define AGENT_READY    "ready\n"
#define AGENT_POWEROFF "poweroff\n"

#endif
