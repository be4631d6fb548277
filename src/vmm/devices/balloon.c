/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.2, 5.5). Theory of operation:
 *
 * Two ways back for memory. Inflation: the host names a size, the guest allocates pages and sends their numbers.
 * Reporting: a guest with free page reporting sends what its allocator does not use, without being asked, so a big idle
 * guest costs what it works with. Either way the range is checked like any guest address and handed to madvise(); the
 * guest finds zeroes there when it touches it again. A guest may give up pages it needs, its rings among them: it hurts
 * itself only. Runs on the device thread, except creation, configuration and what the header says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "vmm/devices/balloon.h"

/* Queue 4 is the specification's for reports; drivers that count only what was offered use 3 (Linux before 6.11). */
enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATISTICS, QUEUE_REPORT_PACKED, QUEUE_REPORT, QUEUE_COUNT };
enum { FEATURE_STATISTICS = 1, FEATURE_DEFLATE_ON_OOM = 2, FEATURE_REPORTING = 5 };
enum {
    PAGE = 4096,
    BATCH = 32,
    PAGES_AT_ONCE = 256,
    PAGES_MAX = 65536, /* of one chain: more is no driver's way */
    CONFIG_ACTUAL = 4, /* offset */
};
enum { STATISTIC_FREE = 4, STATISTIC_TOTAL = 5, STATISTIC_AVAILABLE = 6, STATISTIC_CACHES = 7, STATISTIC_MAX = 32 };

static const uint32_t calls[] = {SYS_madvise, 0};

struct balloon {
    struct device device;
    bool shared;
    uint32_t target, actual; /* pages */
    struct balloon_counters counters;
    struct balloon_memory last;
    bool statistics_held; /* the guest's buffer, to be given back when new figures are wanted */
    uint16_t statistics_head;
};

struct balloon_state { /* of a snapshot */
    uint32_t target, actual;
    uint32_t statistics_held, statistics_head;
};

struct balloon_config {
    uint32_t target, actual, hint_command, poison;
};

struct statistic {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

static struct balloon *balloon_of(struct device *d)
{
    return (struct balloon *)d;
}

static uint64_t give_back(struct balloon *b, uint8_t *start, uint64_t bytes)
{
    if (bytes == 0 || madvise(start, bytes, b->shared ? MADV_REMOVE : MADV_DONTNEED) < 0)
        return 0;
    return bytes;
}

/* Neighbours go back in one call. A page outside memory breaks the protocol. */
static int take_pages(struct balloon *b, const uint32_t *pages, size_t count)
{
    uint8_t *run = NULL;
    uint64_t bytes = 0;

    for (size_t i = 0; i < count; i++) {
        uint8_t *page = guest_memory_at(b->device.memory, (uint64_t)pages[i] * PAGE, PAGE);
        if (!page)
            return -EPROTO;
        if (run && page == run + bytes) {
            bytes += PAGE;
            continue;
        }
        if (run && page + PAGE == run) {
            run = page;
            bytes += PAGE;
            continue;
        }
        b->counters.inflated_bytes += give_back(b, run, bytes);
        run = page;
        bytes = PAGE;
    }
    b->counters.inflated_bytes += give_back(b, run, bytes);
    return 0;
}

static const char *inflate(struct balloon *b, const struct virtqueue_chain *chain)
{
    uint32_t pages[PAGES_AT_ONCE];
    size_t got;

    if (chain->readable_bytes > PAGES_MAX * sizeof(pages[0]))
        return "a balloon request of too many pages";
    for (uint64_t at = 0; (got = virtqueue_chain_read(chain, at, pages, sizeof(pages))) >= sizeof(pages[0]); at += got)
        if (take_pages(b, pages, got / sizeof(pages[0])) < 0)
            return "a page outside memory given up";
    return NULL;
}

/* A report's segments are the free ranges themselves; only whole host pages of them go back. */
static void take_report(struct balloon *b, const struct virtqueue_chain *chain)
{
    for (unsigned i = 0; i < chain->writable; i++) {
        const struct iovec *s = &chain->segments[chain->readable + i];
        uint64_t from = (uint64_t)((uint8_t *)s->iov_base - b->device.memory->base), to = from + s->iov_len;

        from = (from + PAGE - 1) & ~(uint64_t)(PAGE - 1);
        to &= ~(uint64_t)(PAGE - 1);
        if (from < to)
            b->counters.reported_bytes += give_back(b, b->device.memory->base + from, to - from);
    }
}

static void take_statistics(struct balloon *b, const struct virtqueue_chain *chain)
{
    struct statistic s[STATISTIC_MAX];
    size_t count = virtqueue_chain_read(chain, 0, s, sizeof(s)) / sizeof(s[0]);

    for (size_t i = 0; i < count; i++) {
        if (s[i].tag == STATISTIC_FREE)
            b->last.free = s[i].value;
        else if (s[i].tag == STATISTIC_TOTAL)
            b->last.total = s[i].value;
        else if (s[i].tag == STATISTIC_AVAILABLE)
            b->last.available = s[i].value;
        else if (s[i].tag == STATISTIC_CACHES)
            b->last.caches = s[i].value;
    }
}

/* Returns false when the chain is kept. */
static bool take_chain(struct balloon *b, unsigned queue, const struct virtqueue_chain *chain, const char **ret_wrong)
{
    switch (queue) {
    case QUEUE_INFLATE:
        *ret_wrong = inflate(b, chain);
        return true;
    case QUEUE_STATISTICS:
        take_statistics(b, chain);
        if (b->statistics_held)
            return true; /* one is held back; a driver has only one */
        b->statistics_held = true;
        b->statistics_head = chain->head;
        return false;
    case QUEUE_REPORT_PACKED:
    case QUEUE_REPORT:
        take_report(b, chain);
        return true;
    default: /* deflation: the pages come back when they are touched */
        return true;
    }
}

static bool notified(struct device *d, unsigned queue)
{
    struct virtqueue *q = &d->queues[queue].ring;
    struct virtqueue_chain chain;
    const char *wrong = NULL;
    int r = 0;

    for (unsigned i = 0; !wrong && i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++)
        if (take_chain(balloon_of(d), queue, &chain, &wrong))
            virtqueue_push(q, chain.head, 0);
    device_publish(d, queue);
    if (wrong)
        q->broken = wrong;
    if (q->broken)
        device_fail(d, q->broken);
    return true;
}

static void reset(struct device *d)
{
    struct balloon *b = balloon_of(d);

    b->actual = 0;
    b->statistics_held = false;
    memset(&b->last, 0xff, sizeof(b->last));
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    const struct balloon_config c = {.target = balloon_of(d)->target, .actual = balloon_of(d)->actual};

    if (offset < sizeof(c))
        memcpy(to, (const uint8_t *)&c + offset, length < sizeof(c) - offset ? length : sizeof(c) - offset);
}

static void config_written(struct device *d, const void *from, unsigned offset, unsigned length)
{
    if (offset == CONFIG_ACTUAL && length == sizeof(uint32_t))
        memcpy(&balloon_of(d)->actual, from, sizeof(uint32_t));
}

static size_t save(struct device *d, void *to)
{
    const struct balloon *b = balloon_of(d);
    const struct balloon_state state = {b->target, b->actual, b->statistics_held, b->statistics_head};

    memcpy(to, &state, sizeof(state));
    return sizeof(state);
}

static int restore(struct device *d, const void *from, size_t size)
{
    struct balloon *b = balloon_of(d);
    struct balloon_state state;

    if (size != sizeof(state))
        return -EINVAL;
    memcpy(&state, from, sizeof(state));
    if (state.target > d->memory->bytes / PAGE || state.statistics_held > 1 || state.statistics_head > UINT16_MAX)
        return -EINVAL;
    b->target = state.target;
    b->actual = state.actual;
    b->statistics_held = state.statistics_held;
    b->statistics_head = (uint16_t)state.statistics_head;
    return 0;
}

static void destroy(struct device *d)
{
    free(d);
}

static const struct device_ops balloon_ops = {
    .name = "balloon",
    .type = VIRTIO_BALLOON,
    .queue_count = QUEUE_COUNT,
    .patient = true,
    .reset = reset,
    .notified = notified,
    .config = config,
    .config_written = config_written,
    .save = save,
    .restore = restore,
    .destroy = destroy,
};

int balloon_create(const struct guest_memory *memory, bool shared, struct device **ret, struct error **err)
{
    const uint64_t features = VIRTIO_F_INDIRECT | VIRTIO_F_EVENT | VIRTIO_FEATURE(FEATURE_STATISTICS) |
                              VIRTIO_FEATURE(FEATURE_DEFLATE_ON_OOM) | VIRTIO_FEATURE(FEATURE_REPORTING);
    struct balloon *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a balloon device");
    int r = device_init(&b->device, &balloon_ops, memory, features, err);
    if (r < 0) {
        free(b);
        return r;
    }
    b->shared = shared;
    b->device.calls = calls;
    memset(&b->last, 0xff, sizeof(b->last));
    *ret = &b->device;
    return 0;
}

int balloon_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, -1, NULL, err);
}

int balloon_set(struct device *d, uint64_t bytes)
{
    if (bytes > d->memory->bytes)
        return -ERANGE;
    pthread_mutex_lock(&d->lock);
    balloon_of(d)->target = (uint32_t)(bytes / PAGE);
    device_config_changed(d);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

uint64_t balloon_actual(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    uint64_t pages = balloon_of(d)->actual;
    pthread_mutex_unlock(&d->lock);
    return pages * PAGE;
}

struct balloon_counters balloon_counters(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    struct balloon_counters counters = balloon_of(d)->counters;
    pthread_mutex_unlock(&d->lock);
    return counters;
}

bool balloon_memory(struct device *d, struct balloon_memory *ret)
{
    struct balloon *b = balloon_of(d);

    pthread_mutex_lock(&d->lock);
    bool known = b->last.total != UINT64_MAX || b->last.free != UINT64_MAX;
    if (known)
        *ret = b->last;
    if (b->statistics_held && d->queues[QUEUE_STATISTICS].ring.available) {
        virtqueue_push(&d->queues[QUEUE_STATISTICS].ring, b->statistics_head, 0);
        b->statistics_held = false;
        device_publish(d, QUEUE_STATISTICS);
    }
    pthread_mutex_unlock(&d->lock);
    return known;
}
