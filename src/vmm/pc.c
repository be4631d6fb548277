/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of a machine with ring 0; everything else reads as if nobody were there. Interrupt controllers and the timer
 * are KVM's. A hostile guest gets no further than a byte of output per exit: no port has memory behind it but the
 * serial line's few registers, which a lock guards.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/firmware.h"
#include "vmm/pc.h"

enum { SERIAL = 0x3f8, SERIAL_COUNT = 8, KEYBOARD_COMMAND = 0x64, KEYBOARD_RESET = 0xfe, CMOS_DATA = 0x71 };
enum { POWER_ON = 1, POWER_SLEEP = 1 << 13, POWER_TYPE_SHIFT = 10, RESET_BIT = 4 };

/* ---- 8250 without a receiver (PC16550D data sheet) ---- */

enum {
    REG_DATA = 0,
    REG_INTERRUPTS = 1,
    REG_IDENTITY = 2, /* written: FIFO control */
    REG_LINE = 3,
    REG_MODEM = 4,
    REG_LINE_STATUS = 5,
    REG_MODEM_STATUS = 6,
    REG_SCRATCH = 7,
    WANTS_EMPTY = 2,  /* REG_INTERRUPTS */
    DIVISOR = 0x80,   /* REG_LINE: the first two registers are the rate's */
    LOOP = 0x10,      /* REG_MODEM */
    EMPTY = 0x60,     /* REG_LINE_STATUS: ready to take a byte */
    CONNECTED = 0xb0, /* REG_MODEM_STATUS */
    NO_INTERRUPT = 1, /* REG_IDENTITY */
    IS_EMPTY = 2,
    FIFOS = 0xc0,
};

static struct {
    pthread_mutex_t lock;
    uint8_t interrupts, line, modem, scratch, divisor[2];
    bool fifos, empty_told;
    uint8_t power_events[4]; /* nothing ever happens: but what is enabled reads back */
} pc = {.lock = PTHREAD_MUTEX_INITIALIZER, .empty_told = true};

/* The transmitter is empty, always; the driver is told when it wants to know. */
static void serial_tell(struct vm *vm)
{
    const uint64_t one = 1;

    if (!(pc.interrupts & WANTS_EMPTY))
        return;
    pc.empty_told = false;
    if (write(vm->serial_fd, &one, sizeof(one)) < 0)
        return; /* an event that is already there */
}

static uint8_t serial_read(unsigned reg)
{
    uint8_t value;

    if ((pc.line & DIVISOR) && reg <= REG_INTERRUPTS)
        return pc.divisor[reg];
    switch (reg) {
    case REG_INTERRUPTS:
        return pc.interrupts;
    case REG_IDENTITY:
        value = (uint8_t)((pc.empty_told ? NO_INTERRUPT : IS_EMPTY) | (pc.fifos ? FIFOS : 0));
        pc.empty_told = true;
        return value;
    case REG_LINE:
        return pc.line;
    case REG_MODEM:
        return pc.modem;
    case REG_LINE_STATUS:
        return EMPTY;
    case REG_MODEM_STATUS:
        if (!(pc.modem & LOOP))
            return CONNECTED;
        return (uint8_t)((pc.modem & 1) << 5 | (pc.modem & 2) << 3 | (pc.modem & 0xc) << 4);
    case REG_SCRATCH:
        return pc.scratch;
    default:
        return 0;
    }
}

static void serial_write(struct vm *vm, const struct vcpu_callbacks *callbacks, unsigned reg, uint8_t value)
{
    if ((pc.line & DIVISOR) && reg <= REG_INTERRUPTS) {
        pc.divisor[reg] = value;
        return;
    }
    switch (reg) {
    case REG_DATA:
        if (!(pc.modem & LOOP) && callbacks->console)
            callbacks->console(callbacks->context, value);
        serial_tell(vm);
        return;
    case REG_INTERRUPTS:
        pc.interrupts = value & 0xf;
        serial_tell(vm);
        return;
    case REG_IDENTITY:
        pc.fifos = value & 1;
        return;
    case REG_LINE:
        pc.line = value;
        return;
    case REG_MODEM:
        pc.modem = value & 0x1f;
        return;
    case REG_SCRATCH:
        pc.scratch = value;
        return;
    default:
        return;
    }
}

/* ---- the others ---- */

static bool ends(struct vcpu_result *ret, uint32_t status, const char *words)
{
    if (words)
        log_line(LOG_LEVEL_INFO, NULL, "%s", words);
    ret->end = VCPU_EXIT;
    ret->status = status;
    return false;
}

static bool port_write(struct vm *vm, const struct vcpu_callbacks *callbacks, uint16_t port, uint32_t value,
                       struct vcpu_result *ret)
{
    if (port >= SERIAL && port < SERIAL + SERIAL_COUNT) {
        pthread_mutex_lock(&pc.lock);
        serial_write(vm, callbacks, port - SERIAL, (uint8_t)value);
        pthread_mutex_unlock(&pc.lock);
        return true;
    }
    switch (port) {
    case PC_PORT_POWER_EVENT + 2:
        memcpy(pc.power_events + 2, &value, 2);
        return true;
    case PC_PORT_POWER_CONTROL:
        if ((value & POWER_SLEEP) && (value >> POWER_TYPE_SHIFT & 7) == PC_POWER_OFF)
            return ends(ret, 0, NULL);
        return true;
    case PC_PORT_RESET:
        return !(value & RESET_BIT) || ends(ret, 0, "the guest asked to be reset: it ends");
    case KEYBOARD_COMMAND:
        return (value & 0xff) != KEYBOARD_RESET || ends(ret, 0, "the guest asked to be reset: it ends");
    case PORT_EXIT: /* our own unikernel through its PVH entry */
        return ends(ret, value, NULL);
    default:
        return true;
    }
}

static uint32_t port_read(uint16_t port)
{
    uint32_t value = UINT32_MAX; /* nobody there */

    if (port >= SERIAL && port < SERIAL + SERIAL_COUNT) {
        pthread_mutex_lock(&pc.lock);
        value = serial_read(port - SERIAL);
        pthread_mutex_unlock(&pc.lock);
    } else if (port == PC_PORT_POWER_CONTROL) {
        value = POWER_ON;
    } else if (port >= PC_PORT_POWER_EVENT && port < PC_PORT_POWER_CONTROL) {
        value = 0;
        memcpy(&value, pc.power_events + (port - PC_PORT_POWER_EVENT), (size_t)(PC_PORT_POWER_CONTROL - port));
    } else if (port == CMOS_DATA) {
        value = 0; /* a clock that never is in the middle of an update */
    }
    return value;
}

bool pc_port(struct vm *vm, struct kvm_run *run, const struct vcpu_callbacks *callbacks, struct vcpu_result *ret)
{
    uint8_t *at = (uint8_t *)run + run->io.data_offset;
    bool on = true;

    for (uint32_t i = 0; on && i < run->io.count; i++, at += run->io.size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, at, run->io.size <= 4 ? run->io.size : 4);
            on = port_write(vm, callbacks, run->io.port, value, ret);
        } else {
            value = port_read(run->io.port);
            memcpy(at, &value, run->io.size <= 4 ? run->io.size : 4);
        }
    }
    return on;
}
