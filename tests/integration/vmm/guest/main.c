/* SPDX-License-Identifier: Apache-2.0 */
/* See guest.h: the first C function, and which test runs. */
#include "guest.h"

void unikernel_main(const struct boot_info *info);

static const char *const parameters = (const char *)BOOT_PARAMETERS_ADDRESS;

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"block", drive_block},     {"console", drive_console}, {"entropy", drive_entropy}, {"balloon", drive_balloon},
    {"vsock", drive_vsock},     {"hostile_12", hostile_12}, {"hostile_13", hostile_13}, {"hostile_14", hostile_14},
    {"hostile_15", hostile_15}, {"hostile_16", hostile_16}, {"hostile_17", hostile_17}, {"hostile_18", hostile_18},
    {"storm", hostile_storm},   {"rings", hostile_rings},
};

void fail(const char *what)
{
    say("FAILED: %s\n", what);
    nf_exit(1);
}

void wait_ms(uint64_t ms)
{
    uint64_t end = cpu_ns() + ms * 1000000;

    while (cpu_ns() < end)
        __asm__ volatile("pause");
}

uint64_t parameter(const char *name, uint64_t otherwise)
{
    size_t length = strlen(name);

    for (const char *at = parameters; *at; at++) {
        if (memcmp(at, name, length) != 0 || at[length] != '=')
            continue;
        uint64_t value = 0;
        for (at += length + 1; *at >= '0' && *at <= '9'; at++)
            value = value * 10 + (uint64_t)(*at - '0');
        return value;
    }
    return otherwise;
}

void nf_write(enum nf_stream stream, const char *text, size_t size)
{
    (void)stream;
    console_write(text, size);
    console_flush();
}

void unikernel_main(const struct boot_info *info)
{
    cpu_init(info);
    heap_init(boot.free_start, boot.memory_bytes);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        size_t length = strlen(tests[i].name);
        if (memcmp(parameters, tests[i].name, length) == 0 && (parameters[length] == ' ' || !parameters[length])) {
            tests[i].run();
            say("%s done\n", tests[i].name);
            nf_exit(0);
        }
    }
    fail("no such test");
}
