/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line, device by device. Nothing is left to QEMU's defaults, user configuration or the file system: files
 * are descriptors. The order of devices is the order of LOAD, so that nics[0] is the guest's first interface.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "guest/session.h"
#include "qemu/machine.h"

enum { FDSET_BASE = 1, FDSETS_PER_DISK = 3 };
enum { MEMORY_STEP = 128 << 20, SLOTS_MAX = 32 };                      /* an update that adds memory takes one slot */
enum { MMIO_BASE = 0xfeb00000, MMIO_BYTES = 512, MMIO_FIRST_IRQ = 5 }; /* of QEMU's microvm with one IOAPIC */

struct words {
    struct buffer *out;
    const struct machine *machine;
    int count;
    unsigned slot; /* next virtio-mmio slot */
};

const char *machine_type(enum monitor_boot boot)
{
    return boot == MONITOR_BOOT_DISK || boot == MONITOR_BOOT_MULTIBOOT ? "q35" : "microvm";
}

bool machine_has_room(const struct machine *m)
{
    return m->vcpus_max > m->vcpus || m->memory_max_bytes > m->memory_bytes;
}

static bool is_microvm(const struct machine *m)
{
    return machine_type(m->boot)[0] == 'm';
}

const char *machine_cpu(bool kvm)
{
    return kvm ? "host" : "max";
}

static void end(struct words *w)
{
    buffer_char(w->out, '\0');
    w->count++;
}

static void word(struct words *w, const char *text)
{
    buffer_text(w->out, text);
    end(w);
}

/* option, then its value as printf() makes it */
#define option(w, name, ...)                                                                                           \
    do {                                                                                                               \
        word(w, name);                                                                                                 \
        buffer_printf((w)->out, __VA_ARGS__);                                                                          \
        end(w);                                                                                                        \
    } while (0)

/* "virtio-net" is virtio-net-device in its slot, or virtio-net-pci; what follows is the caller's, then end(). */
static void begin_device(struct words *w, const char *kind)
{
    word(w, "-device");
    if (is_microvm(w->machine))
        buffer_printf(w->out, "%s-device,bus=virtio-mmio-bus.%u", kind, w->slot++);
    else
        buffer_printf(w->out, "%s-pci", kind);
}

static bool is_uuid(const char *id)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (strlen(id) != sizeof(form) - 1)
        return false;
    for (size_t i = 0; form[i]; i++)
        if (form[i] == '-' ? id[i] != '-' : !isxdigit((unsigned char)id[i]))
            return false;
    return true;
}

static void add_general(struct words *w)
{
    const struct machine *m = w->machine;
    uint64_t cache = m->memory_bytes / 4 >> 20; /* of translated code, MiB: a bound, not a need */

    word(w, "qemu-system-x86_64");
    word(w, "-name");
    buffer_text(w->out, "guest=");
    for (const char *c = m->name; *c; c++) { /* a comma ends a value, two are one */
        if (*c == ',')
            buffer_char(w->out, ',');
        buffer_char(w->out, *c);
    }
    end(w);
    word(w, "-nodefaults");
    word(w, "-no-user-config");
    word(w, "-no-reboot");
    word(w, "-S");
    option(w, "-display", "none");
    option(w, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    if (m->kvm)
        option(w, "-accel", "kvm");
    else
        option(w, "-accel", "tcg,thread=multi,tb-size=%" PRIu64, cache < 32 ? 32 : cache > 256 ? 256 : cache);
    option(w, "-cpu", "%s", machine_cpu(m->kvm));
    if (m->vcpus_max > m->vcpus)
        option(w, "-smp", "cpus=%u,maxcpus=%u", m->vcpus, m->vcpus_max);
    else
        option(w, "-smp", "%u", m->vcpus);
    if (is_uuid(m->id))
        option(w, "-uuid", "%s", m->id);
    option(w, "-rtc", "base=utc");
}

static void add_memory(struct words *w)
{
    const struct machine *m = w->machine;

    const uint64_t steps = (m->memory_max_bytes - m->memory_bytes) / MEMORY_STEP;

    if (m->memory_max_bytes > m->memory_bytes)
        option(w, "-m", "%" PRIu64 "K,slots=%" PRIu64 ",maxmem=%" PRIu64 "K", m->memory_bytes >> 10,
               steps < 1           ? 1
               : steps > SLOTS_MAX ? SLOTS_MAX
                                   : steps,
               m->memory_max_bytes >> 10);
    else
        option(w, "-m", "%" PRIu64 "K", m->memory_bytes >> 10);
    option(w, "-object", "memory-backend-file,id=ram,mem-path=/proc/self/fd/%d,size=%" PRIu64 ",share=%s", m->ram_fd,
           m->memory_bytes, m->ram_private ? "off" : "on");
}

static void add_board(struct words *w)
{
    if (is_microvm(w->machine)) {
        /* without PIT and PIC Linux cannot calibrate its clock under emulation */
        option(w, "-machine",
               "microvm,x-option-roms=off,pit=on,pic=on,rtc=on,isa-serial=on,acpi=off,usb=off,pcie=off,"
               "auto-kernel-cmdline=off,memory-backend=ram");
        option(w, "-global", "virtio-mmio.force-legacy=false");
        return;
    }
    option(w, "-machine", "q35,usb=off,vmport=off,sata=off,smbus=off,graphics=off,memory-backend=ram");
    if (w->machine->boot == MONITOR_BOOT_DISK) /* no boot loader: the end instead of a wait for ever */
        option(w, "-boot", "strict=on,reboot-timeout=0");
    option(w, "-device", "pvpanic");
    option(w, "-device", "vmgenid,guid=auto");
}

/* Whether a word "key=..." stands before the "--" that ends the kernel's own words. */
static bool mentions(const char *line, size_t size, const char *key)
{
    size_t n = strlen(key);

    for (size_t at = 0; at + n < size; at++)
        if ((at == 0 || line[at - 1] == ' ') && memcmp(line + at, key, n) == 0 && line[at + n] == '=')
            return true;
    return false;
}

/* Bytes of the line before its word "--"; the whole length when it has none. */
static size_t own_words(const char *line)
{
    for (const char *at = line; (at = strstr(at, "--")); at += 2)
        if ((at == line || at[-1] == ' ') && (at[2] == ' ' || at[2] == '\0'))
            return (size_t)(at - line);
    return strlen(line);
}

static void add_words(struct buffer *line, size_t begin, const char *format, ...)
{
    char text[96];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (line->length > begin && line->data[line->length - 1] != ' ')
        buffer_char(line, ' ');
    buffer_text(line, text);
}

static void add_linux_words(const struct machine *m, struct buffer *line, size_t begin, size_t size)
{
    static const char *const defaults[][2] = {{"console", "ttyS0"}, {"panic", "-1"}, {"reboot", "t"}};

    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        if (!mentions(m->parameters, size, defaults[i][0]))
            add_words(line, begin, "%s=%s", defaults[i][0], defaults[i][1]);
    if (!m->kvm) /* it would count ticks of a timer that comes late on a busy host, and panic; KVM's guests skip it too
                  */
        add_words(line, begin, "no_timer_check");
    if (!m->kvm && m->tsc_khz && !mentions(m->parameters, size, "tsc_early_khz"))
        add_words(line, begin, "tsc_early_khz=%u", m->tsc_khz); /* the TSC of emulation is the host's */
}

unsigned machine_mmio_devices(const struct machine *m)
{
    return m->nic_count + m->disk_count + !!(m->flags & MONITOR_LOAD_RANDOM) + !!(m->flags & MONITOR_LOAD_BALLOON) +
           !!(m->flags & MONITOR_LOAD_CONSOLE) + !!(m->flags & MONITOR_LOAD_SESSIONS);
}

/* QEMU would write these words itself, but behind "--", where Linux does not look, and the last device first. */
void machine_kernel_line(const struct machine *m, struct buffer *line)
{
    const size_t size = own_words(m->parameters), begin = line->length;

    buffer_add(line, m->parameters, size);
    if (m->boot == MONITOR_BOOT_LINUX)
        add_linux_words(m, line, begin, size);
    for (unsigned i = 0; is_microvm(m) && i < machine_mmio_devices(m); i++)
        add_words(line, begin, "virtio_mmio.device=512@0x%x:%u", MMIO_BASE + i * MMIO_BYTES, MMIO_FIRST_IRQ + i);
    if (m->parameters[size])
        add_words(line, begin, "%s", "");
    buffer_text(line, m->parameters + size);
}

static void add_kernel(struct words *w)
{
    const struct machine *m = w->machine;

    if (m->restore) {
        option(w, "-incoming", "defer");
        return;
    }
    if (m->kernel_fd < 0)
        return;
    option(w, "-kernel", "/proc/self/fd/%d", m->kernel_fd);
    if (m->initrd_fd >= 0)
        option(w, "-initrd", "/proc/self/fd/%d", m->initrd_fd);
    word(w, "-append");
    machine_kernel_line(m, w->out);
    end(w);
}

static void add_channels(struct words *w)
{
    const struct machine *m = w->machine;

    option(w, "-chardev", "socket,id=qmp,fd=%d", m->qmp_fd);
    option(w, "-mon", "chardev=qmp,mode=control");
    option(w, "-chardev", "socket,id=console,fd=%d", m->console_fd);
    option(w, "-serial", "chardev:console");
    option(w, "-chardev", "socket,id=agent,fd=%d", m->agent_fd);
    option(w, "-device", "isa-serial,index=1,chardev=agent");
    if (m->boot == MONITOR_BOOT_UNIKERNEL) /* PORT_EXIT of include/abi/boot.h */
        option(w, "-device", "isa-debug-exit,iobase=0x604,iosize=4");
}

static void add_fd_list(struct words *w, const char *name, const int *fds, unsigned n)
{
    buffer_printf(w->out, ",%s=", name);
    for (unsigned i = 0; i < n; i++)
        buffer_printf(w->out, "%s%d", i ? ":" : "", fds[i]);
}

static void add_backend(struct words *w, unsigned i, const struct machine_nic *n)
{
    unsigned queues = n->nic.queues;

    if (n->nic.backend == MONITOR_NET_VHOST_USER) {
        option(w, "-chardev", "socket,id=switch%u,path=/proc/self/fd/%d", i, n->fds[0]); /* see preload.c */
        option(w, "-netdev", "vhost-user,id=net%u,chardev=switch%u,queues=%u", i, i, queues);
    } else if (n->nic.backend != MONITOR_NET_NONE) {
        word(w, "-netdev");
        buffer_printf(w->out, "tap,id=net%u", i);
        add_fd_list(w, "fds", n->fds, queues);
        if (n->nic.backend == MONITOR_NET_VHOST) {
            buffer_text(w->out, ",vhost=on");
            add_fd_list(w, "vhostfds", n->fds + queues, queues);
        }
        end(w);
    }
}

static void add_nic(struct words *w, unsigned i, const struct machine_nic *n)
{
    const uint8_t *mac = n->nic.mac;

    add_backend(w, i, n);
    begin_device(w, "virtio-net");
    buffer_printf(w->out, ",id=nic%u,mac=%02x:%02x:%02x:%02x:%02x:%02x", i, mac[0], mac[1], mac[2], mac[3], mac[4],
                  mac[5]);
    if (n->nic.backend != MONITOR_NET_NONE)
        buffer_printf(w->out, ",netdev=net%u", i);
    if (n->nic.queues > 1)
        buffer_text(w->out, ",mq=on");
    if (!is_microvm(w->machine))
        buffer_printf(w->out, ",romfile=,vectors=%u", 2 * n->nic.queues + 2);
    end(w);
}

/* A descriptor under a name that QEMU's block layer opens. */
static void add_file(struct words *w, unsigned set, int fd, const char *node, const char *driver, bool read_only)
{
    option(w, "-add-fd", "fd=%d,set=%u", fd, set);
    option(w, "-blockdev", "{\"driver\":\"%s\",\"node-name\":\"%s\",\"filename\":\"/dev/fdset/%u\",\"read-only\":%s}",
           driver, node, set, read_only ? "true" : "false");
}

static void add_format(struct words *w, const char *driver, const char *node, const char *file, const char *backing,
                       bool read_only)
{
    word(w, "-blockdev");
    buffer_printf(w->out, "{\"driver\":\"%s\",\"node-name\":\"%s\",\"file\":\"%s\",\"read-only\":%s", driver, node,
                  file, read_only ? "true" : "false");
    if (strcmp(driver, "qcow2") == 0) { /* never the one that the image names */
        if (backing)
            buffer_printf(w->out, ",\"backing\":\"%s\"", backing);
        else
            buffer_text(w->out, ",\"backing\":null");
    }
    buffer_text(w->out, "}");
    end(w);
}

/* disk: what the guest sees. image: the file of LOAD. With an overlay: disk -> [written before the snapshot ->] image.
 */
static void add_disk_nodes(struct words *w, unsigned i, const struct machine_disk *d)
{
    const bool read_only = d->disk.read_only || d->disk.overlay;
    const unsigned set = FDSET_BASE + i * FDSETS_PER_DISK;
    char file[24], image[24], node[24], below[24];

    snprintf(file, sizeof(file), "imagefile%u", i);
    snprintf(image, sizeof(image), d->disk.overlay ? "image%u" : "disk%u", i);
    add_file(w, set, d->fd, file, d->block_device ? "host_device" : "file", read_only);
    add_format(w, d->disk.format ? "qcow2" : "raw", image, file, NULL, read_only);
    if (!d->disk.overlay)
        return;
    snprintf(below, sizeof(below), "%s", image);
    if (d->snapshot_size) {
        snprintf(file, sizeof(file), "writtenfile%u", i);
        add_file(w, set + 1, d->snapshot_fd, file, "file", true);
        option(w, "-blockdev",
               "{\"driver\":\"raw\",\"node-name\":\"writtenpart%u\",\"file\":\"%s\",\"offset\":%" PRIu64
               ",\"size\":%" PRIu64 ",\"read-only\":true}",
               i, file, d->snapshot_offset, d->snapshot_size);
        snprintf(file, sizeof(file), "writtenpart%u", i);
        snprintf(node, sizeof(node), "written%u", i);
        add_format(w, "qcow2", node, file, below, true);
        snprintf(below, sizeof(below), "%s", node);
    }
    snprintf(file, sizeof(file), "overlayfile%u", i);
    snprintf(node, sizeof(node), "disk%u", i);
    add_file(w, set + 2, d->overlay_fd, file, "file", false);
    add_format(w, "qcow2", node, file, below, false);
}

static void add_disk(struct words *w, unsigned i, const struct machine_disk *d)
{
    add_disk_nodes(w, i, d);
    begin_device(w, "virtio-blk");
    buffer_printf(w->out, ",id=blk%u,drive=disk%u", i, i);
    if (w->machine->boot == MONITOR_BOOT_DISK)
        buffer_printf(w->out, ",bootindex=%u", i);
    end(w);
}

static void add_other_devices(struct words *w)
{
    const struct machine *m = w->machine;

    if (m->flags & MONITOR_LOAD_RANDOM) {
        option(w, "-object", "rng-builtin,id=entropy");
        begin_device(w, "virtio-rng");
        buffer_text(w->out, ",rng=entropy");
        end(w);
    }
    if (m->flags & MONITOR_LOAD_BALLOON) {
        begin_device(w, "virtio-balloon");
        buffer_text(w->out, ",id=balloon,deflate-on-oom=on,free-page-reporting=on");
        end(w);
    }
    if (m->flags & MONITOR_LOAD_CONSOLE) {
        option(w, "-chardev", "socket,id=hvc0,fd=%d", m->virtio_console_fd);
        begin_device(w, "virtio-serial");
        buffer_text(w->out, ",id=hvc");
        end(w);
        option(w, "-device", "virtconsole,bus=hvc.0,chardev=hvc0");
    }
    if (m->flags & MONITOR_LOAD_SESSIONS) {
        option(w, "-chardev", "socket,id=sessions,fd=%d", m->sessions_fd);
        begin_device(w, "virtio-serial");
        buffer_text(w->out, ",id=ports");
        end(w);
        option(w, "-device", "virtserialport,bus=ports.0,chardev=sessions,name=" SESSION_PORT);
    }
}

int machine_words(const struct machine *m, struct buffer *out)
{
    struct words w = {.out = out, .machine = m};

    add_general(&w);
    add_memory(&w);
    add_board(&w);
    add_kernel(&w);
    add_channels(&w);
    for (unsigned i = 0; i < m->nic_count; i++)
        add_nic(&w, i, &m->nics[i]);
    for (unsigned i = 0; i < m->disk_count; i++)
        add_disk(&w, i, &m->disks[i]);
    add_other_devices(&w);
    return out->failed ? -ENOMEM : w.count;
}
