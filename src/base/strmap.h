/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table from a string to a pointer. Keys are borrowed: they live in the value, as long as it is in the map.
 *
 * Linear probing, at most three quarters full; for lookups by id and name. One thread.
 */
#ifndef CORACLE_BASE_STRMAP_H
#define CORACLE_BASE_STRMAP_H

#include <stddef.h>

struct strmap_slot {
    const char *key; /* NULL: empty */
    void *value;
};

struct strmap {
    struct strmap_slot *slots; /* owned */
    size_t capacity;           /* a power of two, or 0 */
    size_t count;
};

/* Frees the table, not the values; leaves an empty map. */
void strmap_clear(struct strmap *map);

/* Adds or replaces. Returns 0 or -ENOMEM (the map is unchanged then). */
int strmap_put(struct strmap *map, const char *key, void *value);

/* NULL when there is none. */
void *strmap_get(const struct strmap *map, const char *key);

/* Takes the key out; returns its value or NULL. */
void *strmap_remove(struct strmap *map, const char *key);

#endif
