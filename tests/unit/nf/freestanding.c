/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The string functions a platform owes its programs, and an entry point: with these and the simulated platform the
 * programs link without any library. Linked by the check `nf-freestanding`, never run.
 */
#include "../../../nf/platform/platform.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    volatile uint8_t *t = to;
    const uint8_t *f = from;
    for (size_t i = 0; i < size; i++)
        t[t < f ? i : size - 1 - i] = f[t < f ? i : size - 1 - i];
    return to;
}

void *memset(void *to, int value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++) {
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *s)
{
    const volatile char *end = s;
    while (*end)
        end++;
    return (size_t)(end - s);
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (uint8_t)*a - (uint8_t)*b;
}

void _start(void);
void _start(void)
{
    static char name[] = "iperf", *argv[] = {name, NULL};
    nf_main(1, argv);
}
