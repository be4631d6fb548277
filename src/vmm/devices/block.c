/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2, 5.2). One request: 16 bytes of header, data, one byte of status, cut into descriptors as the
 * driver likes. A request that makes no sense is answered with an error when it has a place for the answer; the disk's
 * end, the data's size and the number of sectors are checked before the file is touched. Requests are served in order
 * on the device thread; creation is the main thread's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/devices/block_file.h"

enum {
    REQUEST_READ = 0,
    REQUEST_WRITE = 1,
    REQUEST_FLUSH = 4,
    REQUEST_ID = 8,
    REQUEST_DISCARD = 11,
    REQUEST_ZERO = 13
};
enum { STATUS_OK, STATUS_ERROR, STATUS_UNSUPPORTED };
enum { FEATURE_SEGMENTS = 2, FEATURE_READ_ONLY = 5, FEATURE_FLUSH = 9, FEATURE_DISCARD = 13, FEATURE_ZERO = 14 };
enum {
    BATCH = 16,
    SERIAL_BYTES = 20,
    SEGMENTS_MAX = VIRTQUEUE_SEGMENT_MAX - 2, /* of data, beside header and status */
    DATA_BYTES_MAX = 32 << 20,                /* a longer request would hold up the other devices */
    RANGE_SECTORS_MAX = 1 << 22,              /* 2 GiB discarded or zeroed at once */
};

struct block {
    struct device device;
    struct block_file file;
    struct block_counters counters;
    char serial[SERIAL_BYTES];
};

struct block_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct block_range { /* of discard and write zeroes */
    uint64_t sector;
    uint32_t sectors, flags;
};

struct block_config { /* virtio 1.2, 5.2.4 */
    uint64_t capacity;
    uint32_t size_max, segment_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t block_size;
    uint8_t physical_block_exponent, alignment_offset;
    uint16_t io_minimum;
    uint32_t io_optimal;
    uint8_t writeback, unused;
    uint16_t queues;
    uint32_t discard_sectors_max, discard_segment_max, discard_alignment;
    uint32_t zero_sectors_max, zero_segment_max;
    uint8_t zero_may_unmap, unused2[3];
} __attribute__((packed));
_Static_assert(sizeof(struct block_config) == 60, "as the specification has it");

static struct block *block_of(struct device *d)
{
    return (struct block *)d;
}

static bool within(const struct block *b, uint64_t sector, uint64_t sectors)
{
    return sector <= b->file.sectors && sectors <= b->file.sectors - sector;
}

static uint8_t move_data(struct block *b, const struct virtqueue_chain *chain, const struct block_header *h,
                         uint64_t *ret_written)
{
    bool write = h->type == REQUEST_WRITE;
    uint64_t offset = write ? sizeof(*h) : 0;
    uint64_t bytes = write ? chain->readable_bytes - sizeof(*h) : chain->writable_bytes - 1;
    struct iovec segments[VIRTQUEUE_SEGMENT_MAX];
    int r;

    if (bytes % SECTOR || bytes > DATA_BYTES_MAX || !within(b, h->sector, bytes / SECTOR))
        return STATUS_ERROR;
    unsigned count = virtqueue_chain_slice(chain, !write, offset, bytes, segments);
    if (write) {
        r = block_file_write(&b->file, h->sector, segments, count, bytes);
        b->counters.writes++;
        b->counters.written_bytes += r == 0 ? bytes : 0;
    } else {
        r = block_file_read(&b->file, h->sector, segments, count, bytes);
        b->counters.reads++;
        b->counters.read_bytes += r == 0 ? bytes : 0;
        *ret_written = r == 0 ? bytes : 0;
    }
    return r == 0 ? STATUS_OK : STATUS_ERROR;
}

static uint8_t give_serial(struct block *b, const struct virtqueue_chain *chain, uint64_t *ret_written)
{
    uint64_t room = chain->writable_bytes - 1;

    *ret_written = virtqueue_chain_write(chain, 0, b->serial, room < SERIAL_BYTES ? room : SERIAL_BYTES);
    return STATUS_OK;
}

/* One range a request: the configuration says so. */
static uint8_t change_range(struct block *b, const struct virtqueue_chain *chain, uint32_t type)
{
    struct block_range range;
    int r;

    if (b->file.mode == BLOCK_READ_ONLY)
        return STATUS_UNSUPPORTED; /* never offered */
    if (chain->readable_bytes != sizeof(struct block_header) + sizeof(range))
        return STATUS_ERROR;
    virtqueue_chain_read(chain, sizeof(struct block_header), &range, sizeof(range));
    if (range.flags & ~(type == REQUEST_ZERO ? 1u : 0u))
        return STATUS_UNSUPPORTED;
    if (range.sectors == 0 || range.sectors > RANGE_SECTORS_MAX || !within(b, range.sector, range.sectors))
        return STATUS_ERROR;
    b->counters.discards++;
    if (type == REQUEST_ZERO)
        r = block_file_zero(&b->file, range.sector, range.sectors);
    else
        r = block_file_discard(&b->file, range.sector, range.sectors);
    return r == 0 ? STATUS_OK : STATUS_ERROR;
}

/* The header is copied once; what is checked is what is used. */
static uint8_t serve(struct block *b, const struct virtqueue_chain *chain, uint64_t *ret_written)
{
    struct block_header h;

    if (virtqueue_chain_read(chain, 0, &h, sizeof(h)) != sizeof(h))
        return STATUS_ERROR;
    switch (h.type) {
    case REQUEST_READ:
    case REQUEST_WRITE:
        return move_data(b, chain, &h, ret_written);
    case REQUEST_FLUSH:
        b->counters.flushes++;
        return block_file_flush(&b->file) == 0 ? STATUS_OK : STATUS_ERROR;
    case REQUEST_ID:
        return give_serial(b, chain, ret_written);
    case REQUEST_DISCARD:
    case REQUEST_ZERO:
        return change_range(b, chain, h.type);
    default:
        return STATUS_UNSUPPORTED;
    }
}

static bool notified(struct device *d, unsigned queue)
{
    struct block *b = block_of(d);
    struct virtqueue *q = &d->queues[queue].ring;
    struct virtqueue_chain chain;
    int r = 0;

    for (unsigned i = 0; i < BATCH && (r = virtqueue_pop(q, &chain)) > 0; i++) {
        uint64_t written = 0;
        if (chain.writable_bytes == 0) {
            q->broken = "a block request without a place for its status";
            break;
        }
        uint8_t status = serve(b, &chain, &written);
        b->counters.errors += status != STATUS_OK;
        virtqueue_chain_write(&chain, chain.writable_bytes - 1, &status, sizeof(status));
        virtqueue_push(q, chain.head, (uint32_t)written + 1);
    }
    device_publish(d, queue);
    if (q->broken)
        device_fail(d, q->broken);
    return true;
}

static void config(struct device *d, void *to, unsigned offset, unsigned length)
{
    const struct block_config c = {
        .capacity = block_of(d)->file.sectors,
        .segment_max = SEGMENTS_MAX,
        .block_size = SECTOR,
        .queues = 1,
        .discard_sectors_max = RANGE_SECTORS_MAX,
        .discard_segment_max = 1,
        .discard_alignment = 8,
        .zero_sectors_max = RANGE_SECTORS_MAX,
        .zero_segment_max = 1,
        .zero_may_unmap = 1,
    };

    if (offset < sizeof(c))
        memcpy(to, (const uint8_t *)&c + offset, length < sizeof(c) - offset ? length : sizeof(c) - offset);
}

static const char *unsaveable(struct device *d)
{
    return block_of(d)->file.changed ? "what was written to its private disk would not be in the snapshot" : NULL;
}

static void destroy(struct device *d)
{
    block_file_close(&block_of(d)->file);
    free(d);
}

static const struct device_ops block_ops = {
    .name = "block",
    .type = VIRTIO_BLOCK,
    .queue_count = 1,
    .patient = true,
    .notified = notified,
    .config = config,
    .unsaveable = unsaveable,
    .destroy = destroy,
};

int block_create(const struct guest_memory *memory, int file_fd, enum block_mode mode, const char *serial,
                 struct device **ret, struct error **err)
{
    uint64_t features =
        VIRTIO_F_INDIRECT | VIRTIO_F_EVENT | VIRTIO_FEATURE(FEATURE_SEGMENTS) | VIRTIO_FEATURE(FEATURE_FLUSH);
    struct block *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set(err, ENOMEM, "NO_MEMORY", "no memory for a block device");
    features |= mode == BLOCK_READ_ONLY ? VIRTIO_FEATURE(FEATURE_READ_ONLY)
                                        : VIRTIO_FEATURE(FEATURE_DISCARD) | VIRTIO_FEATURE(FEATURE_ZERO);
    int r = block_file_open(file_fd, mode, &b->file, err);
    if (r < 0) {
        free(b);
        return r;
    }
    r = device_init(&b->device, &block_ops, memory, features, err);
    if (r < 0) {
        b->file.fd = -1; /* the caller's */
        block_file_close(&b->file);
        free(b);
        return r;
    }
    memcpy(b->serial, serial, strnlen(serial, sizeof(b->serial)));
    b->device.calls = block_file_calls(mode);
    *ret = &b->device;
    return 0;
}

int block_attach(struct device *d, struct loop *loop, struct error **err)
{
    return loop_add(loop, d, -1, NULL, err);
}

struct block_counters block_counters(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    struct block_counters counters = block_of(d)->counters;
    pthread_mutex_unlock(&d->lock);
    return counters;
}
