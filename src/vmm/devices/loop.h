/* SPDX-License-Identifier: Apache-2.0 */
/* The device thread: waits for notifications and back ends, polls while traffic flows, sleeps when it does not. */
#ifndef CORACLE_VMM_LOOP_H
#define CORACLE_VMM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/devices/device.h"
#include "vmm/devices/place.h"

enum { LOOP_SOURCE_MAX = 96 };

struct loop;

/* A back end's readable descriptor (index: which of several). Returns true when it did some work (and so may have
 * more). Device lock held. */
typedef bool (*loop_ready)(struct device *device, unsigned index);

int loop_create(struct loop **ret, struct error **err);
/* Watches all notify_fds of the device and, when fd >= 0, a back end's descriptor. */
int loop_add(struct loop *loop, struct device *device, int fd, loop_ready ready, struct error **err);
/* The same piece by piece: one queue's notify_fd; a descriptor on the device's behalf, one of several
 * perhaps: ready is told index. */
int loop_add_queue(struct loop *loop, struct device *device, unsigned queue, struct error **err);
int loop_add_back_end(struct loop *loop, struct device *device, int fd, unsigned index, loop_ready ready,
                      struct error **err);
/* Another descriptor in the place of the device's first back end, which was closed. Between pause and resume. */
int loop_replace(struct loop *loop, struct device *device, int fd);
struct place *loop_place(struct loop *loop);           /* for place_vcpu(), before the start */
int loop_start(struct loop *loop, struct error **err); /* starts the thread */
/* Once, when it was started: the C library's part of the thread's start is over, a sandbox may close. */
void loop_await_start(struct loop *loop);
void loop_pause(struct loop *loop); /* returns when no device is being worked on, until resumed */
void loop_resume(struct loop *loop);
void loop_settle(struct loop *loop);  /* what the guest had handed over is done, as far as it can be: before the end */
void loop_destroy(struct loop *loop); /* stops the thread; accepts NULL */

#endif
