/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots to start from: for the machine images used last, one guest was booted until its application listened, was
 * written to memory, and ended. Starts map that memory copy-on-write, so that they neither boot nor own what they do
 * not change. Made by a thread of their own while no request is under way; taken by the workers.
 */
#ifndef CORACLE_LAUNCHER_TEMPLATES_H
#define CORACLE_LAUNCHER_TEMPLATES_H

#include "launcher/launcher.h"

struct templates;

int templates_open(struct launcher *l, struct error **err);
/* Ends the guest that is waited for, if any. */
void templates_close(struct launcher *l);

/* A descriptor of the snapshot that fits the plan, owned by the caller; -1: there is none (yet). */
int template_take(struct launcher *l, const struct launch_plan *plan);

/* After a start: this plan is worth a snapshot, which is made if there is none. */
void template_learn(struct launcher *l, const struct launch_plan *plan);

/* One is being made for the plan, or will be. */
bool template_awaited(struct launcher *l, const struct launch_plan *plan);

/* What of a plan makes its guest, before it is somebody: image, size, arguments, limits. plan_clear() ends the copy. */
int template_plan_copy(const struct launch_plan *plan, struct launch_plan *ret);
/* Whether the same guest does for both (limits can be changed). */
bool template_same(const struct launch_plan *a, const struct launch_plan *b);

/* Forgets those that use a layer. */
void template_drop(struct launcher *l, const char *layer);

/* How many there are. */
unsigned template_count(struct launcher *l);

#endif
