/* SPDX-License-Identifier: Apache-2.0 */
/* Open-addressing string map; removal shifts followers back, so there are no tombstones. Any process. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strmap.h"

static size_t hash_of(const char *key)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */

    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

void strmap_clear(struct strmap *map)
{
    free(map->slots);
    *map = (struct strmap){0};
}

/* The slot of key, or the empty one where it would go. capacity > count. */
static size_t slot_of(const struct strmap *map, const char *key)
{
    size_t i = hash_of(key) & (map->capacity - 1);

    while (map->slots[i].key && strcmp(map->slots[i].key, key) != 0)
        i = (i + 1) & (map->capacity - 1);
    return i;
}

static int grow(struct strmap *map)
{
    struct strmap bigger = {.capacity = map->capacity ? map->capacity * 2 : 16, .count = map->count};

    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].key)
            bigger.slots[slot_of(&bigger, map->slots[i].key)] = map->slots[i];
    free(map->slots);
    *map = bigger;
    return 0;
}

int strmap_put(struct strmap *map, const char *key, void *value)
{
    if ((map->count + 1) * 4 > map->capacity * 3 && grow(map) < 0)
        return -ENOMEM;
    struct strmap_slot *slot = &map->slots[slot_of(map, key)];
    map->count += !slot->key;
    slot->key = key;
    slot->value = value;
    return 0;
}

void *strmap_get(const struct strmap *map, const char *key)
{
    return map->capacity ? map->slots[slot_of(map, key)].value : NULL;
}

void *strmap_remove(struct strmap *map, const char *key)
{
    size_t mask = map->capacity - 1, hole, next;
    void *value;

    if (!map->capacity)
        return NULL;
    hole = slot_of(map, key);
    if (!map->slots[hole].key)
        return NULL;
    value = map->slots[hole].value;
    map->count--;
    for (next = (hole + 1) & mask; map->slots[next].key; next = (next + 1) & mask) {
        size_t home = hash_of(map->slots[next].key) & mask;
        /* an entry may move back only when its home is not between the hole and where it stands */
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            map->slots[hole] = map->slots[next];
            hole = next;
        }
    }
    map->slots[hole] = (struct strmap_slot){0};
    return value;
}
