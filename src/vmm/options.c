/* SPDX-License-Identifier: Apache-2.0 */
/* Reads coracle-vmm's options; called once by main(), before anything is opened. Kept in step with coracle-vmm(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/devices/net.h"
#include "vmm/options.h"
#include "vmm/vm.h"

static const struct option long_options[] = {
    {"kernel", required_argument, NULL, 'k'},
    {"memory", required_argument, NULL, 'm'},
    {"append", required_argument, NULL, 'a'},
    {"initrd", required_argument, NULL, 'R'},
    {"vcpus", required_argument, NULL, 'n'},
    {"entry", required_argument, NULL, 'e'},
    {"probe", no_argument, NULL, 'p'},
    {"tap", required_argument, NULL, 't'},
    {"queues", required_argument, NULL, 'q'},
    {"vhost", no_argument, NULL, 'x'},
    {"vhost-user", required_argument, NULL, 'u'},
    {"mac", required_argument, NULL, 'M'},
    {"console", required_argument, NULL, 'c'},
    {"virtio-console", no_argument, NULL, 'C'},
    {"input", required_argument, NULL, 'i'},
    {"disk", required_argument, NULL, 'd'},
    {"rng", no_argument, NULL, 'r'},
    {"vsock", required_argument, NULL, 'V'},
    {"cid", required_argument, NULL, 'I'},
    {"balloon", optional_argument, NULL, 'b'},
    {"supervised", no_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {0},
};

static const char usage[] =
    "usage: coracle-vmm --kernel FILE [--initrd FILE] [--append PARAMETERS] [--memory SIZE] [--vcpus N]\n"
    "                   [--tap NAME[,mac=MAC]... [--vhost] | --vhost-user PATH] [--queues N] [--mac MAC]\n"
    "                   [--console FD] [--disk FILE[,readonly|private]]... [--virtio-console] [--input FD] [--rng]\n"
    "                   [--vsock PATH [--cid N]] [--balloon[=SIZE]]\n"
    "       coracle-vmm --probe\n"
    "\n"
    "Runs a unikernel or a kernel in a virtual machine of its own on /dev/kvm, until it ends.\n"
    "\n"
    "  --kernel FILE        unikernel image; or an ELF with a PVH entry (vmlinux) or a bzImage, where KVM has VT-x or "
    "SVM\n"
    "  --initrd FILE        initial file system of a kernel\n"
    "  --vcpus N            processors of a kernel, 1 to 64 (default 1)\n"
    "  --entry direct|pvh   how a unikernel is entered (default: direct)\n"
    "  --memory SIZE        guest memory, e.g. 8MiB or 6144KiB (default 16MiB)\n"
    "  --append PARAMETERS  a kernel's command line, or boot parameters of a unikernel:\n"
    "                       ip4=ADDRESS/PREFIX gw4=ADDRESS ip6=... -- PROGRAM ARGUMENT...\n"
    "  --tap NAME[,mac=MAC] network through this tap of the present network namespace. Up to 8: eth0, eth1, ...\n"
    "  --vhost              their packets are moved by the kernel's vhost-net\n"
    "  --vhost-user PATH    network through the vhost-user back end that listens there\n"
    "  --queues N           queue pairs of a network device, 1 to 8 (default 1); taps are then multi_queue\n"
    "  --mac MAC            hardware address of the guest's eth0 (default 02:00:00:00:00:01), counted up for others\n"
    "  --console FD         descriptor the guest's output goes to (default 1)\n"
    "  --disk FILE          raw image as a disk that is written; ,readonly: it is not; ,private: what the guest "
    "writes\n"
    "                       stays in memory, the file is only read. Up to 4\n"
    "  --virtio-console     a console device; its output goes where --console says\n"
    "  --input FD           what the guest reads from its console device, a pipe, socket or terminal\n"
    "  --rng                an entropy device\n"
    "  --vsock PATH         a vsock device; programs connect to the socket PATH and say \"CONNECT PORT\" or \"ACCEPT "
    "PORT\"\n"
    "  --cid N              the guest's address for it (default 3)\n"
    "  --balloon[=SIZE]     a balloon device: free memory goes back to the host; SIZE: so much is asked for at the "
    "start\n"
    "  --supervised         started by coracle-launcher, which says everything on descriptor 3; no other option\n"
    "  --probe              runs nothing; says in one line of JSON what KVM this host has\n"
    "  --help, --version\n"
    "\n"
    "Ends with the guest's own exit status; 125 when it could not be started, 126 when it panicked or was reset,\n"
    "128 + N after signal N, 64 for wrong options.\n";

static int invalid(struct error **err, const char *option, const char *value, const char *hint)
{
    int r = error_set(err, EINVAL, "INVALID_VALUE", "--%s: \"%s\" is not valid", option, value);

    error_hint(err, "%s", hint);
    return r;
}

static int parse_mac(const char *option, const char *text, uint8_t mac[6], struct error **err)
{
    uint8_t bytes[6];
    int end = 0;

    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3], &bytes[4],
               &bytes[5], &end) != 6 ||
        text[end] != '\0' || (bytes[0] & 1))
        return invalid(err, option, text, "a unicast address as 02:00:00:00:00:05");
    memcpy(mac, bytes, sizeof(bytes));
    return 0;
}

static int parse_tap(const char *text, struct options *o, struct error **err)
{
    static const char key[] = ",mac=";
    const char *mac = strstr(text, key);
    size_t length = mac ? (size_t)(mac - text) : strlen(text);

    if (o->tap_count == MONITOR_NIC_MAX)
        return invalid(err, "tap", text, "eight taps at most");
    if (length == 0 || length >= IFNAMSIZ || memchr(text, ',', length))
        return invalid(err, "tap", text, "an interface's name, or NAME,mac=02:00:00:00:00:05");
    memcpy(o->taps[o->tap_count].name, text, length);
    return mac ? parse_mac("tap", mac + sizeof(key) - 1, o->taps[o->tap_count++].mac, err) : (o->tap_count++, 0);
}

/* Those that were not told: the first device's, and from there on counted up in the last byte. */
static void number_macs(struct options *o)
{
    static const uint8_t none[6];

    for (unsigned i = 0; i < o->tap_count; i++) {
        if (memcmp(o->taps[i].mac, none, sizeof(none)) != 0)
            continue;
        memcpy(o->taps[i].mac, o->mac, sizeof(o->mac));
        o->taps[i].mac[5] = (uint8_t)(o->mac[5] + i);
    }
}

static int parse_size(const char *option, const char *text, uint64_t *ret, struct error **err)
{
    static const struct {
        const char *name;
        unsigned shift;
    } units[] = {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    char *end = NULL;

    errno = 0;
    unsigned long long number = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    for (size_t i = 0; end && errno == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) == 0 && number <= UINT64_MAX >> units[i].shift) {
            *ret = number << units[i].shift;
            return 0;
        }
    }
    return invalid(err, option, text, "a number and a unit: 6144KiB, 16MiB, 1GiB");
}

static int parse_descriptor(const char *option, const char *text, int *ret, struct error **err)
{
    char *end;
    long fd = strtol(text, &end, 10);

    if (end == text || *end || fd < 0 || fd > 1 << 20 || fcntl((int)fd, F_GETFD) < 0)
        return invalid(err, option, text, "the number of a descriptor that is open, e.g. --console 3 3>guest.log");
    *ret = (int)fd;
    return 0;
}

static int parse_disk(const char *text, struct options *o, struct error **err)
{
    static const struct {
        const char *suffix;
        enum block_mode mode;
    } modes[] = {{",readonly", BLOCK_READ_ONLY}, {",private", BLOCK_PRIVATE}, {"", BLOCK_WRITABLE}};
    size_t length = strlen(text);

    if (o->disk_count == MONITOR_DISK_MAX)
        return invalid(err, "disk", text, "four disks at most");
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        size_t tail = strlen(modes[i].suffix);
        if (length <= tail || strcmp(text + length - tail, modes[i].suffix) != 0)
            continue;
        o->disks[o->disk_count].path = text;
        o->disks[o->disk_count].length = length - tail;
        o->disks[o->disk_count++].mode = modes[i].mode;
        return 0;
    }
    return invalid(err, "disk", text, "a file's name");
}

static int parse_cid(const char *text, uint32_t *ret, struct error **err)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    if (end == text || *end || text[0] == '-' || number < 3 || number >= UINT32_MAX)
        return invalid(err, "cid", text, "a number from 3 to 4294967294");
    *ret = (uint32_t)number;
    return 0;
}

static int take_device_option(int c, const char *value, struct options *o, struct error **err)
{
    switch (c) {
    case 'C':
        o->console = true;
        return 0;
    case 'i':
        o->console = true;
        return parse_descriptor("input", value, &o->input_fd, err);
    case 'd':
        return parse_disk(value, o, err);
    case 'r':
        o->entropy = true;
        return 0;
    case 'V':
        o->vsock = value;
        return *value && strlen(value) < 108 ? 0 : invalid(err, "vsock", value, "a path of at most 107 characters");
    case 'I':
        return parse_cid(value, &o->cid, err);
    case 'b':
        o->balloon = true;
        return value ? parse_size("balloon", value, &o->balloon_bytes, err) : 0;
    default: /* getopt has said what is wrong */
        return error_set(err, EINVAL, "INVALID_VALUE", "wrong options");
    }
}

static int parse_vcpus(const char *text, unsigned *ret, struct error **err)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < 1 || n > VM_VCPU_MAX)
        return invalid(err, "vcpus", text, "a number from 1 to 64");
    *ret = (unsigned)n;
    return 0;
}

static int parse_queues(const char *text, unsigned *ret, struct error **err)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < 1 || n > NET_PAIR_MAX)
        return invalid(err, "queues", text, "a number from 1 to 8");
    *ret = (unsigned)n;
    return 0;
}

static int take_network_option(int c, const char *value, struct options *o, struct error **err)
{
    switch (c) {
    case 't':
        return parse_tap(value, o, err);
    case 'M':
        return parse_mac("mac", value, o->mac, err);
    case 'q':
        return parse_queues(value, &o->queues, err);
    case 'x':
        o->vhost = true;
        return 0;
    case 'u':
        o->vhost_user = value;
        return *value && strlen(value) < 108 ? 0
                                             : invalid(err, "vhost-user", value, "a path of at most 107 characters");
    default:
        return take_device_option(c, value, o, err);
    }
}

static int parse_entry(const char *text, bool *ret, struct error **err)
{
    if (strcmp(text, "direct") != 0 && strcmp(text, "pvh") != 0)
        return invalid(err, "entry", text, "direct or pvh");
    *ret = strcmp(text, "pvh") == 0;
    return 0;
}

static int take_option(int c, const char *value, struct options *o, struct error **err)
{
    switch (c) {
    case 'k':
        o->kernel = value;
        return 0;
    case 'R':
        o->initrd = value;
        return 0;
    case 'n':
        return parse_vcpus(value, &o->vcpus, err);
    case 'e':
        return parse_entry(value, &o->pvh, err);
    case 'p':
        o->probe = true;
        return 0;
    case 'm':
        return parse_size("memory", value, &o->memory_bytes, err);
    case 'a':
        o->parameters = value;
        return 0;
    case 'c':
        return parse_descriptor("console", value, &o->console_fd, err);
    default:
        return take_network_option(c, value, o, err);
    }
}

int options_parse(int argc, char **argv, struct options *ret, struct error **err)
{
    struct options o = {.parameters = "",
                        .vcpus = 1,
                        .queues = 1,
                        .memory_bytes = 16 << 20,
                        .console_fd = STDOUT_FILENO,
                        .input_fd = -1,
                        .cid = 3,
                        .mac = {2, 0, 0, 0, 0, 1}};
    int c, r = 0;

    while (r == 0 && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (c == 'h' || c == 'v') {
            printf("%s%s", c == 'h' ? usage : CORACLE_VERSION, c == 'h' ? "" : "\n");
            *ret = (struct options){0};
            return 0;
        }
        if (c == 's')
            o.supervised = true;
        else
            r = take_option(c, optarg, &o, err);
    }
    if (r == 0 && o.supervised ? argc != 2 : r == 0 && ((!o.kernel && !o.probe) || optind != argc)) {
        r = error_set(err, EINVAL, "INVALID_VALUE", "%s%s", o.kernel ? "an argument too many: " : "--kernel is needed",
                      o.kernel ? argv[optind] : "");
        error_hint(err, "coracle-vmm --help");
    }
    if (r == 0 && o.tap_count && o.vhost_user)
        r = invalid(err, "vhost-user", o.vhost_user, "either --tap or --vhost-user");
    if (r < 0)
        return r;
    number_macs(&o);
    *ret = o;
    return 0;
}
