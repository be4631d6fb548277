/* SPDX-License-Identifier: Apache-2.0 */
/* What the compiler calls: memory functions and 128-bit division. Not libgcc's, which is built with a red zone that an
 * interrupt at CPL 3 would overwrite. */
#include "unikernel.h"

#include "../platform.h"

__extension__ typedef unsigned __int128 uint128;

uint128 __udivti3(uint128 dividend, uint128 divisor);

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size)::"memory");
    return to;
}

void *memset(void *to, int value, size_t size)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    uint8_t *t = to;
    const uint8_t *f = from;

    if (t <= f || t >= f + size)
        return memcpy(to, from, size);
    while (size--)
        t[size] = f[size];
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

/* Bit by bit, from the first bit the quotient can have. Nothing divides so on a packet path. */
uint128 __udivti3(uint128 dividend, uint128 divisor)
{
    uint128 quotient = 0;
    int shift = 0;

    if (divisor == 0)
        unikernel_panic("128-bit division by zero");
    while (!(divisor >> 127) && divisor < dividend) {
        divisor <<= 1;
        shift++;
    }
    for (; shift >= 0; shift--, divisor >>= 1) {
        quotient <<= 1;
        if (dividend >= divisor) {
            dividend -= divisor;
            quotient |= 1;
        }
    }
    return quotient;
}
