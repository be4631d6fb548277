/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's heap: power-of-two classes with free lists over memory that is never touched before it is used, so that a
 * VM costs only what it needs. A block's class stands in front of it; pages have a region and a list of their own.
 */
#include "unikernel.h"

enum { CLASS_MIN = 5, CLASS_MAX = 22, PAGE = 4096 };

struct block {
    uint64_t class;
    struct block *next; /* while free; the user's memory starts at 16 bytes */
};

static struct block *lists[CLASS_MAX + 1];
static uint64_t low, high; /* blocks grow up from low, pages down from high */
static void *pages;

void heap_init(uint64_t start, uint64_t end)
{
    low = (start + 15) & ~UINT64_C(15);
    high = end & ~(uint64_t)(PAGE - 1);
}

uint64_t heap_left(void)
{
    return high - low;
}

void *unikernel_malloc(unsigned long size)
{
    unsigned class = CLASS_MIN;
    struct block *b;

    while (class <= CLASS_MAX && (UINT64_C(1) << class) < size + 16)
        class ++;
    if (class > CLASS_MAX)
        return NULL;
    b = lists[class];
    if (b) {
        lists[class] = b->next;
        return (uint8_t *)b + 16;
    }
    if (high - low < UINT64_C(1) << class)
        return NULL;
    b = (struct block *)low;
    low += UINT64_C(1) << class;
    b->class = class;
    return (uint8_t *)b + 16;
}

void *unikernel_calloc(unsigned long count, unsigned long size)
{
    void *p = size && count > UINT64_MAX / size ? NULL : unikernel_malloc(count * size);

    if (p)
        __builtin_memset(p, 0, count * size);
    return p;
}

void unikernel_free(void *memory)
{
    struct block *b = (struct block *)((uint8_t *)memory - 16);

    if (!memory)
        return;
    if ((uint64_t)memory >= high && (uint64_t)memory % PAGE == 0) {
        *(void **)memory = pages;
        pages = memory;
        return;
    }
    b->next = lists[b->class];
    lists[b->class] = b;
}

void *heap_pages(uint64_t count)
{
    if (high - low < (count + 1) * PAGE)
        return NULL;
    high -= count * PAGE;
    return (void *)high;
}

void *heap_page(void)
{
    void *page = pages;

    if (page) {
        pages = *(void **)page;
        return page;
    }
    return heap_pages(1);
}
