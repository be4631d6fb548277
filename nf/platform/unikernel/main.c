/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the first C function to the program and its loop. Runs at CPL 3 on the boot stack for ever.
 *
 * The loop looks for work, and when there is none it looks a little longer before it sleeps: a packet that comes within
 * the window finds the guest awake. The window grows while packets come and shrinks to nothing when they do not, so an
 * idle VM costs nothing. While large packets come in numbers looking is a waste of a core: the monitor tells of several
 * at once, and to be woken for those is cheaper.
 */
#include "unikernel.h"

#include "lwip/timeouts.h"

#include "../platform.h"

/* See unikernel.h: these are there when the program needs them. */
#pragma weak net_start
#pragma weak net_parameter
#pragma weak net_restored
#pragma weak net_rehearse
#pragma weak net_flush
#pragma weak net_round
#pragma weak net_next
#pragma weak net_interrupts
#pragma weak net_is_bulk
#pragma weak net_rested
#pragma weak element_poll
#pragma weak element_interrupts
#pragma weak element_active

enum {
    REST_LATER_NS = 20000000,
    GOODBYE_NS = 20000000,
    STATUS_STOPPED = 128 + 15, /* as after SIGTERM */
};
enum {
    ARGUMENT_MAX = 64,
    WINDOW_MAX_NS = 50000,
    WINDOW_MIN_NS = 2000,
    WINDOW_BULK_NS = 1000,
    WINDOW_FIRST_NS = 200000, /* whoever had it started is about to come: falling asleep and waking cost as much */
};

static char parameters[BOOT_PARAMETERS_SIZE];
static char *arguments[ARGUMENT_MAX + 1];
struct net_config network_config[NET_MAX];
static struct nf_timer *timers;
static struct nf_timer begin_later;
static struct {
    void (*hook)(void *context);
    void *context;
} stopping;
static uint64_t firing_until; /* of the round of timers_run() under way, 0: none */

void unikernel_main(const struct boot_info *info);

u32_t sys_now(void);
u32_t sys_now(void)
{
    return (u32_t)(cpu_ns() / 1000000);
}

static void take_word(char *to, size_t size, const char *word)
{
    size_t n = 0;

    for (; word[n] && n + 1 < size; n++)
        to[n] = word[n];
    to[n] = '\0';
}

static bool starts_with(const char *word, const char *prefix, const char **ret_rest)
{
    size_t n = strlen(prefix);

    if (memcmp(word, prefix, n) != 0)
        return false;
    *ret_rest = word + n;
    return true;
}

/* "key=value ... -- argv0 argument ..."; %XX in an argument stands for one byte, so that it may hold a space. */
static char *decode(char *word)
{
    char *to = word;

    for (const char *from = word; *from; from++) {
        if (from[0] == '%' && from[1] && from[2]) {
            unsigned high = (unsigned)(from[1] <= '9' ? from[1] - '0' : (from[1] | 32) - 'a' + 10);
            unsigned low = (unsigned)(from[2] <= '9' ? from[2] - '0' : (from[2] | 32) - 'a' + 10);
            *to++ = (char)(high << 4 | low);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return word;
}

/* text: a copy of the parameters, cut into words here. arguments are its owner's; NULL: only the platform's part. */
static int parse_parameters(char *text, char **to)
{
    const char *rest;
    bool ours = true;
    int count = 0;
    char *at = text;

    memset(network_config, 0, sizeof(network_config));
    take_word(text, BOOT_PARAMETERS_SIZE, (const char *)BOOT_PARAMETERS_ADDRESS);
    while (*at) {
        char *word = at;
        while (*at && *at != ' ')
            at++;
        if (*at)
            *at++ = '\0';
        if (!*word || starts_with(word, "virtio_mmio.device=", &rest))
            continue; /* pvh_devices.c has seen to it; QEMU writes it behind everything */
        if (!ours) {
            if (to && count < ARGUMENT_MAX)
                to[count++] = decode(word);
        } else if (strcmp(word, "--") == 0) {
            ours = false;
        } else if (net_parameter) {
            net_parameter(network_config, word); /* others are the monitor's (virtio_mmio.device=): not ours to judge */
        }
    }
    return count;
}

/* Another guest than the one the snapshot was taken of, with the same program in the same state: its arguments stay. */
static void restored(void)
{
    char text[BOOT_PARAMETERS_SIZE];

    parse_parameters(text, NULL);
    if (net_restored)
        net_restored(network_config);
    vsock_restored();
    if (net_flush)
        net_flush();
    boot_shared()->ready = 1;
}

/* Each page that is touched for the first time costs some 20 us under PVM: a guest that waits to be somebody touches
 * beforehand what becoming it will touch. */
static bool rehearse(void)
{
    static uint64_t rehearsed; /* generation in which it was */
    char text[BOOT_PARAMETERS_SIZE];

    if (!(boot.flags & BOOT_PARKED) || rehearsed == boot_shared()->generation + 1)
        return false;
    rehearsed = boot_shared()->generation + 1;
    parse_parameters(text, NULL);
    if (net_rehearse)
        net_rehearse(network_config);
    return true;
}

static uint64_t next_wake(uint64_t timer)
{
    uint64_t stack = net_next ? net_next() : 0;

    if (timer && (!stack || timer < stack))
        return timer;
    return stack;
}

/* Timers first: what they ask for is done in the same round. Whatever called the program counts as work, so that
 * nothing it asked for waits for the next interrupt. */
static bool work(uint64_t *ret_timer)
{
    bool worked = timers_run();

    if (net_round)
        worked |= net_round();
    if (element_poll)
        worked |= element_poll();
    worked |= vsock_poll();
    if (net_flush)
        net_flush();
    *ret_timer = timers ? timers->due : 0;
    return worked;
}

/* What no start needs to wait for. */
static void begin_rest(struct nf_timer *timer)
{
    (void)timer;
    vsock_init();
}

/* The program says what it has to say; what it sent goes out, then the VM ends as a process would that was told to. */
static void __attribute__((noreturn)) end_as_asked(void)
{
    uint64_t end = cpu_ns() + GOODBYE_NS, timer;

    if (stopping.hook)
        stopping.hook(stopping.context);
    while (cpu_ns() < end)
        work(&timer);
    nf_exit(STATUS_STOPPED);
}

void nf_on_stop(void (*hook)(void *context), void *context)
{
    stopping.hook = hook;
    stopping.context = context;
}

static void interrupts_on(bool on)
{
    if (net_interrupts)
        net_interrupts(on);
    if (element_interrupts)
        element_interrupts(on);
}

static void __attribute__((noreturn)) run(void)
{
    uint64_t window = WINDOW_FIRST_NS, last = cpu_ns(), timer;
    bool paid = false, slept = false;

    for (;;) {
        uint64_t interrupts = boot_shared()->interrupts;

        if (cpu_restored()) { /* before anything looks at the clock: it may have been a long sleep */
            restored();
            window = WINDOW_FIRST_NS;
        }
        if (slept)
            last = cpu_ns();
        slept = false;
        if (vsock_stop_wanted())
            end_as_asked();
        if (work(&timer)) {
            if (console_is_due())
                console_flush();
            paid = true;
            last = cpu_ns();
            continue;
        }
        if (cpu_ns() - last < (net_is_bulk && net_is_bulk() ? WINDOW_BULK_NS : window)) {
            __asm__ volatile("pause");
            continue;
        }
        window = paid ? WINDOW_MAX_NS : window / 2 > WINDOW_MIN_NS ? window / 2 : WINDOW_MIN_NS;
        paid = false;
        if (rehearse())
            continue;
        interrupts_on(true);
        if (!work(&timer)) {
            console_flush();
            cpu_idle(interrupts, next_wake(timer));
            if (net_rested)
                net_rested();
        } else {
            paid = true;
        }
        interrupts_on(false);
        slept = true;
    }
}

void unikernel_main(const struct boot_info *info)
{
    int count, status;

    cpu_init(info);
    heap_init(boot.free_start, boot.memory_bytes);
    console_init();
    if (!(boot.flags & BOOT_DIRECT) && !entropy_stir() && boot.flags & BOOT_WEAK_SEED)
        nf_print(NF_LOG, "no entropy: neither RDSEED, RDRAND nor virtio-rng; sequence numbers can be foreseen\n");
    count = parse_parameters(parameters, arguments);
    if (count == 0)
        arguments[count++] = (char *)(uintptr_t) "unikernel";
    status = nf_main(count, arguments);
    if (status != NF_RUN)
        nf_exit(status);
    if (net_start && !(element_active && element_active()))
        net_start();
    begin_later.fire = begin_rest;
    nf_timer_start(&begin_later, cpu_ns() + REST_LATER_NS);
    boot_shared()->ready = 1; /* seen when the guest sleeps for the first time */
    if (!(boot.flags & BOOT_DIRECT))
        nf_print(NF_LOG, "unikernel: ready\n");
    run();
}

/* ---- program services that are not the network's ---- */

void *nf_alloc(size_t size)
{
    return unikernel_calloc(1, size);
}

void nf_free(void *memory)
{
    unikernel_free(memory);
}

void nf_write(enum nf_stream stream, const char *text, size_t size)
{
    (void)stream; /* one console */
    console_write(text, size);
}

void nf_timer_stop(struct nf_timer *timer)
{
    if (!timer->link)
        return;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->link = NULL;
}

void nf_timer_start(struct nf_timer *timer, uint64_t due)
{
    struct nf_timer **at = &timers;

    nf_timer_stop(timer);
    timer->due = due > firing_until ? due : firing_until + 1; /* what is due already fires in the next round */
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    timer->next = *at;
    timer->link = at;
    if (timer->next)
        timer->next->link = &timer->next;
    *at = timer;
}

bool timers_run(void)
{
    bool fired = false;

    firing_until = nf_now();
    while (timers && timers->due <= firing_until) {
        struct nf_timer *timer = timers;
        nf_timer_stop(timer);
        timer->fire(timer);
        fired = true;
    }
    firing_until = 0;
    return fired;
}
