/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what a figure depends on from /proc, /sys and uname(2); what cannot be read is "unknown". */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/host.h"

static void first_line(const char *path, char *buf, size_t size)
{
    auto_file FILE *f = fopen(path, "re");

    if (!f || !fgets(buf, (int)size, f))
        snprintf(buf, size, "unknown");
    buf[strcspn(buf, "\n")] = '\0';
}

static void read_value(const char *path, const char *key, const char *separators, char *buf, size_t size)
{
    auto_file FILE *f = fopen(path, "re");
    char line[512];

    snprintf(buf, size, "unknown");
    while (f && fgets(line, sizeof(line), f)) {
        char *value = line + strlen(key);

        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        value += strspn(value, separators);
        value[strcspn(value, "\"\n")] = '\0';
        snprintf(buf, size, "%.*s", (int)size - 1, value);
        return;
    }
}

static void read_mitigations(char *buf, size_t size)
{
    static const char folder[] = "/sys/devices/system/cpu/vulnerabilities";
    auto_dir DIR *dir = opendir(folder);
    struct dirent *e;
    size_t used = 0;

    snprintf(buf, size, "unknown");
    while (dir && (e = readdir(dir))) {
        char path[512], state[96];

        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        first_line(path, state, sizeof(state));
        if (strcmp(state, "Not affected") == 0 || used >= size)
            continue;
        used += (size_t)snprintf(buf + used, size - used, "%s%s: %s", used ? "; " : "", e->d_name, state);
    }
}

/* Whether this host is itself a guest: its figures then include another scheduler's. */
static void read_hypervisor(char *buf, size_t size)
{
    char flags[8192] = "";

    first_line("/sys/hypervisor/type", buf, size);
    if (strcmp(buf, "unknown") != 0)
        return;
    auto_file FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(flags, sizeof(flags), f))
        if (strncmp(flags, "flags", 5) == 0)
            break;
    snprintf(buf, size, "%s", strstr(flags, " hypervisor") ? "yes, of unknown kind" : "none");
}

void fingerprint_read(struct fingerprint *ret)
{
    struct fingerprint f = {.cpus = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    time_t now = time(NULL);
    struct utsname u;
    struct tm utc;

    uname(&u);
    snprintf(f.hostname, sizeof(f.hostname), "%.63s", u.nodename);
    snprintf(f.kernel, sizeof(f.kernel), "%.24s %.64s %.32s", u.sysname, u.release, u.machine);
    read_value("/proc/cpuinfo", "model name", "\t :", f.cpu, sizeof(f.cpu));
    read_value("/etc/os-release", "PRETTY_NAME", "=\"", f.distribution, sizeof(f.distribution));
    first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", f.governor, sizeof(f.governor));
    read_hypervisor(f.hypervisor, sizeof(f.hypervisor));
    read_mitigations(f.mitigations, sizeof(f.mitigations));
    f.memory_bytes = (unsigned long long)sysconf(_SC_PHYS_PAGES) * (unsigned long long)sysconf(_SC_PAGESIZE);
    getloadavg(f.load_before, 3);
    gmtime_r(&now, &utc);
    strftime(f.started_at, sizeof(f.started_at), "%Y-%m-%dT%H:%M:%SZ", &utc);
    *ret = f;
}

void fingerprint_end(struct fingerprint *fingerprint)
{
    getloadavg(fingerprint->load_after, 3);
}

json_t *fingerprint_json(const struct fingerprint *f)
{
    return json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:[f,f,f], s:[f,f,f]}", "hostname",
                     f->hostname, "cpu", f->cpu, "cpus", f->cpus, "memory_bytes", (json_int_t)f->memory_bytes, "kernel",
                     f->kernel, "distribution", f->distribution, "governor", f->governor, "hypervisor", f->hypervisor,
                     "mitigations", f->mitigations, "started_at", f->started_at, "load_before", f->load_before[0],
                     f->load_before[1], f->load_before[2], "load_after", f->load_after[0], f->load_after[1],
                     f->load_after[2]);
}
