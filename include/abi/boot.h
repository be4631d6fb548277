/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest ABI of the unikernel: what its first instruction at CPL 3 finds, and how it talks to what runs it.
 *
 * Two makers of this environment: coracle-vmm (direct entry, flag BOOT_DIRECT: everything is prepared from outside) and
 * the unikernel's own PVH stub (QEMU microvm and other PVH monitors: it prepares the same at ring 0, then drops to CPL
 * 3 for ever). After the entry there is one code. Shared by host and guest: fixed-width, little-endian, strict C11.
 *
 * Address space, identity mapped, one static table that the guest cannot reach:
 *   0x0000      not mapped (a null pointer faults)
 *   0x1000      struct boot_info, read-only
 *   0x2000      boot parameters: one NUL-terminated string, read-only
 *   0x3000      struct boot_shared, read-write: words the guest shows to its monitor
 *   0x4000 up   GDT, IDT, TSS (mapped for ring 0 only), page tables (not mapped)
 *   0x100000    the image: text read-execute, rodata read-only, data and bss read-write, never two of write and execute
 *   free_start  read-write up to memory_bytes
 *   device pages (virtio-mmio, local APIC): read-write, uncached
 * The image starts with a struct boot_image; its segments say what is text, rodata, data (program headers, PVH:
 * symbols). Registers at entry: RDI = address of struct boot_info; RSP = 16-byte aligned below a zero word, on the
 * image's own boot stack; RFLAGS.IF set (a CPL-3 guest cannot change it); everything else 0.
 */
#ifndef CORACLE_ABI_BOOT_H
#define CORACLE_ABI_BOOT_H

#include <stdint.h>

#define BOOT_MAGIC   UINT64_C(0x31656c6361726f43) /* "Coracle1" */
#define BOOT_VERSION UINT32_C(1)

#define BOOT_INFO_ADDRESS       UINT64_C(0x1000)
#define BOOT_PARAMETERS_ADDRESS UINT64_C(0x2000)
#define BOOT_SHARED_ADDRESS     UINT64_C(0x3000)
#define BOOT_TABLES_ADDRESS     UINT64_C(0x4000)
#define BOOT_IMAGE_ADDRESS      UINT64_C(0x100000)
#define BOOT_PARAMETERS_SIZE    UINT32_C(4096)
#define BOOT_DEVICE_MAX         UINT32_C(8)

/* Selectors (Intel SDM volume 3, 3.4.2; the layout PVM and real hardware both accept). */
#define BOOT_SELECTOR_KERNEL_CODE 0x08
#define BOOT_SELECTOR_KERNEL_DATA 0x10
#define BOOT_SELECTOR_USER_DATA   0x2b
#define BOOT_SELECTOR_USER_CODE   0x33
#define BOOT_SELECTOR_TSS         0x40

/* Interrupt vectors. Exceptions 0-31 as the architecture has them; devices from BOOT_VECTOR_DEVICE on. */
#define BOOT_VECTOR_DEVICE UINT8_C(0x40) /* + index of the device in boot_info.devices */
#define BOOT_VECTOR_TIMER  UINT8_C(0x60)

/* The first bytes of the image, at BOOT_IMAGE_ADDRESS: what a maker of the environment must know of it. */
struct boot_image {
    uint64_t magic;           /* BOOT_MAGIC */
    uint64_t version;         /* BOOT_VERSION */
    uint64_t entry;           /* of the direct way in, at CPL 3 */
    uint64_t traps;           /* 256 entry points, BOOT_TRAP_STRIDE bytes apart */
    uint64_t stack_top;       /* boot stack */
    uint64_t fault_stack_top; /* IST 1: page faults and double faults, also of a stack that ran over */
    uint64_t halt;            /* ring-0 code for vector 3: BOOT_HALT_... */
    uint64_t halt_stack_top;  /* TSS.RSP0 */
    uint64_t guard;           /* page to leave unmapped below the boot stack */
};
#define BOOT_TRAP_STRIDE 16

enum boot_flag {
    BOOT_DIRECT = 1,    /* made by coracle-vmm: the ports below are served */
    BOOT_HAS_HALT = 4,  /* int3 enters a ring-0 stub that halts until an interrupt (PVH entry) */
    BOOT_WEAK_SEED = 8, /* nothing gave entropy: the seed is the time */
    BOOT_FACTS = 16,    /* facts are filled and PORT_DEVICE is served */
    BOOT_PARKED = 32,   /* nobody yet: when it sleeps it stands still until boot_shared.generation is another, and then it
                           counts how fast it answers. What it sends before that is dropped, nothing comes */
};

/* With BOOT_HAS_HALT: what int3 does, by RAX. */
#define BOOT_HALT_RESET       UINT64_C(0xffffffffffffffff) /* a triple fault: the reset that all monitors know */
#define BOOT_HALT_FAULT_WHERE UINT64_C(0xfffffffffffffffe) /* RAX = CR2 */
/* Any other value: halt until an interrupt, unless boot_shared.interrupts is not RAX any more. */

/* One virtio-mmio device (virtio 1.2 section 4.2). */
struct boot_device {
    uint64_t address; /* of its register page */
    uint32_t kind;    /* virtio device type: 1 net, 2 block, 3 console, 4 entropy, 19 vsock; 0: probe it */
    uint32_t vector;  /* interrupt vector it raises */
};

/* With BOOT_FACTS, what a driver would read from a device's registers (each read is an exit). The registers stay: a
 * driver that uses them finds the same. */
struct boot_facts {
    uint64_t features;   /* offered */
    uint32_t queue_size; /* the largest */
    uint32_t reserved;
    uint8_t config[24]; /* the device-specific configuration's first bytes; net: MAC address first */
};

struct boot_info {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;        /* enum boot_flag */
    uint64_t memory_bytes; /* RAM from 0 */
    uint64_t free_start;   /* first byte the image does not use, page aligned */
    uint64_t tsc_khz;
    uint64_t wall_clock_ns; /* CLOCK_REALTIME of the host when TSC was wall_clock_tsc */
    uint64_t wall_clock_tsc;
    uint64_t boot_tsc; /* when the monitor was asked to make this VM, or 0 */
    uint8_t seed[32];  /* entropy, fresh for each boot and each restore */
    uint32_t device_count;
    uint32_t apic_khz; /* of the local APIC's timer before its divider; with BOOT_HAS_HALT */
    struct boot_device devices[8];
    struct boot_facts facts[8]; /* of devices[] */
};

/* Written by the guest, read by the monitor (checked: hostile); generation is written by the monitor. */
struct boot_shared {
    /* Raised by each restore from a snapshot, while no guest code runs; boot_info and the parameters are new then: clock,
     * seed, addresses, facts. What the TSC counts may have jumped. The guest takes its new identity before it does
     * anything else and says `ready` again. */
    uint64_t generation;
    uint64_t sleep_until_tsc; /* with PORT_IDLE: wake at this TSC at the latest; 0: no timer */
    uint64_t ready;           /* 1: the application listens; looked at whenever a port is written */
    uint64_t panic;           /* address of a struct boot_panic, 0: none */
    uint64_t interrupts;      /* raised by each interrupt handler; see PORT_IDLE */
    uint64_t idle_count;      /* times the guest went idle, for the monitor's statistics */
};

enum { BOOT_PANIC_WORDS = 32 };

struct boot_panic {
    uint64_t vector, error, rip, rsp, rflags, cr2;
    uint64_t registers[15]; /* rax rbx rcx rdx rsi rdi rbp r8..r15 */
    char message[128];
    uint64_t stack[BOOT_PANIC_WORDS]; /* from rsp up, as far as it is the boot stack; for tools/trace-unikernel */
};

enum { BOOT_QUEUE_MAX = 8 };

/*
 * With BOOT_FACTS: brings a virtio device into use with one exit, in the place of some twenty register writes: reset,
 * features, queues from 0 on, DRIVER_OK, as if they had been written; then each queue is looked at as if notified.
 * status is the answer: the device's status register, DRIVER_OK in it when all went well.
 */
struct boot_setup {
    uint32_t device; /* its index in boot_info.devices */
    uint32_t status;
    uint64_t features; /* accepted */
    uint32_t queue_count, queue_size;
    struct boot_queue {
        uint64_t descriptors, available, used;
    } queues[BOOT_QUEUE_MAX];
};

/* Output of the guest; at most BOOT_TEXT_MAX bytes are taken. */
struct boot_text {
    uint64_t address, length;
};
#define BOOT_TEXT_MAX UINT32_C(65536)

/* I/O ports (32-bit writes; 24-48 us each on PVM-KVM: never on a data path). */
/*
 * Nothing to do: come back on an interrupt or at sleep_until_tsc. The value is the low half of boot_shared.interrupts
 * as it was before the guest looked for work: when it has changed since, the monitor returns at once, so no wake-up is
 * lost.
 */
#define PORT_IDLE UINT16_C(0x600)
/* Value: exit status. QEMU has it as isa-debug-exit,iobase=0x604,iosize=4: it then ends with 2 * status + 1. */
#define PORT_EXIT    UINT16_C(0x604)
#define PORT_PANIC   UINT16_C(0x608) /* boot_shared.panic is filled */
#define PORT_READY   UINT16_C(0x60c) /* look at boot_shared.ready */
#define PORT_TEXT    UINT16_C(0x610) /* value: address of a struct boot_text, below 4 GiB: one exit for all of it */
#define PORT_DEVICE  UINT16_C(0x614) /* value: address of a struct boot_setup, below 4 GiB */
#define PORT_CONSOLE UINT16_C(0x3f8) /* 8-bit: early console, before virtio-console; the 8250's data register */

_Static_assert(sizeof(struct boot_image) == 72, "ABI");
_Static_assert(sizeof(struct boot_device) == 16, "ABI");
_Static_assert(sizeof(struct boot_facts) == 40, "ABI");
_Static_assert(sizeof(struct boot_info) == 104 + 8 * 16 + 8 * 40, "ABI");
_Static_assert(sizeof(struct boot_setup) == 24 + 8 * 24, "ABI");
_Static_assert(sizeof(struct boot_shared) == 48, "ABI");
_Static_assert(sizeof(struct boot_text) == 16, "ABI");

#endif
