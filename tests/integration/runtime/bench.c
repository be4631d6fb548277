/* SPDX-License-Identifier: Apache-2.0 */
/* Times of each step of a start, cold and from a parked shell, and memory per idle container. Not a test: run by hand.
 * bench-runtime [cold|pool|memory] [n] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

enum { STEPS = 24, RUNS = 1000 };
static struct {
    char name[STEP_NAME_SIZE];
    double us[RUNS];
    unsigned n;
} table[STEPS];
static unsigned rows;

static void put(const char *name, double us)
{
    unsigned i = 0;

    while (i < rows && strcmp(table[i].name, name))
        i++;
    if (i == rows && rows < STEPS)
        snprintf(table[rows++].name, STEP_NAME_SIZE, "%s", name);
    if (i < STEPS && table[i].n < RUNS)
        table[i].us[table[i].n++] = us;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(const char *title)
{
    printf("%-24s %8s %8s %8s\n", title, "min", "median", "p90");
    for (unsigned i = 0; i < rows; i++) {
        qsort(table[i].us, table[i].n, sizeof(double), compare);
        printf("%-24s %8.0f %8.0f %8.0f\n", table[i].name, table[i].us[0], table[i].us[table[i].n / 2],
               table[i].us[table[i].n * 9 / 10]);
    }
}

static void check(int result, struct run *run)
{
    char text[512];

    if (result) {
        fprintf(stderr, "%s\n", error_text(run->err, text, sizeof(text)));
        exit(1);
    }
}

static void one(bool pool, bool writable)
{
    struct run run;
    uint64_t begun = monotonic_ns(), started, ended;
    unsigned long long app = 0;

    run_init(&run, "clock", NULL);
    if (writable) {
        run.plan.root.read_only = false;
        run.plan.root.writable_bytes = 1 << 24;
    }
    begun = monotonic_ns();
    check(run_create(&run), &run);
    uint64_t created = monotonic_ns();
    if (pool) {
        check(run_root(&run), &run);
        check(shell_wait(run.shell, 5000, &run.err), &run);
        usleep(20000);
        run.steps.count = 0;
        begun = created = monotonic_ns();
    }
    check(run_start(&run), &run);
    started = monotonic_ns();
    run_wait(&run);
    sscanf(run.output, "%llu", &app);
    for (uint32_t i = 0; i < run.steps.count; i++)
        put(run.steps.list[i].name, (double)run.steps.list[i].duration_ns / 1e3);
    put("= shell_create", (double)(created - begun) / 1e3);
    put("= to main()", (double)(app - begun) / 1e3);
    put("= to started", (double)(started - begun) / 1e3);
    ended = monotonic_ns();
    check(run_end(&run), &run);
    put("= destroy", (double)(monotonic_ns() - ended) / 1e3);
    usleep(getenv("GAP") ? (unsigned)atoi(getenv("GAP")) * 1000 : 0);
    run_clear(&run);
}

/* What is neither free nor a cached page of a file. */
static double used_kb(void)
{
    static const struct {
        const char *name;
        double sign;
    } fields[] = {{"MemTotal", 1}, {"MemFree", -1}, {"Buffers", -1}, {"Cached", -1}, {"Shmem", 1}};
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128], name[64];
    double kb = 0, value;

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "%63[^:]: %lf", name, &value) == 2)
            for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
                if (!strcmp(name, fields[i].name))
                    kb += fields[i].sign * value;
    if (f)
        fclose(f);
    return kb;
}

static void memory(int n)
{
    struct run *runs = calloc((size_t)n, sizeof(*runs));
    double before = 0, after;
    struct container_stats stats;
    unsigned long long charged = 0;

    for (int i = 0; i < n; i++) {
        run_init(&runs[i], "sleep", "1000", NULL);
        check(run_start(&runs[i]), &runs[i]);
        if (i == n / 10 - 1) {
            sleep(1);
            before = used_kb();
        }
    }
    sleep(1);
    after = used_kb();
    for (int i = n / 10; i < n; i++)
        if (!container_stats(runs[i].container, &stats, NULL))
            charged += stats.memory_bytes;
    printf("%d idle containers: %.1f KiB each of host memory, %.1f KiB each in their memory cgroups\n", n,
           (after - before) / (n - n / 10), (double)charged / (n - n / 10) / 1024);
    char command[128];

    snprintf(command, sizeof(command), "cat /proc/%d/smaps_rollup; ls -l /proc/%d/exe",
             container_pid(runs[n - 1].container), container_pid(runs[n - 1].container));
    if (system(command))
        printf("no smaps\n");
    fflush(stdout);
    if (getenv("HOLD"))
        sleep((unsigned)atoi(getenv("HOLD")));
    for (int i = 0; i < n; i++)
        run_clear(&runs[i]);
    free(runs);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "cold";
    int n = argc > 2 ? atoi(argv[2]) : 100;

    harness_open();
    if (!strcmp(what, "memory"))
        memory(n);
    else
        for (int i = 0; i < n + 5; i++) {
            one(!strcmp(what, "pool"), argc > 3);
            if (i == 4)
                rows = 0, memset(table, 0, sizeof(table));
        }
    if (rows)
        print(what);
    harness_close();
    return 0;
}
