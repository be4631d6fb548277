/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean": the nearest of several words, for error hints. Any process. */
#ifndef CORACLE_BASE_SUGGEST_H
#define CORACLE_BASE_SUGGEST_H

#include <stddef.h>

/* Optimal string alignment distance (insert, delete, replace, swap of neighbours), case ignored; words over 63 bytes
 * are never near anything. */
size_t suggest_distance(const char *a, const char *b);

/* One step of a search: `candidate` replaces *best when it is nearer to word than *best, and near enough to be meant
 * (distance at most a third of the word's length, at least 1). Start with *best = NULL. */
void suggest_offer(const char *word, const char *candidate, const char **best);

#endif
