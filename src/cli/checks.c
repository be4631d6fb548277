/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's look at the host: kernel features asked of the kernel, tools looked for. Unprivileged; changes nothing.
 * A feature is probed by a call that fails in two different ways when it is there and when it is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "cli/program.h"
#include "cli/text.h"

/* First bytes of a file, newline cut; "" when it cannot be read. */
static char *read_word(const char *path)
{
    auto_file FILE *in = fopen(path, "re");
    char line[512] = "";

    if (in && !fgets(line, sizeof(line), in))
        line[0] = 0;
    line[strcspn(line, "\n")] = 0;
    return text_dup(line);
}

static bool file_has_line_with(const char *path, const char *word)
{
    auto_file FILE *in = fopen(path, "re");
    char line[512];

    while (in && fgets(line, sizeof(line), in))
        if (strstr(line, word))
            return true;
    return false;
}

static void check_kernel(struct findings *f)
{
    struct utsname u;

    uname(&u);
    finding_add(f, "kernel", FINDING_OK, NULL, "%s %s on %s", u.sysname, u.release, u.machine);
}

static void check_user_namespaces(struct findings *f)
{
    auto_free char *max = read_word("/proc/sys/user/max_user_namespaces");

    if (access("/proc/self/ns/user", F_OK) < 0)
        finding_add(f, "user namespaces", FINDING_FAIL, "a kernel with CONFIG_USER_NS", "the kernel has none");
    else if (!strcmp(max, "0"))
        finding_add(f, "user namespaces", FINDING_FAIL, "sysctl user.max_user_namespaces=65536",
                    "forbidden: user.max_user_namespaces is 0");
    else
        finding_add(f, "user namespaces", FINDING_OK, NULL, "available, at most %s", *max ? max : "(not readable)");
}

/* Names of the limits' controllers that are missing in a line of names, or "" (caller frees). */
static char *missing_controllers(bool (*has)(const char *name))
{
    static const char *const names[] = {"cpu", "cpuset", "memory", "pids", "io"};
    char *missing = text_dup("");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *longer;

        if (has(names[i]))
            continue;
        longer = text_printf("%s%s%s", missing, *missing ? ", " : "", names[i]);
        free(missing);
        missing = longer;
    }
    return missing;
}

static bool in_v2(const char *name)
{
    auto_free char *line = read_word("/sys/fs/cgroup/cgroup.controllers");
    char *save = NULL;

    for (char *p = strtok_r(line, " ", &save); p; p = strtok_r(NULL, " ", &save))
        if (!strcmp(p, name))
            return true;
    return false;
}

/* A v1 controller is there when it is mounted; io is called blkio then. */
static bool in_v1(const char *name)
{
    auto_free char *path = text_printf("/sys/fs/cgroup/%s", !strcmp(name, "io") ? "blkio" : name);

    return access(path, F_OK) == 0;
}

static void check_cgroups(struct findings *f)
{
    auto_free char *missing = NULL;
    struct statfs fs;
    bool is_v2;

    if (statfs("/sys/fs/cgroup", &fs) < 0) {
        finding_add(f, "cgroups", FINDING_FAIL, "mount -t cgroup2 none /sys/fs/cgroup", "not mounted");
        return;
    }
    is_v2 = fs.f_type == CGROUP2_SUPER_MAGIC;
    missing = missing_controllers(is_v2 ? in_v2 : in_v1);
    if (*missing)
        finding_add(
            f, "cgroups", FINDING_WARN, "boot without cgroup_disable=, and with systemd.unified_cgroup_hierarchy=1",
            "version %s; limits of %s cannot be enforced and will be refused", is_v2 ? "2" : "1 (hybrid)", missing);
    else if (is_v2)
        finding_add(f, "cgroups", FINDING_OK, NULL, "version 2 with cpu, cpuset, memory, pids, io");
    else
        finding_add(f, "cgroups", FINDING_OK, NULL,
                    "version 1 (hybrid) with cpu, cpuset, memory, pids, io; version 2 starts containers faster");
}

static void check_filesystems(struct findings *f)
{
    long r = syscall(SYS_mount_setattr, -1, "", 0, NULL, 0);

    if (file_has_line_with("/proc/filesystems", "\toverlay"))
        finding_add(f, "overlay", FINDING_OK, NULL, "available");
    else
        finding_add(f, "overlay", FINDING_WARN, "modprobe overlay",
                    "not loaded: only read-only images of a single layer can run");
    if (r < 0 && errno == ENOSYS)
        finding_add(f, "idmapped mounts", FINDING_FAIL, "Linux 5.12 or newer", "the kernel has none");
    else
        finding_add(f, "idmapped mounts", FINDING_OK, NULL, "available");
}

static void check_confinement(struct findings *f)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    auto_free char *lsm = read_word("/sys/kernel/security/lsm");

    if (access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0)
        finding_add(f, "seccomp", FINDING_OK, NULL, "available");
    else
        finding_add(f, "seccomp", FINDING_FAIL, "a kernel with CONFIG_SECCOMP_FILTER", "the kernel has none");
    if (abi > 0)
        finding_add(f, "landlock", FINDING_OK, NULL, "available, version %ld", abi);
    else
        finding_add(f, "landlock", FINDING_WARN, "boot with lsm=landlock,... (Linux 5.13 or newer)",
                    "not active: instances lack this further line of defence");
    if (*lsm)
        finding_add(f, "security modules", FINDING_OK, NULL, "%s", lsm);
    else
        finding_add(f, "security modules", FINDING_OK, NULL, "not readable here (securityfs is not mounted)");
}

static const char *kvm_flavour(void)
{
    static const char *const modules[][2] = {{"/sys/module/kvm_pvm", "PVM (no hardware virtualisation below)"},
                                             {"/sys/module/kvm_intel", "VT-x"},
                                             {"/sys/module/kvm_amd", "SVM"}};

    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
        if (access(modules[i][0], F_OK) == 0)
            return modules[i][1];
    return "built in";
}

static void check_kvm(struct findings *f)
{
    auto_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION)
        finding_add(f, "KVM", FINDING_OK, NULL, "available: %s", kvm_flavour());
    else if (fd < 0 && errno == EACCES)
        finding_add(f, "KVM", FINDING_OK, NULL, "present: %s (this account may not open it, nor needs to)",
                    kvm_flavour());
    else
        finding_add(
            f, "KVM", FINDING_WARN,
            "modprobe kvm_intel or kvm_amd; enable virtualisation in the firmware, or nesting in the hypervisor",
            "no usable /dev/kvm: virtual machines could only be emulated, which is slow; containers need none");
}

static void check_xen(struct findings *f)
{
    auto_free char *type = read_word("/sys/hypervisor/type");

    if (strcmp(type, "xen") != 0)
        finding_add(f, "Xen", FINDING_WARN, "apt install xen-system-amd64, and boot its entry",
                    "this host does not run under Xen: no *.xen technology");
    else if (access("/proc/xen/privcmd", F_OK) < 0 && access("/dev/xen/privcmd", F_OK) < 0)
        finding_add(f, "Xen", FINDING_WARN, "run coracle in domain 0", "a Xen guest, not domain 0");
    else
        finding_add(f, "Xen", FINDING_OK, NULL, "domain 0");
}

static void check_network(struct findings *f)
{
    auto_free char *filtered = read_word("/proc/sys/net/bridge/bridge-nf-call-iptables");

    if (access("/sys/module/bridge", F_OK) == 0 || access("/lib/modules", F_OK) == 0)
        finding_add(f, "bridge", FINDING_OK, NULL, "%s",
                    access("/sys/module/bridge", F_OK) == 0 ? "available" : "will be loaded when it is needed");
    else
        finding_add(f, "bridge", FINDING_WARN, "a kernel with CONFIG_BRIDGE and CONFIG_VETH",
                    "neither built in visibly nor as a module");
    finding_add(f, "bridge filter", FINDING_OK, NULL, "%s",
                !strcmp(filtered, "1") ? "br_netfilter is on for the host; the fabric turns it off for itself"
                                       : "br_netfilter does not slow bridges down");
    if (access("/dev/net/tun", F_OK) == 0)
        finding_add(f, "tun/tap", FINDING_OK, NULL, "available");
    else
        finding_add(f, "tun/tap", FINDING_WARN, "modprobe tun", "no /dev/net/tun: virtual machines get no network");
}

static void check_huge_pages(struct findings *f)
{
    auto_file FILE *in = fopen("/proc/meminfo", "re");
    unsigned long total = 0;
    char line[128];

    while (in && fgets(line, sizeof(line), in))
        if (sscanf(line, "HugePages_Total: %lu", &total) == 1)
            break;
    finding_add(f, "huge pages", FINDING_OK, NULL, total ? "%lu reserved" : "none reserved%.0lu (containers use none)",
                total);
}

static void check_tools(struct findings *f)
{
    static const struct {
        const char *name, *for_what, *remedy;
    } tools[] = {
        {"skopeo", "pulling images from a registry", "apt install skopeo"},
        {"nft", "published ports and the uplink", "apt install nftables"},
        {"iperf", "comparing with Debian's iperf in coracle bench", "apt install iperf"},
        {"qemu-system-x86_64", "standard virtual machines", "apt install qemu-system-x86"},
    };

    for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
        if (program_on_path(tools[i].name))
            finding_add(f, tools[i].name, FINDING_OK, NULL, "installed, for %s", tools[i].for_what);
        else
            finding_add(f, tools[i].name, FINDING_WARN, tools[i].remedy, "not installed; needed for %s",
                        tools[i].for_what);
    }
}

void checks_of_host(struct findings *f)
{
    static void (*const checks[])(struct findings *) = {
        check_kernel, check_user_namespaces, check_cgroups, check_filesystems, check_confinement, check_kvm,
        check_xen,    check_huge_pages,      check_network, check_tools,
    };

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        checks[i](f);
}
